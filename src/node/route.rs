//! Deciding where a message goes.
//!
//! A user who is only here, on a node alone, is handed the message at once, and no text is kept beside the
//! outboxes. Everybody else has a lane, also with sessions here: nothing passes a lane by.

use crate::node::act::Member;
use crate::node::deliver::Handed;
use crate::node::deliveries::Waiter;
use crate::node::in_flight::InLane;
use crate::node::in_flight::Pending;
use crate::node::in_flight::Sent;
use crate::node::lanes::Kept;
use crate::node::seam::Ask;
use crate::node::seam::Token;
use crate::node::slab::ConnectionId;
use crate::node::slab::LaneId;
use crate::node::slab::PeerId;
use crate::node::state::Node;
use crate::node::unacknowledged::Kind;
use crate::proto::name::IdRef;
use crate::proto::name::Tag;
use crate::proto::name::UserName;
use crate::proto::name::UserRef;
use crate::proto::reply::ErrorCode;
use crate::proto::reply::print_msg;
use crate::proto::wire::Receipt;
use crate::proto::wire::body;
use crate::proto::wire::put_body;

/// Whether a line was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It was: on with the next.
    Next,
    /// It was not: it has to be given once more, before any other, when its connection is woken.
    Wait,
}

impl Node {
    /// Routes a `SEND`.
    pub(super) fn send(
        &mut self,
        sender: ConnectionId,
        tag: Option<Tag<'_>>,
        to: UserRef<'_>,
        text: &str,
    ) -> Flow {
        let is_here = self.find(to.as_str());
        if let Some(full) = self.full_seat() {
            return self.limit(sender, tag, |node| {
                let waiting = node.connections.get_mut(full).map(|connection| &mut connection.waiting);
                waiting.into_iter().for_each(|waiting| waiting.push(sender));
            });
        }
        if is_here && self.own.is_some() && self.lanes.find(to.as_str()).is_none() {
            self.send_here(sender, tag, to, text);
            return Flow::Next;
        }
        let lane = self.lanes.find(to.as_str());
        let node = self.known_node(to, is_here, lane);
        if !self.has_lane_room(lane, sender, text, node) {
            return self.limit(sender, tag, |node| node.lanes.wait(lane, sender));
        }
        let id = self.next_id(sender, tag);
        let reply = self.expect(sender, tag.map(Tag::as_str));
        let sent = Sent { sender, reply, id: id.into(), place: None };
        let ticket = self.in_flight.insert(Pending::Sent(sent), self.now);
        let body = body(self.name_of(sender), to, id, text);
        let kept = Kept { ticket, body, sender, node };
        self.enter_lane(to, kept, false, is_here);
        Flow::Next
    }

    /// Routes a `CAST`: at most once, without a word.
    pub(super) fn cast(&mut self, sender: ConnectionId, to: UserRef<'_>, text: &str) -> Flow {
        let is_here = self.find(to.as_str());
        // Where nobody waits it is lost.
        if let Some(full) = self.full_seat()
            && self.connections.get(sender).is_some_and(|connection| !connection.acks() && !self.is_draining)
        {
            return self.limit(sender, None, |node| {
                let waiting = node.connections.get_mut(full).map(|connection| &mut connection.waiting);
                waiting.into_iter().for_each(|waiting| waiting.push(sender));
            });
        }
        let id = self.next_id(sender, None);
        if self.own.is_some() {
            self.print_from(sender, id, text);
            self.hand_cast();
            return Flow::Next;
        }
        let lane = self.lanes.find(to.as_str());
        if lane.is_none() && !is_here && self.cast_known(sender, to, id, text) {
            return Flow::Next;
        }
        let body = body(self.name_of(sender), to, id, text);
        if let Some(members) = self.cast_members(to, is_here, lane) {
            members.iter().for_each(|to| self.give_cast(&body, *to));
            return Flow::Next;
        }
        if !self.has_lane_room(lane, sender, text, None) {
            self.counters.casts_lost += 1;
            return Flow::Next;
        }
        let place = InLane { lane: LaneId::from_number(0), number: 0 };
        let ticket = self.in_flight.insert(Pending::Cast(place), self.now);
        self.enter_lane(to, Kept { ticket, body, sender, node: None }, true, is_here);
        Flow::Next
    }

    /// Says a `CAST` to the nodes where its recipient is, if that is remembered: the usual way, on which nothing is kept.
    fn cast_known(&mut self, sender: ConnectionId, to: UserRef<'_>, id: IdRef<'_>, text: &str) -> bool {
        let Some(known) = self.locations.find(to.as_str(), false, self.now) else { return false };
        let from = self.connections.get(sender).and_then(|connection| connection.user.as_ref());
        let from = from.expect("nobody sends before LOGIN").borrowed();
        for node in known.iter().filter_map(|peer| self.peers.get(*peer)) {
            self.out.says.cast(node, |out| put_body(from, to, id, text, out));
        }
        true
    }

    /// Where a `CAST` goes at once; `None` where it has to wait.
    fn cast_members(&mut self, to: UserRef<'_>, is_here: bool, lane: Option<LaneId>) -> Option<Vec<Member>> {
        match lane {
            Some(lane) => self.lanes.get(lane)?.lane.members().map(<[Member]>::to_vec),
            None => self.known_members(to, is_here),
        }
    }

    /// Where a user was when that was asked last, if it is remembered.
    fn known_members(&mut self, to: UserRef<'_>, is_here: bool) -> Option<Vec<Member>> {
        let known = self.locations.find(to.as_str(), is_here, self.now)?;
        let here = is_here.then_some(Member::Here);
        Some(here.into_iter().chain(known.iter().map(|peer| Member::Node(*peer))).collect())
    }

