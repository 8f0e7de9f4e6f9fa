//! What presence answers: one pipeline for all who ask, and what its replies mean.
//!
//! Every reply holds all sessions of one user. Those of dead nodes, and those of
//! this node that it does not know, are put on the list of what to remove; the
//! rest says where the user is, who came first, and who has to be told of it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Pipeline, Value};

use crate::cluster::lease;
use crate::cluster::presence::Removal;
use crate::cluster::presence::mail::{Batch, Reading, shown, shown_key};
use crate::cluster::presence::{ASKS_MAX, Ask, DOUBT_TIME_MAX, Presence};
use crate::cluster::sessions::{Entry, tag};
use crate::cluster::{Event, Place, Places, Unavailable, Welcome};
use crate::mailbox::redis as mailbox;
use crate::proto::batch::Item;
use crate::proto::{NodeId, SessionId, UserName};

/// Writes a session, and begins the time to live of its user's key anew: in one command, so that
/// no node can die between the two.
pub const WRITE: &str =
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
    batches: Vec<Batch>,
    readings: Vec<Reading>,
    users: Vec<UserName>,
    known: HashSet<UserName>,
}

/// Whether something waits for a user, and what the user was shown.
type Greeting = (bool, Vec<u64>);

impl Round {
    fn know(&mut self, user: &UserName) {
        if self.known.insert(user.clone()) {
            self.users.push(user.clone());
        }
    }

    fn logins(&self) -> impl Iterator<Item = &UserName> {
        self.asks.iter().filter_map(|ask| match ask {
            Ask::Register { user, .. } => Some(user),
            _ => None,
        })
    }
}

impl Presence {
    /// Answers what was asked, in one pipeline.
    pub(super) fn answer(&mut self, asks: Vec<Ask>) -> Result<(), String> {
        let mut pipe = redis::pipe();
        // What a session that has ended was shown is there before the session is not.
        let chores = self.add_chores(&mut pipe);
        let is_due = |removal: &&Removal| self.mail.has_come_to(removal.behind);
        let due = self.removals.iter().take(ASKS_MAX).take_while(is_due).count();
        let removals: Vec<_> = self.removals.drain(..due).collect();
        for removal in &removals {
            pipe.hdel(key(&removal.user), &removal.tag);
        }
        let round = self.ask(&mut pipe, asks);
        let replies = match self.store.run(&pipe) {
            Ok(replies) => replies,
            Err(why) => {
                self.end_chores(chores, &mut std::iter::empty());
                self.removals.extend(removals);
                self.refuse_all(round);
                return Err(why);
            }
        };
        let mut replies = replies.into_iter();
        let mut is_writable = self.end_chores(chores, &mut replies);
        for removal in removals {
            if !self.is_settled(replies.next()) {
                self.removals.push_back(removal);
                is_writable = false;
            } else if let Some(number) = removal.number {
                self.shared.tell(Event::Unregistered { number });
            }
        }
        self.take_replies(round, replies)?;
        if is_writable { Ok(()) } else { Err("it takes no writes".to_owned()) }
    }

