//! Replies in order: untagged ones are given in the order of their requests.
//!
//! A reply that is due later reserves its place, and what is known behind it waits. In the usual case,
//! replies in order, nothing is copied.

use std::collections::VecDeque;

use crate::node::outbox::Outbox;
use crate::node::outbox::Spares;
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
    /// Replies that are not known yet, tagged ones too.
    due: u32,
    /// The untagged ones, while there are any.
    row: Option<Box<Row>>,
}

/// Replies that one connection may be owed. With more it is not read; one that acknowledges is, and gets
/// `ERR limited`.
pub const REPLIES_DUE_MAX: u32 = 1_024;

/// Untagged replies in order, the first of them due. Places are numbered anew whenever there was none.
struct Row {
    first_place: u64,
    /// `None` is due, `Some` is known and waits for those before it.
    places: VecDeque<Option<Box<[u8]>>>,
    /// Memory of the replies in `places`, in bytes.
    held_bytes: u32,
}

/// What a reply that waits costs beside its text: its place, and the allocator's share.
const HELD_REPLY_BYTES: u32 = 48;

/// What the places begin with; a row that is used again has grown to what a batch takes.
const PLACES_MIN: usize = 4;

/// What is larger is not kept as a spare.
const PLACES_SPARE: usize = 64;

/// Rows that are kept: connections that wait for replies at a time.
const SPARES_MAX: usize = 64;

/// Memory that rows of replies need: whoever has none due any more gives it back here.
#[derive(Default)]
pub struct SpareRows {
    // Boxed as they are used: what is moved is a pointer.
    #[allow(clippy::vec_box)]
    rows: Vec<Box<Row>>,
}

impl Replies {
    /// Replies that are not known yet.
    pub fn due(&self) -> u32 {
        self.due
    }

    /// Memory of known replies that wait for others, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.row.as_ref().map_or(0, |row| row.held_bytes as usize)
    }

    /// Takes note that a request will be answered later.
    pub fn expect(&mut self, tag: Option<&str>, spares: &mut SpareRows) -> ReplyTo {
        self.due += 1;
        match tag {
            Some(tag) => ReplyTo::Tag(tag.into()),
            None => {
                let row = self.row.get_or_insert_with(|| spares.rows.pop().unwrap_or_default());
                row.places.push_back(None);
                ReplyTo::Place(row.first_place + row.places.len() as u64 - 1)
            }
        }
    }

    /// Gives a reply at once, or behind the untagged ones that are due.
    pub fn reply(
        &mut self,
        tag: Option<&str>,
        outbox: &mut Outbox,
        spares: &mut Spares,
        print: impl FnOnce(&mut Vec<u8>),
    ) {
        match &mut self.row {
            Some(row) if tag.is_none() => {
                let line = row.hold(print);
                row.places.push_back(Some(line));
            }
            _ => outbox.push_line(spares, |out| {
                print_tag(tag, out);
                print(out);
            }),
        }
    }

    /// Gives a reply that was expected.
    pub fn answer(
        &mut self,
        to: &ReplyTo,
        outbox: &mut Outbox,
        (spares, spare_rows): (&mut Spares, &mut SpareRows),
        print: impl FnOnce(&mut Vec<u8>),
    ) {
        self.due -= 1;
        match (to, &mut self.row) {
            (ReplyTo::Tag(tag), _) => outbox.push_line(spares, |out| {
                print_tag(Some(tag), out);
                print(out);
            }),
            (ReplyTo::Place(place), Some(row)) if *place == row.first_place => {
                outbox.push_line(spares, print);
                if !row.next_place(outbox, spares) {
                    self.end_row(spare_rows);
                }
            }
            (ReplyTo::Place(place), Some(row)) => {
                let line = row.hold(print);
                let at = (place - row.first_place) as usize;
                row.places[at] = Some(line);
            }
            (ReplyTo::Place(_), None) => unreachable!("a place stays until its reply is known"),
        }
    }

    /// Nothing is said any more: those that are due go nowhere.
    pub fn forget(&mut self) {
        (self.row, self.due) = (None, 0);
    }

    /// None is due any more: the memory goes back.
    fn end_row(&mut self, spares: &mut SpareRows) {
        if let Some(mut row) = self.row.take()
            && row.places.capacity() <= PLACES_SPARE
            && spares.rows.len() < SPARES_MAX
        {
            row.first_place = 0;
            spares.rows.push(row);
        }
    }
}

impl Default for Row {
    fn default() -> Self {
        Row { first_place: 0, places: VecDeque::with_capacity(PLACES_MIN), held_bytes: 0 }
    }
}

impl Row {
    /// Prints a reply that has to wait for those before it.
    fn hold(&mut self, print: impl FnOnce(&mut Vec<u8>)) -> Box<[u8]> {
        let mut line = vec![];
        print(&mut line);
        self.held_bytes += line.len() as u32 + HELD_REPLY_BYTES;
        line.into()
    }

    /// Moves past the first place, and past all behind it that are known; `false` when none is left.
    fn next_place(&mut self, outbox: &mut Outbox, spares: &mut Spares) -> bool {
        self.places.pop_front();
        self.first_place += 1;
        while let Some(Some(line)) = self.places.front() {
            self.held_bytes -= line.len() as u32 + HELD_REPLY_BYTES;
            outbox.push_line(spares, |out| out.extend_from_slice(line));
            self.places.pop_front();
            self.first_place += 1;
        }
        !self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_in_order_again_after_there_was_none_due() {
        let (mut spares, mut rows) = (Spares::default(), SpareRows::default());
        for first in 0..6 {
            let (mut replies, mut outbox) = (Replies::default(), Outbox::default());
            // Each time with one reply more, in rows that others have used.
            for count in 1..4 {
                let places: Vec<ReplyTo> = (0..count).map(|_| replies.expect(None, &mut rows)).collect();
                for n in 0..count {
                    let n = (n + first) % count;
                    let spares = (&mut spares, &mut rows);
                    replies.answer(&places[n], &mut outbox, spares, |out| out.push(b'0' + n as u8));
                }
                assert!(replies.due() == 0 && replies.held_bytes() == 0 && replies.row.is_none());
            }
            assert_eq!(outbox.to_write(), b"0\n0\n1\n0\n1\n2\n", "{first}");
        }
    }
}
