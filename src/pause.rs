//! How long to wait before the next attempt to connect, or to say a request again.
//!
//! Full jitter: a pause is anything from nothing to a bound, so that the clients
//! of a node that died, or the nodes of a service, don't come back as one crowd. The bound doubles with each
//! attempt, and only a connection that held for a while brings it back down: one
//! that is accepted and thrown out at once must not make a tight loop.

use std::time::Duration;

/// The pauses of one client.
#[derive(Debug)]
pub(crate) struct Pauses {
    bound_ms: u64,
    bound_ms_max: u64,
}

impl Pauses {
    /// Pauses from 100 ms up to `max`.
    pub(crate) fn new(max: Duration) -> Self {
        Pauses { bound_ms: BOUND_MS_MIN, bound_ms_max: max.as_millis() as u64 }
    }

    /// The next pause, from `random`, of which every value is equally likely.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let pause = Duration::from_millis(random % (self.bound_ms + 1));
        self.bound_ms = (self.bound_ms * 2).min(self.bound_ms_max);
        pause
    }

    /// Takes note of how long a connection held.
    pub(crate) fn held(&mut self, time: Duration) {
        if time >= Duration::from_millis(self.bound_ms_max) {
            self.bound_ms = BOUND_MS_MIN;
        }
    }
}

const BOUND_MS_MIN: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_number;

    /// The longest pauses that could come next; takes them.
    fn bounds(pauses: &mut Pauses, count: usize) -> Vec<u64> {
        let mut bounds = vec![];
        for _ in 0..count {
            bounds.push(pauses.bound_ms);
            assert!(pauses.next(random_number()) <= Duration::from_millis(bounds[bounds.len() - 1]));
        }
        bounds
    }

    #[test]
    fn pauses_grow_and_a_connection_that_held_resets_them() {
        let mut pauses = Pauses::new(Duration::from_secs(5));
        assert_eq!(bounds(&mut pauses, 8), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.held(Duration::from_millis(4_999));
        assert_eq!(bounds(&mut pauses, 1), [5000]);
        pauses.held(Duration::from_secs(5));
        assert_eq!(bounds(&mut pauses, 1), [100]);
    }

    #[test]
    fn pauses_reach_from_nothing_to_the_bound() {
        assert_eq!(Pauses::new(Duration::from_secs(5)).next(0), Duration::ZERO);
        assert_eq!(Pauses::new(Duration::from_secs(5)).next(100), Duration::from_millis(100));
        assert_eq!(Pauses::new(Duration::from_secs(5)).next(101), Duration::ZERO);
    }
}
