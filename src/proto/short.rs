//! Short texts composed in one place, to be appended at once: many small appends
//! to a buffer that may have to grow cost more than what they append.

/// The most bytes of one.
const SHORT_BYTES_MAX: usize = 256;

/// What was composed so far. The caller knows that it fits: names and ids have bounds.
pub(super) struct Short {
    bytes: [u8; SHORT_BYTES_MAX],
    len: usize,
}

impl Short {
    /// Begins with these bytes.
    pub fn new(start: &[u8]) -> Self {
        let mut short = Short { bytes: [0; SHORT_BYTES_MAX], len: 0 };
        short.put(start);
        short
    }

    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds one byte.
    pub fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// What was composed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
