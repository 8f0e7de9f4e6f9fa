//! The state of an outbox, and the lock that it is under.
//!
//! Before every message, and at every turn of a connection, the same few things
//! are asked of an outbox. They stand beside the lock as bits, put up to date whenever it is unlocked, so
//! that asking takes no lock. An answer may be a moment old; whoever acts on it
//! finds the truth under the lock.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::Waker;
use std::time::Instant;

use crate::outbox::bytes::{Bytes, Framing};
use crate::outbox::ledger::Ledger;
use crate::outbox::replies::Replies;
use crate::outbox::seen::Seen;
use crate::outbox::{Await, Hashes, REPLIES_DUE_MAX, Unwritten};
use crate::proto::CloseReason;

/// All that changes in an outbox.
pub struct State {
    pub bytes: Bytes,
    /// Set when there is a first message to remember.
    pub seen: Option<Box<Seen>>,
    /// Of a session that acknowledges, or while its mailbox is drained.
    pub ledger: Option<Box<Ledger>>,
    /// Other sessions of the user may have messages that this one is given before any later one.
    pub is_behind: bool,
    pub replies: Replies,
    pub closing: Option<CloseReason>,
    /// No push is taken any more.
    pub closed: bool,
    pub broken: bool,
    /// On somebody's list of outboxes to flush.
    pub dirty: bool,
    /// The connection's task.
    pub owner: Option<Waker>,
    pub awaits: Option<Await>,
    /// Senders that wait for room, while there are any.
    pub waiting: Option<Box<Waiting>>,
}

/// Tasks to wake.
#[derive(Default)]
pub struct Waiting(pub Vec<Waker>);

/// The locked state. Unlocking it puts the signs up to date.
pub struct Locked<'a> {
    pub state: MutexGuard<'a, State>,
    pub signs: &'a AtomicU8,
    pub bytes_max: usize,
}

/// Pushes are taken.
pub const OPEN: u8 = 1;
/// Local senders may push.
pub const ROOM: u8 = 2;
/// The connection may be read.
pub const TAKES_REQUESTS: u8 = 4;
/// The socket neither blocks nor is broken, and nobody asked the connection to end.
pub const CALM: u8 = 8;
/// The session acknowledges.
pub const ACKS: u8 = 16;
/// Other sessions of the user had messages before this one.
pub const BEHIND: u8 = 64;
/// There is something in the ledger.
pub const LEDGER: u8 = 32;

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.signs.store(self.state.signs(self.bytes_max), Relaxed);
    }
}

impl State {
    /// Nothing waits, nothing is owed.
    pub fn new(framing: Framing) -> Self {
        State {
            bytes: Bytes::new(framing),
            seen: None,
            ledger: None,
            is_behind: false,
            replies: Replies::default(),
            closing: None,
            closed: false,
            broken: false,
            dirty: false,
            owner: None,
            awaits: None,
            waiting: None,
        }
    }

    /// What a message is remembered by.
    pub fn hash(&mut self, Hashes { now, before }: Hashes) -> u64 {
        let Some((before, seen)) = before.zip(self.seen.as_mut()) else { return now };
        if seen.contains(before) { before } else { now }
    }

    /// What everybody asks before every message, as bits.
    pub fn signs(&self, bytes_max: usize) -> u8 {
        let sign = |holds: bool, sign: u8| u8::from(holds) * sign;
        let takes_requests = self.replies.due() < REPLIES_DUE_MAX && self.waiting_bytes() < bytes_max;
        let of_ledger = |ledger: &Ledger| sign(ledger.acks, ACKS) | sign(!ledger.is_empty(), LEDGER);
        sign(!self.closed, OPEN)
            | sign(self.has_room(bytes_max), ROOM)
            | self.ledger.as_deref().map_or(0, of_ledger)
            | sign(self.is_behind, BEHIND)
            | sign(takes_requests, TAKES_REQUESTS)
            | sign(self.bytes.blocked_since().is_none() && !self.broken && self.closing.is_none(), CALM)
    }

    /// Tells whether local senders may push.
    pub fn has_room(&self, bytes_max: usize) -> bool {
        self.closing.is_none() && self.filled() < bytes_max
    }

    /// Begins to close; returns who must know: the owner. Senders that wait for room are woken when
    /// it gives back what waits.
    pub fn close(&mut self, reason: CloseReason) -> Option<Waker> {
        if self.closed || self.closing.is_some() {
            return None;
        }
        self.closing = Some(reason);
        self.owner.clone()
    }

    /// Bytes that wait for the connection: to be written, or to be shown.
    pub fn filled(&self) -> usize {
        self.bytes.waiting() + self.ledger.as_ref().map_or(0, |ledger| ledger.held_bytes())
    }

    /// The ledger; there is one from now on.
    pub fn ledger(&mut self, now: Instant) -> &mut Ledger {
        self.ledger.get_or_insert_with(|| Box::new(Ledger::new(now)))
    }

    /// Puts what may be shown now into the bytes.
    pub fn show(&mut self, now: Instant, bytes_max: usize) {
        let Some(ledger) = &mut self.ledger else { return };
        ledger.show(now, bytes_max, |line, tickets| {
            let mut tickets = tickets.into_iter();
            self.bytes.push_message(tickets.next(), line);
            tickets.for_each(|ticket| self.bytes.push_mark(ticket));
        });
        if ledger.is_over() {
            self.ledger = None;
        }
    }

    /// Ends the ledger: gives back what was shown and not acknowledged, and what was not shown.
    pub fn end_ledger(&mut self) -> (Vec<Unwritten>, Vec<Unwritten>) {
        self.ledger.take().map_or_else(Default::default, |ledger| ledger.end())
    }

    /// Bytes that the connection's own reading is held back for.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.waiting() + self.replies.held_bytes()
    }

    /// Tells whether what the owner awaits is so.
    pub fn has_come(&self, what: Await, bytes_max: usize) -> bool {
        match what {
            Await::Room => self.replies.due() <= REPLIES_DUE_MAX / 2 && self.waiting_bytes() <= bytes_max / 2,
            Await::Replies => self.replies.due() == 0,
        }
    }

    /// The owner, if what it awaits has come.
    pub fn due_owner(&mut self, bytes_max: usize) -> Option<Waker> {
        self.awaits.filter(|what| self.has_come(*what, bytes_max))?;
        self.awaits = None;
        self.owner.clone()
    }
}
