//! What a node weighs before anybody has come: size of the binary, time to
//! start, memory when empty.
//!
//! Both builds are measured the same way where both are given: a server
//! (`cargo build --release`) and the small node (the same with
//! `--no-default-features`). A start is from the `exec` to the `ready` line, and
//! memory is read right after it.

use std::fs;
use std::io;
use std::path::Path;

use crate::machine::Cores;
use crate::measure::{Spread, memory};
use crate::report::{grouped, megabytes, table, verdict};
use crate::server::Program;

/// Prints the size of each build, the time that it takes to start, and the memory that it needs then.
pub fn run(builds: &[&Program], cores: Cores) -> io::Result<()> {
    let mut rows = Vec::new();
    for build in builds {
        rows.extend(measure(build, cores)?);
    }
    println!();
    println!("size: binaries, and {STARTS} starts of an empty node each (medians)");
    table(&["", "", "", ""], &rows);
    Ok(())
}

fn measure(build: &Program, cores: Cores) -> io::Result<Vec<Vec<String>>> {
    let (path, name, bytes_max): (&Path, _, _) = match build {
        Program::Small(path) => (path, "small", SMALL_BYTES_MAX),
        Program::Pinpost(path) | Program::Before(path) => (path, "server", SERVER_BYTES_MAX),
        _ => return Err(io::Error::other("that is no build of pinpost")),
    };
    let bytes = fs::metadata(path)?.len() as f64;
    let mut starts = Vec::new();
    let mut memories = Vec::new();
    for _ in 0..STARTS {
        let server = build.start(cores, &[])?;
        starts.push(server.started_in.as_secs_f64() * 1e3);
        memories.push(memory(server.pid())?);
    }
    let start = Spread::of(starts);
    let pss = Spread::of(memories.iter().map(|memory| memory.pss as f64));
    let rss = Spread::of(memories.iter().map(|memory| memory.rss as f64));
    let row =
        |what: &str, figure: String, verdict: String| vec![name.to_owned(), what.to_owned(), figure, verdict];
    let milliseconds = format!("{:.1} ms, at best {:.1}", start.median, start.min);
    Ok(vec![
        row("binary", format!("{} bytes", grouped(bytes)), verdict(bytes, bytes_max, &grouped(bytes_max))),
        row("start to ready line", milliseconds, verdict(start.median, START_MS_MAX, "5 ms")),
        row("RSS when empty", megabytes(rss.median as u64), verdict(rss.median, EMPTY_BYTES_MAX, "3 MB")),
        row("PSS when empty", megabytes(pss.median as u64), String::new()),
    ])
}

const STARTS: usize = 20;

/// The bounds: bytes, milliseconds.
const SERVER_BYTES_MAX: f64 = 2_000_000.0;
const SMALL_BYTES_MAX: f64 = 700_000.0;
const START_MS_MAX: f64 = 5.0;
const EMPTY_BYTES_MAX: f64 = 3_000_000.0;
