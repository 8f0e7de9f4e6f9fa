//! The in-flight table: every question of this node that has no answer yet.
//!
//! Mostly messages without a fate: those sent here, whose senders wait, and
//! those received from other nodes, whose origins wait. A slab, so that a
//! message costs one slot and no search; a ticket is an index and a generation,
//! so that a late answer finds nothing instead of somebody else. Slots whose
//! askers wait are also linked in the order they came: the deadline is the same
//! for all, so the oldest is always the first to expire.
//!
//! Bounded three ways: 1,024 replies due a connection (`outbox`), 64 KiB of text
//! on its way to one user on other nodes, and 64 MiB to all of them together.
//! Senders wait at the last two, and are woken when half is done.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::outbox::{Outbox, Ticket};
use crate::proto::{Envelope, EnvelopeRef, NodeId, SessionId, UserName, UserRef};
use crate::recent::Recent;
use crate::router::question::{Question, Remote, Sent};
use crate::table::Seat;

/// Bytes that may be in flight to one user on other nodes.
pub const USER_BYTES_MAX: usize = 64 * 1024;

/// Bytes that may be in flight to other nodes together.
pub const REMOTE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The questions without an answer.
#[derive(Default)]
pub struct InFlight {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The oldest and the newest slot with a deadline.
    oldest: Option<u32>,
    newest: Option<u32>,
    len: usize,
    /// Questions that there ever were.
    count: u64,
    /// What waits to go to further nodes.
    further: usize,
    /// The generation of new slots: above that of every slot that was given back.
    first_generation: u32,
    windows: Recent<UserName, Window>,
    remote_bytes: usize,
    /// What was kept of messages that have their fate: the next ones are put into these.
    #[allow(clippy::vec_box, reason = "the boxes are what is used again")]
    spares: Vec<Box<Remote>>,
    /// Senders that wait until fewer bytes are in flight to all other nodes.
    waiting: Vec<Waker>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// How many questions came before this one.
    order: u64,
    question: Option<Question>,
    deadline: Option<Instant>,
    older: Option<u32>,
    newer: Option<u32>,
}

/// What is in flight to one user.
#[derive(Default)]
struct Window {
    bytes: usize,
    /// The nodes that messages go to: no other node has one.
    nodes: Vec<NodeId>,
    /// Those among them that do not have all earlier ones: they gave some back.
    lacking: Vec<NodeId>,
    /// The sessions of this node that messages go to.
    sessions: Vec<SessionId>,
    waiting: Vec<Waker>,
}

/// Where messages to a user go that earlier ones may not have gone to.
pub struct Further {
    /// Other nodes.
    pub nodes: Vec<NodeId>,
    /// Sessions of this node.
    pub seats: Vec<Seat>,
    /// There are earlier ones that were sent to other nodes.
    pub has_earlier: bool,
}

