//! One connection as the node knows it: its conversation, what it is owed, and what waits for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::node::outbox::{Outbox, REPLIES_DUE_MAX};
use crate::node::slab::ConnectionId;
use crate::node::unacknowledged::Unacknowledged;
use crate::proto::name::{NodeId, SessionId, UserName};
use crate::proto::reply::CloseReason;

/// A connection. An idle one holds no memory beside this.
#[derive(Default)]
pub struct Connection {
    pub phase: Phase,
    pub user: Option<UserName>,
    /// The session's id, from the `LOGIN` on.
    pub session: Option<SessionId>,
    /// Messages of this session that this node gave an id.
    pub count: u64,
    pub outbox: Outbox,
    /// Of a session that acknowledges, or holds live messages.
    pub unacknowledged: Option<Box<Unacknowledged>>,
    /// The mailbox is drained to it, or something of it waits for that.
    pub drain: Option<Box<Drain>>,
    /// Connections that wait for room here.
    pub waiting: Vec<ConnectionId>,
    /// Bytes of its messages in lanes.
    pub lane_bytes: u32,
    /// `WHO`s of it that have no answer yet.
    pub questions: u32,
    /// Its bytes are written by its own task, and not by the flush.
    pub is_stream: bool,
    /// It has a line that has to wait: it is woken when that may be tried again.
    pub is_waiting: bool,
    /// It is woken when anything that it sent or asked has its answer.
    pub waits_for_own: bool,
    /// It was not read because it was owed too much: it is woken when half of that is done.
    pub is_paused: bool,
    /// It is a stream that is to be pinged.
    pub is_silent: bool,
    /// It is on the list of outboxes to write.
    pub is_dirty: bool,
    /// It is on the list of those whose own task must look.
    pub is_woken: bool,
    /// It is on the list of sessions whose messages grow old.
    pub is_watched: bool,
}

/// Where a connection is in its life.
#[derive(Default)]
pub enum Phase {
    /// Nobody has logged in.
    #[default]
    New,
    /// A `LOGIN` waits for its answer.
    Entering(Box<Entering>),
    In,
    /// The node drains: what the peer has said already is refused, and then it ends.
    Draining,
    /// No request is taken any more; replies are still due.
    Finishing {
        /// What its `BYE` says; none if the peer said no more, and is told nothing.
        reason: Option<CloseReason>,
        /// The tag of its `QUIT`.
        tag: Option<Box<str>>,
        /// Others may still find its session.
        is_leaving: bool,
    },
    /// The last words are in the outbox.
    Ended(CloseReason),
}

/// A login that waits.
#[derive(Default)]
pub struct Entering {
    pub tag: Option<Box<str>>,
    pub acks: bool,
    /// Something was stored for the user since the session was registered.
    pub has_mail: bool,
    /// Where else the user's sessions are that this one replaces.
    pub replaces: Vec<(NodeId, SessionId)>,
    /// Nodes that have to note the login before it is answered.
    pub noting: Vec<NodeId>,
    /// A later login has taken its place: it ends behind its answer.
    pub is_replaced: bool,
}

/// A session that drains its user's mailbox, or waits until it may.
#[derive(Default)]
pub struct Drain {
    pub stage: Stage,
    /// The place of the last message that was read.
    pub read_up_to: u64,
    /// What was shown and may still be in the mailbox, by its place, in order, and whether the session took it.
    pub shown: VecDeque<(u64, Option<bool>)>,
    /// So many of these have no fate.
    pub waiting: usize,
    /// All up to this place was taken,
    pub taken_up_to: u64,
    /// and so many of these are still in the mailbox.
    pub untaken: usize,
    /// Something was stored since it began: the end may have been read too early.
    pub has_more: bool,
    /// The session takes messages again that it did not take: they are read once more.
    pub begins_anew: bool,
    /// The session did not take something.
    pub is_broken: bool,
    /// The node of the session for which it waits was told so.
    pub is_told: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The mailbox was asked.
    Reading,
    /// There may be more to read.
    Showing,
    /// Another session drains it, or it can't be reached: tried again soon.
    #[default]
    Paused,
    /// Nothing more is read.
    Ending,
}

/// The least that other nodes may deliver beyond the bound of an outbox. Their senders wait for receipts and
/// can't see the bound, so what each of them may have on its way to one user has to find room here.
pub const RESERVE_BYTES_MIN: usize = 256 * 1024;

/// An outbox that made no progress for so long belongs to a slow consumer.
pub const STALL_TIME_MAX: Duration = Duration::from_millis(5_000);

/// The same for one that is full: senders wait for it.
pub const FULL_STALL_TIME_MAX: Duration = Duration::from_millis(1_000);

impl Connection {
    /// Tells whether messages are taken for it.
    pub fn takes_messages(&self) -> bool {
        matches!(self.phase, Phase::Entering(_) | Phase::In | Phase::Draining)
    }

    /// Tells whether the peer may still talk.
    pub fn is_open(&self) -> bool {
        self.takes_messages() || matches!(self.phase, Phase::New)
    }

    /// Tells whether anything is said to it any more.
    pub fn says(&self) -> bool {
        !matches!(self.phase, Phase::Ended(_))
    }

    /// Tells whether the session acknowledges what it is shown.
    pub fn acks(&self) -> bool {
        self.unacknowledged.as_ref().is_some_and(|messages| messages.acks)
    }

    /// Bytes that wait for the connection: to be written, or to be shown.
    pub fn filled(&self) -> usize {
        self.outbox.waiting() + self.unacknowledged.as_ref().map_or(0, |messages| messages.held_bytes())
    }

    /// Tells whether so much is owed that it is not read. One that acknowledges is read for its
    /// acknowledgements, as long as it reads what it is sent.
    pub fn is_overdue(&self, bytes_max: usize) -> bool {
        if self.acks() {
            return self.outbox.owed_bytes() >= bytes_max + bytes_max.max(RESERVE_BYTES_MIN);
        }
        self.outbox.due() >= REPLIES_DUE_MAX || self.outbox.owed_bytes() >= bytes_max
    }

    /// Tells whether half of that is done.
    pub fn is_relieved(&self, bytes_max: usize) -> bool {
        (self.acks() || self.outbox.due() <= REPLIES_DUE_MAX / 2) && self.outbox.owed_bytes() <= bytes_max / 2
    }

    /// Tells whether it makes no progress: then it is a slow consumer.
    pub fn stalls(&self, now: Instant, bytes_max: usize) -> bool {
        let Some(since) = self.outbox.blocked_since() else { return false };
        let is_full = self.filled() >= bytes_max;
        now.duration_since(since) >= if is_full { FULL_STALL_TIME_MAX } else { STALL_TIME_MAX }
    }
}
