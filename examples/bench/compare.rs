//! Server CPU time a message: pinpost beside the bare relay.
//!
//! The relay does the least that a server of this kind can do, so the ratio of
//! the two tells what pinpost's promises cost, on any machine. The rounds
//! alternate between them, each on a fresh process, so that a machine that gets
//! slower or busier meanwhile treats both alike; medians are compared.

use std::io;
use std::time::Instant;

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::load::{PAYLOAD_BYTES, Pairs};
use crate::machine::Cores;
use crate::measure::{self, Spread};
use crate::report::{grouped, table};
use crate::server::Program;

/// Measures both programs in turn and prints a table for each window.
pub fn run(programs: [&Program; 2], cores: Cores, quick: bool, window: Option<u32>) -> io::Result<()> {
    let rounds = if quick { 3 } else { 5 };
    let loads = if quick { LOADS_QUICK } else { LOADS };
    let wanted = |load: &Load| window.is_none_or(|window| window == load.window);
    let loads: Vec<Load> = loads.into_iter().filter(wanted).collect();
    // One series for each load and program.
    let mut series = vec![[vec![], vec![]]; loads.len()];
    for round in 0..rounds {
        for (which, program) in programs.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}", round + 1, program.name());
            for (samples, sample) in series.iter_mut().zip(measure(program, cores, &loads)?) {
                samples[which].push(sample);
            }
        }
    }
    for (load, samples) in loads.iter().zip(&series) {
        print(programs, load, samples);
    }
    Ok(())
}

/// One load.
struct Load {
    /// Messages that each user has under way.
    window: u32,
    /// Messages of each user in one round; a tenth more, before, warm up.
    each: u32,
}

/// What one round of one load found.
#[derive(Clone, Copy)]
struct Sample {
    cpu_seconds_per_million: f64,
    messages_per_second: f64,
}

/// Puts every load in turn on a fresh process.
fn measure(program: &Program, cores: Cores, loads: &[Load]) -> io::Result<Vec<Sample>> {
    let server = program.start(cores, &[])?;
    let address = server.address(server.tcp)?;
    let mut crowd = Crowd::log_in(&[address], Transport::Tcp, program.dialect(), USERS, LOGINS_AT_ONCE)?;
    let mut pairs = Pairs::new(program.dialect(), crowd.len());
    let mut samples = Vec::new();
    for load in loads {
        pairs.exchange(&mut crowd, load.window, load.each / 10, USERS)?;
        let (cpu, clock) = (measure::cpu(server.pid())?, Instant::now());
        pairs.exchange(&mut crowd, load.window, load.each, USERS)?;
        let elapsed = clock.elapsed();
        let cpu = measure::cpu(server.pid())? - cpu;
        crowd.expect_silence(program.dialect())?;
        let messages = f64::from(load.each) * USERS as f64;
        samples.push(Sample {
            cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / messages,
            messages_per_second: messages / elapsed.as_secs_f64(),
        });
    }
    Ok(samples)
}

fn print(programs: [&Program; 2], load: &Load, samples: &[Vec<Sample>; 2]) {
    println!();
    println!(
        "messages: {USERS} users in pairs over TCP, {} under way each, {PAYLOAD_BYTES} bytes, \
         {} messages a round, {} rounds in turn",
        load.window,
        grouped(f64::from(load.each) * USERS as f64),
        samples[0].len()
    );
    let cpu =
        [0, 1].map(|which| Spread::of(samples[which].iter().map(|sample| sample.cpu_seconds_per_million)));
    let rate = [0, 1].map(|which| Spread::of(samples[which].iter().map(|sample| sample.messages_per_second)));
    let rows: Vec<Vec<String>> = (0..2)
        .map(|which| {
            let (cpu, rate) = (cpu[which], rate[which]);
            vec![
                programs[which].name().to_owned(),
                format!("{:.3}", cpu.median),
                format!("{:.3} .. {:.3}", cpu.min, cpu.max),
                grouped(rate.median),
                format!("{} .. {}", grouped(rate.min), grouped(rate.max)),
            ]
        })
        .collect();
    table(&["", "server CPU s per million", "min .. max", "messages/s", "min .. max"], &rows);
    let ratio = cpu[0].median / cpu[1].median;
    let names = programs.map(Program::name);
    let word = if ratio < RATIO_AIM { "ok" } else { "OVER" };
    println!("  CPU {} / {}: {ratio:.2} ({word}, aim: below {RATIO_AIM:.2})", names[0], names[1]);
}

const USERS: usize = 200;
const LOGINS_AT_ONCE: usize = 128;
const RATIO_AIM: f64 = 2.0;
const LOADS: [Load; 2] = [Load { window: 1, each: 2_000 }, Load { window: 16, each: 20_000 }];
const LOADS_QUICK: [Load; 2] = [Load { window: 1, each: 500 }, Load { window: 16, each: 5_000 }];
