//! What a node knows of the others: their short names, where users are, and whose messages it has refused.
//!
//! *Peers*: a node that is gone keeps its short name for a while, for what was said to it before that was known comes
//! back under this name. Nothing more is said to it.
//!
//! *Locations*: where users were when presence was last asked, and where users of this node are too. A remembered
//! location costs a look into a map instead of a question to presence. It may be wrong: a node that does not have the
//! user says so, and the location is forgotten. What such a node can't notice is a *further* session elsewhere; so
//! whoever logs in tells the nodes where the user is already, and those tell the origins that still send to them. No
//! location is believed for more than a minute. That a user is nowhere is not remembered.
//!
//! *Refusals*: a user who left this node may be back before the origin knows that a message was refused. What the
//! origin sent behind that one is on its way; if it were taken, it would overtake the one that was refused. So it is
//! refused as well, until the origin says that a message is the first of those that go out again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::node::deadlines::ANSWER_TIME_MAX;
use crate::node::slab::{PeerId, Slab};
use crate::proto::name::{NodeId, UserName};
use crate::recent::Recent;

/// Gone nodes that keep their names; what comes back from an older one waits for its deadline.
pub const GONE_MAX: usize = 4_096;

#[derive(Default)]
pub struct Peers {
    peers: Slab<'p', KnownNode>,
    by_id: Recent<NodeId, PeerId>,
    /// In the order in which they went.
    gone: VecDeque<PeerId>,
}

struct KnownNode {
    id: NodeId,
    is_gone: bool,
}

impl Peers {
    /// The short name of a node.
    pub fn name(&mut self, node: &NodeId) -> PeerId {
        if let Some(peer) = self.by_id.get_mut(node.as_str()) {
            return *peer;
        }
        let peer = self.peers.insert(KnownNode { id: node.clone(), is_gone: false });
        *self.by_id.get_or_insert_with(node, || peer)
    }

    /// The id of a node that is not gone.
    pub fn get(&self, peer: PeerId) -> Option<&NodeId> {
        self.peers.get(peer).filter(|peer| !peer.is_gone).map(|peer| &peer.id)
    }

    /// A node is gone.
    pub fn bury(&mut self, peer: PeerId) {
        let Some(its) = self.peers.get_mut(peer).filter(|peer| !peer.is_gone) else { return };
        its.is_gone = true;
        self.gone.push_back(peer);
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_front().and_then(|oldest| self.peers.remove(oldest))
        {
            self.by_id.remove(oldest.id.as_str());
        }
    }

    /// Those that were gone to this node by its last id may be reached by its next one.
    pub fn begin_anew(&mut self) {
        for peer in self.gone.drain(..) {
            self.peers.get_mut(peer).into_iter().for_each(|peer| peer.is_gone = false);
        }
    }
}

/// Users whose locations are remembered at most; then all are forgotten.
pub const REMEMBERED_MAX: usize = 65_536;

/// How long a location is believed.
const BELIEF_TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Locations {
    users: Recent<UserName, (Instant, Vec<PeerId>)>,
    /// Of users of this node: on which other nodes each is, and which origins were told.
    further: Recent<UserName, Further>,
}

#[derive(Default)]
struct Further {
    nodes: Vec<(PeerId, Vec<PeerId>)>,
    since: Option<Instant>,
}

impl Locations {
    /// On which other nodes a user is, if that is remembered. `is_here`: the user has a session on this node.
    /// "Nowhere else" is believed only then: who was nowhere else and has left may be anywhere by now, and
    /// nobody would tell this node.
    pub fn find(&mut self, user: &str, is_here: bool, now: Instant) -> Option<&[PeerId]> {
        let (since, nodes) = self.users.get_mut(user)?;
        let counts = is_here || !nodes.is_empty();
        (counts && now.duration_since(*since) < BELIEF_TIME_MAX).then_some(&nodes[..])
    }

    /// Presence has answered where a user is.
    pub fn set(&mut self, user: &UserName, nodes: &[PeerId], now: Instant) {
        if self.users.len() >= REMEMBERED_MAX && self.users.get(user.as_str()).is_none() {
            self.users = Recent::default();
        }
        let entry = self.users.get_or_insert_with(user, || (now, vec![]));
        (entry.0, entry.1) = (now, nodes.to_vec());
    }

