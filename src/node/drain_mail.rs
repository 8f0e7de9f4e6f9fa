//! Draining a mailbox: what waits for a user is shown to the session that logs in, oldest first, before
//! anything live.
//!
//! A drain reads a few hundred messages, shows them, and reads on while they are taken. So whatever dies
//! meanwhile, a message that was not taken is still there. One session at a time drains a mailbox; another one
//! waits until it may, and holds its live messages back as long. A message that a session does not take ends
//! its drain: the rest stays for the next login.

use crate::node::deliver::Handed;
use crate::node::deliveries::Waiter;
use crate::node::drain::Drain;
use crate::node::drain::Stage;
use crate::node::drain::State;
use crate::node::in_flight::Pending;
use crate::node::seam::Ask;
use crate::node::seam::Letter;
use crate::node::seam::Mail;
use crate::node::seam::Token;
use crate::node::seam::Unavailable;
use crate::node::session_table::Seat;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;
use crate::node::timeouts::Timeout;
use crate::node::unacknowledged::Kind;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;
use crate::proto::wire::parse_body;

impl Node {
    /// Drains the mailbox of a user to a session.
    pub(super) fn start_mail(&mut self, id: ConnectionId) {
        let taking = self.connections.get_mut(id).filter(|connection| connection.takes_messages());
        let Some(connection) = taking else { return };
        let drain = connection.drain.get_or_insert_default();
        if matches!(drain.stage, Stage::Reading | Stage::Showing) || drain.is_broken {
            drain.has_more = true;
            return;
        }
        self.hold(id);
        self.read_on(id);
    }

    /// A session that has not taken something takes messages again.
    pub(super) fn mail_again(&mut self, id: ConnectionId) {
        let drain = self.connections.get_mut(id).and_then(|connection| connection.drain.as_mut());
        match drain.filter(|drain| drain.is_broken) {
            Some(drain) => drain.begins_anew = true,
            None => self.start_mail(id),
        }
    }

    /// Something was stored for a user who is here all the same.
    pub(super) fn has_mail(&mut self, user: &UserName) {
        if !self.find(user.as_str()) {
            return;
        }
        for Seat { connection, is_in } in self.seats.clone() {
            if !is_in {
                self.note_mail_for_entering(connection);
            } else {
                self.start_mail(connection);
            }
        }
    }

    /// Tries a drain again that could not go on.
    pub(super) fn resume_mail(&mut self, id: ConnectionId) {
        let drain = self.connections.get_mut(id).and_then(|connection| connection.drain.as_mut());
        if drain.is_some_and(|drain| drain.stage == Stage::Paused) {
            self.hold(id);
            self.read_on(id);
        }
    }

    /// The session has left: what it was shown may still be written, but nothing is read for it.
    pub(super) fn leave_mail(&mut self, id: ConnectionId) {
        if let Some(drain) = self.connections.get_mut(id).and_then(|connection| connection.drain.as_mut()) {
            drain.stage = Stage::Ending;
            (drain.has_more, drain.begins_anew) = (false, false);
            self.go_on_with_mail(id);
        }
    }

