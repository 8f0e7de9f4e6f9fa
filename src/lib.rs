//! pinpost: a small, fast, honest message router for connected users.

pub mod chat;
pub mod client;
pub mod cluster;
pub mod config;
pub mod conn;
pub mod metrics;
pub mod outbox;
pub mod proto;
pub mod router;
pub mod send;
pub mod server;
pub mod session;
pub mod table;
pub mod terminal;
