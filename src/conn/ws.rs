//! WebSocket frames to lines, without keeping frames.
//!
//! The library behind this (`async-tungstenite`) buffers whole messages: its
//! smallest idle connection costs 1.4 KB, and a message over its bound ends the
//! connection. Here the payload is unmasked where it was read and goes straight
//! to the line decoder, so that a line over the bound is skipped as on TCP, and
//! an idle connection costs next to nothing. Headers are still parsed and
//! printed by the library. Outgoing lines are framed by the outbox.

use std::io::Cursor;
use std::ops::ControlFlow;

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::conn::Heard;
use crate::proto::LineDecoder;

/// Splits a stream of client frames into lines and control frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    lines: LineDecoder,
    /// The header in progress.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    frame: Option<Frame>,
    /// A text message is in progress: the next data frame continues it.
    within_message: bool,
    /// Bytes at the front of the input that are unmasked text already.
    plain_bytes: usize,
    /// The payload of a control frame in progress.
    control: Vec<u8>,
}

/// A frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    is_final: bool,
    mask: [u8; 4],
    /// Payload bytes still to come.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Ping,
    Pong,
    Close,
}

/// RFC 6455: 2 bytes, 8 for a long length, 4 for the mask.
const HEADER_BYTES_MAX: usize = 14;

/// RFC 6455, 5.5: the most a control frame may carry.
const CONTROL_BYTES_MAX: u64 = 125;

impl FrameDecoder {
    /// Reads `input`, unmasking it in place, and hands what it finds to `hear`
    /// until that breaks. Returns how many bytes were used; the rest, as it then
    /// is, must come first next time.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        line_bytes_max: usize,
        mut hear: impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> usize {
        let mut at = 0;
        loop {
            let step = if self.plain_bytes > 0 {
                self.text(&input[at..], &mut at, line_bytes_max, &mut hear)
            } else if let Some(frame) = self.frame {
                if frame.left == 0 {
                    self.end_frame(frame, &mut hear)
                } else if at == input.len() {
                    return at;
                } else {
                    self.payload(frame, &mut input[at..], &mut at);
                    ControlFlow::Continue(())
                }
            } else if at == input.len() {
                return at;
            } else {
                self.header(input[at], &mut hear, &mut at)
            };
            if step.is_break() {
                return at;
            }
        }
    }

    /// Takes one line out of the text that is unmasked already.
    fn text(
        &mut self,
        input: &[u8],
        at: &mut usize,
        line_bytes_max: usize,
        hear: &mut impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (used, line) = self.lines.next(&input[..self.plain_bytes], line_bytes_max);
        *at += used;
        self.plain_bytes -= used;
        line.map_or(ControlFlow::Continue(()), |line| hear(Heard::Line(line)))
    }

