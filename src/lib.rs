//! pinpost: a small, fast, honest message router for connected users.

pub mod client;
pub mod proto;
