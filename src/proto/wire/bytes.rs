//! Bytes of the wire: how numbers, names and ids are written, and read back.
//!
//! Reading takes from the front and gives `None` for what is cut off or not valid;
//! whoever reads then believes nothing of it. What the values mean is not known here.

use crate::proto::name::{IdRef, SessionId, Tag, UserRef};

/// The most bytes of a number.
pub const NUMBER_BYTES_MAX: usize = 10;

/// Appends a text of at most 255 bytes, as every name is.
pub fn put_name(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() <= 255, "a name is short");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number in LEB128.
pub fn put_number(number: u64, out: &mut Vec<u8>) {
    each_byte(number, |byte| out.push(byte));
}

/// Gives the bytes of a number in LEB128, in order.
pub fn each_byte(mut number: u64, mut put: impl FnMut(u8)) {
    while number >= 0x80 {
        put(number as u8 | 0x80);
        number >>= 7;
    }
    put(number as u8);
}

/// Bytes that were not read yet.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The kind and the body of an item.
    pub fn item(&mut self) -> Option<(u8, Bytes<'a>)> {
        let (kind, length) = (self.byte()?, self.number()?);
        Some((kind, Bytes(self.bytes(usize::try_from(length).ok()?)?)))
    }

    /// Two numbers, of which the sum is one, too.
    pub fn range(&mut self) -> Option<(u64, u64)> {
        let (first, count) = (self.number()?, self.number()?);
        first.checked_add(count)?;
        Some((first, count))
    }

    /// A message's id.
    pub fn id(&mut self) -> Option<IdRef<'a>> {
        if *self.0.first()? == 0 {
            self.byte()?;
            return Some(IdRef::Counted(self.session()?, self.number()?));
        }
        Tag::parse(self.name()?).map(IdRef::Tag)
    }

    /// A session's id.
    pub fn session(&mut self) -> Option<SessionId> {
        SessionId::of_bytes(self.bytes(8)?.try_into().ok()?)
    }

    /// A user's name.
    pub fn user(&mut self) -> Option<UserRef<'a>> {
        UserRef::parse(self.name()?)
    }

    /// What [`put_name`] appends.
    pub fn name(&mut self) -> Option<&'a str> {
        let length = self.byte()?;
        std::str::from_utf8(self.bytes(length.into())?).ok()
    }

    /// What [`put_number`] appends.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// All that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
