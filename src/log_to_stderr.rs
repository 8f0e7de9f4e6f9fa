//! The log of the command: one line an event, to standard error.

use std::io::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

/// Logs what is at or above `level`, from this crate only: libraries talk too much.
pub fn start(level: LevelFilter) {
    // Fails only when there is a logger already, and this is the only one.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Stderr {
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
