//! The sessions that this node has told Redis of, and when to tell it again.
//!
//! Every session is asserted again from time to time (the sweep), which repairs whatever
//! Redis or a failover lost, and all of them at once, paced, after this node took a new id.
//! Of two sessions of a user the later login beats the earlier, wherever that matters; the
//! time of a login is by Redis's clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::name::{SessionId, UserName};

/// Sessions in one pipeline.
pub const ASSERTIONS_MAX: usize = 128;

/// The pause between pipelines when all sessions are asserted: 20,000 a second.
const ASSERT_PAUSE: Duration = Duration::from_micros(6_400);

/// How long the sweep takes to come to every session: at most, and at least. Of few, it comes to so many a second.
const SWEEP_TIME: Duration = Duration::from_secs(600);
const SWEEP_TIME_MIN: Duration = Duration::from_secs(8);
const SWEPT_PER_SECOND: f64 = 16.0;

/// One session of this node.
pub struct Own {
    /// Whose it is.
    pub user: UserName,
    /// When it logged in, in us by Redis's clock, as Redis has told.
    pub since_us: Option<i64>,
    /// It drains its user's mailbox.
    pub drains: bool,
}

/// The sessions of this node.
#[derive(Default)]
pub struct Sessions {
    own: HashMap<SessionId, Own>,
    /// To be asserted without delay, in this order; some may have ended.
    urgent: VecDeque<SessionId>,
    /// The same, as their turn comes.
    order: VecDeque<SessionId>,
    /// When the next ones are.
    pub due: Option<Instant>,
}

impl Sessions {
    /// Adds a session that is told to Redis now.
    pub fn add(&mut self, user: &UserName, session: SessionId, now: Instant) {
        self.own.insert(session, Own { user: user.clone(), since_us: None, drains: false });
        self.order.push_back(session);
        self.due.get_or_insert(now + SWEEP_TIME_MIN);
    }

    /// Forgets a session.
    pub fn remove(&mut self, session: SessionId) {
        self.own.remove(&session);
        // Those that ended leave the order when it is their turn, or when they are too many.
        if self.order.len() + self.urgent.len() > 2 * self.own.len() + ASSERTIONS_MAX {
            self.urgent.retain(|session| self.own.contains_key(session));
            self.order.retain(|session| self.own.contains_key(session));
        }
    }

    /// A session of this node.
    pub fn find(&self, session: SessionId) -> Option<&Own> {
        self.own.get(&session)
    }

    /// Redis has told when a session logged in.
    pub fn set_since(&mut self, session: SessionId, since_us: i64) {
        if let Some(own) = self.own.get_mut(&session) {
            own.since_us = Some(since_us);
        }
    }

    /// A session drains its user's mailbox, or no more.
    pub fn set_drains(&mut self, session: SessionId, drains: bool) {
        if let Some(own) = self.own.get_mut(&session) {
            own.drains = drains;
        }
    }

    /// All are to be asserted without delay.
    pub fn assert_all(&mut self, now: Instant) {
        self.urgent.append(&mut self.order);
        self.due = (!self.urgent.is_empty()).then_some(now);
    }

    /// Those of some users are to be asserted without delay.
    pub fn assert_some(&mut self, is_one: impl Fn(&UserName) -> bool, now: Instant) {
        let found = self.own.iter().filter(|(_, own)| is_one(&own.user)).map(|(session, _)| *session);
        let found: HashSet<SessionId> = found.collect();
        if !found.is_empty() {
            self.order.retain(|session| !found.contains(session));
            self.urgent.retain(|session| !found.contains(session));
            self.urgent.extend(found);
            self.due = Some(now);
        }
    }

    /// Tells whether [`Sessions::assert_all`] is not done yet.
    pub fn is_asserting_all(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// The sessions to assert now; they are back at the end of the order.
    pub fn take(&mut self, now: Instant) -> Vec<SessionId> {
        let from = if self.urgent.is_empty() { &mut self.order } else { &mut self.urgent };
        let mut taken = vec![];
        while taken.len() < ASSERTIONS_MAX
            && let Some(session) = from.pop_front()
        {
            taken.extend(self.own.contains_key(&session).then_some(session));
        }
        self.order.extend(&taken);
        let pause = if self.urgent.is_empty() {
            // So that the whole order takes the time of a sweep.
            let count = self.order.len().max(1) as f64;
            let whole = Duration::from_secs_f64(count / SWEPT_PER_SECOND).clamp(SWEEP_TIME_MIN, SWEEP_TIME);
            whole.mul_f64(taken.len() as f64 / count)
        } else {
            ASSERT_PAUSE
        };
        self.due = (!self.order.is_empty() || !self.urgent.is_empty()).then(|| now + pause);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: usize) -> SessionId {
        SessionId::parse(&format!("{n:08}")).expect("valid")
    }

    fn sessions(count: usize, now: Instant) -> Sessions {
        let mut sessions = Sessions::default();
        let bob = UserName::parse("bob").expect("valid");
        (0..count).for_each(|n| sessions.add(&bob, session(n), now));
        sessions
    }

    #[test]
    fn all_are_asserted_at_a_pace_and_then_slowly() {
        let now = Instant::now();
        let mut sessions = sessions(1_000, now);
        sessions.assert_all(now);
        let (mut taken, mut rounds, mut at) = (vec![], 0, now);
        while sessions.is_asserting_all() {
            at = sessions.due.expect("there are more");
            taken.extend(sessions.take(at));
            rounds += 1;
        }
        assert_eq!((taken.len(), rounds), (1_000, 8));
        assert!(at - now < Duration::from_millis(100));
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 1_000, "each of them once");
        // The sweep comes to each of them in its time.
        let start = sessions.due.expect("the sweep goes on");
        let mut swept = 0;
        while swept < 1_000 {
            at = sessions.due.expect("the sweep goes on");
            swept += sessions.take(at).len();
        }
        let whole = Duration::from_secs(1_000 / 16);
        assert!(at - start <= whole + SWEEP_TIME_MIN, "{:?}", at - start);
        assert!(at - start >= whole / 2, "{:?}", at - start);
    }

    #[test]
    fn those_of_some_users_are_asserted_at_once() {
        let now = Instant::now();
        let mut sessions = sessions(300, now);
        let carol = UserName::parse("carol").expect("valid");
        sessions.add(&carol, session(777), now);
        assert_eq!(sessions.due, Some(now + SWEEP_TIME_MIN));
        sessions.assert_some(|user| *user == carol, now);
        assert_eq!((sessions.due, sessions.take(now)), (Some(now), vec![session(777)]));
        assert!(!sessions.is_asserting_all() && sessions.order.len() == 301);
    }

    #[test]
    fn what_has_ended_is_not_asserted() {
        let now = Instant::now();
        let mut sessions = sessions(3_000, now);
        sessions.assert_all(now);
        (0..3_000).filter(|n| n % 10 != 0).for_each(|n| sessions.remove(session(n)));
        assert!(sessions.urgent.len() < 1_000, "{}", sessions.urgent.len());
        let mut taken = 0;
        while sessions.is_asserting_all() {
            taken += sessions.take(now).len();
        }
        assert_eq!(taken, 300);
        (0..3_000).for_each(|n| sessions.remove(session(n)));
        while sessions.due.is_some() {
            assert!(sessions.take(now).is_empty());
        }
        assert_eq!((sessions.own.len(), sessions.order.len()), (0, 0));
    }
}
