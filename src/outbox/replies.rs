//! Replies in order: untagged ones are given in the order of their requests.
//!
//! A reply that is due later reserves its place, and what is known behind it
//! waits. In the usual case, replies in order, nothing is copied.

use std::collections::VecDeque;

use crate::outbox::bytes::Bytes;
use crate::proto::reply::print_tag;

/// Where a reply that is not known yet will go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// To its place in the order of the untagged ones.
    Place(u64),
    /// Under this tag, in any order.
    Tag(Box<str>),
}

/// The replies that one connection is owed.
#[derive(Default)]
pub struct Replies {
    /// The place of the first untagged reply that is due.
    first_place: u64,
    /// Untagged replies from there on: `None` is due, `Some` is known and waits for those before it.
    places: VecDeque<Option<Box<[u8]>>>,
    /// Replies that are not known yet, tagged ones too.
    due: u32,
    /// Memory of the replies in `places`, in bytes.
    held_bytes: u32,
}

/// What a reply that waits costs beside its text: its place, and the allocator's share.
const HELD_REPLY_BYTES: u32 = 48;

/// What the places begin with: a batch of requests fits without growing.
const PLACES_MIN: usize = 16;

impl Replies {
    /// Replies that are not known yet.
    pub fn due(&self) -> u32 {
        self.due
    }

    /// Memory of known replies that wait for others, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes as usize
    }

    /// Takes note that a request will be answered later.
    pub fn expect(&mut self, tag: Option<&str>) -> ReplyTo {
        self.due += 1;
        match tag {
            Some(tag) => ReplyTo::Tag(tag.into()),
            None => {
                if self.places.capacity() == 0 {
                    self.places.reserve(PLACES_MIN);
                }
                self.places.push_back(None);
                ReplyTo::Place(self.first_place + self.places.len() as u64 - 1)
            }
        }
    }

    /// Takes note that something will come that is no line.
    pub fn expect_silence(&mut self) {
        self.due += 1;
    }

    /// It has come.
    pub fn end_silence(&mut self) {
        self.due -= 1;
    }

    /// Gives a reply at once, or behind the untagged ones that are due.
    pub fn reply(&mut self, tag: Option<&str>, bytes: &mut Bytes, print: impl FnOnce(&mut Vec<u8>)) {
        if tag.is_some() || self.places.is_empty() {
            bytes.push_line(|out| {
                print_tag(tag, out);
                print(out);
            });
        } else {
            let line = self.hold(print);
            self.places.push_back(Some(line));
        }
    }

    /// Gives a reply that was expected.
    pub fn answer(&mut self, to: &ReplyTo, bytes: &mut Bytes, print: impl FnOnce(&mut Vec<u8>)) {
        self.due -= 1;
        match to {
            ReplyTo::Tag(tag) => bytes.push_line(|out| {
                print_tag(Some(tag), out);
                print(out);
            }),
            ReplyTo::Place(place) if *place == self.first_place => {
                bytes.push_line(print);
                self.next_place(bytes);
            }
            ReplyTo::Place(place) => {
                let line = self.hold(print);
                let at = (place - self.first_place) as usize;
                self.places[at] = Some(line);
            }
        }
    }

    /// Forgets what waits: it will not be said any more.
    pub fn forget(&mut self) {
        self.places = VecDeque::new();
        self.held_bytes = 0;
    }

    /// Prints a reply that has to wait for those before it.
    fn hold(&mut self, print: impl FnOnce(&mut Vec<u8>)) -> Box<[u8]> {
        let mut line = vec![];
        print(&mut line);
        self.held_bytes += line.len() as u32 + HELD_REPLY_BYTES;
        line.into()
    }

    /// Moves past the first place, and past all behind it that are known.
    fn next_place(&mut self, bytes: &mut Bytes) {
        self.places.pop_front();
        self.first_place += 1;
        while let Some(Some(line)) = self.places.front() {
            self.held_bytes -= line.len() as u32 + HELD_REPLY_BYTES;
            bytes.push_line(|out| out.extend_from_slice(line));
            self.places.pop_front();
            self.first_place += 1;
        }
        if self.places.is_empty() {
            self.places = VecDeque::new();
        }
    }
}
