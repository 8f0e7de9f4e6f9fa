//! Chores: what is to be done in Redis for mailboxes without anybody waiting for it.
//!
//! They are done in the order in which they came, also after a failure of Redis, and
//! wait while it is away. What was taken and what was shown is bounded, by count and by
//! bytes, and the oldest is given up: then a message may be shown once more. A release is
//! never given up, since a mailbox that stays claimed is shown to nobody; a session has
//! one at most, so the sessions of this node are the bound. No Redis here: this is a list.

use std::collections::{BTreeMap, HashMap, VecDeque};

use log::warn;

use crate::outbox::Shown;
use crate::proto::{SessionId, UserName};

/// Messages that were taken from mailboxes, and what was shown, that wait for Redis; with more,
/// the oldest are given up: some messages stay in their mailboxes, and will come once more.
pub const CHORES_MAX: usize = 65_536;

/// The same in bytes, users' names included.
pub const CHORES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Chores in one pipeline: as many as there are questions in one, so that those that one
/// round brings are done in the next.
pub const CHORES_AT_ONCE_MAX: usize = 512;
const _: () = assert!(CHORES_AT_ONCE_MAX >= super::ASKS_MAX);

/// The same in bytes, and one chore more: Redis has a second for all.
const CHORES_AT_ONCE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What waits.
#[derive(Default)]
pub struct Chores {
    /// What may be given up, by number.
    waiting: VecDeque<(u64, Chore)>,
    /// What the waiting ones weigh.
    bytes: usize,
    /// The sessions that are to drain no more, by number,
    releases: BTreeMap<u64, SessionId>,
    /// and the number of each.
    by_session: HashMap<SessionId, u64>,
    /// Chores have so far had numbers below this one.
    next: u64,
    /// Some were given up since there were none; said once.
    has_given_up: bool,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Chore {
    /// Messages were taken: all up to a place, and those at others.
    Take { user: UserName, up_to: u64, also: Vec<u64> },
    /// A session drains no more.
    Release { session: SessionId },
    /// A user who has left was shown these: hashes of 8 bytes, the latest first. So many of them by the
    /// session that has ended; nobody knows how many when Redis is told once more.
    Remember { user: UserName, shown: Vec<u8>, own: Option<usize> },
}

impl Chores {
    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.releases.is_empty()
    }

    /// The number that the next chore will have: what has to wait for all chores that there are now
    /// may be done when [`Chores::has_come_to`] this.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// Tells whether no chore with a lower number waits.
    pub fn has_come_to(&self, number: u64) -> bool {
        let first = self.waiting.front().map(|(number, _)| number);
        first.into_iter().chain(self.releases.keys().next()).all(|first| *first >= number)
    }

    /// Messages were taken.
    pub fn take(&mut self, user: UserName, up_to: u64, also: Vec<u64>) {
        self.add(Chore::Take { user, up_to, also });
    }

    /// A session of this node drains no more.
    pub fn release(&mut self, session: SessionId) {
        self.cancel_release(session);
        self.by_session.insert(session, self.next);
        self.releases.insert(self.next, session);
        self.next += 1;
    }

    /// A session drains again, or has ended, and so has nothing to release.
    pub fn cancel_release(&mut self, session: SessionId) {
        if let Some(number) = self.by_session.remove(&session) {
            self.releases.remove(&number);
        }
    }

    /// A session has ended, which was shown these.
    pub fn remember(&mut self, user: &UserName, shown: &Shown) {
        self.remember_all(user, shown.latest(), Some(shown.latest_own().len()));
    }

    /// Redis has lost what a user who has left was shown.
    pub fn remember_again(&mut self, user: &UserName, shown: &Shown) {
        self.remember_all(user, shown.latest(), None);
    }

    fn remember_all(&mut self, user: &UserName, latest: &[u64], own: Option<usize>) {
        if latest.is_empty() {
            return;
        }
        let mut shown = Vec::with_capacity(8 * latest.len());
        latest.iter().rev().for_each(|hash| shown.extend(hash.to_le_bytes()));
        self.add(Chore::Remember { user: user.clone(), shown, own });
    }

