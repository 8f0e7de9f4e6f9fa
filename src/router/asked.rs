//! Who waits for the answer where a user is, in order.
//!
//! While anybody waits, later messages to the user wait behind, so one sender's
//! messages stay in order. Presence is asked at once, but for two cases. What is
//! still on its way to a node that does not have the user any more comes back
//! first (the *barrier*): it was sent before. And what is being put into the
//! mailbox is there before anything behind it goes anywhere.

use std::collections::HashSet;

use crate::cluster::{Answer, Places, Unavailable};
use crate::outbox::Ticket;
use crate::proto::{ErrorCode, NodeId, UserName};
use crate::router::question::Question;
use crate::router::{Router, Turn};

/// Those who wait for one user.
#[derive(Default)]
pub(super) struct Asked {
    waiters: Vec<Waiter>,
    /// So many of the first are messages that came back from where the user was.
    bounced: usize,
    /// Messages that the mailbox is asked to take.
    pub(super) storing: Vec<Ticket>,
    /// Messages that have not come back yet.
    barrier: HashSet<Ticket>,
    /// Nodes that have refused messages, and must know when all have come back.
    refusers: Vec<NodeId>,
}

/// A message or a question.
#[derive(Clone, Copy)]
struct Waiter {
    ticket: Ticket,
    /// The question was asked before this came: the answer may be older.
    is_late: bool,
}

/// What presence answers: where else a user is.
type Located = Result<Places, Unavailable>;

impl Asked {
    /// Tells whether presence is asked: nothing else is waited for.
    pub(super) fn is_question(&self) -> bool {
        self.storing.is_empty() && self.barrier.is_empty()
    }

    /// Adds a message that came back: it goes before those that did not.
    pub(super) fn bounce(&mut self, ticket: Ticket) {
        self.waiters.insert(self.bounced, Waiter { ticket, is_late: true });
        self.bounced += 1;
    }

    fn add_refuser(&mut self, node: &NodeId) {
        if !self.refusers.contains(node) {
            self.refusers.push(node.clone());
        }
    }

    /// Removes questions that have expired; `true` when there were any.
    fn remove(&mut self, expired: &HashSet<Ticket>) -> bool {
        let count = self.waiters.len() + self.storing.len() + self.barrier.len();
        let stays = |ticket: &Ticket| !expired.contains(ticket);
        let bounced = &self.waiters[..self.bounced];
        self.bounced = bounced.iter().filter(|waiter| stays(&waiter.ticket)).count();
        self.waiters.retain(|waiter| stays(&waiter.ticket));
        self.storing.retain(stays);
        self.barrier.retain(stays);
        self.waiters.len() + self.storing.len() + self.barrier.len() < count
    }
}

impl Router {
    /// Notes who waits for the answer where a user is: the question was asked just now, or
    /// before, when somebody waits for it already.
    pub(super) fn wait_for_presence(&self, user: UserName, tickets: Vec<Ticket>) {
        let mut asked = self.asked();
        let is_late = asked.contains_key(&user);
        let asked = asked.entry(user).or_default();
        asked.waiters.extend(tickets.into_iter().map(|ticket| Waiter { ticket, is_late }));
    }

    /// Asks where a user is for those who wait already.
    pub(super) fn ask_for_those_who_wait(&self, user: &UserName, turn: &mut Turn) {
        self.tell_refusers(user);
        let mut all = self.asked();
        let Some(asked) = all.get_mut(user) else { return };
        if asked.waiters.is_empty() {
            all.remove(user);
            return;
        }
        asked.waiters.iter_mut().for_each(|waiter| waiter.is_late = false);
        drop(all);
        let is_here = self.table.sessions_of(user.borrowed()) > 0;
        if let Answer::Now(places) = self.cluster.locate_now(user.borrowed(), is_here) {
            self.located(user, places, turn);
        }
    }

    /// A node does not have a user any more. What else is on its way there comes back, too; later
    /// messages wait for that, or they would overtake it.
    pub(super) fn bar(&self, ticket: Ticket, node: &NodeId, to: &UserName) {
        if let Some(asked) = self.asked().get_mut(to).filter(|asked| asked.barrier.contains(&ticket)) {
            // The others were found when the first was.
            return asked.add_refuser(node);
        }
        let mut in_flight = self.in_flight();
        // Looking through the whole table is for when there is something to find.
        let has_others = in_flight.has_others(ticket);
        let others = if has_others { in_flight.with_node(node, Some(to)) } else { vec![] };
        in_flight.await_fates(&others);
        drop(in_flight);
        if others.is_empty() {
            self.cluster.tell_resumes(node, to);
        } else {
            self.wait_behind(to.clone(), others);
            self.asked().entry(to.clone()).or_default().add_refuser(node);
        }
    }

    /// All that some nodes have refused has come back: the next that they get is in order.
    fn tell_refusers(&self, user: &UserName) {
        let refusers = self.asked().get_mut(user).map(|asked| std::mem::take(&mut asked.refusers));
        for node in refusers.into_iter().flatten() {
            self.cluster.tell_resumes(&node, user);
        }
    }

