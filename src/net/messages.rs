//! What comes in on a WebSocket: bytes to messages, by the library's stream over memory.
//!
//! The stream reads from memory and writes to memory: it checks frames, puts messages together, answers pings, and
//! never waits. Between two messages there is nothing in it that has to be kept, and one stream is as good as
//! another: so a WebSocket at rest has none, and the node keeps one to use again. Where messages end is counted
//! beside it, because the stream does not tell.

use std::cell::Cell;
use std::io;
use std::io::Cursor;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, OpCode};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use smol::io::{AsyncRead, AsyncWrite};
use smol::stream::StreamExt;

/// Messages as they come in.
#[derive(Default)]
pub struct Messages {
    /// Is there while a message is under way.
    stream: Option<Box<WebSocketStream<Memory>>>,
    ends: MessageEnds,
    /// Nothing is put together any more.
    is_over: bool,
    /// The stream is not used again: it has read a long message.
    is_spoilt: bool,
}

/// A stream to use again.
#[derive(Default)]
pub struct Spare(Cell<Option<Box<WebSocketStream<Memory>>>>);

/// What a stream reads and writes.
#[derive(Default)]
struct Memory {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

/// Tells whether frames are between two messages.
#[derive(Default)]
struct MessageEnds {
    /// What is there of a header.
    header: Vec<u8>,
    /// What is to come of a payload.
    left: u64,
    /// The next frame continues a message.
    is_within: bool,
    /// A close frame has begun, or what is no frame.
    has_close: bool,
}

/// RFC 6455: 2 bytes, 8 for a long length, 4 for the mask.
const HEADER_BYTES_MAX: usize = 14;

/// A message may be as long as this and the longest line.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What the library reads at once.
const READ_BUFFER_BYTES: usize = 1024;

/// A stream that has read longer messages is not used again.
const SPARE_BYTES_MAX: usize = 16 * 1024;

impl Messages {
    /// Takes what was read.
    pub fn take_in(&mut self, input: &[u8], line_bytes_max: usize, spare: &Spare) {
        if input.is_empty() {
            return;
        }
        self.ends.pass(input);
        if self.is_over {
            return;
        }
        let new_stream = || {
            let message_bytes_max = Some(MESSAGE_BYTES_MAX + line_bytes_max);
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .write_buffer_size(0)
                .max_message_size(message_bytes_max)
                .max_frame_size(message_bytes_max);
            Box::new(now(WebSocketStream::from_raw_socket(Memory::default(), Role::Server, Some(config))))
        };
        let stream = self.stream.get_or_insert_with(|| spare.0.take().unwrap_or_else(new_stream));
        stream.get_mut().input.extend_from_slice(input);
    }

    /// The next message that is whole: its text, or the code to close with and why.
    pub fn next(&mut self) -> Option<Result<Utf8Bytes, (u16, &'static str)>> {
        let stream = self.stream.as_mut()?;
        let close = loop {
            // Nobody has to be woken: whoever has read something calls again.
            match stream.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => return None,
                Poll::Ready(Some(Ok(Message::Text(text)))) => {
                    self.is_spoilt |= text.len() > SPARE_BYTES_MAX;
                    return Some(Ok(text));
                }
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
                Poll::Ready(Some(Ok(Message::Close(frame)))) => {
                    // What it said of itself comes back.
                    break (frame.map_or(1000, |frame| u16::from(frame.code)), "");
                }
                // RFC 6455, 7.4.1.
                Poll::Ready(Some(Ok(Message::Binary(_)))) => break (1003, "a message is text"),
                Poll::Ready(Some(Err(Error::Utf8(_)))) => break (1007, "text is UTF-8"),
                Poll::Ready(Some(Err(Error::Capacity(_)))) => break (1009, "the message is too long"),
                Poll::Ready(Some(Err(_)) | None) => break (1002, "this is not the WebSocket protocol"),
            }
        };
        self.is_over = true;
        Some(Err(close))
    }

    /// Takes no note of what was read, but of the peer's close.
    pub fn skip(&mut self, input: &[u8]) {
        self.ends.pass(input);
    }

    /// Tells whether the peer's close has come.
    pub fn has_close(&self) -> bool {
        self.ends.has_close
    }

    /// Answers to pings: written at once, though the lines around them may have to wait.
    pub fn answers(&mut self, output: &mut Vec<u8>) {
        self.stream.iter_mut().for_each(|stream| output.append(&mut stream.get_mut().output));
    }

    /// No message is whole any more: appends the answers to pings, and gives the stream back if it may be.
    pub fn rest(&mut self, output: &mut Vec<u8>, spare: &Spare) {
        self.answers(output);
        if self.is_over {
            self.stream = None;
        } else if self.ends.is_between()
            && let Some(stream) = self.stream.take()
        {
            spare.0.set(Some(stream).filter(|_| !std::mem::take(&mut self.is_spoilt)));
        }
    }
}

impl MessageEnds {
    /// Takes note of what is read.
    fn pass(&mut self, mut input: &[u8]) {
        loop {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
            self.left -= count as u64;
            input = &input[count..];
            if input.is_empty() {
                return;
            }
            // Most headers come whole.
            let before = self.header.len();
            if before > 0 {
                self.header.extend(input.iter().take(HEADER_BYTES_MAX - before));
            }
            let mut header = Cursor::new(if before > 0 { &self.header } else { input });
            let (frame, length) = match FrameHeader::parse(&mut header) {
                Ok(Some(whole)) => whole,
                Ok(None) => {
                    if before == 0 {
                        self.header = input.to_vec();
                    }
                    return;
                }
                // None at all, which ends the connection.
                Err(_) => return (self.left, self.has_close) = (u64::MAX, true),
            };
            input = &input[header.position() as usize - before..];
            match frame.opcode {
                OpCode::Data(_) => self.is_within = !frame.is_final,
                OpCode::Control(Control::Close) => self.has_close = true,
                OpCode::Control(_) => {}
            }
            (self.header, self.left) = (Vec::new(), length);
        }
    }

    fn is_between(&self) -> bool {
        self.header.is_empty() && self.left == 0 && !self.is_within
    }
}

/// The result of a future that does not wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("it reads and writes memory"),
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let unread = &self.input[self.read..];
        if unread.is_empty() {
            return Poll::Pending;
        }
        let count = unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&unread[..count]);
        self.read += count;
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_message_ends_is_known_however_it_is_split() {
        let masked =
            |first: u8, length: &[u8], payload: &[u8]| [&[first], length, &[1, 2, 3, 4], payload].concat();
        let parts = [
            (masked(0x81, &[0x80 | 4], b"PING"), true),
            (masked(0x01, &[0x80 | 2], b"PI"), false),
            (masked(0x89, &[0x80], b""), false),
            (masked(0x00, &[0x80], b""), false),
            (masked(0x80, &[0x80 | 126, 0, 200], &[b'x'; 200]), true),
            (masked(0x8a, &[0x80 | 1], b"x"), true),
            (masked(0x81, &[0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 3], b"abc"), true),
        ];
        let bytes: Vec<u8> = parts.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut ends = vec![true];
        for (bytes, is_end) in &parts {
            ends.extend(vec![false; bytes.len() - 1]);
            ends.push(*is_end);
        }
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut ends_of = MessageEnds::default();
                ends_of.pass(&bytes[..first]);
                assert_eq!(ends_of.is_between(), ends[first], "cut at {first}");
                ends_of.pass(&bytes[first..second]);
                assert_eq!(ends_of.is_between(), ends[second], "cut at {first}, {second}");
            }
        }
    }
}
