//! What holds for an outbox whoever pushes and however its socket takes it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Wake;

use super::*;
use crate::proto::ServerLine;

/// A socket that takes as many bytes as it is allowed to.
#[derive(Default)]
struct Valve {
    room: AtomicUsize,
    taken: Mutex<Vec<u8>>,
}

impl Sink for Valve {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room.load(SeqCst));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.fetch_sub(count, SeqCst);
        self.taken.lock().expect("no panic").extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct Rig {
    outbox: Arc<Outbox>,
    valve: Arc<Outbox<Valve>>,
    dirty: Dirty,
    written: Vec<Ticket>,
}

const BOUND: usize = 4096;

impl Rig {
    fn new() -> Self {
        let valve = Outbox::new(Valve::default(), Framing::Lines, BOUND, &Arc::default());
        let valve = Arc::new(valve);
        Rig { outbox: valve.clone(), valve, dirty: Dirty::default(), written: vec![] }
    }

    fn message(&mut self, ticket: u64, text: &str) -> Push {
        let alice = UserName::parse("alice").expect("valid");
        let id = MessageId::Tag(ticket.to_string().into());
        self.outbox.push_message(&alice, &id, text, Some(Ticket(ticket)), true, &mut self.dirty)
    }

    fn reply(&mut self, tag: Option<&str>, text: &str) {
        self.outbox.reply(tag, &mut self.dirty, |out| ServerLine::Info(text).print(out));
    }

    fn answer(&mut self, to: &ReplyTo, text: &str) {
        self.outbox.answer(to, &mut self.dirty, |out| ServerLine::Info(text).print(out));
    }

    /// Lets `room` bytes through and returns what came.
    fn flush(&mut self, room: usize) -> String {
        self.valve.sink().room.store(room, SeqCst);
        self.outbox.flush(Instant::now(), &mut self.written);
        let taken = std::mem::take(&mut *self.valve.sink().taken.lock().expect("no panic"));
        String::from_utf8(taken).expect("text")
    }
}

#[test]
fn untagged_replies_keep_their_order_and_tagged_ones_overtake() {
    let mut rig = Rig::new();
    let first = rig.outbox.expect(None);
    rig.reply(None, "second");
    let third = rig.outbox.expect(None);
    let tagged = rig.outbox.expect(Some("t"));
    rig.reply(None, "fourth");
    rig.reply(Some("u"), "at once");
    rig.answer(&tagged, "tagged");
    rig.answer(&third, "third");
    assert_eq!(rig.flush(999), "@u INFO at once\n@t INFO tagged\n");
    assert!(rig.outbox.await_for(Await::Replies));
    rig.answer(&first, "first");
    assert_eq!(rig.flush(999), "INFO first\nINFO second\nINFO third\nINFO fourth\n");
    assert!(!rig.outbox.await_for(Await::Replies));
    rig.reply(None, "fifth");
    assert_eq!(rig.flush(999), "INFO fifth\n");
}

#[test]
fn every_message_is_written_or_given_back() {
    let mut rig = Rig::new();
    for ticket in 1..=3 {
        assert_eq!(rig.message(ticket, "hello"), Push::Taken);
    }
    assert_eq!(rig.dirty.0.len(), 1, "one note for the flusher");
    assert_eq!(rig.flush(20), "MSG alice 1 hello\nMS");
    assert_eq!(rig.written, [Ticket(1)]);
    let unwritten = rig.outbox.abandon();
    let back: Vec<_> = unwritten.iter().map(|message| (message.ticket, &message.line[..])).collect();
    assert_eq!(back, [(Some(Ticket(2)), &b"MSG alice 2 hello"[..]), (Some(Ticket(3)), b"MSG alice 3 hello")]);
    assert_eq!(rig.message(4, "late"), Push::Refused);
}

