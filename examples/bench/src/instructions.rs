//! User-space instructions a message, counted by valgrind's callgrind: nearly the
//! same on a busy machine as on a quiet one, where times are not.
//!
//! A node runs twice for each load, with fewer and with more messages; the
//! difference, divided by that of the messages, has no start, login or end in it.
//! What the kernel does for a node is not counted. `between` does the same with two.

mod between;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::Verb;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::report::{grouped, table};
use crate::server::Program;

/// Counts them of a lone node and of two, and prints a table of each.
pub fn run(pinpost: &Path, cores: Cores) -> io::Result<()> {
    let program = Program::Counted(pinpost.to_owned(), report("%p"));
    alone(&program, cores)?;
    between::run(&program, cores)
}

fn alone(program: &Program, cores: Cores) -> io::Result<()> {
    let mut rows = Vec::new();
    for verb in [Verb::Send, Verb::Cast] {
        for (window, each) in WINDOWS {
            eprintln!("instructions: {}, {window} under way", verb.name());
            let fewer = count(program, cores, verb, window, each)?;
            let more = count(program, cores, verb, window, TIMES_MORE * each)?;
            let messages = f64::from((TIMES_MORE - 1) * each) * USERS as f64;
            let load = format!("{}, {window} under way", verb.name());
            rows.push(vec![load, a_message(fewer, more, messages)]);
        }
    }
    println!();
    println!("instructions of a node's own a message: {USERS} users in pairs, texts of 64 bytes");
    table(&["", "instructions"], &rows);
    Ok(())
}

/// The instructions of a node, from its start to its end, while each user sends so many messages.
fn count(program: &Program, cores: Cores, verb: Verb, window: u32, each: u32) -> io::Result<u64> {
    let server = program.start(cores, &[])?;
    let pid = server.pid();
    let dialect = program.dialect();
    let address = server.address(server.tcp)?;
    let mut crowd = Crowd::log_in(&[address], Transport::Tcp, dialect, USERS, USERS)?;
    Traffic::pairs(dialect, verb, USERS).exchange(&mut crowd, window, each, USERS)?;
    drop(crowd);
    // It is written when the node has drained.
    drop(server);
    counted(pid)
}

/// What so many messages more, and nothing else, have added for each of them.
fn a_message(fewer: u64, more: u64, messages: f64) -> String {
    grouped((more as f64 - fewer as f64) / messages)
}

/// All instructions of a process that has ended; its report is removed.
fn counted(pid: u32) -> io::Result<u64> {
    let path = report(&pid.to_string());
    let report = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    let total = report.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.ok_or_else(|| io::Error::other("callgrind's report has no summary"))
}

/// Where a process's report is; callgrind puts its id for `%p`.
fn report(pid: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pinpost-bench-{}-{pid}.callgrind", std::process::id()))
}

const USERS: usize = 20;
/// Messages that each user has under way, and sends in the shorter run.
const WINDOWS: [(u32, u32); 2] = [(1, 200), (16, 400)];
const TIMES_MORE: u32 = 5;
