//! The end of a turn: every outbox that was pushed to is written once.
//!
//! Turns note the outboxes they touched; one flusher task writes them after all
//! connections that were ready had their turn, so that what many send to one is
//! one system call. What was written settles fates, fates push replies, and
//! those are written in the same round.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use crate::outbox::Outbox;
use crate::router::Router;
use crate::table::Seat;

/// One step of a task: the time it began, and the outboxes it pushed to.
pub struct Turn {
    /// When the step began; every deadline that it sets counts from here.
    pub now: Instant,
    dirty: Vec<Arc<Outbox>>,
    /// Room for the sessions of a recipient, kept for the next message.
    pub(super) seats: Vec<Seat>,
}

/// Outboxes that wait for the flusher.
#[derive(Default)]
pub(super) struct Dirty {
    outboxes: Vec<Arc<Outbox>>,
    flusher: Option<Waker>,
}

impl Default for Turn {
    fn default() -> Self {
        Turn { now: Instant::now(), dirty: Vec::new(), seats: Vec::new() }
    }
}

impl Turn {
    /// Notes that something was pushed to an outbox.
    pub fn touch(&mut self, outbox: &Arc<Outbox>) {
        if outbox.mark_dirty() {
            self.dirty.push(outbox.clone());
        }
    }
}

impl Router {
    /// Ends a turn: what it touched will be written.
    pub fn end(&self, turn: &mut Turn) {
        turn.seats.clear();
        if turn.dirty.is_empty() {
            return;
        }
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.outboxes.append(&mut turn.dirty);
        let flusher = dirty.flusher.take();
        drop(dirty);
        if let Some(flusher) = flusher {
            flusher.wake();
        }
    }

    /// Writes what all turns have touched since the last call, then waits for more.
    pub fn poll_flush(&self, context: &mut Context<'_>, turn: &mut Turn) {
        let mut written = Vec::new();
        turn.now = Instant::now();
        loop {
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            let mut outboxes = std::mem::take(&mut dirty.outboxes);
            if outboxes.is_empty() {
                dirty.flusher = Some(context.waker().clone());
                return;
            }
            drop(dirty);
            let mut next = 0;
            while next < outboxes.len() {
                // Blocked and broken ones have woken their owners.
                outboxes[next].flush(turn.now, &mut written);
                next += 1;
                self.written(&mut written, turn);
                // A reply to somebody further down the list is written there; the rest comes behind.
                outboxes.append(&mut turn.dirty);
            }
        }
    }

    /// Writes one outbox now: for its owner, whose socket has room again.
    pub fn flush(&self, outbox: &Outbox, turn: &mut Turn) {
        let mut written = Vec::new();
        outbox.flush(turn.now, &mut written);
        self.written(&mut written, turn);
    }
}
