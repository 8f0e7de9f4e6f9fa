//! Messages from node to node: pinpost beside NATS's own cluster of two, beside a
//! plain program that publishes each message by itself, and beside another build
//! of itself if there is one.
//!
//! CPU time of every process that has to do with it: both nodes, the broker and
//! Redis, all on one core, and the load generator on another. pinpost's and NATS's
//! nodes also talk to their clients, which the plain program does not have;
//! nothing is taken off for that. In either table are NATS's messages that nobody
//! answers; beside `SEND` are its requests, too, to which the recipient replies. The
//! rounds alternate, each load on fresh processes, on one broker and one Redis;
//! medians are compared.

use std::io;
use std::time::{Duration, Instant};

use crate::bars::BEFORE_RATIO_MAX;
use crate::client::Transport;
use crate::cluster::cost::{self, Cost};
use crate::cluster::nats::Nats;
use crate::cluster::plain::Plain;
use crate::cluster::services::Services;
use crate::cluster::{Nodes, Rig};
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::measure::{self, Spread};
use crate::peer::nats::Release;
use crate::report::{grouped, table, verdict};
use crate::server::Program;

/// Measures all in turn and prints a table for each load.
pub fn run(rig: &Rig<'_>, window: Option<u32>) -> io::Result<()> {
    let rounds = if rig.quick { 1 } else { 5 };
    let wanted = |load: &Load| window.is_none_or(|window| window == load.window);
    let loads: Vec<Load> = LOADS.into_iter().filter(wanted).collect();
    let programs = [rig.pinpost].into_iter().chain(rig.before).map(Contender::Pinpost);
    let programs: Vec<Contender<'_>> = programs.collect();
    let nats = Release::all();
    let others =
        nats.iter().copied().map(Contender::Nats).chain(nats.iter().copied().map(Contender::Requests));
    let all: Vec<Contender<'_>> = programs.iter().copied().chain(others).chain([Contender::Plain]).collect();
    let one_core = rig.on_one_core()?;
    let cores = one_core.cores;
    // One series for each load and each of all, empty where one does not take part.
    let mut series = vec![vec![vec![]; all.len()]; loads.len()];
    for round in 0..rounds {
        for (at, load) in loads.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}, {} under way", round + 1, load.verb.name(), load.window);
            let same = loads[..at].iter().position(|before| before.window == load.window);
            for which in measure::order(round, programs.len()).chain(programs.len()..all.len()) {
                let sample = match (all[which], same) {
                    (Contender::Requests(_), _) if load.verb == Verb::Cast => continue,
                    // It is the same for either verb: what it did under the load before counts here, too.
                    (Contender::Nats(_), Some(before)) => series[before][which][round],
                    (Contender::Nats(release), None) => of_nats(rig, cores, release, Verb::Cast, load)?,
                    (Contender::Requests(release), _) => of_nats(rig, cores, release, Verb::Send, load)?,
                    (Contender::Pinpost(program), _) => pinpost(program, Dialect::Cluster, rig, cores, load)?,
                    (Contender::Plain, _) => of_plain(rig, cores, load)?,
                };
                series[at][which].push(sample);
            }
        }
    }
    drop(one_core);
    for (load, series) in loads.iter().zip(series) {
        let entries = all.iter().zip(series).filter(|(_, samples)| !samples.is_empty());
        let entries: Vec<_> = entries.map(|(contender, samples)| (contender.name(), samples)).collect();
        print(load, &entries);
    }
    Ok(())
}

/// Who carries the messages.
#[derive(Clone, Copy)]
enum Contender<'a> {
    Pinpost(&'a Program),
    Nats(Release),
    Requests(Release),
    Plain,
}

impl Contender<'_> {
    fn name(self) -> &'static str {
        match self {
            Contender::Pinpost(program) => program.name(),
            Contender::Nats(release) => release.name(),
            Contender::Requests(release) => release.name_of_requests(),
            Contender::Plain => "plain",
        }
    }
}

/// One load.
pub struct Load {
    pub verb: Verb,
    /// Messages that each sender has under way.
    pub window: u32,
    /// Messages of each sender in one round; a tenth more, before, warm up.
    pub each: u32,
    /// The same for the plain program.
    pub each_plain: u32,
    /// What a message may cost compared with the same at NATS, and at the plain program.
    pub nats_ratio_max: Option<f64>,
    pub plain_ratio_max: Option<f64>,
}

