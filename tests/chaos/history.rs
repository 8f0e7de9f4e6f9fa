//! What happened: every message, every session, every fault, with the time of each.
//!
//! Only facts, as the clients saw them; what they mean is the business of `check`. Times are
//! milliseconds since the run began, by one clock. A thing that a client does (to send, to
//! acknowledge, to leave) is noted before it is done, a thing that it hears, after: so what is
//! between two notes lies between their times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::Fault;

/// Milliseconds since the run began.
pub type Ms = u64;

/// All that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub clients: Vec<Client>,
    pub sessions: Vec<Session>,
    /// By number, which is the tag of the message; in the order in which they were sent first.
    pub messages: Vec<Message>,
    /// `LOGIN` and `WHO`.
    pub questions: Vec<Question>,
    /// In the order in which they began.
    pub troubles: Vec<Trouble>,
    /// Replies to what had one already: when, and to which message.
    pub again: Vec<(Ms, usize)>,
    /// What nobody should have said, or done.
    pub oddities: Vec<(Ms, String)>,
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
    pub at: Ms,
    pub session: usize,
    /// The user that it comes from, as it says.
    pub from: usize,
    pub message: usize,
    /// Its client showed it; else it was dropped as a copy.
    pub is_shown: bool,
    /// When its client began to acknowledge it.
    pub acked: Option<Ms>,
}

/// One connection on which a client is logged in.
#[derive(Clone, Debug)]
pub struct Session {
    pub client: usize,
    pub user: usize,
    /// The place of its node, whichever process that is.
    pub node: usize,
    /// When its client said `LOGIN`, and when it was answered.
    pub asked: Ms,
    pub since: Ms,
    /// When its client began to leave, and how.
    pub left: Option<(Ms, Leaving)>,
    /// When nothing more could be heard, and why.
    pub ended: Option<(Ms, End)>,
    /// From when to when its client acknowledged nothing.
    pub naps: Vec<(Ms, Ms)>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The node said so, with this word.
    Bye(String),
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
    /// One at least; more when its sender could not know what became of it.
    pub attempts: Vec<Attempt>,
}

/// One time that a message was sent, and what its sender was told then.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub session: usize,
    pub sent: Ms,
    pub told: Option<(Ms, Fate)>,
}

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Delivered,
    Stored,
    /// `ERR` with this word.
    Error(String),
}

/// A question that is not about a message.
#[derive(Clone, Debug)]
pub struct Question {
    pub asks: Asks,
    /// The place of the node that is asked.
    pub node: usize,
    /// Who is asked for, or logs in.
    pub user: usize,
    pub asked: Ms,
    pub answered: Option<(Ms, Answer)>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Login,
    /// By this session.
    Who(usize),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many sessions, 0 for `offline`.
    Online(usize),
    /// The login was taken.
    In,
    /// `ERR` with this word.
    Error(String),
}

/// A fault as it happened.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub fault: Fault,
    pub from: Ms,
    /// When it was healed; until then it is still there.
    pub to: Option<Ms>,
}

/// A history that is being written, and its clock.
pub struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

impl Message {
    /// When it was sent first.
    pub fn sent(&self) -> Ms {
        self.attempts[0].sent
    }

    /// What its sender knows in the end, and since when; nothing if it can't know.
    pub fn fate(&self) -> Option<(Ms, &Fate)> {
        let told = || self.attempts.iter().filter_map(|attempt| attempt.told.as_ref());
        let good = told().find(|(_, fate)| !matches!(fate, Fate::Error(_)));
        // Who was told that an attempt failed still knows nothing of the one before.
        let only = (self.attempts.len() == 1).then(|| told().find(|(_, fate)| !fate.is_timeout()));
        good.or(only.flatten()).map(|(at, fate)| (*at, fate))
    }
}

impl Fate {
    /// The one that promises nothing.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Fate::Error(word) if word == "timeout")
    }
}

impl Session {
    /// How much of the time between these two its client acknowledged nothing.
    pub fn napped(&self, from: Ms, to: Ms) -> Ms {
        let to = self.ended.as_ref().map_or(to, |(ended, _)| to.min(*ended));
        self.naps.iter().map(|nap| nap.1.min(to).saturating_sub(nap.0.max(from))).sum()
    }
}

impl Recorder {
    pub fn new() -> Self {
        Recorder { start: Instant::now(), history: Mutex::default() }
    }

    pub fn now(&self) -> Ms {
        self.start.elapsed().as_millis() as Ms
    }

    /// When that will be.
    pub fn instant(&self, at: Ms) -> Instant {
        self.start + Duration::from_millis(at)
    }

    pub fn write(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question, and gives its number.
    pub fn ask(&self, question: Question) -> usize {
        let mut history = self.write();
        history.questions.push(question);
        history.questions.len() - 1
    }

    pub fn oddity(&self, what: String) {
        let now = self.now();
        self.write().oddities.push((now, what));
    }
}

impl Trouble {
    /// Whether it was there at some time between these two.
    pub fn is_within(&self, from: Ms, to: Ms) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }

    /// How much of the time between these two it was there.
    pub fn overlap(&self, from: Ms, to: Ms) -> Ms {
        self.to.unwrap_or(Ms::MAX).min(to).saturating_sub(self.from.max(from))
    }
}
