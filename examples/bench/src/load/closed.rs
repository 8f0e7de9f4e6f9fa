//! The closed loop: users who send on as what they have sent arrives.
//!
//! Every sender keeps a window of messages under way: an answer to one lets it
//! send the next, and the answers of one read let it send as many in one write.
//! With a window of 1 nothing can be batched for a user; with 16 a server that
//! handles many lines at a time is rewarded. A `CAST` has no answer: what its
//! recipient has received lets the sender go on.
//!
//! `ledger` checks every message. One that is sent without an answer may be
//! lost, but not where nothing is full and nobody goes. Of messages with an answer
//! one of each sender at a time is also timed, which the others don't notice.

use std::io;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::crowd::{Crowd, Job, SILENCE_MAX};
use crate::dialect::{Dialect, Event, Phase, Verb, packet_id};
use crate::load::PAYLOAD_BYTES;
use crate::load::ledger::Ledger;
use crate::measure::Times;

/// The load on one crowd, from its login to its end.
pub struct Traffic {
    verb: Verb,
    ledger: Ledger,
    /// How many messages of each user there are to be.
    goals: Vec<u32>,
    window: u32,
    /// Senders to whom nobody answers, and who may go on.
    awake: Vec<usize>,
    /// The message of each user that is timed, and when it was sent.
    timed: Vec<Option<(u32, Instant)>>,
    /// From sending to the answer, of those that were timed.
    ways: Vec<Duration>,
}

impl Traffic {
    /// Users in pairs: `u0` with `u1`, `u2` with `u3` and so on; everybody sends.
    pub fn pairs(dialect: Dialect, verb: Verb, users: usize) -> Traffic {
        Traffic::new(dialect, verb, users, PAYLOAD_BYTES, |user| Some(partner(user)))
    }

    /// The same, but only users with an even number send.
    pub fn one_way(dialect: Dialect, verb: Verb, users: usize) -> Traffic {
        let recipient = |user: usize| user.is_multiple_of(2).then(|| partner(user));
        Traffic::new(dialect, verb, users, PAYLOAD_BYTES, recipient)
    }

    /// Users who send texts of so many bytes to whom `recipient` tells.
    pub fn new(
        dialect: Dialect,
        verb: Verb,
        users: usize,
        text_bytes: usize,
        recipient: impl Fn(usize) -> Option<usize>,
    ) -> Traffic {
        let ledger = Ledger::new(dialect, verb, users, text_bytes, recipient);
        let (goals, timed) = (vec![0; users], vec![None; users]);
        Traffic { verb, ledger, goals, window: 0, awake: vec![], timed, ways: vec![] }
    }

    /// How long answers took since this was last asked; `None` where nothing is answered.
    pub fn take_ways(&mut self) -> Option<Times> {
        let ways = std::mem::take(&mut self.ways);
        (!ways.is_empty()).then(|| Times::of(ways))
    }

    /// Lets each sender send `each` messages, `window` of them under way at a time, and at most
    /// `at_once` users. Returns when every message was answered and received.
    pub fn exchange(&mut self, crowd: &mut Crowd, window: u32, each: u32, at_once: usize) -> io::Result<()> {
        self.window = window;
        for user in 0..self.goals.len() {
            self.goals[user] += if self.ledger.is_sender(user) { each } else { 0 };
        }
        crowd.run(self, self.goals.len(), at_once)
    }

    /// Lets everybody send for so long, and returns when every message was answered and received: how
    /// many there were.
    pub fn exchange_for(&mut self, crowd: &mut Crowd, window: u32, time: Duration) -> io::Result<u64> {
        self.window = window;
        let users = self.goals.len();
        let before = self.arrived();
        for user in (0..users).filter(|user| self.ledger.is_sender(*user)) {
            self.goals[user] = u32::MAX;
        }
        for user in 0..users {
            crowd.begin(self, user)?;
        }
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(crowd)?;
        }
        for (goal, user) in self.goals.iter_mut().zip(&self.ledger.users) {
            *goal = user.sent;
        }
        while (0..users).any(|user| !self.is_done(user)) {
            self.turn(crowd)?;
        }
        Ok(self.arrived() - before)
    }

    fn turn(&mut self, crowd: &mut Crowd) -> io::Result<()> {
        match crowd.turn(self, SILENCE_MAX)? {
            Some(_) => Ok(()),
            None => {
                let users = &self.ledger.users;
                let missing: u64 = users.iter().map(|user| u64::from(user.sent - user.arrived)).sum();
                Err(io::Error::other(format!("silence for {SILENCE_MAX:?}, {missing} messages are missing")))
            }
        }
    }

    fn arrived(&self) -> u64 {
        self.ledger.users.iter().map(|user| u64::from(user.arrived)).sum()
    }

    /// Whether a user has nothing to send, and nothing under way.
    fn is_done(&self, user: usize) -> bool {
        let goal = self.goals[user];
        let user = &self.ledger.users[user];
        user.answered == goal && user.arrived == goal
    }

    /// Sends what the window has room for.
    fn fill(&mut self, client: &mut Client, sender: usize) {
        loop {
            let user = &self.ledger.users[sender];
            if user.sent == self.goals[sender] || user.sent - user.answered == self.window {
                return;
            }
            if self.verb == Verb::Send && self.timed[sender].is_none() {
                self.timed[sender] = Some((user.sent, Instant::now()));
            }
            self.ledger.send(client, sender);
        }
    }
}

impl Job for Traffic {
    const PHASE: Phase = Phase::Load;
    const WANTED: &str = "a message or the answer to one";

    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<bool> {
        self.fill(client, user);
        Ok(self.is_done(user))
    }

    fn event(&mut self, client: &mut Client, user: usize, event: Event<'_>) -> io::Result<usize> {
        let sender = match event {
            Event::Message(message) => {
                let (sender, _) = self.ledger.take(user, message)?;
                if self.verb == Verb::Cast {
                    self.ledger.users[sender].answered += 1;
                    if self.awake.last() != Some(&sender) {
                        self.awake.push(sender);
                    }
                }
                sender
            }
            Event::Answered { id } => {
                let sender = &mut self.ledger.users[user];
                let is_due =
                    sender.answered < sender.sent && id.is_none_or(|id| id == packet_id(sender.answered));
                if self.verb == Verb::Cast || !is_due {
                    return Err(io::Error::other(format!("u{user} was answered to what it did not ask")));
                }
                if let Some((_, sent)) = self.timed[user].take_if(|(number, _)| *number == sender.answered) {
                    self.ways.push(sent.elapsed());
                }
                sender.answered += 1;
                self.fill(client, user);
                user
            }
            _ => return Ok(0),
        };
        // The counts only grow, up to the goal: both are there with one event only, the last one.
        Ok(usize::from(self.is_done(sender)))
    }

    fn awake(&mut self) -> Option<usize> {
        self.awake.pop()
    }

    fn resume(&mut self, client: &mut Client, user: usize) {
        self.fill(client, user);
    }
}

/// Who is whose other half in pairs.
pub fn partner(user: usize) -> usize {
    user ^ 1
}
