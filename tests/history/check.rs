//! Checks a history against the promises of the protocol, and keeps the books.
//!
//! A pure function: a history goes in, whatever was wrong with it comes out. An excuse is
//! a fact of the history (this node was killed then), never a share of cases; the margins
//! are there because clients of a real run note what they hear a little late, and nodes need a moment to
//! be back when a fault is over. Here is what all rules share; `arrivals` has those about what clients
//! saw, `fates` those about what senders were told, `questions` the rest, and `facts` finds the excuses.

mod arrivals;
mod facts;
mod fates;
mod questions;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;

use crate::history::History;
use crate::history::Time;
use crate::history::check::facts::Facts;
use crate::history::margins::Margins;

/// What a history comes to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrongs: Vec<Wrong>,
    pub books: Books,
}

/// What was told, and what was excused.
#[derive(Debug, Default)]
pub struct Books {
    /// Messages by what their senders knew in the end.
    pub fates: BTreeMap<String, usize>,
    /// Attempts by what their senders were told.
    pub replies: BTreeMap<String, usize>,
    /// Copies that clients were sent, and dropped, by why.
    pub copies: BTreeMap<&'static str, usize>,
    /// What was excused, by why, and by the kinds of the faults that were there.
    pub excused: BTreeMap<(&'static str, String), usize>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub rule: Rule,
    pub at: Time,
    pub what: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What got an `OK` was shown.
    Lost,
    /// What was delivered was acknowledged before.
    Unacknowledged,
    /// What was not delivered was not seen.
    SeenAfterAll,
    /// Every request gets a reply while its connection stands.
    Unanswered,
    /// And one only.
    AnsweredTwice,
    /// And in time.
    Late,
    /// And soon, where nothing is wrong.
    Slow,
    /// All sessions of a user see what is delivered to one, where nothing is wrong.
    Partial,
    /// No client shows a message twice but after a hop.
    ShownTwice,
    /// No client is sent a copy but after a hop.
    Copied,
    /// What one sends to one other comes in order.
    OutOfOrder,
    /// A client sees what is for its user, from whom it is.
    Misdirected,
    /// Nobody is offline who has a mailbox, or a session.
    Offline,
    /// A mailbox is full that holds so many.
    MailboxFull,
    /// Who has a session gets no mail, where nothing is wrong.
    StoredThough,
    /// `ERR timeout` has a cause.
    CauselessTimeout,
    /// And is rare.
    TooManyTimeouts,
    /// `ERR unavailable` has a cause.
    CauselessUnavailable,
    /// `ERR limited` has a cause.
    CauselessLimit,
    /// `WHO` tells the truth.
    WrongPresence,
    /// A user has no more sessions than it may, where nothing is wrong.
    TooManySessions,
    /// A connection stands while its client and its node do.
    Dropped,
    /// Nothing else is said or done.
    Odd,
}

/// Checks a history in which everybody has left.
pub fn check(history: &History) -> Verdict {
    let (facts, margins) = (Facts::of(history), history.margins);
    let mut check = Check { history, margins, facts, verdict: Verdict::default(), in_order: HashMap::new() };
    for (at, what) in &history.oddities {
        check.wrong(Rule::Odd, *at, what.clone());
    }
    for (at, message) in &history.again {
        check.wrong(Rule::AnsweredTwice, *at, format!("message {message}"));
    }
    for at in 0..history.sessions.len() {
        check.end(at);
        check.beside(at);
    }
    check.arrivals();
    check.fates();
    check.questions();
    check.verdict.wrongs.sort_by_key(|wrong| wrong.at);
    check.verdict
}

struct Check<'a> {
    history: &'a History,
    margins: Margins,
    facts: Facts<'a>,
    verdict: Verdict,
    /// When the last message without a tag was answered on each session.
    in_order: HashMap<usize, Time>,
}

impl Check<'_> {
    fn wrong(&mut self, rule: Rule, at: Time, what: String) {
        self.verdict.wrongs.push(Wrong { rule, at, what });
    }

    /// Something was wrong between these two, and that is excused; by the faults at work then.
    fn excuse(&mut self, why: &'static str, from: Time, to: Time) {
        let mut kinds: Vec<_> = self.facts.at_work(from, to).map(|trouble| trouble.fault.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let faults = if kinds.len() > 2 { "three or more kinds".to_owned() } else { kinds.join(" + ") };
        *self.verdict.books.excused.entry((why, faults)).or_default() += 1;
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {:?}: {}", self.at, self.rule, self.what)
    }
}
