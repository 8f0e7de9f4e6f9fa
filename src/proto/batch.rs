//! Batches: what one node tells another in one message of the broker.
//!
//! A batch is a head and items, in a compact binary form: numbers are LEB128,
//! texts carry their length. Its first byte is the version; what has another
//! version, is cut off, or holds anything that is not valid is no batch at all.
//! Bytes from a broker are input like any other: nothing here trusts them.
//!
//! ```text
//! batch  = version from number oldest have flags first item*
//! item   = 1 from to id text          a message that asks for a receipt
//!        | 2 from to id text          a message that does not
//!        | 3 first count              delivered
//!        | 4 first count              not here
//!        | 5 user session             replaced by a login elsewhere
//!        | 6 user login               the user logs in on the teller's node too
//!        | 7 user message             the user is not only here: look again
//!        | 8 user login shown         the login is known; what the user was shown here
//!        | 9 first count              not acknowledged
//!        | 10 first count             waits for an acknowledgement
//!        | 11 user                    something was stored for the user
//!        | 12 first count             shown, and the session left without an acknowledgement
//!        | 13 user                    all that was refused for the user has come back
//!        | 14 from to id text         as 1, and others have it too
//!        | 15 from to id text         as 1, and it was on its way to somebody before
//!        | 16 from to id text         both
//! shown  = length (8 bytes)*
//! id     = 0 session count | length bytes
//! ```

use crate::proto::envelope::{EnvelopeRef, Fate};
use crate::proto::name::{IdRef, NodeId, SessionId, Tag, UserRef};
use crate::proto::request::clean_text;

/// The version of the form, the first byte of every batch.
const VERSION: u8 = 4;

/// The most bytes of a batch's head.
pub const HEAD_BYTES_MAX: usize = 2 + NodeId::BYTES_MAX + 4 * NUMBER_BYTES_MAX + 1;

/// The highest number of a batch or a message: nobody gets there.
const NUMBER_MAX: u64 = (1 << 48) - 1;

/// The most bytes of a number.
const NUMBER_BYTES_MAX: usize = 10;

/// The flags of a head.
const HAS_GAP: u8 = 1;
const ASKS_WORD: u8 = 2;

const ASKS: u8 = 1;
const CAST: u8 = 2;
const DELIVERED: u8 = 3;
const NOT_HERE: u8 = 4;
const REPLACED: u8 = 5;
const ALSO: u8 = 6;
const CHANGED: u8 = 7;
const NOTED: u8 = 8;
const UNACKED: u8 = 9;
const WAITS: u8 = 10;
const MAIL: u8 = 11;
const LEFT: u8 = 12;
const RESUMES: u8 = 13;
const ASKS_SHARED: u8 = 14;
const ASKS_AGAIN: u8 = 15;
const ASKS_SHARED_AGAIN: u8 = 16;

/// The most hashes that tell what a user was shown.
pub const SHOWN_MAX: usize = 4_096;

/// What the batch itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The node that says it.
    pub from: NodeId,
    /// The batch's number on its link, from 1; 0 for one that only tells what its sender has.
    pub number: u64,
    /// The oldest batch of this link that may still come.
    pub oldest: u64,
    /// The sender has every batch of the other direction up to this one.
    pub have: u64,
    /// The sender misses what follows `have`, and has seen later ones.
    pub has_gap: bool,
    /// The sender wants to hear at once what the receiver has.
    pub asks_word: bool,
    /// The number of the first message in it that asks for a receipt.
    pub first: u64,
}

/// One thing that a batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A message. Those that ask for a receipt are numbered in order, from the head's `first`.
    Message(Message<'a>),
    /// What became of messages of the other direction.
    Receipts {
        /// Their fate.
        fate: Fate,
        /// The number of the first.
        first: u64,
        /// How many there are.
        count: u64,
    },
    /// A session of the receiver was replaced by a login elsewhere.
    Replaced {
        /// Whose.
        user: UserRef<'a>,
        /// Which.
        session: SessionId,
    },
    /// A user of the receiver logs in on the sender's node too, which waits for [`Item::Noted`].
    Also {
        /// The user.
        user: UserRef<'a>,
        /// The sender's number for the login.
        login: u64,
    },
    /// The receiver's login is known to the sender.
    Noted {
        /// The user.
        user: UserRef<'a>,
        /// The receiver's number for the login.
        login: u64,
        /// What the user was shown by the sender, the latest first: hashes of 8 bytes, little-endian.
        shown: &'a [u8],
    },
    /// Messages of the other direction wait for an acknowledgement: their receipts take longer.
    Waits {
        /// The number of the first.
        first: u64,
        /// How many there are.
        count: u64,
    },
    /// Something was stored for a user of the receiver.
    Mail {
        /// The user.
        user: UserRef<'a>,
    },
    /// Messages to a user that the receiver has refused have all come back to the sender.
    Resumes {
        /// The user.
        user: UserRef<'a>,
    },
    /// The receiver may not know of all nodes that a user is on.
    Changed {
        /// The user.
        user: UserRef<'a>,
    },
}

