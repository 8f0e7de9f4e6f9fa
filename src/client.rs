//! The client: a user's connection to a node, kept up by a task of its own.
//!
//! [`Client`] says things, [`Incoming`] hears them. Both talk over bounded
//! channels to one background task that owns the socket, reconnects by itself,
//! and matches replies to requests by their tags, so that many requests may be
//! outstanding at once. A request is never repeated behind the caller's back: one
//! whose reply did not come before the connection broke is [`SendError::Lost`].
//! One that was still waiting for a connection goes out on the next.
//!
//! Whoever does not read [`Incoming`] stops the reading of the socket once its
//! 1,024 places are taken, and then the replies to requests stop as well: read it,
//! or drop it. A program that waits for a reply and takes nothing for 5 seconds has
//! blocked itself: the client gives up that connection, and the request is `Lost`.
//!
//! Left out: rooms and watches, TLS and WebSocket, and deadlines on requests
//! (race the future with a timer; every future here may be dropped at any time).

mod command;
mod connection;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod task;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Semaphore;
use smol::stream::{self, Stream};

use crate::client::command::{Answer, Command, Pending};
use crate::client::connection::{Connection, Target};
use crate::client::task::Task;
use crate::proto::{
    ErrorCode, LINE_BYTES_MAX, MessageId, Request, SessionId, Tag, TaggedRequest, UserName, UserRef,
};

pub use crate::client::error::{BadInput, ClientError, Refusal, SendError};

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
    /// Connects and logs in; both together may take 5 seconds. From then on the
    /// connection is kept up by itself, with a growing, jittered pause between
    /// attempts: up to 100 ms before the first, up to 5 s later.
    ///
    /// # Errors
    /// When the name or the token can't be right, when the server can't be reached
    /// or is none of ours, and when it refuses the login. The first connection is
    /// not tried again.
    pub async fn connect(config: ClientConfig) -> Result<(Client, Incoming), ClientError> {
        let target = Target::new(&config)?;
        let connection = Connection::open(&target, OPEN_TIME_MAX).await?;
        let (commands_tx, commands_rx) = bounded(COMMANDS_MAX);
        let (events_tx, events_rx) = bounded(EVENTS_MAX);
        let (stop_tx, stop_rx) = bounded(1);
        let (done_tx, done_rx) = bounded(1);
        let place = Arc::new(Mutex::new(connection.place.clone()));
        let tag_prefix: Arc<str> = format!("{}-", nanoid::nanoid!(10, &SessionId::ALPHABET)).into();
        let task = Task::new(target, tag_prefix.clone(), commands_rx, stop_rx, events_tx, place.clone());
        smol::spawn(task.run(connection, done_tx)).detach();
        let handle = Arc::new(Handle {
            commands: commands_tx,
            stop: stop_tx,
            done: done_rx,
            permits: Arc::new(Semaphore::new(OUTSTANDING_MAX)),
            tag_prefix,
            tag_next: AtomicU64::new(1),
            line_bytes_max: config.line_bytes_max,
            place,
        });
        Ok((Client { handle: handle.clone() }, Incoming::new(events_rx, handle, config.ack)))
    }

    /// Sends one message and waits for its fate.
    ///
    /// Waits first while 1,024 requests are outstanding, and while there is no
    /// connection. Dropping the future leaves open whether the message was sent.
    ///
    /// # Errors
    /// See [`SendError`]: after `Refused`, `BadInput` and `Closed` the message was
    /// not delivered and never will be, except for [`ErrorCode::Timeout`], which,
    /// like `Lost`, tells nothing of its fate.
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
        self.handle.commands.send(Command::Line(line)).await.map_err(|_| SendError::Closed)
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

    /// Ends the connection for all clones: sends what is queued, says `QUIT`, and
    /// waits for the server's `BYE`, 5 seconds at most. Requests without a reply by
    /// then are `Lost`, those that never went out are `Closed`.
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
        let handle = &self.handle;
        let number = handle.tag_next.fetch_add(1, Ordering::Relaxed);
        let line = handle.line(Some(number), request)?;
        let permit = handle.permits.acquire_arc().await;
        let (tx, rx) = bounded(1);
        let pending = Pending::new(answer(tx), permit);
        let command = Command::Request { number, pending, line };
        handle.commands.send(command).await.map_err(|_| SendError::Closed)?;
        Ok(rx)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// How to reach the server, and as whom.
