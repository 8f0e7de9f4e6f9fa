//! What happened: every message, every session, every fault, with the time of each.
//!
//! Only facts, as the clients saw them; what they mean is the business of `check`. One form serves
//! real runs (chaos, faults) and the simulator's: times are counted from the run's begin, by one
//! clock, in units that the history names; its margins tell how exact they are. A thing that a client
//! does (to send, to acknowledge, to leave) is noted before it is done, a thing that it hears, after: so
//! what is between two notes lies between their times. `fault` names what goes wrong, `memory` is what
//! a client knows, and `check_tests` (which chaos runs) checks the checker.

#![allow(dead_code, reason = "each world has its own faults and margins")]

pub mod check;
pub mod fault;
pub mod margins;
pub mod memory;

use std::fmt;

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::history::fault::Fault;
use crate::history::margins::Margins;

/// A time, or a span of it, in the units of its history.
pub type Time = u64;

/// All that happened.
#[derive(Clone, Debug)]
pub struct History {
    pub margins: Margins,
    pub rules: Rules,
    pub clients: Vec<Client>,
    pub sessions: Vec<Session>,
    /// By number, which is the tag of the message; in the order in which they were sent first.
    pub messages: Vec<Message>,
    /// `LOGIN` and `WHO`.
    pub questions: Vec<Question>,
    /// In the order in which they began.
    pub troubles: Vec<Trouble>,
    /// Replies to what had one already: when, and to which message.
    pub again: Vec<(Time, usize)>,
    /// What nobody should have said, or done.
    pub oddities: Vec<(Time, String)>,
}

/// How the nodes were set up, as far as promises depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Messages that a mailbox holds; 0 for no mailboxes.
    pub mailbox_max: usize,
    /// Sessions of a user; with 1 a new one replaces the old.
    pub sessions_max: usize,
    /// Bytes that may wait for a connection.
    pub outbox_bytes_max: usize,
}

/// A user's device, which has one connection after the other, sometimes two.
#[derive(Clone, Debug)]
pub struct Client {
    pub user: usize,
    /// It logs in with `ack`: it acknowledges each message, and knows a copy.
    pub acks: bool,
    /// What it was sent, on all of its sessions, in the order in which it took it.
    pub seen: Vec<Seen>,
}

/// A message as a client was sent it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub at: Time,
    pub session: usize,
    /// The user that it comes from, as it says.
    pub from: usize,
    pub message: usize,
    /// Its client showed it; else it was dropped as a copy.
    pub is_shown: bool,
    /// When its client began to acknowledge it.
    pub acked: Option<Time>,
}

/// One connection on which a client is logged in.
#[derive(Clone, Debug)]
pub struct Session {
    pub client: usize,
    pub user: usize,
    /// The place of its node, whichever process that is.
    pub node: usize,
    /// When its client said `LOGIN`, and when it was answered.
    pub asked: Time,
    pub since: Time,
    /// When its client began to leave, and how.
    pub left: Option<(Time, Leaving)>,
    /// When nothing more could be heard, and why.
    pub ended: Option<(Time, End)>,
    /// From when to when its client acknowledged nothing.
    pub naps: Vec<(Time, Time)>,
    /// From when to when its client read nothing.
    pub stalls: Vec<(Time, Time)>,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It says `QUIT`, and hears the rest.
    Quits,
    /// It closes its side, and hears the rest.
    HalfCloses,
    /// It is killed.
    HangsUp,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node said so, with this word.
    Bye(CloseReason),
    /// The node closed it without a word.
    Closed,
    /// It broke.
    Broken,
}

/// A message, as often as it was sent.
#[derive(Clone, Debug)]
pub struct Message {
    /// The client that sent it.
    pub client: usize,
    pub to: usize,
    /// Sent with `CAST`: nobody is told of its fate.
    pub is_cast: bool,
    /// Sent under a tag: its reply waits for no other.
    pub is_tagged: bool,
    /// One at least; more when its sender could not know what became of it.
    pub attempts: Vec<Attempt>,
}

/// One time that a message was sent, and what its sender was told then.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub session: usize,
    pub sent: Time,
    pub told: Option<(Time, Fate)>,
}

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Stored,
    /// `ERR` with this word.
    Error(ErrorCode),
}

