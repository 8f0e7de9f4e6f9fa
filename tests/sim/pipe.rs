//! One way of a connection: what goes in comes out in order, later; or not at all.

use std::collections::VecDeque;

use crate::history::Time;

/// The way.
pub struct Pipe<T> {
    items: VecDeque<(Time, T)>,
    /// When the last of them comes out.
    last: Time,
    /// So many reasons why nothing comes out now.
    hangs: u32,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Pipe { items: VecDeque::new(), last: 0, hangs: 0 }
    }
}

impl<T> Pipe<T> {
    /// Puts something in that comes out at that time, or behind what is in already; gives when.
    pub fn push(&mut self, at: Time, item: T) -> Time {
        self.last = self.last.max(at);
        self.items.push_back((self.last, item));
        self.last
    }

    /// What comes out now.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        let is_due = self.hangs == 0 && self.items.front().is_some_and(|(at, _)| *at <= now);
        is_due.then(|| self.items.pop_front()).flatten().map(|(_, item)| item)
    }

    /// How much is in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// What is in it is lost.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// What is in it behind so many is lost.
    pub fn cut(&mut self, count: usize) {
        self.items.truncate(count);
    }

    /// Nothing comes out any more.
    pub fn hang(&mut self) {
        self.hangs += 1;
    }

    /// One reason less for that; tells how much comes out again.
    pub fn thaw(&mut self) -> usize {
        self.hangs -= 1;
        if self.hangs == 0 { self.items.len() } else { 0 }
    }

    /// Tells whether nothing comes out.
    pub fn is_hung(&self) -> bool {
        self.hangs > 0
    }
}
