//! The sessions that this node has told Redis of, and when to tell it again.
//!
//! In Redis a user is a hash with one field a session: its tag, which is the
//! node's id and the session's, and is never used twice; its value, the time of
//! the login by Redis's clock, and a `d` while it drains the user's mailbox.
//! Later beats earlier, wherever that matters.
//!
//! Every session is asserted again from time to time (the sweep), which repairs
//! whatever Redis or a failover lost, and all of them at once, paced, after this
//! node took a new id.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::{NodeId, SessionId, UserName};

/// Sessions in one pipeline.
pub const ASSERTIONS_MAX: usize = 128;

/// The pause between pipelines when all sessions are asserted: 20,000 a second.
const ASSERT_PAUSE: Duration = Duration::from_micros(6_400);

/// How long the sweep takes to come to every session.
const SWEEP_TIME: Duration = Duration::from_secs(600);

/// One session in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub node: NodeId,
    /// Which it is.
    pub session: SessionId,
    /// When it logged in, in us by Redis's clock.
    pub since_us: i64,
}

/// One session of this node.
#[derive(Clone, Debug)]
pub struct Own {
    /// Whose it is.
    pub user: UserName,
    /// When it logged in, in us by Redis's clock.
    pub since_us: i64,
    /// It drains its user's mailbox.
    pub drains: bool,
}

/// The sessions of this node.
#[derive(Default)]
pub struct Sessions {
    own: HashMap<SessionId, Own>,
    /// In the order in which they will be asserted; some may have ended.
    order: VecDeque<SessionId>,
    /// So many of the order are to be asserted without delay.
    urgent: usize,
    /// When the next ones are.
    due: Option<Instant>,
}

impl Entry {
    /// Reads a field of a user's hash; what is none of ours is `None`.
    pub fn parse(tag: &str, since_us: &str) -> Option<Self> {
        // A session's id has 8 bytes; a mark between the two would cost every user 8 in Redis.
        let (node, session) = tag.split_at_checked(tag.len().checked_sub(8)?)?;
        let (node, session) = (NodeId::parse(node)?, SessionId::parse(session)?);
        let since_us = since_us.strip_suffix('d').unwrap_or(since_us);
        Some(Entry { node, session, since_us: since_us.parse().ok()? })
    }

    /// Whether this login came before `other`: the same answer on every node.
    pub fn is_before(&self, other: &Entry) -> bool {
        (self.since_us, self.session) < (other.since_us, other.session)
    }
}

/// The field of a session.
pub fn tag(node: &NodeId, session: SessionId) -> String {
    format!("{}{}", node.as_str(), session.as_str())
}

impl Sessions {
    /// Adds a session that is told to Redis now.
    pub fn add(&mut self, user: &UserName, session: SessionId, since_us: i64, now: Instant) {
        self.own.insert(session, Own { user: user.clone(), since_us, drains: false });
        self.order.push_back(session);
        self.due.get_or_insert(now + SWEEP_TIME);
    }

    /// Forgets a session.
    pub fn remove(&mut self, session: SessionId) {
        self.own.remove(&session);
        // Those that ended leave the order when it is their turn, or when they are too many.
        if self.order.len() > 2 * self.own.len() + ASSERTIONS_MAX {
            let (own, urgent) = (&self.own, self.urgent);
            let mut at = 0;
            let mut gone_urgent = 0;
            self.order.retain(|session| {
                let stays = own.contains_key(session);
                gone_urgent += usize::from(!stays && at < urgent);
                at += 1;
                stays
            });
            self.urgent -= gone_urgent;
        }
    }

    /// A session of this node.
    pub fn find(&self, session: SessionId) -> Option<&Own> {
        self.own.get(&session)
    }

    /// A session drains its user's mailbox, or no more.
    pub fn set_drains(&mut self, session: SessionId, drains: bool) {
        if let Some(own) = self.own.get_mut(&session) {
            own.drains = drains;
        }
    }

