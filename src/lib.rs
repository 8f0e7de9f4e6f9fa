//! pinpost: a small, fast, honest message router for connected users.
//!
//! Users connect to a node over TCP or WebSocket and talk in lines. A line for
//! a user goes to that user's connections and to nobody else, and its sender is
//! told what became of it. This crate is the node ([`Server`]) and the client library ([`Client`]); the
//! `pinpost` command uses both.
//!
//! This page is the tour of the code. `README.md` tells how to use it, and which
//! parts are behind cargo's features: `cluster`, `websocket`, `client`, `line-editor`.
//!
//! # A node inside a program
//!
//! ```
//! use pinpost::{Client, ClientConfig, Config, Event, Fate, Server};
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
//! # The floors
//!
//! Files are on floors, and a file imports from its own floor or a lower one only, never in a circle;
//! `tests/layers.rs` holds that.
//!
//! ```text
//! main.rs, cli/        what the commands do; they use the root of the library alone
//! server.rs            composes one node out of the parts below, runs it, drains it
//! net/                 sockets: accept, one task a connection, WebSocket, HTTP
//! cluster/             other nodes: a mesh in memory, or the threads for Redis and RabbitMQ
//! node/, mailbox/      one node's mind: pure, with one owner; mailboxes in memory
//! client/              the client library; of the node it knows nothing
//! config/ and others   settings, counters, pauses, random ids, a map
//! proto/               lines, names, requests, replies, what nodes say to each other: pure
//! ```
//!
//! A node runs on one thread, that of whoever polls [`Server::run`]. All of its tasks are on one executor there,
//! and borrow the `Node` for one step at a time: time, lines, and what others say go in; bytes in outboxes, and
//! lists of what to do next come out. Only libraries that block have threads of their own: `bus` with its watchdog
//! for RabbitMQ, `presence` for Redis.
//!
//! # Reading order
//!
//! Every file begins with what it is for and what it leaves out. `README.md` lists all of them.
//!
//! 1. `proto.rs`: the protocol as values: `name`, `line`, `request`, `reply`, and `wire`, which is between nodes.
//! 2. `node.rs` is the door of the node; almost every step is a method there. `node/state.rs` has its fields,
//!    `node/requests.rs` what a line may do and does, `node/route.rs` where a message goes, `node/deliver.rs` what
//!    becomes of it in sessions of this node.
//! 3. `node/lane.rs`: a message to a user on other nodes, as a state machine by itself; `node/carry_out.rs` does
//!    what it wants done. `node/seam.rs` is all that a node asks and hears.
//! 4. `node/sessions.rs`, `node/mail.rs`: sessions come, get their mail, and end.
//! 5. `net.rs`: `net/connection.rs` is the one task of a connection, `net/driver.rs` what the tasks share,
//!    `net/driver.rs` writes.
//! 6. `cluster.rs`: the seam to other nodes. `cluster/links.rs` is how batches get there, `cluster/mesh.rs` carries
//!    them in memory, `cluster/remote.rs` on several machines; `cluster/presence.rs` decides what Redis is asked.
//! 7. `server.rs` puts all of it together. `client.rs` and `cli.rs` are the other end of the line.
//!
//! # The way of a `SEND` to a user of the same node
//!
//! alice and bob are on one node that is alone, over TCP. alice says `SEND bob hello`. From her readable socket to
//! her `OK`, function by function:
//!
//! 1. `ConnectionTask::talk` (`net/connection.rs`) is alice's task. It waits until her socket is readable.
//! 2. `ConnectionTask::read` reads what there is, without waiting, into the buffer of the thread.
//! 3. `ConnectionTask::hear` borrows the node for one step, in which it gives it all lines of the read.
//! 4. `LineDecoder::next` (`proto/line.rs`) cuts a line out of the buffer, where it stays.
//! 5. `Node::line` (`node/requests.rs`) takes it. Behind it, it is parsed, if nothing holds it up, and then carried
//!    out.
//! 6. `decide` stands between the two: may a session in this state do that?
//! 7. `Node::send` (`node/route.rs`) finds bob's sessions. They have room, and nothing waits in a lane for him.
//!    The message gets an id, and its reply a place in the row of alice's replies.
//! 8. `Node::send_here` prints `MSG alice <id> hello`, and notes the message in flight (`node/deadlines.rs`).
//! 9. `Node::hand` (`node/deliver.rs`) sees that it is no duplicate, and makes one delivery of it for all sessions.
//! 10. `Node::push` appends the line to bob's outbox, with a mark where it ends (`node/outbox.rs`), and puts the
//!     outbox on the list of those to write. That was the step: the driver takes the list.
//! 11. `Driver::flush_some` (`net/driver.rs`) has its turn after all tasks that were ready, and writes each of these
//!     outboxes once, straight to the socket: one system call for all that gathered.
//! 12. `Node::written` (`node/deliver.rs`) hears how many bytes the kernel took, and passes the marks before that.
//! 13. `Node::take_delivery` ends the delivery, remembers it if a duplicate may come, and tells
//!     whoever waits for it: the message is in flight no more.
//! 14. `Node::answer` (`node/state.rs`) prints `OK <id> delivered` into alice's outbox, behind her replies that are
//!     due. The flusher writes it in the same round.
//!
//! # The way of a `SEND` to a user of another node
//!
//! bob is on node B, alice on A, the *origin*, which answers for the message until it has a fate. Steps 1 to 6 are
//! the same.
//!
//! 1. `Node::send` (`node/route.rs`) lets the message into bob's lane. Where there are other nodes everything does
//!    that, also what is for sessions here: nothing passes a lane by.
//! 2. `Lane::send` (`node/lane.rs`) gives it to the lane's nodes. A new lane takes them from the remembered
//!    locations, or asks presence first (`What::Locate`), and messages gather until `Lane::located` has the answer.
//! 3. `Node::carry_out` (`node/carry_out.rs`) does what the lane wants: `Act::Give` becomes an entry of `Says`
//!    (`node/out.rs`), the list of what the node says to others.
//! 4. `Driver::end_round` (`net/driver.rs`), when all outboxes are written, hands that list to `Cluster::say`
//!    (`cluster.rs`), and rings the bus.
//! 5. `Links::say` (`cluster/links.rs`) appends the message to what waits for B (`cluster/link.rs`).
//! 6. `Bus::publish` (`cluster/bus.rs`), on its thread, takes what waits as one batch with a number
//!    (`Links::next`), and publishes it under B's id. RabbitMQ puts it into B's queue.
//! 7. `Bus::take`, on B, hands the bytes up as an event, and `hear_others` (`server.rs`) on B's own thread has them
//!    unpacked (`Links::hear`): the link counts the batch, and only one that is the next counts.
//! 8. `Node::said` (`node.rs`) takes each item; a message goes to `Node::receive` (`node/deliver.rs`), which finds
//!    bob's sessions. `hand`, `push`, `flush_some`, `written` and `take_delivery` follow as above.
//! 9. `Node::resolve` finds that an origin waits: a receipt for it goes into B's `Says`, and
//!    rides as part of a range in the next batch to A.
//! 10. `Node::receive_receipts` (`node/carry_out.rs`), on A, tells the lane: `Lane::answered` ends the message, and
//!     `Node::leave_lane` takes it out of flight. `Node::answer` as above.
//!
//! # Where the ways fork
//!
//! - **The line has to wait** (`Flow::Wait`): the recipient has no room, or too much is owed to the sender. The
//!   task keeps it, and reads nothing until it is woken. A session that acknowledges is read on, and gets
//!   `ERR limited`.
//! - **A session acknowledges, or is just logging in or getting its mail:** `push` puts the line into
//!   `node/unacknowledged.rs`, and the `ACK` is what takes the delivery.
//! - **It is a duplicate:** `hand` answers `delivered`, or lets it share the fate of the one that is still pending.
//! - **The socket takes no more:** `Node::blocks`; now the connection's own task writes. Without progress it is a
//!   slow consumer (`Node::time_out`), and what it has not taken comes back (`node/sessions.rs`) and is routed again.
//! - **A WebSocket** reads the same way (`net/websocket.rs`), and writes from its own task, which its outbox wakes.
//! - **B does not have bob, or has died, or a batch came back:** `Lane::answered`, `gone`, `returned`. When no node
//!   is left, and all have answered, the lane asks presence again; after three rounds comes the mailbox, or the
//!   fate that is true.
//! - **bob is nowhere:** `What::Store`, or `ERR offline`.
//! - **Nothing is heard for 10 seconds:** `Node::expire` (`node.rs`), and `ERR timeout` if anybody may have
//!   been shown it.
//! - **`CAST`** goes the same ways, and nobody waits for it.
//!
//! # What is not here on purpose
//!
//! - In `node/` and `proto/`: sockets, threads, locks, clocks, `async`, logs, randomness. So the simulator
//!   (`tests/sim`) runs whole clusters in virtual time, and one seed is one run.
//! - A node that forwards what it received. It delivers or answers, so there are no loops.
//! - Durable queues and publisher confirms. The origin keeps each message, and both ends of a link count.
//! - Exactly once. A node remembers what it has shown; after a hop a duplicate may be shown once more, and
//!   [`Client`] drops it by sender and id.
//! - A timer, a buffer or a task more for each connection at rest.
//! - Rooms, watches, tokens, TLS, and limits on how fast a client may send: not served yet.

