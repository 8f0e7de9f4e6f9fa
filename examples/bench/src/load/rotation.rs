//! A load that is the same for any number of users: so many messages under way,
//! no user having more than one, and the next one always sent by the next of all
//! users.
//!
//! The answer to a sender passes its turn on. Every connection is used in turn, so
//! what a server has to fetch from memory for one is what it really has to; and a
//! server can't batch for anybody, whatever the size. The next one is not the
//! neighbour, because neighbours share cache lines that strangers don't.

use std::io;

use crate::client::Client;
use crate::crowd::{Crowd, Job};
use crate::dialect::{Dialect, Event, Phase, Verb};
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::partner;
use crate::load::ledger::Ledger;

/// The load; users come in pairs, and everybody sends.
pub struct Rotation {
    ledger: Ledger,
    /// Whose turn it is.
    next: usize,
    /// Messages still to be sent, to be answered, and to arrive.
    to_send: u64,
    to_answer: u64,
    to_arrive: u64,
    /// Somebody's turn is over, and nobody has it yet.
    is_free: bool,
    under_way: usize,
}

impl Rotation {
    /// Users who have not sent anything.
    pub fn new(dialect: Dialect, users: usize) -> Rotation {
        assert!(users.is_multiple_of(2), "users come in pairs");
        let ledger = Ledger::new(dialect, Verb::Send, users, PAYLOAD_BYTES, |user| Some(partner(user)));
        Rotation { ledger, next: 0, to_send: 0, to_answer: 0, to_arrive: 0, is_free: false, under_way: 0 }
    }

    /// Moves so many messages, `under_way` at a time, and returns when all were answered and have arrived.
    pub fn exchange(&mut self, crowd: &mut Crowd, messages: u64, under_way: usize) -> io::Result<()> {
        let users = self.ledger.users.len();
        assert!(2 * under_way <= users, "half of the users are idle, so that a turn can be passed on");
        (self.to_send, self.to_answer, self.to_arrive) = (messages, messages, messages);
        self.under_way = under_way;
        crowd.run(self, under_way, under_way)
    }

    fn send(&mut self, client: &mut Client, user: usize) {
        self.ledger.send(client, user);
        self.to_send -= 1;
    }

    fn after(&self, user: usize) -> usize {
        (user + STRIDE) % self.ledger.users.len()
    }
}

impl Job for Rotation {
    const PHASE: Phase = Phase::Load;
    const WANTED: &str = "a message or the answer to one";

    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<bool> {
        self.send(client, user);
        Ok(false)
    }

    fn event(&mut self, _: &mut Client, user: usize, event: Event<'_>) -> io::Result<usize> {
        match event {
            Event::Message(message) => {
                self.ledger.take(user, message)?;
                self.to_arrive -= 1;
            }
            Event::Answered { .. } => {
                let sender = &mut self.ledger.users[user];
                if sender.answered == sender.sent {
                    return Err(io::Error::other(format!("u{user} was answered to what it did not ask")));
                }
                sender.answered += 1;
                self.to_answer -= 1;
                // One at most: nobody has two under way.
                self.is_free = self.to_send > 0;
            }
            _ => return Ok(0),
        }
        // All turns end at once: until then each is passed on.
        Ok(if self.to_answer + self.to_arrive == 0 { self.under_way } else { 0 })
    }

    /// The next one in turn who waits for no answer.
    fn awake(&mut self) -> Option<usize> {
        if !std::mem::take(&mut self.is_free) {
            return None;
        }
        let mut user = self.next;
        while self.ledger.users[user].answered < self.ledger.users[user].sent {
            user = self.after(user);
        }
        self.next = self.after(user);
        Some(user)
    }

    fn resume(&mut self, client: &mut Client, user: usize) {
        self.send(client, user);
    }
}

/// Has no divisor in common with the number of users, so that everybody has a turn.
const STRIDE: usize = 7_919;
