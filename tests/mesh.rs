//! Several nodes, nothing broken: who gets what, in which order, and how fast
//! senders may be. The other `mesh_*.rs` tell what happens when nodes stumble.

mod rig;

use std::thread;

use pinpost::{CloseReason, Mesh};

use rig::net::{is_empty, nodes, on_every_net};
use rig::node::Node;
use rig::peer::{Peer, pour};
use rig::{stands_still, until};

#[test]
fn a_message_goes_to_the_node_of_its_recipient_only() {
    on_every_net(|net| {
        let [a, b, c] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut bob = Peer::login(b.tcp, "bob");
        let mut carol = Peer::login(c.tcp, "carol");
        alice.sends("bob", "1", "from a to b");
        bob.hears("MSG alice 1 from a to b");
        alice.sends("carol", "2", "from a to c");
        carol.hears("MSG alice 2 from a to c");
        bob.sends("carol", "3", "from b to c");
        carol.hears("MSG bob 3 from b to c");
        carol.sends("alice", "4", "from c to a");
        alice.hears("MSG carol 4 from c to a");
        bob.say("@5 SEND bob to myself");
        bob.hears("MSG bob 5 to myself");
        bob.hears("@5 OK 5 delivered");
        alice.say("SEND nobody hi");
        alice.hears_start("ERR offline ");
        alice.say("CAST bob a word");
        bob.hears_start("MSG alice ");
        for (asker, user) in [(&mut alice, "carol"), (&mut bob, "alice"), (&mut carol, "carol")] {
            asker.finds(user, "online 1");
            asker.finds("nobody", "offline");
        }
        for person in [&mut alice, &mut bob, &mut carol] {
            person.heard_all();
        }
        for node in [&a, &b, &c] {
            assert_eq!(node.metrics().not_here, 0, "no node is asked in vain");
            assert_eq!(node.metrics().duplicates, 0);
        }
        // Counted where their sender is.
        let delivered = [&a, &b, &c].map(|node| node.metrics().delivered);
        assert_eq!(delivered, [2, 2, 1]);
        drop((alice, bob, carol));
        [a, b, c].iter().for_each(Node::settles);
        is_empty(net);
    });
}

#[test]
fn every_session_gets_every_message_and_the_first_one_counts() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bobs = [&a, &b, &c, &c].map(|node| Peer::login(node.tcp, "bob"));
    alice.finds("bob", "online 4");
    for n in 0..100 {
        alice.sends("bob", &n.to_string(), "hi");
    }
    for bob in &mut bobs {
        (0..100).for_each(|n| bob.hears(&format!("MSG alice {n} hi")));
        bob.heard_all();
    }
    // The other nodes write too, but their receipts are late.
    mesh.hold(&b.id);
    mesh.hold(&c.id);
    alice.sends("bob", "local", "hi");
    mesh.release(&c.id);
    bobs[0].say("QUIT");
    bobs[0].hears("MSG alice local hi");
    bobs[0].hears_start("BYE quit");
    alice.sends("bob", "remote", "hi");
    mesh.release(&b.id);
    for bob in &mut bobs[1..] {
        bob.hears("MSG alice local hi");
        bob.hears("MSG alice remote hi");
        bob.heard_all();
    }
    alice.heard_all();
    alice.finds("bob", "online 3");
    let not_here = [&a, &b, &c].map(|node| node.metrics().not_here);
    assert_eq!(not_here, [0, 0, 0]);
    drop((alice, bobs));
    [a, b, c].iter().for_each(Node::settles);
}

#[test]
fn ten_thousand_pipelined_messages_stay_in_order() {
    on_every_net(|net| {
        let [a, b] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut bob = Peer::login(b.tcp, "bob");
        let writer = alice.writer();
        thread::scope(|scope| {
            scope.spawn(|| pour(writer, "bob", 10_000, 20));
            scope.spawn(|| {
                (0..10_000).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered")));
                alice.heard_all();
            });
            let padding = "x".repeat(20);
            (0..10_000).for_each(|n| bob.hears(&format!("MSG alice {n} {n} {padding}")));
            bob.heard_all();
        });
    });
}

