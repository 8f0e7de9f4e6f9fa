//! The links of one node to all others.
//!
//! What is said from above lands here, encoded, and waits for the bus; what the
//! bus hears is checked here. Numbers that go up to the router carry the epoch,
//! a count of this node's incarnations: a receipt for a message that came to an
//! incarnation before is nobody's business any more.

use std::time::{Duration, Instant};

use crate::cluster::link::{Heard, Link, Returned};
use crate::cluster::{Event, Unavailable};
use crate::proto::batch::{Head, Item};
use crate::proto::{EnvelopeRef, Fate, NodeId};
use crate::recent::Recent;

/// Links of one node to others.
pub const LINKS_MAX: usize = 16_384;

/// How long a node may talk to us before it must be in the table of living nodes:
/// it can be there before we have heard of it.
const STRANGER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long messages wait for a broker that is away.
const DOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// Where a message's number on its link ends, and the epoch begins.
const EPOCH_SHIFT: u32 = 48;

/// All links of one node.
pub struct Links {
    me: NodeId,
    epoch: u64,
    peers: Recent<NodeId, Link>,
    due: Due,
    /// The bus can publish.
    is_up: bool,
    /// Since when it can't.
    down_since: Option<Instant>,
}

/// What the bus has to look at.
struct Due {
    /// Links with something to publish.
    ready: Vec<NodeId>,
    /// Nothing was under way when time passed last: the bus does not look by itself.
    is_idle: bool,
    /// Something is under way since.
    wakes: bool,
}

impl Links {
    /// No links yet.
    pub fn new(me: NodeId) -> Self {
        Links {
            me,
            epoch: 0,
            peers: Recent::default(),
            due: Due { ready: vec![], is_idle: true, wakes: false },
            is_up: false,
            down_since: None,
        }
    }

    /// Tells whether the bus can publish.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Adds a message for another node; `None` when there is no link to it.
    ///
    /// # Errors
    /// When the broker has been away for a while, or too much waits for that node already.
    pub fn forward(
        &mut self,
        node: &NodeId,
        envelope: EnvelopeRef<'_>,
        now: Instant,
    ) -> Option<Result<(), Unavailable>> {
        let is_up = self.is_up || self.is_down_for_a_moment(now);
        let link = self.peers.get_mut(node.as_str())?;
        if !is_up || (envelope.number.is_none() && !link.takes_casts()) {
            return Some(Err(Unavailable));
        }
        link.forward(envelope, now);
        self.due.note(node, link, now);
        Some(Ok(()))
    }

    /// Makes a link to a node, if there is room for one and anything can be said.
    pub fn open(&mut self, node: &NodeId, now: Instant) {
        if self.is_up || self.is_down_for_a_moment(now) {
            link(&mut self.peers, node, now);
        }
    }

    /// Adds something else for another node.
    pub fn say(&mut self, node: &NodeId, item: &Item<'_>, now: Instant) {
        if let Some(link) = link(&mut self.peers, node, now) {
            link.say(item, now);
            self.due.note(node, link, now);
        }
    }

    /// Adds the receipt of a message that came from another node.
    pub fn receipt(&mut self, origin: &NodeId, number: u64, fate: Fate, now: Instant) {
        let Some(message) = self.message(number) else { return };
        if let Some(link) = self.peers.get_mut(origin.as_str()) {
            link.receipt(fate, message);
            self.due.note(origin, link, now);
        }
    }

    /// The number under which the router knows message `message` of a link; later messages
    /// of the same batch follow it.
    pub fn number(&self, message: u64) -> u64 {
        self.epoch << EPOCH_SHIFT | message
    }

    /// Puts the next batch to publish into `batch`, and tells for whom it is.
    pub fn next(&mut self, now: Instant, batch: &mut Vec<u8>) -> Option<NodeId> {
        while let Some(node) = self.due.ready.last().filter(|_| self.is_up) {
            if let Some(link) = self.peers.get_mut(node.as_str()) {
                if link.next(&self.me, now, batch) {
                    return Some(node.clone());
                }
                link.is_ready = false;
            }
            self.due.ready.pop();
        }
        None
    }

