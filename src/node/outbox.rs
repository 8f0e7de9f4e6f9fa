//! The outbox: all that one connection is still owed. Lines wait to be written, with marks where messages end, and
//! replies that are not known yet keep their places.
//!
//! Lines are in one growing buffer with a written front. Positions count from the first byte since it was empty, so
//! that a mark stays valid when the buffer moves. Bytes are in one of three states: waiting; *taken*, handed to a
//! stream that has not flushed them, so that nobody knows whether the peer has them; and written. A plain socket
//! takes and writes at once. Whoever ends the connection gets back the messages that were not written whole, with
//! their lines.
//!
//! Untagged replies are given in the order of their requests. One that is due later reserves its place in a row, and
//! what is known behind it waits; in the usual case, replies in order, nothing is copied. All memory is given back
//! when nothing is owed any more: an idle connection holds none.

use std::collections::VecDeque;
use std::time::Instant;

use crate::node::slab::DeliveryId;
use crate::proto::reply::print_tag;

#[derive(Default)]
pub struct Outbox {
    held: Option<Box<Held>>,
    /// Replies that are not known yet, tagged ones too.
    due: u32,
}

/// Memory that outboxes need while something is owed: whoever owes nothing more gives it back here, and the next one
/// takes it.
#[derive(Default)]
pub struct Spares {
    // Boxed as they are used: what is moved is a pointer.
    #[allow(clippy::vec_box)]
    held: Vec<Box<Held>>,
}

/// A message that was not written whole when its connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// The delivery that it is part of; none for a `CAST`.
    pub delivery: Option<DeliveryId>,
    /// Its `MSG` line.
    pub line: Box<[u8]>,
    /// Its peer may have seen it.
    pub in_doubt: bool,
}

/// Where a reply that is not known yet will go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// To its place in the order of the untagged ones.
    Place(u64),
    /// Under this tag, in any order.
    Tag(Box<str>),
}

struct Held {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were written already.
    written: usize,
    /// Bytes of `buffer` that a stream has: at least those that were written.
    taken: usize,
    /// The position of `buffer[0]`.
    base: u64,
    marks: VecDeque<Mark>,
    /// Since when the socket has taken nothing; `None` while it does not block.
    blocked_since: Option<Instant>,
    /// Untagged replies in order. `None` is due, as the first is; `Some` is known and waits for those before it.
    row: VecDeque<Option<Box<[u8]>>>,
    first_place: u64,
    /// Memory of the replies in `row`, in bytes.
    row_bytes: u32,
}

/// The end of a message.
#[derive(Clone, Copy)]
struct Mark {
    /// The position behind the LF of its line.
    end: u64,
    /// The length of its line without the LF.
    line_bytes: u32,
    delivery: Option<DeliveryId>,
}

/// Replies that one connection may be owed. With more it is not read; one that acknowledges is, and gets
/// `ERR limited`.
pub const REPLIES_DUE_MAX: u32 = 1_024;

/// What a reply that waits costs beside its text: its place, and the allocator's share.
const HELD_REPLY_BYTES: u32 = 48;

/// A buffer is moved to its front when this much of it was written.
const MOVE_BYTES_MIN: usize = 32 * 1024;

/// What a buffer and its marks begin with: when one message comes to each of very many, little waits for
/// each. Those that are used again have grown to what a batch takes.
const BUFFER_BYTES_MIN: usize = 256;
const MARKS_MIN: usize = 4;

/// What is larger is not kept as a spare.
const BUFFER_BYTES_SPARE: usize = 4_096;
const MARKS_SPARE: usize = 64;

const SPARES_MAX: usize = 64;

