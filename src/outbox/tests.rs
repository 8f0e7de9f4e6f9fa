//! What holds for an outbox whoever pushes and however its socket takes it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Wake;

use super::*;
use crate::proto::{MessageId, ServerLine, UserName};

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
    outbox: Arc<Outbox<Valve>>,
    dirty: Dirty<Valve>,
    written: Vec<Ticket>,
    keys: SeenKeys,
}

const BOUND: usize = 4096;
const KEY: SeenKey = SeenKey(7);

impl Rig {
    fn new() -> Self {
        let outbox = Outbox::new(Valve::default(), Framing::Lines, BOUND, &Arc::default());
        Rig { outbox: Arc::new(outbox), dirty: Dirty::default(), written: vec![], keys: KEY.into() }
    }

    fn message(&mut self, ticket: u64, text: &str) -> Push {
        self.push(ticket, text, Kind::Live, Instant::now())
    }

    /// Pushes what is called `ticket`: the same again is a copy, and has a ticket of its own.
    fn push(&mut self, ticket: u64, text: &str, kind: Kind, now: Instant) -> Push {
        let alice = UserName::parse("alice").expect("valid");
        let id = MessageId::Tag((ticket % 1_000).to_string().into());
        let line = format!("MSG alice {id} {text}");
        let hash = Some(self.keys.hash(line.as_bytes()));
        let message = Message {
            from: alice.borrowed(),
            id: id.borrowed(),
            line: line.as_bytes(),
            ticket: Some(Ticket(ticket)),
            hash,
            may_be_copy: true,
            kind,
        };
        self.outbox.push_message(message, now, &mut self.dirty)
    }

    fn acknowledge(&mut self, id: &str, now: Instant) -> Vec<u64> {
        let acked = self.outbox.acknowledge(id, "alice", now, &mut self.dirty);
        acked.tickets.iter().map(|ticket| ticket.0).collect()
    }

    fn reply(&mut self, tag: Option<&str>, text: &str) {
        self.outbox.reply(tag, &mut self.dirty, |out| ServerLine::Info(text).print(out));
    }

    fn answer(&mut self, to: &ReplyTo, text: &str) {
        self.outbox.answer(to, &mut self.dirty, |out| ServerLine::Info(text).print(out));
    }