/// What one round of one load found.
#[derive(Clone, Copy)]
pub struct Sample {
    messages_per_second: f64,
    /// From a message to its answer, where that is timed: p50 and p99, in us.
    ways: Option<[f64; 2]>,
    pub cost: Cost<GROUPS>,
}

/// Puts a load on two fresh nodes.
pub fn pinpost(
    program: &Program,
    dialect: Dialect,
    rig: &Rig<'_>,
    cores: Cores,
    load: &Load,
) -> io::Result<Sample> {
    let nodes = Nodes::of(program, rig, cores, &[])?;
    let addresses = nodes.addresses()?;
    let mut crowd = Crowd::log_in(&addresses, Transport::Tcp, dialect, USERS, LOGINS_AT_ONCE)?;
    let Services { broker_pid, redis_pid, .. } = rig.services;
    let groups = [&[nodes.a.pid()][..], &[nodes.b.pid()], &[broker_pid], &[redis_pid]];
    crowds(rig, &mut crowd, dialect, groups, load)
}

fn of_nats(rig: &Rig<'_>, cores: Cores, release: Release, verb: Verb, load: &Load) -> io::Result<Sample> {
    let nats = Nats::start(cores, release, verb)?;
    let mut crowd = nats.log_in(USERS, LOGINS_AT_ONCE)?;
    let [a, b] = nats.servers.each_ref().map(|server| [server.pid()]);
    crowds(rig, &mut crowd, nats.dialect, [&a, &b, &[], &[]], &Load { verb, ..*load })
}

/// Lets the users of a crowd exchange messages.
fn crowds(
    rig: &Rig<'_>,
    crowd: &mut Crowd,
    dialect: Dialect,
    groups: [&[u32]; GROUPS],
    load: &Load,
) -> io::Result<Sample> {
    let each = load.each(rig.quick, load.each);
    let mut traffic = Traffic::one_way(dialect, load.verb, USERS);
    traffic.exchange(crowd, load.window, each / 10, USERS)?;
    traffic.take_ways();
    let mut sample = measure(rig, groups, f64::from(each) * PAIRS as f64, || {
        traffic.exchange(crowd, load.window, each, USERS)
    })?;
    sample.ways = traffic.take_ways().map(|ways| [50, 99].map(|percent| ways.percentile_us(percent)));
    crowd.expect_silence()?;
    Ok(sample)
}

fn of_plain(rig: &Rig<'_>, cores: Cores, load: &Load) -> io::Result<Sample> {
    let answer_every = match load.verb {
        Verb::Send => 1,
        Verb::Cast => CASTS_TO_AN_ANSWER,
    };
    let window = u64::from(load.window) * PAIRS as u64;
    let mut plain = Plain::start(&rig.services.amqp, cores, answer_every, window)?;
    let messages = u64::from(load.each(rig.quick, load.each_plain)) * PAIRS as u64;
    plain.exchange(messages / 10)?;
    let Services { broker_pid, redis_pid, .. } = rig.services;
    let groups = [&[plain.sender_pid()][..], &[plain.recipient_pid()], &[broker_pid], &[redis_pid]];
    measure(rig, groups, messages as f64, || plain.exchange(messages))
}

impl Load {
    /// Messages of each sender, fewer when it should be quick.
    fn each(&self, quick: bool, each: u32) -> u32 {
        if quick { each / 4 } else { each }
    }
}

/// Lets `exchange` move so many messages, and tells what that took.
fn measure(
    rig: &Rig<'_>,
    groups: [&[u32]; GROUPS],
    messages: f64,
    exchange: impl FnOnce() -> io::Result<()>,
) -> io::Result<Sample> {
    let mut elapsed = Duration::ZERO;
    let cost = Cost::measure(rig, groups, messages, || {
        let clock = Instant::now();
        exchange()?;
        elapsed = clock.elapsed();
        Ok(())
    })?;
    Ok(Sample { messages_per_second: messages / elapsed.as_secs_f64(), ways: None, cost })
}

