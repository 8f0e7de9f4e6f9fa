//! What an acknowledged message takes beside a plain one: CPU time of the
//! server, or of both nodes.
//!
//! The same load as in the other parts, with recipients who logged in with `ack`
//! and acknowledge each message: the node keeps it until then, and reads one
//! more line. Rounds alternate; medians are compared.

use std::io;

use crate::cluster::{Rig, forward};
use crate::compare::cpu_of_pairs;
use crate::dialect::Dialect;
use crate::measure::Spread;
use crate::report::table;

/// Measures and prints all of it.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let rounds = if rig.quick { 1 } else { 5 };
    let shorter = if rig.quick { 8 } else { 1 };
    // For each window: of one node plain and acknowledged, of two nodes the same.
    let mut series = vec![[vec![], vec![], vec![], vec![]]; WINDOWS.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}: acknowledged messages", round + 1);
        for (which, dialect) in DIALECTS.into_iter().enumerate() {
            for (series, (window, each_of_one, each)) in series.iter_mut().zip(WINDOWS) {
                let each_of_one = each_of_one / shorter;
                series[which].push(cpu_of_pairs(rig.pinpost, dialect, rig.cores, window, each_of_one)?);
                // It is shortened there.
                let load = forward::Load { window, each, ..forward::SEND };
                let sample = forward::pinpost(rig.pinpost, dialect, rig, rig.cores, &load)?;
                let [a, b, ..] = sample.cost.cpu_us;
                series[2 + which].push(a + b);
            }
        }
    }
    println!();
    println!("acknowledged messages: 200 users on one node, 200 pairs on two, {rounds} rounds in turn");
    println!("  CPU in us a message, of the node or of both");
    let mut rows = Vec::new();
    for (at, place) in ["one node", "two nodes"].into_iter().enumerate() {
        for (series, (window, ..)) in series.iter().zip(WINDOWS) {
            let [plain, acked] =
                [0, 1].map(|which| Spread::of(series[2 * at + which].iter().copied()).median);
            rows.push(vec![
                format!("{place}, {window} under way"),
                format!("{plain:.2}"),
                format!("{acked:.2}"),
                format!("{:.2}", acked / plain),
            ]);
        }
    }
    table(&["", "plain", "acknowledged", "ratio"], &rows);
    Ok(())
}

const DIALECTS: [Dialect; 2] = [Dialect::Pinpost, Dialect::Acks];
/// Messages under way; messages of each user in a round on one node, and of each sender on two.
const WINDOWS: [(u32, u32, u32); 2] = [(1, 1_000, 1_000), (16, 5_000, 4_000)];
