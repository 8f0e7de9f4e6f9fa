//! A link: what this node says to one other node, and what it has from it.
//!
//! The broker may lose whatever it carries, so both ends count. Batches are numbered;
//! each tells what its sender has of the other direction; what the other end does not
//! have is sent again, and what comes twice is dropped. A few batches may be on their
//! way at once, or more small ones: at a moderate rate each has only one message, and to
//! wait for a word would cost more than to send the next. While fewer are, what waits is
//! sent at once, and otherwise it gathers, so an idle link is quick and a busy one sends
//! large batches, without a timer. The sender asks for a word when three quarters of what
//! may be on its way are, so it seldom waits for one.
//!
//! What is said is composed at once, in parcels of at most a batch; a parcel gets its
//! number when it is published first, and keeps it. Receipts gather as ranges, and ride
//! in the next batch, behind whatever was said before them.
//!
//! What belongs to a message is a ticket of the node's, which its receipt brings back.
//! A link lives as long as both incarnations.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::cluster::event::{ClusterEvent, give_back};
use crate::cluster::way::{Trouble, Way};
use crate::node::out::Say;
use crate::node::seam::{Cause, Returned};
use crate::proto::name::NodeId;
use crate::proto::wire::{HEAD_BYTES_MAX, Head, Item, Items, Message, RECEIPTS_BYTES_MAX, put_message};

/// The most bytes of a batch, unless one message alone is longer.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// While more bytes wait for one node, it is sent no `CAST`.
pub const CASTS_BYTES_MAX: usize = 1024 * 1024;

/// Batches that may be on their way on a link at once, whatever their size.
const BATCHES_MAX: usize = 4;

/// Batches that may be while they are small: while fewer bytes than this are on their way.
const SMALL_BATCHES_MAX: usize = 32;
const SMALL_BYTES_MAX: usize = 4 * 1024;

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
    /// The other node.
    pub node: NodeId,
    /// Since when there is this link.
    pub since: Instant,
    /// Waits to be looked at by whoever publishes.
    pub is_ready: bool,
    /// What is not in a batch yet.
    waiting: VecDeque<Parcel>,
    waiting_bytes: usize,
    /// Ranges of messages of the other direction.
    receipts: Vec<Item<'static>>,
    /// Batches that the other end is not known to have.
    sent: VecDeque<Parcel>,
    /// How many were packed, and their bytes, since one asked for a word last.
    unasked: (usize, usize),
    /// The number of the next batch.
    next_batch: u64,
    /// The node's ticket of each message from `first_open` on, until its receipt comes.
    tickets: VecDeque<Option<u64>>,
    first_open: u64,
    /// Up to which message the other end had everything, and since when: receipts of these come
    /// soon, or never.
    had: VecDeque<(Instant, u64)>,
    /// For which `have` a gap was filled: each is filled at once only once.
    filled: Option<u64>,
    /// The other node has no queue now: it is tried again then, after that pause.
    probe: Option<(Instant, Duration)>,
    /// Every batch of the other direction up to this one has come.
    have: u64,
    /// Since when something came of which the other end was not told.
    untold_since: Option<Instant>,
    /// The other end asked to be told.
    is_asked: bool,
    /// A batch came before those that are missing.
    has_gap: bool,
    /// What is wrong with the way to the other node.
    pub way: Way,
}

/// Items on their way together.
struct Parcel {
    since: Instant,
    items: Vec<u8>,
    /// The number of the first message that asks for a receipt, and how many do.
    first: u64,
    count: u64,
    /// Not all are messages: no receipt that was told after it may pass it.
    has_words: bool,
    /// The number of the batch that it is, once it is one.
    number: u64,
    /// When it was published last; `None` when it has to be, or has to be again.
    at: Option<Instant>,
    times: u32,
    asks_word: bool,
}

impl Link {
    /// A link on which nothing was said yet.
    pub fn new(node: NodeId, now: Instant) -> Self {
        Link {
            node,
            since: now,
            is_ready: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            receipts: vec![],
            sent: VecDeque::new(),
            unasked: (0, 0),
            next_batch: 1,
            tickets: VecDeque::new(),
            first_open: 1,
            had: VecDeque::new(),
            filled: None,
            probe: None,
            have: 0,
            untold_since: None,
            is_asked: false,
            has_gap: false,
            way: Way::default(),
        }
    }

