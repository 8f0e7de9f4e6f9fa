//! What the replies of a round mean: where users are, who came first, who has to be told.
//!
//! Sessions of dead nodes, and those of this node that it does not know, are put on the list
//! of what to remove; the rest is the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::cluster::command::Entry;
use crate::cluster::command::Reply;
use crate::cluster::command::tag;
use crate::cluster::presence::job::Job;
use crate::cluster::presence::job::Replies;
use crate::cluster::presence::state::Presence;
use crate::cluster::told::Told;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::node::seam::Location;
use crate::node::seam::Mail;
use crate::node::seam::News;
use crate::node::seam::Stored;
use crate::node::seam::Token;
use crate::node::seam::Unavailable;
use crate::node::seam::Welcome;
use crate::proto::name::NodeId;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

impl Presence {
    /// Nodes that replies name and that are neither living nor dead, as far as this node knows.
    pub(super) fn unknown(&self, replies: &Replies) -> BTreeSet<NodeId> {
        let is_unknown =
            |node: &NodeId| *node != self.me && !self.nodes.is_living(node) && !self.nodes.is_dead(node);
        let entries = replies.sessions.values().flatten();
        let unknown = entries.map(|entry| &entry.node).filter(|node| is_unknown(node)).cloned();
        let claims = replies.jobs.iter().flat_map(|(_, replies)| replies).filter_map(|reply| match reply {
            Reply::Claimed(Some(tag)) => Some(Entry::parse(tag, "0")?.node),
            _ => None,
        });
        unknown.chain(claims.filter(is_unknown)).collect()
    }

    /// Tells everybody what came of it. The table is as new as it has to be: a node that is not in it is
    /// dead.
    pub(super) fn finish(&mut self, replies: Replies, now: Instant) {
        let unknown = self.unknown(&replies);
        self.bury(unknown);
        let mut living = BTreeMap::new();
        for (user, entries) in replies.sessions {
            let entries = self.living(&user, entries);
            living.insert(user, entries);
        }
        for (job, replies) in replies.jobs {
            self.finish_job(job, replies, &living, now);
        }
    }

    fn finish_job(
        &mut self,
        job: Job,
        replies: Vec<Reply>,
        living: &BTreeMap<UserName, Vec<Entry>>,
        now: Instant,
    ) {
        let mut replies = replies.into_iter();
        let mut next = || replies.next();
        match job {
            Job::Locate { token, user, is_here } => {
                self.tell_located(token, &user, is_here, living.get(&user), now);
            }
            Job::Register { token, user, session } => {
                let welcome = match (next(), next(), living.get(&user)) {
                    (Some(Reply::Done), Some(Reply::Flag(has_mail)), Some(entries)) => {
                        let (before, after) = self.settle(&user, session, entries);
                        Ok(Welcome { before, after, has_mail })
                    }
                    _ => Err(Unavailable),
                };
                self.answer(Answer::Registered { token, welcome });
            }
            Job::Store { token, user, count } => {
                let locations = living.get(&user).map(|entries| self.elsewhere(entries));
                self.tell_stored(token, count, next(), locations);
            }
            Job::Read { token, user, session, after } => {
                let (claim, letters) = (next(), next());
                self.tell_read(Ask::Read { token, user, session, after }, claim, letters);
            }
            Job::Assert { user, session, is_urgent } => {
                let (wrote, mail) = (next(), next());
                if mail == Some(Reply::Flag(true)) && self.config.has_mailboxes {
                    // Somebody stored it who did not see the session, and could not tell.
                    self.told.push(Told::News(News::Mail(user.clone())));
                }
                if let Some(entries) = living.get(&user).filter(|_| wrote == Some(Reply::Done)) {
                    self.tell_asserted(user, session, entries, is_urgent);
                }
            }
            Job::Write(_) => unreachable!("nobody waits for it"),
        }
    }

    /// Redis did not answer: nothing is known, and what was to be stored may be.
    pub(super) fn refuse_job(&mut self, job: Job) {
        match job {
            Job::Locate { token: Some(token), .. } => {
                self.answer(Answer::Located { token, locations: Err(Unavailable) });
            }
            Job::Register { token, .. } => {
                self.answer(Answer::Registered { token, welcome: Err(Unavailable) });
            }
            Job::Store { token, count, .. } => self.tell_stored(token, count, None, None),
            Job::Read { token, .. } => self.answer(Answer::Read { token, mail: Err(Unavailable) }),
            Job::Locate { token: None, .. } | Job::Assert { .. } | Job::Write(_) => {}
        }
    }

    /// Tells where a user is, also those who wait for that since there was doubt.
    fn tell_located(
        &mut self,
        token: Option<Token>,
        user: &UserName,
        is_here: bool,
        entries: Option<&Vec<Entry>>,
        now: Instant,
    ) {
        let is_here = is_here || entries.into_iter().flatten().any(|entry| entry.node == self.me);
        let locations = entries.map(|entries| self.elsewhere(entries)).ok_or(Unavailable);
        let in_doubt = self.nodes.in_doubt && !is_here && locations.as_ref().is_ok_and(Vec::is_empty);
        let (tokens, locations) = if in_doubt {
            (self.doubts.wait(user, token, now), Err(Unavailable))
        } else {
            (self.doubts.end(user).into_iter().chain(token).collect(), locations)
        };
        for token in tokens {
            self.answer(Answer::Located { token, locations: locations.clone() });
        }
    }

