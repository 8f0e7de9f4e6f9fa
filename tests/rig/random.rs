//! Random numbers from a seed, the same on every machine: SplitMix64.

use std::env;
use std::hash::{BuildHasher, RandomState};

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// One of `items`.
    pub fn one_of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// The seeds of this run: that of `PINPOST_SEED` alone, or so many fresh ones.
pub fn seeds(count: usize) -> Vec<u64> {
    let seeds = match env::var("PINPOST_SEED") {
        Ok(seed) => vec![seed.parse().expect("PINPOST_SEED is a number")],
        Err(_) => (0..count).map(|n| RandomState::new().hash_one(n)).collect(),
    };
    for seed in &seeds {
        println!("PINPOST_SEED={seed} makes this run again");
    }
    seeds
}
