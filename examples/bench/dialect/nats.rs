//! The protocol of NATS, without TLS and headers: a subject for each user.
//!
//! ```text
//! greeting   INFO {...}
//! login      CONNECT {...}, SUB u7 1, PING -> PONG
//! message    PUB u8 64, text
//! received   MSG u8 1 64, text
//! are you    PING -> PONG
//!   there?
//! ```
//!
//! `verbose` is off: nothing is answered. The server asks for signs of life, too.

use crate::dialect::{Event, Message, Phase};

pub const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"PONG\r\n";

/// What every message to `name` begins with.
pub fn message_head(name: &str, text_bytes: usize) -> Vec<u8> {
    format!("PUB {name} {text_bytes}\r\n").into_bytes()
}

/// Takes one line, and its text where it has one.
pub fn decode<'a>(
    phase: Phase,
    user: impl FnOnce() -> String,
    bytes: &'a [u8],
    reply: &mut Vec<u8>,
) -> Option<(usize, Event<'a>)> {
    let length = memchr::memchr(b'\n', bytes)? + 1;
    let line = bytes[..length].strip_suffix(b"\r\n").unwrap_or_default();
    if let (Phase::Load, Some(rest)) = (phase, line.strip_prefix(b"MSG ")) {
        // The last word tells how long the text is.
        let Some(text_bytes) = memchr::memrchr(b' ', rest).and_then(|at| number(&rest[at + 1..])) else {
            return Some((length, Event::Wrong));
        };
        let whole = length + text_bytes + b"\r\n".len();
        let text = bytes.get(length..whole)?.strip_suffix(b"\r\n");
        return Some((whole, text.map_or(Event::Wrong, |text| Event::Message(Message { from: None, text }))));
    }
    let event = match (line, phase) {
        (b"PONG", Phase::LogIn) => Event::LoggedIn,
        (b"PONG", Phase::Probe) => Event::Pong,
        (b"PING", _) => {
            reply.extend_from_slice(PONG);
            Event::Nothing
        }
        // It also tells, at any time, that its cluster has changed.
        (line, _) if line.starts_with(b"INFO ") => {
            if phase == Phase::LogIn {
                reply.extend_from_slice(&login(&user()));
            }
            Event::Nothing
        }
        _ => Event::Wrong,
    };
    Some((length, event))
}

fn login(name: &str) -> Vec<u8> {
    let options = r#"{"verbose":false,"pedantic":false,"tls_required":false,"lang":"bench","version":"1","protocol":1,"echo":false}"#;
    format!("CONNECT {options}\r\nSUB {name} 1\r\nPING\r\n").into_bytes()
}

fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0usize, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(usize::from(digit - b'0')),
        _ => None,
    })
}
