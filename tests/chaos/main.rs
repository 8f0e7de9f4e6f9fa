//! Chaos: real nodes, a real Redis, a real broker, and one fault after the other, while
//! users hop and send all the time. Then the books are checked.
//!
//! The test plays a short schedule of the most telling faults. `PINPOST_CHAOS_SECONDS`
//! plays a long one with all of them (`make chaos`), and `PINPOST_SEED` a certain one again.
//! The schedule follows from the seed alone; what threads and processes make of it does
//! not. What is checked is in `check.rs`, which has tests of its own.

#[path = "../rig/mod.rs"]
mod rig;

mod check;
mod check_tests;
mod history;
mod people;
mod plan;
mod process;
mod report;
mod settled;
mod world;

use std::env;
use std::thread::{self, ScopedJoinHandle};

use crate::check::check;
use crate::history::Ms;
use crate::people::{DEVICES, Person};
use crate::plan::Planned;
use crate::rig::random::{Random, seeds};
use crate::world::World;

/// How long the short schedule is.
const SHORT_TIME: Ms = 21_000;

#[test]
fn every_promise_holds_whatever_fails() {
    let seconds = env::var("PINPOST_CHAOS_SECONDS").ok();
    let length = seconds.map(|seconds| 1_000 * seconds.parse::<Ms>().expect("a number of seconds"));
    for seed in seeds(1) {
        let mut random = Random(seed);
        let plan = match length {
            Some(length) => plan::long(&mut random, length),
            None => plan::short(&mut random),
        };
        let world = World::start(seed);
        play(&world, &plan, length.unwrap_or(SHORT_TIME), &mut random);
        let history = world.recorder.write().clone();
        let verdict = check(&history);
        report::print(&history, &verdict);
        report::dump(&history, &verdict, &world.log_path);
        let count = verdict.wrongs.len();
        assert!(count == 0, "{count} wrongs; PINPOST_SEED={seed} plays this again; see {:?}", world.log_path);
    }
}

/// Plays a schedule up to the end, when everybody has left.
fn play(world: &World, plan: &[Planned], length: Ms, random: &mut Random) {
    let seeds = DEVICES.map(|_| random.next());
    let lines = thread::scope(|scope| {
        let people: Vec<_> = seeds
            .into_iter()
            .enumerate()
            .map(|(device, seed)| {
                let (user, random) = (DEVICES[device], Random(seed));
                scope.spawn(move || Person { world, device, user, random }.live())
            })
            .collect();
        let faults: Vec<_> = plan.iter().map(|planned| scope.spawn(|| world.suffer(planned))).collect();
        world.park_until(world.recorder.instant(length));
        let faults: Vec<_> = faults.into_iter().map(ScopedJoinHandle::join).collect();
        world.end();
        faults.into_iter().for_each(|fault| fault.expect("what is to be done to them can be done"));
        people.into_iter().map(|person| person.join().expect("a user gets in")).collect()
    });
    settled::check(world, lines);
    world.stop();
}
