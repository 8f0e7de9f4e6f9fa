//! Sessions that acknowledge: what waits for them, for how long, and where it goes then.
//!
//! That a message counts as delivered only when it was acknowledged is told by the
//! transcripts `ack.txt` and `mailbox.txt`; here are the bounds. A message that nobody
//! acknowledges has its fate after 10 seconds, so those cases run at the same time.

mod rig;

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use pinpost::Mesh;

use rig::net::{Net, Real, nodes, on_every_net};
use rig::node::Node;
use rig::peer::{Peer, message, pour};
use rig::until;

/// Messages that a session may leave unacknowledged.
const UNACKED_MAX: usize = 256;

/// Replies that a session may be owed.
const DUE_MAX: usize = 1_024;

/// How long a message waits for its acknowledgement.
const ACK_TIME_MAX: Duration = Duration::from_secs(10);

/// How much later a busy machine may notice.
const SLACK: Duration = Duration::from_secs(6);

#[test]
fn with_256_unacknowledged_the_rest_waits() {
    on_every_net(|net| {
        let [a, b] = nodes(net, &[]);
        for (home, bobs) in [(&a, "bob-here"), (&b, "bob-there")] {
            let mut alice = Peer::login(a.tcp, "alice");
            let mut bob = Peer::login_acking(home.tcp, bobs);
            pour(alice.writer(), bobs, UNACKED_MAX + 44, 1);
            bob.hears_poured("alice", 0..UNACKED_MAX);
            bob.heard_all();
            alice.heard_all();
            // Each one lets the next one out, in order, whichever it is.
            bob.acks("alice", 7..8);
            bob.hears_poured("alice", UNACKED_MAX..UNACKED_MAX + 1);
            bob.heard_all();
            alice.hears("@7 OK 7 delivered");
            bob.acks("alice", 0..7);
            bob.acks("alice", 8..20);
            bob.hears_poured("alice", UNACKED_MAX + 1..UNACKED_MAX + 20);
            bob.heard_all();
            (0..20).filter(|n| *n != 7).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered")));
            bob.acks("alice", 20..UNACKED_MAX);
            bob.hears_poured("alice", UNACKED_MAX + 20..UNACKED_MAX + 44);
            bob.acks("alice", UNACKED_MAX..UNACKED_MAX + 44);
            (20..UNACKED_MAX + 44).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered")));
            for person in [alice, bob] {
                person.quits();
            }
            [&a, &b].into_iter().for_each(Node::settles);
        }
    });
}

#[test]
fn no_more_bytes_are_unacknowledged_than_an_outbox_holds() {
    const COUNT: usize = 40;
    on_every_net(|net| {
        let [a, b] = nodes(net, &[("outbox", "8192")]);
        for (home, bobs) in [(&a, "bob-here"), (&b, "bob-there")] {
            let mut alice = Peer::login(a.tcp, "alice");
            let mut bob = Peer::login_acking(home.tcp, bobs);
            pour(alice.writer(), bobs, COUNT, 1_000);
            // A message takes a little more than its text, and the last one may be over the bound.
            bob.hears_poured("alice", 0..5);
            bob.say("@quiet PING");
            let mut shown = 5;
            while bob.hear() != "@quiet PONG" {
                shown += 1;
            }
            assert!((5..=8).contains(&shown), "{shown} of 1,000 bytes were shown");
            for n in 0..COUNT {
                if n >= shown {
                    bob.hears_poured("alice", n..n + 1);
                }
                bob.acks("alice", n..n + 1);
                alice.hears(&format!("@{n} OK {n} delivered"));
            }
            for person in [alice, bob] {
                person.quits();
            }
        }
    });
}

/// Where the sender, the recipient and another session of the recipient are.
#[derive(Clone, Copy)]
struct Places {
    alice: SocketAddr,
    bob: SocketAddr,
    other: SocketAddr,
}

