//! The facts that excuse: who was where, which connection fell, which fault was there.
//!
//! Found once, so that a question about one of a million messages is cheap: the sessions of
//! a user, what became of each session, and who saw each message.

use pinpost::internals::proto::CloseReason;

use crate::history::Answer;
use crate::history::Asks;
use crate::history::End;
use crate::history::History;
use crate::history::Leaving;
use crate::history::Message;
use crate::history::Session;
use crate::history::Time;
use crate::history::Trouble;
use crate::history::fault::Fault;
use crate::history::margins::Margins;

/// What is known of a history.
pub struct Facts<'a> {
    history: &'a History,
    margins: Margins,
    /// What became of each session.
    ends: Vec<Ending>,
    /// The sessions of each user.
    of_users: Vec<Vec<usize>>,
    /// Where each message was seen, in the order of their numbers: the message, the client,
    /// and the place in what that has seen.
    sights: Vec<(usize, usize, usize)>,
    /// Where those of a message begin.
    first_sights: Vec<usize>,
}

/// The end of a session.
#[derive(Clone, Copy)]
struct Ending {
    /// Until then it was surely there.
    gone: Time,
    /// The same, if no other login had taken its place.
    stays: Time,
    /// When nothing more could be heard.
    over: Time,
    /// When it fell without a goodbye, and when its node had noticed that.
    fell: Option<(Time, Time)>,
    /// When its node's process ended under it.
    killed: Option<Time>,
}

impl<'a> Facts<'a> {
    pub fn of(history: &'a History) -> Self {
        let of_sessions = history.sessions.iter().map(|session| session.user);
        let of_messages = history.messages.iter().map(|message| message.to);
        let users = of_sessions.chain(of_messages).max().map_or(0, |user| user + 1);
        let mut of_users = vec![vec![]; users];
        for (at, session) in history.sessions.iter().enumerate() {
            of_users[session.user].push(at);
        }
        let mut sights = vec![];
        for (at, client) in history.clients.iter().enumerate() {
            let known = client.seen.iter().enumerate();
            let known = known.filter(|(_, seen)| seen.message < history.messages.len());
            sights.extend(known.map(|(place, seen)| (seen.message, at, place)));
        }
        sights.sort_unstable();
        let mut first_sights = vec![0; history.messages.len() + 1];
        for (message, ..) in &sights {
            first_sights[message + 1] += 1;
        }
        for number in 0..history.messages.len() {
            first_sights[number + 1] += first_sights[number];
        }
        let margins = history.margins;
        let mut facts = Facts { history, margins, ends: vec![], of_users, sights, first_sights };
        facts.ends = (0..history.sessions.len()).map(|at| facts.ending(at)).collect();
        if history.rules.sessions_max == 1 {
            facts.replace();
        }
        facts
    }

    fn ending(&self, at: usize) -> Ending {
        let session = &self.history.sessions[at];
        let over = session.ended.as_ref().map_or(Time::MAX, |(at, _)| *at);
        let killed = self.kills(session.node).find(|kill| (session.asked..=over).contains(kill));
        let left = session.left.map(|(at, _)| at);
        let cut = session.was_cut(killed).then(|| self.cut_since(at, over.saturating_sub(self.margins.soon)));
        let gone = left.into_iter().chain(killed).chain(cut).chain([over]).min().unwrap_or(over);
        let fell = match session.left {
            Some((at, Leaving::HangsUp)) => {
                // The goodbye may still be on its way when the node stops.
                let late = self.margins.note.max(self.margins.way);
                let freezes = self.freezes(session.node, at, at + late);
                let noticed = freezes.map(|trouble| trouble.to.unwrap_or(Time::MAX)).max();
                Some((at, noticed.unwrap_or(at).max(at)))
            }
            _ => killed.map(|at| (at, at)),
        };
        Ending { gone, stays: gone, over, fell, killed }
    }

    /// When a session that was cut off began the rest for which it was: the first behind which it was sent nothing
    /// new, for it may read for long what came before it was cut off; or else that time.
    fn cut_since(&self, at: usize, or: Time) -> Time {
        let session = &self.history.sessions[at];
        let seen = self.history.clients[session.client].seen.iter().filter(|seen| seen.session == at);
        let sent = seen.filter_map(|seen| self.history.messages.get(seen.message)).map(Message::sent);
        let newest = sent.max().unwrap_or(0);
        let rests = session.naps.iter().chain(&session.stalls).filter(|rest| rest.1 >= newest);
        rests.map(|rest| rest.0).min().unwrap_or(or)
    }

