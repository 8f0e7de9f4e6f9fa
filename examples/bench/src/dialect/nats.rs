//! The protocol of NATS, without TLS and headers: a subject for each user, and for
//! those who request one more for replies.
//!
//! ```text
//! greeting   INFO {...}
//! login      CONNECT {...}, SUB u7 1, PING -> PONG
//! message    PUB u8 64, text
//! received   MSG u8 1 64, text
//! are you    PING -> PONG
//!   there?
//!
//! login      CONNECT {...}, SUB u7 1, SUB _INBOX.u7.* 2, PING -> PONG
//! request    PUB u8 _INBOX.u7.00001 64, text
//! received   MSG u8 1 _INBOX.u7.00001 64, text; replies PUB _INBOX.u7.00001 0
//! answered   MSG _INBOX.u7.00001 2 0
//! ```
//!
//! `verbose` is off: nothing is answered. The server asks for signs of life, too.
//! Requests are made as NATS's own client libraries make them: one subscription for
//! all replies, and a subject of its own for each.

use memchr::memmem;

use crate::dialect::{Event, Message, Phase};

pub const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"PONG\r\n";

/// What every message to `name` begins with.
pub fn message_head(name: &str, text_bytes: usize) -> Vec<u8> {
    format!("PUB {name} {text_bytes}\r\n").into_bytes()
}

/// The same of a request that `from` makes; its number is filled in by `set_id`.
pub fn request_head(from: &str, name: &str, text_bytes: usize) -> Vec<u8> {
    format!("PUB {name} {INBOXES}{from}.00000 {text_bytes}\r\n").into_bytes()
}

/// Puts a number at the end of the subject that a request is to be replied to.
pub fn set_id(head: &mut [u8], mut id: u16) {
    let Some(end) = memchr::memrchr(b' ', head) else { return };
    for digit in head[..end].iter_mut().rev().take(ID_DIGITS) {
        *digit = b'0' + (id % 10) as u8;
        id /= 10;
    }
}

/// Takes one line, and its text where it has one.
pub fn decode<'a>(
    phase: Phase,
    requests: bool,
    user: impl FnOnce() -> String,
    bytes: &'a [u8],
    reply: &mut Vec<u8>,
) -> Option<(usize, Event<'a>)> {
    let length = memchr::memchr(b'\n', bytes)? + 1;
    let line = bytes[..length].strip_suffix(b"\r\n").unwrap_or_default();
    if let (Phase::Load, Some(rest)) = (phase, line.strip_prefix(b"MSG ")) {
        // The last word tells how long the text is.
        let parts = memchr::memrchr(b' ', rest).map(|at| (&rest[..at], number(&rest[at + 1..])));
        let Some((head, Some(text_bytes))) = parts else { return Some((length, Event::Wrong)) };
        let whole = length + text_bytes + b"\r\n".len();
        let event = match bytes.get(length..whole)?.strip_suffix(b"\r\n") {
            Some(text) if requests => request(head, text, reply),
            Some(text) => Event::Message(Message { from: None, text }),
            None => Event::Wrong,
        };
        return Some((whole, event));
    }
    let event = match (line, phase) {
        (b"PONG", Phase::LogIn) => Event::LoggedIn,
        (b"PONG", Phase::Probe) => Event::Pong,
        (b"PING", _) => {
            reply.extend_from_slice(PONG);
            Event::Nothing
        }
        // It also tells, at any time, that its cluster has changed; and since 2.12, of a login what came of it.
        (line, _) if line.starts_with(b"INFO ") => {
            if phase == Phase::LogIn && memmem::find(line, br#""connect_info":true"#).is_none() {
                reply.extend_from_slice(&login(&user(), requests));
            }
            Event::Nothing
        }
        _ => Event::Wrong,
    };
    Some((length, event))
}

/// A request, to which the recipient replies at once, or the reply to one; `head` ends before the length.
fn request<'a>(head: &[u8], text: &'a [u8], reply: &mut Vec<u8>) -> Event<'a> {
    let Some(at) = memchr::memrchr(b' ', head) else { return Event::Wrong };
    let (before, last) = (&head[..at], &head[at + 1..]);
    if last.starts_with(INBOXES.as_bytes()) {
        for part in [b"PUB ", last, b" 0\r\n\r\n"] {
            reply.extend_from_slice(part);
        }
        return Event::Message(Message { from: None, text });
    }
    let id = before.last_chunk::<ID_DIGITS>().and_then(|digits| number(digits)?.try_into().ok());
    match id {
        Some(id) if last == b"2" && text.is_empty() => Event::Answered { id: Some(id) },
        _ => Event::Wrong,
    }
}

fn login(name: &str, requests: bool) -> Vec<u8> {
    let options = r#"{"verbose":false,"pedantic":false,"tls_required":false,"lang":"bench","version":"1","protocol":1,"echo":false}"#;
    let replies = if requests { format!("SUB {INBOXES}{name}.* 2\r\n") } else { String::new() };
    format!("CONNECT {options}\r\nSUB {name} 1\r\n{replies}PING\r\n").into_bytes()
}

fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0usize, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(usize::from(digit - b'0')),
        _ => None,
    })
}

/// What subjects for replies begin with.
const INBOXES: &str = "_INBOX.";
const ID_DIGITS: usize = 5;
