//! Bytes to lines: LF, an optional CR, telnet commands, and the length bound.
//!
//! The decoder keeps only what one unfinished line needs, gives that memory
//! back when the line ends, and answers the same however its input is split.
//! A line that lies whole in the input is handed out without a copy. Whether a
//! line is UTF-8 and free of control characters is the next step's business
//! (`request`), so that a bad line can still be answered under its tag.
//!
//! A node's decoder looks twice at the first line: a byte order mark is dropped, and what was meant for another kind
//! of server is told apart, because lines may stand behind it (a web page can send any to any port). A client's
//! decoder, [`LineDecoder::of_server`], knows neither that nor telnet.

use memchr::memchr2;

use crate::proto::verb::Verb;

/// What the decoder found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its line ending; never empty.
    Whole(&'a [u8]),
    /// A line over the bound, with the part that was kept of it (its tag is in
    /// there). Told once; the rest of the line is skipped.
    TooLong(&'a [u8]),
    /// The last line, which has no end.
    Cut(&'a [u8]),
    /// The first line, or what is there of it: it is for another kind of server (see [`foreign`]).
    Foreign(&'a [u8]),
    /// No line: the bytes that answer a telnet command.
    Telnet(&'a [u8]),
}

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct LineDecoder {
    /// The unfinished line, telnet commands taken out. Never longer than the bound.
    partial: Vec<u8>,
    /// Bytes of an unfinished telnet subnegotiation, which count against the line.
    telnet_bytes: u32,
    state: State,
    /// What comes up to the next LF belongs to a line that was too long.
    skips: bool,
    /// Set when `partial` was handed out: the next call empties it first.
    handed_out: bool,
    /// The first line was handed out.
    has_begun: bool,
    is_plain: bool,
    /// To the last telnet command that had one.
    answer: [u8; 3],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After IAC.
    Command,
    /// After IAC DO, WILL, DONT or WONT, the byte here: one option byte.
    Option(u8),
    /// After IAC SB: everything up to IAC SE.
    Subnegotiation,
    /// After an IAC within a subnegotiation.
    SubnegotiationCommand,
}

/// "Interpret as command" (RFC 854), and the first command: the end of a file (RFC 1184), as Ctrl-D sends it.
const IAC: u8 = 255;
const EOF: u8 = 236;
const SE: u8 = 240;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;

/// Begins what some editors write.
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl LineDecoder {
    /// One for what a server says.
    pub fn of_server() -> Self {
        LineDecoder { has_begun: true, is_plain: true, ..LineDecoder::default() }
    }

    /// Reads `input` up to the end of one line, and tells how many bytes of it
    /// were used and the line, if one ended. `line_bytes_max` counts the LF.
    /// Empty lines are passed over.
    pub fn next<'a>(&'a mut self, input: &'a [u8], line_bytes_max: usize) -> (usize, Option<Line<'a>>) {
        self.forget();
        let mut start = 0;
        if self.partial.is_empty() && self.state == State::Text && self.has_begun && !self.skips {
            // The usual case: whole lines in the input, nothing to remove from them.
            while let Some(length) = self.find_end(&input[start..]) {
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
        }
        let (used, found) = self.assemble(&input[start..], line_bytes_max);
        (start + used, self.line(found))
    }

    /// The peer has ended: what there is of a last line.
    pub fn rest(&mut self) -> Option<Line<'_>> {
        self.forget();
        self.skip_mark();
        let line = without_cr(&self.partial);
        (!self.skips && !line.is_empty()).then_some(Line::Cut(line))
    }

    fn forget(&mut self) {
        if std::mem::take(&mut self.handed_out) {
            self.partial = Vec::new();
        }
    }

    /// Where the next LF is, or IAC.
    fn find_end(&self, input: &[u8]) -> Option<usize> {
        memchr2(b'\n', if self.is_plain { b'\n' } else { IAC }, input)
    }

    /// Appends to the unfinished line until it ends.
    fn assemble(&mut self, input: &[u8], line_bytes_max: usize) -> (usize, Found) {
        let mut at = 0;
        while at < input.len() {
            if self.state != State::Text {
                let (used, answer) = self.telnet(input[at]);
                at += usize::from(used);
                if let Some(answer) = answer {
                    self.answer = answer;
                    return (at, Found::Answer);
                }
                if self.partial.len() + self.telnet_bytes as usize > line_bytes_max - 1 {
                    (self.telnet_bytes, self.state) = (0, State::Text);
                    if !std::mem::replace(&mut self.skips, true) {
                        return (at, Found::TooLong);
                    }
                }
                continue;
            }
            let end = self.find_end(&input[at..]).map_or(input.len(), |n| at + n);
            if !self.skips {
                // One byte of the bound belongs to the LF.
                let room = (line_bytes_max - 1).saturating_sub(self.partial.len());
                if end - at > room {
                    self.partial.extend_from_slice(&input[at..at + room]);
                    self.skips = true;
                    return (at + room, Found::TooLong);
                }
                self.partial.extend_from_slice(&input[at..end]);
            }
            at = input.len().min(end + 1);
            match input.get(end) {
                Some(b'\n') if std::mem::take(&mut self.skips) => {}
                Some(b'\n') if !matches!(&self.partial[..], b"" | b"\r") => return (at, Found::Whole),
                Some(b'\n') => self.partial = Vec::new(),
                Some(_) => self.state = State::Command,
                None => {}
            }
        }
        (at, Found::Nothing)
    }

    /// Takes one byte of a telnet command, and tells whether it was part of it, and what answers it: every option is
    /// refused, so that a client which waits for an answer goes on.
    fn telnet(&mut self, byte: u8) -> (bool, Option<[u8; 3]>) {
        let mut answer = None;
        self.state = match (self.state, byte) {
            (State::Command, WILL..=DONT) => State::Option(byte),
            (State::Command, SB) => State::Subnegotiation,
            (State::Command, EOF..=DONT) => State::Text,
            // IAC IAC stands for the byte 255, and IAC before a byte that is no command is
            // no command either: both are text that is not UTF-8.
            (State::Command, _) => {
                if !self.skips {
                    self.partial.push(IAC);
                }
                self.state = State::Text;
                return (byte == IAC, None);
            }
            (State::Option(command), option) => {
                answer = match command {
                    DO => Some([IAC, WONT, option]),
                    WILL => Some([IAC, DONT, option]),
                    _ => None,
                };
                State::Text
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
        (true, answer)
    }

    fn line(&mut self, found: Found) -> Option<Line<'_>> {
        match found {
            Found::Answer => return Some(Line::Telnet(&self.answer)),
            // Its length is not given by an LF.
            Found::Nothing if self.has_begun || !self.partial.starts_with(TLS) => return None,
            _ => {}
        }
        self.skip_mark();
        self.handed_out = true;
        let is_foreign = !std::mem::replace(&mut self.has_begun, true) && foreign(&self.partial).is_some();
        let line = without_cr(&self.partial);
        match found {
            _ if is_foreign => Some(Line::Foreign(&self.partial)),
            Found::TooLong => Some(Line::TooLong(&self.partial)),
            _ => (!line.is_empty()).then_some(Line::Whole(line)),
        }
    }

    /// Drops the byte order mark at the start.
    fn skip_mark(&mut self) {
        if !self.has_begun && self.partial.starts_with(BYTE_ORDER_MARK) {
            self.partial.drain(..BYTE_ORDER_MARK.len());
        }
    }
}

enum Found {
    Nothing,
    Whole,
    TooLong,
    Answer,
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What a first line is that is meant for another kind of server, as a sentence for whoever sent it.
pub fn foreign(line: &[u8]) -> Option<&'static str> {
    if line.starts_with(TLS) {
        return Some("these are bytes of TLS, and this port takes plain lines");
    }
    // The newer header begins with the lines "", "", "\0" and "QUIT".
    if line.starts_with(b"PROXY ") || without_cr(line) == b"\0" {
        return Some("this is a PROXY header, and this port expects none");
    }
    let space = memchr::memchr(b' ', line)?;
    let (method, target) = (&line[..space], &line[space + 1..]);
    let is_method = method.iter().all(u8::is_ascii_uppercase);
    let is_ours = std::str::from_utf8(method).is_ok_and(|word| Verb::parse(word).is_some());
    let is_target = target.starts_with(b"/") || memchr::memmem::find(target, b" HTTP/").is_some();
    let is_http = is_method && is_target && !is_ours;
    is_http.then_some("this is an HTTP request, and this port takes lines; HTTP has a port of its own")
}

/// How a handshake of TLS begins: the kind of its record, and the version.
const TLS: &[u8] = &[0x16, 3];

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16;

    /// What comes out of `chunks`.
    fn decode(mut decoder: LineDecoder, chunks: &[&[u8]]) -> Vec<String> {
        let mut out = vec![];
        let mut take = |line: Line<'_>| {
            out.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Line::TooLong(head) => format!("too-long {}", String::from_utf8_lossy(head)),
                Line::Cut(line) => format!("cut {}", String::from_utf8_lossy(line)),
                // Where it is found out depends on how it comes.
                Line::Foreign(line) => format!("foreign {}", foreign(line).expect("as it was told")),
                Line::Telnet(answer) => format!("telnet {answer:?}"),
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
        decoder.rest().into_iter().for_each(take);
        out
    }

    /// One input, every split in two, and one byte at a time: always the same.
    fn check(input: &[u8], expected: &[&str]) {
        let decode = |chunks: &[&[u8]]| decode(LineDecoder::default(), chunks);
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
    fn telnet_commands_vanish_and_options_are_refused() {
        check(b"\xff\xfb\x01PI\xff\xf1NG\n", &["telnet [255, 254, 1]", "PING"]);
        check(b"PI\xff\xfd\x0aNG\n", &["telnet [255, 252, 10]", "PING"]);
        check(b"\xff\xfa\x18\x00x\n\xff\xffy\xff\xf0PING\n", &["PING"]);
        check(b"\xff\xfc\x03\xff\xfe\x03\n\nA\n", &["A"]);
        check(b"12345678901234\xff\xfd\x03\nA\n", &["telnet [255, 252, 3]", "12345678901234", "A"]);
        // Ctrl-D, Ctrl-Z and Ctrl-\, and Ctrl-C with its urgent byte.
        check(b"A\xff\xec\n\xff\xedB\xff\xee\n", &["A", "B"]);
        check(b"\xff\xf4\xff\xf2\xff\xfd\x06A\n", &["telnet [255, 252, 6]", "A"]);
        // Also in what is skipped.
        check(
            b"1234567890123456\xff\xfd\x06x\nA\n",
            &["too-long 123456789012345", "telnet [255, 252, 6]", "A"],
        );
    }

    #[test]
    fn other_uses_of_iac_are_text() {
        check(b"a\xff\xffb\n", &["a\u{fffd}b"]);
        check(b"a\xff\nB\n", &["a\u{fffd}", "B"]);
    }

    #[test]
    fn an_endless_telnet_command_counts_against_the_line() {
        check(b"A\xff\xfa5678901234567890123\nB\n", &["too-long A", "B"]);
        check(b"A\xff\xfa5678901234567890123\xff\xfa5678901234567890123\nB\n", &["too-long A", "B"]);
    }

    #[test]
    fn a_last_line_without_lf_is_cut() {
        check(b"A\nB", &["A", "cut B"]);
        check(b"A\r", &["cut A"]);
        check(b"A\n\r", &["A"]);
        check(b"1234567890123456", &["too-long 123456789012345"]);
        check(b"A\xff\xfd", &["cut A"]);
    }

    #[test]
    fn a_byte_order_mark_at_the_start_is_dropped() {
        check("\u{feff}A\n\u{feff}B\n".as_bytes(), &["A", "\u{feff}B"]);
        check("\u{feff}\r\nA\n".as_bytes(), &["A"]);
        check("\u{feff}\n\u{feff}A\n".as_bytes(), &["\u{feff}A"]);
        check("\u{feff}".as_bytes(), &[]);
        check("\u{feff}A".as_bytes(), &["cut A"]);
        check(b"\xef\xbb\n", &["\u{fffd}"]);
    }

    #[test]
    fn a_first_line_for_another_server_is_told_apart() {
        let http = "foreign this is an HTTP request, and this port takes lines; HTTP has a port of its own";
        let tls = "foreign these are bytes of TLS, and this port takes plain lines";
        let proxy = "foreign this is a PROXY header, and this port expects none";
        check(b"GET / HTTP/1.1\r\n", &[http]);
        check(b"\r\nPOST /x\nA\n", &[http, "A"]);
        check(b"GET /3456789012345678\nA\n", &[http, "A"]);
        check(b"PRI * HTTP/2.0\n", &[http]);
        check("\u{feff}GET /\n".as_bytes(), &[http]);
        check(b"\x16\x03", &[tls]);
        check(b"PROXY UNKNOWN\r\nA\n", &[proxy, "A"]);
        check(b"\r\n\r\n\0\r\nQUIT\n", &[proxy, "QUIT"]);
        // Not behind another one, and not what is a request here.
        for line in ["PING / HTTP/1.1", "send /bob", "foo /bar", "GET", "@t GET / HT"] {
            check(format!("{line}\nGET / HTTP/1.1\n").as_bytes(), &[line, "GET / HTTP/1.1"]);
        }
    }

    #[test]
    fn a_client_hears_every_byte() {
        let bytes = b"\xef\xbb\xbfGET /\xff\xfd\x06\r\n\xff\n";
        let heard = decode(LineDecoder::of_server(), &[bytes]);
        assert_eq!(heard, [String::from_utf8_lossy(&bytes[..bytes.len() - 4]), "\u{fffd}".into()]);
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