    /// Each login of a user takes the place of the sessions before, though these may not know it for a while. Of
    /// two logins that race either may be the one before; who hangs up may have been replaced without hearing of it.
    fn replace(&mut self) {
        for question in self.history.questions.iter().filter(|question| question.asks == Asks::Login) {
            for at in &self.of_users[question.user] {
                let (session, end) = (&self.history.sessions[*at], &mut self.ends[*at]);
                let was_replaced = matches!(session.ended, Some((_, End::Bye(CloseReason::Replaced))))
                    || matches!(session.left, Some((_, Leaving::HangsUp)));
                let is_own = question.answered == Some((session.since, Answer::In));
                let races = question.answered.is_none_or(|(answered, _)| answered >= session.asked);
                if session.asked < question.asked || (was_replaced && races && !is_own) {
                    end.gone = end.gone.min(question.asked.max(session.asked));
                }
            }
        }
    }

    /// The sessions of a user, in the order in which they came.
    pub fn of_user(&self, user: usize) -> impl Iterator<Item = (usize, &'a Session)> {
        let of_user = self.of_users.get(user).map_or(&[][..], Vec::as_slice);
        of_user.iter().map(|at| (*at, &self.history.sessions[*at]))
    }

    /// Who saw a message: the client, and the place in what it has seen.
    pub fn sights(&self, message: usize) -> impl Iterator<Item = (usize, usize)> {
        let range = self.first_sights[message]..self.first_sights[message + 1];
        self.sights[range].iter().map(|(_, client, place)| (*client, *place))
    }

    /// Whether a session was surely there all the time between these two.
    pub fn is_in(&self, session: usize, from: Time, to: Time) -> bool {
        self.history.sessions[session].since <= from && self.ends[session].gone > to
    }

    /// Whether a session may have been there at some time between these two.
    pub fn may_be_in(&self, session: usize, from: Time, to: Time) -> bool {
        let late = 2 * self.margins.note.max(self.margins.soon);
        let ended = self.ends[session].over.saturating_add(late);
        self.history.sessions[session].asked <= to && ended >= from
    }

    /// Whether Redis went back to a time at which a session was there: its node has forgotten the session, and
    /// nobody else removes it.
    pub fn is_brought_back(&self, session: usize, by: Time) -> bool {
        self.troubles(0, by).any(|trouble| match trouble.fault {
            Fault::RedisOlder(back) => {
                let then = trouble.from.saturating_sub(back as Time * self.margins.ms);
                self.may_be_in(session, then, trouble.from)
            }
            _ => false,
        })
    }

    /// When a session was there no more, or about to go.
    pub fn gone(&self, session: usize) -> Time {
        self.ends[session].gone
    }

    /// When a session was there no more, whether or not another login took its place.
    pub fn stays(&self, session: usize) -> Time {
        self.ends[session].stays
    }

    /// When a connection fell without a goodbye, and when its node had noticed that.
    pub fn fell(&self, session: usize) -> Option<(Time, Time)> {
        self.ends[session].fell
    }

    /// When the process of a session's node ended under it.
    pub fn killed(&self, session: usize) -> Option<Time> {
        self.ends[session].killed
    }

    /// Whether a connection of a user ended between these two, or might have.
    pub fn has_lost_one(&self, user: usize, from: Time, to: Time) -> bool {
        let ended = |at: usize| self.ends[at].gone <= to && self.ends[at].over >= from;
        self.of_users[user].iter().any(|at| ended(*at))
    }

    /// How many sessions of a user came between these two.
    pub fn moves(&self, user: usize, from: Time, to: Time) -> Time {
        let came = |session: &Session| session.asked <= to && session.since >= from;
        self.of_user(user).filter(|(_, session)| came(session)).count() as Time
    }

    /// Whether a client of a user acknowledged, or read, nothing for so long between these two.
    pub fn has_napped(&self, user: usize, from: Time, to: Time, time: Time) -> bool {
        let mut of_user = self.of_user(user);
        of_user.any(|(_, session)| session.rests() && session.napped(from, to) >= time)
    }

