//! The `pinpost` command: arguments in, exit codes out.
//!
//! Exit codes: 0 when it went well, 1 for a failure at run time, 2 for wrong
//! arguments or settings. Everything else is in the library.

use std::process::ExitCode;

mod args;
mod log_to_stderr;
mod outcome;
mod signals;
#[cfg_attr(not(feature = "client"), path = "no_talk.rs")]
mod talk;

use args::{Command, Usage};
use outcome::{Failure, complain, print};
use pinpost::config::Config;
use pinpost::server::Server;
use signals::Signals;

fn main() -> ExitCode {
    let result = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Serve(config)) => serve(&config),
        Ok(Command::Talk(talk)) => talk.run(),
        Err(Usage(text)) => Err(Failure::Usage(text)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(1),
        Err(Failure::Usage(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
        Err(Failure::AtRunTime(text)) => {
            complain(&text);
            ExitCode::from(1)
        }
    }
}

/// Runs a node until a signal drains it; a second signal ends it at once.
fn serve(config: &Config) -> Result<(), Failure> {
    log_to_stderr::start(config.log);
    let server = Server::bind(config).map_err(|error| Failure::Usage(error.to_string()))?;
    let handle = server.handle();
    let at_run_time = |error: std::io::Error| Failure::AtRunTime(format!("signals: {error}"));
    let signals = Signals::new(&server).map_err(at_run_time)?;
    print(&(server.ready_line() + "\n"))?;
    // On the server's executor, which is there anyhow.
    server.spawn(async move {
        signals.next().await;
        handle.drain();
        signals.next().await;
        log::warn!("a second signal: not drained");
        std::process::exit(1);
    });
    server.run_alone();
    Ok(())
}
