//! When connections have to act by themselves: one timer for all of them.
//!
//! Few connections have a deadline at a time: those that log in, whose socket blocks, or that end.
//! A timer of the runtime for each would cost a wakeup of its thread at every login.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use smol::Timer;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::FutureExt;

/// The deadlines of a node's connections, each by its place in the roll.
pub struct Alarms {
    by_time: Mutex<BTreeSet<(Instant, usize)>>,
    /// Tells that the first deadline is an earlier one now.
    earlier: (Sender<()>, Receiver<()>),
}

impl Default for Alarms {
    fn default() -> Self {
        Alarms { by_time: Mutex::default(), earlier: bounded(1) }
    }
}

impl Alarms {
    /// Sets the only deadline of a connection, which was `before`.
    pub(super) fn set(&self, place: usize, before: Option<Instant>, at: Option<Instant>) {
        let mut by_time = self.lock();
        if let Some(before) = before {
            by_time.remove(&(before, place));
        }
        let Some(at) = at else { return };
        by_time.insert((at, place));
        let is_first = by_time.first() == Some(&(at, place));
        drop(by_time);
        if is_first {
            // Full means that it is said already.
            let _ = self.earlier.0.try_send(());
        }
    }

    /// Waits until there are deadlines that have come, and takes them out.
    pub async fn due(&self) -> Vec<usize> {
        loop {
            let due = self.take_due(Instant::now());
            if !due.is_empty() {
                return due;
            }
            let first = self.lock().first().map(|(at, _)| *at);
            let earlier = async {
                let _ = self.earlier.1.recv().await;
            };
            match first {
                None => earlier.await,
                Some(at) => {
                    let time = async {
                        Timer::at(at).await;
                    };
                    time.or(earlier).await;
                }
            }
        }
    }

    fn take_due(&self, now: Instant) -> Vec<usize> {
        let mut by_time = self.lock();
        let mut due = vec![];
        while let Some((_, place)) = by_time.first().copied().filter(|(at, _)| *at <= now) {
            by_time.pop_first();
            due.push(place);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Instant, usize)>> {
        self.by_time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_comes_first_and_what_is_taken_back_never() {
        let alarms = Alarms::default();
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        for (place, seconds) in [(1, 5), (2, 3), (3, 4), (4, 3)] {
            alarms.set(place, None, at(seconds));
        }
        assert_eq!(alarms.earlier.1.len(), 1, "said once, however often");
        alarms.set(2, at(3), None);
        alarms.set(4, at(3), at(6));
        assert!(alarms.take_due(start + Duration::from_secs(3)).is_empty());
        alarms.set(5, None, at(4));
        assert_eq!(alarms.take_due(start + Duration::from_secs(5)), [3, 5, 1]);
        assert_eq!(alarms.take_due(start + Duration::from_secs(9)), [4]);
        alarms.set(4, at(6), None);
        assert!(alarms.lock().is_empty());
    }

    #[test]
    fn an_earlier_one_ends_the_wait_for_a_later_one() {
        let alarms = Alarms::default();
        let start = Instant::now();
        alarms.set(1, None, Some(start + Duration::from_secs(3_600)));
        let due = smol::block_on(async {
            let due = alarms.due();
            let set = async {
                smol::future::yield_now().await;
                alarms.set(2, None, Some(start));
                std::future::pending().await
            };
            due.or(set).await
        });
        assert_eq!(due, [2]);
    }
}
