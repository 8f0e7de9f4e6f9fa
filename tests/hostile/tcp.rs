//! Peers that say what no client should, or in ways that no client should.

use std::collections::HashSet;

use pinpost::proto::CloseReason;

use crate::support::bystanders::Bystanders;
use crate::support::node::{Child, Node};
use crate::support::{Client, delivered, message, until};

const IAC: u8 = 255;

#[test]
fn a_line_of_100_mb_costs_no_memory() {
    let server = Child::start(&[]);
    let bystanders = Bystanders::start(server.tcp);
    // The second is a telnet command that does not end, and swallows whatever comes.
    for start in [&b"@t SEND bob "[..], &[b'@', b't', b' ', IAC, 250]] {
        let mut client = Client::connect(server.tcp);
        let before = server.memory();
        let mut most = before;
        let piece = vec![b'x'; 1 << 20];
        client.raw(start);
        for n in 0..100 {
            client.raw(&piece);
            if n % 5 == 0 {
                most = most.max(server.memory());
            }
        }
        client.raw(b"\nPING still here\n");
        client.hears("@t ERR too-long ");
        client.hears("PONG still here");
        most = most.max(server.memory());
        assert!(most - before < 1 << 20, "memory grew by {} KiB", (most - before) / 1024);
    }
    bystanders.noticed_nothing();
}

#[test]
fn a_half_closed_socket_gets_its_answers() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut bob = Client::login(node.tcp, "bob");
    let mut alice = Client::connect(node.tcp);
    alice.raw(b"LOGIN alice\nSEND bob one\nSEND nobody two\nSEND bob three\nPING four\nPING without an end");
    alice.hush();
    let lines = alice.rest();
    let starts = ["OK alice ", "OK ", "ERR offline ", "OK ", "PONG four"];
    assert_eq!(lines.len(), starts.len(), "{lines:?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line:?} instead of {start:?}");
    }
    for text in ["one", "three"] {
        assert_eq!(message(&bob.hear()).expect("a message").2, text);
    }
    // One that closes its half without a word, and one that goes on being written to.
    let mut nobody = Client::connect(node.tcp);
    nobody.hush();
    assert_eq!(nobody.next(), None);
    bob.hush();
    assert_eq!(bob.next(), None);
    let mut carol = Client::login(node.tcp, "carol");
    carol.say("SEND bob too late");
    carol.hears("ERR offline ");
    drop(carol);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn bytes_that_are_not_text_reach_nobody() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut victim = Client::login(node.tcp, "victim");
    let mut client = Client::login(node.tcp, "client");
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
        client.hears("@t ERR bad-text ");
        client.raw(&[b"CAST victim ", *text, b" end\n"].concat());
        client.hears("ERR bad-text ");
        // Nor can anybody be called so.
        let mut named = Client::connect(node.tcp);
        named.raw(&[b"LOGIN a", *text, b"b\n"].concat());
        named.hears("ERR bad-text ");
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
    let mut victim = Client::login(node.tcp, "victim");
    let mut telnet = Client::connect(node.tcp);
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
    telnet.hears("OK telnet ");
    assert!(delivered(&telnet.hear()).is_some());
    assert_eq!(message(&victim.hear()).expect("a message").2, "hello");
    // The byte 255 itself, and a command that is none.
    for command in [&[IAC, IAC][..], &[IAC, b'A']] {
        telnet.raw(&[b"SEND victim ", command, b"\n"].concat());
        telnet.hears("ERR bad-text ");
    }
    drop((victim, telnet));
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_full_node_turns_others_away_until_one_leaves() {
    let node = Node::start(&[("connections", "10")]);
    let bystanders = Bystanders::start(node.tcp);
    let mut inside: Vec<Client> = (0..8).map(|_| Client::connect(node.tcp)).collect();
    let mut eleventh = Client::connect(node.tcp);
    eleventh.hears("ERR too-many ");
    assert_eq!(eleventh.next(), None);
    assert_eq!(node.handle.metrics().turned_away.count(), 1);
    let mut leaving = inside.pop().expect("eight are inside");
    leaving.say("QUIT");
    leaving.hears("BYE quit");
    assert_eq!(leaving.next(), None);
    drop(leaving);
    until("the one has left", || node.handle.holdings().connections == 9);
    inside.push(Client::login(node.tcp, "late"));
    let mut another = Client::connect(node.tcp);
    another.hears("ERR too-many ");
    drop(inside);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn those_who_do_not_log_in_are_sent_away() {
    let node = Node::start(&[("login-timeout", "300ms")]);
    let bystanders = Bystanders::start(node.tcp);
    let mut silent: Vec<Client> = (0..200).map(|_| Client::connect(node.tcp)).collect();
    // Talking is not logging in.
    for client in &mut silent[..50] {
        client.say("PING");
        client.hears("PONG");
        client.raw(b"LOGIN half a li");
    }
    for client in &mut silent {
        client.hears("BYE idle ");
        assert_eq!(client.next(), None);
    }
    assert_eq!(node.handle.metrics().closes(CloseReason::Idle), 200);
    drop(silent);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn one_user_with_too_many_sessions_keeps_those_it_has() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut sessions: Vec<Client> = (0..8).map(|_| Client::login(node.tcp, "many")).collect();
    let mut ninth = Client::connect(node.tcp);
    for _ in 0..100 {
        ninth.say("LOGIN many");
        ninth.hears("ERR too-many ");
    }
    ninth.say("LOGIN other");
    ninth.hears("OK other ");
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
