//! Carrying out what lanes want done, and telling lanes what came of it.

use crate::node::act::Act;
use crate::node::act::End;
use crate::node::act::Member;
use crate::node::act::NotDelivered;
use crate::node::deliver::Handed;
use crate::node::deliveries::Waiter;
use crate::node::in_flight::InLane;
use crate::node::in_flight::Pending;
use crate::node::lanes::Kept;
use crate::node::resolve::refusal;
use crate::node::seam::Ask;
use crate::node::seam::Location;
use crate::node::seam::Stored;
use crate::node::seam::Token;
use crate::node::seam::Unavailable;
use crate::node::slab::LaneId;
use crate::node::slab::PeerId;
use crate::node::state::Node;
use crate::node::unacknowledged::Kind;
use crate::proto::name::UserName;
use crate::proto::reply::ErrorCode;
use crate::proto::reply::print_stored;
use crate::proto::wire::Item;
use crate::proto::wire::Receipt;
use crate::proto::wire::parse_body;

impl Node {
    /// Does one thing that a lane wants done.
    pub(super) fn carry_out(&mut self, lane: LaneId, act: Act<Kept>) {
        match act {
            Act::Give { number, to: Member::Here, .. } => self.give_here(lane, number),
            Act::Give { number, to: Member::Node(peer), is_first } => {
                let Some(kept) = self.lanes.get(lane).and_then(|entry| entry.lane.message(number)) else {
                    return;
                };
                match self.peers.get(peer) {
                    Some(node) => {
                        self.out.says.message(node, Some(kept.ticket.number()), is_first, &kept.body)
                    }
                    // It died since: there is nobody who could say so.
                    None => self.lane_refused(
                        InLane { lane, number },
                        Member::Node(peer),
                        NotDelivered::NotHere { is_doubtful: false },
                    ),
                }
            }
            Act::Cast(kept, members) => {
                members.iter().for_each(|to| self.give_cast(&kept.body, *to));
                self.in_flight.remove(kept.ticket);
                self.leave_lane(lane, &kept);
            }
            Act::Ask => {
                let Some(entry) = self.lanes.get(lane) else { return };
                let user = entry.user.clone();
                self.locations.forget(user.as_str());
                let is_here = self.table.count(user.as_str()) > 0;
                let was_here = self.find(user.as_str());
                let ticket = self.in_flight.insert_for_ever(Pending::Locating { lane, was_here });
                self.ask(Ask::Locate { token: Token(ticket.number()), user, is_here });
            }
            Act::Store(numbers) => self.store(lane, numbers),
            Act::End(kept, end) => self.end_message(lane, &kept, end),
        }
    }

    fn give_here(&mut self, lane: LaneId, number: u64) {
        let Some(entry) = self.lanes.get(lane) else { return };
        let Some(kept) = entry.lane.message(number) else { return };
        let (ticket, body) = (kept.ticket, kept.body.clone());
        let Some((from, to, id, text)) = parse_body(&body) else { return };
        let place = InLane { lane, number };
        if !self.find(to.as_str()) {
            return self.lane_refused(place, Member::Here, NotDelivered::NotHere { is_doubtful: false });
        }
        self.print(from, id, text);
        match self.hand(Waiter::Sent(ticket), to.as_str(), true, Kind::Live) {
            Handed::Yes => {}
            Handed::Seen(_) => self.lane_delivered(place, Member::Here),
            Handed::Refused(_, receipt) => self.lane_refused(place, Member::Here, refusal(receipt)),
        }
    }

