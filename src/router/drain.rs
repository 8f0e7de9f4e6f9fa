//! Draining a mailbox: what waits for a user is shown to the session that logs
//! in, oldest first, before anything live.
//!
//! A drain reads a few hundred messages, pushes them, and reads on while they
//! are taken. A message leaves the mailbox only after it was taken: written, or
//! acknowledged where the session acknowledges. So whatever dies meanwhile, the
//! message is still there. One session at a time drains a mailbox; another one
//! waits until it may, and holds its live messages back as long. A message that a
//! session does not take ends its drain: the rest stays for the next login.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::{Answer, Mail, Unavailable};
use crate::mailbox::{READ_MESSAGES_MAX, Stored};
use crate::outbox::{Kind, Message, Outbox, Push, Ticket};
use crate::proto::{EnvelopeRef, SessionId, UserName};
use crate::router::question::Question;
use crate::router::{RECEIPT_MS_MAX, Router, Turn};

/// One session that drains its user's mailbox, or waits until it may.
pub(super) struct Drain {
    user: UserName,
    outbox: Arc<Outbox>,
    stage: Stage,
    /// The place of the last message that was read.
    read_up_to: u64,
    /// When the mailbox was asked last.
    asked_at: Instant,
    /// What was pushed and may still be in the mailbox, in order; so many of these are not taken.
    pushed: VecDeque<(u64, State)>,
    waiting: usize,
    /// All up to this place was taken; so many of these are still in the mailbox.
    taken_up_to: u64,
    untaken: usize,
    /// Something was stored since it began: the end may have been read too early.
    has_more: bool,
    /// The session takes messages again that it did not take: they are read once more.
    begins_anew: bool,
    /// The session did not take something.
    is_broken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The mailbox was asked.
    Reading,
    /// There may be more to read.
    Showing,
    /// Another session drains it, or it can't be reached: tried again with the next sweep.
    Paused,
    /// Nothing more is read.
    Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pushed,
    Taken,
    Left,
}

/// Taken messages that are removed from the mailbox in one go.
const UNTAKEN_MAX: usize = 64;

/// With fewer messages untaken it is time to read on.
const READ_ON_MIN: usize = READ_MESSAGES_MAX / 2;

/// With so many messages behind one that is not taken, nothing is read on.
const PUSHED_MAX: usize = 4_096;

impl Router {
    /// Drains the mailbox of a user to one of the user's sessions on this node.
    pub fn start_drain(&self, user: &UserName, session: SessionId, outbox: &Arc<Outbox>, turn: &mut Turn) {
        let mut drains = self.drains();
        let drain = drains.entry(session).or_insert_with(|| Drain::new(user, outbox, turn.now));
        if matches!(drain.stage, Stage::Reading | Stage::Showing) || drain.is_broken {
            drain.has_more = true;
            return;
        }
        drop(drains);
        outbox.start_draining(turn.now);
        self.watch(user, session, outbox);
        self.read_on(session, turn);
    }

    /// A session that has not taken something takes messages again.
    pub(super) fn drain_again(
        &self,
        user: &UserName,
        session: SessionId,
        outbox: &Arc<Outbox>,
        turn: &mut Turn,
    ) {
        if let Some(drain) = self.drains().get_mut(&session).filter(|drain| drain.is_broken) {
            drain.begins_anew = true;
            return;
        }
        self.start_drain(user, session, outbox, turn);
    }

    /// Something was stored for a user who is here all the same.
    pub(super) fn has_mail(&self, user: &UserName, turn: &mut Turn) {
        self.note_mail(user);
        let mut seats = vec![];
        self.table.find(user.borrowed(), &mut seats);
        for seat in seats {
            self.start_drain(user, seat.session, &seat.outbox, turn);
        }
    }

    /// Waits until some drain has to wait for another one: [`Router::resume_drains`] is called soon
    /// after that.
    pub async fn wait_for_busy_mailbox(&self) {
        // The router holds the other end.
        let _ = self.busy.1.recv().await;
    }

