//! The direction of a link to the other node: what waits, what is on its way, and the
//! tickets of messages whose receipts are due.
//!
//! What is said is composed at once, in parcels of at most a batch; a parcel gets its
//! number when it is published first, and keeps it. Receipts gather as ranges, and ride
//! in the next batch, behind whatever was said before them.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::volume::Volume;
use crate::node::out::Say;
use crate::node::seam::Cause;
use crate::proto::wire::HEAD_BYTES_MAX;
use crate::proto::wire::Head;
use crate::proto::wire::Item;
use crate::proto::wire::Items;
use crate::proto::wire::Message;
use crate::proto::wire::RECEIPTS_BYTES_MAX;
use crate::proto::wire::Receipt;
use crate::proto::wire::put_message;

/// The most bytes of a batch, unless one message alone is longer.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// While more bytes wait for one node, it is sent no `CAST`.
pub const CASTS_BYTES_MAX: usize = 1024 * 1024;

/// How long nothing may be heard of a batch before it is sent again.
pub const RESEND_TIME: Duration = Duration::from_secs(1);

/// How long a batch is kept: by then the origin has answered its messages' senders.
pub const KEEP_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the receipt of a message is waited for that the other end is known to have: a
/// session may take its time to acknowledge it, and another one after that.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Messages that the other end will not have through this link any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Back {
    /// The node's tickets, in order.
    pub tickets: Vec<u64>,
    /// How many messages have none.
    pub casts: u64,
    /// Why.
    pub cause: Cause,
}

/// The direction to the other node.
pub struct Outgoing {
    /// What is not in a batch yet.
    pub waiting: VecDeque<Parcel>,
    pub waiting_bytes: usize,
    pub receipts: Vec<Receipts>,
    /// Batches that the other end is not known to have.
    sent: VecDeque<Sent>,
    /// What was packed since a batch asked for a word last.
    unasked: Volume,
    /// The number of the next batch.
    next_batch: u64,
    /// The node's ticket of each message from `first_open` on, until its receipt comes.
    pub tickets: VecDeque<Option<u64>>,
    first_open: u64,
    /// Up to which message the other end had everything, and since when: receipts of these come
    /// soon, or never.
    had: VecDeque<(Instant, u64)>,
    /// For which `have` a gap was filled: each is filled at once only once.
    filled: Option<u64>,
}

/// Items on their way together.
pub struct Parcel {
    since: Instant,
    pub items: Vec<u8>,
    /// The number of the first message that asks for a receipt, and how many do.
    first: u64,
    count: u64,
    /// Not all are messages: no receipt that was told after it may pass it.
    has_words: bool,
}

struct Sent {
    number: u64,
    parcel: Parcel,
    /// When it was published last; `None` when it has to be again.
    at: Option<Instant>,
    times: u32,
    asks_word: bool,
}

/// A range of messages of the other direction.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipts {
    pub receipt: Receipt,
    pub first: u64,
    pub count: u64,
}

impl Outgoing {
    /// Nothing was said yet.
    pub fn new() -> Self {
        Outgoing {
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
        }
    }

    /// Adds what is said; a receipt or what it takes longer for by its number on the link. `false` for
    /// a `CAST` for which there is no room.
    pub fn say(&mut self, say: Say<'_>, now: Instant) -> bool {
        match say {
            Say::Message { ticket: None, .. } if self.waiting_bytes >= CASTS_BYTES_MAX => return false,
            Say::Message { ticket, is_first, body } => {
                let asks = ticket.is_some();
                self.append(now, u64::from(asks), |items| put_message(asks, is_first, body, items));
                self.tickets.extend(ticket.map(Some));
            }
            Say::Receipt { number, receipt } => match self.receipts.last_mut() {
                Some(last) if last.receipt == receipt && last.first + last.count == number => last.count += 1,
                _ => self.receipts.push(Receipts { receipt, first: number, count: 1 }),
            },
            Say::Waits { number } => self.word(&Item::Waits { first: number, count: 1 }, now),
            Say::Item(item) => self.append(now, 0, |items| items.extend_from_slice(item)).has_words = true,
        }
        true
    }

    /// Adds what is no message, and has to arrive before receipts that come after it.
    fn word(&mut self, item: &Item<'_>, now: Instant) {
        self.append(now, 0, |items| item.print(items)).has_words = true;
    }