    /// Puts questions into a pipeline. What they write comes first: of two logins in one round,
    /// each sees the other, and who stores a message sees whoever logs in meanwhile.
    fn ask(&mut self, pipe: &mut Pipeline, asks: Vec<Ask>) -> Round {
        let mut round = Round::default();
        for ask in asks {
            match ask {
                Ask::Locate { ref user, .. } => {
                    round.know(user);
                    round.asks.push(ask);
                }
                Ask::Register { ref user, session, .. } => {
                    let since_us = self.shared.nodes().now_us();
                    self.sessions.add(user, session, since_us, Instant::now());
                    self.write(pipe, session);
                    round.know(user);
                    round.asks.push(ask);
                }
                Ask::Store { envelope, number } => {
                    round.know(&envelope.to);
                    Self::batch(&mut round.batches, envelope, number);
                }
                Ask::Read { user, session, after } => {
                    // Whoever drains it may be dead.
                    round.know(&user);
                    round.readings.push(Reading { user, session, after });
                }
                _ => self.refuse(ask),
            }
        }
        for batch in &round.batches {
            pipe.add_command(self.store(batch));
        }
        for user in &round.users {
            pipe.hgetall(key(user));
        }
        for user in round.logins() {
            pipe.add_command(mailbox::has(user.borrowed()));
            pipe.get(shown_key(user));
        }
        for reading in &round.readings {
            self.add_reading(pipe, reading);
        }
        let locates = |ask: &Ask| matches!(ask, Ask::Locate { is_here: false, .. });
        if round.asks.iter().any(locates) || !round.batches.is_empty() {
            // Last: if Redis lost its data before any of them, it lost this too.
            pipe.add_command(lease::is_member(&self.shared.node()));
        }
        round
    }

    /// Redis did not answer: what was to be stored may be.
    fn refuse_all(&mut self, round: Round) {
        round.asks.into_iter().for_each(|ask| self.refuse(ask));
        round.batches.into_iter().for_each(|batch| self.tell_stored(batch, None, None));
        round.readings.into_iter().for_each(|reading| self.tell_read(reading, None, None));
    }

    /// Tells everybody of a round what came of it.
    fn take_replies(&mut self, round: Round, mut replies: impl Iterator<Item = Value>) -> Result<(), String> {
        let is_write = |ask: &Ask| matches!(ask, Ask::Register { .. });
        let wrote: Vec<bool> =
            round.asks.iter().map(|ask| !is_write(ask) || is_fine(replies.next())).collect();
        let stored: Vec<Option<Value>> = round.batches.iter().map(|_| replies.next()).collect();
        let hashes: Vec<Option<Vec<Entry>>> =
            round.users.iter().map(|_| replies.next().and_then(read)).collect();
        let greetings: Vec<Option<Greeting>> = round.logins().map(|_| greeting(&mut replies)).collect();
        let read: Vec<_> = round.readings.iter().map(|_| (replies.next(), replies.next())).collect();
        let is_member = replies.next() != Some(Value::Nil);
        // That presence knows nothing may mean that it lost everything since the lease was renewed,
        // or that others are about to write their sessions again.
        let knows_nothing = hashes.iter().flatten().any(Vec::is_empty);
        let mut result = Ok(());
        if knows_nothing && (!is_member || self.renewed.elapsed() >= TABLE_TIME_MAX) {
            result = self.renew();
        }
        if let Err(why) = result.and_then(|()| self.know_all(hashes.iter().flatten().flatten())) {
            self.refuse_all(round);
            return Err(why);
        }
        let Round { asks, batches, readings, users, .. } = round;
        let mut living: HashMap<UserName, Vec<Entry>> = HashMap::new();
        for (user, entries) in users.into_iter().zip(hashes) {
            let entries = entries.map(|entries| self.living(&user, entries));
            living.extend(entries.map(|entries| (user, entries)));
        }
        for (batch, reply) in batches.into_iter().zip(stored) {
            let me = self.shared.node();
            let others = living.get(&batch.user);
            let others = others.map(|entries| places(entries.iter().filter(|entry| entry.node != me)));
            self.tell_stored(batch, reply.as_ref(), others);
        }
        let mut greetings = greetings.into_iter();
        for (ask, wrote) in asks.into_iter().zip(wrote) {
            let greeting = if is_write(&ask) { greetings.next().flatten() } else { Some((false, vec![])) };
            match (&ask, greeting) {
                (Ask::Locate { user, .. } | Ask::Register { user, .. }, Some(greeting)) if wrote => {
                    match living.get(user) {
                        Some(entries) => self.tell(ask, entries, greeting),
                        None => self.refuse(ask),
                    }
                }
                _ => self.refuse(ask),
            }
        }
        for (reading, (claim, messages)) in readings.into_iter().zip(read) {
            self.tell_read(reading, claim, messages);
        }
        Ok(())
    }

