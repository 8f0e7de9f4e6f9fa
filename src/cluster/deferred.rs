//! Deferred writes: what is to be done in Redis without holding up those who ask.
//!
//! They are done in the order in which they came, also after a failure of Redis, and wait
//! while it is away: so what a session took is removed before others may drain, and before
//! the session is gone. What was taken is bounded, by count and by bytes, and the older half
//! is given up: then a message may be shown once more. What releases a mailbox or removes a
//! session is not given up; whoever adds it bounds it. No Redis here: this is a list.

use std::collections::VecDeque;

use crate::node::seam::Token;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

/// Takings that wait for Redis; with more, the older half is given up: some messages stay in their
/// mailboxes, and will come once more.
pub const TAKINGS_MAX: usize = 65_536;

/// The same in bytes, users' names included.
pub const TAKINGS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Deferred writes in one round, and their bytes, but for one write more: Redis has a second for all.
pub const AT_ONCE_MAX: usize = 1_024;
const AT_ONCE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What waits.
#[derive(Default)]
pub struct Deferred {
    writes: VecDeque<DeferredWrite>,
    takings: usize,
    /// What the takings weigh.
    bytes: usize,
    /// How many takings were given up since this was asked last.
    given_up: usize,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum DeferredWrite {
    /// Messages were taken: all up to a place, and those at others.
    Take { user: UserName, up_to: u64, also: Vec<u64> },
    /// A session drains no more, unless it has read on since.
    Release { session: SessionId, drain: Option<u64> },
    /// A session, or what has its tag, is to be gone; what waits for that, unless it was told.
    Remove { user: UserName, tag: String, token: Option<Token> },
}

impl Deferred {
    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many removals wait, and releases.
    pub fn removals(&self) -> usize {
        self.writes.len() - self.takings
    }

    /// Adds what is to be done after all that is there.
    pub fn add(&mut self, write: DeferredWrite) {
        self.count(&write);
        self.writes.push_back(write);
        self.give_up_the_oldest();
    }

    /// Takes out the next ones, as many as one round may have.
    pub fn next(&mut self) -> Vec<DeferredWrite> {
        let (mut next, mut bytes) = (vec![], 0);
        while next.len() < AT_ONCE_MAX && bytes < AT_ONCE_BYTES_MAX {
            let Some(write) = self.writes.pop_front() else { break };
            self.discount(&write);
            bytes += write.bytes();
            next.push(write);
        }
        next
    }

    /// These, which were the next, could not be done: they are the next again.
    pub fn put_back(&mut self, undone: Vec<DeferredWrite>) {
        undone.iter().for_each(|write| self.count(write));
        undone.into_iter().rev().for_each(|write| self.writes.push_front(write));
        self.give_up_the_oldest();
    }

    /// Nobody waits for removals any more: the tokens of those who did.
    pub fn take_tokens(&mut self) -> Vec<Token> {
        let token = |write: &mut DeferredWrite| match write {
            DeferredWrite::Remove { token, .. } => token.take(),
            _ => None,
        };
        self.writes.iter_mut().filter_map(token).collect()
    }

    /// Forgets all removals.
    pub fn clear_removals(&mut self) {
        self.writes.retain(|write| !matches!(write, DeferredWrite::Remove { .. }));
    }

    /// How many takings were given up since the last time.
    pub fn given_up(&mut self) -> usize {
        std::mem::take(&mut self.given_up)
    }

    fn give_up_the_oldest(&mut self) {
        while self.takings > TAKINGS_MAX || self.bytes > TAKINGS_BYTES_MAX {
            let least = self.takings / 2;
            for write in std::mem::take(&mut self.writes) {
                if self.takings > least && matches!(write, DeferredWrite::Take { .. }) {
                    self.discount(&write);
                    self.given_up += 1;
                } else {
                    self.writes.push_back(write);
                }
            }
        }
    }

    fn count(&mut self, write: &DeferredWrite) {
        self.takings += usize::from(matches!(write, DeferredWrite::Take { .. }));
        self.bytes += write.bytes();
    }

