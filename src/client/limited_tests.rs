//! What the client does when there is no room: `ERR limited`, and its own bound.

use std::sync::mpsc;
use std::time::Instant;

use smol::future;
use smol::stream::StreamExt;

use crate::client::again_tests::deliver;
use crate::client::core::OUTSTANDING_MAX;
use crate::client::fake::{FakeNode, run};
use crate::client::outstanding::RETRY_TIME_MAX;
use crate::client::tests::{S1, S2, all_get, config, found, message, refused};
use crate::client::{Client, Event, Fate, SendError, UserPresence};
use crate::proto::ErrorCode;

#[test]
fn a_limited_request_goes_out_again_as_it_was() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        for (request, answer) in
            [("SEND bob hello", "OK x delivered"), ("WHO bob", "OK bob online 1"), ("PING", "PONG")]
        {
            let tag = peer.hear_tagged(request);
            for _ in 0..3 {
                peer.say(&format!("{tag} ERR limited slow down"));
                peer.hear(&format!("{tag} {request}"));
            }
            peer.say(&format!("{tag} {answer}"));
        }
        peer.hear("@own SEND bob again");
        peer.say("@own ERR limited slow down");
        peer.hear("@own SEND bob again");
        // Any other refusal is its answer: nothing was done before.
        peer.say("@own ERR offline away");
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "hello").await, Ok(Fate::Delivered));
        assert_eq!(client.who("bob").await, Ok(UserPresence::Online { sessions: 1 }));
        client.ping().await.unwrap();
        assert_eq!(client.send_as("own", "bob", "again").await, Err(refused(ErrorCode::Offline, "away")));
        client.close().await;
    });
    server.finish();
}

#[test]
fn newer_ones_do_not_wait_for_a_limited_one() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let one = peer.hear_tagged("SEND bob one");
        peer.say(&format!("{one} ERR limited x\nMSG bob x-1 now"));
        let mut two = None;
        let mut rounds = 0;
        // The first is refused until the second has come.
        while two.is_none() {
            let line = peer.line();
            if line == format!("{one} SEND bob one") {
                peer.say(&format!("{one} ERR limited x"));
                rounds += 1;
                assert!(rounds < 10, "the second one does not come");
            } else {
                two = line.strip_suffix(" SEND bob two").map(str::to_owned);
            }
        }
        deliver(&mut peer, &two.unwrap());
        peer.hear(&format!("{one} SEND bob one"));
        peer.say(&format!("{one} OK x stored"));
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let one = client.submit("bob", "one").await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-1", "now"));
        assert_eq!(client.send("bob", "two").await, Ok(Fate::Delivered));
        assert_eq!(one.fate().await, Ok(Fate::Stored));
        client.close().await;
    });
    server.finish();
}

#[test]
fn limited_without_end_is_told_as_what_it_is() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let mut times = [0, 0];
        while let line = peer.line()
            && line != "QUIT"
        {
            let (tag, request) = line.split_once(' ').unwrap();
            times[usize::from(request == "WHO bob")] += 1;
            peer.say(&format!("{tag} ERR limited slow down"));
        }
        // Pauses grow, so these are not hundreds.
        assert!(times.iter().all(|times| (3..60).contains(times)), "{times:?}");
        peer.say("BYE quit");
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let asked = Instant::now();
        let limited = refused(ErrorCode::Limited, "slow down");
        let (sent, asked_who) = future::zip(client.send("bob", "hello"), client.who("bob")).await;
        assert_eq!(sent, Err(limited.clone()));
        assert_eq!(asked_who, Err(limited));
        assert!(asked.elapsed() < 2 * RETRY_TIME_MAX, "{:?}", asked.elapsed());
        client.close().await;
    });
    server.finish();
}

#[test]
fn limited_tells_nothing_of_an_attempt_before_it() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let one = peer.hear_tagged("SEND bob one");
        peer.say(&format!("{one} ERR timeout first"));
        peer.hear(&format!("{one} SEND bob one"));
        peer.say(&format!("{one} ERR limited x"));
        peer.hear(&format!("{one} SEND bob one"));
        peer.say(&format!("{one} ERR offline x"));
        let two = peer.hear_tagged("SEND bob two");
        peer.say(&format!("{two} ERR limited x"));
        peer.hear(&format!("{two} SEND bob two"));
        // This attempt has no answer: it may have worked.
        drop(peer);
        let mut peer = door.let_in(S2);
        while let line = peer.line()
            && line != "QUIT"
        {
            assert_eq!(line, format!("{two} SEND bob two"));
            peer.say(&format!("{two} ERR limited x"));
        }
        peer.say("BYE quit");
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "one").await, Err(refused(ErrorCode::Timeout, "first")));
        assert_eq!(client.send("bob", "two").await, Err(SendError::Lost));
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        assert_eq!(incoming.next().await, found(S2));
        client.close().await;
    });
    server.finish();
}

#[test]
fn one_that_pauses_is_limited_though_the_connection_breaks() {
    let (heard_tx, heard_rx) = mpsc::channel::<()>();
    let server = FakeNode::run(move |door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("SEND bob hello");
        let early = peer.hear_tagged("SEND bob early");
        // With the end of the connection in one segment: it comes while both pause.
        peer.say(&format!("{tag} ERR limited x\n{early} ERR limited x\nBYE draining now"));
        drop(peer);
        let mut peer = door.let_in(S2);
        peer.hear(&format!("{tag} SEND bob hello"));
        peer.hear(&format!("{early} SEND bob early"));
        deliver(&mut peer, &early);
        peer.say(&format!("{tag} ERR limited x\nBYE draining now"));
        // From here on nobody answers.
        drop((peer, door));
        heard_rx.recv().unwrap();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let hello = client.submit("bob", "hello").await.unwrap();
        assert_eq!(client.send("bob", "early").await, Ok(Fate::Delivered));
        for _ in 0..2 {
            assert!(matches!(incoming.next().await, Some(Event::Lost { .. } | Event::Found { .. })));
        }
        assert_eq!(hello.fate().await, Err(refused(ErrorCode::Limited, "x")));
        heard_tx.send(()).unwrap();
        client.close().await;
    });
    server.finish();
}

#[test]
fn requests_over_the_bound_wait_for_their_turn() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let mut tags: Vec<String> = (0..OUTSTANDING_MAX).map(|_| peer.hear_tagged("SEND bob x")).collect();
        // One answer makes room for one request.
        peer.say(&format!("{} OK x delivered", tags.remove(0)));
        tags.push(peer.hear_tagged("SEND bob last"));
        for tag in tags {
            peer.say(&format!("{tag} OK x delivered"));
        }
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let mut sendings = vec![];
        for _ in 0..OUTSTANDING_MAX {
            sendings.push(client.submit("bob", "x").await.unwrap());
        }
        assert_eq!(client.send("bob", "last").await, Ok(Fate::Delivered));
        all_get(sendings, Ok(Fate::Delivered)).await;
        client.close().await;
    });
    server.finish();
}

#[test]
fn closing_ends_those_who_wait_for_their_turn() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        (0..OUTSTANDING_MAX).for_each(|_| drop(peer.hear_tagged("SEND bob x")));
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let mut sendings = vec![];
        for _ in 0..OUTSTANDING_MAX {
            sendings.push(client.submit("bob", "x").await.unwrap());
        }
        let (waiting, ()) = future::zip(client.send("bob", "last"), client.close()).await;
        assert_eq!(waiting, Err(SendError::Closed));
        all_get(sendings, Err(SendError::Lost)).await;
    });
    server.finish();
}
