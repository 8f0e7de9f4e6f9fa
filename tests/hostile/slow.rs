//! Peers that do not read, or do not acknowledge, and what becomes of the messages for them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pinpost::CloseReason;

use crate::CUT_TIME_MAX;
use crate::rig::bystanders::Bystanders;
use crate::rig::net::{nodes, on_every_net};
use crate::rig::node::Node;
use crate::rig::peer::{Peer, delivered, message, pour};
use crate::rig::program::{Growth, Program};
use crate::rig::web::{CLOSE, PING, PONG, TEXT, Web, close_code, frame};
use crate::rig::{until, until_in};

/// The length of a message of a flood.
const TEXT_BYTES: usize = 1_000;

/// Sends to `to` under tags until the first error, never with more than
/// `window` unanswered; then tells so and waits for the remaining replies.
/// Returns the ids that were delivered and those that were not.
fn flood(
    addr: SocketAddr,
    user: &str,
    to: &str,
    window: usize,
    told: &mpsc::Sender<()>,
) -> (Vec<String>, Vec<String>) {
    let mut client = Peer::login(addr, user);
    client.patient(CUT_TIME_MAX);
    let text = "x".repeat(TEXT_BYTES);
    let (mut sent, mut good, mut bad) = (0, vec![], vec![]);
    loop {
        while bad.is_empty() && sent < good.len() + bad.len() + window {
            client.say(&format!("@{user}-{sent} SEND {to} {text}"));
            sent += 1;
        }
        if good.len() + bad.len() == sent {
            return (good, bad);
        }
        let line = client.hear();
        let (tag, reply) = line.strip_prefix('@').and_then(|line| line.split_once(' ')).expect("a tag");
        if let Some(id) = delivered(reply) {
            assert_eq!(id, tag);
            good.push(id.to_owned());
        } else {
            assert!(reply.starts_with("ERR offline "), "{line}");
            if bad.is_empty() {
                told.send(()).expect("the test waits for it");
            }
            bad.push(tag.to_owned());
        }
    }
}

/// The ids of the messages among `lines`, by sender, in their order.
fn ids_by_sender(lines: &[String]) -> HashMap<String, Vec<String>> {
    let mut ids: HashMap<String, Vec<String>> = HashMap::new();
    for (from, id, _) in lines.iter().filter_map(|line| message(line)) {
        ids.entry(from.to_owned()).or_default().push(id.to_owned());
    }
    ids
}

/// Waits until the user `mute` is offline, and looks at the memory on the way.
fn until_mute_is_cut_off(watcher: &mut Peer, growth: &mut Growth<'_>) {
    until_in(CUT_TIME_MAX, "mute is cut off", || {
        growth.look();
        watcher.say("WHO mute");
        watcher.hears_start("OK mute ") == "OK mute offline"
    });
}

