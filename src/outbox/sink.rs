//! Where an outbox writes to: a socket, or in tests whatever takes bytes.

use std::io::{self, Write};
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

impl Sink for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }
}
