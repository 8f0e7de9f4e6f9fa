//! How many sessions a user may have, wherever they are.

mod rig;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pinpost::Mesh;

use rig::net::{Net, Real, is_empty, nodes, on_every_net};
use rig::node::Node;
use rig::peer::{Peer, delivered};
use rig::until;

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
fn every_session_hears_all_though_its_user_was_here_before() {
    on_every_net(|net| {
        let [a, b, c] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut bob = Peer::login(b.tcp, "bob");
        alice.sends("bob", "1", "I remember where you are");
        bob.hears("MSG alice 1 I remember where you are");
        bob.quits();
        Peer::login(c.tcp, "carol").will_find("bob", "offline");
        // He is where alice's node remembers him, and elsewhere too.
        let sessions = [&c, &b].map(|node| Peer::login(node.tcp, "bob"));
        alice.sends("bob", "2", "hi");
        sessions.into_iter().for_each(|mut bob| bob.hears("MSG alice 2 hi"));
    });
}

#[test]
fn a_session_that_has_just_come_hears_a_whole_burst() {
    on_every_net(|net| {
        let [a, b, c] = nodes(net, &[]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut bob = Peer::login(b.tcp, "bob");
        alice.sends("bob", "first", "I remember where you are");
        bob.hears("MSG alice first I remember where you are");
        let mut also_bob = Peer::login(c.tcp, "bob");
        let burst: String = (0..50).map(|n| format!("@{n} SEND bob hi\n")).collect();
        alice.raw(burst.as_bytes());
        for peer in [&mut bob, &mut also_bob] {
            (0..50).for_each(|n| peer.hears(&format!("MSG alice {n} hi")));
        }
        for _ in 0..50 {
            let reply = alice.hear();
            assert!(delivered(&reply).is_some(), "{reply}");
        }
    });
}

#[test]
fn a_login_replaces_the_session_on_another_node() {
    on_every_net(|net| {
        let [a, b] = nodes(net, &[("sessions", "1")]);
        let mut alice = Peer::login(a.tcp, "alice");
        let mut first = Peer::login(a.tcp, "bob");
        let mut second = Peer::login(b.tcp, "bob");
        first.hears_start("BYE replaced ");
        assert_eq!(first.next(), None);
        alice.finds("bob", "online 1");
        alice.sends("bob", "1", "hi");
        second.hears("MSG alice 1 hi");
        let mut third = Peer::login(a.tcp, "bob");
        second.hears_start("BYE replaced ");
        alice.sends("bob", "2", "hi");
        third.hears("MSG alice 2 hi");
        third.heard_all();
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

/// `count` logins of one user race on each of two nodes, while `meddle` does what it likes;
/// when all is quiet, one session is left.
fn race(net: &dyn Net, count: usize, meddle: impl Fn([&Node; 2]) + Sync) {
    let [a, b] = nodes(net, &[("sessions", "1")]);
    let over = AtomicBool::new(false);
    let racers: Vec<Peer> = thread::scope(|scope| {
        let racing = [&a, &b].map(|node| {
            scope.spawn(move || -> Vec<Peer> {
                let race = |_| {
                    let mut person = Peer::connect(node.tcp);
                    person.say("LOGIN bob");
                    person
                };
                let mut people: Vec<Peer> = (0..count).map(race).collect();
                people.iter_mut().for_each(is_let_in);
                people
            })
        });
        scope.spawn(|| {
            while !over.load(Relaxed) {
                meddle([&a, &b]);
            }
        });
        let racers = racing.map(|racing| racing.join());
        over.store(true, Relaxed);
        racers.into_iter().flat_map(|racers| racers.expect("no login fails")).collect()
    });
    until("one is left", || {
        let open = [&a, &b].map(|node| node.holdings().users);
        net.users() == 1 && open.iter().sum::<usize>() == 1
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
    [&a, &b].into_iter().for_each(Node::settles);
    is_empty(net);
}

/// Hears that a login worked; a Redis that had no time for it is asked again.
fn is_let_in(person: &mut Peer) {
    let mut line = person.hear();
    while line.starts_with("ERR unavailable ") {
        person.say("LOGIN bob");
        line = person.hear();
    }
    assert!(line.starts_with("OK bob "), "{line:?}");
}

fn pause() {
    thread::park_timeout(Duration::from_millis(1));
}

#[test]
fn of_many_racing_logins_one_is_left() {
    race(&Mesh::default(), 200, |_| pause());
}

#[test]
fn of_many_racing_logins_one_is_left_though_presence_is_late() {
    let mesh = Mesh::default();
    race(&mesh, 200, |nodes| {
        for node in nodes {
            mesh.hold(&node.id);
            pause();
            mesh.release(&node.id);
        }
    });
}

#[test]
fn of_a_thousand_racing_logins_on_each_of_two_real_nodes_one_is_left() {
    race(&Real::new(), 1_000, |_| pause());
}
