//! What other nodes say: messages for users of this one, and what became of this node's own.

use crate::node::act::Member;
use crate::node::deliver::Handed;
use crate::node::deliveries::Waiter;
use crate::node::in_flight::InLane;
use crate::node::in_flight::Pending;
use crate::node::in_flight::Sent;
use crate::node::seam::Cause;
use crate::node::seam::Returned;
use crate::node::slab::LaneId;
use crate::node::slab::Ticket;
use crate::node::state::Node;
use crate::node::unacknowledged::Kind;
use crate::proto::name::NodeId;
use crate::proto::name::UserName;
use crate::proto::wire::Message;
use crate::proto::wire::Receipt;

impl Node {
    /// A message from another node: it is delivered here, or its origin is told; it is never forwarded.
    pub(super) fn receive(&mut self, origin: &NodeId, number: Option<u64>, message: Message<'_>) {
        let Message { is_first, from, to, id, text, .. } = message;
        let peer = self.peers.name(origin);
        self.tell_further(peer, to);
        let is_here = self.find(to.as_str());
        let user = self.table.find(to.as_str()).map_or_else(|| UserName::from(to), |(name, _)| name.clone());
        self.counters.not_here += u64::from(!is_here);
        self.print(from, id, text);
        let Some(number) = number else {
            // It must not overtake what was refused.
            if self.refusals.contains(peer, &user) {
                self.seats.clear();
            }
            return self.hand_cast();
        };
        if is_first {
            self.refusals.remove(peer, &user);
        }
        let waiter = Waiter::Origin { peer, number, user };
        if !is_here || self.is_refused(&waiter) {
            return self.resolve(waiter, Receipt::NotHere);
        }
        match self.hand(waiter, to.as_str(), true, Kind::Live) {
            Handed::Yes => {}
            Handed::Seen(waiter) => self.resolve(waiter, Receipt::Delivered),
            Handed::Refused(waiter, receipt) => self.resolve(waiter, receipt),
        }
    }

    fn is_refused(&self, waiter: &Waiter) -> bool {
        matches!(waiter, Waiter::Origin { peer, user, .. } if self.refusals.contains(*peer, user))
    }

    /// Another node tells what became of messages.
    pub(super) fn receive_receipts(&mut self, node: &NodeId, tickets: &[u64], receipt: Receipt) {
        let peer = self.peers.name(node);
        for ticket in tickets {
            if let Some(place) = self.place_of(*ticket) {
                self.lane_receipt(place, Member::Node(peer), receipt);
            }
        }
    }

    /// Messages are with sessions of another node that take their time.
    pub(super) fn receive_waits(&mut self, tickets: &[u64]) {
        for ticket in tickets {
            self.be_patient(Ticket::from_number(*ticket));
        }
    }

    /// Whoever waits for a message waits on, unless that is a connection that ends.
    pub(super) fn be_patient(&mut self, ticket: Ticket) {
        if let Some(Pending::Sent(sent)) = self.in_flight.get_mut(ticket)
            && self.connections.get(sent.sender).is_some_and(|sender| sender.is_open())
        {
            self.in_flight.extend(ticket, self.now);
        }
    }

    /// A user is on a further node, too.
    pub(super) fn heard_location(&mut self, user: &str, node: &NodeId) {
        let peer = self.peers.name(node);
        self.locations.add(user, peer);
        self.add_member(user, Member::Node(peer));
    }

    /// A lane has one more member.
    pub(super) fn add_member(&mut self, user: &str, member: Member) {
        if let Some(lane) = self.lanes.find(user)
            && let Some(entry) = self.lanes.get(lane)
        {
            entry.lane.add(member, &mut self.acts);
            self.take_acts(lane);
        }
    }

    /// Messages could not be carried.
    pub(super) fn take_back(&mut self, returned: &Returned) {
        let Returned { node, tickets, casts, cause } = returned;
        self.counters.casts_lost += casts;
        let peer = self.peers.name(node);
        for (lane, numbers) in self.by_lane(tickets) {
            let Some(entry) = self.lanes.get(lane) else { continue };
            if *cause == Cause::Dead {
                self.locations.remove(entry.user.as_str(), peer);
            }
            entry.lane.returned(&numbers, Member::Node(peer), *cause, &mut self.acts);
            self.take_acts(lane);
        }
    }

    /// A node is dead, or this one is another to it now.
    pub(super) fn bury(&mut self, node: &NodeId, tickets: &[u64]) {
        let peer = self.peers.name(node);
        for (lane, numbers) in self.by_lane(tickets) {
            let Some(entry) = self.lanes.get(lane) else { continue };
            self.locations.remove(entry.user.as_str(), peer);
            let lost = numbers.iter().filter(|number| entry.lane.is_only_with(**number, Member::Node(peer)));
            self.counters.rerouted += lost.count() as u64;
            entry.lane.gone(&numbers, Member::Node(peer), &mut self.acts);
            self.take_acts(lane);
        }
        self.peers.bury(peer);
    }

    /// Messages by their lanes, in order.
    fn by_lane(&mut self, tickets: &[u64]) -> Vec<(LaneId, Vec<u64>)> {
        let mut places: Vec<InLane> = tickets.iter().filter_map(|ticket| self.place_of(*ticket)).collect();
        places.sort_unstable_by_key(|place| (place.lane, place.number));
        let mut lanes: Vec<(LaneId, Vec<u64>)> = vec![];
        for InLane { lane, number } in places {
            match lanes.last_mut().filter(|(last, _)| *last == lane) {
                Some((_, numbers)) => numbers.push(number),
                None => lanes.push((lane, vec![number])),
            }
        }
        lanes
    }

    fn place_of(&mut self, ticket: u64) -> Option<InLane> {
        match self.in_flight.get_mut(Ticket::from_number(ticket))? {
            Pending::Sent(Sent { place, .. }) => *place,
            _ => None,
        }
    }
}
