//! The protocols that the load generator speaks, behind one small interface:
//! pinpost's own lines and those of the relay (`lines`), and NATS's (`nats`).
//!
//! A dialect is asked for the bytes of a login, of a message and of a question
//! for a sign of life, and it takes what a server wrote apart into the few events
//! that a load waits for. What a protocol wants answered by itself, such as a
//! keepalive or the acknowledgement of a message, it writes as a reply, so that
//! nobody above knows of it. It keeps no state: what an answer means follows from
//! what was waited for, the `Phase`.
//!
//! Users are called `u7`; those of a cluster have names of 12 characters,
//! `user00000007`. Answers are checked to the byte as far as they can be known
//! beforehand.

mod lines;
mod nats;

use std::io;

/// Which protocol is spoken, and how users are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Pinpost,
    /// The same where recipients acknowledge each message: `LOGIN u7 ack`, `ACK id u8`.
    Acks,
    /// The first with longer names: what a user takes in Redis depends on them.
    Cluster,
    Relay,
    /// A subject for each user.
    Nats,
}

/// What a client is at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    LogIn,
    Load,
    /// Only the answer to a question is due.
    Probe,
}

/// What a server's words come to.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// Something that nobody waits for.
    Nothing,
    LoggedIn,
    /// A message of this client has reached its recipient, or the server, whichever it is that the
    /// protocol answers. They are answered in the order in which they were sent.
    Answered,
    Message(Message<'a>),
    /// The answer to the question for a sign of life.
    Pong,
    /// What should not have come.
    Wrong,
}

/// A message as its recipient sees it.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Who sent it, where the protocol tells.
    pub from: Option<&'a [u8]>,
    pub text: &'a [u8],
}

impl Dialect {
    /// What a user is called.
    pub fn name(self, user: usize) -> String {
        match self {
            Dialect::Cluster => format!("user{user:08}"),
            _ => format!("u{user}"),
        }
    }

    /// What a client says as soon as it is connected; nothing where the server speaks first.
    pub fn first_words(self, user: usize) -> Vec<u8> {
        match self {
            Dialect::Relay => lines::login(self, user),
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Nats => Vec::new(),
        }
    }

    /// All of a message to `user` that is before its text.
    pub fn message_head(self, verb: Verb, user: usize, text_bytes: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Relay => {
                lines::message_head(self, verb, user)
            }
            Dialect::Nats => nats::message_head(&self.name(user), text_bytes),
        }
    }

    /// All of a message that is behind its text.
    pub fn message_tail(self) -> &'static [u8] {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Relay => b"\n",
            Dialect::Nats => b"\r\n",
        }
    }

    /// A request whose answer shows that nothing sent before it is still on its way.
    pub fn probe(self, user: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Relay => lines::probe(self, user),
            Dialect::Nats => nats::PING.to_vec(),
        }
    }

    /// Takes the first thing off `bytes` that is there in whole: its length, and what it comes to.
    /// What the protocol wants written back is appended to `reply`.
    pub fn decode<'a>(
        self,
        phase: Phase,
        user: usize,
        bytes: &'a [u8],
        reply: &mut Vec<u8>,
    ) -> Option<(usize, Event<'a>)> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => {
                lines::decode_pinpost(self, phase, user, bytes, reply)
            }
            Dialect::Relay => lines::decode_relay(phase, bytes),
            Dialect::Nats => nats::decode(phase, || self.name(user), bytes, reply),
        }
    }
}

/// An error that shows what nobody expected.
pub fn unexpected(user: usize, said: &[u8], wanted: &str) -> io::Error {
    let said = String::from_utf8_lossy(&said[..said.len().min(SAID_BYTES_MAX)]);
    io::Error::other(format!("u{user} received {said:?} where {wanted} was due"))
}

/// How a message is sent: with an answer, or without. pinpost alone knows both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Send,
    Cast,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Verb::Send => "SEND",
            Verb::Cast => "CAST",
        }
    }
}

const SAID_BYTES_MAX: usize = 300;