impl Outbox {
    /// Bytes that are not written.
    pub fn waiting(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.buffer.len() - held.written)
    }

    /// The same, and the memory of known replies that wait for others.
    pub fn owed_bytes(&self) -> usize {
        self.waiting() + self.held.as_ref().map_or(0, |held| held.row_bytes as usize)
    }

    pub fn due(&self) -> u32 {
        self.due
    }

    /// What to write next: all behind what was taken.
    pub fn to_write(&self) -> &[u8] {
        self.held.as_ref().map_or(&[], |held| &held.buffer[held.taken..])
    }

    /// Since when the socket has taken nothing, if it blocks.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.held.as_ref()?.blocked_since
    }

    /// The socket takes nothing now.
    pub fn block(&mut self, spares: &mut Spares, now: Instant) {
        // A stream may block with what is not in here: answers to pings.
        self.held(spares).blocked_since.get_or_insert(now);
    }

    pub fn push_line(&mut self, spares: &mut Spares, print: impl FnOnce(&mut Vec<u8>)) {
        let held = self.held(spares);
        print(&mut held.buffer);
        held.buffer.push(b'\n');
    }

    /// Appends what is no line.
    pub fn push_bytes(&mut self, spares: &mut Spares, bytes: &[u8]) {
        self.held(spares).buffer.extend_from_slice(bytes);
    }

    /// Appends the line of a message, and its mark.
    pub fn push_message(&mut self, spares: &mut Spares, delivery: Option<DeliveryId>, line: &[u8]) {
        let held = self.held(spares);
        held.buffer.extend_from_slice(line);
        held.buffer.push(b'\n');
        let end = held.base + held.buffer.len() as u64;
        held.marks.push_back(Mark { end, line_bytes: line.len() as u32, delivery });
    }

    /// Takes note that a request will be answered later.
    pub fn expect(&mut self, spares: &mut Spares, tag: Option<&str>) -> ReplyTo {
        self.due += 1;
        if let Some(tag) = tag {
            return ReplyTo::Tag(tag.into());
        }
        let held = self.held(spares);
        held.row.push_back(None);
        ReplyTo::Place(held.first_place + held.row.len() as u64 - 1)
    }

    /// Gives a reply at once, or behind the untagged ones that are due.
    pub fn reply(&mut self, spares: &mut Spares, tag: Option<&str>, print: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.held {
            Some(held) if tag.is_none() && !held.row.is_empty() => {
                let line = held.hold(print);
                held.row.push_back(Some(line));
            }
            _ => self.push_line(spares, |out| {
                print_tag(tag, out);
                print(out);
            }),
        }
    }

    /// Gives a reply that was expected.
    pub fn answer(&mut self, spares: &mut Spares, to: &ReplyTo, print: impl FnOnce(&mut Vec<u8>)) {
        self.due -= 1;
        let place = match to {
            ReplyTo::Tag(tag) => return self.reply(spares, Some(tag), print),
            ReplyTo::Place(place) => *place,
        };
        let held = self.held(spares);
        if place > held.first_place {
            let line = held.hold(print);
            let at = (place - held.first_place) as usize;
            held.row[at] = Some(line);
            return;
        }
        print(&mut held.buffer);
        held.buffer.push(b'\n');
        held.next_place();
        while let Some(Some(line)) = held.row.front() {
            held.row_bytes -= line.len() as u32 + HELD_REPLY_BYTES;
            held.buffer.extend_from_slice(line);
            held.buffer.push(b'\n');
            held.next_place();
        }
    }

    /// Nothing is said any more: replies that are due go nowhere.
    pub fn forget_replies(&mut self, spares: &mut Spares) {
        self.due = 0;
        if let Some(held) = &mut self.held {
            (held.row, held.row_bytes) = (VecDeque::new(), 0);
            self.tidy(spares);
        }
    }

    /// A stream has this many bytes more.
    #[cfg(any(feature = "websocket", feature = "internals"))]
    pub fn take(&mut self, count: usize) {
        if let Some(held) = &mut self.held {
            held.taken = (held.taken + count).min(held.buffer.len());
        }
    }

    /// This many bytes more were written: appends the deliveries whose messages now are.
    pub fn write(&mut self, count: usize, spares: &mut Spares, reached: &mut Vec<DeliveryId>) {
        let Some(held) = &mut self.held else { return };
        held.written = (held.written + count).min(held.buffer.len());
        held.taken = held.taken.max(held.written);
        held.blocked_since = None;
        let position = held.base + held.written as u64;
        while let Some(mark) = held.marks.front().filter(|mark| mark.end <= position) {
            reached.extend(mark.delivery);
            held.marks.pop_front();
        }
        self.tidy(spares);
    }

    /// Removes all that was not begun, and gives back the messages in it. A line of which a part was
    /// written must end, or the peer would read nonsense.
    pub fn cut(&mut self, spares: &mut Spares) -> Vec<Unwritten> {
        let Some(held) = &mut self.held else { return vec![] };
        let cut = held.end_of_begun_line();
        let position = held.base + cut as u64;
        let kept = held.marks.partition_point(|mark| mark.end <= position);
        let unwritten = held.marks.iter().skip(kept).map(|mark| held.unwritten(mark)).collect();
        held.marks.truncate(kept);
        held.buffer.truncate(cut);
        self.tidy(spares);
        unwritten
    }

    /// Removes everything, and gives back the messages that were not written whole.
    pub fn take_all(&mut self) -> Vec<Unwritten> {
        let Some(held) = self.held.take() else { return vec![] };
        held.marks.iter().map(|mark| held.unwritten(mark)).collect()
    }

    /// The messages that are not written whole and whose fate somebody waits for, with their lines.
    pub fn outstanding(&self) -> impl Iterator<Item = (DeliveryId, &[u8])> {
        let marks = self.held.iter().flat_map(|held| held.marks.iter().map(move |mark| (held, mark)));
        marks.filter_map(|(held, mark)| Some((mark.delivery?, held.line(mark))))
    }

    fn held(&mut self, spares: &mut Spares) -> &mut Held {
        self.held.get_or_insert_with(|| spares.held.pop().unwrap_or_default())
    }

    /// Gives memory back, and moves the buffer when enough of it was written.
    fn tidy(&mut self, spares: &mut Spares) {
        let Some(held) = &mut self.held else { return };
        if held.written < held.buffer.len() {
            return held.make_room();
        }
        held.buffer.clear();
        if !held.row.is_empty() {
            held.base += held.written as u64;
            (held.written, held.taken) = (0, 0);
            return held.buffer.shrink_to(BUFFER_BYTES_SPARE);
        }
        if let Some(mut held) = self.held.take()
            && held.buffer.capacity() <= BUFFER_BYTES_SPARE
            && held.marks.capacity().max(held.row.capacity()) <= MARKS_SPARE
            && spares.held.len() < SPARES_MAX
        {
            held.marks.clear();
            (held.written, held.taken, held.base, held.blocked_since) = (0, 0, 0, None);
            held.first_place = 0;
            spares.held.push(held);
        }
    }
}

