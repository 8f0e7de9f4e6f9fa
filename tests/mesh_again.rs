//! Messages that are routed again: their recipient moved, their node died, or
//! presence was wrong. They find their way, or their senders are told the truth.

mod rig;

use std::thread;

use pinpost::{CloseReason, Mesh};

use rig::net::{nodes, on_every_net};
use rig::node::Node;
use rig::peer::{Peer, pour};
use rig::{stands_still, until};

#[test]
fn a_message_finds_a_user_who_moved() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let bob = Peer::login(b.tcp, "bob");
    // The lookup is made now, and says b; the message leaves later.
    mesh.hold(&a.id);
    for n in 0..20 {
        alice.say(&format!("@{n} SEND bob {n}"));
    }
    alice.heard_all();
    bob.quits();
    let mut bob = Peer::login(c.tcp, "bob");
    mesh.release(&a.id);
    for n in 0..20 {
        alice.hears(&format!("@{n} OK {n} delivered"));
        bob.hears(&format!("MSG alice {n} {n}"));
    }
    assert_eq!(b.metrics().not_here, 20);
    assert_eq!(a.metrics().rerouted, 20);
    // Now to nowhere.
    mesh.hold(&a.id);
    alice.say("@x SEND bob x");
    alice.heard_all();
    bob.quits();
    mesh.release(&a.id);
    alice.hears_start("@x ERR offline ");
    alice.heard_all();
    drop(alice);
    [a, b, c].iter().for_each(Node::settles);
    assert_eq!(mesh.users(), 0);
}

#[test]
fn what_a_dead_node_had_goes_where_its_recipient_is_now() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut before = Peer::login(b.tcp, "bob");
    mesh.hold(&b.id);
    for n in 0..100 {
        alice.say(&format!("@{n} SEND bob {n}"));
    }
    (0..100).for_each(|n| before.hears(&format!("MSG alice {n} {n}")));
    let mut now = Peer::login(c.tcp, "bob");
    alice.heard_all();
    mesh.kill(&b.id);
    for n in 0..100 {
        now.hears(&format!("MSG alice {n} {n}"));
        alice.hears(&format!("@{n} OK {n} delivered"));
    }
    // Without another session nobody knows whether they were seen.
    mesh.hold(&c.id);
    alice.say("@x SEND bob x");
    alice.say("SEND bob y");
    now.hears("MSG alice x x");
    now.hears_start("MSG alice ");
    mesh.kill(&c.id);
    alice.hears_start("@x ERR timeout ");
    alice.hears_start("ERR timeout ");
    alice.say("SEND bob z");
    alice.hears_start("ERR offline ");
    mesh.release(&b.id);
    mesh.release(&c.id);
    alice.heard_all();
    assert_eq!(a.metrics().not_here, 0);
    drop((alice, before, now));
    [a, b, c].iter().for_each(Node::settles);
    assert_eq!(mesh.users(), 0);
}

#[test]
fn a_dead_node_is_not_missed_while_another_has_the_message() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bobs = [&b, &c].map(|node| Peer::login(node.tcp, "bob"));
    mesh.hold(&b.id);
    mesh.hold(&c.id);
    alice.say("@1 SEND bob hi");
    bobs.iter_mut().for_each(|bob| bob.hears("MSG alice 1 hi"));
    mesh.kill(&b.id);
    alice.heard_all();
    mesh.release(&c.id);
    alice.hears("@1 OK 1 delivered");
    bobs[1].heard_all();
    assert_eq!(a.metrics().rerouted, 0);
}