#[test]
fn a_copy_has_the_fate_of_what_is_before_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.message(7, "hello"), Push::Taken);
    assert_eq!(rig.message(7, "hello"), Push::Copy);
    assert_eq!(rig.flush(17), "MSG alice 7 hello");
    assert_eq!(rig.written, []);
    assert_eq!(rig.flush(1), "\n");
    assert_eq!(rig.written, [Ticket(7), Ticket(7)]);
    assert_eq!(rig.message(7, "hello"), Push::Copy);
    assert_eq!(rig.flush(1), "");
    assert_eq!(rig.written.len(), 3, "a copy with nothing before it is written at once");
}

#[test]
fn a_full_outbox_makes_local_senders_wait_and_is_closed_behind_its_reserve() {
    let mut rig = Rig::new();
    let (sender, owner) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    rig.outbox.set_owner(&owner.clone().into());
    let text = "x".repeat(1000);
    let mut ticket = 0;
    while rig.outbox.has_room() == Some(true) {
        ticket += 1;
        assert_eq!(rig.message(ticket, &text), Push::Taken);
    }
    assert!(!rig.outbox.takes_requests(), "nor is its own connection read");
    rig.outbox.wait_for_room(&sender.clone().into());
    assert_eq!(sender.0.load(SeqCst), 0);
    rig.flush(1000);
    assert_eq!(sender.0.load(SeqCst), 0, "still more than half full");
    rig.flush(2500);
    assert_eq!(sender.0.load(SeqCst), 1);
    while rig.message(ticket, &text) != Push::Refused {
        ticket += 1;
        assert!(ticket as usize * text.len() < BOUND + 2 * RESERVE_BYTES_MIN, "there is a bound");
    }
    assert_eq!(rig.outbox.closing(), Some(CloseReason::Slow));
    assert_eq!(rig.outbox.has_room(), None);
    assert!(owner.0.load(SeqCst) > 0);
}

#[test]
fn closing_wakes_those_who_wait_for_room() {
    let mut rig = Rig::new();
    let sender = Arc::new(Woken::default());
    assert_eq!(rig.message(1, &"x".repeat(BOUND)), Push::Taken);
    rig.outbox.wait_for_room(&sender.clone().into());
    rig.outbox.close(CloseReason::Draining);
    rig.outbox.close(CloseReason::Slow);
    assert_eq!(sender.0.load(SeqCst), 1);
    assert_eq!(rig.outbox.closing(), Some(CloseReason::Draining), "the first reason counts");
    assert_eq!(rig.message(2, "late"), Push::Refused);
    rig.reply(None, "a reply is still taken");
    rig.outbox.finish(|bytes| bytes.push_line(|out| out.extend_from_slice(b"BYE")));
    rig.reply(None, "too late");
    let all = rig.flush(9999);
    assert!(all.ends_with("\nINFO a reply is still taken\nBYE\n"), "{all}");
}

#[test]
fn so_many_replies_may_be_due() {
    let mut rig = Rig::new();
    let owner = Arc::new(Woken::default());
    rig.outbox.set_owner(&owner.clone().into());
    let due: Vec<ReplyTo> = (0..REPLIES_DUE_MAX).map(|_| rig.outbox.expect(None)).collect();
    assert!(!rig.outbox.takes_requests());
    assert!(rig.outbox.await_for(Await::Room));
    for (count, to) in due.iter().enumerate() {
        rig.answer(to, "x");
        rig.flush(999);
        let is_half = count + 1 >= REPLIES_DUE_MAX as usize / 2;
        assert_eq!(owner.0.load(SeqCst), usize::from(is_half), "woken once, at half");
    }
    assert!(!rig.outbox.await_for(Await::Replies), "all have come already");
}

#[test]
fn what_is_cut_short_ends_with_a_whole_line() {
    let mut rig = Rig::new();
    for ticket in 1..=3 {
        rig.message(ticket, "hello");
    }
    assert_eq!(rig.flush(3), "MSG");
    let unwritten = rig.outbox.cut_short(|bytes| bytes.push_line(|out| out.extend_from_slice(b"BYE slow")));
    assert_eq!(
        unwritten.iter().filter_map(|message| message.ticket).collect::<Vec<_>>(),
        [Ticket(2), Ticket(3)]
    );
    assert_eq!(rig.flush(999), " alice 1 hello\nBYE slow\n");
    assert_eq!(rig.written, [Ticket(1)]);
}
