//! How many sessions a user may have, wherever they are.

mod rig;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pinpost::cluster::Mesh;

use rig::node::{Node, nodes_with};
use rig::peer::Peer;
use rig::until;

#[test]
fn sessions_are_counted_across_nodes() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes_with(&mesh, &[("sessions", "3")]);
    let first = Peer::login(a.tcp, "bob");
    let mut others = [&b, &c].map(|node| Peer::login(node.tcp, "bob"));
    for node in [&a, &b, &c] {
        let mut fourth = Peer::connect(node.tcp);
        fourth.say("LOGIN bob");
        fourth.hears_start("ERR too-many ");
        fourth.heard_all();
        drop(fourth.logged_in("carol"));
    }
    others[0].finds("bob", "online 3");
    first.quits();
    others[0].finds("bob", "online 2");
    let _again = Peer::login(c.tcp, "bob");
    others[1].finds("bob", "online 3");
}

#[test]
fn a_login_replaces_the_session_on_another_node() {
    let mesh = Mesh::default();
    let [a, b] = nodes_with(&mesh, &[("sessions", "1")]);
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
}

#[test]
fn a_session_replaced_before_it_entered_ends_too() {
    let mesh = Mesh::default();
    let [a, b] = nodes_with(&mesh, &[("sessions", "1")]);
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
    assert_eq!(a.metrics().not_here.count() + b.metrics().not_here.count(), 0, "one session has it");
    assert_eq!(a.metrics().delivered.count(), 1);
    drop((early, late, alice));
    [a, b].iter().for_each(Node::settles);
}

/// Many logins of one user race over two nodes; when all is quiet, one session is left.
fn race(presence_is_late: bool) {
    let mesh = Mesh::default();
    let [a, b] = nodes_with(&mesh, &[("sessions", "1")]);
    let over = AtomicBool::new(false);
    let racers: Vec<Peer> = thread::scope(|scope| {
        let racing = [&a, &b].map(|node| {
            scope.spawn(|| -> Vec<Peer> {
                let race = |_| {
                    let mut person = Peer::connect(node.tcp);
                    person.say("LOGIN bob");
                    person
                };
                let mut people: Vec<Peer> = (0..200).map(race).collect();
                people.iter_mut().for_each(|person| drop(person.hears_start("OK bob ")));
                people
            })
        });
        if presence_is_late {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    for node in [&a, &b] {
                        mesh.hold(&node.id);
                        thread::park_timeout(Duration::from_millis(1));
                        mesh.release(&node.id);
                    }
                }
            });
        }
        let racers = racing.map(|racing| racing.join());
        over.store(true, Relaxed);
        racers.into_iter().flat_map(|racers| racers.expect("no login fails")).collect()
    });
    until("one is left", || {
        let open = [&a, &b].map(|node| node.holdings().users);
        mesh.users() == 1 && open.iter().sum::<usize>() == 1
    });
    let mut alice = Peer::login(a.tcp, "alice");
    alice.finds("bob", "online 1");
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
    assert_eq!(mesh.users(), 0);
}

#[test]
fn of_many_racing_logins_one_is_left() {
    race(false);
}

#[test]
fn of_many_racing_logins_one_is_left_though_presence_is_late() {
    race(true);
}
