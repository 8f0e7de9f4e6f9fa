//! Bytes to lines: LF, an optional CR, telnet commands, and the length bound.
//!
//! The decoder keeps only what one unfinished line needs, gives that memory
//! back when the line ends, and answers the same however its input is split.
//! A line that lies whole in the input is handed out without a copy. Whether a
//! line is UTF-8 and free of control characters is the next step's business
//! (`request`), so that a bad line can still be answered under its tag.

use memchr::memchr2;

/// What the decoder found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its line ending; never empty.
    Whole(&'a [u8]),
    /// A line over the bound, with the part that was kept of it (its tag is in
    /// there). Told once; the rest of the line is skipped.
    TooLong(&'a [u8]),
}

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct LineDecoder {
    /// The unfinished line, telnet commands taken out. Never longer than the bound.
    partial: Vec<u8>,
    state: State,
    /// Set when `partial` was handed out: the next call empties it first.
    handed_out: bool,
    /// Bytes of an unfinished telnet subnegotiation, which count against the line.
    telnet_bytes: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// The rest of a line that was too long.
    Skip,
    /// After IAC.
    Command,
    /// After IAC WILL, WONT, DO or DONT: one option byte.
    Option,
    /// After IAC SB: everything up to IAC SE.
    Subnegotiation,
    /// After an IAC within a subnegotiation.
    SubnegotiationCommand,
}

/// "Interpret as command" (RFC 854).
const IAC: u8 = 255;
const SE: u8 = 240;
const SB: u8 = 250;
const WILL: u8 = 251;
const DONT: u8 = 254;

impl LineDecoder {
    /// Reads `input` up to the end of one line, and tells how many bytes of it
    /// were used and the line, if one ended. `line_bytes_max` counts the LF.
    /// Empty lines are passed over.
    pub fn next<'a>(&'a mut self, input: &'a [u8], line_bytes_max: usize) -> (usize, Option<Line<'a>>) {
        self.forget();
        if self.partial.is_empty() && self.state == State::Text {
            // The usual case: whole lines in the input, nothing to remove from them.
            let mut start = 0;
            while let Some(length) = memchr2(b'\n', IAC, &input[start..]) {
                let end = start + length;
                if input[end] == IAC || length + 1 > line_bytes_max {
                    break;
                }
                let line = without_cr(&input[start..end]);
                if !line.is_empty() {
                    return (end + 1, Some(Line::Whole(line)));
                }
                start = end + 1;
            }
            let (used, found) = self.assemble(&input[start..], line_bytes_max);
            return (start + used, self.line(found));
        }
        let (used, found) = self.assemble(input, line_bytes_max);
        (used, self.line(found))
    }

    fn forget(&mut self) {
        if std::mem::take(&mut self.handed_out) {
            self.partial = Vec::new();
        }
    }

    /// Appends to the unfinished line until it ends.
    fn assemble(&mut self, input: &[u8], line_bytes_max: usize) -> (usize, Found) {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Skip => match memchr::memchr(b'\n', &input[at..]) {
                    None => return (input.len(), Found::Nothing),
                    Some(length) => {
                        at += length + 1;
                        self.state = State::Text;
                    }
                },
                State::Text => {
                    let end = memchr2(b'\n', IAC, &input[at..]).map_or(input.len(), |n| at + n);
                    // One byte of the bound belongs to the LF.
                    let room = (line_bytes_max - 1).saturating_sub(self.partial.len());
                    if end - at > room {
                        self.partial.extend_from_slice(&input[at..at + room]);
                        self.state = State::Skip;
                        return (at + room, Found::TooLong);
                    }
                    self.partial.extend_from_slice(&input[at..end]);
                    at = end;
                    if at < input.len() {
                        at += 1;
                        if input[end] == IAC {
                            self.state = State::Command;
                        } else if !matches!(&self.partial[..], b"" | b"\r") {
                            return (at, Found::Whole);
                        } else {
                            self.partial = Vec::new();
                        }
                    }
                }
                _ => {
                    let byte = input[at];
                    let used = self.telnet(byte);
                    at += usize::from(used);
                    if self.partial.len() + self.telnet_bytes as usize > line_bytes_max - 1 {
                        self.telnet_bytes = 0;
                        self.state = State::Skip;
                        return (at, Found::TooLong);
                    }
                }
            }
        }
        (at, Found::Nothing)
    }

    /// Takes one byte of a telnet command, and tells whether it was part of it.
    fn telnet(&mut self, byte: u8) -> bool {
        self.state = match (self.state, byte) {
            (State::Command, WILL..=DONT) => State::Option,
            (State::Command, SB) => State::Subnegotiation,
            (State::Command, SE..=DONT) | (State::Option, _) => State::Text,
            // IAC IAC stands for the byte 255, and IAC before a byte that is no command is
            // no command either: both are text that is not UTF-8.
            (State::Command, _) => {
                self.partial.push(IAC);
                self.state = State::Text;
                return byte == IAC;
            }
            (State::SubnegotiationCommand, SE) => {
                self.telnet_bytes = 0;
                State::Text
            }
            (State::Subnegotiation, IAC) => State::SubnegotiationCommand,
            _ => State::Subnegotiation,
        };
        if matches!(self.state, State::Subnegotiation | State::SubnegotiationCommand) {
            self.telnet_bytes += 1;
        }
        true
    }

    fn line(&mut self, found: Found) -> Option<Line<'_>> {
        match found {
            Found::Nothing => None,
            Found::TooLong => {
                self.handed_out = true;
                Some(Line::TooLong(&self.partial))
            }
            Found::Whole => {
                self.handed_out = true;
                let line = without_cr(&self.partial);
                (!line.is_empty()).then_some(Line::Whole(line))
            }
        }
    }
}

