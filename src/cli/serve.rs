//! `pinpost serve`: runs a node until a signal drains it; a second one ends it at once.
//!
//! Signals are taken from the first moment on, so that one that comes while the node starts is not lost, as it
//! would be in a container, where this is process 1. A thread of its own hears them: beside the node, on the node's
//! thread, they would be looked at whenever that thread wakes.

use std::io::{self, IsTerminal};
use std::process::exit;
use std::sync::{Arc, OnceLock};
use std::thread;

use log::{info, warn};
use pinpost::{Config, Handle, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::logger;
use crate::cli::outcome::{Failure, print};

/// Runs a node with these settings.
pub fn run(config: &Config) -> Result<(), Failure> {
    let result = serve(config);
    logger::flush();
    result
}

fn serve(config: &Config) -> Result<(), Failure> {
    let at_run_time = |error: io::Error| Failure::AtRunTime(error.to_string());
    let node = Arc::default();
    logger::start(config.log).and_then(|()| watch_signals(&node)).map_err(at_run_time)?;
    let server = Server::bind(config).map_err(|error| Failure::Usage(error.to_string()))?;
    node.get_or_init(|| server.handle());
    print(&(server.ready_line() + "\n"))?;
    smol::block_on(server.run()).map_err(at_run_time)
}

/// Tries all that a node will do with its services; the log says what is missing.
pub fn check_services(config: &Config) -> Result<(), Failure> {
    logger::start(config.log).map_err(|error| Failure::AtRunTime(error.to_string()))?;
    let is_fine = pinpost::check_services(config);
    logger::flush();
    match is_fine {
        _ if config.redis.is_none() => {
            Err(Failure::Usage("--redis and --amqp name the services to check".to_owned()))
        }
        true => print("Redis and RabbitMQ let a node do all that it will\n"),
        false => Err(Failure::AtRunTime("Redis or RabbitMQ lacks what is said above".to_owned())),
    }
}

/// Lets the first `SIGTERM` or `SIGINT` drain the node, once there is one, and the second one end the process.
///
/// `SIGHUP` says that the terminal is gone, and drains a node that has one. To any other it means "read your settings
/// again", which a node does not do.
fn watch_signals(node: &Arc<OnceLock<Handle>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let node = node.clone();
    let has_terminal = io::stdin().is_terminal();
    let watch = move || {
        let mut is_draining = false;
        for signal in signals.forever() {
            match (signal, node.get()) {
                (SIGHUP, _) if !has_terminal => {
                    warn!("SIGHUP is ignored: settings are read at the start only")
                }
                // It comes twice: from the shell, and from the system.
                (SIGHUP, _) if is_draining => (),
                (_, Some(node)) if !is_draining => {
                    is_draining = true;
                    node.drain();
                }
                // It waits for its services: nobody was let in.
                (_, None) => end("a signal: stopped before it was ready", 0),
                _ => end("a second signal: not drained", 1),
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(watch).map(drop)
}

fn end(why: &str, code: i32) {
    match code {
        0 => info!("{why}"),
        _ => warn!("{why}"),
    }
    logger::flush();
    exit(code)
}
