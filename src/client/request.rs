//! What clients tell the task, and the way back for the answers.
//!
//! An answer comes through a channel with one place, of the type that the request's
//! caller waits for; what the server replied is checked before it goes in. Ids of the
//! program's own are taken for as long as their message has no fate.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use smol::channel::Sender;
use smol::lock::SemaphoreGuardArc;

use crate::client::error::SendError;
use crate::proto::ServerLine;

/// What clients tell the task.
pub(super) enum Errand {
    /// A line that has no reply.
    Cast(Vec<u8>),
    /// A line that begins with `tag`.
    Request { tag: Box<str>, pending: OpenRequest, line: Vec<u8> },
}

/// A request without a reply. Dropped, it says "lost" and gives its permit back.
pub(super) struct OpenRequest {
    // First, so that an id is free again before its caller hears the answer.
    own_id: Option<OwnId>,
    caller: Caller,
    _permit: SemaphoreGuardArc,
}

impl OpenRequest {
    pub(super) fn new(own_id: Option<OwnId>, caller: Caller, permit: SemaphoreGuardArc) -> Self {
        OpenRequest { own_id, caller, _permit: permit }
    }

    /// Passes the reply on, or tells that it is none to this kind of request.
    pub(super) fn give(self, line: ServerLine<'_>) -> bool {
        drop(self.own_id);
        self.caller.give(line)
    }

    pub(super) fn fail(self, error: SendError) {
        drop(self.own_id);
        self.caller.fail(error);
    }

    /// Tells whether the caller still waits.
    pub(super) fn is_wanted(&self) -> bool {
        !self.caller.is_gone()
    }

    /// Tells whether it is a message.
    pub(super) fn is_send(&self) -> bool {
        matches!(self.caller, Caller::Send(_))
    }
}

/// The ids that the program has given to messages without a fate.
#[derive(Default)]
pub(super) struct OwnIds {
    used: Arc<Mutex<HashSet<Box<str>>>>,
}

impl OwnIds {
    /// Takes an id; `None` while another message has it.
    pub(super) fn claim(&self, id: &str) -> Option<OwnId> {
        lock(&self.used).insert(id.into()).then(|| OwnId { used: self.used.clone(), id: id.into() })
    }
}

/// An id in use. Dropped, it is free again.
pub(super) struct OwnId {
    used: Arc<Mutex<HashSet<Box<str>>>>,
    id: Box<str>,
}

impl Drop for OwnId {
    fn drop(&mut self) {
        lock(&self.used).remove(&self.id);
    }
}

fn lock(used: &Mutex<HashSet<Box<str>>>) -> MutexGuard<'_, HashSet<Box<str>>> {
    used.lock().expect("nothing panics with the ids locked")
}

/// Who waits for an answer, and so what it must look like. Dropped, it says "lost".
pub(super) enum Caller {
    Send(Sender<Result<Fate, SendError>>),
    Who(Sender<Result<UserPresence, SendError>>),
    Ping(Sender<Result<(), SendError>>),
}

impl Caller {
    /// Passes the reply on, or tells that it is none to this kind of request.
    fn give(self, line: ServerLine<'_>) -> bool {
        if let ServerLine::Err { code, text } = line {
            self.fail(SendError::Refused { code, text: text.to_owned() });
            return true;
        }
        // A send fails only when nobody waits any more.
        match (self, line) {
            (Caller::Send(tx), ServerLine::Ok(rest)) => {
                let fate = match rest.rsplit_once(' ') {
                    Some((_, "delivered")) => Fate::Delivered,
                    Some((_, "stored")) => Fate::Stored,
                    _ => return false,
                };
                let _ = tx.try_send(Ok(fate));
            }
            (Caller::Who(tx), ServerLine::Ok(rest)) => {
                let Some(presence) = presence(rest) else { return false };
                let _ = tx.try_send(Ok(presence));
            }
            (Caller::Ping(tx), ServerLine::Pong(_)) => {
                let _ = tx.try_send(Ok(()));
            }
            _ => return false,
        }
        true
    }

    fn fail(self, error: SendError) {
        let _ = match self {
            Caller::Send(tx) => tx.try_send(Err(error)).is_ok(),
            Caller::Who(tx) => tx.try_send(Err(error)).is_ok(),
            Caller::Ping(tx) => tx.try_send(Err(error)).is_ok(),
        };
    }

    /// Tells whether the caller dropped its future.
    fn is_gone(&self) -> bool {
        match self {
            Caller::Send(tx) => tx.is_closed(),
            Caller::Who(tx) => tx.is_closed(),
            Caller::Ping(tx) => tx.is_closed(),
        }
    }
}

/// Reads `<user> online <sessions>` or `<user> offline`.
fn presence(rest: &str) -> Option<UserPresence> {
    let (_user, rest) = rest.split_once(' ')?;
    match rest.split_once(' ') {
        None => (rest == "offline").then_some(UserPresence::Offline),
        Some(("online", sessions)) => Some(UserPresence::Online { sessions: sessions.parse().ok()? }),
        Some(_) => None,
    }
}

/// What became of a message that worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// Written to a session of the recipient, or acknowledged by one.
    Delivered,
    /// In the recipient's mailbox; the next login drains it.
    Stored,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Delivered => "delivered",
            Fate::Stored => "stored",
        })
    }
}

/// Whether a user can be reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserPresence {
    /// Logged in.
    Online {
        /// How many sessions, in the whole cluster; at least 1.
        sessions: u32,
    },
    /// Not logged in anywhere.
    Offline,
}
