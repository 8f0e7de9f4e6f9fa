//! How long to wait before the next attempt to connect.
//!
//! Full jitter: a pause is anything from nothing to a bound, so that the clients
//! of a node that died don't come back as one crowd. The bound doubles with each
//! attempt, and only a connection that held for a while brings it back down: one
//! that is accepted and thrown out at once must not make a tight loop.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The pauses of one client.
#[derive(Debug)]
pub(super) struct Pauses {
    bound_ms: u64,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Pauses { bound_ms: BOUND_MS_MIN }
    }

    /// The next pause, from `random`, of which every value is equally likely.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let pause = Duration::from_millis(random % (self.bound_ms + 1));
        self.bound_ms = (self.bound_ms * 2).min(BOUND_MS_MAX);
        pause
    }

    /// Takes note of how long a connection held.
    pub(super) fn held(&mut self, time: Duration) {
        if time >= Duration::from_millis(BOUND_MS_MAX) {
            self.bound_ms = BOUND_MS_MIN;
        }
    }
}

/// A random number, good enough to spread attempts over time.
pub(super) fn random() -> u64 {
    // Each RandomState has keys of its own: that is the randomness.
    RandomState::new().build_hasher().finish()
}

const BOUND_MS_MIN: u64 = 100;
const BOUND_MS_MAX: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest pauses that could come next; takes them.
    fn bounds(pauses: &mut Pauses, count: usize) -> Vec<u64> {
        let mut bounds = vec![];
        for _ in 0..count {
            bounds.push(pauses.bound_ms);
            assert!(pauses.next(random()) <= Duration::from_millis(bounds[bounds.len() - 1]));
        }
        bounds
    }

    #[test]
    fn pauses_grow_and_a_connection_that_held_resets_them() {
        let mut pauses = Pauses::new();
        assert_eq!(bounds(&mut pauses, 8), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.held(Duration::from_millis(4_999));
        assert_eq!(bounds(&mut pauses, 1), [5000]);
        pauses.held(Duration::from_secs(5));
        assert_eq!(bounds(&mut pauses, 1), [100]);
    }

    #[test]
    fn pauses_reach_from_nothing_to_the_bound() {
        assert_eq!(Pauses::new().next(0), Duration::ZERO);
        assert_eq!(Pauses::new().next(100), Duration::from_millis(100));
        assert_eq!(Pauses::new().next(101), Duration::ZERO);
        assert_ne!(random(), random());
    }
}
