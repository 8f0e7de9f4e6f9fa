//! A link: what this node says to one other node, and what it has from it.
//!
//! The broker may lose whatever it carries, so both ends count. Batches are
//! numbered; each tells what its sender has of the other direction; what the
//! other end does not have is sent again, and what comes twice is dropped. A
//! few batches may be on their way at once, or more small ones: while fewer are,
//! what waits is sent at once, and otherwise it gathers, so an idle link is quick
//! and a busy one sends large batches, without a timer. The sender asks for a word
//! when three quarters of what may be on its way are, so it seldom waits for one.
//!
//! A pure state machine: the time and what was heard go in, bytes to publish
//! come out. What belongs to a message is a ticket of the router's, which its
//! receipt brings back. A link lives as long as both incarnations.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cluster::volume::{BATCHES_MAX, Volume};
use crate::proto::batch::{HEAD_BYTES_MAX, Head, Item, Items, put_envelope};
use crate::proto::{EnvelopeRef, Fate, NodeId};

/// The most bytes of a batch, unless one message alone is longer.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// While more bytes wait for one node, it is sent no `CAST`.
pub const CASTS_BYTES_MAX: usize = 1024 * 1024;

/// How long nothing may be heard of a batch before it is sent again.
const RESEND_TIME: Duration = Duration::from_secs(1);

/// How long a batch is kept: by then the origin has answered its messages' senders.
const KEEP_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the receipt of a message is waited for that the other end is known to have: a
/// session may take its time to acknowledge it, and another one after that.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long what was heard may go without a word back.
const QUIET_TIME_MAX: Duration = Duration::from_millis(50);

/// How long a node that has no queue is left alone: the first time, and at most.
const PROBE_TIME_MIN: Duration = Duration::from_millis(100);
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// Both directions between this node and another.
pub struct Link {
    /// Since when there is this link.
    pub since: Instant,
    /// Waits to be looked at by the bus.
    pub is_ready: bool,
    out: Out,
    heard: Told,
    /// The other node has no queue now: it is tried again then, after that pause.
    probe: Option<(Instant, Duration)>,
}

/// The direction to the other node.
struct Out {
    /// What is not in a batch yet.
    waiting: VecDeque<Parcel>,
    waiting_bytes: usize,
    receipts: Vec<Receipts>,
    /// Batches that the other end is not known to have.
    sent: VecDeque<Sent>,
    /// What was packed since a batch asked for a word last.
    unasked: Volume,
    /// The number of the next batch.
    next_batch: u64,
    /// The router's ticket of each message from `first_open` on, until its receipt comes.
    tickets: VecDeque<Option<u64>>,
    first_open: u64,
    /// Up to which message the other end had everything, and since when: receipts of these come
    /// soon, or never.
    had: VecDeque<(Instant, u64)>,
    /// For which `have` a gap was filled: each is filled at once only once.
    filled: Option<u64>,
    /// What held the items of batches that the other end has: grown to what a batch takes.
    spares: Vec<Vec<u8>>,
}

/// What is known of the direction from the other node.
#[derive(Default)]
struct Told {
    /// Every batch up to this one has come.
    have: u64,
    /// Since when something came of which the other end was not told.
    since: Option<Instant>,
    /// The other end asked to be told.
    is_asked: bool,
    has_gap: bool,
}

/// Items on their way together.
struct Parcel {
    since: Instant,
    items: Vec<u8>,
    /// The number of the first message that asks for a receipt, and how many do.
    first: u64,
    count: u64,
}

struct Sent {
    number: u64,
    parcel: Parcel,
    /// When it was published last; `None` when it has to be again.
    at: Option<Instant>,
    times: u32,
    asks_word: bool,
}

struct Receipts {
    fate: Fate,
    first: u64,
    count: u64,
}

/// What to make of a batch that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is the next one: its items count.
    Next,
    /// It was here before, comes too early, or has no items.
    Nothing,
}

/// Messages that nobody will have any more through this link.
#[derive(Debug, PartialEq, Eq)]
pub struct Returned {
    /// The router's tickets.
    pub tickets: Vec<u64>,
    /// They may have been delivered all the same.
    pub maybe_seen: bool,
}