    /// Tells what became of messages. Without knowing where their recipient is now, nobody knows
    /// whether they will be seen.
    fn tell_stored(
        &mut self,
        token: Token,
        count: usize,
        reply: Option<Reply>,
        locations: Option<Vec<Location>>,
    ) {
        let fate = |at: usize| match (&reply, &locations) {
            (Some(Reply::Stored(stored)), Some(_)) if at < *stored => Stored::Yes,
            (Some(Reply::Stored(stored)), _) if at >= *stored => Stored::Full,
            (Some(Reply::Refused { .. }), _) => Stored::No,
            _ => Stored::Unknown,
        };
        let fates = (0..count).map(fate).collect();
        self.answer(Answer::Stored { token, fates, locations: locations.ok_or(Unavailable) });
    }

    /// Tells what a session has read.
    fn tell_read(&mut self, ask: Ask, claim: Option<Reply>, letters: Option<Reply>) {
        let Ask::Read { token, user, session, .. } = &ask else { unreachable!("it reads") };
        let (token, session) = (*token, *session);
        let mail = match claim {
            Some(Reply::Claimed(None)) => {
                self.sessions.set_drains(session, true);
                match letters {
                    Some(Reply::Letters(letters)) => Ok(Mail::Letters(letters)),
                    _ => Err(Unavailable),
                }
            }
            Some(Reply::Claimed(Some(other))) if self.is_void(&other) => {
                self.remove(user.clone(), other, None);
                // Behind the removal.
                return self.asks.push_front(ask);
            }
            Some(Reply::Claimed(Some(_))) => Ok(Mail::Busy),
            _ => Err(Unavailable),
        };
        self.answer(Answer::Read { token, mail });
    }

    /// Tells whether a tag is that of a dead node, or of a session of this node that has ended.
    fn is_void(&self, tag: &str) -> bool {
        let Some(entry) = Entry::parse(tag, "0") else { return true };
        if entry.node == self.me {
            return self.sessions.find(entry.session).is_none();
        }
        self.nodes.is_dead(&entry.node)
    }

    /// Tells what stands beside a session that was written once more.
    fn tell_asserted(&mut self, user: UserName, session: SessionId, entries: &[Entry], is_urgent: bool) {
        if !self.config.is_single {
            // Its tag may be new, so other nodes may know the user's locations without this one.
            let nodes: Vec<NodeId> = self.elsewhere(entries).into_iter().map(|there| there.node).collect();
            if is_urgent && !nodes.is_empty() {
                self.told.push(Told::News(News::Elsewhere { user, nodes }));
            }
            return;
        }
        let (locations, _) = self.settle(&user, session, entries);
        for Location { node, sessions } in &locations {
            sessions.iter().for_each(|session| self.remove(user.clone(), tag(node, *session), None));
        }
        if !locations.is_empty() {
            self.told.push(Told::News(News::Replaces { user, locations }));
        }
    }

    /// A session of this node stands beside others of its user. Returns on which other nodes the user was
    /// before it, and came after it. Where a user may have one session, one that is not the latest has
    /// lost, and replaces nobody.
    fn settle(
        &mut self,
        user: &UserName,
        session: SessionId,
        entries: &[Entry],
    ) -> (Vec<Location>, Vec<Location>) {
        let Some(own) = self.sessions.find(session) else { return (vec![], vec![]) };
        let own = Entry { node: self.me.clone(), session, since_us: own.since_us };
        let replaced = |session| Told::News(News::Replaced { user: user.clone(), session });
        let others = entries.iter().filter(|entry| entry.session != session);
        let (after, before): (Vec<_>, Vec<_>) = others.partition(|entry| own.is_before(entry));
        if self.config.is_single && !after.is_empty() {
            self.told.push(replaced(session));
            return (vec![], vec![]);
        }
        if self.config.is_single {
            let here = before.iter().filter(|entry| entry.node == own.node);
            self.told.extend(here.map(|entry| replaced(entry.session)));
        }
        (self.elsewhere(before), self.elsewhere(after))
    }

    /// The sessions of a user on nodes that live. Those of dead ones, and those of this node that it does
    /// not know, will be removed.
    fn living(&mut self, user: &UserName, entries: Vec<Entry>) -> Vec<Entry> {
        let (living, wrong): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
            if entry.node == self.me {
                self.sessions.find(entry.session).is_some()
            } else {
                self.nodes.is_living(&entry.node)
            }
        });
        for entry in wrong {
            self.remove(user.clone(), tag(&entry.node, entry.session), None);
        }
        living
    }

    /// The sessions on other nodes, by node, in the order of the logins.
    fn elsewhere<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Location> {
        let mut entries: Vec<&Entry> = entries.into_iter().filter(|entry| entry.node != self.me).collect();
        entries.sort_unstable_by_key(|entry| (entry.since_us, entry.session));
        let mut locations: Vec<Location> = vec![];
        for Entry { node, session, .. } in entries {
            match locations.iter_mut().find(|location| location.node == *node) {
                Some(location) => location.sessions.push(*session),
                None => locations.push(Location { node: node.clone(), sessions: vec![*session] }),
            }
        }
        locations
    }
}
