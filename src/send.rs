//! `pinpost send`: one line to one user, and its fate.
//!
//! It logs in with `ack` and takes no message: whatever comes for the sender in
//! this moment stays for its other sessions and its mailbox. It never hangs: there
//! is one deadline for everything, 15 seconds, and a second more to say `QUIT`. Until
//! then the client goes on trying, whatever breaks.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use smol::future;

use crate::client::{Client, ClientConfig, ClientError, Fate, SendError};
use crate::proto::ErrorCode;
use crate::terminal::printable;

/// Sends the line, prints its fate to standard output or what went wrong to
/// standard error, and tells whether it was delivered or stored.
pub fn run(options: SendOptions) -> bool {
    let sent = smol::block_on(send(options, TIME_MAX));
    // The message went its way whether or not anybody can read about it.
    let _ = match &sent {
        Ok(fate) => writeln!(io::stdout(), "{fate}"),
        Err(failure) => writeln!(io::stderr(), "pinpost: {}", printable(&failure.to_string())),
    };
    sent.is_ok()
}

/// What to send, and as whom.
#[derive(Clone)]
pub struct SendOptions {
    /// `HOST:PORT`.
    pub server: String,
    /// What proves that the sender is who it says, where the server asks.
    pub token: Option<String>,
    /// The sender.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The line.
    pub text: String,
}

/// Shows everything but the token.
impl fmt::Debug for SendOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOptions")
            .field("server", &self.server)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

impl SendOptions {
    /// A line to send at the default server, without a token.
    pub fn new(from: impl Into<String>, to: impl Into<String>, text: impl Into<String>) -> Self {
        let (from, to, text) = (from.into(), to.into(), text.into());
        SendOptions { server: "127.0.0.1:7700".to_owned(), token: None, from, to, text }
    }
}

async fn send(options: SendOptions, time_max: Duration) -> Result<Fate, Failure> {
    let late = async {
        smol::Timer::after(time_max).await;
        Err(Failure::TimedOut(time_max))
    };
    let SendOptions { server, token, from, to, text } = options;
    let send = async {
        let config = ClientConfig { token, ack: true, ..ClientConfig::new(server, from) };
        let (client, incoming) = Client::connect(config).await.map_err(Failure::NotConnected)?;
        drop(incoming);
        let fate = client.send(&to, &text).await.map_err(|error| Failure::NotSent { to, error });
        let enough = async {
            smol::Timer::after(CLOSE_TIME_MAX).await;
        };
        future::or(client.close(), enough).await;
        fate
    };
    future::or(send, late).await
}

#[derive(Debug)]
enum Failure {
    NotConnected(ClientError),
    NotSent { to: String, error: SendError },
    TimedOut(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotConnected(error) => write!(f, "not sent: {error}"),
            Failure::NotSent { to, error } => f.write_str(&trouble(to, error)),
            Failure::TimedOut(time) => {
                write!(f, "no reply within {} seconds: the outcome is not known", time.as_secs())
            }
        }
    }
}

impl Error for Failure {}

/// Tells in one sentence what an error means for a message to `to`.
pub(crate) fn trouble(to: &str, error: &SendError) -> String {
    match error {
        SendError::Refused { code: ErrorCode::Offline, .. } => {
            format!("{to} is not connected: not delivered")
        }
        SendError::Refused { code: ErrorCode::Timeout, .. } => {
            format!("to {to}: no answer from there in time: the outcome is not known")
        }
        SendError::Lost => format!("to {to}: {error}"),
        error => format!("to {to}: not delivered: {error}"),
    }
}

const TIME_MAX: Duration = Duration::from_secs(15);
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{self, Server};

    /// Sends to a server that answers `reply`, and nothing when that is empty.
    fn check(reply: &'static str, expected: &str) {
        let server = Server::run(move |door| {
            let mut peer = door.accept();
            peer.say("HELLO pinpost 1 pi-1");
            peer.hear("LOGIN alice ack");
            peer.say("OK alice 4k2jd8s1\nMSG carol x-1 not for this session");
            let tag = peer.hear_tagged("SEND bob hello");
            if reply.is_empty() {
                return peer.hear("");
            }
            peer.say(&format!("{tag} {reply}"));
            // After a timeout it is sent again, for a while.
            while let line = peer.line()
                && line != "QUIT"
            {
                assert_eq!(line, format!("{tag} SEND bob hello"));
                peer.say(&format!("{tag} {reply}"));
            }
            peer.say("BYE quit");
        });
        let options =
            SendOptions { server: server.addr.clone(), ..SendOptions::new("alice", "bob", "hello") };
        let time_max = if reply.is_empty() { Duration::from_millis(50) } else { TIME_MAX };
        let shown = match fake::run(send(options, time_max)) {
            Ok(fate) => fate.to_string(),
            Err(failure) => failure.to_string(),
        };
        assert_eq!(shown, expected);
        if !reply.is_empty() {
            server.finish();
        }
    }

    #[test]
    fn one_line_and_its_fate() {
        check("OK x delivered", "delivered");
        check("OK x stored", "stored");
        check("ERR offline away", "bob is not connected: not delivered");
        check("ERR mailbox-full no room", "to bob: not delivered: mailbox-full: no room");
        check("ERR timeout x", "to bob: no answer from there in time: the outcome is not known");
        check("", "no reply within 0 seconds: the outcome is not known");
    }

    #[test]
    fn no_server_no_message() {
        let options =
            SendOptions { server: "127.0.0.1:1".to_owned(), ..SendOptions::new("alice", "bob", "x") };
        let failure = fake::run(send(options, TIME_MAX)).unwrap_err();
        assert!(failure.to_string().starts_with("not sent: 127.0.0.1:1: "), "{failure}");
    }
}
