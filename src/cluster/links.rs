//! The links of one node to all others.
//!
//! What the node says lands here, composed, and waits for whoever publishes; what comes
//! is checked here: a batch is read whole, the links count it and find the tickets that its
//! receipts are for, and then the node is given what it says, while the links are not held.
//! Numbers that go up to the node carry the epoch, a count of this node's
//! incarnations: a receipt for a message that came to an incarnation before is nobody's
//! business any more.

use std::collections::{BTreeMap, HashSet};
use std::sync::Once;
use std::time::{Duration, Instant};

use log::warn;

use crate::cluster::event::{ClusterEvent, give_back};
use crate::cluster::link::Link;
use crate::node::out::Say;
use crate::node::seam::{Cause, Said};
use crate::proto::name::NodeId;
use crate::proto::wire::{BadBatch, Head, Item, VERSION, VERSION_MIN};
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

/// A batch from another node that makes sense.
pub struct Unpacked<'a> {
    head: Head,
    items: Vec<Item<'a>>,
    /// The tickets of all receipts in it, and of all that it takes longer for, in order.
    tickets: Vec<u64>,
    /// What the node knows its first message by.
    number: u64,
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
    pub fn say(&mut self, node: &NodeId, mut say: Say<&[u8]>, now: Instant) {
        let mut message = None;
        match &mut say {
            Say::Message { ticket, .. } => message = Some(*ticket),
            Say::Receipt(number, _) | Say::Waits(number) => {
                // Only what came on a link of this incarnation has a number on it.
                if *number >> EPOCH_SHIFT != self.epoch & (u64::MAX >> EPOCH_SHIFT) {
                    return;
                }
                *number &= (1 << EPOCH_SHIFT) - 1;
            }
            Say::Item(_) => {}
        }
        let is_up = self.is_up || self.is_down_for_a_moment(now);
        let cause = if self.peers.get(node.as_str()).is_none() && self.dead.contains(node) {
            Cause::Dead
        } else if message.is_some() && !is_up {
            Cause::CutOff
        } else {
            if let Some(link) = link(&mut self.peers, node, now)
                && link.say(say, now)
            {
                return self.due.note(link, now);
            }
            Cause::CutOff
        };
        if let Some(ticket) = message {
            let casts = u64::from(ticket.is_none());
            give_back(&mut self.events, node, ticket.into_iter().collect(), casts, cause);
        }
    }

    /// Puts the next batch to publish into `batch`, and tells for whom it is.
    pub fn next(&mut self, now: Instant, batch: &mut Vec<u8>) -> Option<NodeId> {
        while let Some(node) = self.due.ready.last().filter(|_| self.is_up) {
            if let Some(link) = self.peers.get_mut(node.as_str()) {
                let version = self.versions.get(node).map_or(VERSION_MIN, |version| VERSION.min(*version));
                if link.next(&self.me, version, now, batch) {
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

    /// Takes in a batch that came to the incarnation `epoch` of this node. Of one that is not the next on
    /// its link nothing is left.
    pub fn hear(&mut self, epoch: u64, batch: &mut Unpacked<'_>, now: Instant) {
        let Unpacked { head, items, tickets, number } = batch;
        // One to an incarnation before this counts on another link, and its messages went elsewhere. A
        // node that is dead was cut off and does not know yet: nobody waits for what it says.
        if epoch != self.epoch || self.dead.contains(&head.from) {
            return items.clear();
        }
        let Some(link) = link(&mut self.peers, &head.from, now) else { return items.clear() };
        let is_next = link.hear(head, now);
        link.way.tell(&link.node, self.versions.contains_key(&link.node));
        self.due.note(link, now);
        if !is_next {
            return items.clear();
        }
        *number = self.epoch << EPOCH_SHIFT | head.first;
        for item in items {
            let before = tickets.len();
            let count = match item {
                Item::Receipts { first, count, .. } => {
                    link.settle(*first, *count, tickets);
                    count
                }
                Item::Waits { first, count } => {
                    link.open(*first, *count, tickets);
                    count
                }
                _ => continue,
            };
            // From here on it is that of the tickets that were found.
            *count = (tickets.len() - before) as u64;
        }
    }

    /// A batch came back because its node has no queue.
    pub fn returned(&mut self, node: &NodeId, batch: &[u8], now: Instant) {
        // One of an incarnation before this is forgotten already.
        let Some((head, _)) = Head::parse(batch).filter(|(head, _)| head.from == self.me) else { return };
        if let Some(link) = self.peers.get_mut(node.as_str()) {
            link.returned(head.number, now, &mut self.events);
            link.way.tell(&link.node, self.versions.contains_key(&link.node));
        }
    }

    /// Time passes. Returns whether anything is under way, so that it should pass again soon.
    pub fn tick(&mut self, now: Instant) -> bool {
        let mut is_active = false;
        for (_, link) in self.peers.iter_mut().filter(|(_, link)| !link.is_quiet()) {
            is_active |= link.is_active();
            link.tick(now, &mut self.events);
            link.way.tell(&link.node, self.versions.contains_key(&link.node));
            if !link.is_ready && link.is_due(now) {
                link.is_ready = true;
                self.due.ready.push(link.node.clone());
            }
        }
        (self.due.is_idle, self.due.wakes) = (!is_active, false);
        is_active
    }

    /// Batches can be published, from now on or no more. Returns for how long they could not.
    pub fn set_up(&mut self, is_up: bool, now: Instant) -> Duration {
        let was_down = self.down_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        if is_up {
            self.down_since = None;
        } else if self.down_since.is_none() {
            self.down_since = Some(now);
            self.peers.iter_mut().for_each(|(_, link)| link.lose());
        }
        self.is_up = is_up;
        was_down
    }

    /// Gives up what waits for a broker that is away for longer than a moment.
    pub fn give_up_waiting(&mut self, now: Instant) {
        if !self.is_up && !self.is_down_for_a_moment(now) {
            let peers = self.peers.iter_mut();
            peers.for_each(|(_, link)| link.give_up_waiting(Cause::CutOff, now, &mut self.events));
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
        self.peers.drain().for_each(|(_, link)| link.end(now, &mut self.events));
        self.events.push(ClusterEvent::Renamed(me));
    }

    /// Takes over which nodes live, with their versions, and which are known to be dead; ends the links to
    /// the latter.
    pub fn know(&mut self, living: BTreeMap<NodeId, u8>, dead: Vec<NodeId>, now: Instant) {
        self.versions = living;
        self.dead = dead.into_iter().collect();
        let nodes = self.peers.iter_mut().map(|(node, _)| node);
        let ended: Vec<NodeId> = nodes.filter(|node| self.dead.contains(*node)).cloned().collect();
        for node in ended {
            let link = self.peers.remove(node.as_str()).expect("it was found");
            link.end(now, &mut self.events);
        }
    }

    /// Nodes that have been talked with for so long that they must be in the table by now.
    pub fn strangers(&mut self, now: Instant) -> Vec<NodeId> {
        let is_old = |link: &Link| now.duration_since(link.since) >= STRANGER_TIME_MAX;
        let strangers = self.peers.iter_mut();
        let strangers = strangers.filter(|(node, link)| !self.versions.contains_key(*node) && is_old(link));
        strangers.map(|(node, _)| node.clone()).collect()
    }
}

/// The link to a node; `None` when there are too many.
fn link<'a>(peers: &'a mut Recent<NodeId, Link>, node: &NodeId, now: Instant) -> Option<&'a mut Link> {
    if peers.len() >= LINKS_MAX && peers.get(node.as_str()).is_none() {
        return None;
    }
    Some(peers.get_or_insert_with(node, || Link::new(node.clone(), now)))
}

impl Due {
    fn note(&mut self, link: &mut Link, now: Instant) {
        if !link.is_ready && link.is_due(now) {
            link.is_ready = true;
            self.ready.push(link.node.clone());
        } else if self.is_idle && link.is_active() {
            self.wakes = true;
        }
    }
}

impl<'a> Unpacked<'a> {
    /// Reads a batch; `None` when it makes no sense.
    pub fn read(batch: &'a [u8]) -> Option<Self> {
        static PUZZLED: Once = Once::new();
        let read = Head::parse(batch).and_then(|(head, items)| {
            let items = items.collect::<Result<Vec<_>, BadBatch>>().ok()?;
            Some(Unpacked { head, items, tickets: vec![], number: 0 })
        });
        if read.is_none() {
            let count = batch.len();
            PUZZLED.call_once(|| {
                warn!("a batch of {count} bytes makes no sense, and is dropped; so are others like it");
            });
        }
        read
    }

    /// Gives what the batch says, in order.
    pub fn give(self, take: &mut dyn FnMut(&NodeId, Said<'_>)) {
        let Unpacked { head, items, tickets, mut number } = self;
        let mut rest = &tickets[..];
        let mut next = |count: u64| rest.split_off(..count as usize).expect("they were counted");
        for item in items {
            let said = match item {
                Item::Message(message) => {
                    let number_of_this = message.asks.then_some(number);
                    number += u64::from(message.asks);
                    Said::Message(number_of_this, message)
                }
                Item::Receipts { count: 0, .. } | Item::Waits { count: 0, .. } => continue,
                Item::Receipts { receipt, count, .. } => Said::Receipts(receipt, next(count)),
                Item::Waits { count, .. } => Said::Waits(next(count)),
                item => Said::Other(item),
            };
            take(&head.from, said);
        }
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
