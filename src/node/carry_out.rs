//! Lanes and what is around them: carrying out what they want done, and telling them what came of it.

use std::collections::BTreeMap;

use crate::node::deadlines::{InLane, Pending, Sent};
use crate::node::deliver::print_line;
use crate::node::deliveries::Waiter;
use crate::node::lane::{Act, Acts, Lane, Whereabouts};
use crate::node::lanes::Kept;
use crate::node::seam::{Cause, Location, Returned, Stored, Unavailable, What};
use crate::node::slab::{LaneId, Member, PeerId, Ticket};
use crate::node::state::{Node, Todo};
use crate::node::unacknowledged::Kind;
use crate::proto::name::{NodeId, UserName};
use crate::proto::reply::{print_delivered, print_stored};
use crate::proto::wire::{Item, Receipt, parse_body};

impl Node {
    /// Tells a lane something, and puts on the list what it wants done.
    pub(super) fn tell_lane<T>(
        &mut self,
        id: LaneId,
        tell: impl FnOnce(&mut Lane<Kept>, &mut Acts<Kept>) -> T,
    ) -> Option<T> {
        let told = tell(&mut self.lanes.get(id)?.lane, &mut self.acts);
        self.todo.extend(self.acts.drain(..).map(|act| Todo::Act(id, act)));
        Some(told)
    }

    /// A message of a sender enters a lane, as [`Lane::send`] has it.
    pub(super) fn enter_lane(
        &mut self,
        lane: LaneId,
        kept: Kept,
        how: (bool, bool),
        known: Option<Vec<Member>>,
    ) {
        self.lanes.claim(lane, &kept);
        let (ticket, bytes) = (kept.ticket, kept.bytes() as u32);
        let number = self.tell_lane(lane, |lane, acts| lane.send(kept, how, known.as_deref(), acts));
        if let (Some(number), Some(Pending::Sent(sent))) = (number, self.in_flight.get_mut(ticket)) {
            sent.place = Some(InLane { lane, number });
            let sender = self.connections.get_mut(sent.sender);
            sender.into_iter().for_each(|sender| sender.lane_bytes += bytes);
        }
    }

    /// A message is out of its lane, and in flight no more.
    fn leave_lane(&mut self, lane: LaneId, kept: &Kept) -> Option<Sent> {
        let woken = self.lanes.release(lane, kept);
        self.go_on(woken);
        let Some(Pending::Sent(sent)) = self.in_flight.remove(kept.ticket) else { return None };
        let sender = self.connections.get_mut(sent.sender);
        sender.into_iter().for_each(|sender| sender.lane_bytes -= kept.bytes() as u32);
        self.relieve_own(sent.sender);
        Some(sent)
    }

    pub(super) fn carry_out(&mut self, lane: LaneId, act: Act<Kept>) {
        match act {
            Act::Give(number, Member::Here, _) => self.give_here(lane, number),
            Act::Give(number, Member::Node(peer), is_first) => {
                let Some(kept) = self.lanes.get(lane).and_then(|entry| entry.lane.message(number)) else {
                    return;
                };
                match self.peers.get(peer) {
                    Some(node) => {
                        self.out.says.message(node, Some(kept.ticket.number()), is_first, &kept.body)
                    }
                    // It died since: there is nobody who could say so.
                    None => self.lane_answered(InLane { lane, number }, Member::Node(peer), Receipt::NotHere),
                }
            }
            Act::Cast(kept, members) => {
                members.iter().for_each(|to| self.give_cast(&kept.body, *to));
                self.leave_lane(lane, &kept);
            }
            Act::Ask => {
                let Some(entry) = self.lanes.get(lane) else { return };
                let user = entry.user.clone();
                self.locations.forget(user.as_str());
                let is_here = self.table.count(user.as_str()) > 0;
                let was_here = self.find(user.as_str());
                self.ask(Some(Pending::Locating(lane, was_here)), user, What::Locate(is_here));
            }
            Act::Store(numbers) => self.store(lane, numbers),
            Act::Delivered(kept) => {
                let sent = self.leave_lane(lane, &kept);
                sent.into_iter().for_each(|sent| self.tell_delivered(&sent));
            }
            Act::Stored(kept) => {
                if let Some(Sent { sender, reply: Some(reply), id, .. }) = self.leave_lane(lane, &kept) {
                    self.counters.stored += 1;
                    self.answer(sender, &reply, |out| print_stored(id.borrowed(), out));
                }
            }
            Act::Failed(kept, code) => match self.leave_lane(lane, &kept) {
                Some(Sent { sender, reply: Some(reply), .. }) => self.fail(sender, &reply, code),
                _ => self.counters.casts_lost += 1,
            },
        }
    }

