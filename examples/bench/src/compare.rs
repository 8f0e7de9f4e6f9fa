//! pinpost beside the bare relay, the servers that people would use for the same
//! job, and another build of itself if there is one.
//!
//! The relay does the least that a server of this kind can do, so the ratio to it
//! tells what pinpost's promises cost, on any machine; that to a peer tells
//! whether it is a better choice for this; that to another build whether a change
//! made messages dearer. In every round all programs have their turn, each on a
//! fresh process and in another order, so that a machine that gets slower or
//! busier meanwhile treats all alike; medians are compared.
//!
//! pinpost and the relay have to do everything right. What goes wrong on a peer is
//! told in the table, and the bench goes on.

use std::io;
use std::time::{Duration, Instant};

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::Traffic;
use crate::logins::{self, AT_ONCE_MAX};
use crate::machine::Cores;
use crate::measure;
use crate::results::{Results, Sample};
use crate::server::{Program, Server};
use crate::workload::{CROWD, Paces, USERS, Workload};

/// What is compared, and how thoroughly.
pub struct Plan<'a> {
    pub programs: Vec<&'a Program>,
    pub workloads: Vec<Workload>,
    pub cores: Cores,
    pub quick: bool,
    /// How many users log in at once.
    pub logins: usize,
}

/// The messages, or those with so many under way.
pub fn messages(window: Option<u32>) -> Vec<Workload> {
    MESSAGES.into_iter().filter(|load| window.is_none() || load.window() == window).collect()
}

/// Puts all workloads on all programs in turn.
pub fn run(plan: &Plan<'_>) -> io::Result<Results> {
    let mut results = Results::new(plan.workloads.len(), plan.programs.len());
    let is_login = |workload: &Workload| matches!(workload, Workload::Logins { .. });
    let rounds = [if plan.quick { ROUNDS_QUICK } else { ROUNDS }, if plan.quick { 1 } else { LOGIN_ROUNDS }];
    for (rounds, are_logins) in rounds.into_iter().zip([false, true]) {
        let numbered = plan.workloads.iter().copied().enumerate();
        let workloads: Vec<_> = numbered.filter(|(_, load)| is_login(load) == are_logins).collect();
        for round in (0..rounds).take_while(|_| !workloads.is_empty()) {
            for which in order(round, plan.programs.len()) {
                let program = plan.programs[which];
                if !workloads.iter().any(|(_, load)| load.is_for(program)) {
                    continue;
                }
                let clock = Instant::now();
                one_turn(plan, which, &workloads, &mut results)?;
                let name = program.name();
                let kind = if are_logins { "logins" } else { "messages" };
                let seconds = clock.elapsed().as_secs_f64();
                eprintln!("{kind}, round {} of {rounds}: {name} ({seconds:.1} s)", round + 1);
            }
        }
    }
    Ok(results)
}

/// All of these workloads on one program. A process goes on from one to the next while all goes well.
fn one_turn(
    plan: &Plan<'_>,
    which: usize,
    workloads: &[(usize, Workload)],
    results: &mut Results,
) -> io::Result<()> {
    let program = plan.programs[which];
    let paces = if plan.quick { &PACES_QUICK } else { &PACES };
    let mut running: Option<(Transport, Server, Crowd)> = None;
    for (number, workload) in workloads.iter().filter(|(_, load)| load.is_for(program)) {
        let mut turn = || -> io::Result<Sample> {
            if let Workload::Logins { transport } = *workload {
                return logins::run(program, plan.cores, transport, plan.logins, settle_max(plan.quick));
            }
            // Taken, so that nothing goes on where something went wrong. Users who come in another way have
            // a process of their own: they have the same names.
            let transport = workload.transport();
            let (_, server, mut crowd) = match running.take().filter(|(before, ..)| *before == transport) {
                Some(running) => running,
                None => start(program, plan.cores, transport)?,
            };
            let sample = workload.run(&mut crowd, program.dialect(), server.pid(), paces)?;
            running = Some((transport, server, crowd));
            Ok(sample)
        };
        let sample = match turn() {
            Err(error) if !program.is_ours() => Sample::failed(error.to_string()),
            sample => sample?,
        };
        results.add(*number, which, sample);
    }
    Ok(())
}

fn start(program: &Program, cores: Cores, transport: Transport) -> io::Result<(Transport, Server, Crowd)> {
    let server = program.start(cores, &[])?;
    let address = server.address_for(transport)?;
    let crowd = Crowd::log_in(&[address], transport, program.dialect(), CROWD, AT_ONCE_MAX)?;
    Ok((transport, server, crowd))
}

/// The CPU time a message, in us, of pairs on one fresh node.
pub fn cpu_of_pairs(
    program: &Program,
    dialect: Dialect,
    cores: Cores,
    window: u32,
    each: u32,
) -> io::Result<f64> {
    let server = program.start(cores, &[])?;
    let address = server.address(server.tcp)?;
    let mut crowd = Crowd::log_in(&[address], Transport::Tcp, dialect, USERS, AT_ONCE_MAX)?;
    let mut traffic = Traffic::pairs(dialect, Verb::Send, USERS);
    traffic.exchange(&mut crowd, window, each / 10, USERS)?;
    let cpu = measure::cpu(server.pid())?;
    traffic.exchange(&mut crowd, window, each, USERS)?;
    let cpu = measure::cpu(server.pid())? - cpu;
    crowd.expect_silence()?;
    Ok(cpu.as_secs_f64() * 1e6 / (f64::from(each) * USERS as f64))
}

/// Back and forth, and everybody is first at some time.
fn order(round: usize, programs: usize) -> impl Iterator<Item = usize> {
    measure::order(round, programs).map(move |at| (at + round / 2) % programs)
}

fn settle_max(quick: bool) -> Duration {
    Duration::from_millis(if quick { 500 } else { 3_000 })
}

const ROUNDS: usize = 6;
const ROUNDS_QUICK: usize = 3;
const LOGIN_ROUNDS: usize = 3;
const PACES: Paces = Paces {
    warm_up: Duration::from_millis(200),
    closed: Duration::from_millis(1_000),
    open: Duration::from_millis(2_500),
};
const PACES_QUICK: Paces = Paces {
    warm_up: Duration::from_millis(40),
    closed: Duration::from_millis(250),
    open: Duration::from_millis(400),
};
const MESSAGES: [Workload; 12] = [
    Workload::Pairs { verb: Verb::Cast, window: 1, text_bytes: PAYLOAD_BYTES },
    Workload::Pairs { verb: Verb::Cast, window: 16, text_bytes: PAYLOAD_BYTES },
    Workload::Pairs { verb: Verb::Cast, window: 16, text_bytes: 1_024 },
    Workload::FanIn { window: 4 },
    Workload::Open { rate: 5_000 },
    Workload::Open { rate: 20_000 },
    Workload::Pairs { verb: Verb::Send, window: 1, text_bytes: PAYLOAD_BYTES },
    Workload::Pairs { verb: Verb::Send, window: 16, text_bytes: PAYLOAD_BYTES },
    Workload::Web { verb: Verb::Cast, window: 1 },
    Workload::Web { verb: Verb::Cast, window: 16 },
    Workload::Web { verb: Verb::Send, window: 1 },
    Workload::Web { verb: Verb::Send, window: 16 },
];
