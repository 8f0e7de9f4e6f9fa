//! The wire between nodes: what one node tells another in one message of the broker.
//!
//! A batch is a head and items. Each item is a kind, a length and a body, in a
//! compact binary form: numbers are LEB128, names carry their length. The first
//! byte is the version. A kind of 64 or more that is not known here is skipped; any
//! other that is not known, or a body that is not valid to its last byte, makes the
//! whole batch none: all or nothing. Bytes from a broker are input like any other.
//!
//! ```text
//! batch = version from number oldest have flags first item*
//! item  = kind length body
//! id    = 0 session count | length bytes
//! ```
//!
//! What kinds there are, and what is in their bodies, is said at their constants. The
//! body of a message is what a mailbox keeps, too. What items mean is not said here.

mod bytes;

use crate::proto::name::{IdRef, NodeId, SessionId, UserRef};
use crate::proto::request::clean_text;
use crate::proto::wire::bytes::{Bytes, NUMBER_BYTES_MAX, each_byte, put_name, put_number};

/// The version of the form that this node writes to those that read it.
pub const VERSION: u8 = 5;

/// The oldest version that is read, and written to a node of which no version is known.
pub const VERSION_MIN: u8 = 5;

/// The most bytes of a batch's head.
pub const HEAD_BYTES_MAX: usize = 2 + NodeId::BYTES_MAX + 4 * NUMBER_BYTES_MAX + 1;

/// The most bytes of one item that tells receipts.
pub const RECEIPTS_BYTES_MAX: usize = 2 + 2 * NUMBER_BYTES_MAX;

/// The highest number of a batch or a message: nobody gets there.
const NUMBER_MAX: u64 = (1 << 48) - 1;

/// The flags of a head.
const HAS_GAP: u8 = 1;
const ASKS_WORD: u8 = 2;

/// From this kind on, those that are not known are skipped.
const SKIPPED: u8 = 64;

/// `from to id text`: a message that asks for a receipt.
const MESSAGE: u8 = 1;
/// The same, which is the first of its lane, or of what goes out again.
const FIRST: u8 = 2;
/// The same without a receipt.
pub const CAST: u8 = 3;
/// `first count`: what became of messages of the other direction.
const DELIVERED: u8 = 4;
const NOT_HERE: u8 = 5;
const LEFT: u8 = 6;
const UNACKED: u8 = 7;
/// `first count`: it takes longer.
const WAITS: u8 = 8;
/// `user login`
const ANNOUNCED: u8 = 9;
/// `user login`
const NOTED: u8 = 10;
/// `user node`
const FURTHER: u8 = 11;
/// `user`
const MAIL: u8 = 12;
/// `user session`
const REPLACED: u8 = 13;

/// What the batch itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The form of what follows.
    pub version: u8,
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
    /// The number of the first message in it that asks for a receipt; the others follow in order.
    pub first: u64,
}

/// One thing that a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A message.
    Message(Message<'a>),
    /// What became of messages of the other direction.
    Receipts {
        /// What.
        receipt: Receipt,
        /// The number of the first.
        first: u64,
        /// How many there are.
        count: u64,
    },
    /// The receipts of messages of the other direction take longer.
    Waits {
        /// The number of the first.
        first: u64,
        /// How many there are.
        count: u64,
    },
    /// A user logs in on the sender's node, too, which waits for [`Item::Noted`] unless `login` is 0.
    Announced {
        /// The user.
        user: UserRef<'a>,
        /// The sender's number for the login.
        login: u64,
    },
    /// The sender has noted a login of the receiver.
    Noted {
        /// The user.
        user: UserRef<'a>,
        /// The receiver's number for the login.
        login: u64,
    },
    /// The receiver, an origin, is told that a user is on a further node.
    Further {
        /// The user.
        user: UserRef<'a>,
        /// That node's id, which is valid.
        node: &'a str,
    },
    /// Something was stored for a user of the receiver.
    Mail {
        /// The user.
        user: UserRef<'a>,
    },
    /// A session of the receiver was replaced by a later login.
    Replaced {
        /// Whose.
        user: UserRef<'a>,
        /// Which.
        session: SessionId,
    },
}

