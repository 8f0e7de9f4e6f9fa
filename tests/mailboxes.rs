//! Mailboxes: logins, drains and stores that meet, and what breaks in between.
//!
//! What one user sees step by step is told by `mailbox.txt` and `mailbox-full.txt`, and
//! what a store keeps by `tests/mailbox_store.rs`. A session that acknowledges stops a drain
//! wherever the test likes: it is shown 256 messages, and more with each acknowledgement.

mod rig;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use pinpost::Mesh;

use rig::net::{Net, Real, nodes, on_every_net};
use rig::node::Node;
use rig::peer::{Heard, Peer, message, pour};
use rig::program::Program;
use rig::random::{Random, seeds};
use rig::services::{Broker, Redis, Services};
use rig::{until, until_in};

/// Messages that wait for the recipient.
const COUNT: usize = 2_000;

/// Messages that a session may leave unacknowledged.
const UNACKED_MAX: usize = 256;

const SETTINGS: &[(&str, &str)] = &[("mailbox", "20000")];

/// Sends so many numbered messages, and waits until all are stored.
fn store(alice: &mut Peer, bob: &str, count: usize) {
    let writer = alice.writer();
    thread::scope(|scope| {
        scope.spawn(|| pour(writer, bob, count, 20));
        (0..count).for_each(|n| alice.hears(&format!("@{n} OK {n} stored")));
    });
}

/// Runs a test on one node, on several in memory, and on a real cluster: the nodes of the sender,
/// of the recipient's first session, and of the second.
fn everywhere(test: impl Fn([&Node; 3])) {
    let node = Node::start(SETTINGS);
    test([&node; 3]);
    on_every_net(|net| {
        let [a, b, c] = nodes(net, SETTINGS);
        test([&a, &b, &c]);
    });
}

#[test]
fn one_session_at_a_time_drains_and_what_is_live_comes_behind() {
    everywhere(|[a, b, c]| {
        let mut alice = Peer::login(a.tcp, "alice");
        store(&mut alice, "bob", COUNT);
        let mut first = Peer::login_acking(b.tcp, "bob");
        first.hears_poured("alice", 0..UNACKED_MAX);
        let mut second = Peer::login(c.tcp, "bob");
        second.heard_all();
        alice.finds("bob", "online 2");
        alice.say("@live SEND bob behind it");
        alice.heard_all();
        first.heard_all();
        second.heard_all();
        for n in 0..COUNT {
            if n >= UNACKED_MAX {
                first.hears_poured("alice", n..n + 1);
            }
            first.acks("alice", n..n + 1);
        }
        first.hears("MSG alice live behind it");
        second.hears("MSG alice live behind it");
        alice.hears("@live OK live delivered");
        first.acks("alice", 0..1);
        first.say("ACK live alice");
        first.heard_all();
        second.heard_all();
        alice.sends("bob", "last", "to both");
        first.hears("MSG alice last to both");
        second.hears("MSG alice last to both");
        first.say("ACK last alice");
        first.heard_all();
        first.quits();
        second.quits();
        // Nothing is left.
        let mut third = Peer::login(a.tcp, "bob");
        third.heard_all();
    });
}

#[test]
fn two_that_log_in_at_once_see_each_message_once() {
    everywhere(|[a, b, c]| {
        let mut alice = Peer::login(a.tcp, "alice");
        store(&mut alice, "bob", COUNT);
        let are_in = Barrier::new(4);
        let drain = |node: &Node| {
            let mut bob = Peer::login(node.tcp, "bob");
            are_in.wait();
            let line = std::iter::from_fn(|| Some(bob.hear()));
            let lines: Vec<String> = line.take_while(|line| line != "MSG alice end end").collect();
            bob.heard_all();
            lines.iter().map(|line| message(line).expect("a message").1.parse().expect("a number")).collect()
        };
        let drain = &drain;
        let heard: Vec<Vec<usize>> = thread::scope(|scope| {
            let bobs = [b, c, b].map(|node| scope.spawn(move || drain(node)));
            are_in.wait();
            alice.sends("bob", "end", "end");
            bobs.map(|bob| bob.join().expect("no panic")).into()
        });
        for numbers in &heard {
            assert!(numbers.is_sorted(), "in order");
        }
        let mut all = heard.concat();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..COUNT), "each once: {} of {COUNT}", all.len());
    });
}

