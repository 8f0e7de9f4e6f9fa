//! Leases: which nodes are alive, as far as this node knows.
//!
//! One sorted set in Redis holds all nodes, with the version of the wire that each reads,
//! and when their leases end, by Redis's own clock. Each node renews its lease once a second
//! by one small script, which also removes nodes whose lease has run out, and hands out the
//! table when it has changed since the caller last saw it. The cost is O(nodes).
//!
//! A node is dead when it was removed, not when a clock says so, and it never lives again:
//! whoever is told that it is not in the table takes a new id. If even the freshest lease
//! has run out, it was Redis that was away, and nobody is removed until everybody had the
//! time of a lease to renew (the hold). A clock that was set back leaves no lease that is longer than a new one.
//!
//! Whoever came back under a new id is busy writing its sessions again. While anybody is,
//! that presence knows nothing of a user proves nothing (the doubt).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cluster::command::Lease;
use crate::proto::name::NodeId;

/// How long a lease lasts.
pub const LEASE_TIME: Duration = Duration::from_secs(6);

/// How often it is renewed.
pub const RENEW_TIME: Duration = Duration::from_secs(1);

/// Dead nodes that are remembered as such; of others it has to be asked.
const DEAD_MAX: usize = 4_096;

/// What this node knows of the nodes.
#[derive(Default)]
pub struct Nodes {
    /// The version of the table; empty for none.
    pub version: String,
    /// The nodes in it, and which version of the wire each reads.
    pub living: BTreeMap<NodeId, u8>,
    /// The latest that have left it.
    pub dead: VecDeque<NodeId>,
    /// Some node is busy writing its sessions again.
    pub in_doubt: bool,
}

impl Nodes {
    /// Takes in the script's answer. Tells whether the table has changed; `None` when this node is not in
    /// it, or it is older than what this node knows.
    pub fn renewed(&mut self, answer: Option<Lease>) -> Option<bool> {
        let Lease { version, in_doubt, living, .. } = answer?;
        self.in_doubt = in_doubt;
        let Some(living) = living else { return Some(false) };
        let living: BTreeMap<NodeId, u8> = living.into_iter().collect();
        let count = self.dead.len();
        self.dead.retain(|node| !living.contains_key(node));
        if self.dead.len() < count {
            // Redis has gone back in time. We have ended our link to a node that kept its end: only
            // under a new id do both begin anew.
            return None;
        }
        self.version = version;
        for node in std::mem::replace(&mut self.living, living).keys() {
            if !self.living.contains_key(node) {
                self.bury(node);
            }
        }
        Some(true)
    }

    /// Tells whether a node is in the table.
    pub fn is_living(&self, node: &NodeId) -> bool {
        self.living.contains_key(node)
    }

    /// Tells whether a node is known to be dead.
    pub fn is_dead(&self, node: &NodeId) -> bool {
        !self.is_living(node) && self.dead.contains(node)
    }

    /// Tells whether a node is neither living nor dead: it may have joined since the table was seen. Ask.
    pub fn is_unknown(&self, node: &NodeId) -> bool {
        !self.is_living(node) && !self.dead.contains(node)
    }

    /// A node is not in the table, and has been.
    pub fn bury(&mut self, node: &NodeId) {
        if self.dead.len() == DEAD_MAX {
            self.dead.pop_front();
        }
        self.dead.push_back(node.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::parse(id).expect("valid")
    }

    fn held(version: &str, living: Option<&[&str]>) -> Option<Lease> {
        let living = living.map(|living| living.iter().map(|id| (node(id), 5)).collect());
        Some(Lease { now_us: 0, was_misfit: false, version: version.to_owned(), in_doubt: false, living })
    }

    #[test]
    fn a_node_that_was_dead_and_lives_makes_this_one_begin_anew() {
        let table = |version, nodes: &[&str]| held(version, Some(nodes));
        let (changed, other) = (Some(true), node("b-1"));
        let mut nodes = Nodes::default();
        assert_eq!(nodes.renewed(table("1", &["a-1", "b-1"])), changed);
        assert_eq!(nodes.renewed(held("1", None)), Some(false));
        assert!(nodes.is_living(&other) && !nodes.is_dead(&other));
        assert_eq!(nodes.renewed(table("2", &["a-1"])), changed);
        assert!(nodes.is_dead(&other) && !nodes.is_living(&other));
        assert_eq!(nodes.renewed(table("1", &["a-1", "b-1"])), None);
        assert_eq!(nodes.renewed(table("3", &["a-2", "b-1"])), changed);
        assert!(nodes.is_living(&other) && !nodes.is_dead(&other) && nodes.is_dead(&node("a-1")));
        assert_eq!(nodes.renewed(None), None);
    }
}