    /// Goes on without a mailbox that does not answer.
    pub(super) fn give_up_reading(&self, turn: &mut Turn) {
        let drains = self.drains();
        let is_over = |drain: &Drain| {
            drain.stage == Stage::Reading && turn.now.duration_since(drain.asked_at) >= RECEIPT_MS_MAX
        };
        let over: Vec<SessionId> =
            drains.iter().filter(|(_, drain)| is_over(drain)).map(|(session, _)| *session).collect();
        drop(drains);
        over.into_iter().for_each(|session| self.read(session, Err(Unavailable), turn));
    }

    /// Tries drains again that could not go on, all or those of one user.
    pub fn resume_drains(&self, of: Option<&UserName>, turn: &mut Turn) {
        let drains = self.drains();
        let is_due = |drain: &Drain| drain.stage == Stage::Paused && of.is_none_or(|of| drain.user == *of);
        let due: Vec<(SessionId, Arc<Outbox>)> = drains
            .iter()
            .filter(|(_, drain)| is_due(drain))
            .map(|(session, drain)| (*session, drain.outbox.clone()))
            .collect();
        drop(drains);
        for (session, outbox) in due {
            // The drain before in this list may have ended, and let this one run to its end.
            if self.drains().get(&session).is_none_or(|drain| drain.stage != Stage::Paused) {
                continue;
            }
            outbox.start_draining(turn.now);
            self.read_on(session, turn);
        }
    }

    /// The session has left: what it was shown may still be written, but nothing is read for it.
    pub(super) fn leave_drain(&self, session: SessionId, turn: &mut Turn) {
        if let Some(drain) = self.drains().get_mut(&session) {
            drain.stage = Stage::Ending;
            (drain.has_more, drain.begins_anew) = (false, false);
        }
        self.go_on(session, turn);
    }

    fn read_on(&self, session: SessionId, turn: &mut Turn) {
        let mut drains = self.drains();
        let Some(drain) = drains.get_mut(&session) else { return };
        drain.stage = Stage::Reading;
        drain.asked_at = turn.now;
        let (user, after) = (drain.user.clone(), drain.read_up_to);
        drop(drains);
        if let Answer::Now(mail) = self.cluster.read(&user, session, after) {
            self.read(session, mail, turn);
        }
    }

    /// The mailbox has answered.
    pub(super) fn read(&self, session: SessionId, mail: Result<Mail, Unavailable>, turn: &mut Turn) {
        let mut drains = self.drains();
        let Some(drain) = drains.get_mut(&session).filter(|drain| drain.stage == Stage::Reading) else {
            return;
        };
        let outbox = drain.outbox.clone();
        match mail {
            Ok(Mail::Busy) => {
                drain.stage = Stage::Paused;
                // Full means that somebody else waits, too.
                let _ = self.busy.0.try_send(());
            }
            Err(Unavailable) => {
                drain.stage = Stage::Paused;
                drop(drains);
                // Nobody knows for how long: live messages can't wait for that.
                outbox.end_draining(turn.now, &mut turn.dirty);
            }
            Ok(Mail::Messages(messages)) if messages.is_empty() => {
                let has_more = std::mem::take(&mut drain.has_more);
                drain.stage = if has_more { Stage::Showing } else { Stage::Ending };
                drop(drains);
                if !has_more {
                    outbox.end_draining(turn.now, &mut turn.dirty);
                }
                self.go_on(session, turn);
            }
            Ok(Mail::Messages(messages)) => {
                drain.stage = Stage::Showing;
                drain.read_up_to = messages.last().map_or(0, |last| last.place);
                drain.pushed.extend(messages.iter().map(|message| (message.place, State::Pushed)));
                drain.waiting += messages.len();
                drop(drains);
                for message in messages {
                    self.push_mail(session, &outbox, &message, turn);
                }
                self.go_on(session, turn);
            }
        }
    }

    fn push_mail(&self, session: SessionId, outbox: &Arc<Outbox>, stored: &Stored, turn: &mut Turn) {
        let (EnvelopeRef { from, id, text, .. }, place) = (stored.envelope.borrowed(), stored.place);
        turn.print(from, id, text);
        let hash = Some(self.hash(turn));
        let ticket = self.in_flight().insert(Question::Mail { session, place }, None);
        let message = Message {
            from,
            id,
            line: &turn.line,
            ticket: Some(ticket),
            hash,
            may_be_copy: true,
            kind: Kind::Mail,
        };
        match outbox.push_message(message, turn.now, &mut turn.dirty) {
            Push::Taken => {}
            Push::Copy => self.metrics.duplicates.add(),
            Push::Refused | Push::Unacked => self.mail_left(ticket, turn),
        }
    }

