//! Checks a history against the promises of the protocol, and keeps the books.
//!
//! A pure function: a history goes in, whatever was wrong with it comes out. An excuse is
//! a fact of the history (this node was killed then), never a share of cases; the margins
//! below are there because clients note what they hear a little late.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::history::{Answer, Asks, End, Fate, History, Leaving, Message, Ms, Question, Session, Trouble};
use crate::plan::Fault;

/// How late a client may note what came.
pub const NOTE_TIME_MAX: Ms = 1_000;

/// How long a reply may take: the deadline, the sweep that looks at it, and some time for
/// everything else. A node that was frozen has that much more.
pub const REPLY_TIME_MAX: Ms = 13_000;

/// How long a reply may take where nothing is wrong, on a machine that has other work too.
const SOON_TIME: Ms = 3_000;

/// How long after its end a fault may still be felt: a reply's deadline, and the way there.
pub const AFTERMATH_TIME: Ms = 12_000;

/// How long after its end a fault may still make messages take another way.
const REROUTE_TIME: Ms = 3_000;

/// How long after it lost everything Redis may know nothing of somebody.
const LOSS_TIME: Ms = 1_500;

/// How long after it is back a node may be taken for dead, and a lease's length.
const RETURN_TIME: Ms = 3_000;
const LEASE_TIME: Ms = 6_000;

/// How many other messages a session may see before it takes a copy for new (`SEEN_MAX`).
const SEEN_MAX: usize = 256;

/// What a history comes to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrongs: Vec<Wrong>,
    pub books: Books,
}

/// What was told, and what was excused.
#[derive(Debug, Default)]
pub struct Books {
    /// Messages by what their senders were told.
    pub fates: BTreeMap<String, usize>,
    /// Timeouts by the faults that were there in the time before.
    pub timeouts: BTreeMap<String, usize>,
    /// Everything else that was excused, by why.
    pub excused: BTreeMap<&'static str, usize>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub rule: Rule,
    pub at: Ms,
    pub what: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What was delivered was seen.
    Lost,
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
    /// No session sees a message twice.
    ShownTwice,
    /// What one sends to one other comes in order.
    OutOfOrder,
    /// A session sees what is for its user, from whom it is.
    Misdirected,
    /// Who has a session is not offline.
    FalseOffline,
    /// `ERR timeout` has a cause.
    CauselessTimeout,
    /// `ERR unavailable` has a cause.
    CauselessUnavailable,
    /// `WHO` tells the truth.
    WrongPresence,
    /// A connection stands while its client and its node do.
    Dropped,
    /// Nothing else is said or done.
    Odd,
}

/// Checks a history in which everybody has left.
pub fn check(history: &History) -> Verdict {
    let mut check = Check { history, verdict: Verdict::default() };
    for (at, what) in &history.oddities {
        check.wrong(Rule::Odd, *at, what.clone());
    }
    let seen_by = check.sessions();
    for number in 0..history.messages.len() {
        check.message(number, seen_by.get(&number).map_or(&[], Vec::as_slice));
    }
    for question in &history.questions {
        check.question(question);
    }
    check.verdict.wrongs.sort_by_key(|wrong| wrong.at);
    check.verdict
}

struct Check<'a> {
    history: &'a History,
    verdict: Verdict,
}

impl<'a> Check<'a> {
    fn wrong(&mut self, rule: Rule, at: Ms, what: String) {
        self.verdict.wrongs.push(Wrong { rule, at, what });
    }

    fn excuse(&mut self, why: &'static str) {
        *self.verdict.books.excused.entry(why).or_default() += 1;
    }