impl Default for Held {
    fn default() -> Self {
        Held {
            buffer: Vec::with_capacity(BUFFER_BYTES_MIN),
            written: 0,
            taken: 0,
            base: 0,
            marks: VecDeque::with_capacity(MARKS_MIN),
            blocked_since: None,
            row: VecDeque::new(),
            first_place: 0,
            row_bytes: 0,
        }
    }
}

impl Held {
    fn make_room(&mut self) {
        if self.written >= MOVE_BYTES_MIN && self.written >= self.buffer.len() / 2 {
            // A message that is partly written stays whole: it may have to be given back.
            let start = self.marks.front().map(|mark| (self.start(mark) - self.base) as usize);
            // The last byte that was written stays too: it tells whether a line was ended with it.
            let written = self.written - 1;
            let count = start.map_or(written, |start| written.min(start));
            self.buffer.drain(..count);
            self.base += count as u64;
            self.written -= count;
            self.taken -= count;
        }
    }

    /// Prints a reply that has to wait for those before it.
    fn hold(&mut self, print: impl FnOnce(&mut Vec<u8>)) -> Box<[u8]> {
        let mut line = vec![];
        print(&mut line);
        self.row_bytes += line.len() as u32 + HELD_REPLY_BYTES;
        line.into()
    }

    fn next_place(&mut self) {
        self.row.pop_front();
        self.first_place += 1;
    }

    /// The end of the last line of which somebody has a byte.
    fn end_of_begun_line(&self) -> usize {
        if self.taken == 0 || self.buffer[self.taken - 1] == b'\n' {
            return self.taken;
        }
        let end = memchr::memchr(b'\n', &self.buffer[self.taken..]);
        end.map_or(self.buffer.len(), |length| self.taken + length + 1)
    }

    fn start(&self, mark: &Mark) -> u64 {
        mark.end - 1 - u64::from(mark.line_bytes)
    }

    fn unwritten(&self, mark: &Mark) -> Unwritten {
        // What a plain socket has in part was not seen; what a stream has may have been.
        let in_doubt = mark.end <= self.base + self.taken as u64;
        Unwritten { delivery: mark.delivery, line: self.line(mark).into(), in_doubt }
    }