    fn discount(&mut self, write: &DeferredWrite) {
        self.takings -= usize::from(matches!(write, DeferredWrite::Take { .. }));
        self.bytes -= write.bytes();
    }
}

impl DeferredWrite {
    /// What a taking holds beside itself.
    fn bytes(&self) -> usize {
        match self {
            DeferredWrite::Take { user, also, .. } => user.as_str().len() + 8 * also.len(),
            DeferredWrite::Release { .. } | DeferredWrite::Remove { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: usize) -> UserName {
        UserName::parse(&format!("u{n:05}")).expect("valid")
    }

    fn take(n: usize) -> DeferredWrite {
        DeferredWrite::Take { user: user(n), up_to: n as u64, also: vec![] }
    }

    fn release(number: u64) -> DeferredWrite {
        DeferredWrite::Release { session: SessionId::parse("00000001").expect("valid"), drain: Some(number) }
    }

    fn remove(n: usize) -> DeferredWrite {
        DeferredWrite::Remove { user: user(n), tag: String::new(), token: Some(Token(n as u64)) }
    }

    /// All that waits, in order: `t` a taking, `r` a release, `x` a removal.
    fn all(deferred: &mut Deferred) -> String {
        let mut all = String::new();
        while !deferred.is_empty() {
            for write in deferred.next() {
                all += &match write {
                    DeferredWrite::Take { up_to, .. } => format!("t{up_to} "),
                    DeferredWrite::Release { drain, .. } => format!("r{} ", drain.expect("as above")),
                    DeferredWrite::Remove { user, .. } => format!("x{} ", &user.as_str()[5..]),
                };
            }
        }
        assert_eq!((deferred.takings, deferred.bytes, deferred.removals()), (0, 0, 0));
        all
    }

    #[test]
    fn they_are_done_in_order_and_again_in_order_when_they_were_not() {
        let mut deferred = Deferred::default();
        [take(1), release(1), remove(1), take(2)].into_iter().for_each(|write| deferred.add(write));
        let mut undone = deferred.next();
        [remove(2), take(3)].into_iter().for_each(|write| deferred.add(write));
        // The second of them was done.
        undone.remove(1);
        deferred.put_back(undone);
        assert_eq!((deferred.removals(), deferred.take_tokens()), (2, vec![Token(1), Token(2)]));
        assert!(deferred.take_tokens().is_empty());
        assert_eq!(all(&mut deferred), "t1 x1 t2 x2 t3 ");
        [remove(1), take(1), remove(2)].into_iter().for_each(|write| deferred.add(write));
        deferred.clear_removals();
        assert_eq!(all(&mut deferred), "t1 ");
    }

    #[test]
    fn with_too_many_takings_the_older_half_is_given_up_and_nothing_else() {
        let mut deferred = Deferred::default();
        deferred.add(release(1));
        deferred.add(remove(1));
        (0..TAKINGS_MAX + 1).for_each(|n| deferred.add(take(n)));
        assert_eq!((deferred.given_up(), deferred.given_up()), (TAKINGS_MAX / 2 + 1, 0));
        let undone = deferred.next();
        assert_eq!(undone.len(), AT_ONCE_MAX);
        assert_eq!((&undone[..2], &undone[2]), (&[release(1), remove(1)][..], &take(TAKINGS_MAX / 2 + 1)));
        deferred.put_back(undone);
        assert_eq!(deferred.takings, TAKINGS_MAX / 2);
        all(&mut deferred);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_so_is_what_is_done_at_once() {
        let mut deferred = Deferred::default();
        let bytes = 8 * 2_048 + user(1).as_str().len();
        for n in 0..2 * TAKINGS_BYTES_MAX / bytes {
            deferred.add(DeferredWrite::Take { user: user(n), up_to: 1, also: vec![7; 2_048] });
            assert!(deferred.bytes <= TAKINGS_BYTES_MAX);
        }
        assert_eq!(deferred.next().len(), AT_ONCE_BYTES_MAX.div_ceil(bytes));
        all(&mut deferred);
    }
}
