//! A WebSocket: messages to lines, and lines to messages.
//!
//! What comes in is put together by the library (`messages.rs`), and never waits for what goes out, so that a peer that
//! does not read is still heard.
//!
//! Outgoing lines are framed here, with the library's headers: its stream sends nothing behind a close frame of the
//! peer, but replies that are due still come. They stay in the node's outbox until their frames are written; of a
//! line that was begun, the rest is kept here.

use std::io;
use std::time::Instant;

use crate::net::connection::{ConnectionTask, Hear, Paused, Wire};
use crate::net::driver::{Driver, Left};
use crate::net::messages::Messages;
use crate::node::route::Flow;
use crate::node::state::Node;
use crate::proto::line::{BYTE_ORDER_MARK, Line};
use crate::proto::reply::CloseReason;
use async_tungstenite::tungstenite::Utf8Bytes;
use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A WebSocket after its handshake.
#[derive(Default)]
pub struct WebSocket {
    messages: Messages,
    /// A message whose lines are heard, and how far that is.
    message: Option<(Utf8Bytes, usize)>,
    /// The first message has come.
    has_begun: bool,
    /// What is written beside the outbox: the rest of a frame that was begun, and answers to pings.
    output: Vec<u8>,
    /// Bytes of the outbox whose frame was begun and is not written whole.
    begun: usize,
    /// The peer has said its last word, or one that is not taken: the code to close with, and why.
    close: Option<(u16, &'static str)>,
    /// The peer has no last word to say.
    is_answer: bool,
    /// The close frame was begun: nothing comes behind it.
    is_closed: bool,
}

/// With this much to write a WebSocket is not read: answers to pings that nobody reads. The rest of a line has room in
/// it.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// What is framed at once, or one line if that is longer.
const FRAMES_BYTES: usize = 16 * 1024;

impl WebSocket {
    /// A WebSocket whose request is to be answered with `response`, and behind which `input` was read.
    pub fn new(driver: &Driver, response: Vec<u8>, input: &[u8]) -> Self {
        let mut websocket = WebSocket { output: response, ..WebSocket::default() };
        websocket.messages.take_in(input, driver.line_bytes_max, &driver.spare);
        websocket
    }

    /// One that never becomes a WebSocket: it says this, and nothing else.
    pub fn answered(response: Vec<u8>) -> Self {
        WebSocket { output: response, is_closed: true, is_answer: true, ..WebSocket::default() }
    }

    /// Puts together what to write: what is left from before, lines of the outbox, and at the end the close frame.
    /// Returns how many bytes come before the lines, and how many of the outbox are framed.
    fn frame(&mut self, outbox: &[u8], ending: Option<CloseReason>, frames: &mut Vec<u8>) -> (usize, usize) {
        frames.clear();
        frames.append(&mut self.output);
        let (before, mut framed) = (frames.len(), 0);
        // Behind a line that was begun comes nothing before that is written.
        let is_open = self.begun == 0 && !self.is_closed;
        while is_open && framed < outbox.len() && frames.len() < FRAMES_BYTES {
            let line = line_bytes(&outbox[framed..]);
            put_frame(OpCode::Data(Data::Text), &outbox[framed..framed + line - 1], frames);
            framed += line;
        }
        if let Some(ending) = ending.filter(|_| is_open && framed == outbox.len()) {
            put_frame(OpCode::Control(Control::Close), &self.last_words(ending), frames);
        }
        (before, framed)
    }

    /// So much was written of the frames, before which came `before` bytes; `lines` is what they hold of the outbox.
    /// What was not begun stays there. Returns how much of it is written now, and how much is begun.
    fn wrote(&mut self, count: usize, frames: &[u8], before: usize, lines: &[u8]) -> (usize, usize) {
        let (mut end, mut written, mut begun) = (before, 0, 0);
        while end < count && written < lines.len() && begun == 0 {
            let line = line_bytes(&lines[written..]);
            end += FrameHeader::default().len(line as u64 - 1) + line - 1;
            if end > count { begun = line } else { written += line }
        }
        if end < count {
            (end, self.is_closed) = (frames.len(), true);
        }
        self.output = frames[count.min(end)..end].to_vec();
        if count >= before {
            written += std::mem::replace(&mut self.begun, begun);
        }
        (written, begun)
    }

