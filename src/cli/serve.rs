//! `pinpost serve`: runs a node until a signal drains it; a second one ends it at once.
//!
//! Signals come as bytes through a socket pair. A thread of its own reads it: beside the node, on the node's
//! thread, it would be looked at whenever that thread wakes. The log is one line an event, to standard error.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use log::{Log, Metadata, Record};
use pinpost::{Config, Handle, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::cli::outcome::{Failure, print};

/// Runs a node with these settings.
pub fn run(config: &Config) -> Result<(), Failure> {
    // Fails only when there is a logger already, and this is the only one.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(config.log);
    }
    let at_run_time = |error: io::Error| Failure::AtRunTime(error.to_string());
    let server = Server::bind(config).map_err(|error| Failure::Usage(error.to_string()))?;
    watch_signals(server.handle()).map_err(at_run_time)?;
    print(&(server.ready_line() + "\n"))?;
    smol::block_on(server.run()).map_err(at_run_time)
}

/// Lets the first `SIGTERM` or `SIGINT` drain the node, and the second one end the process.
fn watch_signals(node: Handle) -> io::Result<()> {
    let (mut signals, handler) = UnixStream::pair()?;
    pipe::register(SIGTERM, handler.try_clone()?)?;
    pipe::register(SIGINT, handler)?;
    let watch = move || {
        // A byte a signal. It does not end: the handlers keep the other side.
        let mut next = || signals.read_exact(&mut [0]).expect("the other side is open");
        next();
        node.drain();
        next();
        log::warn!("a second signal: not drained");
        std::process::exit(1)
    };
    thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(watch).map(drop)
}

struct Stderr;

impl Log for Stderr {
    /// What this crate says: libraries talk too much.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pinpost")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let line = format!("{level}: {}\n", record.args());
            // One write, so that lines of several processes on one terminal stay whole. Not `eprint`, which
            // panics when nobody can read it.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