    /// A message from a mailbox was taken.
    pub(super) fn mail_taken(&self, session: SessionId, place: u64, turn: &mut Turn) {
        self.note(session, place, State::Taken);
        self.go_on(session, turn);
    }

    /// A message from a mailbox was not taken: it stays there.
    pub(super) fn mail_left(&self, ticket: Ticket, turn: &mut Turn) {
        let question = self.in_flight().remove(ticket);
        if let Some(Question::Mail { session, place }) = question {
            self.note(session, place, State::Left);
            self.go_on(session, turn);
        }
    }

    fn note(&self, session: SessionId, place: u64, state: State) {
        let mut drains = self.drains();
        let Some(drain) = drains.get_mut(&session) else { return };
        if let Ok(at) = drain.pushed.binary_search_by_key(&place, |(place, _)| *place) {
            let before = std::mem::replace(&mut drain.pushed[at].1, state);
            drain.waiting -= usize::from(before == State::Pushed);
        }
        drain.is_broken |= state == State::Left;
    }

    /// Removes what was taken, reads on, or ends.
    fn go_on(&self, session: SessionId, turn: &mut Turn) {
        let mut drains = self.drains();
        let Some(drain) = drains.get_mut(&session) else { return };
        drain.count_taken();
        let waiting = drain.waiting;
        let (user, outbox) = (drain.user.clone(), drain.outbox.clone());
        let mut ends_early = false;
        if drain.is_broken && matches!(drain.stage, Stage::Showing | Stage::Paused) {
            drain.stage = Stage::Ending;
            ends_early = true;
        }
        let is_over = drain.stage == Stage::Ending && waiting == 0;
        let reads_on =
            drain.stage == Stage::Showing && waiting < READ_ON_MIN && drain.pushed.len() < PUSHED_MAX;
        let takes = drain.untaken >= UNTAKEN_MAX || (drain.untaken > 0 && waiting == 0);
        let taken = takes.then_some(drain.taken_up_to);
        drain.untaken = if takes { 0 } else { drain.untaken };
        let ended = if is_over { drains.remove(&session) } else { None };
        drop(drains);
        if ends_early {
            outbox.end_draining(turn.now, &mut turn.dirty);
        }
        match ended {
            Some(drain) => self.end_drain(session, drain, taken, turn),
            None => {
                taken.into_iter().for_each(|up_to| self.cluster.take(&user, up_to, vec![]));
                if reads_on {
                    self.read_on(session, turn);
                }
            }
        }
    }

    fn end_drain(&self, session: SessionId, drain: Drain, taken: Option<u64>, turn: &mut Turn) {
        let Drain { user, pushed, outbox, has_more, begins_anew, is_broken, .. } = drain;
        let behind = pushed.iter().filter(|(_, state)| *state == State::Taken);
        let also: Vec<u64> = behind.map(|(place, _)| *place).collect();
        if taken.is_some() || !also.is_empty() {
            self.cluster.take(&user, taken.unwrap_or(0), also);
        }
        self.cluster.release(&user, session);
        if begins_anew || (has_more && !is_broken) {
            self.start_drain(&user, session, &outbox, turn);
        }
        self.resume_drains(Some(&user), turn);
    }
}

impl Drain {
    fn new(user: &UserName, outbox: &Arc<Outbox>, now: Instant) -> Self {
        Drain {
            user: user.clone(),
            outbox: outbox.clone(),
            stage: Stage::Paused,
            read_up_to: 0,
            asked_at: now,
            pushed: VecDeque::new(),
            waiting: 0,
            taken_up_to: 0,
            untaken: 0,
            has_more: false,
            begins_anew: false,
            is_broken: false,
        }
    }

    /// Counts what was taken up to the first that was not.
    fn count_taken(&mut self) {
        while let Some((place, State::Taken)) = self.pushed.front() {
            self.taken_up_to = *place;
            self.untaken += 1;
            self.pushed.pop_front();
        }
    }
}
