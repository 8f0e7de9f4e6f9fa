//! The requests that went out and have no answer yet, in the order in which they went
//! out first, and when to say them again.
//!
//! When that is, and why it is safe, stands at [`Client`](crate::Client). Time and the socket
//! are the task's: this is a table.
//!
//! A refusal of a message of which an earlier attempt may have worked tells of this attempt
//! alone: the recipient may have got it and left. Then the outcome stays unknown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::client::error::SendError;
use crate::client::request::OpenRequest;
use crate::pause::Pauses;
use crate::proto::{ErrorCode, ServerLine};
use crate::random::random_number;

/// The requests without an answer. Each holds one of the client's permits: they are
/// the bound.
#[derive(Default)]
pub(super) struct Outstanding {
    /// By the order in which they were written first.
    requests: BTreeMap<u64, Unanswered>,
    by_tag: HashMap<Box<str>, u64>,
    /// When to write which again: those that are not under way now.
    due: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// One request. When it is taken out, whoever takes it has to tell its caller.
#[must_use = "the caller waits for the news"]
pub(super) struct Unanswered {
    tag: Box<str>,
    line: Vec<u8>,
    pending: OpenRequest,
    /// When it is given up instead of written again.
    until: Instant,
    pauses: Pauses,
    /// When to write it again. `None` while it is under way: written to the connection
    /// there is, or about to be.
    again: Option<Instant>,
    /// What the attempts so far come to; that there was none before the first. Once it is
    /// not known, only the final answer changes that.
    so_far: Option<SendError>,
}

impl Unanswered {
    /// Tells the caller that it is not said again.
    pub(super) fn give_up(self) {
        self.pending.fail(self.so_far.unwrap_or(SendError::Lost));
    }

    /// Tells whether an attempt may have worked.
    fn is_unknown(&self) -> bool {
        self.so_far.as_ref().is_some_and(|error| !is_limited(error))
    }

    /// Tells whether a refusal is for the moment. `unavailable` and `draining` are the
    /// caller's to hear, who knows then that nothing was sent; behind an unknown outcome
    /// they are no answer.
    fn passes(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::Limited => true,
            ErrorCode::Timeout => self.pending.is_send(),
            ErrorCode::Unavailable | ErrorCode::Draining => self.pending.is_send() && self.is_unknown(),
            _ => false,
        }
    }

    /// Takes note of a refusal for the moment.
    fn refused(&mut self, code: ErrorCode, text: &str) {
        if code == ErrorCode::Timeout || !self.is_unknown() {
            self.so_far = Some(SendError::Refused { code, text: text.to_owned() });
        }
    }
}

impl Outstanding {
    /// Adds a request that is about to be written for the first time.
    pub(super) fn add(&mut self, tag: Box<str>, line: Vec<u8>, pending: OpenRequest, now: Instant) {
        let number = self.next;
        self.next += 1;
        self.by_tag.insert(tag.clone(), number);
        let (until, pauses) = (now + RETRY_TIME_MAX, Pauses::new(PAUSE_TIME_MAX));
        let request = Unanswered { tag, line, pending, until, pauses, again: None, so_far: None };
        self.requests.insert(number, request);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Finds the request that a reply belongs to, and takes it out unless it is to be
    /// said again.
    pub(super) fn reply(&mut self, tag: &str, line: ServerLine<'_>, now: Instant) -> Reply {
        let Some(number) = self.by_tag.get(tag).copied() else { return Reply::Unknown };
        let request = self.requests.get_mut(&number).expect("a tag is that of a request");
        if request.again.is_some() {
            return Reply::Unknown;
        }
        let is_wanted = request.pending.is_wanted();
        if let ServerLine::Err { code, text } = line
            && is_wanted
            && request.passes(code)
        {
            request.refused(code, text);
            let at = now + request.pauses.next(random_number());
            if at < request.until {
                request.again = Some(at);
                self.due.insert((at, number));
                return Reply::Again;
            }
        }
        let request = self.remove(number);
        let is_refused = matches!(line, ServerLine::Err { .. }) && request.pending.is_send();
        match is_refused && is_wanted && request.is_unknown() {
            true => Reply::Unknowable(request),
            false => Reply::Final(request.pending),
        }
    }

    /// The connection broke: all is to be said again as soon as there is another, in the
    /// old order. Gives what nobody waits for.
    pub(super) fn interrupt(&mut self, now: Instant) -> Vec<Unanswered> {
        for request in self.requests.values_mut() {
            if request.again.replace(now).is_none() {
                request.so_far = Some(SendError::Lost);
            }
        }
        self.due = self.requests.keys().map(|number| (now, *number)).collect();
        self.give_up(now)
    }

    /// Takes out what is not under way and nobody waits for, or was written first too
    /// long ago.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<Unanswered> {
        let is_over = |number: &u64| {
            let request = &self.requests[number];
            request.until <= now || !request.pending.is_wanted()
        };
        let numbers: Vec<u64> = self.due.iter().map(|(_, number)| *number).filter(is_over).collect();
        numbers.into_iter().map(|number| self.remove(number)).collect()
    }

    /// Takes out all: there will be no other answer.
    pub(super) fn end(&mut self) -> Vec<Unanswered> {
        let mut requests: Vec<Unanswered> = std::mem::take(self).requests.into_values().collect();
        let under_way = requests.iter_mut().filter(|request| request.again.is_none());
        under_way.for_each(|request| request.so_far = Some(SendError::Lost));
        requests
    }

    /// When the next one will be given up, without a connection.
    pub(super) fn next_end(&self) -> Option<Instant> {
        // Whatever was written first is given up first.
        self.requests.first_key_value().map(|(_, request)| request.until)
    }

    /// When the next one is due.
    pub(super) fn next_repeat(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Appends the lines that are due until `out` has `bytes_max`; gives what is not said
    /// again.
    pub(super) fn repeat(&mut self, now: Instant, out: &mut Vec<u8>, bytes_max: usize) -> Vec<Unanswered> {
        let mut given_up = vec![];
        while out.len() < bytes_max
            && let Some((at, number)) = self.due.first().copied()
            && at <= now
        {
            let request = self.requests.get_mut(&number).expect("what is due is there");
            if request.until <= now || !request.pending.is_wanted() {
                given_up.push(self.remove(number));
                continue;
            }
            request.again = None;
            out.extend_from_slice(&request.line);
            self.due.pop_first();
        }
        given_up
    }

    fn remove(&mut self, number: u64) -> Unanswered {
        let request = self.requests.remove(&number).expect("it was found");
        self.by_tag.remove(&request.tag);
        if let Some(at) = request.again {
            self.due.remove(&(at, number));
        }
        request
    }
}

fn is_limited(error: &SendError) -> bool {
    matches!(error, SendError::Refused { code: ErrorCode::Limited, .. })
}

/// What a reply means.
pub(super) enum Reply {
    /// It is the answer to this request.
    Final(OpenRequest),
    /// It is no answer: the request will be said again.
    Again,
    /// It refuses a message of which an earlier attempt may have worked.
    Unknowable(Unanswered),
    /// Nothing with this tag is under way.
    Unknown,
}

/// How long after it was first written a request may be written again. Servers drop
/// duplicates for at least as long.
pub(super) const RETRY_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// The longest pause after an `ERR timeout` or an `ERR limited`.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(5);
