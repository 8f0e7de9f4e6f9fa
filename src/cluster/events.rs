//! What comes up from a cluster.

use crate::cluster::{Mail, Places, Stored, Unavailable, Welcome};
use crate::proto::{Envelope, EnvelopeRef, Fate, NodeId, SessionId, UserName};

/// What other nodes, or the services between them, tell this one.
#[derive(Debug)]
pub enum Event {
    /// The answer to [`Cluster::unregister`](super::Cluster::unregister): others find the session no
    /// more, unless presence is away.
    Unregistered {
        /// The number that the call was given.
        number: u64,
    },
    /// The answer to [`Cluster::register`](super::Cluster::register).
    Registered {
        /// The number that the call was given.
        number: u64,
        /// What the login is told.
        welcome: Result<Welcome, Unavailable>,
    },
    /// The answer to [`Cluster::store`](super::Cluster::store), for several messages to one user.
    Stored {
        /// The user.
        user: UserName,
        /// What became of them, by the numbers that the calls were given.
        fates: Vec<(u64, Stored)>,
        /// Where else the user is all the same, now that they are stored.
        places: Result<Places, Unavailable>,
    },
    /// The answer to [`Cluster::read`](super::Cluster::read).
    Read {
        /// The session that drains.
        session: SessionId,
        /// What it gets.
        mail: Result<Mail, Unavailable>,
    },
    /// Something was stored for a user who is here all the same.
    Mail(UserName),
    /// Another node has back all that it has sent to a user and was refused here.
    Resumes {
        /// The node.
        node: NodeId,
        /// The user.
        user: UserName,
    },
    /// A user of this node has logged in on another one, which wants to know what the user was
    /// shown: [`Cluster::tell_shown`](super::Cluster::tell_shown).
    Also {
        /// That node.
        node: NodeId,
        /// The user.
        user: UserName,
        /// That node's number for the login.
        login: u64,
    },
    /// What a user of this node was shown on another one.
    Shown {
        /// The user.
        user: UserName,
        /// Hashes of the messages.
        seen: Vec<u64>,
    },
    /// The answer to [`Cluster::locate`](super::Cluster::locate).
    Located {
        /// The user that was asked for.
        user: UserName,
        /// Where else the user is.
        places: Result<Places, Unavailable>,
    },
    /// A message is with a session that has not acknowledged it yet: its receipt may take longer.
    Waits {
        /// The node that tells it.
        node: NodeId,
        /// The number of the envelope.
        number: u64,
    },
    /// A node is dead, or this one has a new id: nothing that was said between them counts.
    Gone(NodeId),
    /// Messages could not be carried to a node, which may live all the same.
    Returned {
        /// The node.
        node: NodeId,
        /// The numbers of the envelopes.
        numbers: Vec<u64>,
        /// An earlier attempt may have carried them.
        maybe_seen: bool,
    },
    /// A user to whom this node sends is on further nodes: ask again, and send there too what
    /// is on its way.
    Changed {
        /// The node that tells it.
        node: NodeId,
        /// The user.
        user: UserName,
    },
    /// A session of this node was replaced by a login elsewhere.
    Replaced {
        /// The user.
        user: UserName,
        /// The session that ends.
        session: SessionId,
    },
}

/// What comes up from a cluster, as it came; [`Cluster::unpack`](super::Cluster::unpack) tells what it says.
#[derive(Debug)]
pub enum Incoming {
    /// An event.
    Event(Event),
    /// A message from a node of this process.
    Envelope {
        /// The origin.
        origin: NodeId,
        /// The message.
        envelope: Envelope,
    },
    /// The fate of a message that a node of this process has.
    Receipt {
        /// That node.
        node: NodeId,
        /// The number of the envelope.
        number: u64,
        /// What became of it.
        fate: Fate,
    },
    /// What another node says, as it came.
    Batch {
        /// Which of this node's incarnations it came to.
        epoch: u64,
        /// What it says.
        batch: Vec<u8>,
    },
}

/// What is said to this node. What there is most of borrows from the batch that it came in.
#[derive(Debug)]
pub enum Said<'a> {
    /// A message for a user of this node.
    Envelope {
        /// The origin.
        origin: &'a NodeId,
        /// The message.
        envelope: EnvelopeRef<'a>,
    },
    /// The fate of messages of this origin.
    Receipts {
        /// The node that tells it.
        node: &'a NodeId,
        /// The numbers of the envelopes.
        numbers: &'a [u64],
        /// What became of them.
        fate: Fate,
    },
    /// Anything else.
    Event(Event),
}

impl Said<'_> {
    /// How many messages, receipts or events it is.
    pub fn count(&self) -> usize {
        match self {
            Said::Receipts { numbers, .. } => numbers.len(),
            Said::Envelope { .. } | Said::Event(_) => 1,
        }
    }
}
