//! The two ends of a chat: a thread that reads lines and a thread that shows them.
//!
//! On a terminal both go through one line editor. Its thread can't be called back
//! while it waits for a key, so a chat that ends otherwise leaves it behind and puts
//! the terminal right itself. Elsewhere lines are plain.

use std::any::Any;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread::{self, JoinHandle};

use pinpost::UserName;
use smol::channel::{Receiver, Sender, bounded};

#[cfg(feature = "line-editor")]
use crate::cli::chat::editor;
use crate::cli::chat::typed::{Output, Typed};

/// The threads that read and show, and the terminal if there is one.
pub struct Console {
    pub typed: Receiver<Typed>,
    pub shown: Sender<Output>,
    shower: JoinHandle<()>,
    /// On a terminal: what puts it right when it is dropped.
    terminal: Option<Box<dyn Any>>,
}

impl Console {
    #[cfg_attr(not(feature = "line-editor"), expect(unused_variables, reason = "nobody is prompted"))]
    pub fn open(peer: Option<UserName>) -> io::Result<Self> {
        #[cfg(feature = "line-editor")]
        if let Some((read, print, modes)) = editor::open(peer)? {
            return Console::start(read, print, Some(Box::new(modes)));
        }
        Console::start(|typed| read(io::stdin(), typed), print, None)
    }

    fn start(
        read: impl FnOnce(&Sender<Typed>) + Send + 'static,
        mut print: impl FnMut(Output) -> bool + Send + 'static,
        terminal: Option<Box<dyn Any>>,
    ) -> io::Result<Self> {
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let (shown_tx, shown_rx) = bounded(SHOWN_MAX);
        // This thread is never joined: nothing but a key wakes it.
        thread::Builder::new().name("chat-read".to_owned()).spawn(move || read(&typed_tx))?;
        let show = move || while shown_rx.recv_blocking().is_ok_and(&mut print) {};
        let shower = thread::Builder::new().name("chat-show".to_owned()).spawn(show)?;
        Ok(Console { typed: typed_rx, shown: shown_tx, shower, terminal })
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Shows what is left, and puts the terminal right. `within_line` when the line
    /// editor may still be at work.
    pub fn close(self, within_line: bool) {
        let Console { typed, shown, shower, terminal } = self;
        drop((typed, shown));
        // It only ever ends by returning.
        let _ = shower.join();
        if terminal.is_some() && within_line {
            let _ = writeln!(io::stdout(), "{BRACKETED_PASTE_OFF}");
        }
    }
}

/// Reads plain lines, until their end.
pub fn read(input: impl Read, typed: &Sender<Typed>) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    // What an editor of another system may have put in front of a file.
    let mut mark = Some(BYTE_ORDER_MARK);
    loop {
        line.clear();
        // An input that fails has ended.
        let count = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).unwrap_or(0);
        if count == 0 {
            return;
        }
        let is_whole = line.ends_with(b"\n") || (count as u64) < LINE_BYTES_MAX;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = mark.take().and_then(|mark| text.strip_prefix(mark)).unwrap_or(text);
        let meant = match std::str::from_utf8(text) {
            _ if !is_whole => {
                let _ = input.skip_until(b'\n');
                Some(Typed::Wrong("a line of the input is too long".to_owned()))
            }
            Ok(text) => Typed::parse(text),
            Err(_) => Some(Typed::Wrong("a line of the input is not UTF-8".to_owned())),
        };
        if let Some(meant) = meant
            && (meant == Typed::Quit || typed.send_blocking(meant).is_err())
        {
            return;
        }
    }
}

/// Shows a plain line; `false` when nobody sees any more.
fn print(output: Output) -> bool {
    match output {
        Output::Line(line) => writeln!(io::stdout(), "{line}").is_ok(),
        Output::Trouble(line) => {
            // Trouble that nobody can read is no reason to stop.
            let _ = writeln!(io::stderr(), "{line}");
            true
        }
    }
}

/// What the line editor would say to the terminal at the end of its line.
const BRACKETED_PASTE_OFF: &str = "\u{1b}[?2004l";
/// As long as a line of the input may be; no server takes a longer one.
const LINE_BYTES_MAX: u64 = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
pub const TYPED_MAX: usize = 64;
pub const SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_at_the_start_is_dropped() {
        let check = |input: &str, expected: &[&str]| {
            let (typed_tx, typed_rx) = bounded(TYPED_MAX);
            read(input.as_bytes(), &typed_tx);
            let typed: Vec<Typed> = std::iter::from_fn(|| typed_rx.try_recv().ok()).collect();
            let expected: Vec<Typed> = expected.iter().map(|text| Typed::Text((*text).to_owned())).collect();
            assert_eq!(typed, expected, "{input:?}");
        };
        check("\u{feff}one\n\u{feff}two\n", &["one", "\u{feff}two"]);
        check("\u{feff}\none", &["one"]);
        check("one\n", &["one"]);
    }

    #[test]
    fn input_that_is_no_line_is_told() {
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let mut input = b"\xc3\x28\r\nok\r\n\n".to_vec();
        for length in [LINE_BYTES_MAX - 1, LINE_BYTES_MAX, 3 * LINE_BYTES_MAX] {
            input.extend(std::iter::repeat_n(b'x', length as usize));
            input.push(b'\n');
        }
        input.extend(b"last");
        read(input.as_slice(), &typed_tx);
        drop(typed_tx);
        let typed: Vec<Typed> = std::iter::from_fn(|| typed_rx.try_recv().ok()).collect();
        let [
            Typed::Wrong(_),
            Typed::Text(ok),
            Typed::Text(long),
            Typed::Wrong(_),
            Typed::Wrong(_),
            rest @ ..,
        ] = &typed[..]
        else {
            panic!("{typed:?}")
        };
        assert_eq!((&ok[..], long.len() as u64 + 1), ("ok", LINE_BYTES_MAX));
        assert_eq!(rest, [Typed::Text("last".to_owned())]);
    }
}