#[test]
fn one_that_never_reads_while_ten_send_to_it() {
    const SENDERS: usize = 10;
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut stuck = Peer::login(node.tcp, "stuck");
    let (told, is_told) = mpsc::channel();
    let addr = node.tcp;
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| (format!("sender-{n}"), told.clone()))
        .map(|(user, told)| thread::spawn(move || (flood(addr, &user, "stuck", 200, &told), user)))
        .collect();
    for _ in 0..SENDERS {
        is_told.recv_timeout(CUT_TIME_MAX).expect("every sender is told that it was cut off");
    }
    assert_eq!(node.metrics().closes(CloseReason::Slow), 1);
    // Only now does it look: what the kernel had, one line that was begun, and why.
    let lines = stuck.rest();
    assert!(lines.last().is_some_and(|line| line.starts_with("BYE slow ")), "{:?}", lines.last());
    let mut read = ids_by_sender(&lines);
    for sender in senders {
        let ((good, bad), user) = sender.join().expect("a sender is told the fate of every message");
        assert!(!bad.is_empty());
        assert_eq!(read.remove(&user).unwrap_or_default(), good, "OK for what it can read, in order");
    }
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_websocket_that_never_reads() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut stuck = Web::login(node.http, "stuck");
    let (told, is_told) = mpsc::channel();
    let addr = node.tcp;
    let sender = thread::spawn(move || flood(addr, "sender", "stuck", 1_000, &told));
    is_told.recv_timeout(CUT_TIME_MAX).expect("the sender is told that it was cut off");
    let frames: Vec<_> = std::iter::from_fn(|| stuck.next()).collect();
    let ((first, last), lines) = frames.split_last().expect("there was something to read");
    assert_eq!((*first, close_code(last)), (CLOSE, 1008));
    let text = |(first, payload): &(u8, Vec<u8>)| {
        assert_eq!(*first, TEXT);
        String::from_utf8(payload.clone()).expect("checked before")
    };
    let lines: Vec<String> = lines.iter().map(text).collect();
    assert!(lines.last().is_some_and(|line| line.starts_with("BYE slow ")), "{:?}", lines.last());
    let (good, _) = sender.join().expect("a sender is told the fate of every message");
    assert_eq!(ids_by_sender(&lines).remove("sender").unwrap_or_default(), good);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn a_websocket_that_pings_and_never_reads() {
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    let mut watcher = Peer::login(server.tcp(), "watcher");
    let mut mute = Web::login(server.http(), "mute");
    mute.patient(CUT_TIME_MAX);
    let mut growth = server.growth();
    let pings: Vec<u8> = (0..100).flat_map(|n| frame(PING, &[b'x'; 125][n..])).collect();
    let mut socket = mute.writer();
    let pinging = thread::spawn(move || while socket.write_all(&pings).is_ok() {});
    until_mute_is_cut_off(&mut watcher, &mut growth);
    let frames: Vec<_> = std::iter::from_fn(|| mute.next()).collect();
    let [pongs @ .., (TEXT, bye), (CLOSE, code)] = &frames[..] else { panic!("no last words") };
    assert!(bye.starts_with(b"BYE slow ") && close_code(code) == 1008);
    for (n, pong) in pongs.iter().enumerate() {
        assert_eq!((pong.0, pong.1.len()), (PONG, 125 - n % 100));
    }
    growth.is_below(2 << 20);
    drop(mute);
    pinging.join().expect("no panic");
    bystanders.noticed_nothing();
}

#[test]
fn a_second_session_that_reads_takes_what_the_first_did_not() {
    const MESSAGES: usize = 3_000;
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut stuck = Peer::login(node.tcp, "both");
    let mut sender = Peer::login(node.tcp, "sender");
    sender.patient(CUT_TIME_MAX);
    let text = "x".repeat(3_000);
    // More than the kernel and the outbox hold together, so that some of it waits in its sender's socket.
    let lines: String = (0..MESSAGES).map(|n| format!("SEND both {n} {text}\n")).collect();
    let mut writer = sender.writer();
    let writer = thread::spawn(move || writer.write_all(lines.as_bytes()));
    let outbox_bytes = 256 * 1024;
    // For more than a moment: the kernels may still move what they hold from one end to the other.
    let mut looks = 0;
    until("the first session's outbox is full", || {
        looks = if node.holdings().in_flight >= outbox_bytes / 3_100 { looks + 1 } else { 0 };
        looks == 50
    });
    let mut second = Peer::login(node.tcp, "both");
    let number = |line: &str| -> Option<usize> { message(line)?.2.split_once(' ')?.0.parse().ok() };
    let reader = thread::spawn(move || {
        let mut numbers = vec![];
        while numbers.last() != Some(&(MESSAGES - 1)) {
            numbers.push(number(&second.hear()).expect("the second session hears only messages"));
        }
        (numbers, second)
    });
    until_in(CUT_TIME_MAX, "the first session is cut off", || node.metrics().closes(CloseReason::Slow) == 1);
    let lines = stuck.rest();
    assert!(lines.last().is_some_and(|line| line.starts_with("BYE slow ")), "{:?}", lines.last());
    let first: Vec<usize> = lines.iter().filter_map(|line| number(line)).collect();
    for _ in 0..MESSAGES {
        let reply = sender.hear();
        assert!(delivered(&reply).is_some(), "{reply:?}");
    }
    writer.join().expect("no panic").expect("the server reads on");
    let (second_had, second) = reader.join().expect("all arrive");
    assert_eq!(first, (0..first.len()).collect::<Vec<_>>());
    let begin = second_had[0];
    assert!(begin <= first.len(), "nothing between {} and {begin} is lost", first.len());
    assert_eq!(second_had, (begin..MESSAGES).collect::<Vec<_>>());
    bystanders.noticed_nothing();
    drop((sender, second));
    node.settles();
}

