//! The facts that excuse: who was where, which connection fell, which fault was there.
//!
//! Found once, so that a question about one of a million messages is cheap: the sessions of
//! a user, what became of each session, and who saw each message.

use crate::check::{NOTE_TIME_MAX, RETURN_TIME};
use crate::history::{History, Leaving, Ms, Session, Trouble};
use crate::plan::Fault;

/// How long after its end a fault may still be felt: a reply's deadline, and the way there.
pub const AFTERMATH_TIME: Ms = 12_000;

/// For how long the others may still send to a node that was killed: its lease, and the
/// next time that they renew theirs.
pub const DEATH_TIME: Ms = 8_000;

/// How long a node may remember where a user was.
pub const BELIEF_TIME: Ms = 60_000;

/// How long it takes to tell Redis what a session was shown that has ended.
const HAND_OVER_TIME: Ms = 1_000;

/// What is known of a history.
pub struct Facts<'a> {
    history: &'a History,
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
    gone: Ms,
    /// When nothing more could be heard.
    over: Ms,
    /// When it fell without a goodbye, and when its node had noticed that.
    fell: Option<(Ms, Ms)>,
    /// Its node was killed under it.
    is_killed: bool,
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
        let mut facts = Facts { history, ends: vec![], of_users, sights, first_sights };
        facts.ends = history.sessions.iter().map(|session| facts.ending(session)).collect();
        facts
    }

    fn ending(&self, session: &Session) -> Ending {
        let over = session.ended.as_ref().map_or(Ms::MAX, |(at, _)| *at);
        let killed = self.kills(session.node).find(|kill| (session.asked..=over).contains(kill));
        let left = session.left.map(|(at, _)| at);
        let gone = left.into_iter().chain(killed).chain([over]).min().unwrap_or(over);
        let fell = match session.left {
            Some((at, Leaving::HangsUp)) => {
                let freezes = self.troubles(at, at + NOTE_TIME_MAX);
                let holds = [Fault::NodeFrozen(session.node), Fault::Stalled];
                let freezes = freezes.filter(|trouble| holds.contains(&trouble.fault));
                let noticed = freezes.map(|trouble| trouble.to.unwrap_or(Ms::MAX)).max();
                Some((at, noticed.unwrap_or(at).max(at)))
            }
            _ => killed.map(|at| (at, at)),
        };
        Ending { gone, over, fell, is_killed: killed.is_some() }
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
    pub fn is_in(&self, session: usize, from: Ms, to: Ms) -> bool {
        self.history.sessions[session].since <= from && self.ends[session].gone > to
    }

    /// Whether a session may have been there at some time between these two.
    pub fn may_be_in(&self, session: usize, from: Ms, to: Ms) -> bool {
        let ended = self.ends[session].over.saturating_add(2 * NOTE_TIME_MAX);
        self.history.sessions[session].asked <= to && ended >= from
    }

    /// When a session was there no more, or about to go.
    pub fn gone(&self, session: usize) -> Ms {
        self.ends[session].gone
    }

    /// When nothing more could be heard on a session.
    pub fn over(&self, session: usize) -> Ms {
        self.ends[session].over
    }

    /// When a connection fell without a goodbye, and when its node had noticed that.
    pub fn fell(&self, session: usize) -> Option<(Ms, Ms)> {
        self.ends[session].fell
    }

    /// Whether a session's node was killed under it.
    pub fn is_killed(&self, session: usize) -> bool {
        self.ends[session].is_killed
    }

    /// Whether a connection of a user ended between these two, or might have.
    pub fn has_lost_one(&self, user: usize, from: Ms, to: Ms) -> bool {
        let ended = |at: usize| self.ends[at].gone <= to && self.ends[at].over >= from;
        self.of_users[user].iter().any(|at| ended(*at))
    }

    /// Whether a client of a user acknowledged nothing for so long between these two.
    pub fn has_napped(&self, user: usize, from: Ms, to: Ms, time: Ms) -> bool {
        let mut of_user = self.of_user(user);
        of_user.any(|(_, session)| !session.naps.is_empty() && session.napped(from, to) >= time)
    }

    pub fn kills(&self, node: usize) -> impl Iterator<Item = Ms> + use<'a> {
        let kills = self.history.troubles.iter().filter(move |t| t.fault == Fault::NodeKilled(node));
        kills.map(|trouble| trouble.from)
    }

    /// A fault that may be why something between these two went wrong.
    pub fn cause(&self, from: Ms, to: Ms) -> Option<&'a Trouble> {
        self.troubles(from.saturating_sub(AFTERMATH_TIME), to).next()
    }

    /// The faults that were at work at some time between these two.
    pub fn at_work(&self, from: Ms, to: Ms) -> impl Iterator<Item = &'a Trouble> + use<'a> {
        let is_at_work = move |trouble: &&Trouble| trouble.from <= to && healed(trouble) >= from;
        self.history.troubles.iter().filter(is_at_work)
    }

    /// By when Redis was surely told what a session was shown, which is when that has ended: who
    /// says goodbye may still be owed replies. A node that is killed before that never does.
    pub fn told(&self, session: usize) -> Ms {
        let node = self.history.sessions[session].node;
        let keeps = |fault: Fault| fault.silences() && fault.node().is_none_or(|other| other == node);
        let mut told = self.over(session).saturating_add(HAND_OVER_TIME);
        for trouble in self.history.troubles.iter().filter(|trouble| keeps(trouble.fault)) {
            if trouble.from <= told {
                told = told.max(healed(trouble));
            }
        }
        let is_killed = self.kills(node).any(|kill| (self.over(session)..=told).contains(&kill));
        if is_killed { Ms::MAX } else { told }
    }

    pub fn troubles(&self, from: Ms, to: Ms) -> impl Iterator<Item = &'a Trouble> + use<'a> {
        self.history.troubles.iter().filter(move |trouble| trouble.is_within(from, to))
    }
}

/// Until when a fault is at work: up to when the nodes are connected again, or know who has died.
fn healed(trouble: &Trouble) -> Ms {
    let is_kill = matches!(trouble.fault, Fault::NodeKilled(_));
    let known = if is_kill { trouble.from + DEATH_TIME } else { 0 };
    trouble.to.map_or(Ms::MAX, |to| known.max(to + RETURN_TIME))
}
