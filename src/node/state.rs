//! All that one node knows: the fields of [`Node`], and the smallest things that are done with them.
//!
//! The rules are in the files above this one, each of which adds its methods to `Node`. What a rule leads to elsewhere
//! is put on the list [`Todo`], which the end of every step carries out in order, so that no rule finds the state half
//! changed by another.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::mailbox::Limits;
use crate::mailbox::post::Post;
use crate::metrics::Counters;
use crate::node::connection::{Connection, Phase};
use crate::node::deadlines::{InFlight, Pending, Timeouts};
use crate::node::deliveries::Deliveries;
use crate::node::duplicates::HashKey;
use crate::node::lane::Act;
use crate::node::lanes::{Kept, Lanes};
use crate::node::others::{Locations, Peers, Refusals};
use crate::node::out::Says;
use crate::node::outbox::{ReplyTo, Spares};
use crate::node::seam::{Answer, Ask, What};
use crate::node::session_table::{Seat, SessionTable};
use crate::node::slab::{ConnectionId, DeliveryId, LaneId, Slab, Ticket};
use crate::proto::name::{NodeId, SessionId, UserName};
use crate::proto::reply::{CloseReason, ErrorCode, ServerLine};

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Sessions a user may hold; with 1 a new login replaces the old.
    pub sessions_max: usize,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// How long a connection may take to log in.
    pub login_time_max: Duration,
    /// How often a stream is pinged.
    pub ping_time: Option<Duration>,
    /// What bounds mailboxes.
    pub mailboxes: Limits,
    /// There are no other nodes, and never will be: the node answers its own asks.
    pub is_alone: bool,
    /// What it remembers messages by: nobody else knows it.
    pub hash_key: u64,
    /// What its session ids are made from.
    pub seed: u64,
}

/// One node's mind.
pub struct Node {
    pub(super) config: NodeConfig,
    /// The time of this step, as it was given.
    pub(super) now: Instant,
    /// What others reach it by.
    pub(super) me: NodeId,
    pub(super) connections: Slab<'c', Connection>,
    pub(super) table: SessionTable,
    pub(super) in_flight: InFlight,
    pub(super) deliveries: Deliveries,
    pub(super) lanes: Lanes,
    /// `WHO`s that have no answer yet.
    pub(super) questions: usize,
    pub(super) peers: Peers,
    pub(super) locations: Locations,
    /// What other nodes must have back before anything is taken from them.
    pub(super) refusals: Refusals,
    /// Presence and mailboxes of a node alone, which answers its own asks: nobody is elsewhere, and what waits for
    /// users who are not here ends with the node.
    pub(super) own: Option<Post>,
    pub(super) timeouts: Timeouts,
    /// Requests that need the node to stay are refused.
    pub(super) is_draining: bool,
    /// Where the next session id comes from.
    pub(super) random: u64,
    /// What is left to do in this step.
    pub(super) todo: VecDeque<Todo>,
    pub(super) counters: Counters,
    pub(super) out: Out,
    /// Memory that is used again.
    pub(super) spares: Spares,
    /// The sessions that were looked up last.
    pub(super) seats: Vec<Seat>,
    /// The line of the message that is handed out.
    pub(super) line: Vec<u8>,
    /// What a lane wants done, on its way to `todo`.
    pub(super) acts: Vec<Act<Kept>>,
    /// The deliveries that were written last.
    pub(super) reached: Vec<DeliveryId>,
}

/// What a rule leads to.
pub enum Todo {
    /// A lane wants this done.
    Act(LaneId, Act<Kept>),
    /// The own presence has answered.
    Answer(Ticket, Answer),
    /// A connection is to end.
    Close(ConnectionId, CloseReason),
    /// A connection that ends may have all that it is owed.
    Finish(ConnectionId),
}

/// What a step has left for the driver.
#[derive(Default)]
pub struct Out {
    /// What to say to other nodes.
    pub says: Says,
    /// What to ask presence.
    pub asks: Vec<Ask>,
    /// Outboxes that have something new to write and do not block, each once; those of streams are in `woken`.
    pub dirty: Vec<ConnectionId>,
    /// Connections whose own task must look, each once.
    pub woken: Vec<ConnectionId>,
}

impl Node {
    /// A node that knows nothing yet.
    pub fn new(me: NodeId, config: NodeConfig, now: Instant) -> Self {
        let own = config.is_alone.then(|| Post::new(config.mailboxes));
        Node {
            now,
            me,
            connections: Slab::default(),
            table: SessionTable::default(),
            in_flight: InFlight::default(),
            deliveries: Deliveries::new(HashKey(config.hash_key)),
            lanes: Lanes::default(),
            questions: 0,
            peers: Peers::default(),
            locations: Locations::default(),
            refusals: Refusals::default(),
            own,
            timeouts: Timeouts::new(config.login_time_max, config.ping_time),
            is_draining: false,
            random: config.seed,
            todo: VecDeque::new(),
            counters: Counters::default(),
            out: Out::default(),
            spares: Spares::default(),
            seats: vec![],
            line: vec![],
            acts: vec![],
            reached: vec![],
            config,
        }
    }

