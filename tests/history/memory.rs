//! What a client knows from one connection to the next: which messages it has shown, and
//! which of its own it has to send again.
//!
//! It sends a message again, under its tag, when it can't know what became of it: its
//! connection ended before the reply, or the reply was `timeout`. Pure: the time comes in.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use crate::history::Fate;
use crate::history::Time;

/// How long a client goes on to send a message, in ms.
pub const TRY_TIME_MAX: Time = 60_000;

/// So many messages a client knows, as one of our library does.
const REMEMBERED_MAX: usize = 4_096;

/// How long it waits when it was told that it can't be known, or not now; in ms.
const PAUSE_TIME: Time = 300;

/// The memory of one client.
#[derive(Debug)]
pub struct Memory {
    /// Units of a millisecond.
    ms: Time,
    /// Sender and number of each, and the order in which they came.
    shown: HashSet<(usize, usize)>,
    order: VecDeque<(usize, usize)>,
    /// Own messages whose fate is not known, by number.
    waiting: BTreeMap<usize, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    to: usize,
    /// When it was sent first.
    first: Time,
    /// On which session it was sent last.
    session: usize,
    /// Once nothing was promised, an error of a later attempt says nothing of that one.
    is_unsure: bool,
    /// When it is sent again.
    due: Option<Time>,
}

impl Memory {
    /// Of a client that has seen and sent nothing; a millisecond has so many units.
    pub fn new(ms: Time) -> Self {
        Memory { ms, shown: HashSet::new(), order: VecDeque::new(), waiting: BTreeMap::new() }
    }

    /// Whether a message is new, and to be shown.
    pub fn sees(&mut self, from: usize, message: usize) -> bool {
        if !self.shown.insert((from, message)) {
            return false;
        }
        self.order.push_back((from, message));
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.shown.remove(&oldest);
        }
        true
    }

    /// A message was sent for the first time.
    pub fn sends(&mut self, message: usize, to: usize, session: usize, now: Time) {
        let waiting = Waiting { to, first: now, session, is_unsure: false, due: None };
        self.waiting.insert(message, waiting);
    }

    /// A session told a fate.
    pub fn hears(&mut self, message: usize, session: usize, fate: Fate, now: Time) {
        let Some(waiting) = self.waiting.get_mut(&message) else { return };
        match fate {
            Fate::Delivered | Fate::Stored => drop(self.waiting.remove(&message)),
            // Of an attempt before the last one.
            Fate::Error(_) if waiting.session != session => {}
            _ if fate.is_limited() => waiting.due = Some(now + PAUSE_TIME * self.ms),
            Fate::Error(_) if fate.is_timeout() || waiting.is_unsure => {
                waiting.is_unsure = true;
                waiting.due = Some(now + PAUSE_TIME * self.ms);
            }
            Fate::Error(_) => drop(self.waiting.remove(&message)),
        }
    }

    /// Nothing more will be heard on a session.
    pub fn loses(&mut self, session: usize, now: Time) {
        for waiting in self.waiting.values_mut() {
            if waiting.session == session && waiting.due.is_none() {
                waiting.is_unsure = true;
                waiting.due = Some(now);
            }
        }
    }

    /// What is to be sent again on this session now, in order: number and recipient.
    pub fn sends_again(&mut self, session: usize, now: Time) -> Vec<(usize, usize)> {
        self.waiting
            .retain(|_, waiting| waiting.due.is_none() || now < waiting.first + TRY_TIME_MAX * self.ms);
        let is_due = |waiting: &Waiting| waiting.due.is_some_and(|due| due <= now);
        let due = self.waiting.iter_mut().filter(|(_, waiting)| is_due(waiting));
        due.map(|(number, waiting)| {
            waiting.session = session;
            waiting.due = None;
            (*number, waiting.to)
        })
        .collect()
    }

    /// How many messages have no fate yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The same: each, and the user that it is for.
    pub fn pending(&self) -> impl Iterator<Item = (usize, usize)> {
        self.waiting.iter().map(|(number, waiting)| (*number, waiting.to))
    }
}

#[cfg(test)]
mod tests {
    use pinpost::internals::proto::ErrorCode;

    use super::*;

    fn error(word: &str) -> Fate {
        Fate::Error(ErrorCode::parse(word).expect("a word"))
    }

    #[test]
    fn what_is_not_known_is_sent_again_in_order() {
        let mut memory = Memory::new(1);
        (1..5).for_each(|number| memory.sends(number, 7, 0, 100));
        memory.hears(2, 0, Fate::Stored, 110);
        memory.hears(3, 0, error("unavailable"), 110);
        memory.hears(4, 0, error("timeout"), 110);
        assert_eq!(memory.sends_again(1, 110), []);
        memory.loses(0, 120);
        assert_eq!(memory.sends_again(1, 120), [(1, 7)]);
        assert_eq!(memory.sends_again(1, 110 + PAUSE_TIME), [(4, 7)]);
        // The first attempt may have succeeded, whatever the second one did.
        memory.hears(4, 1, error("unavailable"), 1_000);
        memory.hears(1, 0, error("unavailable"), 1_000);
        assert_eq!(memory.sends_again(2, 1_000 + PAUSE_TIME), [(4, 7)]);
        memory.hears(4, 2, error("timeout"), 2_000);
        memory.hears(4, 1, Fate::Delivered, 2_000);
        assert_eq!(memory.waiting(), 1);
        memory.loses(1, 2_000);
        assert_eq!(memory.sends_again(3, 100 + TRY_TIME_MAX), []);
        assert_eq!(memory.waiting(), 0);
    }

    #[test]
    fn a_copy_is_known() {
        let mut memory = Memory::new(1);
        assert!(memory.sees(1, 5));
        assert!(memory.sees(2, 5));
        assert!(!memory.sees(1, 5));
        assert!((0..REMEMBERED_MAX - 2).all(|message| memory.sees(3, message)));
        assert!(!memory.sees(1, 5));
        assert!(memory.sees(3, REMEMBERED_MAX));
        assert!(memory.sees(1, 5), "so many others came");
    }
}