impl Link {
    /// A link on which nothing was said yet.
    pub fn new(now: Instant) -> Self {
        let out = Out {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            receipts: vec![],
            sent: VecDeque::new(),
            unasked: Volume::default(),
            next_batch: 1,
            tickets: VecDeque::new(),
            first_open: 1,
            had: VecDeque::new(),
            filled: None,
            spares: vec![],
        };
        Link { since: now, is_ready: false, out, heard: Told::default(), probe: None }
    }

    /// Adds a message; the envelope's number, if it has one, is the router's ticket.
    pub fn forward(&mut self, envelope: EnvelopeRef<'_>, now: Instant) {
        let ticket = envelope.number;
        self.out.append(now, u64::from(ticket.is_some()), |items| put_envelope(envelope, items));
        if ticket.is_some() {
            self.out.tickets.push_back(ticket);
        }
    }

    /// Tells whether something waits that was never published.
    pub fn has_waiting(&self) -> bool {
        !self.out.waiting.is_empty()
    }

    /// Tells whether a `CAST` may be added.
    pub fn takes_casts(&self) -> bool {
        self.out.waiting_bytes < CASTS_BYTES_MAX
    }

    /// Adds something else that has to arrive.
    pub fn say(&mut self, item: &Item<'_>, now: Instant) {
        self.out.append(now, 0, |items| item.print(items));
    }

    /// Adds the receipt of one message of the other direction.
    pub fn receipt(&mut self, fate: Fate, message: u64) {
        match self.out.receipts.last_mut() {
            Some(last) if last.fate == fate && last.first + last.count == message => last.count += 1,
            _ => self.out.receipts.push(Receipts { fate, first: message, count: 1 }),
        }
    }

    /// Tells whether [`Link::next`] would give something.
    pub fn is_due(&self, now: Instant) -> bool {
        self.may_try(now) && (self.out.is_due() || self.owes_word(now))
    }

    /// Tells whether there is nothing for [`Link::tick`] to do.
    pub fn is_quiet(&self) -> bool {
        !self.is_active() && self.out.had.is_empty()
    }

    /// Tells whether anything is under way, so that time alone may make it due.
    pub fn is_active(&self) -> bool {
        !self.out.is_idle() || self.heard.since.is_some() || self.heard.has_gap
    }

    /// Puts the next batch to publish into `batch`, in the place of what it held; `false` when there is
    /// none now.
    pub fn next(&mut self, me: &NodeId, now: Instant, batch: &mut Vec<u8>) -> bool {
        if !self.is_due(now) {
            return false;
        }
        if let Some((at, pause)) = &mut self.probe {
            // One batch finds out; its return or an answer tells.
            *at = now + *pause;
            *pause = (*pause * 2).min(PROBE_TIME_MAX);
        }
        let head = Head {
            from: me.clone(),
            number: 0,
            oldest: 0,
            have: self.heard.have,
            has_gap: self.heard.has_gap,
            asks_word: false,
            first: 0,
        };
        self.heard = Told { have: self.heard.have, ..Told::default() };
        batch.clear();
        self.out.batch(head, now, batch);
        true
    }

    /// Takes in the head of a batch that came.
    pub fn hear(&mut self, head: &Head, now: Instant) -> Heard {
        self.probe = None;
        self.out.have(head.have, head.has_gap, now);
        if head.number == 0 {
            return Heard::Nothing;
        }
        let told = &mut self.heard;
        // What is older than the oldest that may come will never come.
        told.have = told.have.max(head.oldest.saturating_sub(1));
        told.since.get_or_insert(now);
        told.is_asked |= head.asks_word;
        if head.number != told.have + 1 {
            told.has_gap |= head.number > told.have;
            return Heard::Nothing;
        }
        told.have = head.number;
        Heard::Next
    }

    /// Messages have their receipts: gives their tickets to `settle`.
    pub fn settle(&mut self, first: u64, count: u64, mut settle: impl FnMut(u64)) {
        let out = &mut self.out;
        let end = first.saturating_add(count).min(out.first_open + out.tickets.len() as u64);
        for message in first.max(out.first_open)..end {
            let at = (message - out.first_open) as usize;
            out.tickets[at].take().into_iter().for_each(&mut settle);
        }
        out.close_answered();
    }

    /// Receipts of messages take longer: gives their tickets to `wait`.
    pub fn waits(&mut self, first: u64, count: u64, mut wait: impl FnMut(u64)) {
        let out = &self.out;
        let end = first.saturating_add(count).min(out.first_open + out.tickets.len() as u64);
        for message in first.max(out.first_open)..end {
            out.tickets[(message - out.first_open) as usize].into_iter().for_each(&mut wait);
        }
    }