    /// A user of whom something is remembered is on a further node.
    pub fn add(&mut self, user: &str, node: PeerId) {
        if let Some((_, nodes)) = self.users.get_mut(user)
            && !nodes.contains(&node)
        {
            nodes.push(node);
        }
    }

    /// A user is not on a node any more, but on others that are remembered.
    pub fn remove(&mut self, user: &str, node: PeerId) {
        let Some((_, nodes)) = self.users.get_mut(user) else { return };
        nodes.retain(|other| *other != node);
        if nodes.is_empty() {
            self.forget(user);
        }
    }

    /// What is remembered of a user is wrong.
    pub fn forget(&mut self, user: &str) {
        self.users.remove(user);
    }

    /// Everything may be wrong.
    pub fn forget_all(&mut self) {
        *self = Locations::default();
    }

    /// A user of this node is on another one, too. Origins that were told before are told again.
    pub fn heard_further(&mut self, user: &UserName, node: PeerId, now: Instant) {
        self.forget(user.as_str());
        if self.further.len() >= REMEMBERED_MAX && self.further.get(user.as_str()).is_none() {
            // Origins that remember these are corrected when their belief ends.
            self.further = Recent::default();
        }
        let further = self.further.get_or_insert_with(user, Further::default);
        further.since = Some(now);
        further.nodes.retain(|(other, _)| *other != node);
        further.nodes.push((node, vec![]));
    }

    /// On which further nodes a user of this node is, as far as `origin`, which sends to the user, was not told
    /// of it: from now on it was.
    pub fn news_to(&mut self, origin: PeerId, user: &str, now: Instant) -> Vec<PeerId> {
        // The usual case: nobody is on several nodes.
        if self.further.is_empty() {
            return vec![];
        }
        let Some(further) = self.further.get_mut(user) else { return vec![] };
        if further.since.is_none_or(|since| now.duration_since(since) >= BELIEF_TIME_MAX) {
            self.further.remove(user);
            return vec![];
        }
        let mut news = vec![];
        for (node, told) in &mut further.nodes {
            if !told.contains(&origin) {
                told.push(origin);
                news.push(*node);
            }
        }
        news
    }
}

/// Refusals that are remembered at most; with more, the oldest are forgotten, and messages may overtake.
pub const REFUSALS_MAX: usize = 65_536;

/// The refusals of one node, each for as long as a message may take: no origin waits for longer.
#[derive(Default)]
pub struct Refusals {
    newer: HashMap<(PeerId, UserName), Instant>,
    older: HashMap<(PeerId, UserName), Instant>,
    /// When the newer ones began.
    since: Option<Instant>,
}

impl Refusals {
    /// A message of `origin` to `user` was refused.
    pub fn insert(&mut self, origin: PeerId, user: &UserName, now: Instant) {
        let is_over = self.since.is_none_or(|since| now.duration_since(since) >= ANSWER_TIME_MAX);
        if is_over || self.newer.len() >= REFUSALS_MAX / 2 {
            (self.older, self.since) = (std::mem::take(&mut self.newer), Some(now));
        }
        self.newer.insert((origin, user.clone()), now);
    }

    /// Tells whether a message of `origin` would overtake one that was refused.
    pub fn contains(&self, origin: PeerId, user: &UserName, now: Instant) -> bool {
        if self.newer.is_empty() && self.older.is_empty() {
            // The usual case: nobody moves.
            return false;
        }
        let key = (origin, user.clone());
        let since = self.newer.get(&key).or_else(|| self.older.get(&key));
        since.is_some_and(|since| now.duration_since(*since) < ANSWER_TIME_MAX)
    }

    /// What comes from the origin now is in order.
    pub fn remove(&mut self, origin: PeerId, user: &UserName) {
        if !self.newer.is_empty() || !self.older.is_empty() {
            let key = (origin, user.clone());
            self.newer.remove(&key);
            self.older.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).expect("valid")
    }

    fn peer(number: u64) -> PeerId {
        PeerId::from_number(number)
    }

    #[test]
    fn locations_are_believed_for_a_while_and_forgotten() {
        let now = Instant::now();
        let mut locations = Locations::default();
        locations.set(&user("bob"), &[peer(1), peer(2)], now);
        locations.add("bob", peer(3));
        locations.add("carol", peer(3));
        locations.remove("bob", peer(1));
        assert_eq!(locations.find("bob", false, now), Some(&[peer(2), peer(3)][..]));
        assert_eq!(locations.find("bob", false, now + BELIEF_TIME_MAX), None);
        assert_eq!(locations.find("carol", false, now), None);
        locations.remove("bob", peer(2));
        locations.remove("bob", peer(3));
        assert_eq!(locations.find("bob", true, now), None);
        locations.set(&user("bob"), &[], now);
        assert_eq!(locations.find("bob", false, now), None, "nobody would tell");
        assert_eq!(locations.find("bob", true, now), Some(&[][..]));
    }

