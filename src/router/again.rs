//! Placing a message with those who may have it, and what happens when one of
//! them does not deliver it.
//!
//! A message has *parties*: sessions here and nodes elsewhere that have it and
//! have not answered. The first that delivers it settles its fate. When the
//! last of them is lost, presence is asked again and the message goes where the
//! user is now; after three retries, or when the user is nowhere, its sender is
//! told.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cluster::{Answer, Place, Unavailable};
use crate::outbox::{Ticket, Unwritten};
use crate::proto::{Envelope, ErrorCode, Fate, MessageId, NodeId, ServerLine, UserName};
use crate::router::in_flight::{Question, Sent};
use crate::router::{RECEIPT_MS_MAX, RETRIES_MAX, Router, Turn};

/// What presence answers: where else a user is.
type Located = Result<Vec<Place>, Unavailable>;

/// Who waits for the answer where a user is, in order.
#[derive(Default)]
pub(super) struct Asked {
    tickets: Vec<Ticket>,
    /// So many of them waited when the question was asked; the others came later.
    count: usize,
}

/// With so many questions open, a `CAST` does not wait for presence.
pub const QUESTIONS_BEFORE_CASTS_MAX: usize = 16_384;

impl Router {
    /// A session of `user` ended with these messages unwritten.
    pub fn unwritten(&self, user: &UserName, messages: Vec<Unwritten>, turn: &mut Turn) {
        for message in messages {
            match message.ticket {
                Some(ticket) => self.lost(ticket, 1, Some((user, &message.line)), turn),
                None => self.metrics.casts_lost.add(),
            }
        }
    }

    /// Places a message, or queues it behind the question about its recipient.
    pub(super) fn place_or_wait(
        &self,
        ticket: Ticket,
        to: UserName,
        answer: Answer<Vec<Place>>,
        turn: &mut Turn,
    ) {
        match answer {
            Answer::Now(places) => self.place(ticket, places, turn),
            Answer::Later => self.wait_for_presence(to, vec![ticket]),
        }
    }

    /// Notes who waits for the answer where a user is: the question was asked just now, or
    /// before, when somebody waits for it already.
    pub(super) fn wait_for_presence(&self, user: UserName, tickets: Vec<Ticket>) {
        let mut asked = self.asked();
        let asked = asked.entry(user).or_default();
        if asked.tickets.is_empty() {
            asked.count = tickets.len();
        }
        asked.tickets.extend(tickets);
    }

    /// Hands a message to every session and node that its recipient has now.
    fn place(&self, ticket: Ticket, places: Result<Vec<Place>, Unavailable>, turn: &mut Turn) {
        let Some(envelope) = self.envelope(ticket) else { return };
        turn.seats.clear();
        self.table.find(envelope.to.borrowed(), &mut turn.seats);
        let is_known = places.is_ok();
        let nodes: Vec<NodeId> = places.unwrap_or_default().into_iter().map(|place| place.node).collect();
        let parties = (turn.seats.len() + nodes.len()) as u32;
        if parties == 0 {
            let code = if is_known { ErrorCode::Offline } else { ErrorCode::Unavailable };
            return self.give_up(ticket, code, turn);
        }
        if let Some(Question::Sent(sent)) = self.in_flight().question(ticket) {
            sent.parties = parties;
            if let Some(remote) = &mut sent.remote {
                remote.nodes.clone_from(&nodes);
            }
        }
        let (mut lost, mut is_cut_off) = (0, false);
        lost += self.push(ticket, &envelope.from, &envelope.id, &envelope.text, true, turn);
        for node in nodes {
            let numbered = Envelope { number: Some(ticket.0), ..envelope.clone() };
            if self.cluster.forward(&node, numbered).is_err() && self.take_node(ticket, &node, false) {
                lost += 1;
                is_cut_off = true;
            }
        }
        if is_cut_off && lost == parties {
            // Asking again would give the same answer.
            self.give_up(ticket, ErrorCode::Unavailable, turn);
        } else if lost > 0 {
            self.lost(ticket, lost, None, turn);
        }
    }

