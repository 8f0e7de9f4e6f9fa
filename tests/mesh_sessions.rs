//! How many sessions a user may have, wherever they are.

mod mesh_support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use mesh_support::{Node, Person, SOON, until};
use pinpost::cluster::Mesh;

fn nodes_with_sessions<const COUNT: usize>(mesh: &Mesh, sessions_max: usize) -> [Node; COUNT] {
    std::array::from_fn(|n| {
        let name = char::from(b'a' + n as u8).to_string();
        Node::start_with(mesh, &name, |config| config.sessions_max = sessions_max)
    })
}

#[test]
fn sessions_are_counted_across_nodes() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes_with_sessions(&mesh, 3);
    let first = Person::login(&a, "bob");
    let mut others = [&b, &c].map(|node| Person::login(node, "bob"));
    for node in [&a, &b, &c] {
        let mut fourth = Person::connect(node);
        fourth.say("LOGIN bob");
        fourth.hears_start("ERR too-many ");
        fourth.heard_all();
        drop(fourth.logged_in("carol"));
    }
    others[0].finds("bob", "online 3");
    first.quits();
    others[0].finds("bob", "online 2");
    let _again = Person::login(&c, "bob");
    others[1].finds("bob", "online 3");
}

#[test]
fn a_login_replaces_the_session_on_another_node() {
    let mesh = Mesh::default();
    let [a, b] = nodes_with_sessions(&mesh, 1);
    let mut alice = Person::login(&a, "alice");
    let mut first = Person::login(&a, "bob");
    let mut second = Person::login(&b, "bob");
    first.hears_start("BYE replaced ");
    assert_eq!(first.try_hear(), None);
    alice.finds("bob", "online 1");
    alice.sends("bob", "1", "hi");
    second.hears("MSG alice 1 hi");
    let mut third = Person::login(&a, "bob");
    second.hears_start("BYE replaced ");
    alice.sends("bob", "2", "hi");
    third.hears("MSG alice 2 hi");
    third.heard_all();
}

#[test]
fn a_session_replaced_before_it_entered_ends_too() {
    let mesh = Mesh::default();
    let [a, b] = nodes_with_sessions(&mesh, 1);
    let mut early = Person::connect(&a);
    mesh.hold(&a.id);
    early.say("LOGIN bob");
    until("presence has it", || mesh.users() == 1);
    let mut late = Person::login(&b, "bob");
    mesh.release(&a.id);
    early.hears_start("OK bob ");
    early.hears_start("BYE replaced ");
    assert_eq!(early.try_hear(), None);
    let mut alice = Person::login(&a, "alice");
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
    let [a, b] = nodes_with_sessions(&mesh, 1);
    let over = AtomicBool::new(false);
    let racers: Vec<Person> = thread::scope(|scope| {
        let racing = [&a, &b].map(|node| {
            scope.spawn(|| -> Vec<Person> {
                let race = |_| {
                    let mut person = Person::connect(node);
                    person.say("LOGIN bob");
                    person
                };
                let mut people: Vec<Person> = (0..200).map(race).collect();
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
        let open = [&a, &b].map(|node| node.handle.holdings().users);
        mesh.users() == 1 && open.iter().sum::<usize>() == 1
    });
    let mut alice = Person::login(&a, "alice");
    alice.finds("bob", "online 1");
    alice.sends("bob", "1", "who is left?");
    let mut left = 0;
    for mut racer in racers {
        racer.patient(SOON);
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
