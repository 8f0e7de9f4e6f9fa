//! Hostile peers: whatever one does, the others notice nothing.
//!
//! Each test lets one peer (or ten) misbehave while two bystanders talk to each
//! other, and ends with a look at what the server is left with. Crowds are in
//! `tests/crowd.rs`, random lines in `tests/garbage.rs`.

#[path = "../support/mod.rs"]
mod support;

mod flow;
mod slow;
mod tcp;
mod web;
