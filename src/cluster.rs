//! The one seam to other nodes: calls go down, events come up as values.
//!
//! An enum, not a trait: [`Cluster::Local`] is nodes of one process talking in
//! memory, one of them in production and several in tests; [`Cluster::Remote`]
//! is nodes on several machines. Whatever is above this file does not know which
//! it has. A question may be answered at once or by an event later; both are
//! part of every call's type, so that callers handle both.
//!
//! What a cluster promises: envelopes from one node to another arrive in order
//! and at most once, or not at all; the end of a node is told to everyone who
//! had to do with it, once. What it does not: that anything arrives. The origin
//! keeps each message until it has a receipt.
//!
//! Reading order: `events.rs` and `places.rs` are what is told; `local.rs` shows what
//! the calls mean, in memory. Of the remote cluster, `remote.rs` and `shared.rs`
//! join the parts; `presence.rs`, `sessions.rs`,
//! `lease.rs`, `remembered.rs`, `announced.rs` and `store.rs` are who is where; `bus.rs`,
//! `links.rs`, `link.rs`, `volume.rs` and `watchdog.rs` are how lines get there. `post.rs` and
//! `left.rs` are for users who are not here. `no_remote.rs` is in the place of all of the
//! remote cluster in a node that is built without the feature `cluster`.

mod events;
mod left;
pub mod local;
mod places;
mod post;

// The remote cluster, or, in a node that is built without it, what stands in its place.
#[cfg(feature = "cluster")]
mod announced;
#[cfg(feature = "cluster")]
mod bus;
#[cfg(feature = "cluster")]
mod lease;
#[cfg(feature = "cluster")]
mod link;
#[cfg(feature = "cluster")]
mod links;
#[cfg(feature = "cluster")]
mod presence;
#[cfg(feature = "cluster")]
mod remembered;
#[cfg_attr(not(feature = "cluster"), path = "cluster/no_remote.rs")]
pub mod remote;
#[cfg(feature = "cluster")]
mod sessions;
#[cfg(feature = "cluster")]
mod shared;
#[cfg(feature = "cluster")]
mod store;
#[cfg(feature = "cluster")]
mod volume;
#[cfg(feature = "cluster")]
mod watchdog;

use std::time::Instant;

use smol::channel::Receiver;

use crate::cluster::local::Local;
use crate::cluster::remote::Remote;
use crate::mailbox;
use crate::outbox::{SeenKeys, Shown};
use crate::proto::{Envelope, EnvelopeRef, Fate, NodeId, SessionId, UserName, UserRef};

pub use events::{Event, Incoming, Said};
pub use local::Mesh;
pub use places::{Place, Places};

/// How a node reaches the others.
pub enum Cluster {
    /// Nodes of one process.
    Local(Local),
    /// Nodes on several machines.
    Remote(Remote),
}

/// What a login is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Where else the user was when the session was registered.
    pub others: Vec<Place>,
    /// Something waits in the user's mailbox.
    pub has_mail: bool,
    /// Hashes of what the user was shown by sessions of other nodes that have ended.
    pub seen: Vec<u64>,
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

/// What a session that drains a mailbox gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// The next messages, oldest first; none are left when it is empty.
    Messages(Vec<mailbox::Stored>),
    /// Another session drains it.
    Busy,
}

/// Presence can't be asked now, or another node can't be reached: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// An answer now, or the promise of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The answer.
    Now(Result<T, Unavailable>),
    /// The event that the call names will follow.
    Later,
}

impl Cluster {
    /// A node by itself: it needs no other service, and there is nobody to ask.
    pub fn alone(node: NodeId, limits: mailbox::Limits) -> Self {
        Cluster::Local(Local::alone(node, limits))
    }

    /// This node's id: what others reach it by. It may change when they took it for dead.
    pub fn node(&self) -> NodeId {
        match self {
            Cluster::Local(local) => local.node(),
            Cluster::Remote(remote) => remote.node(),
        }
    }

    /// Tells whether there are no other nodes, and never will be.
    pub fn is_alone(&self) -> bool {
        match self {
            Cluster::Local(local) => local.is_alone(),
            Cluster::Remote(_) => false,
        }
    }

