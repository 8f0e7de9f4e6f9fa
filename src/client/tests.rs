//! The client against a server that follows a script.

use std::cell::Cell;
use std::io::{BufRead, Write};
use std::net::TcpListener;

use smol::future;
use smol::stream::StreamExt;

use crate::client::core::EVENTS_MAX;
use crate::client::fake::{Door, FakeNode, run};
use crate::client::{
    BadInput, Client, ClientConfig, ClientError, Event, Fate, Refusal, SendError, Sending, UserPresence,
};
use crate::proto::reply::SERVER_LINE_BYTES_MAX;
use crate::proto::{CloseReason, ErrorCode, MessageId, NodeId, SessionId, UserName};

pub(super) const S1: &str = "4k2jd8s1";
pub(super) const S2: &str = "4k2jd8s2";
pub(super) const S3: &str = "4k2jd8s3";

pub(super) fn config(server: &FakeNode) -> ClientConfig {
    ClientConfig::new(&server.addr, "alice")
}

pub(super) fn refused(code: ErrorCode, text: &str) -> SendError {
    SendError::Refused { code, text: text.to_owned() }
}

/// Each of these gets this fate.
pub(super) async fn all_get(sendings: impl IntoIterator<Item = Sending>, fate: Result<Fate, SendError>) {
    for sending in sendings {
        assert_eq!(sending.fate().await, fate);
    }
}

pub(super) fn found(session: &str) -> Option<Event> {
    Some(Event::Found { node: NodeId::parse("pi-1").unwrap(), session: SessionId::parse(session).unwrap() })
}

pub(super) fn message(from: &str, id: &str, text: &str) -> Option<Event> {
    Some(Event::Message {
        from: UserName::parse(from).unwrap(),
        room: None,
        id: MessageId::Tag(id.into()),
        text: text.to_owned(),
    })
}

/// Connects to a server that follows `script`, and expects an error that shows as `expected`.
fn check_connect(script: impl FnOnce(Door) + Send + 'static, expected: &str) -> ClientError {
    let server = FakeNode::run(script);
    let error = run(Client::connect(config(&server))).expect_err(expected);
    assert!(error.to_string().contains(expected), "{error}");
    server.finish();
    error
}

#[test]
fn says_hears_and_leaves() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("SEND bob hello  there ");
        peer.say(&format!("{tag} OK {} delivered", &tag[1..]));
        let tag = peer.hear_tagged("SEND 小明 \t!");
        peer.say("MSG bob x-1 hi  alice ");
        peer.say(&format!("{tag} OK {} stored", &tag[1..]));
        let tag = peer.hear_tagged("WHO bob");
        peer.say(&format!("{tag} OK bob online 2"));
        let tag = peer.hear_tagged("WHO carol");
        peer.say(&format!("{tag} OK carol offline"));
        let tag = peer.hear_tagged("PING");
        peer.say(&format!("{tag} PONG"));
        peer.hear("CAST bob psst");
        peer.say("ERR limited slow down");
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.place().node.as_str(), "pi-1");
        assert_eq!(client.place().session.as_str(), S1);
        assert_eq!(client.send("bob", "hello  there ").await, Ok(Fate::Delivered));
        assert_eq!(client.send("小明", "\t!").await, Ok(Fate::Stored));
        assert_eq!(incoming.next().await, message("bob", "x-1", "hi  alice "));
        assert_eq!(client.who("bob").await, Ok(UserPresence::Online { sessions: 2 }));
        assert_eq!(client.who("carol").await, Ok(UserPresence::Offline));
        client.ping().await.unwrap();
        client.cast("bob", "psst").await.unwrap();
        let refused = Event::Refused { code: ErrorCode::Limited, text: "slow down".to_owned() };
        assert_eq!(incoming.next().await, Some(refused));
        client.close().await;
        assert_eq!(incoming.next().await, None);
        assert_eq!(client.send("bob", "late").await, Err(SendError::Closed));
        assert_eq!(client.cast("bob", "late").await, Err(SendError::Closed));
        client.close().await;
    });
    server.finish();
}

#[test]
fn an_error_reply_reaches_its_sender() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("SEND bob hello");
        peer.say(&format!("{tag} ERR offline bob is away"));
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let offline = refused(ErrorCode::Offline, "bob is away");
        assert_eq!(client.send("bob", "hello").await, Err(offline));
        client.close().await;
    });
    server.finish();
}

