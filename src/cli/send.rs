//! `pinpost send`: one line to one user, and its fate.
//!
//! It logs in with `ack` and takes no message: whatever comes for the sender in
//! this moment stays for its other sessions and its mailbox. It never hangs: there
//! is one deadline for everything, 15 seconds, and a second more to say `QUIT`. Until
//! then the client goes on trying, whatever breaks.

use std::time::Duration;

use pinpost::{Client, ClientConfig, ErrorCode, Fate, SendError, UserName};
use smol::future;

use crate::cli::outcome::{Failure, print};

/// Sends the line, and prints its fate.
///
/// # Errors
/// When it was neither delivered nor stored, or nobody knows.
pub fn run(config: ClientConfig, to: &UserName, text: &str) -> Result<(), Failure> {
    let fate = smol::block_on(send(config, to, text, TIME_MAX)).map_err(Failure::AtRunTime)?;
    // The message went its way whether or not anybody can read about it.
    let _ = print(&format!("{fate}\n"));
    Ok(())
}

async fn send(config: ClientConfig, to: &UserName, text: &str, time_max: Duration) -> Result<Fate, String> {
    let late = async {
        smol::Timer::after(time_max).await;
        Err(format!("no reply within {} seconds: the outcome is not known", time_max.as_secs()))
    };
    let send = async {
        let (client, incoming) =
            Client::connect(config).await.map_err(|error| format!("not sent: {error}"))?;
        drop(incoming);
        let fate = client.send(to.as_str(), text).await.map_err(|error| trouble(to, &error));
        close(&client).await;
        fate
    };
    future::or(send, late).await
}

/// Ends the connection, which may take a moment and no longer.
pub async fn close(client: &Client) {
    let enough = async {
        smol::Timer::after(CLOSE_TIME_MAX).await;
    };
    future::or(client.close(), enough).await;
}

/// Tells in one sentence what an error means for a message to `to`.
pub fn trouble(to: &UserName, error: &SendError) -> String {
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
    use crate::cli::fake::{self, FakeNode};

    fn hello(server: &str, time_max: Duration) -> Result<Fate, String> {
        let config = ClientConfig::new(server, "alice").ack(true);
        let bob = "bob".parse().unwrap();
        fake::run(send(config, &bob, "hello", time_max))
    }

    /// Sends to a server that answers `reply`, and nothing when that is empty.
    fn check(reply: &'static str, expected: &str) {
        let server = FakeNode::run(move |door| {
            let mut peer = door.accept();
            peer.say("HELLO pinpost 1 pi-1");
            peer.hear("LOGIN alice ack");
            peer.say("OK alice 4k2jd8s1\nMSG carol x-1 not for this session");
            let tag = peer.hear_tagged("SEND bob hello");
            if reply.is_empty() {
                return peer.hear("");
            }
            peer.say(&format!("{tag} {reply}"));
            peer.part();
        });
        let time_max = if reply.is_empty() { Duration::from_millis(50) } else { TIME_MAX };
        let shown = match hello(&server.addr, time_max) {
            Ok(fate) => fate.to_string(),
            Err(failure) => failure,
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
        check("", "no reply within 0 seconds: the outcome is not known");
    }

    #[test]
    fn what_an_unknown_outcome_means() {
        let bob: UserName = "bob".parse().unwrap();
        let timeout = SendError::Refused { code: ErrorCode::Timeout, text: "x".to_owned() };
        let expected = "to bob: no answer from there in time: the outcome is not known";
        assert_eq!(trouble(&bob, &timeout), expected);
        assert!(trouble(&bob, &SendError::Lost).ends_with("the outcome is not known"));
    }

    #[test]
    fn no_server_no_message() {
        let failure = hello("127.0.0.1:1", TIME_MAX).unwrap_err();
        assert!(failure.starts_with("not sent: 127.0.0.1:1: "), "{failure}");
    }
}
