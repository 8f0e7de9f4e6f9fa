//! The end of a turn: every outbox that was pushed to is written once.
//!
//! Turns note the outboxes they touched; one flusher task writes them after all
//! connections that were ready had their turn, so that what many send to one is
//! one system call. What was written settles fates, fates push replies, and
//! those are written in the same round.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use crate::cluster::Places;
use crate::outbox::{Dirty, Outbox};
use crate::proto::reply::print_msg;
use crate::proto::{IdRef, UserName, UserRef};
use crate::router::Router;
use crate::table::Seat;

/// One step of a task: the time it began, and the outboxes it pushed to.
pub struct Turn {
    /// When the step began; every deadline that it sets counts from here.
    pub now: Instant,
    /// What the step pushed to.
    pub dirty: Dirty,
    /// The sessions that were looked up last.
    pub(super) seats: Vec<Seat>,
    /// Whose they are, and the table's count of changes when they were; nobody's when they may not be
    /// all.
    pub(super) seats_of: Option<UserName>,
    pub(super) seats_at: u64,
    /// Where else that user is, if it was told since the last read.
    places: Places,
    /// The line of the message that is handed out.
    pub(super) line: Vec<u8>,
}

/// Outboxes that wait for the flusher.
#[derive(Default)]
pub(super) struct Unflushed {
    outboxes: VecDeque<Arc<Outbox>>,
    flusher: Option<Waker>,
}

/// Outboxes that one step of the flusher writes before connections that are ready have a turn.
const FLUSHES_MAX: usize = 24;

impl Default for Turn {
    fn default() -> Self {
        Turn {
            now: Instant::now(),
            dirty: Dirty::default(),
            seats: Vec::new(),
            seats_of: None,
            seats_at: 0,
            places: Places::default(),
            line: Vec::new(),
        }
    }
}

impl Turn {
    /// Tells whether the sessions are those of this user.
    pub(super) fn is_of(&self, user: UserRef<'_>) -> bool {
        self.seats_of.as_ref().is_some_and(|of| of.borrowed() == user)
    }

    /// The name of a user to keep, without another allocation if there is one already.
    pub(super) fn name(&self, user: UserRef<'_>) -> UserName {
        match &self.seats_of {
            Some(of) if of.borrowed() == user => of.clone(),
            _ => user.into(),
        }
    }

    /// Prints the line of a message, in the place of the one before.
    pub(super) fn print(&mut self, from: UserRef<'_>, id: IdRef<'_>, text: &str) {
        self.line.clear();
        print_msg(from, id, text, &mut self.line);
    }

    /// Where else a user is, if that was told since the last read.
    pub(super) fn places_of(&self, user: UserRef<'_>) -> Option<Places> {
        let is_told = !self.places.is_empty() && self.is_of(user);
        is_told.then(|| self.places.clone())
    }

    /// It was told where else a user is.
    pub(super) fn set_places(&mut self, user: UserRef<'_>, places: &Places) {
        if !places.is_empty() && self.places.is_empty() && self.is_of(user) {
            self.places = places.clone();
        }
    }

    /// Where users are may not be so any more: what is read from now on may have been sent because of it.
    pub fn forget_places(&mut self) {
        self.places = Places::default();
    }

    /// Takes out the sessions, while something is done that may look for those of others.
    pub(super) fn take_seats(&mut self) -> Vec<Seat> {
        std::mem::take(&mut self.seats)
    }

    /// Puts them back, for this message alone: the next one is looked up.
    pub(super) fn put_seats(&mut self, seats: Vec<Seat>) {
        self.seats_of = None;
        self.forget_places();
        self.seats = seats;
    }

    /// Holds no session any more.
    fn forget_seats(&mut self) {
        self.seats_of = None;
        self.forget_places();
        self.seats.clear();
    }
}

impl Router {
    /// Ends a turn: what it pushed to will be written.
    pub fn end(&self, turn: &mut Turn) {
        turn.forget_seats();
        if turn.dirty.0.is_empty() {
            return self.cluster.flush();
        }
        let mut unflushed = self.unflushed();
        unflushed.outboxes.extend(turn.dirty.0.drain(..));
        let flusher = unflushed.flusher.take();
        drop(unflushed);
        if let Some(flusher) = flusher {
            flusher.wake();
        }
    }

    /// Writes what turns have pushed to since the last call, then waits for more.
    pub fn poll_flush(&self, context: &mut Context<'_>, turn: &mut Turn) {
        self.flush_some(context, turn);
        turn.forget_seats();
    }

    fn flush_some(&self, context: &mut Context<'_>, turn: &mut Turn) {
        let mut written = Vec::new();
        turn.now = Instant::now();
        for _ in 0..FLUSHES_MAX {
            let mut unflushed = self.unflushed();
            // Replies to somebody further down the list are written there; the rest comes behind.
            unflushed.outboxes.extend(turn.dirty.0.drain(..));
            let Some(outbox) = unflushed.outboxes.pop_front() else {
                unflushed.flusher = Some(context.waker().clone());
                drop(unflushed);
                // After everybody's turn: what goes to other nodes goes in few batches.
                return self.cluster.flush();
            };
            drop(unflushed);
            // What blocks is its owner's business: the flush that met it has woken the owner.
            outbox.flush_unless_blocked(turn.now, &mut written);
            self.written(&mut written, turn);
        }
        self.unflushed().outboxes.extend(turn.dirty.0.drain(..));
        context.waker().wake_by_ref();
    }

    /// Writes one outbox now: for its owner, whose socket has room again.
    pub fn flush(&self, outbox: &Outbox, turn: &mut Turn) {
        let mut written = Vec::new();
        outbox.flush(turn.now, &mut written);
        self.written(&mut written, turn);
    }

    fn unflushed(&self) -> MutexGuard<'_, Unflushed> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
