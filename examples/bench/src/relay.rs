//! The bare relay that pinpost is compared with: the physical limit of this
//! kind of server, with nothing in it but newline search and one table look-up.
//!
//! ```text
//! LOGIN name          -> OK
//! SEND name payload   -> the line "MSG payload" on name's connection
//!                        (with --ack also "OK" to the sender)
//! ```
//!
//! One thread, level-triggered epoll, FNV for the table, and all that one epoll
//! round produced is written once at its end. Left out on purpose: checking
//! input, ids, several sessions of a user, bounds on what waits, and the truth
//! of its `OK`, which comes whether or not the recipient exists.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Runs the relay until it is killed: binds a free port of the loopback address
/// and tells it in a `ready` line, as pinpost does.
pub fn run(ack: bool) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listener_token = listener.as_raw_fd() as usize;
    let token = epoll::EventData::new_u64(listener_token as u64);
    epoll::add(&epoll, &listener, token, epoll::EventFlags::IN)?;
    println!("ready tcp={}", listener.local_addr()?);
    io::stdout().flush()?;

    let mut relay = Relay { epoll, conns: Vec::new(), users: HashMap::default(), dirty: Vec::new(), ack };
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        match epoll::wait(&relay.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            // Copied out: the kernel's struct is packed.
            let (flags, index) = (event.flags, event.data.u64() as usize);
            if index == listener_token {
                while let Ok((stream, _)) = listener.accept() {
                    relay.add(stream)?;
                }
                continue;
            }
            if flags.contains(epoll::EventFlags::OUT) {
                relay.write(index);
            }
            if flags != epoll::EventFlags::OUT {
                relay.read(index, &mut scratch);
            }
        }
        let mut dirty = std::mem::take(&mut relay.dirty);
        for index in dirty.drain(..) {
            relay.write(index);
        }
        // Its room is kept for the next round.
        relay.dirty = dirty;
    }
}

/// All state of the relay. A connection is known by the number of its descriptor.
struct Relay {
    epoll: OwnedFd,
    conns: Vec<Option<Conn>>,
    users: HashMap<Vec<u8>, usize, BuildHasherDefault<Fnv>>,
    /// Connections with something to write at the end of this round.
    dirty: Vec<usize>,
    ack: bool,
}

impl Relay {
    fn add(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let index = stream.as_raw_fd() as usize;
        let token = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, token, epoll::EventFlags::IN)?;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, || None);
        }
        self.conns[index] = Some(Conn {
            stream,
            unread: Vec::new(),
            unsent: Vec::new(),
            name: Vec::new(),
            armed: false,
            dirty: false,
        });
        Ok(())
    }

    /// Closes a connection; closing its descriptor takes it out of the epoll set.
    fn close(&mut self, index: usize) {
        if let Some(conn) = self.conns[index].take()
            && self.users.get(&conn.name) == Some(&index)
        {
            self.users.remove(&conn.name);
        }
    }

    fn read(&mut self, index: usize, scratch: &mut [u8]) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let left = conn.unread.len();
        scratch[..left].copy_from_slice(&conn.unread);
        let read = match rustix::net::recv(&conn.stream, &mut scratch[left..], RecvFlags::empty()) {
            Ok((0, _)) => return self.close(index),
            Ok((read, _)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return self.close(index),
        };
        conn.unread.clear();
        let data = &scratch[..left + read];
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\n', &data[at..]) {
            self.line(index, &data[at..at + length]);
            at += length + 1;
        }
        let tail = &data[at..];
        if tail.len() > LINE_BYTES_MAX {
            self.close(index);
        } else if !tail.is_empty()
            && let Some(conn) = &mut self.conns[index]
        {
            conn.unread.extend_from_slice(tail);
        }
    }

    fn line(&mut self, index: usize, line: &[u8]) {
        if let Some(rest) = line.strip_prefix(b"SEND ") {
            if let Some(space) = memchr::memchr(b' ', rest)
                && let Some(&to) = self.users.get(&rest[..space])
            {
                self.queue(to, &[b"MSG ", &rest[space + 1..], b"\n"]);
            }
            if self.ack {
                self.queue(index, &[b"OK\n"]);
            }
        } else if let Some(name) = line.strip_prefix(b"LOGIN ") {
            self.users.insert(name.to_vec(), index);
            if let Some(conn) = &mut self.conns[index] {
                conn.name = name.to_vec();
            }
            self.queue(index, &[b"OK\n"]);
        }
    }

    fn queue(&mut self, index: usize, parts: &[&[u8]]) {
        let Some(conn) = &mut self.conns[index] else { return };
        for part in parts {
            conn.unsent.extend_from_slice(part);
        }
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    fn write(&mut self, index: usize) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        conn.dirty = false;
        if conn.unsent.is_empty() {
            return;
        }
        match rustix::net::send(&conn.stream, &conn.unsent, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == conn.unsent.len() => conn.unsent.clear(),
            Ok(sent) => drop(conn.unsent.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(_) => return self.close(index),
        }
        let armed = !conn.unsent.is_empty();
        if armed != conn.armed {
            conn.armed = armed;
            let mut wanted = epoll::EventFlags::IN;
            wanted.set(epoll::EventFlags::OUT, armed);
            let token = epoll::EventData::new_u64(index as u64);
            if epoll::modify(&self.epoll, &conn.stream, token, wanted).is_err() {
                self.close(index);
            }
        }
    }
}

struct Conn {
    stream: TcpStream,
    /// The beginning of a line whose end has not come yet.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    name: Vec<u8>,
    /// Whether epoll also watches for room to write.
    armed: bool,
    /// Whether it is listed in `Relay::dirty`.
    dirty: bool,
}

/// FNV-1a: names are short.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    // A slice hashes its length first; a name's bytes alone are enough.
    fn write_usize(&mut self, _: usize) {}
}

const SCRATCH_BYTES: usize = 512 << 10;
const LINE_BYTES_MAX: usize = 60_000;
const EVENTS_MAX: usize = 512;
