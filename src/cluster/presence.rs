//! Presence: the thread that talks to Redis.
//!
//! The client library is synchronous, so it has a thread of its own, which
//! answers whatever waits for it in one pipeline. Asking is sending a value;
//! answers go up as events.
//!
//! ```text
//! p:{user}    hash         tag -> time of the login, in us (`sessions.rs`)
//! {nodes}...               the living nodes                (`lease.rs`)
//! ```
//!
//! A login is two commands: the session is written, then all sessions of the
//! user are read. Of two that race at least one sees the other, and which came
//! first is written in the hash, so all agree. A session removes its own field
//! and no other, so a late removal can't erase a newer login. Fields of dead
//! nodes are ignored and removed by whoever meets them; keys that nobody asks
//! for end by their time to live, which every sweep sets anew. Whatever is
//! written may be written again, or late, without harm.
//!
//! While Redis is away every question is answered "unavailable" at once, and
//! what is to be removed waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use log::warn;
use redis::{FromRedisValue, Pipeline, Value};

use crate::cluster::lease::{Act, RENEW_TIME, Renewed};
use crate::cluster::remote::Shared;
use crate::cluster::sessions::{Entry, Sessions, tag};
use crate::cluster::store::Store;
use crate::cluster::{Event, Place, Unavailable};
use crate::config::Redis;
use crate::proto::batch::Item;
use crate::proto::{NodeId, SessionId, UserName};

/// What presence is asked for.
#[derive(Debug)]
pub enum Ask {
    /// Where a user is: [`Event::Located`] follows.
    Locate {
        /// The user.
        user: UserName,
        /// The user has a session on this node.
        is_here: bool,
    },
    /// To write a session: [`Event::Registered`] follows.
    Register {
        /// Whose it is.
        user: UserName,
        /// Which it is.
        session: SessionId,
        /// What the answer is for.
        number: u64,
    },
    /// To remove a session of this node.
    Unregister {
        /// Whose it was.
        user: UserName,
        /// Which it was.
        session: SessionId,
    },
    /// To remove a session of another node, which was replaced.
    Remove {
        /// Whose it was.
        user: UserName,
        /// Where it was.
        node: NodeId,
        /// Which it was.
        session: SessionId,
    },
    /// To write all sessions again.
    AssertAll,
    /// To look whether the node goes.
    Wake,
}

/// Questions in one pipeline.
const ASKS_MAX: usize = 512;

/// Removals that may wait for Redis; with more, this node takes a new id, and
/// all of its old fields are dead at once.
pub const REMOVALS_MAX: usize = 65_536;

/// How long a user may go unasked before the key ends; every sweep begins it anew.
const KEY_TIME_MS: u64 = 24 * 3_600_000;

/// How long the bus may take to be reachable under a new id before others hear of it.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a user that is not found is looked for while there is doubt, and how often.
const DOUBT_TIME_MAX: Duration = Duration::from_secs(3);
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// The thread's state.
pub struct Presence {
    shared: Arc<Shared>,
    asks: Receiver<Ask>,
    /// A user may have one session only: a later login ends it.
    is_single: bool,
    store: Store,
    renew_at: Instant,
    has_joined: bool,
    /// When this node came back under a new id.
    restarted: Option<Instant>,
    sessions: Sessions,
    removals: VecDeque<(UserName, String)>,
    /// There were more removals than may wait.
    has_too_many: bool,
    /// Users that were not found while there was doubt, and since when they are looked for.
    doubted: Vec<(UserName, Instant)>,
    doubted_due: Instant,
}

/// A question, and what the hash of its user held.
struct Answered {
    ask: Ask,
    entries: Result<Vec<Entry>, Unavailable>,
}

impl Presence {
    /// Makes the thread's state.
    pub fn new(shared: Arc<Shared>, redis: Redis, asks: Receiver<Ask>, sessions_max: usize) -> Self {
        let now = Instant::now();
        Presence {
            shared,
            asks,
            is_single: sessions_max == 1,
            store: Store::new(redis),
            renew_at: now,
            has_joined: false,
            restarted: None,
            sessions: Sessions::default(),
            removals: VecDeque::new(),
            has_too_many: false,
            doubted: vec![],
            doubted_due: now,
        }
    }

