//! What a lane and its owner say to each other: who has a message, what to do, and a message's fate.

use crate::node::slab::PeerId;

/// A node that a lane's messages go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// This one: its own sessions of the recipient.
    Here,
    /// Another one.
    Node(PeerId),
}

impl Member {
    /// The other node that it is.
    pub fn peer(self) -> Option<PeerId> {
        match self {
            Member::Here => None,
            Member::Node(peer) => Some(peer),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act<M> {
    /// Give a message to a member. `is_first`: it is the first of this lane, or of those that go out again, and
    /// a member that refused earlier ones takes what follows.
    Give {
        /// Which message, by its number.
        number: u64,
        /// Whom to.
        to: Member,
        /// See above.
        is_first: bool,
    },
    /// Give a `CAST` to all of these; it is out of the lane.
    Cast(M, Vec<Member>),
    /// Ask where the recipient is; [`Lane::located`] takes the answer.
    Ask,
    /// Put these messages into the mailbox, in this order; [`Lane::stored`] takes the answer.
    Store(Vec<u64>),
    /// A message has its fate, and is out of the lane.
    End(M, End),
}

/// What to do, in order.
pub type Acts<M> = Vec<Act<M>>;

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A member delivered it.
    Delivered,
    /// It is in the mailbox.
    Stored,
    /// The recipient is nowhere: nobody was shown it.
    Offline,
    /// The mailbox is full: nobody was shown it.
    MailboxFull,
    /// It can't be known where the recipient is, or nobody can be reached: nobody was shown it.
    Unavailable,
    /// Somebody may have been shown it.
    Timeout,
    /// A `CAST` was given to nobody.
    Lost,
}

/// How a member that had a message answers that it did not deliver it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDelivered {
    /// The recipient is not there any more; `is_doubtful`: and may have been shown it.
    NotHere {
        /// See above.
        is_doubtful: bool,
    },
    /// The recipient is there, was shown it, and has not acknowledged it.
    Unacked,
}