    /// Checks what each session saw, and how it ended. Returns which sessions saw each message.
    fn sessions(&mut self) -> HashMap<usize, Vec<usize>> {
        let mut seen_by: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, session) in self.history.sessions.iter().enumerate() {
            self.end(at, session);
            self.sightings(at, session);
            for seen in &session.seen {
                seen_by.entry(seen.message).or_default().push(at);
            }
        }
        seen_by
    }

    fn end(&mut self, at: usize, session: &Session) {
        let name = format!("session {at} of user{} on node {}", session.user, session.node);
        let Some((ended, end)) = &session.ended else {
            return self.wrong(Rule::Odd, session.since, format!("{name} never ended"));
        };
        let is_as_said = match session.left {
            Some((_, Leaving::HangsUp)) => true,
            Some((_, Leaving::Quits)) => *end == End::Bye("quit".to_owned()),
            Some((_, Leaving::HalfCloses)) => *end == End::Closed,
            None => false,
        };
        let may_break = matches!(end, End::Broken | End::Closed);
        let is_killed = may_break && self.killed(session).is_some();
        if !is_as_said && !is_killed {
            self.wrong(Rule::Dropped, *ended, format!("{name} ended by {end:?}"));
        }
    }

    fn sightings(&mut self, at: usize, session: &Session) {
        let mut places: HashMap<usize, usize> = HashMap::new();
        // The newest message of each sender's session.
        let mut newest: HashMap<usize, usize> = HashMap::new();
        for (place, seen) in session.seen.iter().enumerate() {
            let name = format!("message {} to session {at} of user{}", seen.message, session.user);
            let Some(message) = self.history.messages.get(seen.message) else {
                self.wrong(Rule::Misdirected, seen.at, format!("{name} was never sent"));
                continue;
            };
            let from = self.history.sessions[message.session].user;
            if (message.to, from) != (session.user, seen.from) {
                let what = format!("{name} is from user{from} to user{}", message.to);
                self.wrong(Rule::Misdirected, seen.at, what);
            }
            if let Some(before) = places.insert(seen.message, place) {
                if place - before > SEEN_MAX {
                    self.excuse("shown twice, with more than 256 others between");
                } else {
                    let what = format!("{name}, {} others between", place - before - 1);
                    self.wrong(Rule::ShownTwice, seen.at, what);
                }
            }
            let last = newest.entry(message.session).or_insert(seen.message);
            if *last > seen.message {
                let what = format!("{name} came behind {last}");
                if self.trouble(message.sent.saturating_sub(REROUTE_TIME), seen.at).is_some() {
                    self.excuse("out of order, by a fault");
                } else {
                    self.wrong(Rule::OutOfOrder, seen.at, what);
                }
            } else {
                *last = seen.message;
            }
        }
    }

    fn message(&mut self, number: usize, seen_by: &[usize]) {
        let message = &self.history.messages[number];
        let from = &self.history.sessions[message.session];
        let name =
            format!("message {number} from user{} on node {} to user{}", from.user, from.node, message.to);
        let (told, fate) = match &message.told[..] {
            [] => {
                *self.verdict.books.fates.entry("none".to_owned()).or_default() += 1;
                if self.fell(from).is_none() {
                    self.wrong(Rule::Unanswered, message.sent, name);
                }
                return;
            }
            [(told, fate)] => (*told, fate),
            all => return self.wrong(Rule::AnsweredTwice, message.sent, format!("{name}: {all:?}")),
        };
        *self.verdict.books.fates.entry(fate.to_string()).or_default() += 1;
        self.in_time(&name, from.node, message.sent, told);
        let name = format!("{name}, sent at {}: {fate}", message.sent);
        match fate {
            Fate::Delivered if seen_by.is_empty() => self.unseen(name, message, told),
            Fate::Delivered => self.seen_by_all(&name, message, told, seen_by),
            Fate::Error(word) => {
                if word != "timeout" && !seen_by.is_empty() {
                    let what = format!("{name}, but session {} saw it", seen_by[0]);
                    self.wrong(Rule::SeenAfterAll, told, what);
                }
                self.error(name, word, message, told);
            }
        }
    }

    /// An error has to be true, and to have a cause.
    fn error(&mut self, name: String, word: &str, message: &Message, told: Ms) {
        let cause = self.cause(message.sent, told);
        match (word, cause) {
            ("offline", _) => self.offline(name, message, told),
            ("timeout", None) => self.wrong(Rule::CauselessTimeout, told, name),
            ("unavailable", None) => self.wrong(Rule::CauselessUnavailable, told, name),
            ("timeout", Some(_)) => {
                let near = self.troubles(told.saturating_sub(AFTERMATH_TIME), told);
                let mut kinds: Vec<_> = near.map(|trouble| trouble.fault.kind()).collect();
                kinds.sort_unstable();
                kinds.dedup();
                *self.verdict.books.timeouts.entry(kinds.join(" + ")).or_default() += 1;
            }
            ("unavailable", Some(_)) => {}
            _ => self.wrong(Rule::Odd, told, name),
        }
    }

    /// What was delivered was not seen: only what the kernel had taken for a connection that
    /// was broken at that time may be missing.
    fn unseen(&mut self, name: String, message: &Message, told: Ms) {
        let (from, to) = (message.sent.saturating_sub(NOTE_TIME_MAX), told + NOTE_TIME_MAX);
        let is_excuse = |session: &&Session| {
            session.user == message.to
                && session.asked <= told
                && self.fell(session).is_some_and(|(fell, noticed)| fell <= to && noticed >= from)
        };
        if self.history.sessions.iter().any(|session| is_excuse(&session)) {
            self.excuse("delivered to a connection that broke then");
        } else {
            self.wrong(Rule::Lost, told, name);
        }
    }

    /// Every session that was there all the time saw what was delivered, unless something was wrong.
    fn seen_by_all(&mut self, name: &str, message: &Message, told: Ms, seen_by: &[usize]) {
        if self.cause(message.sent, told).is_some() {
            return;
        }
        for (at, session) in self.history.sessions.iter().enumerate() {
            let was_in =
                session.user == message.to && self.is_in(session, message.sent, told + NOTE_TIME_MAX);
            if was_in && !seen_by.contains(&at) {
                let what = format!("{name}, but session {at} on node {} did not see it", session.node);
                self.wrong(Rule::Partial, told, what);
            }
        }
    }

    /// A recipient was said to be offline.
    fn offline(&mut self, name: String, message: &Message, told: Ms) {
        let was_in =
            |session: &&Session| session.user == message.to && self.is_in(session, message.sent, told);
        let Some(session) = self.history.sessions.iter().find(was_in) else { return };
        let node = session.node;
        if self.is_lost(message.sent, told) {
            self.excuse("said to be offline when Redis had lost its data");
        } else if self.is_taken_for_dead(node, message.sent, told) {
            self.excuse("said to be offline while the node was taken for dead");
        } else {
            self.wrong(Rule::FalseOffline, told, format!("{name}, but was on node {node}"));
        }
    }

    fn question(&mut self, question: &Question) {
        let Question { asks, node, user, asked, answered } = question;
        let name = format!("{asks:?} user{user} on node {node} at {asked}");
        let Some((answered, answer)) = answered else {
            let is_killed = match asks {
                Asks::Login => self.kills(*node).any(|kill| kill >= *asked),
                Asks::Who(session) => self.fell(&self.history.sessions[*session]).is_some(),
            };
            if !is_killed {
                self.wrong(Rule::Unanswered, *asked, name);
            }
            return;
        };
        self.in_time(&name, *node, *asked, *answered);
        let cause = self.cause(*asked, *answered);
        match answer {
            Answer::In => {}
            Answer::Error(word) if word == "unavailable" => {
                if cause.is_none() {
                    self.wrong(Rule::CauselessUnavailable, *answered, name);
                }
            }
            Answer::Error(word) => self.wrong(Rule::Odd, *answered, format!("{name}: {word}")),
            Answer::Online(count) => {
                let of_user = || self.history.sessions.iter().filter(|session| session.user == *user);
                let least = of_user().filter(|session| self.is_in(session, *asked, *answered)).count();
                let most = of_user().filter(|session| may_be_in(session, *asked, *answered)).count();
                if (least..=most).contains(count) {
                } else if cause.is_some() {
                    self.excuse("WHO was wrong, by a fault");
                } else {
                    let what = format!("{name}: {count}, not {least} to {most}");
                    self.wrong(Rule::WrongPresence, *answered, what);
                }
            }
        }
    }

    fn in_time(&mut self, name: &str, node: usize, asked: Ms, answered: Ms) {
        let freezes = self.history.troubles.iter().filter(|t| t.fault == Fault::NodeFrozen(node));
        let frozen: Ms = freezes.map(|trouble| trouble.overlap(asked, answered)).sum();
        let took = answered.saturating_sub(asked + frozen);
        if took > REPLY_TIME_MAX {
            self.wrong(Rule::Late, answered, format!("{name} took {took} ms"));
        } else if took > SOON_TIME && self.cause(asked, answered).is_none() {
            self.wrong(Rule::Slow, answered, format!("{name} took {took} ms"));
        }
    }

    /// Whether a session was surely there all the time between these two.
    fn is_in(&self, session: &Session, from: Ms, to: Ms) -> bool {
        let left = session.left.map(|(at, _)| at);
        let gone =
            left.into_iter().chain(self.killed(session)).chain(session.ended.as_ref().map(|end| end.0));
        session.since <= from && gone.min().is_none_or(|gone| gone > to)
    }

    /// When a connection fell without a goodbye, and when its node had noticed that.
    fn fell(&self, session: &Session) -> Option<(Ms, Ms)> {
        if let Some((at, Leaving::HangsUp)) = session.left {
            let freezes = self.troubles(at, at + NOTE_TIME_MAX);
            let freezes = freezes.filter(|trouble| trouble.fault == Fault::NodeFrozen(session.node));
            let noticed = freezes.map(|trouble| trouble.to.unwrap_or(Ms::MAX)).max().unwrap_or(at).max(at);
            return Some((at, noticed));
        }
        self.killed(session).map(|at| (at, at))
    }

    /// When a session's node was killed under it.
    fn killed(&self, session: &Session) -> Option<Ms> {
        let ended = session.ended.as_ref().map_or(Ms::MAX, |(at, _)| *at);
        self.kills(session.node).find(|kill| (session.asked..=ended).contains(kill))
    }

    fn kills(&self, node: usize) -> impl Iterator<Item = Ms> + use<'a> {
        let kills = self.history.troubles.iter().filter(move |t| t.fault == Fault::NodeKilled(node));
        kills.map(|trouble| trouble.from)
    }

    /// Whether Redis had lost its data, or might have.
    fn is_lost(&self, from: Ms, to: Ms) -> bool {
        let mut losses = self.troubles(from.saturating_sub(LOSS_TIME), to);
        losses.any(|trouble| trouble.fault.loses_presence())
    }

    /// Whether others might take a node for dead that lives.
    fn is_taken_for_dead(&self, node: usize, from: Ms, to: Ms) -> bool {
        let mut troubles = self.troubles(from.saturating_sub(RETURN_TIME), to);
        let is_long =
            |trouble: &Trouble| trouble.to.is_none_or(|end| end >= trouble.from + LEASE_TIME - 1_000);
        troubles.any(|t| t.fault.node() == Some(node) && t.fault.stops_lease() && is_long(t))
    }

    /// A fault that may be why something between these two went wrong.
    fn cause(&self, from: Ms, to: Ms) -> Option<&'a Trouble> {
        self.trouble(from.saturating_sub(AFTERMATH_TIME), to)
    }

    fn trouble(&self, from: Ms, to: Ms) -> Option<&'a Trouble> {
        self.troubles(from, to).next()
    }

    fn troubles(&self, from: Ms, to: Ms) -> impl Iterator<Item = &'a Trouble> + use<'a> {
        self.history.troubles.iter().filter(move |trouble| trouble.is_within(from, to))
    }
}

/// Whether a session may have been there at some time between these two.
fn may_be_in(session: &Session, from: Ms, to: Ms) -> bool {
    let ended = session.ended.as_ref().map_or(Ms::MAX, |(at, _)| at + 2 * NOTE_TIME_MAX);
    session.asked <= to && ended >= from
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {:?}: {}", self.at, self.rule, self.what)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Delivered => f.write_str("OK delivered"),
            Fate::Error(word) => write!(f, "ERR {word}"),
        }
    }
}