/// What becomes of messages that are not acknowledged, case by case.
#[test]
fn what_is_not_acknowledged_for_10_seconds_goes_elsewhere() {
    let one_off = Node::start(&[]);
    let one_on = Node::start(&[("mailbox", "1000")]);
    let (mesh_off, mesh_on, real) = (Mesh::default(), Mesh::default(), Real::new());
    let [a, b, c] = nodes(&mesh_off, &[]);
    let [d, e, f] = nodes(&mesh_on, &[("mailbox", "1000")]);
    let [g, h, i] = nodes(&real as &dyn Net, &[("mailbox", "1000")]);
    let here = |node: &Node| Places { alice: node.tcp, bob: node.tcp, other: node.tcp };
    let there =
        |alice: &Node, bob: &Node, other: &Node| Places { alice: alice.tcp, bob: bob.tcp, other: other.tcp };
    thread::scope(|scope| {
        let off = [("alone", here(&one_off)), ("mesh", there(&a, &b, &c)), ("one of a mesh", here(&c))];
        let on = [
            ("alone", here(&one_on)),
            ("mesh", there(&d, &e, &f)),
            ("mesh, first here", there(&d, &d, &e)),
            ("real", there(&g, &h, &i)),
        ];
        for (n, (name, places)) in off.into_iter().enumerate() {
            scope.spawn(move || run(name, "nowhere", || to_nowhere(places, n)));
            scope.spawn(move || run(name, "another, no mailboxes", || to_another(places, n)));
        }
        for (n, (name, places)) in on.into_iter().enumerate() {
            scope.spawn(move || run(name, "another", || to_another(places, n)));
            scope.spawn(move || run(name, "the mailbox", || to_the_mailbox(places, n)));
            scope.spawn(move || run(name, "the mailbox, many", || many_to_the_mailbox(places, n)));
        }
    });
    for node in [&one_off, &one_on, &a, &b, &c, &d, &e, &f, &g, &h, &i] {
        node.settles();
    }
}

/// Names the case whose thread panics.
fn run(name: &str, what: &str, case: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case));
    if let Err(panic) = result {
        println!("the case was: {name}, to {what}");
        std::panic::resume_unwind(panic);
    }
}

/// Logs in: the sender, and the recipient that will acknowledge nothing.
fn people(places: Places, case: &str, n: usize) -> (Peer, Peer, String) {
    let bob = format!("bob-{case}-{n}");
    let mut alice = Peer::login(places.alice, &format!("alice-{case}-{n}"));
    alice.patient(ACK_TIME_MAX + SLACK);
    let mut mute = Peer::login_acking(places.bob, &bob);
    mute.patient(ACK_TIME_MAX + SLACK);
    (alice, mute, bob)
}

#[track_caller]
fn took_10_seconds(since: Instant) {
    let took = since.elapsed();
    // The clock of the node began a moment before.
    let least = ACK_TIME_MAX - Duration::from_millis(500);
    assert!(took >= least && took < ACK_TIME_MAX + SLACK, "it took {took:?}");
}

fn to_nowhere(places: Places, n: usize) {
    let (mut alice, mut mute, bob) = people(places, "nowhere", n);
    let from = format!("alice-nowhere-{n}");
    let since = Instant::now();
    alice.say(&format!("@t SEND {bob} hello"));
    mute.hears(&format!("MSG {from} t hello"));
    // It was shown, and may have been seen.
    alice.hears_start("@t ERR timeout ");
    took_10_seconds(since);
    mute.heard_all();
    alice.finds(&bob, "online 1");
    // Another session comes: nothing is under way any more.
    let mut next = Peer::login(places.bob, &bob);
    alice.say(&format!("@u SEND {bob} more"));
    [&mut mute, &mut next].into_iter().for_each(|bob| bob.hears(&format!("MSG {from} u more")));
    alice.hears("@u OK u delivered");
    // Now the acknowledgement comes: a copy counts as delivered at once, and is shown to nobody.
    mute.say(&format!("ACK t {from}"));
    mute.heard_all();
    alice.say(&format!("@t SEND {bob} hello"));
    alice.hears("@t OK t delivered");
    mute.heard_all();
    next.heard_all();
}

/// A login is given what the user's other sessions on its node have and have not taken, and so is one on the
/// sender's node. On any other node it is given that when the first does not acknowledge.
fn to_another(places: Places, n: usize) {
    let (mut alice, mut mute, bob) = people(places, "another", n);
    let from = format!("alice-another-{n}");
    let since = Instant::now();
    alice.say(&format!("@t SEND {bob} hello"));
    mute.hears(&format!("MSG {from} t hello"));
    let mut other = Peer::login(places.other, &bob);
    other.patient(ACK_TIME_MAX + SLACK);
    let is_at_once = places.other == places.bob || places.alice == places.bob;
    if !is_at_once {
        other.heard_all();
    }
    other.hears(&format!("MSG {from} t hello"));
    alice.hears("@t OK t delivered");
    if is_at_once {
        assert!(since.elapsed() < ACK_TIME_MAX / 2, "it took {:?}", since.elapsed());
    } else {
        took_10_seconds(since);
    }
    mute.heard_all();
    alice.heard_all();
    other.heard_all();
}

