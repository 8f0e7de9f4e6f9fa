//! One node's mind: pure, and with one owner.
//!
//! [`Node`] owns all that one node knows: sessions, outboxes, replies that are due, messages in flight, lanes and
//! mailboxes. It has no socket, no thread, no clock, no lock, no `async`, no log, and no randomness of its own. Time,
//! lines, what other nodes say and what presence answers come in, a step a call; bytes in outboxes, what to say and what
//! to ask come out ([`Out`]). The same inputs give the same outputs, so a whole cluster of nodes runs in one test.
//!
//! One idea carries the reliability: the origin owns the message. A message that was taken from a client is in
//! flight until its one fate is known, and whatever happens to those who have it comes back here: written, not
//! here, their node is gone, or silence up to the deadline. A node that receives a message delivers it or answers;
//! it never forwards it.
//!
//! This file is the door: every step of the node is a method here, but for `line` and `written`, which stand with
//! what they begin. Reading order below it: `state` (the fields); `requests` (what a line does), `route` (where a
//! message goes), `deliver` (sessions of this node), `lane` and `carry_out` (users on other nodes), `sessions` (they
//! come and go) and `mail`.

mod carry_out;
mod connection;
mod deadlines;
mod deliver;
mod deliveries;
mod duplicates;
pub mod lane;
mod lanes;
mod mail;
mod others;
pub mod out;
mod outbox;
mod requests;
pub mod route;
pub mod seam;
mod session_table;
mod sessions;
pub mod slab;
pub mod state;
#[cfg(test)]
mod tests;
mod unacknowledged;

use std::time::Instant;

use crate::metrics::Counters;
use crate::node::connection::{Connection, Phase};
use crate::node::deadlines::{InLane, Pending, Sent, Timeout};
use crate::node::seam::{Answer, News, Returned, Said, Unavailable};
use crate::node::sessions::sessions_of;
use crate::node::slab::{ConnectionId, Ticket};
use crate::node::state::{Node, Out, Todo};
use crate::proto::name::NodeId;
use crate::proto::reply::{CloseReason, ErrorCode, print_hello, print_presence};
use crate::proto::wire::Item;

/// Deadlines of messages, and as many of connections, that are carried out in one tick: others have their turn before
/// the next one.
const DUE_MAX: usize = 512;

/// What a connection's own task has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Read, and give what was said line by line.
    Read,
    /// Read nothing: it is woken when that changes.
    Wait,
    /// It is silent: send it a ping, and say so.
    Ping,
    /// The node drains: read what was said already, give it, and then end the connection as drained.
    Drain,
    /// Write what the outbox holds, close, and say so: for the reason of its `BYE`, or without one like a `QUIT`.
    Close(CloseReason),
    /// The connection is not known any more.
    Gone,
}

/// What a node holds right now. All of it is 0 when everybody has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holdings {
    /// Connections.
    pub connections: usize,
    /// Users with a session here.
    pub users: usize,
    /// Messages and questions without an answer.
    pub in_flight: usize,
    /// Messages that sessions here have and have not taken.
    pub deliveries: usize,
    /// Users with messages on their way to other nodes.
    pub lanes: usize,
}

impl Node {
    /// A connection is open. `is_stream`: its own task writes its bytes, and it is greeted later.
    pub fn opened(&mut self, is_stream: bool, now: Instant) -> ConnectionId {
        self.now = now;
        let id = self.connections.insert(Connection { is_stream, ..Connection::default() });
        self.counters.accepted += 1;
        self.timeouts.set(Timeout::Login, id, now);
        if !is_stream {
            self.greet(id, now);
        }
        id
    }

    /// Says hello.
    pub fn greet(&mut self, id: ConnectionId, now: Instant) {
        self.now = now;
        let me = self.me.clone();
        if self.config.ping_time.is_some() && self.connections.get(id).is_some_and(|its| its.is_stream) {
            self.timeouts.set(Timeout::Ping, id, now);
        }
        self.reply(id, None, |out| print_hello(me.as_str(), out));
        self.start_draining_one(id);
    }

    /// What the task of a connection has to do now.
    pub fn turn(&mut self, id: ConnectionId) -> Turn {
        let bytes_max = self.config.outbox_bytes_max;
        let is_draining = self.is_draining;
        let Some(connection) = self.connections.get_mut(id) else { return Turn::Gone };
        connection.is_woken = false;
        match &connection.phase {
            Phase::Ended(reason) => Turn::Close(*reason),
            Phase::Draining => Turn::Drain,
            Phase::New | Phase::Entering(_) | Phase::In if connection.is_silent => Turn::Ping,
            Phase::Entering(_) | Phase::Finishing { .. } => Turn::Wait,
            Phase::New | Phase::In => {
                let waits = connection.is_waiting || connection.is_paused;
                if !waits && !is_draining && connection.is_overdue(bytes_max) {
                    connection.is_paused = true;
                }
                if waits || connection.is_paused { Turn::Wait } else { Turn::Read }
            }
        }
    }

