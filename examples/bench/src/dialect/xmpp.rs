//! XMPP, as little of it as carries messages from one full address to another.
//!
//! ```text
//! login      a stream, PLAIN with any password, a stream again, the resource r
//! message    <message to='u8@localhost/r' type='chat'><body>text</body></message>
//! received   the same, with from='u7@localhost/r'
//! are you    an <iq/> -> an <iq/>, or an error in one: whichever, it is an answer
//!   there?
//! ```
//!
//! No presence is sent. What the server writes is a row of elements, none of
//! which holds another of its own name, and no text with a `<` in it.

use crate::dialect::{Event, Message, Phase};

pub const PING: &[u8] = b"<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>";
pub const TAIL: &[u8] = b"</body></message>";

/// What opens a stream, at first and once more behind the password.
pub const STREAM: &[u8] = b"<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
      xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// What every message to `name` begins with.
pub fn message_head(name: &str) -> Vec<u8> {
    format!("<message to='{name}@localhost/r' type='chat'><body>").into_bytes()
}

/// Takes one element.
pub fn decode<'a>(
    phase: Phase,
    user: impl FnOnce() -> String,
    bytes: &'a [u8],
    reply: &mut Vec<u8>,
) -> Option<(usize, Event<'a>)> {
    let length = element(bytes)?;
    let element = &bytes[..length];
    let has = |text: &[u8]| memchr::memmem::find(element, text).is_some();
    let event = match phase {
        Phase::Load => message(element).map_or(Event::Wrong, Event::Message),
        Phase::Probe if element.starts_with(b"<iq ") && has(b"id='end'") => Event::Pong,
        Phase::LogIn if element.starts_with(b"<?xml ") || element.starts_with(b"<stream:stream ") => {
            Event::Nothing
        }
        Phase::LogIn if element.starts_with(b"<stream:features>") => {
            match has(b"<mechanism>PLAIN</mechanism>") {
                true => reply.extend_from_slice(&password(&user())),
                false => reply.extend_from_slice(BIND),
            }
            Event::Nothing
        }
        Phase::LogIn if element.starts_with(b"<success ") => {
            reply.extend_from_slice(STREAM);
            Event::Nothing
        }
        Phase::LogIn if element.starts_with(b"<iq ") && has(b"type='result'") => Event::LoggedIn,
        _ => Event::Wrong,
    };
    Some((length, event))
}

/// The length of the first element; a stream's is that of its opening alone.
fn element(bytes: &[u8]) -> Option<usize> {
    let opening = memchr::memchr(b'>', bytes)? + 1;
    let is_whole = bytes[..opening].ends_with(b"/>") || bytes.starts_with(b"<?");
    if is_whole || bytes.starts_with(b"<stream:stream ") {
        return Some(opening);
    }
    let name_end = bytes[..opening].iter().position(|byte| b" >".contains(byte))?;
    let name = bytes.get(1..name_end)?;
    // The end tag is the only thing behind the opening that has this name and a `/` before it.
    let mut at = opening;
    loop {
        at += memchr::memmem::find(&bytes[at..], b"</")? + 2;
        let rest = &bytes[at..];
        if rest.len() > name.len() && rest.starts_with(name) && rest[name.len()] == b'>' {
            return Some(at + name.len() + 1);
        }
    }
}

fn message(element: &[u8]) -> Option<Message<'_>> {
    let rest = element.strip_prefix(b"<message ")?;
    let from = between(rest, b" from='", b'@')?;
    let text = between(rest, b"<body>", b'<')?;
    Some(Message { from: Some(from), text })
}

fn between<'a>(bytes: &'a [u8], before: &[u8], end: u8) -> Option<&'a [u8]> {
    let rest = &bytes[memchr::memmem::find(bytes, before)? + before.len()..];
    memchr::memchr(end, rest).map(|length| &rest[..length])
}

fn password(name: &str) -> Vec<u8> {
    let words = base64(format!("\0{name}\0any").as_bytes());
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{words}</auth>").into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = BASE64_DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

const BIND: &[u8] = b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
      <resource>r</resource></bind></iq>";
const BASE64_DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