    /// Takes out the next chores, with their numbers, as many as one pipeline may have.
    pub fn next(&mut self) -> Vec<(u64, Chore)> {
        let (mut chores, mut bytes) = (vec![], 0);
        while chores.len() < CHORES_AT_ONCE_MAX && bytes < CHORES_AT_ONCE_BYTES_MAX {
            let Some((number, chore)) = self.pop() else { break };
            bytes += chore.bytes();
            chores.push((number, chore));
        }
        self.has_given_up &= !self.waiting.is_empty();
        chores
    }

    /// These, which were the next, could not be done: they are the next again.
    pub fn put_back(&mut self, undone: Vec<(u64, Chore)>) {
        for (number, chore) in undone.into_iter().rev() {
            if let Chore::Release { session } = chore {
                // Unless there is another by now, behind what this session has taken since.
                if *self.by_session.entry(session).or_insert(number) == number {
                    self.releases.insert(number, session);
                }
            } else {
                self.bytes += chore.bytes();
                self.waiting.push_front((number, chore));
            }
        }
        self.give_up_the_oldest();
    }

    fn add(&mut self, chore: Chore) {
        self.bytes += chore.bytes();
        self.waiting.push_back((self.next, chore));
        self.next += 1;
        self.give_up_the_oldest();
    }

    fn give_up_the_oldest(&mut self) {
        while self.waiting.len() > CHORES_MAX || self.bytes > CHORES_BYTES_MAX {
            let Some((_, chore)) = self.waiting.pop_front() else { return };
            self.bytes -= chore.bytes();
            if !std::mem::replace(&mut self.has_given_up, true) {
                warn!("too much waits for Redis: some messages may be shown twice");
            }
        }
    }

    /// Takes out the first one.
    fn pop(&mut self) -> Option<(u64, Chore)> {
        let release = self.releases.first_key_value().map(|(number, _)| *number);
        let waiting = self.waiting.front().map(|(number, _)| *number);
        if release.is_some_and(|release| waiting.is_none_or(|waiting| release < waiting)) {
            let (number, session) = self.releases.pop_first()?;
            self.by_session.remove(&session);
            return Some((number, Chore::Release { session }));
        }
        let (number, chore) = self.waiting.pop_front()?;
        self.bytes -= chore.bytes();
        Some((number, chore))
    }
}