#[test]
fn the_next_session_gets_what_the_first_left() {
    everywhere(|[a, b, c]| {
        for (bob, is_polite) in [("bob", true), ("rob", false)] {
            let mut alice = Peer::login(a.tcp, &format!("alice-{bob}"));
            let from = format!("alice-{bob}");
            store(&mut alice, bob, COUNT);
            let mut first = Peer::login_acking(b.tcp, bob);
            first.hears_poured(&from, 0..UNACKED_MAX);
            let mut second = Peer::login(c.tcp, bob);
            second.heard_all();
            // All up to 99, and one behind a gap.
            first.acks(&from, 0..100);
            first.acks(&from, 200..201);
            first.heard_all();
            if is_polite {
                first.quits();
            } else {
                first.stream().shutdown(Shutdown::Both).expect("it is there");
            }
            second.hears_poured(&from, 100..200);
            second.hears_poured(&from, 201..COUNT);
            second.heard_all();
            alice.sends(bob, "live", "hi");
            second.hears(&format!("MSG {from} live hi"));
        }
    });
}

#[test]
fn nothing_is_lost_when_the_node_of_a_drain_dies() {
    let mesh = Mesh::default();
    let [a, b, c] = nodes(&mesh, SETTINGS);
    let mut alice = Peer::login(a.tcp, "alice");
    store(&mut alice, "bob", COUNT);
    let mut first = Peer::login_acking(b.tcp, "bob");
    first.hears_poured("alice", 0..UNACKED_MAX);
    first.acks("alice", 0..100);
    first.heard_all();
    let mut second = Peer::login(c.tcp, "bob");
    second.heard_all();
    mesh.kill(&b.id);
    sees_the_rest(&mut second);
    alice.finds("bob", "online 1");
}

#[test]
fn nothing_is_lost_when_the_process_of_a_drain_is_killed() {
    let services = Services::shared();
    let (redis, amqp) = (services.redis_url(), services.amqp_url());
    let serve = |name: &str| {
        Program::serve(&["--redis", &redis, "--amqp", &amqp, "--mailbox", "20000", "--node", name])
    };
    let (a, b) = (serve("a"), serve("b"));
    let mut alice = Peer::login(a.tcp(), "alice");
    store(&mut alice, "bob", COUNT);
    let mut first = Peer::login_acking(b.tcp(), "bob");
    first.hears_poured("alice", 0..UNACKED_MAX);
    first.acks("alice", 0..100);
    first.heard_all();
    b.kill();
    let mut second = Peer::login(a.tcp(), "bob");
    // First its lease has to run out.
    second.patient(Duration::from_secs(20));
    sees_the_rest(&mut second);
    alice.will_find("bob", "online 1");
}

/// All that was not acknowledged, in order. What was may come again: nobody was told any more.
#[track_caller]
fn sees_the_rest(second: &mut Peer) {
    let line = second.hear();
    let from: usize = message(&line).expect("a message").1.parse().expect("a number");
    assert!(from <= 100, "{from} is the first");
    second.hears_poured("alice", from + 1..COUNT);
    second.heard_all();
}

