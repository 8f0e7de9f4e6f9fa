//! A Redis in memory that knows our commands and nothing else: for tests without one.
//!
//! It answers as the scripts of `redis_commands.rs` do, in a time of its
//! own; one test gives the same commands to both and compares.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::command::{Lease, LeaseAct, Place, RedisCommand, RedisReply, SessionEntry, tag};
use crate::cluster::lease::LEASE_TIME;
use crate::mailbox::Limits;
use crate::mailbox::memory::Mailboxes;
use crate::proto::name::{NodeId, SessionId, UserName};
use crate::proto::wire::VERSION;

/// The data, and the clock.
#[derive(Clone)]
pub struct RedisModel {
    start: Instant,
    /// The time.
    pub now: Instant,
    limits: Limits,
    leases: BTreeMap<NodeId, i64>,
    doubts: BTreeMap<NodeId, i64>,
    version: i64,
    hold_us: i64,
    /// By how much its clock was set forward.
    ahead_us: i64,
    /// By tag; whether it drains.
    pub sessions: BTreeMap<UserName, BTreeMap<String, (SessionEntry, bool)>>,
    /// By user.
    pub mailboxes: Mailboxes,
}

/// Redis's clock when the model begins, in us.
const BEGIN_US: i64 = 1_800_000_000_000_000;

impl RedisModel {
    /// Nothing is stored.
    pub fn new(limits: Limits, now: Instant) -> Self {
        RedisModel {
            start: now,
            now,
            limits,
            leases: BTreeMap::new(),
            doubts: BTreeMap::new(),
            version: 0,
            hold_us: 0,
            ahead_us: 0,
            sessions: BTreeMap::new(),
            mailboxes: Mailboxes::new(limits),
        }
    }

    /// All data is lost.
    pub fn empty(&mut self) {
        let RedisModel { start, now, ahead_us, .. } = *self;
        *self = RedisModel { start, now, ahead_us, ..RedisModel::new(self.limits, now) };
    }

    /// Its clock is set forward, or back: a day forward ends the entries of all users.
    pub fn set_clock(&mut self, ahead_us: i64) {
        self.ahead_us += ahead_us;
        if ahead_us >= 86_400_000_000 {
            self.sessions.clear();
        }
    }

    /// Who is where, and which nodes there are, is lost; the mailboxes stay.
    #[cfg(feature = "internals")]
    pub fn lose_presence(&mut self) {
        let mailboxes = std::mem::replace(&mut self.mailboxes, Mailboxes::new(self.limits));
        self.empty();
        self.mailboxes = mailboxes;
    }

    /// The living nodes.
    pub fn nodes(&self) -> Vec<&NodeId> {
        self.leases.keys().collect()
    }

    fn now_us(&self) -> i64 {
        BEGIN_US + self.ahead_us + self.now.duration_since(self.start).as_micros() as i64
    }