/// A message as it stands in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Asks for a receipt.
    pub asks: bool,
    /// Others have it too, if it asks for a receipt.
    pub is_shared: bool,
    /// It was on its way to somebody before, if it asks for a receipt.
    pub is_again: bool,
    /// The sender.
    pub from: UserRef<'a>,
    /// The recipient.
    pub to: UserRef<'a>,
    /// The message's id.
    pub id: IdRef<'a>,
    /// The message's text.
    pub text: &'a str,
}

impl Head {
    /// Appends the head.
    pub fn print(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_text(self.from.as_str(), out);
        for number in [self.number, self.oldest, self.have] {
            put_number(number, out);
        }
        out.push((u8::from(self.has_gap) * HAS_GAP) | (u8::from(self.asks_word) * ASKS_WORD));
        put_number(self.first, out);
    }

    /// Reads the head of a batch and where its items begin.
    pub fn parse(batch: &[u8]) -> Option<(Self, Items<'_>)> {
        let mut rest = Items(batch);
        if rest.byte()? != VERSION {
            return None;
        }
        let from = NodeId::parse(rest.text()?)?;
        let (number, oldest, have) = (rest.number()?, rest.number()?, rest.number()?);
        let flags = rest.byte().filter(|flags| flags & !(HAS_GAP | ASKS_WORD) == 0)?;
        let (has_gap, asks_word) = (flags & HAS_GAP != 0, flags & ASKS_WORD != 0);
        let head = Head { from, number, oldest, have, has_gap, asks_word, first: rest.number()? };
        let fits = [number, oldest, have, head.first].iter().all(|number| *number <= NUMBER_MAX);
        // A gap of numbers would never be filled.
        (fits && (oldest <= number || number == 0)).then_some((head, rest))
    }
}

impl Item<'_> {
    /// Appends the item.
    pub fn print(&self, out: &mut Vec<u8>) {
        match self {
            Item::Message(Message { asks, is_shared, is_again, from, to, id, text }) => {
                put_message(kind(*asks, *is_shared, *is_again), *from, *to, *id, text, out);
            }
            Item::Receipts { fate, first, count } => {
                out.push(match fate {
                    Fate::Delivered => DELIVERED,
                    Fate::NotHere => NOT_HERE,
                    Fate::Left => LEFT,
                    Fate::Unacked => UNACKED,
                });
                put_number(*first, out);
                put_number(*count, out);
            }
            Item::Replaced { user, session } => {
                out.push(REPLACED);
                put_text(user.as_str(), out);
                out.extend_from_slice(session.as_str().as_bytes());
            }
            Item::Also { user, login } => {
                out.push(ALSO);
                put_text(user.as_str(), out);
                put_number(*login, out);
            }
            Item::Noted { user, login, shown } => {
                out.push(NOTED);
                put_text(user.as_str(), out);
                put_number(*login, out);
                put_number(shown.len() as u64, out);
                out.extend_from_slice(shown);
            }
            Item::Waits { first, count } => {
                out.push(WAITS);
                put_number(*first, out);
                put_number(*count, out);
            }
            Item::Resumes { user } => {
                out.push(RESUMES);
                put_text(user.as_str(), out);
            }
            Item::Mail { user } => {
                out.push(MAIL);
                put_text(user.as_str(), out);
            }
            Item::Changed { user } => {
                out.push(CHANGED);
                put_text(user.as_str(), out);
            }
        }
    }
}

/// Appends a message that asks for a receipt if the envelope has a number.
pub fn put_envelope(envelope: EnvelopeRef<'_>, out: &mut Vec<u8>) {
    let EnvelopeRef { number, is_shared, is_again, from, to, id, text } = envelope;
    put_message(kind(number.is_some(), is_shared, is_again), from, to, id, text, out);
}

impl<'a> Message<'a> {
    /// The message in its envelope; `number` is what its receipt names.
    pub fn envelope(self, number: Option<u64>) -> EnvelopeRef<'a> {
        let Message { is_shared, is_again, from, to, id, text, .. } = self;
        EnvelopeRef { number, is_shared, is_again, from, to, id, text }
    }
}