    /// Lets `room` bytes through and returns what came.
    fn flush(&mut self, room: usize) -> String {
        self.outbox.sink().room.store(room, SeqCst);
        self.outbox.flush(Instant::now(), &mut self.written);
        let taken = std::mem::take(&mut *self.outbox.sink().taken.lock().expect("no panic"));
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
    assert_eq!(
        rig.outbox.has_room(),
        Some(false),
        "what waits has to be given back before anything new goes on"
    );
    assert!(owner.0.load(SeqCst) > 0);
    assert!(!rig.outbox.cut_short(|_| {}).is_empty());
    assert_eq!(rig.outbox.has_room(), None);
}

#[test]
fn those_who_wait_for_room_are_woken_when_a_closing_outbox_has_given_back() {
    let mut rig = Rig::new();
    let (sender, owner) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    rig.outbox.set_owner(&owner.clone().into());
    assert_eq!(rig.message(1, &"x".repeat(BOUND)), Push::Taken);
    rig.outbox.wait_for_room(&sender.clone().into());
    rig.outbox.close(CloseReason::Draining);
    rig.outbox.close(CloseReason::Slow);
    assert_eq!(owner.0.load(SeqCst), 1, "it has to end the connection");
    assert_eq!(sender.0.load(SeqCst), 0, "or what it sends next would overtake what waits");
    assert_eq!(rig.outbox.give_back(), [], "there is no ledger");
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
fn however_an_outbox_ends_those_who_wait_for_room_are_woken() {
    let ends: [fn(&Outbox<Valve>); 4] = [
        |outbox| drop(outbox.give_back()),
        |outbox| drop(outbox.cut_short(|_| {})),
        |outbox| outbox.finish(|_| {}),
        |outbox| drop(outbox.abandon()),
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let (mut rig, sender) = (Rig::new(), Arc::new(Woken::default()));
        rig.message(1, &"x".repeat(BOUND));
        rig.outbox.close(CloseReason::Slow);
        rig.outbox.wait_for_room(&sender.clone().into());
        assert_eq!(sender.0.load(SeqCst), 0, "{n}");
        end(&rig.outbox);
        assert_eq!(sender.0.load(SeqCst), 1, "{n}");
    }
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

fn tickets(messages: &[Unwritten]) -> Vec<u64> {
    messages.iter().filter_map(|message| Some(message.ticket?.0)).collect()
}

#[test]
fn a_message_waits_for_its_acknowledgement() {
    let (mut rig, now) = (Rig::new(), Instant::now());
    rig.outbox.set_acks(now);
    for ticket in 1..=3 {
        assert_eq!(rig.message(ticket, "hello"), Push::Taken);
    }
    assert_eq!(rig.flush(999), "MSG alice 1 hello\nMSG alice 2 hello\nMSG alice 3 hello\n");
    assert_eq!(rig.written, [], "being written is not enough");
    assert_eq!(rig.acknowledge("2", now), [2]);
    assert_eq!(rig.acknowledge("2", now), [0; 0], "once");
    assert_eq!(rig.acknowledge("nonsense", now), [0; 0]);
    assert_eq!(rig.message(1_001, "hello"), Push::Copy, "of what is not acknowledged yet");
    assert_eq!(rig.message(1_002, "hello"), Push::Copy, "of what is");
    assert_eq!(rig.flush(999), "");
    assert_eq!(rig.written, [Ticket(1_002)]);
    assert_eq!(rig.acknowledge("1", now), [1, 1_001]);
    let back = rig.outbox.abandon();
    assert_eq!(tickets(&back), [3]);
    assert_eq!(&back[0].line[..], b"MSG alice 3 hello");
}

#[test]
fn so_many_messages_may_be_unacknowledged() {
    let (mut rig, now) = (Rig::new(), Instant::now());
    rig.outbox.set_acks(now);
    for ticket in 0..UNACKED_MAX as u64 + 2 {
        assert_eq!(rig.message(ticket, ""), Push::Taken);
    }
    let shown = rig.flush(99_999);
    let shown: Vec<&str> = shown.lines().collect();
    // Here the bound in bytes, which each takes with its bookkeeping, comes first.
    assert!(shown.len() < UNACKED_MAX && shown.len() > 10, "{}", shown.len());
    assert_eq!(rig.acknowledge("0", now), [0]);
    let next = shown.len();
    assert_eq!(rig.flush(999), format!("MSG alice {next} \n"), "there is room for the next");
    rig.reply(None, "replies go on");
    assert_eq!(rig.flush(999), "INFO replies go on\n");
    for number in 1..UNACKED_MAX + 2 {
        assert_eq!(rig.acknowledge(&number.to_string(), now), [number as u64]);
        rig.flush(99_999);
    }
    assert_eq!(rig.outbox.abandon(), []);
}

#[test]
fn what_is_not_acknowledged_in_time_is_given_back() {
    let (mut rig, start) = (Rig::new(), Instant::now());
    rig.outbox.set_acks(start);
    let after = |ms: u64| start + std::time::Duration::from_millis(ms);
    rig.push(1, "hello", Kind::Live, start);
    rig.push(2, "hello", Kind::Live, after(2_000));
    let age = |rig: &mut Rig, ms: u64| rig.outbox.age(after(ms), &mut Dirty::default());
    assert_eq!(age(&mut rig, 4_999), Overdue::default());
    assert_eq!(age(&mut rig, 5_000).slow, [Ticket(1)]);
    assert_eq!(age(&mut rig, 7_000).slow, [Ticket(2)], "each once");
    assert_eq!(tickets(&age(&mut rig, 10_000).given_back), [1]);
    assert_eq!(rig.message(1_001, "hello"), Push::Unacked, "it was shown, and went elsewhere");
    let acked = |rig: &mut Rig| rig.outbox.acknowledge("1", "alice", after(10_500), &mut rig.dirty);
    let Acked { tickets: waiting, late } = acked(&mut rig);
    assert!(waiting.is_empty() && late.is_some());
    assert_eq!(acked(&mut rig), Acked { tickets: vec![], late: None }, "once");
    let mut other = Rig::new();
    late.into_iter().for_each(|hash| other.outbox.remember(hash));
    assert_eq!(other.message(2_001, "hello"), Push::Copy, "another session of the user knows");
    assert_eq!(rig.message(2_001, "hello"), Push::Copy, "but the session has it after all");
    rig.flush(999);
    assert_eq!(rig.written, [Ticket(2_001)]);
    assert_eq!(tickets(&age(&mut rig, 12_000).given_back), [2]);
    assert_eq!(age(&mut rig, 60_000), Overdue::default());
}

#[test]
fn too_much_that_waits_for_acknowledgements_makes_a_slow_consumer() {
    let (mut rig, start) = (Rig::new(), Instant::now());
    rig.outbox.set_acks(start);
    let mut ticket = 0;
    while rig.outbox.has_room() == Some(true) {
        ticket += 1;
        rig.push(ticket, &"x".repeat(500), Kind::Live, start);
        rig.flush(99_999);
    }
    let stalls = |rig: &Rig, after: std::time::Duration| {
        rig.outbox.age(start + after, &mut Dirty::default()).is_stalled
    };
    let limit = ledger::FULL_ACK_TIME_MAX;
    assert!(rig.outbox.takes_requests(), "the connection is read all the same: acknowledgements may come");
    assert!(!stalls(&rig, limit - std::time::Duration::from_millis(1)) && stalls(&rig, limit));
    rig.acknowledge("1", start + limit);
    assert!(!stalls(&rig, limit));
}

#[test]
fn live_messages_wait_for_the_mailbox() {
    for acks in [false, true] {
        let (mut rig, now) = (Rig::new(), Instant::now());
        if acks {
            rig.outbox.set_acks(now);
        }
        rig.outbox.start_draining(now);
        assert_eq!(rig.push(3, "live", Kind::Live, now), Push::Taken);
        assert_eq!(rig.push(1, "mail", Kind::Mail, now), Push::Taken);
        assert_eq!(rig.push(1_003, "live", Kind::Live, now), Push::Copy);
        assert_eq!(rig.flush(999), "MSG alice 1 mail\n");
        assert_eq!(rig.push(2, "mail", Kind::Mail, now), Push::Taken);
        rig.outbox.end_draining(now, &mut rig.dirty);
        rig.push(4, "live", Kind::Live, now);
        assert_eq!(rig.flush(999), "MSG alice 2 mail\nMSG alice 3 live\nMSG alice 4 live\n");
        let all: Vec<u64> = match acks {
            false => rig.written.iter().map(|ticket| ticket.0).collect(),
            true => ["1", "2", "3", "4"].iter().flat_map(|id| rig.acknowledge(id, now)).collect(),
        };
        assert_eq!(all, [1, 2, 3, 1_003, 4], "{acks}");
    }
}

#[test]
fn what_waits_behind_the_mailbox_for_too_long_goes_there_and_comes_from_there() {
    let (mut rig, start) = (Rig::new(), Instant::now());
    rig.outbox.start_draining(start);
    rig.push(1, "live", Kind::Live, start);
    let back = rig.outbox.age(start + ACK_TIME_MAX, &mut Dirty::default()).given_back;
    assert_eq!(tickets(&back), [1]);
    rig.outbox.end_draining(start, &mut rig.dirty);
    assert_eq!(rig.flush(999), "");
    assert_eq!(rig.push(1_001, "live", Kind::Live, start), Push::Unacked);
    assert_eq!(rig.push(2_001, "live", Kind::Mail, start), Push::Taken);
    assert_eq!(rig.flush(999), "MSG alice 1 live\n");
    assert_eq!(rig.written, [Ticket(2_001)]);
}

#[test]
fn a_message_from_the_mailbox_has_its_time_from_when_it_is_shown() {
    let (mut rig, start) = (Rig::new(), Instant::now());
    rig.outbox.set_acks(start);
    rig.outbox.start_draining(start);
    for ticket in 1..=100 {
        rig.push(ticket, "mail", Kind::Mail, start);
    }
    rig.push(999, "live", Kind::Live, start);
    let shown = rig.flush(99_999).lines().count() as u64;
    assert!((10..100).contains(&shown), "the bound lets {shown} be shown");
    let later = start + ACK_TIME_MAX - std::time::Duration::from_secs(1);
    assert_eq!(rig.acknowledge("1", later), [1]);
    assert_eq!(rig.flush(999), format!("MSG alice {} mail\n", shown + 1));
    let given_back = |rig: &mut Rig, now| tickets(&rig.outbox.age(now, &mut Dirty::default()).given_back);
    let first: Vec<u64> = (2..=shown).chain([999]).collect();
    assert_eq!(given_back(&mut rig, start + ACK_TIME_MAX), first);
    assert_eq!(given_back(&mut rig, later + ACK_TIME_MAX), [shown + 1]);
}

#[test]
fn what_a_session_has_not_taken_is_outstanding() {
    let outstanding = |rig: &Rig| -> Vec<(u64, String)> {
        let all = rig.outbox.outstanding(|_| true).into_iter();
        all.map(|(ticket, line)| (ticket.0, String::from_utf8_lossy(&line).into_owned())).collect()
    };
    let expected = |tickets: &[u64]| -> Vec<(u64, String)> {
        tickets.iter().map(|ticket| (*ticket, format!("MSG alice {} hello", ticket % 1_000))).collect()
    };
    let (mut rig, now) = (Rig::new(), Instant::now());
    for ticket in 1..=3 {
        rig.message(ticket, "hello");
    }
    assert_eq!(rig.message(1_002, "hello"), Push::Copy);
    rig.flush(20);
    assert_eq!(outstanding(&rig), expected(&[2, 3]), "a copy has no line");
    rig.flush(999);
    assert_eq!(outstanding(&rig), []);
    let mut rig = Rig::new();
    rig.outbox.set_acks(now);
    rig.outbox.start_draining(now);
    rig.push(1, "hello", Kind::Live, now);
    rig.push(2, "hello", Kind::Mail, now);
    assert_eq!(outstanding(&rig), expected(&[2, 1]));
    rig.outbox.end_draining(now, &mut rig.dirty);
    rig.flush(999);
    assert_eq!(outstanding(&rig), expected(&[2, 1]), "shown, and not acknowledged");
    rig.acknowledge("2", now);
    rig.acknowledge("1", now);
    assert_eq!(outstanding(&rig), []);
}

#[test]
fn only_what_was_shown_counts_as_shown() {
    let hash = |id: u64| KEY.hash(format!("MSG alice {id} hello").as_bytes());
    let shown = |rig: &Rig| {
        let mut shown = rig.outbox.shown(KEY.into()).all;
        shown.sort_unstable();
        shown
    };
    let sorted = |ids: &[u64]| {
        let mut hashes: Vec<u64> = ids.iter().map(|id| hash(*id)).collect();
        hashes.sort_unstable();
        hashes
    };
    let mut rig = Rig::new();
    for ticket in 1..=3 {
        assert_eq!(rig.message(ticket, "hello"), Push::Taken);
    }
    assert_eq!(shown(&rig), [0; 0]);
    rig.flush(20);
    assert_eq!(shown(&rig), sorted(&[1]), "the second is written in part");
    rig.flush(999);
    assert_eq!(shown(&rig), sorted(&[1, 2, 3]));
    let now = Instant::now();
    let mut next = Rig::new();
    next.outbox.inherit(&shown(&rig));
    next.outbox.set_acks(now);
    assert_eq!(next.message(1, "hello"), Push::Copy);
    assert_eq!(next.message(4, "hello"), Push::Taken);
    next.flush(999);
    assert_eq!(shown(&next), sorted(&[1, 2, 3]), "the fourth is not acknowledged");
    next.acknowledge("4", now);
    assert_eq!(shown(&next), sorted(&[1, 2, 3, 4]));
}

#[test]
fn a_copy_is_known_by_the_key_before() {
    let now = Instant::now();
    for acks in [false, true] {
        let mut rig = Rig::new();
        if acks {
            rig.outbox.set_acks(now);
        }
        assert_eq!(rig.push(1, "hello", Kind::Live, now), Push::Taken);
        rig.keys = SeenKeys { now: SeenKey(8), before: Some(KEY) };
        assert_eq!(rig.push(1, "hello", Kind::Live, now), Push::Copy);
        assert_eq!(rig.push(2, "hello", Kind::Live, now), Push::Taken);
        assert!(rig.outbox.shown(rig.keys).all.is_empty(), "neither is written");
        rig.keys.before = None;
        assert_eq!(rig.push(2, "hello", Kind::Live, now), Push::Copy);
        assert_eq!(rig.push(1, "hello", Kind::Live, now), Push::Taken);
    }
}
