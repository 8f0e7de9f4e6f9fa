//! Presence and mailboxes of a node alone: it answers its own asks.
//!
//! Nobody is elsewhere, and what waits for users who are not here is in memory: it ends with the node.

use std::time::Instant;

use crate::mailbox::Limits;
use crate::mailbox::post::Post;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::node::seam::Welcome;

/// Presence of one node.
pub struct OwnPresence {
    post: Post,
}

impl OwnPresence {
    /// Nothing is stored.
    pub fn new(limits: Limits) -> Self {
        OwnPresence { post: Post::new(limits) }
    }

    /// Does what is asked for.
    pub fn answer(&mut self, ask: Ask, now: Instant) -> Option<Answer> {
        Some(match ask {
            Ask::Locate { token, .. } => Answer::Located { token, locations: Ok(vec![]) },
            Ask::Register { token, user, .. } => {
                let has_mail = self.post.has(&user, now);
                Answer::Registered { token, welcome: Ok(Welcome { has_mail, ..Welcome::default() }) }
            }
            Ask::Unregister { token, user, session } => {
                self.post.release(&user, session);
                Answer::Unregistered { token }
            }
            Ask::Store { token, user, messages } => {
                let fates = self.post.store(&user, &messages, now);
                Answer::Stored { token, fates, locations: Ok(vec![]) }
            }
            Ask::Read { token, user, session, after } => {
                Answer::Read { token, mail: Ok(self.post.read(&user, session, after, now)) }
            }
            Ask::Take { user, up_to, also } => {
                self.post.take(&user, up_to, &also);
                return None;
            }
            Ask::Release { user, session } => {
                self.post.release(&user, session);
                return None;
            }
            Ask::Remove { .. } => return None,
        })
    }
}
