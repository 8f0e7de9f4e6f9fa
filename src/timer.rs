//! Waits for a time, on the node's own epoll.
//!
//! A timer is a file that becomes readable when its time has come (timerfd(2)), so that a node that
//! sleeps needs no timers of a runtime, nor the thread that such a runtime keeps for them. Each belongs
//! to one task; a node has a handful, however many connections it has.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use rustix::time::{Timespec, timerfd_create, timerfd_settime};

use crate::readiness::{Gate, Readiness};

/// What one task waits for times with.
pub struct Timer {
    file: OwnedFd,
    gate: Arc<Gate>,
}

impl Timer {
    /// Is set for no time yet.
    ///
    /// # Errors
    /// When the system has no file descriptors left.
    pub fn new(readiness: &Readiness) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let gate = readiness.gate(&file)?;
        Ok(Timer { file, gate })
    }

    /// Waits until `at`.
    pub async fn at(&self, at: Instant) {
        loop {
            let time = at.saturating_duration_since(Instant::now());
            if time.is_zero() {
                return;
            }
            self.set(time);
            // The file is never read: setting it again clears it, and each time that comes is an edge.
            // It may have opened for a time that was waited for before, and given up.
            self.gate.open().await;
        }
    }

    /// Waits for so long.
    pub async fn after(&self, time: Duration) {
        self.at(Instant::now() + time).await;
    }

    fn set(&self, time: Duration) {
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec::try_from(time).expect("the settings take no time of more than a few days"),
        };
        let set = timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &once);
        set.expect("a timer takes any time that is valid");
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_time_comes_and_one_that_was_given_up_does_not_count() {
        let readiness = Readiness::new().expect("a file");
        let timer = Timer::new(&readiness).expect("a file");
        let context = &mut Context::from_waker(Waker::noop());
        let start = Instant::now();
        let soon = start + Duration::from_millis(5);
        assert!(std::pin::pin!(timer.at(soon)).poll(context).is_pending());
        readiness.wait(None, &mut vec![]).expect("it is open");
        let later = soon + Duration::from_millis(20);
        let mut wait = std::pin::pin!(timer.at(later));
        while wait.as_mut().poll(context).is_pending() {
            readiness.wait(None, &mut vec![]).expect("it is open");
        }
        assert!(Instant::now() >= later);
        assert!(std::pin::pin!(timer.at(start)).poll(context).is_ready(), "that was before");
    }
}
