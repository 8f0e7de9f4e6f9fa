//! What a session was shown and has not acknowledged, and what waits until it may be shown.
//!
//! There is one for a session that acknowledges (`LOGIN ... ack`), and for any session while its login is not
//! answered or its mailbox is drained. A message in it is in one of three lists. *Shown*: written or about to
//! be, and not acknowledged; at most 256, and no more bytes than the outbox may hold. *Mail*: from the
//! mailbox, and *live*: from a sender, both waiting for room among the shown; the live ones wait also until
//! the login is answered and the mailbox is drained. What is in here too long is given back.
//!
//! Left out: bytes and sockets. Whoever owns it prints what [`Unacknowledged::show`] gives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::node::duplicates::SEEN_TIME;
use crate::node::outbox::Unwritten;
use crate::node::slab::DeliveryId;

/// Messages that a session may leave unacknowledged; then the rest waits.
pub const UNACKED_MAX: usize = 256;

/// How long a message may be with a session without an acknowledgement; then it goes elsewhere. The
/// same for one that waits behind a mailbox.
pub const ACK_TIME_MAX: Duration = Duration::from_millis(10_000);

/// How long a full outbox waits for the next acknowledgement before its session counts as a slow consumer.
pub const FULL_ACK_TIME_MAX: Duration = Duration::from_millis(5_000);

/// After so long whoever waits for the fate of a message is told that it may take longer.
const PATIENCE_TIME: Duration = Duration::from_millis(5_000);

/// Messages that went elsewhere unacknowledged, and are remembered as such: all that an outbox of the
/// default size holds, because they may all go at once, and none may be shown here again by that.
const EXPIRED_MAX: usize = 4_096;

/// How long they are remembered: as long as a user's node knows what it was shown, at most.
const EXPIRED_TIME: Duration = SEEN_TIME.saturating_mul(2);

/// The messages that one session has and has not taken.
#[derive(Default)]
pub struct Unacknowledged {
    pub acks: bool,
    /// Live messages wait: for the answer to the login, or for the end of the mailbox.
    pub is_held: bool,
    shown: VecDeque<HeldMessage>,
    shown_bytes: usize,
    mail: VecDeque<HeldMessage>,
    live: VecDeque<HeldMessage>,
    held_bytes: usize,
    expired: VecDeque<Expired>,
    /// When the session last acknowledged anything, or had nothing to acknowledge; none before its first message.
    acked_at: Option<Instant>,
}

/// A message in one of the lists.
pub struct HeldMessage {
    pub line: Box<[u8]>,
    /// What its user's node remembers it by, if it does.
    pub hash: Option<u64>,
    /// The delivery that it is part of; none for a `CAST`.
    pub delivery: Option<DeliveryId>,
    /// When it came; from the mailbox, when it was shown.
    pub since: Instant,
    /// Whoever waits was told that it may take longer.
    pub is_told: bool,
}

/// A message that was here for too long, and is elsewhere now.
struct Expired {
    /// The `MSG` line up to its text.
    head: Box<[u8]>,
    hash: u64,
    was_shown: bool,
    at: Instant,
}

/// Which list a message comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Live,
    /// From the mailbox: before all that are live.
    Mail,
}

/// What an acknowledgement comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Acked {
    /// This delivery has its fate.
    Taken(DeliveryId),
    /// The message went elsewhere before: what it is remembered by.
    Late(u64),
    /// It is not known here, or nobody waits for it.
    Unknown,
}

/// What time has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overdue {
    /// Messages that were not acknowledged in time, or not even shown: they go elsewhere.
    pub given_back: Vec<Unwritten>,
    /// Deliveries that may take longer.
    pub slow: Vec<DeliveryId>,
    /// Too much waits for acknowledgements that don't come.
    pub is_stalled: bool,
}

impl Unacknowledged {
    /// The login is answered: what waited for that is shown, and may be acknowledged, from now on.
    pub fn let_in(&mut self, acks: bool, now: Instant) {
        (self.acks, self.is_held, self.acked_at) = (acks, false, Some(now));
    }

    /// Tells whether there is no use for it.
    pub fn is_over(&self) -> bool {
        !self.acks && !self.is_held && self.is_idle()
    }

