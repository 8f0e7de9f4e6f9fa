//! What messages are remembered by: keyed 64-bit hashes of their lines.
//!
//! The nodes of a cluster share the key through Redis: what one of them has shown
//! another one knows. A node that comes to an empty Redis, as after one that lost
//! its data, brings a key of its own, until one comes that knew the older key.
//! What was shown meanwhile is known by the key before.

use std::hash::{DefaultHasher, Hasher};

/// What every hash depends on, so that nobody can make two messages look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey(pub u64);

/// The key that counts now, and for a while the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKeys {
    /// What messages are remembered by from now on.
    pub now: SeenKey,
    /// What some are remembered by that were shown before.
    pub before: Option<SeenKey>,
}

/// A message by the key that counts now, and by the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// What it will be remembered by.
    pub now: u64,
    /// What it is remembered by if it was shown before.
    pub before: Option<u64>,
}

impl SeenKey {
    /// The hash of a message, given the `MSG` line that shows it.
    pub fn hash(self, line: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher.write(line);
        hasher.finish()
    }
}

impl From<SeenKey> for SeenKeys {
    /// There was no other.
    fn from(now: SeenKey) -> Self {
        SeenKeys { now, before: None }
    }
}

impl SeenKeys {
    /// The hashes of a message, given the `MSG` line that shows it.
    pub fn hash(self, line: &[u8]) -> Hashes {
        Hashes { now: self.now.hash(line), before: self.before.map(|key| key.hash(line)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_lines_tell_messages_apart() {
        let line = b"MSG alice t hi";
        assert_eq!(SeenKey(1).hash(line), SeenKey(1).hash(line));
        assert_ne!(SeenKey(1).hash(line), SeenKey(2).hash(line));
        assert_ne!(SeenKey(1).hash(line), SeenKey(1).hash(b"MSG alice t ho"));
        let (now, before) = (SeenKey(1), Some(SeenKey(2)));
        let hashes = Hashes { now: now.hash(line), before: Some(SeenKey(2).hash(line)) };
        assert_eq!(SeenKeys { now, before }.hash(line), hashes);
    }
}
