//! Whose messages to which users this node has refused, and the origin may not know it yet.
//!
//! A user who left a node may be back there before the origin knows that a message was refused. What the
//! origin sent behind that one is on its way; if it were taken, it would overtake the one that was refused. So
//! it is refused as well, until the origin says that a message is the first of those that go out again.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Instant;

use crate::node::in_flight::ANSWER_TIME_MAX;
use crate::node::slab::PeerId;
use crate::proto::name::UserName;

/// Refusals that are remembered at most; with more, the oldest are forgotten, and messages may overtake.
pub const REFUSALS_MAX: usize = 65_536;

/// The refusals of one node.
#[derive(Default)]
pub struct Refusals {
    users: HashMap<(PeerId, UserName), Instant>,
    /// In the order they came; some are over, or came anew.
    order: VecDeque<(Instant, PeerId, UserName)>,
}

impl Refusals {
    /// A message of `origin` to `user` was refused: remembered for as long as a message may take.
    pub fn insert(&mut self, origin: PeerId, user: &UserName, now: Instant) {
        self.expire(now);
        if self.users.insert((origin, user.clone()), now).is_none() {
            self.order.push_back((now, origin, user.clone()));
        }
        if self.order.len() > REFUSALS_MAX
            && let Some((_, origin, user)) = self.order.pop_front()
        {
            self.users.remove(&(origin, user));
        }
    }

    /// Tells whether a message of `origin` would overtake one that was refused.
    pub fn contains(&self, origin: PeerId, user: &UserName) -> bool {
        // The usual case: nobody moves.
        !self.users.is_empty() && self.users.contains_key(&(origin, user.clone()))
    }

    /// What comes from the origin now is in order.
    pub fn remove(&mut self, origin: PeerId, user: &UserName) {
        if !self.users.is_empty() {
            self.users.remove(&(origin, user.clone()));
        }
    }

    /// No origin waits for longer than a message may take.
    fn expire(&mut self, now: Instant) {
        let is_old = |since: Instant| now.duration_since(since) >= ANSWER_TIME_MAX;
        while self.order.front().is_some_and(|(since, ..)| is_old(*since)) {
            let Some((_, origin, user)) = self.order.pop_front() else { return };
            match self.users.get(&(origin, user.clone())).copied() {
                Some(since) if is_old(since) => drop(self.users.remove(&(origin, user))),
                Some(since) => self.order.push_back((since, origin, user)),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).expect("valid")
    }

    #[test]
    fn an_origin_is_refused_until_its_next_first_or_for_as_long_as_a_message_takes() {
        let (now, a, b) = (Instant::now(), PeerId::from_number(1), PeerId::from_number(2));
        let mut refusals = Refusals::default();
        refusals.insert(a, &user("bob"), now);
        refusals.insert(a, &user("bob"), now + Duration::from_secs(1));
        assert!(refusals.contains(a, &user("bob")) && !refusals.contains(b, &user("bob")));
        refusals.insert(b, &user("carol"), now + ANSWER_TIME_MAX);
        assert!(refusals.contains(a, &user("bob")), "it came anew");
        refusals.insert(b, &user("dave"), now + 2 * ANSWER_TIME_MAX);
        assert!(!refusals.contains(a, &user("bob")));
        refusals.remove(b, &user("dave"));
        assert!(!refusals.contains(b, &user("dave")));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (now, a) = (Instant::now(), PeerId::from_number(1));
        let mut refusals = Refusals::default();
        for n in 0..REFUSALS_MAX + 10 {
            refusals.insert(a, &user(&format!("user{n}")), now);
            assert!(refusals.order.len() <= REFUSALS_MAX && refusals.users.len() <= REFUSALS_MAX);
        }
        assert!(!refusals.contains(a, &user("user9")) && refusals.contains(a, &user("user10")));
    }
}
