//! Sessions that acknowledge: what they have taken, and what they take too long for.

use std::sync::Arc;

use crate::outbox::{Acked, Outbox, Overdue, Ticket};
use crate::proto::{CloseReason, NodeId, SessionId, UserName};
use crate::router::again::{Lost, is_with};
use crate::router::question::Question;
use crate::router::{RECEIPT_MS_MAX, Router, Turn};

/// A session whose ledger has to be looked at from time to time.
pub(super) struct Watched {
    user: UserName,
    outbox: Arc<Outbox>,
}

impl Router {
    /// A session of `user` acknowledges a message.
    pub fn acknowledge(
        &self,
        user: &UserName,
        session: SessionId,
        outbox: &Arc<Outbox>,
        (id, from): (&str, &str),
        turn: &mut Turn,
    ) {
        let Acked { mut tickets, late } = outbox.acknowledge(id, from, turn.now, &mut turn.dirty);
        self.written(&mut tickets, turn);
        let Some(hash) = late else { return };
        // Sessions that came meanwhile have not inherited it.
        let mut seats = vec![];
        self.table.find(user.borrowed(), &mut seats);
        let others = seats.iter().filter(|seat| seat.session != session);
        others.for_each(|seat| seat.outbox.remember(hash));
        if self.cluster.has_mailboxes() {
            // It takes messages again: what went into the mailbox meanwhile comes back.
            self.drain_again(user, session, outbox, turn);
        }
    }

    /// From now on the ledger of a session is looked at.
    pub(super) fn watch(&self, user: &UserName, session: SessionId, outbox: &Arc<Outbox>) {
        let watched = Watched { user: user.clone(), outbox: outbox.clone() };
        self.watched().insert(session, watched);
    }

    /// Does what is due by now in all ledgers.
    pub(super) fn age_ledgers(&self, turn: &mut Turn) {
        let watched: Vec<_> =
            self.watched().values().map(|one| (one.user.clone(), one.outbox.clone())).collect();
        for (user, outbox) in watched {
            let Overdue { given_back, slow, is_stalled, .. } = outbox.age(turn.now, &mut turn.dirty);
            slow.into_iter().for_each(|ticket| self.be_patient(ticket, turn));
            for message in given_back {
                match message.ticket {
                    Some(ticket) => self.lost(ticket, Lost::UNACKED, Some((&user, &message.line)), turn),
                    None => self.metrics.casts_lost.add(),
                }
            }
            if is_stalled {
                outbox.close(CloseReason::Slow);
            }
        }
    }

    /// A message is with a session that takes its time: whoever waits for its fate waits on.
    fn be_patient(&self, ticket: Ticket, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        match in_flight.question(ticket) {
            Some(Question::Sent(_)) => in_flight.extend(ticket, turn.now + RECEIPT_MS_MAX),
            Some(Question::Received(received)) => {
                let (origin, number) = (received.origin.clone(), received.number);
                drop(in_flight);
                self.cluster.tell_waits(&origin, number);
            }
            _ => {}
        }
    }

    /// A message is with a session of another node that takes its time.
    pub(super) fn waits(&self, node: &NodeId, ticket: Ticket, turn: &Turn) {
        let mut in_flight = self.in_flight();
        if is_with(in_flight.question(ticket).as_deref(), node) {
            in_flight.extend(ticket, turn.now + RECEIPT_MS_MAX);
        }
    }
}
