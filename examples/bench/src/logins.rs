//! Very many users log in at once, and then do nothing: how fast, what that
//! costs, and what each of them weighs.
//!
//! Memory a user is the difference between a full and an empty server, divided
//! by the users: nothing is estimated. It is read once the server has settled.
//! From pinpost it is also read after a message each, and when all have gone.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::Verb;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::measure::{self, open_files, settled_memory_within};
use crate::results::{Figure, Sample};
use crate::server::Program;

/// Logs `count` users in on a fresh process. `settle_max`: how long to wait for memory to stay the same.
pub fn run(
    program: &Program,
    cores: Cores,
    transport: Transport,
    count: usize,
    settle_max: Duration,
) -> io::Result<Sample> {
    let limit = (count + count / 10).to_string();
    let server = program.start(cores, &["--connections", &limit])?;
    let pid = server.pid();
    let address = server.address_for(transport)?;
    let memory = || settled_memory_within(pid, settle_max).map(|memory| memory.pss as f64);
    let empty = memory()?;
    let each = |now: f64| (now - empty) / count as f64;
    let files = open_files(pid)?;

    let mut sample = Sample::default();
    let (cpu, clock) = (measure::cpu(pid)?, Instant::now());
    let mut crowd = Crowd::log_in(&[address], transport, program.dialect(), count, AT_ONCE_MAX)?;
    sample.put(Figure::Rate, count as f64 / clock.elapsed().as_secs_f64());
    let cpu = measure::cpu(pid)? - cpu;
    sample.put(Figure::Cpu, cpu.as_secs_f64() * 1e6 / count as f64);
    sample.put(Figure::Idle, each(memory()?));
    if matches!(program, Program::Pinpost(_)) {
        let mut traffic = Traffic::pairs(program.dialect(), Verb::Send, crowd.len());
        traffic.exchange(&mut crowd, 1, 1, AT_ONCE_MAX)?;
        sample.put(Figure::Used, each(memory()?));
        drop(crowd);
        wait_for_files(pid, files)?;
        sample.put(Figure::Gone, each(memory()?));
    }
    Ok(sample)
}

/// Waits until the server has closed the connections of those who left.
fn wait_for_files(pid: u32, files: usize) -> io::Result<()> {
    let start = Instant::now();
    while open_files(pid)? > files {
        if start.elapsed() > LEAVE_MAX {
            return Err(io::Error::other(format!(
                "connections are still open {LEAVE_MAX:?} after their users left"
            )));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// How many are logging in at a time: fewer than the connections that mosquitto lets wait to be taken, 100, as one
/// more costs its client a second.
pub const AT_ONCE_MAX: usize = 96;
const LEAVE_MAX: Duration = Duration::from_secs(30);
