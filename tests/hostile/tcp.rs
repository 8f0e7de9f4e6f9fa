//! Peers that say what no client should, or in ways that no client should.

use std::collections::HashSet;
use std::io::Write;

use pinpost::CloseReason;

use crate::rig::bystanders::Bystanders;
use crate::rig::node::Node;
use crate::rig::peer::{Peer, delivered, message};
use crate::rig::program::Program;
use crate::rig::{until, until_in};

use crate::CUT_TIME_MAX;

const IAC: u8 = 255;

#[test]
fn a_line_of_100_mb_costs_no_memory() {
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    // The second is a telnet command that does not end, and swallows whatever comes.
    for start in [&b"@t SEND bob "[..], &[b'@', b't', b' ', IAC, 250]] {
        let mut client = Peer::connect(server.tcp());
        let mut growth = server.growth();
        let piece = vec![b'x'; 1 << 20];
        client.raw(start);
        for n in 0..100 {
            client.raw(&piece);
            if n % 5 == 0 {
                growth.look();
            }
        }
        client.raw(b"\nPING still here\n");
        client.hears_start("@t ERR too-long ");
        client.hears_start("PONG still here");
        growth.look();
        growth.is_below(1 << 20);
    }
    bystanders.noticed_nothing();
}

#[test]
fn a_half_closed_socket_gets_its_answers() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut bob = Peer::login(node.tcp, "bob");
    let mut alice = Peer::connect(node.tcp);
    alice.raw(b"LOGIN alice\nSEND bob one\nSEND nobody two\nSEND bob three\nPING four\nPING without an end");
    alice.half_close();
    let lines = alice.rest();
    let starts = ["OK alice ", "OK ", "ERR offline ", "OK ", "PONG four", "ERR bad-line "];
    assert_eq!(lines.len(), starts.len(), "{lines:?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line:?} instead of {start:?}");
    }
    for text in ["one", "three"] {
        assert_eq!(message(&bob.hear()).expect("a message").2, text);
    }
    // One that closes its half without a word, and one that goes on being written to.
    let mut nobody = Peer::connect(node.tcp);
    nobody.half_close();
    assert_eq!(nobody.next(), None);
    bob.half_close();
    assert_eq!(bob.next(), None);
    let mut carol = Peer::login(node.tcp, "carol");
    carol.say("SEND bob too late");
    carol.hears_start("ERR offline ");
    drop(carol);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn bytes_that_are_not_text_reach_nobody() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut victim = Peer::login(node.tcp, "victim");
    let mut client = Peer::login(node.tcp, "client");
    let texts: &[&[u8]] = &[
        b"\x80",
        b"\xc3(",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf0\x9f\x92",
        b"\xfe\xfe",
        b"\x1b[2J\x1b[1;1H",
        b"\x1b]0;title\x07",
        b"\x1b]52;c;cm0gLXJm\x07",
        b"\x1bP+q544e\x1b\\",
        b"\x9b2J",
        b"\xc2\x9b2J",
        b"\xc2\x85",
        b"\x00",
        b"\x08\x08\x08",
        b"over\rwritten",
        b"\x7f",
        b"\x0b\x0c",
    ];
    for text in texts {
        client.raw(&[b"@t SEND victim ", *text, b" end\n"].concat());
        client.hears_start("@t ERR bad-text ");
        client.raw(&[b"CAST victim ", *text, b" end\n"].concat());
        client.hears_start("ERR bad-text ");
        // Nor can anybody be called so.
        let mut named = Peer::connect(node.tcp);
        named.raw(&[b"LOGIN a", *text, b"b\n"].concat());
        named.hears_start("ERR bad-text ");
    }
    // What is text is carried byte for byte: tabs, spaces, all scripts, right to left, joined.
    let fine = "  a\tb  \u{5c0f}\u{660e} \u{1f468}\u{200d}\u{1f469} \u{627}\u{644} e\u{301} ";
    client.say(&format!("SEND victim {fine}"));
    assert!(delivered(&client.hear()).is_some());
    assert_eq!(message(&victim.hear()).expect("a message").2, fine, "and nothing before it");
    drop((victim, client));
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn telnet_negotiation_is_not_part_of_lines() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut victim = Peer::login(node.tcp, "victim");
    let mut telnet = Peer::connect(node.tcp);
    // What a telnet client says first, a window size that holds an LF, and commands within words.
    let mut input = vec![];
    for option in [1, 3, 24, 31, 39] {
        input.extend([IAC, 251, option, IAC, 253, option, IAC, 252, option, IAC, 254, option]);
    }
    input.extend([IAC, 250, 31, 0, b'\n', 0, 24, IAC, IAC, IAC, 240]);
    input.extend(b"LOG");
    input.extend([IAC, 241]);
    input.extend(b"IN telnet\r\nSEND victim he");
    input.extend([IAC, 251, b'\n', IAC, 249]);
    input.extend(b"llo\r\n");
    for byte in input {
        telnet.raw(&[byte]);
    }
    telnet.hears_start("OK telnet ");
    assert!(delivered(&telnet.hear()).is_some());
    assert_eq!(message(&victim.hear()).expect("a message").2, "hello");
    // Each option is refused, and what refuses one is not answered.
    let mut answers: Vec<u8> =
        [1, 3, 24, 31, 39].into_iter().flat_map(|option| [IAC, 254, option, IAC, 252, option]).collect();
    answers.extend([IAC, 254, b'\n']);
    assert_eq!(telnet.telnet, answers);
    // Ctrl-C, whose last byte is urgent, and Ctrl-D; a client waits for the answer to "timing mark".
    telnet.raw(&[IAC, 244, IAC]);
    rustix::net::send(telnet.stream(), &[242], rustix::net::SendFlags::OOB).expect("the node reads");
    telnet.raw(&[IAC, 236, IAC, 253, 6]);
    telnet.raw(b"PING on\n");
    telnet.hears("PONG on");
    assert_eq!(telnet.telnet[answers.len()..], [IAC, 252, 6]);
    // The byte 255 itself, and a command that is none.
    for command in [&[IAC, IAC][..], &[IAC, b'A']] {
        telnet.raw(&[b"SEND victim ", command, b"\n"].concat());
        telnet.hears_start("ERR bad-text ");
    }
    drop((victim, telnet));
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn telnet_answers_that_nobody_reads_have_a_bound() {
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    let mut growth = server.growth();
    let mut asking = Peer::connect(server.tcp());
    let asks = [IAC, 253, 6].repeat(1 << 18);
    asking.patient(CUT_TIME_MAX);
    let mut writer = asking.writer();
    let asker = std::thread::spawn(move || (0..400).try_for_each(|_| writer.write_all(&asks)).is_err());
    // It is not read, and in the end it is a slow consumer.
    until_in(CUT_TIME_MAX, "the asker is cut off", || {
        growth.look();
        asker.is_finished()
    });
    assert!(asker.join().expect("it ends"), "not all of it was read");
    growth.is_below(1 << 20);
    bystanders.noticed_nothing();
}

