//! Two ends of a link, and a broker between them that loses, returns and repeats.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::proto::{MessageId, UserName};

fn node(name: &str) -> NodeId {
    NodeId::new(name, "1").expect("valid")
}

fn envelope(ticket: Option<u64>, text: &str) -> Envelope {
    let user = |name| UserName::parse(name).expect("valid");
    let id = MessageId::Tag(ticket.unwrap_or(0).to_string().into());
    Envelope { number: ticket, from: user("alice"), to: user("bob"), id, text: text.into() }
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
    for n in 0..BATCHES_MAX as u64 {
        link.forward(&envelope(Some(n), "hi"), now);
        assert!(link.next(&me, now).is_some());
        assert!(link.next(&me, now).is_none());
    }
    for n in 0..100 {
        link.forward(&envelope(Some(100 + n), "hi"), now);
        assert!(link.next(&me, now).is_none(), "enough is on its way");
    }
    let have = Head { from: node("b"), number: 0, oldest: 0, have: 1, has_gap: false, first: 0 };
    assert_eq!(link.hear(&have, now), Heard::Nothing);
    let batch = link.next(&me, now).expect("there is room again");
    assert_eq!(messages(&mut Link::new(now), &batch, now).len(), 0, "the first batch is missing");
    let (head, items) = Head::parse(&batch).expect("our own");
    assert_eq!((head.number, head.oldest, head.first, items.count()), (5, 2, 5, 100));
    assert!(link.next(&me, now).is_none());
}

#[test]
fn batches_are_bounded() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = Link::new(now);
    let text = "x".repeat(4_000);
    for n in 0..60 {
        link.forward(&envelope(Some(n), &text), now);
    }
    for n in 0..200_000 {
        link.receipt(Fate::Delivered, n * 2);
    }
    let mut have = 0;
    let mut other = Link::new(now);
    let (mut count, mut receipts) = (0, 0);
    while let Some(batch) = link.next(&me, now) {
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
        link.hear(&Head { from: node("b"), number: 0, oldest: 0, have, has_gap: false, first: 0 }, now);
    }
    assert_eq!((count, receipts), (60, 200_000));
    // One that is longer than a batch goes alone.
    link.forward(&envelope(Some(1), "y"), now);
    link.forward(&envelope(Some(2), &"x".repeat(65_400)), now);
    link.forward(&envelope(Some(3), "y"), now);
    let sizes: Vec<usize> = std::iter::from_fn(|| link.next(&me, now)).map(|batch| batch.len()).collect();
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
        link.forward(&envelope(None, &text), now);
        count += 1;
    }
    assert!((250..=270).contains(&count), "{count}");
}

#[test]
fn receipts_become_ranges_and_settle_tickets() {
    let now = Instant::now();
    let mut link = Link::new(now);
    (0..10).for_each(|n| link.forward(&envelope(Some(1_000 + n), "hi"), now));
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
    link.forward(&envelope(Some(7), "one"), now);
    let first = link.next(&me, now).expect("due");
    link.forward(&envelope(Some(8), "two"), now);
    link.receipt(Fate::Delivered, 1);
    let second = link.next(&me, now).expect("due");
    let number = |batch: &[u8]| Head::parse(batch).expect("our own").0.number;
    let returned = link.returned(number(&first), now).expect("it is known");
    assert_eq!(returned, Returned { tickets: vec![7], maybe_seen: false });
    assert_eq!(link.returned(number(&first), now), None, "only once");
    let returned = link.returned(number(&second), now).expect("it is known");
    assert_eq!(returned, Returned { tickets: vec![8], maybe_seen: false });
    link.forward(&envelope(Some(9), "three"), now);
    assert!(link.next(&me, now).is_none(), "there is no queue; it is tried again later");
    let later = now + PROBE_TIME_MIN;
    let third = link.next(&me, later).expect("the probe");
    assert!(link.next(&me, later).is_none(), "one is enough");
    let (head, items) = Head::parse(&third).expect("our own");
    assert_eq!(other.hear(&head, later), Heard::Next, "what was returned is not waited for");
    let items: Vec<_> = items.map(Result::unwrap).collect();
    assert_eq!(items[0], Item::Receipts { fate: Fate::Delivered, first: 1, count: 1 });
    assert!(matches!(&items[1], Item::Message(message) if message.text == "three"), "{items:?}");
    // The second time, nobody knows what became of the first.
    let again = later + RESEND_TIME;
    link.tick(again);
    let third = link.next(&me, again).expect("silence");
    let returned = link.returned(number(&third), again).expect("it is known");
    assert_eq!(returned, Returned { tickets: vec![9], maybe_seen: true });
}