    /// Tells whether something waits that was never published.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn waits_for_receipts(&self) -> bool {
        !self.had.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.receipts.is_empty() && self.sent.is_empty()
    }

    pub fn is_due(&self) -> bool {
        let has_new = !self.waiting.is_empty() || !self.receipts.is_empty();
        self.sent.iter().any(|sent| sent.at.is_none()) || (has_new && !self.under_way().is_full())
    }

    /// What is on its way, or was lost.
    fn under_way(&self) -> Volume {
        let mut volume = Volume::default();
        self.sent.iter().for_each(|sent| volume.add(sent.parcel.items.len()));
        volume
    }

    /// Adds an item to the parcel that is filled now, and returns that.
    fn append(&mut self, now: Instant, count: u64, print: impl FnOnce(&mut Vec<u8>)) -> &mut Parcel {
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
            self.waiting.push_back(next);
        }
        let parcel = self.waiting.back_mut().expect("it was added");
        parcel.count += count;
        parcel
    }

    /// An empty parcel.
    fn parcel(&mut self, now: Instant) -> Parcel {
        let first = self.first_open + self.tickets.len() as u64;
        Parcel { since: now, items: vec![], first, count: 0, has_words: false }
    }

    /// Makes a batch of what has to be sent again, of what waits, or of the head alone.
    pub fn batch(&mut self, mut head: Head, now: Instant, batch: &mut Vec<u8>) {
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
        if !self.waiting.iter().any(|later| later.has_words) {
            for Receipts { receipt, first, count } in &self.receipts {
                if parcel.items.len() + HEAD_BYTES_MAX + RECEIPTS_BYTES_MAX > BATCH_BYTES_MAX && fit > 0 {
                    break;
                }
                let item = Item::Receipts { receipt: *receipt, first: *first, count: *count };
                item.print(&mut parcel.items);
                fit += 1;
            }
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
    pub fn have(&mut self, have: u64, has_gap: bool, now: Instant) {
        while self.sent.front().is_some_and(|sent| sent.number <= have) {
            let Parcel { first, count, .. } = self.sent.pop_front().expect("it is there").parcel;
            if count > 0 {
                self.had.push_back((now, first + count));
            }
        }
        if has_gap && self.filled != Some(have) {
            self.filled = Some(have);
            self.lose();
        }
    }

    /// Messages have their receipts: appends their tickets.
    pub fn settle(&mut self, first: u64, count: u64, tickets: &mut Vec<u64>) {
        let range = self.range(first, count);
        tickets.extend(self.tickets.range_mut(range).filter_map(Option::take));
        self.close_answered();
    }

    /// Appends the tickets of messages without a receipt.
    pub fn open(&self, first: u64, count: u64, tickets: &mut Vec<u64>) {
        tickets.extend(self.tickets.range(self.range(first, count)).flatten());
    }

    /// Where messages stand among the tickets.
    fn range(&self, first: u64, count: u64) -> std::ops::Range<usize> {
        let at =
            |message: u64| (message.saturating_sub(self.first_open)).min(self.tickets.len() as u64) as usize;
        at(first)..at(first.saturating_add(count))
    }

    /// The batch of this number came back, and with it all that follows. What was published before it was
    /// taken by a queue that is no more, and so was the batch itself, if it was published twice.
    pub fn returned(&mut self, number: u64, now: Instant) -> Vec<Back> {
        let Some(at) = self.sent.iter().position(|sent| sent.number == number) else { return vec![] };
        let first_sure = if self.sent[at].times == 1 { at } else { usize::MAX };
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let mut backs = vec![];
        for (at, sent) in std::mem::take(&mut self.sent).into_iter().enumerate() {
            let cause = if at >= first_sure { Cause::NotThere } else { Cause::MaybeSeen };
            self.give_back(&sent.parcel, cause, now, &mut backs);
        }
        waiting.iter().for_each(|parcel| self.give_back(parcel, Cause::NotThere, now, &mut backs));
        backs
    }

    /// What was never published won't be soon: its messages come back, the rest waits on.
    pub fn give_up_waiting(&mut self, cause: Cause, now: Instant) -> Vec<Back> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let mut backs = vec![];
        waiting.iter().for_each(|parcel| self.give_back(parcel, cause, now, &mut backs));
        backs
    }

    /// Takes the messages out of a parcel; everything else in it is said again.
    fn give_back(&mut self, parcel: &Parcel, cause: Cause, now: Instant, backs: &mut Vec<Back>) {
        let mut casts = 0;
        for item in Items::of(&parcel.items).filter_map(Result::ok) {
            match item {
                Item::Message(Message { asks, .. }) => casts += u64::from(!asks),
                item => self.word(&item, now),
            }
        }
        let mut tickets = vec![];
        self.settle(parcel.first, parcel.count, &mut tickets);
        Back::add(backs, tickets, casts, cause);
    }

    /// Time passes: what was not heard of is sent again, messages that are too old are given up. Returns
    /// how many nobody waited for.
    pub fn tick(&mut self, now: Instant) -> u64 {
        let mut given_up = vec![];
        let is_old = |parcel: &Parcel| now.duration_since(parcel.since) >= KEEP_TIME_MAX;
        while self.sent.front().is_some_and(|sent| is_old(&sent.parcel)) {
            let sent = self.sent.pop_front().expect("it is there");
            self.give_back(&sent.parcel, Cause::MaybeSeen, now, &mut given_up);
        }
        while self.waiting.front().is_some_and(is_old) {
            let parcel = self.waiting.pop_front().expect("it is there");
            self.waiting_bytes -= parcel.items.len();
            self.give_back(&parcel, Cause::MaybeSeen, now, &mut given_up);
        }
        self.forget_unanswered(now);
        for sent in &mut self.sent {
            if sent.at.is_some_and(|at| now.duration_since(at) >= RESEND_TIME) {
                sent.at = None;
            }
        }
        given_up.iter().map(|back| back.casts).sum()
    }

    pub fn lose(&mut self) {
        self.sent.iter_mut().for_each(|sent| sent.at = None);
    }

    /// The other end has had messages for so long that their receipts must be lost.
    fn forget_unanswered(&mut self, now: Instant) {
        while let Some((since, end)) = self.had.front()
            && now.duration_since(*since) >= ANSWER_TIME_MAX
        {
            let range = self.range(0, *end);
            self.tickets.range_mut(range).for_each(|ticket| *ticket = None);
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
