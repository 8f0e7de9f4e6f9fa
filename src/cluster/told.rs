//! What presence tells whoever drives it.

use std::collections::BTreeMap;

use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::node::seam::News;
use crate::node::seam::Stored;
use crate::node::seam::Unavailable;
use crate::proto::name::NodeId;

/// One thing that it tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer to an ask.
    Answer(Answer),
    /// For the node.
    News(News),
    /// Redis can be asked from now on, or no more: then asks are answered at once.
    Up(bool),
    /// The nodes that live, with the version of the wire that each reads, and those known to be dead:
    /// for the links.
    Nodes {
        /// These live.
        living: BTreeMap<NodeId, u8>,
        /// These do not.
        dead: Vec<NodeId>,
    },
    /// The table was seen just now: who talks to this node for long and is not in it is a stranger.
    Renewed,
    /// This node goes on under a new id.
    Renamed(NodeId),
    /// Others know of this node.
    Joined,
    /// For whoever watches the node.
    Warning(String),
}

/// The answer to an ask that can't be answered, unless it is done later.
pub fn unavailable(ask: &Ask) -> Option<Answer> {
    let answer = match ask {
        Ask::Locate { token, .. } => Answer::Located { token: *token, locations: Err(Unavailable) },
        Ask::Register { token, .. } => Answer::Registered { token: *token, welcome: Err(Unavailable) },
        Ask::Store { token, messages, .. } => {
            let fates = messages.iter().map(|_| Stored::No).collect();
            Answer::Stored { token: *token, fates, locations: Err(Unavailable) }
        }
        Ask::Read { token, .. } => Answer::Read { token: *token, mail: Err(Unavailable) },
        Ask::Unregister { .. } | Ask::Remove { .. } | Ask::Take { .. } | Ask::Release { .. } => return None,
    };
    Some(answer)
}
