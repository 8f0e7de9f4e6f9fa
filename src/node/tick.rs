//! What time brings: answers that did not come, and connections that have to act by themselves.

use crate::node::connection::End;
use crate::node::connection::Phase;
use crate::node::deliveries::Waiter;
use crate::node::in_flight::Pending;
use crate::node::in_flight::Sent;
use crate::node::slab::ConnectionId;
use crate::node::slab::DeliveryId;
use crate::node::slab::Ticket;
use crate::node::state::Node;
use crate::node::timeouts::Timeout;
use crate::node::unacknowledged::Overdue;
use crate::proto::reply::CloseReason;
use crate::proto::reply::ErrorCode;
use crate::proto::wire::Receipt;

impl Node {
    /// What waits for an answer gets the one that there is none.
    pub(super) fn expire(&mut self, ticket: Ticket) {
        let place = match self.in_flight.get_mut(ticket) {
            Some(Pending::Sent(Sent { place: Some(place), .. }) | Pending::Cast(place)) => Some(*place),
            _ => None,
        };
        if let Some(place) = place {
            // Its lane knows what is true of it, and goes on without it.
            if let Some(entry) = self.lanes.get(place.lane) {
                entry.lane.expired(place.number, &mut self.acts);
                self.take_acts(place.lane);
            }
            return;
        }
        match self.in_flight.remove(ticket) {
            Some(Pending::Sent(sent)) => self.fail(sent.sender, &sent.reply, ErrorCode::Timeout),
            Some(Pending::Who { connection, reply, .. }) => {
                self.fail(connection, &reply, ErrorCode::Unavailable);
            }
            Some(Pending::Login(id)) => self.turn_away(id, ErrorCode::Unavailable),
            Some(Pending::Leaving(id)) => self.unregistered(id),
            Some(Pending::Reading(id)) => self.read_late(id),
            Some(Pending::Cast(_) | Pending::Locating { .. } | Pending::Storing { .. }) | None => {}
        }
    }

    /// It is time for a connection to act.
    pub(super) fn time_out(&mut self, kind: Timeout, id: ConnectionId) {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.connections.get_mut(id) else { return };
        match (kind, &connection.phase) {
            (Timeout::Login, Phase::New) => self.begin_end(id, End::Closed(CloseReason::Idle)),
            (Timeout::Login, Phase::Entering(_)) => self.timeouts.set(kind, id, self.now),
            (Timeout::Noting, Phase::Entering(_)) => self.admit(id),
            (Timeout::Stall, _) if !connection.is_open() => {}
            (Timeout::Stall, _) if connection.stalls(self.now, bytes_max) => {
                self.begin_end(id, End::Closed(CloseReason::Slow));
            }
            (Timeout::Stall, _) if connection.outbox.blocked_since().is_some() => {
                self.timeouts.set(kind, id, self.now);
            }
            (Timeout::Watch, _) => {
                connection.is_watched = false;
                self.age_messages(id);
            }
            (Timeout::MailBusy | Timeout::MailAway, _) => self.resume_mail(id),
            (Timeout::Finishing, Phase::Finishing(_)) => self.say_last_words(id),
            _ => {}
        }
    }

    /// Messages that a session has grow old.
    fn age_messages(&mut self, id: ConnectionId) {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (Some(user), Some(messages)) = (connection.user.clone(), &mut connection.unacknowledged) else {
            return;
        };
        let Overdue { given_back, slow, is_stalled } = messages.age(self.now, bytes_max);
        slow.into_iter().for_each(|delivery| self.tell_waits(delivery));
        for message in given_back {
            self.lose_delivery(&user, message, Receipt::Unacked);
        }
        if is_stalled {
            self.begin_end(id, End::Closed(CloseReason::Slow));
        }
        self.show(id);
    }

    /// A message is with a session that takes its time: whoever waits for its fate waits on.
    fn tell_waits(&mut self, delivery: DeliveryId) {
        let waiters: Vec<Waiter> = self.deliveries.waiters(delivery).cloned().collect();
        for waiter in waiters {
            match waiter {
                Waiter::Sent(ticket) => self.be_patient(ticket),
                Waiter::Origin { peer, number, .. } => {
                    if let Some(node) = self.peers.get(peer) {
                        self.out.says.waits(node, number);
                    }
                }
                Waiter::Mail { .. } => {}
            }
        }
    }
}
