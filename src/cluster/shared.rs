//! What the threads of a node in a cluster share: its own, the bus and presence.
//!
//! The links are behind one lock: what is said waits there for the bus, encoded. What is
//! for presence, and how far the node has come, lies on the desk. Both are held for a few
//! lines, and never one within the other.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::Sender as Bell;
use smol::channel::Sender;

use crate::cluster::desk::Desk;
use crate::cluster::event::ClusterEvent;
use crate::cluster::links::Links;
use crate::proto::name::NodeId;

/// What the node's thread, the bus and presence share.
pub struct Shared {
    links: Mutex<Links>,
    pub desk: Desk,
    incoming: Sender<ClusterEvent>,
    /// Batches that the node has taken over.
    pub taken: AtomicU64,
    bell: Bell<()>,
}

impl Shared {
    /// What a node begins with.
    pub fn new(me: NodeId, incoming: Sender<ClusterEvent>, bell: Bell<()>) -> Self {
        let (links, taken) = (Mutex::new(Links::new(me)), AtomicU64::new(0));
        Shared { links, desk: Desk::default(), incoming, taken, bell }
    }

    /// Does something with the links; what they have to tell goes up before anybody else has them.
    pub fn links<T>(&self, work: impl FnOnce(&mut Links) -> T) -> T {
        // They are not left half changed.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut links);
        links.events().for_each(|event| self.hand_up(event));
        done
    }

    /// Hands something up.
    pub fn hand_up(&self, event: ClusterEvent) {
        // Fails only when the node is gone.
        let _ = self.incoming.try_send(event);
    }

    /// Wakes the bus.
    pub fn ring(&self) {
        // Full means that it is rung already.
        let _ = self.bell.try_send(());
    }
}