    /// Where everything comes up.
    pub fn incoming(&self) -> Receiver<Incoming> {
        match self {
            Cluster::Local(local) => local.incoming(),
            Cluster::Remote(remote) => remote.incoming(),
        }
    }

    /// Gives what came up to `take`, in order.
    pub fn unpack(&self, incoming: Incoming, take: &mut dyn FnMut(Said<'_>)) {
        match (self, incoming) {
            (_, Incoming::Event(event)) => take(Said::Event(event)),
            (_, Incoming::Envelope { origin, envelope }) => {
                take(Said::Envelope { origin: &origin, envelope: envelope.borrowed() });
            }
            (_, Incoming::Receipt { node, number, fate }) => {
                take(Said::Receipts { node: &node, numbers: &[number], fate });
            }
            (Cluster::Remote(remote), Incoming::Batch { epoch, batch }) => remote.unpack(epoch, &batch, take),
            (Cluster::Local(_), Incoming::Batch { .. }) => unreachable!("a mesh carries no batches"),
        }
    }

    /// Tells everyone that `user` has `session` here, and asks where else the
    /// user was; or [`Event::Registered`] with `number` follows.
    pub fn register(&self, user: &UserName, session: SessionId, number: u64) -> Answer<Welcome> {
        match self {
            Cluster::Local(local) => local.register(user, session, number),
            Cluster::Remote(remote) => remote.register(user, session, number),
        }
    }

    /// Takes back what [`Cluster::register`] told. It may be repeated. `shown`: what the
    /// session was shown. When others know of it, [`Event::Unregistered`] with `number`
    /// follows; `false` when nothing has to be waited for.
    pub fn unregister(&self, user: &UserName, session: SessionId, shown: Shown, number: u64) -> bool {
        match self {
            Cluster::Local(local) => {
                local.unregister(user, session, &shown);
                false
            }
            Cluster::Remote(remote) => remote.unregister(user, session, shown, number),
        }
    }

    /// Asks on which other nodes a user has sessions; or [`Event::Located`]
    /// follows. The answer may be remembered, and wrong by now: a node that does
    /// not have the user says so. `is_here`: the user has a session on this node.
    pub fn locate(&self, user: UserRef<'_>, is_here: bool, now: Instant) -> Answer<Places> {
        match self {
            Cluster::Local(local) => local.locate(user),
            Cluster::Remote(remote) => remote.locate(user, is_here, now),
        }
    }

    /// As [`Cluster::locate`], but nothing that is remembered counts.
    pub fn locate_now(&self, user: UserRef<'_>, is_here: bool) -> Answer<Places> {
        match self {
            Cluster::Local(local) => local.locate(user),
            Cluster::Remote(remote) => remote.ask(user, is_here),
        }
    }

    /// Where else a user was, if that is remembered: for when presence can't be asked.
    pub fn recall(&self, user: UserRef<'_>, is_here: bool, now: Instant) -> Option<Places> {
        match self {
            Cluster::Local(_) => None,
            Cluster::Remote(remote) => remote.recall(user, is_here, now),
        }
    }

    /// What was said of a user's places has turned out to be wrong.
    pub fn forget(&self, user: UserRef<'_>) {
        match self {
            Cluster::Local(_) => {}
            Cluster::Remote(remote) => remote.forget(user),
        }
    }

    /// Hands a message to another node.
    ///
    /// # Errors
    /// [`Unavailable`] when the node can't be reached; the message was not sent.
    pub fn forward(&self, node: &NodeId, envelope: EnvelopeRef<'_>, now: Instant) -> Result<(), Unavailable> {
        match self {
            Cluster::Local(local) => local.forward(node, envelope),
            Cluster::Remote(remote) => remote.forward(node, envelope, now),
        }
    }

    /// Tells the origin what became of its message.
    pub fn receipt(&self, origin: &NodeId, number: u64, fate: Fate, now: Instant) {
        match self {
            Cluster::Local(local) => local.receipt(origin, number, fate),
            Cluster::Remote(remote) => remote.receipt(origin, number, fate, now),
        }
    }

    /// Tells the origin that a receipt may take longer.
    pub fn tell_waits(&self, origin: &NodeId, number: u64) {
        match self {
            Cluster::Local(local) => local.tell_waits(origin, number),
            Cluster::Remote(remote) => remote.tell_waits(origin, number),
        }
    }

    /// Answers [`Event::Also`]: hashes of what a user was shown here.
    pub fn tell_shown(&self, node: &NodeId, user: &UserName, login: u64, seen: &[u64]) {
        match self {
            Cluster::Local(local) => local.tell_shown(node, user, seen),
            Cluster::Remote(remote) => remote.tell_shown(node, user, login, seen),
        }
    }

    /// Hashes of what a user was shown by sessions of this node, or process, that have ended.
    pub fn left(&self, user: &UserName) -> Vec<u64> {
        match self {
            Cluster::Local(local) => local.left(user),
            Cluster::Remote(remote) => remote.left(user),
        }
    }

    /// What messages are remembered by; all nodes have the same, or will have.
    pub fn seen_keys(&self) -> SeenKeys {
        match self {
            Cluster::Local(local) => local.seen_keys(),
            Cluster::Remote(remote) => remote.seen_keys(),
        }
    }

    /// Tells whether there are mailboxes.
    pub fn has_mailboxes(&self) -> bool {
        match self {
            Cluster::Local(local) => local.has_mailboxes(),
            Cluster::Remote(remote) => remote.has_mailboxes(),
        }
    }

    /// Puts a message into its recipient's mailbox, and tells where else the recipient is
    /// after that; or [`Event::Stored`] follows.
    pub fn store(&self, envelope: &Envelope, number: u64) -> Answer<(Stored, Places)> {
        match self {
            Cluster::Local(local) => local.store(envelope, number),
            Cluster::Remote(remote) => remote.store(envelope, number),
        }
    }

    /// Tells a node that something was stored for a user who is there all the same.
    pub fn tell_mail(&self, node: &NodeId, user: &UserName) {
        match self {
            Cluster::Local(local) => local.tell_mail(node, user),
            Cluster::Remote(remote) => remote.tell_mail(node, user),
        }
    }

    /// Tells a node that has refused messages to a user that all of them have come back.
    pub fn tell_resumes(&self, node: &NodeId, user: &UserName) {
        match self {
            Cluster::Local(local) => local.tell_resumes(node, user),
            Cluster::Remote(remote) => remote.tell_resumes(node, user),
        }
    }

    /// Reads on in the mailbox of a user, behind the place `after`, for a session that drains
    /// it: from then on no other session does, until [`Cluster::release`] or the session's end;
    /// or [`Event::Read`] follows.
    pub fn read(&self, user: &UserName, session: SessionId, after: u64) -> Answer<Mail> {
        match self {
            Cluster::Local(local) => local.read(user, session, after),
            Cluster::Remote(remote) => remote.read(user, session, after),
        }
    }

    /// Removes what was taken from a mailbox: all up to the place `up_to`, and those of `also`.
    /// It may be repeated.
    pub fn take(&self, user: &UserName, up_to: u64, also: Vec<u64>) {
        match self {
            Cluster::Local(local) => local.take(user, up_to, &also),
            Cluster::Remote(remote) => remote.take(user, up_to, also),
        }
    }

    /// The session drains the mailbox no more.
    pub fn release(&self, user: &UserName, session: SessionId) {
        match self {
            Cluster::Local(local) => local.release(user, session),
            Cluster::Remote(remote) => remote.release(session),
        }
    }

    /// Forgets what is too old: called once a minute.
    pub fn expire(&self, now: Instant) {
        match self {
            Cluster::Local(local) => local.expire(now),
            Cluster::Remote(remote) => remote.expire(now),
        }
    }

    /// Tells another node that a session of it was replaced by one here.
    pub fn replace(&self, node: &NodeId, user: &UserName, session: SessionId) {
        match self {
            Cluster::Local(local) => local.replace(node, user, session),
            Cluster::Remote(remote) => remote.replace(node, user, session),
        }
    }

    /// Sends off what was handed over since the last time: called when a turn ends.
    pub fn flush(&self) {
        match self {
            Cluster::Local(_) => {}
            Cluster::Remote(remote) => remote.flush(),
        }
    }

    /// Leaves in order: everyone is told that this node is gone. May take a few seconds.
    pub fn leave(&self) {
        match self {
            Cluster::Local(local) => local.leave(),
            Cluster::Remote(remote) => remote.leave(),
        }
    }
}
