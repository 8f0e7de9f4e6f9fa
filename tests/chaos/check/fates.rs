//! What senders were told: that it is true, that it comes in time, and that an error has a
//! cause.
//!
//! Exact for users whose clients all log in with `ack`. For others the protocol excuses what
//! the kernel had taken for a connection that broke, and so does this.

use crate::check::{Check, NOTE_TIME_MAX, REPLY_TIME_MAX, Rule, SOON_TIME};
use crate::history::{Attempt, Fate, Message, Ms, Seen, Session};
use crate::plan::Fault;

/// Of the messages that were sent while a fault was at work one of so many may time out; a few
/// always may. What `timeout` promises is not broken by any number, but a node that says so
/// whenever it is in trouble is not of use.
const TIMEOUTS_SHARE: usize = 20;
const TIMEOUTS_MIN: usize = 4;

/// For how long there is doubt where users are, after a node is back under a new id.
pub const DOUBT_TIME: Ms = 5_000;

/// How long after its login a session may still be drained its mailbox.
const DRAIN_TIME: Ms = 3_000;

/// How long before a message a client may have stopped to acknowledge, for its session to
/// have no room for it.
const FULL_TIME: Ms = 12_000;

impl Check<'_> {
    pub fn fates(&mut self) {
        for number in 0..self.history.messages.len() {
            self.message(number);
        }
        self.timeouts();
    }

    fn message(&mut self, number: usize) {
        let message = &self.history.messages[number];
        let user = self.history.clients[message.client].user;
        let name = format!("message {number} from user{user} to user{}", message.to);
        let fate = message.fate().map_or("unknown".to_owned(), |(_, fate)| fate.to_string());
        *self.verdict.books.fates.entry(fate).or_default() += 1;
        let mut sights: Vec<(usize, Seen)> = self.facts.sights(number).map(|at| self.seen(at)).collect();
        let seen = sights.first().copied();
        // By somebody else it is as if it had not been seen.
        sights.retain(|(client, _)| self.history.clients[*client].user == message.to);
        let mut has_failed = true;
        for attempt in &message.attempts {
            let Some((told, fate)) = &attempt.told else {
                *self.verdict.books.replies.entry("none".to_owned()).or_default() += 1;
                has_failed = false;
                if self.facts.fell(attempt.session).is_none() {
                    self.wrong(Rule::Unanswered, attempt.sent, name.clone());
                }
                continue;
            };
            *self.verdict.books.replies.entry(fate.to_string()).or_default() += 1;
            let node = self.history.sessions[attempt.session].node;
            let name = format!("{name}, sent at {} on node {node}: {fate}", attempt.sent);
            self.in_time(&name, node, Some(message.to), (attempt.sent, *told));
            match fate {
                Fate::Delivered => self.delivered(name, message, *told, &sights),
                Fate::Stored => self.stored(name, message, *told, &sights),
                Fate::Error(word) => self.error(name, word, message.to, attempt, *told),
            }
            has_failed &= matches!(fate, Fate::Error(_)) && !fate.is_timeout();
        }
        if let Some((client, seen)) = seen.filter(|_| has_failed) {
            let what = format!("{name} failed, but client {client} saw it at {}", seen.at);
            self.wrong(Rule::SeenAfterAll, seen.at, what);
        }
    }

    fn seen(&self, (client, place): (usize, usize)) -> (usize, Seen) {
        (client, self.history.clients[client].seen[place])
    }

    /// Somebody has acknowledged it, or shown it without.
    fn delivered(&mut self, name: String, message: &Message, told: Ms, sights: &[(usize, Seen)]) {
        let is_taken = |(client, seen): &(usize, Seen)| {
            let is_acked = seen.acked.is_some_and(|acked| acked <= told);
            is_acked || !self.history.clients[*client].acks
        };
        if sights.iter().any(is_taken) {
            if message.attempts.len() == 1 {
                self.seen_by_all(&name, message, told, sights);
            }
        } else if self.is_in_the_kernel(message, told) {
            let from = message.sent().saturating_sub(NOTE_TIME_MAX);
            self.excuse("delivered to a connection that broke then", from, told + NOTE_TIME_MAX);
        } else {
            let rule = if sights.is_empty() { Rule::Lost } else { Rule::Unacknowledged };
            self.wrong(rule, told, name);
        }
    }

    /// Somebody has shown it, sooner or later, for nobody has mail in the end.
    fn stored(&mut self, name: String, message: &Message, told: Ms, sights: &[(usize, Seen)]) {
        if sights.iter().any(|(_, seen)| seen.is_shown) {
            if message.attempts.len() == 1 {
                self.stored_though(name, message, told);
            }
        } else if self.is_in_the_kernel(message, told) || self.is_drained_into_the_kernel(message, told) {
            self.excuse("stored, and drained to a connection that broke then", message.sent(), told);
        } else {
            self.wrong(Rule::Lost, told, name);
        }
    }

    /// It was handed to the kernel for a connection without `ack` that was broken then.
    fn is_in_the_kernel(&self, message: &Message, told: Ms) -> bool {
        let (from, to) = (message.sent().saturating_sub(NOTE_TIME_MAX), told + NOTE_TIME_MAX);
        self.broken(message.to)
            .any(|(session, fell, noticed)| session.asked <= told && fell <= to && noticed >= from)
    }

    /// The same, when a mailbox was drained: at a login, or when Redis was back.
    fn is_drained_into_the_kernel(&self, message: &Message, told: Ms) -> bool {
        let from = message.sent().saturating_sub(NOTE_TIME_MAX);
        let is_drain = |session: &Session, fell: Ms| {
            fell <= session.since + DRAIN_TIME || self.facts.cause(session.since, fell).is_some()
        };
        self.broken(message.to).any(|(session, fell, noticed)| {
            noticed >= from && (session.asked >= from || fell <= told) && is_drain(session, fell)
        })
    }

    /// The sessions of a user without `ack` that fell: when, and when that was noticed.
    fn broken(&self, user: usize) -> impl Iterator<Item = (&Session, Ms, Ms)> {
        let raw = self.facts.of_user(user).filter(|(_, session)| !self.history.clients[session.client].acks);
        raw.filter_map(|(at, session)| self.facts.fell(at).map(|(fell, noticed)| (session, fell, noticed)))
    }

    /// Every session that was there all the time saw what was delivered, unless something was wrong.
    fn seen_by_all(&mut self, name: &str, message: &Message, told: Ms, sights: &[(usize, Seen)]) {
        let (sent, to) = (message.sent(), told + NOTE_TIME_MAX);
        let is_blind = |at: usize, session: &Session| {
            self.facts.is_in(at, sent, to)
                && session.napped(sent.saturating_sub(FULL_TIME), to) == 0
                && sights.iter().all(|(_, seen)| seen.session != at)
        };
        let blind = self.facts.of_user(message.to).find(|(at, session)| is_blind(*at, session));
        let Some((at, session)) = blind else { return };
        // What is on its way to a second node may be lost with the first one, or be late.
        if self.facts.cause(sent, to).is_none() {
            let what = format!("{name}, but session {at} on node {} did not see it", session.node);
            self.wrong(Rule::Partial, told, what);
        }
    }

    /// Nobody is stored mail who was there all the time and listened, unless something was wrong.
    fn stored_though(&mut self, name: String, message: &Message, told: Ms) {
        let sent = message.sent();
        let is_there = |at: usize| self.facts.is_in(at, sent.saturating_sub(DRAIN_TIME), told);
        let Some((at, session)) = self.facts.of_user(message.to).find(|(at, _)| is_there(*at)) else {
            return;
        };
        let is_excused = self.facts.has_napped(message.to, sent.saturating_sub(FULL_TIME), told, 1)
            || self.facts.has_lost_one(message.to, sent.saturating_sub(DRAIN_TIME), told)
            || self.facts.cause(sent, told).is_some();
        if !is_excused {
            let what = format!("{name}, but session {at} was on node {}", session.node);
            self.wrong(Rule::StoredThough, told, what);
        }
    }

    /// An error has to be true, and to have a cause.
    fn error(&mut self, name: String, word: &str, to: usize, attempt: &Attempt, told: Ms) {
        // When a node is back under a new id, it is not known for a while that a user is nowhere.
        let doubt = if word == "unavailable" { DOUBT_TIME } else { 0 };
        let cause = self.facts.at_work(attempt.sent.saturating_sub(doubt), told).next();
        match (word, cause) {
            ("offline", _) => self.wrong(Rule::Offline, told, name),
            ("timeout", None) if self.facts.has_napped(to, attempt.sent, told, SOON_TIME) => {
                self.excuse("ERR timeout while the recipient acknowledged nothing", attempt.sent, told);
            }
            ("timeout", None) => self.wrong(Rule::CauselessTimeout, told, name),
            ("unavailable", None) => self.wrong(Rule::CauselessUnavailable, told, name),
            ("timeout", Some(_)) => {
                self.excuse("ERR timeout", attempt.sent, told);
            }
            ("unavailable", Some(_)) => {
                self.excuse("ERR unavailable", attempt.sent.saturating_sub(doubt), told);
            }
            _ => self.wrong(Rule::Odd, told, name),
        }
    }

    fn timeouts(&mut self) {
        let messages = &self.history.messages;
        let is_late = |attempt: &Attempt| attempt.told.as_ref().is_some_and(|(_, fate)| fate.is_timeout());
        let timeouts = messages.iter().filter(|message| message.attempts.iter().any(is_late)).count();
        let is_exposed = |sent: Ms| self.facts.at_work(sent, sent).next().is_some();
        let exposed = messages.iter().filter(|message| is_exposed(message.sent())).count();
        if timeouts > TIMEOUTS_MIN.max(exposed / TIMEOUTS_SHARE) {
            let what = format!("{timeouts} of {exposed} messages that were sent while a fault was at work");
            self.wrong(Rule::TooManyTimeouts, 0, what);
        }
    }

    /// What was asked at one time was answered at the other; a message waits for its recipient.
    pub fn in_time(
        &mut self,
        name: &str,
        node: usize,
        recipient: Option<usize>,
        (asked, answered): (Ms, Ms),
    ) {
        if answered.saturating_sub(asked) <= SOON_TIME {
            return;
        }
        let freezes = self.facts.troubles(asked, answered);
        let freezes = freezes.filter(|t| [Fault::NodeFrozen(node), Fault::Stalled].contains(&t.fault));
        let frozen: Ms = freezes.map(|trouble| trouble.overlap(asked, answered)).sum();
        let took = answered.saturating_sub(asked + frozen);
        let napped = |time| recipient.is_some_and(|user| self.facts.has_napped(user, asked, answered, time));
        if took > REPLY_TIME_MAX {
            self.wrong(Rule::Late, answered, format!("{name} took {took} ms"));
        } else if took > SOON_TIME && self.facts.cause(asked, answered).is_none() {
            if napped(took - SOON_TIME) {
                self.excuse("slow while the recipient acknowledged nothing", asked, answered);
            } else {
                self.wrong(Rule::Slow, answered, format!("{name} took {took} ms"));
            }
        }
    }
}
