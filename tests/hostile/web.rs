//! WebSocket peers that do what browsers do not.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::WAIT_TIME_MAX;
use crate::rig::bystanders::Bystanders;
use crate::rig::node::Node;
use crate::rig::peer::{Peer, delivered, message};
use crate::rig::program::Program;
use crate::rig::web::*;

#[test]
fn fragments_pings_and_single_bytes() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut victim = Peer::login(node.tcp, "victim");
    // The handshake by bytes, and the first frame right behind it.
    let mut web = Web::silent(node.http);
    let input = [UPGRADE.as_bytes(), &frame(TEXT, b"LOGIN web")].concat();
    for byte in input {
        web.raw(&[byte]);
    }
    web.hears_upgrade();
    web.hears_start("OK web ");
    // A character split over frames, a ping between them, an empty frame, two lines in one message.
    web.frame(TEXT_BEGINS, b"SEND victim \xe5\xb0");
    web.frame(PING, b"now");
    web.frame(GOES_ON, b"");
    web.frame(GOES_ON, b"\x8f\xe6");
    web.frame(PONG, b"nobody asked");
    web.frame(ENDS, b"\x98\x8e\nPING behind it");
    assert_eq!(web.next(), Some((PONG, b"now".to_vec())));
    assert!(delivered(&web.hear()).is_some());
    web.hears_start("PONG behind it");
    assert_eq!(message(&victim.hear()).expect("a message").2, "\u{5c0f}\u{660e}");
    // A message in frames of one byte, each sent a byte at a time.
    let text = b"SEND victim bytes";
    for (n, byte) in text.iter().enumerate() {
        let first = match n {
            0 => TEXT_BEGINS,
            n if n + 1 == text.len() => ENDS,
            _ => GOES_ON,
        };
        for byte in frame(first, &[*byte]) {
            web.raw(&[byte]);
        }
    }
    assert!(delivered(&web.hear()).is_some());
    assert_eq!(message(&victim.hear()).expect("a message").2, "bytes");
    // 10,000 pings in one go are answered in order.
    for n in 0..10 {
        let pings: Vec<u8> =
            (n * 1000..(n + 1) * 1000_u32).flat_map(|n| frame(PING, &n.to_be_bytes())).collect();
        web.raw(&pings);
        for n in n * 1000..(n + 1) * 1000 {
            assert_eq!(web.next(), Some((PONG, n.to_be_bytes().to_vec())));
        }
    }
    web.frame(CLOSE, &1000_u16.to_be_bytes());
    web.is_closed(1000);
    drop((victim, web));
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn what_breaks_the_rules_ends_only_its_own_connection() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut victim = Peer::login(node.tcp, "victim");
    let unmasked = [TEXT, 5, b'P', b'I', b'N', b'G', b'\n'];
    let within = [frame(TEXT_BEGINS, b"PING"), frame(TEXT, b"PING")].concat();
    let cases: [(&[u8], u16); 11] = [
        (&frame(TEXT, b"SEND victim \xff"), 1007),
        (&frame(TEXT, b"SEND victim \xc3"), 1007),
        (&frame(BINARY, b"PING"), 1003),
        (&unmasked, 1002),
        (&within, 1002),
        (&frame(GOES_ON, b"PING"), 1002),
        (&frame(0xc1, b"PING"), 1002),
        (&frame(0x83, b"PING"), 1002),
        (&frame(0x8b, b"PING"), 1002),
        (&frame(PING, &[0; 126]), 1002),
        (&frame(0x09, b"ping in parts"), 1002),
    ];
    for (bytes, code) in cases {
        let mut web = Web::login(node.http, "web");
        web.raw(&[&frame(TEXT, b"SEND victim before"), bytes, &frame(TEXT, b"SEND victim after")].concat());
        assert!(delivered(&web.hear()).is_some());
        web.is_closed(code);
        assert_eq!(message(&victim.hear()).expect("a message").2, "before");
    }
    // What is text in a frame but none in a line.
    let mut web = Web::login(node.http, "web");
    web.frame(TEXT, b"SEND victim \x1b[2J");
    web.hears_start("ERR bad-text ");
    web.say("SEND victim last");
    assert!(delivered(&web.hear()).is_some());
    assert_eq!(message(&victim.hear()).expect("a message").2, "last", "and nothing before it");
    // Gone in the middle of a frame.
    web.raw(&frame(TEXT, b"SEND victim half")[..9]);
    drop((victim, web));
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn an_oversized_message_costs_no_memory() {
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    let mut growth = server.growth();
    let piece = vec![b'x'; 20_000];
    // One frame of 60 MB; the longest length that a header can name; a message that never ends; each mask is 0.
    for length in [60 << 20, u64::MAX >> 1, 20_000] {
        let mut webs: Vec<Web> = (0..20).map(|_| Web::connect(server.http())).collect();
        for web in &mut webs {
            let mut socket = web.writer();
            // The node closes before it has all of it.
            let _ = socket.write_all(&[&frame_header(TEXT_BEGINS, length)[..], &[0; 4], &piece].concat());
            for _ in 0..10 {
                let next = [&frame_header(GOES_ON, length)[..], &[0; 4], &piece].concat();
                let _ = if length == 20_000 { socket.write_all(&next) } else { socket.write_all(&piece) };
            }
            let (first, payload) = web.next().expect("a close frame");
            assert_eq!((first, close_code(&payload)), (CLOSE, 1009));
        }
        webs.iter_mut().for_each(|web| {
            assert_eq!(web.next(), None, "it waits for the end of a frame, but not for long")
        });
        growth.look();
    }
    // As long as it may be, and all of it one line.
    let mut web = Web::connect(server.http());
    web.frame(TEXT, &vec![b'x'; 64 * 1024 + 4096]);
    web.hears_start("ERR too-long ");
    web.say("PING still here");
    web.hears_start("PONG still here");
    growth.look();
    growth.is_below(1 << 20);
    bystanders.noticed_nothing();
}