    /// What a close frame says: a code, and why, as `BYE` says it.
    fn last_words(&self, ending: CloseReason) -> Vec<u8> {
        let said = |ending: CloseReason| format!("{} {}", ending.word(), ending.text()).trim_end().to_owned();
        let (code, why) = match (self.close, ending) {
            (Some((code, why)), _) => (code, why.to_owned()),
            // RFC 6455, 7.4.1: normal, going away, policy.
            (None, CloseReason::Quit) => (1000, said(ending)),
            (None, CloseReason::Draining) => (1001, said(ending)),
            (None, _) => (1008, said(ending)),
        };
        [&code.to_be_bytes()[..], why.as_bytes()].concat()
    }
}

impl Wire for WebSocket {
    fn hear(&mut self, driver: &Driver, input: &[u8], hear: Hear<'_>) -> Option<Box<Paused>> {
        let max = driver.line_bytes_max;
        self.messages.take_in(input, max, &driver.spare);
        while self.close.is_none() {
            let Some((text, used)) = &mut self.message else {
                match self.messages.next() {
                    None => break,
                    Some(Ok(text)) => {
                        let is_marked = !self.has_begun && text.as_bytes().starts_with(BYTE_ORDER_MARK);
                        self.has_begun = true;
                        self.message = Some((text, if is_marked { BYTE_ORDER_MARK.len() } else { 0 }));
                    }
                    Some(Err(code)) => self.close = Some(code),
                }
                continue;
            };
            let rest = &text.as_bytes()[*used..];
            if rest.is_empty() {
                self.message = None;
                continue;
            }
            // The end of a message is the end of its last line.
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            *used += rest.len().min(length + 1);
            let line = match rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]) {
                [] => continue,
                _ if length + 1 > max => Line::TooLong(&rest[..max - 1]),
                line => Line::Whole(line),
            };
            if hear(line) == Flow::Wait {
                self.messages.answers(&mut self.output);
                return Some(Paused::new(line, &[]));
            }
        }
        self.messages.rest(&mut self.output, &driver.spare);
        None
    }

    fn write(
        &mut self,
        to: &ConnectionTask,
        (node, now): (&mut Node, Instant),
        ending: Option<CloseReason>,
    ) -> io::Result<Left> {
        let frames = &mut to.driver.frames.borrow_mut();
        let outbox = node.outbox(to.id);
        let (before, framed) = self.frame(outbox, ending, frames);
        let is_last = self.is_closed || (self.begun == 0 && framed == outbox.len());
        let count = to.driver.write(to.id, frames)?;
        let (written, begun) = self.wrote(count, frames, before, &outbox[..framed]);
        if count > 0 {
            node.written(to.id, written, now);
        }
        node.took(to.id, begun);
        if count < frames.len() {
            node.blocks(to.id, now);
            return Ok(Left::Blocked);
        }
        Ok(if is_last { Left::Nothing } else { Left::More })
    }

    fn has_frames(&self, outbox: &[u8]) -> bool {
        !self.output.is_empty() || !(outbox.is_empty() || self.is_closed)
    }

    fn takes_more(&self) -> bool {
        self.output.len() < OUTPUT_BYTES_MAX
    }

    fn is_closed(&self) -> bool {
        self.close.is_some()
    }

    fn ping(&mut self) {
        put_frame(OpCode::Control(Control::Ping), &[], &mut self.output);
    }

    fn has_parted(&mut self, input: &[u8]) -> bool {
        self.messages.skip(input);
        self.is_answer || self.messages.has_close()
    }
}

/// The length of the first line, its LF included.
fn line_bytes(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |length| length + 1)
}

fn put_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("a vector takes every write");
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIT: Option<CloseReason> = Some(CloseReason::Quit);

    fn framed(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        put_frame(opcode, payload, &mut out);
        out
    }

    /// Writes an outbox to a socket that takes `sizes` bytes in turn, with a pong before, and one in the middle.
    fn write_all(outbox: &[u8], sizes: &[usize]) -> (Vec<u8>, usize) {
        let pong = framed(OpCode::Control(Control::Pong), b"x");
        let mut websocket = WebSocket { output: pong.clone(), ..WebSocket::default() };
        let (mut peer, mut frames, mut written, mut taken, mut pongs) = (vec![], vec![], 0, 0, 1);
        for size in sizes.iter().cycle() {
            // What a node keeps: written, begun, and what waits behind that.
            let (before, count) = websocket.frame(&outbox[written + taken..], QUIT, &mut frames);
            let size = frames.len().min(*size);
            peer.extend_from_slice(&frames[..size]);
            let lines = &outbox[written + taken..][..count];
            let (now, begun) = websocket.wrote(size, &frames, before, lines);
            written += now;
            taken = if begun > 0 || now == 0 { taken.max(begun) } else { 0 };
            assert!(written + taken <= outbox.len());
            if pongs == 1 && written > 0 && !websocket.is_closed {
                websocket.output.extend_from_slice(&pong);
                pongs = 2;
            }
            if websocket.is_closed && websocket.output.is_empty() {
                break;
            }
        }
        (peer, written)
    }

    #[test]
    fn whatever_a_socket_takes_the_peer_gets_whole_frames_in_order() {
        let lines = [&b"HELLO"[..], &[b'x'; 125], &[b'y'; 126], b"", &[b'z'; 3000], b"BYE quit"];
        let outbox = [&lines.join(&b'\n')[..], b"\n"].concat();
        let pong = framed(OpCode::Control(Control::Pong), b"x");
        let mut expected: Vec<Vec<u8>> =
            lines.iter().map(|line| framed(OpCode::Data(Data::Text), line)).collect();
        expected.push(framed(OpCode::Control(Control::Close), b"\x03\xe8quit"));
        for sizes in [&[1][..], &[2], &[3, 0], &[7, 1], &[127], &[128, 5], &[1000, 1], &[3500], &[9000]] {
            let (peer, written) = write_all(&outbox, sizes);
            assert_eq!(written, outbox.len(), "{sizes:?}");
            let mut rest = &peer[..];
            let mut pongs = 0;
            for frame in &expected {
                while let Some(behind) = rest.strip_prefix(&pong[..]) {
                    rest = behind;
                    pongs += 1;
                }
                rest = rest.strip_prefix(&frame[..]).unwrap_or_else(|| panic!("{sizes:?}: {rest:?}"));
            }
            assert!(rest.is_empty() && (1..=2).contains(&pongs), "{sizes:?}: {rest:?}");
        }
    }
}