    pub(super) fn tell_delivered(&mut self, sent: &Sent) {
        if let Some(reply) = &sent.reply {
            self.counters.delivered += 1;
            self.answer(sent.sender, reply, |out| print_delivered(sent.id.borrowed(), out));
        }
    }

    fn give_here(&mut self, lane: LaneId, number: u64) {
        let kept = self.lanes.get(lane).and_then(|entry| entry.lane.message(number));
        let Some(Kept { ticket, body, .. }) = kept.cloned() else { return };
        let Some((from, to, id, text)) = parse_body(&body) else { return };
        let receipt = if self.find(to.as_str()) {
            print_line(&mut self.line, from, id, text);
            let handed = self.hand(Waiter::Sent(ticket), to.as_str(), true, Kind::Live);
            let Some((_, receipt)) = handed else { return };
            receipt
        } else {
            Receipt::NotHere
        };
        self.lane_answered(InLane { lane, number }, Member::Here, receipt);
    }

    pub(super) fn give_cast(&mut self, body: &[u8], to: Member) {
        match to {
            Member::Node(peer) => {
                if let Some(node) = self.peers.get(peer) {
                    self.out.says.message(node, None, false, body);
                }
            }
            Member::Here => {
                if let Some((from, to, id, text)) = parse_body(body) {
                    self.find(to.as_str());
                    print_line(&mut self.line, from, id, text);
                    self.hand_cast();
                }
            }
        }
    }

    fn store(&mut self, lane: LaneId, numbers: Vec<u64>) {
        let Some(entry) = self.lanes.get(lane) else { return };
        let body = |number: u64| Some((number, entry.lane.message(number)?.body.clone()));
        // One may have expired meanwhile.
        let (numbers, messages) = numbers.into_iter().filter_map(body).unzip();
        let user = entry.user.clone();
        self.ask(Some(Pending::Storing(lane, numbers)), user, What::Store(messages));
    }

    pub(super) fn lane_located(
        &mut self,
        (lane, was_here): (LaneId, bool),
        locations: Result<Vec<Location>, Unavailable>,
    ) {
        let Some(user) = self.lanes.get(lane).map(|entry| entry.user.clone()) else { return };
        if was_here && !self.find(user.as_str()) && locations.as_ref().is_ok_and(Vec::is_empty) {
            // Who has left here since may be elsewhere by now: the answer does not know.
            return self.carry_out(lane, Act::Ask);
        }
        self.tell_where(lane, &user, locations, Lane::located);
    }

    pub(super) fn lane_stored(
        &mut self,
        (lane, numbers): (LaneId, &[u64]),
        fates: &[Stored],
        locations: Result<Vec<Location>, Unavailable>,
    ) {
        let Some(user) = self.lanes.get(lane).map(|entry| entry.user.clone()) else { return };
        if fates.contains(&Stored::Yes) {
            // The user is somewhere all the same: whoever has a session looks into the mailbox first.
            let item = Item::Mail { user: user.borrowed() };
            for location in locations.iter().flatten() {
                self.out.says.item(&location.node, &item);
            }
            self.has_mail(user.as_str());
        }
        self.tell_where(lane, &user, locations, |lane, members, acts| {
            lane.stored(numbers, fates, members, acts)
        });
    }