    /// Tells whether time brings nothing.
    pub fn is_idle(&self) -> bool {
        self.shown.is_empty() && self.mail.is_empty() && self.live.is_empty() && self.expired.is_empty()
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Tells whether the session had a message for too long, and so is not given it again. One that was not even
    /// shown is refused once, when it looks for another place, and never if it comes from the mailbox: whoever
    /// repeats it later may have it shown.
    pub fn refuses(&mut self, hash: u64, kind: Kind) -> bool {
        let Some(at) = self.expired.iter().position(|expired| expired.hash == hash) else { return false };
        if self.expired[at].was_shown {
            return true;
        }
        self.expired.remove(at);
        kind == Kind::Live
    }

    pub fn add(&mut self, entry: HeldMessage, kind: Kind) {
        if self.shown.is_empty() && self.held_bytes == 0 {
            self.acked_at = Some(entry.since);
        }
        self.held_bytes += entry.bytes();
        match kind {
            Kind::Mail => self.mail.push_back(entry),
            Kind::Live => self.live.push_back(entry),
        }
    }

    /// A live message that waits is in the mailbox, too: it is shown with what comes from there. If it waited for the
    /// end of the mailbox, each would wait for the other.
    pub fn show_with_mail(&mut self, hash: u64) {
        let its = self.live.iter().position(|entry| entry.hash == Some(hash));
        self.mail.extend(its.and_then(|at| self.live.remove(at)));
    }

    /// Gives what may be shown now to `show`, and whether it is settled by an acknowledgement, or when it is written.
    pub fn show(&mut self, now: Instant, bytes_max: usize, mut show: impl FnMut(&HeldMessage, bool)) {
        while !self.acks || (self.shown.len() < UNACKED_MAX && self.shown_bytes < bytes_max) {
            let live = if self.is_held { None } else { Some(&mut self.live) };
            // Nobody waits for the fate of one from the mailbox, which has it still.
            let mail = self.mail.pop_front().map(|entry| HeldMessage { since: now, ..entry });
            let Some(entry) = mail.or_else(|| live?.pop_front()) else { break };
            self.held_bytes -= entry.bytes();
            let waits_for_ack = self.acks && entry.delivery.is_some();
            show(&entry, waits_for_ack);
            if waits_for_ack {
                self.shown_bytes += entry.bytes();
                self.shown.push_back(entry);
            }
        }
    }

    /// Takes out a message that the session acknowledges. Only one of them: a tag may have been used for
    /// two messages.
    pub fn acknowledge(&mut self, id: &str, from: &str, now: Instant) -> Acked {
        let head = format!("MSG {from} {id} ");
        let Some(at) = self.shown.iter().position(|entry| entry.line.starts_with(head.as_bytes())) else {
            let is_late = |expired: &Expired| expired.was_shown && *expired.head == *head.as_bytes();
            let late = self.expired.iter().position(is_late).and_then(|at| self.expired.remove(at));
            return late.map_or(Acked::Unknown, |expired| Acked::Late(expired.hash));
        };
        self.acked_at = Some(now);
        let entry = self.shown.remove(at).expect("it is there");
        self.shown_bytes -= entry.bytes();
        if self.shown.is_empty() {
            self.shown = VecDeque::new();
        }
        entry.delivery.map_or(Acked::Unknown, Acked::Taken)
    }

    pub fn age(&mut self, now: Instant, bytes_max: usize) -> Overdue {
        let mut overdue = Overdue::default();
        while self.expired.front().is_some_and(|old| now.duration_since(old.at) >= EXPIRED_TIME) {
            self.expired.pop_front();
        }
        for entry in take_due(&mut self.shown, now) {
            self.shown_bytes -= entry.bytes();
            self.expire(entry, true, now, &mut overdue);
        }
        for entry in take_due(&mut self.live, now) {
            self.held_bytes -= entry.bytes();
            self.expire(entry, false, now, &mut overdue);
        }
        let is_slow =
            |entry: &&mut HeldMessage| !entry.is_told && now.duration_since(entry.since) >= PATIENCE_TIME;
        for entry in self.shown.iter_mut().chain(&mut self.live).filter(is_slow) {
            entry.is_told = true;
            overdue.slow.extend(entry.delivery);
        }
        let is_full = self.acks && self.held_bytes >= bytes_max;
        let is_long_ago = |since| now.duration_since(since) >= FULL_ACK_TIME_MAX;
        overdue.is_stalled = is_full && self.acked_at.is_some_and(is_long_ago);
        overdue
    }

    fn expire(&mut self, entry: HeldMessage, was_shown: bool, at: Instant, overdue: &mut Overdue) {
        if self.expired.len() == EXPIRED_MAX {
            self.expired.pop_front();
        }
        // Without a hash no duplicate of it is known as one.
        if let Some(hash) = entry.hash {
            let spaces = memchr::memchr_iter(b' ', &entry.line);
            let head = spaces.take(3).last().map_or(&entry.line[..], |space| &entry.line[..=space]).into();
            self.expired.push_back(Expired { head, hash, was_shown, at });
        }
        overdue.given_back.push(entry.give_back(was_shown));
    }

    /// The messages whose fate somebody waits for, with their lines: all that are shown, and the live
    /// ones that are not.
    pub fn outstanding(&self) -> impl Iterator<Item = (DeliveryId, &[u8])> {
        let entries = self.shown.iter().chain(&self.live);
        entries.filter_map(|entry| Some((entry.delivery?, &*entry.line)))
    }

    /// Ends it: gives back what was shown, and then what was not.
    pub fn end(self) -> (Vec<Unwritten>, Vec<Unwritten>) {
        let shown = self.shown.into_iter().map(|entry| entry.give_back(true)).collect();
        let held = self.mail.into_iter().chain(self.live).map(|entry| entry.give_back(false)).collect();
        (shown, held)
    }
}

/// The messages of a list that are there for too long. They need not be in the order of time.
fn take_due(list: &mut VecDeque<HeldMessage>, now: Instant) -> Vec<HeldMessage> {
    let is_due = |entry: &HeldMessage| now.duration_since(entry.since) >= ACK_TIME_MAX;
    if !list.iter().any(is_due) {
        return vec![];
    }
    let (due, rest): (Vec<HeldMessage>, Vec<HeldMessage>) =
        std::mem::take(list).into_iter().partition(is_due);
    *list = rest.into();
    due
}

impl HeldMessage {
    /// The memory that it holds, about.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.line.len()
    }

