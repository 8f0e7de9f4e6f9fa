//! Two ends of a link, and a broker between them that loses, returns and repeats.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::cluster::volume::{SMALL_BATCHES_MAX, SMALL_BYTES_MAX};
use crate::proto::{Envelope, MessageId, UserName};

fn node(name: &str) -> NodeId {
    NodeId::new(name, "1").expect("valid")
}

fn envelope(ticket: Option<u64>, text: &str) -> Envelope {
    let user = |name| UserName::parse(name).expect("valid");
    let id = MessageId::Tag(ticket.unwrap_or(0).to_string().into());
    Envelope {
        number: ticket,
        is_shared: false,
        is_again: false,
        from: user("alice"),
        to: user("bob"),
        id,
        text: text.into(),
    }
}

/// The next batch of a link.
fn next(link: &mut Link, me: &NodeId, now: Instant) -> Option<Vec<u8>> {
    let mut batch = vec![];
    link.next(me, now, &mut batch).then_some(batch)
}

/// A word of the other end: it has every batch up to this one.
fn word(have: u64) -> Head {
    Head { from: node("b"), number: 0, oldest: 0, have, has_gap: false, asks_word: false, first: 0 }
}

/// What a batch that was heard says.
fn messages(link: &mut Link, batch: &[u8], now: Instant) -> Vec<(u64, String)> {
    let (head, items) = Head::parse(batch).expect("our own");
    if link.hear(&head, now) == Heard::Nothing {
        return vec![];
    }
    let messages = items.filter_map(|item| match item.expect("our own") {
        Item::Message(message) => Some(message.text.to_owned()),
        _ => None,
    });
    messages.enumerate().map(|(n, text)| (head.first + n as u64, text)).collect()
}

#[test]
fn an_idle_link_sends_at_once_and_a_busy_one_gathers() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    let text = "x".repeat(SMALL_BYTES_MAX / BATCHES_MAX);
    for n in 0..BATCHES_MAX as u64 {
        link.forward(envelope(Some(n), &text).borrowed(), now);
        assert!(next(&mut link, &me, now).is_some());
        assert!(next(&mut link, &me, now).is_none());
    }
    for n in 0..100 {
        link.forward(envelope(Some(100 + n), "hi").borrowed(), now);
        assert!(next(&mut link, &me, now).is_none(), "enough is on its way");
    }
    assert_eq!(link.hear(&word(1), now), Heard::Nothing);
    let batch = next(&mut link, &me, now).expect("there is room again");
    assert_eq!(messages(&mut Link::new(now), &batch, now).len(), 0, "the first batch is missing");
    let (head, items) = Head::parse(&batch).expect("our own");
    assert_eq!((head.number, head.oldest, head.first, items.count()), (5, 2, 5, 100));
    assert!(next(&mut link, &me, now).is_none());
}

/// How many messages with such a text go at once, each in a batch of its own.
fn batches_at_once(text: &str) -> usize {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    let go = |n: &usize| {
        link.forward(envelope(Some(*n as u64), text).borrowed(), now);
        next(&mut link, &me, now).is_some()
    };
    (0..1_000).take_while(go).count()
}

#[test]
fn more_batches_are_on_their_way_while_they_are_small() {
    assert_eq!(batches_at_once("hi"), SMALL_BATCHES_MAX);
    let some = batches_at_once(&"x".repeat(300));
    assert!((SMALL_BYTES_MAX / 350..=SMALL_BYTES_MAX / 300 + 1).contains(&some), "{some}");
    assert_eq!(batches_at_once(&"x".repeat(10_000)), BATCHES_MAX);
}

#[test]
fn with_a_broker_that_loses_nothing_nobody_waits_for_the_time_to_pass() {
    for seed in 0..50 {
        let (now, names) = (Instant::now(), [node("a"), node("b")]);
        let mut world = World::new(seed);
        let [here, there] = &mut world.ends;
        let (mut said, mut came, mut words, mut batches) = (0, 0, 0, 0);
        let length = 1 + seed as usize * seed as usize;
        while came < 2_000 {
            for _ in 0..1 + said % 3 {
                here.forward(envelope(None, &"x".repeat(length)).borrowed(), now);
                said += 1;
            }
            while let Some(batch) = next(here, &names[0], now) {
                let (head, items) = Head::parse(&batch).expect("our own");
                assert_eq!(there.hear(&head, now), Heard::Next);
                came += items.count();
                batches += 1;
            }
            // What waits for a word gets one.
            if here.has_waiting() {
                let word = next(there, &names[1], now).expect("it was asked for");
                here.hear(&Head::parse(&word).expect("our own").0, now);
                words += 1;
                assert!(here.is_due(now), "seed {seed}: the way is free again");
            }
        }
        assert!(words * BATCHES_MAX <= batches + BATCHES_MAX, "{words} words for {batches} batches");
    }
}

