//! The bytes of an outbox, and the marks where its messages end.
//!
//! One growing buffer with a written prefix; positions are counted from the
//! first byte since it was empty, so that a mark stays valid when the buffer moves.
//! All of it is given back whenever it runs empty.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use crate::outbox::Ticket;
use crate::outbox::spares::Spares;

/// How a line becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The line and LF.
    Lines,
    /// One unmasked WebSocket text frame a line.
    WebSocket,
}

/// A message that was not written whole when its connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// The message's ticket; none for a `CAST`.
    pub ticket: Option<Ticket>,
    /// Its `MSG` line; empty for a copy that added nothing.
    pub line: Box<[u8]>,
    /// It was shown, and not acknowledged.
    pub was_shown: bool,
}

/// Bytes in order, with marks.
pub struct Bytes {
    framing: Framing,
    /// What waits; nothing else costs an idle connection memory.
    held: Option<Box<Held>>,
}

/// Bytes that wait.
struct Held {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were written already.
    written: usize,
    /// The position of `buffer[0]`.
    base: u64,
    marks: VecDeque<Mark>,
    /// When the sink last took bytes before it blocked; `None` while it does not block.
    blocked_since: Option<Instant>,
}

/// The end of a message.
#[derive(Clone, Copy)]
struct Mark {
    /// The position behind the message's last byte.
    end: u64,
    /// The length of its line without framing; 0 for a copy that added nothing.
    line_bytes: u32,
    /// The length of its line with framing.
    frame_bytes: u32,
    /// Who waits for its fate; nobody for a `CAST`.
    ticket: Option<Ticket>,
}

/// A buffer is moved to its front when this much of it was written.
const MOVE_BYTES_MIN: usize = 32 * 1024;

/// What a buffer and its marks begin with: when one message comes to each of very many, little waits for
/// each. Those that are used again have grown to what a batch takes.
const BUFFER_BYTES_MIN: usize = 256;
const MARKS_MIN: usize = 4;

/// What is larger is not kept as a spare.
const BUFFER_BYTES_SPARE: usize = 4_096;
const MARKS_SPARE: usize = 64;

thread_local! {
    static SPARES: Spares<Held> = const { Spares::new() };
}

impl Bytes {
    pub(super) fn new(framing: Framing) -> Self {
        Bytes { framing, held: None }
    }

    pub(super) fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.waiting())
    }

    /// Since when the sink has taken nothing, if it blocks.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.held.as_ref()?.blocked_since
    }

    /// Appends bytes as they are.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held().buffer.extend_from_slice(bytes);
        }
    }

    /// Appends one line, framed.
    pub fn push_line(&mut self, print: impl FnOnce(&mut Vec<u8>)) {
        self.append(print);
    }

    /// Appends the line of a message, and its mark.
    pub(super) fn push_message(&mut self, ticket: Option<Ticket>, line: &[u8]) {
        let start = self.held().buffer.len();
        let line_bytes = self.append(|out| out.extend_from_slice(line)) as u32;
        let held = self.held();
        let frame_bytes = (held.buffer.len() - start) as u32;
        held.marks.push_back(Mark { end: held.end(), line_bytes, frame_bytes, ticket });
    }

    /// Appends only a mark: it is reached when all before it is written.
    pub(super) fn push_mark(&mut self, ticket: Ticket) {
        let held = self.held();
        held.marks.push_back(Mark { end: held.end(), line_bytes: 0, frame_bytes: 0, ticket: Some(ticket) });
    }

    fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_with(|| SPARES.try_with(Spares::take).unwrap_or_default())
    }

    /// Writes once, and appends the tickets of the marks that were reached.
    pub(super) fn write(
        &mut self,
        now: Instant,
        mut try_write: impl FnMut(&[u8]) -> io::Result<usize>,
        reached: &mut Vec<Ticket>,
    ) -> io::Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let mut count = 0;
        if held.waiting() > 0 {
            count = match try_write(&held.buffer[held.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            held.written += count;
        }
        // Where all was written `tidy` forgets it.
        if count > 0 || held.blocked_since.is_none() {
            held.blocked_since = Some(now);
        }
        let position = held.base + held.written as u64;
        while let Some(mark) = held.marks.front().filter(|mark| mark.end <= position) {
            reached.extend(mark.ticket);
            held.marks.pop_front();
        }
        self.tidy();
        Ok(())
    }

    /// Removes all that was not begun, and gives back the messages in it.
    pub(super) fn cut(&mut self) -> Vec<Unwritten> {
        let Some(held) = &mut self.held else { return vec![] };
        // A line of which a part is written must end, or the peer would read nonsense.
        let position = held.base + held.written as u64;
        let begun = |mark: &&Mark| mark.end - u64::from(mark.frame_bytes) < position;
        let keep = held.marks.front().filter(begun).copied();
        let cut = keep.map_or_else(|| held.end_of_line(self.framing), |mark| (mark.end - held.base) as usize);
        let skip = usize::from(keep.is_some());
        let unwritten = held.marks.iter().skip(skip).map(|mark| held.unwritten(mark, self.framing)).collect();
        held.marks.truncate(skip);
        held.buffer.truncate(cut);
        self.tidy();
        unwritten
    }

    /// Removes everything, and gives back the messages that were not written whole.
    pub(super) fn take_all(&mut self) -> Vec<Unwritten> {
        let Some(held) = self.held.take() else { return vec![] };
        held.marks.iter().map(|mark| held.unwritten(mark, self.framing)).collect()
    }

    /// The lines of the messages that are not written whole.
    pub(super) fn unwritten_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.held
            .iter()
            .flat_map(|held| held.lines(self.framing))
            .map(|(_, line)| line)
            .filter(|line| !line.is_empty())
    }

    /// The messages that are not written whole and whose fate somebody waits for, with their lines;
    /// copies have none.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = (Ticket, &[u8])> {
        let lines = self.held.iter().flat_map(|held| held.lines(self.framing));
        lines.filter_map(|(ticket, line)| Some((ticket?, line)))
    }

    /// Appends a framed line, and returns its length without framing.
    fn append(&mut self, print: impl FnOnce(&mut Vec<u8>)) -> usize {
        let framing = self.framing;
        let buffer = &mut self.held().buffer;
        let start = buffer.len();
        match framing {
            Framing::Lines => {
                print(buffer);
                buffer.push(b'\n');
                buffer.len() - start - 1
            }
            Framing::WebSocket => {
                // Room for the usual header; the length is known only after printing.
                buffer.extend_from_slice(&[0x81, 0]);
                print(buffer);
                let length = buffer.len() - start - 2;
                match length {
                    0..=125 => buffer[start + 1] = length as u8,
                    126..=65_535 => {
                        buffer[start + 1] = 126;
                        let long = (length as u16).to_be_bytes();
                        buffer.splice(start + 2..start + 2, long);
                    }
                    _ => {
                        buffer[start + 1] = 127;
                        let long = (length as u64).to_be_bytes();
                        buffer.splice(start + 2..start + 2, long);
                    }
                }
                length
            }
        }
    }

    /// Gives memory back, and moves the buffer when enough of it was written.
    fn tidy(&mut self) {
        let Some(held) = &mut self.held else { return };
        if held.waiting() > 0 {
            return held.make_room();
        }
        if let Some(mut held) = self.held.take()
            && held.buffer.capacity() <= BUFFER_BYTES_SPARE
            && held.marks.capacity() <= MARKS_SPARE
        {
            held.clear();
            // When the thread ends it keeps no more.
            let _ = SPARES.try_with(|spares| spares.keep(held));
        }
    }
}

