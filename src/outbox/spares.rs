//! What a thread keeps to use again: memory that outboxes need while something waits in them.
//!
//! An outbox that ran empty gives its memory back, so that an idle connection holds none; the next
//! one that is pushed to, a moment later, takes it. Only some are kept, and those who give back
//! see to it that they are small.

use std::cell::RefCell;

/// The spares of one thread.
pub struct Spares<T>(
    // Boxed as they are used: what is moved is a pointer.
    #[allow(clippy::vec_box)] RefCell<Vec<Box<T>>>,
);

/// Spares that a thread keeps of a kind: outboxes that are filled and flushed at a time.
const SPARES_MAX: usize = 64;

impl<T: Default> Spares<T> {
    /// None yet.
    pub const fn new() -> Self {
        Spares(RefCell::new(Vec::new()))
    }

    /// Takes one, or makes it.
    pub fn take(&self) -> Box<T> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps one that is as good as new, if there are not enough.
    pub fn keep(&self, spare: Box<T>) {
        let mut spares = self.0.borrow_mut();
        if spares.len() < SPARES_MAX {
            spares.push(spare);
        }
    }
}
