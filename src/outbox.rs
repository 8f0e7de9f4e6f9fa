//! The outbox: bounded bytes waiting for one connection.
//!
//! Everybody pushes, nobody waits: a push appends to memory, and one flush at
//! the end of a turn writes all that gathered with one system call. Messages
//! carry a ticket; the flush hands back the tickets of those whose last byte
//! the socket took, and whoever ends the connection gets back the rest with
//! their text. So every message in here has exactly one fate.
//!
//! The outbox also keeps replies in order: a reply that is due later reserves
//! its place, and replies behind it wait until it is known.
//!
//! A connection is known to the rest of the node by its outbox alone, so what its socket is ready for
//! is told here, too. Left out: reading, and what tickets mean.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::metrics::Metrics;
use crate::outbox::state::{CALM, Locked, OPEN, ROOM, State, TAKES_REQUESTS, Waiting};
use crate::proto::CloseReason;
use crate::readiness::{DUE, Ready, WRITABLE};

mod bytes;
mod ledger;
mod messages;
mod replies;
mod seen;
mod seen_key;
mod sink;
mod spares;
mod state;

pub use bytes::{Bytes, Framing, Unwritten};
pub use ledger::{ACK_TIME_MAX, Acked, Overdue, UNACKED_MAX};
pub use messages::{Kind, Message, Push};
pub use replies::ReplyTo;
pub use seen::{SEEN_MAX, SEEN_TIME, Shown, merged};
pub use seen_key::{Hashes, SeenKey, SeenKeys};
pub use sink::{Sink, Socket};

/// Names a message to those who wait for its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Outboxes that were pushed to and wait for a flush, each once.
pub struct Dirty<S = Socket>(pub Vec<Arc<Outbox<S>>>);

/// What the owner of an outbox may wait for; it is woken once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Await {
    /// Room for more requests: fewer replies are due and fewer bytes wait than half of the bounds.
    Room,
    /// The last reply that is due.
    Replies,
}

/// One connection's outbox. `Arc<Outbox>` is how the rest of the node knows a connection.
pub struct Outbox<S = Socket> {
    /// The bound: with this many bytes waiting, local senders wait and the connection is not read.
    bytes_max: usize,
    /// What of the state everybody asks before every message; kept up by [`Locked`].
    signs: AtomicU8,
    /// What the socket is ready for, as far as nobody has acted on it.
    ready: AtomicU8,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    sink: S,
}

/// The least that other nodes may push beyond the bound. Their senders wait for receipts and can't
/// see the bound, so what each of them may have on its way to one user has to find room here.
const RESERVE_BYTES_MIN: usize = 256 * 1024;

/// Replies that one connection may be owed; then it is not read until half of them are answered.
pub const REPLIES_DUE_MAX: u32 = 1_024;

impl<S> Default for Dirty<S> {
    fn default() -> Self {
        Dirty(Vec::new())
    }
}

impl<S: Sink> Outbox<S> {
    /// Makes an empty outbox that holds `bytes_max` bytes.
    pub fn new(sink: S, framing: Framing, bytes_max: usize, metrics: &Arc<Metrics>) -> Self {
        let state = State::new(framing);
        metrics.outboxes.enter();
        let signs = AtomicU8::new(state.signs(bytes_max));
        let ready = AtomicU8::new(0);
        Outbox { bytes_max, signs, ready, state: Mutex::new(state), metrics: metrics.clone(), sink }
    }

    /// Appends bytes as they are: HTTP heads and WebSocket control frames.
    pub fn push_raw(self: &Arc<Self>, bytes: &[u8], dirty: &mut Dirty<S>) {
        self.append(dirty, |state| state.bytes.push_raw(bytes));
    }

    /// Appends one line that answers no request.
    pub fn push_line(self: &Arc<Self>, dirty: &mut Dirty<S>, print: impl FnOnce(&mut Vec<u8>)) {
        self.append(dirty, |state| state.bytes.push_line(print));
    }

    /// Answers a request at once: under its tag, or behind the untagged replies that are due.
    pub fn reply(
        self: &Arc<Self>,
        tag: Option<&str>,
        dirty: &mut Dirty<S>,
        print: impl FnOnce(&mut Vec<u8>),
    ) {
        self.append(dirty, |state| state.replies.reply(tag, &mut state.bytes, print));
    }

