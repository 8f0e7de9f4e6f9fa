//! What the program hears: events, and the stream they come in.
//!
//! With [`ClientConfig::ack`](crate::client::ClientConfig::ack) the stream is also
//! where messages are acknowledged: asking for the next event says that the program
//! is done with the one before. So a program that writes a message down before it
//! asks for the next can be killed at any moment, and the message comes again.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smol::channel::Receiver;
use smol::stream::Stream;

use crate::client::Handle;
use crate::client::error::Refusal;
use crate::client::handed::Taken;
use crate::proto::{ErrorCode, MessageId, SessionId, UserName};

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
    /// [`Client::close`](crate::client::Client::close) the stream just ends.
    Closed(Refusal),
}

/// The side that hears: a stream of events, which ends when the client does not
/// reconnect. At most 1,024 events wait in it; see the [module](crate::client) for
/// what happens then. No message comes twice while the client remembers it: the
/// last 4,096, whatever connections they came on.
///
/// With [`ClientConfig::ack`](crate::client::ClientConfig::ack) a message is
/// acknowledged when the program asks for the event after it, or calls
/// [`Incoming::acknowledge`]. Whoever takes a message and does neither leaves it
/// unacknowledged: the server gives it to another session or to the mailbox, and it
/// comes again. That goes for the last one before `Incoming` is dropped, too, and for
/// whatever is taken after [`Client::close`](crate::client::Client::close).
///
/// Dropping it discards the messages that come from then on, except with `ack`,
/// which leaves them to other sessions and the mailbox.
pub struct Incoming {
    pub(super) events: Pin<Box<Receiver<Event>>>,
    handle: Arc<Handle>,
    /// The last message, as long as it is not acknowledged.
    taken: Option<Taken>,
}

impl Incoming {
    pub(super) fn new(events: Receiver<Event>, handle: Arc<Handle>) -> Self {
        Incoming { events: Box::pin(events), handle, taken: None }
    }

    /// Acknowledges what was taken so far, without asking for more. Never waits; without
    /// [`ClientConfig::ack`](crate::client::ClientConfig::ack) it does nothing.
    pub fn acknowledge(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.handle.handed.done_with(taken);
        }
    }
}

impl Stream for Incoming {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.acknowledge();
        let polled = self.events.as_mut().poll_next(cx);
        if let Poll::Ready(Some(event)) = &polled {
            self.taken = self.handle.handed.taken(event);
        }
        polled
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}
