//! pinpost: a small, fast, honest message router for connected users.
//!
//! Users connect to a node over TCP or WebSocket and talk in lines. A line for
//! a user goes to that user's connections and to nobody else, and its sender is
//! told what became of it. This crate is the node, the client library, and what
//! the `pinpost` command does; the command itself only reads arguments.
//!
//! This page is the tour of the code. `README.md` tells how to use it, and which
//! parts are behind cargo's features: `cluster`, `websocket`, `client`, `line-editor`.
//!
//! # A node inside a program
//!
//! ```
//! use pinpost::client::{Client, ClientConfig, Event, Fate};
//! use pinpost::config::Config;
//! use pinpost::server::Server;
//! use smol::stream::StreamExt;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind(&Config::ephemeral())?;
//! let address = server.tcp_addrs()[0].to_string();
//! let handle = server.handle();
//! let node = std::thread::spawn(|| smol::block_on(server.run()));
//!
//! smol::block_on(async {
//!     let (alice, _) = Client::connect(ClientConfig::new(&address, "alice")).await?;
//!     let (bob, mut bob_hears) = Client::connect(ClientConfig::new(&address, "bob")).await?;
//!     assert_eq!(alice.send("bob", "hello").await?, Fate::Delivered);
//!     let Some(Event::Message { from, text, .. }) = bob_hears.next().await else { panic!("no message") };
//!     assert_eq!((from.as_str(), text.as_str()), ("alice", "hello"));
//!     alice.close().await;
//!     bob.close().await;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//!
//! handle.drain();
//! node.join().expect("the node does not panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! # The layers
//!
//! Imports point down only. `tests/layers.rs` holds the table and fails on an
//! import that points up or sideways.
//!
//! ```text
//! main.rs            arguments and exit codes
//! server             listen, run, drain
//! conn               one task a connection: TCP, WebSocket, HTTP
//! router             the routing decision, the in-flight table, receipts
//! table | cluster    who is here | who is elsewhere
//! chat  | send       what two of the commands do; they know client and proto only
//! mailbox            what waits for users who are not here: memory, Redis
//! session  outbox  config  metrics  client  terminal  timer
//! readiness  recent  which sockets are ready: the node's own epoll | a map that knows what it found last
//! proto              lines, names, requests, replies, envelopes: pure
//! ```
//!
//! # The modules, in reading order
//!
//! 1. [`proto`]: bytes to lines, lines to values and back, without sockets, clocks or locks.
//! 2. [`session`]: a state machine that decides what a request may do: a request in, an action out.
//! 3. [`outbox`]: the bounded bytes that wait for one connection, and the replies it is owed, in order.
//! 4. [`table`]: which users have sessions on this node.
//! 5. [`mailbox`]: messages for users without a session, in memory or in Redis.
//! 6. [`cluster`]: the one seam to other nodes: those of one process, joined by a [`Mesh`](cluster::Mesh),
//!    or those that share Redis and RabbitMQ.
//! 7. [`router`]: decides where a message goes, and keeps it in flight until its fate is known.
//! 8. [`conn`]: one connection, one task: reads, carries out lines, and ends in order.
//! 9. [`server`]: opens the listeners, runs all tasks of a node, and drains it.
//! 10. [`config`]: the settings, in one table that flags, file, environment and help follow from.
//! 11. [`metrics`]: counters of what happened and gauges of what is held.
//! 12. [`client`]: a user's connection for programs, kept up by a task of its own.
//! 13. [`send`], [`chat`] and [`terminal`]: what the commands for people do.
//! 14. [`readiness`]: tells when sockets are ready, without a question for each event; Linux only. [`timer`]
//!     tells on the same way that a time has come.
//!
//! # The way of one message
//!
//! alice types `SEND bob hello`; both are on this node, on one connection each.
//!
//! 1. alice's socket is readable: the node's [`Readiness`](readiness::Readiness) says so, and the
//!    [`Roll`](conn::Roll) wakes her task. The executor polls her [`Connection`](conn::Connection), a
//!    hand-written future. `Connection::advance` comes to `Connection::open`, which reads into a buffer
//!    of the thread, and to `Connection::feed`, where a [`LineDecoder`](proto::LineDecoder) finds the
//!    line. (`conn.rs`, `proto/line.rs`)
//! 2. `Talk::hear` gets the line. [`TaggedRequest::parse`](proto::TaggedRequest::parse) makes a request
//!    of it, and [`Session::take`](session::Session::take) makes `Action::Send` of the request: alice
//!    has logged in, so she may. (`conn/talk.rs`, `session.rs`)
//! 3. [`Router::send`](router::Router::send) looks bob up in the [`Table`](table::Table). If bob's outbox
//!    is full, the answer is [`Taken::Wait`](router::Taken): alice is not read until there is room. Else
//!    [`Cluster::locate`](cluster::Cluster::locate) is asked where else bob is; a node alone answers
//!    "nowhere" at once. (`router.rs`)
//! 4. `Router::send_here` gives the message its id and reserves the place of the reply with
//!    [`Outbox::expect`](outbox::Outbox::expect), so that later replies wait behind it. The message
//!    becomes a question in the in-flight table, and the question has a [`Ticket`](outbox::Ticket).
//!    (`router/in_flight.rs`)
//! 5. [`Outbox::push_message`](outbox::Outbox::push_message) appends `MSG alice <id> hello` to bob's
//!    outbox, with the ticket as a mark behind its last byte. [`Turn::dirty`](router::Turn::dirty) notes
//!    that this outbox has something to write. Nothing was written yet. (`outbox.rs`)
//! 6. All lines of this read are carried out so. Then alice's turn ends: [`Router::end`](router::Router::end)
//!    hands the noted outboxes to the flusher, a task of its own, and wakes it. (`router/flush.rs`)
//! 7. Every connection that was ready has had its turn when the flusher runs
//!    [`Router::poll_flush`](router::Router::poll_flush).
//!    [`Outbox::flush_unless_blocked`](outbox::Outbox::flush_unless_blocked) writes all that bob's outbox
//!    holds with one system call, if the socket takes it, and returns the tickets whose last byte the
//!    kernel took.
//! 8. `Router::written` removes the question of that ticket: the fate is known.
//!    [`Outbox::answer`](outbox::Outbox::answer) puts `OK <id> delivered` into the reserved place of
//!    alice's outbox, and the same round of the flusher writes it to alice.
//!
//! Where that way forks:
//!
//! - bob's socket takes no more: what is left stays in his outbox, and his own connection writes it when
//!   the socket has room (`Connection::write`). Without progress for too long he is a slow consumer.
//! - bob's connection ends first: the messages that were not written whole come back through
//!   [`Router::unwritten`](router::Router::unwritten) and are routed again, or alice gets `ERR offline`.
//!   (`router/again.rs`)
//! - bob logged in with `ack`: being written is not enough. The message is in the ledger of his outbox
//!   until [`Outbox::acknowledge`](outbox::Outbox::acknowledge), and is given back if that takes too long.
//!   (`outbox/ledger.rs`, `router/acks.rs`)
//! - bob is nowhere: with mailboxes the message is stored (`router/store.rs`), and bob's next login
//!   drains the mailbox before anything live (`router/drain.rs`).
//! - bob is on another node: the message waits in flight with its envelope, and
//!   [`Router::on_said`](router::Router::on_said) takes the receipt that settles it. The node that
//!   receives an envelope delivers it or answers; it never forwards it. `README.md` follows such a
//!   message from node to node, file by file.
//! - nothing is heard for [`RECEIPT_MS_MAX`](router::RECEIPT_MS_MAX): alice gets `ERR timeout`.
//!
//! # What is deliberately absent
//!
//! In the design:
//!
//! - No broadcast between nodes, and no forwarding by the node that receives: no loops.
//! - No trait for the cluster: [`Cluster`](cluster::Cluster) is an enum, and callers see every case.
//! - No waiting in a push to an outbox, and no lock held across an `.await`.
//! - No buffer and no timer in an idle connection that has logged in.
//! - No retry without an end in [`client`]: what is not known after 60 seconds is told as `Lost`, and a
//!   `CAST` is never repeated.
//! - No `unsafe` code.
//!
//! In this version, though the protocol has words for it:
//!
//! - Rooms and watches: `JOIN`, `LEAVE`, `WATCH`, `UNWATCH` and `SEND #room` get `ERR unknown-verb`.
//! - Tokens, TLS and rate limits: anybody who can connect can be any user.

#[cfg(feature = "client")]
pub mod chat;
#[cfg(feature = "client")]
pub mod client;
pub mod cluster;
pub mod config;
pub mod conn;
pub mod mailbox;
pub mod metrics;
pub mod outbox;
#[cfg_attr(
    not(any(feature = "client", feature = "cluster")),
    allow(dead_code, reason = "nobody has to wait")
)]
mod pause;
pub mod proto;
mod random;
pub mod readiness;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a node alone needs a part of it"))]
mod recent;
pub mod router;
#[cfg(feature = "client")]
pub mod send;
pub mod server;
pub mod session;
pub mod table;
pub mod terminal;
pub mod timer;

/// The README's Rust code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