#[test]
fn batches_are_bounded() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    let text = "x".repeat(4_000);
    for n in 0..60 {
        link.forward(envelope(Some(n), &text).borrowed(), now);
    }
    for n in 0..200_000 {
        link.receipt(Fate::Delivered, n * 2);
    }
    let mut have = 0;
    let mut other = Link::new(now);
    let (mut count, mut receipts) = (0, 0);
    while let Some(batch) = next(&mut link, &me, now) {
        assert!(batch.len() <= BATCH_BYTES_MAX, "{} bytes", batch.len());
        let (head, items) = Head::parse(&batch).expect("our own");
        assert_eq!(other.hear(&head, now), Heard::Next);
        for item in items.map(Result::unwrap) {
            match item {
                Item::Message(_) => count += 1,
                Item::Receipts { count, .. } => receipts += count,
                item => panic!("{item:?}"),
            }
        }
        have += 1;
        link.hear(&word(have), now);
    }
    assert_eq!((count, receipts), (60, 200_000));
    // One that is longer than a batch goes alone.
    link.forward(envelope(Some(1), "y").borrowed(), now);
    link.forward(envelope(Some(2), &"x".repeat(65_400)).borrowed(), now);
    link.forward(envelope(Some(3), "y").borrowed(), now);
    let sizes: Vec<usize> =
        std::iter::from_fn(|| next(&mut link, &me, now)).map(|batch| batch.len()).collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes[1] > 65_400);
}

#[test]
fn casts_wait_in_bounds() {
    let now = Instant::now();
    let mut link = Link::new(now);
    let text = "x".repeat(4_000);
    let mut count = 0;
    while link.takes_casts() {
        link.forward(envelope(None, &text).borrowed(), now);
        count += 1;
    }
    assert!((250..=270).contains(&count), "{count}");
}

#[test]
fn receipts_become_ranges_and_settle_tickets() {
    let now = Instant::now();
    let mut link = Link::new(now);
    (0..10).for_each(|n| link.forward(envelope(Some(1_000 + n), "hi").borrowed(), now));
    let mut settled = vec![];
    link.settle(3, 2, |ticket| settled.push(ticket));
    link.settle(1, u64::MAX, |ticket| settled.push(ticket));
    assert_eq!(settled, [1002, 1003, 1000, 1001, 1004, 1005, 1006, 1007, 1008, 1009]);
    assert!(link.out.tickets.is_empty());
    link.settle(0, u64::MAX, |ticket| panic!("{ticket} twice"));
    for message in [1, 2, 3, 5, 6] {
        link.receipt(Fate::Delivered, message);
    }
    link.receipt(Fate::NotHere, 7);
    let ranges: Vec<_> = link.out.receipts.iter().map(|r| (r.fate, r.first, r.count)).collect();
    assert_eq!(ranges, [(Fate::Delivered, 1, 3), (Fate::Delivered, 5, 2), (Fate::NotHere, 7, 1)]);
}

#[test]
fn a_returned_batch_gives_its_messages_back_and_keeps_the_rest() {
    let (now, me) = (Instant::now(), node("a"));
    let (mut link, mut other) = (Link::new(now), Link::new(now));
    link.forward(envelope(Some(7), "one").borrowed(), now);
    let first = next(&mut link, &me, now).expect("due");
    link.forward(envelope(Some(8), "two").borrowed(), now);
    link.receipt(Fate::Delivered, 1);
    let second = next(&mut link, &me, now).expect("due");
    let number = |batch: &[u8]| Head::parse(batch).expect("our own").0.number;
    let returned = link.returned(number(&first), now).expect("it is known");
    assert_eq!(returned, Returned { tickets: vec![7], maybe_seen: false });
    assert_eq!(link.returned(number(&first), now), None, "only once");
    let returned = link.returned(number(&second), now).expect("it is known");
    assert_eq!(returned, Returned { tickets: vec![8], maybe_seen: false });
    link.forward(envelope(Some(9), "three").borrowed(), now);
    assert!(next(&mut link, &me, now).is_none(), "there is no queue; it is tried again later");
    let later = now + PROBE_TIME_MIN;
    let third = next(&mut link, &me, later).expect("the probe");
    assert!(next(&mut link, &me, later).is_none(), "one is enough");
    let (head, items) = Head::parse(&third).expect("our own");
    assert_eq!(other.hear(&head, later), Heard::Next, "what was returned is not waited for");
    let items: Vec<_> = items.map(Result::unwrap).collect();
    assert_eq!(items[0], Item::Receipts { fate: Fate::Delivered, first: 1, count: 1 });
    assert!(matches!(&items[1], Item::Message(message) if message.text == "three"), "{items:?}");
    // The second time, nobody knows what became of the first.
    let again = later + RESEND_TIME;
    link.tick(again);
    let third = next(&mut link, &me, again).expect("silence");
    let returned = link.returned(number(&third), again).expect("it is known");
    assert_eq!(returned, Returned { tickets: vec![9], maybe_seen: true });
}

