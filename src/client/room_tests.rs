//! How much a client has on its way, with and without `ack`.

use std::collections::VecDeque;
use std::pin::pin;

use smol::channel::bounded;
use smol::future::{self, poll_once};
use smol::stream::StreamExt;

use crate::client::fake::{Peer, Server, run};
use crate::client::room::ROOM_BYTES_MAX;
use crate::client::tests::{S1, S2, all_get, found};
use crate::client::{Client, ClientConfig, Event, Fate, SendError, Sending};
use crate::proto::ErrorCode;

/// What is sent: 1 MiB of text.
const COUNT: usize = 256;
const TEXT_BYTES: usize = 4096 - 64;
/// So many lines have room, each in 32 units.
const FIT: usize = ROOM_BYTES_MAX / 4096;

fn text(n: usize) -> String {
    format!("{n:0TEXT_BYTES$}")
}

fn with_ack(server: &Server) -> ClientConfig {
    ClientConfig { ack: true, ..server.config() }
}

/// Hears a message; returns its tag, and how long the line was.
fn hear(peer: &mut Peer, n: usize) -> (String, usize) {
    let tag = peer.hear_tagged(&format!("SEND bob {}", text(n)));
    let bytes = format!("{tag} SEND bob \n").len() + TEXT_BYTES;
    (tag, bytes)
}

/// Submits from `first` on until it would have to wait.
async fn fill(client: &Client, first: usize) -> Vec<Sending> {
    let mut sendings = vec![];
    while let Some(sending) = poll_once(client.submit("bob", &text(first + sendings.len()))).await {
        sendings.push(sending.unwrap());
    }
    sendings
}

#[test]
fn with_ack_so_many_bytes_are_on_their_way_and_answers_let_the_rest_through() {
    let server = Server::run(|door| {
        let mut peer = door.let_in_with_ack(S1);
        let mut asked: VecDeque<(String, usize)> = VecDeque::new();
        let mut bytes = 0;
        for n in 0..COUNT {
            if n == FIT {
                // The program has all it may have on its way, and asks what needs no room.
                let tag = peer.hear_tagged("PING");
                peer.say(&format!("{tag} PONG"));
            }
            if n >= FIT {
                let (tag, answered) = asked.pop_front().unwrap();
                bytes -= answered;
                // Any answer makes room.
                let answer = if n == FIT { "ERR offline x" } else { "OK x delivered" };
                peer.say(&format!("{tag} {answer}"));
            }
            let heard = hear(&mut peer, n);
            bytes += heard.1;
            asked.push_back(heard);
            assert!(bytes <= ROOM_BYTES_MAX, "{bytes} bytes are on their way");
        }
        for (tag, _) in asked {
            peer.say(&format!("{tag} OK x delivered"));
        }
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(with_ack(&server)).await.unwrap();
        let mut sendings = fill(&client, 0).await;
        assert_eq!(sendings.len(), FIT);
        client.ping().await.unwrap();
        for n in FIT..COUNT {
            sendings.push(client.submit("bob", &text(n)).await.unwrap());
        }
        let mut fates = vec![];
        for sending in sendings {
            fates.push(sending.fate().await);
        }
        let refused = SendError::Refused { code: ErrorCode::Offline, text: "x".to_owned() };
        assert_eq!(fates[0], Err(refused));
        assert!(fates[1..].iter().all(|fate| *fate == Ok(Fate::Delivered)));
        client.close().await;
    });
    server.finish();
}

#[test]
fn without_ack_bytes_are_not_counted() {
    let server = Server::run(|door| {
        let mut peer = door.let_in(S1);
        let tags: Vec<String> = (0..COUNT).map(|n| hear(&mut peer, n).0).collect();
        for tag in tags {
            peer.say(&format!("{tag} OK x delivered"));
        }
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(server.config()).await.unwrap();
        let mut sendings = vec![];
        for n in 0..COUNT {
            sendings.push(client.submit("bob", &text(n)).await.unwrap());
        }
        all_get(sendings, Ok(Fate::Delivered)).await;
        client.close().await;
    });
    server.finish();
}

#[test]
fn what_is_given_up_makes_room_and_what_is_said_again_keeps_it() {
    let (heard_tx, heard_rx) = bounded(1);
    let (dropped_tx, dropped_rx) = bounded::<()>(1);
    let server = Server::run(move |door| {
        let mut peer = door.let_in_with_ack(S1);
        (0..FIT).for_each(|n| drop(hear(&mut peer, n)));
        let ping = peer.hear_tagged("PING");
        heard_tx.send_blocking(()).unwrap();
        dropped_rx.recv_blocking().unwrap();
        drop(peer);
        // The second half was given up.
        let mut peer = door.let_in_with_ack(S2);
        let tags: Vec<String> = (0..FIT / 2).map(|n| hear(&mut peer, n).0).collect();
        peer.hear(&format!("{ping} PING"));
        let more: Vec<String> = (0..FIT / 2).map(|n| hear(&mut peer, COUNT + n).0).collect();
        peer.say(&format!("{ping} PONG"));
        for tag in tags.into_iter().chain(more) {
            peer.say(&format!("{tag} OK x stored"));
        }
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(with_ack(&server)).await.unwrap();
        let mut sendings = fill(&client, 0).await;
        let mut ping = pin!(client.ping());
        assert!(poll_once(&mut ping).await.is_none());
        heard_rx.recv().await.unwrap();
        sendings.truncate(FIT / 2);
        dropped_tx.send(()).await.unwrap();
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        assert_eq!(incoming.next().await, found(S2));
        let more = fill(&client, COUNT).await;
        assert_eq!(more.len(), FIT / 2);
        ping.await.unwrap();
        all_get(sendings.into_iter().chain(more), Ok(Fate::Stored)).await;
        client.close().await;
    });
    server.finish();
}

#[test]
fn closing_ends_those_who_wait_for_room() {
    let server = Server::run(|door| {
        let mut peer = door.let_in_with_ack(S1);
        (0..FIT).for_each(|n| drop(hear(&mut peer, n)));
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(with_ack(&server)).await.unwrap();
        let sendings = fill(&client, 0).await;
        let (waiting, ()) = future::zip(client.send("bob", &text(FIT)), client.close()).await;
        assert_eq!(waiting, Err(SendError::Closed));
        all_get(sendings, Err(SendError::Lost)).await;
    });
    server.finish();
}
