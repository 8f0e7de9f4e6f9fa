//! What holds for batches: what is printed is read back, and nothing else is believed.

use super::*;
use crate::proto::name::Tag;

fn head() -> Head {
    let from = NodeId::new("pi", "V1StGXR8").expect("valid");
    let (number, oldest, have) = (300, 7, NUMBER_MAX);
    Head { version: VERSION, from, number, oldest, have, has_gap: true, asks_word: true, first: 128 }
}

fn user(name: &str) -> UserRef<'_> {
    UserRef::parse(name).expect("valid")
}

fn items() -> Vec<Item<'static>> {
    let session = SessionId::parse("4k2jd8s0").expect("valid");
    let message = |asks, is_first, id, text| {
        let (from, to) = (user("alice"), user("小明"));
        Item::Message(Message { asks, is_first, from, to, id, text })
    };
    let tag = |tag| IdRef::Tag(Tag::parse(tag).expect("valid"));
    let long_tag = tag("tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt");
    let long_user = user("uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu");
    let long_node = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";
    let receipts = |receipt, first, count| Item::Receipts { receipt, first, count };
    vec![
        message(true, false, IdRef::Counted(session, 300), "hi"),
        message(false, false, tag("a.b~"), ""),
        message(true, true, tag("a.b~"), "the first"),
        message(
            true,
            false,
            long_tag,
            "tab\tis text, 你好, and it is much longer than what one byte can tell of",
        ),
        receipts(Receipt::Delivered, 1, 300),
        receipts(Receipt::NotHere, u64::MAX - 1, 1),
        receipts(Receipt::Left, 7, 2),
        receipts(Receipt::Unacked, 7, 2),
        Item::Waits { first: 1, count: 1 << 20 },
        Item::Announced { user: user("bob"), login: 1 << 40 },
        Item::Announced { user: user("bob"), login: 0 },
        Item::Noted { user: user("bob"), login: 7 },
        Item::Further { user: user("bob"), node: "pi-V1StGXR8" },
        Item::Further { user: long_user, node: long_node },
        Item::Mail { user: user("bob") },
        Item::Replaced { user: user("bob"), session },
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
    for item in items() {
        assert_eq!(parse(&print(&[item])), Some((head(), vec![item])));
        if let Item::Receipts { .. } = item {
            assert!(print(&[item]).len() - print(&[]).len() <= RECEIPTS_BYTES_MAX);
        }
        let Item::Message(Message { asks, is_first, from, to, id, text }) = item else { continue };
        let (mut body, mut batch) = (vec![], print(&[]));
        put_body(from, to, id, text, &mut body);
        assert_eq!(parse_body(&body), Some((from, to, id, text)));
        put_message(asks, is_first, &body, &mut batch);
        assert_eq!(batch, print(&[item]));
    }
}

#[test]
fn later_receipts_count_for_more() {
    assert!(Receipt::ALL.is_sorted());
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
fn a_body_that_is_cut_off_or_goes_on_makes_no_batch() {
    for item in items() {
        let mut printed = vec![];
        item.print(&mut printed);
        let mut raw = Bytes(&printed);
        let (kind, Bytes(body)) = raw.item().expect("our own");
        let is_message = matches!(item, Item::Message(_));
        for length in 0..=body.len() + 1 {
            let mut batch = print(&[]);
            batch.push(kind);
            put_number(length as u64, &mut batch);
            batch.extend(body.iter().copied().chain([0xff]).take(length));
            let parsed = parse(&batch);
            match parsed {
                None => assert_ne!(length, body.len(), "{item:?}"),
                // The text of a message ends with its body.
                Some((_, items)) => assert!(length == body.len() || is_message, "{items:?}"),
            }
        }
    }
}

#[test]
fn kinds_of_other_versions_are_skipped_from_64_on() {
    let (before, after) = (Item::Mail { user: user("bob") }, Item::Waits { first: 1, count: 2 });
    for kind in 14..=255 {
        let mut batch = print(&[before]);
        batch.extend([kind, 0, kind, 3, 0xff, 0, 1]);
        after.print(&mut batch);
        let expected = (kind >= SKIPPED).then(|| (head(), vec![before, after]));
        assert_eq!(parse(&batch), expected, "{kind}");
        batch.extend([kind, 9, 1]);
        assert_eq!(parse(&batch), None, "it goes on beyond the end");
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
    check(&[0, 0]);
    check(&[WAITS, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1]);
    check(&[ANNOUNCED, 3, 3, b'a', b'b']);
    check(&[ANNOUNCED, 3, 1, b'#', 1]);
    check(&[ANNOUNCED, 4, 2, 0xc3, 0x28, 1]);
    check(&[FURTHER, 5, 1, b'a', 2, b'a', b'/']);
    check(b"\x0d\x0a\x01aTOOLOUD!");
    check(&[MESSAGE, 8, 1, b'a', 1, b'b', 1, b'c', 0x1b, b'c']);
    check(&[MESSAGE, 6, 1, b'a', 1, b'b', 1, b' ']);
    // Lengths and numbers beyond everything.
    check(&[MESSAGE, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    check(&[MESSAGE, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
    check(&[DELIVERED, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1]);
    check(&[DELIVERED, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1]);
    for head in [
        Head { number: NUMBER_MAX + 1, ..head() },
        Head { version: VERSION + 1, ..head() },
        Head { version: VERSION_MIN - 1, ..head() },
        Head { oldest: 301, ..head() },
    ] {
        let mut batch = vec![];
        head.print(&mut batch);
        assert_eq!(parse(&batch), None, "{head:?}");
    }
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