    /// How many there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.own.len()
    }

    /// All are to be asserted without delay.
    pub fn assert_all(&mut self, now: Instant) {
        self.urgent = self.order.len();
        self.due = (self.urgent > 0).then_some(now);
    }

    /// Tells whether [`Sessions::assert_all`] is not done yet.
    pub fn is_asserting_all(&self) -> bool {
        self.urgent > 0
    }

    /// When the next sessions are to be asserted.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The sessions to assert now; they are back at the end of the order.
    pub fn take(&mut self, now: Instant) -> Vec<SessionId> {
        let mut taken = vec![];
        while taken.len() < ASSERTIONS_MAX
            && let Some(session) = self.order.pop_front()
        {
            let was_urgent = self.urgent > 0;
            self.urgent -= usize::from(was_urgent);
            if self.own.contains_key(&session) {
                self.order.push_back(session);
                taken.push(session);
            }
            if (was_urgent && self.urgent == 0) || taken.len() >= self.order.len() {
                break;
            }
        }
        let pause = if self.urgent > 0 {
            ASSERT_PAUSE
        } else {
            // So that the whole order takes the time of a sweep.
            SWEEP_TIME.mul_f64(taken.len() as f64 / self.order.len().max(1) as f64)
        };
        self.due = (!self.order.is_empty()).then(|| now + pause);
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
        (0..count).for_each(|n| sessions.add(&bob, session(n), n as i64, now));
        sessions
    }

    #[test]
    fn tags_are_read_back() {
        let node = NodeId::new("pi.local", "a-b_c.d8").expect("valid");
        let entry = Entry { node: node.clone(), session: session(7), since_us: -5 };
        assert_eq!(Entry::parse(&tag(&node, session(7)), "-5"), Some(entry));
        let drains = Entry::parse(&tag(&node, session(7)), "12d").expect("it drains");
        assert_eq!(drains.since_us, 12);
        for (tag, since) in [
            ("", "1"),
            ("x", "1"),
            ("00000007", "1"),
            ("a b00000007", "1"),
            ("é0000007", "1"),
            ("x00000007", "y"),
        ] {
            assert_eq!(Entry::parse(tag, since), None, "{tag}");
        }
    }

    #[test]
    fn all_are_asserted_at_a_pace_and_then_slowly() {
        let now = Instant::now();
        let mut sessions = sessions(1_000, now);
        sessions.assert_all(now);
        let (mut taken, mut rounds, mut at) = (vec![], 0, now);
        while sessions.is_asserting_all() {
            at = sessions.due().expect("there are more");
            taken.extend(sessions.take(at));
            rounds += 1;
        }
        assert_eq!((taken.len(), rounds), (1_000, 8));
        assert!(at - now < Duration::from_millis(100));
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 1_000, "each of them once");
        // The sweep comes to each of them in its time.
        let start = sessions.due().expect("the sweep goes on");
        let mut swept = 0;
        while swept < 1_000 {
            at = sessions.due().expect("the sweep goes on");
            swept += sessions.take(at).len();
        }
        assert!(at - start <= SWEEP_TIME, "{:?}", at - start);
        assert!(at - start >= SWEEP_TIME / 2, "{:?}", at - start);
    }

    #[test]
    fn what_has_ended_is_not_asserted() {
        let now = Instant::now();
        let mut sessions = sessions(3_000, now);
        sessions.assert_all(now);
        (0..3_000).filter(|n| n % 10 != 0).for_each(|n| sessions.remove(session(n)));
        assert!(sessions.order.len() < 1_000, "{}", sessions.order.len());
        let mut taken = 0;
        while sessions.is_asserting_all() {
            taken += sessions.take(now).len();
        }
        assert_eq!(taken, 300);
        (0..3_000).for_each(|n| sessions.remove(session(n)));
        while sessions.due().is_some() {
            assert!(sessions.take(now).is_empty());
        }
        assert_eq!((sessions.count(), sessions.order.len()), (0, 0));
    }
}
