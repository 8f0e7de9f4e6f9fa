//! What a link sends when, keeps, and gives back. A broker that loses, returns and repeats at random is the
//! simulator's (`tests/sim`).

use super::*;
use crate::proto::name::{IdRef, Tag, UserRef};
use crate::proto::wire::{Receipt, VERSION, put_body};

fn node(name: &str) -> NodeId {
    NodeId::new(name, "1").expect("valid")
}

fn user(name: &str) -> UserRef<'_> {
    UserRef::parse(name).expect("valid")
}

fn fresh(now: Instant) -> Link {
    Link::new(node("other"), now)
}

/// Says a message; tells whether there was room for it.
fn forward(link: &mut Link, ticket: Option<u64>, text: &str, now: Instant) -> bool {
    let id = ticket.unwrap_or(0).to_string();
    let mut body = vec![];
    put_body(user("alice"), user("bob"), IdRef::Tag(Tag::parse(&id).expect("valid")), text, &mut body);
    link.say(Say::Message { ticket, is_first: false, body: &body }, now)
}

fn say(link: &mut Link, item: &Item<'_>, now: Instant) {
    let mut printed = vec![];
    item.print(&mut printed);
    assert!(link.say(Say::Item(&printed), now));
}

fn receipt(link: &mut Link, receipt: Receipt, number: u64, now: Instant) {
    assert!(link.say(Say::Receipt(number, receipt), now));
}

fn settle(link: &mut Link, first: u64, count: u64) -> Vec<u64> {
    let mut tickets = vec![];
    link.settle(first, count, &mut tickets);
    tickets
}

fn number(batch: &[u8]) -> u64 {
    Head::parse(batch).expect("our own").0.number
}

fn back(tickets: &[u64], casts: u64, cause: Cause) -> ClusterEvent {
    ClusterEvent::Returned(Returned { node: node("other"), tickets: tickets.to_vec(), casts, cause })
}

/// What a link has to tell when that is done with it.
fn events(work: impl FnOnce(&mut Vec<ClusterEvent>)) -> Vec<ClusterEvent> {
    let mut events = vec![];
    work(&mut events);
    events
}

/// A batch comes back.
fn returned(link: &mut Link, number: u64, now: Instant) -> Vec<ClusterEvent> {
    events(|events| link.returned(number, now, events))
}

/// The next batch of a link.
fn next(link: &mut Link, me: &NodeId, now: Instant) -> Option<Vec<u8>> {
    let mut batch = vec![];
    link.next(me, VERSION, now, &mut batch).then_some(batch)
}

/// A word of the other end: it has every batch up to this one.
fn word(have: u64) -> Head {
    let from = node("b");
    Head { version: VERSION, from, number: 0, oldest: 0, have, has_gap: false, asks_word: false, first: 0 }
}

