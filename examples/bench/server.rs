//! A server under test as a child process: pinpost or the bare relay.
//!
//! Both are started the same way, on free loopback ports that their `ready`
//! line tells, with the settings a user gets by default. Dropping a `Server`
//! ends the child: SIGTERM first, and the hard way when that does not help.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::dialect::Dialect;
use crate::machine::Cores;

/// A server that can be started.
pub enum Program {
    /// The pinpost command at this path.
    Pinpost(PathBuf),
    /// Another build of it, which the first is compared with.
    Before(PathBuf),
    /// The small node: no HTTP, no cluster.
    Small(PathBuf),
    /// This program itself, as the relay.
    Relay,
}

impl Program {
    pub fn name(&self) -> &'static str {
        match self {
            Program::Pinpost(_) => "pinpost",
            Program::Before(_) => "before",
            Program::Small(_) => "small",
            Program::Relay => "relay",
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Program::Pinpost(_) | Program::Before(_) | Program::Small(_) => Dialect::Pinpost,
            Program::Relay => Dialect::Relay,
        }
    }

    /// Starts it on the server's core and waits for its `ready` line. `flags` are for pinpost alone.
    pub fn start(&self, cores: Cores, flags: &[&str]) -> io::Result<Server> {
        let mut command = match self {
            Program::Pinpost(path) | Program::Before(path) | Program::Small(path) => {
                let http = if let Program::Small(_) = self { "off" } else { "127.0.0.1:0" };
                let mut command = Command::new(path);
                command
                    .args(["serve", "--listen", "127.0.0.1:0", "--http", http, "--log", "warn"])
                    .args(flags);
                command
            }
            Program::Relay => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["relay", "--ack"]);
                command
            }
        };
        // Settings of whoever runs the bench are not the ones to measure.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PINPOST_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let start = Instant::now();
        let child = cores.on_server_core(|| {
            command.spawn().map_err(|error| {
                let program = command.get_program().to_string_lossy();
                io::Error::other(format!("{program}: {error} (`cargo build --release` builds pinpost)"))
            })
        })?;
        Server::ready(child, start)
    }
}

/// A running server.
pub struct Server {
    child: Child,
    /// Kept open: a server that writes to a closed pipe would die of it.
    stdout: ChildStdout,
    /// Where the line protocol is spoken.
    pub tcp: Option<SocketAddr>,
    /// Where WebSocket is spoken, if at all.
    pub http: Option<SocketAddr>,
    /// From spawn to the `ready` line.
    pub started_in: Duration,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of one of its listeners, or an error if it has none.
    pub fn address(&self, listener: Option<SocketAddr>) -> io::Result<SocketAddr> {
        listener.ok_or_else(|| io::Error::other(format!("process {} has no such listener", self.pid())))
    }

    fn ready(mut child: Child, start: Instant) -> io::Result<Server> {
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let mut server = Server { child, stdout, tcp: None, http: None, started_in: Duration::ZERO };
        let line = server.first_line(start)?;
        server.started_in = start.elapsed();
        let fields = line.strip_prefix("ready ").map(|rest| rest.split(' '));
        for (key, value) in fields.into_iter().flatten().filter_map(|field| field.split_once('=')) {
            match key {
                "tcp" => server.tcp = value.parse().ok(),
                "http" => server.http = value.parse().ok(),
                _ => (),
            }
        }
        match server.tcp {
            Some(_) => Ok(server),
            None => Err(io::Error::other(format!("no ready line with a tcp address: {line:?}"))),
        }
    }

    fn first_line(&mut self, start: Instant) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.contains(&b'\n') {
            let left = READY_MAX.saturating_sub(start.elapsed());
            let left = Timespec::try_from(left).expect("a few seconds fit");
            if poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&left))? == 0 {
                return Err(io::Error::other(format!("the server was not ready after {READY_MAX:?}")));
            }
            let mut piece = [0; 256];
            match self.stdout.read(&mut piece)? {
                0 => return Err(io::Error::other("the server ended before its ready line")),
                length => line.extend_from_slice(&piece[..length]),
            }
        }
        Ok(String::from_utf8_lossy(&line).lines().next().unwrap_or_default().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if ended(&mut self.child) {
            return;
        }
        // It cannot be another process's id: the child has not been waited for.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < DRAIN_MAX {
            if ended(&mut self.child) {
                return;
            }
            sleep(Duration::from_millis(2));
        }
        eprintln!("bench: process {} did not end within {DRAIN_MAX:?} of SIGTERM, killing it", self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const READY_MAX: Duration = Duration::from_secs(10);
const DRAIN_MAX: Duration = Duration::from_secs(15);