    /// A batch came back: there is no queue for this node. Its messages go
    /// elsewhere, a `CAST` nowhere; the rest waits for the queue.
    pub fn returned(&mut self, number: u64, now: Instant) -> Option<Returned> {
        let pause = PROBE_TIME_MIN;
        self.probe.get_or_insert((now + pause, pause * 2));
        let at = self.out.sent.iter().position(|sent| sent.number == number)?;
        let sent = self.out.sent.remove(at)?;
        let maybe_seen = sent.times > 1;
        Some(Returned { tickets: self.give_back(&sent.parcel, now), maybe_seen })
    }

    /// What was never published won't be soon: its messages go elsewhere, a
    /// `CAST` nowhere; the rest waits on. Returns the router's tickets.
    pub fn give_up_waiting(&mut self, now: Instant) -> Vec<u64> {
        let waiting = std::mem::take(&mut self.out.waiting);
        self.out.waiting_bytes = 0;
        waiting.iter().flat_map(|parcel| self.give_back(parcel, now)).collect()
    }

    /// Takes the messages out of a parcel; everything else in it is said again.
    fn give_back(&mut self, parcel: &Parcel, now: Instant) -> Vec<u64> {
        let items = Items::of(&parcel.items).filter_map(Result::ok);
        for item in items.filter(|item| !matches!(item, Item::Message(_))) {
            self.say(&item, now);
        }
        self.out.forget(parcel)
    }

    /// Time passes: what was not heard of is sent again, messages that are too old are given up.
    pub fn tick(&mut self, now: Instant) {
        let is_old = |parcel: &Parcel| now.duration_since(parcel.since) >= KEEP_TIME_MAX;
        while self.out.sent.front().is_some_and(|sent| is_old(&sent.parcel)) {
            let sent = self.out.sent.pop_front().expect("it is there");
            self.give_back(&sent.parcel, now);
        }
        while self.out.waiting.front().is_some_and(is_old) {
            let parcel = self.out.waiting.pop_front().expect("it is there");
            self.out.waiting_bytes -= parcel.items.len();
            self.give_back(&parcel, now);
        }
        self.out.forget_unanswered(now);
        for sent in &mut self.out.sent {
            if sent.at.is_some_and(|at| now.duration_since(at) >= RESEND_TIME) {
                sent.at = None;
            }
        }
    }

    /// Nothing is under way: the memory that the next batches would use again goes back.
    pub fn give_memory_back(&mut self) {
        self.out.spares = vec![];
    }

    /// What was published may be lost: it is published again.
    pub fn lose(&mut self) {
        self.probe = None;
        self.out.sent.iter_mut().for_each(|sent| sent.at = None);
    }

    fn may_try(&self, now: Instant) -> bool {
        self.probe.is_none_or(|(at, _)| at <= now)
    }

    /// The other end waits for a word, and nothing else will carry it.
    fn owes_word(&self, now: Instant) -> bool {
        let told = &self.heard;
        let is_old = |since| now.duration_since(since) >= QUIET_TIME_MAX;
        told.has_gap || told.is_asked || told.since.is_some_and(is_old)
    }
}

