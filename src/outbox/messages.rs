//! What an outbox does with messages: shows them, now or when it may, and knows
//! which of them its session has.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::outbox::ledger::{Acked, Entry, Known};
use crate::outbox::state::{ACKS, BEHIND, LEDGER, Locked};
use crate::outbox::{
    Dirty, Hashes, Outbox, Overdue, RESERVE_BYTES_MIN, SeenKeys, Shown, Sink, Ticket, Unwritten, wake,
    wake_all,
};
use crate::proto::{CloseReason, IdRef, UserRef};

/// A message to push.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its sender.
    pub from: UserRef<'a>,
    /// Its id.
    pub id: IdRef<'a>,
    /// The `MSG` line that shows it, without its ending.
    pub line: &'a [u8],
    /// Who waits for its fate; nobody for a `CAST`.
    pub ticket: Option<Ticket>,
    /// What it is remembered by. Given where a copy of it may come, and always to a session that
    /// acknowledges.
    pub hash: Option<Hashes>,
    /// It may be a copy of one that was pushed before.
    pub may_be_copy: bool,
    /// Where it comes from.
    pub kind: Kind,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From a sender, now.
    Live,
    /// The same, and others have it: refused where there is no room.
    Shared,
    /// From the mailbox: before all that are live.
    Mail,
}

/// What a push came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It is in the outbox.
    Taken,
    /// The session has just seen it: only its ticket is in the outbox.
    Copy,
    /// The session was shown it and did not acknowledge it in time.
    Unacked,
    /// The outbox is closing, or over its last reserve and now closed as a slow consumer.
    Refused,
}

impl<S: Sink> Outbox<S> {
    /// Appends a message. With a ticket, its fate will be told once: by a flush,
    /// [`Outbox::acknowledge`], [`Outbox::age`], or when the outbox ends. A copy
    /// of a message that was just seen adds nothing but its ticket.
    pub fn push_message(self: &Arc<Self>, message: Message<'_>, now: Instant, dirty: &mut Dirty<S>) -> Push {
        let mut state = self.lock();
        if state.closed || state.closing.is_some() {
            return Push::Refused;
        }
        if state.filled() >= self.bytes_max + self.bytes_max.max(RESERVE_BYTES_MIN) {
            if message.kind == Kind::Shared {
                return Push::Refused;
            }
            // Only other nodes get here: local senders wait at `bytes_max`.
            let owner = state.close(CloseReason::Slow);
            drop(state);
            wake(owner);
            return Push::Refused;
        }
        let Message { from, id, line, ticket, hash, may_be_copy, kind } = message;
        let hash = hash.map(|hash| if may_be_copy { state.hash(hash) } else { hash.now });
        if let (Some(hash), false) = (hash, may_be_copy) {
            state.seen.get_or_insert_default().append(hash);
        } else if let Some(hash) = hash
            && !state.seen.get_or_insert_default().insert(hash)
        {
            let known = state.ledger.as_mut().map_or(Known::No, |ledger| ledger.meet(hash, ticket, kind));
            match (known, ticket) {
                (Known::Expired, _) => return Push::Unacked,
                (Known::Waits, _) | (Known::No, None) => return Push::Copy,
                (Known::No, Some(ticket)) => {
                    state.bytes.push_mark(ticket);
                    self.unlock_dirty(state, dirty);
                    return Push::Copy;
                }
                (Known::Unshown, _) => {}
            }
        }
        if let Some(ledger) = &mut state.ledger
            && (ledger.acks || kind != Kind::Mail)
        {
            let (from, id, tickets) = (from.into(), id.into(), ticket.into_iter().collect());
            let entry = Entry { from, id, line: line.into(), hash, tickets, since: now, is_told: false };
            ledger.add(entry, kind);
            state.show(now, self.bytes_max);
        } else {
            state.bytes.push_message(ticket, line);
        }
        self.unlock_dirty(state, dirty);
        Push::Taken
    }

    /// The session acknowledges a message.
    pub fn acknowledge(self: &Arc<Self>, id: &str, from: &str, now: Instant, dirty: &mut Dirty<S>) -> Acked {
        let mut state = self.lock();
        let Some(ledger) = state.ledger.as_mut().filter(|ledger| ledger.acks) else {
            return Acked { tickets: vec![], late: None };
        };
        let acked = ledger.acknowledge(id, from, now);
        self.show(state, now, dirty);
        acked
    }

    /// The mailbox has been drained, or will not be now: live messages are shown.
    pub fn end_draining(self: &Arc<Self>, now: Instant, dirty: &mut Dirty<S>) {
        let mut state = self.lock();
        if let Some(ledger) = &mut state.ledger {
            ledger.is_draining = false;
            self.show(state, now, dirty);
        }
    }

