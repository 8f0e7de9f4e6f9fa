//! Several nodes of one program, over memory or a real cluster, with people on real sockets.
//!
//! What becomes of messages and logins in every order of events, and when anything fails, is the business of the
//! simulator (`tests/sim`), whose checker knows the promises. Here is what only whole nodes show: what the driver makes
//! of many messages and of people who do not read, what a node counts, what exactly is replied and in which order, and
//! what a mesh offers to a program: to hold a node back, to cut it off and to kill it.

mod rig;

use std::thread;

use pinpost::{CloseReason, Mesh};

use rig::net::{Net, Real, is_empty, nodes, on_every_net};
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
    alice.sends("bob", "all", "hi");
    for bob in &mut bobs {
        bob.hears("MSG alice all hi");
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
    (0..50).for_each(|n| alice.say(&format!("SEND bob {n}")));
    ["WHO bob", "WHO nobody", "SEND nobody x", "PING last"].into_iter().for_each(|line| alice.say(line));
    alice.heard_all();
    bob.heard_all();
    until("the login waits", || mesh.users() == 3);
    mesh.release(&a.id);
    // What is said now stays behind what has waited.
    (50..100).for_each(|n| alice.say(&format!("SEND bob {n}")));
    let is_delivered = |alice: &mut Peer| assert!(alice.hears_start("OK ").ends_with(" delivered"));
    (0..50).for_each(|_| is_delivered(&mut alice));
    alice.hears("OK bob online 1");
    alice.hears("OK nobody offline");
    alice.hears_start("ERR offline ");
    alice.hears("PONG last");
    (50..100).for_each(|_| is_delivered(&mut alice));
    late.hears_start("OK carol ");
    late.hears("OK bob online 1");
    (0..100).for_each(|n| assert!(bob.hears_start("MSG alice ").ends_with(&format!(" {n}"))));
    until("nothing is in flight", || a.holdings().in_flight == 0);
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
fn sessions_are_counted_across_nodes() {
    on_every_net(|net| {
        let [a, b, c] = nodes(net, &[("sessions", "3")]);
        let first = Peer::login(a.tcp, "bob");
        let mut others = [&b, &c].map(|node| Peer::login(node.tcp, "bob"));
        for node in [&a, &b, &c] {
            let mut fourth = Peer::connect(node.tcp);
            fourth.say("LOGIN bob");
            fourth.hears_start("ERR too-many ");
            fourth.heard_all();
            drop(fourth.logged_in("carol"));
        }
        // Those who were refused were known to others for a moment.
        others[0].will_find("bob", "online 3");
        first.quits();
        others[0].finds("bob", "online 2");
        let _again = Peer::login(c.tcp, "bob");
        others[1].finds("bob", "online 3");
    });
}

/// When a session has its last word, nobody finds it any more.
#[test]
fn who_has_said_goodbye_is_gone_everywhere() {
    on_every_net(|net| {
        let [a, b] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        for n in 0..50 {
            let mut bob = Peer::login(b.tcp, "bob");
            alice.finds("bob", "online 1");
            alice.sends("bob", &n.to_string(), "hi");
            bob.hears(&format!("MSG alice {n} hi"));
            bob.quits();
            alice.finds("bob", "offline");
        }
    });
}

#[test]
fn a_session_replaced_before_it_entered_ends_too() {
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[("sessions", "1")]);
    let mut early = Peer::connect(a.tcp);
    mesh.hold(&a.id);
    early.say("LOGIN bob");
    until("presence has it", || mesh.users() == 1);
    let mut late = Peer::login(b.tcp, "bob");
    mesh.release(&a.id);
    early.hears_start("OK bob ");
    early.hears_start("BYE replaced ");
    assert_eq!(early.next(), None);
    let mut alice = Peer::login(a.tcp, "alice");
    alice.sends("bob", "1", "hi");
    late.hears("MSG alice 1 hi");
    late.heard_all();
    assert_eq!(a.metrics().not_here + b.metrics().not_here, 0, "one session has it");
    assert_eq!(a.metrics().delivered, 1);
    drop((early, late, alice));
    [a, b].iter().for_each(Node::settles);
}

#[test]
fn of_a_thousand_racing_logins_on_each_of_two_nodes_one_is_left() {
    const COUNT: usize = 1_000;
    let net = Real::new();
    let [a, b] = nodes(&net, &[("sessions", "1")]);
    let race = |node: &Node| {
        let enter = |_| {
            let mut person = Peer::connect(node.tcp);
            person.say("LOGIN bob");
            person
        };
        let mut people: Vec<Peer> = (0..COUNT).map(enter).collect();
        for person in &mut people {
            // A Redis that had no time for it is asked again.
            let mut line = person.hear();
            while line.starts_with("ERR unavailable ") {
                person.say("LOGIN bob");
                line = person.hear();
            }
            assert!(line.starts_with("OK bob "), "{line:?}");
        }
        people
    };
    let racers: Vec<Peer> = thread::scope(|scope| {
        let racing = [&a, &b].map(|node| scope.spawn(move || race(node)));
        racing.into_iter().flat_map(|racing| racing.join().expect("no login fails")).collect()
    });
    until("one is left", || {
        net.users() == 1 && [&a, &b].map(|node| node.holdings().users).iter().sum::<usize>() == 1
    });
    let mut alice = Peer::login(a.tcp, "alice");
    alice.will_find("bob", "online 1");
    alice.sends("bob", "1", "who is left?");
    let mut left = 0;
    for mut racer in racers {
        let line = racer.hear();
        if line == "MSG alice 1 who is left?" {
            left += 1;
            racer.heard_all();
        } else {
            assert!(line.starts_with("BYE replaced "), "{line:?}");
        }
    }
    assert_eq!(left, 1);
    drop(alice);
    [a, b].iter().for_each(Node::settles);
    is_empty(&net);
}
