//! What integration tests share: nodes to talk to, and a peer that talks lines.
//!
//! A [`Node`] is a whole server on a thread of its own, with free ports; several
//! make a mesh ([`Nodes`]). A [`Peer`] is a blocking connection over TCP or
//! WebSocket that knows nothing of the protocol but its line ends, so that what a
//! test sees is what the server sent, byte for byte. Every wait has a deadline
//! ([`WAIT_TIME_MAX`]), and nothing here sleeps.
//!
//! [`script`] reads transcript files, [`program`] runs the binary. Left out: what a test expects.

#![allow(dead_code, reason = "every test program has its own copy of this, and uses a part of it")]

pub mod program;
pub mod script;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use async_tungstenite::tungstenite::{self, Message, WebSocket, client};
use pinpost::cluster::Mesh;
use pinpost::config::Config;
use pinpost::proto::NodeId;
use pinpost::server::{Handle, Holdings, Server};

/// How long a test waits for one thing before it fails.
pub const WAIT_TIME_MAX: Duration = Duration::from_secs(10);

/// A running server. Dropping it drains it and waits for its end.
pub struct Node {
    tcp: SocketAddr,
    http: SocketAddr,
    id: NodeId,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Runs a server; it accepts connections when this returns.
    pub fn run(server: Server) -> Self {
        let tcp = server.tcp_addrs()[0];
        let http = server.http_addr().expect("tests serve HTTP");
        let (id, handle) = (server.node(), server.handle());
        let thread = thread::spawn(move || smol::block_on(server.run()));
        Node { tcp, http, id, handle, thread: Some(thread) }
    }

    /// Where `wire` is spoken.
    pub fn addr(&self, wire: Wire) -> SocketAddr {
        match wire {
            Wire::Tcp => self.tcp,
            Wire::WebSocket => self.http,
        }
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Asks the node to stop in order, and does not wait for it.
    pub fn drain(&self) {
        self.handle.drain();
    }

    /// Drains the node, waits for its end, and tells what it still holds.
    pub fn stop(&mut self) -> Holdings {
        self.drain();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the node {} panicked", self.id.as_str());
        }
        self.handle.holdings()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One node, or several that know each other.
pub struct Nodes {
    nodes: Vec<Node>,
    /// What the nodes talk over; a single node has none.
    pub mesh: Option<Mesh>,
}

impl Nodes {
    /// Starts `count` nodes with the same settings: one alone, more as a mesh.
    pub fn start(config: &Config, count: usize) -> Self {
        if count == 1 {
            let server = Server::bind(config).expect("a free port");
            return Nodes { nodes: vec![Node::run(server)], mesh: None };
        }
        let mesh = Mesh::default();
        let bind = |_| Node::run(Server::bind_in(config, &mesh).expect("a free port"));
        Nodes { nodes: (0..count).map(bind).collect(), mesh: Some(mesh) }
    }

    /// The node for the connection number `n`: round robin.
    pub fn nth(&self, n: usize) -> &Node {
        &self.nodes[n % self.nodes.len()]
    }

    /// Asks all nodes to stop in order, and does not wait for them.
    pub fn drain(&self) {
        self.nodes.iter().for_each(Node::drain);
    }

    /// Stops all nodes, and tells what each still holds.
    pub fn stop(mut self) -> Vec<Holdings> {
        self.drain();
        self.nodes.iter_mut().map(Node::stop).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // All at once: their drains may take a moment each.
        self.drain();
    }
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
    Line(Vec<u8>),
    /// The server closed in order; on WebSocket with this code.
    End(Option<u16>),
}

/// A blocking connection that says and hears lines.
pub struct Peer {
    link: Link,
}

enum Link {
    Tcp {
        stream: Stream,
        /// What was read and is not a whole line yet, or not asked for yet.
        unread: VecDeque<u8>,
    },
    WebSocket {
        socket: Box<WebSocket<Stream>>,
        /// Lines of messages that were read.
        lines: VecDeque<Vec<u8>>,
    },
}

impl Peer {
    /// Connects to a node.
    pub fn open(node: &Node, wire: Wire) -> io::Result<Self> {
        Self::connect(node.addr(wire), wire)
    }

    /// Connects to an address.
    pub fn connect(addr: SocketAddr, wire: Wire) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, WAIT_TIME_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_TIME_MAX))?;
        stream.set_write_timeout(Some(WAIT_TIME_MAX))?;
        let stream = Stream(stream);
        let link = match wire {
            Wire::Tcp => Link::Tcp { stream, unread: VecDeque::new() },
            Wire::WebSocket => {
                let (socket, _) = client(format!("ws://{addr}/ws"), stream)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                Link::WebSocket { socket: Box::new(socket), lines: VecDeque::new() }
            }
        };
        Ok(Peer { link })
    }

    /// Says one line: with an LF behind it on TCP, as a message of its own on WebSocket.
    pub fn say(&mut self, line: &[u8]) -> io::Result<()> {
        match &self.link {
            Link::Tcp { .. } => self.say_raw(&[line, b"\n"].concat()),
            Link::WebSocket { .. } => self.say_raw(line),
        }
    }

    /// Says bytes as they are: in one write on TCP, as one text message on WebSocket.
    pub fn say_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Link::Tcp { stream, .. } => stream.write_all(bytes),
            // A frame of our own making may hold what is no UTF-8.
            Link::WebSocket { socket, .. } => {
                let frame = Frame::message(bytes.to_vec(), OpCode::Data(Data::Text), true);
                socket.send(Message::Frame(frame)).map_err(as_io)
            }
        }
    }

    /// Says bytes as a binary message, which only a WebSocket can.
    pub fn say_binary(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Link::Tcp { .. } => Err(io::Error::other("TCP has no binary messages")),
            Link::WebSocket { socket, .. } => socket.send(Message::binary(bytes.to_vec())).map_err(as_io),
        }
    }

    /// Says no more, but still hears.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.stream().shutdown(Shutdown::Write)
    }

    /// Waits for the next line or the end.
    ///
    /// # Errors
    /// When nothing comes in time, or the connection ends in disorder: reset,
    /// within a line, or on WebSocket without a close frame.
    pub fn hear(&mut self) -> io::Result<Heard> {
        let by = Instant::now() + WAIT_TIME_MAX;
        match &mut self.link {
            Link::Tcp { stream, unread } => hear_tcp(stream, unread, by),
            Link::WebSocket { socket, lines } => hear_websocket(socket, lines, by),
        }
    }

    /// Says a line, or fails the test.
    pub fn say_line(&mut self, line: &str) {
        self.say(line.as_bytes()).expect("the peer takes a line");
    }

    /// Hears a line of text, or fails the test.
    pub fn hear_line(&mut self) -> String {
        match self.hear().expect("a line in time") {
            Heard::Line(line) => String::from_utf8(line).expect("text"),
            Heard::End(_) => panic!("the connection has ended"),
        }
    }

    fn stream(&self) -> &TcpStream {
        match &self.link {
            Link::Tcp { stream, .. } => &stream.0,
            Link::WebSocket { socket, .. } => &socket.get_ref().0,
        }
    }
}

