//! What a program hears: messages, and what happens to its connection.

use crate::client::error::Refusal;
use crate::proto::{ErrorCode, MessageId, NodeId, SessionId, UserName};

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
        node: NodeId,
        /// The new session.
        session: SessionId,
    },
    /// The server does not want this user here any more: the last event. After
    /// [`Client::close`](crate::Client::close) the stream just ends.
    Closed(Refusal),
}

/// Where a user is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The node's id, as its `HELLO` told it.
    pub node: NodeId,
    /// The session.
    pub session: SessionId,
}
