//! WebSocket in the spirit of Autobahn's cases, families 1 to 10: what a frame, a fragment, a ping, a text and a close
//! may be. A session sends to itself, so that each text comes back.
//!
//! What is not as it is there, because the protocol of lines says otherwise:
//!
//! - A message holds lines: one without any (1.1.1, 6.1.1) comes back as nothing, one with a control character (6.7,
//!   6.9) is `ERR bad-text`, and both go on.
//! - A binary message (1.2, 9.2) is closed with 1003.
//! - A line over `--max-line` is `ERR too-long`, and a message of more than that and 64 KiB is closed with 1009 (7.1.6,
//!   and the larger ones of 9 and 10).
//! - Text that is not UTF-8 is found at the end of its frame and not within it (6.4.3, 6.4.4).
//! - Compression (12, 13) is not offered.

use std::iter::once;

use crate::rig::bystanders::Bystanders;
use crate::rig::node::Node;
use crate::rig::web::*;

/// Sends a line to oneself, as frames, in pieces of so many bytes, and hears it.
fn echoes(web: &mut Web, text: &[u8], fragment: usize, piece: usize) {
    let line = [b"SEND me ", text].concat();
    sends(web, &fragments(&line, fragment), piece);
    hears_echo(web, text);
}

fn hears_echo(web: &mut Web, text: &[u8]) {
    let (first, heard) = web.next().expect("it goes on");
    assert_eq!(first, TEXT, "{heard:?} for {text:?}");
    let said = heard.strip_prefix(b"MSG me ").expect("a message");
    let id = memchr::memchr(b' ', said).expect("an id");
    assert!(said[id + 1..] == *text, "{} bytes came back as {}", text.len(), said.len() - id - 1);
    web.hears_start("OK ");
}

fn sends(web: &mut Web, bytes: &[u8], piece: usize) {
    bytes.chunks(piece).for_each(|piece| web.raw(piece));
}

/// A text message in frames of so many bytes.
fn fragments(text: &[u8], size: usize) -> Vec<u8> {
    let parts: Vec<&[u8]> = text.chunks(size).collect();
    let frames = parts.iter().enumerate().map(|(n, part)| {
        let first = match (n, n + 1 == parts.len()) {
            (0, true) => TEXT,
            (0, false) => TEXT_BEGINS,
            (_, false) => GOES_ON,
            (_, true) => ENDS,
        };
        frame(first, part)
    });
    frames.collect::<Vec<_>>().concat()
}

/// A new connection says this, and is closed with that code; whatever comes before is returned.
fn closes(node: &Node, bytes: &[u8], code: u16) -> Vec<(u8, Vec<u8>)> {
    let mut web = Web::login(node.http, "me");
    web.raw(bytes);
    let mut before = vec![];
    loop {
        let (first, payload) = web.next().expect("a close frame");
        if first == CLOSE {
            assert_eq!(close_code(&payload), code, "{bytes:?}");
            assert!(std::str::from_utf8(&payload[2..]).is_ok() && payload.len() <= 125);
            let _ = web.stream().shutdown(std::net::Shutdown::Write);
            assert_eq!(web.next(), None);
            return before;
        }
        before.push((first, payload));
    }
}

fn start() -> (Node, Bystanders) {
    let node = Node::start(&[("max-line", "65536")]);
    let bystanders = Bystanders::start(node.tcp);
    (node, bystanders)
}