    /// Tells whether there are mailboxes.
    pub(super) fn has_mailboxes(&self) -> bool {
        self.config.mailboxes.messages_max > 0
    }

    /// Asks presence, or tells it what to do; `pending` is what waits for the answer.
    pub(super) fn ask(&mut self, pending: Option<Pending>, user: UserName, what: What) {
        let ticket = pending.map(|pending| self.in_flight.insert(pending, self.now)).unwrap_or_default();
        let ask = Ask { ticket, user, what };
        let Some(own) = &mut self.own else { return self.out.asks.push(ask) };
        let answer = own.answer(ask, vec![], self.now);
        self.todo.extend(answer.map(|answer| Todo::Answer(ticket, answer)));
    }

    /// The user and the session of a connection, unless that has left.
    pub(super) fn session_of(&self, id: ConnectionId) -> Option<(UserName, SessionId)> {
        let connection = self.connections.get(id)?;
        Some((connection.user.clone()?, connection.session?))
    }

    /// Puts the sessions of a user into `seats`; `false` if there are none.
    pub(super) fn find(&mut self, user: &str) -> bool {
        self.seats.clear();
        if let Some((_, seats)) = self.table.find(user) {
            self.seats.extend_from_slice(seats);
        }
        !self.seats.is_empty()
    }

    /// Answers a request at once: under its tag, or behind the untagged replies that are due.
    pub(super) fn reply(&mut self, to: ConnectionId, tag: Option<&str>, print: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(to).filter(|connection| connection.says()) else {
            return;
        };
        connection.outbox.reply(&mut self.spares, tag, print);
        self.note_bytes(to);
    }

    /// Answers a request that was expected to be answered later.
    pub(super) fn answer(&mut self, to: ConnectionId, reply: &ReplyTo, print: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(to).filter(|connection| connection.says()) else {
            return;
        };
        connection.outbox.answer(&mut self.spares, reply, print);
        if matches!(connection.phase, Phase::Finishing { .. }) && connection.outbox.due() == 0 {
            self.todo.push_back(Todo::Finish(to));
        }
        self.note_bytes(to);
        self.relieve(to);
    }

    /// Answers at once that a request did not work.
    pub(super) fn refuse(&mut self, to: ConnectionId, tag: Option<&str>, code: ErrorCode, text: &str) {
        self.counters.error(code);
        self.reply(to, tag, |out| ServerLine::Err { code, text }.print(out));
    }

    /// Answers later that a request did not work.
    pub(super) fn fail(&mut self, to: ConnectionId, reply: &ReplyTo, code: ErrorCode) {
        self.fail_saying(to, reply, code, code.text());
    }

    /// The same, with a text that fits the request.
    pub(super) fn fail_saying(&mut self, to: ConnectionId, reply: &ReplyTo, code: ErrorCode, text: &str) {
        self.counters.error(code);
        self.answer(to, reply, |out| ServerLine::Err { code, text }.print(out));
    }

    /// Takes note that a request will be answered later.
    pub(super) fn expect(&mut self, of: ConnectionId, tag: Option<&str>) -> ReplyTo {
        let connection = self.connections.get_mut(of).expect("who asks is here");
        connection.outbox.expect(&mut self.spares, tag)
    }

    /// A connection has something new to write.
    pub(super) fn note_bytes(&mut self, of: ConnectionId) {
        let Some(connection) = self.connections.get_mut(of) else { return };
        if connection.is_stream {
            return self.wake(of);
        }
        if !connection.is_dirty && connection.outbox.blocked_since().is_none() {
            connection.is_dirty = true;
            self.out.dirty.push(of);
        }
    }

    /// A connection's own task must look.
    pub(super) fn wake(&mut self, of: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(of)
            && !std::mem::replace(&mut connection.is_woken, true)
        {
            self.out.woken.push(of);
        }
    }

    /// Less waits for a connection: whoever waits for that goes on.
    pub(super) fn relieve(&mut self, of: ConnectionId) {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.connections.get_mut(of) else { return };
        let mut woken = vec![];
        if connection.is_paused && connection.is_relieved(bytes_max) {
            connection.is_paused = false;
            woken.push(of);
        }
        if !connection.waiting.is_empty() && connection.filled() <= bytes_max / 2 {
            woken.extend(std::mem::take(&mut connection.waiting));
        }
        self.go_on(woken);
    }

    /// Something that a connection sent or asked has its answer: it has a larger share now.
    pub(super) fn relieve_own(&mut self, of: ConnectionId) {
        let connection = self.connections.get_mut(of);
        if connection.is_some_and(|connection| std::mem::take(&mut connection.waits_for_own)) {
            self.go_on(vec![of]);
        }
    }

    /// These need not wait any more.
    pub(super) fn go_on(&mut self, woken: Vec<ConnectionId>) {
        for of in woken {
            if let Some(connection) = self.connections.get_mut(of) {
                connection.is_waiting = false;
                self.wake(of);
            }
        }
    }
}