/// A socket with a deadline is interrupted whenever its process forks: then it goes on.
struct Stream(TcpStream);

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("stream", self.stream()).finish_non_exhaustive()
    }
}

fn hear_tcp(stream: &mut Stream, unread: &mut VecDeque<u8>, by: Instant) -> io::Result<Heard> {
    let mut looked_at = 0;
    loop {
        if let Some(at) = unread.iter().skip(looked_at).position(|byte| *byte == b'\n') {
            let line = unread.drain(..looked_at + at).collect();
            unread.pop_front();
            return Ok(Heard::Line(line));
        }
        looked_at = unread.len();
        let mut chunk = [0; 4096];
        match read_by(stream, &mut chunk, by)? {
            0 if unread.is_empty() => return Ok(Heard::End(None)),
            0 => return Err(io::Error::other("the connection ended within a line")),
            count => unread.extend(&chunk[..count]),
        }
    }
}

fn hear_websocket(
    socket: &mut WebSocket<Stream>,
    lines: &mut VecDeque<Vec<u8>>,
    by: Instant,
) -> io::Result<Heard> {
    loop {
        if let Some(line) = lines.pop_front() {
            return Ok(Heard::Line(line));
        }
        socket.get_ref().0.set_read_timeout(Some(left(by)?))?;
        match socket.read().map_err(as_io)? {
            Message::Text(text) => {
                let text = text.as_str();
                lines.extend(text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| line.into()));
            }
            Message::Close(frame) => {
                // Nothing may follow, and the server closes without waiting for an answer.
                return match read_by(socket.get_mut(), &mut [0], by)? {
                    0 => Ok(Heard::End(frame.map(|frame| frame.code.into()))),
                    _ => Err(io::Error::other("bytes after a close frame")),
                };
            }
            Message::Ping(_) | Message::Pong(_) => {}
            message => return Err(io::Error::other(format!("not a text message: {message:?}"))),
        }
    }
}

fn read_by(stream: &mut Stream, chunk: &mut [u8], by: Instant) -> io::Result<usize> {
    stream.0.set_read_timeout(Some(left(by)?))?;
    stream.read(chunk).map_err(in_words)
}

/// The time until `by`; an error when it has come.
fn left(by: Instant) -> io::Result<Duration> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(in_words(io::ErrorKind::WouldBlock.into())) } else { Ok(left) }
}

fn as_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => in_words(error),
        error => io::Error::other(error.to_string()),
    }
}

/// A socket says "would block" when its deadline has come.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {WAIT_TIME_MAX:?}"))
        }
        _ => error,
    }
}