/// A question that is not about a message.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub asks: Asks,
    /// The place of the node that is asked.
    pub node: usize,
    /// Who is asked for, or logs in.
    pub user: usize,
    pub asked: Time,
    pub answered: Option<(Time, Answer)>,
    /// When who asked had left without waiting.
    pub given_up: Option<Time>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Login,
    /// By this session.
    Who(usize),
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many sessions, 0 for `offline`.
    Online(usize),
    /// The login was taken.
    In,
    /// `ERR` with this word.
    Error(ErrorCode),
    /// The connection was ended instead.
    Ended(CloseReason),
}

/// A fault as it happened.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub fault: Fault,
    pub from: Time,
    /// When it was healed; until then it is still there.
    pub to: Option<Time>,
}

impl History {
    /// Nothing has happened.
    pub fn new(margins: Margins, rules: Rules) -> Self {
        History {
            margins,
            rules,
            clients: vec![],
            sessions: vec![],
            messages: vec![],
            questions: vec![],
            troubles: vec![],
            again: vec![],
            oddities: vec![],
        }
    }
}

impl Message {
    /// When it was sent first.
    pub fn sent(&self) -> Time {
        self.attempts[0].sent
    }

    /// What its sender knows in the end, and since when; nothing if it can't know.
    pub fn fate(&self) -> Option<(Time, Fate)> {
        let told = || self.attempts.iter().filter_map(|attempt| attempt.told);
        let good = told().find(|(_, fate)| !matches!(fate, Fate::Error(_)));
        // Who was told that an attempt failed still knows nothing of the one before.
        let is_known =
            self.attempts.iter().all(|attempt| attempt.told.is_some_and(|told| !told.1.is_timeout()));
        good.or_else(|| told().next_back().filter(|_| is_known))
    }
}

impl Fate {
    /// The one that promises nothing.
    pub fn is_timeout(self) -> bool {
        self == Fate::Error(ErrorCode::Timeout)
    }

    /// The one that says to try again.
    pub fn is_limited(self) -> bool {
        self == Fate::Error(ErrorCode::Limited)
    }
}

impl Session {
    /// How much of the time between these two its client acknowledged, or read, nothing.
    pub fn napped(&self, from: Time, to: Time) -> Time {
        let to = self.ended.as_ref().map_or(to, |(ended, _)| to.min(*ended));
        let rests = self.naps.iter().chain(&self.stalls);
        rests.map(|rest| rest.1.min(to).saturating_sub(rest.0.max(from))).sum()
    }

    /// Whether its node cut it off, or may have, because it did not read, or not acknowledge.
    pub fn was_cut(&self, killed: Option<Time>) -> bool {
        let end = self.ended.map(|(_, end)| end);
        let is_broken = end == Some(End::Broken) && self.left.is_none() && killed.is_none();
        // Who is killed in its sleep, or whose node is, never knows; who wakes to say goodbye may be too late.
        let is_unheard = |how: Leaving| how == Leaving::HangsUp || end == Some(End::Broken);
        let unheard = self.left.filter(|(_, how)| is_unheard(*how)).map(|(left, _)| left);
        let mut rests = self.naps.iter().chain(&self.stalls);
        let sleeps = unheard.or(killed).is_some_and(|at| rests.any(|rest| (rest.0..=rest.1).contains(&at)));
        end == Some(End::Bye(CloseReason::Slow)) || (is_broken && self.rests()) || sleeps
    }

    /// Whether it ever napped or stalled.
    pub fn rests(&self) -> bool {
        !self.naps.is_empty() || !self.stalls.is_empty()
    }
}

impl Trouble {
    /// Whether it was there at some time between these two.
    pub fn is_within(&self, from: Time, to: Time) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }

    /// How much of the time between these two it was there.
    pub fn overlap(&self, from: Time, to: Time) -> Time {
        self.to.unwrap_or(Time::MAX).min(to).saturating_sub(self.from.max(from))
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Delivered => f.write_str("OK delivered"),
            Fate::Stored => f.write_str("OK stored"),
            Fate::Error(code) => write!(f, "ERR {}", code.word()),
        }
    }
}
