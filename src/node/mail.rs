//! Draining a mailbox: what waits for a user is shown to the session that logs in, oldest first, before
//! anything live.
//!
//! A drain reads a few hundred messages, shows them, and reads on while they are taken. A message leaves the mailbox
//! only after it was taken: written, or acknowledged where the session acknowledges. So whatever dies meanwhile, one
//! that was not taken is still there. One session at a time drains a mailbox; another one waits until it may, and
//! holds its live messages back as long. A message that a session does not take ends its drain: the rest stays for
//! the next login.

use crate::mailbox::READ_MESSAGES_MAX;
use crate::node::connection::{Drain, Stage};
use crate::node::deadlines::{Pending, Timeout};
use crate::node::deliver::print_line;
use crate::node::deliveries::Waiter;
use crate::node::seam::{Letter, Mail, Unavailable, What};
use crate::node::session_table::Seat;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;
use crate::node::unacknowledged::Kind;
use crate::proto::name::{UserName, UserRef};
use crate::proto::wire::{Item, Receipt, parse_body};

/// Taken messages that are removed from the mailbox in one go.
const UNTAKEN_MAX: usize = 64;

/// With fewer messages untaken it is time to read on.
const READ_ON_MIN: usize = READ_MESSAGES_MAX / 2;

/// With so many messages behind one that is not taken, nothing is read on.
const SHOWN_MAX: usize = 4_096;

impl Node {
    pub(super) fn start_mail(&mut self, id: ConnectionId) {
        let taking = self.connections.get_mut(id).filter(|connection| connection.takes_messages());
        let Some(connection) = taking else { return };
        let drain = connection.drain.get_or_insert_default();
        if matches!(drain.stage, Stage::Reading | Stage::Showing) || drain.is_broken {
            drain.has_more = true;
            return;
        }
        self.read_on(id);
    }

    /// A session that has not taken something takes messages again.
    pub(super) fn mail_again(&mut self, id: ConnectionId) {
        match self.drain_of(id).filter(|drain| drain.is_broken) {
            Some(drain) => drain.begins_anew = true,
            None => self.start_mail(id),
        }
    }

    /// Another node stored something for a user who is here by what presence says, or waits for the user's mailbox.
    pub(super) fn hear_mail(&mut self, user: UserRef<'_>) {
        if !self.find(user.as_str()) {
            // Older data may have brought an ended session back, with its claim to the mailbox: presence removes those of
            // this node wherever it sees them. Nobody waits for the answer.
            self.ask(None, user.into(), What::Locate(false));
        }
        self.has_mail(user.as_str());
    }

    /// Something was stored for a user who is here all the same. A session that enters looks when it is in.
    pub(super) fn has_mail(&mut self, user: &str) {
        self.find(user);
        for Seat { connection, is_in } in self.seats.clone() {
            if is_in {
                self.start_mail(connection);
            } else if let Some(entering) = self.entering(connection) {
                entering.has_mail = true;
            }
        }
    }

    /// Tries a drain again that could not go on.
    pub(super) fn resume_mail(&mut self, id: ConnectionId) {
        if self.drain_of(id).is_some_and(|drain| drain.stage == Stage::Paused) {
            self.read_on(id);
        }
    }

    /// The session has left: what it was shown may still be written, but nothing is read for it.
    pub(super) fn leave_mail(&mut self, id: ConnectionId) {
        if let Some(drain) = self.drain_of(id) {
            drain.stage = Stage::Ending;
            (drain.has_more, drain.begins_anew) = (false, false);
            self.go_on_with_mail(id);
        }
    }

    fn drain_of(&mut self, id: ConnectionId) -> Option<&mut Drain> {
        self.connections.get_mut(id)?.drain.as_deref_mut()
    }

    /// Live messages wait no more.
    fn end_hold(&mut self, id: ConnectionId) {
        let messages = self.connections.get_mut(id).and_then(|connection| connection.unacknowledged.as_mut());
        messages.into_iter().for_each(|messages| messages.is_held = false);
        self.show(id);
    }

    /// Asks for what comes next; live messages wait for it.
    fn read_on(&mut self, id: ConnectionId) {
        let Some((user, session)) = self.session_of(id) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(drain) = &mut connection.drain else { return };
        drain.stage = Stage::Reading;
        let after = drain.read_up_to;
        connection.unacknowledged.get_or_insert_default().is_held = true;
        self.ask(Some(Pending::Reading(id)), user, What::Read(session, after));
    }

