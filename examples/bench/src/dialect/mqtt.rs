//! MQTT 3.1.1: a topic for each user, QoS 0 or 1 both ways.
//!
//! ```text
//! login      CONNECT u7, SUBSCRIBE u7 -> CONNACK, SUBACK
//! message    PUBLISH u8 text (with QoS 1 -> PUBACK)
//! received   PUBLISH u8 text (with QoS 1 the recipient writes PUBACK)
//! are you    PINGREQ -> PINGRESP
//!   there?
//! ```
//!
//! A packet is one byte of type and flags, its length in groups of seven bits,
//! and a body. Packet ids are drawn from the number of the message.

use crate::dialect::{Event, Message, Phase};

/// Quality of service: at most once, or at least once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    AtMostOnce,
    AtLeastOnce,
}

pub const PING: &[u8] = &[0xc0, 0];

/// Both packets of a login. A server takes the second before it has answered the first.
pub fn login(quality: Quality, name: &str) -> Vec<u8> {
    // Protocol level 4, a clean session, no keepalive.
    let mut connect = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    put_text(&mut connect, name);
    let mut subscribe = LOGIN_ID.to_be_bytes().to_vec();
    put_text(&mut subscribe, name);
    subscribe.push(quality.level());
    [packet_head(CONNECT, connect.len()), connect, packet_head(SUBSCRIBE, subscribe.len()), subscribe]
        .concat()
}

/// What every message to `name` begins with; the id of one to be answered is filled in by `set_id`.
pub fn message_head(quality: Quality, name: &str, text_bytes: usize) -> Vec<u8> {
    let mut topic = Vec::new();
    put_text(&mut topic, name);
    if quality == Quality::AtLeastOnce {
        topic.extend_from_slice(&[0; ID_BYTES]);
    }
    let mut head = packet_head(PUBLISH | quality.level() << 1, topic.len() + text_bytes);
    head.append(&mut topic);
    head
}

/// Puts an id at the end of a message's head.
pub fn set_id(head: &mut [u8], id: u16) {
    if let Some(place) = head.last_chunk_mut::<ID_BYTES>() {
        *place = id.to_be_bytes();
    }
}

/// Takes one packet.
pub fn decode<'a>(
    phase: Phase,
    quality: Quality,
    bytes: &'a [u8],
    reply: &mut Vec<u8>,
) -> Option<(usize, Event<'a>)> {
    let (head, length) = body_length(bytes)?;
    let body = bytes.get(head..head + length)?;
    let event = match (bytes[0], body, phase) {
        (kind, body, Phase::Load) if kind == PUBLISH | quality.level() << 1 => {
            published(quality, body, reply)
        }
        (PUBACK, &[high, low], Phase::Load) => Event::Answered { id: Some(u16::from_be_bytes([high, low])) },
        (CONNACK, [0, 0], Phase::LogIn) => Event::Nothing,
        (SUBACK, &[high, low, granted], Phase::LogIn)
            if u16::from_be_bytes([high, low]) == LOGIN_ID && granted == quality.level() =>
        {
            Event::LoggedIn
        }
        (PINGRESP, [], Phase::Probe) => Event::Pong,
        _ => Event::Wrong,
    };
    Some((head + length, event))
}

fn published<'a>(quality: Quality, body: &'a [u8], reply: &mut Vec<u8>) -> Event<'a> {
    let Some((&topic, rest)) = body.split_first_chunk() else { return Event::Wrong };
    let Some(mut text) = rest.get(usize::from(u16::from_be_bytes(topic))..) else { return Event::Wrong };
    if quality == Quality::AtLeastOnce {
        let Some((id, rest)) = text.split_first_chunk::<ID_BYTES>() else { return Event::Wrong };
        reply.extend_from_slice(&[PUBACK, ID_BYTES as u8]);
        reply.extend_from_slice(id);
        text = rest;
    }
    Event::Message(Message { from: None, text })
}

/// Where the body begins, and how long it is; none while that is not known.
fn body_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((at + 2, length));
        }
    }
    None
}

fn packet_head(kind: u8, mut length: usize) -> Vec<u8> {
    let mut head = vec![kind];
    while length > 0x7f {
        head.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    head.push(length as u8);
    head
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

impl Quality {
    fn level(self) -> u8 {
        match self {
            Quality::AtMostOnce => 0,
            Quality::AtLeastOnce => 1,
        }
    }
}

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xd0;
const LOGIN_ID: u16 = 1;
const ID_BYTES: usize = 2;
const LENGTH_BYTES_MAX: usize = 4;
