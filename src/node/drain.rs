//! One session that drains its user's mailbox, or waits until it may: what it has read, and what became of it.
//!
//! A message leaves the mailbox only after it was taken: written, or acknowledged where the session
//! acknowledges. Those in front that were taken are removed together, up to the first that was not.

use std::collections::VecDeque;

use crate::mailbox::READ_MESSAGES_MAX;

/// The drain.
pub struct Drain {
    /// What happens next.
    pub stage: Stage,
    /// The place of the last message that was read.
    pub read_up_to: u64,
    /// What was shown and may still be in the mailbox, in order.
    shown: VecDeque<(u64, State)>,
    /// So many of these have no fate.
    waiting: usize,
    /// All up to this place was taken; so many of these are still in the mailbox.
    taken_up_to: u64,
    untaken: usize,
    /// Something was stored since it began: the end may have been read too early.
    pub has_more: bool,
    /// The session takes messages again that it did not take: they are read once more.
    pub begins_anew: bool,
    /// The session did not take something.
    pub is_broken: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The mailbox was asked.
    Reading,
    /// There may be more to read.
    Showing,
    /// Another session drains it, or it can't be reached: tried again soon.
    Paused,
    /// Nothing more is read.
    Ending,
}

/// What became of a message that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    Shown,
    /// The session took it.
    Taken,
    /// It stays in the mailbox.
    Left,
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Remove all up to this place.
    pub take_up_to: Option<u64>,
    /// Read on.
    pub reads: bool,
    /// It has come to its end early: live messages wait no more.
    pub ends_early: bool,
    /// It is over: remove these, too.
    pub is_over: Option<Vec<u64>>,
}

/// Taken messages that are removed from the mailbox in one go.
const UNTAKEN_MAX: usize = 64;

/// With fewer messages untaken it is time to read on.
const READ_ON_MIN: usize = READ_MESSAGES_MAX / 2;

/// With so many messages behind one that is not taken, nothing is read on.
const SHOWN_MAX: usize = 4_096;

impl Default for Drain {
    fn default() -> Self {
        Drain {
            stage: Stage::Paused,
            read_up_to: 0,
            shown: VecDeque::new(),
            waiting: 0,
            taken_up_to: 0,
            untaken: 0,
            has_more: false,
            begins_anew: false,
            is_broken: false,
        }
    }
}

impl Drain {
    /// Messages at these places are shown now.
    pub fn show(&mut self, places: impl Iterator<Item = u64>) {
        for place in places {
            self.read_up_to = place;
            self.shown.push_back((place, State::Shown));
            self.waiting += 1;
        }
    }

    /// A message has its fate.
    pub fn note(&mut self, place: u64, state: State) {
        if let Ok(at) = self.shown.binary_search_by_key(&place, |(place, _)| *place) {
            let before = std::mem::replace(&mut self.shown[at].1, state);
            self.waiting -= usize::from(before == State::Shown);
        }
        self.is_broken |= state == State::Left;
    }

    /// What to do now.
    pub fn next(&mut self) -> Next {
        let mut next = Next::default();
        while let Some((place, State::Taken)) = self.shown.front() {
            self.taken_up_to = *place;
            self.untaken += 1;
            self.shown.pop_front();
        }
        if self.is_broken && matches!(self.stage, Stage::Showing | Stage::Paused) {
            self.stage = Stage::Ending;
            next.ends_early = true;
        }
        if self.untaken >= UNTAKEN_MAX || (self.untaken > 0 && self.waiting == 0) {
            next.take_up_to = Some(self.taken_up_to);
            self.untaken = 0;
        }
        if self.stage == Stage::Ending && self.waiting == 0 {
            let behind = self.shown.iter().filter(|(_, state)| *state == State::Taken);
            next.is_over = Some(behind.map(|(place, _)| *place).collect());
        }
        next.reads =
            self.stage == Stage::Showing && self.waiting < READ_ON_MIN && self.shown.len() < SHOWN_MAX;
        next
    }
}
