//! What waits for an answer: most of all messages, with all that is known of them.

use std::sync::Arc;

use smol::channel::Sender;

use crate::cluster::{Unavailable, Welcome};
use crate::outbox::{Outbox, ReplyTo, Ticket};
use crate::proto::{Envelope, Fate, MessageId, NodeId, SessionId, UserName};

/// What waits for an answer. There is room for the largest in every slot of the table: what is rare and
/// large is in a box.
pub enum Question {
    /// A message that was sent here.
    Sent(Sent),
    /// A message that another node forwarded here.
    Received(Received),
    /// A `WHO` that waits for presence.
    Who {
        /// Who asks.
        asker: Arc<Outbox>,
        /// Where the answer goes.
        reply: ReplyTo,
    },
    /// A message that goes to further nodes of its recipient, too.
    Further {
        /// The message, if it has no fate yet.
        of: Ticket,
        /// The message.
        envelope: Box<Envelope>,
        /// The nodes that have it.
        nodes: Vec<NodeId>,
    },
    /// A `CAST` that waits for presence: nobody waits for it.
    Cast {
        /// The message.
        envelope: Box<Envelope>,
        /// Sessions of this node have it.
        is_taken: bool,
    },
    /// A connection that ends when others know that its session is gone.
    Leaving(Arc<Outbox>),
    /// A `LOGIN` that waits for presence.
    Login(Sender<Result<Welcome, Unavailable>>),
    /// A message from a mailbox, with the session that drains it.
    Mail {
        /// The session.
        session: SessionId,
        /// The message's place in the mailbox.
        place: u64,
    },
}

/// A message whose sender waits.
pub struct Sent {
    /// The sender's connection.
    pub sender: Arc<Outbox>,
    /// Where its reply goes.
    pub reply: ReplyTo,
    /// The message's id.
    pub id: MessageId,
    /// Sessions here and nodes elsewhere that have it and have not answered.
    pub parties: u32,
    /// How often it was routed again.
    pub retries: u8,
    /// It was with a node that died: it may have been written there.
    pub maybe_seen: bool,
    /// What those who lost it have told: how far it came.
    pub lost: Fate,
    /// Later messages to the same user wait for its fate (`again.rs`).
    pub is_awaited: bool,
    /// Kept for messages that are not only with sessions of this node.
    pub remote: Option<Box<Remote>>,
}

/// What it takes to route a message again.
pub struct Remote {
    /// The message.
    pub envelope: Envelope,
    /// The nodes that have it and have not answered.
    pub nodes: Vec<NodeId>,
}

/// A message whose origin waits.
pub struct Received {
    /// The node that forwarded it.
    pub origin: NodeId,
    /// The origin's number for it.
    pub number: u64,
    /// Others have it too.
    pub is_shared: bool,
    /// Its recipient.
    pub to: UserName,
    /// Sessions that have it and have not answered.
    pub parties: u32,
    /// What those who lost it have told: how far it came.
    pub lost: Fate,
}

impl Sent {
    /// A message that `parties` sessions of this node are about to have.
    pub fn new(sender: Arc<Outbox>, reply: ReplyTo, id: MessageId, parties: u32) -> Self {
        let (retries, maybe_seen, lost, is_awaited) = (0, false, Fate::NotHere, false);
        Sent { sender, reply, id, parties, retries, maybe_seen, lost, is_awaited, remote: None }
    }

    /// Tells whether somebody may have seen it, or has.
    pub fn may_be_seen(&self) -> bool {
        self.maybe_seen || self.lost != Fate::NotHere
    }

    /// The recipient, if later messages wait for the fate of this one.
    pub fn awaited_for(&self) -> Option<&UserName> {
        self.remote.as_ref().filter(|_| self.is_awaited).map(|remote| &remote.envelope.to)
    }
}