#[cfg(feature = "client")]
mod client;
mod cluster;
mod config;
mod mailbox;
mod metrics;
mod net;
mod node;
#[cfg_attr(
    not(any(feature = "client", feature = "cluster")),
    allow(dead_code, reason = "nobody has to wait")
)]
mod pause;
#[cfg_attr(not(feature = "client"), allow(dead_code, unused_imports, reason = "a client needs the rest"))]
mod proto;
mod random;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a mesh needs a part of it"))]
mod recent;
mod server;

#[cfg(feature = "client")]
pub use client::{
    BadInput, Client, ClientConfig, ClientError, Event, Fate, Incoming, Place, Refusal, SendError, Sending,
    UserPresence,
};
pub use cluster::Mesh;
pub use config::{Amqp, Config, ConfigError, Feature, Layers, Redis, SETTINGS, Setting, version};
pub use metrics::Counters;
pub use node::Holdings;
pub use proto::{CloseReason, ErrorCode, MessageId, NameError, NodeId, SessionId, UserName};
pub use server::{Handle, Server, check_services, files_max};

/// What tests, the simulator and fuzzers look at beside the surface: it may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    #![allow(missing_docs)]

    pub mod cluster {
        pub use crate::cluster::*;
    }
    pub mod mailbox {
        pub use crate::mailbox::*;
    }
    pub mod node {
        pub use crate::node::*;
    }
    pub mod proto {
        pub use crate::proto::*;
    }
}

/// The README's Rust code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
