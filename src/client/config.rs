//! How a program tells the client where to connect, as whom, and what it promises.

use std::fmt;

use crate::proto::LINE_BYTES_MAX;

/// How to reach the server, and as whom.
///
/// ```
/// use pinpost::ClientConfig;
/// let config = ClientConfig::new("127.0.0.1:7700", "alice").ack(true);
/// assert_eq!(config.user, "alice");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// `HOST:PORT`, or several, `HOST:PORT,HOST:PORT`: nodes of one cluster, tried in turn.
    pub server: String,
    /// The user's name.
    pub user: String,
    /// What proves it, where the server asks for proof.
    pub token: Option<String>,
    /// Acknowledge each message when the program is done with it: when it asks
    /// [`Incoming`](crate::Incoming) for the next event, or says so by
    /// [`Incoming::acknowledge`](crate::Incoming::acknowledge). Only then does its sender
    /// hear `delivered`, and one that was not acknowledged is not lost with the connection:
    /// it goes to another session or to the mailbox. Off by default: the server's write
    /// counts.
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

    /// With a token that proves who the user is.
    pub fn token(self, token: impl Into<String>) -> Self {
        ClientConfig { token: Some(token.into()), ..self }
    }

    /// Whether messages are acknowledged; see [`ClientConfig::ack`](field@Self::ack).
    pub fn ack(self, ack: bool) -> Self {
        ClientConfig { ack, ..self }
    }

    /// With another longest request line, for a server with another `max-line`.
    pub fn line_bytes_max(self, line_bytes_max: usize) -> Self {
        ClientConfig { line_bytes_max, ..self }
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
