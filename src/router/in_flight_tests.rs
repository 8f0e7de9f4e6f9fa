//! What holds for the in-flight table: tickets are used once, and the oldest is due first.

use std::time::Duration;

use super::*;
use crate::proto::{Fate, IdRef, Tag};
use crate::router::question::Received;

fn received(number: u64) -> Question {
    let origin = NodeId::new("a", "1").expect("valid");
    let to = UserName::parse("bob").expect("valid");
    Question::Received(Received { origin, number, is_shared: false, to, parties: 1, lost: Fate::NotHere })
}

fn number(question: Option<Question>) -> Option<u64> {
    match question {
        Some(Question::Received(received)) => Some(received.number),
        _ => None,
    }
}

#[test]
fn late_tickets_find_nothing() {
    let mut table = InFlight::default();
    let first = table.insert(received(1), None);
    assert_eq!(number(table.remove(first)), Some(1));
    let second = table.insert(received(2), None);
    assert_ne!(first, second);
    assert_eq!(number(table.remove(first)), None);
    assert_eq!(number(table.remove(second)), Some(2));
    let crowd: Vec<Ticket> = (0..10_000).map(|n| table.insert(received(n), None)).collect();
    for (n, ticket) in crowd.iter().enumerate() {
        assert_eq!(number(table.remove(*ticket)), Some(n as u64));
    }
    assert_eq!(table.slots.capacity(), 0, "the memory of a flood is given back");
    for n in 0..10_000 {
        table.insert(received(n), None);
    }
    assert!(crowd.iter().chain([&first, &second]).all(|ticket| table.remove(*ticket).is_none()));
    assert_eq!(table.count(), 10_000);
}

#[test]
fn the_oldest_is_due_first() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut table = InFlight::default();
    let tickets: Vec<Ticket> = (0..5).map(|n| table.insert(received(n), Some(at(n)))).collect();
    table.insert(received(9), None);
    for gone in [0, 2, 4] {
        table.remove(tickets[gone]);
    }
    let late = table.insert(received(5), Some(at(5)));
    assert_eq!(table.due(at(0)), None);
    let mut due = vec![];
    while let Some(ticket) = table.due(at(5)) {
        due.extend(number(table.remove(ticket)));
    }
    assert_eq!(due, [1, 3, 5]);
    assert!(table.remove(late).is_none());
    assert_eq!(table.count(), 1, "what has no deadline stays");
}

#[test]
fn what_is_to_go_further_ends_with_its_message() {
    let mut table = InFlight::default();
    let [first, second] = [1, 2].map(|n| table.insert(received(n), None));
    let deadline = Some(Instant::now());
    let mut further = |of| {
        let to = UserName::parse("bob").expect("valid");
        let envelope = crate::router::again::envelope_of(&to, b"MSG alice 1 hi").expect("a message");
        table.insert(Question::Further { of, envelope: Box::new(envelope), nodes: vec![] }, deadline)
    };
    let tickets = [first, second, first].map(&mut further);
    assert_eq!(table.end_further(&HashSet::from([tickets[1]])), []);
    assert_eq!(table.end_further(&HashSet::from([first])), [tickets[0], tickets[2]]);
    assert!(table.question(tickets[0]).is_none() && table.question(tickets[1]).is_some());
    assert_eq!(table.end_further(&HashSet::from([second])), [tickets[1]]);
    assert_eq!((table.further, table.count()), (0, 2));
}

#[test]
fn a_message_in_flight_takes_little() {
    // `docs/performance.md` computes with it.
    assert!(size_of::<Slot>() <= 120, "{}", size_of::<Slot>());
}

#[test]
fn what_is_used_again_holds_nothing_of_the_message_before() {
    let name = |name: &str| UserName::parse(name).expect("valid");
    let id = IdRef::Tag(Tag::parse("t").expect("valid"));
    let long = "x".repeat(SPARE_BYTES_MAX + 1);
    let mut table = InFlight::default();
    let remote = |table: &mut InFlight, from: &UserName, to: &UserName, text: &str| {
        let (from, to) = (from.clone(), to.clone());
        let envelope = Envelope {
            number: None,
            is_shared: true,
            is_again: true,
            from,
            to,
            id: id.into(),
            text: text.into(),
        };
        let names = (envelope.from.clone(), envelope.to.clone());
        let remote = table.remote(envelope.borrowed(), names);
        assert!(remote.envelope == envelope && remote.nodes.is_empty());
        remote
    };
    let mut first = remote(&mut table, &name("alice"), &name("bob"), "a longer text");
    first.nodes.push(NodeId::new("a", "1").expect("valid"));
    let place = std::ptr::from_ref(&*first).addr();
    table.spare(Some(first));
    let second = remote(&mut table, &name("carol"), &name("dave"), "hi");
    assert_eq!(std::ptr::from_ref(&*second).addr(), place);
    let third = remote(&mut table, &name("carol"), &name("dave"), &long);
    table.spare(Some(third));
    assert!(table.spares.is_empty(), "what is large goes back");
    for _ in 0..2 * SPARES_MAX {
        let another = Box::new(Remote { envelope: second.envelope.clone(), nodes: vec![] });
        table.spare(Some(another));
    }
    assert_eq!(table.spares.len(), SPARES_MAX);
    table.give_memory_back();
    assert_eq!(table.spares.capacity(), 0);
}
