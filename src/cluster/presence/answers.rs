//! What presence answers: one pipeline for all who ask, and what its replies mean.
//!
//! Every reply holds all sessions of one user. Those of dead nodes, and those of
//! this node that it does not know, are put on the list of what to remove; the
//! rest says where the user is, who came first, and who has to be told of it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Pipeline, Value};

use crate::cluster::lease;
use crate::cluster::presence::{ASKS_MAX, Ask, DOUBT_TIME_MAX, Presence};
use crate::cluster::sessions::{Entry, tag};
use crate::cluster::{Event, Place, Unavailable};
use crate::proto::batch::Item;
use crate::proto::{NodeId, SessionId, UserName};

/// Writes a session, and begins the time to live of its user's key anew: in one command, so that
/// no node can die between the two.
const WRITE: &str =
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return redis.call('PEXPIRE', KEYS[1], ARGV[3])";

/// How long a user may go unasked before the key ends; every sweep begins it anew.
const KEY_TIME_MS: u64 = 24 * 3_600_000;

/// How old the table may be when presence says that it knows nothing of a user.
const TABLE_TIME_MAX: Duration = Duration::from_millis(100);

/// The questions of one round, and whose hashes answer them: each is read once,
/// however many ask for it.
#[derive(Default)]
struct Round {
    asks: Vec<Ask>,
    users: Vec<UserName>,
    known: HashSet<UserName>,
}

impl Round {
    fn add(&mut self, user: UserName, ask: Ask) {
        if self.known.insert(user.clone()) {
            self.users.push(user);
        }
        self.asks.push(ask);
    }
}