    /// `count` parties of a message were lost. `text` is where its text comes
    /// from when only sessions of this node had it: the recipient and its line.
    pub(super) fn lost(&self, ticket: Ticket, count: u32, text: Option<(&UserName, &[u8])>, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        match in_flight.question(ticket) {
            Some(Question::Sent(sent)) => {
                sent.parties -= count;
                if sent.parties == 0 {
                    drop(in_flight);
                    self.again(ticket, text, turn);
                }
            }
            Some(Question::Received(received)) => {
                received.parties -= count;
                if received.parties == 0
                    && let Some(Question::Received(received)) = in_flight.remove(ticket)
                {
                    drop(in_flight);
                    self.cluster.receipt(&received.origin, received.number, Fate::NotHere);
                }
            }
            // Its fate is settled already.
            _ => {}
        }
    }

    /// Routes a message again that nobody has any more.
    fn again(&self, ticket: Ticket, text: Option<(&UserName, &[u8])>, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        let Some(Question::Sent(sent)) = in_flight.question(ticket) else { return };
        sent.retries += 1;
        let is_last = sent.retries > RETRIES_MAX;
        let kept = sent.remote.as_ref().map(|remote| remote.envelope.to.clone());
        let to = kept.or_else(|| {
            let envelope = text.and_then(|(to, line)| envelope_of(to, line))?;
            let to = envelope.to.clone();
            in_flight.keep(ticket, envelope);
            Some(to)
        });
        drop(in_flight);
        match to {
            // A copy that added nothing went with the original, whose fate is told to another.
            None => self.give_up(ticket, ErrorCode::Timeout, turn),
            Some(_) if is_last => self.give_up(ticket, ErrorCode::Offline, turn),
            Some(to) => {
                self.route_again(ticket, to, turn);
            }
        }
    }

    fn route_again(&self, ticket: Ticket, to: UserName, turn: &mut Turn) {
        self.metrics.rerouted.add();
        self.cluster.forget(to.borrowed());
        let is_here = self.table.sessions_of(to.borrowed()) > 0;
        let places = self.ask_for(to.borrowed(), is_here);
        self.place_or_wait(ticket, to, places, turn);
    }

    /// Tells the sender that its message was not delivered; or, when a node that
    /// died had it, that nobody knows.
    fn give_up(&self, ticket: Ticket, code: ErrorCode, turn: &mut Turn) {
        let question = self.in_flight().remove(ticket);
        if let Some(Question::Sent(Sent { sender, reply, maybe_seen, .. })) = question {
            let code = if maybe_seen { ErrorCode::Timeout } else { code };
            self.fail(&sender, &reply, code, turn);
        }
    }

    /// Another node tells what became of a message.
    pub(super) fn receipt(&self, node: &NodeId, ticket: Ticket, fate: Fate, turn: &mut Turn) {
        match fate {
            Fate::Delivered => {
                let mut in_flight = self.in_flight();
                // Only who was asked is believed.
                if !is_with(in_flight.question(ticket).as_deref(), node) {
                    return;
                }
                let question = in_flight.remove(ticket);
                drop(in_flight);
                if let Some(Question::Sent(sent)) = question {
                    self.delivered(&sent, turn);
                }
            }
            Fate::NotHere => {
                if self.take_node(ticket, node, false) {
                    self.lost(ticket, 1, None, turn);
                }
            }
        }
    }

    /// A node is dead: what was in flight to it is routed again.
    pub(super) fn gone(&self, node: &NodeId, turn: &mut Turn) {
        let tickets = self.in_flight().with_node(node, None);
        for ticket in tickets {
            if self.take_node(ticket, node, true) {
                self.lost(ticket, 1, None, turn);
            }
        }
    }