#[test]
fn what_can_not_be_said_is_not_sent() {
    let server = FakeNode::run(|door| door.let_in(S1).part());
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let check = async |to: &str, text: &str, bad: BadInput| {
            assert_eq!(client.send(to, text).await, Err(SendError::BadInput(bad.clone())));
            assert_eq!(client.cast(to, text).await, Err(SendError::BadInput(bad)));
        };
        for name in ["", "#room", "two words", "line\nbreak"] {
            check(name, "hi", name.parse::<UserName>().unwrap_err().into()).await;
            assert!(client.who(name).await.is_err());
        }
        check("bob", "", BadInput::Empty).await;
        for found in ['\n', '\r', '\u{1b}', '\u{9b}', '\0'] {
            check("bob", &format!("a{found}b"), BadInput::Control { found }).await;
        }
        let long = client.cast("bob", &"x".repeat(4087)).await;
        assert_eq!(long, Err(SendError::BadInput(BadInput::TooLong { bytes: 4097, bytes_max: 4096 })));
        client.close().await;
    });
    server.finish();
}

#[test]
fn replies_find_their_requests_in_any_order() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tags: Vec<String> = (0..3).map(|n| peer.hear_tagged(&format!("SEND bob {n}"))).collect();
        peer.say(&format!("{} OK x stored", tags[2]));
        peer.say(&format!("{} ERR offline x", tags[0]));
        peer.say(&format!("{} OK x delivered", tags[1]));
        peer.part();
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        let mut sendings = vec![];
        for n in 0..3 {
            sendings.push(client.submit("bob", &n.to_string()).await.unwrap());
        }
        let mut fates = vec![];
        for sending in sendings {
            fates.push(sending.fate().await);
        }
        let offline = refused(ErrorCode::Offline, "x");
        assert_eq!(fates, [Err(offline), Ok(Fate::Delivered), Ok(Fate::Stored)]);
        client.close().await;
    });
    server.finish();
}

#[test]
fn reconnects_until_the_server_lets_it_in() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.say("BYE draining this node is shutting down");
        drop(door.accept());
        door.accept().say("BYE draining");
        door.accept().say("220 mail");
        let mut peer = door.accept();
        peer.say("HELLO pinpost 1 pi-1");
        peer.hear("LOGIN alice");
        peer.say("ERR too-many sessions");
        drop(peer);
        door.let_in(S2).part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let Some(Event::Lost { reason }) = incoming.next().await else { panic!("not lost") };
        assert_eq!(reason, "the server closed the connection: draining: this node is shutting down");
        assert_eq!(incoming.next().await, found(S2));
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_replaced_client_does_not_come_back() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.hear_tagged("SEND bob hello");
        peer.say("BYE replaced a newer login");
        peer.hear("");
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "hello").await, Err(SendError::Lost));
        let refusal = Refusal::Bye { reason: CloseReason::Replaced, text: "a newer login".to_owned() };
        assert_eq!(incoming.next().await, Some(Event::Closed(refusal)));
        assert_eq!(incoming.next().await, None);
        assert_eq!(client.send("bob", "hello").await, Err(SendError::Closed));
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_client_denied_at_its_return_does_not_come_back_again() {
    let server = FakeNode::run(|door| {
        drop(door.let_in(S1));
        let mut peer = door.accept();
        peer.say("HELLO pinpost 1 pi-1");
        peer.hear("LOGIN alice");
        peer.say("ERR denied expired");
    });
    run(async {
        let (_client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        let refusal = Refusal::Login { code: ErrorCode::Denied, text: "expired".to_owned() };
        assert_eq!(incoming.next().await, Some(Event::Closed(refusal)));
        assert_eq!(incoming.next().await, None);
    });
    server.finish();
}

#[test]
fn the_first_connection_tells_what_is_wrong() {
    check_connect(|door| door.accept().say("SSH-2.0-OpenSSH\u{1b}[2J"), r#""SSH-2.0-OpenSSH\u{1b}[2J""#);
    check_connect(|door| door.accept().say("HELLO pinpost 2 pi-1"), "HELLO pinpost 2 pi-1");
    check_connect(|door| door.accept().say("BYE draining"), "draining");
    check_connect(|door| drop(door.accept()), "unexpected end of file");
    let denied = check_connect(
        |door| {
            let mut peer = door.accept();
            peer.say("HELLO pinpost 1 pi-1");
            peer.hear("LOGIN alice");
            peer.say("ERR denied no");
        },
        "login refused: denied: no",
    );
    assert!(matches!(denied, ClientError::Refused(Refusal::Login { code: ErrorCode::Denied, .. })));
    check_connect(
        |door| {
            let mut peer = door.accept();
            peer.say("HELLO pinpost 1 pi-1");
            peer.hear("LOGIN alice");
            peer.say("OK alice");
        },
        "OK alice",
    );
}

#[test]
fn a_closed_port_is_an_error_with_its_address() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = run(Client::connect(ClientConfig::new(addr.clone(), "alice"))).unwrap_err();
    assert!(matches!(error, ClientError::Io { .. }));
    assert!(error.to_string().starts_with(&format!("{addr}: ")), "{error}");
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_tried_again() {
    let check = |garbage: Vec<u8>, expected: &str| {
        let server = FakeNode::run(move |door| {
            let mut peer = door.let_in(S1);
            peer.hear_tagged("SEND bob hello");
            peer.stream.write_all(&garbage).unwrap();
            peer.hear("");
            let mut peer = door.let_in(S2);
            let tag = peer.hear_tagged("SEND bob hello");
            peer.say(&format!("{tag} OK x delivered"));
            peer.part();
        });
        run(async {
            let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
            assert_eq!(client.send("bob", "hello").await, Ok(Fate::Delivered));
            let Some(Event::Lost { reason }) = incoming.next().await else { panic!("not lost") };
            assert!(reason.contains(expected), "{reason}");
            assert_eq!(incoming.next().await, found(S2));
            client.close().await;
        });
        server.finish();
    };
    check(b"what?\n".to_vec(), "\"what?\"");
    check(b"OK unasked\n".to_vec(), "\"OK unasked\"");
    check(b"@unknown OK x delivered\n".to_vec(), "@unknown");
    check(b"MSG bob x \xc3\x28\n".to_vec(), "not UTF-8");
    check(vec![b'x'; SERVER_LINE_BYTES_MAX], "too long");
}

#[test]
fn a_reply_of_the_wrong_kind_is_no_reply() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("SEND bob hello");
        peer.say(&format!("{tag} OK bob online 2"));
        peer.hear("");
    });
    run(async {
        let (client, _incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "hello").await, Err(SendError::Lost));
    });
    server.finish();
}

