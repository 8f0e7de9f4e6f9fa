//! Placing a message with those who may have it, and what happens when one of
//! them does not deliver it.
//!
//! A message has *parties*: sessions here and nodes elsewhere that have it and
//! have not answered. The first that delivers it settles its fate. When the
//! last of them is lost, presence is asked again (`asked.rs`) and the message
//! goes where the user is now; after three retries, or when the user is nowhere,
//! it goes into the mailbox (`store.rs`), or its sender is told.

use std::collections::HashSet;
use std::time::Instant;

use crate::cluster::{Answer, Place, Places, Unavailable};
use crate::outbox::{Ticket, Unwritten};
use crate::proto::{Envelope, EnvelopeRef, ErrorCode, Fate, MessageId, NodeId, ServerLine, UserName};
use crate::router::deliver::Way;
use crate::router::question::{Question, Sent};
use crate::router::{RECEIPT_MS_MAX, RETRIES_MAX, Router, Turn};

/// What somebody lost who had a message.
#[derive(Clone, Copy)]
pub(super) struct Lost {
    /// So many parties.
    pub(super) count: u32,
    /// How far it came with them.
    fate: Fate,
}

impl Lost {
    /// One party is gone, and had not shown it.
    pub const GONE: Lost = Lost { count: 1, fate: Fate::NotHere };
    /// One party is gone, and had shown it.
    pub const LEFT: Lost = Lost { count: 1, fate: Fate::Left };
    /// One party has waited for an acknowledgement.
    pub const UNACKED: Lost = Lost { count: 1, fate: Fate::Unacked };

    /// Nothing was lost.
    pub fn none() -> Self {
        Lost { count: 0, fate: Fate::NotHere }
    }

    /// Some more was.
    pub fn add(&mut self, other: Lost) {
        self.count += other.count;
        self.fate = self.fate.max(other.fate);
    }

    /// Tells whether nothing was lost.
    pub fn is_none(self) -> bool {
        self.count == 0
    }
}

/// With so many questions open, a `CAST` does not wait for presence.
pub const QUESTIONS_BEFORE_CASTS_MAX: usize = 16_384;

impl Router {
    /// A session of `user` ended with these messages unwritten.
    pub fn unwritten(&self, user: &UserName, messages: Vec<Unwritten>, turn: &mut Turn) {
        for message in messages {
            match message.ticket {
                Some(ticket) => {
                    let lost = if message.was_shown { Lost::LEFT } else { Lost::GONE };
                    self.lost(ticket, lost, Some((user, &message.line)), turn);
                }
                None => self.metrics.casts_lost.add(),
            }
        }
    }

    /// Hands a message to every session and node that its recipient has now.
    pub(super) fn place(&self, ticket: Ticket, places: Result<Places, Unavailable>, turn: &mut Turn) {
        if let Some(envelope) = self.envelope(ticket) {
            self.place_envelope(ticket, envelope.borrowed(), places, turn);
        }
    }

    /// The same for one whose envelope is at hand.
    pub(super) fn place_envelope(
        &self,
        ticket: Ticket,
        mut envelope: EnvelopeRef<'_>,
        places: Result<Places, Unavailable>,
        turn: &mut Turn,
    ) {
        let is_known = places.is_ok();
        let nodes = places.unwrap_or_default();
        let nodes = nodes.iter().map(|place| &place.node);
        self.find(envelope.to, turn);
        let further = self.in_flight().placed(ticket, nodes.clone(), &turn.seats);
        if let Some(further) = further {
            let seats = turn.take_seats();
            self.catch_up_elsewhere(ticket, &envelope.to.into(), &seats, &further, turn);
            turn.put_seats(seats);
        }
        self.catch_up_here(envelope.to, turn);
        let parties = (turn.seats.len() + nodes.len()) as u32;
        if parties == 0 {
            return match is_known {
                true => self.store_or_give_up(ticket, ErrorCode::Offline, turn),
                false => self.give_up(ticket, ErrorCode::Unavailable, turn),
            };
        }
        let mut lost =
            self.push(ticket, envelope.from, envelope.id, envelope.text, Way::of(envelope.is_again), turn);
        let mut is_cut_off = false;
        envelope.number = Some(ticket.0);
        envelope.is_shared = parties > 1;
        for node in nodes {
            if self.cluster.forward(node, envelope, turn.now).is_err() && self.take_node(ticket, node, false)
            {
                lost.add(Lost::GONE);
                is_cut_off = true;
            }
        }
        if is_cut_off && lost.count == parties {
            // Asking again would give the same answer.
            self.give_up(ticket, ErrorCode::Unavailable, turn);
        } else if !lost.is_none() {
            self.lost(ticket, lost, None, turn);
        }
    }

