//! Mailboxes: messages for users who have no session, kept until they log in.
//!
//! One mailbox a user, in the memory of a node that is alone ([`memory`]) or in
//! the Redis of a cluster ([`redis`]); both mean the same, and one test holds
//! both to it. A message has a place: a number that grows along the mailbox and
//! tells when it was stored, in us, by the clock of whoever keeps it. Reading
//! takes nothing away: who has shown the messages takes them by their places,
//! so that a crash between the two repeats messages and loses none.
//!
//! When a mailbox is full, what comes is refused and nothing makes room for it.
//! Left out: when to store and whom to tell, which is the router's business.

pub mod memory;
#[cfg(feature = "cluster")]
pub mod redis;

use std::time::Duration;

use crate::proto::batch::{Item, Items, put_envelope};
use crate::proto::{Envelope, EnvelopeRef};

/// The most messages of one read.
pub const READ_MESSAGES_MAX: usize = 256;

/// The most bytes of one read, as the messages are kept; a longer message is read alone.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// How many of the latest messages are compared with one that finds its mailbox full: it may be there
/// already, and who repeats a store must not hear that nothing was kept.
const REPEATS_MAX: usize = 64;

/// What bounds mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that are kept for one user; with 0 there are no mailboxes.
    pub messages_max: usize,
    /// How long a message is kept.
    pub time_max: Duration,
}

impl Limits {
    /// How long a message is kept, in us.
    fn time_us(&self) -> u64 {
        u64::try_from(self.time_max.as_micros()).unwrap_or(u64::MAX)
    }
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands: 1 at least, and later messages of a mailbox have higher places.
    pub place: u64,
    /// The message; it has no number.
    pub envelope: Envelope,
}

/// Appends the message as it is kept: an item of a batch that asks for no receipt.
fn encode(envelope: &Envelope, out: &mut Vec<u8>) {
    put_envelope(EnvelopeRef { number: None, ..envelope.borrowed() }, out);
}

/// What is kept, if it is one message and nothing else.
fn decode(bytes: &[u8]) -> Option<Envelope> {
    let mut items = Items::of(bytes);
    match (items.next(), items.next()) {
        (Some(Ok(Item::Message(message))), None) => Some(message.envelope(None).into()),
        _ => None,
    }
}
