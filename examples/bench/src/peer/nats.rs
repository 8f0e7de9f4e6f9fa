//! Which NATS: the newest there is here, or Debian's, which may be years behind.
//!
//! `tests/needs.sh peers` puts the newest below the folder that this program was
//! built in, as PyPI has it. Where it could not be had, Debian's is the newest.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Release {
    Newest,
    Debian,
}

impl Release {
    /// Those that differ here.
    pub fn all() -> Vec<Release> {
        match unpacked() {
            Some(_) => vec![Release::Newest, Release::Debian],
            None => vec![Release::Newest],
        }
    }

    /// The command that starts it.
    pub fn program(self) -> PathBuf {
        let found = if self == Release::Newest { unpacked() } else { None };
        found.unwrap_or_else(|| "nats-server".into())
    }

    /// What it is called where messages are sent without an answer.
    pub fn name(self) -> &'static str {
        match self {
            Release::Newest => "nats",
            Release::Debian => "nats, Debian's",
        }
    }

    /// And where they are requests.
    pub fn name_of_requests(self) -> &'static str {
        match self {
            Release::Newest => "nats request",
            Release::Debian => "nats request, Debian's",
        }
    }
}

/// The newest in words, where it isn't Debian's.
pub fn version() -> io::Result<Option<String>> {
    let Some(program) = unpacked() else { return Ok(None) };
    let output = Command::new(program).arg("--version").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim().rsplit(['v', ' ']).next().unwrap_or_default();
    Ok(Some(format!("nats-server {version} of PyPI")))
}

/// What was unpacked beside what cargo has built, if anything was.
fn unpacked() -> Option<PathBuf> {
    let target = std::env::current_exe().ok()?.ancestors().nth(2)?.to_owned();
    let program = target.join("peers/nats/bin/nats-server");
    program.exists().then_some(program)
}