    /// Parties of a message were lost. `text` is where its text comes from when only sessions of
    /// this node had it: the recipient and its line.
    pub(super) fn lost(&self, ticket: Ticket, lost: Lost, text: Option<(&UserName, &[u8])>, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        match in_flight.question(ticket) {
            Some(Question::Sent(sent)) => {
                sent.parties -= lost.count;
                sent.lost = sent.lost.max(lost.fate);
                if sent.parties == 0 {
                    drop(in_flight);
                    self.again(ticket, text, turn);
                }
            }
            Some(Question::Received(received)) => {
                received.parties -= lost.count;
                received.lost = received.lost.max(lost.fate);
                if received.parties == 0
                    && let Some(Question::Received(received)) = in_flight.remove(ticket)
                {
                    drop(in_flight);
                    self.refuse_received(&received, turn.now);
                }
            }
            Some(Question::Mail { .. }) => {
                drop(in_flight);
                self.mail_left(ticket, turn);
            }
            // Its fate is settled already.
            _ => {}
        }
    }

    /// Routes a message again that nobody has any more.
    fn again(&self, ticket: Ticket, text: Option<(&UserName, &[u8])>, turn: &mut Turn) {
        let mut in_flight = self.in_flight();
        let Some(Question::Sent(sent)) = in_flight.question(ticket) else { return };
        let is_unacked = sent.lost == Fate::Unacked;
        if is_unacked {
            // Once more, to a session that may have come meanwhile; those that had it refuse it.
            sent.retries = sent.retries.max(RETRIES_MAX - 1);
        }
        sent.retries += 1;
        let is_last = sent.retries > RETRIES_MAX;
        let kept = sent.remote.as_ref().map(|remote| remote.envelope.to.clone());
        if is_unacked {
            // Whoever has it next has as long as the one before.
            in_flight.extend(ticket, turn.now + RECEIPT_MS_MAX);
        }
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
            Some(_) if is_last => self.store_or_give_up(ticket, ErrorCode::Offline, turn),
            Some(to) => self.route_again(ticket, to, turn),
        }
    }

    fn route_again(&self, ticket: Ticket, to: UserName, turn: &mut Turn) {
        self.metrics.rerouted.add();
        self.cluster.forget(to.borrowed());
        turn.forget_places();
        let mut asked = self.asked();
        let is_late = asked.contains_key(&to);
        asked.entry(to.clone()).or_default().bounce(ticket);
        drop(asked);
        if !is_late {
            self.ask_for_those_who_wait(&to, turn);
        }
    }

    /// Tells the sender that its message was not delivered; or, when somebody may have seen it who
    /// can't be asked any more, that nobody knows.
    pub(super) fn give_up(&self, ticket: Ticket, code: ErrorCode, turn: &mut Turn) {
        let question = self.in_flight().remove(ticket);
        if let Some(Question::Sent(sent)) = question {
            // Without an acknowledgement it was not delivered. But that nothing was sent would be a lie.
            let is_doubtful = sent.maybe_seen || (code == ErrorCode::Unavailable && sent.may_be_seen());
            let code = if is_doubtful { ErrorCode::Timeout } else { code };
            self.in_flight().end_further(&HashSet::from([ticket]));
            self.fail(&sent.sender, &sent.reply, code, turn);
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
                let mut question = in_flight.remove(ticket);
                if let Some(Question::Sent(sent)) = &mut question
                    && !sent.is_awaited
                {
                    in_flight.spare(sent.remote.take());
                }
                drop(in_flight);
                if let Some(Question::Sent(sent)) = question {
                    self.delivered(&sent, turn);
                    self.unbar(ticket, sent.awaited_for(), turn);
                }
            }
            Fate::NotHere => self.taken_back(ticket, node, Lost::GONE, turn),
            Fate::Left => self.taken_back(ticket, node, Lost::LEFT, turn),
            Fate::Unacked => self.taken_back(ticket, node, Lost::UNACKED, turn),
        }
    }

    /// A node does not have a message any more, or never had it.
    fn taken_back(&self, ticket: Ticket, node: &NodeId, lost: Lost, turn: &mut Turn) {
        self.take_back(ticket, node, false, turn, |to, turn| {
            if lost.fate != Fate::Unacked {
                self.bar(ticket, node, to);
            }
            self.lost(ticket, lost, None, turn);
        });
    }

    /// A node is dead: what was in flight to it is routed again.
    pub(super) fn gone(&self, node: &NodeId, turn: &mut Turn) {
        let tickets = self.in_flight().with_node(node, None);
        for ticket in tickets {
            self.take_back(ticket, node, true, turn, |_, turn| self.lost(ticket, Lost::GONE, None, turn));
        }
    }

    /// Messages came back: they are routed again, and that does not count as a
    /// retry, because the cluster itself takes its time between attempts.
    pub(super) fn returned(&self, node: &NodeId, numbers: &[u64], maybe_seen: bool, turn: &mut Turn) {
        for ticket in numbers.iter().map(|number| Ticket(*number)) {
            self.take_back(ticket, node, maybe_seen, turn, |to, turn| {
                let mut in_flight = self.in_flight();
                let Some(Question::Sent(sent)) = in_flight.question(ticket) else { return };
                sent.parties -= 1;
                let is_nowhere = sent.parties == 0;
                drop(in_flight);
                if is_nowhere {
                    self.route_again(ticket, to.clone(), turn);
                } else {
                    // Others have it, and may deliver it; but the sessions of this node want it too.
                    self.spread(vec![ticket], to.clone(), turn);
                }
            });
        }
    }

    /// Takes a message from a node that has it, does what follows from that, given the recipient, and
    /// lets go on what waited until the message is not there any more.
    fn take_back(
        &self,
        ticket: Ticket,
        node: &NodeId,
        maybe_seen: bool,
        turn: &mut Turn,
        follow: impl FnOnce(&UserName, &mut Turn),
    ) {
        if !self.take_node(ticket, node, maybe_seen) {
            return;
        }
        let mut in_flight = self.in_flight();
        let Some(Question::Sent(Sent { is_awaited, remote: Some(remote), .. })) = in_flight.question(ticket)
        else {
            return;
        };
        let (is_awaited, to) = (*is_awaited, remote.envelope.to.clone());
        drop(in_flight);
        follow(&to, turn);
        if is_awaited {
            self.unbar(ticket, Some(&to), turn);
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
                let (envelope, nodes) = (Box::new(remote.envelope.clone()), remote.nodes.clone());
                let question = Question::Further { of: *ticket, envelope, nodes };
                *ticket = in_flight.insert(question, Some(turn.now + RECEIPT_MS_MAX));
            }
        }
        drop(in_flight);
        self.cluster.forget(user.borrowed());
        turn.forget_places();
        let is_here = self.table.sessions_of(user.borrowed()) > 0;
        match self.ask_for(user.borrowed(), is_here, turn) {
            Answer::Now(places) => {
                tickets.into_iter().for_each(|further| self.send_further(further, places.clone(), turn));
            }
            Answer::Later => self.wait_for_presence(user, tickets),
        }
    }

    /// Hands a `CAST` to other nodes; tells whether one took it.
    pub(super) fn cast_to(&self, places: &[Place], envelope: EnvelopeRef<'_>, now: Instant) -> bool {
        let forward = |place: &Place| self.cluster.forward(&place.node, envelope, now).is_ok();
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
        let question = Question::Cast { envelope: Box::new(envelope), is_taken };
        let ticket = in_flight.insert(question, Some(turn.now + RECEIPT_MS_MAX));
        drop(in_flight);
        self.wait_for_presence(to, vec![ticket]);
        true
    }

    /// Hands a message to nodes that do not have it; if it has no fate yet, they are asked for it, too.
    pub(super) fn send_further(&self, ticket: Ticket, places: Result<Places, Unavailable>, turn: &mut Turn) {
        let question = self.in_flight().remove(ticket);
        let Some(Question::Further { of, envelope, nodes }) = question else { return };
        let is_new = |place: &Place| !nodes.contains(&place.node);
        for Place { node, .. } in places.unwrap_or_default().iter().filter(|place| is_new(place)) {
            self.forward_also(of, ticket, node, &envelope, turn);
        }
    }

    /// Hands a message to one node more, as one of its parties; or under the ticket `spent`, whose
    /// receipt nobody waits for, when the message has its fate.
    pub(super) fn forward_also(
        &self,
        ticket: Ticket,
        spent: Ticket,
        node: &NodeId,
        envelope: &Envelope,
        turn: &mut Turn,
    ) {
        let Some(is_party) = self.add_party(ticket, &envelope.to, node) else { return };
        let number = if is_party { ticket } else { spent };
        let number = Some(number.0);
        let numbered = EnvelopeRef { number, is_shared: true, is_again: true, ..envelope.borrowed() };
        if self.cluster.forward(node, numbered, turn.now).is_err() && self.take_node(ticket, node, false) {
            self.lost(ticket, Lost::GONE, None, turn);
        }
    }

    /// Another node gets a message, too: `true` when it is one of its parties now, `false` when
    /// the message has its fate; `None` when it goes there by another way.
    fn add_party(&self, ticket: Ticket, to: &UserName, node: &NodeId) -> Option<bool> {
        let is_storing = self.asked().get(to).is_some_and(|asked| asked.storing.contains(&ticket));
        let mut in_flight = self.in_flight();
        let Some(Question::Sent(sent)) = in_flight.question(ticket) else { return Some(false) };
        // Nobody has it: it waits to be placed. Or the mailbox is about to.
        if sent.parties == 0 || is_storing {
            return None;
        }
        let remote = sent.remote.as_mut().filter(|remote| !remote.nodes.contains(node))?;
        remote.nodes.push(node.clone());
        sent.parties += 1;
        in_flight.placed_also(to, node);
        Some(true)
    }

    /// Takes a node from the parties of a message; `true` when it was one.
    fn take_node(&self, ticket: Ticket, node: &NodeId, maybe_seen: bool) -> bool {
        let mut in_flight = self.in_flight();
        let question = in_flight.question(ticket);
        if !is_with(question.as_deref(), node) {
            return false;
        }
        if let Some(Question::Sent(Sent { maybe_seen: was_maybe_seen, remote: Some(remote), .. })) = question
        {
            *was_maybe_seen |= maybe_seen;
            remote.nodes.retain(|other| other != node);
            let to = remote.envelope.to.clone();
            in_flight.lacks(&to, node);
        }
        true
    }

    pub(super) fn envelope(&self, ticket: Ticket) -> Option<Envelope> {
        match self.in_flight().question(ticket) {
            Some(Question::Sent(Sent { remote: Some(remote), .. })) => Some(remote.envelope.clone()),
            _ => None,
        }
    }
}

/// Tells whether a node has a message.
pub(super) fn is_with(question: Option<&Question>, node: &NodeId) -> bool {
    match question {
        Some(Question::Sent(Sent { remote: Some(remote), .. })) => remote.nodes.contains(node),
        _ => false,
    }
}

/// Reads a message back from the line that was to be written.
pub(super) fn envelope_of(to: &UserName, line: &[u8]) -> Option<Envelope> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, ServerLine::Msg { from, id, text, .. }) = ServerLine::parse(line)? else { return None };
    let id = MessageId::Tag(id.as_str().into());
    Some(Envelope {
        number: None,
        is_shared: false,
        is_again: true,
        from: from.into(),
        to: to.clone(),
        id,
        text: text.to_owned(),
    })
}
