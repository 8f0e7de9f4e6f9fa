//! Nodes that are late or cut off: who waits, who does not, and what senders are told.

mod rig;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pinpost::Mesh;

use rig::net::nodes;
use rig::node::Node;
use rig::peer::{Peer, pour};
use rig::until;

/// How long anything may take that waits until a node gives up an answer, after 10 seconds.
const RECEIPT_TIME_MAX: Duration = Duration::from_secs(14);

#[test]
fn a_late_receipt_holds_up_its_sender_only() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut carol = Peer::login(a.tcp, "carol");
    let mut bob = Peer::login(b.tcp, "bob");
    let mut dave = Peer::login(c.tcp, "dave");
    mesh.hold(&b.id);
    alice.say("SEND bob one");
    let shown = bob.hears_start("MSG alice ");
    alice.say("PING behind");
    alice.say("SEND nobody x");
    alice.say("@tag PING");
    alice.hears("@tag PONG");
    alice.sends("dave", "2", "another node is in time");
    dave.hears("MSG alice 2 another node is in time");
    carol.say("@3 SEND bob three");
    bob.hears("MSG carol 3 three");
    carol.say("SEND dave hi");
    carol.hears_start("OK ");
    for person in [&mut alice, &mut carol, &mut bob] {
        person.heard_all();
    }
    mesh.release(&b.id);
    let id = shown.split(' ').nth(2).expect("an id");
    alice.hears(&format!("OK {id} delivered"));
    alice.hears("PONG behind");
    alice.hears_start("ERR offline ");
    carol.hears("@3 OK 3 delivered");
    for node in [&a, &b, &c] {
        until("nothing is in flight", || node.holdings().in_flight == 0);
        assert_eq!(node.metrics().not_here, 0);
    }
}

#[test]
fn while_presence_is_late_all_questions_wait_in_order() {
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bob = Peer::login(b.tcp, "bob");
    let mut late = Peer::connect(a.tcp);
    mesh.hold(&a.id);
    late.say("LOGIN carol");
    late.say("WHO bob");
    late.say("SEND bob from carol");
    for n in 0..50 {
        alice.say(&format!("SEND bob {n}"));
    }
    for line in ["WHO bob", "SEND alice myself", "WHO nobody", "SEND nobody x", "PING last"] {
        alice.say(line);
    }
    alice.heard_all();
    bob.heard_all();
    until("the login waits", || mesh.users() == 3);
    mesh.release(&a.id);
    // What is said now stays behind what has waited.
    for n in 50..100 {
        alice.say(&format!("SEND bob {n}"));
    }
    // Its own message is not a reply and may be anywhere among them.
    let mut replies = vec![];
    let mut messages = vec![];
    while replies.len() < 105 {
        let line = alice.hear();
        if line.starts_with("MSG alice ") { messages.push(line) } else { replies.push(line) }
    }
    assert_eq!(messages.len(), 1);
    for (n, reply) in replies.iter().enumerate() {
        let right = match n {
            50 => reply == "OK bob online 1",
            52 => reply == "OK nobody offline",
            53 => reply.starts_with("ERR offline "),
            54 => reply == "PONG last",
            _ => reply.starts_with("OK ") && reply.ends_with(" delivered"),
        };
        assert!(right, "reply {n} is {reply:?}");
    }
    late.hears_start("OK carol ");
    late.hears("OK bob online 1");
    late.hears_start("OK ");
    let mut next = 0;
    for _ in 0..101 {
        let line = bob.hear();
        if line.starts_with("MSG alice ") {
            assert!(line.ends_with(&format!(" {next}")), "{line:?} instead of {next}");
            next += 1;
        } else {
            assert!(line.starts_with("MSG carol "), "{line:?}");
        }
    }
    assert_eq!(next, 100);
    until("nothing is in flight", || a.holdings().in_flight == 0);
}

#[test]
fn an_answer_older_than_a_message_does_not_tell_that_its_recipient_is_offline() {
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    mesh.hold(&a.id);
    alice.say("@early SEND bob are you there?");
    alice.heard_all();
    let mut bob = Peer::login(b.tcp, "bob");
    alice.say("@who WHO bob");
    alice.say("@late SEND bob there you are");
    alice.heard_all();
    mesh.release(&a.id);
    let mut replies = [alice.hear(), alice.hear(), alice.hear()];
    replies.sort();
    assert!(replies[0].starts_with("@early ERR offline "), "{replies:?}");
    assert_eq!(replies[1..], ["@late OK late delivered", "@who OK bob online 1"]);
    bob.hears("MSG alice late there you are");
}

