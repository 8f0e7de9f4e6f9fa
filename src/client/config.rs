//! How a program tells the client where to connect, as whom, and what it promises.

use std::fmt;

use crate::proto::LINE_BYTES_MAX;

/// How to reach the server, and as whom.
#[derive(Clone)]
pub struct ClientConfig {
    /// `HOST:PORT`, or several, `HOST:PORT,HOST:PORT`: nodes of one cluster, tried in turn.
    pub server: String,
    /// The user's name.
    pub user: String,
    /// What proves it, where the server asks for proof.
    pub token: Option<String>,
    /// Acknowledge each message when the program is done with it: when it asks
    /// [`Incoming`](crate::client::Incoming) for the next event, or says so by [`Incoming::acknowledge`](crate::client::Incoming::acknowledge). Only then
    /// does its sender hear `delivered`, and one that was not acknowledged is not lost with
    /// the connection: it goes to another session or to the mailbox. Off by default: the
    /// server's write counts.
    pub ack: bool,
    /// The longest request line, LF included; longer ones are `BadInput`. The
    /// server's `max-line`, 4,096 by default.
    pub line_bytes_max: usize,
}

impl ClientConfig {
    /// Everything but the server and the user at its default.
    pub fn new(server: impl Into<String>, user: impl Into<String>) -> Self {
        let (server, user) = (server.into(), user.into());
        ClientConfig { server, user, token: None, ack: false, line_bytes_max: LINE_BYTES_MAX }
    }
}

/// Shows everything but the token.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("server", &self.server)
            .field("user", &self.user)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("ack", &self.ack)
            .field("line_bytes_max", &self.line_bytes_max)
            .finish()
    }
}
