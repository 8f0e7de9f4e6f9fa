//! The messages that a session was shown, so that a copy is not shown twice.
//!
//! A copy comes when a sender repeats a `SEND` under the same tag, or when a
//! node routes a message again because another one went away. A message is
//! remembered as a keyed 64-bit hash of its line: sender, id and text. The text
//! is part of it so that a client that uses a tag twice for two different
//! messages loses neither.
//!
//! Two generations: the last 2,048 messages are known at least, for 60 seconds
//! at least, whichever ends first, and no more or longer than twice that.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::time::{Duration, Instant};

/// Messages after which a generation is full: so many are remembered at least.
pub const SEEN_MAX: usize = 2_048;

/// How long a message is remembered at least, unless [`SEEN_MAX`] others follow.
pub const SEEN_TIME: Duration = Duration::from_secs(60);

/// What every hash of a node depends on, so that nobody can make two messages
/// look the same. The nodes of a cluster share it: what one of them has shown
/// another one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey(pub u64);

impl SeenKey {
    /// The hash of a message, given the `MSG` line that shows it.
    pub fn hash(self, line: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher.write(line);
        hasher.finish()
    }
}

/// The last messages, as hashes.
#[derive(Debug, Default)]
pub struct Seen {
    newer: Hashes,
    older: Hashes,
    /// When the newer generation began, as far as [`Seen::age`] knows.
    since: Option<Instant>,
}

type Hashes = HashSet<u64, BuildHasherDefault<AsItIs>>;

impl Seen {
    /// Remembers a message; `false` when it was remembered already.
    pub fn insert(&mut self, hash: u64) -> bool {
        if self.older.contains(&hash) || !self.newer.insert(hash) {
            return false;
        }
        if self.newer.len() >= SEEN_MAX {
            self.turn_over();
        }
        true
    }

    /// Forgets a message, which may be shown once more.
    pub fn remove(&mut self, hash: u64) {
        self.newer.remove(&hash);
        self.older.remove(&hash);
    }

    /// All that is remembered.
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.older.iter().chain(&self.newer).copied()
    }

    /// Time passes: what is old enough is forgotten. Tells whether anything is left.
    pub fn age(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= SEEN_TIME {
            self.turn_over();
            self.since = Some(now);
        }
        !(self.newer.is_empty() && self.older.is_empty())
    }

    fn turn_over(&mut self) {
        self.older = std::mem::take(&mut self.newer);
    }
}

/// Hashes of hashes are themselves.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_over_the_window() {
        let mut seen = Seen::default();
        let hash = |n: usize| SeenKey(7).hash(format!("MSG alice {n} x").as_bytes());
        for n in 0..10 * SEEN_MAX {
            assert!(seen.insert(hash(n)));
            assert!(!seen.insert(hash(n)));
            assert!(!seen.insert(hash(n.saturating_sub(SEEN_MAX - 1))), "{n}");
            assert!(seen.all().count() <= 2 * SEEN_MAX);
        }
        assert!(seen.insert(hash(0)), "forgotten");
        seen.remove(hash(0));
        assert!(seen.insert(hash(0)), "forgotten once more");
    }

    #[test]
    fn time_forgets_too() {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.insert(1);
        assert!(seen.age(start));
        seen.insert(2);
        assert!(seen.age(start + SEEN_TIME) && !seen.insert(1) && !seen.insert(2));
        seen.insert(3);
        assert!(seen.age(start + 2 * SEEN_TIME - Duration::from_millis(1)) && !seen.insert(1));
        assert!(seen.age(start + 2 * SEEN_TIME) && seen.insert(1) && !seen.insert(3));
        seen.age(start + 3 * SEEN_TIME);
        assert!(!seen.age(start + 4 * SEEN_TIME), "nothing is left");
    }

    #[test]
    fn keys_and_lines_tell_messages_apart() {
        let line = b"MSG alice t hi";
        assert_eq!(SeenKey(1).hash(line), SeenKey(1).hash(line));
        assert_ne!(SeenKey(1).hash(line), SeenKey(2).hash(line));
        assert_ne!(SeenKey(1).hash(line), SeenKey(1).hash(b"MSG alice t ho"));
    }
}
