//! What clients tell the task, and the way back for the answers.
//!
//! An answer is a channel with one place, of the type that the request's caller
//! waits for; what the server replied is checked before it goes in.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use smol::channel::Sender;
use smol::lock::SemaphoreGuardArc;

use crate::client::error::SendError;
use crate::client::room::Taken;
use crate::client::{Fate, Presence};
use crate::proto::ServerLine;

/// What clients tell the task.
pub(super) enum Command {
    /// A line that has no reply.
    Cast(Vec<u8>),
    /// A line that begins with `tag`.
    Request { tag: Box<str>, pending: Pending, line: Vec<u8> },
}

/// A request without a reply. Dropped, it says "lost" and gives its permit and its room back.
pub(super) struct Pending {
    // First, so that an id is free again before its caller hears the answer.
    own_id: Option<OwnId>,
    answer: Answer,
    _permit: SemaphoreGuardArc,
    /// That of a message, where it is counted.
    _room: Option<Taken>,
}

impl Pending {
    pub(super) fn new(
        own_id: Option<OwnId>,
        answer: Answer,
        permit: SemaphoreGuardArc,
        room: Option<Taken>,
    ) -> Self {
        Pending { own_id, answer, _permit: permit, _room: room }
    }

    /// Passes the reply on, or tells that it is none to this kind of request.
    pub(super) fn give(self, line: ServerLine<'_>) -> bool {
        drop(self.own_id);
        self.answer.give(line)
    }

    pub(super) fn fail(self, error: SendError) {
        drop(self.own_id);
        self.answer.fail(error);
    }

    /// Tells whether the caller still waits.
    pub(super) fn is_wanted(&self) -> bool {
        !self.answer.is_unwanted()
    }

    /// Tells whether it is a message, and the caller still waits for its fate.
    pub(super) fn is_wanted_send(&self) -> bool {
        matches!(self.answer, Answer::Fate(_)) && self.is_wanted()
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

/// Where an answer goes, and so what it must look like. Dropped, it says "lost".
pub(super) enum Answer {
    Fate(Sender<Result<Fate, SendError>>),
    Presence(Sender<Result<Presence, SendError>>),
    Pong(Sender<Result<(), SendError>>),
}

impl Answer {
    /// Passes the reply on, or tells that it is none to this kind of request.
    fn give(self, line: ServerLine<'_>) -> bool {
        if let ServerLine::Err { code, text } = line {
            self.fail(SendError::Refused { code, text: text.to_owned() });
            return true;
        }
        // A send fails only when nobody waits any more.
        match (self, line) {
            (Answer::Fate(tx), ServerLine::Ok(rest)) => {
                let fate = match rest.rsplit_once(' ') {
                    Some((_, "delivered")) => Fate::Delivered,
                    Some((_, "stored")) => Fate::Stored,
                    _ => return false,
                };
                let _ = tx.try_send(Ok(fate));
            }
            (Answer::Presence(tx), ServerLine::Ok(rest)) => {
                let Some(presence) = presence(rest) else { return false };
                let _ = tx.try_send(Ok(presence));
            }
            (Answer::Pong(tx), ServerLine::Pong(_)) => {
                let _ = tx.try_send(Ok(()));
            }
            _ => return false,
        }
        true
    }

    fn fail(self, error: SendError) {
        let _ = match self {
            Answer::Fate(tx) => tx.try_send(Err(error)).is_ok(),
            Answer::Presence(tx) => tx.try_send(Err(error)).is_ok(),
            Answer::Pong(tx) => tx.try_send(Err(error)).is_ok(),
        };
    }

    /// Tells whether the caller dropped its future.
    fn is_unwanted(&self) -> bool {
        match self {
            Answer::Fate(tx) => tx.is_closed(),
            Answer::Presence(tx) => tx.is_closed(),
            Answer::Pong(tx) => tx.is_closed(),
        }
    }
}

/// Reads `<user> online <sessions>` or `<user> offline`.
fn presence(rest: &str) -> Option<Presence> {
    let (_user, rest) = rest.split_once(' ')?;
    match rest.split_once(' ') {
        None => (rest == "offline").then_some(Presence::Offline),
        Some(("online", sessions)) => Some(Presence::Online { sessions: sessions.parse().ok()? }),
        Some(_) => None,
    }
}
