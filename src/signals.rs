//! The signals that end the command, as a file that the node watches like any other.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use pinpost::readiness::Gate;
use pinpost::server::Server;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// `SIGTERM` and `SIGINT`, which end nothing by themselves any more.
pub struct Signals {
    /// A byte comes in for each.
    bytes: UnixStream,
    gate: Arc<Gate>,
}

impl Signals {
    /// Takes them from now on.
    ///
    /// # Errors
    /// When the system has no file descriptors left.
    pub fn new(server: &Server) -> io::Result<Self> {
        let (bytes, handler) = UnixStream::pair()?;
        bytes.set_nonblocking(true)?;
        pipe::register(SIGTERM, handler.try_clone()?)?;
        pipe::register(SIGINT, handler)?;
        let gate = server.gate(&bytes)?;
        Ok(Signals { bytes, gate })
    }

    /// Waits for the next one.
    pub async fn next(&self) {
        while (&self.bytes).read(&mut [0]).is_err() {
            self.gate.open().await;
        }
    }
}
