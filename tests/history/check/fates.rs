//! What senders were told: that it is true, that it comes in time, and that an error has a
//! cause.
//!
//! Exact for users whose clients all log in with `ack`. For others the protocol excuses what
//! the kernel had taken for a connection that broke, and so does this.

use pinpost::internals::proto::ErrorCode;

use crate::history::Asks;
use crate::history::Attempt;
use crate::history::Fate;
use crate::history::Message;
use crate::history::Seen;
use crate::history::Session;
use crate::history::Time;
use crate::history::check::Check;
use crate::history::check::Rule;
use crate::history::fault::Fault;

/// So many messages sent while a fault was at work are enough to tell whether too many of them timed out. What
/// `timeout` promises is not broken by any number, but a node that says so whenever it is in trouble is not of use.
const EXPOSED_MIN: usize = 2_000;

/// So many messages, each as long as the simulator's are at most, fill a lane of 64 KiB.
const FULL_LANE_MIN: usize = 21;

impl Check<'_> {
    pub fn fates(&mut self) {
        for number in 0..self.history.messages.len() {
            if !self.history.messages[number].is_cast {
                self.message(number);
            }
        }
        self.timeouts();
    }

    fn message(&mut self, number: usize) {
        let message = &self.history.messages[number];
        let user = self.history.clients[message.client].user;
        let name = || format!("message {number} from user{user} to user{}", message.to);
        count(&mut self.verdict.books.fates, message.fate().map(|(_, fate)| fate), "unknown");
        let mut sights: Vec<(usize, Seen)> = self.facts.sights(number).map(|at| self.seen(at)).collect();
        let seen = sights.first().copied();
        // By somebody else it is as if it had not been seen.
        sights.retain(|(client, _)| self.history.clients[*client].user == message.to);
        let mut has_failed = true;
        for attempt in &message.attempts {
            count(&mut self.verdict.books.replies, attempt.told.map(|(_, fate)| fate), "none");
            let Some((told, fate)) = attempt.told else {
                has_failed = false;
                if self.facts.fell(attempt.session).is_none() && !self.was_cut_off(attempt.session) {
                    self.wrong(Rule::Unanswered, attempt.sent, name());
                }
                continue;
            };
            let node = self.history.sessions[attempt.session].node;
            let name = || format!("{}, sent at {} on node {node}: {fate}", name(), attempt.sent);
            let mut asked = self.asked_anew(attempt.session, attempt.sent, told);
            if !message.is_tagged {
                // Its reply came behind those before it.
                let before = self.in_order.insert(attempt.session, told).unwrap_or(0);
                asked = asked.max(before.min(told));
            }
            if self.is_read(attempt.session, asked, told) {
                self.in_time(&name, node, Some((message.to, attempt.sent)), (asked, told));
            }
            match fate {
                Fate::Delivered => self.delivered(&name, message, told, &sights),
                Fate::Stored => self.stored(&name, message, told, &sights),
                Fate::Error(code) => self.error(&name, code, message, attempt, told),
            }
            has_failed &= matches!(fate, Fate::Error(_)) && !fate.is_timeout();
        }
        if let Some((client, seen)) = seen.filter(|_| has_failed) {
            let what = format!("{} failed, but client {client} saw it at {}", name(), seen.at);
            self.wrong(Rule::SeenAfterAll, seen.at, what);
        }
    }

    fn seen(&self, (client, place): (usize, usize)) -> (usize, Seen) {
        (client, self.history.clients[client].seen[place])
    }

    /// Somebody has acknowledged it, or shown it without.
    fn delivered(
        &mut self,
        name: &dyn Fn() -> String,
        message: &Message,
        told: Time,
        sights: &[(usize, Seen)],
    ) {
        let is_taken = |(client, seen): &(usize, Seen)| {
            let is_acked = seen.acked.is_some_and(|acked| acked <= told);
            is_acked || !self.history.clients[*client].acks
        };
        if sights.iter().any(is_taken) {
            if message.attempts.len() == 1 {
                self.seen_by_all(name, message, told, sights);
            }
        } else if self.is_in_the_kernel(message, told) {
            let from = message.sent().saturating_sub(self.margins.note);
            self.excuse("delivered to a connection that broke then", from, told + self.margins.note);
        } else {
            let rule = if sights.is_empty() { Rule::Lost } else { Rule::Unacknowledged };
            self.wrong(rule, told, name());
        }
    }

    /// Somebody has shown it, sooner or later, for nobody has mail in the end.
    fn stored(&mut self, name: &dyn Fn() -> String, message: &Message, told: Time, sights: &[(usize, Seen)]) {
        if sights.iter().any(|(_, seen)| seen.is_shown) {
            if message.attempts.len() == 1 {
                self.stored_though(name, message, told);
            }
        } else if self.is_in_the_kernel(message, told) || self.is_drained_into_the_kernel(message, told) {
            self.excuse("stored, and drained to a connection that broke then", message.sent(), told);
        } else if self.is_lost_with_its_mailbox(message, told) {
            self.excuse("stored in a mailbox that Redis lost", message.sent(), told);
        } else if self.is_untold_mail(message, told) {
            self.excuse("stored by a node that could not tell a session of it", message.sent(), told);
        } else {
            self.wrong(Rule::Lost, told, name());
        }
    }

    /// A session logged in while its mailbox was empty, and who stored the message then found it, but died before it
    /// could say so, or was not heard. It is in the mailbox, where the next login, or the sweep, finds it.
    fn is_untold_mail(&self, message: &Message, told: Time) -> bool {
        let mut its =
            message.attempts.iter().filter(|attempt| attempt.told.is_some_and(|(at, _)| at == told));
        its.any(|attempt| {
            let node = self.history.sessions[attempt.session].node;
            // Or others took it for dead, and do not listen.
            let back = self.facts.troubles(attempt.sent, told).filter(|trouble| trouble.fault.renames());
            let back =
                back.filter(|trouble| trouble.fault.node() == Some(node)).filter_map(|trouble| trouble.to);
            let then = attempt.sent..=told + self.margins.soon;
            let died = self.facts.kills(node).chain(back).filter(|at| then.contains(at));
            // Or both could not reach the broker in turn, for longer than words wait.
            let is_cut = |node| {
                let mut troubles = self.facts.troubles(told, told + self.margins.ack);
                troubles.any(|trouble| trouble.fault.cuts_broker() && trouble.fault.node() == Some(node))
            };
            let is_apart = |session: &Session| session.node != node && is_cut(session.node) && is_cut(node);
            let mut of_user = self.facts.of_user(message.to);
            let apart = of_user.any(|(at, session)| self.facts.is_in(at, told, told) && is_apart(session));
            let comes_again =
                |at: Time| self.facts.of_user(message.to).any(|(_, session)| session.asked > at);
            died.chain(apart.then_some(told)).any(|at| !comes_again(at))
        })
    }

    /// Redis went back to what it had before the message was stored.
    fn is_lost_with_its_mailbox(&self, message: &Message, told: Time) -> bool {
        self.facts.troubles(message.sent(), Time::MAX).any(|trouble| match trouble.fault {
            Fault::RedisOlder(back) => told + back as Time * self.margins.ms >= trouble.from,
            _ => false,
        })
    }

    /// It was handed to the kernel for a connection without `ack` that was broken then.
    pub fn is_in_the_kernel(&self, message: &Message, told: Time) -> bool {
        let note = self.margins.note;
        let (from, to) = (message.sent().saturating_sub(note), told + note);
        // A client that reads nothing leaves it there for as long.
        self.broken(message.to).any(|(session, fell, noticed)| {
            let rest = session.stalls.iter().map(|(from, to)| to - from).sum::<Time>();
            let way = self.margins.way;
            session.asked <= told && fell <= to + way + rest && noticed + way >= from
        }) || self.fell_entering(message.to, from, told)
    }

    /// A connection without `ack` broke behind its login and before the client heard that it was in.
    fn fell_entering(&self, user: usize, from: Time, told: Time) -> bool {
        let way = self.margins.way;
        let is_raw = self.history.clients.iter().any(|client| client.user == user && !client.acks);
        let mut logins = self.history.questions.iter().filter(|question| {
            (question.asks, question.user, question.answered) == (Asks::Login, user, None)
        });
        is_raw
            && logins.any(|login| {
                let fell = self.facts.kills(login.node).find(|kill| *kill >= login.asked);
                let fell = fell.into_iter().chain(login.given_up).min();
                login.asked <= told
                    && fell.is_some_and(|fell| fell <= told + self.margins.note + way && fell + way >= from)
            })
    }

    /// The same, when a mailbox was drained: at a login, or when Redis was back.
    fn is_drained_into_the_kernel(&self, message: &Message, told: Time) -> bool {
        let from = message.sent().saturating_sub(self.margins.note);
        let is_drain = |session: &Session, fell: Time| {
            let is_stalled = !session.stalls.is_empty();
            is_stalled
                || fell <= session.since + self.margins.drain
                || self.facts.cause(session.since, fell).is_some()
        };
        self.broken(message.to).any(|(session, fell, noticed)| {
            noticed + self.margins.way >= from
                // Who logged in meanwhile was told of it a little later.
                && (session.asked + self.margins.soon >= from || fell <= told)
                && is_drain(session, fell)
        })
    }

    /// The sessions of a user without `ack` that fell: when, and when that was noticed.
    fn broken(&self, user: usize) -> impl Iterator<Item = (&Session, Time, Time)> {
        let raw = self.facts.of_user(user).filter(|(_, session)| !self.history.clients[session.client].acks);
        raw.filter_map(|(at, session)| self.facts.fell(at).map(|(fell, noticed)| (session, fell, noticed)))
    }

    /// Every session that was there all the time saw what was delivered, unless something was wrong.
    fn seen_by_all(
        &mut self,
        name: &dyn Fn() -> String,
        message: &Message,
        told: Time,
        sights: &[(usize, Seen)],
    ) {
        let (sent, to) = (message.sent(), told + self.margins.note.max(self.margins.soon));
        // Who comes back to a node that refuses what it was sent before is found there a little later.
        let soon = self.margins.soon;
        let is_back = |at: usize, session: &Session| {
            let left = |other: &Session| {
                let (left, ended) = (other.left.map(|(at, _)| at), other.ended.map(|(at, _)| at));
                left.into_iter()
                    .chain(ended)
                    .min()
                    .is_some_and(|ended| ended <= session.since && ended + soon >= session.asked)
            };
            let mut others = self
                .facts
                .of_user(message.to)
                .filter(|(other, its)| *other != at && its.node == session.node);
            sent <= session.since + soon && others.any(|(_, other)| left(other))
        };
        let is_blind = |at: usize, session: &Session| {
            self.facts.is_in(at, sent, to)
                && !is_back(at, session)
                && sights.iter().all(|(_, seen)| seen.session != at)
                && session.napped(sent.saturating_sub(self.margins.full), to) == 0
        };
        let blind = self.facts.of_user(message.to).find(|(at, session)| is_blind(*at, session));
        let Some((at, session)) = blind else { return };
        // What is on its way to a second node may be lost with the first one, or be late.
        if self.facts.cause(sent, to).is_none() {
            let what = format!("{}, but session {at} on node {} did not see it", name(), session.node);
            self.wrong(Rule::Partial, told, what);
        }
    }

    /// Nobody is stored mail who was there all the time and listened, unless something was wrong.
    fn stored_though(&mut self, name: &dyn Fn() -> String, message: &Message, told: Time) {
        let (sent, drain) = (message.sent(), self.margins.drain);
        let is_there = |at: usize| self.facts.is_in(at, sent.saturating_sub(drain), told);
        let Some((at, session)) = self.facts.of_user(message.to).find(|(at, _)| is_there(*at)) else {
            return;
        };
        let is_excused = self.facts.has_napped(message.to, sent.saturating_sub(self.margins.full), told, 1)
            || self.facts.has_lost_one(message.to, sent.saturating_sub(drain), told)
            || self.facts.cause(sent, told).is_some();
        if !is_excused {
            let what = format!("{}, but session {at} was on node {}", name(), session.node);
            self.wrong(Rule::StoredThough, told, what);
        }
    }

    /// An error has to be true, and to have a cause.
    fn error(
        &mut self,
        name: &dyn Fn() -> String,
        code: ErrorCode,
        message: &Message,
        attempt: &Attempt,
        told: Time,
    ) {
        let sent = attempt.sent;
        // When a node is back under a new id, it is not known for a while that any user is nowhere; and what a
        // connection had that ended meanwhile may have been seen.
        let may_be_seen = code == ErrorCode::Timeout
            && self.facts.has_lost_one(message.to, sent.saturating_sub(self.margins.way), told);
        let doubt = if code == ErrorCode::Unavailable || may_be_seen { self.margins.doubt } else { 0 };
        let doubtful = sent.saturating_sub(doubt);
        let renamed = self.facts.at_work(doubtful, told).find(|trouble| doubt > 0 && trouble.fault.renames());
        // One that was killed meanwhile counts as one that is not done with its sessions, until it is dead for all.
        let mut killed = self.facts.at_work(doubtful, told).filter(|trouble| trouble.fault.ends_process());
        let before = doubtful.saturating_sub(self.margins.death);
        let mut earlier = self.facts.at_work(before, told).filter(|trouble| trouble.fault.renames());
        let renamed = renamed.or_else(|| killed.next().filter(|_| doubt > 0).and_then(|_| earlier.next()));
        let cause = self.facts.near(message, doubtful, told).or(renamed);
        // What a session had for too long it is not given again, and elsewhere there may be no time left for it.
        let rested = self.margins.soon.min(3_000 * self.margins.ms);
        let has_rested = self.facts.has_napped(message.to, message.sent(), told, rested);
        match code {
            ErrorCode::Offline => self.offline(name, message, attempt, told),
            ErrorCode::Limited => self.limited(name, message, attempt, told),
            ErrorCode::MailboxFull => self.mailbox_full(name, message, told),
            ErrorCode::Draining => {
                let node = self.history.sessions[attempt.session].node;
                if !self.facts.kills(node).any(|kill| kill <= told) {
                    self.wrong(Rule::Odd, told, name());
                }
            }
            ErrorCode::Timeout => match self.facts.reason(message, doubtful, told).or(renamed) {
                Some(_) => self.excuse("ERR timeout", sent, told),
                // Without a mailbox, what is not acknowledged in time has no other fate.
                None if has_rested => {
                    self.excuse("ERR timeout while the recipient acknowledged nothing", sent, told);
                }
                // So has what a connection had that ended before it was acknowledged.
                None if self.may_be_full(message, told)
                    && self.facts.has_lost_one(message.to, sent.saturating_sub(self.margins.way), told) =>
                {
                    self.excuse("ERR timeout as the recipient left, and may have seen it", sent, told);
                }
                None => self.wrong(Rule::CauselessTimeout, told, name()),
            },
            ErrorCode::Unavailable => match cause {
                Some(_) => self.excuse("ERR unavailable", sent.saturating_sub(doubt), told),
                None if has_rested => {
                    self.excuse("ERR unavailable, as the recipient read nothing", sent, told)
                }
                None => self.wrong(Rule::CauselessUnavailable, told, name()),
            },
            _ => self.wrong(Rule::Odd, told, name()),
        }
    }

    /// Only who has neither a mailbox nor a session is offline.
    fn offline(&mut self, name: &dyn Fn() -> String, message: &Message, attempt: &Attempt, told: Time) {
        let mut of_user = self.facts.of_user(message.to).map(|(at, _)| at);
        let is_there = of_user.any(|at| self.facts.is_in(at, attempt.sent, told));
        drop(of_user);
        let is_excused = self.facts.near(message, attempt.sent, told).is_some();
        if self.history.rules.mailbox_max > 0 || (is_there && !is_excused) {
            self.wrong(Rule::Offline, told, name());
        }
    }

    /// Who acknowledges is told so when a recipient has no room, or too much is under way to it.
    fn limited(&mut self, name: &dyn Fn() -> String, message: &Message, attempt: &Attempt, told: Time) {
        let session = &self.history.sessions[attempt.session];
        if !self.history.clients[session.client].acks {
            return self.wrong(Rule::CauselessLimit, told, name());
        }
        // Replies fill it, too: to all that a client sends again at its login.
        let is_small = self.history.rules.outbox_bytes_max <= 64 * 1024;
        let from = attempt.sent.saturating_sub(self.margins.full);
        let is_excused = is_small
            || self.may_fill_lane(message.to, attempt, told)
            || self.facts.has_napped(message.to, from, told, 1)
            || self.facts.near(message, from, told).is_some();
        if !is_excused {
            self.wrong(Rule::CauselessLimit, told, name());
        }
    }

    /// Whether as much may have been under way to a user as fits in a lane, or in the smallest outbox that is not small.
    fn may_fill_lane(&self, to: usize, attempt: &Attempt, told: Time) -> bool {
        let is_there =
            |other: &&Attempt| other.sent <= told && other.told.is_none_or(|(at, _)| at > attempt.sent);
        let to_it = self.history.messages.iter().filter(|other| other.to == to && !other.is_cast);
        to_it.flat_map(|other| &other.attempts).filter(is_there).take(FULL_LANE_MIN).count() >= FULL_LANE_MIN
    }

    /// A mailbox that is full was sent so many.
    fn mailbox_full(&mut self, name: &dyn Fn() -> String, message: &Message, told: Time) {
        if self.history.rules.mailbox_max == 0 || !self.may_be_full(message, told) {
            self.wrong(Rule::MailboxFull, told, name());
        }
    }

    /// Whether as many messages were sent to a recipient as its mailbox holds.
    fn may_be_full(&self, message: &Message, told: Time) -> bool {
        let max = self.history.rules.mailbox_max;
        let to_it = self.history.messages.iter().filter(|other| other.to == message.to && !other.is_cast);
        // One that is sent again may be there twice.
        let sent = to_it.flat_map(|other| &other.attempts).filter(|attempt| attempt.sent <= told);
        sent.take(max).count() >= max
    }

    fn timeouts(&mut self) {
        let messages = &self.history.messages;
        let is_late = |attempt: &Attempt| attempt.told.is_some_and(|(_, fate)| fate.is_timeout());
        let is_one = |message: &&Message| message.attempts.iter().any(is_late);
        let is_excused = |message: &Message| self.facts.has_napped(message.to, message.sent(), Time::MAX, 1);
        let timeouts = messages.iter().filter(is_one).filter(|message| !is_excused(message)).count();
        let is_exposed = |sent: Time| self.facts.at_work(sent, sent).next().is_some();
        let exposed = messages.iter().filter(|message| is_exposed(message.sent())).count();
        let is_telling = exposed >= EXPOSED_MIN && self.history.rules.mailbox_max > 0;
        if is_telling && timeouts > exposed / self.margins.timeouts {
            let what = format!("{timeouts} of {exposed} messages that were sent while a fault was at work");
            self.wrong(Rule::TooManyTimeouts, 0, what);
        }
    }

    /// Who does not acknowledge is not read while others have no room, and what it says waits unread. What a rest
    /// has held up is caught up with for a while.
    pub fn is_read(&self, session: usize, from: Time, to: Time) -> bool {
        let client = self.history.sessions[session].client;
        let since = from.saturating_sub(self.margins.soon);
        self.history.clients[client].acks || !self.facts.is_troubled(since, to)
    }

    /// Who read nothing meanwhile can't know how long it took: as if it had been asked so much later.
    pub fn asked_anew(&self, session: usize, asked: Time, answered: Time) -> Time {
        let stalls = &self.history.sessions[session].stalls;
        let stalled: Time =
            stalls.iter().map(|(from, to)| (*to).min(answered).saturating_sub((*from).max(asked))).sum();
        asked + stalled
    }

    /// What was asked at one time was answered at the other. A message waits for its recipient, from when it was sent.
    pub fn in_time(
        &mut self,
        name: &dyn Fn() -> String,
        node: usize,
        message: Option<(usize, Time)>,
        (asked, answered): (Time, Time),
    ) {
        // Who moves is looked for again.
        let moves = message.map_or(0, |(to, _)| self.facts.moves(to, asked, answered));
        let soon = (1 + moves) * self.margins.soon;
        if answered.saturating_sub(asked) <= soon {
            return;
        }
        let took = answered.saturating_sub(asked + self.facts.frozen(node, asked, answered));
        let napped = |before, time| {
            message.is_some_and(|(to, sent): (usize, Time)| {
                self.facts.has_napped(to, sent.saturating_sub(before), answered, time)
            })
        };
        // A session that takes its time has more, and so has the one after it.
        let mut faults =
            self.facts.at_work(asked, answered).filter(|trouble| trouble.fault != Fault::Stalled);
        let patience = if napped(0, soon.min(self.margins.ack / 2)) {
            3 * self.margins.ack
        } else if message.is_some() && faults.nth(usize::from(!napped(0, 1))).is_some() {
            // So has what waits behind a mailbox that a dead node drains, or with a session that rests for a moment, and
            // then can't be told.
            self.margins.ack
        } else {
            0
        };
        // What is live waits for the mailbox of a session that has just come.
        let came = |(to, _): (usize, Time)| {
            let is_new =
                |session: &Session| session.since <= answered && session.since + self.margins.drain >= asked;
            self.history.rules.mailbox_max > 0 && self.facts.of_user(to).any(|(_, session)| is_new(session))
        };
        let drain = if message.is_some_and(came) { self.margins.drain } else { 0 };
        let took_name = || format!("{} took {} ms", name(), took / self.margins.ms);
        if took > self.margins.reply + patience {
            self.wrong(Rule::Late, answered, took_name());
        } else if took > soon + drain && self.facts.cause(asked, answered).is_none() {
            // What it was stored meanwhile comes first.
            if napped(self.margins.full, 1) {
                self.excuse("slow while the recipient acknowledged nothing", asked, answered);
            } else {
                self.wrong(Rule::Slow, answered, took_name());
            }
        }
    }
}

fn count(counts: &mut std::collections::BTreeMap<String, usize>, fate: Option<Fate>, none: &str) {
    let name = fate.map_or(none.to_owned(), |fate| fate.to_string());
    *counts.entry(name).or_default() += 1;
}
