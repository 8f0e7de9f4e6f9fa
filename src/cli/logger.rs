//! The log of `pinpost serve`: one line an event, to standard error.
//!
//! Nobody who logs waits for whoever reads: a thread of its own writes, and what it can't keep up with is
//! dropped, counted, and told of when there is a reader again. So a pipe that nobody reads, a terminal that was
//! stopped, or a disk that is full stops no node. Left out: when, which whoever collects the lines knows.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};

use crate::cli::outcome::printable;

/// Lines that wait for whoever reads the log.
const LINES_MAX: usize = 1_024;

/// How long an ending process waits for its last lines to be read.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// The log of this process.
static LOG: Lines = Lines { waiting: Mutex::new(Waiting::new()), changed: Condvar::new() };

/// From here on this process logs; panics are logged whatever the level.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(level: LevelFilter) -> io::Result<()> {
    let write = || LOG.write_to(io::stderr());
    thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024).spawn(write)?;
    // Fails only when there is a logger already, and this is the only one.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(level);
    }
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let why = panic.to_string().replace('\n', " ");
        LOG.say(format!("error: thread {} {}\n", thread.name().unwrap_or("?"), printable(&why)));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            LOG.say(format!("{trace}\n"));
        }
        // It may be the end of the process.
        LOG.flush();
    }));
    Ok(())
}

/// The end of a process: waits for the last lines, as long as it makes sense.
pub fn flush() {
    LOG.flush();
}

struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    lines: VecDeque<String>,
    /// One more is being written.
    is_writing: bool,
    /// Lines that nobody will see, and nobody was told of.
    dropped: u64,
}

impl Waiting {
    const fn new() -> Self {
        Waiting { lines: VecDeque::new(), is_writing: false, dropped: 0 }
    }
}

impl Lines {
    fn say(&self, line: String) {
        let mut waiting = self.waiting();
        if waiting.lines.len() < LINES_MAX {
            waiting.lines.push_back(line);
        } else {
            waiting.dropped += 1;
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes what comes, for ever.
    fn write_to(&self, mut out: impl Write) {
        loop {
            let idle = |waiting: &mut Waiting| waiting.lines.is_empty();
            let mut waiting =
                self.changed.wait_while(self.waiting(), idle).unwrap_or_else(PoisonError::into_inner);
            waiting.is_writing = true;
            let mut line = waiting.lines.pop_front().expect("it is not idle");
            let mut dropped = 0;
            // Behind those that waited before it, and never alone: a log that can't be written would be tried for ever.
            if waiting.lines.is_empty() {
                dropped = std::mem::take(&mut waiting.dropped);
            }
            drop(waiting);
            if dropped > 0 {
                line += &format!("warn: {dropped} lines of the log are missing here: nobody took them\n");
            }
            // One write, so that lines of several processes on one terminal stay whole.
            let is_lost = out.write_all(line.as_bytes()).is_err();
            let mut waiting = self.waiting();
            waiting.is_writing = false;
            if is_lost {
                waiting.dropped += dropped + 1;
            }
            drop(waiting);
            self.changed.notify_all();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is left half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Lines {
    /// What this crate says: libraries talk too much.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pinpost")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            // Some of it was said by others, such as a broker: a line stays one line.
            self.say(format!("{level}: {}\n", printable(&record.args().to_string())));
        }
    }

    fn flush(&self) {
        let busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        drop(self.changed.wait_timeout_while(self.waiting(), FLUSH_TIME_MAX, busy));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells of each write, and waits for what becomes of it.
    struct Reader(Sender<String>, Receiver<bool>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            let is_taken = self.1.recv().map_err(io::Error::other)?;
            is_taken.then_some(bytes.len()).ok_or_else(|| io::Error::other("the disk is full"))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn open() -> (&'static Lines, Receiver<String>, Sender<bool>) {
        let log = Lines { waiting: Mutex::new(Waiting::new()), changed: Condvar::new() };
        let log: &'static Lines = Box::leak(Box::new(log));
        let (written_tx, written) = channel();
        let (taken, taken_rx) = channel();
        thread::spawn(move || log.write_to(Reader(written_tx, taken_rx)));
        (log, written, taken)
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_was_dropped_is_told() {
        let (log, written, taken) = open();
        log.say("first\n".to_owned());
        assert_eq!(written.recv().expect("it is written"), "first\n");
        // It is being read, slowly; so many more wait, and the last two of these find no room.
        for n in 0..LINES_MAX + 2 {
            log.say(format!("{n}\n"));
        }
        for n in 0..LINES_MAX - 1 {
            taken.send(true).expect("it waits");
            assert_eq!(written.recv().expect("it is written"), format!("{n}\n"));
        }
        taken.send(true).expect("it waits");
        let last = written.recv().expect("it is written");
        let told = "warn: 2 lines of the log are missing here: nobody took them\n";
        assert_eq!(last, format!("{}\n{told}", LINES_MAX - 1));
        log.say("after\n".to_owned());
        taken.send(true).expect("it waits");
        assert_eq!(written.recv().expect("it is written"), "after\n");
        taken.send(true).expect("it waits");
        log.flush();
    }

    #[test]
    fn what_could_not_be_written_is_told_with_the_next_line() {
        let (log, written, taken) = open();
        for (line, is_taken, expected) in [
            ("one\n", false, "one\n"),
            ("two\n", false, "two\nwarn: 1 lines of the log are missing here: nobody took them\n"),
            ("three\n", true, "three\nwarn: 2 lines of the log are missing here: nobody took them\n"),
            ("four\n", true, "four\n"),
        ] {
            log.say(line.to_owned());
            assert_eq!(written.recv().expect("it is written"), expected);
            taken.send(is_taken).expect("it waits");
            log.flush();
        }
    }
}
