//! Random and mutated lines through the whole session: nothing panics, nobody
//! else notices, every answer is a line of the protocol.
//!
//! `PINPOST_LINES` sets how many lines, `PINPOST_SEED` makes a run again (what
//! is said, not how the system cuts it into reads).

mod rig;

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use pinpost::CloseReason;
use pinpost::ErrorCode::{AlreadyIn, BadLine, BadText, LoginFirst, Offline, TooLong, UnknownVerb};
use rig::bystanders::Bystanders;
use rig::node::Node;
use rig::peer::Peer;
use rig::random::{Random, seeds};
use rig::web::{self, Web};

/// Lines of one run, unless `PINPOST_LINES` says otherwise.
const LINES: usize = 1_000_000;

/// Lines of one connection; then it asks for a last answer and quits.
const LINES_PER_CONNECTION: usize = 10_000;

/// Connections at a time, each a way in of its own turn.
const TALKERS: usize = 4;

#[test]
fn a_million_lines_of_garbage() {
    let lines = std::env::var("PINPOST_LINES").ok();
    let lines = lines.map_or(LINES, |text| text.parse().expect("a number"));
    let seed = seeds(1)[0];
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let lives = lines.div_ceil(LINES_PER_CONNECTION);
    let (tcp, http) = (node.tcp, node.http);
    let talkers: Vec<_> = (0..TALKERS)
        .map(|talker| {
            thread::spawn(move || {
                let mine = (talker..lives).step_by(TALKERS);
                // Odd ones come by WebSocket.
                mine.map(|life| {
                    let random = Random(seed ^ (life as u64) << 32);
                    if talker % 2 == 0 { live_by_tcp(tcp, random) } else { live_by_web(http, random) }
                })
                .sum::<usize>()
            })
        })
        .collect();
    let answers: usize = talkers.into_iter().map(|talker| talker.join().expect("all is answered")).sum();
    println!("{lines} lines, {answers} answers, {:?}", bystanders.noticed_nothing());
    node.settles();
    let metrics = node.metrics();
    assert_eq!(metrics.closes(CloseReason::Quit), lives as u64, "nobody was sent away");
    // It is no garbage for the sake of it: all that a session can answer was answered.
    let codes = [BadLine, BadText, TooLong, UnknownVerb, LoginFirst, AlreadyIn, Offline];
    let errors = codes.map(|code| metrics.errors(code));
    println!("{errors:?} errors of {codes:?}, {} delivered", metrics.delivered);
    assert!(errors.iter().all(|count| *count > 0));
}

/// One connection's worth of garbage over TCP; returns how many lines came back.
fn live_by_tcp(addr: std::net::SocketAddr, mut random: Random) -> usize {
    let mut client = Peer::connect(addr);
    let mut socket = client.writer();
    let writer = thread::spawn(move || {
        let mut out = vec![];
        for n in 0..LINES_PER_CONNECTION {
            garbage(&mut random, &mut out);
            out.push(b'\n');
            if out.len() > PIECE_BYTES || n + 1 == LINES_PER_CONNECTION {
                write(&mut socket, &out);
                out.clear();
            }
        }
        // Whatever is open, a telnet command perhaps, is too long with this, and ends.
        out.resize(5_000, b'x');
        out.extend(b"\nPING the end\nQUIT\n");
        write(&mut socket, &out);
    });
    let count = hear_to_the_end(|| client.next());
    writer.join().expect("the server reads all of it");
    count
}

