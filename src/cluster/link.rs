//! A link: what this node says to one other node, and what it has from it.
//!
//! The broker may lose whatever it carries, so both ends count. Batches are numbered;
//! each tells what its sender has of the other direction; what the other end does not
//! have is sent again, and what comes twice is dropped. A few batches may be on their
//! way at once, or more small ones: while fewer are, what waits is sent at once, and
//! otherwise it gathers, so an idle link is quick and a busy one sends large batches,
//! without a timer. The sender asks for a word when three quarters of what may be on
//! its way are, so it seldom waits for one.
//!
//! A pure state machine: the time and what was heard go in, bytes to publish come out.
//! What belongs to a message is a ticket of the node's, which its receipt brings back.
//! A link lives as long as both incarnations. The direction to the other node is a
//! part of its own, `outgoing.rs`.

pub(super) mod outgoing;

use std::time::{Duration, Instant};

use crate::cluster::link::outgoing::Back;
use crate::cluster::link::outgoing::Outgoing;
use crate::node::seam::Cause;
use crate::proto::name::NodeId;
use crate::proto::wire::Head;

/// How long what was heard may go without a word back.
const QUIET_TIME_MAX: Duration = Duration::from_millis(50);

/// How long a node that has no queue is left alone: the first time, and at most.
const PROBE_TIME_MIN: Duration = Duration::from_millis(100);
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// Both directions between this node and another.
pub struct Link {
    /// Since when there is this link.
    pub since: Instant,
    /// Waits to be looked at by whoever publishes.
    pub is_ready: bool,
    /// The form of batches that both ends read.
    pub version: u8,
    /// The direction to the other node.
    pub outgoing: Outgoing,
    told: Told,
    /// The other node has no queue now: it is tried again then, after that pause.
    probe: Option<(Instant, Duration)>,
}

/// What is known of the direction from the other node.
#[derive(Default)]
struct Told {
    /// Every batch up to this one has come.
    have: u64,
    /// Since when something came of which the other end was not told.
    since: Option<Instant>,
    /// The other end asked to be told.
    is_asked: bool,
    has_gap: bool,
}

/// What to make of a batch that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is the next one: its items count.
    Next,
    /// It was here before, comes too early, or has no items.
    Nothing,
}

impl Link {
    /// A link on which nothing was said yet.
    pub fn new(version: u8, now: Instant) -> Self {
        let (outgoing, told) = (Outgoing::new(), Told::default());
        Link { since: now, is_ready: false, version, outgoing, told, probe: None }
    }

    /// Tells whether [`Link::next`] would give something.
    pub fn is_due(&self, now: Instant) -> bool {
        self.may_try(now) && (self.outgoing.is_due() || self.owes_word(now))
    }

    /// Tells whether there is nothing for [`Link::tick`] to do.
    pub fn is_quiet(&self) -> bool {
        !self.is_active() && !self.outgoing.waits_for_receipts()
    }

    /// Tells whether anything is under way, so that time alone may make it due.
    pub fn is_active(&self) -> bool {
        !self.outgoing.is_idle() || self.told.since.is_some() || self.told.has_gap
    }

    /// Puts the next batch to publish into `batch`, in the place of what it held; `false` when there is
    /// none now.
    pub fn next(&mut self, me: &NodeId, now: Instant, batch: &mut Vec<u8>) -> bool {
        if !self.is_due(now) {
            return false;
        }
        if let Some((at, pause)) = &mut self.probe {
            // One batch finds out; its return or an answer tells.
            *at = now + *pause;
            *pause = (*pause * 2).min(PROBE_TIME_MAX);
        }
        let Told { have, has_gap, .. } = self.told;
        let (version, from) = (self.version, me.clone());
        let head = Head { version, from, number: 0, oldest: 0, have, has_gap, asks_word: false, first: 0 };
        self.told = Told { have, ..Told::default() };
        batch.clear();
        self.outgoing.batch(head, now, batch);
        true
    }

    /// Takes in the head of a batch that came.
    pub fn hear(&mut self, head: &Head, now: Instant) -> Heard {
        self.probe = None;
        self.outgoing.have(head.have, head.has_gap, now);
        if head.number == 0 {
            return Heard::Nothing;
        }
        let told = &mut self.told;
        // What is older than the oldest that may come will never come.
        told.have = told.have.max(head.oldest.saturating_sub(1));
        told.since.get_or_insert(now);
        told.is_asked |= head.asks_word;
        if head.number != told.have + 1 {
            told.has_gap |= head.number > told.have;
            return Heard::Nothing;
        }
        told.have = head.number;
        Heard::Next
    }

    /// A batch came back: there is no queue for this node. All messages come back with it, in order: those
    /// published before it may have been seen, as it would have come back after them; what is not a
    /// message waits for the queue.
    pub fn returned(&mut self, number: u64, now: Instant) -> Vec<Back> {
        self.probe.get_or_insert((now + PROBE_TIME_MIN, PROBE_TIME_MIN * 2));
        self.outgoing.returned(number, now)
    }

    /// The other node is no more: what was never published was never seen, of the rest nobody knows. Gives
    /// the former, and the tickets of the latter.
    pub fn end(mut self, now: Instant) -> (Vec<Back>, Vec<u64>) {
        let back = self.outgoing.give_up_waiting(Cause::Dead, now);
        let mut tickets = vec![];
        self.outgoing.open(0, u64::MAX, &mut tickets);
        (back, tickets)
    }

    /// What was published may be lost: it is published again.
    pub fn lose(&mut self) {
        self.probe = None;
        self.outgoing.lose();
    }

    fn may_try(&self, now: Instant) -> bool {
        self.probe.is_none_or(|(at, _)| at <= now)
    }

    /// The other end waits for a word, and nothing else will carry it.
    fn owes_word(&self, now: Instant) -> bool {
        let told = &self.told;
        let is_old = |since| now.duration_since(since) >= QUIET_TIME_MAX;
        told.has_gap || told.is_asked || told.since.is_some_and(is_old)
    }
}

impl Back {
    /// Appends messages to those that come back, in order.
    fn add(backs: &mut Vec<Back>, tickets: Vec<u64>, casts: u64, cause: Cause) {
        match backs.last_mut().filter(|last| last.cause == cause) {
            Some(last) => {
                last.tickets.extend(tickets);
                last.casts += casts;
            }
            None if tickets.is_empty() && casts == 0 => {}
            None => backs.push(Back { tickets, casts, cause }),
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
