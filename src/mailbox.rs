//! Mailboxes: messages for users who have no session, kept until they log in.
//!
//! One mailbox a user, in the memory of a node that is alone ([`memory`]) or in the Redis
//! of a cluster (`cluster/redis_commands.rs`); both mean the same, and one test holds both
//! to it. A message is its body on the wire, and has a place: a number that grows along
//! the mailbox and tells when it was stored, in us, by the clock of whoever keeps it.
//! Reading takes nothing away: who has shown the messages takes them by their places, so
//! that a crash between the two repeats messages and loses none.
//!
//! When a mailbox is full, what comes is refused and nothing makes room for it.
//! Left out: when to store and whom to tell, which is the node's business.

pub mod memory;
pub mod post;

use std::time::Duration;

/// The most messages of one read.
pub const READ_MESSAGES_MAX: usize = 256;

/// The most bytes of one read, as the messages are kept; a longer message is read alone.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// How many of the latest messages are compared with one that finds its mailbox full: it may be there
/// already, and who repeats a store must not hear that nothing was kept.
pub(crate) const REPEATS_MAX: usize = 64;

/// What bounds mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that are kept for one user; with 0 there are no mailboxes.
    pub messages_max: usize,
    /// How long a message is kept.
    pub time_max: Duration,
    /// Memory of all mailboxes together, in bytes.
    pub bytes_max: u64,
}

impl Limits {
    /// Nothing is kept for anybody.
    pub const NONE: Limits = Limits { messages_max: 0, time_max: Duration::ZERO, bytes_max: 0 };

    /// How long a message is kept, in us.
    pub(crate) fn time_us(&self) -> u64 {
        u64::try_from(self.time_max.as_micros()).unwrap_or(u64::MAX)
    }
}
