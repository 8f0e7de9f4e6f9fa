//! One node with more and more users: does a message cost more, does a user weigh
//! more?
//!
//! Three loads at each size. The same hundred users take turns while the others
//! are idle: what idle users cost. All of them take turns: the same messages, but
//! spread over all connections. All are active at once: what a rush costs. The
//! first two have the same number of messages under way at any size, the third one
//! for each user; no user ever has two, so nothing is batched for anybody. The
//! bare relay does the same beside it: what it pays more for many users is the
//! price of their sockets in the kernel, which every server pays.
//!
//! Memory is the PSS of the process without what it has with two users who have
//! exchanged messages: buffers and tables that the first one brings are fixed, not
//! a user's. Who has had messages weighs more, for a minute: what a session was
//! shown is remembered. The kernel's memory for sockets is in no process's PSS.

use std::io;
use std::time::Duration;

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::growth::flat;
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::Traffic;
use crate::load::rotation::Rotation;
use crate::machine::Cores;
use crate::measure::{self, Spread, settled_memory_within};
use crate::report::{grouped, table};
use crate::server::{Program, Server};

/// Measures the program and the relay in turn and prints both; users as far as so many open files allow.
pub fn run(program: &Program, cores: Cores, quick: bool, users_max: usize) -> io::Result<()> {
    let (rounds, messages) = if quick { (1, MESSAGES_QUICK) } else { (5, MESSAGES) };
    let sizes = if quick { &SIZES_QUICK[..] } else { &SIZES[..] };
    let sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size <= users_max).collect();
    if sizes.len() < 2 {
        return Err(io::Error::other(format!("{users_max} open files are too few to compare sizes")));
    }
    let programs = [program, &Program::RelayAnswering];
    let mut rounds_of = [vec![], vec![]];
    let mut idle = vec![];
    for round in 0..rounds {
        for which in measure::order(round, programs.len()) {
            let program = programs[which];
            eprintln!("growth, round {} of {rounds}: {}", round + 1, program.name());
            rounds_of[which].push(active(program, cores, messages, &sizes)?);
        }
        idle.push(logged_in(program, cores, &sizes)?);
    }
    print(&programs, &sizes, messages, &rounds_of);
    let used: Vec<Vec<f64>> =
        rounds_of[0].iter().map(|round| round.iter().map(|sample| sample.bytes).collect()).collect();
    memory(program, &sizes, &idle, &used);
    Ok(())
}

/// What one round found at one size.
#[derive(Clone, Copy)]
struct Sample {
    /// CPU time a message under each load.
    cpu_us: [f64; LOADS],
    /// Bytes a user.
    bytes: f64,
}

/// A server with its first users.
struct Filling {
    server: Server,
    crowd: Crowd,
    dialect: Dialect,
    /// PSS of what is there whether few or many follow.
    fixed: f64,
}

impl Filling {
    fn start(program: &Program, cores: Cores, sizes: &[usize]) -> io::Result<Filling> {
        let dialect = match program.dialect() {
            // All names are of one length there: a user of many weighs what one of few does.
            Dialect::Pinpost => Dialect::Cluster,
            other => other,
        };
        let limit = (sizes[sizes.len() - 1] + LOGINS_AT_ONCE).to_string();
        let server = program.start(cores, &["--connections", &limit])?;
        let address = server.address(server.tcp)?;
        let mut crowd = Crowd::log_in(&[address], Transport::Tcp, dialect, FIRST, LOGINS_AT_ONCE)?;
        Traffic::pairs(dialect, Verb::Send, FIRST).exchange(&mut crowd, 1, WARM_UP, FIRST)?;
        let fixed = settled_memory_within(server.pid(), SETTLE_MAX)?.pss as f64;
        Ok(Filling { server, crowd, dialect, fixed })
    }

    /// Bytes for each user so far, without what is fixed.
    fn bytes(&self) -> io::Result<f64> {
        let pss = settled_memory_within(self.server.pid(), SETTLE_MAX)?.pss as f64;
        Ok((pss - self.fixed) / (self.crowd.len() - FIRST) as f64)
    }
}

/// Fills a fresh server with users, who exchange messages at each size.
fn active(program: &Program, cores: Cores, messages: u64, sizes: &[usize]) -> io::Result<Vec<Sample>> {
    let mut filling = Filling::start(program, cores, sizes)?;
    let mut samples = vec![];
    for &size in sizes {
        filling.crowd.grow(size, LOGINS_AT_ONCE)?;
        let cpu_us = loads(&filling.server, &mut filling.crowd, filling.dialect, messages)?;
        let bytes = filling.bytes()?;
        filling.crowd.expect_silence()?;
        samples.push(Sample { cpu_us, bytes });
    }
    Ok(samples)
}

/// Fills another one with users who do nothing: bytes a user at each size.
fn logged_in(program: &Program, cores: Cores, sizes: &[usize]) -> io::Result<Vec<f64>> {
    let mut filling = Filling::start(program, cores, sizes)?;
    let mut bytes = vec![];
    for &size in sizes {
        filling.crowd.grow(size, LOGINS_AT_ONCE)?;
        bytes.push(filling.bytes()?);
    }
    Ok(bytes)
}