fn to_the_mailbox(places: Places, n: usize) {
    let (mut alice, mut mute, bob) = people(places, "mailbox", n);
    let from = format!("alice-mailbox-{n}");
    let since = Instant::now();
    alice.say(&format!("@t SEND {bob} hello"));
    mute.hears(&format!("MSG {from} t hello"));
    alice.say(&format!("@u SEND {bob} acknowledged later"));
    mute.hears(&format!("MSG {from} u acknowledged later"));
    alice.hears("@t OK t stored");
    alice.hears("@u OK u stored");
    took_10_seconds(since);
    mute.heard_all();
    // Late, but before anybody else was shown it.
    mute.say(&format!("ACK u {from}"));
    mute.heard_all();
    alice.say(&format!("@u SEND {bob} acknowledged later"));
    alice.hears("@u OK u delivered");
    // Everything else is as before.
    alice.say(&format!("@v SEND {bob} more"));
    mute.hears(&format!("MSG {from} v more"));
    mute.say(&format!("ACK v {from}"));
    alice.hears("@v OK v delivered");
    mute.quits();
    let mut next = Peer::login(places.other, &bob);
    next.hears(&format!("MSG {from} t hello"));
    next.heard_all();
    next.quits();
    let mut last = Peer::login(places.bob, &bob);
    last.heard_all();
}

fn many_to_the_mailbox(places: Places, n: usize) {
    const COUNT: usize = UNACKED_MAX + 44;
    let (mut alice, mut mute, bob) = people(places, "many", n);
    let from = format!("alice-many-{n}");
    let since = Instant::now();
    pour(alice.writer(), &bob, COUNT, 1);
    mute.hears_poured(&from, 0..UNACKED_MAX);
    // Shown or not, each has the same fate, in order.
    (0..COUNT).for_each(|n| alice.hears(&format!("@{n} OK {n} stored")));
    took_10_seconds(since);
    let mut next = Peer::login(places.other, &bob);
    next.hears_poured(&from, 0..COUNT);
    next.heard_all();
}

#[test]
fn two_that_flood_each_other_do_not_wait_for_each_other() {
    let node = Node::start(&[]);
    flood_each_other([&node, &node]);
    on_every_net(|net| {
        let [a, b] = nodes(net, &[]);
        flood_each_other([&a, &b]);
    });
}

/// A session that acknowledges is always read: what finds no room is refused, and all behind it is carried
/// out, in order, also how the connection ends.
#[test]
fn who_acknowledges_is_read_though_its_recipient_has_no_room() {
    // More than the recipient is shown and what waits for it together hold.
    const COUNT: usize = 600;
    let node = Node::start(&[]);
    // Nobody may know a message from the time before.
    for (says_quit, name) in [(true, "alice"), (false, "dave")] {
        let mut mute = Peer::login_acking(node.tcp, "mute");
        let mut carol = Peer::login(node.tcp, "carol");
        let mut alice = Peer::login_acking(node.tcp, name);
        carol.say(&format!("@c SEND {name} hi"));
        alice.hears("MSG carol c hi");
        let text = "x".repeat(1_000);
        let mut lines: String = (0..COUNT).map(|n| format!("@{n} SEND mute {n} {text}\n")).collect();
        lines += &format!("WHO carol\n{}\nPING behind\nACK c carol\n", "y".repeat(5_000));
        lines += if says_quit { "QUIT\n" } else { "" };
        let mut writer = alice.writer();
        thread::scope(|scope| {
            scope.spawn(move || writer.write_all(lines.as_bytes()).expect("all is read"));
            carol.hears("@c OK c delivered");
        });
        if !says_quit {
            alice.half_close();
        }
        // Nothing was acknowledged before all was read.
        let is_refused = |line: &String| line.contains(" ERR limited ");
        let mut others = vec![];
        let mut refused = vec![];
        while others.len() < 3 || refused.last().is_none_or(|last| *last < COUNT - 1) {
            let line = alice.hear();
            if is_refused(&line) {
                refused.push(line[1..].split(' ').next().and_then(|n| n.parse().ok()).expect("a tag"));
            } else {
                others.push(line);
            }
        }
        for (line, start) in others.iter().zip(["OK carol online 1", "ERR too-long ", "PONG behind"]) {
            assert!(line.starts_with(start), "{others:?}");
        }
        let taken = refused[0];
        assert!(taken > UNACKED_MAX, "{taken} were taken");
        assert!(refused.into_iter().eq(taken..COUNT), "all behind the first that found no room");
        for n in 0..taken {
            mute.hears_start(&format!("MSG {name} {n} "));
            mute.acks(name, n..n + 1);
        }
        mute.heard_all();
        (0..taken).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered")));
        let rest = alice.rest();
        assert_eq!(rest.len(), usize::from(says_quit), "{rest:?}");
        assert!(rest.iter().all(|line| line == "BYE quit"), "{rest:?}");
        [mute, carol].into_iter().for_each(Peer::quits);
    }
    node.settles();
}

