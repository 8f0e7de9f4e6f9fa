//! The links of one node to all others.
//!
//! What the node says lands here, composed, and waits for whoever publishes; what comes
//! is checked here. Numbers that go up to the node carry the epoch, a count of this node's
//! incarnations: a receipt for a message that came to an incarnation before is nobody's
//! business any more. What has to be told to the node gathers as events, which whoever
//! holds the links sends on before anybody else can change them.
//!
//! Pure: the time comes in. Shared by the node's thread and the bus, behind one lock.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use crate::cluster::event::ClusterEvent;
use crate::cluster::link::Heard;
use crate::cluster::link::Link;
use crate::cluster::link::outgoing::Back;
use crate::node::out::Say;
use crate::node::seam::Cause;
use crate::node::seam::Returned;
use crate::proto::name::NodeId;
use crate::proto::wire::Head;
use crate::proto::wire::VERSION;
use crate::proto::wire::VERSION_MIN;
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
    /// The version of each living node, as far as they are known.
    versions: BTreeMap<NodeId, u8>,
    dead: HashSet<NodeId>,
    due: Due,
    /// Batches can be published.
    is_up: bool,
    /// Since when they can't.
    down_since: Option<Instant>,
    events: Vec<ClusterEvent>,
}

/// What whoever publishes has to look at.
struct Due {
    /// Links with something to publish.
    ready: Vec<NodeId>,
    /// Nothing was under way when time passed last: nobody looks without being woken.
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
            versions: BTreeMap::new(),
            dead: HashSet::new(),
            due: Due { ready: vec![], is_idle: true, wakes: false },
            is_up: false,
            down_since: None,
            events: vec![],
        }
    }

    /// This node's id.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// How often it has changed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is to be told to the node, in order: it is taken out.
    pub fn events(&mut self) -> impl Iterator<Item = ClusterEvent> {
        self.events.drain(..)
    }

    /// Takes what the node says to another one. A message that can't be carried comes back.
    pub fn say(&mut self, node: &NodeId, say: Say<'_>, now: Instant) {
        let ticket = match say {
            Say::Message { ticket, .. } => Some(ticket),
            _ => None,
        };
        let is_up = self.is_up || self.is_down_for_a_moment(now);
        let say = match say {
            Say::Receipt { number, receipt } => {
                // Only what came on a link of this incarnation has a number on it.
                let Some(number) = self.message(number) else { return };
                Say::Receipt { number, receipt }
            }
            Say::Waits { number } => {
                let Some(number) = self.message(number) else { return };
                Say::Waits { number }
            }
            say => say,
        };
        let cause = if self.peers.get(node.as_str()).is_none() && self.dead.contains(node) {
            Cause::Dead
        } else if ticket.is_some() && !is_up {
            Cause::CutOff
        } else {
            let link = link(&mut self.peers, &self.versions, node, now);
            if let Some(link) = link
                && link.outgoing.say(say, now)
            {
                return self.due.note(node, link, now);
            }
            Cause::CutOff
        };
        if let Some(ticket) = ticket {
            let (tickets, casts) = (ticket.into_iter().collect(), u64::from(ticket.is_none()));
            self.give_back(node, Back { tickets, casts, cause });
        }
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

    /// Tells whether there is something to publish, now or soon.
    pub fn has_next(&self) -> bool {
        self.is_up && (self.due.wakes || !self.due.ready.is_empty())
    }

    /// Takes in the head of a batch that came to the incarnation `epoch` of this node.
    pub fn hear(&mut self, epoch: u64, head: &Head, now: Instant) -> Heard {
        // One to an incarnation before this counts on another link, and its messages went elsewhere. A
        // node that is dead was cut off and does not know yet: nobody waits for what it says.
        if epoch != self.epoch || self.dead.contains(&head.from) {
            return Heard::Nothing;
        }
        let link = link(&mut self.peers, &self.versions, &head.from, now);
        let Some(link) = link else { return Heard::Nothing };
        let heard = link.hear(head, now);
        self.due.note(&head.from, link, now);
        heard
    }

    /// Messages to `node` have their receipts: appends their tickets.
    pub fn settle(&mut self, node: &NodeId, first: u64, count: u64, tickets: &mut Vec<u64>) {
        if let Some(link) = self.peers.get_mut(node.as_str()) {
            link.outgoing.settle(first, count, tickets);
        }
    }

    /// Receipts of messages to `node` take longer: appends their tickets.
    pub fn waits(&mut self, node: &NodeId, first: u64, count: u64, tickets: &mut Vec<u64>) {
        if let Some(link) = self.peers.get_mut(node.as_str()) {
            link.outgoing.open(first, count, tickets);
        }
    }

    /// The number under which the node knows message `message` of a link; later messages of the same
    /// batch follow it.
    pub fn number(&self, message: u64) -> u64 {
        self.epoch << EPOCH_SHIFT | message
    }

    /// The number of a message on its link, if it came to this incarnation.
    fn message(&self, number: u64) -> Option<u64> {
        let is_current = number >> EPOCH_SHIFT == self.epoch & (u64::MAX >> EPOCH_SHIFT);
        is_current.then_some(number & ((1 << EPOCH_SHIFT) - 1))
    }

    /// A batch came back because its node has no queue.
    pub fn returned(&mut self, node: &NodeId, batch: &[u8], now: Instant) {
        // One of an incarnation before this is forgotten already.
        let Some((head, _)) = Head::parse(batch).filter(|(head, _)| head.from == self.me) else { return };
        let Some(link) = self.peers.get_mut(node.as_str()) else { return };
        for back in link.returned(head.number, now) {
            self.give_back(node, back);
        }
    }

    /// Time passes. Returns whether anything is under way, so that it should pass again soon.
    pub fn tick(&mut self, now: Instant) -> bool {
        let (mut is_active, mut lost) = (false, vec![]);
        for (node, link) in self.peers.iter_mut() {
            if link.is_quiet() {
                continue;
            }
            is_active |= link.is_active();
            let casts = link.outgoing.tick(now);
            if casts > 0 {
                lost.push((node.clone(), Back { tickets: vec![], casts, cause: Cause::MaybeSeen }));
            }
            if !link.is_ready && link.is_due(now) {
                link.is_ready = true;
                self.due.ready.push(node.clone());
            }
        }
        lost.into_iter().for_each(|(node, back)| self.give_back(&node, back));
        (self.due.is_idle, self.due.wakes) = (!is_active, false);
        is_active
    }

    /// Batches can be published, from now on or no more.
    pub fn set_up(&mut self, is_up: bool, now: Instant) {
        if is_up {
            self.down_since = None;
        } else if self.is_up {
            self.down_since = Some(now);
            self.peers.iter_mut().for_each(|(_, link)| link.lose());
        }
        self.is_up = is_up;
    }

    /// Gives up what waits for a broker that is away for longer than a moment.
    pub fn give_up_waiting(&mut self, now: Instant) {
        if self.is_up || self.is_down_for_a_moment(now) {
            return;
        }
        let waiting = self.peers.iter_mut().filter(|(_, link)| link.outgoing.has_waiting());
        let backs =
            waiting.map(|(node, link)| (node.clone(), link.outgoing.give_up_waiting(Cause::CutOff, now)));
        for (node, backs) in backs.collect::<Vec<_>>() {
            backs.into_iter().for_each(|back| self.give_back(&node, back));
        }
    }

    /// The broker may be back any moment: what is said meanwhile waits for it.
    fn is_down_for_a_moment(&self, now: Instant) -> bool {
        self.down_since.is_some_and(|since| now.duration_since(since) < DOWN_TIME_MAX)
    }

    /// This node has a new id: whatever was under way is over.
    pub fn restart(&mut self, me: NodeId, now: Instant) {
        self.me = me.clone();
        self.epoch += 1;
        self.due.ready.clear();
        let peers: Vec<_> = self.peers.drain().collect();
        peers.into_iter().for_each(|(node, link)| self.end(node, link, now));
        self.events.push(ClusterEvent::Renamed(me));
    }

    /// Takes over which nodes live, with their versions, and which are known to be dead; ends the links to
    /// the latter.
    pub fn know(&mut self, living: BTreeMap<NodeId, u8>, dead: Vec<NodeId>, now: Instant) {
        self.versions = living;
        self.dead = dead.into_iter().collect();
        for (node, link) in self.peers.iter_mut() {
            link.version = version(&self.versions, node);
        }
        let peers = self.peers.iter_mut().map(|(node, _)| node);
        for node in peers.filter(|node| self.dead.contains(*node)).cloned().collect::<Vec<_>>() {
            let link = self.peers.remove(node.as_str()).expect("it was found");
            self.end(node, link, now);
        }
    }

    /// Nodes that have been talked with for so long that they must be in the table by now.
    pub fn strangers(&mut self, now: Instant) -> Vec<NodeId> {
        let versions = &self.versions;
        let is_old = |link: &mut Link| now.duration_since(link.since) >= STRANGER_TIME_MAX;
        let strangers = self.peers.iter_mut().filter(|(node, _)| !versions.contains_key(*node));
        strangers.filter_map(|(node, link)| is_old(link).then(|| node.clone())).collect()
    }

    fn end(&mut self, node: NodeId, link: Link, now: Instant) {
        let (backs, tickets) = link.end(now);
        backs.into_iter().for_each(|back| self.give_back(&node, back));
        self.events.push(ClusterEvent::Gone { node, tickets });
    }

    /// Tells the node what comes back: together with what came back just before for the same reason.
    fn give_back(&mut self, node: &NodeId, Back { tickets, casts, cause }: Back) {
        match self.events.last_mut() {
            Some(ClusterEvent::Returned(last)) if last.node == *node && last.cause == cause => {
                last.tickets.extend(tickets);
                last.casts += casts;
            }
            _ => self.events.push(ClusterEvent::Returned(Returned {
                node: node.clone(),
                tickets,
                casts,
                cause,
            })),
        }
    }
}

/// The link to a node; `None` when there are too many.
fn link<'a>(
    peers: &'a mut Recent<NodeId, Link>,
    versions: &BTreeMap<NodeId, u8>,
    node: &NodeId,
    now: Instant,
) -> Option<&'a mut Link> {
    if peers.len() >= LINKS_MAX && peers.get(node.as_str()).is_none() {
        return None;
    }
    Some(peers.get_or_insert_with(node, || Link::new(version(versions, node), now)))
}

/// The version that a node reads, as this one does.
fn version(versions: &BTreeMap<NodeId, u8>, node: &NodeId) -> u8 {
    versions.get(node).map_or(VERSION_MIN, |version| VERSION.min(*version))
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

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
