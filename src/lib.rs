//! pinpost: a small, fast, honest message router for connected users.

pub mod chat;
pub mod client;
pub mod proto;
pub mod send;
pub mod terminal;
