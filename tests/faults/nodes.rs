//! Nodes that are killed, or stopped for a while: real processes beside two nodes of this one.
//!
//! Node c is the process; a and b are the others.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::person::Person;
use crate::rig::program::Program;
use crate::rig::until_in;
use crate::town::{AT_ONCE, LEASE, RECOVERY_TIME_MAX, SLACK, Town, after, calm};

/// Two nodes, and a third that is a process of its own.
fn town(name: &str, settings: &[(&str, &str)]) -> (Town, Program) {
    let mut town = Town::with_settings(name, calm(), 2, settings);
    let [redis, amqp] = town.urls(2);
    let mut args =
        vec!["--node".to_owned(), town.node_name(2), "--redis".to_owned(), redis, "--amqp".to_owned(), amqp];
    for (name, value) in settings {
        args.extend([format!("--{name}"), (*value).to_owned()]);
    }
    let node = Program::serve(&args.iter().map(|arg| &arg[..]).collect::<Vec<_>>());
    town.others.push(node.tcp());
    (town, node)
}

#[test]
fn users_of_a_killed_node_are_reached_where_they_log_in_next_and_else_are_offline() {
    let (mut town, node) = town("killed-node", &[]);
    let ids = town.ids();
    let mut alice = town.login(0, "alice");
    let [mut bob, mut carol, mut dave] = ["bob", "carol", "dave"].map(|name| Person::login(node.tcp(), name));
    alice.reaches(&mut bob);
    let since = Instant::now();
    node.kill();
    town.others.clear();
    // Bob is back at once, and found at once, long before his node is given up.
    let mut bob_again = town.login(1, "bob");
    alice.reaches(&mut bob_again);
    bob_again.reaches(&mut alice);
    println!("killed: reached elsewhere after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE, "{:?}", since.elapsed());
    let quickest = (0..5).map(|_| {
        let start = Instant::now();
        alice.reaches(&mut bob_again);
        start.elapsed()
    });
    assert!(quickest.min() < Some(AT_ONCE));
    // Carol comes later, Dave never. She was looked for at her node before.
    let to_dave = alice.says_to("dave");
    until_in(RECOVERY_TIME_MAX, "Carol is offline", || alice.finds("carol") == "offline");
    println!("killed: given up after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE + Duration::from_secs(2) + SLACK, "{:?}", since.elapsed());
    // No queue took the message, so it was seen by nobody.
    assert_eq!(alice.answer(&to_dave), "offline");
    assert_eq!(alice.sends("carol"), "offline");
    assert_eq!(alice.finds("dave"), "offline");
    let mut carol_again = town.login(0, "carol");
    bob_again.reaches(&mut carol_again);
    town.recovers(&mut [&mut alice, &mut bob_again, &mut carol_again]);
    for (user, node) in [("bob", &ids[1]), ("carol", &ids[0])] {
        town.is_at(user, &[node]);
    }
    assert!(town.redis.command(&["KEYS", "p:dave"]).list().is_empty());
    for person in [&mut bob, &mut carol, &mut dave] {
        drop(person.leaves());
    }
    town.is_left_by(vec![alice, bob_again, carol_again, bob, carol, dave]);
}

#[test]
fn a_late_disconnect_leaves_the_login_elsewhere_alone() {
    let (town, node) = town("late", &[]);
    let ids = town.ids();
    let mut alice = town.login(0, "alice");
    let [mut bob, mut carol] = ["bob", "carol"].map(|name| Person::login(node.tcp(), name));
    alice.reaches(&mut bob);
    alice.reaches(&mut carol);
    let since = Instant::now();
    node.signal(Signal::STOP);
    // This message is on its way to a node that does not move.
    let to_bob = alice.says_to("bob");
    let to_carol = alice.says_to("carol");
    drop(bob.leaves());
    let bob_before = bob;
    let mut bob = town.login(1, "bob");
    println!("late: logged in elsewhere after {:?}", since.elapsed());
    until_in(RECOVERY_TIME_MAX, "the node is given up", || alice.finds("bob") == "online 1");
    println!("late: given up after {:?}", since.elapsed());
    // Then it went where Bob is now; of Carol nobody knows.
    assert_eq!(alice.answer(&to_bob), "delivered");
    bob.gets("alice", &to_bob);
    assert_eq!(alice.answer(&to_carol), "timeout");
    assert_eq!(alice.sends("carol"), "offline");
    alice.reaches(&mut bob);
    node.signal(Signal::CONT);
    // Carol never left.
    town.recovers(&mut [&mut alice, &mut bob, &mut carol]);
    let now = town.ids();
    assert_eq!(now[..2], ids[..2]);
    assert_ne!(now[2], ids[2], "it goes on under a new id");
    let mut dave = Person::login(node.tcp(), "dave");
    for person in [&mut alice, &mut carol, &mut dave] {
        assert_eq!(person.finds("bob"), "online 1");
    }
    town.is_at("bob", &[&ids[1]]);
    town.is_at("carol", &[&now[2]]);
    dave.reaches(&mut bob);
    town.is_left_by(vec![alice, bob, carol, dave, bob_before]);
}

#[test]
fn a_short_stop_loses_nothing() {
    let (town, node) = town("short", &[]);
    let ids = town.ids();
    let mut alice = town.login(0, "alice");
    let mut bob = Person::login(node.tcp(), "bob");
    let mut carol = Person::login(node.tcp(), "carol");
    alice.reaches(&mut bob);
    let since = Instant::now();
    node.signal(Signal::STOP);
    let there: Vec<String> = (0..20).map(|n| alice.says_to(["bob", "carol"][n % 2])).collect();
    let back: Vec<String> = (0..10).map(|_| bob.says_to("alice")).collect();
    // Time enough to be sent again, and again.
    after(LEASE / 2, since);
    assert_eq!(alice.finds("bob"), "online 1");
    node.signal(Signal::CONT);
    for (n, tag) in there.iter().enumerate() {
        assert_eq!(alice.answer(tag), "delivered");
        [&mut bob, &mut carol][n % 2].gets("alice", tag);
    }
    for tag in &back {
        assert_eq!(bob.answer(tag), "delivered");
        alice.gets("bob", tag);
    }
    town.is_whole(&mut [&mut alice, &mut bob, &mut carol]);
    assert_eq!(town.ids(), ids);
    town.is_left_by(vec![alice, bob, carol]);
}

#[test]
fn a_session_that_was_replaced_while_its_node_was_stopped_ends() {
    replaces_a_session_of_a_stopped_node("replaced", LEASE / 4);
}

#[test]
fn a_session_that_was_replaced_while_its_node_was_taken_for_dead_ends() {
    replaces_a_session_of_a_stopped_node("replaced-late", LEASE + Duration::from_secs(2));
}

fn replaces_a_session_of_a_stopped_node(name: &str, time: Duration) {
    let (town, node) = town(name, &[("sessions", "1")]);
    let ids = town.ids();
    let mut alice = town.login(0, "alice");
    let mut first = Person::login(node.tcp(), "bob");
    alice.reaches(&mut first);
    let since = Instant::now();
    node.signal(Signal::STOP);
    let mut second = town.login(1, "bob");
    let to_bob = alice.says_to("bob");
    after(time, since);
    node.signal(Signal::CONT);
    first.ends_with("replaced");
    // Whoever of both had it.
    let fate = alice.answer(&to_bob);
    assert!(matches!(&fate[..], "delivered" | "timeout"), "{fate}");
    let to_second =
        |alice: &mut Person| alice.finds("bob") == "online 1" && alice.sends("bob") == "delivered";
    until_in(RECOVERY_TIME_MAX, "Bob is found", || to_second(&mut alice));
    alice.reaches(&mut second);
    town.is_at("bob", &[&ids[1]]);
    let mut carol = Person::login(node.tcp(), "carol");
    town.recovers(&mut [&mut alice, &mut second, &mut carol]);
    town.is_left_by(vec![alice, second, carol, first]);
}
