//! The line editor of a chat on a terminal.
//!
//! Its printer puts a line above the one that is being typed, so that what comes
//! in does not tear it. A node built without the feature `line-editor` has
//! `no_editor.rs` in this place: its chat reads plain lines.

use std::io::{self, IsTerminal};

use rustyline::{DefaultEditor, ExternalPrinter};
use smol::channel::Sender;

use crate::chat::Typed;
use crate::proto::UserName;
use crate::terminal::KeptModes;

/// What reads lines at a terminal.
pub(super) struct Editor(DefaultEditor);

/// What shows lines meanwhile.
pub(super) struct Printer(Box<dyn ExternalPrinter + Send>);

/// The line editor, if this is a terminal that can have one.
pub(super) fn open() -> io::Result<Option<(Editor, Printer, KeptModes)>> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Ok(None);
    }
    let modes = KeptModes::of_stdin()?;
    let mut editor = DefaultEditor::new().map_err(io::Error::other)?;
    // A terminal that can't move its cursor has no printer: plain lines do there.
    let Ok(printer) = editor.create_external_printer() else { return Ok(None) };
    Ok(Some((Editor(editor), Printer(Box::new(printer)), modes)))
}

impl Editor {
    /// Reads until the person leaves.
    pub(super) fn read(mut self, mut peer: Option<UserName>, typed: &Sender<Typed>) {
        loop {
            let prompt = format!("{}> ", peer.as_ref().map_or("", UserName::as_str));
            // Ctrl-C, Ctrl-D, or a terminal that is gone: all mean leaving.
            let Ok(line) = self.0.readline(&prompt) else { return };
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
            let _ = self.0.add_history_entry(line);
        }
    }
}

impl Printer {
    /// Shows a line; `false` when the terminal is gone.
    pub(super) fn print(&mut self, line: String) -> bool {
        self.0.print(line + "\n").is_ok()
    }
}
