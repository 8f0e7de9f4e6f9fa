//! Order while the sessions of a user come and go.
//!
//! Messages of one sender come to each session in the order in which they were
//! sent. A message that comes back from a session or node that did not deliver it
//! would come late to those that have a later one already. So where a user has
//! left a node, later messages wait for what is on its way there (the barrier in
//! `asked.rs`). And the first message to a further node or session of a user takes
//! with it what others of the user have and have not taken: if they never do, it
//! is there.
//!
//! Left out: a message that nobody acknowledged in time, or that was with a node
//! that died, is routed again behind later ones.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::cluster::Place;
use crate::outbox::{Kind, Message, Outbox, Push, Ticket};
use crate::proto::{Envelope, EnvelopeRef, UserName, UserRef};
use crate::router::again::{Lost, envelope_of};
use crate::router::in_flight::Further;
use crate::router::question::{Question, Sent};
use crate::router::{Router, Turn};
use crate::table::Seat;

impl Router {
    /// Tells whether messages to a user have to wait for others that are on their way to nodes
    /// where the user, who is at these places now, is not any more.
    pub(super) fn has_left_behind(&self, user: UserRef<'_>, places: &[Place]) -> bool {
        let mut in_flight = self.in_flight();
        let tickets = in_flight.left_behind(user, |node| places.iter().any(|place| place.node == *node));
        if tickets.is_empty() {
            return false;
        }
        in_flight.await_fates(&tickets);
        drop(in_flight);
        self.wait_behind(user.into(), tickets);
        true
    }

    /// A user, whose sessions here are `seats`, has come to further nodes, or has further ones among
    /// these: they are given what is under way to it, before the message `next` and anything later.
    pub(super) fn catch_up_elsewhere(
        &self,
        next: Ticket,
        user: &UserName,
        seats: &[Seat],
        further: &Further,
        turn: &mut Turn,
    ) {
        let mut has_earlier = further.has_earlier;
        // What other nodes sent here, these send to the further ones by themselves.
        let is_only_here = |ticket| {
            let mut in_flight = self.in_flight();
            matches!(in_flight.question(ticket), Some(Question::Sent(Sent { remote: None, .. })))
        };
        for (ticket, line) in seats.iter().flat_map(|seat| seat.outbox.outstanding(is_only_here)) {
            if let Some(envelope) = envelope_of(user, &line) {
                self.in_flight().keep(ticket, envelope);
                has_earlier = true;
            }
        }
        // Looking through the whole table is for when there is something to find.
        let under_way = if has_earlier { self.in_flight().others_to(user, next) } else { vec![] };
        let further_seats: Vec<(&Seat, HashSet<Ticket>)> =
            further.seats.iter().map(|seat| (seat, had_by(seat, &under_way))).collect();
        for &ticket in &under_way {
            let Some(envelope) = self.envelope(ticket) else { continue };
            for (seat, _) in further_seats.iter().filter(|(_, had)| !had.contains(&ticket)) {
                self.push_also(ticket, &envelope, &seat.outbox, turn);
            }
            for node in &further.nodes {
                self.forward_also(ticket, ticket, node, &envelope, turn);
            }
        }
    }

    /// Sessions that entered where their user, whose sessions are `turn.seats`, has others: they are
    /// given what the others have and have not taken, before anything later.
    #[inline]
    pub(super) fn catch_up_here(&self, user: UserRef<'_>, turn: &mut Turn) {
        if turn.seats.iter().any(|seat| seat.outbox.is_behind()) {
            self.catch_up_behind(user, turn);
        }
    }

    fn catch_up_behind(&self, user: UserRef<'_>, turn: &mut Turn) {
        let seats = turn.take_seats();
        let user = UserName::from(user);
        let shown = self.shown_here(&user);
        for seat in seats.iter().filter(|seat| seat.outbox.is_behind()) {
            seat.outbox.set_behind(false);
            // What the others have taken since it entered is not given to it, so it has to know it as shown:
            // a copy may come.
            seat.outbox.inherit(&shown);
            let others = seats.iter().filter(|other| other.session != seat.session);
            self.give(&user, &seat.outbox, others, turn);
        }
        turn.put_seats(seats);
    }

    /// A session has taken the place of others here: it is given what they have not taken.
    pub fn take_over(&self, user: &UserName, outbox: &Arc<Outbox>, replaced: &[Seat], turn: &mut Turn) {
        self.give(user, outbox, replaced.iter(), turn);
    }

    /// Gives a session what others of its user have and have not taken.
    fn give<'a>(
        &self,
        user: &UserName,
        outbox: &Arc<Outbox>,
        others: impl Iterator<Item = &'a Seat>,
        turn: &mut Turn,
    ) {
        let mut under_way = BTreeMap::new();
        let is_open = |ticket| self.in_flight().question(ticket).is_some();
        for (ticket, line) in others.flat_map(|seat| seat.outbox.outstanding(is_open)) {
            under_way.insert(self.in_flight().order(ticket), (ticket, line));
        }
        for (ticket, line) in under_way.into_values() {
            if let Some(envelope) = envelope_of(user, &line) {
                self.push_also(ticket, &envelope, outbox, turn);
            }
        }
    }

    /// Hands a message to one session more, as one of its parties, if it has no fate yet.
    fn push_also(&self, ticket: Ticket, envelope: &Envelope, outbox: &Arc<Outbox>, turn: &mut Turn) {
        match self.in_flight().question(ticket) {
            Some(Question::Sent(sent)) => sent.parties += 1,
            Some(Question::Received(received)) => received.parties += 1,
            _ => return,
        }
        let EnvelopeRef { from, id, text, .. } = envelope.borrowed();
        turn.print(from, id, text);
        let (hash, line) = (Some(self.hash(turn)), &turn.line[..]);
        let message =
            Message { from, id, line, ticket: Some(ticket), hash, may_be_copy: true, kind: Kind::Shared };
        match outbox.push_message(message, turn.now, &mut turn.dirty) {
            Push::Taken => {}
            Push::Copy => self.metrics.duplicates.add(),
            Push::Refused | Push::Unacked => self.lost(ticket, Lost::GONE, None, turn),
        }
    }
}

/// Which of these messages a session has, and has not taken.
fn had_by(seat: &Seat, tickets: &[Ticket]) -> HashSet<Ticket> {
    let tickets: HashSet<Ticket> = tickets.iter().copied().collect();
    let had = seat.outbox.outstanding(|ticket| tickets.contains(&ticket));
    had.into_iter().map(|(ticket, _)| ticket).collect()
}