    /// Takes one byte of a header; byte by byte is simple, and headers are short.
    fn header(
        &mut self,
        byte: u8,
        hear: &mut impl FnMut(Heard<'_>) -> ControlFlow<()>,
        at: &mut usize,
    ) -> ControlFlow<()> {
        *at += 1;
        self.header[self.header_bytes] = byte;
        self.header_bytes += 1;
        let parsed = FrameHeader::parse(&mut Cursor::new(&self.header[..self.header_bytes]));
        let Ok(Some((header, length))) = parsed else {
            // A header that is too short is `Ok(None)`; an error is an opcode that does not exist.
            return if parsed.is_ok() { ControlFlow::Continue(()) } else { hear(PROTOCOL_ERROR) };
        };
        self.header_bytes = 0;
        match self.begin_frame(&header, length) {
            Ok(frame) => {
                self.frame = Some(frame);
                ControlFlow::Continue(())
            }
            Err(code) => hear(Heard::Broken(code)),
        }
    }

    /// Checks a header against RFC 6455 and against what pinpost takes.
    fn begin_frame(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, u16> {
        let protocol = u16::from(CloseCode::Protocol);
        let (Some(mask), false) = (header.mask, header.rsv1 || header.rsv2 || header.rsv3) else {
            return Err(protocol);
        };
        let kind = match header.opcode {
            OpCode::Data(Data::Text) if !self.within_message => Kind::Text,
            OpCode::Data(Data::Continue) if self.within_message => Kind::Text,
            OpCode::Data(Data::Binary) if !self.within_message => {
                return Err(u16::from(CloseCode::Unsupported));
            }
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Data(_) | OpCode::Control(_) => return Err(protocol),
        };
        if kind == Kind::Text {
            self.within_message = !header.is_final;
        } else if length > CONTROL_BYTES_MAX || !header.is_final {
            return Err(protocol);
        }
        Ok(Frame { kind, is_final: header.is_final, mask, left: length })
    }

    /// Unmasks as much of the payload as is there.
    fn payload(&mut self, mut frame: Frame, input: &mut [u8], at: &mut usize) {
        let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
        let payload = &mut input[..length];
        for four in payload.chunks_mut(4) {
            four.iter_mut().zip(frame.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        frame.mask.rotate_left(length % 4);
        frame.left -= length as u64;
        self.frame = Some(frame);
        if frame.kind == Kind::Text {
            self.plain_bytes = length;
        } else {
            self.control.extend_from_slice(payload);
            *at += length;
        }
    }

    fn end_frame(
        &mut self,
        frame: Frame,
        hear: &mut impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.frame = None;
        if frame.kind == Kind::Text {
            let line = if frame.is_final { self.lines.end() } else { None };
            return line.map_or(ControlFlow::Continue(()), |line| hear(Heard::Line(line)));
        }
        let control = std::mem::take(&mut self.control);
        match frame.kind {
            Kind::Ping => hear(Heard::Ping(&control)),
            Kind::Close => hear(match control[..] {
                [] => Heard::Close(None),
                // RFC 6455, 7.4: the codes that may be sent.
                [a, b, ..] => match u16::from_be_bytes([a, b]) {
                    code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Heard::Close(Some(code)),
                    _ => PROTOCOL_ERROR,
                },
                [_] => PROTOCOL_ERROR,
            }),
            Kind::Pong | Kind::Text => ControlFlow::Continue(()),
        }
    }
}

const PROTOCOL_ERROR: Heard<'static> = Heard::Broken(1002);

/// The bytes of a `PONG` frame.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    control(Control::Pong, payload)
}

/// The bytes of a close frame.
pub fn close(code: u16) -> Vec<u8> {
    control(Control::Close, &code.to_be_bytes())
}

fn control(opcode: Control, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Control(opcode), ..FrameHeader::default() };
    let mut frame = Vec::with_capacity(2 + payload.len());
    header.format(payload.len() as u64, &mut frame).expect("a vector takes every write");
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Line;

    const MAX: usize = 16;

    /// A masked client frame. `first` is the header's first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x80, 0xff, 0x07];
        let mut out = vec![first];
        match payload.len() {
            short @ 0..=125 => out.push(0x80 | short as u8),
            long => {
                out.push(0x80 | 126);
                out.extend((long as u16).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn decode(chunks: &[&[u8]], break_always: bool) -> Vec<String> {
        let mut decoder = FrameDecoder::default();
        let mut heard = vec![];
        for chunk in chunks {
            let mut rest = chunk.to_vec();
            loop {
                let before = heard.len();
                let used = decoder.feed(&mut rest, MAX, |what| {
                    heard.push(match what {
                        Heard::Line(Line::Whole(line)) => String::from_utf8_lossy(line).into_owned(),
                        Heard::Line(Line::TooLong(_)) => "too-long".to_owned(),
                        Heard::Ping(payload) => format!("ping {}", payload.len()),
                        Heard::Close(code) => format!("close {code:?}"),
                        Heard::Broken(code) => format!("broken {code}"),
                    });
                    if break_always { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                rest.drain(..used);
                if heard.len() == before || heard.last().is_some_and(|last| last.starts_with("broken")) {
                    break;
                }
            }
        }
        heard
    }

    /// Whole, in two at every place, by bytes; with and without a break after each.
    fn check(input: &[u8], expected: &[&str]) {
        for break_always in [false, true] {
            assert_eq!(decode(&[input], break_always), expected, "{input:?} whole");
            for at in 0..=input.len() {
                let (a, b) = input.split_at(at);
                assert_eq!(decode(&[a, b], break_always), expected, "{input:?} split at {at}");
            }
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(decode(&bytes, break_always), expected, "{input:?} by bytes");
        }
    }

    #[test]
    fn lines_of_one_message_and_of_many() {
        check(&frame(0x81, b"PING"), &["PING"]);
        check(&frame(0x81, b"A\nB\r\n\nC"), &["A", "B", "C"]);
        check(&frame(0x81, b""), &[]);
        check(&[frame(0x81, b"A\n"), frame(0x81, b"B")].concat(), &["A", "B"]);
        check(&frame(0x81, b"a line of more than 16 bytes\nB"), &["too-long", "B"]);
        let long = [vec![b'x'; 300], b"\nB".to_vec()].concat();
        check(&frame(0x81, &long), &["too-long", "B"]);
    }

    #[test]
    fn fragments_and_what_comes_between() {
        let parts = [
            frame(0x01, b"PI"),
            frame(0x89, b"now"),
            frame(0x00, b""),
            frame(0x80, b"NG"),
            frame(0x8a, b"x"),
        ];
        check(&parts.concat(), &["ping 3", "PING"]);
        check(&frame(0x88, &[0x03, 0xe8, b'x']), &["close Some(1000)"]);
        check(&frame(0x88, b""), &["close None"]);
        check(&frame(0x88, &[0x0f, 0xa0]), &["close Some(4000)"]);
    }

    #[test]
    fn what_breaks_the_protocol() {
        let unmasked = [0x81, 1, b'A'];
        let unfinished = [frame(0x01, b"A"), frame(0x81, b"B")].concat();
        for (input, code) in [
            (&unmasked[..], 1002),
            (&frame(0xc1, b"A"), 1002),
            (&frame(0x83, b"A"), 1002),
            (&frame(0x80, b"A"), 1002),
            (&frame(0x09, b"A"), 1002),
            (&frame(0x89, &[0; 126]), 1002),
            (&unfinished, 1002),
            (&frame(0x88, &[0x03]), 1002),
            (&frame(0x88, &[0x03, 0xed]), 1002),
            (&frame(0x82, b"A"), 1003),
        ] {
            assert_eq!(decode(&[input], true), [format!("broken {code}")], "{input:?}");
        }
    }

    #[test]
    fn control_frames() {
        assert_eq!(pong(b"ab"), [0x8a, 2, b'a', b'b']);
        assert_eq!(close(1000), [0x88, 2, 0x03, 0xe8]);
    }
}
