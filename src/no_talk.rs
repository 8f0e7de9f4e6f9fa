//! What stands in the place of the commands for people in a build without the feature `client`.
//!
//! Both are known and refused, so there is never anything to run.

use std::convert::Infallible;

use crate::args::Usage;
use crate::outcome::Failure;

/// What a person wants to say: nothing, in this build.
pub struct Talk(Infallible);

/// What `pinpost --help` tells of them.
pub const HELP: &str = "\
pinpost chat, pinpost send                  not in this build: they need the feature client
";

/// Refuses `pinpost chat`.
pub fn chat(_: lexopt::Parser) -> Result<Talk, Usage> {
    Err(refuse("chat"))
}

/// Refuses `pinpost send`.
pub fn send(_: lexopt::Parser) -> Result<Talk, Usage> {
    Err(refuse("send"))
}

fn refuse(command: &str) -> Usage {
    Usage(format!("{command} is not in this pinpost: it was built without the feature client"))
}

impl Talk {
    /// Says it.
    pub fn run(self) -> Result<(), Failure> {
        match self.0 {}
    }
}
