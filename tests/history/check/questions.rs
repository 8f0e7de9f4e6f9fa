//! How connections end, and what `LOGIN` and `WHO` are answered.

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::history::Answer;
use crate::history::Asks;
use crate::history::End;
use crate::history::Leaving;
use crate::history::Question;
use crate::history::Session;
use crate::history::check::Check;
use crate::history::check::Rule;

impl Check<'_> {
    /// A connection ends as its client wants, or because its node is killed.
    pub fn end(&mut self, at: usize) {
        let session = &self.history.sessions[at];
        let name = || format!("session {at} of user{} on node {}", session.user, session.node);
        let Some((ended, end)) = session.ended else {
            return self.wrong(Rule::Odd, session.since, format!("{} never ended", name()));
        };
        let is_as_said = match session.left {
            Some((_, Leaving::HangsUp)) => true,
            Some((_, Leaving::Quits)) => end == End::Bye(CloseReason::Quit),
            Some((_, Leaving::HalfCloses)) => end == End::Closed,
            None => false,
        };
        let killed = self.facts.killed(at);
        let may_end = match end {
            // It did not even take its last words.
            End::Broken if session.was_cut(killed) => true,
            End::Broken | End::Closed => killed.is_some(),
            End::Bye(CloseReason::Draining) => killed.is_some(),
            End::Bye(CloseReason::Slow) => self.may_be_slow(at),
            End::Bye(CloseReason::Replaced) => self.may_be_replaced(at),
            End::Bye(_) => false,
        };
        if !is_as_said && !may_end {
            self.wrong(Rule::Dropped, ended, format!("{} ended by {end:?}", name()));
        }
    }

    /// It did not read, or not acknowledge, or other nodes pushed more than fits.
    fn may_be_slow(&self, at: usize) -> bool {
        let session = &self.history.sessions[at];
        session.rests() || self.history.rules.outbox_bytes_max < 64 * 1024
    }

    /// With one session a user, a later login takes the place of an earlier one.
    fn may_be_replaced(&self, at: usize) -> bool {
        let session = &self.history.sessions[at];
        let ended = session.ended.map_or(0, |(ended, _)| ended);
        let mut others = self.facts.of_user(session.user).filter(|(other, _)| *other != at);
        let is_logging_in = |question: &Question| {
            question.asks == Asks::Login && question.user == session.user && question.asked <= ended
        };
        self.history.rules.sessions_max == 1
            && (others.any(|(_, other)| other.asked <= ended)
                || self.history.questions.iter().any(is_logging_in))
    }

    /// A user has no more sessions than it may when one more comes; where that is one, the others are replaced soon.
    pub fn beside(&mut self, at: usize) {
        let session = &self.history.sessions[at];
        let most = self.history.rules.sessions_max;
        let until = session.since + if most == 1 { self.margins.soon } else { 0 };
        let stays = |at: usize| self.facts.stays(at) > until;
        let is_beside = |(at, other): &(usize, &Session)| other.since <= session.asked && stays(*at);
        let others = self.facts.of_user(session.user).filter(is_beside).count();
        // One that is replaced is first told what became of its messages, also of those to somebody who rests.
        if others >= most && stays(at) && !self.facts.is_troubled(session.asked, until) {
            let Session { user, node, since, .. } = *session;
            let what = format!("session {at} of user{user} on node {node} is beside {others} others");
            self.wrong(Rule::TooManySessions, since, what);
        }
    }

    pub fn questions(&mut self) {
        self.history.questions.iter().for_each(|question| self.question(question));
    }

    fn question(&mut self, question: &Question) {
        let Question { asks, node, user, asked, answered, given_up } = *question;
        let name = || format!("{asks:?} user{user} on node {node} at {asked}");
        let Some((answered, answer)) = answered else {
            let is_killed = match asks {
                // Who came in that moment noted the time a little later.
                Asks::Login => self.facts.kills(node).any(|kill| kill + self.margins.note >= asked),
                Asks::Who(session) => self.facts.fell(session).is_some() || self.was_cut_off(session),
            };
            if !is_killed && given_up.is_none() {
                self.wrong(Rule::Unanswered, asked, name());
            }
            return;
        };
        let asked_anew = match asks {
            Asks::Who(session) => self.asked_anew(session, asked, answered),
            Asks::Login => asked,
        };
        // As with a message, see there.
        let is_read = match asks {
            Asks::Who(session) => self.is_read(session, asked_anew, answered),
            Asks::Login => true,
        };
        if is_read {
            self.in_time(&name, node, None, (asked_anew, answered));
        }
        let cause = self.facts.cause(asked, answered);
        match answer {
            Answer::In => {}
            Answer::Error(ErrorCode::Unavailable) => {
                if cause.is_none() {
                    self.wrong(Rule::CauselessUnavailable, answered, name());
                }
            }
            Answer::Error(ErrorCode::TooMany) if asks == Asks::Login => {
                self.too_many(&name, question, answered)
            }
            Answer::Error(ErrorCode::Draining) | Answer::Ended(CloseReason::Draining)
                if self.facts.kills(node).any(|kill| kill <= answered) => {}
            Answer::Ended(CloseReason::Replaced) if self.history.rules.sessions_max == 1 => {}
            Answer::Error(code) => self.wrong(Rule::Odd, answered, format!("{}: {}", name(), code.word())),
            Answer::Ended(reason) => self.wrong(Rule::Odd, answered, format!("{}: {reason:?}", name())),
            Answer::Online(count) => {
                let of_user = || self.facts.of_user(user);
                let least = of_user().filter(|(at, _)| self.facts.is_in(*at, asked, answered)).count();
                // One that is replaced may not know it yet.
                let least = if self.history.rules.sessions_max == 1 { least.min(1) } else { least };
                let may_count = |at| {
                    self.facts.may_be_in(at, asked, answered) || self.facts.is_brought_back(at, answered)
                };
                let most = of_user().filter(|(at, _)| may_count(*at)).count();
                let entering = self.logins(user, asked, answered);
                if (least..=most + entering).contains(&count) {
                } else if cause.is_some() {
                    self.excuse("WHO was wrong", asked, answered);
                } else {
                    let what = format!("{}: {count}, not {least} to {}", name(), most + entering);
                    self.wrong(Rule::WrongPresence, answered, what);
                }
            }
        }
    }

    /// How many logins of a user that came to nothing were under way.
    fn logins(&self, user: usize, from: u64, to: u64) -> usize {
        let is_one = |question: &&Question| {
            let ended = question.answered.map(|(at, _)| at).or(question.given_up).unwrap_or(u64::MAX);
            question.asks == Asks::Login
                && question.user == user
                && question.asked <= to
                && ended.saturating_add(2 * self.margins.soon) >= from
                && question.answered.is_none_or(|(_, answer)| answer != Answer::In)
        };
        self.history.questions.iter().filter(is_one).count()
    }

    fn too_many(&mut self, name: &dyn Fn() -> String, question: &Question, answered: u64) {
        let Question { user, asked, .. } = *question;
        let of_user = self.facts.of_user(user);
        let may_count =
            |at| self.facts.may_be_in(at, asked, answered) || self.facts.is_brought_back(at, answered);
        let most = of_user.filter(|(at, _)| may_count(*at)).count();
        let count = most + self.logins(user, asked, answered) - 1;
        if count < self.history.rules.sessions_max && self.facts.cause(asked, answered).is_none() {
            self.wrong(Rule::Odd, answered, format!("{}: too many, and there were {count} at most", name()));
        }
    }

    /// The server cut a session off, or replaced it: what was due is not told.
    pub fn was_cut_off(&self, session: usize) -> bool {
        let of = &self.history.sessions[session];
        let is_replaced = of.ended.is_some_and(|(_, end)| end == End::Bye(CloseReason::Replaced));
        is_replaced || of.was_cut(self.facts.killed(session))
    }
}