    /// Gives a member a `CAST`.
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
                    self.print(from, id, text);
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
        let ticket = self.in_flight.insert_for_ever(Pending::Storing { lane, numbers });
        self.ask(Ask::Store { token: Token(ticket.number()), user, messages });
    }

    /// Presence has answered where the recipient of a lane is.
    pub(super) fn lane_located(
        &mut self,
        (lane, was_here): (LaneId, bool),
        locations: Result<Vec<Location>, Unavailable>,
    ) {
        let is_new = locations.is_ok();
        let Some(user) = self.lanes.get(lane).map(|entry| entry.user.clone()) else { return };
        let members = self.members(&user, locations);
        if was_here && members.as_ref().is_some_and(Vec::is_empty) {
            // Who has left here since may be elsewhere by now: the answer does not know.
            return self.carry_out(lane, Act::Ask);
        }
        let Some(entry) = self.lanes.get(lane) else { return };
        entry.lane.located(members, &mut self.acts);
        self.take_acts(lane);
        if is_new {
            self.note_locations(lane, &user);
        }
    }

    /// The mailbox has answered.
    pub(super) fn lane_stored(
        &mut self,
        (lane, numbers): (LaneId, &[u64]),
        fates: &[Stored],
        locations: Result<Vec<Location>, Unavailable>,
    ) {
        let is_new = locations.is_ok();
        let Some(user) = self.lanes.get(lane).map(|entry| entry.user.clone()) else { return };
        if fates.contains(&Stored::Yes) {
            // The user is somewhere all the same: whoever has a session looks into the mailbox first.
            let item = Item::Mail { user: user.borrowed() };
            for location in locations.iter().flatten() {
                self.out.says.item(&location.node, &item);
            }
            self.has_mail(&user);
        }
        let members = self.members(&user, locations);
        let Some(entry) = self.lanes.get(lane) else { return };
        entry.lane.stored(numbers, fates, members, &mut self.acts);
        self.take_acts(lane);
        if is_new {
            self.note_locations(lane, &user);
        }
    }

    /// Where a user is, this node included. While presence is away, what is here and what was remembered counts.
    fn members(
        &mut self,
        user: &UserName,
        locations: Result<Vec<Location>, Unavailable>,
    ) -> Option<Vec<Member>> {
        let is_here = self.find(user.as_str());
        let here = is_here.then_some(Member::Here);
        match locations {
            Ok(locations) => {
                let peers = locations.iter().map(|location| Member::Node(self.peers.name(&location.node)));
                Some(here.into_iter().chain(peers).collect())
            }
            Err(Unavailable) => {
                let known = self.locations.find(user.as_str(), is_here, self.now).unwrap_or_default();
                let known = known.iter().map(|peer| Member::Node(*peer));
                let members: Vec<Member> = here.into_iter().chain(known).collect();
                (!members.is_empty()).then_some(members)
            }
        }
    }

    /// The members that a lane has found are remembered, with those that it has heard of meanwhile.
    fn note_locations(&mut self, lane: LaneId, user: &UserName) {
        if let Some(members) = self.lanes.get(lane).and_then(|entry| entry.lane.members()) {
            let peers: Vec<PeerId> = members.iter().filter_map(|member| member.peer()).collect();
            self.locations.set(user, &peers, self.now);
        }
    }

    /// A member of a lane delivered a message.
    pub(super) fn lane_delivered(&mut self, place: InLane, by: Member) {
        if let Some(entry) = self.lanes.get(place.lane) {
            entry.lane.delivered(place.number, by, &mut self.acts);
            self.take_acts(place.lane);
        }
    }

    /// A member of a lane does not deliver a message.
    pub(super) fn lane_refused(&mut self, place: InLane, by: Member, refusal: NotDelivered) {
        let kept = self.lanes.get(place.lane).and_then(|entry| entry.lane.message(place.number));
        let ticket = kept.map(|kept| kept.ticket);
        if let (NotDelivered::Unacked, Some(ticket)) = (refusal, ticket) {
            // Whoever has it next has as long as the one before.
            self.be_patient(ticket);
        }
        let Some(entry) = self.lanes.get(place.lane) else { return };
        self.counters.rerouted += u64::from(entry.lane.is_only_with(place.number, by));
        entry.lane.refused(place.number, by, refusal, &mut self.acts);
        if let Some(peer) = by.peer().filter(|_| !entry.lane.counts_on(by)) {
            self.locations.remove(entry.user.as_str(), peer);
        }
        self.take_acts(place.lane);
    }

    /// A message has its fate, and is out of its lane.
    fn end_message(&mut self, lane: LaneId, kept: &Kept, end: End) {
        self.leave_lane(lane, kept);
        let sent = match self.in_flight.remove(kept.ticket) {
            Some(Pending::Sent(sent)) => sent,
            Some(Pending::Cast(_)) => {
                self.counters.casts_lost += 1;
                return;
            }
            _ => return,
        };
        let code = match end {
            End::Delivered => return self.tell_delivered(&sent),
            End::Stored => {
                self.counters.stored += 1;
                let (id, reply) = (sent.id.borrowed(), &sent.reply);
                return self.answer(sent.sender, reply, |out| print_stored(id, out));
            }
            End::Offline => ErrorCode::Offline,
            End::MailboxFull => ErrorCode::MailboxFull,
            End::Unavailable => ErrorCode::Unavailable,
            End::Timeout | End::Lost => ErrorCode::Timeout,
        };
        self.fail(sent.sender, &sent.reply, code);
    }

    fn leave_lane(&mut self, lane: LaneId, kept: &Kept) {
        self.charge(kept, false);
        let woken = self.lanes.release(lane, kept);
        self.go_on(woken);
    }

    /// Forgets a lane that is empty.
    pub(super) fn end_lane(&mut self, lane: LaneId) {
        self.lanes.end(lane);
    }

    /// A lane's message from a lost delivery of another node: tells the lane.
    pub(super) fn lane_receipt(&mut self, place: InLane, by: Member, receipt: Receipt) {
        match receipt {
            Receipt::Delivered => self.lane_delivered(place, by),
            _ => self.lane_refused(place, by, refusal(receipt)),
        }
    }
}
