//! What the client says again, under which tag, to which server, and for how long.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Instant;

use smol::stream::StreamExt;

use crate::client::fake::{FakeNode, Peer, run};
use crate::client::outstanding::RETRY_TIME_MAX;
use crate::client::tests::{S1, S2, S3, all_get, config, found, message, refused};
use crate::client::{BadInput, Client, ClientConfig, ClientError, Event, Fate, Refusal, SendError};
use crate::proto::{ErrorCode, MessageId};

pub(super) fn deliver(peer: &mut Peer, tag: &str) {
    peer.say(&format!("{tag} OK {} delivered", &tag[1..]));
}

/// An address that nobody listens on.
fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn what_had_no_reply_goes_out_again_in_order_before_what_is_newer() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let one = peer.hear_tagged("SEND bob one");
        let two = peer.hear_tagged("SEND bob two");
        let three = peer.hear_tagged("SEND bob three");
        let who = peer.hear_tagged("WHO bob");
        let ping = peer.hear_tagged("PING");
        deliver(&mut peer, &two);
        drop(peer);
        let mut peer = door.let_in(S2);
        peer.hear(&format!("{one} SEND bob one"));
        peer.hear(&format!("{three} SEND bob three"));
        peer.hear(&format!("{who} WHO bob"));
        peer.hear(&format!("{ping} PING"));
        let four = peer.hear_tagged("SEND bob four");
        // Once more, and only what is still without a reply.
        deliver(&mut peer, &one);
        drop(peer);
        let mut peer = door.let_in(S3);
        peer.hear(&format!("{three} SEND bob three"));
        peer.hear(&format!("{who} WHO bob"));
        peer.hear(&format!("{ping} PING"));
        peer.hear(&format!("{four} SEND bob four"));
        peer.say(&format!("{four} OK x stored"));
        peer.say(&format!("{who} OK bob offline\n{ping} PONG"));
        deliver(&mut peer, &three);
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let one = client.submit("bob", "one").await.unwrap();
        let two = client.submit("bob", "two").await.unwrap();
        let three = client.submit("bob", "three").await.unwrap();
        let asker = client.clone();
        let who = smol::spawn(async move { asker.who("bob").await });
        let asker = client.clone();
        // One after the other, so that they are written in this order.
        while client.core.tag_next.load(std::sync::atomic::Ordering::Relaxed) < 5 {
            smol::future::yield_now().await;
        }
        let ping = smol::spawn(async move { asker.ping().await });
        assert_eq!(two.fate().await, Ok(Fate::Delivered));
        let four = client.submit("bob", "four").await.unwrap();
        assert_eq!(one.fate().await, Ok(Fate::Delivered));
        assert_eq!(three.fate().await, Ok(Fate::Delivered));
        assert_eq!(four.fate().await, Ok(Fate::Stored));
        who.await.unwrap();
        ping.await.unwrap();
        for session in [S2, S3] {
            assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
            assert_eq!(incoming.next().await, found(session));
        }
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_timeout_is_tried_again() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("SEND bob hello");
        peer.say(&format!("{tag} ERR timeout first"));
        peer.hear(&format!("{tag} SEND bob hello"));
        peer.say(&format!("{tag} ERR timeout second"));
        peer.hear(&format!("{tag} SEND bob hello"));
        deliver(&mut peer, &tag);
        // What is no message is not.
        let tag = peer.hear_tagged("WHO bob");
        peer.say(&format!("{tag} ERR timeout x"));
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "hello").await, Ok(Fate::Delivered));
        assert_eq!(client.who("bob").await, Err(refused(ErrorCode::Timeout, "x")));
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_refusal_of_a_repeated_message_tells_nothing_of_the_first() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let one = peer.hear_tagged("SEND bob one");
        peer.say(&format!("{one} ERR timeout first"));
        peer.hear(&format!("{one} SEND bob one"));
        peer.say(&format!("{one} ERR offline x"));
        let two = peer.hear_tagged("SEND bob two");
        drop(peer);
        let mut peer = door.let_in(S2);
        peer.hear(&format!("{two} SEND bob two"));
        // One that may pass is no answer.
        peer.say(&format!("{two} ERR unavailable x"));
        peer.hear(&format!("{two} SEND bob two"));
        peer.say(&format!("{two} ERR offline x"));
        let three = peer.hear_tagged("SEND bob three");
        peer.say(&format!("{three} ERR offline x"));
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "one").await, Err(refused(ErrorCode::Timeout, "first")));
        assert_eq!(client.send("bob", "two").await, Err(SendError::Lost));
        assert_eq!(client.send("bob", "three").await, Err(refused(ErrorCode::Offline, "x")));
        client.close().await;
    });
    server.finish();
}