/// The same as WebSocket messages of several lines, some of them in fragments.
fn live_by_web(addr: std::net::SocketAddr, mut random: Random) -> usize {
    let mut web = Web::connect(addr);
    let mut socket = web.writer();
    let writer = thread::spawn(move || {
        let (mut out, mut message) = (vec![], vec![]);
        let mut lines = 0;
        while lines < LINES_PER_CONNECTION {
            message.clear();
            let count = (1 + random.below(20)).min(LINES_PER_CONNECTION - lines);
            for _ in 0..count {
                garbage(&mut random, &mut message);
                message.push(b'\n');
            }
            lines += count;
            // What is no text ends a WebSocket.
            put_message(&mut random, String::from_utf8_lossy(&message).as_bytes(), &mut out);
            if out.len() > PIECE_BYTES || lines == LINES_PER_CONNECTION {
                write(&mut socket, &out);
                out.clear();
            }
        }
        out.extend(web::frame(web::TEXT, b"PING the end\nQUIT"));
        write(&mut socket, &out);
    });
    let count = hear_to_the_end(|| match web.next()? {
        (web::TEXT, line) => Some(String::from_utf8(line).expect("checked before")),
        (web::PONG, payload) => Some(format!("PONG {}", payload.len())),
        (first, payload) => {
            assert_eq!((first, web::close_code(&payload)), (web::CLOSE, 1000));
            None
        }
    });
    writer.join().expect("the server reads all of it");
    count
}

/// Bytes that are written at once, more or less.
const PIECE_BYTES: usize = 32 * 1024;

fn write(socket: &mut TcpStream, bytes: &[u8]) {
    socket.write_all(bytes).expect("the server reads");
}

/// Hears all up to `BYE quit`, which must come behind the answer to the last `PING`.
fn hear_to_the_end(mut next: impl FnMut() -> Option<String>) -> usize {
    let (mut count, mut last, mut before) = (0, String::new(), String::new());
    while let Some(line) = next() {
        count += 1;
        // Messages of others, and answers under a tag, may come in between; nothing else.
        if !line.starts_with("MSG ") && !line.starts_with('@') {
            before = std::mem::replace(&mut last, line);
        }
    }
    assert_eq!((&before[..], &last[..]), ("PONG the end", "BYE quit"));
    count
}

/// Appends a text message, in one frame or in several with pings between them.
fn put_message(random: &mut Random, message: &[u8], out: &mut Vec<u8>) {
    let mut rest = message;
    let mut first = true;
    loop {
        let length = if random.below(3) == 0 { random.below(rest.len() + 1) } else { rest.len() };
        let (part, behind) = rest.split_at(length);
        let opcode = if first { 0x01 } else { 0x00 };
        let end = if behind.is_empty() { 0x80 } else { 0x00 };
        out.extend(web::frame(opcode | end, part));
        if behind.is_empty() {
            return;
        }
        if random.below(4) == 0 {
            out.extend(web::frame(web::PING, &part[..part.len().min(125)]));
        }
        (first, rest) = (false, behind);
    }
}

/// Appends one line without LF, or with one where a mutation put it.
fn garbage(random: &mut Random, out: &mut Vec<u8>) {
    let start = out.len();
    match random.below(10) {
        0 => (0..random.below(200)).for_each(|_| out.push(random.byte())),
        1..=3 => valid(random, out),
        _ => {
            valid(random, out);
            let mut line = out.split_off(start);
            for _ in 0..1 + random.below(2) {
                mutate(random, &mut line);
            }
            out.append(&mut line);
        }
    }
    // `QUIT` ends a connection before its last question; no other request does.
    let line = out[start..].to_ascii_uppercase();
    if line.windows(4).any(|four| four == b"QUIT") {
        out.truncate(start);
    } else if contains_in_order(&line, b"LOGINACK") {
        // Who sends to a session that acknowledges nothing waits for 10 seconds: nobody knows this one.
        // Whatever stands between the letters may be a telnet command, of which nothing is left, or a CR.
        out.truncate(start);
        out.extend(b"LOGIN unknown ack");
    }
}

/// Whether all of `letters` are in `line` in this order, with anything between them.
fn contains_in_order(line: &[u8], letters: &[u8]) -> bool {
    let mut rest = line.iter();
    letters.iter().all(|letter| rest.any(|byte| byte == letter))
}

