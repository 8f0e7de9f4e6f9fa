//! Runs one after the other, each from its own seed, and what they came to.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hash::BuildHasher;
use std::hash::DefaultHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::history::check::Verdict;
use crate::history::check::check;
use crate::rig::random::Random;
use crate::world::World;

/// What all runs came to.
#[derive(Default)]
struct Sum {
    runs: usize,
    messages: usize,
    faults: usize,
    sessions: usize,
    events: u64,
    batches: u64,
    virtual_us: u64,
    wrongs: usize,
    first: BTreeMap<String, u64>,
    fates: BTreeMap<String, usize>,
    copies: BTreeMap<&'static str, usize>,
    excused: BTreeMap<&'static str, usize>,
    check_time: Duration,
}

/// Wrongs that are told of one run.
const TOLD_MAX: usize = 12;

/// Plays at most so many runs for so long, from `first` or anew; or the one of `PINPOST_SEED`.
pub fn play(first: Option<u64>, runs: usize, time: Duration) {
    let start = Instant::now();
    let mut sum = Sum::default();
    if let Ok(seed) = env::var("PINPOST_SEED") {
        let seed = seed.parse().expect("PINPOST_SEED is a number");
        let wrongs = sum.play(seed, true);
        sum.print(start.elapsed());
        assert!(wrongs == 0, "{wrongs} wrongs");
        return;
    }
    let asked = env::var("PINPOST_SIM_FIRST").ok();
    let first = asked.map(|first| first.parse().expect("PINPOST_SIM_FIRST is a number")).or(first);
    let mut seeds = Random(first.unwrap_or_else(|| RandomState::new().hash_one(0)));
    let goes_on = env::var("PINPOST_SIM_ALL").is_ok();
    let mut failed = vec![];
    while sum.runs < runs && start.elapsed() < time {
        let seed = seeds.next() >> 16;
        if sum.play(seed, false) > 0 {
            failed.push(seed);
            if !goes_on {
                break;
            }
        }
    }
    sum.print(start.elapsed());
    assert!(failed.is_empty(), "{} runs are wrong; PINPOST_SEED={} plays one again", failed.len(), failed[0]);
}

/// All that a run was, in one number.
pub fn print(seed: u64) -> u64 {
    let mut world = World::new(seed, false);
    world.run();
    world.look_at_end();
    let mut hasher = DefaultHasher::new();
    hasher.write(format!("{:?}", world.history).as_bytes());
    hasher.write_u64(world.queue.count());
    hasher.finish()
}

impl Sum {
    fn play(&mut self, seed: u64, is_traced: bool) -> usize {
        let mut world = World::new(seed, is_traced);
        let result = catch_unwind(AssertUnwindSafe(|| {
            world.run();
            world.look_at_end();
        }));
        if result.is_err() {
            let now = world.queue.now();
            world.history.oddities.push((now, "a panic".to_owned()));
        }
        let start = Instant::now();
        let verdict = if result.is_err() { Verdict::default() } else { check(&world.history) };
        self.check_time += start.elapsed();
        self.add(&world, &verdict, seed);
        let count = verdict.wrongs.len() + usize::from(result.is_err());
        if count > 0 {
            println!("\nPINPOST_SEED={seed}: {count} wrongs; {:?}", world.scene);
            verdict.wrongs.iter().take(TOLD_MAX).for_each(|wrong| println!("    {wrong}"));
        }
        if is_traced {
            write_down(&world, &verdict, seed);
        }
        count
    }

    fn add(&mut self, world: &World, verdict: &Verdict, seed: u64) {
        self.runs += 1;
        self.messages += world.history.messages.len();
        self.faults += world.history.troubles.len();
        self.sessions += world.history.sessions.len();
        self.events += world.queue.count();
        self.batches += world.batches;
        self.virtual_us += world.queue.now();
        self.wrongs += verdict.wrongs.len();
        for wrong in &verdict.wrongs {
            self.first.entry(format!("{:?}", wrong.rule)).or_insert(seed);
        }
        for (fate, count) in &verdict.books.fates {
            *self.fates.entry(fate.clone()).or_default() += count;
        }
        for (why, count) in &verdict.books.copies {
            *self.copies.entry(why).or_default() += count;
        }
        for ((why, _), count) in &verdict.books.excused {
            *self.excused.entry(why).or_default() += count;
        }
    }

    fn print(&self, took: Duration) {
        let Sum { runs, messages, faults, sessions, events, batches, virtual_us, wrongs, .. } = self;
        println!(
            "\n{runs} runs, {messages} messages, {faults} faults, {sessions} sessions, {batches} batches, {events} events"
        );
        println!(
            "{} s of virtual time in {:.1} s, {:.1} s of them to check",
            virtual_us / 1_000_000,
            took.as_secs_f64(),
            self.check_time.as_secs_f64()
        );
        println!("\nmessages by fate:");
        self.fates.iter().for_each(|(fate, count)| println!("{count:>9} {fate}"));
        println!("\ncopies, by why:");
        self.copies.iter().for_each(|(why, count)| println!("{count:>9} {why}"));
        println!("\nexcused, by why:");
        self.excused.iter().for_each(|(why, count)| println!("{count:>9} {why}"));
        println!("\nwrong in any way: {wrongs}");
        self.first.iter().for_each(|(rule, seed)| println!("    {rule} first with PINPOST_SEED={seed}"));
    }
}

/// Writes down all that happened in a run.
fn write_down(world: &World, verdict: &Verdict, seed: u64) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sim-{seed}.log"));
    let mut lines = world.trace.clone().unwrap_or_default();
    for (number, message) in world.history.messages.iter().enumerate() {
        for attempt in &message.attempts {
            let what = if message.is_cast { "cast" } else { "sent" };
            lines.push(format!(
                "{:>10} message {number} {what} on session {} to user{}",
                attempt.sent, attempt.session, message.to
            ));
            if let Some((at, fate)) = attempt.told {
                lines.push(format!("{at:>10} message {number} on session {}: {fate}", attempt.session));
            }
        }
    }
    for (at, client) in world.history.clients.iter().enumerate() {
        for seen in &client.seen {
            let how = if seen.is_shown { "sees" } else { "sees again" };
            lines.push(format!(
                "{:>10} client {at} on session {} {how} message {}",
                seen.at, seen.session, seen.message
            ));
            if let Some(acked) = seen.acked {
                lines.push(format!(
                    "{acked:>10} client {at} on session {} acknowledges message {}",
                    seen.session, seen.message
                ));
            }
        }
    }
    for question in &world.history.questions {
        lines.push(format!("{:>10} {question:?}", question.asked));
    }
    lines.extend(
        verdict.wrongs.iter().map(|wrong| format!("{:>10} WRONG {:?}: {}", wrong.at, wrong.rule, wrong.what)),
    );
    lines.sort_by_key(|line| line[..10].trim().parse::<u64>().unwrap_or(0));
    fs::write(&path, lines.join("\n")).expect("there is room for a log");
    println!("all that happened is in {}", path.display());
}