    /// Runs until the node goes.
    pub fn run(mut self) {
        while !self.shared.is_stopping() {
            if let Err(why) = self.keep_up() {
                self.store.lose(&why);
            }
            let now = Instant::now();
            let wait = self.next_due(now).saturating_duration_since(now);
            let mut asks = vec![];
            match self.asks.recv_timeout(wait) {
                Ok(ask) => asks.push(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            asks.extend(self.asks.try_iter().take(ASKS_MAX - 1));
            if asks.len() < ASKS_MAX && self.doubted_due <= Instant::now() {
                let again = self.doubted.iter().take(ASKS_MAX - asks.len());
                asks.extend(again.map(|(user, _)| Ask::Locate { user: user.clone(), is_here: false }));
                self.doubted_due = Instant::now() + DOUBT_PAUSE;
            }
            if self.has_joined && self.store.is_open() {
                if let Err(why) = self.answer(asks) {
                    self.store.lose(&why);
                }
            } else {
                asks.into_iter().for_each(|ask| self.refuse(ask));
            }
        }
        self.leave();
    }

    /// When something is to be done by itself.
    fn next_due(&self, now: Instant) -> Instant {
        if !self.store.is_open() {
            return self.store.retry_at();
        }
        let mut due = self.renew_at.min(self.shared.announced().due().unwrap_or(self.renew_at));
        if let Some(at) = self.sessions.due() {
            due = due.min(at);
        }
        if !self.doubted.is_empty() {
            due = due.min(self.doubted_due);
        }
        if !self.removals.is_empty() {
            due = now;
        }
        due
    }

    /// Does what is due by itself: connects, renews the lease, asserts sessions.
    fn keep_up(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let overdue = self.shared.announced().overdue(now);
        overdue.into_iter().for_each(|event| self.shared.tell(event));
        if !self.store.is_open() {
            if now < self.store.retry_at() {
                return Ok(());
            }
            self.store.connect()?;
            self.renew_at = now;
            // Whatever happened to Redis meanwhile: what it must know is written again.
            self.sessions.assert_all(now);
        }
        if now >= self.renew_at {
            self.renew()?;
        }
        if self.has_joined && self.sessions.due().is_some_and(|due| due <= now) {
            self.assert()?;
        }
        Ok(())
    }

    /// Renews the lease, or enters the table.
    fn renew(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.has_too_many) {
            self.restart("too many sessions ended while Redis was away");
        }
        let act = if self.has_joined { Act::Renew } else { Act::Join };
        if act == Act::Join && !self.shared.wait_for_queue(QUEUE_TIME_MAX) {
            // Others may look for us at the broker in vain; their messages wait until we are there.
            warn!("joining without RabbitMQ: users of other nodes can't be reached yet");
        }
        let is_new = self.restarted.is_some_and(|at| at.elapsed() < DOUBT_TIME_MAX);
        let is_busy = self.restarted.is_some() && (is_new || self.sessions.is_asserting_all());
        let me = self.shared.node();
        let command = self.shared.nodes().command(&me, act, is_busy);
        let answer = self.store.query(&command)?;
        let renewed = self.shared.nodes().renewed(answer).ok_or("it answers what makes no sense")?;
        self.renew_at = Instant::now() + RENEW_TIME;
        match renewed {
            Renewed::Held(dead) => {
                self.shared.bury(&dead);
                self.shared.end_strangers();
                self.store.is_well();
                if act == Act::Join {
                    self.has_joined = true;
                    self.shared.set_joined();
                }
                Ok(())
            }
            Renewed::Lost => {
                self.restart("others took this node for dead, or Redis lost its data");
                self.renew()
            }
        }
    }

    /// This node goes on under a new id.
    fn restart(&mut self, why: &str) {
        let node = self.shared.restart();
        warn!("{why}: it is {} from now on", node.as_str());
        self.has_joined = false;
        self.restarted = Some(Instant::now());
        self.removals.clear();
        self.sessions.assert_all(Instant::now());
    }

    /// Answers what was asked, in one pipeline.
    fn answer(&mut self, asks: Vec<Ask>) -> Result<(), String> {
        let mut pipe = redis::pipe();
        let removals: Vec<_> = self.removals.drain(..self.removals.len().min(ASKS_MAX)).collect();
        for (user, tag) in &removals {
            pipe.hdel(key(user), tag);
        }
        let mut waiting = vec![];
        for ask in asks {
            match &ask {
                Ask::Locate { user, .. } => {
                    pipe.hgetall(key(user));
                }
                Ask::Register { user, session, .. } => {
                    let since_us = self.shared.nodes().now_us();
                    self.sessions.add(user, *session, since_us, Instant::now());
                    self.write(&mut pipe, *session);
                }
                _ => {
                    self.refuse(ask);
                    continue;
                }
            }
            waiting.push(ask);
        }
        let replies = match self.store.run(&pipe) {
            Ok(replies) => replies,
            Err(why) => {
                removals.into_iter().for_each(|(user, tag)| self.remove(user, tag));
                waiting.into_iter().for_each(|ask| self.refuse(ask));
                return Err(why);
            }
        };
        let mut replies = replies.into_iter();
        let mut is_writable = true;
        for (user, tag) in removals {
            if !is_fine(replies.next()) {
                self.remove(user, tag);
                is_writable = false;
            }
        }
        let answered = waiting.into_iter().map(|ask| {
            let wrote = !matches!(ask, Ask::Register { .. }) || is_fine(replies.next());
            let entries = replies.next().and_then(read).filter(|_| wrote).ok_or(Unavailable);
            Answered { ask, entries }
        });
        let answered: Vec<Answered> = answered.collect();
        let entries = answered.iter().flat_map(|answered| answered.entries.iter().flatten());
        if let Err(why) = self.know_all(entries) {
            answered.into_iter().for_each(|answered| self.refuse(answered.ask));
            return Err(why);
        }
        answered.into_iter().for_each(|answered| self.tell(answered));
        if is_writable { Ok(()) } else { Err("it takes no writes".to_owned()) }
    }

    /// Tells what came of a question.
    fn tell(&mut self, Answered { ask, entries }: Answered) {
        match (ask, entries) {
            (Ask::Locate { user, is_here }, Ok(entries)) => {
                let me = self.shared.node();
                let living = self.living(&user, entries);
                let is_here = is_here || living.iter().any(|entry| entry.node == me);
                let mut places = places(living);
                places.retain(|place| place.node != me);
                let since = self.doubted.iter().position(|(doubted, _)| *doubted == user);
                let since = since.map(|at| self.doubted.swap_remove(at).1);
                let mut answer = Ok(places);
                if answer == Ok(vec![]) && !is_here && self.shared.nodes().in_doubt {
                    let since = since.unwrap_or_else(Instant::now);
                    if since.elapsed() < DOUBT_TIME_MAX {
                        return self.doubted.push((user, since));
                    }
                    answer = Err(Unavailable);
                }
                self.shared.located(user, answer, is_here);
            }
            (Ask::Register { user, session, number }, Ok(entries)) => {
                let (before, after) = self.settle(&user, session, entries);
                self.announce(&user, number, before, &after);
            }
            (ask, _) => self.refuse(ask),
        }
    }

    /// A session of this node stands beside others of its user. Returns on which
    /// other nodes the user was before it, and came after it.
    fn settle(
        &mut self,
        user: &UserName,
        session: SessionId,
        entries: Vec<Entry>,
    ) -> (Vec<Place>, Vec<Place>) {
        let me = self.shared.node();
        let Some(own) = self.sessions.find(session) else { return (vec![], vec![]) };
        let own = Entry { node: me.clone(), session, since_us: own.since_us };
        let mut living = self.living(user, entries);
        living.retain(|entry| *entry != own);
        self.shared.remembered().forget(user.borrowed());
        let (earlier, later): (Vec<_>, Vec<_>) = living.into_iter().partition(|entry| entry.is_before(&own));
        if self.is_single {
            let here = earlier.iter().filter(|entry| entry.node == me).map(|entry| entry.session);
            for replaced in here.chain((!later.is_empty()).then_some(session)) {
                self.shared.tell(Event::Replaced { user: user.clone(), session: replaced });
            }
        }
        let elsewhere = |entries| {
            let mut places = places(entries);
            places.retain(|place| place.node != me);
            places
        };
        (elsewhere(earlier), elsewhere(later))
    }

    /// A login is answered: at once, or when the nodes where the user is too know of it.
    fn announce(&mut self, user: &UserName, number: u64, before: Vec<Place>, after: &[Place]) {
        let nodes: Vec<NodeId> = before.iter().chain(after).map(|place| place.node.clone()).collect();
        if nodes.is_empty() || self.is_single || !self.shared.links().is_up() {
            return self.shared.tell(Event::Registered { number, others: Ok(before) });
        }
        self.shared.announced().add(number, before, nodes.clone(), Instant::now());
        for node in nodes {
            self.shared.say(&node, &Item::Also { user: user.borrowed(), login: number });
        }
    }

    /// Asserts the sessions whose turn it is.
    fn assert(&mut self) -> Result<(), String> {
        let taken = self.sessions.take(Instant::now());
        let mut pipe = redis::pipe();
        for session in &taken {
            self.write(&mut pipe, *session);
            let own = self.sessions.find(*session).expect("just taken");
            pipe.pexpire(key(&own.user), KEY_TIME_MS as i64);
        }
        if taken.is_empty() {
            return Ok(());
        }
        let mut replies = self.store.run(&pipe)?.into_iter();
        let mut asserted = vec![];
        for session in taken {
            let wrote = is_fine(replies.next());
            let entries = replies.next().and_then(read).filter(|_| wrote);
            replies.next();
            asserted.extend(entries.map(|entries| (session, entries)));
        }
        self.know_all(asserted.iter().flat_map(|(_, entries)| entries))?;
        for (session, entries) in asserted {
            let Some(own) = self.sessions.find(session).cloned() else { continue };
            if !self.is_single {
                // Only for what it removes.
                self.living(&own.user, entries);
                continue;
            }
            for place in self.settle(&own.user, session, entries).0 {
                for session in place.sessions {
                    self.remove(own.user.clone(), tag(&place.node, session));
                    let item = Item::Replaced { user: own.user.borrowed(), session };
                    self.shared.say(&place.node, &item);
                }
            }
        }
        Ok(())
    }

    /// The commands that write a session and read the others of its user.
    fn write(&self, pipe: &mut Pipeline, session: SessionId) {
        let own = self.sessions.find(session).expect("it is added before it is written");
        let (key, tag) = (key(&own.user), tag(&self.shared.node(), session));
        pipe.hset(&key, tag, own.since_us).hgetall(&key);
    }

    /// The entries of nodes that live. Those of dead ones, and those of this
    /// node that it does not know, will be removed.
    fn living(&mut self, user: &UserName, entries: Vec<Entry>) -> Vec<Entry> {
        let me = self.shared.node();
        let (living, wrong): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
            if entry.node == me {
                self.sessions.find(entry.session).is_some()
            } else {
                self.shared.nodes().is_living(&entry.node)
            }
        });
        for entry in wrong {
            self.remove(user.clone(), tag(&entry.node, entry.session));
        }
        living
    }

    /// Asks for the table of nodes if these entries name one that is neither living nor dead.
    fn know_all<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), String> {
        let me = self.shared.node();
        let nodes = self.shared.nodes();
        let is_known = |node: &NodeId| *node == me || nodes.is_living(node) || nodes.is_dead(node);
        let strangers: Vec<NodeId> =
            entries.map(|entry| &entry.node).filter(|node| !is_known(node)).cloned().collect();
        drop(nodes);
        if strangers.is_empty() {
            return Ok(());
        }
        self.renew()?;
        let mut nodes = self.shared.nodes();
        for node in strangers {
            if !nodes.is_living(&node) && !nodes.is_dead(&node) {
                nodes.bury(&node);
            }
        }
        Ok(())
    }

    /// Does what can be done without Redis.
    fn refuse(&mut self, ask: Ask) {
        match ask {
            Ask::Locate { user, is_here } => {
                self.doubted.retain(|(doubted, _)| *doubted != user);
                self.shared.located(user, Err(Unavailable), is_here);
            }
            Ask::Register { number, .. } => {
                self.shared.tell(Event::Registered { number, others: Err(Unavailable) });
            }
            Ask::Unregister { user, session } => {
                self.sessions.remove(session);
                let node = self.shared.node();
                self.remove(user, tag(&node, session));
            }
            Ask::Remove { user, node, session } => self.remove(user, tag(&node, session)),
            Ask::AssertAll => self.sessions.assert_all(Instant::now()),
            Ask::Wake => {}
        }
    }

    /// A session is to be removed from Redis as soon as may be.
    fn remove(&mut self, user: UserName, tag: String) {
        if self.removals.len() >= REMOVALS_MAX {
            self.removals.clear();
            self.has_too_many = true;
        }
        self.removals.push_back((user, tag));
    }

    /// Takes this node out of the table, and what was left to remove with it.
    fn leave(mut self) {
        while let Ok(ask) = self.asks.try_recv() {
            self.refuse(ask);
        }
        let node = self.shared.node();
        let command = self.shared.nodes().command(&node, Act::Leave, false);
        let removing = |presence: &mut Self| -> Result<(), String> {
            while !presence.removals.is_empty() {
                presence.answer(vec![])?;
            }
            presence.store.query(&command).map(drop)
        };
        if self.store.is_open() && removing(&mut self).is_err() {
            warn!("Redis was not told that this node goes: its lease will run out");
        }
    }
}

fn key(user: &UserName) -> String {
    format!("p:{}", user.as_str())
}

fn is_fine(reply: Option<Value>) -> bool {
    reply.is_some_and(|reply| !matches!(reply, Value::ServerError(_)))
}

/// The hash of a user; `None` for an error.
fn read(reply: Value) -> Option<Vec<Entry>> {
    let fields = Vec::<(String, String)>::from_redis_value(reply).ok()?;
    Some(fields.iter().filter_map(|(tag, since_us)| Entry::parse(tag, since_us)).collect())
}

/// The same by node, in the order of the logins.
fn places(mut entries: Vec<Entry>) -> Vec<Place> {
    entries.sort_by_key(|entry| (entry.since_us, entry.session));
    let mut places: Vec<Place> = vec![];
    for Entry { node, session, .. } in entries {
        match places.iter_mut().find(|place| place.node == node) {
            Some(place) => place.sessions.push(session),
            None => places.push(Place { node, sessions: vec![session] }),
        }
    }
    places
}
