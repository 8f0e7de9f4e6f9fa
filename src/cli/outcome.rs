//! What a command comes to, a text that is printed or a failure that is told, and how
//! a text becomes safe to print.
//!
//! Nothing here ends the process: `cli.rs` makes an exit code of it.

use std::borrow::Cow;
use std::io::{self, Write};

/// Why a command did not do what it was asked for, in one sentence.
#[derive(Debug)]
pub enum Failure {
    /// Wrong arguments or settings.
    Usage(String),
    /// At run time.
    AtRunTime(String),
}

/// Tells standard error what went wrong.
pub fn complain(text: &str) {
    // Not `eprintln`, which panics when nobody can read it: the exit code still tells.
    let _ = writeln!(io::stderr(), "pinpost: {}", printable(text));
}

/// Prints to standard output, flushed.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    result.map_err(|error| Failure::AtRunTime(format!("standard output: {error}")))
}

/// The text with everything that steers a terminal, or that makes a line look like
/// another one, replaced by U+FFFD. The server refuses control characters; this
/// holds even where the server does not.
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
