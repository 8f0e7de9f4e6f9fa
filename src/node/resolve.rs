//! Telling whoever waits for a delivery what became of it.

use crate::node::act::Member;
use crate::node::act::NotDelivered;
use crate::node::deliveries::Waiter;
use crate::node::drain::State;
use crate::node::in_flight::InLane;
use crate::node::in_flight::Pending;
use crate::node::in_flight::Sent;
use crate::node::lanes::Kept;
use crate::node::slab::PeerId;
use crate::node::slab::Ticket;
use crate::node::state::Node;
use crate::proto::name::IdRef;
use crate::proto::name::UserName;
use crate::proto::name::UserRef;
use crate::proto::reply::parse_msg;
use crate::proto::reply::print_delivered;
use crate::proto::wire::Item;
use crate::proto::wire::Receipt;
use crate::proto::wire::body;

impl Node {
    /// A delivery has this fate, and its text is kept elsewhere if it is needed once more.
    pub(super) fn resolve(&mut self, waiter: Waiter, receipt: Receipt) {
        match waiter {
            Waiter::Sent(ticket) => self.resolve_sent(ticket, receipt),
            Waiter::Origin { peer, number, user } => {
                self.tell_further(peer, user.borrowed());
                // Who does not acknowledge is here all the same.
                if matches!(receipt, Receipt::NotHere | Receipt::Left) {
                    self.refusals.insert(peer, &user, self.now);
                }
                if let Some(node) = self.peers.get(peer) {
                    self.out.says.receipt(node, number, receipt);
                }
            }
            Waiter::Mail { connection, place } => {
                let state = if receipt == Receipt::Delivered { State::Taken } else { State::Left };
                self.note_mail(connection, place, state);
            }
        }
    }

    /// Tells an origin where else a user of this node is, unless it was told: before the receipt, so that what is
    /// in flight there goes to the further nodes, too.
    pub(super) fn tell_further(&mut self, origin: PeerId, user: UserRef<'_>) {
        for further in self.locations.news_to(origin, user.as_str(), self.now) {
            let further = self.peers.name(&further);
            // One that has died since the origin may not know to be dead.
            if let (Some(node), Some(further)) = (self.peers.get(origin), self.peers.get(further)) {
                self.out.says.item(node, &Item::Further { user, node: further.as_str() });
            }
        }
    }

    /// Resolves one that was lost. `line` shows it: of a message that is in no lane there is no other text.
    pub(super) fn resolve_lost(&mut self, waiter: Waiter, receipt: Receipt, user: &UserName, line: &[u8]) {
        if let Waiter::Sent(ticket) = waiter
            && let Some(Pending::Sent(Sent { place: None, .. })) = self.in_flight.get_mut(ticket)
        {
            return self.route_again(ticket, receipt, user, line);
        }
        self.resolve(waiter, receipt);
    }

    fn resolve_sent(&mut self, ticket: Ticket, receipt: Receipt) {
        let Some(Pending::Sent(sent)) = self.in_flight.get_mut(ticket) else { return };
        if let Some(place) = sent.place {
            return match receipt {
                Receipt::Delivered => self.lane_delivered(place, Member::Here),
                _ => self.lane_refused(place, Member::Here, refusal(receipt)),
            };
        }
        if receipt == Receipt::Delivered
            && let Some(Pending::Sent(sent)) = self.in_flight.remove(ticket)
        {
            self.tell_delivered(&sent);
        }
    }

    /// The sender learns that its message was delivered.
    pub(super) fn tell_delivered(&mut self, sent: &Sent) {
        self.counters.delivered += 1;
        self.answer(sent.sender, &sent.reply, |out| print_delivered(sent.id.borrowed(), out));
    }

    /// A message that was only with sessions of this node, and is not any more, enters its recipient's lane.
    fn route_again(&mut self, ticket: Ticket, receipt: Receipt, user: &UserName, line: &[u8]) {
        let Some((from, id, text)) = parse_msg(line) else { return };
        let body = body(from, user.borrowed(), IdRef::Tag(id), text);
        if receipt == Receipt::Unacked {
            // Whoever has it next has as long as the one before.
            self.be_patient(ticket);
        }
        let Some(Pending::Sent(sent)) = self.in_flight.get_mut(ticket) else { return };
        self.counters.rerouted += 1;
        let kept = Kept { ticket, body, sender: sent.sender, node: None };
        let lane = self.lanes.open(user, self.has_mailboxes());
        self.lanes.claim(lane, &kept);
        self.charge(&kept, true);
        let is_doubtful = receipt != Receipt::NotHere;
        let Some(entry) = self.lanes.get(lane) else { return };
        let number = entry.lane.send_again(kept, is_doubtful, &mut self.acts);
        if let Some(Pending::Sent(sent)) = self.in_flight.get_mut(ticket) {
            sent.place = Some(InLane { lane, number });
        }
        self.take_acts(lane);
    }

    /// Counts a message on its sender's share, or not any more.
    pub(super) fn charge(&mut self, kept: &Kept, is_more: bool) {
        if let Some(sender) = self.connections.get_mut(kept.sender) {
            let bytes = kept.bytes() as u32;
            let changed = if is_more {
                sender.lane_bytes.checked_add(bytes)
            } else {
                sender.lane_bytes.checked_sub(bytes)
            };
            sender.lane_bytes = changed.unwrap_or(0);
        }
    }
}

/// What a receipt that is no delivery means to a lane.
pub fn refusal(receipt: Receipt) -> NotDelivered {
    match receipt {
        Receipt::Unacked => NotDelivered::Unacked,
        Receipt::Left => NotDelivered::NotHere { is_doubtful: true },
        Receipt::NotHere | Receipt::Delivered => NotDelivered::NotHere { is_doubtful: false },
    }
}
