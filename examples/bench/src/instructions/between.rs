//! The same between two nodes of one cluster, both counted: senders on one,
//! recipients on the other.
//!
//! A batch has in it what there is when a node's bus comes round, and leases are
//! renewed by the clock. So these figures depend a little on how fast everything
//! else is, and repeat to some percent, where those of a lone node do to a per mille.

use std::io;

use crate::client::Transport;
use crate::cluster::{Nodes, Rig};
use crate::crowd::Crowd;
use crate::dialect::Verb;
use crate::instructions::{a_message, counted};
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::report::table;
use crate::server::Program;

/// Counts them for each verb, and prints a table.
pub fn run(program: &Program, cores: Cores) -> io::Result<()> {
    let rig = Rig::start(program, None, cores, false)?;
    let mut rows = Vec::new();
    for verb in [Verb::Send, Verb::Cast] {
        eprintln!("instructions between nodes: {}, {WINDOW} under way", verb.name());
        let fewer = count(&rig, verb, EACH)?;
        let more = count(&rig, verb, TIMES_MORE * EACH)?;
        let messages = f64::from((TIMES_MORE - 1) * EACH) * PAIRS as f64;
        let mut row = vec![format!("{}, {WINDOW} under way", verb.name())];
        row.extend((0..2).map(|node| a_message(fewer[node], more[node], messages)));
        rows.push(row);
    }
    println!();
    println!(
        "instructions of two nodes' own a message: {PAIRS} senders on one, {PAIRS} recipients on the other, \
         texts of {PAYLOAD_BYTES} bytes"
    );
    table(&["", "sender's node", "recipient's node"], &rows);
    Ok(())
}

/// The instructions of the senders' node and of the recipients', from their start to their end, while each
/// sender sends so many messages.
fn count(rig: &Rig<'_>, verb: Verb, each: u32) -> io::Result<[u64; 2]> {
    let nodes = Nodes::of(rig.pinpost, rig, rig.cores, &[])?;
    let pids = [nodes.a.pid(), nodes.b.pid()];
    let dialect = rig.pinpost.dialect();
    let mut crowd = Crowd::log_in(&nodes.addresses()?, Transport::Tcp, dialect, 2 * PAIRS, PAIRS)?;
    Traffic::one_way(dialect, verb, 2 * PAIRS).exchange(&mut crowd, WINDOW, each, 2 * PAIRS)?;
    drop(crowd);
    // It is written when they have drained.
    drop(nodes);
    Ok([counted(pids[0])?, counted(pids[1])?])
}

const PAIRS: usize = 20;
/// Messages that each sender has under way.
const WINDOW: u32 = 16;
/// Messages of each sender in the shorter run.
const EACH: u32 = 600;
const TIMES_MORE: u32 = 5;
