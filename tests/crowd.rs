//! Crowds: thousands who say nothing, who all come at once, who come and go.
//!
//! One test at a time, because each of them counts open files, of which this
//! process may have a bounded number. The 10,000 connections at a time are with
//! a server in a process of its own, since both ends of a connection count.

mod rig;

use std::fs;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rig::bystanders::Bystanders;
use rig::node::Node;
use rig::peer::{Peer, delivered, message};
use rig::program::Program;
use rig::until;

/// Connections at a time, or in all.
const CROWD: usize = 10_000;

/// Memory of one that is idle, in bytes; `docs/performance.md` computes what it is.
const BYTES_MAX: usize = 900;
const WEBSOCKET_BYTES_MAX: usize = 1_200;

/// Lets one test run at a time, and this process open files enough.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let files_max = pinpost::files_max();
    assert!(files_max > CROWD + 500, "this test opens {CROWD} files, and the limit is {files_max}");
    guard
}

#[test]
fn ten_thousand_that_say_nothing() {
    ten_thousand(BYTES_MAX, |server| Peer::connect(server.tcp()));
}

#[test]
fn ten_thousand_that_say_nothing_over_websocket() {
    ten_thousand(WEBSOCKET_BYTES_MAX, |server| Peer::connect_websocket(server.http()));
}

/// Lets a crowd connect, then log in: neither may take more memory than that.
fn ten_thousand(bytes_max: usize, connect: impl Fn(&Program) -> Peer) {
    let _alone = alone();
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    let (files, memory) = (server.files(), server.memory());
    let is_bounded = |what: &str| {
        let each = (server.memory() - memory) / CROWD;
        println!("{each} bytes {what}");
        assert!(each < bytes_max, "{each} bytes {what}");
    };
    let mut crowd: Vec<Peer> = (0..CROWD).map(|_| connect(&server)).collect();
    assert_eq!(server.files(), files + CROWD);
    is_bounded("a silent connection");
    for (n, peer) in crowd.iter_mut().enumerate() {
        peer.say(&format!("LOGIN u{n}"));
        peer.hears_start(&format!("OK u{n} "));
    }
    is_bounded("an idle user");
    drop(crowd);
    until("all files are closed", || server.files() == files);
    println!("{:?}", bystanders.noticed_nothing());
}

#[test]
fn a_storm_of_logins() {
    const STORM: usize = 4_000;
    const THREADS: usize = 4;
    let _alone = alone();
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let (tcp, http) = (node.tcp, node.http);
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            thread::spawn(move || {
                // All come before the first one looks at an answer; those who come to HTTP have to.
                let users = (0..STORM / THREADS).map(|m| format!("user-{n}-{m}"));
                let (web, lines): (Vec<_>, Vec<_>) = users.enumerate().partition(|(m, _)| m % 4 == 0);
                let mut clients: Vec<_> = lines
                    .into_iter()
                    .map(|(_, user)| {
                        let mut client = Peer::silent(tcp);
                        client.say(&format!("LOGIN {user}"));
                        (client, user)
                    })
                    .collect();
                let login = |user: &str| Peer::connect_websocket(http).logged_in(user);
                let web: Vec<Peer> = web.iter().map(|(_, user)| login(user)).collect();
                for (client, user) in &mut clients {
                    client.hears_start("HELLO ");
                    client.hears_start(&format!("OK {user} "));
                }
                (clients, web)
            })
        })
        .collect();
    let crowd: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("all come in")).collect();
    assert_eq!(node.holdings().users, STORM + 2);
    drop(crowd);
    println!("{:?}", bystanders.noticed_nothing());
    node.settles();
}

#[test]
fn nothing_is_left_of_ten_thousand_that_came_talked_and_went() {
    const WAVE: usize = 2_000;
    let _alone = alone();
    let node = Node::start(&[]);
    // The reactor and the bystanders have their files open from here on.
    let bystanders = Bystanders::start(node.tcp);
    drop(Peer::login(node.tcp, "first"));
    until("the first has left", || node.holdings().connections == 2);
    let files = || fs::read_dir("/proc/self/fd").expect("this is Linux").count();
    let files_before = files();
    for _ in 0..CROWD / WAVE {
        wave(&node, WAVE);
        until("the wave has left", || node.holdings().connections == 2);
        until("its files are closed", || files() == files_before);
    }
    assert!(node.metrics().accepted >= CROWD as u64);
    println!("{:?}", bystanders.noticed_nothing());
    node.settles();
}

#[test]
fn those_who_knock_at_a_full_node_all_the_time() {
    const KNOCKS: usize = 2_000;
    let _alone = alone();
    let node = Node::start(&[("connections", "2")]);
    let bystanders = Bystanders::start(node.tcp);
    let addr = node.tcp;
    let knock = move || {
        for _ in 0..KNOCKS {
            let mut client = Peer::connect(addr);
            client.hears_start("ERR too-many ");
            assert_eq!(client.next(), None);
        }
    };
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(knock)).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("all are told"));
    assert_eq!(node.metrics().turned_away, 4 * KNOCKS as u64);
    println!("{:?}", bystanders.noticed_nothing());
    node.settles();
}

/// Lets `count` users come, talk in a ring, and go in all the ways there are.
fn wave(node: &Node, count: usize) {
    let user = |n: usize| format!("user-{}", n % count);
    let mut crowd: Vec<Peer> = (0..count)
        .map(|n| match n % 4 {
            3 => Peer::connect_websocket(node.http).logged_in(&user(n)),
            _ => Peer::login(node.tcp, &user(n)),
        })
        .collect();
    for (n, visitor) in crowd.iter_mut().enumerate() {
        let next = user(n + 1);
        visitor.say(&format!(
            "SEND {next} hello\nSEND nobody hello\nWHO {next}\nCAST {next} hello again\nNONSENSE"
        ));
    }
    // Some look at what they were told, and all of it is there.
    for visitor in crowd.iter_mut().step_by(3) {
        let lines: Vec<String> = (0..6).map(|_| visitor.hear()).collect();
        let mut texts: Vec<&str> =
            lines.iter().filter_map(|line| message(line)).map(|(_, _, text)| text).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["hello", "hello again"], "{lines:?}");
        assert!(lines.iter().any(|line| delivered(line).is_some()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("ERR offline ")), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with(" online 1")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("ERR unknown-verb ")), "{lines:?}");
    }
    for (n, visitor) in crowd.into_iter().enumerate() {
        leave(visitor, n, &user(n + 2));
    }
}

/// Goes, in one of the ways there are.
fn leave(mut visitor: Peer, way: usize, other: &str) {
    match way % 5 {
        0 => {
            visitor.say("QUIT");
            visitor.rest();
        }
        1 => {
            visitor.half_close();
            visitor.rest();
        }
        // Gone in the middle of a line or a frame.
        2 => visitor.stream().write_all(&[0x81, 0xfe]).expect("the node reads"),
        // Gone while messages are on their way, from it and to it.
        3 => (0..10).for_each(|_| visitor.say(&format!("SEND {other} {}", "x".repeat(1_000)))),
        _ => {}
    }
}
