//! What waits: everything of this node that an answer is due to, and connections that have to act by themselves.
//!
//! Mostly messages without a fate, whose senders wait. The time is the same for all, so they are linked in the order
//! they came, the oldest is always the first to expire, and what gets its answer leaves at no cost but its own. For
//! connections there is one queue for each kind of reason, for the same cause; whoever has no reason any more is
//! passed over when its turn comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::node::outbox::ReplyTo;
use crate::node::slab::{ConnectionId, LaneId, Slab, Ticket};
use crate::proto::name::{MessageId, UserName};

/// How long a message, or a question to presence, may go without an answer: then its sender gets
/// `ERR timeout`, or `ERR unavailable` if nothing was sent.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(10_000);

/// What waits for an answer.
pub enum Pending {
    /// A message that was sent here: a `SEND`, or a `CAST` that waits in a lane.
    Sent(Sent),
    /// A `WHO` that waits for presence: who asks, where the answer goes, for whom, and how many sessions of that user
    /// were here when presence was asked.
    Who(ConnectionId, ReplyTo, UserName, usize),
    /// A `LOGIN` that waits for presence.
    Login(ConnectionId),
    /// A connection that ends when others know that its session is gone.
    Leaving(ConnectionId),
    /// A lane that asks where else its user is, and whether the user was here, too, when that was asked.
    Locating(LaneId, bool),
    /// A lane of which the messages with these numbers are to be stored.
    Storing(LaneId, Vec<u64>),
    /// A session that reads its mailbox.
    Reading(ConnectionId),
}

/// A message without a fate.
pub struct Sent {
    pub sender: ConnectionId,
    /// Where its reply goes; a `CAST` has none.
    pub reply: Option<ReplyTo>,
    pub id: MessageId,
    /// Where it stands in a lane, if it is in one.
    pub place: Option<InLane>,
}

/// The place of a message in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InLane {
    pub lane: LaneId,
    pub number: u64,
}

#[derive(Default)]
pub struct InFlight {
    slots: Slab<'t', Waiting>,
    oldest: Option<Ticket>,
    newest: Option<Ticket>,
}

struct Waiting {
    pending: Pending,
    deadline: Option<Instant>,
    older: Option<Ticket>,
    newer: Option<Ticket>,
}

impl InFlight {
    /// Adds what must be answered [`ANSWER_TIME_MAX`] from now. What a lane asks is answered in any case, or nobody
    /// misses the answer.
    pub fn insert(&mut self, pending: Pending, now: Instant) -> Ticket {
        let has_deadline = !matches!(pending, Pending::Locating(..) | Pending::Storing(..));
        let ticket = self.slots.insert(Waiting { pending, deadline: None, older: None, newer: None });
        if has_deadline {
            self.link(ticket, now + ANSWER_TIME_MAX);
        }
        ticket
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

/// Why a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// It may not have logged in yet.
    Login,
    /// Its socket may still block.
    Stall,
    /// Other nodes may not have noted its login.
    Noting,
    /// Messages that it has may be there for too long.
    Watch,
    /// Another session may not drain its mailbox any more.
    MailBusy,
    /// Its mailbox may be within reach again.
    MailAway,
    /// The replies that it is owed may never come.
    Finishing,
    /// It may be silent.
    Ping,
}

/// Connections that have to act: of each kind when they do, after how long.
pub struct Timeouts {
    queues: [(Timeout, Duration, VecDeque<Due>); 8],
}

type Due = (Instant, ConnectionId);

/// How long a login waits for the nodes where its user is, too.
const NOTING_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a connection that ends waits for replies that are due. All have their deadline by then.
const FINISH_TIME_MAX: Duration = Duration::from_secs(12);

/// When a mailbox that another session drains is looked at again.
const MAIL_BUSY_TIME: Duration = Duration::from_millis(50);

/// When any other state is looked at again.
const LOOK_TIME: Duration = Duration::from_secs(1);

impl Timeouts {
    /// No connection has to act. `login_time`: how long it may take to log in; `ping_time`: how often it is pinged,
    /// if it ever is.
    pub fn new(login_time: Duration, ping_time: Option<Duration>) -> Self {
        let queue = |kind, time| (kind, time, VecDeque::new());
        let queues = [
            queue(Timeout::Login, login_time),
            queue(Timeout::Stall, LOOK_TIME),
            queue(Timeout::Noting, NOTING_TIME_MAX),
            queue(Timeout::Watch, LOOK_TIME),
            queue(Timeout::MailBusy, MAIL_BUSY_TIME),
            queue(Timeout::MailAway, LOOK_TIME),
            queue(Timeout::Finishing, FINISH_TIME_MAX),
            queue(Timeout::Ping, ping_time.unwrap_or(LOOK_TIME)),
        ];
        Timeouts { queues }
    }

    /// A connection has to act after the time of that kind.
    pub fn set(&mut self, kind: Timeout, connection: ConnectionId, now: Instant) {
        let (its, time, queue) = &mut self.queues[kind as usize];
        debug_assert_eq!(*its, kind, "they stand in the order of the kinds");
        queue.push_back((now + *time, connection));
    }

    /// Takes out one that is due.
    pub fn due(&mut self, now: Instant) -> Option<(Timeout, ConnectionId)> {
        self.queues.iter_mut().find_map(|(kind, _, queue)| {
            let (at, connection) = *queue.front()?;
            (at <= now).then(|| queue.pop_front())?;
            Some((*kind, connection))
        })
    }

    pub fn next(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|(_, _, queue)| queue.front()).map(|(at, _)| *at).min()
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
        let never = in_flight.insert(Pending::Storing(LaneId::from_number(1), vec![]), start);
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

    #[test]
    fn each_kind_has_its_time() {
        let now = Instant::now();
        let mut timeouts = Timeouts::new(Duration::from_secs(60), None);
        let connection = ConnectionId::from_number;
        timeouts.set(Timeout::Login, connection(1), now);
        timeouts.set(Timeout::Stall, connection(2), now);
        timeouts.set(Timeout::MailBusy, connection(3), now);
        assert_eq!(timeouts.next(), Some(now + Duration::from_millis(50)));
        assert_eq!(timeouts.due(now), None);
        let mut due = vec![];
        while let Some(one) = timeouts.due(now + Duration::from_secs(60)) {
            due.push(one);
        }
        let expected = [(Timeout::Login, 1), (Timeout::Stall, 2), (Timeout::MailBusy, 3)]
            .map(|(k, n)| (k, connection(n)));
        assert_eq!(due, expected);
        assert_eq!(timeouts.next(), None);
    }
}
