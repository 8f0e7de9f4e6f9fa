//! A node as a process: the real binary, which is killed, frozen and started again.
//!
//! What it logs goes into the run's log line by line, with the time of each, so that a
//! failure can be read beside what the nodes thought of it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::program::command;
use crate::rig::until_in;

/// How long a node may take to start: it waits for the services, 3 s at most.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// What every node is told, besides where everything is.
const SETTINGS: &[&str] = &["--http", "off", "--log", "debug", "--mailbox-ttl", "1h"];

/// How many messages a mailbox holds.
pub const MAILBOX_MAX: usize = 100_000;

/// How long a node may take to drain.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// A running node; killed when dropped.
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
    err: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a node, and waits until it is ready. `log` is given each line that it logs.
    pub fn start(name: &str, redis: &str, amqp: &str, log: impl FnMut(String) + Send + 'static) -> Self {
        let mut serve = command(&["serve", "--listen", "127.0.0.1:0"]);
        serve.args(["--node", name, "--redis", redis, "--amqp", amqp]).args(SETTINGS);
        serve.args(["--mailbox", &MAILBOX_MAX.to_string()]);
        serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = serve.spawn().expect("the binary runs");
        let err = child.stderr.take().expect("it is piped");
        let err = thread::spawn(move || each_line(err, log));
        let (tx, rx) = channel();
        let out = child.stdout.take().expect("it is piped");
        // Fails only for a line that nobody waits for.
        thread::spawn(move || each_line(out, move |line| drop(tx.send(line))));
        let addr = addr_of(&rx);
        Process { child, addr, err: Some(err) }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our child");
    }

    /// Kills it.
    pub fn kill(mut self) {
        assert_eq!(self.child.try_wait().expect("it is our child"), None, "it ended by itself");
        self.signal(Signal::KILL);
        self.child.wait().expect("it is our child");
    }

    /// Drains it, and waits for its end.
    pub fn drain(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut status = None;
        until_in(END_TIME_MAX, "the node drains", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(err) = self.err.take() {
            let _ = err.join();
        }
    }
}

fn addr_of(out: &Receiver<String>) -> SocketAddr {
    let ready = out.recv_timeout(START_TIME_MAX).expect("a node says when it is ready");
    let addr = ready.split(' ').find_map(|word| word.strip_prefix("tcp=")?.parse().ok());
    addr.unwrap_or_else(|| panic!("{ready}"))
}

fn each_line(output: impl Read, mut take: impl FnMut(String)) {
    BufReader::new(output).lines().map_while(Result::ok).for_each(&mut take);
}