#[test]
fn closing_without_a_connection_loses_what_went_out() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.hear_tagged("SEND bob hello");
        // From here on nobody answers.
        drop(door);
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let sending = client.submit("bob", "hello").await.unwrap();
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        client.close().await;
        assert_eq!(sending.fate().await, Err(SendError::Lost));
    });
    server.finish();
}

#[test]
fn timeouts_without_end_are_told() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let mut times = 0;
        while let line = peer.line()
            && line != "QUIT"
        {
            times += 1;
            let (tag, _) = line.split_once(' ').unwrap();
            peer.say(&format!("{tag} ERR timeout x"));
        }
        assert!(times > 3, "only {times}");
        peer.say("BYE quit");
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let asked = Instant::now();
        assert_eq!(client.send("bob", "hello").await, Err(refused(ErrorCode::Timeout, "x")));
        assert!(asked.elapsed() < 2 * RETRY_TIME_MAX, "{:?}", asked.elapsed());
        client.close().await;
    });
    server.finish();
}

#[test]
fn without_another_connection_a_request_is_lost_in_the_end() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.hear_tagged("SEND bob hello");
        let tag = peer.hear_tagged("SEND bob again");
        peer.say(&format!("{tag} ERR timeout x"));
        // From here on nobody answers.
        drop(door);
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let asked = Instant::now();
        let hello = client.submit("bob", "hello").await.unwrap();
        let again = client.submit("bob", "again").await.unwrap();
        assert_eq!(hello.fate().await, Err(SendError::Lost));
        assert!(asked.elapsed() >= RETRY_TIME_MAX, "{:?}", asked.elapsed());
        assert!(again.fate().await.is_err());
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        // One that never went out still waits.
        let later = client.submit("bob", "later").await.unwrap();
        client.close().await;
        assert_eq!(later.fate().await, Err(SendError::Closed));
    });
    server.finish();
}

#[test]
fn what_nobody_waits_for_is_not_repeated_nor_is_a_cast() {
    let (gone_tx, gone_rx) = mpsc::channel();
    let server = FakeNode::run(move |door| {
        let mut peer = door.let_in(S1);
        peer.hear_tagged("SEND bob one");
        peer.hear("CAST bob two");
        let three = peer.hear_tagged("SEND bob three");
        peer.say("MSG bob x-1 all is here");
        gone_rx.recv().unwrap();
        drop(peer);
        let mut peer = door.let_in(S2);
        peer.hear(&format!("{three} SEND bob three"));
        deliver(&mut peer, &three);
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let one = client.submit("bob", "one").await.unwrap();
        client.cast("bob", "two").await.unwrap();
        let three = client.submit("bob", "three").await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-1", "all is here"));
        drop(one);
        gone_tx.send(()).unwrap();
        assert_eq!(three.fate().await, Ok(Fate::Delivered));
        client.close().await;
    });
    server.finish();
}

#[test]
fn many_requests_are_repeated_in_order() {
    const COUNT: usize = 1000;
    let text = |n: usize| format!("{n} {}", "x".repeat(500));
    let server = FakeNode::run(move |door| {
        let mut peer = door.let_in(S1);
        let tags: Vec<String> =
            (0..COUNT).map(|n| peer.hear_tagged(&format!("SEND bob {}", text(n)))).collect();
        drop(peer);
        let mut peer = door.let_in(S2);
        for (n, tag) in tags.iter().enumerate() {
            peer.hear(&format!("{tag} SEND bob {}", text(n)));
        }
        let last = peer.hear_tagged("SEND bob last");
        for tag in tags.iter().chain([&last]) {
            deliver(&mut peer, tag);
        }
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let mut sendings = vec![];
        for n in 0..COUNT {
            sendings.push(client.submit("bob", &text(n)).await.unwrap());
        }
        sendings.push(client.submit("bob", "last").await.unwrap());
        all_get(sendings, Ok(Fate::Delivered)).await;
        client.close().await;
    });
    server.finish();
}

