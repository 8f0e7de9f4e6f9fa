//! What users who have left were shown: so that a copy of it is not shown again
//! where they log in next.
//!
//! A sender that lost its connection says the same line again under the same
//! tag; meanwhile the recipient may have hopped to another connection or node.
//! Kept for as long as a session remembers what it was shown. In a cluster
//! Redis holds this too; here it is for nodes of one process, for the moment
//! between a session's end and Redis knowing of it, and for when Redis has lost it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::outbox::{SEEN_MAX, SEEN_TIME, Shown};
use crate::proto::UserName;

/// Messages of all users who have left, 8 bytes each; with more, all are forgotten.
pub const LEFT_MAX: usize = 1_048_576;

/// Messages of one user who has left; with more, the oldest are forgotten.
pub const LEFT_OF_USER_MAX: usize = 4 * SEEN_MAX;

/// Hashes of messages, by the users who were shown them, the oldest first.
#[derive(Default)]
pub struct Left {
    users: HashMap<UserName, (Instant, Vec<u64>)>,
    count: usize,
}

impl Left {
    /// A session of a user has ended, which was shown these.
    pub fn insert(&mut self, user: &UserName, shown: &Shown, now: Instant) {
        if shown.all.is_empty() {
            return;
        }
        let seen = shown.latest();
        if self.count + seen.len() > LEFT_MAX {
            self.expire(now);
        }
        if self.count + seen.len() > LEFT_MAX {
            self.users.clear();
            self.count = 0;
        }
        let (since, all) = self.users.entry(user.clone()).or_insert_with(|| (now, vec![]));
        self.count -= all.len();
        if now.duration_since(*since) >= SEEN_TIME {
            all.clear();
        }
        // Also one that ends late adds to what a later one has left.
        let seen = if all.is_empty() { seen } else { shown.latest_own() };
        let known: HashSet<u64> = seen.iter().copied().collect();
        all.retain(|hash| !known.contains(hash));
        all.extend(seen);
        all.drain(..all.len().saturating_sub(LEFT_OF_USER_MAX));
        *since = now;
        self.count += all.len();
    }

    /// What the user was shown, as far as that is known.
    pub fn find(&self, user: &str, now: Instant) -> Vec<u64> {
        let found = self.users.get(user).filter(|(since, _)| now.duration_since(*since) < SEEN_TIME);
        found.map_or_else(Vec::new, |(_, seen)| seen.clone())
    }

    /// What all users were shown, as far as that is known.
    #[cfg(any(feature = "cluster", test))]
    pub fn all(&self, now: Instant) -> impl Iterator<Item = (&UserName, &[u64])> {
        let is_new = move |since: &Instant| now.duration_since(*since) < SEEN_TIME;
        let new = self.users.iter().filter(move |(_, (since, _))| is_new(since));
        new.map(|(user, (_, seen))| (user, &seen[..]))
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        self.users.retain(|_, (since, seen)| {
            let stays = now.duration_since(*since) < SEEN_TIME;
            self.count -= if stays { 0 } else { seen.len() };
            stays
        });
        self.users.shrink_to(self.users.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_a_while() {
        let now = Instant::now();
        let bob = UserName::parse("bob").expect("valid");
        let mut left = Left::default();
        let own = |all: Vec<u64>| Shown { all, inherited: 0 };
        left.insert(&bob, &own(vec![]), now);
        assert!(left.users.is_empty());
        left.insert(&bob, &Shown { all: vec![1, 2, 3], inherited: 2 }, now);
        left.insert(&bob, &Shown { all: vec![3, 1, 2], inherited: 1 }, now);
        assert_eq!((left.find("bob", now), left.count), (vec![3, 1, 2], 3), "both were shown some");
        assert!(left.find("bob", now + SEEN_TIME).is_empty() && left.find("alice", now).is_empty());
        left.insert(&bob, &own(vec![4]), now + SEEN_TIME);
        assert_eq!((left.find("bob", now + SEEN_TIME), left.count), (vec![4], 1), "the others are too old");
        let many = |from: u64| own((from..=from + SEEN_MAX as u64).collect());
        (0..5).for_each(|n| left.insert(&bob, &many(n * 10_000), now + SEEN_TIME));
        let found = left.find("bob", now + SEEN_TIME);
        assert_eq!((found.len(), found[0]), (LEFT_OF_USER_MAX, 10_001), "the latest of the last four");
        assert_eq!(
            left.all(now + SEEN_TIME).map(|(user, seen)| (user, seen.len())).collect::<Vec<_>>(),
            [(&bob, LEFT_OF_USER_MAX)]
        );
        assert_eq!(left.all(now + 2 * SEEN_TIME).count(), 0);
        left.expire(now + 2 * SEEN_TIME);
        assert_eq!((left.users.len(), left.count), (0, 0));
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut left = Left::default();
        for n in 0..600 {
            let user = UserName::parse(&format!("user{n}")).expect("valid");
            left.insert(&user, &Shown { all: (0..SEEN_MAX as u64).collect(), inherited: 0 }, now);
            assert!(left.count <= LEFT_MAX && !left.find(user.as_str(), now).is_empty());
        }
        assert_eq!(left.count, (600 - LEFT_MAX / SEEN_MAX) * SEEN_MAX);
    }
}
