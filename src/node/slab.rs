//! A slab: values by keys that are never used twice.
//!
//! A key is an index and a generation, so that a late answer finds nothing instead of somebody else.
//! Adding and removing cost the same whatever is in here, and no search.

use std::fmt;

/// Values by keys. `OF` tells which slab.
pub struct Slab<const OF: char, T> {
    slots: Vec<SlabSlot<T>>,
    free: Vec<u32>,
    len: usize,
    /// The generation of new slots: above that of every slot that was given back. From 1: no key has the number 0.
    first_generation: u32,
}

struct SlabSlot<T> {
    generation: u32,
    value: Option<T>,
}

/// Names a value of a slab, for ever; the default one none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key<const OF: char>(u64);

/// A connection of this node.
pub type ConnectionId = Key<'c'>;

/// Something that waits for an answer: most of all a message without a fate.
pub type Ticket = Key<'t'>;

/// A message that sessions of this node have and have not taken.
pub type DeliveryId = Key<'d'>;

/// A lane.
pub type LaneId = Key<'l'>;

/// Another node.
pub type PeerId = Key<'p'>;

/// A node that a lane's messages go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// This one: its own sessions of the recipient.
    Here,
    /// Another one.
    Node(PeerId),
}

impl Member {
    /// The other node that it is.
    pub fn peer(self) -> Option<PeerId> {
        if let Member::Node(peer) = self { Some(peer) } else { None }
    }
}

/// Slots that an empty slab keeps.
const SLOTS_KEPT_MAX: usize = 4_096;

impl<const OF: char, T> Default for Slab<OF, T> {
    fn default() -> Self {
        Slab { slots: vec![], free: vec![], len: 0, first_generation: 1 }
    }
}

impl<const OF: char, T> Slab<OF, T> {
    /// Adds a value.
    pub fn insert(&mut self, value: T) -> Key<OF> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(SlabSlot { generation: self.first_generation, value: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        self.len += 1;
        Key(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// The value of a key, if it is still here.
    pub fn get(&self, key: Key<OF>) -> Option<&T> {
        let slot = self.slots.get(key.index())?;
        if slot.generation == key.generation() { slot.value.as_ref() } else { None }
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: Key<OF>) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.generation == key.generation() { slot.value.as_mut() } else { None }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: Key<OF>) -> Option<T> {
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
    pub fn keys(&self) -> Vec<Key<OF>> {
        let key = |(index, slot): (usize, &SlabSlot<T>)| {
            slot.value.as_ref().map(|_| Key(u64::from(slot.generation) << 32 | index as u64))
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

impl<const OF: char> Key<OF> {
    /// The key of [`Key::number`].
    pub const fn from_number(number: u64) -> Self {
        Key(number)
    }

    /// The key as a number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// A small number that no other value has while this one is here.
    pub fn index(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl<const OF: char> fmt::Debug for Key<OF> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_own_value_or_nothing() {
        let mut slab = Slab::<'t', _>::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!((second.index(), slab.remove(first)), (first.index(), None));
        assert_eq!((slab.get(second), slab.len()), (Some(&"second"), 1));
        assert_eq!(slab.keys(), [second]);
    }

    #[test]
    fn keys_of_a_flood_find_nothing_after_its_memory_went_back() {
        let mut slab = Slab::<'t', _>::default();
        let keys: Vec<_> = (0..2 * SLOTS_KEPT_MAX).map(|n| slab.insert(n)).collect();
        keys.iter().for_each(|key| assert!(slab.remove(*key).is_some()));
        assert_eq!((slab.len(), slab.slots.capacity()), (0, 0));
        let later = slab.insert(7);
        assert!(keys.iter().all(|key| slab.get(*key).is_none() && *key != later));
    }
}
