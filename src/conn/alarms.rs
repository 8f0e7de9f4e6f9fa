//! When connections have to act by themselves: one timer for all of them.
//!
//! Few connections have a deadline at a time: those that log in, whose socket blocks, or that end.
//! A timer for each would cost a system call at every login; this one is set anew when it has fired, or
//! when a deadline is before it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use smol::channel::{Receiver, Sender, bounded};
use smol::future::FutureExt;

use crate::readiness::{DUE, Ready};
use crate::timer::Timer;

/// The deadlines of a node's connections, each by its place in the roll.
pub struct Alarms {
    state: Mutex<State>,
    timer: Timer,
    /// Tells that the timer is set for too late a time.
    earlier: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct State {
    by_time: BTreeSet<(Instant, usize)>,
    /// When somebody looks here again; what had this deadline may be gone by then.
    looks_at: Option<Instant>,
}

impl Alarms {
    /// Has no deadline yet.
    pub fn new(timer: Timer) -> Self {
        Alarms { state: Mutex::default(), timer, earlier: bounded(1) }
    }

    /// Sets the only deadline of a connection, which was `before`.
    pub(super) fn set(&self, place: usize, before: Option<Instant>, at: Option<Instant>) {
        let mut state = self.lock();
        if let Some(before) = before {
            state.by_time.remove(&(before, place));
        }
        let Some(at) = at else { return };
        state.by_time.insert((at, place));
        // Logins all have the same time, so the timer is set for one of the first.
        let is_earlier = state.looks_at.is_none_or(|looks_at| at < looks_at);
        drop(state);
        if is_earlier {
            // Full means that it is said already.
            let _ = self.earlier.0.try_send(());
        }
    }

    /// Waits until there are deadlines that have come, and takes them out: as what to tell each place.
    pub async fn due(&self) -> Vec<(usize, Ready)> {
        loop {
            let (due, next) = self.take_due(Instant::now());
            if !due.is_empty() {
                return due;
            }
            let earlier = async {
                let _ = self.earlier.1.recv().await;
            };
            match next {
                None => earlier.await,
                Some(next) => self.timer.at(next).or(earlier).await,
            }
        }
    }

    /// Takes out those that have come, and tells the next one.
    fn take_due(&self, now: Instant) -> (Vec<(usize, Ready)>, Option<Instant>) {
        let mut state = self.lock();
        let mut due = vec![];
        while let Some((_, place)) = state.by_time.first().copied().filter(|(at, _)| *at <= now) {
            state.by_time.pop_first();
            due.push((place, DUE));
        }
        state.looks_at = state.by_time.first().map(|(at, _)| *at);
        (due, state.looks_at)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::readiness::Readiness;

    fn alarms() -> Alarms {
        let readiness = Readiness::new().expect("a file");
        Alarms::new(Timer::new(&readiness).expect("a file"))
    }

    #[test]
    fn the_earliest_comes_first_and_what_is_taken_back_never() {
        let alarms = alarms();
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        for (place, seconds) in [(1, 5), (2, 3), (3, 4), (4, 3)] {
            alarms.set(place, None, at(seconds));
        }
        assert_eq!(alarms.earlier.1.len(), 1, "said once, however often");
        alarms.set(2, at(3), None);
        alarms.set(4, at(3), at(6));
        let take = |seconds| alarms.take_due(start + Duration::from_secs(seconds));
        assert!(alarms.earlier.1.try_recv().is_ok());
        let due = |places: &[usize]| places.iter().map(|place| (*place, DUE)).collect();
        assert_eq!(take(3), (vec![], at(4)));
        alarms.set(5, None, at(4));
        alarms.set(6, None, at(7));
        assert!(alarms.earlier.1.is_empty(), "the timer comes early enough");
        alarms.set(7, None, at(3));
        assert!(alarms.earlier.1.try_recv().is_ok());
        assert_eq!(take(5), (due(&[7, 3, 5, 1]), at(6)));
        assert_eq!(take(9), (due(&[4, 6]), None));
        alarms.set(4, at(6), None);
        assert!(alarms.lock().by_time.is_empty());
    }

    #[test]
    fn an_earlier_one_ends_the_wait_for_a_later_one() {
        let alarms = alarms();
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
        assert_eq!(due, [(2, DUE)]);
    }
}
