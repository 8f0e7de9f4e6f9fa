//! The one seam to other nodes: what the node says and asks goes down, events come up.
//!
//! An enum, not a trait: a node by itself, nodes of one process talking in memory
//! ([`Mesh`]), or nodes on several machines (`Remote`). Whatever is above this file does not
//! know which it has.
//!
//! What a cluster promises: what one node says to another arrives in order and at most
//! once, or not at all; what certainly did not arrive comes back, the end of a node is told
//! to everyone who had to do with it, once. What it does not: that anything arrives. The
//! origin keeps each message until it has a receipt.
//!
//! Reading order: `event.rs` is what comes up. `links.rs` and `link.rs` are how batches get from
//! node to node, `way.rs` says when they do not; `mesh.rs` shows what the calls mean, in memory. Of several machines, `remote.rs` and
//! `shared.rs` join the parts; `presence.rs`, `command.rs`, `lease.rs` and `sessions.rs` decide what Redis
//! is asked and what it means, `redis_thread.rs` and `redis_commands.rs` carry that, `permissions.rs` asks whether all of it is allowed; `bus.rs`,
//! `reach.rs` and `watchdog.rs` carry batches.

pub mod event;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a mesh needs a part of it"))]
pub mod link;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a mesh needs a part of it"))]
pub mod links;
pub mod mesh;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a mesh needs a part of it"))]
mod way;

// Nodes on several machines.
#[cfg(feature = "cluster")]
mod bus;
#[cfg(feature = "cluster")]
pub mod command;
#[cfg(feature = "cluster")]
pub mod lease;
#[cfg(feature = "cluster")]
mod permissions;
#[cfg(feature = "cluster")]
pub mod presence;
#[cfg(feature = "cluster")]
pub mod reach;
#[cfg(feature = "cluster")]
mod reasons;
#[cfg(feature = "cluster")]
pub mod redis_commands;
#[cfg(all(any(test, feature = "internals"), feature = "cluster"))]
pub mod redis_model;
#[cfg(feature = "cluster")]
mod redis_thread;
#[cfg(feature = "cluster")]
pub mod remote;
#[cfg(feature = "cluster")]
mod sessions;
#[cfg(feature = "cluster")]
mod shared;
#[cfg(feature = "cluster")]
mod watchdog;

use std::time::{Duration, Instant};

use smol::channel::{Receiver, unbounded};

use crate::cluster::event::{Batch, ClusterEvent};
use crate::cluster::mesh::MeshNode;
#[cfg(feature = "cluster")]
use crate::cluster::remote::Remote;
use crate::node::out::Says;
use crate::node::seam::{Ask, Said};
use crate::proto::name::NodeId;

pub use crate::cluster::mesh::Mesh;
pub use crate::random::fresh_id;

/// How a node reaches the others.
pub enum Cluster {
    /// A node by itself, which answers its own asks: there is nobody to talk to.
    Alone(NodeId),
    /// Nodes of one process.
    Mesh(MeshNode),
    /// Nodes on several machines.
    #[cfg(feature = "cluster")]
    Remote(Remote),
}

/// What a node by itself does, or else a call to what joins it to others.
macro_rules! of {
    ($cluster:expr, $node:pat => $alone:expr, $others:ident => $call:expr) => {
        match $cluster {
            Cluster::Alone($node) => $alone,
            Cluster::Mesh($others) => $call,
            #[cfg(feature = "cluster")]
            Cluster::Remote($others) => $call,
        }
    };
}

impl Cluster {
    /// This node's id: what others reach it by. [`ClusterEvent::Renamed`] tells a new one.
    pub fn node(&self) -> NodeId {
        of!(self, node => node.clone(), others => others.node())
    }

    /// Waits until this node can be reached by others; `false` when that took too long.
    pub fn wait_until_joined(&self, time_max: Duration) -> bool {
        of!(self, _ => true, others => others.wait_until_joined(time_max))
    }

    /// Tells whether it can be, and users can log in.
    #[cfg(feature = "websocket")]
    pub fn is_joined(&self) -> bool {
        of!(self, _ => true, others => others.is_joined())
    }

    /// Where everything comes up; for a node by itself nothing ever does, and it is closed.
    pub fn incoming(&self) -> Receiver<ClusterEvent> {
        of!(self, _ => unbounded().1, others => others.incoming())
    }

    /// Sends off what the node says to others, in order: called when a turn ends, and once a second at least. A
    /// message that can't be carried comes back as [`ClusterEvent::Returned`].
    pub fn say(&self, says: &mut Says, now: Instant) {
        of!(self, _ => says.drain(|_, _| {}), others => others.say(says, now));
    }

    /// Asks presence and mailboxes; what an ask promises comes up as [`ClusterEvent::Answered`].
    pub fn ask(&self, asks: impl Iterator<Item = Ask>) {
        of!(self, _ => asks.for_each(drop), others => others.ask(asks));
    }

    /// Gives to `take` what a batch says, in order, with the node that says it.
    pub fn unpack(&self, batch: &Batch, now: Instant, take: &mut dyn FnMut(&NodeId, Said<'_>)) {
        of!(self, _ => (), others => others.unpack(batch, now, take));
    }

    /// Leaves in order: everyone is told that this node is gone. May take a few seconds.
    pub fn leave(&self) {
        of!(self, _ => (), others => others.leave());
    }
}