const VERBS: &[&str] = &[
    "LOGIN", "SEND", "CAST", "ACK", "WHO", "WATCH", "UNWATCH", "JOIN", "LEAVE", "PING", "HELP", "send",
    "Who", "NONSENSE",
];
const NAMES: &[&str] =
    &["garbage-0", "garbage-1", "garbage-2", "nobody", "\u{5c0f}\u{660e}", "#lobby", "#", "@", "+", "a#b"];
const TEXTS: &[&str] =
    &["hello", "  two  spaces ", "\u{1f468}\u{200d}\u{1f469}", "a\tb", "ack", "token ack", "#", "@t"];

/// Appends a line as a client would say it, mostly.
fn valid(random: &mut Random, out: &mut Vec<u8>) {
    if random.below(4) == 0 {
        out.extend(format!("@tag-{} ", random.below(50)).as_bytes());
    }
    out.extend(random.one_of(VERBS).as_bytes());
    for words in [NAMES, TEXTS] {
        if random.below(8) > 0 {
            out.push(b' ');
            out.extend(random.one_of(words).as_bytes());
        }
    }
}

fn mutate(random: &mut Random, line: &mut Vec<u8>) {
    const CONTROLS: &[u8] = b"\0\x07\x08\t\n\x0b\r\x1b\x7f\x9b ";
    let at = random.below(line.len() + 1);
    match random.below(12) {
        0 | 1 => {
            if let Some(byte) = line.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => line.truncate(at),
        3 => drop(line.drain(..at)),
        4 => {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let again = [b" ", fields[random.below(fields.len())]].concat();
            line.extend(again);
        }
        5 => line.insert(at, CONTROLS[random.below(CONTROLS.len())]),
        6 => line.insert(at, random.byte()),
        7 => {
            // A telnet command, or a part of one.
            let command = [255, 240 + random.below(16) as u8, random.byte(), b'x', 255, 240];
            let length = 1 + random.below(command.len());
            line.splice(at..at, command[..length].iter().copied());
        }
        8 => {
            let spaces = 1 + random.below(5);
            line.splice(at..at, std::iter::repeat_n(b' ', spaces));
        }
        9 => line.splice(0..0, random.one_of(&["@", "@t ", "@@ ", "@\u{fc} ", " "]).bytes()).for_each(drop),
        10 if random.below(100) == 0 => {
            let length = random.below(20_000);
            line.splice(at..at, std::iter::repeat_n(b'x', length));
        }
        _ => {
            // Bytes that begin a character and do not end it, or do not begin one.
            let bad: &[&[u8]] =
                &[b"\xc3", b"\xe5\xb0", b"\xf0\x9f\x92", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80"];
            line.splice(at..at, random.one_of(bad).iter().copied());
        }
    }
}

#[test]
fn frames_of_garbage() {
    const CONNECTIONS: usize = 300;
    let seed = seeds(1)[0];
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    for n in 0..CONNECTIONS {
        let mut random = Random(seed ^ (n as u64) << 32);
        let mut web = Web::connect(node.http);
        let mut out = vec![];
        for _ in 0..20 {
            let mut frame =
                web::frame(web::TEXT, random.one_of(&["PING x", "HELP", "LOGIN a\nSEND a b"]).as_bytes());
            if random.below(4) == 0 {
                let at = random.below(frame.len().min(8));
                frame[at] = random.byte();
            }
            out.extend(frame);
        }
        web.raw(&out);
        web.stream().shutdown(std::net::Shutdown::Write).expect("the connection is there");
        // It is answered, and closed with a code that tells why.
        let mut code = None;
        while let Some((first, payload)) = web.next() {
            assert_eq!(code, None, "nothing comes behind a close frame");
            if first == web::CLOSE {
                code = Some(web::close_code(&payload));
            }
        }
        assert!(code.is_some(), "connection {n} ended without a word");
    }
    bystanders.noticed_nothing();
    node.settles();
}
