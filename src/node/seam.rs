//! What a node asks of presence and its mailboxes, and what comes up to it: values only.
//!
//! The node never calls anybody. What it wants to know it puts on a list ([`Ask`]); whoever drives
//! it hands each to presence, and brings the answer back as an [`Answer`]. Every ask that has a token
//! gets exactly one answer with that token, sooner or later, in the order of the asks of one kind for one
//! user; an answer that comes too late finds nobody and does no harm.
//!
//! What other nodes say comes as [`Said`]: items of a batch, with the numbers of messages as this
//! node knows them. What could not be carried comes back as [`Returned`]. The floors above translate
//! all of this to Redis and RabbitMQ, to a mesh in memory, or to a simulator; a node alone answers its own asks.

use crate::proto::name::{NodeId, SessionId, UserName};
use crate::proto::wire::{Item, Message, Receipt};

/// Names a question until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// On which other nodes is a user? [`Answer::Located`] follows.
    Locate {
        /// Names the question.
        token: Token,
        /// The user.
        user: UserName,
        /// The user has a session on this node.
        is_here: bool,
    },
    /// Write a session: others find it from now on. [`Answer::Registered`] follows.
    Register {
        /// Names the question.
        token: Token,
        /// Whose session it is.
        user: UserName,
        /// Which it is.
        session: SessionId,
    },
    /// Remove a session of this node. [`Answer::Unregistered`] follows. May be asked of a session that was
    /// never written.
    Unregister {
        /// Names the question.
        token: Token,
        /// Whose session it was.
        user: UserName,
        /// Which it was.
        session: SessionId,
    },
    /// Remove a session of another node, which was replaced. Nothing follows.
    Remove {
        /// Whose session it was.
        user: UserName,
        /// Where it was.
        node: NodeId,
        /// Which it was.
        session: SessionId,
    },
    /// Put messages into their recipient's mailbox, in this order, and tell where the recipient is after
    /// that. [`Answer::Stored`] follows.
    Store {
        /// Names the question.
        token: Token,
        /// The recipient.
        user: UserName,
        /// The messages, each as the body of a message item (`wire::Message`).
        messages: Vec<Vec<u8>>,
    },
    /// Read on in a mailbox, behind the place `after`, for the one session that drains it: from then on
    /// no other session does, until [`Ask::Release`] or the session's end. [`Answer::Read`] follows.
    Read {
        /// Names the question.
        token: Token,
        /// Whose mailbox it is.
        user: UserName,
        /// The session that drains.
        session: SessionId,
        /// The place of the last message that was read; 0 at first.
        after: u64,
    },
    /// Remove messages from a mailbox: all up to the place `up_to`, and those at the places `also`. May be
    /// repeated. Nothing follows.
    Take {
        /// Whose mailbox it is.
        user: UserName,
        /// All up to this place,
        up_to: u64,
        /// and those at these.
        also: Vec<u64>,
    },
    /// The session drains no more. Nothing follows.
    Release {
        /// Whose mailbox it is.
        user: UserName,
        /// The session that drained.
        session: SessionId,
    },
}

/// Presence can't be asked now: nothing is known, and nothing was done that anybody relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// Sessions of a user on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The node.
    pub node: NodeId,
    /// Its sessions of the user, in the order of the logins; never none.
    pub sessions: Vec<SessionId>,
}

/// What a login is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// On which other nodes the user is, with sessions that logged in before this one.
    pub before: Vec<Location>,
    /// The same for those that logged in after it.
    pub after: Vec<Location>,
    /// Something waits in the user's mailbox.
    pub has_mail: bool,
}

/// What became of a message that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is in the mailbox.
    Yes,
    /// The mailbox is at its bound.
    Full,
    /// It was not stored.
    No,
    /// Nobody knows.
    Unknown,
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it stands: 1 at least, and later messages of a mailbox have higher places.
    pub place: u64,
    /// The message, as the body of a message item.
    pub body: Vec<u8>,
}

/// What a session that drains a mailbox gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// The next messages, oldest first; empty when none are left.
    Letters(Vec<Letter>),
    /// Another session drains it.
    Busy,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Locate`]: the other nodes of a user.
    Located {
        /// The question's.
        token: Token,
        /// Where else the user is, in the order of the logins.
        locations: Result<Vec<Location>, Unavailable>,
    },
    /// To [`Ask::Register`].
    Registered {
        /// The question's.
        token: Token,
        /// What the login is told.
        welcome: Result<Welcome, Unavailable>,
    },
    /// To [`Ask::Unregister`]: others find the session no more, unless presence is away.
    Unregistered {
        /// The question's.
        token: Token,
    },
    /// To [`Ask::Store`].
    Stored {
        /// The question's.
        token: Token,
        /// What became of the messages, in their order.
        fates: Vec<Stored>,
        /// Where else the recipient is all the same, now that they are stored.
        locations: Result<Vec<Location>, Unavailable>,
    },
    /// To [`Ask::Read`].
    Read {
        /// The question's.
        token: Token,
        /// What the session gets.
        mail: Result<Mail, Unavailable>,
    },
}

/// What presence tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A session of this node was replaced by a later login.
    Replaced {
        /// Whose session it is.
        user: UserName,
        /// Which it is.
        session: SessionId,
    },
    /// Something lies in the mailbox of a user who is here.
    Mail(UserName),
    /// A user of this node is on these other nodes, too, and they may know this one by an id before this:
    /// each is to hear of the user's sessions here, as of a login that does not wait (`Announced`, login 0).
    Elsewhere {
        /// The user.
        user: UserName,
        /// The other nodes.
        nodes: Vec<NodeId>,
    },
    /// These sessions of other nodes are replaced by a later one of this node: each of those nodes is to
    /// hear of it (`Replaced`). Presence removes them by itself.
    Replaces {
        /// Whose sessions they are.
        user: UserName,
        /// Where they are.
        locations: Vec<Location>,
    },
}

/// What another node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A message. Its receipt names `number`; without one nobody waits for it (`CAST`).
    Message {
        /// The number for [`Say::Receipt`].
        number: Option<u64>,
        /// The message.
        message: Message<'a>,
    },
    /// What became of messages of this node: those with these tickets.
    Receipts {
        /// What.
        receipt: Receipt,
        /// The tickets of [`Say::Message`].
        tickets: &'a [u64],
    },
    /// Receipts of these take longer.
    Waits {
        /// The tickets of [`Say::Message`].
        tickets: &'a [u64],
    },
    /// Anything else: never a message, receipts or waits.
    Other(Item<'a>),
}

/// Why messages came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The node has no queue now: they were never taken by anybody.
    NotThere,
    /// The node is dead: these were never taken by anybody, and nothing ever will be.
    Dead,
    /// The same of some that were published before: somebody may have them.
    MaybeSeen,
    /// The broker can't be reached, so no other node can be: they were never sent.
    CutOff,
}

/// Messages that could not be carried to a node: all that its link held, in order, or all that were given
/// to it since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The node.
    pub node: NodeId,
    /// The tickets of the messages that have one.
    pub tickets: Vec<u64>,
    /// How many came back that nobody waits for.
    pub casts: u64,
    /// Why.
    pub cause: Cause,
}