enum Found {
    Nothing,
    Whole,
    TooLong,
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16;

    /// What comes out of `chunks`.
    fn decode(chunks: &[&[u8]]) -> Vec<String> {
        let mut decoder = LineDecoder::default();
        let mut out = vec![];
        let mut take = |line: Line<'_>| {
            out.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Line::TooLong(head) => format!("too-long {}", String::from_utf8_lossy(head)),
            })
        };
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let (used, line) = decoder.next(rest, MAX);
                if let Some(line) = line {
                    take(line);
                }
                rest = &rest[used..];
            }
        }
        out
    }

    /// One input, every split in two, and one byte at a time: always the same.
    fn check(input: &[u8], expected: &[&str]) {
        assert_eq!(decode(&[input]), expected, "{input:?} whole");
        for at in 0..=input.len() {
            let (a, b) = input.split_at(at);
            assert_eq!(decode(&[a, b]), expected, "{input:?} split at {at}");
            for end in at..=input.len() {
                let parts = [a, &input[at..end], &input[end..]];
                assert_eq!(decode(&parts), expected, "{input:?} split at {at}, {end}");
            }
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(decode(&bytes), expected, "{input:?} by bytes");
    }

    #[test]
    fn line_endings_and_empty_lines() {
        check(b"PING\n", &["PING"]);
        check(b"PING\r\nWHO a\n", &["PING", "WHO a"]);
        check(b"\n\r\n\nA\n\n", &["A"]);
        check(b"A\rB\n", &["A\rB"]);
        check(b"A\r\r\n", &["A\r"]);
    }

    #[test]
    fn the_bound_counts_the_lf() {
        check(b"123456789012345\nA\n", &["123456789012345", "A"]);
        check(b"1234567890123456\nA\n", &["too-long 123456789012345", "A"]);
        check(b"12345678901234567890123456789012345\nA\n", &["too-long 123456789012345", "A"]);
        check(b"12345678901234\r\nA\n", &["12345678901234", "A"]);
        check(b"123456789012345\r\nA\n", &["too-long 123456789012345", "A"]);
    }

    #[test]
    fn telnet_commands_vanish() {
        check(b"\xff\xfb\x01PI\xff\xf1NG\n", &["PING"]);
        check(b"\xff\xfd\x0aPING\n", &["PING"]);
        check(b"\xff\xfa\x18\x00x\n\xff\xffy\xff\xf0PING\n", &["PING"]);
        check(b"\xff\xfd\x03\n\nA\n", &["A"]);
        check(b"12345678901234\xff\xfd\x03\nA\n", &["12345678901234", "A"]);
    }

    #[test]
    fn other_uses_of_iac_are_text() {
        check(b"a\xff\xffb\n", &["a\u{fffd}b"]);
        check(b"a\xff\nB\n", &["a\u{fffd}", "B"]);
    }

    #[test]
    fn an_endless_telnet_command_counts_against_the_line() {
        check(b"A\xff\xfa5678901234567890123\nB\n", &["too-long A", "B"]);
    }

    #[test]
    fn memory_is_given_back() {
        let mut decoder = LineDecoder::default();
        assert_eq!(decoder.next(b"PI", MAX), (2, None));
        assert_ne!(decoder.partial.capacity(), 0);
        assert!(decoder.next(b"NG\n", MAX).1.is_some());
        assert_eq!(decoder.next(b"", MAX), (0, None));
        assert_eq!(decoder.partial.capacity(), 0);
    }
}
