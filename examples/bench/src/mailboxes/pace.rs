//! How fast messages come into a mailbox and out of it.
//!
//! One sender with a window of messages under way sends 10,000 to a user who is
//! there, then as many to one who is not; then that one logs in and takes them,
//! with and without acknowledging. The rounds alternate, so that a machine that
//! gets busier meanwhile treats both alike; medians are compared. CPU time counts
//! in ticks of 10 ms, so it is summed up over all rounds.

use std::io;
use std::ops::Range;
use std::thread;
use std::time::Instant;

use crate::cluster::Rig;
use crate::cluster::talker::Talker;
use crate::load::PAYLOAD_BYTES;
use crate::mailboxes::Place;
use crate::mailboxes::stream::{leave, log_in, send, take};
use crate::measure::Spread;
use crate::report::{grouped, table, verdict, verdict_least};

/// Measures and prints all of it.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let rounds = if rig.quick { 1 } else { 5 };
    let places = [Place::two_nodes(rig)?, Place::one_node(rig)?];
    let mut paces = Vec::new();
    for (place, times) in places.iter().zip(TIMES) {
        eprintln!("mailboxes on {}: {} rounds", place.name, rounds * times);
        paces.push(Pace::measure(place, rounds * times)?);
    }
    println!();
    println!(
        "mailboxes: {} messages of {PAYLOAD_BYTES} bytes from one sender to one user, \
         {} rounds in turn, {} on one node",
        grouped(f64::from(MESSAGES)),
        rounds * 2,
        rounds * 2 * TIMES[1]
    );
    println!("  CPU in us a message: nodes, Redis, broker; what is shown at login includes login and logout");
    let rows: Vec<Vec<String>> =
        places.iter().zip(&paces).flat_map(|(place, pace)| pace.rows(place.name)).collect();
    table(&["", "messages/s", "min .. max", "nodes", "Redis", "broker"], &rows);
    for (place, pace) in places.iter().zip(&paces) {
        pace.print_ratios(place);
    }
    println!("from LOGIN to the last of {} that waited", grouped(f64::from(MESSAGES)));
    let rows: Vec<Vec<String>> =
        places.iter().zip(&paces).flat_map(|(place, pace)| pace.login_rows(place.name)).collect();
    table(&["", "s", "min .. max", ""], &rows);
    Ok(())
}

/// What one place was found to do, by window and by whether the recipient acknowledges.
#[derive(Default)]
struct Pace {
    live: [Series; WINDOWS.len()],
    stored: [Series; WINDOWS.len()],
    shown: [Series; 2],
}

/// The rounds of one kind.
#[derive(Default)]
struct Series {
    seconds: Vec<f64>,
    /// CPU seconds of all rounds: nodes, Redis, broker.
    cpu: [f64; 3],
}

impl Pace {
    fn measure(place: &Place, rounds: u32) -> io::Result<Pace> {
        let mut pace = Pace::default();
        let mut sender = Talker::log_in(place.sender, SENDER)?;
        let mut recipient = Talker::log_in(place.recipient, HERE)?;
        // The first round warms up.
        let mut next = 0;
        for round in 0..=rounds {
            for (which, window) in WINDOWS.into_iter().enumerate() {
                for acks in [false, true] {
                    let mut numbers = || {
                        next += MESSAGES;
                        next - MESSAGES..next
                    };
                    let live = timed(place, || deliver(&mut sender, &mut recipient, numbers(), window))?;
                    let numbers = numbers();
                    let stored = timed(place, || {
                        send(&mut sender, &[AWAY.to_owned()], numbers.clone(), window, " stored")
                    })?;
                    let mut came = 0.0;
                    let mut shown = timed(place, || {
                        let (mut user, clock) = log_in(place.recipient, AWAY, acks)?;
                        take(&mut user, SENDER, numbers.clone(), acks)?;
                        came = clock.elapsed().as_secs_f64();
                        leave(user, AWAY, &mut sender)
                    })?;
                    shown.0 = came;
                    if round > 0 {
                        pace.live[which].add(live);
                        pace.stored[which].add(stored);
                        pace.shown[usize::from(acks)].add(shown);
                    }
                }
            }
        }
        Ok(pace)
    }

