//! The desk: what the node's thread, the bus and presence leave for each other.
//!
//! The node asks; presence takes what was asked, and waits here for more. While presence is
//! away an ask is answered here, at once, so that nobody waits for it to find out; and those
//! that had come before are answered first. The bus tells for which id there is a queue, and
//! all find out here how far the node has come.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::event::unavailable;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::proto::name::NodeId;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

/// The desk.
#[derive(Default)]
pub struct Desk {
    papers: Mutex<Papers>,
    changed: Condvar,
}

/// What lies on it.
#[derive(Default)]
pub struct Papers {
    /// For presence.
    notes: Vec<Note>,
    /// Presence can be asked.
    pub is_open: bool,
    /// Nobody takes notes any more.
    is_deserted: bool,
    pub is_stopping: bool,
    /// The id for which there is a queue.
    queue: Option<NodeId>,
    /// The id that others know this node by.
    pub joined: Option<NodeId>,
    pub bus_has_ended: bool,
}

/// One thing for presence.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// The node asks.
    Ask(Ask),
    /// A session has ended, and the node was told so already.
    Ended(UserName, SessionId),
    /// There is a queue for this id, or none.
    Queue(Option<NodeId>),
    /// What other nodes said of replaced sessions may be lost: all sessions are to be written again.
    AssertAll,
    /// The node goes.
    Stop,
}

impl Desk {
    /// Takes what the node asks; what presence can't answer now is given to `answer`.
    pub fn ask(&self, asks: impl Iterator<Item = Ask>, mut answer: impl FnMut(Answer)) {
        self.change(|papers| {
            for ask in asks {
                match (papers.is_open, unavailable(&ask), ask) {
                    (false, Some(refusal), _) => answer(refusal),
                    (false, None, Ask::Unregister { token, user, session }) => {
                        answer(Answer::Unregistered { token });
                        papers.note(Note::Ended(user, session));
                    }
                    (_, _, ask) => papers.note(Note::Ask(ask)),
                }
            }
        });
    }

    /// Takes what is for presence; waits until there is something, or until then.
    pub fn take(&self, until: Instant) -> Vec<Note> {
        let wait = until.saturating_duration_since(Instant::now());
        std::mem::take(&mut self.wait_while(wait, |papers| papers.notes.is_empty()).0.notes)
    }

    /// Presence can't be asked from now on; `end` answers what had come before.
    pub fn close(&self, end: impl FnOnce(Vec<Note>)) {
        self.change(|papers| {
            papers.is_open = false;
            end(std::mem::take(&mut papers.notes));
        });
    }

    /// Nobody will ever take a note again; `answer` gets the refusals of what had come before.
    pub fn desert(&self, mut answer: impl FnMut(Answer)) {
        self.change(|papers| {
            (papers.is_open, papers.is_deserted) = (false, true);
            for note in std::mem::take(&mut papers.notes) {
                match note {
                    Note::Ask(Ask::Unregister { token, .. }) => answer(Answer::Unregistered { token }),
                    Note::Ask(ask) => unavailable(&ask).into_iter().for_each(&mut answer),
                    Note::Ended(..) | Note::Queue(_) | Note::AssertAll | Note::Stop => {}
                }
            }
        });
    }

    /// Waits until this node can be reached by others; `false` when that took too long.
    pub fn wait_until_joined(&self, time_max: Duration) -> bool {
        !self.wait_while(time_max, |papers| papers.joined.is_none() || papers.joined != papers.queue).1
    }

    /// Changes what lies there, and wakes whoever waits for it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Papers) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Waits while that is so; `true` when it still is after the longest time.
    pub fn wait_while(
        &self,
        time_max: Duration,
        is_so: impl FnMut(&mut Papers) -> bool,
    ) -> (MutexGuard<'_, Papers>, bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), time_max, is_so);
        let (papers, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (papers, result.timed_out())
    }

    /// Tells whether this node goes.
    pub fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        // Nothing is left half changed.
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Papers {
    /// Leaves a note for presence.
    pub fn note(&mut self, note: Note) {
        match &note {
            Note::Queue(queue) => self.queue.clone_from(queue),
            Note::Stop => self.is_stopping = true,
            Note::Ask(_) | Note::Ended(..) | Note::AssertAll => {}
        }
        if !self.is_deserted {
            self.notes.push(note);
        }
    }
}