    /// Adds what is said; a receipt or what it takes longer for by its number on the link. `false` for
    /// a `CAST` for which there is no room.
    pub fn say(&mut self, say: Say<&[u8]>, now: Instant) -> bool {
        match say {
            Say::Message { ticket: None, .. } if self.waiting_bytes >= CASTS_BYTES_MAX => return false,
            Say::Message { ticket, is_first, body } => {
                let asks = ticket.is_some();
                self.append(now, |items| put_message(asks, is_first, body, items)).count += u64::from(asks);
                self.tickets.extend(ticket.map(Some));
            }
            Say::Receipt(number, receipt) => match self.receipts.last_mut() {
                Some(Item::Receipts { receipt: last, first, count })
                    if *last == receipt && *first + *count == number =>
                {
                    *count += 1;
                }
                _ => self.receipts.push(Item::Receipts { receipt, first: number, count: 1 }),
            },
            Say::Waits(number) => self.word(&Item::Waits { first: number, count: 1 }, now),
            Say::Item(item) => self.append(now, |items| items.extend_from_slice(item)).has_words = true,
        }
        true
    }

    /// Adds what is no message, and has to arrive before receipts that come after it.
    fn word(&mut self, item: &Item<'_>, now: Instant) {
        self.append(now, |items| item.print(items)).has_words = true;
    }

