//! Server CPU time a message: pinpost beside the bare relay, and beside another
//! build of itself if there is one.
//!
//! The relay does the least that a server of this kind can do, so the ratio of
//! the two tells what pinpost's promises cost, on any machine; another build,
//! typically an earlier one, tells whether a change made messages dearer. The
//! rounds alternate between them, each on a fresh process, so that a machine that
//! gets slower or busier meanwhile treats all alike; medians are compared. The
//! relay knows no `CAST`.

use std::io;
use std::time::Instant;

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::measure::{self, Spread};
use crate::report::{grouped, table, verdict};
use crate::server::Program;

/// Measures all programs in turn and prints a table for each load: the first beside the others.
pub fn run(programs: &[&Program], cores: Cores, quick: bool, window: Option<u32>) -> io::Result<()> {
    let rounds = if quick { 3 } else { 6 };
    let wanted = |load: &Load| window.is_none_or(|window| window == load.window);
    let loads: Vec<Load> = LOADS.into_iter().filter(wanted).map(|load| load.shortened(quick)).collect();
    // One series for each load and program.
    let mut series = vec![vec![vec![]; programs.len()]; loads.len()];
    for round in 0..rounds {
        for which in measure::order(round, programs.len()) {
            let program = programs[which];
            eprintln!("round {} of {rounds}: {}", round + 1, program.name());
            for (samples, sample) in
                series.iter_mut().zip(measure(program, program.dialect(), cores, &loads)?)
            {
                samples[which].extend(sample);
            }
        }
    }
    for (load, samples) in loads.iter().zip(&series) {
        print(programs, load, samples);
    }
    Ok(())
}

/// One load.
pub struct Load {
    pub verb: Verb,
    /// Messages that each user has under way.
    pub window: u32,
    /// Messages of each user in one round; a tenth more, before, warm up.
    pub each: u32,
}

impl Load {
    fn shortened(self, quick: bool) -> Load {
        Load { each: if quick { self.each / 4 } else { self.each }, ..self }
    }
}

/// What one round of one load found.
#[derive(Clone, Copy)]
pub struct Sample {
    pub cpu_seconds_per_million: f64,
    messages_per_second: f64,
}

/// Puts every load in turn on a fresh process; nothing comes of one that the program does not know.
pub fn measure(
    program: &Program,
    dialect: Dialect,
    cores: Cores,
    loads: &[Load],
) -> io::Result<Vec<Option<Sample>>> {
    let server = program.start(cores, &[])?;
    let address = server.address(server.tcp)?;
    let mut crowd = Crowd::log_in(&[address], Transport::Tcp, dialect, USERS, LOGINS_AT_ONCE)?;
    let mut samples = Vec::new();
    for load in loads {
        if !program.knows(load.verb) {
            samples.push(None);
            continue;
        }
        let mut traffic = Traffic::pairs(dialect, load.verb, crowd.len());
        traffic.exchange(&mut crowd, load.window, load.each / 10, USERS)?;
        let (cpu, clock) = (measure::cpu(server.pid())?, Instant::now());
        traffic.exchange(&mut crowd, load.window, load.each, USERS)?;
        let elapsed = clock.elapsed();
        let cpu = measure::cpu(server.pid())? - cpu;
        crowd.expect_silence()?;
        let messages = f64::from(load.each) * USERS as f64;
        samples.push(Some(Sample {
            cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / messages,
            messages_per_second: messages / elapsed.as_secs_f64(),
        }));
    }
    Ok(samples)
}

fn print(programs: &[&Program], load: &Load, samples: &[Vec<Sample>]) {
    println!();
    println!(
        "{}: {USERS} users in pairs over TCP, {} under way each, {PAYLOAD_BYTES} bytes, \
         {} messages a round, {} rounds in turn",
        load.verb.name(),
        load.window,
        grouped(f64::from(load.each) * USERS as f64),
        samples[0].len()
    );
    let measured = programs.iter().zip(samples).filter(|(_, samples)| !samples.is_empty());
    let measured: Vec<(&Program, Spread, Spread)> = measured
        .map(|(program, samples)| {
            let cpu = Spread::of(samples.iter().map(|sample| sample.cpu_seconds_per_million));
            let rate = Spread::of(samples.iter().map(|sample| sample.messages_per_second));
            (*program, cpu, rate)
        })
        .collect();
    let row = |(program, cpu, rate): &(&Program, Spread, Spread)| {
        vec![
            program.name().to_owned(),
            format!("{:.3}", cpu.median),
            format!("{:.3} .. {:.3}", cpu.min, cpu.max),
            grouped(rate.median),
            format!("{} .. {}", grouped(rate.min), grouped(rate.max)),
        ]
    };
    let rows: Vec<Vec<String>> = measured.iter().map(row).collect();
    table(&["", "server CPU s per million", "min .. max", "messages/s", "min .. max"], &rows);
    let Some(((first, cpu, _), others)) = measured.split_first() else { return };
    for (other, other_cpu, _) in others {
        let ratio = cpu.median / other_cpu.median;
        let verdict = match other {
            Program::Before(_) => verdict(ratio, BEFORE_RATIO_MAX, "1.05"),
            _ if ratio < RATIO_AIM => format!("ok, aim: below {RATIO_AIM:.2}"),
            _ => format!("OVER, aim: below {RATIO_AIM:.2}"),
        };
        println!("  CPU {} / {}: {ratio:.2} ({verdict})", first.name(), other.name());
    }
}

/// What a message may cost compared with the same at another build.
pub const BEFORE_RATIO_MAX: f64 = 1.05;
const USERS: usize = 200;
const LOGINS_AT_ONCE: usize = 128;
const RATIO_AIM: f64 = 2.0;
const LOADS: [Load; 4] = [
    Load { verb: Verb::Send, window: 1, each: 2_000 },
    Load { verb: Verb::Send, window: 16, each: 20_000 },
    Load { verb: Verb::Cast, window: 1, each: 2_000 },
    Load { verb: Verb::Cast, window: 16, each: 20_000 },
];