    /// Later messages to a user wait until these are not any more where they are.
    pub(super) fn wait_behind(&self, user: UserName, tickets: Vec<Ticket>) {
        self.asked().entry(user).or_default().barrier.extend(tickets);
    }

    /// A message that was waited for is not any more where it was.
    pub(super) fn unbar(&self, ticket: Ticket, user: Option<&UserName>, turn: &mut Turn) {
        let Some(user) = user else { return };
        let mut asked = self.asked();
        let Some(waiting) = asked.get_mut(user) else { return };
        if !waiting.barrier.remove(&ticket) {
            return;
        }
        let is_over = waiting.is_question();
        drop(asked);
        if is_over {
            self.ask_for_those_who_wait(user, turn);
        }
    }

    /// Presence has answered where a user is: what waited for it goes on, in order.
    ///
    /// The answer may be older than what came after the question. What it says of places is
    /// good enough for messages, because a node that does not have the user says so. But that
    /// the user is nowhere, and how many sessions there are, is asked again for those.
    pub(super) fn located(&self, user: &UserName, places: Located, turn: &mut Turn) {
        if self.asked().get(user).is_none_or(|asked| !asked.is_question()) {
            // Nobody waits, or the question is given up.
            return;
        }
        self.tell_refusers(user);
        if places.as_ref().is_ok_and(|places| self.has_left_behind(user.borrowed(), places)) {
            // Asked again when that is over.
            return;
        }
        let Some(Asked { mut waiters, bounced, .. }) = self.asked().remove(user) else { return };
        // They may have come back in another order.
        let in_flight = self.in_flight();
        waiters[..bounced].sort_unstable_by_key(|waiter| in_flight.order(waiter.ticket));
        drop(in_flight);
        let is_here = self.table.sessions_of(user.borrowed()) > 0;
        // A message that waited behind a question of somebody else goes where it would have gone without.
        let recalled =
            places.is_err().then(|| self.cluster.recall(user.borrowed(), is_here, turn.now)).flatten();
        let recalled = recalled.map(Ok);
        let to = recalled.as_ref().unwrap_or(&places);
        let is_found = places.as_ref().is_ok_and(|places| is_here || !places.is_empty());
        // What follows one that asks again asks again, too.
        let is_any_late = waiters[..bounced].iter().any(|waiter| waiter.is_late);
        let (mut again, mut bounced_again) = (vec![], 0);
        for (at, Waiter { ticket, is_late }) in waiters.into_iter().enumerate() {
            let asks_again = match self.in_flight().question(ticket) {
                Some(Question::Who { .. }) => is_late,
                // Who stores a message looks where the user is after that.
                Some(Question::Sent(_)) if self.cluster.has_mailboxes() => false,
                _ => (is_late || is_any_late) && !is_found,
            };
            if asks_again && places.is_ok() {
                again.push(Waiter { ticket, is_late: false });
                bounced_again += usize::from(at < bounced);
            } else {
                self.answered(ticket, user, &places, to, turn);
            }
        }
        if again.is_empty() {
            return;
        }
        let mut all = self.asked();
        let is_late = all.contains_key(user);
        let asked = all.entry(user.clone()).or_default();
        if !is_late {
            asked.bounced = bounced_again;
        }
        asked.waiters.extend(again);
        drop(all);
        if !is_late {
            self.ask_for_those_who_wait(user, turn);
        }
    }

    /// Does what waited for the answer where a user is. Messages go `to` these places.
    fn answered(&self, ticket: Ticket, user: &UserName, places: &Located, to: &Located, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        match in_flight.question(ticket) {
            Some(Question::Sent(_)) => {
                drop(in_flight);
                self.place(ticket, to.clone(), turn);
            }
            Some(Question::Further { .. }) => {
                drop(in_flight);
                self.send_further(ticket, to.clone(), turn);
            }
            Some(Question::Cast { .. }) => {
                let question = in_flight.remove(ticket);
                drop(in_flight);
                let Some(Question::Cast { envelope, is_taken }) = question else { return };
                if !self.cast_to(to.as_deref().unwrap_or_default(), envelope.borrowed(), turn.now)
                    && !is_taken
                {
                    self.metrics.casts_lost.add();
                }
            }
            Some(Question::Who { .. }) => {
                let question = in_flight.remove(ticket);
                drop(in_flight);
                let Some(Question::Who { asker, reply }) = question else { return };
                match places {
                    Ok(places) => self.answer_who(&asker, &reply, user, places, turn),
                    Err(Unavailable) => self.fail(&asker, &reply, ErrorCode::Unavailable, turn),
                }
            }
            _ => {}
        }
    }

    /// These questions have expired: what waits behind them goes on, or it would wait for ever. Their
    /// senders were told so: what was to go to further nodes goes nowhere any more.
    pub(super) fn ask_again(&self, mut expired: HashSet<Ticket>, turn: &mut Turn) {
        let further = self.in_flight().end_further(&expired);
        expired.extend(further);
        let mut lost = vec![];
        for (user, asked) in self.asked().iter_mut() {
            if asked.remove(&expired) && asked.is_question() {
                lost.push(user.clone());
            }
        }
        lost.iter().for_each(|user| self.ask_for_those_who_wait(user, turn));
    }
}