    /// Tells what came of a question, `entries` being the user's sessions on living nodes.
    fn tell(&mut self, ask: Ask, entries: &[Entry], (has_mail, seen): Greeting) {
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
                self.shared.located(user, answer.map(Places::from), is_here);
            }
            Ask::Register { user, session, number } => {
                let (others, after) = self.settle(&user, session, entries);
                self.announce(&user, number, Welcome { others, has_mail, seen }, &after);
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
    fn announce(&mut self, user: &UserName, number: u64, welcome: Welcome, after: &[Place]) {
        let nodes: Vec<NodeId> = welcome.others.iter().chain(after).map(|place| place.node.clone()).collect();
        let now = Instant::now();
        if !nodes.is_empty() {
            // An origin may remember the user here from an earlier session, and not know of the others.
            self.shared.remembered().heard_news(user.borrowed(), now);
        }
        let is_known_at_once = nodes.is_empty() || self.is_single || !self.shared.links().is_up();
        if is_known_at_once {
            self.shared.tell(Event::Registered { number, welcome: Ok(welcome) });
        } else {
            self.shared.announced().add(number, welcome, nodes.clone(), now);
        }
        for node in &nodes {
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
            let own = self.sessions.find(*session).expect("it is asserted");
            pipe.add_command(mailbox::has(own.user.borrowed()));
        }
        if taken.is_empty() {
            return Ok(());
        }
        let mut replies = self.store.run(&pipe)?.into_iter();
        let mut asserted = vec![];
        for session in taken {
            let (wrote, entries, mail) = (is_fine(replies.next()), replies.next(), replies.next());
            let entries = entries.and_then(read).filter(|_| wrote);
            if mail == Some(Value::Int(1)) && self.shared.has_mailboxes() {
                // Somebody stored it who did not see the session, and could not tell.
                let own = self.sessions.find(session).expect("it is asserted");
                self.shared.tell(Event::Mail(own.user.clone()));
            }
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

    /// Adds the command that writes a session, and returns the key of its user. One that is to
    /// drain no more keeps its mark until that is its turn: behind the removal of what it took.
    fn write(&self, pipe: &mut Pipeline, session: SessionId) -> String {
        let drains = self.sessions.find(session).is_some_and(|own| own.drains);
        self.write_as(pipe, session, drains)
    }

    /// The same for one that drains, or does not.
    pub(super) fn write_as(&self, pipe: &mut Pipeline, session: SessionId, drains: bool) -> String {
        let own = self.sessions.find(session).expect("it is added before it is written");
        let key = key(&own.user);
        let tag = tag(&self.shared.node(), session);
        let mark = if drains { "d" } else { "" };
        let value = format!("{}{mark}", own.since_us);
        pipe.cmd("EVAL").arg(WRITE).arg(1).arg(&key).arg(tag).arg(value).arg(KEY_TIME_MS);
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

/// What the replies to a login's last questions say; `None` for an error.
fn greeting(replies: &mut impl Iterator<Item = Value>) -> Option<Greeting> {
    let (mail, seen) = (replies.next(), replies.next());
    let Some(Value::Int(mail)) = mail else { return None };
    is_fine(seen.clone()).then(|| (mail > 0, shown(seen)))
}

/// The hash of a user's sessions.
pub fn key(user: &UserName) -> String {
    format!("p:{}", user.as_str())
}

/// Tells whether a command was done.
pub fn is_fine(reply: Option<Value>) -> bool {
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
    entries.sort_unstable_by_key(|entry| (entry.since_us, entry.session));
    let mut places: Vec<Place> = vec![];
    for Entry { node, session, .. } in entries {
        match places.iter_mut().find(|place| place.node == *node) {
            Some(place) => place.sessions.push(*session),
            None => places.push(Place { node: node.clone(), sessions: vec![*session] }),
        }
    }
    places
}
