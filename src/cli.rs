//! What the commands of `pinpost` do: `serve`, and with the feature `client` `chat` and
//! `send`.
//!
//! Arguments come in and an exit code goes out. The commands use what any other program
//! would, the root of the library, and nothing else of it.

mod args;
#[cfg(feature = "client")]
mod chat;
#[cfg(all(test, feature = "client"))]
#[path = "client/fake.rs"]
#[allow(dead_code, reason = "the client's own tests need more of it")]
mod fake;
mod logger;
mod outcome;
#[cfg(feature = "client")]
mod send;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;
#[cfg(feature = "client")]
use std::sync::{Arc, atomic::AtomicBool};

#[cfg(feature = "client")]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::args::Command;
use crate::cli::outcome::{Failure, complain, print};

/// Does what the arguments behind the program's name ask for.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let result = args::parse(args).and_then(|command| match command {
        Command::Print(text) => print(&text),
        Command::Serve(config) => serve::run(&config),
        Command::CheckServices(config) => serve::check_services(&config),
        #[cfg(feature = "client")]
        Command::Chat { config, to } => end_on_signals().and_then(|()| chat::run(config, to)),
        #[cfg(feature = "client")]
        Command::Send { config, to, text } => end_on_signals().and_then(|()| send::run(config, &to, &text)),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
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

/// Lets a signal end a command that is process 1, as it ends any other: there, in a container, the system ignores
/// what nobody handles.
#[cfg(feature = "client")]
fn end_on_signals() -> Result<(), Failure> {
    if std::process::id() == 1 {
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let always = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always)
                .map_err(|error| Failure::AtRunTime(error.to_string()))?;
        }
    }
    Ok(())
}
