//! What the threads of a node in a cluster share: its own, the bus and presence.
//!
//! The links are behind one lock: what is said waits there for the bus, encoded. Behind
//! another lies the desk, with what is for presence, and how far the node has come. While
//! presence is away an ask is answered at the desk, at once, so that nobody waits for it to
//! find out; and those that had come before are answered first. Both locks are held for a
//! few lines.

use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as Bell;
use smol::channel::Sender;

use crate::cluster::event::{ClusterEvent, unavailable};
use crate::cluster::links::Links;
use crate::node::seam::{Answer, Ask, What};
use crate::proto::name::{NodeId, SessionId, UserName};

/// What the node's thread, the bus and presence share.
pub struct Shared {
    links: Mutex<Links>,
    desk: Mutex<Desk>,
    changed: Condvar,
    incoming: Sender<ClusterEvent>,
    /// Batches that the node has taken over.
    pub taken: AtomicU64,
    bell: Bell<()>,
}

/// What they leave for each other.
#[derive(Default)]
pub struct Desk {
    /// For presence.
    pub notes: Vec<Note>,
    /// Presence can be asked.
    pub is_open: bool,
    pub is_stopping: bool,
    /// Others can reach this node.
    pub has_joined: bool,
    pub bus_has_ended: bool,
}

/// One thing for presence.
pub enum Note {
    /// The node asks.
    Ask(Ask),
    /// A session has ended, and the node was told so already.
    Ended(UserName, SessionId),
    /// There is a queue for this id, or none.
    Queue(Option<NodeId>),
    /// What other nodes said of replaced sessions may be lost: all sessions are to be written again.
    AssertAll,
}

impl Shared {
    /// What a node begins with.
    pub fn new(me: NodeId, incoming: Sender<ClusterEvent>, bell: Bell<()>) -> Self {
        let (links, taken) = (Mutex::new(Links::new(me)), AtomicU64::new(0));
        Shared { links, desk: Mutex::default(), changed: Condvar::new(), incoming, taken, bell }
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

    /// The desk, to look at.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing is left half changed.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what lies on the desk, and wakes whoever waits for it.
    pub fn change(&self, change: impl FnOnce(&mut Desk)) {
        change(&mut self.desk());
        self.changed.notify_all();
    }

    /// Leaves a note for presence.
    pub fn note(&self, note: Note) {
        self.change(|desk| desk.notes.push(note));
    }

    /// Waits while that is so; `true` when it still is after the longest time.
    pub fn wait_while(
        &self,
        time_max: Duration,
        is_so: impl FnMut(&mut Desk) -> bool,
    ) -> (MutexGuard<'_, Desk>, bool) {
        let waited = self.changed.wait_timeout_while(self.desk(), time_max, is_so);
        let (desk, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (desk, result.timed_out())
    }

    /// Takes the notes for presence; waits until there are some, or the node goes, or until then.
    pub fn take(&self, until: Instant) -> Vec<Note> {
        let wait = until.saturating_duration_since(Instant::now());
        let nothing = |desk: &mut Desk| desk.notes.is_empty() && !desk.is_stopping;
        std::mem::take(&mut self.wait_while(wait, nothing).0.notes)
    }

    /// Takes what the node asks; what presence can't answer now is answered.
    pub fn ask(&self, asks: impl Iterator<Item = Ask>) {
        let answer = |ticket, answer| self.hand_up(ClusterEvent::Answered(ticket, answer));
        self.change(|desk| {
            for ask in asks {
                let refusal = if desk.is_open { None } else { unavailable(&ask) };
                match (refusal, ask) {
                    (Some(refusal), ask) => answer(ask.ticket, refusal),
                    (None, Ask { ticket, user, what: What::Unregister(session) }) if !desk.is_open => {
                        answer(ticket, Answer::Unregistered);
                        desk.notes.push(Note::Ended(user, session));
                    }
                    (None, ask) => desk.notes.push(Note::Ask(ask)),
                }
            }
        });
    }

    /// There is no presence any more: what the node asks is refused, until it goes.
    pub fn refuse_all(&self) {
        self.change(|desk| desk.is_open = false);
        while !self.desk().is_stopping {
            drop(self.take(Instant::now() + Duration::from_secs(60)));
        }
    }
}
