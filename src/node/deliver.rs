//! Messages and the sessions of this node: they are handed out, written and taken or lost, and whoever waits for that
//! is told.

use std::time::Instant;

use crate::node::connection::{Connection, RESERVE_BYTES_MIN};
use crate::node::deadlines::{Pending, Timeout};
use crate::node::deliveries::Waiter;
use crate::node::lanes::Kept;
use crate::node::outbox::Unwritten;
use crate::node::session_table::Seat;
use crate::node::slab::{ConnectionId, DeliveryId, Member, PeerId, Ticket};
use crate::node::state::{Node, Todo};
use crate::node::unacknowledged::{HeldMessage, Kind, Overdue};
use crate::proto::name::{IdRef, NodeId, UserName, UserRef};
use crate::proto::reply::{CloseReason, parse_msg, print_msg};
use crate::proto::wire::{Item, Message, Receipt, body};

impl Node {
    /// Hands the message of `line` to all of `seats`, which are sessions of the user `to`. `comes_again`: a duplicate
    /// of it may have come before, or may come later. Gives the waiter back with what it is to be told, if that is
    /// known already: the message was shown before, or no session took it.
    pub(super) fn hand(
        &mut self,
        waiter: Waiter,
        to: &str,
        comes_again: bool,
        kind: Kind,
    ) -> Option<(Waiter, Receipt)> {
        let acks = |seat: &Seat| self.connections.get(seat.connection).is_some_and(Connection::acks);
        let mut hash = None;
        if comes_again || self.seats.iter().any(acks) {
            let its = self.deliveries.hash(to, &self.line);
            if self.table.has_seen(to, its) {
                self.counters.duplicates += 1;
                return Some((waiter, Receipt::Delivered));
            }
            if let Some(delivery) = self.deliveries.find(its) {
                self.counters.duplicates += 1;
                delivery.more.push(waiter);
                if kind == Kind::Mail {
                    self.show_with_mail(its);
                }
                return None;
            }
            hash = Some(its);
        }
        let delivery = self.deliveries.insert(waiter, self.seats.len() as u32, hash);
        let mut over = None;
        for at in 0..self.seats.len() {
            let connection = self.seats[at].connection;
            if let Err(receipt) = self.push(connection, Some(delivery), hash, kind) {
                over = self.deliveries.lose(delivery, receipt);
            }
        }
        over.map(|over| (over.waiter, over.lost))
    }

    /// Hands a `CAST` to all of `seats` that have room, and counts it.
    pub(super) fn hand_cast(&mut self) {
        let mut is_taken = false;
        for at in 0..self.seats.len() {
            let connection = self.seats[at].connection;
            if self.has_room(connection) {
                is_taken |= self.push(connection, None, None, Kind::Live).is_ok();
            }
        }
        let counters = &mut self.counters;
        *(if is_taken { &mut counters.casts } else { &mut counters.casts_lost }) += 1;
    }

    /// Tells whether messages of this node's senders find room at a connection.
    pub(super) fn has_room(&self, connection: ConnectionId) -> bool {
        let connection = self.connections.get(connection);
        connection.is_some_and(|connection| connection.filled() < self.config.outbox_bytes_max)
    }

    /// Puts `line`, which shows a message, before a session.
    ///
    /// # Errors
    /// What is to be told of it when the session does not take it.
    pub(super) fn push(
        &mut self,
        to: ConnectionId,
        delivery: Option<DeliveryId>,
        hash: Option<u64>,
        kind: Kind,
    ) -> Result<(), Receipt> {
        let bytes_max = self.config.outbox_bytes_max;
        let taking = self.connections.get_mut(to).filter(|connection| connection.takes_messages());
        let Some(connection) = taking else { return Err(Receipt::NotHere) };
        let is_blocked = connection.outbox.blocked_since().is_some() || connection.acks();
        if is_blocked && connection.filled() >= bytes_max + bytes_max.max(RESERVE_BYTES_MIN) {
            // Only other nodes get here: senders of this one wait at `bytes_max`.
            self.todo.push_back(Todo::Close(to, CloseReason::Slow));
            return Err(Receipt::NotHere);
        }
        match &mut connection.unacknowledged {
            Some(messages) if messages.acks || (messages.is_held && kind == Kind::Live) => {
                if hash.is_some_and(|hash| messages.refuses(hash, kind)) {
                    return Err(Receipt::Unacked);
                }
                let line = self.line[..].into();
                messages.add(HeldMessage { line, hash, delivery, since: self.now, is_told: false }, kind);
                self.show(to);
            }
            _ => {
                connection.outbox.push_message(&mut self.spares, delivery, &self.line);
                self.note_bytes(to);
            }
        }
        Ok(())
    }

