//! Who is here: sessions come, are limited, are replaced, and go.
//!
//! A login is told to the cluster first and enters the user table second, so
//! that it knows which sessions were there before it: with `sessions = 1` it
//! ends them, otherwise it may be one too many. Whoever asks for the user
//! between the two steps is told "not here" and asks again.

use std::sync::Arc;

use smol::channel::{Receiver, bounded};

use crate::cluster::{Answer, Place, Unavailable};
use crate::outbox::{Outbox, ReplyTo, Ticket};
use crate::proto::reply::print_presence;
use crate::proto::{CloseReason, ErrorCode, SessionId, UserName, UserRef};
use crate::router::in_flight::Question;
use crate::router::{RECEIPT_MS_MAX, Router, Turn};
use crate::table::Seat;

/// Where else a user was when it logged in.
pub type Others = Result<Vec<Place>, Unavailable>;

/// What the cluster says to a login.
pub enum Login {
    /// The answer.
    Now(Others),
    /// Here it will come.
    Later(Receiver<Others>),
}

impl Router {
    /// Tells the cluster of a session. Whoever calls this calls
    /// [`Router::enter`] with the answer, and [`Router::leave`] in the end,
    /// whatever came in between.
    pub fn register(&self, user: &UserName, session: SessionId, outbox: &Arc<Outbox>, turn: &Turn) -> Login {
        if self.cluster.is_alone() {
            return Login::Now(Ok(Vec::new()));
        }
        self.entering().insert(session, outbox.clone());
        let (tx, rx) = bounded(1);
        let ticket = self.in_flight().insert(Question::Login(tx), Some(turn.now + RECEIPT_MS_MAX));
        match self.cluster.register(user, session, ticket.0) {
            Answer::Later => Login::Later(rx),
            Answer::Now(others) => {
                self.in_flight().remove(ticket);
                Login::Now(others)
            }
        }
    }

    /// Puts a session into the user table, `others` being where else the user is.
    ///
    /// # Errors
    /// `too-many`, or `unavailable` when the cluster did not answer.
    pub fn enter(
        &self,
        user: &UserName,
        session: SessionId,
        outbox: &Arc<Outbox>,
        others: Others,
    ) -> Result<(), ErrorCode> {
        self.entered(session);
        if outbox.closing() == Some(CloseReason::Replaced) {
            // A later login has ended this one before the cluster answered it.
            return Ok(());
        }
        let others = others.map_err(|Unavailable| ErrorCode::Unavailable)?;
        let seat = Seat { session, outbox: outbox.clone() };
        if self.sessions_max > 1 {
            let here_max = self.sessions_max.saturating_sub(sessions_in(&others));
            return self.table.insert(user, seat, here_max).map_err(|_| ErrorCode::TooMany);
        }
        for before in self.table.replace(user, seat) {
            before.outbox.close(CloseReason::Replaced);
        }
        for place in others {
            for session in place.sessions {
                self.cluster.replace(&place.node, user, session);
            }
        }
        Ok(())
    }

    /// Takes a session back, whether or not it entered.
    pub fn leave(&self, user: &UserName, session: SessionId) {
        self.entered(session);
        self.table.remove(user, session);
        self.cluster.unregister(user, session);
    }

    /// The cluster has answered a login.
    pub(super) fn registered(&self, ticket: Ticket, others: Others) {
        if let Some(Question::Login(tx)) = self.in_flight().remove(ticket) {
            // Fails only if the connection is gone; then it has left by itself.
            let _ = tx.try_send(others);
        }
    }

    /// A login on another node took the place of a session here.
    pub(super) fn replaced(&self, user: &UserName, session: SessionId) {
        if let Some(seat) = self.table.seat(user, session) {
            self.table.remove(user, session);
            seat.outbox.close(CloseReason::Replaced);
        } else if let Some(outbox) = self.entering().remove(&session) {
            outbox.close(CloseReason::Replaced);
        }
    }

    /// The session is in the user table, or will never be.
    fn entered(&self, session: SessionId) {
        if !self.cluster.is_alone() {
            self.entering().remove(&session);
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
