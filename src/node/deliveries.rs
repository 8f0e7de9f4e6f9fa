//! Deliveries: messages that sessions of this node have and have not taken, and who waits for that.
//!
//! Every message that is handed to sessions here is one delivery, wherever it comes from: each of its sessions
//! is a *party*. The first that takes it settles it; when the last party is lost, so is the delivery. A
//! duplicate of a message that is still here shares its fate: it is one more who waits.

use std::collections::HashMap;

use crate::node::duplicates::{HashKey, HashedAlready};
use crate::node::slab::{ConnectionId, DeliveryId, PeerId, Slab, Ticket};
use crate::proto::name::UserName;
use crate::proto::wire::Receipt;

/// Who waits for the fate of a delivery.
#[derive(Clone, Debug)]
pub enum Waiter {
    /// A message that was sent here.
    Sent(Ticket),
    /// Another node.
    Origin {
        peer: PeerId,
        /// Its number for the message.
        number: u64,
        user: UserName,
    },
    /// A session that drains its mailbox.
    Mail {
        connection: ConnectionId,
        /// The message's place in the mailbox.
        place: u64,
    },
}

/// A message that sessions here have.
pub struct Delivery {
    /// Sessions that have it and have not taken it.
    pub parties: u32,
    /// What those who lost it have told: how far it came.
    pub lost: Receipt,
    /// What it is remembered by once it was shown.
    pub hash: Option<u64>,
    pub waiter: Waiter,
    /// Who else does.
    pub more: Vec<Waiter>,
}

pub struct Deliveries {
    slots: Slab<'d', Delivery>,
    /// Those that a duplicate may come of.
    by_hash: HashMap<u64, DeliveryId, HashedAlready>,
    key: HashKey,
}

impl Delivery {
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        std::iter::once(&self.waiter).chain(&self.more)
    }
}

impl Deliveries {
    /// None yet; `key` is what hashes depend on.
    pub fn new(key: HashKey) -> Self {
        Deliveries { slots: Slab::default(), by_hash: HashMap::default(), key }
    }

    pub fn hash(&self, user: &str, line: &[u8]) -> u64 {
        self.key.hash(user, line)
    }

    /// One more, which `parties` sessions are about to have.
    pub fn insert(&mut self, waiter: Waiter, parties: u32, hash: Option<u64>) -> DeliveryId {
        let delivery = Delivery { parties, lost: Receipt::NotHere, hash, waiter, more: vec![] };
        let id = self.slots.insert(delivery);
        if let Some(hash) = hash {
            self.by_hash.insert(hash, id);
        }
        id
    }

    /// The delivery of a message that is here already.
    pub fn find(&mut self, hash: u64) -> Option<&mut Delivery> {
        let id = *self.by_hash.get(&hash)?;
        self.slots.get_mut(id)
    }

    pub fn get_mut(&mut self, id: DeliveryId) -> Option<&mut Delivery> {
        self.slots.get_mut(id)
    }

    /// A party was lost: gives the delivery if it was the last.
    pub fn lose(&mut self, id: DeliveryId, how: Receipt) -> Option<Delivery> {
        let delivery = self.slots.get_mut(id)?;
        delivery.parties = delivery.parties.saturating_sub(1);
        delivery.lost = delivery.lost.max(how);
        if delivery.parties > 0 { None } else { self.remove(id) }
    }

    /// It is over.
    pub fn remove(&mut self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.slots.remove(id)?;
        if let Some(hash) = delivery.hash
            && self.by_hash.get(&hash) == Some(&id)
        {
            self.by_hash.remove(&hash);
        }
        Some(delivery)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }
}