    /// Messages came back: they are routed again, and that does not count as a
    /// retry, because the cluster itself takes its time between attempts.
    pub(super) fn returned(&self, node: &NodeId, numbers: &[u64], maybe_seen: bool, turn: &mut Turn) {
        for ticket in numbers.iter().map(|number| Ticket(*number)) {
            if !self.take_node(ticket, node, maybe_seen) {
                continue;
            }
            let mut in_flight = self.in_flight();
            let Some(Question::Sent(sent)) = in_flight.question(ticket) else { continue };
            sent.parties -= 1;
            let is_nowhere = sent.parties == 0;
            let Some(to) = sent.remote.as_ref().map(|remote| remote.envelope.to.clone()) else { continue };
            drop(in_flight);
            if is_nowhere {
                self.route_again(ticket, to, turn);
            } else {
                // Others have it, and may deliver it; but the sessions of this node want it too.
                self.spread(vec![ticket], to, turn);
            }
        }
    }

    /// A user is on further nodes, as `node` tells: they get what is on its way to it, too. It
    /// was sent before this node knew; the user may have been there already.
    pub(super) fn look_again(&self, node: &NodeId, user: UserName, turn: &mut Turn) {
        let tickets = self.in_flight().with_node(node, Some(&user));
        if !tickets.is_empty() {
            self.spread(tickets, user, turn);
        }
    }

    /// Messages that some node of a user has go to all others of it, too.
    fn spread(&self, mut tickets: Vec<Ticket>, user: UserName, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        for ticket in &mut tickets {
            if let Some(Question::Sent(Sent { remote: Some(remote), .. })) = in_flight.question(*ticket) {
                let question =
                    Question::Further { envelope: remote.envelope.clone(), nodes: remote.nodes.clone() };
                *ticket = in_flight.insert(question, Some(turn.now + RECEIPT_MS_MAX));
            }
        }
        drop(in_flight);
        self.cluster.forget(user.borrowed());
        let is_here = self.table.sessions_of(user.borrowed()) > 0;
        match self.ask_for(user.borrowed(), is_here) {
            Answer::Now(places) => {
                tickets.into_iter().for_each(|further| self.send_further(further, places.clone()));
            }
            Answer::Later => self.wait_for_presence(user, tickets),
        }
    }

    /// Hands a `CAST` to other nodes; tells whether one took it.
    pub(super) fn cast_to(&self, places: &[Place], envelope: &Envelope) -> bool {
        let forward = |place: &Place| self.cluster.forward(&place.node, envelope.clone()).is_ok();
        // Every one of them, not up to the first that takes it.
        places.iter().filter(|place| forward(place)).count() > 0
    }

    /// Lets a `CAST` wait until presence has answered; `false` when too many do.
    pub(super) fn cast_later(&self, envelope: Envelope, is_taken: bool, turn: &Turn) -> bool {
        let mut in_flight = self.in_flight();
        if in_flight.count() >= QUESTIONS_BEFORE_CASTS_MAX {
            return false;
        }
        let to = envelope.to.clone();
        let ticket = in_flight.insert(Question::Cast { envelope, is_taken }, Some(turn.now + RECEIPT_MS_MAX));
        drop(in_flight);
        self.wait_for_presence(to, vec![ticket]);
        true
    }

    fn send_further(&self, ticket: Ticket, places: Result<Vec<Place>, Unavailable>) {
        let question = self.in_flight().remove(ticket);
        let Some(Question::Further { envelope, nodes }) = question else { return };
        for place in places.unwrap_or_default().into_iter().filter(|place| !nodes.contains(&place.node)) {
            // The ticket is spent: nobody waits for this receipt. Where the node can't be reached,
            // the recipient has the message elsewhere.
            let numbered = Envelope { number: Some(ticket.0), ..envelope.clone() };
            let _ = self.cluster.forward(&place.node, numbered);
        }
    }

