//! What is done in one round, and the replies to it: values.

use std::collections::BTreeMap;

use crate::cluster::command::Entry;
use crate::cluster::command::Reply;
use crate::cluster::deferred::DeferredWrite;
use crate::node::seam::Token;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

/// One thing that is done in a round.
pub enum Job {
    Write(DeferredWrite),
    /// A user is looked for, or, without a token, looked for once more.
    Locate {
        token: Option<Token>,
        user: UserName,
        is_here: bool,
    },
    Register {
        token: Token,
        user: UserName,
        session: SessionId,
    },
    Store {
        token: Token,
        user: UserName,
        count: usize,
    },
    Read {
        token: Token,
        user: UserName,
        session: SessionId,
        after: u64,
    },
    /// A session is written once more: without delay, or as its turn comes.
    Assert {
        user: UserName,
        session: SessionId,
        is_urgent: bool,
    },
}

/// What was asked in one round: jobs with so many commands each, then the sessions of these users.
pub struct Round {
    pub jobs: Vec<(Job, usize)>,
    pub users: Vec<UserName>,
}

/// Jobs and the replies to their commands, and the sessions of the users that could be read.
#[derive(Default)]
pub struct Replies {
    pub jobs: Vec<(Job, Vec<Reply>)>,
    pub sessions: BTreeMap<UserName, Vec<Entry>>,
}

impl Round {
    /// All that was to be done.
    pub fn jobs(self) -> impl Iterator<Item = Job> {
        self.jobs.into_iter().map(|(job, _)| job)
    }
}

impl Job {
    /// Whose sessions it needs to know.
    pub fn user(&self) -> Option<&UserName> {
        match self {
            Job::Locate { user, .. }
            | Job::Register { user, .. }
            | Job::Store { user, .. }
            | Job::Assert { user, .. } => Some(user),
            Job::Write(_) | Job::Read { .. } => None,
        }
    }

    /// Somebody is told that a user is nowhere if presence knows nothing.
    pub fn looks_for_others(&self) -> bool {
        matches!(self, Job::Locate { is_here: false, .. } | Job::Store { .. })
    }
}