    /// A message from the mailbox of the one session in `seats` waits there as a live one, too.
    fn show_with_mail(&mut self, hash: u64) {
        for at in 0..self.seats.len() {
            let connection = self.seats[at].connection;
            let its = self.connections.get_mut(connection);
            let messages = its.and_then(|connection| connection.unacknowledged.as_mut());
            messages.into_iter().for_each(|messages| messages.show_with_mail(hash));
            self.show(connection);
        }
    }

    /// Shows what may be shown now.
    pub(super) fn show(&mut self, to: ConnectionId) {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.connections.get_mut(to) else { return };
        let Some(messages) = &mut connection.unacknowledged else { return };
        let (outbox, spares) = (&mut connection.outbox, &mut self.spares);
        let before = outbox.waiting();
        messages.show(self.now, bytes_max, |entry, waits_for_ack| {
            if waits_for_ack {
                outbox.push_line(spares, |out| out.extend_from_slice(&entry.line));
            } else {
                outbox.push_message(spares, entry.delivery, &entry.line);
            }
        });
        let has_new = outbox.waiting() > before;
        if messages.is_over() {
            connection.unacknowledged = None;
        } else if !messages.is_idle() && !std::mem::replace(&mut connection.is_watched, true) {
            self.timeouts.set(Timeout::Watch, to, self.now);
        }
        if has_new {
            self.note_bytes(to);
        }
        self.relieve(to);
    }

    /// A session has taken a delivery: whoever waits for it is told.
    pub(super) fn take_delivery(&mut self, id: DeliveryId, user: Option<&UserName>) {
        // Another session of the user may have had it first.
        let Some(delivery) = self.deliveries.remove(id) else { return };
        if let (Some(hash), Some(user)) = (delivery.hash, user) {
            self.table.see(user, hash, self.now);
        }
        for waiter in std::iter::once(delivery.waiter).chain(delivery.more) {
            self.resolve(waiter, Receipt::Delivered, None);
        }
    }

    /// A session of `user` does not take a message.
    pub(super) fn lose_delivery(&mut self, user: &UserName, message: Unwritten, how: Receipt) {
        let Some(id) = message.delivery else {
            self.counters.casts_lost += 1;
            return;
        };
        let Some(delivery) = self.deliveries.lose(id, how) else { return };
        for waiter in std::iter::once(delivery.waiter).chain(delivery.more) {
            self.resolve(waiter, delivery.lost, Some((user, &message.line)));
        }
    }

    /// Gives a session what others of its user here have and have not taken: it was routed to the user before.
    pub(super) fn give_from_others(&mut self, to: ConnectionId, user: &UserName) {
        let mut under_way: Vec<(DeliveryId, Box<[u8]>)> = vec![];
        if !self.find(user.as_str()) {
            return;
        }
        for seat in self.seats.iter().filter(|seat| seat.connection != to) {
            let Some(other) = self.connections.get(seat.connection) else { continue };
            let held = other.unacknowledged.iter().flat_map(|messages| messages.outstanding());
            for (delivery, line) in other.outbox.outstanding().chain(held) {
                if !under_way.iter().any(|(known, _)| *known == delivery) {
                    under_way.push((delivery, line.into()));
                }
            }
        }
        for (id, line) in under_way {
            let Some(delivery) = self.deliveries.get_mut(id) else { continue };
            // What comes from a mailbox is that session's business.
            if delivery.waiters().all(|waiter| matches!(waiter, Waiter::Mail { .. })) {
                continue;
            }
            delivery.parties += 1;
            let hash = delivery.hash;
            self.line.clear();
            self.line.extend_from_slice(&line);
            // All of it, or what comes later would overtake the rest: it is no more than other outboxes hold.
            if self.push(to, Some(id), hash, Kind::Live).is_err() {
                // The others have it still.
                self.deliveries.lose(id, Receipt::NotHere);
            }
        }
    }

    /// So many bytes more of a connection were written: its socket does not block. Called once for each outbox that
    /// was on the list of those to write, also with 0 if it was empty; with 0, too, when a stream has written
    /// something else.
    pub fn written(&mut self, id: ConnectionId, count: usize, now: Instant) {
        self.now = now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_dirty = false;
        let mut reached = std::mem::take(&mut self.reached);
        connection.outbox.write(count, &mut self.spares, &mut reached);
        if !reached.is_empty() {
            let user = connection.user.clone();
            for delivery in reached.drain(..) {
                self.take_delivery(delivery, user.as_ref());
            }
        }
        self.reached = reached;
        self.relieve(id);
        self.settle();
    }

