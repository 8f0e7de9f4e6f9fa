//! Remembered locations: where users were when presence was last asked, and where users of this node are too.
//!
//! A remembered location costs a look into a map instead of a question to presence. It may be wrong: a node
//! that does not have the user says so, and the location is forgotten. What such a node can't notice is a
//! *further* session elsewhere; so whoever logs in tells the nodes where the user is already, and those tell the
//! origins that still send to them. No location is believed for more than a minute. That a user is nowhere is
//! not remembered.

use std::time::Duration;
use std::time::Instant;

use crate::node::slab::PeerId;
use crate::proto::name::NodeId;
use crate::proto::name::UserName;
use crate::recent::Recent;

/// Users whose locations are remembered at most; then all are forgotten.
pub const REMEMBERED_MAX: usize = 65_536;

/// How long a location is believed.
const BELIEF_TIME_MAX: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Default)]
pub struct Locations {
    users: Recent<UserName, (Instant, Vec<PeerId>)>,
    /// Of users of this node: on which other nodes each is, and which origins were told.
    further: Recent<UserName, Further>,
}

#[derive(Default)]
struct Further {
    nodes: Vec<(NodeId, Vec<PeerId>)>,
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
    pub fn heard_further(&mut self, user: &UserName, node: &NodeId, now: Instant) {
        self.forget(user.as_str());
        if self.further.len() >= REMEMBERED_MAX && self.further.get(user.as_str()).is_none() {
            // Origins that remember these are corrected when their belief ends.
            self.further = Recent::default();
        }
        let further = self.further.get_or_insert_with(user, Further::default);
        further.since = Some(now);
        further.nodes.retain(|(other, _)| other != node);
        further.nodes.push((node.clone(), vec![]));
    }

    /// On which further nodes a user of this node is, as far as `origin`, which sends to the user, was not told
    /// of it: from now on it was.
    pub fn news_to(&mut self, origin: PeerId, user: &str, now: Instant) -> Vec<NodeId> {
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
                news.push(node.clone());
            }
        }
        news
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
        let node = |name: &str| NodeId::parse(name).expect("valid");
        let mut locations = Locations::default();
        assert!(locations.news_to(peer(1), "bob", now).is_empty());
        locations.heard_further(&user("bob"), &node("b"), now);
        assert_eq!(locations.news_to(peer(1), "bob", now), [node("b")]);
        assert!(locations.news_to(peer(1), "bob", now).is_empty());
        locations.heard_further(&user("bob"), &node("c"), now);
        assert_eq!(locations.news_to(peer(1), "bob", now), [node("c")]);
        assert_eq!(locations.news_to(peer(2), "bob", now), [node("b"), node("c")]);
        locations.heard_further(&user("bob"), &node("b"), now);
        assert_eq!(locations.news_to(peer(1), "bob", now), [node("b")], "it came anew");
        assert!(locations.news_to(peer(3), "bob", now + BELIEF_TIME_MAX).is_empty());
        assert!(locations.further.is_empty());
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut locations = Locations::default();
        for n in 0..=REMEMBERED_MAX {
            locations.set(&user(&format!("user{n}")), &[peer(1)], now);
            locations.heard_further(&user(&format!("other{n}")), &NodeId::parse("b").expect("valid"), now);
            assert!(locations.users.len() <= REMEMBERED_MAX && locations.further.len() <= REMEMBERED_MAX);
        }
        assert_eq!(locations.users.len(), 1);
    }
}