impl InFlight {
    /// Adds a question. One with a deadline must not be due before those already here.
    pub fn insert(&mut self, question: Question, deadline: Option<Instant>) -> Ticket {
        if let Question::Sent(Sent { remote: Some(remote), .. }) = &question {
            self.claim(&remote.envelope);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            let generation = self.first_generation;
            self.slots.push(Slot { generation, ..Slot::default() });
            self.slots.len() as u32 - 1
        });
        self.further += usize::from(matches!(question, Question::Further { .. }));
        let slot = &mut self.slots[index as usize];
        slot.question = Some(question);
        slot.order = self.count;
        self.count += 1;
        if let Some(deadline) = deadline {
            self.link(index, deadline);
        }
        self.len += 1;
        Ticket(u64::from(self.slots[index as usize].generation) << 32 | u64::from(index))
    }

    /// What it takes to route a message again. `names`: those of its sender and its recipient, to keep.
    pub fn remote(&mut self, envelope: EnvelopeRef<'_>, names: (UserName, UserName)) -> Box<Remote> {
        let (from, to) = names;
        let EnvelopeRef { number, is_shared, is_again, id, text, .. } = envelope;
        let mut remote = self.spares.pop().unwrap_or_else(|| {
            let (from, to, id, text) = (from.clone(), to.clone(), id.into(), String::new());
            let envelope = Envelope { number, is_shared, is_again, from, to, id, text };
            Box::new(Remote { envelope, nodes: vec![] })
        });
        let mut kept = std::mem::take(&mut remote.envelope.text);
        kept.push_str(text);
        remote.envelope = Envelope { number, is_shared, is_again, from, to, id: id.into(), text: kept };
        remote
    }

    /// Keeps the memory of what is of no use any more, if it is little.
    pub fn spare(&mut self, remote: Option<Box<Remote>>) {
        if let Some(mut remote) = remote
            && self.spares.len() < SPARES_MAX
            && remote.envelope.text.capacity() <= SPARE_BYTES_MAX
        {
            remote.envelope.text.clear();
            remote.nodes.clear();
            self.spares.push(remote);
        }
    }

    /// The question of a ticket, if it is still open.
    pub fn question(&mut self, ticket: Ticket) -> Option<&mut Question> {
        question_in(&mut self.slots, ticket)
    }

    /// Ends a question: whoever gets it here must answer it.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Question> {
        self.question(ticket)?;
        let index = ticket.0 as u32;
        let slot = &mut self.slots[index as usize];
        let question = slot.question.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.unlink(index);
        self.free.push(index);
        self.len -= 1;
        self.further -= usize::from(matches!(question, Question::Further { .. }));
        if let Question::Sent(Sent { remote: Some(remote), .. }) = &question {
            self.release(&remote.envelope);
        }
        if self.len == 0 && self.slots.len() > SLOTS_KEPT_MAX {
            self.shrink();
        }
        Some(question)
    }

    /// Gives a question a later deadline, which must not be due before any other.
    pub fn extend(&mut self, ticket: Ticket, deadline: Instant) {
        if self.question(ticket).is_some() && self.slots[ticket.0 as u32 as usize].deadline.is_some() {
            self.unlink(ticket.0 as u32);
            self.link(ticket.0 as u32, deadline);
        }
    }

    #[inline]
    fn link(&mut self, index: u32, deadline: Instant) {
        let slot = &mut self.slots[index as usize];
        slot.deadline = Some(deadline);
        slot.older = self.newest;
        slot.newer = None;
        match self.newest.replace(index) {
            Some(before) => self.slots[before as usize].newer = Some(index),
            None => self.oldest = Some(index),
        }
    }

    #[inline]
    fn unlink(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.deadline.take().is_none() {
            return;
        }
        let (older, newer) = (slot.older.take(), slot.newer.take());
        match older {
            Some(older) => self.slots[older as usize].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots[newer as usize].older = older,
            None => self.newest = older,
        }
    }

    /// Tells whether a message to `user` elsewhere may be sent now; if not,
    /// `waker` is woken when it may.
    pub fn has_window(&mut self, user: UserRef<'_>, waker: &Waker) -> bool {
        if self.remote_bytes < USER_BYTES_MAX {
            return true;
        }
        let waiting = match self.windows.get_mut(user.as_str()) {
            Some(window) if window.bytes >= USER_BYTES_MAX => &mut window.waiting,
            _ if self.remote_bytes >= REMOTE_BYTES_MAX => &mut self.waiting,
            _ => return true,
        };
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        false
    }

    /// The oldest question that is due.
    pub fn due(&self, now: Instant) -> Option<Ticket> {
        let index = self.oldest?;
        let slot = &self.slots[index as usize];
        slot.deadline.filter(|deadline| *deadline <= now)?;
        Some(Ticket(u64::from(slot.generation) << 32 | u64::from(index)))
    }

    /// A message goes to `nodes` and to `seats` now: they are its parties. Gives those among them that
    /// earlier messages to the same user may not have gone to.
    pub fn placed<'a>(
        &mut self,
        ticket: Ticket,
        nodes: impl ExactSizeIterator<Item = &'a NodeId> + Clone,
        seats: &[Seat],
    ) -> Option<Further> {
        let Some(Question::Sent(sent)) = question_in(&mut self.slots, ticket) else { return None };
        sent.parties = (nodes.len() + seats.len()) as u32;
        let remote = sent.remote.as_mut()?;
        remote.nodes.clear();
        remote.nodes.extend(nodes.clone().cloned());
        remote.envelope.is_again = true;
        let window = self.windows.get_mut(remote.envelope.to.as_str())?;
        let has_earlier = window.bytes > remote.envelope.bytes();
        if !has_earlier && seats.is_empty() {
            // The usual case: it is the only one.
            window.nodes.clone_from(&remote.nodes);
            window.lacking.clear();
            return None;
        }
        let is_new_seat = |seat: &&Seat| !window.sessions.contains(&seat.session);
        if window.nodes == remote.nodes
            && window.lacking.is_empty()
            && !seats.iter().any(|seat| is_new_seat(&seat))
        {
            return None;
        }
        let is_new_node = |node: &&NodeId| !window.nodes.contains(node) || window.lacking.contains(node);
        let further = Further {
            nodes: nodes.filter(is_new_node).cloned().collect(),
            seats: seats.iter().filter(is_new_seat).cloned().collect(),
            has_earlier,
        };
        window.nodes.clone_from(&remote.nodes);
        window.lacking.clear();
        window.sessions = seats.iter().map(|seat| seat.session).collect();
        Some(further)
    }

    /// A node has given a message back.
    pub fn lacks(&mut self, user: &UserName, node: &NodeId) {
        if let Some(window) = self.windows.get_mut(user.as_str())
            && !window.lacking.contains(node)
        {
            window.lacking.push(node.clone());
        }
    }

    /// A message goes to one node more.
    pub fn placed_also(&mut self, user: &UserName, node: &NodeId) {
        if let Some(window) = self.windows.get_mut(user.as_str())
            && !window.nodes.contains(node)
        {
            window.nodes.push(node.clone());
        }
    }

    /// The messages on their way to nodes where the user is not any more, given where it is.
    pub fn left_behind(&mut self, user: UserRef<'_>, is_there: impl Fn(&NodeId) -> bool) -> Vec<Ticket> {
        // Most users don't move.
        let window = if self.windows.is_empty() { None } else { self.windows.get_mut(user.as_str()) };
        if window.is_none_or(|window| window.nodes.iter().all(&is_there)) {
            return vec![];
        }
        let tickets = self.with_deadline(|question| match question {
            Question::Sent(Sent { remote: Some(remote), .. }) => {
                remote.envelope.to.borrowed() == user && !remote.nodes.iter().all(&is_there)
            }
            _ => false,
        });
        if let (true, Some(window)) = (tickets.is_empty(), self.windows.get_mut(user.as_str())) {
            // Nothing to look for the next time.
            window.nodes.retain(is_there);
        }
        tickets
    }

    /// The messages that somebody has who is asked for a user on other nodes, in the order they came,
    /// but for the message `besides`.
    pub fn others_to(&self, user: &UserName, besides: Ticket) -> Vec<Ticket> {
        let mut tickets = self.in_order(|question| match question {
            Question::Sent(Sent { remote: Some(remote), parties, .. }) => {
                *parties > 0 && remote.envelope.to == *user
            }
            _ => false,
        });
        tickets.retain(|ticket| *ticket != besides);
        tickets
    }

    /// Whoever waits for the fates of these is told of them.
    pub fn await_fates(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(Question::Sent(sent)) = self.question(*ticket) {
                sent.is_awaited = true;
            }
        }
    }

    /// How many questions came before one that is open.
    pub fn order(&self, ticket: Ticket) -> u64 {
        self.slots.get(ticket.0 as u32 as usize).map_or(0, |slot| slot.order)
    }

    /// The messages that are with `node`, of one recipient if `to` names it, in the order they came.
    pub fn with_node(&self, node: &NodeId, to: Option<&UserName>) -> Vec<Ticket> {
        self.in_order(|question| match question {
            Question::Sent(Sent { remote: Some(remote), .. }) => {
                remote.nodes.contains(node) && to.is_none_or(|to| remote.envelope.to == *to)
            }
            _ => false,
        })
    }

    /// The questions of one connection.
    pub fn asked_by(&self, asker: &Arc<Outbox>) -> Vec<Ticket> {
        self.with_deadline(|question| match question {
            Question::Sent(Sent { sender: other, .. })
            | Question::Who { asker: other, .. }
            | Question::Leaving(other) => Arc::ptr_eq(asker, other),
            _ => false,
        })
    }

    /// Ends what waits to go to further nodes, of these messages, which were not delivered.
    pub fn end_further(&mut self, messages: &HashSet<Ticket>) -> Vec<Ticket> {
        // Looking through the whole table is for when there is something to find.
        if self.further == 0 || messages.is_empty() {
            return vec![];
        }
        let further = self.with_deadline(|question| match question {
            Question::Further { of, .. } => messages.contains(of),
            _ => false,
        });
        further.iter().for_each(|ticket| drop(self.remove(*ticket)));
        further
    }

    /// Questions with a deadline, in the order they came.
    fn in_order(&self, is_wanted: impl Fn(&Question) -> bool) -> Vec<Ticket> {
        let mut tickets = self.with_deadline(is_wanted);
        tickets.sort_unstable_by_key(|ticket| self.order(*ticket));
        tickets
    }

    /// Questions with a deadline, those that are due first before others.
    fn with_deadline(&self, is_wanted: impl Fn(&Question) -> bool) -> Vec<Ticket> {
        let mut found = vec![];
        let mut next = self.oldest;
        while let Some(index) = next {
            let slot = &self.slots[index as usize];
            if slot.question.as_ref().is_some_and(&is_wanted) {
                found.push(Ticket(u64::from(slot.generation) << 32 | u64::from(index)));
            }
            next = slot.newer;
        }
        found
    }

    /// Tells whether other messages than this one are on their way to its recipient.
    pub fn has_others(&mut self, ticket: Ticket) -> bool {
        let Some(Question::Sent(Sent { remote: Some(remote), .. })) = self.question(ticket) else {
            return false;
        };
        let (to, bytes) = (remote.envelope.to.clone(), remote.envelope.bytes());
        self.windows.get_mut(to.as_str()).is_some_and(|window| window.bytes > bytes)
    }

    /// How many questions are open.
    pub fn count(&self) -> usize {
        self.len
    }

    /// Keeps the envelope of a message that was only with sessions of this node.
    pub fn keep(&mut self, ticket: Ticket, envelope: Envelope) {
        self.claim(&envelope);
        if let Some(Question::Sent(sent)) = self.question(ticket) {
            sent.remote = Some(Box::new(Remote { envelope, nodes: vec![] }));
        }
    }

    fn claim(&mut self, envelope: &Envelope) {
        let bytes = envelope.bytes();
        self.remote_bytes += bytes;
        self.windows.get_or_insert_with(&envelope.to, Window::default).bytes += bytes;
    }

    fn release(&mut self, envelope: &Envelope) {
        let bytes = envelope.bytes();
        self.remote_bytes -= bytes;
        if self.remote_bytes <= REMOTE_BYTES_MAX / 2 {
            self.waiting.drain(..).for_each(Waker::wake);
        }
        let Some(window) = self.windows.get_mut(envelope.to.as_str()) else { return };
        window.bytes -= bytes;
        if window.bytes <= USER_BYTES_MAX / 2 {
            window.waiting.drain(..).for_each(Waker::wake);
        }
        if window.bytes == 0 {
            self.windows.remove(envelope.to.as_str());
        }
    }

    /// Time passes: no more is kept for the next messages than are in flight now.
    pub fn give_memory_back(&mut self) {
        if self.spares.len() > self.len {
            self.spares.truncate(self.len);
            self.spares.shrink_to_fit();
        }
    }

    /// Gives the memory of a flood back. Tickets of it may still come, so the
    /// generations go on above all that were given out.
    fn shrink(&mut self) {
        let generations = self.slots.iter().map(|slot| slot.generation);
        self.first_generation = generations.max().unwrap_or(self.first_generation);
        self.slots = Vec::new();
        self.free = Vec::new();
    }
}

fn question_in(slots: &mut [Slot], ticket: Ticket) -> Option<&mut Question> {
    let slot = slots.get_mut(ticket.0 as u32 as usize)?;
    (slot.generation == (ticket.0 >> 32) as u32).then_some(slot.question.as_mut()).flatten()
}

/// Slots that an empty table keeps.
const SLOTS_KEPT_MAX: usize = 4_096;

/// How many spares there are at most, and of how long texts: some 900 KiB in all.
const SPARES_MAX: usize = 2_048;
const SPARE_BYTES_MAX: usize = 256;

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
