//! What integration tests share, a file for each purpose.
//!
//! [`node`] runs nodes in this process, alone or in a mesh, and [`program`] the real
//! binary as a child. [`peer`] talks lines over TCP or WebSocket, [`web`] sends frames
//! that no library would, both over a [`socket`]. [`services`] are a Redis and a RabbitMQ, shared
//! or one's own to break, [`resp`] asks the Redis, and a [`proxy`] cuts one node off from one
//! service; a [`terminal`] is one for the command; a [`net`] is what several nodes talk over, those or memory. [`bystanders`] talk to each
//! other while something else goes on, [`random`] makes numbers from a seed, [`script`] reads
//! transcripts. Every wait has a deadline. Left out: what a test expects.

#![allow(dead_code, reason = "every test program has its own copy of this, and uses a part of it")]

pub mod bystanders;
pub mod net;
pub mod node;
pub mod peer;
pub mod program;
pub mod proxy;
pub mod random;
pub mod resp;
pub mod script;
pub mod services;
pub mod socket;
pub mod terminal;
pub mod web;

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for one thing before it fails.
///
/// Less than the 10 seconds after which a node gives up an answer, so that this can't be
/// taken for the answer. Who waits for a deadline of the node says how long.
pub const WAIT_TIME_MAX: Duration = Duration::from_secs(8);

/// Waits for what no event tells of: a counter, a file of `/proc`.
#[track_caller]
pub fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_in(WAIT_TIME_MAX, what, is_so);
}

/// Waits so long at the most.
#[track_caller]
pub fn until_in(time_max: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let by = Instant::now() + time_max;
    while !is_so() {
        assert!(Instant::now() < by, "not within {time_max:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a number has not changed for a while.
#[track_caller]
pub fn stands_still(mut number: impl FnMut() -> usize) -> usize {
    let (mut last, mut since) = (number(), Instant::now());
    until("it stands still", || {
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(150)
    });
    last
}
