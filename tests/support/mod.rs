//! What the tests against hostile peers share: servers, clients, bystanders.
//!
//! Clients are blocking sockets with a deadline on every read, so that a test
//! never waits for ever and never sleeps. Everything that a server says is
//! checked to be a line of the protocol, whoever hears it.

#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod bystanders;
pub mod node;
pub mod random;
pub mod web;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use pinpost::proto::ServerLine;

/// How long anything may take. Generous: the machine has other things to do.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// One connection over TCP, as a program with a socket sees it.
pub struct Client {
    /// The socket, for whatever a decent client would not do.
    pub socket: TcpStream,
    unread: Vec<u8>,
    /// Bytes of `unread` that were heard already.
    heard: usize,
}

impl Client {
    /// Connects, and hears nothing yet.
    pub fn silent(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).expect("the server accepts");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        socket.set_write_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        socket.set_nodelay(true).expect("a socket takes an option");
        Client { socket, unread: vec![], heard: 0 }
    }

    /// Connects, and hears `HELLO`.
    pub fn connect(addr: SocketAddr) -> Self {
        let mut client = Client::silent(addr);
        client.hears("HELLO pinpost 1 ");
        client
    }

    /// Connects, and logs in as `user`.
    pub fn login(addr: SocketAddr, user: &str) -> Self {
        let mut client = Client::connect(addr);
        client.say(&format!("LOGIN {user}"));
        client.hears(&format!("OK {user} "));
        client
    }

    /// Says one line.
    pub fn say(&mut self, line: &str) {
        self.raw(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// The next line; `None` when the server has closed.
    ///
    /// Panics after [`DEADLINE`], when a line is none of the protocol, and when
    /// the connection ends within a line.
    pub fn next(&mut self) -> Option<String> {
        let mut searched = self.heard;
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.unread[searched..]) {
                let line = self.unread[self.heard..searched + length].to_vec();
                self.heard = searched + length + 1;
                let line = String::from_utf8(line).expect("the server says UTF-8");
                assert!(ServerLine::parse(&line).is_some(), "not a line of the protocol: {line:?}");
                return Some(line);
            }
            self.unread.drain(..self.heard);
            self.heard = 0;
            searched = self.unread.len();
            if !self.fill() {
                let rest = String::from_utf8_lossy(&self.unread);
                assert!(rest.is_empty(), "the connection ended within a line: {rest:?}");
                return None;
            }
            if self.unread.is_empty() {
                self.unread = vec![];
            }
        }
    }

    /// The next line, which must come.
    pub fn hear(&mut self) -> String {
        self.next().expect("the server goes on talking")
    }

    /// Hears one line, which must begin so.
    pub fn hears(&mut self, start: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(start), "{line:?} instead of {start:?}");
        line
    }

    /// All lines up to the end of the connection.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Says no more, but still listens.
    pub fn hush(&self) {
        self.socket.shutdown(Shutdown::Write).expect("the connection is there");
    }

    /// Reads once; `false` at the end of the connection.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
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

/// Waits for something that the system tells no event for: a counter, a file of
/// `/proc`. Panics with `what` after [`DEADLINE`].
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
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
