//! Presence: the thread that talks to Redis.
//!
//! The client library is synchronous, so it has a thread of its own, which
//! answers whatever waits for it in one pipeline. Asking is sending a value;
//! answers go up as events.
//!
//! ```text
//! p:{user}    hash         tag -> time of the login, in us (`sessions.rs`)
//! m:{user}    list         the mailbox                     (`mailbox/redis.rs`)
//! d:{user}    string       what the user was shown lately  (`presence/mail.rs`)
//! {nodes}...               the living nodes                (`lease.rs`)
//! ```
//!
//! A login is two commands: the session is written, then all sessions of the
//! user are read. Of two that race at least one sees the other, and which came
//! first is written in the hash, so all agree. A session removes its own field
//! and no other, so a late removal can't erase a newer login. Fields of dead
//! nodes are ignored and removed by whoever meets them; keys that nobody asks
//! for end by their time to live, which begins anew with every sweep. Whatever is
//! written may be written again, or late, without harm.
//!
//! While Redis is away every question is answered "unavailable" at once, and
//! what is to be removed waits.

mod answers;
#[cfg(test)]
mod chore_tests;
mod chores;
mod mail;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use log::warn;

use crate::cluster::lease::{Act, RENEW_TIME, Renewed, clock_us};
use crate::cluster::presence::chores::Chores;
use crate::cluster::sessions::{Sessions, tag};
use crate::cluster::shared::Shared;
use crate::cluster::store::Store;
use crate::cluster::{Event, Stored, Unavailable};
use crate::config::Redis;
use crate::outbox::Shown;
use crate::proto::{Envelope, NodeId, SessionId, UserName};

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
    /// To remove a session of this node: [`Event::Unregistered`] follows.
    Unregister {
        /// Whose it was.
        user: UserName,
        /// Which it was.
        session: SessionId,
        /// What it was shown.
        shown: Shown,
        /// What the answer is for.
        number: u64,
    },
    /// To put a message into its recipient's mailbox: [`Event::Stored`] follows.
    Store {
        /// The message.
        envelope: Envelope,
        /// What the answer is for.
        number: u64,
    },
    /// To read on in a mailbox: [`Event::Read`] follows.
    Read {
        /// Whose it is.
        user: UserName,
        /// The session that drains it.
        session: SessionId,
        /// The place of the last message that was read.
        after: u64,
    },
    /// To remove messages from a mailbox.
    Take {
        /// Whose it is.
        user: UserName,
        /// All up to this place,
        up_to: u64,
        /// and those at these.
        also: Vec<u64>,
    },
    /// To let other sessions drain the mailbox.
    Release {
        /// The session that drained it.
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

/// How long the bus may take to be reachable under a new id before others hear of it.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);

/// How often Redis is asked the time, at most, before others hear of a node that joins.
const TIME_ASKS_MAX: usize = 8;

/// How long the bus may take to say its last words.
const BUS_END_TIME_MAX: Duration = Duration::from_millis(1_500);

/// How long there is doubt after this node came back under a new id. If Redis lost its data the
/// others are to come back too: each looks for Redis every 2 seconds, and waits as long for a queue.
const DOUBT_TIME: Duration = Duration::from_secs(5);

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
    renewed: Instant,
    renew_at: Instant,
    has_joined: bool,
    /// There was a queue when this node joined last, or has tried to: said once if not.
    had_queue: bool,
    /// When this node came back under a new id, or was about to, or to another Redis.
    busy_since: Option<Instant>,
    sessions: Sessions,
    removals: VecDeque<Removal>,
    mail: Chores,
    /// Redis has refused something for good; said once.
    was_refused: bool,
    /// There were more removals than may wait.
    has_too_many: bool,
    /// Users that were not found while there was doubt, and since when they are looked for;
    /// no more than have messages in flight.
    doubted: HashMap<UserName, Instant>,
    doubted_due: Instant,
}

