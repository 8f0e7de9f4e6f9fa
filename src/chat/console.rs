//! The two ends of a chat: a thread that reads lines and a thread that shows them.
//!
//! On a terminal both go through one line editor. Its thread can't be called back
//! while it waits for a key, so a chat that ends otherwise leaves it behind and puts
//! the terminal right itself.

use std::io::{self, Read, Write};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use smol::channel::{Receiver, Sender, bounded};

use crate::chat::editor;
use crate::chat::{Patience, Shown, Typed};
use crate::proto::{LINE_BYTES_LIMIT, Line, LineDecoder, UserName};
use crate::terminal::KeptModes;

/// The threads that read and show, and the terminal if there is one.
pub(super) struct Console {
    pub(super) typed: Receiver<Typed>,
    pub(super) shown: Sender<Shown>,
    shower: JoinHandle<()>,
    /// On a terminal: the modes from before the line editor.
    modes: Option<KeptModes>,
}

impl Console {
    pub(super) fn open(peer: Option<UserName>) -> io::Result<Self> {
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let (shown_tx, shown_rx) = bounded(SHOWN_MAX);
        // The reading thread is never joined: nothing but a key wakes it.
        let (shower, modes) = match editor::open()? {
            Some((editor, mut printer, modes)) => {
                spawn("read", move || editor.read(peer, &typed_tx))?;
                let print = move |shown| {
                    let (Shown::Line(line) | Shown::Trouble(line)) = shown;
                    printer.print(line)
                };
                (spawn("show", move || show(&shown_rx, print))?, Some(modes))
            }
            None => {
                spawn("read", move || read(io::stdin(), &typed_tx))?;
                let print = |shown| match shown {
                    Shown::Line(line) => writeln!(io::stdout(), "{line}").is_ok(),
                    Shown::Trouble(line) => {
                        // Trouble that nobody can read is no reason to stop.
                        let _ = writeln!(io::stderr(), "{line}");
                        true
                    }
                };
                (spawn("show", move || show(&shown_rx, print))?, None)
            }
        };
        Ok(Console { typed: typed_rx, shown: shown_tx, shower, modes })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.modes.is_some()
    }

    /// How long to wait for fates: a person who leaves has seen what there was to see.
    pub(super) fn patience(&self) -> Patience {
        match self.is_terminal() {
            true => Patience { time_max: LEAVE_TIME_MAX, is_pipe: false },
            false => Patience { time_max: PIPE_LEAVE_TIME_MAX, is_pipe: true },
        }
    }

    /// Shows what is left, and puts the terminal right. `within_line` when the line
    /// editor may still be at work.
    pub(super) fn close(self, within_line: bool) {
        let Console { typed, shown, shower, modes } = self;
        drop((typed, shown));
        // It only ever ends by returning.
        let _ = shower.join();
        if modes.is_some() && within_line {
            let _ = writeln!(io::stdout(), "{BRACKETED_PASTE_OFF}");
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("chat-{name}")).spawn(work)
}

/// Reads plain lines, until their end.
pub(super) fn read(mut input: impl Read, typed: &Sender<Typed>) {
    let mut decoder = LineDecoder::default();
    let mut buffer = [0; 8192];
    let pass_on = |line: Line<'_>| {
        let meant = match line {
            Line::TooLong(_) => Some(Typed::Wrong("a line of the input is too long".to_owned())),
            Line::Whole(bytes) => match std::str::from_utf8(bytes) {
                Ok(line) => Typed::parse(line),
                Err(_) => Some(Typed::Wrong("a line of the input is not UTF-8".to_owned())),
            },
        };
        match meant {
            Some(Typed::Quit) => false,
            Some(meant) => typed.send_blocking(meant).is_ok(),
            None => true,
        }
    };
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // An input that fails has ended.
            Err(_) => 0,
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let (used, line) = decoder.next(rest, LINE_BYTES_LIMIT);
            if line.is_some_and(|line| !pass_on(line)) {
                return;
            }
            rest = &rest[used..];
        }
        if count == 0 {
            if let Some(line) = decoder.end() {
                pass_on(line);
            }
            return;
        }
    }
}

/// Shows lines until there are no more, or until nothing can be shown.
fn show(shown: &Receiver<Shown>, mut print: impl FnMut(Shown) -> bool) {
    while let Ok(line) = shown.recv_blocking() {
        if !print(line) {
            return;
        }
    }
}

/// What the line editor would say to the terminal at the end of its line.
const BRACKETED_PASTE_OFF: &str = "\u{1b}[?2004l";
pub(super) const TYPED_MAX: usize = 64;
pub(super) const SHOWN_MAX: usize = 64;
const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);
/// Longer than a server takes to answer `ERR timeout`.
const PIPE_LEAVE_TIME_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_is_no_line_is_told() {
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let mut input = b"\xc3\x28\nok\n".to_vec();
        input.extend(std::iter::repeat_n(b'x', LINE_BYTES_LIMIT));
        input.extend(b"\nlast");
        read(input.as_slice(), &typed_tx);
        drop(typed_tx);
        let typed: Vec<Typed> = std::iter::from_fn(|| typed_rx.try_recv().ok()).collect();
        assert!(matches!(&typed[..], [Typed::Wrong(_), Typed::Text(_), Typed::Wrong(_), Typed::Text(_)]));
    }
}