#[test]
fn lengths_of_messages_and_of_their_pieces() {
    let (node, bystanders) = start();
    let mut web = Web::login(node.http, "me");
    // 1.1, 9.1, 9.3, 9.5, 10: every form of a length, in frames and in writes of many sizes.
    for length in [9, 125, 126, 127, 128, 4_096, 16_384, 65_535] {
        let text = vec![b'*'; length - 8];
        for (fragment, piece) in [(length, length), (length, 997), (1_300, length), (64, 256)] {
            echoes(&mut web, &text, fragment, piece);
        }
    }
    web.frame(TEXT, b"");
    web.frame(TEXT, &[&b"SEND me "[..], &vec![b'*'; 65_536 - 8]].concat());
    web.hears_start("ERR too-long ");
    for length in [0, 1, 125, 126, 65_536] {
        assert_eq!(closes(&node, &frame(BINARY, &vec![0xfe; length]), 1003), []);
    }
    closes(&node, &frame(TEXT, &vec![b'*'; 256 * 1024]), 1009);
    echoes(&mut web, b"still here", 100, 100);
    drop(web);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn pings_and_pongs() {
    let (node, bystanders) = start();
    let mut web = Web::login(node.http, "me");
    // 2.1 to 2.6.
    for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
        for piece in [usize::MAX, 1] {
            sends(&mut web, &frame(PING, payload), piece.min(200));
            assert_eq!(web.next(), Some((PONG, payload.to_vec())));
        }
    }
    // 2.7 to 2.9: nobody asked.
    web.frame(PONG, b"");
    web.frame(PONG, b"unsolicited");
    web.frame(PING, b"asked");
    assert_eq!(web.next(), Some((PONG, b"asked".to_vec())));
    // 2.10, 2.11.
    for piece in [usize::MAX, 1] {
        let pings: Vec<u8> = (0..10).flat_map(|n| frame(PING, format!("payload-{n}").as_bytes())).collect();
        sends(&mut web, &pings, piece.min(pings.len()));
        (0..10).for_each(|n| assert_eq!(web.next(), Some((PONG, format!("payload-{n}").into_bytes()))));
    }
    drop(web);
    assert_eq!(closes(&node, &frame(PING, &[0xfe; 126]), 1002), []);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_ping_is_answered_before_the_lines_behind_it() {
    let node = Node::start(&[]);
    // More lines than one turn carries out.
    let lines = "PING behind it\n".repeat(200);
    let heard =
        closes(&node, &[frame(PING, b"first"), frame(TEXT, (lines + "QUIT").as_bytes())].concat(), 1000);
    assert_eq!(heard[0], (PONG, b"first".to_vec()));
    assert_eq!(heard.len(), 1 + 200 + 1, "with its BYE");
}

#[test]
fn reserved_bits_and_opcodes() {
    let (node, bystanders) = start();
    let hello = frame(TEXT, b"PING hello");
    let is_told_first = |before: Vec<(u8, Vec<u8>)>| assert_eq!(before, [(TEXT, b"PONG hello".to_vec())]);
    // 3: each of the bits, in each kind of frame, behind what is right and before it.
    for rsv in 1..8_u8 {
        for first in [TEXT, BINARY, PING, PONG, CLOSE, TEXT_BEGINS] {
            let bad = frame(first | rsv << 4, b"\x03\xe8");
            assert_eq!(closes(&node, &bad, 1002), []);
            is_told_first(closes(&node, &[&hello[..], &bad, &frame(PING, b"")].concat(), 1002));
        }
    }
    // 4: data and control frames that do not exist.
    for opcode in (3..8).chain(11..16_u8) {
        for first in [opcode, 0x80 | opcode] {
            assert_eq!(closes(&node, &frame(first, b""), 1002), []);
            let rest = [&hello[..], &frame(first, b"reserved"), &frame(PING, b"")].concat();
            is_told_first(closes(&node, &rest, 1002));
        }
    }
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn fragments_and_what_comes_between() {
    let (node, bystanders) = start();
    let mut web = Web::login(node.http, "me");
    // 5.3 to 5.8, 5.19, 5.20: pings within a message are answered before it is.
    let (begin, middle, end) =
        (frame(TEXT_BEGINS, b"SEND me frag"), frame(GOES_ON, b"ment"), frame(ENDS, b"ment2"));
    for piece in [usize::MAX, 9, 1] {
        let message =
            [&begin[..], &frame(PING, b"1"), &middle, &frame(PING, b"2"), &frame(PONG, b""), &end].concat();
        sends(&mut web, &message, piece.min(message.len()));
        for n in [b"1", b"2"] {
            assert_eq!(web.next(), Some((PONG, n.to_vec())));
        }
        hears_echo(&mut web, b"fragmentment2");
    }
    // 6.1: frames without anything in them.
    for part in [&b""[..], b"middle"] {
        for bytes in [
            frame(TEXT_BEGINS, b""),
            frame(GOES_ON, b"SEND me x"),
            frame(GOES_ON, part),
            frame(GOES_ON, b""),
            frame(ENDS, b""),
        ] {
            web.raw(&bytes);
        }
        hears_echo(&mut web, &[b"x", part].concat());
    }
    drop(web);
    // 5.1, 5.2: control frames are whole; 5.9 to 5.17: nothing to go on with; 5.18: a new one within another.
    let ends_at = [
        frame(0x09, b"fragment1"),
        frame(0x0a, b"fragment1"),
        frame(0x08, b""),
        frame(ENDS, b"non-continuation"),
        frame(GOES_ON, b"non-continuation"),
        frame(GOES_ON, b""),
        [&begin[..], &frame(TEXT, b"fragment2")].concat(),
        [&begin[..], &frame(TEXT_BEGINS, b"fragment2")].concat(),
        [&begin[..], &frame(BINARY, b"fragment2")].concat(),
        [&begin[..], &end, &middle].concat(),
    ];
    for (n, bytes) in ends_at.iter().enumerate() {
        let before = closes(&node, &[&bytes[..], &frame(TEXT, b"PING behind")].concat(), 1002);
        // The last one is whole before it breaks the rules.
        assert_eq!(before.len(), if n + 1 == ends_at.len() { 2 } else { 0 }, "{n}: {before:?}");
    }
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn text_that_is_utf8_comes_back_however_it_is_cut() {
    let (node, bystanders) = start();
    let mut web = Web::login(node.http, "me");
    // 6.2, 6.5: on the bounds of characters, and within them.
    let text =
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!! \u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}";
    for (fragment, piece) in [(100, 100), (100, 1), (15, 100), (1, 100), (1, 1), (3, 2)] {
        echoes(&mut web, text.as_bytes(), fragment, piece);
    }
    // 6.7, 6.9, 6.11: the first and the last of each length, and beside what is none; 6.22: those that are no
    // characters.
    let mut good: Vec<char> =
        "\u{a0}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}".chars().collect();
    good.extend(
        (0..17_u32)
            .flat_map(|plane| [0xfffe, 0xffff].map(|end| plane << 16 | end))
            .filter_map(char::from_u32),
    );
    for c in good {
        echoes(&mut web, c.to_string().as_bytes(), 9, 100);
    }
    for control in ["\0", "\u{7f}", "\u{80}", "\u{9f}", "a\u{1b}[2J"] {
        web.say(&format!("SEND me {control}"));
        web.hears_start("ERR bad-text ");
    }
    drop(web);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn text_that_is_not_utf8_closes_with_1007() {
    let (node, bystanders) = start();
    let bad: &[&[u8]] = &[
        // 6.3: a surrogate in the middle.
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        // 6.6: what ends within a character.
        b"\xce",
        b"\xce\xba\xe1",
        b"\xce\xba\xe1\xbd",
        // 6.8, 6.10: five and six bytes; 6.11.5: behind the last.
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        // 6.12: continuations alone; 6.13: beginnings alone; 6.14, 6.15: the last byte is missing.
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80\xbf",
        b"\xc0 \xc1 \xdf ",
        b"\xe0 \xef ",
        b"\xf0 \xf7 ",
        b"\xf8 \xfb ",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80",
        // 6.16: no bytes of UTF-8; 6.17 to 6.19: longer than need be.
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        // 6.20, 6.21: surrogates, alone and in pairs.
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
    ];
    for text in bad {
        let line = [b"SEND me ", *text].concat();
        for message in [frame(TEXT, &line), fragments(&line, 9), fragments(&line, 1)] {
            assert_eq!(closes(&node, &message, 1007), [], "{text:?}");
        }
    }
    // 6.4.1, 6.4.2: at once, though the message goes on.
    for text in [&b"\xce\xba\xed\xa0\x80"[..], b"\xf4\x90\x80\x80"] {
        let begun = [frame(TEXT_BEGINS, b"SEND me \xce\xba"), frame(GOES_ON, text)].concat();
        assert_eq!(closes(&node, &begun, 1007), []);
    }
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn closes_of_all_kinds() {
    let (node, bystanders) = start();
    let close = |code: u16, reason: &[u8]| frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat());
    let normal = close(1000, b"");
    let echoed = [(TEXT, b"PONG hello".to_vec())];
    let hello = frame(TEXT, b"PING hello");
    // 7.1: what was said before is answered, and nothing behind it.
    assert_eq!(closes(&node, &[&hello[..], &normal].concat(), 1000), echoed);
    for behind in [&normal, &frame(PING, b""), &hello, &frame(BINARY, b""), &frame(ENDS, b"")] {
        assert_eq!(closes(&node, &[&normal[..], behind].concat(), 1000), []);
    }
    let within = [frame(TEXT_BEGINS, b"PING he"), normal.clone(), frame(ENDS, b"llo")].concat();
    assert_eq!(closes(&node, &within, 1000), []);
    // 7.3, 7.5: what a close may say.
    closes(&node, &frame(CLOSE, b""), 1000);
    closes(&node, &frame(CLOSE, b"a"), 1002);
    closes(&node, &close(1000, b"Hello World!"), 1000);
    closes(&node, &close(1000, &[b'*'; 123]), 1000);
    closes(&node, &close(1000, &[b'*'; 124]), 1002);
    closes(&node, &close(1000, b"\xce\xba\xed\xa0\x80"), 1007);
    // 7.7, 7.9, 7.13: its codes.
    for code in (1000..=1003).chain(1007..=1011).chain([3000, 3999, 4000, 4999]) {
        closes(&node, &close(code, b"reason"), code);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        closes(&node, &close(code, b""), 1002);
        closes(&node, &close(code, b"reason"), 1002);
    }
    // Each way byte by byte.
    let mut web = Web::login(node.http, "me");
    once(&hello).chain([&normal]).for_each(|bytes| sends(&mut web, bytes, 1));
    web.hears_start("PONG hello");
    web.is_closed(1000);
    drop(web);
    bystanders.noticed_nothing();
    node.settles();
}
