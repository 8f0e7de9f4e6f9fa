//! WebSocket by hand: a client that can do what no library would.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use pinpost::proto::ServerLine;

use crate::support::{Client, DEADLINE};

/// One WebSocket connection.
pub struct Web {
    /// The socket, for whatever a decent client would not do.
    pub socket: TcpStream,
    unread: Vec<u8>,
    /// Bytes of `unread` that were heard already.
    heard: usize,
}

/// The first byte of a whole text message.
pub const TEXT: u8 = 0x81;
/// The first byte of a text message that goes on in the next frame.
pub const TEXT_BEGINS: u8 = 0x01;
/// The first byte of a frame that goes on, and does not end, a message.
pub const GOES_ON: u8 = 0x00;
/// The first byte of the last frame of a message.
pub const ENDS: u8 = 0x80;
/// The first byte of a whole binary message.
pub const BINARY: u8 = 0x82;
/// The first byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// The first byte of a ping.
pub const PING: u8 = 0x89;
/// The first byte of a pong.
pub const PONG: u8 = 0x8a;

/// The request that makes a connection a WebSocket.
pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

impl Web {
    /// Connects, and hears `HELLO`.
    pub fn connect(addr: SocketAddr) -> Self {
        let mut socket = Client::silent(addr).socket;
        socket.write_all(UPGRADE.as_bytes()).expect("the server reads");
        Web::upgraded(socket)
    }

    /// Hears the answer to an upgrade, and `HELLO`.
    pub fn upgraded(socket: TcpStream) -> Self {
        let mut web = Web { socket, unread: vec![], heard: 0 };
        let end = loop {
            if let Some(end) = memchr::memmem::find(&web.unread, b"\r\n\r\n") {
                break end;
            }
            assert!(web.fill(), "no answer to the upgrade");
        };
        let head = String::from_utf8(web.unread.drain(..end + 4).collect()).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        web.hears("HELLO pinpost 1 ");
        web
    }

    /// Connects, and logs in as `user`.
    pub fn login(addr: SocketAddr, user: &str) -> Self {
        let mut web = Web::connect(addr);
        web.say(&format!("LOGIN {user}"));
        web.hears(&format!("OK {user} "));
        web
    }

    /// Says one line, or several with LF between them, as one message.
    pub fn say(&mut self, lines: &str) {
        self.frame(TEXT, lines.as_bytes());
    }

    /// Sends one masked frame.
    pub fn frame(&mut self, first: u8, payload: &[u8]) {
        self.raw(&frame(first, payload));
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// The first byte and the payload of the next frame; `None` when the server has closed.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let unread = &self.unread[self.heard..];
            if let Some((header, length)) = header(unread)
                && unread.len() >= header + length
            {
                let (first, payload) = (unread[0], unread[header..header + length].to_vec());
                self.heard += header + length;
                if first == TEXT {
                    let line = std::str::from_utf8(&payload).expect("the server says UTF-8");
                    assert!(ServerLine::parse(line).is_some(), "not a line of the protocol: {line:?}");
                }
                return Some((first, payload));
            }
            self.unread.drain(..std::mem::take(&mut self.heard));
            if !self.fill() {
                assert!(self.unread.is_empty(), "the connection ended within a frame: {:?}", self.unread);
                return None;
            }
        }
    }

    /// The next line, which must come.
    pub fn hear(&mut self) -> String {
        let (first, payload) = self.next().expect("the server goes on talking");
        assert_eq!(first, TEXT, "a frame that is no text: {payload:?}");
        String::from_utf8(payload).expect("checked before")
    }

    /// Hears one line, which must begin so.
    pub fn hears(&mut self, start: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(start), "{line:?} instead of {start:?}");
        line
    }

    /// Hears a close frame with this code, and then the end.
    pub fn is_closed(&mut self, code: u16) {
        assert_eq!(self.next(), Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(self.next(), None);
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the server said nothing for {DEADLINE:?}: {error}"),
        }
    }
}

/// A masked frame, as a client sends it.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x3e];
    let mut out = frame_header(first, payload.len() as u64);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// The header of a masked frame, up to its mask.
pub fn frame_header(first: u8, length: u64) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    let mut out = vec![first];
    match length {
        0..=125 => out.push(MASKED | length as u8),
        126..=0xffff => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out
}

/// The lengths of the header and the payload of a server's frame.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [_, 127, ..] => {
            let length = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            Some((10, usize::try_from(length).expect("a frame of the server is short")))
        }
        [_, 126, high, low, ..] => Some((4, usize::from(u16::from_be_bytes([high, low])))),
        [_, 126, ..] => None,
        [_, length, ..] => Some((2, usize::from(length))),
        _ => None,
    }
}
