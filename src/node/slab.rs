//! A slab: values by keys that are never used twice.
//!
//! A key is an index and a generation, so that a late answer finds nothing instead of somebody else.
//! Adding and removing cost the same whatever is in here, and no search.

use std::fmt;
use std::marker::PhantomData;

/// Values by keys.
pub struct Slab<K, T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
    /// The generation of new slots: above that of every slot that was given back. From 1: no key has the number 0.
    first_generation: u32,
    keys: PhantomData<fn() -> K>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Names a value of a slab, for ever. `K` tells which slab.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<K> {
    bits: u64,
    of: PhantomData<K>,
}

/// Names the connections of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connections {}

/// A connection of this node.
pub type ConnectionId = Key<Connections>;

/// Names what waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tickets {}

/// Something that waits for an answer: most of all a message without a fate.
pub type Ticket = Key<Tickets>;

/// Names what sessions of this node are about to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deliveries {}

/// A message that sessions of this node have and have not taken.
pub type DeliveryId = Key<Deliveries>;

/// Names the lanes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKeys {}

/// A lane.
pub type LaneId = Key<LaneKeys>;

/// Names the nodes that a node has heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKeys {}

/// Another node.
pub type PeerId = Key<PeerKeys>;

/// Slots that an empty slab keeps.
const SLOTS_KEPT_MAX: usize = 4_096;

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Slab { slots: vec![], free: vec![], len: 0, first_generation: 1, keys: PhantomData }
    }
}

impl<K: Copy, T> Slab<K, T> {
    /// Adds a value.
    pub fn insert(&mut self, value: T) -> Key<K> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: self.first_generation, value: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        self.len += 1;
        Key::of(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// The value of a key, if it is still here.
    pub fn get(&self, key: Key<K>) -> Option<&T> {
        let slot = self.slots.get(key.index())?;
        if slot.generation == key.generation() { slot.value.as_ref() } else { None }
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: Key<K>) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.generation == key.generation() { slot.value.as_mut() } else { None }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: Key<K>) -> Option<T> {
        let slot = self.slots.get_mut(key.index()).filter(|slot| slot.generation == key.generation())?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index() as u32);
        self.len -= 1;
        if self.is_empty() && self.slots.len() > SLOTS_KEPT_MAX {
            self.give_memory_back();
        }
        Some(value)
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The keys of all values: for what is done once in a node's life.
    pub fn keys(&self) -> Vec<Key<K>> {
        let key = |(index, slot): (usize, &Slot<T>)| {
            slot.value.as_ref().map(|_| Key::of(u64::from(slot.generation) << 32 | index as u64))
        };
        self.slots.iter().enumerate().filter_map(key).collect()
    }

    /// Gives the memory of a flood back. Keys of it may still come, so the generations go on above all
    /// that were given out.
    fn give_memory_back(&mut self) {
        let generations = self.slots.iter().map(|slot| slot.generation);
        self.first_generation = generations.max().unwrap_or(self.first_generation);
        self.slots = vec![];
        self.free = vec![];
    }
}

impl<K: Copy> Key<K> {
    fn of(bits: u64) -> Self {
        Key { bits, of: PhantomData }
    }

    /// The key of [`Key::number`].
    pub fn from_number(number: u64) -> Self {
        Key::of(number)
    }

    /// The key as a number.
    pub fn number(self) -> u64 {
        self.bits
    }

    /// A small number that no other value has while this one is here.
    pub fn index(self) -> usize {
        self.bits as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.bits >> 32) as u32
    }
}

impl<K: Copy> fmt::Debug for Key<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_own_value_or_nothing() {
        let mut slab = Slab::<Tickets, _>::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!((second.index(), slab.remove(first)), (first.index(), None));
        assert_eq!((slab.get(second), slab.len()), (Some(&"second"), 1));
        assert_eq!(slab.keys(), [second]);
    }

    #[test]
    fn keys_of_a_flood_find_nothing_after_its_memory_went_back() {
        let mut slab = Slab::<Tickets, _>::default();
        let keys: Vec<_> = (0..2 * SLOTS_KEPT_MAX).map(|n| slab.insert(n)).collect();
        keys.iter().for_each(|key| assert!(slab.remove(*key).is_some()));
        assert_eq!((slab.len(), slab.slots.capacity()), (0, 0));
        let later = slab.insert(7);
        assert!(keys.iter().all(|key| slab.get(*key).is_none() && *key != later));
    }
}
