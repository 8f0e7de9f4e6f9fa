//! The one seam to other nodes: calls go down, events come up as values.
//!
//! An enum, not a trait: [`Cluster::Local`] is nodes of one process talking in
//! memory, one of them in production and several in tests. Whatever is above
//! this file does not know which it has. A question may be answered at once or
//! by an event later; both are part of every call's type, so that callers
//! handle both.
//!
//! What a cluster promises: envelopes from one node to another arrive in order
//! and at most once, or not at all; a node that is gone is told to everyone,
//! once. What it does not: that anything arrives. The origin keeps each message
//! until it has a receipt.

pub mod local;

use smol::channel::Receiver;

use crate::cluster::local::Local;
use crate::proto::{Envelope, Fate, NodeId, SessionId, UserName, UserRef};

pub use local::Mesh;

/// How a node reaches the others.
pub enum Cluster {
    /// Nodes of one process.
    Local(Local),
}

/// A node that holds sessions of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The user's sessions there; never empty.
    pub sessions: Vec<SessionId>,
}

/// Presence can't be asked now, or another node can't be reached: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// An answer now, or the promise of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The answer.
    Now(Result<T, Unavailable>),
    /// The event that the call names will follow, unless this node is cut off.
    Later,
}

/// What other nodes, or the services between them, tell this one.
#[derive(Debug)]
pub enum Event {
    /// The answer to [`Cluster::register`].
    Registered {
        /// The number that the call was given.
        number: u64,
        /// Where else the user was when the session was registered.
        others: Result<Vec<Place>, Unavailable>,
    },
    /// The answer to [`Cluster::locate`].
    Located {
        /// The user that was asked for.
        user: UserName,
        /// Where else the user is.
        places: Result<Vec<Place>, Unavailable>,
    },
    /// A message for a user of this node.
    Envelope {
        /// The origin.
        origin: NodeId,
        /// The message.
        envelope: Envelope,
    },
    /// The fate of a message of this origin.
    Receipt {
        /// The node that tells it.
        node: NodeId,
        /// The number of the envelope.
        number: u64,
        /// What became of it.
        fate: Fate,
    },
    /// A node is dead: nothing will come from it any more.
    Gone(NodeId),
    /// A session of this node was replaced by a login elsewhere.
    Replaced {
        /// The user.
        user: UserName,
        /// The session that ends.
        session: SessionId,
    },
}

impl Cluster {
    /// A node by itself: it needs no other service, and there is nobody to ask.
    pub fn alone(node: NodeId) -> Self {
        Cluster::Local(Local::alone(node))
    }

    /// This node's id.
    pub fn node(&self) -> &NodeId {
        match self {
            Cluster::Local(local) => local.node(),
        }
    }

    /// Tells whether there are no other nodes, and never will be.
    pub fn is_alone(&self) -> bool {
        match self {
            Cluster::Local(local) => local.is_alone(),
        }
    }

    /// Where events come up.
    pub fn events(&self) -> Receiver<Event> {
        match self {
            Cluster::Local(local) => local.events(),
        }
    }

    /// Tells everyone that `user` has `session` here, and asks where else the
    /// user was; or [`Event::Registered`] with `number` follows.
    pub fn register(&self, user: &UserName, session: SessionId, number: u64) -> Answer<Vec<Place>> {
        match self {
            Cluster::Local(local) => local.register(user, session, number),
        }
    }

    /// Takes back what [`Cluster::register`] told. It may be repeated.
    pub fn unregister(&self, user: &UserName, session: SessionId) {
        match self {
            Cluster::Local(local) => local.unregister(user, session),
        }
    }

    /// Asks on which other nodes a user has sessions; or [`Event::Located`] follows.
    pub fn locate(&self, user: UserRef<'_>) -> Answer<Vec<Place>> {
        match self {
            Cluster::Local(local) => local.locate(user),
        }
    }

    /// Hands a message to another node.
    ///
    /// # Errors
    /// [`Unavailable`] when the node is not there; the message was not sent.
    pub fn forward(&self, node: &NodeId, envelope: Envelope) -> Result<(), Unavailable> {
        match self {
            Cluster::Local(local) => local.forward(node, envelope),
        }
    }

    /// Tells the origin what became of its message.
    pub fn receipt(&self, origin: &NodeId, number: u64, fate: Fate) {
        match self {
            Cluster::Local(local) => local.receipt(origin, number, fate),
        }
    }

    /// Tells another node that a session of it was replaced by one here.
    pub fn replace(&self, node: &NodeId, user: &UserName, session: SessionId) {
        match self {
            Cluster::Local(local) => local.replace(node, user, session),
        }
    }

    /// Leaves in order: everyone is told that this node is gone.
    pub fn leave(&self) {
        match self {
            Cluster::Local(local) => local.leave(),
        }
    }
}