    fn line(&self, mark: &Mark) -> &[u8] {
        let start = (self.start(mark) - self.base) as usize;
        &self.buffer[start..start + mark.line_bytes as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(outbox: &mut Outbox, delivery: Option<u64>, text: &str) {
        let delivery = delivery.map(DeliveryId::from_number);
        outbox.push_message(&mut Spares::default(), delivery, text.as_bytes());
    }

    /// Writes at most `count` bytes; returns them and the deliveries reached.
    fn write(outbox: &mut Outbox, count: usize) -> (Vec<u8>, Vec<u64>) {
        let (mut spares, mut reached) = (Spares::default(), vec![]);
        let all = outbox.to_write();
        let out = all[..count.min(all.len())].to_vec();
        outbox.write(out.len(), &mut spares, &mut reached);
        (out, reached.into_iter().map(DeliveryId::number).collect())
    }

    fn numbers(unwritten: &[Unwritten]) -> Vec<u64> {
        unwritten.iter().filter_map(|message| Some(message.delivery?.number())).collect()
    }

    #[test]
    fn a_mark_is_reached_with_the_last_byte() {
        let mut outbox = Outbox::default();
        line(&mut outbox, Some(1), "one");
        line(&mut outbox, None, "two");
        line(&mut outbox, Some(3), "three");
        assert_eq!(write(&mut outbox, 3), (b"one".to_vec(), vec![]));
        assert_eq!(write(&mut outbox, 0), (vec![], vec![]));
        assert_eq!(write(&mut outbox, 1), (b"\n".to_vec(), vec![1]));
        assert_eq!(write(&mut outbox, 99), (b"two\nthree\n".to_vec(), vec![3]));
        assert!(outbox.waiting() == 0 && outbox.held.is_none(), "an idle one holds nothing");
    }

    #[test]
    fn what_was_not_begun_is_cut() {
        for takes in [false, true] {
            for written in 0..9 {
                let mut outbox = Outbox::default();
                line(&mut outbox, None, "a");
                line(&mut outbox, Some(2), "bcd");
                line(&mut outbox, Some(3), "ef");
                let (mut out, reached) = if takes {
                    outbox.take(written);
                    (vec![], vec![])
                } else {
                    write(&mut outbox, written)
                };
                let cut = numbers(&outbox.cut(&mut Spares::default()));
                if takes {
                    let held = outbox.held.as_ref().map_or(vec![], |held| held.buffer.clone());
                    out.extend(&held[..written.min(held.len())]);
                }
                let rest = outbox.to_write().to_vec();
                out.extend(&rest);
                let mut later = vec![];
                outbox.write(99, &mut Spares::default(), &mut later);
                let later: Vec<u64> = later.into_iter().map(DeliveryId::number).collect();
                let all: Vec<u64> = reached.into_iter().chain(later).chain(cut).collect();
                assert_eq!(all, [2, 3], "{takes} {written}");
                assert!(out.is_empty() || out.ends_with(b"\n"), "{takes} {written} {out:?}");
            }
        }
    }

    #[test]
    fn a_line_that_is_partly_written_ends_after_the_buffer_moved() {
        let mut outbox = Outbox::default();
        let mut spares = Spares::default();
        (0..100).for_each(|_| outbox.push_line(&mut spares, |out| out.resize(out.len() + 999, b'x')));
        // No message is in there: all that is written may be moved out.
        let (mut out, _) = write(&mut outbox, 60_500);
        assert!(outbox.cut(&mut spares).is_empty());
        out.extend(write(&mut outbox, usize::MAX).0);
        assert_eq!((out.len(), out.last()), (61_000, Some(&b'\n')));
    }

    #[test]
    fn unwritten_messages_come_back_with_their_line_and_what_a_stream_has_is_in_doubt() {
        let mut outbox = Outbox::default();
        let long = "x".repeat(70_000);
        line(&mut outbox, Some(1), "one");
        line(&mut outbox, Some(2), &"y".repeat(300));
        line(&mut outbox, Some(3), &long);
        write(&mut outbox, 50_000);
        let outstanding: Vec<u64> = outbox.outstanding().map(|(delivery, _)| delivery.number()).collect();
        assert_eq!(outstanding, [3]);
        let unwritten = outbox.take_all();
        assert_eq!((numbers(&unwritten), unwritten[0].in_doubt), (vec![3], false));
        assert_eq!(&unwritten[0].line[..], long.as_bytes());
        line(&mut outbox, Some(4), "four");
        line(&mut outbox, Some(5), "five");
        outbox.take(5);
        assert_eq!(outbox.to_write(), b"five\n");
        let doubts: Vec<bool> = outbox.take_all().iter().map(|message| message.in_doubt).collect();
        assert_eq!(doubts, [true, false]);
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn replies_come_in_order_again_after_there_was_none_due() {
        let mut spares = Spares::default();
        for first in 0..6 {
            let mut outbox = Outbox::default();
            // Each time with one reply more, in rows that others have used.
            for count in 1..4 {
                let places: Vec<ReplyTo> = (0..count).map(|_| outbox.expect(&mut spares, None)).collect();
                for n in 0..count {
                    let n = (n + first) % count;
                    outbox.answer(&mut spares, &places[n], |out| out.push(b'0' + n as u8));
                }
                assert!(outbox.due() == 0 && outbox.owed_bytes() == outbox.waiting());
            }
            assert_eq!(outbox.to_write(), b"0\n0\n1\n0\n1\n2\n", "{first}");
        }
    }
}