    /// Answers a request that was expected to be answered later.
    pub fn answer(self: &Arc<Self>, to: &ReplyTo, dirty: &mut Dirty<S>, print: impl FnOnce(&mut Vec<u8>)) {
        let mut owner = None;
        self.append(dirty, |state| {
            state.replies.answer(to, &mut state.bytes, print);
            owner = state.due_owner(self.bytes_max);
        });
        wake(owner);
    }

    /// Appends something, unless nothing is taken any more.
    fn append(self: &Arc<Self>, dirty: &mut Dirty<S>, append: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if !state.closed {
            append(&mut state);
            self.unlock_dirty(state, dirty);
        }
    }

    /// Notes that there is something to flush.
    fn unlock_dirty(self: &Arc<Self>, mut state: Locked<'_>, dirty: &mut Dirty<S>) {
        let was_dirty = std::mem::replace(&mut state.dirty, true);
        drop(state);
        if !was_dirty {
            dirty.0.push(self.clone());
        }
    }

    /// The place that bytes go to.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// From now on lines are framed so.
    pub fn set_framing(&self, framing: Framing) {
        self.lock().bytes.set_framing(framing);
    }

    /// Tells whether a local sender may push: `None` when the outbox takes nothing any more. One
    /// that is asked to close has no room: what waits in it is given back before anything new
    /// goes elsewhere, or that would overtake it.
    pub fn has_room(&self) -> Option<bool> {
        let signs = self.signs.load(Relaxed);
        (signs & OPEN != 0).then_some(signs & ROOM != 0)
    }

    /// Wakes `waker` when there may be room, or when the outbox has closed; at once if it is so already.
    pub fn wait_for_room(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.closed && !state.has_room(self.bytes_max) {
            let waiting = &mut state.waiting.get_or_insert_default().0;
            let is_first = waiting.is_empty();
            if !waiting.iter().any(|other| other.will_wake(waker)) {
                waiting.push(waker.clone());
            }
            // That somebody waits shortens the owner's patience with a socket that blocks.
            let owner = state.owner.clone().filter(|_| is_first && state.bytes.blocked_since().is_some());
            drop(state);
            return wake(owner);
        }
        drop(state);
        waker.wake_by_ref();
    }

    /// Takes note that a request will be answered later.
    pub fn expect(&self, tag: Option<&str>) -> ReplyTo {
        self.lock().replies.expect(tag)
    }

    /// Takes note that something is waited for that nothing is said about.
    pub fn expect_silence(&self) {
        self.lock().replies.expect_silence();
    }

    /// What [`Outbox::expect_silence`] was for has come.
    pub fn end_silence(&self) {
        let mut state = self.lock();
        state.replies.end_silence();
        let owner = state.due_owner(self.bytes_max);
        drop(state);
        wake(owner);
    }

    /// Tells whether the connection may be read: it is owed few enough replies
    /// and reads what it is sent.
    pub fn takes_requests(&self) -> bool {
        self.signs.load(Relaxed) & TAKES_REQUESTS != 0
    }

    /// Writes what waits, and appends the tickets of the messages that are now written.
    pub fn flush(&self, now: Instant, written: &mut Vec<Ticket>) {
        self.write(self.lock(), now, written);
    }

    /// The same, but leaves a socket that blocks to its owner.
    pub fn flush_unless_blocked(&self, now: Instant, written: &mut Vec<Ticket>) {
        let mut state = self.lock();
        match state.bytes.blocked_since() {
            None => self.write(state, now, written),
            Some(_) => state.dirty = false,
        }
    }

    fn write(&self, mut state: Locked<'_>, now: Instant, written: &mut Vec<Ticket>) {
        state.dirty = false;
        if state.broken {
            return;
        }
        let was_blocked = state.bytes.blocked_since().is_some();
        if state.bytes.write(now, |bytes| self.sink.try_write(bytes), written).is_err() {
            state.broken = true;
            state.closed = true;
        }
        let is_empty = state.bytes.waiting() == 0;
        // A blocked or broken socket is the owner's business; that it still blocks is no news.
        let owner = match (state.broken, is_empty) {
            (false, true) => state.due_owner(self.bytes_max),
            (false, false) if was_blocked => None,
            _ => state.owner.clone(),
        };
        let room = state.filled() <= self.bytes_max / 2 || state.broken;
        let waiting = if room { state.waiting.take() } else { None };
        drop(state);
        wake(owner);
        wake_all(waiting);
    }

    /// Since when the socket has taken nothing, if it blocks, and whether the outbox is full.
    pub fn blocked(&self) -> Option<(Instant, bool)> {
        if self.is_calm() {
            return None;
        }
        let state = self.lock();
        state.bytes.blocked_since().map(|since| (since, state.filled() >= self.bytes_max))
    }

