//! Counters of one node: what happened since it started.
//!
//! Plain integers that the node counts in. Whoever drives the node publishes them; no names, labels or
//! exposition format here: that is for whoever shows them.

use crate::proto::reply::{CloseReason, ErrorCode};

/// What happened on one node since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections turned away because the node was full.
    pub turned_away: u64,
    /// Connections that ended by a panic.
    pub panics: u64,
    /// `SEND` messages of this node's clients that were delivered, here or elsewhere.
    pub delivered: u64,
    /// `SEND` messages of this node's clients that were put into a mailbox.
    pub stored: u64,
    /// `CAST` messages put into an outbox.
    pub casts: u64,
    /// `CAST` messages that met no session with room, or that a session did not take before it ended.
    pub casts_lost: u64,
    /// Duplicates: messages that were answered and not shown, because their recipient had been shown them.
    pub duplicates: u64,
    /// Messages from other nodes for users who are not here.
    pub not_here: u64,
    /// Messages routed again because a node or a session went away.
    pub rerouted: u64,
    /// The longest time that one task kept all others waiting, in microseconds.
    pub turn_us_max: u64,
    /// Messages to other nodes that were published, and of which nobody heard in 10 s, whatever RabbitMQ did with
    /// them: their senders got `ERR timeout`.
    pub unheard: u64,
    errors: [u64; ErrorCode::ALL.len()],
    closed: [u64; CloseReason::ALL.len()],
}

impl Counters {
    /// Counts an `ERR` reply.
    pub fn error(&mut self, code: ErrorCode) {
        self.errors[code as usize] += 1;
    }

    /// Counts a `BYE`.
    pub fn close(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }

    /// How often `ERR code` was answered.
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors[code as usize]
    }

    /// How many connections the server ended for `reason`.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }
}
