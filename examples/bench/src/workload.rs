//! The workloads of the comparison, and what one of them finds on one server.
//!
//! All but the logins have 200 users on one node: in pairs, or all sending to one,
//! over TCP where nothing else is said. The text of a message has 64 bytes then, too.

use std::io;
use std::time::{Duration, Instant};

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::load::closed::{Traffic, partner};
use crate::load::{PAYLOAD_BYTES, open};
use crate::measure::{self, Times};
use crate::report::grouped;
use crate::results::{Figure, Sample};
use crate::server::Program;

/// One way to load a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Everybody sends to a partner, so many messages under way at a time.
    Pairs { verb: Verb, window: u32, text_bytes: usize },
    /// Pairs of users over WebSocket.
    Web { verb: Verb, window: u32 },
    /// Everybody sends to one user.
    FanIn { window: u32 },
    /// So many messages a second, come what may.
    Open { rate: u32 },
    /// Very many users log in, and then do nothing.
    Logins { transport: Transport },
}

impl Workload {
    /// The head of its rows.
    pub fn title(self) -> String {
        match self {
            Workload::Pairs { verb, window, text_bytes: PAYLOAD_BYTES } => {
                format!("{}, {window} under way", verb.name())
            }
            Workload::Pairs { verb, window, text_bytes } => {
                format!("{}, {window} under way, {text_bytes} bytes", verb.name())
            }
            Workload::Web { verb, window } => format!("{} over WebSocket, {window} under way", verb.name()),
            Workload::FanIn { window } => format!("CAST of all to one, {window} under way"),
            Workload::Open { rate } => format!("CAST, {} a second", grouped(f64::from(rate))),
            Workload::Logins { transport } => format!("logins over {}", transport.name()),
        }
    }

    /// Whether the program can do this.
    pub fn is_for(self, program: &Program) -> bool {
        match self {
            Workload::Pairs { verb, .. } => program.knows(verb),
            Workload::Web { .. } => program.knows_websocket(),
            Workload::FanIn { .. } | Workload::Open { .. } => program.knows(Verb::Cast),
            Workload::Logins { transport: Transport::Tcp } => program.knows(Verb::Cast),
            Workload::Logins { transport: Transport::WebSocket } => program.knows_websocket(),
        }
    }

    /// How many messages each sender has under way, where that is fixed.
    pub fn window(self) -> Option<u32> {
        match self {
            Workload::Pairs { window, .. } | Workload::Web { window, .. } | Workload::FanIn { window } => {
                Some(window)
            }
            Workload::Open { .. } | Workload::Logins { .. } => None,
        }
    }

    /// How its users come.
    pub fn transport(self) -> Transport {
        match self {
            Workload::Web { .. } => Transport::WebSocket,
            Workload::Logins { transport } => transport,
            Workload::Pairs { .. } | Workload::FanIn { .. } | Workload::Open { .. } => Transport::Tcp,
        }
    }

    /// Puts it on a server whose users are logged in. The logins are in `logins`.
    pub fn run(self, crowd: &mut Crowd, dialect: Dialect, pid: u32, paces: &Paces) -> io::Result<Sample> {
        let sample = match self {
            Workload::Pairs { verb, window, text_bytes } => {
                let traffic = Traffic::new(dialect, verb, crowd.len(), text_bytes, in_pairs);
                closed(traffic, crowd, window, pid, paces)?
            }
            Workload::Web { verb, window } => {
                let traffic = Traffic::new(dialect, verb, crowd.len(), PAYLOAD_BYTES, in_pairs);
                closed(traffic, crowd, window, pid, paces)?
            }
            Workload::FanIn { window } => {
                let to_the_last = |user| (user < USERS).then_some(USERS);
                let traffic = Traffic::new(dialect, Verb::Cast, crowd.len(), PAYLOAD_BYTES, to_the_last);
                closed(traffic, crowd, window, pid, paces)?
            }
            Workload::Open { rate } => at_a_rate(crowd, dialect, rate, pid, paces)?,
            Workload::Logins { .. } => unreachable!("logins need no crowd"),
        };
        crowd.expect_silence()?;
        Ok(sample)
    }
}

/// How long a load lasts in one round.
pub struct Paces {
    pub warm_up: Duration,
    pub closed: Duration,
    pub open: Duration,
}

fn in_pairs(user: usize) -> Option<usize> {
    (user < USERS).then(|| partner(user))
}

fn closed(
    mut traffic: Traffic,
    crowd: &mut Crowd,
    window: u32,
    pid: u32,
    paces: &Paces,
) -> io::Result<Sample> {
    traffic.exchange_for(crowd, window, paces.warm_up)?;
    traffic.take_ways();
    let (cpu, clock) = (measure::cpu(pid)?, Instant::now());
    let messages = traffic.exchange_for(crowd, window, paces.closed)? as f64;
    let elapsed = clock.elapsed();
    let cpu = measure::cpu(pid)? - cpu;
    let mut sample = Sample::default();
    sample.put(Figure::Cpu, cpu.as_secs_f64() * 1e6 / messages);
    sample.put(Figure::Rate, messages / elapsed.as_secs_f64());
    if let Some(ways) = traffic.take_ways() {
        put_ways(&mut sample, &ways);
    }
    Ok(sample)
}

fn at_a_rate(crowd: &mut Crowd, dialect: Dialect, rate: u32, pid: u32, paces: &Paces) -> io::Result<Sample> {
    let cpu = measure::cpu(pid)?;
    let outcome = open::run(crowd, dialect, USERS, rate, paces.open)?;
    let cpu = measure::cpu(pid)? - cpu;
    let mut sample = Sample::default();
    if !outcome.is_sustained {
        sample.note = Some("not sustained".to_owned());
        return Ok(sample);
    }
    sample.put(Figure::Cpu, cpu.as_secs_f64() * 1e6 / outcome.messages as f64);
    put_ways(&mut sample, &outcome.ways);
    sample.put(Figure::Late, outcome.lateness.per_mille_us(990));
    Ok(sample)
}

fn put_ways(sample: &mut Sample, ways: &Times) {
    sample.put(Figure::Median, ways.per_mille_us(500));
    sample.put(Figure::P99, ways.per_mille_us(990));
    sample.put(Figure::P999, ways.per_mille_us(999));
}

/// Those who send.
pub const USERS: usize = 200;
/// And one who only listens.
pub const CROWD: usize = USERS + 1;
