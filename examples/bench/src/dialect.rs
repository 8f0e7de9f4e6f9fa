//! The protocols that the load generator speaks, behind one small interface:
//! pinpost's own lines and those of the relay (`lines`), NATS's (`nats`), MQTT,
//! that of Redis (`resp`), and XMPP.
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
pub mod mqtt;
mod nats;
mod resp;
mod xmpp;

use std::io;

use crate::dialect::mqtt::Quality;

/// Which protocol is spoken, and how users are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Pinpost,
    /// The same where recipients acknowledge each message: `LOGIN u7 ack`, `ACK id u8`.
    Acks,
    /// The first with longer names: what a user takes in Redis depends on them.
    Cluster,
    Relay,
    Nats,
    /// The same where a message is a request, and its recipient replies.
    NatsRequests,
    Mqtt(Quality),
    Resp,
    Xmpp,
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
    /// No login now: the server can't reach the others of its cluster, and the client is to try again.
    Refused,
    /// A message of this client has reached its recipient, or the server, whichever it is that the
    /// protocol answers. They are answered in the order in which they were sent; the id is that of
    /// `packet_id`, where the protocol has any.
    Answered {
        id: Option<u16>,
    },
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
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Nats | Dialect::NatsRequests => {
                Vec::new()
            }
            Dialect::Relay => lines::login(self, user),
            Dialect::Mqtt(quality) => mqtt::login(quality, &self.name(user)),
            Dialect::Resp => resp::login(&self.name(user)),
            Dialect::Xmpp => xmpp::STREAM.to_vec(),
        }
    }

    /// What a client says who was refused, on the same connection.
    pub fn words_again(self, user: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => lines::login(self, user),
            _ => unreachable!("no other protocol has it"),
        }
    }

    /// All of a message from one user to another that is before its text.
    pub fn message_head(self, verb: Verb, from: usize, user: usize, text_bytes: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Relay => {
                lines::message_head(self, verb, user)
            }
            Dialect::Nats => nats::message_head(&self.name(user), text_bytes),
            Dialect::NatsRequests => nats::request_head(&self.name(from), &self.name(user), text_bytes),
            Dialect::Mqtt(quality) => mqtt::message_head(quality, &self.name(user), text_bytes),
            Dialect::Resp => resp::message_head(&self.name(user), text_bytes),
            Dialect::Xmpp => xmpp::message_head(&self.name(user)),
        }
    }

    /// All of a message that is behind its text.
    pub fn message_tail(self) -> &'static [u8] {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Relay => b"\n",
            Dialect::Nats | Dialect::NatsRequests | Dialect::Resp => b"\r\n",
            Dialect::Mqtt(_) => b"",
            Dialect::Xmpp => xmpp::TAIL,
        }
    }

    /// Makes a head that of this message of its sender's, where the protocol numbers them.
    pub fn number_head(self, head: &mut [u8], number: u32) {
        match self {
            Dialect::Mqtt(Quality::AtLeastOnce) => mqtt::set_id(head, packet_id(number)),
            Dialect::NatsRequests => nats::set_id(head, packet_id(number)),
            _ => (),
        }
    }

    /// A request whose answer shows that nothing sent before it is still on its way.
    pub fn probe(self, user: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster | Dialect::Relay => lines::probe(self, user),
            Dialect::Nats | Dialect::NatsRequests => nats::PING.to_vec(),
            Dialect::Mqtt(_) => mqtt::PING.to_vec(),
            Dialect::Resp => resp::PING.to_vec(),
            Dialect::Xmpp => xmpp::PING.to_vec(),
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
            Dialect::Nats => nats::decode(phase, false, || self.name(user), bytes, reply),
            Dialect::NatsRequests => nats::decode(phase, true, || self.name(user), bytes, reply),
            Dialect::Mqtt(quality) => mqtt::decode(phase, quality, bytes, reply),
            Dialect::Resp => resp::decode(phase, bytes),
            Dialect::Xmpp => xmpp::decode(phase, || self.name(user), bytes, reply),
        }
    }
}

/// The id of a sender's message in protocols that have one: never 0.
pub fn packet_id(number: u32) -> u16 {
    (number % u32::from(u16::MAX)) as u16 + 1
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