#[test]
fn what_is_too_old_is_given_up() {
    let (now, me) = (Instant::now(), node("a"));
    let (mut link, mut other) = (Link::new(now), Link::new(now));
    for n in 0..SMALL_BATCHES_MAX as u64 + 1 {
        link.forward(envelope(Some(n), "hi").borrowed(), now);
        assert_eq!(next(&mut link, &me, now).is_some(), n < SMALL_BATCHES_MAX as u64);
    }
    let later = now + KEEP_TIME_MAX;
    link.tick(later);
    assert!(!link.is_active() && link.out.tickets.is_empty() && link.out.waiting_bytes == 0);
    link.forward(envelope(Some(9), "hi").borrowed(), later);
    let batch = next(&mut link, &me, later).expect("due");
    assert_eq!(messages(&mut other, &batch, later), [(SMALL_BATCHES_MAX as u64 + 2, "hi".to_owned())]);
}

/// Two ends and what the broker carries between them.
struct World {
    seed: u64,
    random: u64,
    now: Instant,
    ends: [Link; 2],
    carried: [VecDeque<Vec<u8>>; 2],
    said: [u64; 2],
    heard: [Vec<u64>; 2],
    settled: [HashMap<u64, Fate>; 2],
    /// What came back, and whether it may have been seen.
    returned: [BTreeMap<u64, bool>; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        World {
            seed,
            random: seed,
            now,
            ends: [Link::new(now), Link::new(now)],
            carried: Default::default(),
            said: [0; 2],
            heard: Default::default(),
            settled: Default::default(),
            returned: Default::default(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn say(&mut self, me: usize) {
        for _ in 0..self.random(5) {
            self.said[me] += 1;
            let n = self.said[me];
            self.ends[me].forward(envelope(Some(n), &n.to_string()).borrowed(), self.now);
        }
    }

    fn publish(&mut self, me: usize) {
        let name = node(["a", "b"][me]);
        while let Some(batch) = next(&mut self.ends[me], &name, self.now) {
            self.carried[me].push_back(batch);
        }
    }

    /// The broker carries a batch, loses it, returns it, or dies for its sender.
    fn carry(&mut self, me: usize, fault: u64) {
        let Some(batch) = self.carried[me].pop_front() else { return };
        let (head, _) = Head::parse(&batch).expect("our own");
        match fault {
            0 => {}
            1 => {
                let back = self.ends[me].returned(head.number, self.now);
                if let Some(back) = back {
                    self.returned[me].extend(back.tickets.iter().map(|n| (*n, back.maybe_seen)));
                }
            }
            _ => {
                if fault == 2 {
                    self.ends[me].lose();
                }
                self.hear(1 - me, &batch);
            }
        }
    }

    fn hear(&mut self, me: usize, batch: &[u8]) {
        let (head, items) = Head::parse(batch).expect("our own");
        if self.ends[me].hear(&head, self.now) == Heard::Nothing {
            return;
        }
        let mut number = head.first;
        for item in items.map(Result::unwrap) {
            match item {
                Item::Message(message) => {
                    self.heard[me].push(message.text.parse().expect("a number"));
                    self.ends[me].receipt(Fate::Delivered, number);
                    number += 1;
                }
                Item::Receipts { fate, first, count } => {
                    let (settled, seed) = (&mut self.settled[me], self.seed);
                    self.ends[me].settle(first, count, |ticket| {
                        assert_eq!(settled.insert(ticket, fate), None, "seed {seed}");
                    });
                }
                item => panic!("{item:?}"),
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.ends.iter().all(|end| !end.is_active()) && self.carried.iter().all(VecDeque::is_empty)
    }

    /// Each message has come once, in order, and was settled, unless it was returned.
    fn check(&self) {
        let seed = self.seed;
        for me in [0, 1] {
            let (heard, settled, returned) = (&self.heard[1 - me], &self.settled[me], &self.returned[me]);
            assert!(heard.is_sorted_by(|a, b| a < b), "seed {seed}: in order, once");
            assert!(heard.len() > 300, "seed {seed}: {} of {}", heard.len(), self.said[me]);
            for message in 1..=self.said[me] {
                let came = heard.binary_search(&message).is_ok();
                match returned.get(&message) {
                    Some(false) => assert!(!came, "seed {seed}: {message} was never there"),
                    Some(true) => {}
                    None => assert!(came, "seed {seed}: {message} is lost"),
                }
                let has_fate = settled.contains_key(&message) || returned.contains_key(&message);
                assert!(has_fate, "seed {seed}: {message} has no fate");
            }
        }
    }
}

#[test]
fn a_broker_that_loses_and_returns_loses_no_message() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        let mut troubles = 2_000;
        while troubles > 0 || !world.is_quiet() {
            let me = world.random(2) as usize;
            match world.random(10) {
                0..4 if troubles > 0 => world.say(me),
                0..6 => world.publish(me),
                6..9 => {
                    // Faster than batches are said again, or what is too old would be given up.
                    for _ in 0..8 {
                        let fault = if troubles > 0 { world.random(20) } else { 20 };
                        world.carry(me, fault);
                    }
                }
                _ => {
                    world.now += Duration::from_millis(if troubles > 0 { 20 } else { 300 });
                    let now = world.now;
                    world.ends.iter_mut().for_each(|end| end.tick(now));
                    troubles -= i32::from(troubles > 0);
                }
            }
        }
        world.check();
    }
}

#[test]
fn what_waits_for_a_broker_that_stays_away_is_given_up() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    link.forward(envelope(Some(1), "published").borrowed(), now);
    assert!(next(&mut link, &me, now).is_some());
    link.forward(envelope(Some(2), "never published").borrowed(), now);
    link.forward(envelope(None, "nor this").borrowed(), now);
    let bob = UserName::parse("bob").expect("valid");
    link.say(&Item::Also { user: bob.borrowed(), login: 7 }, now);
    assert_eq!(link.give_up_waiting(now), [2]);
    let batch = next(&mut link, &me, now).expect("the rest waits on");
    let items: Vec<_> = Head::parse(&batch).expect("our own").1.map(Result::unwrap).collect();
    assert_eq!(items, [Item::Also { user: bob.borrowed(), login: 7 }]);
    let mut settled = vec![];
    link.settle(1, 2, |ticket| settled.push(ticket));
    assert_eq!(settled, [1]);
}

#[test]
fn receipts_that_never_come_hold_no_memory() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    link.forward(envelope(Some(1), "hi").borrowed(), now);
    link.forward(envelope(Some(2), "hi").borrowed(), now);
    assert!(next(&mut link, &me, now).is_some());
    link.hear(&word(1), now);
    assert!(!link.is_active() && !link.is_quiet(), "receipts are due");
    link.forward(envelope(Some(3), "hi").borrowed(), now + ANSWER_TIME_MAX);
    link.tick(now + ANSWER_TIME_MAX);
    assert_eq!(link.out.tickets, [Some(3)]);
    let mut settled = vec![];
    link.settle(1, 9, |ticket| settled.push(ticket));
    assert_eq!(settled, [3]);
}

#[test]
fn the_buffer_of_a_batch_that_came_is_used_again_and_given_back_at_rest() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    link.forward(envelope(Some(1), &"x".repeat(1_000)).borrowed(), now);
    let place = link.out.waiting[0].items.as_ptr().addr();
    assert!(next(&mut link, &me, now).is_some());
    link.hear(&word(1), now);
    link.forward(envelope(Some(2), "hi").borrowed(), now);
    assert_eq!(link.out.waiting[0].items.as_ptr().addr(), place);
    assert!(next(&mut link, &me, now).is_some());
    link.hear(&word(2), now);
    assert!(!link.is_active() && !link.is_quiet(), "its receipt may be on its way");
    link.give_memory_back();
    assert_eq!(link.out.spares.capacity(), 0);
}
