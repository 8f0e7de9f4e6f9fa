//! Counters of one node: what happened, and what is held right now.
//!
//! Plain relaxed atomics. No names, labels or exposition format here: that is
//! for whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::proto::{CloseReason, ErrorCode};

/// The counters of one node, shared by its parts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Outboxes alive now; an outbox outlives its connection while somebody still pushes to it.
    pub outboxes: Gauge,
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Connections turned away because the node was full.
    pub turned_away: Counter,
    /// `SEND` messages of this node's clients that were delivered, here or elsewhere.
    pub delivered: Counter,
    /// `SEND` messages of this node's clients that were put into a mailbox.
    pub stored: Counter,
    /// `CAST` messages put into an outbox.
    pub casts: Counter,
    /// Copies dropped because the session had just seen the message.
    pub duplicates: Counter,
    /// `CAST` messages that met no session with room, or that a session did not take before it ended.
    pub casts_lost: Counter,
    /// Envelopes from other nodes for users who are not here.
    pub not_here: Counter,
    /// Messages routed again because a node or a session went away.
    pub rerouted: Counter,
    errors: [Counter; ErrorCode::ALL.len()],
    closed: [Counter; CloseReason::ALL.len()],
}

impl Metrics {
    /// Counts an `ERR` reply.
    pub fn error(&self, code: ErrorCode) {
        self.errors[code as usize].add();
    }

    /// Counts a `BYE`.
    pub fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add();
    }

    /// How often `ERR code` was answered.
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors[code as usize].count()
    }

    /// How many connections the server ended for `reason`.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].count()
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The number.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many of something there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less: called by the `Drop` of whoever entered, so that panic,
    /// cancellation and quit count alike.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// The number.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
