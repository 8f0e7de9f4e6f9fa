//! How much may be on its way on a link at once.
//!
//! A few batches, or more while they are small: at a moderate rate each has only
//! one message, and to wait for a word would cost more than to send the next.
//! A busy link soon has more bytes on their way, and then what follows gathers.

/// Batches that may be on their way on a link at once, whatever their size.
pub const BATCHES_MAX: usize = 4;

/// Batches that may be while they are small.
pub const SMALL_BATCHES_MAX: usize = 32;

/// With so many bytes on their way on a link, its batches are not small.
pub const SMALL_BYTES_MAX: usize = 4 * 1024;

/// Some batches.
#[derive(Clone, Copy, Default)]
pub struct Volume {
    batches: usize,
    bytes: usize,
}

impl Volume {
    /// One more batch, of so many bytes.
    pub fn add(&mut self, bytes: usize) {
        self.batches += 1;
        self.bytes += bytes;
    }

    /// Tells whether no more may be on its way.
    pub fn is_full(self) -> bool {
        self.batches >= BATCHES_MAX && (self.batches >= SMALL_BATCHES_MAX || self.bytes >= SMALL_BYTES_MAX)
    }

    /// Tells whether three quarters of what may be on its way are.
    pub fn is_nearly_full(self) -> bool {
        Volume { batches: self.batches + self.batches / 3, bytes: self.bytes + self.bytes / 3 }.is_full()
    }
}
