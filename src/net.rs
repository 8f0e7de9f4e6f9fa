//! Sockets: what is said on them goes to the node, and what the node has to say is written to them.
//!
//! One thread runs all of it. `listen.rs` accepts; `connection.rs` is the one task of a connection: it waits until
//! there is something to read, reads into a buffer of the thread, and hands the lines to the node. `driver.rs` is
//! what the tasks share: the node, which they borrow once a step, and the sockets; it writes what the steps have left.
//! A connection at rest holds no buffer and no timer.
//!
//! `http.rs`, `messages.rs` and `websocket.rs` are for those who come over HTTP.

pub mod connection;
pub mod driver;
#[cfg(feature = "websocket")]
mod http;
pub mod listen;
#[cfg(feature = "websocket")]
mod messages;
#[cfg(feature = "websocket")]
mod websocket;