#[test]
fn what_is_too_old_is_given_up() {
    let (now, me) = (Instant::now(), node("a"));
    let (mut link, mut other) = (Link::new(now), Link::new(now));
    for n in 0..BATCHES_MAX as u64 + 1 {
        link.forward(&envelope(Some(n), "hi"), now);
        assert_eq!(link.next(&me, now).is_some(), n < BATCHES_MAX as u64);
    }
    let later = now + KEEP_TIME_MAX;
    link.tick(later);
    assert!(!link.is_active() && link.out.tickets.is_empty() && link.out.waiting_bytes == 0);
    link.forward(&envelope(Some(9), "hi"), later);
    let batch = link.next(&me, later).expect("due");
    assert_eq!(messages(&mut other, &batch, later), [(6, "hi".to_owned())]);
}

/// Both ends say things at random while the broker does its worst; in the end, each message
/// that was not returned has come once, in order, and each was settled.
fn chaos(seed: u64) {
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut now = Instant::now();
    let names = [node("a"), node("b")];
    let mut ends = [Link::new(now), Link::new(now)];
    let mut carried: [VecDeque<Vec<u8>>; 2] = Default::default();
    let mut said = [0_u64; 2];
    let mut heard: [Vec<u64>; 2] = Default::default();
    let mut settled: [HashMap<u64, Fate>; 2] = Default::default();
    let mut returned: [BTreeMap<u64, bool>; 2] = Default::default();
    let mut lossy = 2_000;
    loop {
        let me = next(2) as usize;
        match next(10) {
            0..4 if lossy > 0 => {
                for _ in 0..next(5) {
                    said[me] += 1;
                    ends[me].forward(&envelope(Some(said[me]), &said[me].to_string()), now);
                }
            }
            0..6 => {
                while let Some(batch) = ends[me].next(&names[me], now) {
                    carried[me].push_back(batch);
                }
            }
            6..9 => {
                let Some(batch) = carried[me].pop_front() else { continue };
                let fault = if lossy > 0 { next(20) } else { 9 };
                let number = Head::parse(&batch).expect("our own").0.number;
                match fault {
                    0 => continue,
                    1 => {
                        if let Some(back) = ends[me].returned(number, now) {
                            returned[me].extend(back.tickets.iter().map(|n| (*n, back.maybe_seen)));
                        }
                        continue;
                    }
                    2 => ends[me].lose(),
                    _ => {}
                }
                let to = 1 - me;
                let (_, items) = Head::parse(&batch).expect("our own");
                let is_next = {
                    let (head, _) = Head::parse(&batch).expect("our own");
                    let before = ends[to].heard.have;
                    let texts = messages(&mut ends[to], &batch, now);
                    for (number, text) in texts {
                        heard[to].push(text.parse().expect("a number"));
                        ends[to].receipt(Fate::Delivered, number);
                    }
                    head.number > before && ends[to].heard.have == head.number
                };
                for item in items.map(Result::unwrap).filter(|_| is_next) {
                    if let Item::Receipts { fate, first, count } = item {
                        ends[to].settle(first, count, |ticket| {
                            assert_eq!(settled[to].insert(ticket, fate), None, "seed {seed}");
                        });
                    }
                }
            }
            _ => {
                now += Duration::from_millis(if lossy > 0 { 20 } else { 300 });
                ends.iter_mut().for_each(|end| end.tick(now));
                lossy -= i32::from(lossy > 0);
                if lossy == 0
                    && ends.iter().all(|end| !end.is_active())
                    && carried.iter().all(VecDeque::is_empty)
                {
                    break;
                }
            }
        }
    }
    for me in [0, 1] {
        let (heard, settled, returned) = (&heard[1 - me], &settled[me], &returned[me]);
        assert!(heard.is_sorted_by(|a, b| a < b), "seed {seed}: in order, once");
        assert!(said[me] > 500 && heard.len() > 300, "seed {seed}: {} of {}", heard.len(), said[me]);
        for message in 1..=said[me] {
            let came = heard.binary_search(&message).is_ok();
            match returned.get(&message) {
                Some(false) => assert!(!came, "seed {seed}: {message} was never there"),
                Some(true) => {}
                None => assert!(came, "seed {seed}: {message} is lost"),
            }
            let is_settled = settled.contains_key(&message);
            assert!(is_settled || returned.contains_key(&message), "seed {seed}: {message} has no fate");
        }
    }
}

#[test]
fn a_broker_that_loses_and_returns_loses_no_message() {
    (0..12).for_each(chaos);
}
