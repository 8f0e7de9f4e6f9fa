//! Whose messages to which users this node has refused, and the origin does not know it yet.
//!
//! A user who left a node may be back there before the origin knows that a
//! message was refused. What the origin sent behind that one is on its way; if
//! it were taken, it would overtake the one that was refused. So it is refused as
//! well, until the origin says that it has it all back ([`Router::resume`]).

use std::collections::HashMap;
use std::time::Instant;

use crate::proto::{Fate, NodeId, UserName};
use crate::router::question::Received;
use crate::router::{RECEIPT_MS_MAX, Router};

/// Users whose origins are remembered at most; then all are forgotten, and messages may overtake.
pub const REFUSED_MAX: usize = 65_536;

/// Origins, and when the first of their messages to a user was refused.
#[derive(Default)]
pub(super) struct Refused {
    users: HashMap<UserName, Vec<(NodeId, Instant)>>,
}

impl Refused {
    /// A message of `origin` was refused.
    fn insert(&mut self, user: &UserName, origin: &NodeId, now: Instant) {
        if self.users.len() >= REFUSED_MAX {
            self.expire(now);
        }
        if self.users.len() >= REFUSED_MAX {
            self.users.clear();
        }
        let origins = self.users.entry(user.clone()).or_default();
        if !origins.iter().any(|(other, _)| other == origin) {
            origins.push((origin.clone(), now));
        }
    }

    fn contains(&self, user: &UserName, origin: &NodeId) -> bool {
        // The usual case: nobody moves.
        !self.users.is_empty()
            && self.users.get(user).is_some_and(|origins| origins.iter().any(|(other, _)| other == origin))
    }

    /// The origin has back what was refused.
    fn remove(&mut self, user: &UserName, origin: &NodeId) {
        if let Some(origins) = self.users.get_mut(user) {
            origins.retain(|(other, _)| other != origin);
            if origins.is_empty() {
                self.users.remove(user);
            }
        }
    }

    /// No origin waits for longer than a message may take.
    fn expire(&mut self, now: Instant) {
        self.users.retain(|_, origins| {
            origins.retain(|(_, since)| now.duration_since(*since) < RECEIPT_MS_MAX);
            !origins.is_empty()
        });
    }
}

impl Router {
    /// A message from another node will not be delivered here: its origin is told how far it came.
    pub(super) fn refuse_received(&self, received: &Received, now: Instant) {
        let Received { origin, number, is_shared, to, lost, .. } = received;
        // Who does not acknowledge is here all the same, and what others have is not routed again.
        if *lost != Fate::Unacked && !is_shared {
            self.refused().insert(to, origin, now);
        }
        self.cluster.receipt(origin, *number, *lost, now);
    }

    /// Tells whether a message of `origin` would overtake one that was refused.
    pub(super) fn is_refused(&self, to: &UserName, origin: &NodeId) -> bool {
        self.refused().contains(to, origin)
    }

    /// Another node has back all that it has sent to a user and was refused here.
    pub(super) fn resume(&self, origin: &NodeId, user: &UserName) {
        self.refused().remove(user, origin);
    }

    /// Forgets what no origin waits for any more.
    pub(super) fn expire_refused(&self, now: Instant) {
        self.refused().expire(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name, "1").expect("valid")
    }

    fn user(name: &str) -> UserName {
        UserName::parse(name).expect("valid")
    }

    #[test]
    fn an_origin_is_refused_until_it_resumes_or_for_as_long_as_a_message_takes() {
        let now = Instant::now();
        let mut refused = Refused::default();
        refused.insert(&user("bob"), &node("a"), now);
        refused.insert(&user("bob"), &node("b"), now + Duration::from_secs(1));
        refused.insert(&user("bob"), &node("a"), now + Duration::from_secs(2));
        assert!(refused.contains(&user("bob"), &node("a")) && refused.contains(&user("bob"), &node("b")));
        assert!(!refused.contains(&user("bob"), &node("c")) && !refused.contains(&user("carol"), &node("a")));
        refused.expire(now + RECEIPT_MS_MAX);
        assert!(!refused.contains(&user("bob"), &node("a")), "it counts from the first");
        assert!(refused.contains(&user("bob"), &node("b")));
        refused.remove(&user("bob"), &node("a"));
        refused.remove(&user("bob"), &node("b"));
        refused.remove(&user("carol"), &node("b"));
        assert!(refused.users.is_empty());
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut refused = Refused::default();
        for n in 0..=REFUSED_MAX {
            refused.insert(&user(&format!("user{n}")), &node("a"), now);
            assert!(refused.users.len() <= REFUSED_MAX);
        }
        assert_eq!(refused.users.len(), 1);
    }
}