    /// Time passes: what has waited too long is given back.
    pub fn age(self: &Arc<Self>, now: Instant, dirty: &mut Dirty<S>) -> Overdue {
        if self.signs.load(Relaxed) & LEDGER == 0 {
            return Overdue::default();
        }
        let mut state = self.lock();
        let Some(ledger) = &mut state.ledger else { return Overdue::default() };
        let overdue = ledger.age(now, self.bytes_max);
        if let Some(seen) = &mut state.seen {
            seen.remove(&overdue.forgotten);
        }
        self.show(state, now, dirty);
        overdue
    }

    /// Shows what may be shown now, and wakes whoever waits for room.
    fn show(self: &Arc<Self>, mut state: Locked<'_>, now: Instant, dirty: &mut Dirty<S>) {
        let before = state.bytes.waiting();
        state.show(now, self.bytes_max);
        let waiting = if state.filled() <= self.bytes_max / 2 { state.waiting.take() } else { None };
        if state.bytes.waiting() > before {
            self.unlock_dirty(state, dirty);
        } else {
            drop(state);
        }
        wake_all(waiting);
    }

    /// From now on messages have to be acknowledged.
    pub fn set_acks(&self, now: Instant) {
        self.lock().ledger(now).acks = true;
    }

    /// Tells whether the session acknowledges what it is shown.
    pub fn acknowledges(&self) -> bool {
        self.signs.load(Relaxed) & ACKS != 0
    }

    /// From now on live messages wait until [`Outbox::end_draining`].
    pub fn start_draining(&self, now: Instant) {
        self.lock().ledger(now).is_draining = true;
    }

    /// What the session was shown: all that it has seen but for what is unwritten or unacknowledged.
    pub fn shown(&self, keys: SeenKeys) -> Shown {
        let state = self.lock();
        let Some(seen) = &state.seen else { return Shown::default() };
        let hashes = state.bytes.unwritten_lines().map(|line| keys.hash(line));
        let mut unshown: Vec<u64> =
            hashes.flat_map(|hash| hash.before.into_iter().chain([hash.now])).collect();
        unshown.extend(state.ledger.iter().flat_map(|ledger| ledger.hashes()));
        unshown.sort_unstable();
        let is_shown = |hash: &u64| unshown.binary_search(hash).is_err();
        let Shown { mut all, inherited } = seen.shown();
        let inherited = all[..inherited].iter().filter(|hash| is_shown(hash)).count();
        all.retain(is_shown);
        Shown { all, inherited }
    }

    /// Messages that the session has and has not taken, written or acknowledged, with their lines:
    /// those with the tickets that are wanted.
    pub fn outstanding(&self, is_wanted: impl Fn(Ticket) -> bool) -> Vec<(Ticket, Box<[u8]>)> {
        let state = self.lock();
        let ledger = state.ledger.iter().flat_map(|ledger| ledger.outstanding());
        let all = state.bytes.outstanding().chain(ledger);
        let wanted = all.filter(|(ticket, line)| !line.is_empty() && is_wanted(*ticket));
        wanted.map(|(ticket, line)| (ticket, line.into())).collect()
    }

    /// Other sessions of the user have, or have no more, messages that this one is given first.
    pub fn set_behind(&self, is_behind: bool) {
        self.lock().is_behind = is_behind;
    }

    /// Tells whether other sessions of the user have messages that this one is given first.
    pub fn is_behind(&self) -> bool {
        self.signs.load(Relaxed) & BEHIND != 0
    }

    /// An earlier session of the user, or another one, was shown these, the oldest first.
    pub fn inherit(&self, hashes: &[u64]) {
        if hashes.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.seen.get_or_insert_default().inherit(hashes);
    }

    /// Another session of the user has taken a message, which counts as if this one had been shown it.
    pub fn remember(&self, hash: u64) {
        self.lock().seen.get_or_insert_default().insert(hash);
    }

    /// Forgets messages that were seen long ago.
    pub fn forget_old(&self, now: Instant) {
        let mut state = self.lock();
        if state.seen.as_mut().is_some_and(|seen| !seen.age(now)) {
            state.seen = None;
        }
    }

    /// Gives back the messages that the session can't acknowledge any more, and those that it was
    /// not shown: it takes no requests from now on.
    pub fn give_back(&self) -> Vec<Unwritten> {
        let mut state = self.lock();
        let (mut shown, held) = state.end_ledger();
        let waiting = state.waiting.take();
        drop(state);
        // The session is in no table any more: they look for others once these messages do.
        wake_all(waiting);
        shown.extend(held);
        shown
    }

    /// Tells whether the connection is read for acknowledgements, whatever else it is owed.
    pub fn takes_acks(&self) -> bool {
        self.acknowledges() && self.lock().waiting_bytes() < self.bytes_max
    }
}