#[test]
fn many_senders_on_many_nodes_do_not_cut_off_their_recipient() {
    on_every_net(|net| {
        const EACH: usize = 2_000;
        let [a, b, c] = nodes(net, &[]);
        let mut bob = Peer::login(c.tcp, "bob");
        let senders: Vec<Peer> =
            (0..20).map(|n| Peer::login([&a, &b, &c][n % 3].tcp, &format!("sender{n}"))).collect();
        thread::scope(|scope| {
            for mut sender in senders {
                let writer = sender.writer();
                scope.spawn(move || pour(writer, "bob", EACH, 100));
                scope.spawn(move || {
                    let mut answered = [false; EACH];
                    for _ in 0..EACH {
                        let line = sender.hear();
                        let number =
                            line.split_once(" OK ").and_then(|(tag, _)| tag[1..].parse::<usize>().ok());
                        let number = number.unwrap_or_else(|| panic!("{line:?} is no OK"));
                        assert!(!std::mem::replace(&mut answered[number], true), "{number} is answered once");
                    }
                    sender.heard_all();
                });
            }
            let mut next = [0; 20];
            for _ in 0..20 * EACH {
                let line = bob.hear();
                let mut words = line.split(' ').skip(1);
                let from = words.next().and_then(|from| from.strip_prefix("sender")).map(str::parse::<usize>);
                let from = from.and_then(Result::ok).unwrap_or_else(|| panic!("{line:?} is no message"));
                assert_eq!(words.next(), Some(next[from].to_string().as_str()), "from sender{from}");
                next[from] += 1;
            }
            bob.heard_all();
        });
        assert_eq!(c.metrics().closes(CloseReason::Slow), 0);
        drop(bob);
        [a, b, c].iter().for_each(Node::settles);
    });
}

#[test]
fn a_small_outbox_does_not_cut_off_a_recipient_who_reads() {
    on_every_net(|net| {
        let [a] = nodes(net, &[]);
        let b = Node::start_on(net, &[("outbox", "4096")]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut bob = Peer::login(b.tcp, "bob");
        let writer = alice.writer();
        thread::scope(|scope| {
            scope.spawn(|| pour(writer, "bob", 3_000, 200));
            scope.spawn(|| (0..3_000).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered"))));
            (0..3_000).for_each(|n| drop(bob.hears_start(&format!("MSG alice {n} "))));
        });
        assert_eq!(b.metrics().closes(CloseReason::Slow), 0);
    });
}

#[test]
fn a_crowd_of_nodes_at_once_does_not_cut_off_a_recipient_who_reads() {
    const EACH: usize = 16;
    let mesh = Mesh::default();
    let nodes = nodes::<13>(&mesh, &[]);
    let (home, origins) = nodes.split_first().expect("not empty");
    let mut bob = Peer::login(home.tcp, "bob");
    let mut senders: Vec<Peer> = origins.iter().map(|node| Peer::login(node.tcp, node.id.as_str())).collect();
    for (sender, node) in senders.iter_mut().zip(origins) {
        mesh.hold(&node.id);
        pour(sender.writer(), "bob", EACH, 3_900);
        sender.heard_all();
    }
    // Together more than an outbox holds, and it comes within a few turns.
    origins.iter().for_each(|node| mesh.release(&node.id));
    (0..EACH * origins.len()).for_each(|_| drop(bob.hears_start("MSG ")));
    for sender in &mut senders {
        (0..EACH).for_each(|n| sender.hears(&format!("@{n} OK {n} delivered")));
    }
    assert_eq!(home.metrics().closes(CloseReason::Slow), 0);
}

#[test]
fn a_recipient_who_does_not_read_holds_up_only_who_sends_to_it() {
    on_every_net(|net| {
        let [a, b] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut carol = Peer::login(a.tcp, "carol");
        let mut dave = Peer::login(b.tcp, "dave");
        let mut bob = Peer::login(b.tcp, "bob");
        // More than the kernel takes for a peer that does not read.
        const COUNT: usize = 6_000;
        let writer = alice.writer();
        thread::scope(|scope| {
            scope.spawn(|| pour(writer, "bob", COUNT, 4_000));
            scope.spawn(|| (0..COUNT).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered"))));
            until("the sender waits", || stands_still(|| a.holdings().in_flight) > 0);
            let in_flight = a.holdings().in_flight;
            assert!(in_flight <= 64 * 1024 / 4_000 + 1, "{in_flight} messages are more than 64 KiB");
            carol.sends("dave", "1", "on the same way");
            dave.hears("MSG carol 1 on the same way");
            (0..COUNT).for_each(|n| drop(bob.hears_start(&format!("MSG alice {n} "))));
        });
        assert_eq!(b.metrics().closes(CloseReason::Slow), 0);
        carol.heard_all();
    });
}
