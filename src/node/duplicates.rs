//! What a user was shown here lately, so that a duplicate is answered and not shown.
//!
//! A duplicate comes when a sender repeats a tag or a message is routed again. A message is remembered as
//! a hash, with the node's secret key, of its line: sender, id and text. The text is part of it so that a client
//! that uses a tag twice for two different messages loses neither.
//!
//! Two generations: the last 2,048 messages are known at least, for 60 seconds at least, whichever ends first,
//! and no more or longer than twice that. A generation of 2,048 messages takes 36 KiB, one of three 60 bytes.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::time::{Duration, Instant};

/// Messages after which a generation is full: so many are remembered at least.
pub const SEEN_MAX: usize = 2_048;

/// How long a message is remembered at least, unless [`SEEN_MAX`] others follow.
pub const SEEN_TIME: Duration = Duration::from_secs(60);

/// What every hash depends on, so that nobody can make two messages look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub u64);

impl HashKey {
    /// What a message to `user` is remembered by, given the `MSG` line that shows it.
    pub fn hash(self, user: &str, line: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        // A name has no LF.
        hasher.write(user.as_bytes());
        hasher.write(b"\n");
        hasher.write(line);
        hasher.finish()
    }
}

/// How a set or a map hashes what is a keyed hash already: not once more.
pub type HashedAlready = BuildHasherDefault<AsItIs>;

#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What one user was shown, as hashes.
#[derive(Debug, Default)]
pub struct Seen {
    newer: HashSet<u64, HashedAlready>,
    older: HashSet<u64, HashedAlready>,
    /// When the newer generation began.
    since: Option<Instant>,
    /// What it counts for among all of users who have left; 0 for a user who has not.
    pub counted: usize,
}

impl Seen {
    pub fn contains(&self, hash: u64) -> bool {
        self.newer.contains(&hash) || self.older.contains(&hash)
    }

    pub fn add(&mut self, hash: u64, now: Instant) {
        self.since.get_or_insert(now);
        self.newer.insert(hash);
        if self.newer.len() >= SEEN_MAX {
            self.turn(now);
        }
    }

    pub fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }

    /// Time passes: what is old enough is forgotten. Tells whether anything is left.
    pub fn age(&mut self, now: Instant) -> bool {
        if self.since.is_some_and(|since| now.duration_since(since) >= SEEN_TIME) {
            self.turn(now);
            self.older.shrink_to_fit();
            self.newer = HashSet::default();
        }
        self.len() > 0
    }

    /// Begins a generation. So many may well come again: the memory is used again, too.
    fn turn(&mut self, now: Instant) {
        std::mem::swap(&mut self.newer, &mut self.older);
        self.newer.clear();
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As random as a hash.
    fn hash(n: u64) -> u64 {
        HashKey(7).hash("bob", &n.to_le_bytes())
    }

    #[test]
    fn the_last_are_known_and_not_many_more() {
        let now = Instant::now();
        let mut seen = Seen::default();
        for n in 0..10_000 {
            assert!(!seen.contains(hash(n)));
            seen.add(hash(n), now);
            let oldest = (n + 1).saturating_sub(SEEN_MAX as u64);
            assert!(seen.contains(hash(n)) && seen.contains(hash(oldest)));
            assert!(seen.len() < 2 * SEEN_MAX);
        }
        assert!(!seen.contains(hash(0)));
    }

    #[test]
    fn they_are_known_for_a_minute_and_forgotten_after_two() {
        let start = Instant::now();
        let mut seen = Seen::default();
        (0..8).for_each(|n| seen.add(hash(n), start));
        assert!(seen.age(start + SEEN_TIME / 2) && seen.contains(hash(0)));
        assert!(seen.age(start + SEEN_TIME) && seen.contains(hash(0)));
        seen.add(hash(9), start + SEEN_TIME);
        assert!(seen.age(start + 2 * SEEN_TIME) && seen.contains(hash(9)) && !seen.contains(hash(0)));
        assert!(!seen.age(start + 3 * SEEN_TIME));
    }

    #[test]
    fn the_hash_depends_on_user_line_and_key() {
        let all = [
            HashKey(1).hash("bob", b"MSG a 1 x"),
            HashKey(2).hash("bob", b"MSG a 1 x"),
            HashKey(1).hash("bo", b"bMSG a 1 x"),
            HashKey(1).hash("bob", b"MSG a 1 y"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}