    fn rows(&self, place: &str) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for (which, window) in WINDOWS.into_iter().enumerate() {
            rows.push(self.live[which].row(format!("{place}, delivered, {window} under way")));
            rows.push(self.stored[which].row(format!("{place}, stored, {window} under way")));
        }
        for (which, how) in HOW.into_iter().enumerate() {
            rows.push(self.shown[which].row(format!("{place}, shown at login{how}")));
        }
        rows
    }

    fn print_ratios(&self, place: &Place) {
        for (which, window) in WINDOWS.into_iter().enumerate() {
            let ratio = self.stored[which].rate().median / self.live[which].rate().median;
            let verdict = match place.services {
                Some(_) => format!(" ({})", verdict_least(ratio, STORED_RATIO_MIN, "0.50")),
                None => String::new(),
            };
            println!(
                "  messages/s on {}, {window} under way, stored / delivered: {ratio:.2}{verdict}",
                place.name
            );
        }
    }

    fn login_rows(&self, place: &str) -> Vec<Vec<String>> {
        let row = |(shown, how): (&Series, &str)| {
            let spread = Spread::of(shown.seconds.iter().copied());
            vec![
                format!("{place}{how}"),
                format!("{:.3}", spread.median),
                format!("{:.3} .. {:.3}", spread.min, spread.max),
                verdict(spread.median, LOGIN_SECONDS_MAX, "1 s"),
            ]
        };
        self.shown.iter().zip(HOW).map(row).collect()
    }
}

impl Series {
    fn add(&mut self, (seconds, cpu): (f64, [f64; 3])) {
        self.seconds.push(seconds);
        for (sum, cpu) in self.cpu.iter_mut().zip(cpu) {
            *sum += cpu;
        }
    }

    fn rate(&self) -> Spread {
        Spread::of(self.seconds.iter().map(|seconds| f64::from(MESSAGES) / seconds))
    }

    fn row(&self, name: String) -> Vec<String> {
        let rate = self.rate();
        let spread = format!("{} .. {}", grouped(rate.min), grouped(rate.max));
        let messages = f64::from(MESSAGES) * self.seconds.len() as f64;
        let cpu = self.cpu.map(|seconds| format!("{:.2}", seconds * 1e6 / messages));
        [name, grouped(rate.median), spread].into_iter().chain(cpu).collect()
    }
}

/// Sends to a user who is there; over when all were answered and taken.
fn deliver(sender: &mut Talker, recipient: &mut Talker, numbers: Range<u32>, window: u32) -> io::Result<()> {
    thread::scope(|scope| {
        let taking = scope.spawn(|| take(recipient, SENDER, numbers.clone(), false));
        send(sender, &[HERE.to_owned()], numbers.clone(), window, " delivered")?;
        taking.join().expect("it does not panic")
    })
}

/// How many seconds that takes, and what CPU time in the meantime.
fn timed(place: &Place, act: impl FnOnce() -> io::Result<()>) -> io::Result<(f64, [f64; 3])> {
    let (before, clock) = (place.cpu()?, Instant::now());
    act()?;
    let seconds = clock.elapsed().as_secs_f64();
    let after = place.cpu()?;
    Ok((seconds, [0, 1, 2].map(|which| after[which] - before[which])))
}

const SENDER: &str = "user00000000";
const HERE: &str = "user00000001";
const AWAY: &str = "user00000002";
const MESSAGES: u32 = 10_000;
const WINDOWS: [u32; 2] = [16, 256];
/// A round on one node is short, and takes few ticks.
const TIMES: [u32; 2] = [1, 5];
const HOW: [&str; 2] = ["", ", acknowledged"];
const STORED_RATIO_MIN: f64 = 0.5;
const LOGIN_SECONDS_MAX: f64 = 1.0;
