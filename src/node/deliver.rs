//! Handing messages to the sessions of this node, and what becomes of them there.

use crate::node::connection::RESERVE_BYTES_MIN;
use crate::node::deliveries::Waiter;
use crate::node::outbox::Unwritten;
use crate::node::session_table::Seat;
use crate::node::slab::ConnectionId;
use crate::node::slab::DeliveryId;
use crate::node::state::Node;
use crate::node::state::Todo;
use crate::node::timeouts::Timeout;
use crate::node::unacknowledged::Entry;
use crate::node::unacknowledged::Kind;
use crate::node::unacknowledged::Shown;
use crate::proto::name::IdRef;
use crate::proto::name::UserName;
use crate::proto::name::UserRef;
use crate::proto::reply::CloseReason;
use crate::proto::reply::print_msg;
use crate::proto::wire::Receipt;

/// What a message that was handed to sessions came to at once.
#[derive(Debug)]
pub enum Handed {
    /// Sessions have it, or had it: its waiter will be told, or was one more of those of a duplicate.
    Yes,
    /// It was shown before.
    Seen(Waiter),
    /// No session took it.
    Refused(Waiter, Receipt),
}

impl Node {
    /// Prints the line that shows a message, for what hands it out next.
    pub(super) fn print(&mut self, from: UserRef<'_>, id: IdRef<'_>, text: &str) {
        self.line.clear();
        print_msg(from, id, text, &mut self.line);
    }

    /// Hands the message of `line` to all of `seats`, which are sessions of the user `to`. `comes_again`: a duplicate
    /// of it may have come before, or may come later.
    pub(super) fn hand(&mut self, waiter: Waiter, to: &str, comes_again: bool, kind: Kind) -> Handed {
        let acks =
            |seat: &Seat| self.connections.get(seat.connection).is_some_and(|connection| connection.acks());
        let mut hash = None;
        if comes_again || self.seats.iter().any(acks) {
            let its = self.deliveries.hash(to, &self.line);
            if self.table.has_seen(to, its) {
                self.counters.duplicates += 1;
                return Handed::Seen(waiter);
            }
            if let Some(delivery) = self.deliveries.find(its) {
                self.counters.duplicates += 1;
                delivery.more.push(waiter);
                return Handed::Yes;
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
        over.map_or(Handed::Yes, |over| Handed::Refused(over.waiter, over.lost))
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
                if hash.is_some_and(|hash| messages.has_refused(hash, kind)) {
                    return Err(Receipt::Unacked);
                }
                let line = self.line[..].into();
                messages.add(Entry { line, hash, delivery, since: self.now, is_told: false }, kind);
                self.show(to);
            }
            _ => {
                connection.outbox.push_message(&mut self.spares, delivery, &self.line);
                self.note_bytes(to);
            }
        }
        Ok(())
    }

    /// Shows what may be shown now.
    pub(super) fn show(&mut self, to: ConnectionId) {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.connections.get_mut(to) else { return };
        let Some(messages) = &mut connection.unacknowledged else { return };
        let (outbox, spares) = (&mut connection.outbox, &mut self.spares);
        let before = outbox.waiting();
        messages.show(self.now, bytes_max, |line, settled| match settled {
            Shown::Written(delivery) => outbox.push_message(spares, delivery, line),
            Shown::Acknowledged => outbox.push_line(spares, |out| out.extend_from_slice(line)),
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
        self.resolve(delivery.waiter, Receipt::Delivered);
        for waiter in delivery.more {
            self.resolve(waiter, Receipt::Delivered);
        }
    }

    /// A session of `user` gives a message back that it did not take.
    pub(super) fn give_back(&mut self, user: &UserName, message: Unwritten) {
        let how = if message.in_doubt { Receipt::Left } else { Receipt::NotHere };
        self.lose_delivery(user, message, how);
    }

    /// A session of `user` does not take a message.
    pub(super) fn lose_delivery(&mut self, user: &UserName, message: Unwritten, how: Receipt) {
        let Some(id) = message.delivery else {
            self.counters.casts_lost += 1;
            return;
        };
        let Some(delivery) = self.deliveries.lose(id, how) else { return };
        let all = std::iter::once(delivery.waiter).chain(delivery.more);
        for waiter in all {
            self.resolve_lost(waiter, delivery.lost, user, &message.line);
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
        for (delivery, line) in under_way {
            self.give_one(to, delivery, line);
        }
    }

    fn give_one(&mut self, to: ConnectionId, delivery: DeliveryId, line: Box<[u8]>) {
        // What comes from a mailbox is that session's business.
        let is_mail = self.deliveries.waiters(delivery).all(|waiter| matches!(waiter, Waiter::Mail { .. }));
        // All of it, or what comes later would overtake the rest: it is no more than other outboxes hold.
        if is_mail || !self.deliveries.add_party(delivery) {
            return;
        }
        let hash = self.deliveries.hash_of(delivery);
        self.line.clear();
        self.line.extend_from_slice(&line);
        if self.push(to, Some(delivery), hash, Kind::Live).is_err() {
            // The others have it still.
            self.deliveries.lose(delivery, Receipt::NotHere);
        }
    }
}
