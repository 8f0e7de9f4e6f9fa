//! One user on a connection that waits: for the parts that measure single
//! messages and requests, not crowds.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A logged-in user; see the head of this file.
pub struct Talker {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    line: String,
}

impl Talker {
    /// Connects and logs in.
    pub fn log_in(node: SocketAddr, name: &str) -> io::Result<Talker> {
        let mut talker = Talker::connect(node)?;
        talker.enter(name, false)?;
        Ok(talker)
    }

    /// Connects, and waits for the greeting.
    pub fn connect(node: SocketAddr) -> io::Result<Talker> {
        let stream = TcpStream::connect(node)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let reader = BufReader::with_capacity(READ_BYTES, stream.try_clone()?);
        let mut talker = Talker { stream, reader, line: String::new() };
        talker.hear("HELLO pinpost 1 ")?;
        Ok(talker)
    }

    /// Logs in, as one who acknowledges or not.
    pub fn enter(&mut self, name: &str, acks: bool) -> io::Result<()> {
        self.say(&format!("LOGIN {name}{}", if acks { " ack" } else { "" }))?;
        self.hear(&format!("OK {name} "))?;
        Ok(())
    }

    /// Tells whether a whole line has been read that was not heard yet.
    pub fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.reader.buffer()).is_some()
    }

    /// Sends a line, given without its LF.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes())
    }

    /// Waits for a line, whatever it is.
    pub fn hear_any(&mut self) -> io::Result<&str> {
        self.line.clear();
        if self.reader.read_line(&mut self.line)? == 0 {
            return Err(io::Error::other("the server closed a connection"));
        }
        Ok(self.line.trim_end())
    }

    /// Waits for the next line, which has to begin like this.
    pub fn hear(&mut self, head: &str) -> io::Result<&str> {
        let line = self.hear_any()?;
        if line.starts_with(head) {
            // Asked for again because the borrow above would outlive the other branch.
            return Ok(self.line.trim_end());
        }
        Err(io::Error::other(format!("received {line:?} where {head:?} was due")))
    }

    /// One end to write and one to read, for two threads.
    pub fn split(self) -> (TcpStream, BufReader<TcpStream>) {
        (self.stream, self.reader)
    }
}

const READ_BYTES: usize = 64 << 10;
const SILENCE_MAX: Duration = Duration::from_secs(30);
