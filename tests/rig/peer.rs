//! A blocking connection that says and hears lines, over TCP or WebSocket.
//!
//! It knows little of the protocol: its line ends, and that all a node says is one of its
//! lines. What a test sees is what the node sent, byte for byte. The `try_` methods tell
//! what went wrong, the others fail the test then; [`delivered`] and [`message`] read the
//! lines that tests are about. WebSocket is a library's here; for frames by hand see `web`.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use async_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::socket::Socket;
use super::until;

/// One connection.
pub struct Peer {
    /// Its user, for whoever reads of a failure.
    who: String,
    link: Link,
    /// Telnet commands that came before lines, on TCP.
    pub telnet: Vec<u8>,
}

enum Link {
    Tcp(Socket),
    WebSocket {
        socket: Box<WebSocket<Socket>>,
        /// Lines of messages that were read.
        lines: VecDeque<Vec<u8>>,
    },
}

/// What carries the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Lines over TCP.
    Tcp,
    /// Text messages over WebSocket.
    WebSocket,
}

/// What a peer hears.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its LF.
    Line(String),
    /// The node closed in order; on WebSocket with this code.
    End(Option<u16>),
}

impl Peer {
    /// Connects, and hears nothing yet.
    pub fn try_open(addr: SocketAddr, wire: Wire) -> io::Result<Self> {
        let socket = Socket::open(addr)?;
        let link = match wire {
            Wire::Tcp => Link::Tcp(socket),
            Wire::WebSocket => {
                let (socket, _) = client(format!("ws://{addr}/ws"), socket)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                Link::WebSocket { socket: Box::new(socket), lines: VecDeque::new() }
            }
        };
        Ok(Peer { who: "somebody".to_owned(), link, telnet: vec![] })
    }

    /// Says one line: with an LF behind it on TCP, as a message of its own on WebSocket.
    pub fn try_say(&mut self, line: &[u8]) -> io::Result<()> {
        match &self.link {
            Link::Tcp(_) => self.try_raw(&[line, b"\n"].concat()),
            Link::WebSocket { .. } => self.try_raw(line),
        }
    }