#[test]
fn what_is_for_another_kind_of_server_is_told_once() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut victim = Peer::login(node.tcp, "victim");
    let lines = "LOGIN page\nSEND victim hello\n";
    let long = "x".repeat(10_000);
    let http = |start: &str| format!("{start}\r\nHost: a\r\n\r\n{lines}").into_bytes();
    let binary = |start: &[u8]| [start, lines.as_bytes()].concat();
    let cases = [
        (http("POST / HTTP/1.1"), "HTTP"),
        (http(&format!("POST /{long} HTTP/1.1")), "HTTP"),
        (http("PRI * HTTP/2.0"), "HTTP"),
        (binary(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "TLS"),
        (binary(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"), "PROXY"),
        (binary(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"), "PROXY"),
    ];
    for (bytes, name) in cases {
        for size in [bytes.len(), 7] {
            let mut page = Peer::connect(node.tcp);
            for piece in bytes.chunks(size) {
                // It is closed before all of it is there.
                let _ = page.try_raw(piece);
            }
            let line = page.hears_start("ERR bad-line ");
            assert!(line.contains(name), "{line}");
            assert_eq!(page.next(), None);
        }
    }
    victim.heard_all();
    // A handshake without an LF, and one that is alone.
    let mut tls = Peer::connect(node.tcp);
    tls.raw(b"\x16\x03");
    tls.hears_start("ERR bad-line ");
    assert_eq!(tls.next(), None);
    // Further lines may say what they like.
    victim.say("GET / HTTP/1.1");
    victim.hears_start("ERR unknown-verb ");
    drop((victim, tls));
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_full_node_turns_others_away_until_one_leaves() {
    let node = Node::start(&[("connections", "10")]);
    let bystanders = Bystanders::start(node.tcp);
    let mut inside: Vec<Peer> = (0..8).map(|_| Peer::connect(node.tcp)).collect();
    let mut eleventh = Peer::connect(node.tcp);
    eleventh.hears_start("ERR too-many ");
    assert_eq!(eleventh.next(), None);
    assert_eq!(node.metrics().turned_away, 1);
    let mut leaving = inside.pop().expect("eight are inside");
    leaving.say("QUIT");
    leaving.hears_start("BYE quit");
    assert_eq!(leaving.next(), None);
    drop(leaving);
    until("the one has left", || node.holdings().connections == 9);
    inside.push(Peer::login(node.tcp, "late"));
    let mut another = Peer::connect(node.tcp);
    another.hears_start("ERR too-many ");
    drop(inside);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn those_who_do_not_log_in_are_sent_away() {
    let node = Node::start(&[("login-timeout", "300ms")]);
    let bystanders = Bystanders::start(node.tcp);
    let mut silent: Vec<Peer> = (0..200).map(|_| Peer::connect(node.tcp)).collect();
    // Talking is not logging in.
    for client in &mut silent[..50] {
        client.say("PING");
        client.hears_start("PONG");
        client.raw(b"LOGIN half a li");
    }
    for client in &mut silent {
        client.hears_start("BYE idle ");
        assert_eq!(client.next(), None);
    }
    assert_eq!(node.metrics().closes(CloseReason::Idle), 200);
    drop(silent);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn one_user_with_too_many_sessions_keeps_those_it_has() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut sessions: Vec<Peer> = (0..8).map(|_| Peer::login(node.tcp, "many")).collect();
    let mut ninth = Peer::connect(node.tcp);
    for _ in 0..100 {
        ninth.say("LOGIN many");
        ninth.hears_start("ERR too-many ");
    }
    ninth.say("LOGIN other");
    ninth.hears_start("OK other ");
    ninth.say("SEND many hello");
    let ids: HashSet<String> = sessions
        .iter_mut()
        .map(|session| message(&session.hear()).expect("a message").1.to_owned())
        .collect();
    assert_eq!(ids.len(), 1, "all eight got the one message");
    assert!(ids.contains(delivered(&ninth.hear()).expect("a receipt")));
    drop((sessions, ninth));
    bystanders.noticed_nothing();
    node.settles();
}
