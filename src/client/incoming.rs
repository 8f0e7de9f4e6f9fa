//! The stream of events that the program hears. A program that acknowledges, and writes a
//! message down before it asks for the next, can be killed at any moment: the message comes
//! again.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smol::channel::Receiver;
use smol::stream::Stream;

use crate::client::core::Core;
use crate::client::event::Event;
use crate::client::received::Handover;

/// The side that hears: a stream of events, which ends when the client does not
/// reconnect. At most 1,024 events wait in it; see [`Client`](crate::Client) for
/// what happens then. No message comes twice while the client remembers it: the
/// last 4,096, whatever connections they came on.
///
/// With [`ClientConfig::ack`](field@crate::ClientConfig::ack) a message is
/// acknowledged when the program asks for the event after it, or calls
/// [`Incoming::acknowledge`]. Whoever takes a message and does neither leaves it
/// unacknowledged: the server gives it to another session or to the mailbox, and it
/// comes again. That goes for the last one before `Incoming` is dropped, too, and for
/// whatever is taken after [`Client::close`](crate::Client::close).
///
/// Dropping it discards the messages that come from then on, except with `ack`,
/// which leaves them to other sessions and the mailbox.
pub struct Incoming {
    pub(super) events: Pin<Box<Receiver<Event>>>,
    core: Arc<Core>,
    /// The last message, as long as it is not acknowledged.
    taken: Option<Handover>,
}

impl Incoming {
    pub(super) fn new(events: Receiver<Event>, core: Arc<Core>) -> Self {
        Incoming { events: Box::pin(events), core, taken: None }
    }

    /// Acknowledges what was taken so far, without asking for more. Never waits; without
    /// [`ClientConfig::ack`](field@crate::ClientConfig::ack) it does nothing.
    pub fn acknowledge(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.core.received.done_with(taken);
        }
    }
}

impl Stream for Incoming {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.acknowledge();
        let polled = self.events.as_mut().poll_next(cx);
        if let Poll::Ready(Some(event)) = &polled {
            self.taken = self.core.received.taken(event);
        }
        polled
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}