/// With as many replies due as may be, requests of a session that acknowledges are refused; all are answered,
/// though the end is behind them.
#[test]
fn more_requests_than_replies_may_be_due_are_refused() {
    let node = Node::start(&[]);
    for (ends, name) in [(true, "alice"), (false, "dave")] {
        let mut mute = Peer::login_acking(node.tcp, "b");
        let mut alice = Peer::login_acking(node.tcp, name);
        let first = if ends { 2_000 } else { 1_000 };
        pour(alice.writer(), "b", first, 1);
        if ends {
            alice.half_close();
        }
        let taken = first.min(DUE_MAX);
        (taken..first).for_each(|n| drop(alice.hears_start(&format!("@{n} ERR limited "))));
        until("the replies are due", || node.holdings().in_flight == taken);
        // Short enough that all of it is one read; copies of one message, of which the first is shown.
        let more = if ends { 0 } else { 1_300 };
        alice.raw("@1 SEND b x\n".repeat(more).as_bytes());
        let copies = more.min(DUE_MAX - taken);
        (copies..more).for_each(|_| drop(alice.hears_start("@1 ERR limited ")));
        for n in 0..taken {
            mute.hears_poured(name, n..n + 1);
            mute.acks(name, n..n + 1);
        }
        if more > 0 {
            mute.hears(&format!("MSG {name} 1 x"));
            mute.say(&format!("ACK 1 {name}"));
        }
        (0..taken).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered")));
        (0..copies).for_each(|_| alice.hears("@1 OK 1 delivered"));
        if ends {
            assert_eq!(alice.next(), None);
        } else {
            alice.quits();
        }
        mute.quits();
    }
    node.settles();
}

fn flood_each_other(homes: [&Node; 2]) {
    const COUNT: usize = 5_000;
    let peers = [("alice", "bob"), ("bob", "alice")];
    let peers: Vec<(Peer, &str)> =
        peers.iter().zip(homes).map(|((me, to), home)| (Peer::login_acking(home.tcp, me), *to)).collect();
    thread::scope(|scope| {
        for (peer, to) in peers {
            scope.spawn(move || flood_and_acknowledge(peer, to, COUNT));
        }
    });
    homes.into_iter().for_each(Node::settles);
}

/// Sends so many messages with 1,024 unanswered, as many as a node takes, and acknowledges as
/// many that come. What finds no room is refused, and sent again.
fn flood_and_acknowledge(mut peer: Peer, other: &str, count: usize) {
    let mut to_send: VecDeque<usize> = (0..count).collect();
    let mut heard = vec![false; count];
    let (mut waiting, mut answered, mut refused) = (0, 0, 0);
    while answered < count || heard.contains(&false) {
        let mut lines = String::new();
        while waiting < DUE_MAX
            && let Some(n) = to_send.pop_front()
        {
            lines += &format!("@{n} SEND {other} hi\n");
            waiting += 1;
        }
        peer.raw(lines.as_bytes());
        let line = peer.hear();
        if let Some((from, id, text)) = message(&line) {
            assert_eq!((from, text), (other, "hi"));
            let n: usize = id.parse().expect("a number");
            assert!(!std::mem::replace(&mut heard[n], true), "{line} comes twice");
            peer.say(&format!("ACK {id} {other}"));
            continue;
        }
        let (tag, reply) = line.split_once(' ').expect("a tag");
        let n: usize = tag[1..].parse().expect("a number");
        waiting -= 1;
        if reply.starts_with("ERR limited ") {
            to_send.push_back(n);
            refused += 1;
        } else {
            assert_eq!(reply, format!("OK {n} delivered"));
            answered += 1;
        }
    }
    println!("{refused} were refused and sent again");
    peer.heard_all();
    peer.quits();
}
