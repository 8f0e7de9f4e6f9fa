//! What pinpost costs while nobody is there: size of the binary, time to start,
//! memory when empty. What users weigh is in `logins`.

use std::fs;
use std::io;
use std::path::Path;

use crate::machine::Cores;
use crate::measure::{Spread, memory};
use crate::report::{grouped, megabytes, table, verdict};
use crate::server::Program;

/// Prints the binary's size, the time it takes to start, and the memory it needs when empty.
pub fn empty(path: &Path, program: &Program, cores: Cores) -> io::Result<()> {
    let size = fs::metadata(path)?.len() as f64;
    let mut starts = Vec::new();
    let mut memories = Vec::new();
    for _ in 0..STARTS {
        let server = program.start(cores, &[])?;
        starts.push(server.started_in.as_secs_f64() * 1e3);
        memories.push(memory(server.pid())?);
    }
    let start = Spread::of(starts);
    let pss = Spread::of(memories.iter().map(|memory| memory.pss as f64));
    let rss = Spread::of(memories.iter().map(|memory| memory.rss as f64));
    println!();
    println!("footprint: binary, and {STARTS} starts of an empty node (medians)");
    let row = |what: &str, figure: String, verdict: String| vec![what.to_owned(), figure, verdict];
    let milliseconds = format!("{:.1} ms, at best {:.1}", start.median, start.min);
    let rows = [
        row("release binary", format!("{} bytes", grouped(size)), verdict(size, SIZE_MAX, "1,500,000")),
        row("spawn to ready line", milliseconds, verdict(start.median, START_MS_MAX, "10 ms")),
        row("PSS when empty", megabytes(pss.median as u64), verdict(pss.median, EMPTY_MAX, "3 MB")),
        row("RSS when empty", megabytes(rss.median as u64), verdict(rss.median, EMPTY_MAX, "3 MB")),
    ];
    table(&["", "", ""], &rows);
    Ok(())
}

const STARTS: usize = 20;

/// The bounds: bytes, milliseconds.
const SIZE_MAX: f64 = 1_500_000.0;
const START_MS_MAX: f64 = 10.0;
const EMPTY_MAX: f64 = 3_000_000.0;
