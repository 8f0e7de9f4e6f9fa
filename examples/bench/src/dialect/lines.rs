//! pinpost's line protocol, and the relay's, which is the part of it that the
//! comparison needs.
//!
//! ```text
//!            pinpost                          relay
//! greeting   HELLO pinpost 1 node             none
//! login      LOGIN u7 -> OK u7 session        LOGIN u7 -> OK
//!            or ERR unavailable, for now
//! message    SEND u8 text -> OK id delivered  SEND u8 text -> OK, or nothing
//!            CAST u8 text                     the same SEND, of a relay that answers none
//! received   MSG u7 id text                   MSG text
//! are you    PING end -> PONG end             LOGIN u7 -> OK
//!   there?
//! ```

use crate::dialect::{Dialect, Event, Message, Phase, Verb};

/// The request that logs a user in.
pub fn login(dialect: Dialect, user: usize) -> Vec<u8> {
    let acks = if dialect == Dialect::Acks { " ack" } else { "" };
    format!("LOGIN {}{acks}\n", dialect.name(user)).into_bytes()
}

/// What every message to `user` begins with.
pub fn message_head(dialect: Dialect, verb: Verb, user: usize) -> Vec<u8> {
    let word = if dialect == Dialect::Relay { Verb::Send.name() } else { verb.name() };
    format!("{word} {} ", dialect.name(user)).into_bytes()
}

/// The question for a sign of life.
pub fn probe(dialect: Dialect, user: usize) -> Vec<u8> {
    match dialect {
        Dialect::Relay => login(dialect, user),
        _ => b"PING end\n".to_vec(),
    }
}

/// Takes one line of pinpost's.
pub fn decode_pinpost<'a>(
    dialect: Dialect,
    phase: Phase,
    user: usize,
    bytes: &'a [u8],
    reply: &mut Vec<u8>,
) -> Option<(usize, Event<'a>)> {
    let length = memchr::memchr(b'\n', bytes)?;
    let line = &bytes[..length];
    let event = match phase {
        Phase::Load => load_line(dialect, line, reply),
        Phase::LogIn if line.starts_with(b"HELLO pinpost 1 ") => {
            reply.extend_from_slice(&login(dialect, user));
            Event::Nothing
        }
        Phase::LogIn if line.starts_with(format!("OK {} ", dialect.name(user)).as_bytes()) => Event::LoggedIn,
        Phase::LogIn if line.starts_with(b"ERR unavailable ") => Event::Refused,
        Phase::Probe if line == b"PONG end" => Event::Pong,
        _ => Event::Wrong,
    };
    Some((length + 1, event))
}

fn load_line<'a>(dialect: Dialect, line: &'a [u8], reply: &mut Vec<u8>) -> Event<'a> {
    if let Some(rest) = line.strip_prefix(b"MSG ") {
        let Some((from, rest)) = split_word(rest) else { return Event::Wrong };
        let Some((id, text)) = split_word(rest) else { return Event::Wrong };
        if dialect == Dialect::Acks {
            for part in [b"ACK ", id, b" ", from, b"\n"] {
                reply.extend_from_slice(part);
            }
        }
        return Event::Message(Message { from: Some(from), text });
    }
    let id = line.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b" delivered"));
    match id.is_some_and(|id| !id.is_empty() && !id.contains(&b' ')) {
        true => Event::Answered { id: None },
        false => Event::Wrong,
    }
}

fn split_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    memchr::memchr(b' ', line).map(|space| (&line[..space], &line[space + 1..]))
}

/// Takes one line of the relay's.
pub fn decode_relay(phase: Phase, bytes: &[u8]) -> Option<(usize, Event<'_>)> {
    let length = memchr::memchr(b'\n', bytes)?;
    let event = match (&bytes[..length], phase) {
        (b"OK", Phase::LogIn) => Event::LoggedIn,
        (b"OK", Phase::Load) => Event::Answered { id: None },
        (b"OK", Phase::Probe) => Event::Pong,
        ([b'M', b'S', b'G', b' ', text @ ..], Phase::Load) => Event::Message(Message { from: None, text }),
        _ => Event::Wrong,
    };
    Some((length + 1, event))
}
