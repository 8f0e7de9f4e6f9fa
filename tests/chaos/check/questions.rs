//! How connections end, and what `LOGIN` and `WHO` are answered.

use crate::check::{Check, Rule};
use crate::history::{Answer, Asks, End, Leaving, Question};

impl Check<'_> {
    /// A connection ends as its client wants, or because its node is killed.
    pub fn end(&mut self, at: usize) {
        let session = &self.history.sessions[at];
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
        let is_killed = may_break && self.facts.is_killed(at);
        if !is_as_said && !is_killed {
            self.wrong(Rule::Dropped, *ended, format!("{name} ended by {end:?}"));
        }
    }

    pub fn questions(&mut self) {
        self.history.questions.iter().for_each(|question| self.question(question));
    }

    fn question(&mut self, question: &Question) {
        let Question { asks, node, user, asked, answered } = question;
        let name = format!("{asks:?} user{user} on node {node} at {asked}");
        let Some((answered, answer)) = answered else {
            let is_killed = match asks {
                Asks::Login => self.facts.kills(*node).any(|kill| kill >= *asked),
                Asks::Who(session) => self.facts.fell(*session).is_some(),
            };
            if !is_killed {
                self.wrong(Rule::Unanswered, *asked, name);
            }
            return;
        };
        self.in_time(&name, *node, None, (*asked, *answered));
        let cause = || self.facts.cause(*asked, *answered);
        match answer {
            Answer::In => {}
            Answer::Error(word) if word == "unavailable" => {
                if cause().is_none() {
                    self.wrong(Rule::CauselessUnavailable, *answered, name);
                }
            }
            Answer::Error(word) => self.wrong(Rule::Odd, *answered, format!("{name}: {word}")),
            Answer::Online(count) => {
                let of_user = || self.facts.of_user(*user);
                let least = of_user().filter(|(at, _)| self.facts.is_in(*at, *asked, *answered)).count();
                let most = of_user().filter(|(at, _)| self.facts.may_be_in(*at, *asked, *answered)).count();
                if (least..=most).contains(count) {
                } else if cause().is_some() {
                    self.excuse("WHO was wrong", *asked, *answered);
                } else {
                    let what = format!("{name}: {count}, not {least} to {most}");
                    self.wrong(Rule::WrongPresence, *answered, what);
                }
            }
        }
    }
}