    /// Presence has answered where a user is: what waited for it goes on, in order.
    ///
    /// The answer may be older than what came after the question. What it says of places is
    /// good enough for messages, because a node that does not have the user says so. But that
    /// the user is nowhere, and how many sessions there are, is asked again for those.
    pub(super) fn located(&self, user: &UserName, places: Located, turn: &mut Turn) {
        let Some(Asked { mut tickets, count }) = self.asked().remove(user) else { return };
        let mut later = tickets.split_off(count);
        let is_here = self.table.sessions_of(user.borrowed()) > 0;
        // A message that waited behind a question of somebody else goes where it would have gone without.
        let recalled = places.is_err().then(|| self.cluster.recall(user.borrowed(), is_here)).flatten();
        let recalled = recalled.map(Ok);
        let to = recalled.as_ref().unwrap_or(&places);
        tickets.into_iter().for_each(|ticket| self.answered(ticket, user, &places, to, turn));
        let is_found = places.as_ref().is_ok_and(|places| is_here || !places.is_empty());
        later.retain(|ticket| {
            let is_who = matches!(self.in_flight().question(*ticket), Some(Question::Who { .. }));
            let asks_again = places.is_ok() && (is_who || !is_found);
            if !asks_again {
                self.answered(*ticket, user, &places, to, turn);
            }
            asks_again
        });
        if later.is_empty() {
            return;
        }
        match self.unless_asked(user.borrowed(), || self.cluster.locate_now(user.borrowed(), is_here)) {
            Answer::Now(places) => {
                later.into_iter().for_each(|ticket| self.answered(ticket, user, &places, &places, turn));
            }
            Answer::Later => self.wait_for_presence(user.clone(), later),
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
                self.send_further(ticket, to.clone());
            }
            Some(Question::Cast { .. }) => {
                let question = in_flight.remove(ticket);
                drop(in_flight);
                let Some(Question::Cast { envelope, is_taken }) = question else { return };
                if !self.cast_to(to.as_deref().unwrap_or_default(), &envelope) && !is_taken {
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

    /// The answers that these questions waited for are lost: what waits behind
    /// them asks again, or it would wait for the same answer for ever.
    pub(super) fn ask_again(&self, expired: &HashSet<Ticket>, turn: &mut Turn) {
        let is_lost = |asked: &Asked| asked.tickets.iter().any(|ticket| expired.contains(ticket));
        let lost: Vec<_> = self.asked().extract_if(|_, asked| is_lost(asked)).collect();
        for (user, Asked { mut tickets, .. }) in lost {
            tickets.retain(|ticket| !expired.contains(ticket));
            if tickets.is_empty() {
                continue;
            }
            let is_here = self.table.sessions_of(user.borrowed()) > 0;
            let answer = self.cluster.locate(user.borrowed(), is_here);
            self.wait_for_presence(user.clone(), tickets);
            if let Answer::Now(places) = answer {
                self.located(&user, places, turn);
            }
        }
    }

    /// Takes a node from the parties of a message; `true` when it was one.
    fn take_node(&self, ticket: Ticket, node: &NodeId, maybe_seen: bool) -> bool {
        let mut in_flight = self.in_flight();
        let question = in_flight.question(ticket);
        if !is_with(question.as_deref(), node) {
            return false;
        }
        if let Some(Question::Sent(sent)) = question {
            sent.maybe_seen |= maybe_seen;
            if let Some(remote) = &mut sent.remote {
                remote.nodes.retain(|other| other != node);
            }
        }
        true
    }

    fn envelope(&self, ticket: Ticket) -> Option<Envelope> {
        match self.in_flight().question(ticket) {
            Some(Question::Sent(Sent { remote: Some(remote), .. })) => Some(remote.envelope.clone()),
            _ => None,
        }
    }
}

fn is_with(question: Option<&Question>, node: &NodeId) -> bool {
    match question {
        Some(Question::Sent(Sent { remote: Some(remote), .. })) => remote.nodes.contains(node),
        _ => false,
    }
}

/// Reads a message back from the line that was to be written.
fn envelope_of(to: &UserName, line: &[u8]) -> Option<Envelope> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, ServerLine::Msg { from, id, text, .. }) = ServerLine::parse(line)? else { return None };
    let id = MessageId::Tag(id.as_str().into());
    Some(Envelope { number: None, from: from.into(), to: to.clone(), id, text: Arc::from(text) })
}