/// A session that is to be removed from Redis.
struct Removal {
    user: UserName,
    tag: String,
    /// The chores below this number come first: what a session was shown is known before the session
    /// is not.
    behind: u64,
    /// What [`Event::Unregistered`] is for, unless it was told.
    number: Option<u64>,
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
            renewed: now,
            renew_at: now,
            has_joined: false,
            had_queue: true,
            busy_since: None,
            sessions: Sessions::default(),
            removals: VecDeque::new(),
            mail: Chores::default(),
            was_refused: false,
            has_too_many: false,
            doubted: HashMap::new(),
            doubted_due: now,
        }
    }

    /// Runs until the node goes.
    pub fn run(mut self) {
        while !self.shared.is_stopping() {
            if let Err(why) = self.keep_up() {
                self.lose(&why);
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
                    self.lose(&why);
                }
            } else {
                asks.into_iter().for_each(|ask| self.refuse(ask));
                self.stop_waiting_for_removals();
            }
        }
        self.leave();
    }

    /// When something is to be done by itself.
    fn next_due(&self, now: Instant) -> Instant {
        if !self.store.is_open() {
            // What waits for a broker that is away too is looked at all the same.
            return self.store.retry_at().min(now + RENEW_TIME);
        }
        let mut due = self.renew_at.min(self.shared.announced().due().unwrap_or(self.renew_at));
        if let Some(at) = self.sessions.due() {
            due = due.min(at);
        }
        if !self.doubted.is_empty() {
            due = due.min(self.doubted_due);
        }
        if !self.removals.is_empty() || !self.mail.is_empty() {
            due = now;
        }
        due
    }

    /// Does what is due by itself: connects, renews the lease, asserts sessions.
    fn keep_up(&mut self) -> Result<(), String> {
        let now = Instant::now();
        self.shared.give_up_waiting();
        let overdue = self.shared.announced().overdue(now);
        overdue.into_iter().for_each(|event| self.shared.tell(event));
        if !self.store.is_open() {
            if now < self.store.retry_at() {
                return Ok(());
            }
            let is_another = self.store.connect()?;
            self.renew_at = now;
            if is_another {
                // Its data may be old: sessions may be missing until all nodes have written them.
                self.busy_since = Some(now);
            }
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
            // Under the old id those who are gone would count until its lease has run out.
            let old = self.shared.node();
            let command = self.shared.nodes().command(&old, Act::Leave, false);
            self.store.query(&command)?;
            self.restart("too many sessions ended while Redis was away");
        }
        let act = if self.has_joined { Act::Renew } else { Act::Join };
        if act == Act::Join {
            let has_queue = self.shared.wait_for_queue(QUEUE_TIME_MAX);
            if !has_queue && self.had_queue {
                // Others may look for us at the broker in vain; their messages wait until we are there.
                warn!("joining without RabbitMQ: users of other nodes can't be reached yet");
            }
            self.had_queue = has_queue;
            // Redis may have lost its data once more since.
            self.busy_since = self.busy_since.map(|_| Instant::now());
        }
        let is_new = self.busy_since.is_some_and(|at| at.elapsed() < DOUBT_TIME);
        let is_busy = self.busy_since.is_some() && (is_new || self.sessions.is_asserting_all());
        let me = self.shared.node();
        let command = self.shared.nodes().command(&me, act, is_busy);
        let asked_us = clock_us();
        let answer = self.store.query(&command)?;
        let renewed =
            self.shared.nodes().renewed(answer, asked_us).ok_or("it answers what makes no sense")?;
        let keys = self.shared.nodes().seen_keys(Instant::now());
        self.shared.set_seen_keys(keys);
        if self.shared.nodes().take_data_loss() {
            self.remember_again();
        }
        self.renewed = Instant::now();
        self.renew_at = self.renewed + RENEW_TIME;
        match renewed {
            Renewed::Held(dead) => {
                self.shared.bury(&dead);
                self.shared.end_strangers();
                self.store.is_well();
                self.shared.set_presence(true);
                if act == Act::Join {
                    self.ask_the_time();
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

    /// Asks Redis's time until it is known well: an answer that was long on its way says little.
    fn ask_the_time(&mut self) {
        for _ in 0..TIME_ASKS_MAX {
            if self.shared.nodes().knows_the_time() {
                return;
            }
            let asked_us = clock_us();
            let Ok(answer) = self.store.query(&redis::cmd("TIME")) else { return };
            self.shared.nodes().told_time(answer, asked_us);
        }
    }

    /// Redis does not know any more what users were shown who have left this node.
    fn remember_again(&mut self) {
        let left = self.shared.left();
        let shown = |all: &[u64]| Shown { all: all.to_vec(), inherited: 0 };
        let all: Vec<_> = left.all(Instant::now()).map(|(user, all)| (user.clone(), shown(all))).collect();
        drop(left);
        all.iter().for_each(|(user, shown)| self.mail.remember_again(user, shown));
    }

    /// This node goes on under a new id.
    fn restart(&mut self, why: &str) {
        let node = self.shared.restart();
        warn!("{why}: it is {} from now on", node.as_str());
        self.has_joined = false;
        self.busy_since = Some(Instant::now());
        self.stop_waiting_for_removals();
        self.removals.clear();
        self.sessions.assert_all(Instant::now());
    }

    /// Does what can be done without Redis.
    fn refuse(&mut self, ask: Ask) {
        match ask {
            Ask::Locate { user, is_here } => {
                self.doubted.remove(&user);
                self.shared.located(user, Err(Unavailable), is_here);
            }
            Ask::Register { number, .. } => {
                self.shared.tell(Event::Registered { number, welcome: Err(Unavailable) });
            }
            Ask::Unregister { user, session, shown, number } => {
                self.sessions.remove(session);
                self.mail.cancel_release(session);
                self.mail.remember(&user, &shown);
                let node = self.shared.node();
                self.remove_and_tell(user, tag(&node, session), Some(number));
            }
            Ask::Store { envelope, number } => {
                let (user, fates) = (envelope.to, vec![(number, Stored::No)]);
                self.shared.tell(Event::Stored { user, fates, places: Err(Unavailable) });
            }
            Ask::Read { session, .. } => {
                self.shared.tell(Event::Read { session, mail: Err(Unavailable) });
            }
            Ask::Take { user, up_to, also } => self.mail.take(user, up_to, also),
            // One that has ended is removed, and its mark with it.
            Ask::Release { session } if self.sessions.find(session).is_none() => {}
            Ask::Release { session } => self.mail.release(session),
            Ask::Remove { user, node, session } => self.remove(user, tag(&node, session)),
            Ask::AssertAll => self.sessions.assert_all(Instant::now()),
            Ask::Wake => {}
        }
    }

    /// A session is to be removed from Redis as soon as may be.
    fn remove(&mut self, user: UserName, tag: String) {
        self.remove_and_tell(user, tag, None);
    }

    fn remove_and_tell(&mut self, user: UserName, tag: String, number: Option<u64>) {
        if self.removals.len() >= REMOVALS_MAX {
            self.stop_waiting_for_removals();
            self.removals.clear();
            self.has_too_many = true;
        }
        self.removals.push_back(Removal { user, tag, behind: self.mail.end(), number });
    }

    /// Nobody waits for what can't be removed now.
    fn stop_waiting_for_removals(&mut self) {
        for number in self.removals.iter_mut().filter_map(|removal| removal.number.take()) {
            self.shared.tell(Event::Unregistered { number });
        }
    }

    /// Redis is away.
    fn lose(&mut self, why: &str) {
        self.stop_waiting_for_removals();
        self.shared.set_presence(false);
        self.store.lose(why);
    }

    /// Takes this node out of the table, and what was left to remove with it.
    fn leave(mut self) {
        while let Ok(ask) = self.asks.try_recv() {
            self.refuse(ask);
        }
        let node = self.shared.node();
        let command = self.shared.nodes().command(&node, Act::Leave, false);
        let removing = |presence: &mut Self| -> Result<(), String> {
            while !presence.removals.is_empty() || !presence.mail.is_empty() {
                presence.answer(vec![])?;
            }
            presence.store.query(&command).map(drop)
        };
        // A node that is not in the table any more is not listened to.
        self.shared.wait_for_bus_end(BUS_END_TIME_MAX);
        if self.store.is_open() && removing(&mut self).is_err() {
            warn!("Redis was not told that this node goes: its lease will run out");
        }
    }
}