#[test]
fn an_id_of_the_programs_own_is_used_once_at_a_time() {
    let (asked_tx, asked_rx) = mpsc::channel();
    let server = FakeNode::run(move |door| {
        let mut peer = door.let_in(S1);
        peer.hear("@line-1 SEND bob one");
        peer.hear("@line-2 SEND bob two");
        asked_rx.recv().unwrap();
        peer.say("@line-1 OK line-1 delivered");
        peer.hear("@line-1 SEND bob one");
        drop(peer);
        let mut peer = door.let_in(S2);
        peer.hear("@line-2 SEND bob two");
        peer.hear("@line-1 SEND bob one");
        peer.say("@line-1 OK line-1 stored\n@line-2 OK line-2 delivered");
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let in_use = |id: &str| SendError::BadInput(BadInput::IdInUse { id: id.to_owned() });
        let one = client.submit_as("line-1", "bob", "one").await.unwrap();
        let two = client.submit_as("line-2", "bob", "two").await.unwrap();
        assert_eq!(client.submit_as("line-1", "bob", "one").await.unwrap_err(), in_use("line-1"));
        asked_tx.send(()).unwrap();
        assert_eq!(one.fate().await, Ok(Fate::Delivered));
        assert_eq!(client.send_as("line-1", "bob", "one").await, Ok(Fate::Stored));
        assert_eq!(two.fate().await, Ok(Fate::Delivered));
        let series = format!("{}1", client.core.tag_prefix);
        assert_eq!(client.submit_as(&series, "bob", "x").await.unwrap_err(), in_use(&series));
        for id in ["", "two words", "@x", &"x".repeat(65)] {
            let bad = SendError::from(id.parse::<MessageId>().unwrap_err());
            assert_eq!(client.submit_as(id, "bob", "x").await.unwrap_err(), bad);
        }
        client.close().await;
        assert_eq!(client.send_as("line-3", "bob", "x").await, Err(SendError::Closed));
        assert_eq!(client.send_as("line-3", "bob", "x").await, Err(SendError::Closed), "it is free again");
    });
    server.finish();
}

#[test]
fn servers_are_tried_in_turn() {
    // One script at a time holds each door: the client goes where it has to.
    let first = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.hear_tagged("SEND bob hello");
        peer.say("BYE draining this node is shutting down");
    });
    let second = FakeNode::run(|door| {
        let mut peer = door.let_in(S2);
        let tag = peer.hear_tagged("SEND bob hello");
        deliver(&mut peer, &tag);
        drop(peer);
        // The first is gone, so the round comes back here.
        door.let_in(S3).part();
    });
    run(async {
        let servers = format!("{}, {},{}", closed_port(), first.addr, second.addr);
        let (client, mut incoming) = Client::connect(ClientConfig::new(servers, "alice")).await.unwrap();
        assert_eq!(client.send("bob", "hello").await, Ok(Fate::Delivered));
        for session in [S2, S3] {
            assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
            assert_eq!(incoming.next().await, found(session));
        }
        client.close().await;
    });
    first.finish();
    second.finish();
}

#[test]
fn the_first_attempt_ends_with_the_last_server_or_a_refusal() {
    let (one, two) = (closed_port(), closed_port());
    let error = run(Client::connect(ClientConfig::new(format!("{one},{two}"), "alice"))).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{two}: ")), "{error}");
    let server = FakeNode::run(|door| {
        let mut peer = door.accept();
        peer.say("HELLO pinpost 1 pi-1");
        peer.hear("LOGIN alice");
        peer.say("ERR denied no");
    });
    let config = ClientConfig::new(format!("{},{two}", server.addr), "alice");
    let error = run(Client::connect(config)).unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::Login { code: ErrorCode::Denied, .. })), "{error}");
    server.finish();
}