    /// A delivery has this fate. `lost`: its recipient, and the line that shows it; of a message that is in no lane
    /// there is no other text.
    pub(super) fn resolve(&mut self, waiter: Waiter, receipt: Receipt, lost: Option<(&UserName, &[u8])>) {
        match waiter {
            Waiter::Sent(ticket) => self.resolve_sent(ticket, receipt, lost),
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
                self.note_mail(connection, place, receipt == Receipt::Delivered);
            }
        }
    }

    fn resolve_sent(&mut self, ticket: Ticket, receipt: Receipt, lost: Option<(&UserName, &[u8])>) {
        let Some(Pending::Sent(sent)) = self.in_flight.get_mut(ticket) else { return };
        match (sent.place, lost) {
            (Some(place), _) => self.lane_answered(place, Member::Here, receipt),
            (None, _) if receipt == Receipt::Delivered => {
                if let Some(Pending::Sent(sent)) = self.in_flight.remove(ticket) {
                    self.tell_delivered(&sent);
                }
            }
            (None, Some((user, line))) => self.route_again(ticket, receipt, user, line),
            (None, None) => {}
        }
    }

    /// Tells an origin where else a user of this node is, unless it was told: before the receipt, so that what is
    /// in flight there goes to the further nodes, too.
    pub(super) fn tell_further(&mut self, origin: PeerId, user: UserRef<'_>) {
        for further in self.locations.news_to(origin, user.as_str(), self.now) {
            // One that has died since the origin may not know to be dead.
            if let (Some(node), Some(further)) = (self.peers.get(origin), self.peers.get(further)) {
                self.out.says.item(node, &Item::Further { user, node: further.as_str() });
            }
        }
    }

    /// A message that was only with sessions of this node, and is not any more, enters its recipient's lane.
    fn route_again(&mut self, ticket: Ticket, receipt: Receipt, user: &UserName, line: &[u8]) {
        let Some((from, id, text)) = parse_msg(line) else { return };
        let body = body(from, user.borrowed(), IdRef::Tag(id), text);
        if receipt == Receipt::Unacked {
            // Whoever has it next has as long as the one before.
            self.be_patient(ticket);
        }
        self.counters.rerouted += 1;
        let lane = self.lanes.open(user, self.has_mailboxes());
        let is_doubtful = receipt != Receipt::NotHere;
        self.enter_lane(lane, Kept { ticket, body, node: None }, (false, is_doubtful), None);
    }

    /// Messages that a session has grow old.
    pub(super) fn age_messages(&mut self, id: ConnectionId) {
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
            self.begin_end(id, Some(CloseReason::Slow), None);
        }
        self.show(id);
    }

    /// A message is with a session that takes its time: whoever waits for its fate waits on.
    fn tell_waits(&mut self, delivery: DeliveryId) {
        let delivery = self.deliveries.get_mut(delivery);
        let waiters: Vec<Waiter> = delivery.iter().flat_map(|delivery| delivery.waiters()).cloned().collect();
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

    /// A message from another node: it is delivered here, or its origin is told; it is never forwarded.
    pub(super) fn receive(&mut self, origin: &NodeId, number: Option<u64>, message: Message<'_>) {
        let Message { is_first, from, to, id, text, .. } = message;
        let peer = self.peers.name(origin);
        self.tell_further(peer, to);
        let is_here = self.find(to.as_str());
        let user = self.table.find(to.as_str()).map_or_else(|| UserName::from(to), |(name, _)| name.clone());
        self.counters.not_here += u64::from(!is_here);
        if is_first {
            self.refusals.remove(peer, &user);
        }
        // What was refused must not be overtaken.
        let is_refused = self.refusals.contains(peer, &user, self.now);
        print_line(&mut self.line, from, id, text);
        let Some(number) = number else {
            if is_refused {
                self.seats.clear();
            }
            return self.hand_cast();
        };
        let waiter = Waiter::Origin { peer, number, user };
        if is_here && is_refused {
            // Before the receipt, so that the lane begins anew here: where another node takes all of it, nobody would
            // look for the user again.
            self.out.says.item(origin, &Item::Further { user: to, node: self.me.as_str() });
        }
        if !is_here || is_refused {
            return self.resolve(waiter, Receipt::NotHere, None);
        }
        if let Some((waiter, receipt)) = self.hand(waiter, to.as_str(), true, Kind::Live) {
            self.resolve(waiter, receipt, None);
        }
    }
}

/// Prints the line that shows a message.
pub fn print_line(line: &mut Vec<u8>, from: UserRef<'_>, id: IdRef<'_>, text: &str) {
    line.clear();
    print_msg(from, id, text, line);
}
