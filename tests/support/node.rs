//! Servers under test: in this process, to read the counters, or as a child, to
//! read what the system says of it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{self, JoinHandle};

use pinpost::config::Config;
use pinpost::server::{Handle, Holdings, Server};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::until;

/// A server on a thread of its own; drained when dropped, and then no task of
/// it may have panicked.
pub struct Node {
    /// Where the line protocol is spoken.
    pub tcp: SocketAddr,
    /// Where WebSocket is spoken.
    pub http: SocketAddr,
    /// The counters.
    pub handle: Handle,
    name: String,
    thread: Option<JoinHandle<()>>,
}

/// Threads that panicked: the executor swallows the panic of a connection.
static PANICKED: Mutex<Vec<String>> = Mutex::new(vec![]);

impl Node {
    /// Starts a server on free ports, with these settings changed.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        remember_panics();
        let mut config = Config::ephemeral();
        for (name, value) in settings {
            config.set(name, value).expect("an allowed setting");
        }
        let server = Server::bind(&config).expect("loopback has free ports");
        let (tcp, handle) = (server.tcp_addrs()[0], server.handle());
        let http = server.http_addr().expect("a test node serves HTTP");
        let name = format!("node {tcp}");
        let builder = thread::Builder::new().name(name.clone());
        let thread = builder.spawn(|| smol::block_on(server.run())).expect("a thread for the server");
        Node { tcp, http, handle, name, thread: Some(thread) }
    }

    /// Waits until nothing is left of whoever was connected.
    pub fn settles(&self) {
        let zero = Holdings::default();
        until("all counters are back to zero", || self.handle.holdings() == zero);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.drain();
        let ended = self.thread.take().map(JoinHandle::join);
        let panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fine = matches!(ended, Some(Ok(()))) && !panicked.contains(&self.name);
        assert!(is_fine || thread::panicking(), "a task of the server panicked");
    }
}

fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let name = thread::current().name().unwrap_or_default().to_owned();
            PANICKED.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            before(info);
        }));
    });
}

/// `pinpost serve` as a child process; ended when dropped, and then nothing in
/// it may have panicked.
pub struct Child {
    /// Where the line protocol is spoken.
    pub tcp: SocketAddr,
    /// Where WebSocket is spoken.
    pub http: Option<SocketAddr>,
    process: std::process::Child,
}

impl Child {
    /// Starts a server on free ports, with these flags.
    pub fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinpost"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", "warn"]);
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Settings of whoever runs the tests are not the ones to test.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PINPOST_") {
                command.env_remove(name);
            }
        }
        let mut process = command.spawn().expect("cargo built the command");
        let stdout = process.stdout.as_mut().expect("asked for as a pipe");
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready).expect("the server says that it is ready");
        let field =
            |key: &str| ready.split_whitespace().find_map(|field| field.strip_prefix(key)?.parse().ok());
        let tcp = field("tcp=").unwrap_or_else(|| panic!("no address in {ready:?}"));
        Child { tcp, http: field("http="), process }
    }

    /// Memory that the server allocated and touched, in bytes.
    pub fn memory(&self) -> usize {
        let rollup = self.proc("smaps_rollup");
        let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.strip_suffix("kB"));
        kib.expect("the kernel tells it").trim().parse::<usize>().expect("a number") * 1024
    }

    /// How many files the server has open.
    pub fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("the server lives").count()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).expect("the server lives")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It can't be another process's id: the child has not been waited for.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let mut said = String::new();
        // Ends with the process, whose drain has its own deadline.
        let _ = self.process.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        let status = self.process.wait();
        let is_fine = status.is_ok_and(|status| status.success()) && !said.contains("panicked");
        assert!(is_fine || thread::panicking(), "the server did not end well: {said}");
    }
}