impl Chore {
    /// What it holds beside itself.
    fn bytes(&self) -> usize {
        match self {
            Chore::Take { user, also, .. } => user.as_str().len() + 8 * also.len(),
            Chore::Release { .. } => 0,
            Chore::Remember { user, shown, .. } => user.as_str().len() + shown.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::SEEN_MAX;

    fn user(n: usize) -> UserName {
        UserName::parse(&format!("u{n:05}")).expect("valid")
    }

    fn session(n: usize) -> SessionId {
        SessionId::parse(&format!("{n:08}")).expect("valid")
    }

    /// All that waits, in order: `t` a place, `r` a session, `m` a count of hashes.
    fn all(chores: &mut Chores) -> Vec<String> {
        let mut all = vec![];
        while !chores.is_empty() {
            all.extend(chores.next().into_iter().map(|(_, chore)| match chore {
                Chore::Take { up_to, .. } => format!("t{up_to}"),
                Chore::Release { session } => format!("r{}", session.as_str().trim_start_matches('0')),
                Chore::Remember { shown, .. } => format!("m{}", shown.len() / 8),
            }));
        }
        assert_eq!(chores.bytes, 0);
        all
    }

    #[test]
    fn they_are_done_in_order_and_again_in_order_when_they_were_not() {
        let mut chores = Chores::default();
        chores.take(user(1), 1, vec![]);
        chores.release(session(1));
        chores.remember(&user(2), &Shown { all: vec![1, 2], inherited: 2 });
        chores.remember(&user(2), &Shown::default());
        let mut undone = chores.next();
        assert_eq!(undone.len(), 3);
        chores.release(session(2));
        chores.take(user(3), 3, vec![]);
        // The second of them was done.
        undone.remove(1);
        chores.put_back(undone);
        assert_eq!(all(&mut chores), ["t1", "m2", "r2", "t3"]);
    }

    #[test]
    fn the_latest_of_what_was_shown_comes_first_and_is_bounded() {
        let mut chores = Chores::default();
        for (inherited, expected) in [(0, SEEN_MAX), (SEEN_MAX, SEEN_MAX), (2 * SEEN_MAX - 7, 7)] {
            let all: Vec<u64> = (0..2 * SEEN_MAX as u64).collect();
            chores.remember(&user(1), &Shown { all, inherited });
            let Some((_, Chore::Remember { shown, own, .. })) = chores.next().pop() else {
                panic!("nothing")
            };
            assert_eq!((shown.len(), own), (8 * SEEN_MAX, Some(expected)));
            assert_eq!(shown[..8], (2 * SEEN_MAX as u64 - 1).to_le_bytes());
        }
    }

    #[test]
    fn with_too_many_the_oldest_are_given_up() {
        let mut chores = Chores::default();
        (0..CHORES_MAX + 10).for_each(|n| chores.take(user(n), n as u64, vec![]));
        assert_eq!(chores.waiting.len(), CHORES_MAX);
        assert!(chores.has_given_up);
        let undone = chores.next();
        assert_eq!((undone.len(), undone[0].0), (CHORES_AT_ONCE_MAX, 10));
        // Meanwhile others came: what is put back is the oldest.
        (0..5).for_each(|n| chores.take(user(n), n as u64, vec![]));
        chores.put_back(undone);
        assert_eq!(chores.waiting.len(), CHORES_MAX);
        assert_eq!(chores.waiting[0].0, 15);
        all(&mut chores);
        assert!(!chores.has_given_up);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_so_is_what_is_done_at_once() {
        let mut chores = Chores::default();
        let shown = Shown { all: vec![7; SEEN_MAX], inherited: 0 };
        let bytes = 8 * SEEN_MAX + user(1).as_str().len();
        for n in 0..2 * CHORES_BYTES_MAX / bytes {
            chores.remember(&user(n), &shown);
            assert!(chores.bytes <= CHORES_BYTES_MAX);
        }
        assert_eq!(chores.waiting.len(), CHORES_BYTES_MAX / bytes);
        // Many places weigh as much.
        chores.take(user(1), 1, vec![7; SEEN_MAX]);
        assert_eq!(chores.waiting.len(), CHORES_BYTES_MAX / bytes);
        assert_eq!(chores.next().len(), CHORES_AT_ONCE_BYTES_MAX.div_ceil(bytes));
    }

    #[test]
    fn a_release_is_never_given_up_and_a_session_has_one_behind_all_that_it_took() {
        let mut chores = Chores::default();
        chores.release(session(1));
        chores.release(session(2));
        chores.release(session(3));
        (0..2 * CHORES_MAX).for_each(|n| chores.take(user(n), n as u64, vec![]));
        chores.release(session(1));
        // It has ended.
        chores.cancel_release(session(3));
        chores.cancel_release(session(3));
        let undone = chores.next();
        chores.release(session(2));
        chores.put_back(undone);
        assert_eq!((chores.releases.len(), chores.by_session.len()), (2, 2));
        let all = all(&mut chores);
        assert_eq!(all.len(), CHORES_MAX + 2);
        assert_eq!(all[0], format!("t{CHORES_MAX}"));
        assert_eq!(all[CHORES_MAX - 1..], [&format!("t{}", 2 * CHORES_MAX - 1), "r1", "r2"]);
        assert!(chores.by_session.is_empty());
    }

    #[test]
    fn others_can_tell_when_all_before_them_is_done() {
        let mut chores = Chores::default();
        assert!(chores.has_come_to(chores.end()));
        chores.take(user(1), 1, vec![]);
        let behind_take = chores.end();
        chores.release(session(1));
        let behind_release = chores.end();
        chores.take(user(1), 2, vec![]);
        assert!(!chores.has_come_to(behind_take) && chores.has_come_to(0));
        let mut undone = chores.next();
        assert!(chores.has_come_to(behind_release));
        undone.remove(0);
        chores.put_back(undone);
        assert!(chores.has_come_to(behind_take) && !chores.has_come_to(behind_release));
    }
}
