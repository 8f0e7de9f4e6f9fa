//! Messages that are routed again: their recipient moved, their node died, or
//! presence was wrong. They find their way, or their senders are told the truth.

mod rig;

use std::thread;
use std::time::Instant;

use pinpost::cluster::{Event, Incoming, Mesh};
use pinpost::proto::{CloseReason, Envelope, Fate, MessageId, UserName};

use rig::ghost::Ghost;
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
    assert_eq!(b.metrics().not_here.count(), 20);
    assert_eq!(a.metrics().rerouted.count(), 20);
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
fn presence_that_keeps_lying_is_believed_three_times_more() {
    let mesh = Mesh::default();
    let [a] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let ghost = Ghost::join(&mesh, "g");
    ghost.claims("bob");
    alice.say("@1 SEND bob hi");
    for _ in 0..4 {
        alice.heard_all();
        ghost.answers(&ghost.takes(), Fate::NotHere);
    }
    alice.hears_start("@1 ERR offline ");
    assert_eq!(a.metrics().rerouted.count(), 3);
    // At the last moment it turns out to be true.
    alice.say("@2 SEND bob hi");
    (0..3).for_each(|_| ghost.answers(&ghost.takes(), Fate::NotHere));
    let last = ghost.takes();
    ghost.answers(&last, Fate::Delivered);
    alice.hears("@2 OK 2 delivered");
    // It says so again, and then the opposite: nobody asks any more.
    ghost.answers(&last, Fate::Delivered);
    ghost.answers(&last, Fate::NotHere);
    alice.heard_all();
    assert_eq!(a.holdings().in_flight, 0);
}

/// A user who left may be back at the same node before the origin knows that a message was refused.
#[test]
fn later_messages_wait_until_all_that_was_refused_is_back() {
    let mesh = Mesh::default();
    let [a] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let ghost = Ghost::join(&mesh, "g");
    ghost.claims("bob");
    alice.say("@1 SEND bob one");
    alice.say("@2 SEND bob two");
    let taken = [ghost.takes(), ghost.takes()];
    ghost.answers(&taken[0], Fate::NotHere);
    alice.say("@3 SEND bob three");
    alice.heard_all();
    assert!(!ghost.has_heard(), "the second may still be refused");
    ghost.answers(&taken[1], Fate::NotHere);
    match ghost.hears() {
        Incoming::Event(Event::Resumes { node, user }) => {
            assert_eq!((node.as_str(), user.as_str()), (a.id.as_str(), "bob"));
        }
        other => panic!("{other:?} before the node knows that all are back"),
    }
    for text in ["one", "two", "three"] {
        let taken = ghost.takes();
        assert_eq!(&*taken.1.text, text);
        ghost.answers(&taken, Fate::Delivered);
    }
    (1..=3).for_each(|n| alice.hears(&format!("@{n} OK {n} delivered")));
    drop(alice);
    a.settles();
}

#[test]
fn what_comes_behind_a_refused_message_is_refused_too() {
    let mesh = Mesh::default();
    let [a] = nodes(&mesh, &[]);
    let ghost = Ghost::join(&mesh, "g");
    let name = |name: &str| UserName::parse(name).expect("valid");
    let forward = |number: u64, to: &str, is_shared: bool| {
        let (id, text) = (MessageId::Tag(number.to_string().into()), number.to_string());
        let envelope = Envelope {
            number: Some(number),
            is_shared,
            is_again: false,
            from: name("alice"),
            to: name(to),
            id,
            text,
        };
        ghost.cluster().forward(&a.id, envelope.borrowed(), Instant::now()).expect("it is there");
    };
    let receipt = || loop {
        match ghost.hears() {
            Incoming::Receipt { number, fate, .. } => return (number, fate),
            // The login asks what the user was shown elsewhere.
            Incoming::Event(Event::Also { .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    forward(1, "bob", false);
    forward(2, "carol", true);
    assert_eq!([receipt(), receipt()], [(1, Fate::NotHere), (2, Fate::NotHere)]);
    let mut bob = Peer::login(a.tcp, "bob");
    let mut carol = Peer::login(a.tcp, "carol");
    forward(3, "bob", false);
    assert_eq!(receipt(), (3, Fate::NotHere), "it would overtake the first");
    // What others have too is not routed again, and nothing has to wait for it.
    forward(4, "carol", false);
    assert_eq!(receipt(), (4, Fate::Delivered));
    carol.hears("MSG alice 4 4");
    forward(5, "bob", true);
    assert_eq!(receipt(), (5, Fate::Delivered));
    bob.hears("MSG alice 5 5");
    ghost.cluster().tell_resumes(&a.id, &name("bob"));
    forward(6, "bob", false);
    assert_eq!(receipt(), (6, Fate::Delivered));
    bob.hears("MSG alice 6 6");
}

#[test]
fn only_who_has_a_message_is_believed_about_it() {
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bob = Peer::login(b.tcp, "bob");
    let (ghost, liar) = (Ghost::join(&mesh, "g"), Ghost::join(&mesh, "l"));
    ghost.claims("bob");
    alice.say("@1 SEND bob hi");
    let taken = ghost.takes();
    alice.hears("@1 OK 1 delivered");
    bob.hears("MSG alice 1 hi");
    bob.quits();
    alice.say("@2 SEND bob hi");
    let taken = [taken, ghost.takes()];
    for fate in [Fate::NotHere, Fate::Delivered] {
        liar.answers(&taken[1], fate);
        ghost.answers(&taken[0], fate);
    }
    alice.heard_all();
    ghost.answers(&taken[1], Fate::Delivered);
    alice.hears("@2 OK 2 delivered");
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
    assert_eq!(a.metrics().not_here.count(), 0);
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
    assert_eq!(a.metrics().rerouted.count(), 0);
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
    until("the copies are seen", || c.metrics().duplicates.count() + b.metrics().duplicates.count() == 3);
    mesh.kill(&a.id);
    let mut alice = Peer::connect(b.tcp);
    alice.say("LOGIN alice");
    alice.say("@1 SEND bob hi");
    mesh.release(&b.id);
    mesh.release(&c.id);
    alice.hears_start("OK alice ");
    alice.hears("@1 OK 1 delivered");
    bobs.iter_mut().for_each(Peer::heard_all);
    until("the copies are seen", || c.metrics().duplicates.count() == 4);
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
            // The first is taken before this session comes, the second after it.
            let mut next = Peer::login(home.tcp, bob);
            bob_acks.say("ACK 2 alice");
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
        until("the outbox is stuck", || stands_still(|| b.holdings().in_flight) > 0);
        let mut bob = Peer::login(c.tcp, "bob");
        let on_their_way = b.holdings().in_flight;
        drop(stuck);
        let first = bob.hears_start("MSG alice ");
        let first: usize = first.split(' ').nth(2).and_then(|n| n.parse().ok()).expect("a number");
        let mut rest: Vec<usize> = (1..COUNT - first)
            .map(|_| bob.hear().split(' ').nth(2).and_then(|n| n.parse().ok()).expect("a number"))
            .collect();
        assert!(a.metrics().rerouted.count() >= on_their_way as u64);
        // Those that are routed again may come behind later ones; none is missing.
        rest.push(first);
        rest.sort_unstable();
        assert_eq!(rest, (first..COUNT).collect::<Vec<_>>());
        bob.heard_all();
    });
    assert_eq!(b.metrics().closes(CloseReason::Slow), 0);
}
