//! Chaos: real nodes, a real Redis that keeps its data, a real broker, and one fault after
//! the other, while users hop, send all the time, send again what they must, and are killed.
//! Then the books are checked.
//!
//! The test plays a short schedule of the most telling faults. `PINPOST_CHAOS_SECONDS`
//! plays a long one with all of them (`make chaos`), and `PINPOST_SEED` a certain one again.
//! The schedule follows from the seed alone; what threads and processes make of it does
//! not. What is checked is in `tests/history`, whose own tests run here too.

#[path = "../history/check_tests/mod.rs"]
mod check_tests;
#[path = "../history/mod.rs"]
mod history;
#[path = "../rig/mod.rs"]
mod rig;

mod line;
mod people;
mod plan;
mod process;
mod recorder;
mod report;
mod settled;
mod world;

use std::env;
use std::thread::{self, ScopedJoinHandle};

use crate::history::Time;
use crate::history::check::check;
use crate::people::{DEVICES, Person, rate_of_each};
use crate::plan::Planned;
use crate::rig::random::{Random, seeds};
use crate::world::World;

/// How long the short schedule is, and how many messages a second are sent in it: what a
/// build for tests carries on two cores that have other work too.
const SHORT_TIME: Time = 21_000;
const SHORT_RATE: Time = 150;

/// How many messages a second are sent in the others.
const RATE: Time = 2_000;

const MINUTE: Time = 60_000;

/// A history that has more messages is written down only if something was wrong.
const DUMP_MAX: usize = 50_000;

/// What is played: what its log is called, the schedule from a source of chance, how long, and how many messages a second.
struct Play<'a> {
    name: &'a str,
    plan: &'a dyn Fn(&mut Random) -> Vec<Planned>,
    length: Time,
    rate: Time,
}

#[test]
fn every_promise_holds_whatever_fails() {
    match env::var("PINPOST_CHAOS_SECONDS") {
        Ok(seconds) => {
            let length = 1_000 * seconds.parse::<Time>().expect("a number of seconds");
            let plan = |random: &mut Random| plan::long(random, length);
            holds(&Play { name: "chaos", plan: &plan, length, rate: RATE });
        }
        Err(_) => {
            holds(&Play { name: "chaos-short", plan: &plan::short, length: SHORT_TIME, rate: SHORT_RATE })
        }
    }
}

#[test]
#[ignore = "a minute at a rate for a release build; make chaos plays it"]
fn every_promise_holds_in_a_bad_minute() {
    holds(&Play { name: "chaos-minute", plan: &plan::minute, length: MINUTE, rate: RATE });
}

/// Plays it, and checks that nothing was wrong.
fn holds(play: &Play<'_>) {
    for seed in seeds(1) {
        let mut random = Random(seed);
        let plan = (play.plan)(&mut random);
        let world = World::start(&format!("{}-{seed}", play.name));
        play.perform(&world, &plan, &mut random);
        let mut history = world.recorder.write();
        history.troubles.sort_by_key(|trouble| trouble.from);
        let verdict = check(&history);
        report::print(&history, &verdict);
        let count = verdict.wrongs.len();
        if count > 0 || history.messages.len() < DUMP_MAX {
            report::dump(&history, &verdict, &world.log_path);
        }
        assert!(count == 0, "{count} wrongs; PINPOST_SEED={seed} plays this again; see {:?}", world.log_path);
    }
}

impl Play<'_> {
    /// Plays a schedule up to the end, when everybody has left.
    fn perform(&self, world: &World, plan: &[Planned], random: &mut Random) {
        let rate = rate_of_each(self.rate);
        let person = |client| Person::new(world, client, Random(random.next()), rate);
        let people: Vec<_> = (0..DEVICES.len()).map(person).collect();
        world.recorder.write().clients = people.iter().map(Person::client).collect();
        let people = thread::scope(|scope| {
            let people: Vec<_> = people.into_iter().map(|person| scope.spawn(|| person.live())).collect();
            let faults: Vec<_> = plan.iter().map(|planned| scope.spawn(|| world.suffer(planned))).collect();
            scope.spawn(|| world.watch_the_clock());
            world.park_until(world.recorder.instant(self.length));
            let faults: Vec<_> = faults.into_iter().map(ScopedJoinHandle::join).collect();
            world.end();
            faults.into_iter().for_each(|fault| fault.expect("what is to be done to them can be done"));
            people.into_iter().map(|person| person.join().expect("a user gets in")).collect()
        });
        settled::check(world, people);
        world.stop();
    }
}