#[test]
fn a_client_says_quit_when_nobody_holds_it_any_more() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        peer.hear("CAST bob bye");
        peer.part();
    });
    run(async {
        let (client, incoming) = Client::connect(config(&server)).await.unwrap();
        client.clone().cast("bob", "bye").await.unwrap();
        drop(client);
        drop(incoming);
    });
    server.finish();
}

#[test]
fn closing_does_not_wait_for_a_connection() {
    let server = FakeNode::run(|door| {
        let peer = door.let_in(S1);
        // From here on nobody answers.
        drop(door);
        drop(peer);
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        let waiting = client.submit("bob", "hello").await.unwrap();
        client.close().await;
        assert_eq!(waiting.fate().await, Err(SendError::Closed));
        assert_eq!(incoming.next().await, None);
    });
    server.finish();
}

#[test]
fn a_request_given_up_before_it_went_out_is_not_sent() {
    let server = FakeNode::run(|door| {
        drop(door.let_in(S1));
        let mut peer = door.accept();
        peer.say("HELLO pinpost 1 pi-1");
        peer.hear("LOGIN alice");
        peer.say("OK alice 4k2jd8s2");
        let tag = peer.hear_tagged("SEND bob second");
        peer.say(&format!("{tag} OK x delivered"));
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        drop(client.submit("bob", "first").await.unwrap());
        assert_eq!(client.send("bob", "second").await, Ok(Fate::Delivered));
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_program_that_does_not_read_is_not_read_for() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("PING");
        for n in 0..2 * EVENTS_MAX {
            peer.say(&format!("MSG bob x-{n} {n}"));
        }
        peer.say(&format!("{tag} PONG"));
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        let taken = Cell::new(0);
        let ping = async {
            client.ping().await.unwrap();
            // The pong stood behind all the messages, and at most these were waiting.
            assert!(taken.get() >= EVENTS_MAX, "only {} taken", taken.get());
        };
        let take = async {
            for n in 0..2 * EVENTS_MAX {
                assert_eq!(incoming.next().await, message("bob", &format!("x-{n}"), &n.to_string()));
                taken.set(n + 1);
            }
        };
        future::zip(ping, take).await;
        client.close().await;
    });
    server.finish();
}

#[test]
fn a_program_that_waits_for_a_reply_behind_what_it_does_not_take_gets_free() {
    let server = FakeNode::run(|door| {
        let mut peer = door.let_in(S1);
        let tag = peer.hear_tagged("SEND bob hello");
        for n in 0..2 * EVENTS_MAX {
            peer.say(&format!("MSG bob x-{n} {n}"));
        }
        peer.say(&format!("{tag} OK x delivered"));
        // What it had not read may reset the connection.
        let _ = peer.reader.read_line(&mut String::new());
        let mut peer = door.let_in(S2);
        peer.say("MSG bob y-1 again");
        peer.part();
    });
    run(async {
        let (client, mut incoming) = Client::connect(config(&server)).await.unwrap();
        assert_eq!(client.send("bob", "hello").await, Err(SendError::Lost));
        // What the client had read is not lost, and comes before the news of the connection.
        for n in 0..=EVENTS_MAX {
            assert_eq!(incoming.next().await, message("bob", &format!("x-{n}"), &n.to_string()));
        }
        assert!(matches!(incoming.next().await, Some(Event::Lost { .. })));
        assert_eq!(incoming.next().await, found(S2));
        assert_eq!(incoming.next().await, message("bob", "y-1", "again"));
        client.close().await;
    });
    server.finish();
}