    /// When the process of a node ended.
    pub fn kills(&self, node: usize) -> impl Iterator<Item = Time> + use<'a> {
        let is_it =
            move |trouble: &&Trouble| trouble.fault.ends_process() && trouble.fault.node() == Some(node);
        self.history.troubles.iter().filter(is_it).map(|trouble| trouble.from)
    }

    /// Whether a node's process was the same at these two times.
    pub fn is_same_process(&self, node: usize, from: Time, to: Time) -> bool {
        // One that drains ends some time later.
        let mut ends = self.troubles(from, to).filter(|trouble| trouble.fault.ends_process());
        !ends.any(|trouble| trouble.fault.node() == Some(node))
    }

    /// A fault that may be why something between these two went wrong.
    pub fn cause(&self, from: Time, to: Time) -> Option<&'a Trouble> {
        self.troubles(from.saturating_sub(self.margins.aftermath), to).next()
    }

    /// How much of the time between these two a node did nothing.
    pub fn frozen(&self, node: usize, from: Time, to: Time) -> Time {
        self.freezes(node, from, to).map(|trouble| trouble.overlap(from, to)).sum()
    }

    /// What made a node do nothing at some time between these two.
    fn freezes(&self, node: usize, from: Time, to: Time) -> impl Iterator<Item = &'a Trouble> + use<'a> {
        let holds = [Fault::NodeFrozen(node), Fault::Stalled];
        self.troubles(from, to).filter(move |trouble| holds.contains(&trouble.fault))
    }

    /// Whether anything was wrong between these two, or anybody rested.
    pub fn is_troubled(&self, from: Time, to: Time) -> bool {
        let mut sessions = self.history.sessions.iter();
        self.cause(from, to).is_some()
            || sessions.any(|session| session.rests() && session.napped(from, to) > 0)
    }

    /// The faults that were at work at some time between these two.
    pub fn at_work(&self, from: Time, to: Time) -> impl Iterator<Item = &'a Trouble> + use<'a> {
        let margins = self.margins;
        let is_at_work = move |trouble: &&Trouble| trouble.from <= to && healed(trouble, &margins) >= from;
        self.history.troubles.iter().filter(is_at_work)
    }

    /// A fault at work between these two that has to do with a message: with all nodes, with one of its
    /// senders, or with one where its recipient was or was thought to be.
    pub fn near(&self, message: &Message, from: Time, to: Time) -> Option<&'a Trouble> {
        self.at_work(from, to).find(|trouble| self.is_near(trouble.fault, message, to))
    }

    /// One that may be why nothing is known of a message.
    pub fn reason(&self, message: &Message, from: Time, to: Time) -> Option<&'a Trouble> {
        let mut faults = self.at_work(from, to).filter(|trouble| !trouble.fault.is_made_good());
        faults.find(|trouble| self.is_near(trouble.fault, message, to))
    }

    /// Whether a fault has to do with a message.
    pub fn is_near(&self, fault: Fault, message: &Message, to: Time) -> bool {
        let Some(node) = fault.node() else { return true };
        let sessions = &self.history.sessions;
        let mut origins = message.attempts.iter().map(|attempt| sessions[attempt.session].node);
        let since = message.sent().saturating_sub(self.margins.belief);
        let mut of_user = self.of_user(message.to);
        // A login that came to nothing may have been found by others, too.
        let mut logins = self.history.questions.iter().filter(|question| question.asks == Asks::Login);
        origins.any(|origin| origin == node)
            || of_user.any(|(at, session)| session.node == node && self.may_be_in(at, since, to))
            || logins.any(|login| {
                (login.user, login.node) == (message.to, node) && (since..=to).contains(&login.asked)
            })
    }

    pub fn troubles(&self, from: Time, to: Time) -> impl Iterator<Item = &'a Trouble> + use<'a> {
        self.history.troubles.iter().filter(move |trouble| trouble.is_within(from, to))
    }
}

/// Until when a fault is at work: up to when the nodes are connected again, or know who has died.
fn healed(trouble: &Trouble, margins: &Margins) -> Time {
    let known = if trouble.fault.ends_process() { trouble.from + margins.death } else { 0 };
    trouble.to.map_or(Time::MAX, |to| known.max(to + margins.back))
}
