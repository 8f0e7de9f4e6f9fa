//! The `pinpost` command. What its commands do is in `cli/`.
//!
//! Exit codes: 0 when it went well, 1 for a failure at run time, 2 for wrong
//! arguments or settings.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::run(std::env::args_os().skip(1))
}
