//! Acknowledgements: when they are said, and what becomes of duplicates.

use std::sync::mpsc;

use smol::stream::StreamExt;

use crate::client::fake::{FakeNode, Peer, run};
use crate::client::tests::{S1, S2, config, found, message};
use crate::client::{Client, ClientConfig, Event, Incoming};

/// The client's own bound for lines that wait, and more.
const MANY: usize = 300;

fn with_ack(server: &FakeNode) -> ClientConfig {
    config(server).ack(true)
}

/// Sends many messages.
fn pour(peer: &mut Peer) {
    (0..MANY).for_each(|n| peer.say(&format!("MSG bob x-{n} {n}")));
}

/// Takes what [`pour`] has sent.
async fn hear_all(incoming: &mut Incoming) {
    for n in 0..MANY {
        assert_eq!(incoming.next().await, message("bob", &format!("x-{n}"), &n.to_string()));
    }
}

#[test]
fn a_message_is_acknowledged_when_the_next_event_is_asked_for() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in_with_ack(S1);
        peer.say("MSG bob x-1 one\nMSG bob x-2 two\nMSG bob x-3 three\nERR limited x\nMSG bob x-4 four");
        // Behind each message but the last the program waits for the answer to a question
        // before it says that it is done; the next question may overtake that.
        let (mut questions, mut acks) = (0, 0);
        while acks < 3 {
            let line = peer.line();
            if let Some(tag) = line.strip_suffix(" PING") {
                questions += 1;
                peer.say(&format!("{tag} PONG"));
            } else {
                acks += 1;
                assert_eq!(line, format!("ACK x-{acks} bob"));
                assert!(acks <= questions, "acknowledged before it was done with");
            }
        }
        // The last one was taken, and that is all.
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(with_ack(&server)).await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-1", "one"));
        client.ping().await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-2", "two"));
        client.ping().await.unwrap();
        incoming.acknowledge();
        incoming.acknowledge();
        assert_eq!(incoming.next().await, message("bob", "x-3", "three"));
        client.ping().await.unwrap();
        assert!(matches!(incoming.next().await, Some(Event::Refused { .. })));
        assert_eq!(incoming.next().await, message("bob", "x-4", "four"));
        drop(incoming);
        client.close().await;
    });
    server.finish();
}

#[test]
fn closing_says_what_was_acknowledged_before() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in_with_ack(S1);
        pour(&mut peer);
        for n in 0..MANY {
            peer.hear(&format!("ACK x-{n} bob"));
        }
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(with_ack(&server)).await.unwrap();
        hear_all(&mut incoming).await;
        incoming.acknowledge();
        client.close().await;
    });
    server.finish();
}

#[test]
fn without_ack_copies_are_dropped_and_nothing_is_acknowledged() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.say("MSG bob x-1 one\nMSG bob x-1 one\nMSG carol x-1 one");
        drop(peer);
        let mut peer = door.let_in(S2);
        peer.say("MSG bob x-1 one\nMSG bob#room x-1 one\nMSG bob x-2 two");
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-1", "one"));
        assert_eq!(incoming.next().await, message("carol", "x-1", "one"));
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        assert_eq!(incoming.next().await, found(S2));
        assert!(matches!(incoming.next().await, Some(Event::Message { room: Some(_), .. })));
        assert_eq!(incoming.next().await, message("bob", "x-2", "two"));
        incoming.acknowledge();
        client.close().await;
    });
    server.finish();
}

#[test]
fn acknowledging_does_not_wait_for_a_connection_and_copies_are_acknowledged_at_once() {
    let (taken_tx, taken_rx) = mpsc::channel();
    let server = FakeNode::run(move |door| {
        let mut peer = door.let_in_with_ack(S1);
        pour(&mut peer);
        drop(peer);
        taken_rx.recv().unwrap();
        let mut peer = door.let_in_with_ack(S2);
        for n in 0..MANY {
            peer.say(&format!("MSG bob x-{n} {n}"));
            peer.hear(&format!("ACK x-{n} bob"));
        }
        peer.say("MSG bob y-1 new");
        peer.hear("ACK y-1 bob");
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(with_ack(&server)).await.unwrap();
        // The news that the connection is lost is the last of them.
        while incoming.events.len() <= MANY {
            smol::future::yield_now().await;
        }
        hear_all(&mut incoming).await;
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        taken_tx.send(()).unwrap();
        assert_eq!(incoming.next().await, found(S2));
        assert_eq!(incoming.next().await, message("bob", "y-1", "new"));
        incoming.acknowledge();
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_copy_of_what_the_program_is_not_done_with_is_only_dropped() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in_with_ack(S1);
        peer.say("MSG bob x-1 one\nMSG bob x-2 two");
        drop(peer);
        let mut peer = door.let_in_with_ack(S2);
        peer.say("MSG bob x-1 one\nMSG bob x-2 two\nMSG bob x-3 three");
        let tag = peer.hear_tagged("PING");
        peer.say(&format!("{tag} PONG"));
        for n in 1..=3 {
            peer.hear(&format!("ACK x-{n} bob"));
        }
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(with_ack(&server)).await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-1", "one"));
        // Its answer stands behind the duplicates, on the second connection.
        client.ping().await.unwrap();
        assert_eq!(incoming.next().await, message("bob", "x-2", "two"));
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        assert_eq!(incoming.next().await, found(S2));
        assert_eq!(incoming.next().await, message("bob", "x-3", "three"));
        incoming.acknowledge();
        client.close().await;
    });
    server.finish();
}