    /// A ping is on its way to a connection.
    pub fn pinged(&mut self, id: ConnectionId) {
        self.connections.get_mut(id).into_iter().for_each(|connection| connection.is_silent = false);
    }

    /// A connection ends. `reason`: what its `BYE` says; none where the peer says no more.
    pub fn end(&mut self, id: ConnectionId, reason: Option<CloseReason>, now: Instant) {
        self.now = now;
        self.begin_end(id, reason, None);
        self.settle();
    }

    /// The bytes that a connection is to be written next: whole lines, an LF behind each, but for the rest of one
    /// that was partly written.
    pub fn outbox(&self, id: ConnectionId) -> &[u8] {
        self.connections.get(id).map_or(&[], |connection| connection.outbox.to_write())
    }

    /// A stream has so many bytes more of a connection: nobody knows whether its peer has them.
    #[cfg(any(feature = "websocket", feature = "internals"))]
    pub fn took(&mut self, id: ConnectionId, count: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.outbox.take(count);
        }
    }

    /// The socket of a connection takes no more now: its own task writes when it does.
    pub fn blocks(&mut self, id: ConnectionId, now: Instant) {
        self.now = now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_dirty = false;
        let was_blocked = connection.outbox.blocked_since().is_some();
        connection.outbox.block(&mut self.spares, now);
        if !was_blocked {
            self.timeouts.set(Timeout::Stall, id, now);
            self.wake(id);
        }
    }

    /// Tells whether the socket of a connection took nothing when it was written last.
    pub fn is_blocked(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| connection.outbox.blocked_since().is_some())
    }

    /// A connection is gone, in whatever way.
    pub fn closed(&mut self, id: ConnectionId, now: Instant) {
        self.now = now;
        self.forget(id);
        self.settle();
    }

    /// Another node says something.
    pub fn said(&mut self, node: &NodeId, said: Said<'_>, now: Instant) {
        self.now = now;
        match said {
            Said::Message(number, message) => self.receive(node, number, message),
            Said::Receipts(receipt, tickets) => self.receive_receipts(node, tickets, receipt),
            Said::Waits(tickets) => {
                tickets.iter().for_each(|ticket| self.be_patient(Ticket::from_number(*ticket)));
            }
            Said::Other(Item::Announced { user, login }) => self.announced(node, user, login),
            Said::Other(Item::Noted { login, .. }) => self.noted(node, login),
            Said::Other(Item::Further { user, node }) => {
                if let Some(node) = NodeId::parse(node).filter(|node| *node != self.me) {
                    let peer = self.peers.name(&node);
                    self.heard_location(user.as_str(), peer);
                }
            }
            Said::Other(Item::Mail { user }) => self.hear_mail(user),
            Said::Other(Item::Replaced { user, session }) => self.replaced(user.as_str(), session),
            Said::Other(Item::Message(_) | Item::Receipts { .. } | Item::Waits { .. }) => {
                unreachable!("they are said with their numbers")
            }
        }
        self.settle();
    }

    /// Presence has answered the ask with this ticket.
    pub fn answered(&mut self, ticket: Ticket, answer: Answer, now: Instant) {
        self.now = now;
        self.take_answer(ticket, answer);
        self.settle();
    }

    fn take_answer(&mut self, ticket: Ticket, answer: Answer) {
        let Some(pending) = self.in_flight.remove(ticket) else { return };
        match (pending, answer) {
            (Pending::Locating(lane, was_here), Answer::Located(locations)) => {
                self.lane_located((lane, was_here), locations);
            }
            (Pending::Who(connection, reply, user, here), Answer::Located(Ok(locations))) => {
                self.end_question(connection);
                // Who moves meanwhile, from here or to here, is there all the time.
                let here = here.max(self.table.count(user.as_str()));
                let elsewhere: usize = locations.iter().map(|location| location.sessions.len()).sum();
                let sessions = (here + elsewhere) as u32;
                self.answer(connection, &reply, |out| print_presence(user.borrowed(), sessions, out));
            }
            (Pending::Who(connection, reply, ..), Answer::Located(Err(Unavailable))) => {
                self.who_failed(connection, &reply)
            }
            (Pending::Login(id), Answer::Registered(welcome)) => self.registered(id, welcome),
            (Pending::Leaving(id), Answer::Unregistered) => self.unregistered(id),
            (Pending::Storing(lane, numbers), Answer::Stored(fates, locations)) => {
                self.lane_stored((lane, &numbers), &fates, locations);
            }
            (Pending::Reading(id), Answer::Read(mail)) => self.read_mail(id, mail),
            _ => unreachable!("an answer has the kind of its question"),
        }
    }

    /// Presence tells something that was not asked for.
    pub fn heard(&mut self, news: News, now: Instant) {
        self.now = now;
        match news {
            News::Replaced(user, session) => self.replaced(user.as_str(), session),
            News::Mail(user) => self.has_mail(user.as_str()),
            News::Elsewhere(user, nodes) => {
                for node in &nodes {
                    self.note_further(&user, node);
                    // Nobody waits for it.
                    self.out.says.item(node, &Item::Announced { user: user.borrowed(), login: 0 });
                }
            }
            News::Replaces(user, locations) => {
                for (node, session) in sessions_of(locations) {
                    self.out.says.item(&node, &Item::Replaced { user: user.borrowed(), session });
                }
            }
        }
        self.settle();
    }

    /// Messages could not be carried, or are lost with their node.
    pub fn returned(&mut self, returned: &Returned, now: Instant) {
        self.now = now;
        self.take_back(returned);
        self.settle();
    }

    /// Messages of this node were published, and never heard of.
    pub fn unheard(&mut self, count: u64) {
        self.counters.unheard += count;
    }

    /// This node has a new id: to all others it is another node.
    pub fn renamed(&mut self, me: NodeId) {
        self.me = me;
        self.peers.begin_anew();
        self.locations.forget_all();
    }

    /// This node's id.
    pub fn id(&self) -> &NodeId {
        &self.me
    }

    /// From now on requests that need the node to stay are refused, and every connection is asked to end.
    pub fn drain(&mut self, now: Instant) {
        self.now = now;
        self.is_draining = true;
        for id in self.connections.keys() {
            self.start_draining_one(id);
        }
        self.settle();
    }

    /// Tells whether it drains.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// The drain takes too long: what still waits for an answer is told that there is none.
    pub fn end_replies(&mut self, now: Instant) {
        self.now = now;
        while let Some(ticket) = self.in_flight.oldest() {
            self.expire(ticket);
            self.settle();
            self.in_flight.remove(ticket);
        }
        // What is left are the questions of lanes, and those have no message any more.
        self.in_flight.forget_all();
    }

    /// Time passes: called about once a second, and at [`Node::due`].
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
        for _ in 0..DUE_MAX {
            let Some(ticket) = self.in_flight.due(now) else { break };
            self.expire(ticket);
            self.settle();
            // Whatever it was, it has had its time.
            self.in_flight.remove(ticket);
        }
        if self.in_flight.due(now).is_some() {
            // Connections come behind: one that ends is owed these answers.
            return;
        }
        for _ in 0..DUE_MAX {
            let Some((kind, id)) = self.timeouts.due(now) else { break };
            self.time_out(kind, id);
            self.settle();
        }
        self.table.age(now);
    }

    /// What waits for an answer gets the one that there is none.
    fn expire(&mut self, ticket: Ticket) {
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
            Some(Pending::Who(connection, reply, ..)) => self.who_failed(connection, &reply),
            Some(Pending::Login(id)) => self.turn_away(id, ErrorCode::Unavailable),
            Some(Pending::Leaving(id)) => self.unregistered(id),
            Some(Pending::Reading(id)) => self.read_mail(id, Err(Unavailable)),
            Some(Pending::Locating(..) | Pending::Storing(..)) | None => {}
        }
    }

    fn time_out(&mut self, kind: Timeout, id: ConnectionId) {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.connections.get_mut(id) else { return };
        match (kind, &connection.phase) {
            (Timeout::Login, Phase::New) => self.begin_end(id, Some(CloseReason::Idle), None),
            (Timeout::Login, Phase::Entering(_)) => self.timeouts.set(kind, id, self.now),
            (Timeout::Noting, Phase::Entering(_)) => self.admit(id),
            (Timeout::Stall, _) if !connection.is_open() => {}
            (Timeout::Stall, _) if connection.stalls(self.now, bytes_max) => {
                self.begin_end(id, Some(CloseReason::Slow), None);
            }
            (Timeout::Stall, _) if connection.outbox.blocked_since().is_some() => {
                self.timeouts.set(kind, id, self.now);
            }
            (Timeout::Watch, _) => {
                connection.is_watched = false;
                self.age_messages(id);
            }
            (Timeout::MailBusy | Timeout::MailAway, _) => self.resume_mail(id),
            (Timeout::Finishing, Phase::Finishing { .. }) => self.say_last_words(id),
            (Timeout::Ping, _) if connection.is_open() => {
                connection.is_silent =
                    connection.outbox.waiting() == 0 && connection.outbox.blocked_since().is_none();
                self.wake(id);
                self.timeouts.set(kind, id, self.now);
            }
            _ => {}
        }
    }

    /// When [`Node::tick`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        // What was left over.
        let late = self.in_flight.due(self.now).map(|_| self.now);
        late.or_else(|| self.timeouts.next())
    }

    /// What the last steps have left for the driver, which takes it.
    pub fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    /// What happened so far.
    pub fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// What the node holds now.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            connections: self.connections.len(),
            users: self.table.online(),
            in_flight: self.in_flight.len(),
            deliveries: self.deliveries.len(),
            lanes: self.lanes.len(),
        }
    }

    /// Carries out all that a step has led to, in order.
    fn settle(&mut self) {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Act(lane, act) => self.carry_out(lane, act),
                Todo::Answer(ticket, answer) => self.take_answer(ticket, answer),
                Todo::Close(id, reason) => self.begin_end(id, Some(reason), None),
                Todo::Finish(id) => self.finish(id),
            }
        }
    }
}
