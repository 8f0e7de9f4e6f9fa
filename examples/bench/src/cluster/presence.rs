//! What presence costs Redis: memory for each user, commands for each login and
//! logout, and commands of nodes on which nothing happens.
//!
//! Commands are counted with MONITOR, which tells those that clients send from
//! those that scripts call: a script counts as one command.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use redis::Connection;

use crate::client::Transport;
use crate::cluster::{Nodes, Rig};
use crate::crowd::Crowd;
use crate::dialect::Dialect;
use crate::report::{grouped, table, verdict};

/// Measures and prints all of it.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let users = if rig.quick { 2_000 } else { 10_000 };
    let mut redis = rig.services.connect()?;
    flush_all(&mut redis)?;
    eprintln!("presence: {users} users on two nodes");
    let nodes = Nodes::start(rig)?;
    let addresses = nodes.addresses()?;
    let log_in = |users| Crowd::log_in(&addresses, Transport::Tcp, Dialect::Cluster, users, LOGINS_AT_ONCE);

    let monitor = Monitor::start(rig)?;
    let idle_time = if rig.quick { IDLE_TIME_QUICK } else { IDLE_TIME };
    sleep(idle_time);
    let idle = monitor.stop()?;
    let empty = settled_memory(&mut redis)?;
    let keys = key_count(&mut redis)?;
    let crowd = log_in(users)?;
    let full = settled_memory(&mut redis)?;
    let logged_in = key_count(&mut redis)? - keys;
    if logged_in != users as u64 {
        return Err(io::Error::other(format!("Redis has {logged_in} of {users} users")));
    }
    drop(crowd);
    wait_for_keys(&mut redis, keys)?;

    let monitor = Monitor::start(rig)?;
    let crowd = log_in(COUNTED)?;
    let logins = monitor.stop()?;
    let monitor = Monitor::start(rig)?;
    drop(crowd);
    wait_for_keys(&mut redis, keys)?;
    let logouts = monitor.stop()?;

    println!();
    println!(
        "presence in Redis: {} users on two nodes, names of {} characters; a script counts as one command",
        grouped(users as f64),
        Dialect::Cluster.name(0).len()
    );
    let a_user = (full as f64 - empty as f64) / users as f64;
    let each = |counts: &Counts| counts.total(is_no_lease) / COUNTED as f64;
    let a_second = |counts: &Counts| counts.total(|_| true) / 2.0 / idle_time.as_secs_f64();
    let row = |what: &str, figure: String, verdict: String, what_it_is: String| {
        vec![what.to_owned(), figure, verdict, what_it_is]
    };
    let rows = [
        row("bytes a user online", grouped(a_user), verdict(a_user, USER_BYTES_AIM, "200"), String::new()),
        row("commands a login", format!("{:.2}", each(&logins)), String::new(), logins.of(is_no_lease)),
        row("commands a logout", format!("{:.2}", each(&logouts)), String::new(), logouts.of(is_no_lease)),
        row(
            "commands a second, idle node",
            format!("{:.2}", a_second(&idle)),
            verdict(a_second(&idle), IDLE_AIM, "1"),
            idle.of(|_| true),
        ),
    ];
    table(&["", "", "", ""], &rows);
    Ok(())
}

/// Counts commands until it is stopped.
struct Monitor {
    stream: TcpStream,
    reading: JoinHandle<io::Result<Counts>>,
}

impl Monitor {
    fn start(rig: &Rig<'_>) -> io::Result<Monitor> {
        let address = rig.services.redis.strip_prefix("redis://").expect("the script gives no other");
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"MONITOR\r\n")?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line != "+OK\r\n" {
            return Err(io::Error::other(format!("Redis answers MONITOR with {line:?}")));
        }
        let reading = thread::spawn(move || {
            let mut counts = Counts::default();
            for line in reader.lines() {
                counts.add(&line?);
            }
            Ok(counts)
        });
        Ok(Monitor { stream, reading })
    }

    /// What came up to now.
    fn stop(mut self) -> io::Result<Counts> {
        // Ends the stream when all that was before has been told.
        self.stream.write_all(b"QUIT\r\n")?;
        self.reading.join().expect("it does not panic")
    }
}

/// Commands by their names.
#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// A line of MONITOR, such as `+1700000000.123456 [0 127.0.0.1:5000] "HSET" "p:u1" "x" "1"`.
    fn add(&mut self, line: &str) {
        let Some((from, rest)) = line.split_once("] \"") else { return };
        let name = rest.split('"').next().unwrap_or_default().to_uppercase();
        let is_script = from.ends_with(" lua");
        let is_ours = OURS.contains(&&name[..]);
        if !is_script && !is_ours {
            let is_lease = rest.contains("\"{nodes}\"");
            let name = if is_lease { LEASE.to_owned() } else { name };
            *self.0.entry(name).or_default() += 1;
        }
    }

    fn total(&self, is_wanted: impl Fn(&str) -> bool) -> f64 {
        let wanted = self.0.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(_, count)| *count as f64).sum()
    }

    fn of(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        let wanted = self.0.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// Leases are renewed once a second, whatever users do.
fn is_no_lease(name: &str) -> bool {
    name != LEASE
}

/// Forgets everything.
pub fn flush_all(redis: &mut Connection) -> io::Result<()> {
    redis::cmd("FLUSHALL").query(redis).map_err(io::Error::other)
}

/// The users in Redis: all keys but those of the nodes.
pub fn key_count(redis: &mut Connection) -> io::Result<u64> {
    let mut pipe = redis::pipe();
    pipe.cmd("DBSIZE").cmd("EXISTS").arg("{nodes}").arg("{nodes}:m").arg("{nodes}:d");
    let (all, of_nodes): (u64, u64) = pipe.query(redis).map_err(io::Error::other)?;
    Ok(all - of_nodes)
}

fn wait_for_keys(redis: &mut Connection, count: u64) -> io::Result<()> {
    let start = Instant::now();
    while key_count(redis)? != count {
        if start.elapsed() > LEAVE_TIME_MAX {
            return Err(io::Error::other(format!("users are still in Redis after {LEAVE_TIME_MAX:?}")));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The memory that Redis has given out, once it stays the same for a while; buffers of
/// connections come and go.
pub fn settled_memory(redis: &mut Connection) -> io::Result<u64> {
    let start = Instant::now();
    let mut read = || -> io::Result<u64> {
        let info: String = redis::cmd("INFO").arg("memory").query(redis).map_err(io::Error::other)?;
        let field = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        field.and_then(|field| field.parse().ok()).ok_or_else(|| io::Error::other("INFO has no used_memory"))
    };
    let (mut last, mut same) = (read()?, 0);
    while same < SAME_READINGS && start.elapsed() < SETTLE_TIME_MAX {
        sleep(Duration::from_millis(100));
        let now = read()?;
        same = if now.abs_diff(last) < SAME_BYTES { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// What the bench itself sends.
const OURS: &[&str] = &["DBSIZE", "EXISTS", "INFO", "QUIT"];
/// What a command is called here that has the nodes' own keys.
const LEASE: &str = "lease";
const LOGINS_AT_ONCE: usize = 128;
/// Users whose logins and logouts are counted.
const COUNTED: usize = 1_000;
const IDLE_TIME: Duration = Duration::from_secs(5);
const IDLE_TIME_QUICK: Duration = Duration::from_secs(3);
const LEAVE_TIME_MAX: Duration = Duration::from_secs(30);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
const SAME_READINGS: u32 = 20;
const SAME_BYTES: u64 = 1_024;
const USER_BYTES_AIM: f64 = 200.0;
const IDLE_AIM: f64 = 1.0;