    /// Says bytes as they are: in one write on TCP, as one text message on WebSocket.
    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Link::Tcp(socket) => socket.write_all(bytes),
            // A frame of our own making may hold what is no UTF-8.
            Link::WebSocket { socket, .. } => {
                let frame = Frame::message(bytes.to_vec(), OpCode::Data(Data::Text), true);
                socket.send(Message::Frame(frame)).map_err(as_io)
            }
        }
    }

    /// Says bytes as a binary message, which only a WebSocket can.
    pub fn try_binary(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Link::Tcp(_) => Err(io::Error::other("TCP has no binary messages")),
            Link::WebSocket { socket, .. } => socket.send(Message::binary(bytes.to_vec())).map_err(as_io),
        }
    }

    /// Waits for the next line or the end.
    ///
    /// # Errors
    /// When nothing comes in time or what comes is no line of the protocol, and when the
    /// connection ends in disorder: reset, within a line, or on WebSocket without a close
    /// frame.
    pub fn try_hear(&mut self) -> io::Result<Heard> {
        match &mut self.link {
            Link::Tcp(socket) => hear_tcp(socket, &mut self.telnet),
            Link::WebSocket { socket, lines } => hear_websocket(socket, lines),
        }
    }

    /// Whether a line has come already, so that nobody has to wait for it.
    pub fn has_line(&self) -> bool {
        match &self.link {
            Link::Tcp(socket) => memchr::memchr(b'\n', socket.unread()).is_some(),
            Link::WebSocket { lines, .. } => !lines.is_empty(),
        }
    }

    /// Connects over TCP, and hears nothing yet.
    #[track_caller]
    pub fn silent(addr: SocketAddr) -> Self {
        Self::try_open(addr, Wire::Tcp).expect("the node accepts")
    }

    /// Connects over TCP, and hears `HELLO`.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::silent(addr).greeted()
    }

    /// Connects over WebSocket, and hears `HELLO`.
    #[track_caller]
    pub fn connect_websocket(addr: SocketAddr) -> Self {
        Self::try_open(addr, Wire::WebSocket).expect("the node accepts").greeted()
    }

    /// Connects over TCP, and logs in.
    #[track_caller]
    pub fn login(addr: SocketAddr, user: &str) -> Self {
        Self::connect(addr).logged_in(user)
    }

    #[track_caller]
    fn greeted(mut self) -> Self {
        self.hears_start("HELLO pinpost 1 ");
        self
    }

    /// Logs in.
    #[track_caller]
    pub fn logged_in(mut self, user: &str) -> Self {
        user.clone_into(&mut self.who);
        self.say(&format!("LOGIN {user}"));
        self.hears_start(&format!("OK {user} "));
        self
    }

    /// Connects over TCP, and logs in as one that will acknowledge.
    #[track_caller]
    pub fn login_acking(addr: SocketAddr, user: &str) -> Self {
        let mut peer = Self::connect(addr);
        user.clone_into(&mut peer.who);
        peer.say(&format!("LOGIN {user} ack"));
        peer.hears_start(&format!("OK {user} "));
        peer
    }

    /// From now on waits so long.
    pub fn patient(&mut self, time_max: Duration) {
        match &mut self.link {
            Link::Tcp(socket) => socket.patient(time_max),
            Link::WebSocket { socket, .. } => socket.get_mut().patient(time_max),
        }
    }

    /// Says one line.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        self.try_say(line.as_bytes()).expect("the node reads");
    }

    /// Says bytes as they are.
    #[track_caller]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).expect("the node reads");
    }

    /// The next line; `None` at the end of the connection, be it a reset.
    #[track_caller]
    pub fn next(&mut self) -> Option<String> {
        match self.try_hear() {
            Ok(Heard::Line(line)) => Some(line),
            Ok(Heard::End(_)) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{}: {error}", self.who),
        }
    }

    /// The next line, which must come.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        self.next().unwrap_or_else(|| panic!("{}: the connection ended", self.who))
    }

    /// Hears this line.
    #[track_caller]
    pub fn hears(&mut self, line: &str) {
        assert_eq!(self.hear(), line, "{} hears", self.who);
    }

    /// Hears a line that begins so.
    #[track_caller]
    pub fn hears_start(&mut self, start: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(start), "{} hears {line:?} instead of {start:?}", self.who);
        line
    }

    /// All lines up to the end of the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Nothing has come that was not heard.
    #[track_caller]
    pub fn heard_all(&mut self) {
        self.say("@quiet PING");
        self.hears("@quiet PONG");
    }

    /// Sends one message under a tag, and waits for `OK`.
    #[track_caller]
    pub fn sends(&mut self, to: &str, tag: &str, text: &str) {
        self.say(&format!("@{tag} SEND {to} {text}"));
        self.hears(&format!("@{tag} OK {tag} delivered"));
    }

    /// Sends one message under a tag, and waits until it is stored.
    #[track_caller]
    pub fn stores(&mut self, to: &str, tag: &str, text: &str) {
        self.say(&format!("@{tag} SEND {to} {text}"));
        self.hears(&format!("@{tag} OK {tag} stored"));
    }

    /// Hears what [`pour`] has sent under these numbers, in order.
    #[track_caller]
    pub fn hears_poured(&mut self, from: &str, numbers: std::ops::Range<usize>) {
        numbers.for_each(|n| drop(self.hears_start(&format!("MSG {from} {n} {n} "))));
    }

    /// Acknowledges what [`pour`] has sent under these numbers.
    #[track_caller]
    pub fn acks(&mut self, from: &str, numbers: std::ops::Range<usize>) {
        let lines: String = numbers.map(|n| format!("ACK {n} {from}\n")).collect();
        self.raw(lines.as_bytes());
    }

    /// `WHO` is answered so.
    #[track_caller]
    pub fn finds(&mut self, user: &str, presence: &str) {
        self.say(&format!("@who WHO {user}"));
        self.hears(&format!("@who OK {user} {presence}"));
    }

    /// `WHO` is answered so before long: other nodes learn of changes a moment later.
    #[track_caller]
    pub fn will_find(&mut self, user: &str, presence: &str) {
        let expected = format!("@who OK {user} {presence}");
        until(&format!("WHO {user} says {presence}"), || {
            self.say(&format!("@who WHO {user}"));
            self.hear() == expected
        });
    }

    /// Says goodbye, and hears nothing but that.
    #[track_caller]
    pub fn quits(mut self) {
        self.say("QUIT");
        self.hears_start("BYE quit");
    }

    /// Says no more, but still hears.
    pub fn half_close(&self) {
        self.stream().shutdown(Shutdown::Write).expect("the connection is there");
    }

    /// The system's socket, for whatever a decent peer would not do.
    pub fn stream(&self) -> &TcpStream {
        match &self.link {
            Link::Tcp(socket) => socket.stream(),
            Link::WebSocket { socket, .. } => socket.get_ref().stream(),
        }
    }

    /// A second handle of the socket, for a thread that writes.
    pub fn writer(&self) -> TcpStream {
        self.stream().try_clone().expect("a file to spare")
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("stream", self.stream()).finish_non_exhaustive()
    }
}

