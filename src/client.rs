//! The client: a user's connection to a node, kept up by a task of its own.
//!
//! [`Client`] says things, [`Incoming`] hears them. Both talk over bounded
//! channels to one background task that owns the socket, reconnects by itself,
//! and matches replies to requests by their tags, so that many requests may be
//! outstanding at once.
//!
//! A request whose connection broke before the reply goes out again on the next,
//! under the same tag, in its old place; so does a message answered `ERR timeout`,
//! after a pause. The receiving side knows a copy by sender and id, and drops it.
//! Because it remembers for a while only, a request is said again until 60 seconds
//! after it went out first; then it is [`SendError::Lost`], or refused with
//! [`ErrorCode::Timeout`](crate::proto::ErrorCode::Timeout): its outcome is not known. So it
//! is when the repeated message is refused, since the first may have arrived. A `CAST` is never repeated, nor is
//! what nobody waits for any more. The other way round, a message that was handed to
//! the program is not handed to it again, whatever connection its copy comes on.
//!
//! Whoever does not read [`Incoming`] stops the reading of the socket once its
//! 1,024 places are taken, and then the replies to requests stop as well: read it,
//! or drop it. A program that waits for a reply and takes nothing for 5 seconds has
//! blocked itself: the client gives up that connection, and the request is `Lost`.
//!
//! 1,024 requests at most are without a reply; the next one waits. With
//! [`ack`](ClientConfig::ack) the messages among them have 128 KiB at most as well, each in
//! steps of 128 bytes, and one longer than that goes alone. A server reads on for the
//! `ACK` lines of a client behind that many bytes of messages which wait for room at
//! their recipients, so two clients that flood each other don't wait for each other.
//!
//! Left out: rooms and watches, TLS and WebSocket, and deadlines on requests
//! (race the future with a timer; every future here may be dropped at any time).

#[cfg(test)]
mod ack_tests;
#[cfg(test)]
mod again_tests;
mod command;
mod config;
mod connection;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod handed;
mod incoming;
mod outstanding;
mod room;
#[cfg(test)]
mod room_tests;
mod task;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Semaphore;

use crate::client::command::{Answer, Command, OwnId, OwnIds, Pending};
use crate::client::connection::{Connection, Target};
use crate::client::handed::Handed;
use crate::client::outstanding::Outstanding;
use crate::client::room::Room;
use crate::client::task::Task;
use crate::proto::{Request, SessionId, Tag, TaggedRequest, UserRef};
use crate::random::random_id;

pub use crate::client::config::ClientConfig;
pub use crate::client::error::{BadInput, ClientError, Refusal, SendError};
pub use crate::client::incoming::{Event, Incoming};

