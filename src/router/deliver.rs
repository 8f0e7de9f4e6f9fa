//! Handing messages to the sessions of this node.

use crate::outbox::{Hashes, Kind, Message, Push, Ticket};
use crate::proto::{EnvelopeRef, Fate, IdRef, NodeId, UserRef};
use crate::router::again::Lost;
use crate::router::question::{Question, Received};
use crate::router::{Router, Turn};
use crate::table::Seat;

/// How a message comes to the sessions of this node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From this node, and only to its own sessions.
    Here,
    /// For the first time.
    First,
    /// Once more: it was somewhere before, or is.
    Again,
}

impl Way {
    /// Of a message that others may have had, or not.
    pub fn of(is_again: bool) -> Self {
        if is_again { Way::Again } else { Way::First }
    }
}

impl Router {
    /// Puts the sessions of a user into `turn.seats`: looked up once for all that a turn sends to one
    /// user, as long as nobody comes or goes.
    pub(super) fn find(&self, user: UserRef<'_>, turn: &mut Turn) {
        let changes = self.table.changes();
        if turn.seats_at != changes || !turn.is_of(user) {
            turn.seats.clear();
            turn.seats_of = self.table.find(user, &mut turn.seats).or_else(|| Some(user.into()));
            turn.seats_at = changes;
            turn.forget_places();
        }
    }

    /// Pushes a message to all of `turn.seats`, and returns what they refused. A copy of it may have
    /// come before when its sender named it, or when it is routed again; and may come later, unless it
    /// is on this node only.
    pub(super) fn push(
        &self,
        ticket: Ticket,
        from: UserRef<'_>,
        id: IdRef<'_>,
        text: &str,
        way: Way,
        turn: &mut Turn,
    ) -> Lost {
        if turn.seats.is_empty() {
            return Lost::none();
        }
        let may_be_copy = way == Way::Again || matches!(id, IdRef::Tag(_));
        let may_come_again = may_be_copy || way != Way::Here;
        let is_remembered = turn.seats.iter().any(|seat| may_come_again || seat.outbox.acknowledges());
        turn.print(from, id, text);
        let hash = is_remembered.then(|| self.hash(turn));
        let (ticket, line) = (Some(ticket), &turn.line[..]);
        let message = Message { from, id, line, ticket, hash, may_be_copy, kind: Kind::Live };
        let mut lost = Lost::none();
        for seat in &turn.seats {
            match seat.outbox.push_message(message, turn.now, &mut turn.dirty) {
                Push::Taken => {}
                Push::Copy => self.metrics.duplicates.add(),
                Push::Refused => lost.add(Lost::GONE),
                Push::Unacked => lost.add(Lost::UNACKED),
            }
        }
        lost
    }

    /// What the message whose line was printed is remembered by, once it was shown.
    pub(super) fn hash(&self, turn: &Turn) -> Hashes {
        // The line is what the client would see twice: an id looks the same whoever made it.
        self.cluster.seen_keys().hash(&turn.line)
    }

    /// A message from another node: it is delivered here, or the origin is told.
    pub(super) fn receive(&self, origin: &NodeId, envelope: EnvelopeRef<'_>, turn: &mut Turn) {
        let EnvelopeRef { number, is_shared, is_again, from, to, id, text } = envelope;
        self.find(to, turn);
        if turn.seats.is_empty() {
            self.metrics.not_here.add();
        }
        let Some(number) = number else {
            // Nobody waits for it here, so where there is no room it is lost, and counted.
            let count = turn.seats.len();
            turn.seats.retain(|seat| seat.outbox.has_room() == Some(true));
            if turn.seats.len() < count {
                turn.seats_of = None;
            }
            return self.push_cast(from, id, text, turn);
        };
        let parties = turn.seats.len() as u32;
        let (origin, to) = (origin.clone(), turn.name(to));
        let received = Received { origin, number, is_shared, to, parties, lost: Fate::NotHere };
        if parties == 0 || (!is_shared && self.is_refused(&received.to, &received.origin)) {
            return self.refuse_received(&received, turn.now);
        }
        self.make_room(turn);
        self.catch_up_here(envelope.to, turn);
        // No deadline: the origin has one, and every seat answers in the end.
        let ticket = self.in_flight().insert(Question::Received(received), None);
        let lost = self.push(ticket, from, id, text, Way::of(is_again), turn);
        if !lost.is_none() {
            self.lost(ticket, lost, None, turn);
        }
    }

    /// Writes the outboxes of `turn.seats` that are full and do not block: a crowd
    /// of origins fills them within one turn, and that makes nobody a slow consumer.
    fn make_room(&self, turn: &mut Turn) {
        let is_full = |seat: &Seat| seat.outbox.has_room() == Some(false) && seat.outbox.blocked().is_none();
        if !turn.seats.iter().any(is_full) {
            return;
        }
        let seats = turn.take_seats();
        for seat in seats.iter().filter(|seat| is_full(seat)) {
            self.flush(&seat.outbox, turn);
        }
        turn.put_seats(seats);
    }

    /// Pushes a `CAST` to all of `turn.seats`, and counts it.
    pub(super) fn push_cast(&self, from: UserRef<'_>, id: IdRef<'_>, text: &str, turn: &mut Turn) {
        turn.print(from, id, text);
        let line = &turn.line[..];
        let message =
            Message { from, id, line, ticket: None, hash: None, may_be_copy: false, kind: Kind::Live };
        let mut taken = false;
        for seat in &turn.seats {
            taken |= seat.outbox.push_message(message, turn.now, &mut turn.dirty) == Push::Taken;
        }
        let counter = if taken { &self.metrics.casts } else { &self.metrics.casts_lost };
        counter.add();
    }
}
