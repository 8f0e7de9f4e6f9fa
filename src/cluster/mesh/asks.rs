//! What presence is to the nodes of a mesh: who is where, their mailboxes, and what nodes ask.

use std::collections::HashMap;
use std::time::Instant;

use crate::cluster::event::locations;
use crate::cluster::event::unavailable;
use crate::mailbox::Limits;
use crate::mailbox::post::Post;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::node::seam::Location;
use crate::node::seam::Welcome;
use crate::proto::name::NodeId;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

/// Who is where, and what waits for users.
#[derive(Default)]
pub struct Roster {
    /// In the order of the logins.
    sessions: HashMap<UserName, Vec<(NodeId, SessionId)>>,
    post: Option<Post>,
}

impl Roster {
    /// Bounds the mailboxes: as the first says who calls this.
    pub fn bound(&mut self, limits: Limits) {
        self.post.get_or_insert_with(|| Post::new(limits));
    }

    /// How many users are online.
    pub fn users(&self) -> usize {
        self.sessions.len()
    }

    /// Forgets a node's sessions.
    pub fn bury(&mut self, node: &NodeId) {
        let post = self.post.as_mut().expect("a node has joined");
        self.sessions.retain(|user, sessions| {
            let gone = sessions.extract_if(.., |(other, _)| other == node);
            gone.for_each(|(_, session)| post.release(user, session));
            !sessions.is_empty()
        });
    }

    /// On which nodes a user is, beside one.
    fn locations(&self, user: &UserName, except: &NodeId) -> Vec<Location> {
        let sessions = self.sessions.get(user).into_iter().flatten().filter(|(node, _)| node != except);
        locations(sessions.map(|(node, session)| (node, *session)))
    }

    fn remove(&mut self, user: &UserName, node: &NodeId, session: SessionId) {
        if let Some(post) = &mut self.post {
            post.release(user, session);
        }
        if let Some(sessions) = self.sessions.get_mut(user) {
            sessions.retain(|(other, known)| (other, *known) != (node, session));
            if sessions.is_empty() {
                self.sessions.remove(user);
            }
        }
    }

    /// Answers what a node asks, if an answer follows; `reaches` when it reaches others.
    pub fn answer(&mut self, me: &NodeId, reaches: bool, ask: Ask, now: Instant) -> Option<Answer> {
        let refusal = unavailable(&ask).filter(|_| !reaches);
        if refusal.is_some() {
            return refusal;
        }
        let post = self.post.as_mut().expect("a node has joined");
        let answer = match ask {
            Ask::Locate { token, user, .. } => {
                Answer::Located { token, locations: Ok(self.locations(&user, me)) }
            }
            Ask::Register { token, user, session } => {
                let has_mail = post.has(&user, now);
                let before = self.locations(&user, me);
                // What is stored from now on is stored by somebody who finds the session.
                self.sessions.entry(user).or_default().push((me.clone(), session));
                Answer::Registered { token, welcome: Ok(Welcome { before, after: vec![], has_mail }) }
            }
            Ask::Unregister { token, user, session } => {
                // Also while cut off: a real node repeats this until it has worked.
                self.remove(&user, me, session);
                Answer::Unregistered { token }
            }
            Ask::Remove { user, node, session } => {
                self.remove(&user, &node, session);
                return None;
            }
            Ask::Store { token, user, messages } => {
                let fates = post.store(&user, &messages, now);
                Answer::Stored { token, fates, locations: Ok(self.locations(&user, me)) }
            }
            Ask::Read { token, user, session, after } => {
                Answer::Read { token, mail: Ok(post.read(&user, session, after, now)) }
            }
            Ask::Take { user, up_to, also } => {
                post.take(&user, up_to, &also);
                return None;
            }
            Ask::Release { user, session } => {
                post.release(&user, session);
                return None;
            }
        };
        Some(answer)
    }
}
