//! The messages that a session has just seen, so that a copy is not shown twice.
//!
//! A copy comes when a sender repeats a `SEND` under the same tag, or when a
//! node routes a message again because another one went away. The last 256 such
//! messages are remembered, 8 bytes each: a keyed 64-bit hash of sender, id and
//! text. The text is part of it so that a client that uses a tag twice for two
//! different messages loses neither.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::proto::reply::print_msg;
use crate::proto::{MessageId, UserName};

/// How many messages a session remembers.
pub const SEEN_MAX: usize = 256;

/// The last messages, as hashes, in a ring that grows to its bound.
#[derive(Debug, Default)]
pub struct Seen {
    hashes: Vec<u64>,
    /// Where the oldest one stands once the ring is full.
    oldest: u8,
}

const _: () = assert!(SEEN_MAX == u8::MAX as usize + 1, "`oldest` wraps by itself");

impl Seen {
    /// Remembers a message; `false` when it was remembered already.
    pub fn insert(&mut self, from: &UserName, id: &MessageId, text: &str) -> bool {
        /// One key for the process: a sender can't make two messages look the same.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        // The line is what the client would see twice: an id looks the same whoever made it.
        let mut line = Vec::with_capacity(128 + text.len());
        print_msg(from.as_str(), id, text, &mut line);
        let hash = KEY.hash_one(&line);
        if self.hashes.contains(&hash) {
            return false;
        }
        if self.hashes.len() < SEEN_MAX {
            self.hashes.push(hash);
        } else {
            self.hashes[usize::from(self.oldest)] = hash;
            self.oldest = self.oldest.wrapping_add(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_over_the_window() {
        let alice = UserName::parse("alice").expect("valid");
        let bob = UserName::parse("bob").expect("valid");
        let id = |n: usize| MessageId::Tag(n.to_string().into());
        let mut seen = Seen::default();
        for n in 0..1000 {
            assert!(seen.insert(&alice, &id(n), "x"));
            assert!(!seen.insert(&alice, &id(n), "x"));
        }
        assert_eq!(seen.hashes.len(), SEEN_MAX);
        assert!(!seen.insert(&alice, &id(1000 - SEEN_MAX), "x"), "the oldest that is remembered");
        assert!(seen.insert(&alice, &id(999 - SEEN_MAX), "x"), "forgotten");
        assert!(seen.insert(&bob, &id(999), "x"), "another sender");
        assert!(seen.insert(&alice, &id(999), "y"), "another text under the same id");
    }
}