    /// Does what the command says.
    pub fn run(&mut self, command: &RedisCommand) -> RedisReply {
        let now = self.now;
        match command {
            RedisCommand::Lease { node, act, known, is_busy } => {
                RedisReply::Lease(self.lease(node, *act, known, *is_busy))
            }
            RedisCommand::IsMember { node } => RedisReply::Flag(self.leases.contains_key(node)),
            RedisCommand::Write { user, node, session, since_us, drains } => {
                let (tag, node, now_us) = (tag(node, *session), node.clone(), self.now_us());
                let sessions = self.sessions.entry(user.clone()).or_default();
                let own = sessions.get(&tag).map(|(entry, _)| entry.since_us);
                let last = sessions.values().map(|(entry, _)| entry.since_us).max();
                let later = now_us.max(last.map_or(0, |last| last + 1));
                let since_us = since_us.or(own).unwrap_or(later);
                let entry = SessionEntry { node, session: *session, since_us };
                let is_new = sessions.insert(tag, (entry, *drains)).is_none();
                RedisReply::Wrote(if is_new { Place::New } else { Place::Known })
            }
            RedisCommand::Remove { user, node, session } => {
                if let Some(sessions) = self.sessions.get_mut(user) {
                    sessions.remove(&tag(node, *session));
                    if sessions.is_empty() {
                        self.sessions.remove(user);
                    }
                }
                RedisReply::Done
            }
            RedisCommand::Clear { .. } => RedisReply::Done,
            RedisCommand::Sessions { user } => {
                let sessions = self.sessions.get(user).into_iter().flatten();
                RedisReply::Sessions(sessions.map(|(_, (entry, _))| entry.clone()).collect())
            }
            RedisCommand::HasMail { user } => RedisReply::Flag(self.mailboxes.has(user.as_str(), now)),
            RedisCommand::Store { user, messages } => {
                let user = user.as_str();
                // If not all fit, those that are there already need no room.
                let held = if messages.len() > 1 { self.mailboxes.read(user, 0, now) } else { vec![] };
                let is_short = held.len() + messages.len() > self.limits.messages_max;
                let is_known = |body: &Vec<u8>| is_short && held.iter().any(|letter| letter.body == *body);
                let mut store =
                    |body: &&Vec<u8>| is_known(body) || self.mailboxes.store(user, body, now).is_ok();
                RedisReply::Stored(messages.iter().take_while(&mut store).count())
            }
            RedisCommand::Claim { user, node, session } => {
                RedisReply::Claimed(self.claim(user, &tag(node, *session)))
            }
            RedisCommand::Read { user, after } => {
                RedisReply::Letters(self.mailboxes.read(user.as_str(), *after, now))
            }
            RedisCommand::Take { user, up_to, also } => {
                self.mailboxes.take(user.as_str(), *up_to, also);
                RedisReply::Done
            }
        }
    }

    fn claim(&mut self, user: &UserName, tag: &str) -> Option<(NodeId, SessionId)> {
        let sessions = self.sessions.get_mut(user)?;
        if sessions.get(tag)?.1 {
            return None;
        }
        if let Some((other, _)) = sessions.values().find(|(_, drains)| *drains) {
            return Some((other.node.clone(), other.session));
        }
        sessions.get_mut(tag).expect("it was there above").1 = true;
        None
    }

    fn lease(&mut self, me: &NodeId, act: LeaseAct, known: &str, is_busy: bool) -> Option<Lease> {
        let (now_us, lease_us) = (self.now_us(), LEASE_TIME.as_micros() as i64);
        let mut is_changed = act != LeaseAct::Renew;
        if act == LeaseAct::Leave {
            self.leases.remove(me);
            self.doubts.remove(me);
        } else {
            if act == LeaseAct::Renew && !self.leases.contains_key(me) {
                return None;
            }
            let ends_us = self.leases.values_mut().chain(self.doubts.values_mut());
            ends_us.for_each(|end_us| *end_us = (*end_us).min(now_us + lease_us));
            self.hold_us = self.hold_us.min(now_us + lease_us);
            if self.leases.values().max().is_some_and(|last| *last < now_us) {
                self.hold_us = now_us + lease_us;
            }
            self.leases.insert(me.clone(), now_us + lease_us);
            if now_us >= self.hold_us {
                let before = self.leases.len();
                self.leases.retain(|_, end_us| *end_us >= now_us);
                is_changed |= self.leases.len() < before;
            }
            self.doubts.remove(me);
            if is_busy {
                self.doubts.insert(me.clone(), now_us + lease_us);
            }
        }
        if is_changed {
            self.version = now_us.max(self.version + 1);
        }
        self.doubts.retain(|_, end_us| *end_us >= now_us);
        let version = self.version.to_string();
        let living =
            (version != known).then(|| self.leases.keys().map(|node| (node.clone(), VERSION)).collect());
        Some(Lease { now_us, was_misfit: false, version, in_doubt: !self.doubts.is_empty(), living })
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}
