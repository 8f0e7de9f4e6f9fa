//! The history of a run while it happens: one clock for all, in milliseconds, and one lock.
//!
//! Whoever does something notes it before, whoever hears something after. A note and its time are not one
//! step: threads that note at once may do so a moment out of order, and the checker's margins allow for it.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::history::History;
use crate::history::Question;
use crate::history::Rules;
use crate::history::Time;
use crate::history::margins::Margins;

/// Writes the history.
pub struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

impl Recorder {
    /// Of a run of nodes that are set up so, and which begins now.
    pub fn new(rules: Rules) -> Self {
        Recorder { start: Instant::now(), history: Mutex::new(History::new(Margins::real(), rules)) }
    }

    pub fn now(&self) -> Time {
        self.start.elapsed().as_millis() as Time
    }

    /// When that will be.
    pub fn instant(&self, at: Time) -> Instant {
        self.start + Duration::from_millis(at)
    }

    pub fn write(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question, and gives its number.
    pub fn ask(&self, question: Question) -> usize {
        let mut history = self.write();
        history.questions.push(question);
        history.questions.len() - 1
    }

    pub fn oddity(&self, what: String) {
        let now = self.now();
        self.write().oddities.push((now, what));
    }
}