    /// Tells a lane where its user is, this node included. While presence is away, what is here and what was
    /// remembered counts; else the members that the lane has then are remembered, also those it heard of meanwhile.
    fn tell_where(
        &mut self,
        lane: LaneId,
        user: &UserName,
        locations: Result<Vec<Location>, Unavailable>,
        tell: impl FnOnce(&mut Lane<Kept>, Whereabouts, &mut Acts<Kept>),
    ) {
        let is_here = self.find(user.as_str());
        let here = is_here.then_some(Member::Here);
        let Ok(locations) = locations else {
            let known = self.known_members(user.as_str(), is_here);
            let members = known.or_else(|| Some(vec![here?])).filter(|members| !members.is_empty());
            self.tell_lane(lane, |lane, acts| tell(lane, members, acts));
            return;
        };
        let peers = locations.iter().map(|location| Member::Node(self.peers.name(&location.node)));
        let members = here.into_iter().chain(peers).collect();
        self.tell_lane(lane, |lane, acts| tell(lane, Some(members), acts));
        if let Some(members) = self.lanes.get(lane).and_then(|entry| entry.lane.members()) {
            let peers: Vec<PeerId> = members.iter().filter_map(|member| member.peer()).collect();
            self.locations.set(user, &peers, self.now);
        }
    }

    /// Where a user was when that was asked last, if it is remembered.
    pub(super) fn known_members(&mut self, user: &str, is_here: bool) -> Option<Vec<Member>> {
        let known = self.locations.find(user, is_here, self.now)?;
        let here = is_here.then_some(Member::Here);
        Some(here.into_iter().chain(known.iter().map(|peer| Member::Node(*peer))).collect())
    }

    /// A user is on a further node, too.
    pub(super) fn heard_location(&mut self, user: &str, peer: PeerId) {
        self.locations.add(user, peer);
        self.add_member(user, Member::Node(peer));
    }

    /// The lane of a user, if there is one, has one more member.
    pub(super) fn add_member(&mut self, user: &str, member: Member) {
        if let Some(lane) = self.lanes.find(user) {
            self.tell_lane(lane, |lane, acts| lane.add(member, acts));
        }
    }

    /// A member of a lane tells what became of a message.
    pub(super) fn lane_answered(&mut self, place: InLane, by: Member, receipt: Receipt) {
        let InLane { lane, number } = place;
        let Some(entry) = self.lanes.get(lane) else { return };
        let ticket = entry.lane.message(number).map(|kept| kept.ticket);
        let is_lost = receipt != Receipt::Delivered && entry.lane.is_only_with(number, by);
        self.counters.rerouted += u64::from(is_lost);
        if let (Receipt::Unacked, Some(ticket)) = (receipt, ticket) {
            // Whoever has it next has as long as the one before.
            self.be_patient(ticket);
        }
        self.tell_lane(lane, |lane, acts| lane.answered(number, by, receipt, acts));
        if let (Member::Node(peer), Some(entry)) = (by, self.lanes.get(lane))
            && receipt != Receipt::Delivered
            && !entry.lane.counts_on(by)
        {
            self.locations.remove(entry.user.as_str(), peer);
        }
    }

    pub(super) fn receive_receipts(&mut self, node: &NodeId, tickets: &[u64], receipt: Receipt) {
        let peer = self.peers.name(node);
        for ticket in tickets {
            if let Some(place) = self.place_of(*ticket) {
                self.lane_answered(place, Member::Node(peer), receipt);
            }
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

    /// Messages to a node came back, or are lost with it.
    pub(super) fn take_back(&mut self, returned: &Returned) {
        let Returned { node, tickets, casts, cause } = returned;
        self.counters.casts_lost += casts;
        let peer = self.peers.name(node);
        let member = Member::Node(peer);
        let mut lanes = BTreeMap::<LaneId, Vec<u64>>::new();
        for InLane { lane, number } in tickets.iter().filter_map(|ticket| self.place_of(*ticket)) {
            lanes.entry(lane).or_default().push(number);
        }
        for (lane, numbers) in lanes {
            if let (Cause::Dead | Cause::Gone, Some(entry)) = (cause, self.lanes.get(lane)) {
                self.locations.remove(entry.user.as_str(), peer);
                let lost = numbers.iter().filter(|number| entry.lane.is_only_with(**number, member));
                self.counters.rerouted += lost.count() as u64;
            }
            self.tell_lane(lane, |lane, acts| lane.returned(&numbers, member, *cause, acts));
        }
        if *cause == Cause::Gone {
            self.peers.bury(peer);
        }
    }

    fn place_of(&mut self, ticket: u64) -> Option<InLane> {
        match self.in_flight.get_mut(Ticket::from_number(ticket))? {
            Pending::Sent(sent) => sent.place,
            _ => None,
        }
    }
}
