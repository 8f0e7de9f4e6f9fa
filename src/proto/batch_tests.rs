//! What holds for batches: what is printed is read back, and nothing else is believed.

use super::*;
use crate::proto::{Envelope, MessageId};

fn head() -> Head {
    let from = NodeId::new("pi", "V1StGXR8").expect("valid");
    Head { from, number: 300, oldest: 7, have: NUMBER_MAX, has_gap: true, asks_word: true, first: 128 }
}

fn user(name: &str) -> UserRef<'_> {
    UserRef::parse(name).expect("valid")
}

fn items() -> Vec<Item<'static>> {
    let session = SessionId::parse("4k2jd8s0").expect("valid");
    let flagged = |asks, is_shared, is_again, id, text| {
        let (from, to) = (user("alice"), user("小明"));
        Item::Message(Message { asks, is_shared, is_again, from, to, id, text })
    };
    let tag = |tag| IdRef::Tag(Tag::parse(tag).expect("valid"));
    let message = |asks, id, text| flagged(asks, false, false, id, text);
    vec![
        message(true, IdRef::Counted(session, 300), "hi"),
        message(false, tag("a.b~"), ""),
        flagged(true, true, false, tag("a.b~"), "for several"),
        flagged(true, false, true, tag("a.b~"), "once more"),
        flagged(true, true, true, tag("a.b~"), "for several, once more"),
        message(
            true,
            tag("tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"),
            "tab\tis text, 你好",
        ),
        Item::Receipts { fate: Fate::Delivered, first: 1, count: 300 },
        Item::Receipts { fate: Fate::NotHere, first: u64::MAX - 1, count: 1 },
        Item::Replaced { user: user("bob"), session },
        Item::Also { user: user("bob"), login: 1 << 40 },
        Item::Noted { user: user("bob"), login: 7, shown: &[1, 2, 3, 4, 5, 6, 7, 8] },
        Item::Noted { user: user("bob"), login: 7, shown: &[] },
        Item::Receipts { fate: Fate::Unacked, first: 7, count: 2 },
        Item::Receipts { fate: Fate::Left, first: 7, count: 2 },
        Item::Waits { first: 1, count: 1 << 20 },
        Item::Mail { user: user("bob") },
        Item::Resumes { user: user("bob") },
        Item::Changed { user: user("bob") },
    ]
}

fn print(items: &[Item<'_>]) -> Vec<u8> {
    let mut batch = vec![];
    head().print(&mut batch);
    assert!(batch.len() <= HEAD_BYTES_MAX);
    items.iter().for_each(|item| item.print(&mut batch));
    batch
}

fn parse(batch: &[u8]) -> Option<(Head, Vec<Item<'_>>)> {
    let (head, items) = Head::parse(batch)?;
    Some((head, items.collect::<Result<_, _>>().ok()?))
}

#[test]
fn what_is_printed_is_read_back() {
    assert_eq!(parse(&print(&items())), Some((head(), items())));
    assert_eq!(parse(&print(&[])), Some((head(), vec![])));
    let envelope = Envelope {
        number: Some(9),
        is_shared: true,
        is_again: true,
        from: user("a").into(),
        to: user("b").into(),
        id: MessageId::Tag("1".into()),
        text: "hi".into(),
    };
    let mut batch = print(&[]);
    put_envelope(envelope.borrowed(), &mut batch);
    let (_, items) = parse(&batch).expect("our own");
    let [Item::Message(message)] = &items[..] else { panic!("one message: {items:?}") };
    assert_eq!(message.envelope(Some(9)), envelope.borrowed());
    assert_eq!(Envelope::from(envelope.borrowed()), envelope);
}

#[test]
fn a_batch_that_is_cut_off_is_none_or_shorter() {
    let batch = print(&items());
    for end in 0..batch.len() {
        if let Some((_, items)) = parse(&batch[..end]) {
            assert_eq!(print(&items), batch[..end], "whole items only");
        }
    }
}

#[test]
fn what_is_not_valid_is_no_batch() {
    let check = |items: &[u8]| {
        let mut batch = print(&[]);
        batch.extend_from_slice(items);
        assert_eq!(parse(&batch), None, "{items:?}");
    };
    check(&[0]);
    check(&[13]);
    check(&[NOTED, 1, b'b', 7, 7, 1, 2, 3, 4, 5, 6, 7]);
    check(&[WAITS, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1]);
    check(&[ALSO, 3, b'a', b'b']);
    check(&[ALSO, 1, b'#', 1]);
    check(&[ALSO, 2, 0xc3, 0x28, 1]);
    check(b"\x05\x01aTOOLOUD!");
    check(&[ASKS, 1, b'a', 1, b'b', 1, b'c', 2, 0x1b, b'c']);
    check(&[ASKS, 1, b'a', 1, b'b', 1, b' ', 0]);
    // Lengths and numbers beyond everything.
    check(&[ASKS, 1, b'a', 1, b'b', 1, b'c', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    check(&[DELIVERED, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1]);
    check(&[DELIVERED, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1]);
    let mut beyond = vec![];
    Head { number: NUMBER_MAX + 1, ..head() }.print(&mut beyond);
    assert_eq!(parse(&beyond), None);
    let mut other_version = print(&[]);
    other_version[0] = 1;
    assert_eq!(parse(&other_version), None);
    assert_eq!(parse(b"hello"), None);
    assert_eq!(parse(b""), None);
}

#[test]
fn garbage_never_panics_and_is_never_half_believed() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let batch = print(&items());
    for _ in 0..200_000 {
        let mut garbage = batch.clone();
        for _ in 0..1 + next(4) {
            let at = next(garbage.len());
            match next(3) {
                0 => garbage[at] = next(256) as u8,
                1 => drop(garbage.remove(at)),
                _ => garbage.insert(at, next(256) as u8),
            }
        }
        if let Some((head, items)) = parse(&garbage) {
            // What was believed is what would be said.
            let mut again = vec![];
            head.print(&mut again);
            items.iter().for_each(|item| item.print(&mut again));
            assert_eq!(parse(&again), Some((head, items)));
        }
    }
}
