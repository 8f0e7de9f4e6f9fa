//! What presence knows, and the little that every rule does with it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::cluster::command::tag;
use crate::cluster::deferred::Deferred;
use crate::cluster::deferred::DeferredWrite;
use crate::cluster::lease::Nodes;
use crate::cluster::presence::doubts::Doubts;
use crate::cluster::presence::job::Replies;
use crate::cluster::presence::job::Round;
use crate::cluster::sessions::Sessions;
use crate::cluster::told::Told;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::node::seam::Token;
use crate::proto::name::NodeId;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

/// How long the bus may take to be reachable under a new id before others hear of it.
pub const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);

/// Removals that may wait for Redis; with more, this node takes a new id, and all of its old fields are
/// dead at once.
pub const REMOVALS_MAX: usize = 65_536;

/// What presence is to know of its node.
pub struct PresenceConfig {
    /// A user may have one session only: a later login ends it.
    pub is_single: bool,
    /// There are mailboxes.
    pub has_mailboxes: bool,
    /// Makes node ids that nobody else has, ever.
    pub fresh_id: Box<dyn FnMut() -> NodeId + Send>,
    /// This machine's clock, in us since 1970: what counts until Redis has told its own.
    pub clock_us: i64,
}

/// The state.
pub struct Presence {
    pub(super) config: PresenceConfig,
    pub(super) me: NodeId,
    pub(super) start: Instant,
    /// When to connect, if Redis can't be asked.
    pub(super) away: Option<Instant>,
    /// What was asked of Redis and is not answered.
    pub(super) flight: Option<Flight>,
    /// Replies that can be understood when the table is known.
    pub(super) held: Replies,
    pub(super) table: Table,
    pub(super) nodes: Nodes,
    pub(super) sessions: Sessions,
    pub(super) asks: VecDeque<Ask>,
    pub(super) deferred: Deferred,
    pub(super) doubts: Doubts,
    /// Redis has refused something for good; said once.
    pub(super) was_refused: bool,
    /// There were more removals than may wait.
    pub(super) has_too_many: bool,
    pub(super) is_stopping: bool,
    pub(super) told: Vec<Told>,
}

/// What was asked of Redis.
pub enum Flight {
    /// To renew the lease, or to enter the table.
    Lease {
        is_joining: bool,
        since: Instant,
    },
    /// To leave the table, because a new id is to follow.
    Leave,
    Time {
        since: Instant,
    },
    Round(Round),
}

/// This node's place in the table.
pub struct Table {
    pub has_joined: bool,
    /// When the table was seen last.
    pub renewed: Instant,
    pub renew_at: Instant,
    /// Since when this node waits for its queue, to join.
    pub join_since: Option<Instant>,
    /// The id for which there is a queue.
    pub queue: Option<NodeId>,
    /// There was one when this node joined last: said once if not.
    pub had_queue: bool,
    /// When this node came back under a new id, or was about to, or to another Redis.
    pub busy_since: Option<Instant>,
    /// How often Redis may still be asked the time.
    pub time_asks: usize,
}

impl Table {
    pub fn new(now: Instant) -> Self {
        Table {
            has_joined: false,
            renewed: now,
            renew_at: now,
            join_since: None,
            queue: None,
            had_queue: true,
            busy_since: None,
            time_asks: 0,
        }
    }

    /// When there is something to do by itself.
    pub fn due(&self) -> Instant {
        match self.join_since {
            Some(since) => since + QUEUE_TIME_MAX,
            None => self.renew_at,
        }
    }
}

impl Presence {
    /// Not connected, and nothing asked yet.
    pub fn new(me: NodeId, config: PresenceConfig, now: Instant) -> Self {
        Presence {
            config,
            me,
            start: now,
            away: Some(now),
            flight: None,
            held: Replies::default(),
            table: Table::new(now),
            nodes: Nodes::default(),
            sessions: Sessions::default(),
            asks: VecDeque::new(),
            deferred: Deferred::default(),
            doubts: Doubts::new(now),
            was_refused: false,
            has_too_many: false,
            is_stopping: false,
            told: vec![],
        }
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.told.push(Told::Answer(answer));
    }

    /// This machine's clock, in us.
    pub(super) fn clock_us(&self, now: Instant) -> i64 {
        self.config.clock_us + now.duration_since(self.start).as_micros() as i64
    }

    /// Puts what does not have to be done at once on its list.
    pub(super) fn put_off(&mut self, ask: Ask) {
        match ask {
            Ask::Unregister { token, user, session } => self.unregister(user, session, Some(token)),
            Ask::Take { user, up_to, also } => self.deferred.add(DeferredWrite::Take { user, up_to, also }),
            // One that has ended is removed, and its mark with it.
            Ask::Release { session, .. } => {
                if let Some(number) = self.sessions.set_releases(session) {
                    self.deferred.add(DeferredWrite::Release { session, number });
                }
            }
            Ask::Remove { user, node, session } => self.remove(user, tag(&node, session), None),
            Ask::Locate { .. } | Ask::Register { .. } | Ask::Store { .. } | Ask::Read { .. } => {
                unreachable!("it is answered")
            }
        }
    }

    pub(super) fn unregister(&mut self, user: UserName, session: SessionId, token: Option<Token>) {
        self.sessions.remove(session);
        let (tag, is_away) = (tag(&self.me, session), self.away.is_some());
        // Nobody waits for a Redis that is away.
        let waits = token.filter(|_| !is_away);
        self.remove(user, tag, waits);
        if let Some(token) = token.filter(|_| is_away) {
            self.answer(Answer::Unregistered { token });
        }
    }

    /// A session is to be removed from Redis as soon as may be.
    pub(super) fn remove(&mut self, user: UserName, tag: String, token: Option<Token>) {
        if self.deferred.removals() >= REMOVALS_MAX {
            self.clear_removals();
            self.has_too_many = true;
        }
        self.deferred.add(DeferredWrite::Remove { user, tag, token });
    }

    pub(super) fn clear_removals(&mut self) {
        self.stop_waiting_for_removals();
        self.deferred.clear_removals();
    }

    /// Nobody waits for what can't be removed now.
    pub(super) fn stop_waiting_for_removals(&mut self) {
        for token in self.deferred.take_tokens() {
            self.answer(Answer::Unregistered { token });
        }
    }

    /// These are dead, though the table did not tell.
    pub(super) fn bury(&mut self, nodes: BTreeSet<NodeId>) {
        if !nodes.is_empty() {
            nodes.iter().for_each(|node| self.nodes.bury(node));
            self.tell_nodes();
        }
    }

    pub(super) fn tell_nodes(&mut self) {
        let (living, dead) = (self.nodes.living.clone(), self.nodes.dead.iter().cloned().collect());
        self.told.push(Told::Nodes { living, dead });
    }
}