fn hear_tcp(socket: &mut Socket, telnet: &mut Vec<u8>) -> io::Result<Heard> {
    const IAC: u8 = 255;
    socket.begin();
    let mut searched = 0;
    loop {
        while let [IAC, _, _, ..] = socket.unread() {
            telnet.extend(socket.take(3));
        }
        if let [IAC, ..] = socket.unread()
            && socket.fill()?
        {
            continue;
        }
        if let Some(at) = memchr::memchr(b'\n', &socket.unread()[searched..]) {
            let mut line = socket.take(searched + at + 1);
            line.pop();
            return server_line(line).map(Heard::Line);
        }
        searched = socket.unread().len();
        match socket.fill() {
            Ok(true) => {}
            Ok(false) if searched == 0 => return Ok(Heard::End(None)),
            Err(error) if searched == 0 || error.kind() != ErrorKind::ConnectionReset => return Err(error),
            _ => {
                let why = "the connection ended within a line";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
            }
        }
    }
}

fn hear_websocket(socket: &mut WebSocket<Socket>, lines: &mut VecDeque<Vec<u8>>) -> io::Result<Heard> {
    socket.get_mut().begin();
    loop {
        if let Some(line) = lines.pop_front() {
            return server_line(line).map(Heard::Line);
        }
        match socket.read().map_err(as_io)? {
            Message::Text(text) => {
                let text = text.as_str();
                lines.extend(text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| line.into()));
            }
            Message::Close(frame) => {
                // The node waits for the answer, and nothing may follow. It may not listen any more.
                let _ = socket.flush();
                return match socket.get_mut().read(&mut [0])? {
                    0 => Ok(Heard::End(frame.map(|frame| frame.code.into()))),
                    _ => Err(io::Error::other("bytes after a close frame")),
                };
            }
            Message::Ping(_) | Message::Pong(_) => {}
            message => return Err(io::Error::other(format!("not a text message: {message:?}"))),
        }
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error.to_string()),
    }
}

/// The text of a line that a node said; an error if it is none of the protocol.
pub fn server_line(line: Vec<u8>) -> io::Result<String> {
    let line = String::from_utf8(line).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    if is_server_line(&line) {
        return Ok(line);
    }
    Err(io::Error::new(ErrorKind::InvalidData, format!("not a line of the protocol: {line:?}")))
}

/// Reads it as the client library does.
#[cfg(feature = "internals")]
fn is_server_line(line: &str) -> bool {
    pinpost::internals::proto::ServerLine::parse(line).is_some()
}

/// Looks at its first word.
#[cfg(not(feature = "internals"))]
fn is_server_line(line: &str) -> bool {
    let untagged = line.strip_prefix('@').map_or(Some(line), |tagged| Some(tagged.split_once(' ')?.1));
    let word = untagged.and_then(|line| line.split(' ').next());
    word.is_some_and(|word| {
        ["HELLO", "OK", "PONG", "INFO", "MSG", "UP", "DOWN", "BYE", "ERR"].contains(&word)
    })
}

/// The id of a message that was delivered, if the line tells that.
pub fn delivered(line: &str) -> Option<&str> {
    let line = line.split_once(" OK ").map_or(line, |(tag, _)| &line[tag.len() + 1..]);
    line.strip_prefix("OK ")?.strip_suffix(" delivered")
}

/// The sender, the id and the text of a message, if the line is one.
pub fn message(line: &str) -> Option<(&str, &str, &str)> {
    let (from, rest) = line.strip_prefix("MSG ")?.split_once(' ')?;
    let (id, text) = rest.split_once(' ')?;
    Some((from, id, text))
}

/// Writes `count` numbered messages for `to` in one go.
pub fn pour(mut stream: TcpStream, to: &str, count: usize, padding: usize) {
    let padding = "x".repeat(padding);
    let lines: String = (0..count).map(|n| format!("@{n} SEND {to} {n} {padding}\n")).collect();
    stream.write_all(lines.as_bytes()).expect("the node reads");
}