impl Presence {
    /// Answers what was asked, in one pipeline.
    pub(super) fn answer(&mut self, asks: Vec<Ask>) -> Result<(), String> {
        let mut pipe = redis::pipe();
        let removals: Vec<_> = self.removals.drain(..self.removals.len().min(ASKS_MAX)).collect();
        for (user, tag) in &removals {
            pipe.hdel(key(user), tag);
        }
        let mut round = Round::default();
        for ask in asks {
            match &ask {
                Ask::Locate { user, .. } => round.add(user.clone(), ask),
                Ask::Register { user, session, .. } => {
                    let since_us = self.shared.nodes().now_us();
                    self.sessions.add(user, *session, since_us, Instant::now());
                    self.write(&mut pipe, *session);
                    round.add(user.clone(), ask);
                }
                _ => self.refuse(ask),
            }
        }
        // After all writes: of two logins in one round, each sees the other.
        for user in &round.users {
            pipe.hgetall(key(user));
        }
        if round.asks.iter().any(|ask| matches!(ask, Ask::Locate { is_here: false, .. })) {
            // Last: if Redis lost its data before any of them, it lost this too.
            pipe.add_command(lease::is_member(&self.shared.node()));
        }
        let replies = match self.store.run(&pipe) {
            Ok(replies) => replies,
            Err(why) => {
                removals.into_iter().for_each(|(user, tag)| self.remove(user, tag));
                round.asks.into_iter().for_each(|ask| self.refuse(ask));
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
        self.take_replies(round, replies)?;
        if is_writable { Ok(()) } else { Err("it takes no writes".to_owned()) }
    }

    /// Tells everybody of a round what came of it.
    fn take_replies(&mut self, round: Round, mut replies: impl Iterator<Item = Value>) -> Result<(), String> {
        let Round { asks, users, .. } = round;
        let is_write = |ask: &Ask| matches!(ask, Ask::Register { .. });
        let wrote: Vec<bool> = asks.iter().map(|ask| !is_write(ask) || is_fine(replies.next())).collect();
        let hashes: Vec<Option<Vec<Entry>>> = users.iter().map(|_| replies.next().and_then(read)).collect();
        let is_member = replies.next() != Some(Value::Nil);
        // That presence knows nothing may mean that it lost everything since the lease was renewed,
        // or that others are about to write their sessions again.
        let knows_nothing = hashes.iter().flatten().any(Vec::is_empty);
        let mut result = Ok(());
        if knows_nothing && (!is_member || self.renewed.elapsed() >= TABLE_TIME_MAX) {
            result = self.renew();
        }
        if let Err(why) = result.and_then(|()| self.know_all(hashes.iter().flatten().flatten())) {
            asks.into_iter().for_each(|ask| self.refuse(ask));
            return Err(why);
        }
        let mut living: HashMap<UserName, Vec<Entry>> = HashMap::new();
        for (user, entries) in users.into_iter().zip(hashes) {
            let entries = entries.map(|entries| self.living(&user, entries));
            living.extend(entries.map(|entries| (user, entries)));
        }
        for (ask, wrote) in asks.into_iter().zip(wrote) {
            match &ask {
                Ask::Locate { user, .. } | Ask::Register { user, .. } if wrote => match living.get(user) {
                    Some(entries) => self.tell(ask, entries),
                    None => self.refuse(ask),
                },
                _ => self.refuse(ask),
            }
        }
        Ok(())
    }

    /// Tells what came of a question, `entries` being the user's sessions on living nodes.
    fn tell(&mut self, ask: Ask, entries: &[Entry]) {
        match ask {
            Ask::Locate { user, is_here } => {
                let me = self.shared.node();
                let is_here = is_here || entries.iter().any(|entry| entry.node == me);
                let since = self.doubted.remove(&user);
                let mut answer = Ok(places(entries.iter().filter(|entry| entry.node != me)));
                if answer == Ok(vec![]) && !is_here && self.shared.nodes().in_doubt {
                    let since = since.unwrap_or_else(Instant::now);
                    if since.elapsed() < DOUBT_TIME_MAX {
                        self.doubted.insert(user, since);
                        return;
                    }
                    answer = Err(Unavailable);
                }
                self.shared.located(user, answer, is_here);
            }
            Ask::Register { user, session, number } => {
                let (before, after) = self.settle(&user, session, entries);
                self.announce(&user, number, before, &after);
            }
            ask => self.refuse(ask),
        }
    }

    /// A session of this node stands beside others of its user. Returns on which
    /// other nodes the user was before it, and came after it. Where a user may
    /// have one session, one that is not the latest has lost, and replaces nobody.
    fn settle(&mut self, user: &UserName, session: SessionId, entries: &[Entry]) -> (Vec<Place>, Vec<Place>) {
        let me = self.shared.node();
        let Some(own) = self.sessions.find(session) else { return (vec![], vec![]) };
        let own = Entry { node: me.clone(), session, since_us: own.since_us };
        self.shared.remembered().forget(user.borrowed());
        let replaced = |session| self.shared.tell(Event::Replaced { user: user.clone(), session });
        let later = |entry: &&Entry| own.is_before(entry);
        if self.is_single && entries.iter().any(|entry| later(&entry)) {
            replaced(session);
            return (vec![], vec![]);
        }
        let (after, before): (Vec<_>, Vec<_>) =
            entries.iter().filter(|entry| **entry != own).partition(later);
        let (here, before): (Vec<_>, Vec<_>) = before.into_iter().partition(|entry| entry.node == me);
        if self.is_single {
            here.iter().for_each(|entry| replaced(entry.session));
        }
        (places(before.into_iter()), places(after.into_iter().filter(|entry| entry.node != me)))
    }

    /// A login is answered: at once, or when the nodes where the user is too know of it.
    fn announce(&mut self, user: &UserName, number: u64, before: Vec<Place>, after: &[Place]) {
        let nodes: Vec<NodeId> = before.iter().chain(after).map(|place| place.node.clone()).collect();
        let now = Instant::now();
        if !nodes.is_empty() {
            // An origin may remember the user here from an earlier session, and not know of the others.
            self.shared.remembered().heard_news(user.borrowed(), now);
        }
        let is_known_at_once = nodes.is_empty() || self.is_single || !self.shared.links().is_up();
        if is_known_at_once {
            self.shared.tell(Event::Registered { number, others: Ok(before) });
        } else {
            self.shared.announced().add(number, before, nodes.clone(), now);
        }
        for node in nodes.iter().filter(|_| !self.is_single) {
            self.shared.say(node, &Item::Also { user: user.borrowed(), login: number });
        }
    }

    /// Asserts the sessions whose turn it is.
    pub(super) fn assert(&mut self) -> Result<(), String> {
        let is_urgent = self.sessions.is_asserting_all();
        let taken = self.sessions.take(Instant::now());
        let mut pipe = redis::pipe();
        for session in &taken {
            let key = self.write(&mut pipe, *session);
            pipe.hgetall(&key);
        }
        if taken.is_empty() {
            return Ok(());
        }
        let mut replies = self.store.run(&pipe)?.into_iter();
        let mut asserted = vec![];
        for session in taken {
            let (wrote, entries) = (is_fine(replies.next()), replies.next());
            let entries = entries.and_then(read).filter(|_| wrote);
            asserted.extend(entries.map(|entries| (session, entries)));
        }
        self.know_all(asserted.iter().flat_map(|(_, entries)| entries))?;
        for (session, entries) in asserted {
            let Some(own) = self.sessions.find(session).cloned() else { continue };
            let entries = self.living(&own.user, entries);
            if !self.is_single {
                // Its tag may be new, so other nodes may know the user's places without this one.
                let me = self.shared.node();
                let others = places(entries.iter().filter(|entry| entry.node != me));
                for place in others.iter().filter(|_| is_urgent) {
                    self.shared.say(&place.node, &Item::Also { user: own.user.borrowed(), login: 0 });
                }
                continue;
            }
            for place in self.settle(&own.user, session, &entries).0 {
                for session in place.sessions {
                    self.remove(own.user.clone(), tag(&place.node, session));
                    let item = Item::Replaced { user: own.user.borrowed(), session };
                    self.shared.say(&place.node, &item);
                }
            }
        }
        Ok(())
    }

    /// Adds the command that writes a session, and returns the key of its user.
    fn write(&self, pipe: &mut Pipeline, session: SessionId) -> String {
        let own = self.sessions.find(session).expect("it is added before it is written");
        let key = key(&own.user);
        let tag = tag(&self.shared.node(), session);
        pipe.cmd("EVAL").arg(WRITE).arg(1).arg(&key).arg(tag).arg(own.since_us).arg(KEY_TIME_MS);
        key
    }

    /// The entries of nodes that live. Those of dead ones, and those of this
    /// node that it does not know, will be removed.
    fn living(&mut self, user: &UserName, entries: Vec<Entry>) -> Vec<Entry> {
        let me = self.shared.node();
        let nodes = self.shared.nodes();
        let (living, wrong): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
            if entry.node == me {
                self.sessions.find(entry.session).is_some()
            } else {
                nodes.is_living(&entry.node)
            }
        });
        drop(nodes);
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
fn places<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Place> {
    let mut entries: Vec<&Entry> = entries.collect();
    entries.sort_by_key(|entry| (entry.since_us, entry.session));
    let mut places: Vec<Place> = vec![];
    for Entry { node, session, .. } in entries {
        match places.iter_mut().find(|place| place.node == *node) {
            Some(place) => place.sessions.push(*session),
            None => places.push(Place { node: node.clone(), sessions: vec![*session] }),
        }
    }
    places
}