/// A user's connection to a node: the side that says things.
///
/// Clones are cheap and share the connection. It ends in order when all clones
/// and the [`Incoming`] are gone.
///
/// ```no_run
/// # use pinpost::client::{Client, ClientConfig};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, _incoming) = Client::connect(ClientConfig::new("127.0.0.1:7700", "alice")).await?;
/// let fate = client.send("bob", "hello").await?;
/// println!("{fate}");
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
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
        let target = Target::new(&config)?;
        let connection = Connection::open_one(&target, 0, OPEN_TIME_MAX).await?;
        let (commands_tx, commands_rx) = bounded(COMMANDS_MAX);
        let (events_tx, events_rx) = bounded(EVENTS_MAX);
        let (stop_tx, stop_rx) = bounded(1);
        let (done_tx, done_rx) = bounded(1);
        let (wake_tx, wake_rx) = bounded(1);
        let place = Arc::new(Mutex::new(connection.place.clone()));
        let handed = Arc::new(Handed::new(config.ack, wake_tx.clone()));
        let task = Task {
            target,
            commands: commands_rx,
            stop: stop_rx,
            events: events_tx,
            place: place.clone(),
            handed: handed.clone(),
            wake: wake_tx,
            woken: wake_rx,
            outstanding: Mutex::new(Outstanding::default()),
            stopping: AtomicBool::new(false),
        };
        smol::spawn(task.run(connection, done_tx)).detach();
        let handle = Arc::new(Handle {
            commands: commands_tx,
            stop: stop_tx,
            done: done_rx,
            permits: Arc::new(Semaphore::new(OUTSTANDING_MAX)),
            room: config.ack.then(Room::new),
            tag_prefix: format!("{}-", random_id(10, &SessionId::ALPHABET)),
            tag_next: AtomicU64::new(1),
            own_ids: OwnIds::default(),
            line_bytes_max: config.line_bytes_max,
            place,
            handed,
        });
        Ok((Client { handle: handle.clone() }, Incoming::new(events_rx, handle)))
    }

    /// Sends one message and waits for its fate.
    ///
    /// Waits first while too much is outstanding, and while there is no connection. Sends it again where the [module](self) says so. Dropping the future
    /// leaves open whether the message was sent.
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
        let to = user(to)?;
        check_text(text)?;
        let answer = self.request(Request::Send { to, text }, Answer::Fate).await?;
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
    /// copy: servers among the user's last 2,048 messages of the last minute or more,
    /// clients among the last 4,096. The same id is for the same text to the same user,
    /// always.
    ///
    /// # Errors
    /// `BadInput` or `Closed`: nothing was sent. It is bad input when the id has another
    /// form, or belongs to a message of this client whose fate is not known yet.
    pub async fn submit_as(&self, id: &str, to: &str, text: &str) -> Result<Sending, SendError> {
        let to = user(to)?;
        check_text(text)?;
        let tag = Tag::parse(id).ok_or_else(|| BadInput::Id { id: id.to_owned() })?;
        let in_use = || BadInput::IdInUse { id: id.to_owned() };
        // Those with this beginning are the client's to give.
        let is_free = !id.starts_with(&self.handle.tag_prefix);
        let own_id = is_free.then(|| self.handle.own_ids.claim(id)).flatten().ok_or_else(in_use)?;
        let answer = self.request_as(tag, Some(own_id), Request::Send { to, text }, Answer::Fate).await?;
        Ok(Sending { answer })
    }

    /// Sends one message at most once: no fate, no retry, no mailbox. Returns when
    /// it is queued; what the server has to say against it arrives as
    /// [`Event::Refused`].
    ///
    /// # Errors
    /// `BadInput` or `Closed`.
    pub async fn cast(&self, to: &str, text: &str) -> Result<(), SendError> {
        let to = user(to)?;
        check_text(text)?;
        let line = self.handle.line(None, Request::Cast { to, text })?;
        self.handle.commands.send(Command::Cast(line)).await.map_err(|_| SendError::Closed)
    }

    /// Asks for a user's presence in the whole cluster.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn who(&self, name: &str) -> Result<Presence, SendError> {
        let answer = self.request(Request::Who(user(name)?), Answer::Presence).await?;
        answer.recv().await.unwrap_or(Err(SendError::Lost))
    }

    /// Asks the node for a sign of life, and tells how long the answer took,
    /// waiting for a connection included.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn ping(&self) -> Result<Duration, SendError> {
        let asked = Instant::now();
        let answer = self.request(Request::Ping(None), Answer::Pong).await?;
        answer.recv().await.unwrap_or(Err(SendError::Lost)).map(|()| asked.elapsed())
    }

    /// Where the user is logged in, or was before the connection was lost.
    pub fn place(&self) -> Place {
        self.handle.place.lock().expect("nothing panics with the place locked").clone()
    }

    /// Ends the connection for all clones: sends what is queued, acknowledgements
    /// included, says `QUIT`, and waits for the server's `BYE`, 5 seconds at most.
    /// Requests without a reply by then are `Lost`, those that never went out are
    /// `Closed`.
    pub async fn close(&self) {
        // Full or closed means that the stop was asked for already.
        let _ = self.handle.stop.try_send(());
        let _ = self.handle.done.recv().await;
    }

    /// Queues a request under a fresh tag; the answer arrives in the channel.
    async fn request<T>(
        &self,
        request: Request<'_>,
        answer: fn(Sender<Result<T, SendError>>) -> Answer,
    ) -> Result<Receiver<Result<T, SendError>>, SendError> {
        let number = self.handle.tag_next.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}{number}", self.handle.tag_prefix);
        let tag = Tag::parse(&tag).expect("letters, digits and one -");
        self.request_as(tag, None, request, answer).await
    }

    async fn request_as<T>(
        &self,
        tag: Tag<'_>,
        own_id: Option<OwnId>,
        request: Request<'_>,
        answer: fn(Sender<Result<T, SendError>>) -> Answer,
    ) -> Result<Receiver<Result<T, SendError>>, SendError> {
        let handle = &self.handle;
        let is_send = matches!(request, Request::Send { .. });
        let line = handle.line(Some(tag), request)?;
        // Before the permit: who waits for room leaves the permits to questions.
        let room = match &handle.room {
            Some(room) if is_send => Some(room.take(line.len()).await),
            _ => None,
        };
        let permit = handle.permits.acquire_arc().await;
        let (tx, rx) = bounded(1);
        let pending = Pending::new(own_id, answer(tx), permit, room);
        let command = Command::Request { tag: tag.as_str().into(), pending, line };
        handle.commands.send(command).await.map_err(|_| SendError::Closed)?;
        Ok(rx)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// What became of a message that worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Written to a session of the recipient, or acknowledged by one.
    Delivered,
    /// In the recipient's mailbox; the next login drains it.
    Stored,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Delivered => "delivered",
            Fate::Stored => "stored",
        })
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