    /// Tells whether the bus has to look: there is something to publish, now or soon.
    pub fn has_next(&self) -> bool {
        self.is_up && (self.due.wakes || !self.due.ready.is_empty())
    }

    /// Takes in the head of a batch that came to the incarnation `epoch` of this node.
    pub fn hear(&mut self, epoch: u64, head: &Head, now: Instant) -> Heard {
        // One to an incarnation before this counts on another link, and its messages went elsewhere.
        if epoch != self.epoch {
            return Heard::Nothing;
        }
        let Some(link) = link(&mut self.peers, &head.from, now) else { return Heard::Nothing };
        let heard = link.hear(head, now);
        self.due.note(&head.from, link, now);
        heard
    }

    /// Messages to `node` have their receipts: their tickets.
    pub fn settle(&mut self, node: &NodeId, first: u64, count: u64, tickets: &mut Vec<u64>) {
        if let Some(link) = self.peers.get_mut(node.as_str()) {
            link.settle(first, count, |ticket| tickets.push(ticket));
        }
    }

    /// Receipts of messages to `node` take longer: their tickets.
    pub fn waits(&mut self, node: &NodeId, first: u64, count: u64, tickets: &mut Vec<u64>) {
        if let Some(link) = self.peers.get_mut(node.as_str()) {
            link.waits(first, count, |ticket| tickets.push(ticket));
        }
    }

    /// The number of a message on its link, if it came to this incarnation.
    pub fn message(&self, number: u64) -> Option<u64> {
        let is_current = number >> EPOCH_SHIFT == self.epoch & (u64::MAX >> EPOCH_SHIFT);
        is_current.then_some(number & ((1 << EPOCH_SHIFT) - 1))
    }

    /// A batch came back because its node has no queue.
    pub fn returned(&mut self, node: &NodeId, batch: &[u8], now: Instant) -> Option<Returned> {
        let (head, _) = Head::parse(batch)?;
        // One of an incarnation before this is forgotten already.
        let link = self.peers.get_mut(node.as_str()).filter(|_| head.from == self.me)?;
        link.returned(head.number, now)
    }

    /// Time passes. Returns whether anything is under way, so that it should pass again soon.
    pub fn tick(&mut self, now: Instant) -> bool {
        let mut is_active = false;
        for (node, link) in self.peers.iter_mut() {
            if !link.is_active() {
                link.give_memory_back();
            }
            if link.is_quiet() {
                continue;
            }
            is_active |= link.is_active();
            link.tick(now);
            if !link.is_ready && link.is_due(now) {
                link.is_ready = true;
                self.due.ready.push(node.clone());
            }
        }
        (self.due.is_idle, self.due.wakes) = (!is_active, false);
        is_active
    }

    /// The bus can publish, from now on or no more.
    pub fn set_up(&mut self, is_up: bool) {
        if is_up {
            self.down_since = None;
        } else if self.is_up {
            self.down_since = Some(Instant::now());
            self.peers.iter_mut().for_each(|(_, link)| link.lose());
        }
        self.is_up = is_up;
    }

    /// Gives up what waits for a broker that is away for longer than a moment.
    pub fn give_up_waiting(&mut self, now: Instant) -> Vec<Event> {
        let mut events = vec![];
        if self.is_up || self.is_down_for_a_moment(now) {
            return events;
        }
        for (node, link) in self.peers.iter_mut().filter(|(_, link)| link.has_waiting()) {
            let numbers = link.give_up_waiting(now);
            if !numbers.is_empty() {
                events.push(Event::Returned { node: node.clone(), numbers, maybe_seen: false });
            }
        }
        events
    }

    /// The broker may be back any moment: what is said meanwhile waits for it.
    fn is_down_for_a_moment(&self, now: Instant) -> bool {
        self.down_since.is_some_and(|since| now.duration_since(since) < DOWN_TIME_MAX)
    }