/// What a batch that was heard says.
fn messages(link: &mut Link, batch: &[u8], now: Instant) -> Vec<(u64, String)> {
    let (head, items) = Head::parse(batch).expect("our own");
    if !link.hear(&head, now) {
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
    let mut link = fresh(now);
    let text = "x".repeat(SMALL_BYTES_MAX / BATCHES_MAX);
    for n in 0..BATCHES_MAX as u64 {
        forward(&mut link, Some(n), &text, now);
        assert!(next(&mut link, &me, now).is_some());
        assert!(next(&mut link, &me, now).is_none());
    }
    for n in 0..100 {
        forward(&mut link, Some(100 + n), "hi", now);
        assert!(next(&mut link, &me, now).is_none(), "enough is on its way");
    }
    assert!(!link.hear(&word(1), now));
    let batch = next(&mut link, &me, now).expect("there is room again");
    assert_eq!(messages(&mut fresh(now), &batch, now).len(), 0, "the first batch is missing");
    let (head, items) = Head::parse(&batch).expect("our own");
    assert_eq!((head.number, head.oldest, head.first, items.count()), (5, 2, 5, 100));
    assert!(next(&mut link, &me, now).is_none());
}

/// How many messages with such a text go at once, each in a batch of its own.
fn batches_at_once(text: &str) -> usize {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    let go = |n: &usize| {
        forward(&mut link, Some(*n as u64), text, now);
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
        let [here, there] = &mut [fresh(now), fresh(now)];
        let (mut said, mut came, mut words, mut batches) = (0, 0, 0, 0);
        let length = 1 + seed as usize * seed as usize;
        while came < 2_000 {
            for _ in 0..1 + said % 3 {
                forward(here, None, &"x".repeat(length), now);
                said += 1;
            }
            while let Some(batch) = next(here, &names[0], now) {
                let (head, items) = Head::parse(&batch).expect("our own");
                assert!(there.hear(&head, now));
                came += items.count();
                batches += 1;
            }
            // What waits for a word gets one.
            if !here.waiting.is_empty() {
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
    let mut link = fresh(now);
    let text = "x".repeat(4_000);
    for n in 0..60 {
        forward(&mut link, Some(n), &text, now);
    }
    for n in 0..200_000 {
        receipt(&mut link, Receipt::Delivered, n * 2, now);
    }
    let mut have = 0;
    let mut other = fresh(now);
    let (mut count, mut receipts) = (0, 0);
    while let Some(batch) = next(&mut link, &me, now) {
        assert!(batch.len() <= BATCH_BYTES_MAX, "{} bytes", batch.len());
        let (head, items) = Head::parse(&batch).expect("our own");
        assert!(other.hear(&head, now));
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
    forward(&mut link, Some(1), "y", now);
    forward(&mut link, Some(2), &"x".repeat(65_400), now);
    forward(&mut link, Some(3), "y", now);
    let sizes: Vec<usize> =
        std::iter::from_fn(|| next(&mut link, &me, now)).map(|batch| batch.len()).collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes[1] > 65_400);
}

#[test]
fn casts_wait_in_bounds() {
    let now = Instant::now();
    let mut link = fresh(now);
    let text = "x".repeat(4_000);
    let mut count = 0;
    while forward(&mut link, None, &text, now) {
        count += 1;
    }
    assert!(forward(&mut link, Some(1), &text, now), "what has a receipt is bounded by the node");
    assert!((250..=270).contains(&count), "{count}");
}

#[test]
fn receipts_become_ranges_and_settle_tickets() {
    let now = Instant::now();
    let mut link = fresh(now);
    (0..10).for_each(|n| assert!(forward(&mut link, Some(1_000 + n), "hi", now)));
    assert_eq!(settle(&mut link, 3, 2), [1002, 1003]);
    let mut waiting = vec![];
    link.open(2, 3, &mut waiting);
    assert_eq!(waiting, [1001], "the others are settled");
    assert_eq!(settle(&mut link, 1, u64::MAX), [1000, 1001, 1004, 1005, 1006, 1007, 1008, 1009]);
    assert!(link.tickets.is_empty() && settle(&mut link, 0, u64::MAX).is_empty());
    for message in [1, 2, 3, 5, 6] {
        receipt(&mut link, Receipt::Delivered, message, now);
    }
    receipt(&mut link, Receipt::NotHere, 7, now);
    let range = |receipt, first, count| Item::Receipts { receipt, first, count };
    let expected =
        [range(Receipt::Delivered, 1, 3), range(Receipt::Delivered, 5, 2), range(Receipt::NotHere, 7, 1)];
    assert_eq!(link.receipts, expected);
}

#[test]
fn a_receipt_does_not_pass_what_was_said_before_it() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    let further = Item::Further { user: user("bob"), node: "c-1" };
    // So much waits that it takes three batches; the notice stands in the second.
    (0..40).for_each(|n| assert!(forward(&mut link, Some(n), &"x".repeat(2_500), now)));
    say(&mut link, &further, now);
    (0..40).for_each(|n| assert!(forward(&mut link, Some(n), &"x".repeat(2_500), now)));
    receipt(&mut link, Receipt::Delivered, 1, now);
    let mut words = vec![];
    while let Some(batch) = next(&mut link, &me, now) {
        let items = Head::parse(&batch).expect("our own").1.map(Result::unwrap);
        let others = items.filter(|item| !matches!(item, Item::Message(_)));
        words.push(others.map(|item| format!("{item:?}")).collect::<Vec<_>>());
    }
    let receipts = Item::Receipts { receipt: Receipt::Delivered, first: 1, count: 1 };
    let (none, both) = (vec![], vec![format!("{further:?}"), format!("{receipts:?}")]);
    assert_eq!(words, [none.clone(), both, none.clone(), none]);
}

#[test]
fn a_returned_batch_gives_all_messages_back_and_keeps_the_rest() {
    let (now, me) = (Instant::now(), node("a"));
    let (mut link, mut other) = (fresh(now), fresh(now));
    forward(&mut link, Some(7), "one", now);
    let first = next(&mut link, &me, now).expect("due");
    forward(&mut link, Some(8), "two", now);
    forward(&mut link, None, "a cast", now);
    receipt(&mut link, Receipt::Delivered, 1, now);
    let second = next(&mut link, &me, now).expect("due");
    forward(&mut link, Some(9), "never published", now);
    forward(&mut link, None, "a cast", now);
    assert_eq!(returned(&mut link, number(&first), now), [back(&[7, 8, 9], 2, Cause::NotThere)]);
    assert_eq!(returned(&mut link, number(&first), now), [], "only once");
    assert_eq!(returned(&mut link, number(&second), now), []);
    forward(&mut link, Some(10), "three", now);
    assert!(next(&mut link, &me, now).is_none(), "there is no queue; it is tried again later");
    let later = now + PROBE_TIME_MIN;
    let third = next(&mut link, &me, later).expect("the probe");
    assert!(next(&mut link, &me, later).is_none(), "one is enough");
    let (head, items) = Head::parse(&third).expect("our own");
    assert!(other.hear(&head, later), "what was returned is not waited for");
    let items: Vec<_> = items.map(Result::unwrap).collect();
    assert_eq!(items[0], Item::Receipts { receipt: Receipt::Delivered, first: 1, count: 1 });
    assert!(matches!(&items[1], Item::Message(message) if message.text == "three"), "{items:?}");
    assert_eq!(items.len(), 2);
    // The second time, nobody knows what became of the first.
    let again = later + RESEND_TIME;
    link.tick(again, &mut vec![]);
    let third = next(&mut link, &me, again).expect("silence");
    assert_eq!(returned(&mut link, number(&third), again), [back(&[10], 0, Cause::MaybeSeen)]);
}

#[test]
fn what_was_published_before_a_batch_that_came_back_may_have_been_seen() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    let publish = |link: &mut Link, ticket| {
        forward(link, Some(ticket), "hi", now);
        let batches = std::iter::from_fn(|| next(link, &me, now));
        number(&batches.last().expect("due"))
    };
    let numbers: Vec<u64> = (1..=4).map(|ticket| publish(&mut link, ticket)).collect();
    forward(&mut link, Some(5), "hi", now);
    assert_eq!(settle(&mut link, 2, 1), [2], "it has a receipt");
    // The first two were in a queue when it was deleted.
    let backs = returned(&mut link, numbers[2], now);
    assert_eq!(backs, [back(&[1], 0, Cause::MaybeSeen), back(&[3, 4, 5], 0, Cause::NotThere)]);
    assert!(!link.is_active());
    // What follows one that was published twice may have been seen with it.
    let later = now + PROBE_TIME_MIN;
    link.hear(&word(0), later);
    let first = publish(&mut link, 6);
    link.lose();
    publish(&mut link, 7);
    forward(&mut link, Some(8), "hi", now);
    let backs = returned(&mut link, first, now);
    assert_eq!(backs, [back(&[6, 7], 0, Cause::MaybeSeen), back(&[8], 0, Cause::NotThere)]);
}

#[test]
fn of_a_node_that_is_dead_all_tickets_come_back() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    (1..=3).for_each(|n| assert!(forward(&mut link, Some(n), "hi", now)));
    assert!(next(&mut link, &me, now).is_some());
    link.hear(&word(1), now);
    assert_eq!(settle(&mut link, 2, 1), [2]);
    forward(&mut link, Some(4), "hi", now);
    assert!(next(&mut link, &me, now).is_some());
    forward(&mut link, Some(5), "never published", now);
    forward(&mut link, None, "never published", now);
    let gone = ClusterEvent::Returned(Returned {
        node: node("other"),
        tickets: vec![1, 3, 4],
        casts: 0,
        cause: Cause::Gone,
    });
    assert_eq!(events(|events| link.end(now, events)), [back(&[5], 1, Cause::Dead), gone]);
}

#[test]
fn what_is_too_old_is_given_up() {
    let (now, me) = (Instant::now(), node("a"));
    let (mut link, mut other) = (fresh(now), fresh(now));
    for n in 0..SMALL_BATCHES_MAX as u64 + 1 {
        forward(&mut link, Some(n), "hi", now);
        assert_eq!(next(&mut link, &me, now).is_some(), n < SMALL_BATCHES_MAX as u64);
    }
    let later = now + KEEP_TIME_MAX;
    forward(&mut link, None, "a cast", now);
    let lost = events(|events| link.tick(later, events));
    let unheard = ClusterEvent::Unheard(SMALL_BATCHES_MAX as u64);
    assert_eq!(lost, [unheard, back(&[], 1, Cause::MaybeSeen)], "nobody waits for it");
    assert_eq!(link.way.news(true), Some(Some(Trouble::Unheard)));
    assert!(!link.is_active() && link.tickets.is_empty() && link.waiting_bytes == 0);
    forward(&mut link, Some(9), "hi", later);
    let batch = next(&mut link, &me, later).expect("due");
    assert_eq!(messages(&mut other, &batch, later), [(SMALL_BATCHES_MAX as u64 + 2, "hi".to_owned())]);
    assert_eq!(link.way.news(true), None, "the other end has not said that it has it");
    link.hear(&word(number(&batch)), later);
    assert_eq!(link.way.news(true), Some(None));
}

#[test]
fn what_is_wrong_with_the_way_to_a_living_node_is_told_once() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    let mut at = now;
    for is_first in [true, false, false] {
        forward(&mut link, Some(1), "hi", at);
        let batch = next(&mut link, &me, at).expect("due");
        returned(&mut link, number(&batch), at);
        assert_eq!(link.way.news(false), None, "it may be dead");
        assert_eq!(link.way.news(true), is_first.then_some(Some(Trouble::ComesBack)));
        // That it says something does not mean that it can be reached.
        link.hear(&word(0), at);
        assert_eq!(link.way.news(true), None);
        at += PROBE_TIME_MAX;
    }
    forward(&mut link, Some(2), "hi", at);
    let batch = next(&mut link, &me, at).expect("due");
    link.hear(&word(number(&batch)), at);
    assert_eq!((link.way.news(true), link.way.news(true)), (Some(None), None));
}

