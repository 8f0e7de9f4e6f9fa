//! One simulated user: a non-blocking connection that reads and writes lines,
//! over TCP or as WebSocket messages.
//!
//! A client does not know the protocol above lines, and what it is told to send
//! it writes when it is flushed, so that the lines of one turn go out together.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::websocket;

/// How lines travel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    WebSocket,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::WebSocket => "WebSocket",
        }
    }
}

/// A connection; see the head of this file.
pub struct Client {
    stream: TcpStream,
    transport: Transport,
    /// Whether lines may be sent: at once over TCP, after the upgrade as WebSocket.
    open: bool,
    /// Bytes of a line or frame whose end has not come yet.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether epoll also watches for room to write.
    armed: bool,
}

/// Buffers that all clients share while one of them is read.
#[derive(Default)]
pub struct Inbox {
    raw: Vec<u8>,
    /// The lines that were read last, each with its LF.
    pub lines: Vec<u8>,
}

impl Client {
    /// Connects and watches for input under this number. As WebSocket the upgrade is requested, too.
    pub fn connect(
        server: SocketAddr,
        transport: Transport,
        epoll: &OwnedFd,
        number: usize,
    ) -> io::Result<Client> {
        // On loopback this returns as soon as the server's backlog has room.
        let stream = TcpStream::connect(server)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll::add(epoll, &stream, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        let (open, unsent) = match transport {
            Transport::Tcp => (true, Vec::new()),
            Transport::WebSocket => (false, websocket::upgrade_request(server)),
        };
        Ok(Client { stream, transport, open, unread: Vec::new(), unsent, armed: false })
    }

    /// Queues one line, given without its LF.
    pub fn send(&mut self, line: &[u8]) {
        assert!(self.open, "a WebSocket takes lines after its upgrade, which the greeting follows");
        match self.transport {
            Transport::Tcp => {
                self.unsent.extend_from_slice(line);
                self.unsent.push(b'\n');
            }
            Transport::WebSocket => websocket::put_line(&mut self.unsent, line),
        }
    }

    /// Reads once, leaving the whole lines that are here in `inbox.lines`.
    pub fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        let Inbox { raw, lines } = inbox;
        raw.clear();
        lines.clear();
        raw.append(&mut self.unread);
        // Room is needed: a read into none would look like the end of the stream.
        raw.reserve(READ_BYTES);
        match rustix::net::recv(&self.stream, spare_capacity(raw), RecvFlags::empty()) {
            Ok((_, 0)) => return Err(io::Error::other("the server closed a connection")),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let used = match self.transport {
            Transport::Tcp => {
                let used = memchr::memrchr(b'\n', raw).map_or(0, |at| at + 1);
                lines.extend_from_slice(&raw[..used]);
                used
            }
            Transport::WebSocket => self.receive_frames(raw, lines)?,
        };
        self.unread.extend_from_slice(&raw[used..]);
        Ok(())
    }

    fn receive_frames(&mut self, raw: &[u8], lines: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        if !self.open {
            let Some(length) = websocket::upgrade_response(raw)? else { return Ok(0) };
            self.open = true;
            used = length;
        }
        Ok(used + websocket::take_lines(&raw[used..], lines)?)
    }

    /// Writes what is queued; what the socket does not take is left to the next time epoll reports room.
    pub fn flush(&mut self, epoll: &OwnedFd, number: usize) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match rustix::net::send(self.stream.as_fd(), &self.unsent, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == self.unsent.len() => self.unsent.clear(),
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let armed = !self.unsent.is_empty();
        if armed != self.armed {
            self.armed = armed;
            let mut wanted = epoll::EventFlags::IN;
            wanted.set(epoll::EventFlags::OUT, armed);
            epoll::modify(epoll, &self.stream, epoll::EventData::new_u64(number as u64), wanted)?;
        }
        Ok(())
    }
}

const READ_BYTES: usize = 64 << 10;
