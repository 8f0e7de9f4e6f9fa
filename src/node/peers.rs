//! The other nodes that this one has heard of, by short names.
//!
//! A node that is gone keeps its short name for a while: what was said to it before that was known comes back
//! under this name. Nothing more is said to it.

use std::collections::VecDeque;

use crate::node::slab::PeerId;
use crate::node::slab::PeerKeys;
use crate::node::slab::Slab;
use crate::proto::name::NodeId;
use crate::recent::Recent;

/// Gone nodes that keep their names; what comes back from an older one waits for its deadline.
pub const GONE_MAX: usize = 4_096;

/// The other nodes.
#[derive(Default)]
pub struct Peers {
    peers: Slab<PeerKeys, Peer>,
    by_id: Recent<NodeId, PeerId>,
    /// In the order in which they went.
    gone: VecDeque<PeerId>,
}

struct Peer {
    id: NodeId,
    is_gone: bool,
}

impl Peers {
    /// The short name of a node.
    pub fn name(&mut self, node: &NodeId) -> PeerId {
        if let Some(peer) = self.by_id.get_mut(node.as_str()) {
            return *peer;
        }
        let peer = self.peers.insert(Peer { id: node.clone(), is_gone: false });
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
