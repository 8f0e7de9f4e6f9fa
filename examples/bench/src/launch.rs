//! How servers are started, so that none of them outlives this program, however it
//! ends: this program starts itself, asks the kernel to be killed when its parent
//! dies, and becomes the server, which keeps that.
//!
//! The moment before it does so it writes down, for those who measure how long a
//! server takes to start: what comes before is none of the server's time.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::process::Signal;

/// A command that becomes this program; its arguments are to be added.
pub fn command(program: impl AsRef<OsStr>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(LAUNCH).arg(program);
    Ok(command)
}

/// Becomes another program, if that is what this one was started for; returns only when that fails.
pub fn become_launched(arguments: &[String]) -> Option<io::Result<()>> {
    let [word, program, arguments @ ..] = arguments else { return None };
    let become_it = || -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        println!("{LAUNCH} {}", clock()?.as_nanos());
        let error = Command::new(program).args(arguments).exec();
        Err(io::Error::other(format!("{program}: {error}")))
    };
    (word == LAUNCH).then(become_it)
}

/// How long ago it was that a program wrote this line and became another one; `None` if it is no such line.
pub fn since(line: &str) -> Option<Duration> {
    let at = line.strip_prefix(LAUNCH)?.trim().parse().ok()?;
    clock().ok()?.checked_sub(Duration::from_nanos(at))
}

/// The same for all processes.
fn clock() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

const LAUNCH: &str = "launch";