    /// The mailbox has answered, or did not in time.
    pub(super) fn read_mail(&mut self, id: ConnectionId, mail: Result<Mail, Unavailable>) {
        let Some(drain) = self.drain_of(id).filter(|drain| drain.stage == Stage::Reading) else { return };
        match mail {
            Ok(Mail::Busy(holder)) => {
                drain.stage = Stage::Paused;
                let is_told = std::mem::replace(&mut drain.is_told, true);
                self.timeouts.set(Timeout::MailBusy, id, self.now);
                if let (Some(holder), false, Some((user, _))) = (holder, is_told, self.session_of(id)) {
                    // It may be that of an ended session: see `hear_mail`.
                    self.out.says.item(&holder, &Item::Mail { user: user.borrowed() });
                }
                return;
            }
            Err(Unavailable) => {
                drain.stage = Stage::Paused;
                // Nobody knows for how long: live messages can't wait for that.
                self.timeouts.set(Timeout::MailAway, id, self.now);
                return self.end_hold(id);
            }
            Ok(Mail::Letters(letters)) if letters.is_empty() => {
                drain.stage = if drain.has_more { Stage::Showing } else { Stage::Ending };
                if !std::mem::take(&mut drain.has_more) {
                    self.end_hold(id);
                }
            }
            Ok(Mail::Letters(letters)) => {
                drain.stage = Stage::Showing;
                for letter in &letters {
                    drain.read_up_to = letter.place;
                    drain.shown.push_back((letter.place, None));
                    drain.waiting += 1;
                }
                for letter in letters {
                    self.show_letter(id, &letter);
                }
            }
        }
        self.go_on_with_mail(id);
    }

    fn show_letter(&mut self, id: ConnectionId, letter: &Letter) {
        let waiter = Waiter::Mail { connection: id, place: letter.place };
        let Some((from, to, sent_id, text)) = parse_body(&letter.body) else {
            // Nobody here wrote that: it goes when it is taken.
            return self.note_letter(id, letter.place, true);
        };
        self.seats.clear();
        self.seats.push(Seat { connection: id, is_in: true });
        print_line(&mut self.line, from, sent_id, text);
        if let Some((_, receipt)) = self.hand(waiter, to.as_str(), true, Kind::Mail) {
            self.note_letter(id, letter.place, receipt == Receipt::Delivered);
        }
    }

    pub(super) fn note_mail(&mut self, id: ConnectionId, place: u64, is_taken: bool) {
        self.note_letter(id, place, is_taken);
        self.go_on_with_mail(id);
    }

    fn note_letter(&mut self, id: ConnectionId, place: u64, is_taken: bool) {
        let Some(drain) = self.drain_of(id) else { return };
        if let Ok(at) = drain.shown.binary_search_by_key(&place, |(place, _)| *place) {
            let before = drain.shown[at].1.replace(is_taken);
            drain.waiting -= usize::from(before.is_none());
        }
        drain.is_broken |= !is_taken;
    }

    /// Removes what was taken, reads on, or ends.
    fn go_on_with_mail(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(user) = connection.user.clone() else { return };
        let Some(drain) = &mut connection.drain else { return };
        while let Some((place, Some(true))) = drain.shown.front() {
            drain.taken_up_to = *place;
            drain.untaken += 1;
            drain.shown.pop_front();
        }
        let ends_early = drain.is_broken && matches!(drain.stage, Stage::Showing | Stage::Paused);
        if ends_early {
            drain.stage = Stage::Ending;
        }
        let mut up_to = 0;
        if drain.untaken >= UNTAKEN_MAX || (drain.untaken > 0 && drain.waiting == 0) {
            (up_to, drain.untaken) = (drain.taken_up_to, 0);
        }
        let reads =
            drain.stage == Stage::Showing && drain.waiting < READ_ON_MIN && drain.shown.len() < SHOWN_MAX;
        let is_over = drain.stage == Stage::Ending && drain.waiting == 0;
        let ended = if is_over { connection.drain.take() } else { None };
        if ends_early {
            self.end_hold(id);
        }
        let left = ended.iter().flat_map(|ended| &ended.shown);
        let also: Vec<u64> =
            left.filter(|(_, state)| *state == Some(true)).map(|(place, _)| *place).collect();
        if up_to > 0 || !also.is_empty() {
            self.ask(None, user.clone(), What::Take(up_to, also));
        }
        if let Some(ended) = ended {
            self.end_mail(id, &user, &ended);
        } else if reads {
            self.read_on(id);
        }
    }

    fn end_mail(&mut self, id: ConnectionId, user: &UserName, ended: &Drain) {
        // One that has left has released it by that.
        if let Some((user, session)) = self.session_of(id) {
            self.ask(None, user, What::Release(session));
        }
        if ended.begins_anew || (ended.has_more && !ended.is_broken) {
            self.start_mail(id);
        }
        self.find(user.as_str());
        for seat in self.seats.clone() {
            self.resume_mail(seat.connection);
        }
    }
}
