//! The two dialects of the line protocol: pinpost's, and the relay's, which is
//! the part of it that the comparison needs.
//!
//! ```text
//!            pinpost                          relay
//! greeting   HELLO pinpost 1 node             none
//! login      LOGIN u7 -> OK u7 session        LOGIN u7 -> OK
//! message    SEND u8 text -> OK id delivered  SEND u8 text -> OK
//! received   MSG u7 id text                   MSG text
//! are you    PING end -> PONG end             LOGIN u7 -> OK
//!   there?
//! ```
//!
//! Users of a cluster have names of 12 characters, `user00000007`. Answers are
//! checked to the byte as far as they can be known beforehand.

/// Which of the two is spoken, and how users are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Pinpost,
    /// The same where recipients acknowledge each message: `LOGIN u7 ack`, `ACK id u8`.
    Acks,
    /// The first with longer names: what a user takes in Redis depends on them.
    Cluster,
    Relay,
}

impl Dialect {
    /// Whether the server speaks first.
    pub fn greets(self) -> bool {
        self != Dialect::Relay
    }

    pub fn is_greeting(self, line: &[u8]) -> bool {
        self.greets() && line.starts_with(b"HELLO pinpost 1 ")
    }

    pub fn is_login_reply(self, line: &[u8], user: usize) -> bool {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => {
                line.starts_with(format!("OK {} ", self.name(user)).as_bytes())
            }
            Dialect::Relay => line == b"OK",
        }
    }

    /// Whether this is the reply to a `SEND` that reached its recipient.
    pub fn is_delivered(self, line: &[u8]) -> bool {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => {
                let id = line.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b" delivered"));
                id.is_some_and(|id| !id.is_empty() && !id.contains(&b' '))
            }
            Dialect::Relay => line == b"OK",
        }
    }

    /// What a message from `user` begins with, before its id.
    pub fn message_head(self, user: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => {
                format!("MSG {} ", self.name(user)).into_bytes()
            }
            Dialect::Relay => b"MSG ".to_vec(),
        }
    }

    /// The text of a message whose head has been taken off: what follows the id, where there is one.
    pub fn message_text(self, rest: &[u8]) -> Option<&[u8]> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => {
                memchr::memchr(b' ', rest).map(|space| &rest[space + 1..])
            }
            Dialect::Relay => Some(rest),
        }
    }

    /// A request whose answer shows that nothing sent before it is still on its way.
    pub fn probe(self, user: usize) -> Vec<u8> {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => b"PING end".to_vec(),
            Dialect::Relay => self.login(user),
        }
    }

    pub fn is_probe_reply(self, line: &[u8]) -> bool {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Cluster => line == b"PONG end",
            Dialect::Relay => line == b"OK",
        }
    }

    /// The request that logs a user in.
    pub fn login(self, user: usize) -> Vec<u8> {
        format!("LOGIN {}{}", self.name(user), if self.acks() { " ack" } else { "" }).into_bytes()
    }

    /// Whether recipients acknowledge.
    pub fn acks(self) -> bool {
        self == Dialect::Acks
    }

    /// The request that acknowledges a message from `user` whose head has been taken off.
    pub fn acknowledgement(self, rest: &[u8], user: usize) -> Vec<u8> {
        let id = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
        [b"ACK ", id, b" ", self.name(user).as_bytes()].concat()
    }

    /// What every message to `user` begins with.
    pub fn message_request(self, verb: Verb, user: usize) -> Vec<u8> {
        format!("{} {} ", verb.name(), self.name(user)).into_bytes()
    }

    /// What a user is called.
    pub fn name(self, user: usize) -> String {
        match self {
            Dialect::Pinpost | Dialect::Acks | Dialect::Relay => format!("u{user}"),
            Dialect::Cluster => format!("user{user:08}"),
        }
    }
}

/// How a message is sent: with an answer, or without. The relay knows the first only.
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
