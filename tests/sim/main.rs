//! The simulator: whole nodes with their links, a model of Redis and of the broker, and users who come, hop, stall and
//! acknowledge late or never, while everything fails; in virtual time, on one thread, from one seed.
//!
//! `make sim SECONDS=60` plays runs for so long, `PINPOST_SEED` a certain one again; the test plays a few. What is
//! checked is in `tests/history`, which has tests of its own. Reading order: `queue` (time), `world` (everything, and
//! what happens next), `host` and `bus` (a node), `broker` and `redis` (the services), `socket`, `device` and
//! `hearing` (people), `faults`, `scene` (how a run is set up), `quiet` (how it ends). `compare` holds the model
//! of the broker against a real one.

#[path = "../history/mod.rs"]
mod history;
#[path = "../rig/mod.rs"]
mod rig;

mod broker;
mod bus;
mod compare;
mod device;
mod faults;
mod hearing;
mod host;
mod pipe;
mod presence;
mod process;
mod queue;
mod quiet;
mod redis;
mod runs;
mod scene;
mod socket;
mod world;

use std::env;
use std::time::Duration;

/// How many runs the test plays, always the same ones: what it says is about the code, not about luck.
const RUNS: usize = 60;

/// Where their seeds begin.
const FIRST: u64 = 1;

#[test]
fn every_promise_holds_whatever_fails() {
    let seconds = env::var("PINPOST_SIM_SECONDS").ok();
    match seconds.map(|seconds| seconds.parse().expect("a number of seconds")) {
        Some(seconds) => runs::play(None, usize::MAX, Duration::from_secs(seconds)),
        None => runs::play(Some(FIRST), RUNS, Duration::MAX),
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..4 {
        assert_eq!(runs::print(seed), runs::print(seed), "PINPOST_SEED={seed}");
    }
}