    /// A message enters the lane of its recipient.
    fn enter_lane(&mut self, to: UserRef<'_>, kept: Kept, is_cast: bool, is_here: bool) {
        let (lane, known) = match self.lanes.find(to.as_str()) {
            Some(lane) => (lane, None),
            None => {
                let name = self.table.find(to.as_str()).map(|(name, _)| name.clone());
                let user = name.unwrap_or_else(|| UserName::from(to));
                (self.lanes.open(&user, self.has_mailboxes()), self.known_members(to, is_here))
            }
        };
        self.lanes.claim(lane, &kept);
        self.charge(&kept, true);
        let ticket = kept.ticket;
        let Some(entry) = self.lanes.get(lane) else { return };
        let number = entry.lane.send(kept, is_cast, known.as_deref(), &mut self.acts);
        let its = InLane { lane, number };
        match self.in_flight.get_mut(ticket) {
            Some(Pending::Sent(sent)) => sent.place = Some(its),
            Some(Pending::Cast(place)) => *place = its,
            _ => {}
        }
        self.take_acts(lane);
    }

    /// The whole way of a message whose recipient is only here: no text is kept beside the outboxes.
    fn send_here(&mut self, sender: ConnectionId, tag: Option<Tag<'_>>, to: UserRef<'_>, text: &str) {
        let id = self.next_id(sender, tag);
        let reply = self.expect(sender, tag.map(Tag::as_str));
        let sent = Sent { sender, reply, id: id.into(), place: None };
        let ticket = self.in_flight.insert(Pending::Sent(sent), self.now);
        self.print_from(sender, id, text);
        match self.hand(Waiter::Sent(ticket), to.as_str(), tag.is_some(), Kind::Live) {
            Handed::Yes => {}
            Handed::Seen(waiter) => self.resolve(waiter, Receipt::Delivered),
            Handed::Refused(waiter, receipt) => {
                let line = std::mem::take(&mut self.line);
                self.resolve_lost(waiter, receipt, &to.into(), &line);
                self.line = line;
            }
        }
    }

    /// Answers a `WHO`: what is remembered may be wrong, and here nobody would notice, so presence is asked.
    pub(super) fn who(&mut self, asker: ConnectionId, tag: Option<Tag<'_>>, user: UserRef<'_>) {
        let reply = self.expect(asker, tag.map(Tag::as_str));
        let here = self.table.count(user.as_str());
        let (user, is_here) = (UserName::from(user), here > 0);
        let pending = Pending::Who { connection: asker, reply, user: user.clone(), here };
        let ticket = self.in_flight.insert(pending, self.now);
        self.ask(Ask::Locate { token: Token(ticket.number()), user, is_here });
    }

    /// A request finds no room: who acknowledges is told so; anybody else waits where `wait` puts it.
    fn limit(&mut self, sender: ConnectionId, tag: Option<Tag<'_>>, wait: impl FnOnce(&mut Self)) -> Flow {
        let Some(connection) = self.connections.get_mut(sender) else { return Flow::Next };
        if connection.acks() || self.is_draining {
            self.refuse(sender, tag.map(Tag::as_str), ErrorCode::Limited);
            return Flow::Next;
        }
        connection.is_waiting = true;
        wait(self);
        Flow::Wait
    }

    /// One of `seats` that takes no more now.
    fn full_seat(&self) -> Option<ConnectionId> {
        let is_full = |connection: &ConnectionId| !self.has_room(*connection);
        self.seats.iter().map(|seat| seat.connection).find(is_full)
    }

    fn has_lane_room(
        &self,
        lane: Option<LaneId>,
        sender: ConnectionId,
        text: &str,
        node: Option<PeerId>,
    ) -> bool {
        let sender_bytes = self.connections.get(sender).map_or(0, |connection| connection.lane_bytes);
        self.lanes.has_room(lane, text.len(), sender_bytes, node)
    }

    /// The node whose share a message counts on: the first that has the recipient.
    fn known_node(&mut self, to: UserRef<'_>, is_here: bool, lane: Option<LaneId>) -> Option<PeerId> {
        match lane.and_then(|lane| self.lanes.get(lane)) {
            Some(entry) => entry.lane.members()?.iter().find_map(|member| member.peer()),
            None => {
                self.locations.find(to.as_str(), is_here, self.now).and_then(|known| known.first().copied())
            }
        }
    }

    /// The id of the next message of a session: its tag, or one that this node makes.
    fn next_id<'a>(&mut self, sender: ConnectionId, tag: Option<Tag<'a>>) -> IdRef<'a> {
        let connection = self.connections.get_mut(sender).expect("who sends is here");
        match (tag, connection.session) {
            (Some(tag), _) => IdRef::Tag(tag),
            (None, Some(session)) => {
                connection.count += 1;
                IdRef::Counted(session, connection.count)
            }
            (None, None) => unreachable!("nobody sends before LOGIN"),
        }
    }

    fn name_of(&self, sender: ConnectionId) -> UserRef<'_> {
        let user = self.connections.get(sender).and_then(|connection| connection.user.as_ref());
        user.expect("nobody sends before LOGIN").borrowed()
    }

    /// Prints the line that shows a message of a session.
    fn print_from(&mut self, sender: ConnectionId, id: IdRef<'_>, text: &str) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        print_msg(self.name_of(sender), id, text, &mut line);
        self.line = line;
    }
}
