//! Lines that have to wait, while those behind them are heard.
//!
//! A session that acknowledges is read on when one of its requests has to wait for
//! room: the acknowledgements behind it may be what others wait for, who make that
//! room. So its other lines are held here, in order. A session that does not
//! acknowledge is not read, and nothing is held.

use std::collections::VecDeque;

use crate::conn::phase::End;
use crate::outbox::REPLIES_DUE_MAX;
use crate::proto::Line;

/// Lines that are held for a connection at most; then it is not read. As many as it may be owed
/// replies, so that who keeps to that is always heard.
pub const HELD_LINES_MAX: usize = 1_024;
const _: () = assert!(HELD_LINES_MAX >= REPLIES_DUE_MAX as usize);

/// The lines of one connection.
#[derive(Default)]
pub struct HeldLines {
    lines: VecDeque<HeldLine>,
    bytes: usize,
    /// How the connection ends when they are carried out, if the peer said so.
    pub end: Option<End>,
}

/// A line, for later.
#[derive(Debug)]
pub struct HeldLine {
    bytes: Box<[u8]>,
    is_whole: bool,
}

impl HeldLine {
    /// Copies a line.
    pub fn new(line: Line<'_>) -> Self {
        let (Line::Whole(bytes) | Line::TooLong(bytes)) = line;
        HeldLine { bytes: bytes.into(), is_whole: matches!(line, Line::Whole(_)) }
    }

    /// The line.
    pub fn line(&self) -> Line<'_> {
        if self.is_whole { Line::Whole(&self.bytes) } else { Line::TooLong(&self.bytes) }
    }
}

impl HeldLines {
    /// Adds a line, unless that would be more than `bytes_max` bytes, or too many lines: gives it back.
    pub fn push(&mut self, line: Line<'_>, bytes_max: usize) -> Result<(), HeldLine> {
        let line = HeldLine::new(line);
        if self.lines.len() >= HELD_LINES_MAX || self.bytes + line.bytes.len() > bytes_max {
            return Err(line);
        }
        self.bytes += line.bytes.len();
        self.lines.push_back(line);
        Ok(())
    }

    /// Takes out the first line.
    pub fn pop(&mut self) -> Option<HeldLine> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.bytes.len();
        Some(line)
    }

    /// The line that was taken out has to wait still.
    pub fn put_back(&mut self, line: HeldLine) {
        self.bytes += line.bytes.len();
        self.lines.push_front(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_held_in_order_and_bounded() {
        let mut held = HeldLines::default();
        assert!(held.push(Line::Whole(b"one"), 9).is_ok());
        assert!(held.push(Line::TooLong(b"@two"), 9).is_ok());
        let refused = held.push(Line::Whole(b"six"), 9).expect_err("over the bound");
        assert_eq!(refused.line(), Line::Whole(b"six"));
        let first = held.pop().expect("there is one");
        assert_eq!(first.line(), Line::Whole(b"one"));
        held.put_back(first);
        assert_eq!(held.pop().map(|line| line.is_whole), Some(true));
        assert!(held.push(Line::Whole(b"three"), 9).is_ok());
        assert_eq!(held.pop().expect("there is one").line(), Line::TooLong(b"@two"));
        assert_eq!(held.pop().expect("there is one").line(), Line::Whole(b"three"));
        assert!(held.pop().is_none() && held.bytes == 0);
        let taken = (0..2 * HELD_LINES_MAX).filter(|_| held.push(Line::Whole(b"PING"), usize::MAX).is_ok());
        assert_eq!(taken.count(), HELD_LINES_MAX);
    }
}