    /// This node has a new id: whatever was under way is over.
    pub fn restart(&mut self, me: NodeId) -> Vec<Event> {
        self.me = me;
        self.epoch += 1;
        self.due.ready.clear();
        let now = Instant::now();
        self.peers.drain().flat_map(|(node, link)| end(node, link, now)).collect()
    }

    /// Nodes that have been talked with for so long that they must be in the table by now.
    pub fn strangers(&mut self, now: Instant) -> Vec<NodeId> {
        let is_old = |link: &mut Link| now.duration_since(link.since) >= STRANGER_TIME_MAX;
        self.peers.iter_mut().filter_map(|(node, link)| is_old(link).then(|| node.clone())).collect()
    }

    /// Ends the link to a node that is dead; what to tell if there was one.
    pub fn end(&mut self, node: &NodeId, now: Instant) -> Vec<Event> {
        self.peers.remove(node.as_str()).map_or_else(Vec::new, |link| end(node.clone(), link, now))
    }
}

/// The link to a node; `None` when there are too many.
fn link<'a>(peers: &'a mut Recent<NodeId, Link>, node: &NodeId, now: Instant) -> Option<&'a mut Link> {
    if peers.len() >= LINKS_MAX && peers.get(node.as_str()).is_none() {
        return None;
    }
    Some(peers.get_or_insert_with(node, || Link::new(now)))
}

impl Due {
    /// Notes a link that has something to publish.
    fn note(&mut self, node: &NodeId, link: &mut Link, now: Instant) {
        if !link.is_ready && link.is_due(now) {
            link.is_ready = true;
            self.ready.push(node.clone());
        } else if self.is_idle && link.is_active() {
            self.wakes = true;
        }
    }
}

/// What was never published was never seen; of the rest nobody knows.
fn end(node: NodeId, mut link: Link, now: Instant) -> Vec<Event> {
    let numbers = link.give_up_waiting(now);
    vec![Event::Returned { node: node.clone(), numbers, maybe_seen: false }, Event::Gone(node)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::UserName;

    fn node(id: &str) -> NodeId {
        NodeId::new("a", id).expect("valid")
    }

    /// The head of a batch that `links` have for `to`.
    fn said(links: &mut Links, to: &NodeId, now: Instant) -> Head {
        let bob = UserName::parse("bob").expect("valid");
        links.say(to, &Item::Also { user: bob.borrowed(), login: 1 }, now);
        let mut batch = vec![];
        links.next(now, &mut batch).expect("there is something to say");
        Head::parse(&batch).expect("our own").0
    }

    #[test]
    fn what_came_to_an_incarnation_before_counts_no_more() {
        let now = Instant::now();
        let (us, them, us_again) = (node("1"), node("2"), node("3"));
        let (mut ours, mut theirs) = (Links::new(us.clone()), Links::new(them));
        theirs.set_up(true);
        // It has come from the queue, and waits to be unpacked while this node takes a new id.
        let late = said(&mut theirs, &us, now);
        ours.restart(us_again.clone());
        assert_eq!(ours.hear(0, &late, now), Heard::Nothing);
        let fresh = said(&mut theirs, &us_again, now);
        assert_eq!(ours.hear(1, &fresh, now), Heard::Next);
    }

    #[test]
    fn an_idle_bus_hears_of_what_will_be_due_soon() {
        let now = Instant::now();
        let (us, them) = (node("1"), node("2"));
        let mut links = Links::new(us);
        links.set_up(true);
        let bob = UserName::parse("bob").expect("valid");
        // The other node has no queue, and is left alone for a while.
        link(&mut links.peers, &them, now).expect("there is room").returned(1, now);
        assert!(!links.tick(now) && !links.has_next());
        links.say(&them, &Item::Also { user: bob.borrowed(), login: 1 }, now);
        assert!(links.next(now, &mut vec![]).is_none() && links.has_next(), "the bus has to wake up for it");
        assert!(links.tick(now) && !links.has_next(), "and then looks by itself");
    }
}