    /// Tells whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().bytes.waiting() == 0
    }

    /// Tells whether the socket broke.
    pub fn is_broken(&self) -> bool {
        !self.is_calm() && self.lock().broken
    }

    /// Asks the connection to end for `reason`. Only the first reason counts.
    pub fn close(&self, reason: CloseReason) {
        let owner = self.lock().close(reason);
        wake(owner);
    }

    /// Why the connection is asked to end, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        if self.is_calm() { None } else { self.lock().closing }
    }

    /// Tells whether the socket neither blocks nor is broken, and nobody asked
    /// the connection to end: what its task asks at every turn.
    fn is_calm(&self) -> bool {
        self.signs.load(Relaxed) & CALM != 0
    }

    /// Takes no push any more, and gives back the messages of which no byte was
    /// written. What remains is the rest of a line that was partly written, and
    /// what `last` adds.
    pub fn cut_short(&self, last: impl FnOnce(&mut Bytes)) -> Vec<Unwritten> {
        self.shut(|state| {
            let (mut unwritten, held) = state.end_ledger();
            unwritten.extend(state.bytes.cut());
            unwritten.extend(held);
            state.replies.forget();
            last(&mut state.bytes);
            unwritten
        })
    }

    /// Takes no push any more, but keeps what waits, and adds what `last` adds.
    pub fn finish(&self, last: impl FnOnce(&mut Bytes)) {
        self.shut(|state| last(&mut state.bytes));
    }

    /// Ends the outbox: gives back every message that was not written whole, or not acknowledged.
    pub fn abandon(&self) -> Vec<Unwritten> {
        self.shut(|state| {
            state.owner = None;
            state.replies.forget();
            let (mut unwritten, held) = state.end_ledger();
            unwritten.extend(state.bytes.take_all());
            unwritten.extend(held);
            unwritten
        })
    }

    /// Takes no push any more: whoever waits for room is told.
    fn shut<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.closed = true;
        let result = change(&mut state);
        let waiting = state.waiting.take();
        drop(state);
        wake_all(waiting);
        result
    }

    /// Names the task that owns this outbox: it is woken when the socket blocks
    /// or breaks, when the outbox is asked to close, and for what it awaits.
    pub fn set_owner(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.owner.as_ref().is_some_and(|owner| owner.will_wake(waker)) {
            state.owner = Some(waker.clone());
        }
    }

    /// The socket has become ready, or the owner is due: it is woken if that is of use.
    pub fn tell_ready(&self, ready: Ready) {
        // That it is due is not kept: the owner looks at the time.
        self.ready.fetch_or(ready & !DUE, Relaxed);
        let state = self.lock();
        // Room to write is of use only to who waits for it.
        let is_of_use = ready & !WRITABLE != 0 || state.bytes.blocked_since().is_some();
        let owner = state.owner.clone().filter(|_| is_of_use);
        drop(state);
        wake(owner);
    }

    /// Takes what the socket is ready for, among `wanted`: until it is told again, or put back with
    /// [`Outbox::put_ready`] because there is more.
    pub fn take_ready(&self, wanted: Ready) -> Ready {
        match self.ready.load(Relaxed) & wanted {
            0 => 0,
            _ => self.ready.fetch_and(!wanted, Relaxed) & wanted,
        }
    }

    /// The socket is still ready for this.
    pub fn put_ready(&self, ready: Ready) {
        self.ready.fetch_or(ready, Relaxed);
    }

    /// Wakes the owner once when `what` has come; `false` when it is so already.
    pub fn await_for(&self, what: Await) -> bool {
        let mut state = self.lock();
        state.awaits = Some(what);
        if state.has_come(what, self.bytes_max) {
            state.awaits = None;
        }
        state.awaits.is_some()
    }

    fn lock(&self) -> Locked<'_> {
        // A panic in a push leaves at worst one torn line in one connection's outbox.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { state, signs: &self.signs, bytes_max: self.bytes_max }
    }
}

impl<S> Drop for Outbox<S> {
    fn drop(&mut self) {
        self.metrics.outboxes.leave();
    }
}

fn wake(owner: Option<Waker>) {
    if let Some(owner) = owner {
        owner.wake();
    }
}

fn wake_all(waiting: Option<Box<Waiting>>) {
    waiting.into_iter().flat_map(|waiting| waiting.0).for_each(Waker::wake);
}

#[cfg(test)]
mod tests;
