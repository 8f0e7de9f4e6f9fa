//! The in-flight table: everything of this node that waits for an answer.
//!
//! Mostly messages without a fate, whose senders wait. What has a deadline is also linked in the order it
//! came: the time is the same for all, so the oldest is always the first to expire, and what gets its answer
//! leaves at no cost but its own.

use std::time::Duration;
use std::time::Instant;

use crate::node::outbox::ReplyTo;
use crate::node::slab::ConnectionId;
use crate::node::slab::LaneId;
use crate::node::slab::Slab;
use crate::node::slab::Ticket;
use crate::node::slab::Tickets;
use crate::proto::name::MessageId;
use crate::proto::name::UserName;

/// How long a message, or a question to presence, may go without an answer: then its sender gets
/// `ERR timeout`, or `ERR unavailable` if nothing was sent.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(10_000);

/// What waits for an answer.
pub enum Pending {
    /// A message that was sent here: a `SEND`, or a `CAST` that waits in a lane.
    Sent(Sent),
    /// A `WHO` that waits for presence.
    Who {
        /// Who asks.
        connection: ConnectionId,
        /// Where the answer goes.
        reply: ReplyTo,
        /// For whom.
        user: UserName,
        /// How many sessions of that user were here when presence was asked.
        here: usize,
    },
    /// A `LOGIN` that waits for presence.
    Login(ConnectionId),
    /// A connection that ends when others know that its session is gone.
    Leaving(ConnectionId),
    /// A lane that asks where else its user is.
    Locating {
        /// The lane.
        lane: LaneId,
        /// The user was here, too, when that was asked.
        was_here: bool,
    },
    /// A lane of which these messages are to be stored.
    Storing {
        /// The lane.
        lane: LaneId,
        /// The messages, by their numbers in it.
        numbers: Vec<u64>,
    },
    /// A session that reads its mailbox.
    Reading(ConnectionId),
}

/// A message without a fate.
pub struct Sent {
    /// The sender's connection.
    pub sender: ConnectionId,
    /// Where its reply goes; a `CAST` has none.
    pub reply: Option<ReplyTo>,
    /// The message's id.
    pub id: MessageId,
    /// Where it stands in a lane, if it is in one.
    pub place: Option<InLane>,
}

/// The place of a message in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InLane {
    /// The lane.
    pub lane: LaneId,
    /// The number in it.
    pub number: u64,
}

/// The table.
#[derive(Default)]
pub struct InFlight {
    slots: Slab<Tickets, Slot>,
    oldest: Option<Ticket>,
    newest: Option<Ticket>,
}

struct Slot {
    pending: Pending,
    deadline: Option<Instant>,
    older: Option<Ticket>,
    newer: Option<Ticket>,
}

impl InFlight {
    /// Adds what must be answered [`ANSWER_TIME_MAX`] from now.
    pub fn insert(&mut self, pending: Pending, now: Instant) -> Ticket {
        let ticket = self.insert_for_ever(pending);
        self.link(ticket, now + ANSWER_TIME_MAX);
        ticket
    }

    /// Adds what is answered in any case, or whose answer nobody misses.
    pub fn insert_for_ever(&mut self, pending: Pending) -> Ticket {
        self.slots.insert(Slot { pending, deadline: None, older: None, newer: None })
    }

    /// What waits under a ticket, if it still does.
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Pending> {
        self.slots.get_mut(ticket).map(|slot| &mut slot.pending)
    }

    /// Takes it out: whoever gets it must answer it.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        self.unlink(ticket);
        self.slots.remove(ticket).map(|slot| slot.pending)
    }

    /// Nobody waits for anything any more: what has no deadline is left, and its answers find nobody.
    pub fn forget_all(&mut self) {
        self.slots.keys().into_iter().for_each(|ticket| drop(self.remove(ticket)));
    }

    /// Gives it as long again from now, if it has a deadline.
    pub fn extend(&mut self, ticket: Ticket, now: Instant) {
        if self.slots.get(ticket).is_some_and(|slot| slot.deadline.is_some()) {
            self.unlink(ticket);
            self.link(ticket, now + ANSWER_TIME_MAX);
        }
    }

    /// The oldest that is due.
    pub fn due(&self, now: Instant) -> Option<Ticket> {
        let oldest = self.oldest?;
        let deadline = self.slots.get(oldest)?.deadline?;
        (deadline <= now).then_some(oldest)
    }

    /// The oldest that has a deadline.
    pub fn oldest(&self) -> Option<Ticket> {
        self.oldest
    }

    /// How much waits for an answer.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn link(&mut self, ticket: Ticket, deadline: Instant) {
        let before = self.newest.replace(ticket);
        if let Some(slot) = self.slots.get_mut(ticket) {
            (slot.deadline, slot.older, slot.newer) = (Some(deadline), before, None);
        }
        match before.and_then(|before| self.slots.get_mut(before)) {
            Some(slot) => slot.newer = Some(ticket),
            None => self.oldest = Some(ticket),
        }
    }

    fn unlink(&mut self, ticket: Ticket) {
        let Some(slot) = self.slots.get_mut(ticket) else { return };
        if slot.deadline.take().is_none() {
            return;
        }
        let (older, newer) = (slot.older.take(), slot.newer.take());
        match older.and_then(|older| self.slots.get_mut(older)) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| self.slots.get_mut(newer)) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending::Login(ConnectionId::from_number(1))
    }

    #[test]
    fn the_oldest_is_due_first_and_what_was_extended_last() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut in_flight = InFlight::default();
        let tickets: Vec<Ticket> = (0..4).map(|n| in_flight.insert(pending(), at(n))).collect();
        let never = in_flight.insert_for_ever(pending());
        assert_eq!(in_flight.due(at(9)), None);
        in_flight.extend(tickets[1], at(5));
        in_flight.extend(never, at(5));
        assert!(in_flight.remove(tickets[2]).is_some() && in_flight.remove(tickets[2]).is_none());
        let mut due = vec![];
        while let Some(ticket) = in_flight.due(at(15)) {
            due.push(ticket);
            in_flight.remove(ticket);
        }
        assert_eq!(due, [tickets[0], tickets[3], tickets[1]]);
        assert_eq!((in_flight.len(), in_flight.oldest), (1, None));
        assert!(in_flight.newest.is_none());
    }
}
