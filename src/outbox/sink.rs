//! Where an outbox writes to: a socket, or in tests whatever takes bytes.
//!
//! All reads and writes of a connection's socket are made here, so that what a signal interrupts is
//! made again in one place: a socket that is taken for blocked has to be, or nothing tells when it is not.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Where an outbox writes to.
pub trait Sink: Send + Sync {
    /// Writes what fits without waiting, and tells how much that was.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; anything else ends the connection.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// The socket of a connection, which does not block.
pub struct Socket(pub TcpStream);

/// Signals in a row that may interrupt a call; more are an error like any other.
const INTERRUPTS_MAX: usize = 16;

impl Sink for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| (&self.0).write(bytes))
    }
}

impl Socket {
    /// Reads what there is without waiting, and tells how much that was: 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; anything else ends the connection.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| (&self.0).read(buffer))
    }
}

/// Makes a call again that a signal interrupted.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut interrupts = 0;
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && interrupts < INTERRUPTS_MAX => {
                interrupts += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_interrupts_is_made_again() {
        let calls_until = |interrupts| {
            let mut calls = 0;
            let result = uninterrupted(|| {
                calls += 1;
                if calls <= interrupts { Err(io::ErrorKind::Interrupted.into()) } else { Ok(7) }
            });
            (calls, result.map_err(|error| error.kind()))
        };
        assert_eq!(calls_until(0), (1, Ok(7)));
        assert_eq!(calls_until(3), (4, Ok(7)));
        assert_eq!(calls_until(INTERRUPTS_MAX), (INTERRUPTS_MAX + 1, Ok(7)));
        assert_eq!(calls_until(1_000), (INTERRUPTS_MAX + 1, Err(io::ErrorKind::Interrupted)));
    }
}