#[test]
fn ten_thousand_are_drained_at_once() {
    const MANY: usize = 10_000;
    let real = Real::new();
    let [a, b] = nodes(&real as &dyn Net, SETTINGS);
    let mut alice = Peer::login(a.tcp, "alice");
    store(&mut alice, "bob", MANY);
    let mut bob = Peer::connect(b.tcp);
    let since = Instant::now();
    bob.say("LOGIN bob");
    bob.hears_start("OK bob ");
    bob.hears_poured("alice", 0..MANY);
    let took = since.elapsed();
    println!("{MANY} messages were drained in {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    bob.heard_all();
    bob.quits();
    Peer::login(a.tcp, "bob").heard_all();
}

#[test]
fn what_is_too_old_is_not_shown() {
    let check = |[a, b]: [&Node; 2]| {
        let mut alice = Peer::login(a.tcp, "alice");
        alice.stores("bob", "old", "1");
        let since = Instant::now();
        until("it is too old", || since.elapsed() > Duration::from_millis(3_200));
        alice.stores("bob", "new", "2");
        let mut bob = Peer::login(b.tcp, "bob");
        bob.hears("MSG alice new 2");
        bob.heard_all();
    };
    let settings = [("mailbox", "10"), ("mailbox-ttl", "3s")];
    let node = Node::start(&settings);
    check([&node; 2]);
    on_every_net(|net| {
        let [a, b] = nodes(net, &settings);
        check([&a, &b]);
    });
}

#[test]
fn a_node_alone_forgets_and_a_cluster_does_not() {
    let real = Real::new();
    let start = |is_alone| {
        if is_alone { Node::start(SETTINGS) } else { Node::start_on(&real, SETTINGS) }
    };
    for is_alone in [true, false] {
        let node = start(is_alone);
        let mut alice = Peer::login(node.tcp, "alice");
        alice.stores("bob", "t", "hello");
        drop((alice, node));
        let node = start(is_alone);
        let mut bob = Peer::login(node.tcp, "bob");
        if !is_alone {
            bob.hears("MSG alice t hello");
        }
        bob.heard_all();
    }
}

/// Redis refuses the removal of what was taken, and always will.
#[test]
fn a_mailbox_that_others_wrote_to_holds_up_nobody() {
    let real = Real::new();
    let [a, b] = nodes(&real as &dyn Net, SETTINGS);
    let mut alice = Peer::login(a.tcp, "alice");
    alice.stores("bob", "1", "one");
    let mut bob = Peer::login_acking(b.tcp, "bob");
    bob.hears("MSG alice 1 one");
    real.0.redis_command(&["SET", "m:bob", "x"]);
    bob.acks("alice", 1..2);
    bob.quits();
    // On the same node, and behind it.
    alice.stores("rob", "2", "two");
    let mut rob = Peer::login(b.tcp, "rob");
    rob.hears("MSG alice 2 two");
    until("the mailbox is empty", || real.0.redis_command(&["EXISTS", "m:rob"]).number() == 0);
    assert_eq!(real.0.redis_command(&["GET", "m:bob"]).text(), "x");
}

#[test]
fn while_redis_is_away_nothing_is_stored_and_nothing_doubled() {
    let services = Services { redis: Redis::own(), broker: Broker::shared() };
    let real = Real(services);
    let [a, b] = nodes(&real as &dyn Net, SETTINGS);
    let mut alice = Peer::login(a.tcp, "alice");
    alice.patient(Duration::from_secs(15));
    alice.stores("bob", "0", "before");
    real.0.redis.freeze();
    for n in 1..=20 {
        alice.say(&format!("@{n} SEND bob {n}"));
    }
    let mut is_unknown = HashSet::new();
    for _ in 1..=20 {
        let line = alice.hear();
        let (tag, rest) = line.split_once(' ').expect("a tag");
        let is_timeout = rest.starts_with("ERR timeout ");
        assert!(is_timeout || rest.starts_with("ERR unavailable "), "{line}");
        if is_timeout {
            is_unknown.insert(tag[1..].to_owned());
        }
    }
    real.0.redis.thaw();
    // As a client does: the same lines again, until they are taken.
    let mut n = 1;
    until_in(Duration::from_secs(20), "they are stored", || {
        alice.say(&format!("@{n} SEND bob {n}"));
        let line = alice.hear();
        n += usize::from(line == format!("@{n} OK {n} stored"));
        n > 20
    });
    let mut bob = Peer::login(b.tcp, "bob");
    bob.hears("MSG alice 0 before");
    let mut seen = HashSet::new();
    for _ in 1..=20 {
        let line = bob.hear();
        let (_, id, _) = message(&line).expect("a message");
        assert!(seen.insert(id.to_owned()), "{id} is shown twice");
    }
    bob.heard_all();
    println!("{} were not known", is_unknown.len());
}

/// While the recipient hops from node to node, logging in while others store, everything has its
/// `OK` and is seen in order, once on each node at most.
#[test]
fn a_user_who_hops_misses_nothing() {
    hops(false);
}

#[test]
fn a_user_who_hops_and_acknowledges_misses_nothing() {
    hops(true);
}

fn hops(may_ack: bool) {
    for seed in seeds(2) {
        let node = Node::start(SETTINGS);
        hop([&node; 3], seed, 3, 2_000, may_ack);
        on_every_net(|net| {
            let [a, b, c] = nodes(net, SETTINGS);
            hop([&a, &b, &c], seed, 1, 5_000, may_ack);
            hop([&a, &b, &c], seed, 3, 1_000, may_ack);
            [a, b, c].iter().for_each(Node::settles);
        });
    }
}

fn hop(nodes: [&Node; 3], seed: u64, senders: usize, each: usize, may_ack: bool) {
    let mut random = Random(seed);
    let bob = format!("bob-{senders}");
    thread::scope(|scope| {
        for n in 0..senders {
            let bob = &bob;
            let mut random = Random(random.next());
            let mut alice = Peer::login(nodes[n % 3].tcp, &format!("sender{senders}-{n}"));
            alice.patient(Duration::from_secs(20));
            let writer = alice.writer();
            scope.spawn(move || pour_in_parts(writer, bob, each, &mut random));
            scope.spawn(move || {
                let mut answered = HashSet::new();
                while answered.len() < each {
                    let line = alice.hear();
                    let (tag, rest) = line.split_once(' ').expect("a tag");
                    let is_good = rest.ends_with(" stored") || rest.ends_with(" delivered");
                    assert!(is_good && answered.insert(tag.to_owned()), "seed {seed}: {line}");
                }
                alice.heard_all();
            });
        }
        let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
        let mut shown: HashSet<(String, usize, &str)> = HashSet::new();
        let mut left = senders * each;
        while left > 0 {
            let home = nodes[random.below(3)];
            let acks = may_ack && random.below(2) == 0;
            let mut peer =
                if acks { Peer::login_acking(home.tcp, &bob) } else { Peer::login(home.tcp, &bob) };
            let mut stays_for = random.below(left.min(400) + 1);
            if left < 400 && random.below(3) == 0 {
                stays_for = left;
            }
            let mut take = |line: &str| {
                let (from, id, _) = message(line).unwrap_or_else(|| panic!("seed {seed}: {line}"));
                let number: usize = id.parse().expect("a number");
                // Another node may not know yet what was shown before the hop.
                let is_new = shown.insert((from.to_owned(), number, home.id.as_str()));
                assert!(is_new, "seed {seed}: {line} comes twice to one node, acks: {acks}");
                let numbers = seen.entry(from.to_owned()).or_default();
                let next = numbers.last().map_or(0, |last| last + 1);
                assert!(number <= next, "seed {seed}: {line} instead of {next}, acks: {acks}");
                if number == next {
                    numbers.push(number);
                    left -= 1;
                }
                format!("ACK {id} {from}")
            };
            for _ in 0..stays_for {
                let ack = take(&peer.hear());
                if acks {
                    peer.say(&ack);
                }
            }
            peer.say("QUIT");
            loop {
                match peer.try_hear() {
                    Ok(Heard::Line(line)) if line.starts_with("BYE quit") => break,
                    // What is not acknowledged will be shown again.
                    Ok(Heard::Line(_)) if acks => {}
                    Ok(Heard::Line(line)) => drop(take(&line)),
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
    });
    let mut last = Peer::login(nodes[0].tcp, &bob);
    last.heard_all();
    last.quits();
}

/// Numbered messages, a random number at a time.
fn pour_in_parts(mut stream: TcpStream, to: &str, count: usize, random: &mut Random) {
    let mut n = 0;
    while n < count {
        let part = (1 + random.below(100)).min(count - n);
        let lines: String = (n..n + part).map(|n| format!("@{n} SEND {to} {n}\n")).collect();
        stream.write_all(lines.as_bytes()).expect("the node reads");
        n += part;
        thread::park_timeout(Duration::from_micros(random.below(2_000) as u64));
    }
}