/// Whether a user can be reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Logged in.
    Online {
        /// How many sessions, in the whole cluster; at least 1.
        sessions: u32,
    },
    /// Not logged in anywhere.
    Offline,
}

/// Where a user is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node's id, as its `HELLO` told it.
    pub node: String,
    /// The session.
    pub session: SessionId,
}

/// What clients and their `Incoming` share. The task ends when it is dropped.
struct Handle {
    commands: Sender<Command>,
    /// One place: asking twice is asking once.
    stop: Sender<()>,
    /// Closed by the task when it has ended; nothing ever comes through.
    done: Receiver<Infallible>,
    permits: Arc<Semaphore>,
    /// For messages, with `ack`.
    room: Option<Room>,
    /// Fresh for each client, so that no two messages of one user share an id.
    tag_prefix: String,
    tag_next: AtomicU64,
    own_ids: OwnIds,
    line_bytes_max: usize,
    /// Written by the task at each login.
    place: Arc<Mutex<Place>>,
    handed: Arc<Handed>,
}

impl Handle {
    /// Prints one request line.
    fn line(&self, tag: Option<Tag<'_>>, request: Request<'_>) -> Result<Vec<u8>, BadInput> {
        let mut line = Vec::new();
        TaggedRequest { tag, request: Ok(request) }.print(&mut line);
        if line.len() > self.line_bytes_max {
            return Err(BadInput::TooLong { bytes: line.len(), bytes_max: self.line_bytes_max });
        }
        Ok(line)
    }
}

fn user(name: &str) -> Result<UserRef<'_>, BadInput> {
    UserRef::parse(name).ok_or_else(|| BadInput::User { name: name.to_owned() })
}

fn check_text(text: &str) -> Result<(), BadInput> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        Some(found) => Err(BadInput::Control { found }),
        None if text.is_empty() => Err(BadInput::Empty),
        None => Ok(()),
    }
}

/// The most requests without a reply.
const OUTSTANDING_MAX: usize = 1024;
/// The most lines that wait for the task.
const COMMANDS_MAX: usize = 256;
/// The most events that wait in `Incoming`.
const EVENTS_MAX: usize = 1024;
/// The most time for one attempt to connect and log in.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
