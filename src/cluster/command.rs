//! What presence asks Redis for, and what the replies say: values of ours.
//!
//! A round of commands goes in one pipeline, and its replies come back in order. The Redis
//! library knows nothing of these (`redis_commands.rs` translates), and a simulator answers
//! them from a model: for each command its meaning stands here.

use crate::node::seam::Letter;
use crate::proto::name::{NodeId, SessionId, UserName};

/// One session in Redis: a field of its user's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    /// Where it is.
    pub node: NodeId,
    /// Which it is.
    pub session: SessionId,
    /// When it logged in, in us by Redis's clock.
    pub since_us: i64,
}

/// One thing to do in Redis, in one step. Whatever is written may be written again, or late.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "what the fields are stands in the sentence of the variant")]
pub enum RedisCommand {
    /// What the script of a lease does, for a node that knows the table of version `known` (empty for
    /// none), and may be busy writing its sessions again: [`RedisReply::Lease`].
    Lease { node: NodeId, act: LeaseAct, known: String, is_busy: bool },
    /// Whether a node is in the table: [`RedisReply::Flag`].
    IsMember { node: NodeId },
    /// Write a session, which logs in now if there is no other time, and begin the time to live of its
    /// user's key anew: [`RedisReply::Wrote`]. Who logs in is later than all who are there. What is none of ours in
    /// that place is replaced.
    Write { user: UserName, node: NodeId, session: SessionId, since_us: Option<i64>, drains: bool },
    /// Remove what is none of ours in the place of a user's sessions: [`RedisReply::Done`].
    Clear { user: UserName },
    /// Remove a session: [`RedisReply::Done`].
    Remove { user: UserName, node: NodeId, session: SessionId },
    /// All sessions of a user: [`RedisReply::Sessions`].
    Sessions { user: UserName },
    /// Whether something lies in a mailbox: [`RedisReply::Flag`].
    HasMail { user: UserName },
    /// Put messages, as bodies, into a mailbox: [`RedisReply::Stored`].
    Store { user: UserName, messages: Vec<Vec<u8>> },
    /// Mark a session as the one that drains, unless another is: [`RedisReply::Claimed`].
    Claim { user: UserName, node: NodeId, session: SessionId },
    /// Read in a mailbox, behind a place: [`RedisReply::Letters`].
    Read { user: UserName, after: u64 },
    /// Remove messages from a mailbox, all up to a place, and those at others: [`RedisReply::Done`].
    Take { user: UserName, up_to: u64, also: Vec<u64> },
}

/// What a node wants of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAct {
    /// Enter the table.
    Join,
    /// Stay in it.
    Renew,
    /// Leave it.
    Leave,
}

/// What Redis replies to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "what the fields are stands in the sentence of the variant")]
pub enum RedisReply {
    /// It is done.
    Done,
    /// Yes, or no.
    Flag(bool),
    /// The session was there before.
    Wrote(Place),
    /// The lease holds, or the node is not in the table: `None`.
    Lease(Option<Lease>),
    /// The sessions; what is none is left out.
    Sessions(Vec<SessionEntry>),
    /// How many messages were stored, from the first on; the others met the bound.
    Stored(usize),
    /// The session drains the mailbox, or this one of that node does.
    Claimed(Option<(NodeId, SessionId)>),
    /// The messages, the oldest first.
    Letters(Vec<Letter>),
    /// It was not done, and may be refused for ever; what Redis says.
    Refused { is_final: bool, why: String },
    /// It was not done, for that key holds what is none of ours.
    Misfit { key: String },
}

/// Where a session was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It stood there already.
    Known,
    /// It did not.
    New,
    /// What was there was none of ours.
    Misfit,
}

/// A lease that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Redis's clock, in us.
    pub now_us: i64,
    /// The version of the table.
    pub version: String,
    /// What was in the place of the table was none of ours.
    pub was_misfit: bool,
    /// Some node is busy writing its sessions again.
    pub in_doubt: bool,
    /// The living nodes, and the wire version of each, if the table is another than the node knows.
    pub living: Option<Vec<(NodeId, u8)>>,
}

impl SessionEntry {
    /// Reads a field of a user's hash; what is none of ours is `None`.
    pub fn parse(tag: &str, value: &str) -> Option<Self> {
        let (node, session) = parse_tag(tag)?;
        let since_us = value.strip_suffix('d').unwrap_or(value).parse().ok()?;
        Some(SessionEntry { node, session, since_us })
    }

    /// By this, logins came one after the other: the same on every node.
    pub fn age(&self) -> (i64, SessionId) {
        (self.since_us, self.session)
    }
}

/// The field of a session, which is never used twice.
pub fn tag(node: &NodeId, session: SessionId) -> String {
    format!("{}{}", node.as_str(), session.as_str())
}

/// The session of a field; what is none of ours is `None`.
pub fn parse_tag(tag: &str) -> Option<(NodeId, SessionId)> {
    // A session's id has 8 bytes; a mark between the two would cost every user 8 in Redis.
    let (node, session) = tag.split_at_checked(tag.len().checked_sub(8)?)?;
    Some((NodeId::parse(node)?, SessionId::parse(session)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_back() {
        let node = NodeId::new("pi.local", "a-b_c.d8").expect("valid");
        let session = SessionId::parse("00000007").expect("valid");
        let entry = SessionEntry { node: node.clone(), session, since_us: -5 };
        for value in ["-5", "-5d"] {
            assert_eq!(SessionEntry::parse(&tag(&node, session), value), Some(entry.clone()));
        }
        for (tag, since) in [
            ("", "1"),
            ("x", "1"),
            ("00000007", "1"),
            ("a b00000007", "1"),
            ("é0000007", "1"),
            ("x00000007", "y"),
        ] {
            assert_eq!(SessionEntry::parse(tag, since), None, "{tag}");
        }
    }
}
