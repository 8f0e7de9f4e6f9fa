//! What comes up from a cluster, to whoever drives the node.

use crate::node::seam::{Answer, Ask, Cause, Location, News, Returned, Stored, Unavailable, What};
use crate::node::slab::Ticket;
use crate::proto::name::{NodeId, SessionId};

/// What other nodes, or the services between them, tell this one.
#[derive(Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// The answer to an [`Ask`].
    Answered(Ticket, Answer),
    /// What presence tells without being asked.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "a mesh has none"))]
    News(News),
    /// Messages could not be carried.
    Returned(Returned),
    /// So many messages were published, and nobody ever heard of them: their senders were told `ERR timeout`.
    Unheard(u64),
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

/// The answer to an ask that can't be answered, unless it is done later.
pub fn unavailable(ask: &Ask) -> Option<Answer> {
    match &ask.what {
        What::Locate(_) => Some(Answer::Located(Err(Unavailable))),
        What::Register(_) => Some(Answer::Registered(Err(Unavailable))),
        What::Store(messages) => Some(Answer::Stored(vec![Stored::No; messages.len()], Err(Unavailable))),
        What::Read(..) => Some(Answer::Read(Err(Unavailable))),
        What::Unregister(_) | What::Remove(..) | What::Take(..) | What::Release(_) => None,
    }
}

/// Sessions by node, in their order.
pub fn locations<'a>(sessions: impl Iterator<Item = (&'a NodeId, SessionId)>) -> Vec<Location> {
    let mut locations: Vec<Location> = vec![];
    for (node, session) in sessions {
        match locations.iter_mut().find(|location| location.node == *node) {
            Some(location) => location.sessions.push(session),
            None => locations.push(Location { node: node.clone(), sessions: vec![session] }),
        }
    }
    locations
}

/// Tells the node what comes back: together with what came back just before for the same reason.
pub fn give_back(events: &mut Vec<ClusterEvent>, node: &NodeId, tickets: Vec<u64>, casts: u64, cause: Cause) {
    match events.last_mut() {
        _ if tickets.is_empty() && casts == 0 => {}
        Some(ClusterEvent::Returned(last)) if last.node == *node && last.cause == cause => {
            last.tickets.extend(tickets);
            last.casts += casts;
        }
        _ => {
            let returned = Returned { node: node.clone(), tickets, casts, cause };
            events.push(ClusterEvent::Returned(returned));
        }
    }
}
