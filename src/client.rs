//! The client library: a user's connection to a node, kept up by a task of its own.
//!
//! [`Client`] says things, [`Incoming`] hears them. Both talk over bounded channels to
//! one background task (`task.rs`), which owns the socket, reconnects by itself, and
//! matches replies to requests by their tags, so that many requests may be without a
//! reply at once. What it promises to programs stands at [`Client`].
//!
//! Left out: rooms and watches, TLS and WebSocket, and deadlines on requests
//! (race the future with a timer; every future here may be dropped at any time).

#[cfg(test)]
mod ack_tests;
#[cfg(test)]
mod again_tests;
mod config;
mod core;
mod error;
mod event;
#[cfg(test)]
pub(crate) mod fake;
mod incoming;
#[cfg(test)]
mod limited_tests;
mod outstanding;
mod received;
mod request;
mod task;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::Receiver;

use crate::client::core::Core;
use crate::client::request::{Caller, Errand};
use crate::client::task::Task;
use crate::client::wire::{OPEN_TIME_MAX, Servers, Wire};
use crate::proto::{Request, Tag, UserRef};

pub use crate::client::config::ClientConfig;
pub use crate::client::error::{BadInput, ClientError, Refusal, SendError};
pub use crate::client::event::{Event, Place};
pub use crate::client::incoming::Incoming;
pub use crate::client::request::{Fate, UserPresence};