/// A message with its addressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Asks for a receipt.
    pub asks: bool,
    /// Is the first of its lane, or of what goes out again; only one that asks is.
    pub is_first: bool,
    /// The sender.
    pub from: UserRef<'a>,
    /// The recipient.
    pub to: UserRef<'a>,
    /// The message's id.
    pub id: IdRef<'a>,
    /// The message's text.
    pub text: &'a str,
}

/// What the recipient's node tells the origin of a message.
///
/// Of several that a node could tell, the later here counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receipt {
    /// Written to a session of the recipient.
    Delivered,
    /// The recipient has no session on that node, or none that took it.
    NotHere,
    /// It may have been seen: a session was given it, and left before it was acknowledged or flushed.
    Left,
    /// Sessions of the recipient were shown it, and none acknowledged it in time.
    Unacked,
}

/// The bytes are no batch of a version that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBatch;

impl Head {
    /// Appends the head.
    pub fn print(&self, out: &mut Vec<u8>) {
        out.push(self.version);
        put_name(self.from.as_str(), out);
        for number in [self.number, self.oldest, self.have] {
            put_number(number, out);
        }
        out.push((u8::from(self.has_gap) * HAS_GAP) | (u8::from(self.asks_word) * ASKS_WORD));
        put_number(self.first, out);
    }

    /// Reads the head of a batch, and where its items begin.
    pub fn parse(batch: &[u8]) -> Option<(Self, Items<'_>)> {
        let mut rest = Bytes(batch);
        let version = rest.byte().filter(|version| (VERSION_MIN..=VERSION).contains(version))?;
        let from = NodeId::parse(rest.name()?)?;
        let (number, oldest, have) = (rest.number()?, rest.number()?, rest.number()?);
        let flags = rest.byte().filter(|flags| flags & !(HAS_GAP | ASKS_WORD) == 0)?;
        let (has_gap, asks_word) = (flags & HAS_GAP != 0, flags & ASKS_WORD != 0);
        let head = Head { version, from, number, oldest, have, has_gap, asks_word, first: rest.number()? };
        let fits = [number, oldest, have, head.first].iter().all(|number| *number <= NUMBER_MAX);
        // A gap of numbers would never be filled.
        (fits && (oldest <= number || number == 0)).then_some((head, Items(rest)))
    }
}

impl Item<'_> {
    /// Appends the item.
    pub fn print(&self, out: &mut Vec<u8>) {
        match *self {
            Item::Message(Message { asks, is_first, from, to, id, text }) => {
                put_item(message_kind(asks, is_first), out, |out| put_body(from, to, id, text, out));
            }
            Item::Receipts { receipt, first, count } => put_item(receipt.kind(), out, |out| {
                put_number(first, out);
                put_number(count, out);
            }),
            Item::Waits { first, count } => put_item(WAITS, out, |out| {
                put_number(first, out);
                put_number(count, out);
            }),
            Item::Announced { user, login } => put_item(ANNOUNCED, out, |out| {
                put_name(user.as_str(), out);
                put_number(login, out);
            }),
            Item::Noted { user, login } => put_item(NOTED, out, |out| {
                put_name(user.as_str(), out);
                put_number(login, out);
            }),
            Item::Further { user, node } => put_item(FURTHER, out, |out| {
                put_name(user.as_str(), out);
                put_name(node, out);
            }),
            Item::Mail { user } => put_item(MAIL, out, |out| put_name(user.as_str(), out)),
            Item::Replaced { user, session } => put_item(REPLACED, out, |out| {
                put_name(user.as_str(), out);
                out.extend_from_slice(session.as_bytes());
            }),
        }
    }

    /// Reads the body of an item of a known kind.
    fn parse(kind: u8, mut body: Bytes<'_>) -> Option<Item<'_>> {
        let item = match kind {
            MESSAGE | FIRST | CAST => {
                let (from, to, id, text) = parse_body(body.rest())?;
                Item::Message(Message { asks: kind != CAST, is_first: kind == FIRST, from, to, id, text })
            }
            DELIVERED..=UNACKED => {
                let receipt = Receipt::ALL[usize::from(kind - DELIVERED)];
                let (first, count) = body.range()?;
                Item::Receipts { receipt, first, count }
            }
            WAITS => {
                let (first, count) = body.range()?;
                Item::Waits { first, count }
            }
            ANNOUNCED => Item::Announced { user: body.user()?, login: body.number()? },
            NOTED => Item::Noted { user: body.user()?, login: body.number()? },
            FURTHER => {
                let (user, node) = (body.user()?, body.name()?);
                NodeId::is_id(node).then_some(Item::Further { user, node })?
            }
            MAIL => Item::Mail { user: body.user()? },
            REPLACED => Item::Replaced { user: body.user()?, session: body.session()? },
            _ => return None,
        };
        body.0.is_empty().then_some(item)
    }
}