    fn hold(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.unacknowledged(self.now).is_held = true;
        }
    }

    /// Live messages wait no more.
    fn end_hold(&mut self, id: ConnectionId) {
        let messages = self.connections.get_mut(id).and_then(|connection| connection.unacknowledged.as_mut());
        messages.into_iter().for_each(|messages| messages.is_held = false);
        self.show(id);
    }

    fn read_on(&mut self, id: ConnectionId) {
        let Some((user, session)) = self.mail_session(id) else { return };
        let drain = self.connections.get_mut(id).and_then(|connection| connection.drain.as_mut());
        let Some(drain) = drain else { return };
        drain.stage = Stage::Reading;
        let after = drain.read_up_to;
        let ticket = self.in_flight.insert(Pending::Reading(id), self.now);
        self.ask(Ask::Read { token: Token(ticket.number()), user, session, after });
    }

    /// The mailbox has answered, or did not in time.
    pub(super) fn read_mail(&mut self, id: ConnectionId, mail: Result<Mail, Unavailable>) {
        let drain = self.connections.get_mut(id).and_then(|connection| connection.drain.as_mut());
        let Some(drain) = drain.filter(|drain| drain.stage == Stage::Reading) else { return };
        match mail {
            Ok(Mail::Busy) => {
                drain.stage = Stage::Paused;
                self.timeouts.set(Timeout::MailBusy, id, self.now);
            }
            Err(Unavailable) => {
                drain.stage = Stage::Paused;
                // Nobody knows for how long: live messages can't wait for that.
                self.timeouts.set(Timeout::MailAway, id, self.now);
                self.end_hold(id);
            }
            Ok(Mail::Letters(letters)) if letters.is_empty() => {
                let has_more = std::mem::take(&mut drain.has_more);
                drain.stage = if has_more { Stage::Showing } else { Stage::Ending };
                if !has_more {
                    self.end_hold(id);
                }
                self.go_on_with_mail(id);
            }
            Ok(Mail::Letters(letters)) => {
                drain.stage = Stage::Showing;
                drain.show(letters.iter().map(|letter| letter.place));
                for letter in letters {
                    self.show_letter(id, &letter);
                }
                self.go_on_with_mail(id);
            }
        }
    }

    fn show_letter(&mut self, id: ConnectionId, letter: &Letter) {
        let waiter = Waiter::Mail { connection: id, place: letter.place };
        let Some((from, to, sent_id, text)) = parse_body(&letter.body) else {
            // Nobody here wrote that: it goes when it is taken.
            return self.note_mail_state(id, letter.place, State::Taken);
        };
        self.seats.clear();
        self.seats.push(Seat { connection: id, is_in: true });
        self.print(from, sent_id, text);
        match self.hand(waiter, to.as_str(), true, Kind::Mail) {
            Handed::Yes => {}
            Handed::Seen(_) => self.note_mail_state(id, letter.place, State::Taken),
            Handed::Refused(..) => self.note_mail_state(id, letter.place, State::Left),
        }
    }

    /// A message from a mailbox has its fate.
    pub(super) fn note_mail(&mut self, id: ConnectionId, place: u64, state: State) {
        self.note_mail_state(id, place, state);
        self.go_on_with_mail(id);
    }

    fn note_mail_state(&mut self, id: ConnectionId, place: u64, state: State) {
        let drain = self.connections.get_mut(id).and_then(|connection| connection.drain.as_mut());
        drain.into_iter().for_each(|drain| drain.note(place, state));
    }

    /// Removes what was taken, reads on, or ends.
    fn go_on_with_mail(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(user) = connection.user.clone() else { return };
        let Some(drain) = &mut connection.drain else { return };
        let next = drain.next();
        let ended = if next.is_over.is_some() { connection.drain.take() } else { None };
        if next.ends_early {
            self.end_hold(id);
        }
        let also = next.is_over.unwrap_or_default();
        if next.take_up_to.is_some() || !also.is_empty() {
            let up_to = next.take_up_to.unwrap_or(0);
            self.ask(Ask::Take { user: user.clone(), up_to, also });
        }
        if let Some(ended) = ended {
            return self.end_mail(id, &user, &ended);
        }
        if next.reads {
            self.read_on(id);
        }
    }

    fn end_mail(&mut self, id: ConnectionId, user: &UserName, ended: &Drain) {
        if let Some((user, session)) = self.mail_session(id) {
            self.ask(Ask::Release { user, session });
        }
        if ended.begins_anew || (ended.has_more && !ended.is_broken) {
            self.start_mail(id);
        }
        if !self.find(user.as_str()) {
            return;
        }
        for seat in self.seats.clone() {
            self.resume_mail(seat.connection);
        }
    }

    /// Whose mailbox a connection drains; nobody's when its session has left, and released it by that.
    fn mail_session(&self, id: ConnectionId) -> Option<(UserName, SessionId)> {
        let connection = self.connections.get(id)?;
        Some((connection.user.clone()?, connection.session?))
    }

    /// A reading that was not answered in time.
    pub(super) fn read_late(&mut self, id: ConnectionId) {
        self.read_mail(id, Err(Unavailable));
    }
}
