//! Mailboxes in memory, and who drains each: one session at a time.
//!
//! A node alone has one of these; the nodes of a mesh share one, as the nodes of a
//! cluster share Redis.

use std::collections::HashMap;
use std::time::Instant;

use crate::mailbox::Limits;
use crate::mailbox::memory::Mailboxes;
use crate::node::seam::{Answer, Ask, Location, Mail, Stored, Welcome, What};
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

    /// Answers what is asked of presence, if an answer follows, given where else the user is: that is kept elsewhere.
    pub fn answer(&mut self, ask: Ask, elsewhere: Vec<Location>, now: Instant) -> Option<Answer> {
        let user = ask.user;
        Some(match ask.what {
            What::Locate(_) => Answer::Located(Ok(elsewhere)),
            What::Register(_) => {
                let has_mail = self.mailboxes.has(user.as_str(), now);
                Answer::Registered(Ok(Welcome { before: elsewhere, has_mail, ..Welcome::default() }))
            }
            What::Unregister(session) => {
                self.release(&user, session);
                Answer::Unregistered
            }
            What::Store(messages) => {
                let mut store = |message: &Vec<u8>| match self.mailboxes.store(user.as_str(), message, now) {
                    Ok(()) => Stored::Yes,
                    Err(_) => Stored::Full,
                };
                Answer::Stored(messages.iter().map(&mut store).collect(), Ok(elsewhere))
            }
            What::Read(session, after) => {
                let is_its = *self.draining.entry(user.clone()).or_insert(session) == session;
                let mut letters = || Mail::Letters(self.mailboxes.read(user.as_str(), after, now));
                Answer::Read(Ok(if is_its { letters() } else { Mail::Busy(None) }))
            }
            What::Take(up_to, also) => {
                self.mailboxes.take(user.as_str(), up_to, &also);
                return None;
            }
            What::Remove(_, session) | What::Release(session) => {
                self.release(&user, session);
                return None;
            }
        })
    }

    /// The session drains no more, or has ended.
    pub fn release(&mut self, user: &UserName, session: SessionId) {
        if self.draining.get(user) == Some(&session) {
            self.draining.remove(user);
        }
    }
}
