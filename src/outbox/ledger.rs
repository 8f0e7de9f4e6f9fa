//! What a session was shown and has not acknowledged, and what waits until it
//! may be shown.
//!
//! A ledger exists for a session that acknowledges (`LOGIN ... ack`), and for any
//! session while its mailbox is drained. A message in it is in one of three
//! lists. *Shown*: written or about to be, and not acknowledged; at most 256, and
//! no more bytes than the outbox may hold. *Mail*: from the mailbox, and *live*:
//! from a sender, both waiting for room among the shown; the live ones wait also
//! until the mailbox is drained. What is in here too long is given back.
//!
//! Left out: bytes and sockets. The outbox prints what [`Ledger::show`] gives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::outbox::{Kind, SEEN_TIME, Ticket, Unwritten};
use crate::proto::{MessageId, UserName};

/// Messages that a session may leave unacknowledged; then the rest waits.
pub const UNACKED_MAX: usize = 256;

/// How long a message may be in a session's outbox without an acknowledgement;
/// then it goes elsewhere. The same for one that waits behind a mailbox.
pub const ACK_TIME_MAX: Duration = Duration::from_millis(10_000);

/// How long a full outbox waits for the next acknowledgement before its session
/// counts as a slow consumer.
pub const FULL_ACK_TIME_MAX: Duration = Duration::from_millis(5_000);

/// After so long whoever waits for the fate of a message is told that it may take longer.
const PATIENCE_TIME: Duration = Duration::from_millis(5_000);

/// Messages that went elsewhere unacknowledged, and are remembered as such: all that an outbox of the
/// default size holds, because they may all go at once, and none may be shown here again by that.
const EXPIRED_MAX: usize = 4_096;

/// How long they are remembered: as long as the session knows what it was shown, at most.
const EXPIRED_TIME: Duration = SEEN_TIME.saturating_mul(2);

/// One session's ledger.
pub struct Ledger {
    /// The session acknowledges what it is shown.
    pub acks: bool,
    /// The mailbox is being drained: live messages wait.
    pub is_draining: bool,
    shown: VecDeque<Entry>,
    shown_bytes: usize,
    mail: VecDeque<Entry>,
    live: VecDeque<Entry>,
    held_bytes: usize,
    expired: VecDeque<Expired>,
    /// When the session last acknowledged anything, or had nothing to acknowledge.
    acked_at: Instant,
}

/// A message in a ledger.
pub struct Entry {
    pub from: UserName,
    pub id: MessageId,
    /// The `MSG` line, without its ending.
    pub line: Box<[u8]>,
    /// What the session remembers it by, if it does.
    pub hash: Option<u64>,
    /// Who waits for its fate: nobody for a `CAST`, and several for copies.
    pub tickets: Vec<Ticket>,
    /// When it came; from the mailbox, when it was shown.
    pub since: Instant,
    /// Those who wait were told that it may take longer.
    pub is_told: bool,
}

/// A message that was in a ledger for too long, and is elsewhere now.
struct Expired {
    from: UserName,
    id: MessageId,
    hash: u64,
    was_shown: bool,
    at: Instant,
}

/// What an acknowledgement comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Acked {
    /// Those who wait for the message's fate.
    pub tickets: Vec<Ticket>,
    /// It comes late, and the message went elsewhere: what it is remembered by.
    pub late: Option<u64>,
}

/// What time has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overdue {
    /// Messages that were not acknowledged in time, or not even shown: they go elsewhere.
    pub given_back: Vec<Unwritten>,
    /// Messages that may take longer.
    pub slow: Vec<Ticket>,
    /// Hashes of messages that were not taken, and may be shown once more if they come.
    pub forgotten: Vec<u64>,
    /// Too much waits for acknowledgements that don't come.
    pub is_stalled: bool,
}

