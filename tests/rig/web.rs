//! WebSocket by hand: a peer that can do what no library would.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::peer::server_line;
use super::socket::Socket;

/// One WebSocket connection.
pub struct Web {
    socket: Socket,
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
    /// Connects, and says nothing yet.
    pub fn silent(addr: SocketAddr) -> Self {
        Web { socket: Socket::open(addr).expect("the node accepts") }
    }

    /// Connects, and hears `HELLO`.
    pub fn connect(addr: SocketAddr) -> Self {
        let mut web = Web::silent(addr);
        web.raw(UPGRADE.as_bytes());
        web.hears_upgrade();
        web
    }

    /// Hears the answer to an upgrade, and `HELLO`.
    pub fn hears_upgrade(&mut self) {
        self.socket.begin();
        let end = loop {
            if let Some(end) = memchr::memmem::find(self.socket.unread(), b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill(), "no answer to the upgrade");
        };
        let head = String::from_utf8(self.socket.take(end + 4)).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self.hears_start("HELLO pinpost 1 ");
    }

    /// Connects, and logs in as `user`.
    pub fn login(addr: SocketAddr, user: &str) -> Self {
        let mut web = Web::connect(addr);
        web.say(&format!("LOGIN {user}"));
        web.hears_start(&format!("OK {user} "));
        web
    }

    /// Nothing comes, not even the end, for as long as it is patient.
    pub fn is_quiet(&mut self) -> bool {
        self.socket.begin();
        self.socket.unread().is_empty()
            && self.socket.fill().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    }

    /// From now on waits so long.
    pub fn patient(&mut self, time_max: Duration) {
        self.socket.patient(time_max);
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
        self.socket.write_all(bytes).expect("the node reads");
    }

    /// The first byte and the payload of the next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        self.socket.begin();
        loop {
            let unread = self.socket.unread();
            if let Some((header, length)) = header(unread)
                && unread.len() >= header + length
            {
                let first = unread[0];
                let mut payload = self.socket.take(header + length).split_off(header);
                if first == TEXT {
                    payload = server_line(payload).expect("a line of the protocol").into_bytes();
                }
                return Some((first, payload));
            }
            if !self.fill() {
                let rest = self.socket.unread();
                assert!(rest.is_empty(), "the connection ended within a frame: {rest:?}");
                return None;
            }
        }
    }

    /// The next line, which must come.
    pub fn hear(&mut self) -> String {
        let (first, payload) = self.next().expect("the node goes on talking");
        assert_eq!(first, TEXT, "a frame that is no text: {payload:?}");
        String::from_utf8(payload).expect("checked before")
    }

    /// Hears one line, which must begin so.
    pub fn hears_start(&mut self, start: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(start), "{line:?} instead of {start:?}");
        line
    }

    /// Hears a close frame with this code, answers it, and then hears the end. Returns why it was closed.
    pub fn is_closed(&mut self, code: u16) -> String {
        let (first, payload) = self.next().expect("a close frame");
        assert_eq!((first, close_code(&payload)), (CLOSE, code), "{payload:?}");
        // The node may not listen any more.
        let _ = self.socket.write_all(&frame(CLOSE, &payload));
        assert_eq!(self.next(), None);
        String::from_utf8(payload[2..].to_vec()).expect("text")
    }

    /// The system's socket, for whatever a decent peer would not do.
    pub fn stream(&self) -> &TcpStream {
        self.socket.stream()
    }

    /// A second handle of the socket, for a thread that writes.
    pub fn writer(&self) -> TcpStream {
        self.stream().try_clone().expect("a file to spare")
    }

    /// Waits for more; `false` at the end of the connection, be it a reset.
    fn fill(&mut self) -> bool {
        match self.socket.fill() {
            Ok(goes_on) => goes_on,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The code of a close frame.
pub fn close_code(payload: &[u8]) -> u16 {
    u16::from_be_bytes(*payload.first_chunk().expect("two bytes"))
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
