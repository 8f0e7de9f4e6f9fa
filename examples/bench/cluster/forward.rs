//! Messages from node to node: pinpost beside NATS's own cluster of two, beside a
//! plain program that publishes each message by itself, and beside another build
//! of itself if there is one.
//!
//! CPU time of every process that has to do with it: both nodes, the broker and
//! Redis, all on one core, and the load generator on another. pinpost's and NATS's
//! nodes also talk to their clients, which the plain program does not have;
//! nothing is taken off for that. NATS knows no `SEND`: its messages are `CAST`s in
//! either table. The rounds alternate, each load on fresh processes, on one broker
//! and one Redis; medians are compared.

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
use crate::report::{grouped, table, verdict};
use crate::server::Program;

/// Measures all in turn and prints a table for each load.
pub fn run(rig: &Rig<'_>, window: Option<u32>) -> io::Result<()> {
    let rounds = if rig.quick { 1 } else { 5 };
    let wanted = |load: &Load| window.is_none_or(|window| window == load.window);
    let loads: Vec<Load> = LOADS.into_iter().filter(wanted).collect();
    let programs: Vec<&Program> = [rig.pinpost].into_iter().chain(rig.before).collect();
    let (nats, plain) = (programs.len(), programs.len() + 1);
    let one_core = rig.on_one_core()?;
    let cores = one_core.cores;
    // One series for each load and program, then NATS and the plain one.
    let mut series = vec![vec![vec![]; programs.len() + 2]; loads.len()];
    for round in 0..rounds {
        for (at, load) in loads.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}, {} under way", round + 1, load.verb.name(), load.window);
            for which in measure::order(round, programs.len()) {
                let sample = pinpost(programs[which], Dialect::Cluster, rig, cores, load)?;
                series[at][which].push(sample);
            }
            // It has one kind of message: what it did under the load before counts here, too.
            let sample = match loads[..at].iter().position(|before| before.window == load.window) {
                Some(before) => series[before][nats][round],
                None => of_nats(rig, cores, load)?,
            };
            series[at][nats].push(sample);
            series[at][plain].push(of_plain(rig, cores, load)?);
        }
    }
    drop(one_core);
    let names: Vec<&str> = programs.iter().map(|program| program.name()).chain(["nats", "plain"]).collect();
    for (load, samples) in loads.iter().zip(&series) {
        print(&names, load, samples);
    }
    Ok(())
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

fn of_nats(rig: &Rig<'_>, cores: Cores, load: &Load) -> io::Result<Sample> {
    let nats = Nats::start(cores)?;
    let mut crowd = nats.log_in(USERS, LOGINS_AT_ONCE)?;
    let [a, b] = nats.servers.each_ref().map(|server| [server.pid()]);
    let load = Load { verb: Verb::Cast, ..*load };
    crowds(rig, &mut crowd, Dialect::Nats, [&a, &b, &[], &[]], &load)
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
    let sample = measure(rig, groups, f64::from(each) * PAIRS as f64, || {
        traffic.exchange(crowd, load.window, each, USERS)
    })?;
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
    Ok(Sample { messages_per_second: messages / elapsed.as_secs_f64(), cost })
}

fn print(names: &[&str], load: &Load, samples: &[Vec<Sample>]) {
    println!();
    println!(
        "{} from node to node: {PAIRS} senders on one, {PAIRS} recipients on the other, {} under way each, \
         {PAYLOAD_BYTES} bytes, {} rounds in turn",
        load.verb.name(),
        load.window,
        samples[0].len()
    );
    println!("  CPU in us a message: both nodes, broker, Redis, all; AMQP messages for 1,000 of users");
    let of =
        |which: usize, figure: &dyn Fn(&Sample) -> f64| Spread::of(samples[which].iter().map(figure)).median;
    let all = |which| of(which, &|sample| sample.cost.all_us());
    let broker = |which| of(which, &|sample| sample.cost.cpu_us[2]);
    let row = |which: usize| {
        let rate = of(which, &|sample| sample.messages_per_second);
        let costs: Vec<_> = samples[which].iter().map(|sample| sample.cost).collect();
        let mut row = vec![names[which].to_owned(), grouped(rate)];
        row.extend(cost::cells(&costs));
        row
    };
    let rows: Vec<Vec<String>> = (0..names.len()).map(row).collect();
    let head = ["", "messages/s", "sender's", "recipient's", "broker", "Redis"];
    table(&[&head[..], &cost::TITLES].concat(), &rows);
    let (nats, plain) = (names.len() - 2, names.len() - 1);
    if nats > 1 {
        let nodes = |which| of(which, &|sample| sample.cost.cpu_us[0] + sample.cost.cpu_us[1]);
        let ratio = nodes(0) / nodes(1);
        println!(
            "  CPU pinpost / before: of both nodes {ratio:.3} ({}), of all {:.3}",
            verdict(ratio, BEFORE_RATIO_MAX, "1.05"),
            all(0) / all(1)
        );
    }
    let judged = |ratio: f64, bound: Option<f64>| match bound {
        Some(bound) => format!("{ratio:.3} ({})", verdict(ratio, bound, &format!("{bound:.3}"))),
        None => format!("{ratio:.3}"),
    };
    let ratio = all(0) / all(nats);
    println!("  CPU of all, pinpost / nats: {}", judged(ratio, load.nats_ratio_max));
    let ratio = all(0) / all(plain);
    println!(
        "  CPU of all, pinpost / plain: {}, of the broker alone {:.3}",
        judged(ratio, load.plain_ratio_max),
        broker(0) / broker(plain)
    );
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
