//! Whether the broker brings to this node what is published for it.
//!
//! A queue that lost its binding looks like one to which nobody says anything. So when nothing has come for a
//! moment, the node says a word to itself: it is there soon, or comes back, or is lost, and then everything is
//! declared again. Whatever comes is proof. What the broker can't do while it reads nothing, or while it waits
//! for this node, is no sign of anything.

use std::time::{Duration, Instant};

/// How long nothing may come before the node says a word to itself.
pub const QUIET_TIME: Duration = Duration::from_millis(1_500);

/// How long that word may be on its way; with the time before, a node that can't be reached finds out within 5 s.
pub const WORD_TIME_MAX: Duration = Duration::from_secs(3);

/// How much time counts as passed between two looks, at most: a process that was stopped meanwhile has not looked.
const LOOK_TIME: Duration = Duration::from_millis(100);

/// The word: no batch is empty.
pub const WORD: &[u8] = b"";

/// What is known of that.
#[derive(Debug)]
pub struct Reach {
    /// Something has come, ever.
    pub is_proven: bool,
    /// When something came last, or the broker could not bring anything.
    heard: Instant,
    looked: Instant,
    /// How much longer a word may be on its way, if one is.
    left: Option<Duration>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Fine,
    /// Say the word.
    Say,
    /// It did not come.
    Lost,
}

impl Reach {
    /// Nothing has come yet: the word is due at once.
    pub fn new(now: Instant) -> Self {
        Reach { is_proven: false, heard: now, looked: now, left: None }
    }

    /// Something has come. Tells whether it is the first proof.
    pub fn heard(&mut self, now: Instant) -> bool {
        (self.heard, self.left) = (now, None);
        !std::mem::replace(&mut self.is_proven, true)
    }

    /// Looks what is to be done. `waits`: the broker can't bring anything now.
    pub fn look(&mut self, waits: bool, now: Instant) -> Look {
        let passed = now.duration_since(std::mem::replace(&mut self.looked, now)).min(LOOK_TIME);
        let is_quiet = !self.is_proven || now.duration_since(self.heard) >= QUIET_TIME;
        match &mut self.left {
            None if is_quiet && !waits => {
                self.left = Some(WORD_TIME_MAX);
                return Look::Say;
            }
            Some(left) if !waits => *left = left.saturating_sub(passed),
            _ => {}
        }
        if self.left == Some(Duration::ZERO) { Look::Lost } else { Look::Fine }
    }

    /// A word is on its way: it has to be looked at soon.
    pub fn is_waiting(&self) -> bool {
        self.left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_and_what_does_not_come_is_lost() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut reach = Reach::new(start);
        assert_eq!(reach.look(true, start), Look::Fine, "the broker takes nothing");
        assert_eq!(reach.look(false, start), Look::Say);
        assert!(reach.heard(at(10)) && !reach.heard(at(20)) && !reach.is_waiting());
        assert_eq!(reach.look(false, at(1_519)), Look::Fine);
        assert_eq!(reach.look(false, at(1_520)), Look::Say);
        // Stopped for an hour, and while the broker takes nothing, no time passes.
        assert_eq!(reach.look(false, at(3_600_000)), Look::Fine);
        (0..100).for_each(|n| assert_eq!(reach.look(true, at(3_600_000 + n * 50)), Look::Fine));
        let looks = (0..100).map(|n| reach.look(false, at(3_605_000 + n * 50)));
        assert_eq!(looks.take_while(|look| *look == Look::Fine).count(), 57);
        assert!(!reach.heard(at(3_608_000)));
        assert_eq!(reach.look(false, at(3_608_050)), Look::Fine);
    }
}
