//! pinpost: a small, fast, honest message router for connected users.

pub mod cluster;
pub mod config;
pub mod conn;
pub mod metrics;
pub mod outbox;
pub mod proto;
pub mod router;
pub mod server;
pub mod session;
pub mod table;
