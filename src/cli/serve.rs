//! `pinpost serve`: runs a node until a signal drains it; a second one ends it at once.
//!
//! Signals come as bytes through a socket pair, which is read beside the node on the one
//! thread there is. The log is one line an event, to standard error.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use log::{Log, Metadata, Record};
use pinpost::{Config, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use smol::io::AsyncReadExt;
use smol::{Async, future};

use crate::cli::outcome::{Failure, print};

/// Runs a node with these settings.
pub fn run(config: &Config) -> Result<(), Failure> {
    // Fails only when there is a logger already, and this is the only one.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(config.log);
    }
    let at_run_time = |error: io::Error| Failure::AtRunTime(error.to_string());
    let server = Server::bind(config).map_err(|error| Failure::Usage(error.to_string()))?;
    let handle = server.handle();
    let mut signals = signals().map_err(at_run_time)?;
    print(&(server.ready_line() + "\n"))?;
    let ended = async {
        next(&mut signals).await;
        handle.drain();
        next(&mut signals).await;
        log::warn!("a second signal: not drained");
        std::process::exit(1)
    };
    smol::block_on(future::or(server.run(), ended)).map_err(at_run_time)
}

/// A byte comes out for each `SIGTERM` and `SIGINT`, which end nothing by themselves any more.
fn signals() -> io::Result<Async<UnixStream>> {
    let (signals, handler) = UnixStream::pair()?;
    pipe::register(SIGTERM, handler.try_clone()?)?;
    pipe::register(SIGINT, handler)?;
    Async::new(signals)
}

/// Waits for the next one.
async fn next(signals: &mut Async<UnixStream>) {
    // It does not end: the handlers keep the other side.
    let _ = signals.read_exact(&mut [0]).await;
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
