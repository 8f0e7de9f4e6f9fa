//! What comes up from a cluster, to whoever drives the node.

use crate::node::seam::Answer;
use crate::node::seam::News;
use crate::node::seam::Returned;
use crate::proto::name::NodeId;

/// What other nodes, or the services between them, tell this one.
#[derive(Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// The answer to an [`Ask`](crate::node::seam::Ask).
    Answered(Answer),
    /// What presence tells without being asked.
    News(News),
    /// Messages could not be carried.
    Returned(Returned),
    /// A node is dead, or this one has a new id: nothing that was said between them counts.
    Gone {
        /// The node.
        node: NodeId,
        /// The tickets of messages to it without a receipt, in order: it may have them.
        tickets: Vec<u64>,
    },
    /// This node has a new id: to all others it is another node.
    Renamed(NodeId),
    /// What another node says, as it came: [`Cluster::unpack`](crate::cluster::Cluster::unpack) reads it.
    Batch(Batch),
}

/// What another node says, as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// To which of this node's incarnations it came.
    pub epoch: u64,
    /// What it says.
    pub bytes: Vec<u8>,
}