#[test]
fn what_waits_for_a_broker_that_stays_away_is_given_up() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    forward(&mut link, Some(1), "published", now);
    assert!(next(&mut link, &me, now).is_some());
    forward(&mut link, Some(2), "never published", now);
    forward(&mut link, None, "nor this", now);
    let announced = Item::Announced { user: user("bob"), login: 7 };
    say(&mut link, &announced, now);
    let lost = events(|events| link.give_up_waiting(Cause::CutOff, now, events));
    assert_eq!(lost, [back(&[2], 1, Cause::CutOff)]);
    let batch = next(&mut link, &me, now).expect("the rest waits on");
    let items: Vec<_> = Head::parse(&batch).expect("our own").1.map(Result::unwrap).collect();
    assert_eq!(items, [announced]);
    assert_eq!(settle(&mut link, 1, 2), [1]);
}

#[test]
fn receipts_that_never_come_hold_no_memory() {
    let (now, me) = (Instant::now(), node("a"));
    let mut link = fresh(now);
    forward(&mut link, Some(1), "hi", now);
    forward(&mut link, Some(2), "hi", now);
    assert!(next(&mut link, &me, now).is_some());
    link.hear(&word(1), now);
    assert!(!link.is_active() && !link.is_quiet(), "receipts are due");
    forward(&mut link, Some(3), "hi", now + ANSWER_TIME_MAX);
    link.tick(now + ANSWER_TIME_MAX, &mut vec![]);
    assert_eq!(link.tickets, [Some(3)]);
    assert_eq!(settle(&mut link, 1, 9), [3]);
}
