//! The requests that went out and have no answer yet, in the order in which they went
//! out first, and when to say them again.
//!
//! A request is said again under its tag when its connection broke before the reply,
//! and a `SEND` also when the reply was `ERR timeout`, after a pause. Both are safe
//! because the receiving side drops copies, which it promises for a while only: what was
//! first written longer ago than [`RETRY_TIME_MAX`] is given up. Time and the socket are
//! the task's: this is a table.
//!
//! A refusal of a message that is said again tells of this attempt, and nothing of the
//! ones before: the recipient may have got it and left. Then the outcome stays unknown.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::client::command::Pending;
use crate::client::error::SendError;
use crate::pause::{Pauses, random};
use crate::proto::{ErrorCode, ServerLine};

/// The requests without an answer. Each holds one of the client's permits: they are
/// the bound.
#[derive(Default)]
pub(super) struct Outstanding {
    /// By the order in which they were written first.
    asked: BTreeMap<u64, Asked>,
    by_tag: HashMap<Box<str>, u64>,
    next: u64,
    /// How many are not under way now.
    idle: usize,
}

/// One request.
struct Asked {
    tag: Box<str>,
    line: Vec<u8>,
    pending: Pending,
    /// When it is given up instead of written again.
    until: Instant,
    pauses: Pauses,
    /// When to write it again. `None` while it is under way: written to the connection
    /// there is, or about to be.
    again: Option<Instant>,
    /// What is known of the last attempt that came to nothing; that there was none before
    /// the first.
    unknown: Option<SendError>,
}

impl Outstanding {
    /// Adds a request that is about to be written for the first time.
    pub(super) fn add(&mut self, tag: Box<str>, line: Vec<u8>, pending: Pending, now: Instant) {
        let number = self.next;
        self.next += 1;
        self.by_tag.insert(tag.clone(), number);
        let (until, pauses) = (now + RETRY_TIME_MAX, Pauses::new(PAUSE_TIME_MAX));
        self.asked.insert(number, Asked { tag, line, pending, until, pauses, again: None, unknown: None });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Finds the request that a reply belongs to, and takes it out unless it is to be
    /// said again.
    pub(super) fn reply(&mut self, tag: &str, line: ServerLine<'_>, now: Instant) -> Reply {
        let Some((number, asked)) =
            self.by_tag.get(tag).and_then(|number| Some((*number, self.asked.get_mut(number)?)))
        else {
            return Reply::Unknown;
        };
        if asked.again.is_some() {
            return Reply::Unknown;
        }
        if let ServerLine::Err { code, text } = line
            && asked.pending.is_wanted_send()
        {
            let is_timeout = code == ErrorCode::Timeout;
            if is_timeout {
                asked.unknown = Some(SendError::Refused { code, text: text.to_owned() });
            }
            if is_timeout || (asked.unknown.is_some() && passes(code)) {
                let at = now + asked.pauses.next(random());
                if at < asked.until {
                    asked.again = Some(at);
                    self.idle += 1;
                    return Reply::Again;
                }
            }
        }
        let asked = self.remove(number).expect("it was found");
        let is_refused = matches!(line, ServerLine::Err { .. }) && asked.pending.is_wanted_send();
        match is_refused && asked.unknown.is_some() {
            true => Reply::Unknowable(asked.into()),
            false => Reply::Final(asked.pending),
        }
    }

    /// The connection broke: what was under way is to be said again as soon as there is
    /// another. Gives what nobody waits for.
    pub(super) fn interrupt(&mut self, now: Instant) -> Vec<GivenUp> {
        for asked in self.asked.values_mut() {
            if asked.again.is_none() {
                asked.again = Some(now);
                asked.unknown = Some(SendError::Lost);
            }
        }
        self.idle = self.asked.len();
        self.give_up(now)
    }

    /// Takes out what is not under way and nobody waits for, or was written first too
    /// long ago.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<GivenUp> {
        let over = |(number, asked): (&u64, &Asked)| {
            let is_over = asked.until <= now || !asked.pending.is_wanted();
            (asked.again.is_some() && is_over).then_some(*number)
        };
        let numbers: Vec<u64> = self.asked.iter().filter_map(over).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).map(GivenUp::from).collect()
    }

    /// When the next one will be given up, without a connection.
    pub(super) fn next_end(&self) -> Option<Instant> {
        // Whatever was written first is given up first.
        self.asked.first_key_value().map(|(_, asked)| asked.until)
    }

    /// When the next one is due.
    pub(super) fn next_repeat(&self) -> Option<Instant> {
        if self.idle == 0 {
            return None;
        }
        self.asked.values().filter_map(|asked| asked.again).min()
    }

    /// Appends the lines that are due, in their order, until `out` has `bytes_max`; gives
    /// what is not said again.
    pub(super) fn repeat(&mut self, now: Instant, out: &mut Vec<u8>, bytes_max: usize) -> Vec<GivenUp> {
        if self.idle == 0 {
            return vec![];
        }
        let given_up = self.give_up(now);
        for asked in self.asked.values_mut() {
            if out.len() >= bytes_max {
                break;
            }
            if asked.again.is_some_and(|at| at <= now) {
                asked.again = None;
                self.idle -= 1;
                out.extend_from_slice(&asked.line);
            }
        }
        given_up
    }

    fn remove(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.by_tag.remove(&asked.tag);
        self.idle -= usize::from(asked.again.is_some());
        Some(asked)
    }
}

/// Tells whether a refusal is for the moment. The first time it is the caller's to hear,
/// who knows then that nothing was sent; behind an unknown outcome it is no answer.
fn passes(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::Draining | ErrorCode::Limited)
}

/// What a reply means.
pub(super) enum Reply {
    /// It is the answer to this request.
    Final(Pending),
    /// It is no answer: the request will be said again.
    Again,
    /// It refuses a message of which an earlier attempt may have worked.
    Unknowable(GivenUp),
    /// Nothing with this tag is under way.
    Unknown,
}

/// A request that is not said again.
#[must_use = "the caller waits for the news"]
pub(super) struct GivenUp {
    pending: Pending,
    error: SendError,
}

impl GivenUp {
    /// Tells the caller.
    pub(super) fn tell(self) {
        self.pending.fail(self.error);
    }
}

impl From<Asked> for GivenUp {
    fn from(asked: Asked) -> Self {
        GivenUp { pending: asked.pending, error: asked.unknown.unwrap_or(SendError::Lost) }
    }
}

/// How long after it was first written a request may be written again. Servers drop
/// copies for at least as long.
pub(super) const RETRY_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// The longest pause after an `ERR timeout`.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(5);