#[test]
fn a_message_sent_again_over_another_node_is_shown_once() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bobs = [&c, &c, &b].map(|node| Peer::login(node.tcp, "bob"));
    mesh.hold(&b.id);
    mesh.hold(&c.id);
    alice.say("@1 SEND bob hi");
    bobs.iter_mut().for_each(|bob| bob.hears("MSG alice 1 hi"));
    // The same line again, as its sender has heard nothing; then its node dies, and it goes to another.
    alice.say("@1 SEND bob hi");
    until("the copies are seen", || [&b, &c].iter().all(|node| node.metrics().duplicates == 1));
    mesh.kill(&a.id);
    let mut alice = Peer::connect(b.tcp);
    alice.say("LOGIN alice");
    alice.say("@1 SEND bob hi");
    mesh.release(&b.id);
    mesh.release(&c.id);
    alice.hears_start("OK alice ");
    alice.hears("@1 OK 1 delivered");
    bobs.iter_mut().for_each(Peer::heard_all);
    // Here that tells the fate, so the other node is not asked.
    until("the copy is seen", || b.metrics().duplicates == 2);
    // Another text under the same tag is another message.
    alice.sends("bob", "1", "something else");
    bobs.iter_mut().for_each(|bob| bob.hears("MSG alice 1 something else"));
}

#[test]
fn a_message_sent_again_is_not_shown_where_any_session_of_its_recipient_has_taken_it() {
    on_every_net(|net| {
        let [a, b] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        for (home, bob) in [(&a, "bob-here"), (&b, "bob-there")] {
            let [mut mute, mut bob_acks] = [(); 2].map(|()| Peer::login_acking(home.tcp, bob));
            alice.say(&format!("@1 SEND {bob} one"));
            alice.say(&format!("@2 SEND {bob} two"));
            for peer in [&mut mute, &mut bob_acks] {
                peer.hears("MSG alice 1 one");
                peer.hears("MSG alice 2 two");
            }
            bob_acks.say("ACK 1 alice");
            alice.hears("@1 OK 1 delivered");
            // The first is taken before this session comes, and the second by it.
            let mut next = Peer::login(home.tcp, bob);
            next.hears("MSG alice 2 two");
            alice.hears("@2 OK 2 delivered");
            alice.say(&format!("@1 SEND {bob} one"));
            alice.say(&format!("@2 SEND {bob} two"));
            alice.hears("@1 OK 1 delivered");
            alice.hears("@2 OK 2 delivered");
            alice.say(&format!("@3 SEND {bob} three"));
            for peer in [&mut mute, &mut bob_acks, &mut next] {
                peer.hears("MSG alice 3 three");
            }
            alice.hears("@3 OK 3 delivered");
        }
    });
}

#[test]
fn unwritten_messages_follow_the_user_to_another_node() {
    const COUNT: usize = 6_000;
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let stuck = Peer::login(b.tcp, "bob");
    let writer = alice.writer();
    thread::scope(|scope| {
        scope.spawn(|| pour(writer, "bob", COUNT, 4_000));
        scope.spawn(|| {
            let mut fates: Vec<String> = (0..COUNT).map(|_| alice.hear()).collect();
            fates.sort_by_key(|line| line[1..].split(' ').next().and_then(|n| n.parse::<usize>().ok()));
            for (n, fate) in fates.iter().enumerate() {
                assert_eq!(*fate, format!("@{n} OK {n} delivered"));
            }
        });
        until("the outbox is stuck", || stands_still(|| b.holdings().deliveries) > 0);
        let mut bob = Peer::login(c.tcp, "bob");
        drop(stuck);
        let first = bob.hears_start("MSG alice ");
        let first: usize = first.split(' ').nth(2).and_then(|n| n.parse().ok()).expect("a number");
        let mut rest: Vec<usize> = (1..COUNT - first)
            .map(|_| bob.hear().split(' ').nth(2).and_then(|n| n.parse().ok()).expect("a number"))
            .collect();
        // Those that are routed again may come behind later ones; none is missing.
        rest.push(first);
        rest.sort_unstable();
        assert_eq!(rest, (first..COUNT).collect::<Vec<_>>());
        bob.heard_all();
    });
    assert_eq!(b.metrics().closes(CloseReason::Slow), 0);
}
