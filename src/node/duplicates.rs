//! What a user was shown here lately, so that a duplicate is answered and not shown.
//!
//! A duplicate comes when a sender repeats a tag or a message is routed again. A message is remembered as
//! a hash, with the node's secret key, of its line: sender, id and text. The text is part of it so that a client
//! that uses a tag twice for two different messages loses neither.
//!
//! Two generations: the last 2,048 messages are known at least, for 60 seconds at least, whichever ends first,
//! and no more or longer than twice that. A generation is a list, oldest first, and a table of 16-bit places
//! in it, which is brought up to date when something is looked for. With 2,048 messages the two take 24 KiB,
//! with eight 96 bytes.

use std::hash::DefaultHasher;
use std::hash::Hasher;
use std::time::Duration;
use std::time::Instant;

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

/// What one user was shown, as hashes.
#[derive(Debug, Default)]
pub struct Seen {
    newer: Generation,
    older: Generation,
    /// When the newer generation began.
    since: Option<Instant>,
    /// What it counts for among all of users who have left; 0 for a user who has not.
    pub counted: usize,
}

/// Some hashes in the order they came.
#[derive(Debug, Default)]
struct Generation {
    hashes: Vec<u64>,
    /// A table of where in `hashes` each stands: at most half full, a power of two long. A slot is 0,
    /// or the place plus one with the upper four bits of the hash above it. A hash belongs into the
    /// slot that its lower bits number, or the next free one.
    slots: Box<[u16]>,
    /// So many of the first are in the table.
    indexed: usize,
}

/// The bits of a slot that are of the hash.
const SIGN: u16 = 0xf000;

/// The slots of the smallest table.
const SLOTS_MIN: usize = 16;

const _: () = assert!(SEEN_MAX <= !SIGN as usize, "a place plus one fits into a slot");
const _: () = assert!(SEEN_MAX.is_power_of_two(), "the lists grow to that by doubling");

impl Seen {
    /// Tells whether a message is remembered.
    pub fn contains(&mut self, hash: u64) -> bool {
        self.newer.contains(hash) || self.older.contains(hash)
    }

    /// Remembers a message.
    pub fn add(&mut self, hash: u64, now: Instant) {
        self.since.get_or_insert(now);
        self.newer.hashes.push(hash);
        if self.newer.hashes.len() >= SEEN_MAX {
            self.turn(now);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.newer.hashes.len() + self.older.hashes.len()
    }

    /// Time passes: what is old enough is forgotten. Tells whether anything is left.
    pub fn age(&mut self, now: Instant) -> bool {
        if self.since.is_some_and(|since| now.duration_since(since) >= SEEN_TIME) {
            self.turn(now);
            self.older.fit();
            self.newer = Generation::default();
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

impl Generation {
    fn contains(&mut self, hash: u64) -> bool {
        self.index();
        !self.slots.is_empty() && self.slot(hash).is_none()
    }

    /// Puts the hashes that are not in the table yet into it.
    fn index(&mut self) {
        if self.indexed == self.hashes.len() {
            return;
        }
        let slots = (2 * self.hashes.len()).next_power_of_two().max(SLOTS_MIN);
        if slots > self.slots.len() {
            self.slots = vec![0; slots].into();
            self.indexed = 0;
        }
        for place in self.indexed..self.hashes.len() {
            let hash = self.hashes[place];
            if let Some(slot) = self.slot(hash) {
                self.slots[slot] = sign(hash) | (place as u16 + 1);
            }
        }
        self.indexed = self.hashes.len();
    }

    /// The free slot that a hash belongs into; `None` when it is here.
    fn slot(&self, hash: u64) -> Option<usize> {
        let last = self.slots.len() - 1;
        let mut at = hash as usize & last;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Some(at);
            }
            if slot & SIGN == sign(hash) && self.hashes[usize::from(slot & !SIGN) - 1] == hash {
                return None;
            }
            at = (at + 1) & last;
        }
    }

    /// Gives the memory back that it does not take.
    fn fit(&mut self) {
        self.hashes.shrink_to_fit();
    }

    /// Forgets all, but keeps the memory.
    fn clear(&mut self) {
        self.hashes.clear();
        if self.indexed > 0 {
            self.slots.fill(0);
            self.indexed = 0;
        }
    }
}

/// The part of a slot that is of the hash.
fn sign(hash: u64) -> u16 {
    (hash >> 48) as u16 & SIGN
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
