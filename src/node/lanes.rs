//! The lanes of one node, by their recipients, and the bounds on what is in them.
//!
//! 64 KiB a lane, but one longer message enters an empty lane; 4 MiB of one sender; 32 MiB to one node; 64 MiB in
//! all. Whoever finds no room waits, and is woken when half is done.

use crate::node::lane::Lane;
use crate::node::slab::{ConnectionId, LaneId, PeerId, Slab, Ticket};
use crate::proto::name::UserName;
use crate::recent::Recent;

/// Bytes that may be in flight to one user on other nodes.
pub const LANE_BYTES_MAX: usize = 64 * 1024;

/// The share of one sender.
pub const SENDER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The share of one node.
pub const NODE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes in all lanes together.
pub const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a message costs beside its body, about.
const MESSAGE_BYTES: usize = 160;

/// What is kept for a message in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who waits for its fate.
    pub ticket: Ticket,
    /// The message, as the body of an item.
    pub body: Vec<u8>,
    /// The node on whose share it is.
    pub node: Option<PeerId>,
}

/// The lane of one recipient.
pub struct UserLane {
    pub user: UserName,
    pub lane: Lane<Kept>,
    bytes: usize,
    waiting: Vec<ConnectionId>,
}

#[derive(Default)]
pub struct Lanes {
    lanes: Slab<'l', UserLane>,
    by_user: Recent<UserName, LaneId>,
    bytes: usize,
    /// The shares of nodes that have any.
    by_node: Vec<(PeerId, usize)>,
    /// Whoever waits for a share, or for all.
    waiting: Vec<ConnectionId>,
    /// Lanes that were forgotten: the next ones use their memory.
    spares: Vec<Lane<Kept>>,
}

const SPARES_MAX: usize = 64;

impl Kept {
    pub fn bytes(&self) -> usize {
        self.body.len() + MESSAGE_BYTES
    }
}

impl Lanes {
    /// The lane of a user, if there is one.
    pub fn find(&mut self, user: &str) -> Option<LaneId> {
        if self.lanes.is_empty() { None } else { self.by_user.get_mut(user).copied() }
    }

    /// The lane of a user. `can_store`: there are mailboxes.
    pub fn open(&mut self, user: &UserName, can_store: bool) -> LaneId {
        let (lanes, spares) = (&mut self.lanes, &mut self.spares);
        *self.by_user.get_or_insert_with(user, || {
            let lane = spares.pop().unwrap_or_else(|| Lane::new(can_store));
            let user = user.clone();
            lanes.insert(UserLane { user, lane, bytes: 0, waiting: vec![] })
        })
    }

    pub fn get(&mut self, id: LaneId) -> Option<&mut UserLane> {
        self.lanes.get_mut(id)
    }

    /// Forgets a lane that is empty.
    fn end(&mut self, id: LaneId) {
        let Some(UserLane { user, mut lane, .. }) = self.lanes.remove(id) else { return };
        self.by_user.remove(user.as_str());
        if self.spares.len() < SPARES_MAX {
            lane.renew();
            self.spares.push(lane);
        }
    }

    /// Tells whether a message of so many bytes in its body may enter a lane, given what its sender has in lanes
    /// and the node that it goes to.
    pub fn has_room(
        &self,
        lane: Option<LaneId>,
        body: usize,
        sender_bytes: u32,
        node: Option<PeerId>,
    ) -> bool {
        let bytes = body + MESSAGE_BYTES;
        let in_lane = lane.and_then(|lane| self.lanes.get(lane)).map_or(0, |lane| lane.bytes);
        let of_node =
            self.by_node.iter().find(|(other, _)| Some(*other) == node).map_or(0, |(_, bytes)| *bytes);
        (in_lane == 0 || in_lane + bytes <= LANE_BYTES_MAX)
            && (sender_bytes == 0 || sender_bytes as usize + bytes <= SENDER_BYTES_MAX)
            && of_node + bytes <= NODE_BYTES_MAX
            && self.bytes + bytes <= ALL_BYTES_MAX
    }

    /// A connection waits for room in a lane, or in all.
    pub fn wait(&mut self, lane: Option<LaneId>, connection: ConnectionId) {
        let lane =
            lane.and_then(|lane| self.lanes.get_mut(lane)).filter(|lane| lane.bytes > LANE_BYTES_MAX / 2);
        let waiting = lane.map_or(&mut self.waiting, |lane| &mut lane.waiting);
        if !waiting.contains(&connection) {
            waiting.push(connection);
        }
    }

    /// A message enters a lane.
    pub fn claim(&mut self, lane: LaneId, kept: &Kept) {
        let bytes = kept.bytes();
        self.bytes += bytes;
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.bytes += bytes;
        }
        if let Some(node) = kept.node {
            match self.by_node.iter_mut().find(|(other, _)| *other == node) {
                Some((_, of_node)) => *of_node += bytes,
                None => self.by_node.push((node, bytes)),
            }
        }
    }

    /// A message has left a lane, which is forgotten if it was the last: gives those who need not wait any more.
    pub fn release(&mut self, lane_id: LaneId, kept: &Kept) -> Vec<ConnectionId> {
        let bytes = kept.bytes();
        self.bytes -= bytes;
        let mut woken = vec![];
        if let Some(lane) = self.lanes.get_mut(lane_id) {
            lane.bytes -= bytes;
            if lane.bytes <= LANE_BYTES_MAX / 2 {
                woken.append(&mut lane.waiting);
            }
            if lane.bytes == 0 {
                self.end(lane_id);
            }
        }
        if let Some(node) = kept.node
            && let Some(at) = self.by_node.iter().position(|(other, _)| *other == node)
        {
            self.by_node[at].1 -= bytes;
            if self.by_node[at].1 == 0 {
                self.by_node.swap_remove(at);
            }
        }
        let are_half_empty = || self.by_node.iter().all(|(_, bytes)| *bytes <= NODE_BYTES_MAX / 2);
        if !self.waiting.is_empty() && self.bytes <= ALL_BYTES_MAX / 2 && are_half_empty() {
            woken.append(&mut self.waiting);
        }
        woken
    }

    pub fn len(&self) -> usize {
        self.lanes.len()
    }
}
