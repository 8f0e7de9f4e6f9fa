//! The rules of the lane and of those around it: each can be left out, and then something must break.

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A node takes messages for a session from its registration on, and shows them behind the `OK`.
    Entering,
    /// A node that refused a message of a lane refuses what follows, until the next first.
    First,
    /// A further node is first given what has no fate.
    Earlier,
    /// A node returns to a lane when it has answered everything it had.
    Answered,
    /// With no node left, nothing goes out again before those that left have answered.
    Draining,
    /// A node that has the user tells the origin on which other nodes the user is.
    Notice,
    /// It does so before the receipt.
    NoticeFirst,
    /// The `OK` of a login waits until the user's other nodes have noted it.
    Announce,
    /// A further node that is heard of while presence is asked counts.
    NewsWhileAsking,
    /// "Nowhere" says nothing of what was sent after it was asked.
    Asked,
    /// That a user is nowhere else says nothing when the user has left the origin since it was asked.
    WasHere,
    /// What was with a node that died may have been shown.
    Doubt,
    /// A node of several whose messages came back returns to the lane.
    Return,
    /// What comes while messages are stored waits behind them.
    Gather,
    /// Where something was stored for a user who is somewhere all the same, the session looks into the mailbox.
    Hint,
    /// What is live waits behind the mailbox.
    Hold,
    /// A login on the origin forgets that the user was nowhere else, and tells the lane where else the user is.
    OwnLogin,
    /// A login is first given what sessions of its user that end here have not written.
    Closing,
}