#[test]
fn what_is_no_handshake_is_refused() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let long = format!("GET /ws HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let cases: [(&[u8], &str); 6] = [
        (b"LOGIN alice\n\n", "HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1 400 "),
        (b"\x00\xff\xfe\n\n", "HTTP/1.1 400 "),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 "),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 "),
        (long.as_bytes(), "HTTP/1.1 431 "),
    ];
    for (request, status) in cases {
        let mut client = Peer::silent(node.http);
        client.raw(request);
        let mut response = String::new();
        client.stream().read_to_string(&mut response).expect("an answer and the end");
        assert!(response.starts_with(status), "{response}");
    }
    // Heads that never end, and one whose peer goes away in the middle.
    let mut slow: Vec<Peer> = (0..100).map(|_| Peer::silent(node.http)).collect();
    slow.iter_mut().for_each(|client| client.raw(b"GET /ws HTTP/1.1\r\nHost: "));
    drop(slow);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_close_waits_for_the_peers_and_says_why() {
    let node = Node::start(&[("sessions", "1")]);
    let bystanders = Bystanders::start(node.tcp);
    let mut cases = vec![];
    for (say, code, why) in
        [("QUIT", 1000, "quit"), ("", 1008, "replaced a newer login took this one's place")]
    {
        let mut web = Web::login(node.http, "web");
        if say.is_empty() {
            cases.push((Web::login(node.http, "web"), 1000, "quit"));
        } else {
            web.say(say);
        }
        web.hears_start("BYE ");
        cases.push((web, code, why));
    }
    cases[1].0.say("QUIT");
    cases[1].0.hears_start("BYE quit");
    for (bytes, code, why) in [
        (frame(BINARY, b"PING"), 1003, "a message is text"),
        (frame(TEXT, b"\xff"), 1007, "text is UTF-8"),
        ([&frame_header(TEXT, 1 << 20)[..], b"mask"].concat(), 1009, "the message is too long"),
        (frame(0x83, b"PING"), 1002, "this is not the WebSocket protocol"),
    ] {
        let mut web = Web::connect(node.http);
        web.raw(&bytes);
        cases.push((web, code, why));
    }
    for (web, code, why) in &mut cases {
        let (code, frame): (u16, _) = (*code, web.next());
        assert_eq!(frame, Some((CLOSE, [&code.to_be_bytes(), why.as_bytes()].concat())));
    }
    // None of them has ended: they wait for the answers, whatever else comes before.
    for (mut web, code, _) in cases {
        web.patient(Duration::from_millis(30));
        // But where there are no frames any more, no answer can come.
        assert_eq!(web.is_quiet(), code != 1002, "closed with {code}");
        web.patient(WAIT_TIME_MAX);
        // What broke the rules of frames may have no end.
        if code != 1009 && code != 1002 {
            let begun = Instant::now();
            for byte in
                [frame(TEXT, b"PING"), frame(PING, b""), frame(CLOSE, &1000_u16.to_be_bytes())].concat()
            {
                web.raw(&[byte]);
            }
            assert_eq!(web.next(), None);
            assert!(begun.elapsed() < Duration::from_secs(1), "{code}: {:?}", begun.elapsed());
        } else {
            assert_eq!(web.next(), None, "it is not waited for without an end");
        }
    }
    // Whoever closes first gets its code back, and nothing is waited for.
    let begun = Instant::now();
    for code in [1000, 1001, 3000, 4999_u16] {
        let mut web = Web::connect(node.http);
        web.frame(CLOSE, &[&code.to_be_bytes(), &b"gone"[..]].concat());
        assert_eq!(web.next(), Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(web.next(), None);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_silent_websocket_is_pinged() {
    let node = Node::start(&[("ping", "100ms")]);
    let bystanders = Bystanders::start(node.tcp);
    let mut new = Web::connect(node.http);
    let mut web = Web::login(node.http, "web");
    for _ in 0..3 {
        assert_eq!(new.next(), Some((PING, vec![])));
        assert_eq!(web.next(), Some((PING, vec![])));
        web.frame(PONG, b"");
    }
    // Also while a line of its has to wait for somebody who does not read, and then that line goes on.
    const LINES: usize = 2_000;
    let mut full = Peer::login(node.tcp, "full");
    let mut socket = web.writer();
    let writer = thread::spawn(move || {
        (0..LINES)
            .all(|n| socket.write_all(&frame(TEXT, format!("SEND full {n} {:4000}", "").as_bytes())).is_ok())
    });
    let (mut answers, mut pings, mut reader) = (0, 0, None);
    while answers < LINES {
        match web.next().expect("it goes on") {
            (PING, _) => pings += 1,
            (_, answer) => answers += usize::from(answer.starts_with(b"OK ") || answer.starts_with(b"ERR ")),
        }
        if pings == 2 && reader.is_none() {
            let mut reading = full.writer();
            reader = Some(thread::spawn(move || reading.read_to_end(&mut vec![])));
        }
    }
    assert!(writer.join().expect("it is read") && pings >= 2, "{pings} pings");
    full.say("QUIT");
    reader.into_iter().for_each(|reader| drop(reader.join()));
    drop((new, web, full));
    bystanders.noticed_nothing();
    node.settles();
    let node = Node::start(&[("ping", "off")]);
    let mut web = Web::connect(node.http);
    web.patient(Duration::from_millis(300));
    assert!(web.is_quiet());
}
