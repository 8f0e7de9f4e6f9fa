//! The line editor of a chat on a terminal.
//!
//! It stops by Ctrl-Z, with all of its threads: the shell takes the terminal back, and `fg` gives it as the shell had
//! it. So whoever hears of that puts the editor's mode right, and says a line, which draws the one being typed again.
//! Its printer puts a line above the one that is being typed, so that what comes
//! in does not tear it. A build without the feature `line-editor` is without this
//! file: its chat reads plain lines.

use std::io::{self, ErrorKind, IsTerminal, Stdin};
use std::thread;

use pinpost::UserName;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use signal_hook::consts::SIGCONT;
use signal_hook::iterator::Signals;
use smol::channel::Sender;

use crate::cli::chat::typed::{Output, Typed};

/// The line editor, if this is a terminal that can have one: what reads lines until the
/// person leaves, what shows lines meanwhile (`false` when the terminal is gone), and
/// the modes from before.
#[expect(clippy::type_complexity, reason = "three things that have no name of their own")]
pub fn open(
    peer: Option<UserName>,
) -> io::Result<Option<(impl FnOnce(&Sender<Typed>) + Send, impl FnMut(Output) -> bool + Send, KeptModes)>> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Ok(None);
    }
    let terminal = io::stdin();
    let modes = KeptModes { modes: tcgetattr(&terminal)?, terminal };
    let mut editor = DefaultEditor::new().map_err(io::Error::other)?;
    // A terminal that can't move its cursor has no printer: plain lines do there.
    let Ok(mut printer) = editor.create_external_printer() else { return Ok(None) };
    draw_again_when_continued(editor.create_external_printer().map_err(io::Error::other)?)?;
    let read = move |typed: &Sender<Typed>| read(editor, peer, typed);
    let print = move |output| {
        let (Output::Line(line) | Output::Trouble(line)) = output;
        printer.print(line + "\n").is_ok()
    };
    Ok(Some((read, print, modes)))
}

fn read(mut editor: DefaultEditor, mut peer: Option<UserName>, typed: &Sender<Typed>) {
    loop {
        let prompt = peer.as_ref().map_or_else(|| "> ".to_owned(), |peer| format!("to {peer}> "));
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                let why = "what was typed is not UTF-8, and is dropped".to_owned();
                if typed.send_blocking(Typed::Wrong(why)).is_err() {
                    return;
                }
                continue;
            }
            // Ctrl-C, Ctrl-D, or a terminal that is gone: all mean leaving.
            Err(_) => return,
        };
        // Pasted text may be several lines.
        for meant in line.lines().filter_map(Typed::parse) {
            if let Typed::To(user) = &meant {
                peer = Some(user.clone());
            }
            if meant == Typed::Quit || typed.send_blocking(meant).is_err() {
                return;
            }
        }
        // Without a history the arrow keys do less; that is all.
        let _ = editor.add_history_entry(line);
    }
}

/// Gives the editor its terminal back after a stop.
fn draw_again_when_continued(mut printer: impl ExternalPrinter + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGCONT])?;
    let watch = move || {
        for _ in signals.forever() {
            if let Ok(mut modes) = tcgetattr(io::stdin()) {
                let shown = modes.output_modes;
                modes.make_raw();
                modes.output_modes = shown;
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
            }
            // A terminal that is gone ends the chat elsewhere.
            let _ = printer.print(format!("{BRACKETED_PASTE_ON}* here again\n"));
        }
    };
    thread::Builder::new().name("chat-continue".to_owned()).spawn(watch).map(drop)
}

/// What the line editor says to the terminal at the start of its line.
const BRACKETED_PASTE_ON: &str = "\u{1b}[?2004h";

/// The terminal's modes of now, put back when this is dropped.
///
/// A line editor that waits for a key on another thread can't be called back: who
/// leaves without it has to put its raw mode right.
pub struct KeptModes {
    terminal: Stdin,
    modes: Termios,
}

impl Drop for KeptModes {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.modes);
    }
}
