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
mod outcome;
#[cfg(feature = "client")]
mod send;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::args::Command;
use crate::cli::outcome::{Failure, complain, print};

/// Does what the arguments behind the program's name ask for.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let result = args::parse(args).and_then(|command| match command {
        Command::Print(text) => print(&text),
        Command::Serve(config) => serve::run(&config),
        #[cfg(feature = "client")]
        Command::Chat { config, to } => chat::run(config, to),
        #[cfg(feature = "client")]
        Command::Send { config, to, text } => send::run(config, &to, &text),
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