#[derive(Clone)]
pub struct ClientConfig {
    /// `HOST:PORT`.
    pub server: String,
    /// The user's name.
    pub user: String,
    /// What proves it, where the server asks for proof.
    pub token: Option<String>,
    /// Acknowledge each message when the program takes it from [`Incoming`]. Only
    /// then does its sender hear `delivered`, and one that was never taken is not
    /// lost with the connection. Off by default: the server's write counts. The server
    /// of this version takes the wish, but its write counts all the same.
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
/// that, only the news of its fate is lost.
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

/// What the server, or the state of the connection, has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message {
        /// Its sender.
        from: UserName,
        /// The room it was sent to, if it was, without the `#`.
        room: Option<UserName>,
        /// Its id: with the sender it names the message.
        id: MessageId,
        /// Its text, as the server sent it.
        text: String,
    },
    /// The server refused a line that has no reply, such as a `CAST`.
    Refused {
        /// Why.
        code: ErrorCode,
        /// The same for people.
        text: String,
    },
    /// The connection is lost; the client is trying to get it back.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// Connected and logged in again.
    Found {
        /// The node, which may be another one.
        node: String,
        /// The new session.
        session: SessionId,
    },
    /// The server does not want this user here any more: the last event. After
    /// [`Client::close`] the stream just ends.
    Closed(Refusal),
}

/// The side that hears: a stream of events, which ends when the client does not
/// reconnect. At most 1,024 events wait in it; see the [module](self) for what
/// happens then. Dropping it discards the messages that come from then on, except
/// with [`ClientConfig::ack`], which leaves them to other sessions and the mailbox.
pub struct Incoming {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Incoming {
    fn new(events: Receiver<Event>, handle: Arc<Handle>, ack: bool) -> Self {
        let events = stream::unfold((events, handle), move |(events, handle)| async move {
            let event = events.recv().await.ok()?;
            if ack && let Event::Message { from, id, .. } = &event {
                handle.acknowledge(id, from).await;
            }
            Some((event, (events, handle)))
        });
        Incoming { events: Box::pin(events) }
    }
}

impl Stream for Incoming {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// What clients and their `Incoming` share. The task ends when it is dropped.
struct Handle {
    commands: Sender<Command>,
    /// One place: asking twice is asking once.
    stop: Sender<()>,
    /// Closed by the task when it has ended; nothing ever comes through.
    done: Receiver<Infallible>,
    permits: Arc<Semaphore>,
    /// Fresh for each client, so that no two messages of one user share an id.
    tag_prefix: Arc<str>,
    tag_next: AtomicU64,
    line_bytes_max: usize,
    /// Written by the task at each login.
    place: Arc<Mutex<Place>>,
}

impl Handle {
    /// Prints one request line.
    fn line(&self, number: Option<u64>, request: Request<'_>) -> Result<Vec<u8>, BadInput> {
        let tag = number.map(|number| format!("{}{number}", self.tag_prefix));
        let tag = tag.as_deref().map(|tag| Tag::parse(tag).expect("letters, digits and one -"));
        let mut line = Vec::new();
        TaggedRequest { tag, request: Ok(request) }.print(&mut line);
        if line.len() > self.line_bytes_max {
            return Err(BadInput::TooLong { bytes: line.len(), bytes_max: self.line_bytes_max });
        }
        Ok(line)
    }

    async fn acknowledge(&self, id: &MessageId, from: &UserName) {
        let id = id.to_string();
        // Ids come from parsed lines, so this always holds.
        let Some(id) = Tag::parse(&id) else { return };
        if let Ok(line) = self.line(None, Request::Ack { id, from: from.borrowed() }) {
            // Closed: without a connection there is nobody to tell.
            let _ = self.commands.send(Command::Line(line)).await;
        }
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
