//! What stands in the place of the line editor in a build without the feature `line-editor`.
//!
//! No terminal can have one, so there is no value of these types: the chat reads
//! plain lines, as it does from a pipe, and the terminal edits them as far as it
//! can by itself.

use std::convert::Infallible;
use std::io;

use smol::channel::Sender;

use crate::chat::Typed;
use crate::proto::UserName;
use crate::terminal::KeptModes;

/// What reads lines at a terminal.
pub(super) struct Editor(Infallible);

/// What shows lines meanwhile.
pub(super) struct Printer(Infallible);

/// The line editor: there is none in this build.
#[expect(clippy::unnecessary_wraps, reason = "the call is that of the real one")]
pub(super) fn open() -> io::Result<Option<(Editor, Printer, KeptModes)>> {
    Ok(None)
}

impl Editor {
    /// Reads until the person leaves.
    pub(super) fn read(self, _: Option<UserName>, _: &Sender<Typed>) {
        match self.0 {}
    }
}

impl Printer {
    /// Shows a line.
    pub(super) fn print(&mut self, _: String) -> bool {
        match self.0 {}
    }
}
