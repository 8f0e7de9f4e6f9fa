//! Presence: what a node asks Redis, and what the answers mean.
//!
//! A pure state machine: asks and time go in, rounds of commands come out, one at a time;
//! replies go in, and what they tell comes out. A thread carries (`redis_thread.rs`), or a
//! simulator in its place.
//!
//! Of two logins that race at least one sees the other, and which came first is written in the
//! hash, so all agree. A session removes its own field and no other, so a late removal can't
//! erase a newer login. Keys that nobody asks for end by their time to live, which begins anew
//! with every sweep.
//!
//! While Redis is away every ask is answered "unavailable" at once. What writes without an answer
//! that matters (a message was taken, a mailbox released, a session has ended) is deferred, and done
//! in the order in which it came, also after a failure: so what a session took is removed before
//! others may drain, and before the session is gone. Here are the state and its door;
//! `presence/table.rs` keeps this node in the table, `presence/asks.rs` what waits, `presence/round.rs` asks and tells,
//! `presence/lost.rs` notices what Redis has lost.

mod asks;
mod lost;
mod round;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::cluster::command::{RedisCommand, RedisReply};
use crate::cluster::event::unavailable;
use crate::cluster::lease::Nodes;
use crate::cluster::presence::asks::Asks;
use crate::cluster::sessions::Sessions;
use crate::node::seam::{Answer, Ask, News, Stored, Unavailable, What};
use crate::node::slab::Ticket;
use crate::proto::name::{NodeId, SessionId, UserName};

/// How long the bus may take to be reachable under a new id before others hear of it.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);

/// Deferred writes that may wait for Redis, of 2 KiB each at most; with more, all are given up, and this node
/// takes a new id: all of its old fields are dead at once, and messages that were taken will come once more.
const DEFERRED_MAX: usize = 65_536;

/// What presence is to know of its node.
pub struct PresenceConfig {
    /// A user may have one session only: a later login ends it.
    pub is_single: bool,
    /// There are mailboxes.
    pub has_mailboxes: bool,
    /// Makes node ids that nobody else has, ever.
    pub fresh_id: Box<dyn FnMut() -> NodeId + Send>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum PresenceStep {
    /// Connect to Redis: [`Presence::connected`] or [`Presence::lost`] follows.
    Connect,
    /// Run these in one pipeline: [`Presence::replied`] or [`Presence::lost`] follows.
    Run(Vec<RedisCommand>),
}

/// One thing that presence tells whoever drives it.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer to an ask.
    Answer(Ticket, Answer),
    /// For the node.
    News(News),
    /// The nodes that live, with the version of the wire that each reads, and those known to be dead:
    /// for the links.
    Nodes {
        /// These live.
        living: BTreeMap<NodeId, u8>,
        /// These do not.
        dead: Vec<NodeId>,
    },
    /// Others know of this node, and Redis can be asked until it is lost. The table was seen just now: who
    /// talks to this node for long and is not in it is a stranger.
    Renewed,
    /// This node goes on under a new id.
    Renamed(NodeId),
    /// For whoever watches the node.
    Warning(String),
}

/// What presence knows.
pub struct Presence {
    config: PresenceConfig,
    me: NodeId,
    /// When to connect, if Redis can't be asked.
    away: Option<Instant>,
    /// What was asked of Redis and is not answered.
    flight: Option<Flight>,
    /// A round whose replies can be understood when the table is known.
    held: Round,
    /// This node is in the table.
    has_joined: bool,
    /// It was asked to be in it, and there was no answer: Redis may have let it in, and taken it for dead since.
    may_have_joined: bool,
    /// When the table was seen last, and is to be next.
    renewed: Instant,
    renew_at: Instant,
    /// Since when this node waits for its queue, to join.
    join_since: Option<Instant>,
    /// The id for which there is a queue.
    queue: Option<NodeId>,
    /// There was one when this node joined last: said once if not.
    had_queue: bool,
    /// When this node came back under a new id, or was about to, or to another Redis.
    busy_since: Option<Instant>,
    nodes: Nodes,
    sessions: Sessions,
    losses: Losses,
    asks: Asks,
    /// Writes that wait for Redis: takings, releases and removals.
    deferred: VecDeque<Ask>,
    /// Users found nowhere while nodes write their sessions again: since when each is looked for, before
    /// anybody is told so, and who waits.
    doubts: BTreeMap<UserName, (Instant, Vec<Ticket>)>,
    /// When to look for them again.
    doubts_due: Instant,
    /// Redis has refused something for good; said once.
    was_refused: bool,
    /// There were more deferred writes than may wait.
    has_too_many: bool,
    is_stopping: bool,
    told: Vec<Told>,
}

