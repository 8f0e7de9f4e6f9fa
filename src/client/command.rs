//! What clients tell the task, and the way back for the answers.
//!
//! An answer is a channel with one place, of the type that the request's caller
//! waits for; what the server replied is checked before it goes in.

use smol::channel::Sender;
use smol::lock::SemaphoreGuardArc;

use crate::client::error::SendError;
use crate::client::{Fate, Presence};
use crate::proto::ServerLine;

/// What clients tell the task.
pub(super) enum Command {
    /// A line that has no reply.
    Line(Vec<u8>),
    /// A line whose tag ends in `number`.
    Request { number: u64, pending: Pending, line: Vec<u8> },
}

/// A request without a reply. Dropped, it gives its permit back.
pub(super) struct Pending {
    pub(super) answer: Answer,
    _permit: SemaphoreGuardArc,
}

impl Pending {
    pub(super) fn new(answer: Answer, permit: SemaphoreGuardArc) -> Self {
        Pending { answer, _permit: permit }
    }
}

/// Where an answer goes, and so what it must look like. Dropped, it says "lost".
pub(super) enum Answer {
    Fate(Sender<Result<Fate, SendError>>),
    Presence(Sender<Result<Presence, SendError>>),
    Pong(Sender<Result<(), SendError>>),
}

impl Answer {
    /// Passes the reply on, or tells that it is none to this kind of request.
    pub(super) fn give(self, line: ServerLine<'_>) -> bool {
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

    pub(super) fn fail(self, error: SendError) {
        let _ = match self {
            Answer::Fate(tx) => tx.try_send(Err(error)).is_ok(),
            Answer::Presence(tx) => tx.try_send(Err(error)).is_ok(),
            Answer::Pong(tx) => tx.try_send(Err(error)).is_ok(),
        };
    }

    /// Tells whether the caller dropped its future.
    pub(super) fn is_unwanted(&self) -> bool {
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
