//! pinpost: a small, fast, honest message router for connected users.

pub mod proto;