#[test]
fn senders_learn_that_a_session_died_with_their_messages() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let stuck = Peer::login(node.tcp, "stuck");
    let (told, is_told) = mpsc::channel();
    let addr = node.tcp;
    let sender = thread::spawn(move || flood(addr, "sender", "stuck", 100, &told));
    until("messages wait in the outbox", || node.holdings().in_flight >= 100);
    // Unread input: the kernel resets the connection.
    drop(stuck);
    is_told.recv_timeout(CUT_TIME_MAX).expect("the sender is told");
    let (_, bad) = sender.join().expect("a sender is told the fate of every message");
    assert!(bad.len() <= 100);
    assert_eq!(node.metrics().closes(CloseReason::Slow), 0);
    bystanders.noticed_nothing();
    node.settles();
}

#[test]
fn one_that_asks_and_never_reads_the_answers_is_stopped_and_cut() {
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    let mut watcher = Peer::login(server.tcp(), "watcher");
    let mut mute = Peer::login(server.tcp(), "mute");
    mute.patient(CUT_TIME_MAX);
    let mut growth = server.growth();
    // Answers of many lengths, so that the socket blocks within a line.
    let questions: String = (0..200).map(|n| format!("PING {}\n", "x".repeat(n * 19))).collect();
    let mut socket = mute.writer();
    let asking = thread::spawn(move || {
        // Ends when the server does not take more for good.
        while socket.write_all(questions.as_bytes()).is_ok() {}
    });
    // It reads a little, so that the outbox fills, moves and fills again.
    let mut lines: Vec<String> = (0..2_000).map(|_| mute.hear()).collect();
    until_mute_is_cut_off(&mut watcher, &mut growth);
    lines.append(&mut mute.rest());
    let (last, answers) = lines.split_last().expect("there was something to read");
    assert!(last.starts_with("BYE slow "), "{last:?}");
    for (n, line) in answers.iter().enumerate() {
        let expected = "x".repeat(n % 200 * 19);
        assert_eq!(line.strip_prefix("PONG").map(str::trim_start), Some(&expected[..]), "answer {n}");
    }
    growth.is_below(2 << 20);
    drop(mute);
    asking.join().expect("no panic");
    bystanders.noticed_nothing();
}

#[test]
fn a_full_outbox_whose_socket_stalls_is_cut_off_after_a_second() {
    const SENDS: usize = 20_000;
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let _mute = Peer::login(node.tcp, "mute");
    let mut alice = Peer::login(node.tcp, "alice");
    alice.patient(CUT_TIME_MAX);
    let writer = alice.writer();
    let pouring = thread::spawn(move || pour(writer, "mute", SENDS, TEXT_BYTES));
    let mut last_good = Instant::now();
    let mut stalled = None;
    for _ in 0..SENDS {
        if alice.hear().contains(" ERR offline ") {
            stalled.get_or_insert(last_good.elapsed());
        } else {
            last_good = Instant::now();
        }
    }
    let stalled = stalled.expect("more than the kernels take");
    // One second by the book; an outbox that is not full has five.
    assert!(stalled < Duration::from_secs(4), "its sender waited {stalled:?}");
    pouring.join().expect("the pouring thread");
    bystanders.noticed_nothing();
}

#[test]
fn one_that_acknowledges_too_slowly_is_a_slow_consumer() {
    const COUNT: usize = 200;
    on_every_net(|net| {
        let [a, b] = nodes(net, &[("outbox", "16384"), ("mailbox", "1000")]);
        thread::scope(|scope| {
            for (home, bob) in [(&a, "bob-here"), (&b, "bob-there")] {
                let (a, b) = (&a, &b);
                scope.spawn(move || {
                    let bystanders = Bystanders::start(home.tcp);
                    let from = format!("alice-{bob}");
                    let mut alice = Peer::login(a.tcp, &from);
                    let mut mute = Peer::login_acking(home.tcp, bob);
                    alice.patient(CUT_TIME_MAX);
                    mute.patient(CUT_TIME_MAX);
                    let since = Instant::now();
                    pour(alice.writer(), bob, COUNT, 1_000);
                    let heard = mute.rest();
                    let took = since.elapsed();
                    let (last, shown) = heard.split_last().expect("it is told why");
                    assert!(last.starts_with("BYE slow "), "{last}");
                    assert!(
                        took > Duration::from_millis(4_500) && took < Duration::from_secs(10),
                        "it took {took:?}"
                    );
                    for (n, line) in shown.iter().enumerate() {
                        assert!(line.starts_with(&format!("MSG {from} {n} {n} ")), "{line}");
                    }
                    assert!((10..=17).contains(&shown.len()), "{} of 1,000 bytes were shown", shown.len());
                    // Nothing is lost.
                    (0..COUNT).for_each(|n| alice.hears(&format!("@{n} OK {n} stored")));
                    let mut next = Peer::login(b.tcp, bob);
                    next.hears_poured(&from, 0..COUNT);
                    next.heard_all();
                    bystanders.noticed_nothing();
                });
            }
        });
        let slow = a.metrics().closes(CloseReason::Slow) + b.metrics().closes(CloseReason::Slow);
        assert_eq!(slow, 2);
    });
}

