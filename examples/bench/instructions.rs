//! User-space instructions a message, counted by valgrind's callgrind: nearly the
//! same on a busy machine as on a quiet one, where times are not.
//!
//! A node runs twice for each load, with fewer and with more messages; the
//! difference, divided by that of the messages, has no start, login or end in it.
//! What the kernel does for a node is not counted.

use std::fs;
use std::io;
use std::path::Path;

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::Verb;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::report::{grouped, table};
use crate::server::Program;

/// Counts them for each load, and prints a table.
pub fn run(pinpost: &Path, cores: Cores) -> io::Result<()> {
    let mut rows = Vec::new();
    for verb in [Verb::Send, Verb::Cast] {
        for (window, each) in WINDOWS {
            eprintln!("instructions: {}, {window} under way", verb.name());
            let fewer = count(pinpost, cores, verb, window, each)?;
            let more = count(pinpost, cores, verb, window, TIMES_MORE * each)?;
            let messages = f64::from((TIMES_MORE - 1) * each) * USERS as f64;
            let load = format!("{}, {window} under way", verb.name());
            rows.push(vec![load, grouped((more - fewer) as f64 / messages)]);
        }
    }
    println!();
    println!("instructions of a node's own a message: {USERS} users in pairs, texts of 64 bytes");
    table(&["", "instructions"], &rows);
    Ok(())
}

/// The instructions of a node, from its start to its end, while each user sends so many messages.
fn count(pinpost: &Path, cores: Cores, verb: Verb, window: u32, each: u32) -> io::Result<u64> {
    let out = std::env::temp_dir().join(format!("pinpost-bench-{}.callgrind", std::process::id()));
    let program = Program::Counted(pinpost.to_owned(), out.clone());
    let server = program.start(cores, &[])?;
    let dialect = program.dialect();
    let address = server.address(server.tcp)?;
    let mut crowd = Crowd::log_in(&[address], Transport::Tcp, dialect, USERS, USERS)?;
    Traffic::pairs(dialect, verb, USERS).exchange(&mut crowd, window, each, USERS)?;
    drop(crowd);
    // It is written when the node has drained.
    drop(server);
    let report = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    let total = report.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.ok_or_else(|| io::Error::other("callgrind's report has no summary"))
}

const USERS: usize = 20;
/// Messages that each user has under way, and sends in the shorter run.
const WINDOWS: [(u32, u32); 2] = [(1, 200), (16, 400)];
const TIMES_MORE: u32 = 5;
