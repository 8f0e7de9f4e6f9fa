//! Sockets: what is said on them goes to the node, and what the node has to say is written to them.
//!
//! One thread runs all of it. `listen.rs` accepts; `connection.rs` is the one task of a connection, `driver.rs` what
//! the tasks share. A connection at rest holds no buffer and no timer.
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
