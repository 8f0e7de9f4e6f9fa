//! What a command comes to: a text that is printed, or a failure that is told.
//!
//! Nothing here ends the process: `main.rs` makes an exit code of it.

use std::io::{self, Write};

use pinpost::terminal::printable;

/// Why a command did not do what it was asked for.
pub enum Failure {
    /// Wrong arguments or settings.
    Usage(String),
    /// At run time.
    AtRunTime(String),
    /// At run time, and it has told what went wrong.
    #[cfg_attr(not(feature = "client"), expect(dead_code, reason = "only a client tells by itself"))]
    Told,
}

/// Tells standard error what went wrong.
pub fn complain(text: &str) {
    // Not `eprintln`, which panics when nobody can read it: the exit code still tells.
    let _ = writeln!(io::stderr(), "pinpost: {}", printable(text));
}

/// Prints to standard output, flushed.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    result.map_err(|error| Failure::AtRunTime(format!("standard output: {error}")))
}
