//! Hostile peers: whatever one does, the others notice nothing.
//!
//! Each test lets one peer (or ten) misbehave while two bystanders talk to each
//! other, and ends with a look at what the server is left with. Crowds are in
//! `tests/crowd.rs`, random lines in `tests/garbage.rs`.

#[path = "../rig/mod.rs"]
mod rig;

mod flow;
mod frames;
mod slow;
mod tcp;
mod web;

use std::time::Duration;

/// How long anything may take that waits until a node cuts a peer off: that is 5 seconds
/// after the last thing that it read, and the kernels have much to move before.
const CUT_TIME_MAX: Duration = Duration::from_secs(20);
