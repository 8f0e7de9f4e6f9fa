//! The lanes of one node, by their recipients, and the bounds on what is in them.
//!
//! 64 KiB a lane, but one longer message enters an empty lane; 32 MiB to one node; 64 MiB in all. A sender may have an
//! eighth of what is free of these two, so that many who take all they can leave the next one as much as each has;
//! and one message in any case. Whoever finds a lane full is woken when half of it is done, whoever has its share
//! when one of its own is.

use crate::node::lane::Lane;
use crate::node::slab::{ConnectionId, LaneId, PeerId, Slab, Ticket};
use crate::proto::name::UserName;
use crate::recent::Recent;

/// Bytes that may be in flight to one user on other nodes.
pub const LANE_BYTES_MAX: usize = 64 * 1024;

/// Bytes in flight to one node.
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

/// What a connection waits for before it is read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Half of the outbox of another one.
    Outbox(ConnectionId),
    /// Half of a lane.
    Lane(LaneId),
    /// The answer to something of its own: it has its share of what all have.
    Own,
}

/// One connection may have this part of what is free: those who take all that they may have equal shares in the end,
/// and leave the next one as much.
pub const SHARES: usize = 8;

/// What one connection may have of what all have, with so much in use.
pub fn share(all: usize, used: usize) -> usize {
    all.saturating_sub(used) / SHARES
}

#[derive(Default)]
pub struct Lanes {
    lanes: Slab<'l', UserLane>,
    by_user: Recent<UserName, LaneId>,
    bytes: usize,
    /// The shares of nodes that have any.
    by_node: Vec<(PeerId, usize)>,
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

    /// What a message of so many bytes in its body has to wait for, given what its sender has in lanes and the node
    /// that it goes to.
    pub fn lack(
        &self,
        lane: Option<LaneId>,
        body: usize,
        sender_bytes: u32,
        node: Option<PeerId>,
    ) -> Option<Lack> {
        let (bytes, sender_bytes) = (body + MESSAGE_BYTES, sender_bytes as usize);
        let full = lane.filter(|lane| {
            let in_lane = self.lanes.get(*lane).map_or(0, |lane| lane.bytes);
            in_lane > 0 && in_lane + bytes > LANE_BYTES_MAX
        });
        let of_node =
            self.by_node.iter().find(|(other, _)| Some(*other) == node).map_or(0, |(_, bytes)| *bytes);
        let share = share(NODE_BYTES_MAX, of_node).min(share(ALL_BYTES_MAX, self.bytes));
        let has_share = sender_bytes == 0 || sender_bytes + bytes <= share;
        full.map(Lack::Lane).or((!has_share).then_some(Lack::Own))
    }

    /// A connection waits for room in a lane.
    pub fn wait(&mut self, lane: LaneId, connection: ConnectionId) {
        self.lanes.get_mut(lane).into_iter().for_each(|lane| lane.waiting.push(connection));
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
        woken
    }

    pub fn len(&self) -> usize {
        self.lanes.len()
    }
}
