//! Who is here: sessions come, are limited, are replaced, and go.
//!
//! A login is told to the cluster first and enters the user table second, so
//! that it knows which sessions were there before it: with `sessions = 1` it
//! ends them, otherwise it may be one too many. Whoever asks for the user
//! between the two steps is told "not here" and asks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, bounded};

use crate::cluster::{Answer, Place, Unavailable, Welcome};
use crate::outbox::{Outbox, ReplyTo, Ticket, merged};
use crate::proto::reply::print_presence;
use crate::proto::{CloseReason, ErrorCode, NodeId, SessionId, UserName, UserRef};
use crate::router::question::Question;
use crate::router::{RECEIPT_MS_MAX, Router, Turn};
use crate::table::Seat;

/// What the cluster answers to a login.
pub type Welcomed = Result<Welcome, Unavailable>;

/// What the cluster says to a login.
pub enum Login {
    /// The answer.
    Now(Welcomed),
    /// Here it will come.
    Later(Receiver<Welcomed>),
}

/// A session that has entered.
pub struct Entered {
    /// There is something in the mailbox: [`Router::start_drain`] comes next.
    pub has_mail: bool,
    /// Sessions here whose place it took: [`Router::take_over`] comes after that.
    pub replaced: Vec<Seat>,
}

/// A session that waits for the cluster's answer, or did so until a moment ago.
pub(super) struct Entering {
    user: UserName,
    outbox: Arc<Outbox>,
    /// Something was stored for the user since.
    has_mail: bool,
    /// When the answer came.
    since: Option<Instant>,
}

/// So many sessions of a user are asked what they were shown: those that came last, as each knows
/// what others before it were shown.
const SHOWN_SESSIONS_MAX: usize = 16;

/// What its user was shown on other nodes may come so long after a session has entered. Later it
/// would be taken for what the session was shown itself.
const INHERIT_TIME: Duration = Duration::from_secs(2);

impl Router {
    /// Tells the cluster of a session. Whoever calls this calls
    /// [`Router::enter`] with the answer, and [`Router::leave`] in the end,
    /// whatever came in between.
    pub fn register(&self, user: &UserName, session: SessionId, outbox: &Arc<Outbox>, turn: &Turn) -> Login {
        if self.cluster.is_alone() {
            return match self.cluster.register(user, session, 0) {
                Answer::Now(welcome) => Login::Now(welcome),
                Answer::Later => unreachable!("there is nobody to wait for"),
            };
        }
        let entering = Entering { user: user.clone(), outbox: outbox.clone(), has_mail: false, since: None };
        self.entering().insert(session, entering);
        let (tx, rx) = bounded(1);
        let ticket = self.in_flight().insert(Question::Login(tx), Some(turn.now + RECEIPT_MS_MAX));
        match self.cluster.register(user, session, ticket.0) {
            Answer::Later => Login::Later(rx),
            Answer::Now(welcome) => {
                self.in_flight().remove(ticket);
                Login::Now(welcome)
            }
        }
    }

    /// Puts a session into the user table, after the cluster has answered its login.
    ///
    /// # Errors
    /// `too-many`, or `unavailable` when the cluster did not answer.
    pub fn enter(
        &self,
        user: &UserName,
        session: SessionId,
        outbox: &Arc<Outbox>,
        welcome: Welcomed,
        turn: &Turn,
    ) -> Result<Entered, ErrorCode> {
        let has_new_mail = self.answered_at(session, turn.now);
        if outbox.closing() == Some(CloseReason::Replaced) {
            // A later login has ended this one before the cluster answered it.
            return Ok(Entered { has_mail: false, replaced: vec![] });
        }
        let Welcome { others, has_mail, seen } = welcome.map_err(|Unavailable| ErrorCode::Unavailable)?;
        let shown = self.shown_here(user);
        let mut replaced = vec![];
        let seat = Seat { session, outbox: outbox.clone() };
        if self.sessions_max > 1 {
            let here_max = self.sessions_max.saturating_sub(sessions_in(&others));
            self.table.insert(user, seat, here_max).map_err(|_| ErrorCode::TooMany)?;
            if self.table.sessions_of(user.borrowed()) > 1 {
                outbox.set_behind(true);
            }
        } else {
            replaced = self.table.replace(user, seat);
            replaced.iter().for_each(|seat| seat.outbox.close(CloseReason::Replaced));
            for place in others {
                for session in place.sessions {
                    self.cluster.replace(&place.node, user, session);
                }
            }
        }
        [shown, seen].iter().for_each(|seen| outbox.inherit(seen));
        Ok(Entered { has_mail: has_mail || has_new_mail, replaced })
    }