impl Default for Held {
    fn default() -> Self {
        let (buffer, marks) = (Vec::with_capacity(BUFFER_BYTES_MIN), VecDeque::with_capacity(MARKS_MIN));
        Held { buffer, written: 0, base: 0, marks, blocked_since: None }
    }
}

impl Held {
    fn waiting(&self) -> usize {
        self.buffer.len() - self.written
    }

    fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Moves the buffer when enough of it was written.
    fn make_room(&mut self) {
        if self.written >= MOVE_BYTES_MIN && self.written >= self.buffer.len() / 2 {
            // A message that is partly written stays whole: it may have to be given back.
            let start = self.marks.front().map(|mark| mark.end - u64::from(mark.frame_bytes) - self.base);
            // The last byte that was written stays too: it tells whether a line was ended with it.
            let written = self.written - 1;
            let count = start.map_or(written, |start| written.min(start as usize));
            self.buffer.drain(..count);
            self.base += count as u64;
            self.written -= count;
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.marks.clear();
        (self.written, self.base, self.blocked_since) = (0, 0, None);
    }

    /// The end of the line that is partly written: replies have no marks, so
    /// this looks for the line's end itself.
    fn end_of_line(&self, framing: Framing) -> usize {
        if self.written == 0 {
            return 0;
        }
        match framing {
            Framing::Lines if self.buffer[self.written - 1] == b'\n' => self.written,
            Framing::Lines => {
                let end = memchr::memchr(b'\n', &self.buffer[self.written..]);
                end.map_or(self.buffer.len(), |length| self.written + length + 1)
            }
            // Frames carry no end mark to look for: keep the bytes up to the next message.
            Framing::WebSocket => {
                self.marks.iter().find(|mark| mark.frame_bytes > 0).map_or(self.buffer.len(), |mark| {
                    (mark.end - u64::from(mark.frame_bytes) - self.base) as usize
                })
            }
        }
    }

    fn unwritten(&self, mark: &Mark, framing: Framing) -> Unwritten {
        Unwritten { ticket: mark.ticket, line: self.line(mark, framing).into(), was_shown: false }
    }

    /// The messages that are not written whole, with their lines.
    fn lines(&self, framing: Framing) -> impl Iterator<Item = (Option<Ticket>, &[u8])> {
        self.marks.iter().map(move |mark| (mark.ticket, self.line(mark, framing)))
    }

    fn line(&self, mark: &Mark, framing: Framing) -> &[u8] {
        if mark.line_bytes == 0 {
            return &[];
        }
        let ending = match framing {
            Framing::Lines => 1,
            Framing::WebSocket => 0,
        };
        let end = (mark.end - self.base) as usize - ending;
        &self.buffer[end - mark.line_bytes as usize..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &mut Bytes, ticket: Option<u64>, text: &str) {
        bytes.push_message(ticket.map(Ticket), text.as_bytes());
    }

    /// Writes at most `count` bytes; returns them and the tickets reached.
    fn write(bytes: &mut Bytes, count: usize) -> (Vec<u8>, Vec<u64>) {
        let (mut out, mut reached) = (vec![], vec![]);
        let take = |bytes: &[u8]| {
            let count = bytes.len().min(count);
            out.extend_from_slice(&bytes[..count]);
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        };
        bytes.write(Instant::now(), take, &mut reached).expect("no error here");
        (out, reached.iter().map(|ticket| ticket.0).collect())
    }

    #[test]
    fn a_mark_is_reached_with_the_last_byte() {
        let mut bytes = Bytes::new(Framing::Lines);
        line(&mut bytes, Some(1), "one");
        line(&mut bytes, None, "two");
        line(&mut bytes, Some(3), "three");
        assert_eq!(write(&mut bytes, 3), (b"one".to_vec(), vec![]));
        assert_eq!(write(&mut bytes, 0), (vec![], vec![]));
        assert_eq!(write(&mut bytes, 1), (b"\n".to_vec(), vec![1]));
        assert_eq!(write(&mut bytes, 99), (b"two\nthree\n".to_vec(), vec![3]));
        assert!(bytes.waiting() == 0 && bytes.held.is_none(), "an idle one holds nothing");
        bytes.push_mark(Ticket(4));
        assert_eq!(write(&mut bytes, 99), (vec![], vec![4]));
    }

    #[test]
    fn what_was_not_begun_is_cut() {
        for framing in [Framing::Lines, Framing::WebSocket] {
            for written in 0..14 {
                let mut bytes = Bytes::new(framing);
                line(&mut bytes, None, "a");
                line(&mut bytes, Some(2), "bcd");
                line(&mut bytes, Some(3), "ef");
                bytes.push_mark(Ticket(4));
                let (mut out, reached) = write(&mut bytes, written);
                let cut: Vec<u64> =
                    bytes.cut().iter().filter_map(|message| Some(message.ticket?.0)).collect();
                let (rest, later) = write(&mut bytes, 99);
                out.extend(rest);
                let all: Vec<u64> = reached.into_iter().chain(later).chain(cut).collect();
                assert_eq!(all, [2, 3, 4], "{framing:?} {written}");
                let whole = match framing {
                    Framing::Lines => out.is_empty() || out.ends_with(b"\n"),
                    Framing::WebSocket => [0, 3, 8, 12].contains(&out.len()),
                };
                assert!(whole, "{framing:?} {written} {out:?}");
            }
        }
    }

    #[test]
    fn a_line_that_is_partly_written_ends_after_the_buffer_moved() {
        for framing in [Framing::Lines, Framing::WebSocket] {
            let mut bytes = Bytes::new(framing);
            (0..100).for_each(|_| bytes.push_line(|out| out.resize(out.len() + 999, b'x')));
            // No message is in there: all that is written may be moved out.
            let (mut out, _) = write(&mut bytes, 60_500);
            assert!(bytes.cut().is_empty());
            out.extend(write(&mut bytes, usize::MAX).0);
            match framing {
                Framing::Lines => assert_eq!((out.len(), out.last()), (61_000, Some(&b'\n'))),
                // Frames have no end to look for: all of them stay.
                Framing::WebSocket => assert_eq!(out.len(), 100 * (4 + 999)),
            }
        }
    }

    #[test]
    fn unwritten_messages_come_back_with_their_line() {
        for framing in [Framing::Lines, Framing::WebSocket] {
            let mut bytes = Bytes::new(framing);
            let long = "x".repeat(70_000);
            line(&mut bytes, Some(1), "one");
            line(&mut bytes, Some(2), &"y".repeat(300));
            line(&mut bytes, Some(3), &long);
            write(&mut bytes, 50_000);
            write(&mut bytes, 1);
            let unwritten = bytes.take_all();
            assert_eq!(unwritten.len(), 1, "{framing:?}");
            assert_eq!(unwritten[0].ticket, Some(Ticket(3)));
            assert_eq!(&unwritten[0].line[..], long.as_bytes());
            assert_eq!(bytes.waiting(), 0);
        }
    }

    #[test]
    fn websocket_frames_have_the_shortest_header() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut bytes = Bytes::new(Framing::WebSocket);
            bytes.push_line(|out| out.extend(std::iter::repeat_n(b'x', length)));
            let (out, _) = write(&mut bytes, usize::MAX);
            assert_eq!(out.len(), header.len() + length);
            assert!(out.starts_with(&header), "{length}");
        }
    }
}
