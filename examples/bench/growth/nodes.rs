//! Clusters of more and more nodes: does a message from node to node cost more?
//!
//! CPU time of all nodes, the broker and Redis together. The same users, spread
//! over 2, 3 or 5 nodes so that each node talks to each other one: the same total
//! load on more links, so fewer messages on each. What the broker carries are
//! batches, and a batch of few messages costs what one of many does; therefore the
//! other load has the same number of users, and so of messages under way, on each
//! link. All of it runs on one core, the load generator on the other.

use std::io;
use std::net::SocketAddr;

use crate::client::Transport;
use crate::cluster::{Nodes, Rig};
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::growth::flat;
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::Traffic;
use crate::measure::{self, Spread};
use crate::report::{grouped, table};
use crate::server::Server;

/// Measures all sizes in turn and prints them.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let rounds = if rig.quick { 1 } else { 3 };
    let loads = if rig.quick { &LOADS[..2] } else { &LOADS[..] };
    let sizes = if rig.quick { &SIZES_QUICK[..] } else { &SIZES[..] };
    let one_core = rig.on_one_core()?;
    // One series for each load and size.
    let mut series = vec![vec![vec![]; sizes.len()]; loads.len()];
    for round in 0..rounds {
        for at in measure::order(round, sizes.len()) {
            eprintln!("growth, round {} of {rounds}: {} nodes", round + 1, sizes[at]);
            let nodes = Nodes::many(rig, one_core.cores, sizes[at])?;
            for (load, series) in loads.iter().zip(&mut series) {
                series[at].push(measure(rig, &nodes, load)?);
            }
        }
    }
    for (load, series) in loads.iter().zip(&series) {
        print(load, sizes, series);
    }
    Ok(())
}

/// Who sends how much.
struct Load {
    /// Pairs of users on each pair of nodes; otherwise as many as there are with most nodes.
    pairs: Option<usize>,
    /// Messages that each user has under way.
    window: u32,
}

/// What one round found with so many nodes.
#[derive(Clone, Copy)]
struct Sample {
    /// CPU time a message: all nodes, the broker, Redis; all.
    cpu_us: [f64; 4],
    /// Messages that the broker took for each of users.
    published: f64,
}

impl Load {
    /// How many users there are on so many nodes, and where.
    fn users(&self, nodes: &[SocketAddr]) -> (usize, Vec<SocketAddr>) {
        // A pair of users to each pair of nodes, then again.
        let mut homes = vec![];
        for (at, a) in nodes.iter().enumerate() {
            homes.extend(nodes[at + 1..].iter().flat_map(|b| [*a, *b]));
        }
        let users = self.pairs.map_or(USERS, |pairs| pairs * homes.len());
        (users, homes)
    }
}

fn measure(rig: &Rig<'_>, nodes: &[Server], load: &Load) -> io::Result<Sample> {
    let mut addresses = vec![];
    for node in nodes {
        addresses.push(node.address(node.tcp)?);
    }
    let (users, homes) = load.users(&addresses);
    let dialect = Dialect::Cluster;
    let mut crowd = Crowd::log_in(&homes, Transport::Tcp, dialect, users, LOGINS_AT_ONCE)?;
    let mut pairs = Traffic::pairs(dialect, Verb::Send, users);
    let messages = if rig.quick { MESSAGES_QUICK } else { MESSAGES } * load.window;
    let each = messages / users as u32;
    pairs.exchange(&mut crowd, load.window, each / 10, users)?;
    let cpu = || -> io::Result<[f64; 3]> {
        let seconds = |pid| measure::cpu(pid).map(|time| time.as_secs_f64());
        let mut of_nodes = 0.0;
        for node in nodes {
            of_nodes += seconds(node.pid())?;
        }
        Ok([of_nodes, seconds(rig.services.broker_pid)?, seconds(rig.services.redis_pid)?])
    };
    let (published, before) = (rig.services.published()?, cpu()?);
    pairs.exchange(&mut crowd, load.window, each, users)?;
    let after = cpu()?;
    let messages = f64::from(each) * users as f64;
    let published = (rig.services.published()? - published) as f64 / messages;
    crowd.expect_silence()?;
    let mut cpu_us = [0.0; 4];
    for which in 0..3 {
        cpu_us[which] = (after[which] - before[which]) * 1e6 / messages;
        cpu_us[3] += cpu_us[which];
    }
    Ok(Sample { cpu_us, published })
}

fn print(load: &Load, sizes: &[usize], series: &[Vec<Sample>]) {
    let who = match load.pairs {
        None => format!("the same {USERS} users on all"),
        Some(pairs) => format!("{pairs} pairs of users on each pair of nodes"),
    };
    println!();
    println!(
        "growth, nodes: {who}, SEND, {} under way each, {PAYLOAD_BYTES} bytes, {} rounds in turn",
        load.window,
        series[0].len()
    );
    println!("  CPU in us a message: all nodes, broker, Redis, all; AMQP messages for 1,000 of users");
    let of = |at: usize, figure: &dyn Fn(&Sample) -> f64| Spread::of(series[at].iter().map(figure));
    let all = |at| of(at, &|sample| sample.cpu_us[3]);
    let row = |at: usize| {
        let mut row = vec![grouped(sizes[at] as f64)];
        row.extend((0..3).map(|which| format!("{:.2}", of(at, &|sample| sample.cpu_us[which]).median)));
        row.push(format!("{:.2}", all(at).median));
        row.push(format!("{:.2} .. {:.2}", all(at).min, all(at).max));
        row.push(format!("{:.1}", of(at, &|sample| sample.published).median * 1e3));
        row
    };
    let rows: Vec<Vec<String>> = (0..sizes.len()).map(row).collect();
    table(&["nodes", "all nodes", "broker", "Redis", "all", "min .. max", "AMQP"], &rows);
    let last = sizes.len() - 1;
    let what = format!("CPU of all, {} nodes / {}", sizes[last], sizes[0]);
    println!("{}", flat(&what, all(last).median / all(0).median));
}

const SIZES: [usize; 3] = [2, 3, 5];
const SIZES_QUICK: [usize; 2] = [2, 5];
/// So many users that each pair of nodes has as many of them, whatever the size.
const USERS: usize = 240;
const LOGINS_AT_ONCE: usize = 128;
/// Messages of a round, with one under way each.
const MESSAGES: u32 = 60_000;
const MESSAGES_QUICK: u32 = 12_000;
const LOADS: [Load; 4] = [
    Load { pairs: None, window: 1 },
    Load { pairs: Some(12), window: 1 },
    Load { pairs: None, window: 16 },
    Load { pairs: Some(12), window: 16 },
];
