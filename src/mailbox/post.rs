//! Mailboxes in memory, and who drains each: one session at a time.
//!
//! A node alone has one of these; the nodes of a mesh share one, as the nodes of a
//! cluster share Redis.

use std::collections::HashMap;
use std::time::Instant;

use crate::mailbox::Limits;
use crate::mailbox::memory::Mailboxes;
use crate::node::seam::{Mail, Stored};
use crate::proto::name::{SessionId, UserName};

/// The mailboxes of all users; they end with the process.
#[derive(Debug)]
pub struct Post {
    mailboxes: Mailboxes,
    /// Which session drains the mailbox of a user.
    draining: HashMap<UserName, SessionId>,
}

impl Post {
    /// Empty.
    pub fn new(limits: Limits) -> Self {
        Post { mailboxes: Mailboxes::new(limits), draining: HashMap::new() }
    }

    /// Tells whether a message waits for the user.
    pub fn has(&mut self, user: &UserName, now: Instant) -> bool {
        self.mailboxes.has(user.as_str(), now)
    }

    /// Puts messages into the mailbox of a user, in order.
    pub fn store(&mut self, user: &UserName, messages: &[Vec<u8>], now: Instant) -> Vec<Stored> {
        let mut store = |message: &Vec<u8>| match self.mailboxes.store(user.as_str(), message, now) {
            Ok(()) => Stored::Yes,
            Err(_) => Stored::Full,
        };
        messages.iter().map(&mut store).collect()
    }

    /// Reads what waits for a user behind `after`, for the one session that drains it.
    pub fn read(&mut self, user: &UserName, session: SessionId, after: u64, now: Instant) -> Mail {
        if *self.draining.entry(user.clone()).or_insert(session) != session {
            return Mail::Busy;
        }
        Mail::Letters(self.mailboxes.read(user.as_str(), after, now))
    }

    /// Removes what was taken: all up to the place `up_to`, and those at the places `also`.
    pub fn take(&mut self, user: &UserName, up_to: u64, also: &[u64]) {
        self.mailboxes.take(user.as_str(), up_to, also);
    }

    /// The session drains no more, or has ended.
    pub fn release(&mut self, user: &UserName, session: SessionId) {
        if self.draining.get(user) == Some(&session) {
            self.draining.remove(user);
        }
    }
}