fn print(load: &Load, entries: &[(&str, Vec<Sample>)]) {
    println!();
    println!(
        "{} from node to node: {PAIRS} senders on one, {PAIRS} recipients on the other, {} under way each, \
         {PAYLOAD_BYTES} bytes, {} rounds in turn",
        load.verb.name(),
        load.window,
        entries[0].1.len()
    );
    println!("  CPU in us a message: both nodes, broker, Redis, all; AMQP messages for 1,000 of users");
    let mut head = vec!["", "messages/s", "sender's", "recipient's", "broker", "Redis"];
    head.extend(cost::TITLES);
    if load.verb == Verb::Send {
        println!("  p50 and p99: from a message to its answer, in us");
        head.extend(["p50", "p99"]);
    }
    let row = |(name, samples): &(&str, Vec<Sample>)| {
        let costs: Vec<_> = samples.iter().map(|sample| sample.cost).collect();
        let mut row = vec![(*name).to_owned(), grouped(median(samples, |sample| sample.messages_per_second))];
        row.extend(cost::cells(&costs));
        for at in 0..head.len() - row.len() {
            let are_timed = samples.iter().all(|sample| sample.ways.is_some());
            let way = |sample: &Sample| sample.ways.map_or(0.0, |ways| ways[at]);
            row.push(if are_timed { grouped(median(samples, way)) } else { String::new() });
        }
        row
    };
    table(&head, &entries.iter().map(row).collect::<Vec<_>>());
    print_ratios(load, entries);
}

fn print_ratios(load: &Load, entries: &[(&str, Vec<Sample>)]) {
    let ratio = |name: &str, figure: &dyn Fn(&Sample) -> f64| {
        let (_, theirs) = entries.iter().find(|(other, _)| *other == name)?;
        Some(median(&entries[0].1, figure) / median(theirs, figure))
    };
    let all = |sample: &Sample| sample.cost.all_us();
    let nodes = |sample: &Sample| sample.cost.cpu_us[0] + sample.cost.cpu_us[1];
    if let Some((nodes, all)) = ratio("before", &nodes).zip(ratio("before", &all)) {
        let judged = verdict(nodes, BEFORE_RATIO_MAX, "1.05");
        println!("  CPU pinpost / before: of both nodes {nodes:.3} ({judged}), of all {all:.3}");
    }
    let bounds = [
        ("nats", load.nats_ratio_max),
        (Release::Newest.name_of_requests(), None),
        ("plain", load.plain_ratio_max),
    ];
    for (name, bound) in bounds {
        let Some(ratio) = ratio(name, &all) else { continue };
        let judged = bound.map(|bound| verdict(ratio, bound, &format!("{bound:.3}")));
        let judged = judged.map_or(String::new(), |judged| format!(" ({judged})"));
        println!("  CPU of all, pinpost / {name}: {ratio:.3}{judged}");
    }
    if let Some(ratio) = ratio("plain", &|sample| sample.cost.cpu_us[2]) {
        println!("  CPU of the broker alone, pinpost / plain: {ratio:.3}");
    }
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    Spread::of(samples.iter().map(figure)).median
}

/// The sender's process, the recipient's, the broker, Redis.
const GROUPS: usize = 4;
const PAIRS: usize = 200;
const USERS: usize = 2 * PAIRS;
const LOGINS_AT_ONCE: usize = 128;
const CASTS_TO_AN_ANSWER: u64 = 50;
const PLAIN_RATIO_MAX: f64 = 1.0 / 12.0;
/// A load without bounds.
pub const SEND: Load = Load {
    verb: Verb::Send,
    window: 1,
    each: 1_000,
    each_plain: 200,
    nats_ratio_max: None,
    plain_ratio_max: None,
};
const BUSY: Load = Load { window: 16, each: 4_000, plain_ratio_max: Some(PLAIN_RATIO_MAX), ..SEND };
const LOADS: [Load; 4] = [
    SEND,
    Load { verb: Verb::Cast, nats_ratio_max: Some(0.6), ..SEND },
    Load { nats_ratio_max: Some(0.75), ..BUSY },
    Load { verb: Verb::Cast, nats_ratio_max: Some(0.5), ..BUSY },
];