/// What Redis may have lost, as far as it is known.
#[derive(Default)]
struct Losses {
    /// When Redis's clock was seen last, and what it said, in us.
    clock: Option<(Instant, i64)>,
    /// Users who are here, and whose entries in Redis are not.
    missing: Vec<UserName>,
    /// Users in whose places there is what is none of ours.
    misfits: BTreeSet<UserName>,
    /// Mailboxes of which it was said that they are none of ours.
    told: BTreeSet<String>,
    /// When all were written again last, for that.
    since: Option<Instant>,
}

/// What was asked of Redis.
enum Flight {
    /// To renew the lease, or to enter the table.
    Lease,
    /// To leave the table, because a new id is to follow.
    Leave,
    Round(Round),
}

/// What is done in one round.
#[derive(Default)]
struct Round {
    /// Each with so many commands.
    jobs: Vec<(Job, usize)>,
    /// Behind these the sessions of these users are read.
    users: Vec<UserName>,
    /// What Redis replied, once it did, but for deferred writes.
    replies: Vec<RedisReply>,
    /// When it began.
    since: Option<Instant>,
}

/// One thing that is done in a round.
enum Job {
    /// What the node asks.
    Ask(Ask),
    /// A user is looked for once more.
    Seek(UserName),
    /// What is none of ours is removed.
    Clear,
    /// A session is written once more: without delay, or as its turn comes.
    Assert { user: UserName, session: SessionId, is_urgent: bool },
}

impl Presence {
    /// Not connected, and nothing asked yet.
    pub fn new(me: NodeId, config: PresenceConfig, now: Instant) -> Self {
        Presence {
            config,
            me,
            away: Some(now),
            flight: None,
            held: Round::default(),
            has_joined: false,
            may_have_joined: false,
            renewed: now,
            renew_at: now,
            join_since: None,
            queue: None,
            had_queue: true,
            busy_since: None,
            nodes: Nodes::default(),
            sessions: Sessions::default(),
            losses: Losses::default(),
            asks: Asks::default(),
            deferred: VecDeque::new(),
            doubts: BTreeMap::new(),
            doubts_due: now,
            was_refused: false,
            has_too_many: false,
            is_stopping: false,
            told: vec![],
        }
    }

    /// The node asks.
    pub fn ask(&mut self, ask: Ask) {
        if self.away.is_none() && !self.is_stopping {
            self.asks.push(ask);
        } else {
            self.refuse(ask);
        }
    }

    /// A session has ended, and its node was told so already.
    pub fn ended(&mut self, user: UserName, session: SessionId) {
        self.sessions.remove(session);
        self.remove(user, self.me.clone(), session);
    }

    /// There is a connection to Redis; `is_another` when it is not the Redis of before, or one that was
    /// started again.
    pub fn connected(&mut self, is_another: bool, now: Instant) {
        self.away = None;
        self.renew_at = now;
        if is_another {
            // Its data may be old: sessions may be missing until all nodes have written them.
            self.busy_since = Some(now);
            self.forget_clock();
            // And its table may count up to a version that was another one's, where its clock was set back.
            self.nodes.version.clear();
        }
        // Whatever happened to Redis meanwhile: what it must know is written again.
        self.sessions.assert_all(now);
    }

    /// Redis can't be asked; it is to be tried again at this time.
    pub fn lost(&mut self, retry_at: Instant) {
        self.away = Some(retry_at);
        self.join_since = None;
        self.refuse_doubts();
        match self.flight.take() {
            Some(Flight::Round(round)) => {
                let mut undone = vec![];
                for (job, _) in round.jobs {
                    match job {
                        Job::Ask(ask) if is_write(&ask) => undone.push(ask),
                        job => self.refuse_job(job),
                    }
                }
                self.put_back(undone);
            }
            Some(Flight::Leave) => self.has_too_many = true,
            Some(Flight::Lease) | None => {}
        }
        self.refuse_all();
    }

    /// There is a queue at the broker for the node of this id.
    pub fn has_queue(&mut self, node: Option<NodeId>) {
        self.queue = node;
    }

    /// Others know of this node, and it has a queue.
    pub fn can_be_reached(&self) -> bool {
        self.has_joined && self.queue.as_ref() == Some(&self.me)
    }

    /// All sessions are to be written again.
    pub fn assert_all(&mut self, now: Instant) {
        self.sessions.assert_all(now);
    }

    /// These nodes talk to this one and should have come into the table long since.
    pub fn strangers(&mut self, strangers: Vec<NodeId>) {
        self.bury(strangers.into_iter().filter(|node| self.nodes.is_unknown(node)).collect());
    }

