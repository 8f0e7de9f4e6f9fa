//! What pinpost costs while it does nothing: memory for each connected user.
//!
//! Memory a user is the difference between a full and an empty server, divided
//! by the users: nothing is estimated. It is read once the server has settled.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Transport;
use crate::crowd::Crowd;
use crate::load::Pairs;
use crate::machine::Cores;
use crate::measure::{Memory, open_files, settled_memory};
use crate::report::{grouped, megabytes, table, verdict};
use crate::server::Program;

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

    let mut pairs = Pairs::new(program.dialect(), crowd.len());
    pairs.exchange(&mut crowd, 1, 1, AT_ONCE_MAX)?;
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

const AT_ONCE_MAX: usize = 128;
const LEAVE_MAX: Duration = Duration::from_secs(30);

/// The bounds, in bytes.
const USER_BYTES_MAX_TCP: f64 = 1_024.0;
const USER_BYTES_MAX_WEBSOCKET: f64 = 4_096.0;
