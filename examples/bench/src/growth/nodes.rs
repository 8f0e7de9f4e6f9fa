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
use crate::cluster::cost::{self, Cost};
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

fn measure(rig: &Rig<'_>, nodes: &[Server], load: &Load) -> io::Result<Cost<GROUPS>> {
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
    let of_nodes: Vec<u32> = nodes.iter().map(Server::pid).collect();
    let services = &rig.services;
    let groups = [&of_nodes[..], &[services.broker_pid], &[services.redis_pid]];
    let cost = Cost::measure(rig, groups, f64::from(each) * users as f64, || {
        pairs.exchange(&mut crowd, load.window, each, users)
    })?;
    crowd.expect_silence()?;
    Ok(cost)
}

fn print(load: &Load, sizes: &[usize], series: &[Vec<Cost<GROUPS>>]) {
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
    let row = |(size, costs): (&usize, &Vec<Cost<GROUPS>>)| {
        let mut row = vec![grouped(*size as f64)];
        row.extend(cost::cells(costs));
        row
    };
    let rows: Vec<Vec<String>> = sizes.iter().zip(series).map(row).collect();
    table(&[&["nodes", "all nodes", "broker", "Redis"][..], &cost::TITLES].concat(), &rows);
    let all = |at: usize| Spread::of(series[at].iter().map(Cost::all_us)).median;
    let last = sizes.len() - 1;
    let what = format!("CPU of all, {} nodes / {}", sizes[last], sizes[0]);
    println!("{}", flat(&what, all(last) / all(0)));
}

/// All nodes, the broker, Redis.
const GROUPS: usize = 3;
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