    /// The node goes: nothing is answered any more, and what is deferred is still done.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.refuse_doubts();
        self.refuse_all();
    }

    /// When to look for a step by itself.
    pub fn due(&self) -> Instant {
        if let Some(retry_at) = self.away {
            return retry_at;
        }
        let due = self.join_since.map_or(self.renew_at, |since| since + QUEUE_TIME_MAX);
        let doubts = (!self.doubts.is_empty()).then_some(self.doubts_due);
        let of_round = self.sessions.due.into_iter().chain(doubts).filter(|_| self.has_joined);
        of_round.fold(due, Instant::min)
    }

    /// What is to be done now, if anything is; nothing while a step is under way.
    pub fn next(&mut self, now: Instant) -> Option<PresenceStep> {
        if self.flight.is_some() {
            return None;
        }
        if let Some(retry_at) = self.away {
            return (now >= retry_at && !self.is_stopping).then_some(PresenceStep::Connect);
        }
        let of_table = if self.is_stopping { None } else { self.next_of_table(now) };
        let can_ask = self.is_stopping || self.has_joined;
        of_table.or_else(|| can_ask.then(|| self.next_round(now))?).map(PresenceStep::Run)
    }

    /// The replies to the last step, in order.
    ///
    /// # Errors
    /// When Redis does not do its work: the connection is to be given up.
    pub fn replied(&mut self, replies: Vec<RedisReply>, now: Instant) -> Result<(), String> {
        let flight = self.flight.take().expect("replies come to what was asked");
        match flight {
            Flight::Lease => return self.renewed(replies.into_iter().next(), now),
            Flight::Leave => self.restart("too many sessions ended while Redis was away", now),
            Flight::Round(round) => return self.replied_to_round(round, replies, now),
        }
        Ok(())
    }

    /// What there is to tell, in order; it is taken out.
    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.told.push(Told::Answer(ticket, answer));
    }

    /// Does what can be done without Redis.
    fn refuse(&mut self, ask: Ask) {
        match unavailable(&ask) {
            Some(answer) => self.answer(ask.ticket, answer),
            None => self.defer(ask),
        }
    }

    /// Redis did not answer: nothing is known, and what was to be stored may be.
    fn refuse_job(&mut self, job: Job) {
        let Job::Ask(ask) = job else { return };
        let mut answer = unavailable(&ask).expect("what only writes is deferred");
        if let Answer::Stored(fates, _) = &mut answer {
            fates.fill(Stored::Unknown);
        }
        self.answer(ask.ticket, answer);
    }

    /// Nobody waits any more for what was asked.
    fn refuse_all(&mut self) {
        std::mem::take(&mut self.held).jobs.into_iter().for_each(|(job, _)| self.refuse_job(job));
        self.asks.take_all().for_each(|ask| self.refuse(ask));
    }

    fn refuse_doubts(&mut self) {
        for ticket in std::mem::take(&mut self.doubts).into_values().flat_map(|(_, tickets)| tickets) {
            self.answer(ticket, Answer::Located(Err(Unavailable)));
        }
    }

    /// What writes is done as soon as may be, and behind what is deferred already.
    fn defer(&mut self, ask: Ask) {
        if self.deferred.len() >= DEFERRED_MAX {
            let is_taking = |ask: &&Ask| matches!(ask.what, What::Take(..));
            let count = self.deferred.iter().filter(is_taking).count();
            let why = format!("too much waits for Redis: {count} messages or more may be shown twice");
            self.told.push(Told::Warning(why));
            self.deferred.clear();
            self.has_too_many = true;
        }
        let ask = self.wait_no_more(ask);
        self.deferred.push_back(ask);
    }

    /// These, which were the next, could not be done: they are the next again.
    fn put_back(&mut self, undone: Vec<Ask>) {
        for ask in undone.into_iter().rev() {
            let ask = self.wait_no_more(ask);
            self.deferred.push_front(ask);
        }
    }

    /// Nobody waits for what can't be removed now.
    fn wait_no_more(&mut self, ask: Ask) -> Ask {
        let Ask { ticket, user, what: What::Unregister(session) } = ask else { return ask };
        self.sessions.remove(session);
        self.answer(ticket, Answer::Unregistered);
        Ask { ticket: Ticket::default(), user, what: What::Remove(self.me.clone(), session) }
    }

    /// A session is to be removed from Redis.
    fn remove(&mut self, user: UserName, node: NodeId, session: SessionId) {
        self.defer(Ask { ticket: Ticket::default(), user, what: What::Remove(node, session) });
    }

    /// These are dead, though the table did not tell.
    fn bury(&mut self, nodes: BTreeSet<NodeId>) {
        if !nodes.is_empty() {
            nodes.iter().for_each(|node| self.nodes.bury(node));
            self.tell_nodes();
        }
    }

    fn tell_nodes(&mut self) {
        let (living, dead) = (self.nodes.living.clone(), self.nodes.dead.iter().cloned().collect());
        self.told.push(Told::Nodes { living, dead });
    }
}

/// Tells whether an ask only writes: it is deferred if it can't be done.
fn is_write(ask: &Ask) -> bool {
    match ask.what {
        What::Unregister(_) | What::Remove(..) | What::Take(..) | What::Release(_) => true,
        What::Locate(_) | What::Register(_) | What::Store(_) | What::Read(..) => false,
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
