//! What happened: every message, every session, every fault, with the time of each.
//!
//! Only facts, as the clients saw them; what they mean is `check.rs`'s business. Times are
//! milliseconds since the run began, by one clock. A thing that a client does (to send, to
//! leave) is noted before it is done, a thing that it hears, after: so what is between two
//! notes lies between their times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::Fault;

/// Milliseconds since the run began.
pub type Ms = u64;

/// All that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub sessions: Vec<Session>,
    /// By number, which is the tag of the message.
    pub messages: Vec<Message>,
    /// `LOGIN` and `WHO`.
    pub questions: Vec<Question>,
    pub troubles: Vec<Trouble>,
    /// What nobody should have said, or done.
    pub oddities: Vec<(Ms, String)>,
}

/// One connection on which a user is logged in.
#[derive(Clone, Debug)]
pub struct Session {
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
    /// The messages that it was shown.
    pub seen: Vec<Seen>,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It says `QUIT`, and hears the rest.
    Quits,
    /// It closes its side, and hears the rest.
    HalfCloses,
    /// It is gone.
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

/// A message as a session was shown it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub at: Ms,
    /// The user that it comes from, as it says.
    pub from: usize,
    pub message: usize,
}

/// A message, and what its sender was told.
#[derive(Clone, Debug)]
pub struct Message {
    /// The session that sent it.
    pub session: usize,
    pub to: usize,
    pub sent: Ms,
    /// More than one is wrong.
    pub told: Vec<(Ms, Fate)>,
}

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Delivered,
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
