//! A map from names to values that knows the entry it was asked for last.
//!
//! Messages come in runs: what one read or one batch brings is for few users, and
//! goes to fewer nodes. To compare a name with the one before takes a tenth of
//! the time of hashing it, and names from outside need a hash that is not quick.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// The map.
pub struct Recent<K, V> {
    /// The slot of each name.
    names: HashMap<K, usize>,
    slots: Vec<Option<(K, V)>>,
    /// Slots without an entry.
    free: Vec<usize>,
    /// The slot of the entry that was asked for last, which may be gone.
    last: usize,
}

/// Slots that an empty map keeps.
const SLOTS_KEPT_MAX: usize = 64;

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { names: HashMap::new(), slots: vec![], free: vec![], last: 0 }
    }
}

impl<K: Clone + Eq + Hash + Borrow<str>, V> Recent<K, V> {
    /// The entry of a name.
    pub fn get(&mut self, name: &str) -> Option<(&K, &mut V)> {
        let slot = self.slot(name)?;
        self.slots[slot].as_mut().map(|(key, value)| (&*key, value))
    }

    /// The value of a name.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.get(name).map(|(_, value)| value)
    }

    /// The value of a name, which is added if it is not here.
    pub fn get_or_insert_with(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        let slot = self.slot(key.borrow()).unwrap_or_else(|| self.insert(key.clone(), new()));
        &mut self.slots[slot].as_mut().expect("the slot of an entry").1
    }

    /// Takes an entry out.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let slot = self.names.remove(name)?;
        let entry = self.slots[slot].take();
        self.free.push(slot);
        if self.names.is_empty() && self.slots.len() > SLOTS_KEPT_MAX {
            *self = Recent::default();
        }
        entry.map(|(_, value)| value)
    }

    /// Takes all entries out.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        std::mem::take(self).slots.into_iter().flatten()
    }

    /// All entries.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.slots.iter_mut().flatten().map(|(key, value)| (&*key, value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn slot(&mut self, name: &str) -> Option<usize> {
        let last = self.slots.get(self.last).and_then(Option::as_ref);
        if last.is_none_or(|(key, _)| key.borrow() != name) {
            self.last = *self.names.get(name)?;
        }
        Some(self.last)
    }

    fn insert(&mut self, key: K, value: V) -> usize {
        self.last = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.names.insert(key.clone(), self.last);
        self.slots[self.last] = Some((key, value));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_does_what_a_plain_map_does() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut recent, mut plain) = (Recent::<String, u64>::default(), BTreeMap::new());
        for step in 0..20_000 {
            // Phases in which it fills and empties; a name is often asked for again.
            let name = random(if step / 1_000 % 2 == 0 { 200 } else { 4 }).to_string();
            for _ in 0..=random(2) {
                match random(if step / 1_000 % 2 == 0 { 9 } else { 3 }) {
                    0 | 1 => assert_eq!(recent.remove(&name), plain.remove(&name)),
                    2 => assert_eq!(recent.get_mut(&name), plain.get_mut(&name)),
                    _ => {
                        *recent.get_or_insert_with(&name, || step) += 1;
                        *plain.entry(name.clone()).or_insert(step) += 1;
                    }
                }
            }
            assert_eq!((recent.len(), recent.is_empty()), (plain.len(), plain.is_empty()));
        }
        let mut all: Vec<(String, u64)> =
            recent.iter_mut().map(|(key, value)| (key.clone(), *value)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(plain.clone()));
        assert_eq!(recent.drain().collect::<BTreeMap<_, _>>(), plain);
        assert!(recent.is_empty() && recent.get("1").is_none());
    }

    #[test]
    fn the_memory_of_a_crowd_goes_back() {
        let mut recent = Recent::<String, u64>::default();
        for n in 0..1_000 {
            recent.get_or_insert_with(&n.to_string(), || n);
        }
        (0..1_000).for_each(|n| assert_eq!(recent.remove(&n.to_string()), Some(n)));
        assert!(recent.slots.capacity() == 0 && recent.names.capacity() == 0);
    }
}