/// What is known of a message that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    No,
    /// It is in the ledger.
    Waits,
    /// It was in here for too long.
    Expired,
    /// It was in here for too long, was not shown, and may be now.
    Unshown,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(now: Instant) -> Self {
        Ledger {
            acks: false,
            is_draining: false,
            shown: VecDeque::new(),
            shown_bytes: 0,
            mail: VecDeque::new(),
            live: VecDeque::new(),
            held_bytes: 0,
            expired: VecDeque::new(),
            acked_at: now,
        }
    }

    /// Tells whether there is no use for it.
    pub fn is_over(&self) -> bool {
        let is_empty = self.mail.is_empty() && self.live.is_empty() && self.expired.is_empty();
        !self.acks && !self.is_draining && is_empty
    }

    /// Bytes that wait to be shown.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Tells whether there is no message in it, shown or not.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.mail.is_empty() && self.live.is_empty()
    }

    /// Adds a message to those that wait.
    pub fn add(&mut self, entry: Entry, kind: Kind) {
        if self.shown.is_empty() && self.held_bytes == 0 {
            self.acked_at = entry.since;
        }
        self.held_bytes += entry.bytes();
        match kind {
            Kind::Mail => self.mail.push_back(entry),
            Kind::Live | Kind::Shared => self.live.push_back(entry),
        }
    }

    /// Gives what may be shown now to `show`, which takes the line and whoever waits only until
    /// it is written.
    pub fn show(&mut self, now: Instant, bytes_max: usize, mut show: impl FnMut(&[u8], Vec<Ticket>)) {
        while !self.acks || (self.shown.len() < UNACKED_MAX && self.shown_bytes < bytes_max) {
            let live = if self.is_draining { None } else { Some(&mut self.live) };
            // Nobody waits for the fate of one from the mailbox, which has it still.
            let mail = self.mail.pop_front().map(|entry| Entry { since: now, ..entry });
            let Some(mut entry) = mail.or_else(|| live?.pop_front()) else { break };
            self.held_bytes -= entry.bytes();
            if !self.acks || entry.tickets.is_empty() {
                show(&entry.line, std::mem::take(&mut entry.tickets));
            } else {
                show(&entry.line, vec![]);
                self.shown_bytes += entry.bytes();
                self.shown.push_back(entry);
            }
        }
    }

    /// Takes out a message that the session acknowledges: those who wait for its fate; none if it is
    /// not in here. If it was shown and went elsewhere since, a copy counts as acknowledged now.
    pub fn acknowledge(&mut self, id: &str, from: &str, now: Instant) -> Acked {
        let is_it = |of: &UserName, other: &MessageId| of.as_str() == from && other.is(id);
        let Some(at) = self.shown.iter().position(|entry| is_it(&entry.from, &entry.id)) else {
            // One of them: a tag may have been used for two messages.
            let is_late = |expired: &Expired| expired.was_shown && is_it(&expired.from, &expired.id);
            let late = self.expired.iter().position(is_late).and_then(|at| self.expired.remove(at));
            return Acked { tickets: vec![], late: late.map(|expired| expired.hash) };
        };
        self.acked_at = now;
        let entry = self.shown.remove(at).expect("it is there");
        self.shown_bytes -= entry.bytes();
        if self.shown.is_empty() {
            self.shown = VecDeque::new();
        }
        Acked { tickets: entry.tickets, late: None }
    }

    /// What is known of a message of which a copy comes; `ticket` waits with the others if it is
    /// in here.
    pub fn meet(&mut self, hash: u64, ticket: Option<Ticket>, kind: Kind) -> Known {
        let mut all = self.shown.iter_mut().chain(&mut self.mail).chain(&mut self.live);
        if let Some(entry) = all.find(|entry| entry.hash == Some(hash)) {
            entry.tickets.extend(ticket);
            return Known::Waits;
        }
        let Some(at) = self.expired.iter().position(|expired| expired.hash == hash) else {
            return Known::No;
        };
        if kind != Kind::Mail || self.expired[at].was_shown {
            return Known::Expired;
        }
        // It waited for too long behind the mailbox, went there, and comes from there now.
        self.expired.remove(at);
        Known::Unshown
    }

    /// Time passes.
    pub fn age(&mut self, now: Instant, bytes_max: usize) -> Overdue {
        let mut overdue = Overdue::default();
        while self.expired.front().is_some_and(|old| now.duration_since(old.at) >= EXPIRED_TIME) {
            overdue.forgotten.extend(self.expired.pop_front().map(|oldest| oldest.hash));
        }
        while let Some(entry) = take_due(&mut self.shown, now) {
            self.shown_bytes -= entry.bytes();
            self.expire(entry, true, now, &mut overdue);
        }
        while let Some(entry) = take_due(&mut self.live, now) {
            self.held_bytes -= entry.bytes();
            self.expire(entry, false, now, &mut overdue);
        }
        let is_slow = |entry: &&mut Entry| !entry.is_told && now.duration_since(entry.since) >= PATIENCE_TIME;
        for entry in self.shown.iter_mut().chain(&mut self.live).filter(is_slow) {
            entry.is_told = true;
            overdue.slow.extend(&entry.tickets);
        }
        let is_full = self.acks && self.held_bytes >= bytes_max;
        overdue.is_stalled = is_full && now.duration_since(self.acked_at) >= FULL_ACK_TIME_MAX;
        overdue
    }

    fn expire(&mut self, entry: Entry, was_shown: bool, at: Instant, overdue: &mut Overdue) {
        if self.expired.len() == EXPIRED_MAX {
            overdue.forgotten.extend(self.expired.pop_front().map(|oldest| oldest.hash));
        }
        // Without a hash no copy of it is known as one.
        if let Some(hash) = entry.hash {
            let (from, id) = (entry.from.clone(), entry.id.clone());
            self.expired.push_back(Expired { from, id, hash, was_shown, at });
        }
        entry.give_back(was_shown, &mut overdue.given_back);
    }

    /// Hashes of what the session was not shown, or has not acknowledged.
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        let entries = self.shown.iter().chain(&self.mail).chain(&self.live).filter_map(|entry| entry.hash);
        entries.chain(self.expired.iter().map(|expired| expired.hash))
    }

    /// The messages whose fate somebody waits for, with their lines: all that are shown, and the live
    /// ones that are not.
    pub fn outstanding(&self) -> impl Iterator<Item = (Ticket, &[u8])> {
        let entries = self.shown.iter().chain(&self.live);
        entries.flat_map(|entry| entry.tickets.iter().map(move |ticket| (*ticket, &*entry.line)))
    }

    /// Ends it: gives back what was shown, then what was not.
    pub fn end(self) -> (Vec<Unwritten>, Vec<Unwritten>) {
        let (mut shown, mut held) = (vec![], vec![]);
        self.shown.into_iter().for_each(|entry| entry.give_back(true, &mut shown));
        self.mail.into_iter().chain(self.live).for_each(|entry| entry.give_back(false, &mut held));
        (shown, held)
    }
}