/// A user's connection to a node: the side that says things.
///
/// Clones are cheap and share the connection. It ends in order when all clones
/// and the [`Incoming`] are gone.
///
/// ```no_run
/// # use pinpost::{Client, ClientConfig};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, _incoming) = Client::connect(ClientConfig::new("127.0.0.1:7700", "alice")).await?;
/// let fate = client.send("bob", "hello").await?;
/// println!("{fate}");
/// client.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # What is said again
///
/// A request whose connection broke before the reply goes out again on the next, under
/// the same tag, in its old place; so does a message answered `ERR timeout`, after a
/// pause. The receiving side knows a duplicate by sender and id, and drops it. Because it
/// remembers for a while only, a request is said again until 60 seconds after it went
/// out first; then it is [`SendError::Lost`], or refused with [`ErrorCode::Timeout`]: its
/// outcome is not known. So it is when the repeated message is refused, since the first
/// may have arrived. A request answered `ERR limited` was not carried out: it too goes
/// out again after a pause, which grows and is jittered, and when the 60 seconds are over
/// it is refused with [`ErrorCode::Limited`]. A `CAST` is never repeated, nor is what
/// nobody waits for any more. The other way round, a message that was handed to the
/// program is not handed to it again, whatever connection its duplicate comes on.
///
/// Messages to one user arrive in the order in which they were submitted, except those
/// that are said again because of `ERR timeout` or `ERR limited`: newer ones don't wait
/// for them. A program that needs the order of these too waits for each fate.
///
/// # Bounds
///
/// 1,024 requests at most are without a reply; the next one waits. A program that does not
/// read [`Incoming`] stops the reading of the socket once its 1,024 places are taken, and
/// then the replies to requests stop as well: read it, or drop it. A program that waits
/// for a reply and takes nothing for 5 seconds has blocked itself: the client gives up that
/// connection, and the request is `Lost`.
///
/// [`ErrorCode::Timeout`]: crate::ErrorCode::Timeout
/// [`ErrorCode::Limited`]: crate::ErrorCode::Limited
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// Connects and logs in; both together may take 5 seconds, at each server that is
    /// named. From then on the connection is kept up by itself, with a growing, jittered
    /// pause between attempts: up to 100 ms before the first, up to 5 s later. Of several
    /// servers, an attempt tries each in turn, the one that was lost last.
    ///
    /// # Errors
    /// When the name or the token can't be right, when the server can't be reached
    /// or is none of ours, and when it refuses the login. The first attempt is not
    /// repeated; of several servers it tells the last one's error.
    pub async fn connect(config: ClientConfig) -> Result<(Client, Incoming), ClientError> {
        let servers = Servers::new(&config)?;
        let wire = Wire::open_one(&servers, 0, OPEN_TIME_MAX).await?;
        let (core, ends, events) = Core::new(&config, wire.place.clone());
        smol::spawn(Task::new(servers, ends).run(wire)).detach();
        let core = Arc::new(core);
        Ok((Client { core: core.clone() }, Incoming::new(events, core)))
    }

    /// Sends one message and waits for its fate.
    ///
    /// Waits first while too much is outstanding, and while there is no connection. Sends
    /// it again where [`Client`] says so. Dropping the future leaves open whether the
    /// message was sent.
    ///
    /// # Errors
    /// See [`SendError`]: after `Refused`, `BadInput` and `Closed` the message was
    /// not delivered and never will be, except for
    /// [`ErrorCode::Timeout`](crate::proto::ErrorCode::Timeout), which, like `Lost`, tells
    /// nothing of its fate.
    pub async fn send(&self, to: &str, text: &str) -> Result<Fate, SendError> {
        self.submit(to, text).await?.fate().await
    }

    /// Sends one message and leaves the waiting for its fate to the caller, who so
    /// keeps many on their way. Messages submitted one after the other go out in
    /// that order.
    ///
    /// # Errors
    /// `BadInput` or `Closed`: nothing was sent.
    pub async fn submit(&self, to: &str, text: &str) -> Result<Sending, SendError> {
        let to = UserRef::try_from(to)?;
        check_text(text)?;
        let answer = self.core.request(Request::Send { to, text }, Caller::Send).await?;
        Ok(Sending { answer })
    }

    /// Sends one message under an id of the program's own and waits for its fate; see
    /// [`Client::submit_as`].
    ///
    /// # Errors
    /// As [`Client::submit_as`] and [`Client::send`].
    pub async fn send_as(&self, id: &str, to: &str, text: &str) -> Result<Fate, SendError> {
        self.submit_as(id, to, text).await?.fate().await
    }

    /// As [`Client::submit`], under an id of the program's own: 1 to 64 of
    /// `A-Z a-z 0-9 . _ - ~`. A program that remembers its ids can send a message again
    /// whose fate it does not know, after a restart too, and the receiving side drops the
    /// duplicate: the node that showed it, among the user's last 2,048 messages of the last
    /// minute or more, and clients among the last 4,096. The same id is for the same text
    /// to the same user, always.
    ///
    /// # Errors
    /// `BadInput` or `Closed`: nothing was sent. It is bad input when the id has another
    /// form, or belongs to a message of this client whose fate is not known yet.
    pub async fn submit_as(&self, id: &str, to: &str, text: &str) -> Result<Sending, SendError> {
        let to = UserRef::try_from(to)?;
        check_text(text)?;
        let tag = Tag::try_from(id)?;
        let own_id = self.core.claim(id).ok_or_else(|| BadInput::IdInUse { id: id.to_owned() })?;
        let answer =
            self.core.request_as(tag, Some(own_id), Request::Send { to, text }, Caller::Send).await?;
        Ok(Sending { answer })
    }

    /// Sends one message at most once: no fate, no retry, no mailbox. Returns when
    /// it is queued; what the server has to say against it arrives as
    /// [`Event::Refused`].
    ///
    /// # Errors
    /// `BadInput` or `Closed`.
    pub async fn cast(&self, to: &str, text: &str) -> Result<(), SendError> {
        let to = UserRef::try_from(to)?;
        check_text(text)?;
        let line = self.core.line(None, Request::Cast { to, text })?;
        self.core.errands.send(Errand::Cast(line)).await.map_err(|_| SendError::Closed)
    }

    /// Asks for a user's presence in the whole cluster.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn who(&self, name: &str) -> Result<UserPresence, SendError> {
        let answer = self.core.request(Request::Who(UserRef::try_from(name)?), Caller::Who).await?;
        answer.recv().await.unwrap_or(Err(SendError::Lost))
    }

    /// Asks the node for a sign of life, and tells how long the answer took,
    /// waiting for a connection included.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn ping(&self) -> Result<Duration, SendError> {
        let asked = Instant::now();
        let answer = self.core.request(Request::Ping(None), Caller::Ping).await?;
        answer.recv().await.unwrap_or(Err(SendError::Lost)).map(|()| asked.elapsed())
    }

    /// Where the user is logged in, or was before the connection was lost.
    pub fn place(&self) -> Place {
        self.core.place.lock().expect("nothing panics with the place locked").clone()
    }

    /// Ends the connection for all clones: sends what is queued, acknowledgements
    /// included, says `QUIT`, and waits for the server's `BYE`, 5 seconds at most.
    /// Requests without a reply by then are `Lost`, those that never went out are
    /// `Closed`.
    pub async fn close(&self) {
        // Full or closed means that the stop was asked for already.
        let _ = self.core.stop.try_send(());
        let _ = self.core.done.recv().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// A message on its way. Dropping it before it went out takes it back; after
/// that, only the news of its fate is lost, and it is not said again.
#[derive(Debug)]
#[must_use = "dropped before it went out, the message is not sent"]
pub struct Sending {
    answer: Receiver<Result<Fate, SendError>>,
}

impl Sending {
    /// Waits for the fate.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn fate(self) -> Result<Fate, SendError> {
        self.answer.recv().await.unwrap_or(Err(SendError::Lost))
    }
}

fn check_text(text: &str) -> Result<(), BadInput> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        Some(found) => Err(BadInput::Control { found }),
        None if text.is_empty() => Err(BadInput::Empty),
        None => Ok(()),
    }
}