    #[test]
    fn every_origin_is_told_once_of_every_further_node() {
        let now = Instant::now();
        let mut locations = Locations::default();
        assert!(locations.news_to(peer(1), "bob", now).is_empty());
        locations.heard_further(&user("bob"), peer(11), now);
        assert_eq!(locations.news_to(peer(1), "bob", now), [peer(11)]);
        assert!(locations.news_to(peer(1), "bob", now).is_empty());
        locations.heard_further(&user("bob"), peer(12), now);
        assert_eq!(locations.news_to(peer(1), "bob", now), [peer(12)]);
        assert_eq!(locations.news_to(peer(2), "bob", now), [peer(11), peer(12)]);
        locations.heard_further(&user("bob"), peer(11), now);
        assert_eq!(locations.news_to(peer(1), "bob", now), [peer(11)], "it came anew");
        assert!(locations.news_to(peer(3), "bob", now + BELIEF_TIME_MAX).is_empty());
        assert!(locations.further.is_empty());
    }

    #[test]
    fn the_memory_of_locations_is_bounded() {
        let now = Instant::now();
        let mut locations = Locations::default();
        for n in 0..=REMEMBERED_MAX {
            locations.set(&user(&format!("user{n}")), &[peer(1)], now);
            locations.heard_further(&user(&format!("other{n}")), peer(11), now);
            assert!(locations.users.len() <= REMEMBERED_MAX && locations.further.len() <= REMEMBERED_MAX);
        }
        assert_eq!(locations.users.len(), 1);
    }

    #[test]
    fn a_gone_node_keeps_its_name_for_a_while() {
        let node = |number: usize| NodeId::new("n", &format!("{number:08}")).expect("valid");
        let mut peers = Peers::default();
        let first = peers.name(&node(0));
        assert_eq!((peers.name(&node(0)), peers.get(first)), (first, Some(&node(0))));
        peers.bury(first);
        peers.bury(first);
        assert_eq!((peers.name(&node(0)), peers.get(first)), (first, None));
        peers.begin_anew();
        assert_eq!(peers.get(first), Some(&node(0)));
        for number in 0..=GONE_MAX {
            let peer = peers.name(&node(number));
            peers.bury(peer);
        }
        assert_eq!((peers.peers.len(), peers.gone.len()), (GONE_MAX, GONE_MAX));
        assert_ne!(peers.name(&node(0)), first, "it is forgotten");
    }

    #[test]
    fn an_origin_is_refused_until_its_next_first_or_for_as_long_as_a_message_takes() {
        let (now, a, b, bob) = (Instant::now(), peer(1), peer(2), user("bob"));
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        refusals.insert(a, &bob, now);
        refusals.insert(a, &bob, at(5));
        assert!(refusals.contains(a, &bob, at(5)) && !refusals.contains(b, &bob, at(5)));
        refusals.insert(b, &user("carol"), at(11));
        assert!(refusals.contains(a, &bob, at(14)), "it came anew");
        assert!(!refusals.contains(a, &bob, at(15)));
        assert!(refusals.contains(b, &user("carol"), at(15)));
        refusals.insert(a, &bob, at(22));
        refusals.insert(a, &bob, at(23));
        refusals.insert(b, &bob, at(33));
        refusals.remove(a, &bob);
        assert!(!refusals.contains(a, &bob, at(23)) && refusals.contains(b, &bob, at(33)));
    }

    #[test]
    fn the_memory_of_refusals_is_bounded() {
        let (now, a) = (Instant::now(), peer(1));
        let mut refusals = Refusals::default();
        for n in 0..=REFUSALS_MAX {
            refusals.insert(a, &user(&format!("user{n}")), now);
            assert!(refusals.newer.len() + refusals.older.len() <= REFUSALS_MAX);
        }
        assert!(!refusals.contains(a, &user("user9"), now));
        assert!(refusals.contains(a, &user(&format!("user{}", REFUSALS_MAX / 2)), now));
    }
}
