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
//! time of a lease to renew (the hold).
//!
//! Whoever came back under a new id is busy writing its sessions again. While anybody is,
//! that presence knows nothing of a user proves nothing (the doubt).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
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
    /// Redis's clock.
    pub clock: Clock,
    /// The latest time that was told.
    last_us: i64,
}

impl Nodes {
    /// Takes in the script's answer to what was asked and answered at these times, by this machine's clock.
    /// Tells whether the table has changed; `None` when this node is not in it, or it is older than what
    /// this node knows.
    pub fn renewed(&mut self, answer: Option<Lease>, asked_us: i64, answered_us: i64) -> Option<bool> {
        let Lease { now_us, version, in_doubt, living } = answer?;
        self.clock.learn(now_us, asked_us, answered_us);
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

    /// The time by Redis's clock, in us: later logins have later times on every node, and no two of one
    /// node have the same.
    pub fn now_us(&mut self, our_us: i64) -> i64 {
        self.last_us = (our_us + self.clock.offset_us()).max(self.last_us + 1);
        self.last_us
    }
}

/// What is known of Redis's clock. Each answer says that Redis's time was read between the
/// question and the answer; what all answers say together is much closer than that.
#[derive(Debug, Default)]
pub struct Clock {
    /// Redis's clock less ours is at least and at most this, in us.
    between: Option<(i64, i64)>,
}

/// A clock that is known to within this, in us, is known well.
const CLOSE_US: i64 = 1_000;

/// What can be a time: up to the year 9999. Redis is asked, not trusted.
const TIMES_US: Range<i64> = 0..253_402_300_800 * 1_000_000;

/// How much two clocks may drift apart between two answers, in us: 100 ppm of a second.
const DRIFT_US: i64 = 100;

impl Clock {
    /// Takes in the time of Redis, which was asked and answered at these times.
    pub fn learn(&mut self, redis_us: i64, asked_us: i64, answered_us: i64) {
        if !TIMES_US.contains(&redis_us) {
            return;
        }
        let new = (redis_us - answered_us, redis_us - asked_us);
        let old = self.between.map_or(new, |(least, most)| (least - DRIFT_US, most + DRIFT_US));
        let both = (old.0.max(new.0), old.1.min(new.1));
        // If they contradict each other, a clock was set, or it is another Redis.
        self.between = Some(if both.0 <= both.1 { both } else { new });
    }

    /// Tells whether it is known well: of logins on two nodes that follow each other at once, the later one
    /// has the later time.
    pub fn is_close(&self) -> bool {
        self.between.is_some_and(|(least, most)| most - least <= CLOSE_US)
    }

    fn offset_us(&self) -> i64 {
        self.between.map_or(0, |(least, most)| least + (most - least) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_answers_do_not_spoil_what_quick_ones_told() {
        let mut clock = Clock::default();
        // Redis is 1,000,000 us ahead.
        clock.learn(1_000_050, 0, 100);
        assert_eq!(clock.offset_us(), 1_000_000);
        for n in 1..5 {
            let asked = n * 1_000_000;
            // Redis was quick, the answer slow: alone it would say 40 ms less.
            clock.learn(asked + 1_000_050, asked, asked + 80_000);
            let error = clock.offset_us() - 1_000_000;
            assert!(error.abs() <= n * DRIFT_US, "{error}");
        }
        // Another Redis, one second behind.
        clock.learn(8_000_050, 9_000_000, 9_000_100);
        assert_eq!(clock.offset_us(), -1_000_000);
    }

    #[test]
    fn what_can_be_no_time_is_not_believed() {
        let mut nodes = Nodes::default();
        for us in [i64::MIN, -1, TIMES_US.end, i64::MAX] {
            nodes.clock.learn(us, 0, 1);
            nodes.renewed(held(us, "1", None), 0, 1);
            assert_eq!(nodes.clock.between, None, "{us}");
        }
        nodes.clock.learn(1_800_000_000_000_000, 0, 1);
        assert!(nodes.clock.is_close());
        nodes.clock.learn(1_900_000_000_000_000, 0, 9_999);
        assert!(!nodes.clock.is_close());
    }

    #[test]
    fn later_logins_have_later_times() {
        let mut nodes = Nodes::default();
        let mut last = nodes.now_us(0);
        for n in 0..1_000 {
            nodes.clock.between = Some((-n, -n));
            let now = nodes.now_us(n / 3);
            assert!(now > last);
            last = now;
        }
    }

    fn node(id: &str) -> NodeId {
        NodeId::parse(id).expect("valid")
    }

    fn held(now_us: i64, version: &str, living: Option<&[&str]>) -> Option<Lease> {
        let living = living.map(|living| living.iter().map(|id| (node(id), 5)).collect());
        Some(Lease { now_us, version: version.to_owned(), in_doubt: false, living })
    }

    #[test]
    fn a_node_that_was_dead_and_lives_makes_this_one_begin_anew() {
        let table = |version, nodes: &[&str]| held(1, version, Some(nodes));
        let (changed, other) = (Some(true), node("b-1"));
        let mut nodes = Nodes::default();
        assert_eq!(nodes.renewed(table("1", &["a-1", "b-1"]), 0, 0), changed);
        assert_eq!(nodes.renewed(held(1, "1", None), 0, 0), Some(false));
        assert!(nodes.is_living(&other) && !nodes.is_dead(&other));
        assert_eq!(nodes.renewed(table("2", &["a-1"]), 0, 0), changed);
        assert!(nodes.is_dead(&other) && !nodes.is_living(&other));
        assert_eq!(nodes.renewed(table("1", &["a-1", "b-1"]), 0, 0), None);
        assert_eq!(nodes.renewed(table("3", &["a-2", "b-1"]), 0, 0), changed);
        assert!(nodes.is_living(&other) && !nodes.is_dead(&other) && nodes.is_dead(&node("a-1")));
        assert_eq!(nodes.renewed(None, 0, 0), None);
    }
}
