//! What a node asks of presence and its mailboxes, and what comes up to it: values only.
//!
//! The node never calls anybody. What it wants to know or done it puts on a list ([`Ask`]); whoever drives it hands
//! each to presence, and brings the answer back with its ticket ([`Answer`]). Every ask that has an answer gets exactly
//! one, sooner or later, in the order of the asks of one kind for one user; one that comes too late finds nobody and
//! does no harm.
//!
//! What other nodes say comes as [`Said`]: items of a batch, with the numbers of messages as this
//! node knows them. What could not be carried comes back as [`Returned`]. The floors above translate
//! all of this to Redis and RabbitMQ, to a mesh in memory, or to a simulator; a node alone answers its own asks.

use crate::node::slab::Ticket;
use crate::proto::name::{NodeId, SessionId, UserName};
use crate::proto::wire::{Item, Message, Receipt};

/// What a node asks of presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Comes back with the answer; the default where nothing follows.
    pub ticket: Ticket,
    /// Whose sessions and mailbox it is about.
    pub user: UserName,
    /// What is asked, or to be done.
    pub what: What,
}

/// What is asked, or to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// On which other nodes is the user, who has a session on this one or has not? [`Answer::Located`] follows.
    Locate(bool),
    /// Write a session: others find it from now on. [`Answer::Registered`] follows.
    Register(SessionId),
    /// Remove a session of this node. [`Answer::Unregistered`] follows. May be asked of a session that was
    /// never written.
    Unregister(SessionId),
    /// Remove a session of another node, which was replaced. Nothing follows.
    Remove(NodeId, SessionId),
    /// Put messages into the mailbox, in this order, each the body of a message item (`wire::Message`), and tell where
    /// the user is after that. [`Answer::Stored`] follows.
    Store(Vec<Vec<u8>>),
    /// Read on in the mailbox, behind a place, which is 0 at first, for the one session that drains it: from then on
    /// no other session does, until [`What::Release`] or the session's end. [`Answer::Read`] follows.
    Read(SessionId, u64),
    /// Remove messages from the mailbox: all up to a place, and those at further places. May be repeated. Nothing
    /// follows.
    Take(u64, Vec<u64>),
    /// The session drains no more. Nothing follows.
    Release(SessionId),
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
    /// How many sessions of the user logged in before this one, here and elsewhere, those that are not let in included.
    pub earlier: usize,
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
    /// Another session drains it, which is on this other node, or on none.
    Busy(Option<NodeId>),
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`What::Locate`]: where else the user is, in the order of the logins.
    Located(Result<Vec<Location>, Unavailable>),
    /// To [`What::Register`].
    Registered(Result<Welcome, Unavailable>),
    /// To [`What::Unregister`]: others find the session no more, unless presence is away.
    Unregistered,
    /// To [`What::Store`]: what became of the messages, in their order, and where else the recipient is all the same,
    /// now that they are stored.
    Stored(Vec<Stored>, Result<Vec<Location>, Unavailable>),
    /// To [`What::Read`].
    Read(Result<Mail, Unavailable>),
}

/// What presence tells without being asked.
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a mesh has none"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A session of this node was replaced by a later login.
    Replaced(UserName, SessionId),
    /// Something lies in the mailbox of a user who is here.
    Mail(UserName),
    /// A user of this node is on these other nodes, too, and they may know this one by an id before this:
    /// each is to hear of the user's sessions here, as of a login that does not wait (`Announced`, login 0).
    Elsewhere(UserName, Vec<NodeId>),
    /// These sessions of other nodes are replaced by a later one of this node: each of those nodes is to
    /// hear of it (`Replaced`). Presence removes them by itself.
    Replaces(UserName, Vec<Location>),
}

/// What another node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A message. Its receipt names the number; without one nobody waits for it (`CAST`).
    Message(Option<u64>, Message<'a>),
    /// What became of messages of this node: those with these tickets of [`Say::Message`].
    Receipts(Receipt, &'a [u64]),
    /// Receipts of these take longer.
    Waits(&'a [u64]),
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
    /// The node is dead, or this one is another to it now: nothing that was said between them counts, and the node may
    /// have shown these, which have no receipt.
    Gone,
    /// It has no queue now, and some were published before: somebody may have them.
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
