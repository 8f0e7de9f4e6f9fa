//! A set of numbers below eight.

/// A small set of messages or nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set(u8);

impl Set {
    /// All that there may be.
    pub const ALL: Set = Set(u8::MAX);

    pub fn has(self, what: impl Into<usize>) -> bool {
        self.0 & 1 << what.into() != 0
    }

    pub fn with(self, what: impl Into<usize>) -> Set {
        Set(self.0 | 1 << what.into())
    }

    pub fn without(self, what: impl Into<usize>) -> Set {
        Set(self.0 & !(1 << what.into()))
    }

    pub fn and(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub fn but(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    pub fn in_both(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    /// Those below a number.
    pub fn below(self, end: u32) -> Set {
        Set(self.0 & ((1u16 << end) - 1) as u8)
    }

    /// The number above all of them.
    pub fn end(self) -> u32 {
        u8::BITS - self.0.leading_zeros()
    }

    pub fn count(self) -> u8 {
        self.0.count_ones() as u8
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8usize).filter(move |what| self.has(*what))
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<T: IntoIterator<Item = usize>>(all: T) -> Self {
        all.into_iter().fold(Set::default(), Set::with)
    }
}
