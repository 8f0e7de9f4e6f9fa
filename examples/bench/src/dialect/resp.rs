//! RESP3, the protocol of Redis: a channel for each user, on one connection that
//! publishes and subscribes.
//!
//! ```text
//! login      HELLO 3, SUBSCRIBE u7 -> a map, a push
//! message    PUBLISH u8 text -> :1
//! received   a push of "message", u8, text
//! are you    PING -> +PONG
//!   there?
//! ```
//!
//! Redis tells the sender how many it has written the message to. It can't be
//! asked not to, and is read and checked; nobody waits for it.

use crate::dialect::{Event, Message, Phase};

pub const PING: &[u8] = b"PING\r\n";

/// Both requests of a login.
pub fn login(name: &str) -> Vec<u8> {
    format!("HELLO 3\r\nSUBSCRIBE {name}\r\n").into_bytes()
}

/// What every message to `name` begins with.
pub fn message_head(name: &str, text_bytes: usize) -> Vec<u8> {
    format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{name}\r\n${text_bytes}\r\n", name.len()).into_bytes()
}

/// Takes one value.
pub fn decode(phase: Phase, bytes: &[u8]) -> Option<(usize, Event<'_>)> {
    if let (Phase::Load, Some(rest)) = (phase, bytes.strip_prefix(MESSAGE)) {
        let (channel, _) = bulk(rest)?;
        let (text_end, text) = bulk(&rest[channel..])?;
        let length = MESSAGE.len() + channel + text_end;
        return Some((length, Event::Message(Message { from: None, text })));
    }
    let length = value(bytes)?;
    let event = match (&bytes[..length], phase) {
        (b":1\r\n", Phase::Load) => Event::Nothing,
        (b"+PONG\r\n", Phase::Probe) => Event::Pong,
        ([b'%', ..], Phase::LogIn) => Event::Nothing,
        (push, Phase::LogIn) if push.starts_with(b">3\r\n$9\r\nsubscribe\r\n") => Event::LoggedIn,
        _ => Event::Wrong,
    };
    Some((length, event))
}

/// The end of a string with its length before it, and the string.
fn bulk(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, length) = header(bytes)?;
    let end = head + length + b"\r\n".len();
    (bytes.len() >= end).then(|| (end, &bytes[head..head + length]))
}

/// The end of any value; none while it is not there in whole.
fn value(bytes: &[u8]) -> Option<usize> {
    let values = match bytes.first()? {
        b'$' | b'=' => return bulk(bytes).map(|(end, _)| end),
        b'*' | b'>' | b'~' => header(bytes)?.1,
        b'%' => 2 * header(bytes)?.1,
        _ => 0,
    };
    let mut end = memchr::memchr(b'\n', bytes)? + 1;
    for _ in 0..values {
        end += value(&bytes[end..])?;
    }
    Some(end)
}

/// The end of a first line, and the number that it holds behind its first byte.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = memchr::memchr(b'\n', bytes)? + 1;
    let digits = bytes.get(1..end)?.strip_suffix(b"\r\n")?;
    let number = digits.iter().fold(0usize, |number, digit| {
        number.saturating_mul(10).saturating_add(usize::from(digit.wrapping_sub(b'0')))
    });
    Some((end, number))
}

const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n";
