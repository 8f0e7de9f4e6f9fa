//! Deciding where a message goes.
//!
//! A user who is only here, on a node alone, is handed the message at once, and no text is kept beside the
//! outboxes. Everybody else has a lane, also with sessions here: nothing passes a lane by.

use crate::node::connection::Connection;
use crate::node::deadlines::{Pending, Sent};
use crate::node::deliver::print_line;
use crate::node::deliveries::Waiter;
use crate::node::lanes::{Kept, Lack, share};
use crate::node::outbox::ReplyTo;
use crate::node::seam::What;
use crate::node::slab::{ConnectionId, LaneId, PeerId};
use crate::node::state::Node;
use crate::node::unacknowledged::Kind;
use crate::proto::name::{IdRef, Tag, UserName, UserRef};
use crate::proto::reply::ErrorCode;
use crate::proto::wire::{body, put_body};

/// Questions of `WHO` that a node has open. One connection may have an eighth of what is free, and one in any case:
/// alone, as many as replies may be due to it.
pub const QUESTIONS_MAX: usize = 9 * 1_024;

/// Whether a line was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It was: on with the next.
    Next,
    /// It was not: it has to be given once more, before any other, when its connection is woken.
    Wait,
}

impl Node {
    pub(super) fn send(
        &mut self,
        sender: ConnectionId,
        tag: Option<Tag<'_>>,
        to: UserRef<'_>,
        text: &str,
    ) -> Flow {
        let is_here = self.find(to.as_str());
        if let Some(full) = self.full_seat() {
            return self.limit(sender, tag, full);
        }
        let lane = self.lanes.find(to.as_str());
        let is_only_here = is_here && self.own.is_some() && lane.is_none();
        let node = if is_only_here { None } else { self.known_node(to, is_here, lane) };
        if !is_only_here && let Some(lack) = self.lane_lack(lane, sender, text, node) {
            return self.limit(sender, tag, lack);
        }
        let id = self.next_id(sender, tag).into();
        let reply = Some(self.expect(sender, tag.map(Tag::as_str)));
        let sent = Sent { sender, reply, id, place: None };
        if !is_only_here {
            self.send_on(sent, to, text, lane, node);
            return Flow::Next;
        }
        print_line(&mut self.line, name_of(self.connections.get(sender)), sent.id.borrowed(), text);
        let waiter = Waiter::Sent(self.in_flight.insert(Pending::Sent(sent), self.now));
        if let Some((waiter, receipt)) = self.hand(waiter, to.as_str(), tag.is_some(), Kind::Live) {
            let line = std::mem::take(&mut self.line);
            self.resolve(waiter, receipt, Some((&to.into(), &line)));
            self.line = line;
        }
        Flow::Next
    }

    /// A message enters the lane of its recipient, whose sessions here are `seats`.
    fn send_on(
        &mut self,
        sent: Sent,
        to: UserRef<'_>,
        text: &str,
        lane: Option<LaneId>,
        node: Option<PeerId>,
    ) {
        let body = body(name_of(self.connections.get(sent.sender)), to, sent.id.borrowed(), text);
        let is_cast = sent.reply.is_none();
        let ticket = self.in_flight.insert(Pending::Sent(sent), self.now);
        let kept = Kept { ticket, body, node };
        if let Some(lane) = lane {
            return self.enter_lane(lane, kept, (is_cast, false), None);
        }
        let name = self.table.find(to.as_str()).map(|(name, _)| name.clone());
        let lane = self.lanes.open(&name.unwrap_or_else(|| UserName::from(to)), self.has_mailboxes());
        let known = self.known_members(to.as_str(), !self.seats.is_empty());
        self.enter_lane(lane, kept, (is_cast, false), known);
    }

    /// Routes a `CAST`: at most once, without a word.
    pub(super) fn cast(&mut self, sender: ConnectionId, to: UserRef<'_>, text: &str) -> Flow {
        let is_here = self.find(to.as_str());
        let waits = !self.is_draining && self.connections.get(sender).is_some_and(|sender| !sender.acks());
        // Where nobody waits it is lost.
        if let Some(full) = self.full_seat().filter(|_| waits) {
            return self.limit(sender, None, full);
        }
        let id = self.next_id(sender, None);
        let from = name_of(self.connections.get(sender));
        if self.own.is_some() {
            print_line(&mut self.line, from, id, text);
            self.hand_cast();
            return Flow::Next;
        }
        let lane = self.lanes.find(to.as_str());
        if lane.is_none()
            && !is_here
            && let Some(known) = self.locations.find(to.as_str(), false, self.now)
        {
            // The usual way, on which nothing is kept.
            for node in known.iter().filter_map(|peer| self.peers.get(*peer)) {
                self.out.says.cast(node, |out| put_body(from, to, id, text, out));
            }
            return Flow::Next;
        }
        let body = body(from, to, id, text);
        let members = match lane {
            Some(lane) => self.lanes.get(lane).and_then(|entry| Some(entry.lane.members()?.to_vec())),
            None => self.known_members(to.as_str(), is_here),
        };
        if let Some(members) = members {
            members.iter().for_each(|to| self.give_cast(&body, *to));
        } else if self.lane_lack(lane, sender, text, None).is_none() {
            let sent = Sent { sender, reply: None, id: id.into(), place: None };
            self.send_on(sent, to, text, lane, None);
        } else {
            self.counters.casts_lost += 1;
        }
        Flow::Next
    }