/// CPU time a message: a hundred in turn, all in turn, all at once.
fn loads(server: &Server, crowd: &mut Crowd, dialect: Dialect, messages: u64) -> io::Result<[f64; LOADS]> {
    let size = crowd.len();
    let mut everybody = Traffic::pairs(dialect, Verb::Send, size);
    everybody.exchange(crowd, 1, WARM_UP, LOGINS_AT_ONCE)?;
    let (mut few, mut all) = (Rotation::new(dialect, FEW), Rotation::new(dialect, size));
    let each = u32::try_from(messages / size as u64).expect("millions fit");
    let time = |messages: u64, exchange: &mut dyn FnMut() -> io::Result<()>| -> io::Result<f64> {
        let before = measure::cpu(server.pid())?;
        exchange()?;
        Ok((measure::cpu(server.pid())? - before).as_secs_f64() * 1e6 / messages as f64)
    };
    Ok([
        time(messages, &mut || few.exchange(crowd, messages, UNDER_WAY))?,
        time(messages, &mut || all.exchange(crowd, messages, UNDER_WAY))?,
        time(u64::from(each) * size as u64, &mut || everybody.exchange(crowd, 1, each, size))?,
    ])
}

fn print(programs: &[&Program], sizes: &[usize], messages: u64, rounds: &[Vec<Vec<Sample>>]) {
    println!();
    println!(
        "growth, one node: {} messages of {PAYLOAD_BYTES} bytes for each figure, {} rounds in turn; \
         server CPU in us a message, median and min .. max",
        grouped(messages as f64),
        rounds[0].len()
    );
    println!("  few in turn: the same {FEW} users, {UNDER_WAY} messages under way, the others are idle");
    println!("  all in turn: {UNDER_WAY} messages under way, the next one by the next of all users");
    println!("  all at once: one message of each user under way");
    let spread = |which: usize, size: usize, figure: &dyn Fn(&Sample) -> f64| {
        Spread::of(rounds[which].iter().map(|round| figure(&round[size])))
    };
    let mut head = vec![String::new(), "users".to_owned()];
    for load in LOAD_NAMES {
        head.extend([load.to_owned(), "min .. max".to_owned()]);
    }
    let mut rows = vec![];
    for (which, program) in programs.iter().enumerate() {
        for (at, size) in sizes.iter().enumerate() {
            let mut row = vec![program.name().to_owned(), grouped(*size as f64)];
            for load in 0..LOADS {
                let cpu = spread(which, at, &|sample| sample.cpu_us[load]);
                row.extend([format!("{:.2}", cpu.median), format!("{:.2} .. {:.2}", cpu.min, cpu.max)]);
            }
            rows.push(row);
        }
    }
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, &rows);
    let last = sizes.len() - 1;
    let pair = format!("{} users / {}", grouped(sizes[last] as f64), grouped(sizes[0] as f64));
    for (load, name) in LOAD_NAMES.iter().enumerate() {
        let growth = |which| {
            let cpu = |size| spread(which, size, &|sample| sample.cpu_us[load]).median;
            cpu(last) / cpu(0)
        };
        let (ours, relays) = (growth(0), growth(1));
        println!("{}", flat(&format!("CPU {name}, {pair}"), ours));
        println!("{}", flat(&format!("  the same of the relay {relays:.2}; more than that"), ours / relays));
    }
}

/// Prints what a user weighs who does nothing, and one who has had messages within a minute.
fn memory(program: &Program, sizes: &[usize], idle: &[Vec<f64>], used: &[Vec<f64>]) {
    println!();
    println!(
        "growth, one node: PSS of {} in bytes a user, without what it has with {FIRST} users, {} rounds",
        program.name(),
        idle.len()
    );
    let spread = |rounds: &[Vec<f64>], at: usize| Spread::of(rounds.iter().map(|round| round[at]));
    let row = |(at, size): (usize, &usize)| {
        let mut row = vec![grouped(*size as f64)];
        for bytes in [idle, used].map(|rounds| spread(rounds, at)) {
            row.extend([grouped(bytes.median), format!("{} .. {}", grouped(bytes.min), grouped(bytes.max))]);
        }
        row
    };
    let rows: Vec<Vec<String>> = sizes.iter().enumerate().map(row).collect();
    table(&["users", "logged in", "min .. max", "after messages", "min .. max"], &rows);
    // With a hundred, buffers that only their number of active users needs are most of it.
    let (first, last) = (1, sizes.len() - 1);
    let pair = format!("{} users / {}", grouped(sizes[last] as f64), grouped(sizes[first] as f64));
    for (name, rounds) in [("logged in", idle), ("after messages", used)] {
        let ratio = spread(rounds, last).median / spread(rounds, first).median;
        println!("{}", flat(&format!("bytes a user {name}, {pair}"), ratio));
    }
}

const SIZES: [usize; 4] = [FEW, 1_000, 5_000, 15_000];
const SIZES_QUICK: [usize; 3] = [FEW, 1_000, 15_000];
/// Users of whom one has a turn at each time, at any size.
const FEW: usize = 100;
const UNDER_WAY: usize = FEW / 2;
/// Those whose memory is that of a server which has had users.
const FIRST: usize = 2;
const WARM_UP: u32 = 2;
const SETTLE_MAX: Duration = Duration::from_secs(1);
const LOGINS_AT_ONCE: usize = 128;
const MESSAGES: u64 = 100_000;
const MESSAGES_QUICK: u64 = 20_000;
const LOADS: usize = 3;
const LOAD_NAMES: [&str; LOADS] = ["few in turn", "all in turn", "all at once"];
