//! One simulated user: a non-blocking connection that reads and writes what a
//! dialect makes of it, over TCP or as WebSocket messages.
//!
//! A client does not know the protocol, and what it is told to send it writes
//! when it is flushed, so that what belongs to one turn goes out together.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::websocket;

/// How bytes travel.
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
    /// Whether it may send: at once over TCP, after the upgrade as WebSocket.
    open: bool,
    /// Bytes of something, a line or a frame, whose end has not come yet.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether epoll also watches for room to write.
    armed: bool,
}

/// Buffers that all clients share while one of them is read.
#[derive(Default)]
pub struct Inbox {
    /// What was read last, behind what was kept before.
    pub bytes: Vec<u8>,
    frames: Vec<u8>,
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

    /// Queues one request, in whole.
    pub fn send(&mut self, request: &[u8]) {
        assert!(self.open, "a WebSocket takes requests after its upgrade, which the greeting follows");
        match self.transport {
            Transport::Tcp => self.unsent.extend_from_slice(request),
            Transport::WebSocket => websocket::put_text(&mut self.unsent, request),
        }
    }

    /// Reads once into `inbox.bytes`. What is not used of it must be kept, see `keep`.
    pub fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.bytes.clear();
        match self.transport {
            Transport::Tcp => {
                inbox.bytes.append(&mut self.unread);
                self.read(&mut inbox.bytes)
            }
            Transport::WebSocket => {
                inbox.frames.clear();
                inbox.frames.append(&mut self.unread);
                self.read(&mut inbox.frames)?;
                let used = self.take_frames(&inbox.frames, &mut inbox.bytes)?;
                self.unread.extend_from_slice(&inbox.frames[used..]);
                Ok(())
            }
        }
    }

    /// Keeps the beginning of something until the rest is there. A frame holds whole lines, each with its LF.
    pub fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        match self.transport {
            Transport::Tcp => self.unread.extend_from_slice(rest),
            Transport::WebSocket if rest.is_empty() => (),
            Transport::WebSocket => return Err(io::Error::other("a WebSocket message held half a line")),
        }
        Ok(())
    }

    fn read(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        // Room is needed: a read into none would look like the end of the stream.
        bytes.reserve(READ_BYTES);
        match rustix::net::recv(&self.stream, spare_capacity(bytes), RecvFlags::empty()) {
            Ok((_, 0)) => Err(io::Error::other("the server closed a connection")),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_frames(&mut self, frames: &[u8], bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        if !self.open {
            let Some(length) = websocket::upgrade_response(frames)? else { return Ok(0) };
            self.open = true;
            used = length;
        }
        Ok(used + websocket::take_texts(&frames[used..], bytes)?)
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
