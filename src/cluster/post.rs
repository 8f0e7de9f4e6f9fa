//! What nodes of one process keep for users who are not here: their mailboxes,
//! who drains one, and what those who have left were shown.
//!
//! A node alone has one of these; the nodes of a mesh share one, as the nodes of
//! a cluster share Redis.

use std::collections::HashMap;
use std::time::Instant;

use crate::cluster::left::Left;
use crate::cluster::{Mail, Stored, Welcome};
use crate::mailbox::Limits;
use crate::mailbox::memory::Mailboxes;
use crate::outbox::{SeenKey, Shown};
use crate::proto::{Envelope, NodeId, SessionId, UserName};

/// Kept in memory: forgotten with the process.
pub struct Post {
    mailboxes: Mailboxes,
    /// Which session drains the mailbox of a user.
    draining: HashMap<UserName, (NodeId, SessionId)>,
    left: Left,
    /// What messages are remembered by.
    pub seen_key: SeenKey,
}

impl Post {
    /// Empty.
    pub fn new(limits: Limits) -> Self {
        let seen_key = SeenKey(crate::pause::random());
        let (draining, left) = (HashMap::new(), Left::default());
        Post { mailboxes: Mailboxes::new(limits), draining, left, seen_key }
    }

    /// What a login of this user is told; where else the user is, the caller knows.
    pub fn welcome(&mut self, user: &UserName) -> Welcome {
        let has_mail = self.mailboxes.has(user.as_str(), Instant::now());
        Welcome { others: vec![], has_mail, seen: vec![] }
    }

    /// What a user was shown by sessions that have ended.
    pub fn left(&self, user: &UserName) -> Vec<u64> {
        self.left.find(user.as_str(), Instant::now())
    }

    /// A session has ended, which was shown these.
    pub fn leave(&mut self, user: &UserName, node: &NodeId, session: SessionId, shown: &Shown) {
        self.release(user, node, session);
        self.left.insert(user, shown, Instant::now());
    }

    /// A node is gone: it drains nothing any more.
    pub fn bury(&mut self, node: &NodeId) {
        self.draining.retain(|_, (other, _)| other != node);
    }

    /// Puts a message into its recipient's mailbox.
    pub fn store(&mut self, envelope: &Envelope) -> Stored {
        match self.mailboxes.store(envelope, Instant::now()) {
            Ok(()) => Stored::Yes,
            Err(_) => Stored::Full,
        }
    }

    /// Reads what waits for a user behind `after`, for the one session that drains it.
    pub fn read(&mut self, user: &UserName, node: &NodeId, session: SessionId, after: u64) -> Mail {
        let drainer = self.draining.entry(user.clone()).or_insert_with(|| (node.clone(), session));
        if (&drainer.0, drainer.1) != (node, session) {
            return Mail::Busy;
        }
        Mail::Messages(self.mailboxes.read(user.as_str(), after, Instant::now()))
    }

    /// Removes what was taken.
    pub fn take(&mut self, user: &UserName, up_to: u64, also: &[u64]) {
        self.mailboxes.take(user.as_str(), up_to, also);
    }

    /// The session drains no more.
    pub fn release(&mut self, user: &UserName, node: &NodeId, session: SessionId) {
        if self.draining.get(user).is_some_and(|drainer| (&drainer.0, drainer.1) == (node, session)) {
            self.draining.remove(user);
        }
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        self.mailboxes.expire(now);
        self.left.expire(now);
    }
}
