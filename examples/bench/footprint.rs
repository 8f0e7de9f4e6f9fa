//! What pinpost costs while it does nothing: size of the binary, time to start,
//! memory when empty and for each connected user.
//!
//! Memory a user is the difference between a full and an empty server, divided
//! by the users: nothing is estimated. It is read once the server has settled.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::dialect::Verb;
use crate::load::closed::Traffic;
use crate::machine::Cores;
use crate::measure::{Memory, Spread, memory, open_files, settled_memory};
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

/// Logs in many users and prints the memory that each takes, through to the end of the last one.
pub fn users(program: &Program, cores: Cores, transport: Transport, count: usize) -> io::Result<()> {
    let limit = (count + count / 10).to_string();
    let server = program.start(cores, &["--connections", &limit])?;
    let pid = server.pid();
    let address = server.address(match transport {
        Transport::Tcp => server.tcp,
        Transport::WebSocket => server.http,
    })?;
    let empty = settled_memory(pid)?;
    let files = open_files(pid)?;

    eprintln!("{count} users over {}", transport.name());
    let clock = Instant::now();
    let mut crowd = Crowd::log_in(&[address], transport, program.dialect(), count, AT_ONCE_MAX)?;
    let logins_per_second = count as f64 / clock.elapsed().as_secs_f64();
    let idle = settled_memory(pid)?;

    let mut traffic = Traffic::pairs(program.dialect(), Verb::Send, crowd.len());
    traffic.exchange(&mut crowd, 1, 1, AT_ONCE_MAX)?;
    let used = settled_memory(pid)?;

    drop(crowd);
    wait_for_files(pid, files)?;
    let left = settled_memory(pid)?;

    let bound = match transport {
        Transport::Tcp => USER_BYTES_MAX_TCP,
        Transport::WebSocket => USER_BYTES_MAX_WEBSOCKET,
    };
    println!();
    println!(
        "users: {} over {}, at most {AT_ONCE_MAX} logins at a time: {} logins/s",
        grouped(count as f64),
        transport.name(),
        grouped(logins_per_second)
    );
    let each = |now: Memory| (now.pss as f64 - empty.pss as f64) / count as f64;
    let row = |what: &str, now: Memory, verdict: String| {
        vec![what.to_owned(), megabytes(now.pss), grouped(each(now)), verdict]
    };
    let rows = [
        row("empty", empty, String::new()),
        row("all logged in", idle, verdict(each(idle), bound, &grouped(bound))),
        row("after one message each", used, String::new()),
        row("all gone", left, String::new()),
    ];
    table(&["", "PSS", "bytes a user", ""], &rows);
    Ok(())
}

/// Waits until the server has closed the connections of those who left.
fn wait_for_files(pid: u32, files: usize) -> io::Result<()> {
    let start = Instant::now();
    while open_files(pid)? > files {
        if start.elapsed() > LEAVE_MAX {
            return Err(io::Error::other(format!(
                "connections are still open {LEAVE_MAX:?} after their users left"
            )));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

const STARTS: usize = 20;
const AT_ONCE_MAX: usize = 128;
const LEAVE_MAX: Duration = Duration::from_secs(30);

/// The bounds: bytes, milliseconds.
const SIZE_MAX: f64 = 1_500_000.0;
const START_MS_MAX: f64 = 10.0;
const EMPTY_MAX: f64 = 3_000_000.0;
const USER_BYTES_MAX_TCP: f64 = 1_024.0;
const USER_BYTES_MAX_WEBSOCKET: f64 = 4_096.0;
