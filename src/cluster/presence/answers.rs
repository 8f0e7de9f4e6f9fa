//! What presence answers: one pipeline for all who ask, and what its replies mean.
//!
//! Every reply holds all sessions of one user. Those of dead nodes, and those of
//! this node that it does not know, are put on the list of what to remove; the
//! rest says where the user is, who came first, and who has to be told of it.

use std::time::{Duration, Instant};

use redis::{FromRedisValue, Pipeline, Value};

use crate::cluster::presence::{ASKS_MAX, Ask, DOUBT_TIME_MAX, Presence};
use crate::cluster::sessions::{Entry, tag};
use crate::cluster::{Event, Place, Unavailable};
use crate::proto::batch::Item;
use crate::proto::{NodeId, SessionId, UserName};

/// How long a user may go unasked before the key ends; every sweep begins it anew.
const KEY_TIME_MS: u64 = 24 * 3_600_000;

/// How old the table may be when presence says that it knows nothing of a user.
const TABLE_TIME_MAX: Duration = Duration::from_millis(100);

/// A question, and what the hash of its user held.
struct Answered {
    ask: Ask,
    entries: Result<Vec<Entry>, Unavailable>,
}

impl Presence {
    /// Answers what was asked, in one pipeline.
    pub(super) fn answer(&mut self, asks: Vec<Ask>) -> Result<(), String> {
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
        // That presence knows nothing may mean that it lost everything since the lease was renewed.
        let knows_nothing = |answered: &Answered| {
            matches!(answered.ask, Ask::Locate { is_here: false, .. })
                && answered.entries.as_ref().is_ok_and(Vec::is_empty)
        };
        let is_old = self.renewed.elapsed() >= TABLE_TIME_MAX;
        let mut result = Ok(());
        if is_old && answered.iter().any(knows_nothing) {
            result = self.renew();
        }
        let entries = answered.iter().flat_map(|answered| answered.entries.iter().flatten());
        if let Err(why) = result.and_then(|()| self.know_all(entries)) {
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
    pub(super) fn assert(&mut self) -> Result<(), String> {
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