#[test]
fn memory_is_bounded_when_nobody_acknowledges() {
    const RECIPIENTS: usize = 50;
    const SENDERS: usize = 200;
    const OUTBOX: usize = 16 * 1024;
    let server = Program::serve(&["--outbox", &OUTBOX.to_string(), "--mailbox", "0"]);
    let bystanders = Bystanders::start(server.tcp());
    let mut mutes: Vec<Peer> =
        (0..RECIPIENTS).map(|n| Peer::login_acking(server.tcp(), &format!("mute-{n}"))).collect();
    let senders: Vec<Peer> =
        (0..SENDERS).map(|n| Peer::login(server.tcp(), &format!("sender-{n}"))).collect();
    for peer in &senders {
        peer.stream().set_nonblocking(true).expect("a socket can be that");
    }
    let mut growth = server.growth();
    // What was not taken of a line is said first the next time.
    let mut unsent: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let text = "x".repeat(200);
    let (mut said, mut rounds) = (0, 0);
    let since = Instant::now();
    // Most of that is before the recipients are cut off, as slow consumers, and some of it after.
    while since.elapsed() < Duration::from_secs(7) {
        for (n, sender) in senders.iter().enumerate() {
            let lines = unsent.entry(n).or_default();
            if lines.is_empty() {
                let line = |k: usize| format!("SEND mute-{} {text}\n", (n + k) % RECIPIENTS);
                lines.extend((0..20).flat_map(|k| line(rounds * 20 + k).into_bytes()));
            }
            let count = write_some(sender.stream(), lines);
            said += count;
            lines.drain(..count);
            read_some(sender.stream(), &mut buffer);
        }
        rounds += 1;
        if rounds % 20 == 0 {
            growth.look();
        }
    }
    growth.look();
    // Shown and waiting, each an outbox and a message; what is read and can't be sent yet; and
    // for each message on its way a place in the table of those and in its sender's replies.
    let in_outboxes = RECIPIENTS * 2 * (OUTBOX + 1_024);
    let unread = SENDERS * 16 * 1024;
    // What the node's thread keeps of empty outboxes, to use again.
    let spares = 64 * 8 * 1024;
    let bound = in_outboxes + unread + in_outboxes + spares + (2 << 20);
    println!(
        "{} MiB were said; memory grew by {} KiB, bound {}",
        said >> 20,
        growth.bytes() >> 10,
        bound >> 10
    );
    growth.is_below(bound);
    for mute in &mut mutes {
        mute.patient(CUT_TIME_MAX);
        let heard = mute.rest();
        let (last, shown) = heard.split_last().expect("it is told why");
        assert!(last.starts_with("BYE slow "), "{last}");
        assert!(shown.len() <= 256 && shown.iter().all(|line| message(line).is_some()));
    }
    drop(senders);
    bystanders.noticed_nothing();
    let mut alice = Peer::login(server.tcp(), "alice");
    until_in(CUT_TIME_MAX, "they are gone", || {
        alice.say("@who WHO mute-0");
        alice.hear() == "@who OK mute-0 offline"
    });
}

fn write_some(mut socket: &TcpStream, bytes: &[u8]) -> usize {
    match socket.write(bytes) {
        Ok(count) => count,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
        Err(error) => panic!("the node reads on: {error}"),
    }
}

fn read_some(mut socket: &TcpStream, buffer: &mut [u8]) {
    match socket.read(buffer) {
        Ok(0) => panic!("a sender was cut off"),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(error) => panic!("the node goes on: {error}"),
    }
}