/// The items of a batch that were not read yet: an iterator that ends at the
/// first that is not valid, with an error.
#[derive(Clone, Debug)]
pub struct Items<'a>(&'a [u8]);

/// The bytes are no batch of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBatch;

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, BadBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_none() {
            self.0 = &[];
        }
        Some(item.ok_or(BadBatch))
    }
}

impl<'a> Items<'a> {
    /// Items without a head.
    pub fn of(items: &'a [u8]) -> Self {
        Items(items)
    }

    fn item(&mut self) -> Option<Item<'a>> {
        let item = match self.byte()? {
            kind @ (ASKS | ASKS_SHARED | ASKS_AGAIN | ASKS_SHARED_AGAIN | CAST) => Item::Message(Message {
                asks: kind != CAST,
                is_shared: matches!(kind, ASKS_SHARED | ASKS_SHARED_AGAIN),
                is_again: matches!(kind, ASKS_AGAIN | ASKS_SHARED_AGAIN),
                from: self.user()?,
                to: self.user()?,
                id: self.id()?,
                text: self.long_text()?,
            }),
            kind @ (DELIVERED | NOT_HERE | LEFT | UNACKED) => {
                let fate = match kind {
                    DELIVERED => Fate::Delivered,
                    NOT_HERE => Fate::NotHere,
                    LEFT => Fate::Left,
                    _ => Fate::Unacked,
                };
                let (first, count) = self.range()?;
                Item::Receipts { fate, first, count }
            }
            WAITS => {
                let (first, count) = self.range()?;
                Item::Waits { first, count }
            }
            REPLACED => Item::Replaced { user: self.user()?, session: self.session()? },
            ALSO => Item::Also { user: self.user()?, login: self.number()? },
            NOTED => Item::Noted { user: self.user()?, login: self.number()?, shown: self.shown()? },
            MAIL => Item::Mail { user: self.user()? },
            RESUMES => Item::Resumes { user: self.user()? },
            CHANGED => Item::Changed { user: self.user()? },
            _ => return None,
        };
        Some(item)
    }

    fn range(&mut self) -> Option<(u64, u64)> {
        let (first, count) = (self.number()?, self.number()?);
        first.checked_add(count)?;
        Some((first, count))
    }

    fn shown(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let fits = length.is_multiple_of(8) && length <= 8 * SHOWN_MAX;
        self.bytes(length).filter(|_| fits)
    }

    fn id(&mut self) -> Option<IdRef<'a>> {
        if *self.0.first()? == 0 {
            self.byte()?;
            return Some(IdRef::Counted(self.session()?, self.number()?));
        }
        Tag::parse(self.text()?).map(IdRef::Tag)
    }

    fn session(&mut self) -> Option<SessionId> {
        SessionId::of_bytes(self.bytes(8)?.try_into().ok()?)
    }

    fn user(&mut self) -> Option<UserRef<'a>> {
        UserRef::parse(self.text()?)
    }

    fn long_text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        clean_text(self.bytes(length)?)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.byte()?;
        std::str::from_utf8(self.bytes(length.into())?).ok()
    }

    fn number(&mut self) -> Option<u64> {
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

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// How a message is marked.
fn kind(asks: bool, is_shared: bool, is_again: bool) -> u8 {
    match (asks, is_shared, is_again) {
        (false, ..) => CAST,
        (true, false, false) => ASKS,
        (true, true, false) => ASKS_SHARED,
        (true, false, true) => ASKS_AGAIN,
        (true, true, true) => ASKS_SHARED_AGAIN,
    }
}

fn put_message(kind: u8, from: UserRef<'_>, to: UserRef<'_>, id: IdRef<'_>, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    put_text(from.as_str(), out);
    put_text(to.as_str(), out);
    match id {
        IdRef::Counted(session, count) => {
            // Composed in one place, as many small appends cost more.
            let mut id = [0; 1 + 8 + NUMBER_BYTES_MAX];
            id[1..9].copy_from_slice(session.as_bytes());
            let mut end = 9;
            each_byte(count, |byte| {
                id[end] = byte;
                end += 1;
            });
            out.extend_from_slice(&id[..end]);
        }
        IdRef::Tag(tag) => put_text(tag.as_str(), out),
    }
    put_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a text of at most 255 bytes, as every name is.
fn put_text(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() <= 255, "a name is short");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    each_byte(number, |byte| out.push(byte));
}

fn each_byte(mut number: u64, mut put: impl FnMut(u8)) {
    while number >= 0x80 {
        put(number as u8 | 0x80);
        number >>= 7;
    }
    put(number as u8);
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
