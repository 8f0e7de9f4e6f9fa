//! What time brings: answers that did not come, and connections that have to act by themselves.

use crate::node::connection::End;
use crate::node::connection::Phase;
use crate::node::in_flight::InLane;
use crate::node::in_flight::Pending;
use crate::node::in_flight::Sent;
use crate::node::seam::Unavailable;
use crate::node::slab::ConnectionId;
use crate::node::slab::Ticket;
use crate::node::state::Node;
use crate::node::timeouts::Timeout;
use crate::proto::reply::CloseReason;
use crate::proto::reply::ErrorCode;

impl Node {
    /// What waits for an answer gets the one that there is none.
    pub(super) fn expire(&mut self, ticket: Ticket) {
        if let Some(Pending::Sent(Sent { place: Some(place), .. })) = self.in_flight.get_mut(ticket) {
            let InLane { lane, number } = *place;
            // Its lane knows what is true of it, and goes on without it.
            self.tell_lane(lane, |lane, acts| lane.expired(number, acts));
            return;
        }
        match self.in_flight.remove(ticket) {
            Some(Pending::Sent(Sent { sender, reply, .. })) => {
                reply.into_iter().for_each(|reply| self.fail(sender, &reply, ErrorCode::Timeout));
            }
            Some(Pending::Who { connection, reply, .. }) => {
                self.fail(connection, &reply, ErrorCode::Unavailable);
            }
            Some(Pending::Login(id)) => self.turn_away(id, ErrorCode::Unavailable),
            Some(Pending::Leaving(id)) => self.unregistered(id),
            Some(Pending::Reading(id)) => self.read_mail(id, Err(Unavailable)),
            Some(Pending::Locating { .. } | Pending::Storing { .. }) | None => {}
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
}