impl Receipt {
    /// All, in order.
    pub const ALL: [Receipt; 4] = [Receipt::Delivered, Receipt::NotHere, Receipt::Left, Receipt::Unacked];

    fn kind(self) -> u8 {
        match self {
            Receipt::Delivered => DELIVERED,
            Receipt::NotHere => NOT_HERE,
            Receipt::Left => LEFT,
            Receipt::Unacked => UNACKED,
        }
    }
}

/// The body of a message by itself, in memory that it fits exactly or nearly.
pub fn body(from: UserRef<'_>, to: UserRef<'_>, id: IdRef<'_>, text: &str) -> Vec<u8> {
    let id_bytes = match id {
        IdRef::Counted(..) => 9 + NUMBER_BYTES_MAX,
        IdRef::Tag(tag) => 1 + tag.as_str().len(),
    };
    let mut out = Vec::with_capacity(2 + from.as_str().len() + to.as_str().len() + id_bytes + text.len());
    put_body(from, to, id, text, &mut out);
    out
}

/// Appends the body of a message.
pub fn put_body(from: UserRef<'_>, to: UserRef<'_>, id: IdRef<'_>, text: &str, out: &mut Vec<u8>) {
    put_name(from.as_str(), out);
    put_name(to.as_str(), out);
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
        IdRef::Tag(tag) => put_name(tag.as_str(), out),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Reads the body of a message: sender, recipient, id and text.
pub fn parse_body(body: &[u8]) -> Option<(UserRef<'_>, UserRef<'_>, IdRef<'_>, &str)> {
    let mut body = Bytes(body);
    Some((body.user()?, body.user()?, body.id()?, clean_text(body.rest())?))
}

/// Appends a message whose body is composed already.
pub fn put_message(asks: bool, is_first: bool, body: &[u8], out: &mut Vec<u8>) {
    out.push(message_kind(asks, is_first));
    put_number(body.len() as u64, out);
    out.extend_from_slice(body);
}

fn message_kind(asks: bool, is_first: bool) -> u8 {
    match (asks, is_first) {
        (false, _) => CAST,
        (true, false) => MESSAGE,
        (true, true) => FIRST,
    }
}

/// Appends an item whose body `print` composes behind its length.
fn put_item(kind: u8, out: &mut Vec<u8>, print: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    print(out);
    let mut length = [0; NUMBER_BYTES_MAX];
    let mut end = 0;
    each_byte((out.len() - at) as u64, |byte| {
        length[end] = byte;
        end += 1;
    });
    out.splice(at..at, length[..end].iter().copied());
}

/// The items of a batch that were not read yet: an iterator that ends at the first that
/// is not valid, with an error.
#[derive(Clone, Debug)]
pub struct Items<'a>(Bytes<'a>);

impl<'a> Items<'a> {
    /// Items without a head.
    pub fn of(items: &'a [u8]) -> Self {
        Items(Bytes(items))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, BadBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.0.is_empty() {
            let raw = self.0.item();
            match raw {
                Some((kind, _)) if kind >= SKIPPED => {}
                _ => {
                    let item = raw.and_then(|(kind, body)| Item::parse(kind, body));
                    if item.is_none() {
                        self.0 = Bytes(&[]);
                    }
                    return Some(item.ok_or(BadBatch));
                }
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
