//! What the commands for people need of a terminal: a text that is safe to print
//! on one, and the terminal left as it was found.

use std::borrow::Cow;
use std::io::{self, Stdin};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The text with everything that steers a terminal, or that makes a line look like
/// another one, replaced by U+FFFD. The server refuses control characters; this
/// holds even where the server does not.
///
/// ```
/// use pinpost::terminal::printable;
/// assert_eq!(printable("你好\tbob"), "你好\tbob");
/// assert_eq!(printable("\u{1b}[2J"), "\u{fffd}[2J");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    match text.contains(steers) {
        true => Cow::Owned(text.replace(steers, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

fn steers(c: char) -> bool {
    let control = c.is_control() && c != '\t';
    // Line and paragraph separators; embeddings, overrides and isolates of direction.
    control || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The terminal's modes of now, put back when this is dropped.
///
/// A line editor that waits for a key on another thread can't be called back: who
/// leaves without it has to put its raw mode right.
#[derive(Debug)]
pub struct KeptModes {
    terminal: Stdin,
    modes: Termios,
}

impl KeptModes {
    /// Remembers the modes of the terminal on standard input.
    ///
    /// # Errors
    /// When that is no terminal.
    pub fn of_stdin() -> io::Result<Self> {
        let terminal = io::stdin();
        let modes = tcgetattr(&terminal)?;
        Ok(KeptModes { terminal, modes })
    }
}

impl Drop for KeptModes {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.modes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printable_steers_a_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected, "{text:?}");
        check("", "");
        check("hello\tthere, 小明 é 🙂", "hello\tthere, 小明 é 🙂");
        check("a\nb\rc\u{7}d", "a\u{fffd}b\u{fffd}c\u{fffd}d");
        check("\u{1b}]0;title\u{7}", "\u{fffd}]0;title\u{fffd}");
        check("\u{9b}2J\u{7f}", "\u{fffd}2J\u{fffd}");
        check("\u{202e}evil\u{2066}\u{2028}", "\u{fffd}evil\u{fffd}\u{fffd}");
        check("\u{200f}\u{200d}", "\u{200f}\u{200d}");
    }
}
