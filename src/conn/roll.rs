//! The roll: every connection of a node, to ask all of them to end and to wait
//! until they have, and to reach one by its number: when its socket is ready, or its
//! deadline has come.
//!
//! A slab of outboxes behind one lock; a connection enters when it is made and
//! leaves when it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::outbox::Outbox;
use crate::proto::CloseReason;
use crate::readiness::Ready;

/// Every connection of a node, to reach all of them at once.
#[derive(Default)]
pub struct Roll {
    state: Mutex<RollState>,
}

#[derive(Default)]
struct RollState {
    outboxes: Vec<Option<Arc<Outbox>>>,
    free: Vec<usize>,
    /// Waits until all have left.
    waiting: Option<Waker>,
}

impl Roll {
    /// How many connections there are.
    pub fn len(&self) -> usize {
        let state = self.lock();
        state.outboxes.len() - state.free.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks every connection to end.
    pub fn close(&self, reason: CloseReason) {
        self.each(|outbox| outbox.close(reason));
    }

    /// Does something with the outbox of every connection.
    pub fn each(&self, act: impl FnMut(&Arc<Outbox>)) {
        let outboxes: Vec<_> = self.lock().outboxes.iter().flatten().cloned().collect();
        outboxes.iter().for_each(act);
    }

    /// Tells connections what their sockets are ready for, or that they are due, each by its place.
    pub fn tell_ready(&self, ready: &[(usize, Ready)]) {
        let state = self.lock();
        let of = |(place, ready): &(usize, Ready)| Some((state.outboxes.get(*place)?.clone()?, *ready));
        let mut told = Vec::with_capacity(ready.len());
        told.extend(ready.iter().filter_map(of));
        drop(state);
        // What was meant for a connection that has just left may reach the next one in its place, which
        // then finds nothing to read, or no deadline that has come.
        told.iter().for_each(|(outbox, ready)| outbox.tell_ready(*ready));
    }

    /// Waits until every connection has ended.
    pub async fn all_gone(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            state.waiting = Some(context.waker().clone());
            if state.outboxes.len() == state.free.len() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes a connection in, and returns its place.
    pub(super) fn enter(&self, outbox: Arc<Outbox>) -> usize {
        let mut state = self.lock();
        let place = state.free.pop().unwrap_or(state.outboxes.len());
        if place == state.outboxes.len() {
            state.outboxes.push(None);
        }
        state.outboxes[place] = Some(outbox);
        place
    }

    /// Gives a place free.
    pub(super) fn leave(&self, place: usize) {
        let mut state = self.lock();
        let outbox = state.outboxes[place].take();
        state.free.push(place);
        let waker = (state.outboxes.len() == state.free.len()).then(|| {
            // A crowd has left: its memory goes back.
            state.outboxes = Vec::new();
            state.free = Vec::new();
            state.waiting.take()
        });
        drop(state);
        drop(outbox);
        if let Some(waker) = waker.flatten() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, RollState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