/// The first message of a list that is there for too long. They need not be in the order of time.
fn take_due(list: &mut VecDeque<Entry>, now: Instant) -> Option<Entry> {
    let at = list.iter().position(|entry| now.duration_since(entry.since) >= ACK_TIME_MAX)?;
    list.remove(at)
}

impl Entry {
    /// The memory that it holds, about.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.line.len()
    }

    fn give_back(self, was_shown: bool, to: &mut Vec<Unwritten>) {
        let Entry { line, tickets, .. } = self;
        if tickets.is_empty() {
            return to.push(Unwritten { ticket: None, line, was_shown });
        }
        let one = |ticket| Unwritten { ticket: Some(ticket), line: line.clone(), was_shown };
        to.extend(tickets.into_iter().map(one));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_acknowledgement_takes_one_of_two_messages_with_one_tag() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.acks = true;
        for hash in [1, 2] {
            let (from, id) = (UserName::parse("alice").expect("valid"), MessageId::Tag("t".into()));
            let (line, tickets) = (Box::from([]), vec![Ticket(hash)]);
            let entry = Entry { from, id, line, hash: Some(hash), tickets, since: now, is_told: false };
            ledger.add(entry, Kind::Live);
        }
        ledger.show(now, 4_096, |_, _| ());
        assert_eq!(ledger.age(now + ACK_TIME_MAX, 4_096).given_back.len(), 2);
        let mut late = || ledger.acknowledge("t", "alice", now).late;
        assert_eq!([late(), late(), late()], [Some(1), Some(2), None]);
    }
}
