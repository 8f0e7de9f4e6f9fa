//! A blocking socket on which every wait has a deadline, and what came over it.
//!
//! Whoever begins to wait for something says so ([`Socket::begin`]); all reads up to the
//! next time share that deadline, so that a trickle of bytes does not move it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::WAIT_TIME_MAX;

/// The socket of a peer.
pub struct Socket {
    stream: TcpStream,
    time_max: Duration,
    /// When the wait ends that began last.
    by: Instant,
    received: Vec<u8>,
    /// Bytes of `received` that were taken.
    taken: usize,
}

impl Socket {
    /// Connects.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, WAIT_TIME_MAX)?;
        stream.set_nodelay(true)?;
        let mut socket =
            Socket { stream, time_max: WAIT_TIME_MAX, by: Instant::now(), received: vec![], taken: 0 };
        socket.patient(WAIT_TIME_MAX);
        Ok(socket)
    }

    /// From now on waits so long.
    pub fn patient(&mut self, time_max: Duration) {
        self.time_max = time_max;
        self.stream.set_read_timeout(Some(time_max)).expect("not zero");
        self.stream.set_write_timeout(Some(time_max)).expect("not zero");
        self.begin();
    }

    /// Begins to wait for something new.
    pub fn begin(&mut self) {
        self.by = Instant::now() + self.time_max;
    }

    /// The system's socket, for whatever a decent peer would not do.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What has come and was not taken.
    pub fn unread(&self) -> &[u8] {
        &self.received[self.taken..]
    }

    /// Takes the first bytes of what is unread.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.unread()[..count].to_vec();
        self.taken += count;
        bytes
    }

    /// Waits for more to be unread; `false` at the end of the connection.
    pub fn fill(&mut self) -> io::Result<bool> {
        self.received.drain(..std::mem::take(&mut self.taken));
        let mut bytes = [0; 16 * 1024];
        let count = self.read(&mut bytes)?;
        self.received.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("nothing within {:?}", self.time_max);
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(bytes) {
                // A socket with a deadline is interrupted whenever its process forks. It
                // "would block" when its deadline has come.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                result => return result,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