    /// Answers a `WHO`: what is remembered may be wrong, and here nobody would notice, so presence is asked.
    pub(super) fn who(&mut self, asker: ConnectionId, tag: Option<Tag<'_>>, user: UserRef<'_>) -> Flow {
        let asked = self.connections.get(asker).map_or(0, |asker| asker.questions as usize);
        if asked > 0 && asked >= share(QUESTIONS_MAX, self.questions) {
            return self.limit(asker, tag, Lack::Own);
        }
        self.questions += 1;
        self.connections.get_mut(asker).into_iter().for_each(|asker| asker.questions += 1);
        let reply = self.expect(asker, tag.map(Tag::as_str));
        let here = self.table.count(user.as_str());
        let (user, is_here) = (UserName::from(user), here > 0);
        let pending = Pending::Who(asker, reply, user.clone(), here);
        self.ask(Some(pending), user, What::Locate(is_here));
        Flow::Next
    }

    /// A `WHO` has its answer.
    pub(super) fn end_question(&mut self, asker: ConnectionId) {
        self.questions -= 1;
        self.connections.get_mut(asker).into_iter().for_each(|asker| asker.questions -= 1);
        self.relieve_own(asker);
    }

    /// Presence can't tell now.
    pub(super) fn who_failed(&mut self, asker: ConnectionId, reply: &ReplyTo) {
        self.end_question(asker);
        let text = "other nodes can't be reached now; whether the user is online is not known";
        self.fail_saying(asker, reply, ErrorCode::Unavailable, text);
    }

    /// A request finds no room: who acknowledges is told so; anybody else waits.
    fn limit(&mut self, sender: ConnectionId, tag: Option<Tag<'_>>, lack: Lack) -> Flow {
        let Some(connection) = self.connections.get_mut(sender) else { return Flow::Next };
        if connection.acks() || self.is_draining {
            let text = match lack {
                Lack::Own => "too much of yours is under way; nothing was done, try again in a moment",
                _ => "the user takes no more now; nothing was sent, try again in a moment",
            };
            self.refuse(sender, tag.map(Tag::as_str), ErrorCode::Limited, text);
            return Flow::Next;
        }
        connection.is_waiting = true;
        match lack {
            Lack::Outbox(full) => {
                self.connections.get_mut(full).into_iter().for_each(|full| full.waiting.push(sender));
            }
            Lack::Lane(lane) => self.lanes.wait(lane, sender),
            Lack::Own => connection.waits_for_own = true,
        }
        Flow::Wait
    }

    /// One of `seats` that takes no more now.
    fn full_seat(&self) -> Option<Lack> {
        let mut seats = self.seats.iter().map(|seat| seat.connection);
        seats.find(|connection| !self.has_room(*connection)).map(Lack::Outbox)
    }

    fn lane_lack(
        &self,
        lane: Option<LaneId>,
        sender: ConnectionId,
        text: &str,
        node: Option<PeerId>,
    ) -> Option<Lack> {
        let sender_bytes = self.connections.get(sender).map_or(0, |connection| connection.lane_bytes);
        self.lanes.lack(lane, text.len(), sender_bytes, node)
    }

    /// The node whose share a message counts on: the first that has the recipient.
    fn known_node(&mut self, to: UserRef<'_>, is_here: bool, lane: Option<LaneId>) -> Option<PeerId> {
        match lane.and_then(|lane| self.lanes.get(lane)) {
            Some(entry) => entry.lane.members()?.iter().find_map(|member| member.peer()),
            None => self.locations.find(to.as_str(), is_here, self.now)?.first().copied(),
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
}

fn name_of(sender: Option<&Connection>) -> UserRef<'_> {
    let user = sender.and_then(|connection| connection.user.as_ref());
    user.expect("nobody sends before LOGIN").borrowed()
}
