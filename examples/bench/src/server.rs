//! A server under test as a child process: pinpost, the bare relay, or a peer,
//! which `peer` knows how to start.
//!
//! The first two are started the same way, on free loopback ports that their
//! `ready` line tells, with the settings a user gets by default. Dropping a
//! `Server` ends the child: SIGTERM first, and the hard way when that does not help.
//! `launch` sees to it that the child ends where nothing is dropped.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Transport;
use crate::dialect::{Dialect, Verb};
use crate::launch;
use crate::machine::Cores;
use crate::peer::Peer;

/// A server that can be started.
pub enum Program {
    /// The pinpost command at this path.
    Pinpost(PathBuf),
    /// Another build of it, which the first is compared with.
    Before(PathBuf),
    /// The small node: no HTTP, no cluster.
    Small(PathBuf),
    /// The pinpost command under callgrind, which writes what it counted to the second path, with the
    /// process's id for `%p`.
    Counted(PathBuf, PathBuf),
    /// This program itself, as the relay that answers nothing but a login.
    Relay,
    /// The same, answering every message.
    RelayAnswering,
    Peer(Peer),
}

impl Program {
    pub fn name(&self) -> &'static str {
        match self {
            Program::Pinpost(_) => "pinpost",
            Program::Before(_) => "before",
            Program::Small(_) => "small",
            Program::Counted(..) => "pinpost under callgrind",
            Program::Relay => "relay",
            Program::RelayAnswering => "relay, answering",
            Program::Peer(peer) => peer.name(),
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Program::Pinpost(_) | Program::Before(_) | Program::Small(_) | Program::Counted(..) => {
                Dialect::Pinpost
            }
            Program::Relay | Program::RelayAnswering => Dialect::Relay,
            Program::Peer(peer) => peer.dialect(),
        }
    }

    /// Whether messages can be sent to it this way.
    pub fn knows(&self, verb: Verb) -> bool {
        match self {
            Program::Pinpost(_) | Program::Before(_) | Program::Small(_) | Program::Counted(..) => true,
            Program::Relay => verb == Verb::Cast,
            Program::RelayAnswering => verb == Verb::Send,
            Program::Peer(peer) => verb == peer.verb(),
        }
    }

    /// Whether its users can come as WebSockets.
    pub fn knows_websocket(&self) -> bool {
        matches!(self, Program::Pinpost(_) | Program::Before(_))
    }

    /// Whether it is held to every word: whoever wrote it has this bench to answer for it.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Program::Peer(_))
    }

    /// Starts it on the server's core and waits for its `ready` line. `flags` are for pinpost alone.
    pub fn start(&self, cores: Cores, flags: &[&str]) -> io::Result<Server> {
        let mut command = match self {
            Program::Pinpost(path) | Program::Before(path) | Program::Small(path) => {
                let http = if let Program::Small(_) = self { "off" } else { "127.0.0.1:0" };
                let mut command = launch::command(path)?;
                command.args(SERVE).args(["--http", http]).args(flags);
                command
            }
            Program::Counted(path, report) => {
                let mut command = launch::command("valgrind")?;
                let report = format!("--callgrind-out-file={}", report.display());
                command.args(["--quiet", "--tool=callgrind", &report]).arg(path).args(SERVE);
                command.args(["--http", "off"]).args(flags);
                command
            }
            Program::Relay | Program::RelayAnswering => {
                let mut command = launch::command(std::env::current_exe()?)?;
                command.arg("relay").args(matches!(self, Program::RelayAnswering).then_some("--ack"));
                command
            }
            Program::Peer(peer) => return peer.start(cores),
        };
        // Settings of whoever runs the bench are not the ones to measure.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PINPOST_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Server::ready(cores.on_server_core(|| command.spawn())?)
    }
}

/// A running server.
pub struct Server {
    child: Child,
    /// Kept open: a server that writes to a closed pipe would die of it. A peer has none.
    stdout: Option<ChildStdout>,
    folder: Option<PathBuf>,
    /// Where the line protocol is spoken.
    pub tcp: Option<SocketAddr>,
    /// Where WebSocket is spoken, if at all.
    pub http: Option<SocketAddr>,
    /// From the start of the program to its `ready` line.
    pub started_in: Duration,
}

impl Server {
    /// A server of somebody else, which is being started on this address, and has this folder for itself.
    pub fn of_peer(child: Child, address: SocketAddr, folder: Option<PathBuf>) -> Server {
        Server { child, stdout: None, folder, tcp: Some(address), http: None, started_in: Duration::ZERO }
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of one of its listeners, or an error if it has none.
    pub fn address(&self, listener: Option<SocketAddr>) -> io::Result<SocketAddr> {
        listener.ok_or_else(|| io::Error::other(format!("process {} has no such listener", self.pid())))
    }

    /// Where users who come this way connect to, or an error if they can't.
    pub fn address_for(&self, transport: Transport) -> io::Result<SocketAddr> {
        self.address(match transport {
            Transport::Tcp => self.tcp,
            Transport::WebSocket => self.http,
        })
    }

    fn ready(mut child: Child) -> io::Result<Server> {
        let stdout = child.stdout.take();
        let mut server =
            Server { child, stdout, folder: None, tcp: None, http: None, started_in: Duration::ZERO };
        let said = server.two_lines()?;
        let mut lines = said.lines();
        server.started_in = lines.next().and_then(launch::since).unwrap_or_default();
        let line = lines.next().unwrap_or_default();
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

    /// What is said until it is ready: when it was launched, and the `ready` line.
    fn two_lines(&mut self) -> io::Result<String> {
        let stdout = self.stdout.as_mut().expect("it was asked for as a pipe");
        let start = Instant::now();
        let mut said = Vec::new();
        while memchr::memchr_iter(b'\n', &said).count() < 2 {
            let left = READY_MAX.saturating_sub(start.elapsed());
            let left = Timespec::try_from(left).expect("a few seconds fit");
            if poll(&mut [PollFd::new(&*stdout, PollFlags::IN)], Some(&left))? == 0 {
                return Err(io::Error::other(format!("the server was not ready after {READY_MAX:?}")));
            }
            let mut piece = [0; 256];
            match stdout.read(&mut piece)? {
                0 => {
                    let error =
                        "the server ended before its ready line (`cargo build --release` builds pinpost)";
                    return Err(io::Error::other(error));
                }
                length => said.extend_from_slice(&piece[..length]),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stdout.is_none() {
            // A peer has nothing to keep.
            let _ = self.child.kill();
            let _ = self.child.wait();
            if let Some(folder) = &self.folder {
                let _ = std::fs::remove_dir_all(folder);
            }
            return;
        }
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

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--log", "warn"];
const READY_MAX: Duration = Duration::from_secs(10);
const DRAIN_MAX: Duration = Duration::from_secs(15);