impl Out {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.receipts.is_empty() && self.sent.is_empty()
    }

    fn is_due(&self) -> bool {
        let has_new = !self.waiting.is_empty() || !self.receipts.is_empty();
        self.sent.iter().any(|sent| sent.at.is_none()) || (has_new && !self.under_way().is_full())
    }

    /// What is on its way, or was lost.
    fn under_way(&self) -> Volume {
        let mut volume = Volume::default();
        self.sent.iter().for_each(|sent| volume.add(sent.parcel.items.len()));
        volume
    }

    /// Adds an item to the parcel that is filled now.
    fn append(&mut self, now: Instant, count: u64, print: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.is_empty() {
            let parcel = self.parcel(now);
            self.waiting.push_back(parcel);
        }
        let parcel = self.waiting.back_mut().expect("it was added");
        let before = parcel.items.len();
        print(&mut parcel.items);
        self.waiting_bytes += parcel.items.len() - before;
        if before > 0 && parcel.items.len() + HEAD_BYTES_MAX > BATCH_BYTES_MAX {
            let items = parcel.items.split_off(before);
            let mut next = self.parcel(now);
            next.items.extend_from_slice(&items);
            next.count = count;
            self.waiting.push_back(next);
        } else {
            parcel.count += count;
        }
    }

    /// An empty parcel.
    fn parcel(&mut self, now: Instant) -> Parcel {
        let first = self.first_open + self.tickets.len() as u64;
        Parcel { since: now, items: self.spares.pop().unwrap_or_default(), first, count: 0 }
    }

    /// Makes a batch of what has to be sent again, of what waits, or of the head alone.
    fn batch(&mut self, mut head: Head, now: Instant, batch: &mut Vec<u8>) {
        let again = self.sent.iter().position(|sent| sent.at.is_none());
        let at = again.or_else(|| self.is_due().then(|| self.pack(now)));
        let Some(at) = at else { return head.print(batch) };
        head.oldest = self.sent[0].number;
        let sent = &mut self.sent[at];
        sent.at = Some(now);
        sent.times += 1;
        head.number = sent.number;
        head.first = sent.parcel.first;
        head.asks_word = sent.asks_word;
        head.print(batch);
        batch.extend_from_slice(&sent.parcel.items);
    }

    /// Gives what waits a number, and returns where it stands in `sent`.
    fn pack(&mut self, now: Instant) -> usize {
        let mut parcel = self.waiting.pop_front().unwrap_or_else(|| self.parcel(now));
        self.waiting_bytes -= parcel.items.len();
        let mut fit = 0;
        for Receipts { fate, first, count } in &self.receipts {
            if parcel.items.len() + HEAD_BYTES_MAX + RECEIPTS_BYTES_MAX > BATCH_BYTES_MAX && fit > 0 {
                break;
            }
            Item::Receipts { fate: *fate, first: *first, count: *count }.print(&mut parcel.items);
            fit += 1;
        }
        self.receipts.drain(..fit);
        // So when no more may be under way, one that asks is.
        self.unasked.add(parcel.items.len());
        let asks_word = self.unasked.is_nearly_full();
        if asks_word {
            self.unasked = Volume::default();
        }
        self.sent.push_back(Sent { number: self.next_batch, parcel, at: None, times: 0, asks_word });
        self.next_batch += 1;
        self.sent.len() - 1
    }

    /// The other end has every batch up to `have`; `has_gap` when it misses the next.
    fn have(&mut self, have: u64, has_gap: bool, now: Instant) {
        while self.sent.front().is_some_and(|sent| sent.number <= have) {
            let Parcel { mut items, first, count, .. } = self.sent.pop_front().expect("it is there").parcel;
            if count > 0 {
                self.had.push_back((now, first + count));
            }
            if self.spares.len() < BATCHES_MAX && items.capacity() <= 2 * BATCH_BYTES_MAX {
                items.clear();
                self.spares.push(items);
            }
        }
        if has_gap && self.filled != Some(have) {
            self.filled = Some(have);
            self.sent.iter_mut().for_each(|sent| sent.at = None);
        }
    }

    /// The messages of a parcel will have no receipt: gives their tickets.
    fn forget(&mut self, parcel: &Parcel) -> Vec<u64> {
        let skip = parcel.first.saturating_sub(self.first_open) as usize;
        let end = (parcel.first + parcel.count).saturating_sub(self.first_open) as usize;
        let range = skip.min(end)..end;
        let tickets = self.tickets.range_mut(range).filter_map(Option::take).collect();
        self.close_answered();
        tickets
    }

    /// The other end has had messages for so long that their receipts must be lost.
    fn forget_unanswered(&mut self, now: Instant) {
        while let Some((since, end)) = self.had.front()
            && now.duration_since(*since) >= ANSWER_TIME_MAX
        {
            let count = (end.saturating_sub(self.first_open) as usize).min(self.tickets.len());
            self.tickets.range_mut(..count).for_each(|ticket| *ticket = None);
            self.had.pop_front();
            self.close_answered();
        }
    }

    fn close_answered(&mut self) {
        while let Some(None) = self.tickets.front() {
            self.tickets.pop_front();
            self.first_open += 1;
        }
    }
}

/// The most bytes of one range of receipts.
const RECEIPTS_BYTES_MAX: usize = 1 + 2 * 10;

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