    fn give_back(self, was_shown: bool) -> Unwritten {
        Unwritten { delivery: self.delivery, line: self.line, in_doubt: was_shown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, since: Instant) -> HeldMessage {
        let delivery = Some(DeliveryId::from_number(number));
        let line = (*b"MSG alice t some text").into();
        HeldMessage { line, hash: Some(number), delivery, since, is_told: false }
    }

    #[test]
    fn a_late_acknowledgement_takes_one_of_two_messages_with_one_tag() {
        let now = Instant::now();
        let mut ledger = Unacknowledged { acks: true, ..Unacknowledged::default() };
        [1, 2].into_iter().for_each(|number| ledger.add(entry(number, now), Kind::Live));
        ledger.show(now, 4_096, |_, _| ());
        assert_eq!(ledger.age(now + ACK_TIME_MAX, 4_096).given_back.len(), 2);
        let mut late = || ledger.acknowledge("t", "alice", now);
        assert_eq!([late(), late(), late()], [Acked::Late(1), Acked::Late(2), Acked::Unknown]);
    }

    #[test]
    fn live_messages_wait_behind_the_login_and_mail_and_are_bounded_by_acknowledgements() {
        let now = Instant::now();
        let mut ledger = Unacknowledged { acks: true, is_held: true, ..Unacknowledged::default() };
        ledger.add(entry(1, now), Kind::Live);
        ledger.add(entry(2, now), Kind::Mail);
        let mut shown = 0;
        ledger.show(now, 4_096, |_, _| shown += 1);
        assert_eq!(shown, 1, "the mail");
        assert_eq!(ledger.acknowledge("t", "alice", now), Acked::Taken(DeliveryId::from_number(2)));
        (3..600).for_each(|number| ledger.add(entry(number, now), Kind::Live));
        ledger.let_in(true, now);
        ledger.show(now, 1 << 20, |_, waits_for_ack| {
            assert!(waits_for_ack, "to be written is not enough");
            shown += 1;
        });
        assert_eq!(shown, 1 + UNACKED_MAX);
        assert_eq!(ledger.age(now + PATIENCE_TIME, 1).slow.len(), 598);
        assert!(ledger.age(now + FULL_ACK_TIME_MAX, 1).is_stalled);
        ledger.let_in(true, now + PATIENCE_TIME / 2);
        assert!(!ledger.age(now + FULL_ACK_TIME_MAX, 1).is_stalled, "it was let in just now");
        assert_eq!(ledger.age(now + ACK_TIME_MAX, 1).given_back.len(), 598);
        let mut refuses = |number, kind| ledger.refuses(number, kind);
        assert!(refuses(3, Kind::Live) && refuses(3, Kind::Live) && refuses(3, Kind::Mail), "it was shown");
        assert!(refuses(599, Kind::Live) && !refuses(599, Kind::Live), "not shown: what is repeated may be");
        assert!(!refuses(598, Kind::Mail), "it comes from the mailbox to be shown");
    }
}