#[test]
fn nothing_overtakes_what_waits_for_presence() {
    const COUNT: usize = 5_000;
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bob = Peer::login(b.tcp, "bob");
    let writer = alice.writer();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| pour(writer, "bob", COUNT, 20));
        scope.spawn(|| {
            for n in 0..COUNT {
                alice.hears(&format!("@{n} OK {n} delivered"));
                answered.store(n + 1, Relaxed);
            }
        });
        // Presence answers at once, and late, and at once, while messages come all the time.
        scope.spawn(|| {
            while answered.load(Relaxed) < COUNT {
                let before = answered.load(Relaxed);
                mesh.hold(&a.id);
                until("a question waits", || mesh.held(&a.id) > 0 || answered.load(Relaxed) == COUNT);
                mesh.release(&a.id);
                until("it is answered", || answered.load(Relaxed) > before || before == COUNT);
            }
        });
        (0..COUNT).for_each(|n| drop(bob.hears_start(&format!("MSG alice {n} "))));
    });
}

#[test]
fn a_node_that_is_cut_off_serves_its_own_users() {
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut carol = Peer::login(a.tcp, "carol");
    let mut bob = Peer::login(b.tcp, "bob");
    mesh.cut(&a.id);
    alice.say("@1 SEND bob hi");
    alice.hears_start("@1 ERR unavailable ");
    alice.sends("carol", "2", "we are here");
    carol.hears("MSG alice 2 we are here");
    alice.say("WHO carol");
    alice.hears_start("ERR unavailable ");
    let mut late = Peer::connect(a.tcp);
    late.say("LOGIN dave");
    late.hears_start("ERR unavailable ");
    bob.heard_all();
    bob.finds("dave", "offline");
    bob.finds("alice", "online 1");
    mesh.heal(&a.id);
    let _late = late.logged_in("dave");
    alice.finds("dave", "online 1");
    alice.sends("bob", "3", "back again");
    bob.hears("MSG alice 3 back again");
    bob.heard_all();
}

#[test]
fn what_a_cut_swallowed_times_out_and_may_be_sent_again() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bob = Peer::login(b.tcp, "bob");
    let mut carol = Peer::login(c.tcp, "carol");
    for person in [&mut alice, &mut bob, &mut carol] {
        person.patient(RECEIPT_TIME_MAX);
    }
    // Three ways to get no answer: the message is lost, its receipt is late, presence says nothing.
    mesh.cut(&a.id);
    bob.say("@lost SEND alice lost");
    bob.heard_all();
    mesh.hold(&c.id);
    bob.say("@late SEND carol late");
    carol.hears("MSG bob late late");
    carol.say("@asked SEND bob asked");
    carol.say("@who WHO bob");
    let mut dave = Peer::connect(c.tcp);
    dave.patient(RECEIPT_TIME_MAX);
    dave.say("LOGIN dave");
    bob.hears_start("@lost ERR timeout ");
    bob.hears_start("@late ERR timeout ");
    carol.hears_start("@asked ERR unavailable ");
    carol.hears_start("@who ERR unavailable ");
    dave.hears_start("ERR unavailable ");
    // The answers come after all, and nobody waits for them any more.
    mesh.release(&c.id);
    carol.heard_all();
    dave.say("WHO bob");
    dave.hears_start("ERR login-first ");
    // Whether what was lost is sent off once more or not, it is shown once.
    mesh.heal(&a.id);
    bob.sends("alice", "lost", "lost");
    alice.hears("MSG bob lost lost");
    bob.sends("carol", "late", "late");
    for person in [&mut alice, &mut bob, &mut carol] {
        person.heard_all();
    }
    assert_eq!(c.metrics().duplicates, 1);
    carol.sends("bob", "asked", "asked");
    bob.hears("MSG carol asked asked");
    drop((alice, bob, carol, dave));
    [a, b, c].iter().for_each(Node::settles);
    assert_eq!(mesh.users(), 0);
}