    /// From now on a session acknowledges what it is shown.
    pub fn set_acks(&self, user: &UserName, session: SessionId, outbox: &Arc<Outbox>, turn: &Turn) {
        outbox.set_acks(turn.now);
        self.watch(user, session, outbox);
    }

    /// Takes a session back, whether or not it entered. Until others know of it, one more reply is due.
    pub fn leave(&self, user: &UserName, session: SessionId, outbox: &Arc<Outbox>, turn: &mut Turn) {
        self.entering().remove(&session);
        self.table.remove(user, session);
        self.watched().remove(&session);
        self.leave_drain(session, turn);
        let question = Question::Leaving(outbox.clone());
        let ticket = self.in_flight().insert(question, Some(turn.now + RECEIPT_MS_MAX));
        outbox.expect_silence();
        if !self.cluster.unregister(user, session, outbox.shown(self.cluster.seen_keys()), ticket.0) {
            self.unregistered(ticket);
        }
    }

    /// Others know that a session is gone.
    pub(super) fn unregistered(&self, ticket: Ticket) {
        let question = self.in_flight().remove(ticket);
        if let Some(Question::Leaving(outbox)) = question {
            outbox.end_silence();
        }
    }

    /// The cluster has answered a login.
    pub(super) fn registered(&self, ticket: Ticket, welcome: Welcomed) {
        if let Some(Question::Login(tx)) = self.in_flight().remove(ticket) {
            // Fails only if the connection is gone; then it has left by itself.
            let _ = tx.try_send(welcome);
        }
    }

    /// A user has logged in on another node too, which wants to know what the user was shown.
    pub(super) fn tell_shown(&self, node: &NodeId, user: &UserName, login: u64) {
        self.cluster.tell_shown(node, user, login, &self.shown_here(user));
    }

    /// A user was shown these on another node.
    pub(super) fn inherit(&self, user: &UserName, seen: &[u64]) {
        let entering = self.entering();
        let entering = entering.values().filter(|entering| entering.user == *user);
        entering.for_each(|entering| entering.outbox.inherit(seen));
    }

    /// Hashes of what a user was shown on this node: by sessions that have left lately, and by those that
    /// are here, as each has only what it has taken.
    pub(super) fn shown_here(&self, user: &UserName) -> Vec<u64> {
        let mut seats = vec![];
        self.table.find(user.borrowed(), &mut seats);
        let keys = self.cluster.seen_keys();
        let here = seats.iter().rev().take(SHOWN_SESSIONS_MAX).map(|seat| seat.outbox.shown(keys).all);
        merged(std::iter::once(self.cluster.left(user)).chain(here).collect())
    }

    /// A login on another node took the place of a session here.
    pub(super) fn replaced(&self, user: &UserName, session: SessionId) {
        if let Some(seat) = self.table.seat(user, session) {
            self.table.remove(user, session);
            seat.outbox.close(CloseReason::Replaced);
        } else if let Some(entering) = self.entering().remove(&session) {
            entering.outbox.close(CloseReason::Replaced);
        }
    }

    /// The cluster has answered a login. Tells whether something was stored for its user since it was
    /// registered.
    fn answered_at(&self, session: SessionId, now: Instant) -> bool {
        let mut entering = self.entering();
        let Some(entering) = entering.get_mut(&session) else { return false };
        entering.since = Some(now);
        entering.has_mail
    }

    /// Forgets logins that were answered long enough ago.
    pub(super) fn expire_entered(&self, now: Instant) {
        let is_new = |since: Instant| now.duration_since(since) < INHERIT_TIME;
        self.entering().retain(|_, entering| entering.since.is_none_or(is_new));
    }

    /// Something was stored for a user: sessions that enter look into the mailbox when they are in.
    pub(super) fn note_mail(&self, user: &UserName) {
        for entering in self.entering().values_mut().filter(|entering| entering.user == *user) {
            entering.has_mail = true;
        }
    }

    /// How many sessions a user has, here and in `places`.
    pub(super) fn sessions(&self, user: UserRef<'_>, places: &[Place]) -> u32 {
        self.table.sessions_of(user) + sessions_in(places) as u32
    }

    /// Answers a `WHO` that waited for presence.
    pub(super) fn answer_who(
        &self,
        asker: &Arc<Outbox>,
        reply: &ReplyTo,
        user: &UserName,
        places: &[Place],
        turn: &mut Turn,
    ) {
        let sessions = self.sessions(user.borrowed(), places);
        asker.answer(reply, &mut turn.dirty, |out| print_presence(user.borrowed(), sessions, out));
    }
}

fn sessions_in(places: &[Place]) -> usize {
    places.iter().map(|place| place.sessions.len()).sum()
}