    /// Adds an item to the parcel that is filled now, and returns that.
    fn append(&mut self, now: Instant, print: impl FnOnce(&mut Vec<u8>)) -> &mut Parcel {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.parcel(now));
        }
        let parcel = self.waiting.back_mut().expect("it was added");
        let before = parcel.items.len();
        print(&mut parcel.items);
        self.waiting_bytes += parcel.items.len() - before;
        if before > 0 && parcel.items.len() + HEAD_BYTES_MAX > BATCH_BYTES_MAX {
            let items = parcel.items.split_off(before);
            let mut next = self.parcel(now);
            next.items.extend_from_slice(&items);
            self.waiting.push_back(next);
        }
        self.waiting.back_mut().expect("it was added")
    }

    /// An empty parcel.
    fn parcel(&self, now: Instant) -> Parcel {
        let first = self.first_open + self.tickets.len() as u64;
        let (number, at, times, asks_word) = (0, None, 0, false);
        Parcel { since: now, items: vec![], first, count: 0, has_words: false, number, at, times, asks_word }
    }

    /// Tells whether [`Link::next`] would give something.
    pub fn is_due(&self, now: Instant) -> bool {
        self.probe.is_none_or(|(at, _)| at <= now) && (self.has_batch() || self.owes_word(now))
    }

    /// Tells whether there is nothing for [`Link::tick`] to do.
    pub fn is_quiet(&self) -> bool {
        !self.is_active() && self.had.is_empty()
    }

    /// Tells whether anything is under way, so that time alone may make it due.
    pub fn is_active(&self) -> bool {
        let is_idle = self.waiting.is_empty() && self.receipts.is_empty() && self.sent.is_empty();
        !is_idle || self.untold_since.is_some() || self.has_gap
    }

    /// Tells whether there is a batch to send again, or one that may be on its way beside the others.
    fn has_batch(&self) -> bool {
        let under_way = || (self.sent.len(), self.sent.iter().map(|sent| sent.items.len()).sum());
        let has_new = !self.waiting.is_empty() || !self.receipts.is_empty();
        self.sent.iter().any(|sent| sent.at.is_none()) || (has_new && !is_full(under_way()))
    }

    /// The other end waits for a word, and nothing else will carry it.
    fn owes_word(&self, now: Instant) -> bool {
        let is_old = |since| now.duration_since(since) >= QUIET_TIME_MAX;
        self.has_gap || self.is_asked || self.untold_since.is_some_and(is_old)
    }

    /// Puts the next batch to publish into `batch`, in the place of what it held: one that has to be sent
    /// again, what waits, or the head alone; `false` when there is none now. `version` is the form of batches
    /// that both ends read.
    pub fn next(&mut self, me: &NodeId, version: u8, now: Instant, batch: &mut Vec<u8>) -> bool {
        if !self.is_due(now) {
            return false;
        }
        if let Some((at, pause)) = &mut self.probe {
            // One batch finds out; its return or an answer tells.
            *at = now + *pause;
            *pause = (*pause * 2).min(PROBE_TIME_MAX);
        }
        let (from, have, has_gap) = (me.clone(), self.have, self.has_gap);
        (self.untold_since, self.is_asked, self.has_gap) = (None, false, false);
        let mut head =
            Head { version, from, number: 0, oldest: 0, have, has_gap, asks_word: false, first: 0 };
        batch.clear();
        let again = self.sent.iter().position(|sent| sent.at.is_none());
        let Some(at) = again.or_else(|| self.has_batch().then(|| self.pack(now))) else {
            head.print(batch);
            return true;
        };
        head.oldest = self.sent[0].number;
        let sent = &mut self.sent[at];
        sent.at = Some(now);
        sent.times += 1;
        (head.number, head.first, head.asks_word) = (sent.number, sent.first, sent.asks_word);
        head.print(batch);
        batch.extend_from_slice(&sent.items);
        true
    }

    /// Gives what waits a number, and returns where it stands in `sent`.
    fn pack(&mut self, now: Instant) -> usize {
        let mut parcel = self.waiting.pop_front().unwrap_or_else(|| self.parcel(now));
        self.waiting_bytes -= parcel.items.len();
        let mut fit = 0;
        if !self.waiting.iter().any(|later| later.has_words) {
            for receipts in &self.receipts {
                if parcel.items.len() + HEAD_BYTES_MAX + RECEIPTS_BYTES_MAX > BATCH_BYTES_MAX && fit > 0 {
                    break;
                }
                receipts.print(&mut parcel.items);
                fit += 1;
            }
        }
        self.receipts.drain(..fit);
        let (batches, bytes) = (self.unasked.0 + 1, self.unasked.1 + parcel.items.len());
        // With three quarters: so when no more may be under way, one that asks is.
        parcel.asks_word = is_full((batches + batches / 3, bytes + bytes / 3));
        self.unasked = if parcel.asks_word { (0, 0) } else { (batches, bytes) };
        parcel.number = self.next_batch;
        self.next_batch += 1;
        self.sent.push_back(parcel);
        self.sent.len() - 1
    }

    /// Takes in the head of a batch that came. Tells whether it is the next, so that its items count;
    /// otherwise it was here before, comes too early, or has none.
    pub fn hear(&mut self, head: &Head, now: Instant) -> bool {
        self.probe = None;
        self.other_has(head.have, head.has_gap, now);
        if head.number == 0 {
            return false;
        }
        // What is older than the oldest that may come will never come.
        self.have = self.have.max(head.oldest.saturating_sub(1));
        self.untold_since.get_or_insert(now);
        self.is_asked |= head.asks_word;
        if head.number != self.have + 1 {
            self.has_gap |= head.number > self.have;
            return false;
        }
        self.have = head.number;
        true
    }

    /// The other end has every batch up to `have`; `has_gap` when it misses the next.
    fn other_has(&mut self, have: u64, has_gap: bool, now: Instant) {
        while self.sent.front().is_some_and(|sent| sent.number <= have) {
            let Parcel { first, count, .. } = self.sent.pop_front().expect("it is there");
            self.way.trouble = None;
            if count > 0 {
                self.had.push_back((now, first + count));
            }
        }
        if has_gap && self.filled != Some(have) {
            self.filled = Some(have);
            self.sent.iter_mut().for_each(|sent| sent.at = None);
        }
    }

    /// Messages have their receipts: appends their tickets.
    pub fn settle(&mut self, first: u64, count: u64, tickets: &mut Vec<u64>) {
        let range = self.range(first, count);
        tickets.extend(self.tickets.range_mut(range).filter_map(Option::take));
        while let Some(None) = self.tickets.front() {
            self.tickets.pop_front();
            self.first_open += 1;
        }
    }

    /// Appends the tickets of messages without a receipt.
    pub fn open(&self, first: u64, count: u64, tickets: &mut Vec<u64>) {
        tickets.extend(self.tickets.range(self.range(first, count)).flatten());
    }

    /// Where messages stand among the tickets.
    fn range(&self, first: u64, count: u64) -> Range<usize> {
        let at =
            |message: u64| message.saturating_sub(self.first_open).min(self.tickets.len() as u64) as usize;
        at(first)..at(first.saturating_add(count))
    }

    /// The batch of this number came back, as there is no queue for it, and with it all that follows:
    /// messages go back in order, everything else waits for the queue. What was published before it was
    /// taken by a queue that is no more, and so was the batch itself, if it was published twice.
    pub fn returned(&mut self, number: u64, now: Instant, events: &mut Vec<ClusterEvent>) {
        self.probe.get_or_insert((now + PROBE_TIME_MIN, PROBE_TIME_MIN * 2));
        self.way.trouble = Some(Trouble::ComesBack);
        let Some(at) = self.sent.iter().position(|sent| sent.number == number) else { return };
        let first_sure = if self.sent[at].times == 1 { number } else { u64::MAX };
        let waiting = self.take_waiting();
        for sent in std::mem::take(&mut self.sent) {
            let cause = if sent.number >= first_sure { Cause::NotThere } else { Cause::MaybeSeen };
            self.give_back(&sent, cause, now, events);
        }
        waiting.iter().for_each(|parcel| self.give_back(parcel, Cause::NotThere, now, events));
    }

    /// What was never published won't be soon: its messages come back, the rest waits on.
    pub fn give_up_waiting(&mut self, cause: Cause, now: Instant, events: &mut Vec<ClusterEvent>) {
        self.take_waiting().iter().for_each(|parcel| self.give_back(parcel, cause, now, events));
    }

    fn take_waiting(&mut self) -> VecDeque<Parcel> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    fn give_back(&mut self, parcel: &Parcel, cause: Cause, now: Instant, events: &mut Vec<ClusterEvent>) {
        let (tickets, casts) = self.take_out(parcel, now);
        give_back(events, &self.node, tickets, casts, cause);
    }

    /// Takes the messages out of a parcel: the tickets, and how many have none. Everything else in it is
    /// said again.
    fn take_out(&mut self, parcel: &Parcel, now: Instant) -> (Vec<u64>, u64) {
        let (mut tickets, mut casts) = (vec![], 0);
        for item in Items::of(&parcel.items).filter_map(Result::ok) {
            match item {
                Item::Message(Message { asks, .. }) => casts += u64::from(!asks),
                item => self.word(&item, now),
            }
        }
        self.settle(parcel.first, parcel.count, &mut tickets);
        (tickets, casts)
    }

    /// Time passes: what was not heard of is sent again, messages that are too old are given up. The node
    /// has given up those with tickets, too; it is told of the others.
    pub fn tick(&mut self, now: Instant, events: &mut Vec<ClusterEvent>) {
        let (mut casts, mut unheard) = (0, 0);
        let is_old = |parcel: &Parcel| now.duration_since(parcel.since) >= KEEP_TIME_MAX;
        while self.sent.front().is_some_and(is_old) {
            let sent = self.sent.pop_front().expect("it is there");
            let (tickets, its_casts) = self.take_out(&sent, now);
            casts += its_casts;
            unheard += tickets.len() as u64 + its_casts;
        }
        if unheard > 0 {
            self.way.trouble = Some(Trouble::Unheard);
            events.push(ClusterEvent::Unheard(unheard));
        }
        while self.waiting.front().is_some_and(is_old) {
            let parcel = self.waiting.pop_front().expect("it is there");
            self.waiting_bytes -= parcel.items.len();
            casts += self.take_out(&parcel, now).1;
        }
        give_back(events, &self.node, vec![], casts, Cause::MaybeSeen);
        // Of what the other end has had for so long the receipts must be lost.
        while let Some((since, end)) = self.had.front().copied()
            && now.duration_since(since) >= ANSWER_TIME_MAX
        {
            self.settle(0, end, &mut vec![]);
            self.had.pop_front();
        }
        for sent in &mut self.sent {
            sent.at = sent.at.filter(|at| now.duration_since(*at) < RESEND_TIME);
        }
    }

    /// The other node is no more: what was never published was never seen, of the rest nobody knows.
    pub fn end(mut self, now: Instant, events: &mut Vec<ClusterEvent>) {
        self.give_up_waiting(Cause::Dead, now, events);
        let mut tickets = vec![];
        self.open(0, u64::MAX, &mut tickets);
        let (node, cause) = (self.node, Cause::Gone);
        events.push(ClusterEvent::Returned(Returned { node, tickets, casts: 0, cause }));
    }

    /// What was published may be lost: it is published again.
    pub fn lose(&mut self) {
        self.probe = None;
        self.sent.iter_mut().for_each(|sent| sent.at = None);
    }
}

/// Tells whether no more may be on its way than so many batches of so many bytes.
fn is_full((batches, bytes): (usize, usize)) -> bool {
    batches >= BATCHES_MAX && (batches >= SMALL_BATCHES_MAX || bytes >= SMALL_BYTES_MAX)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
