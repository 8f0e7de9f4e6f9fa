//! A load that is the same for any number of users: so many messages under way,
//! no user having more than one, and the next one always sent by the next of all
//! users.
//!
//! A sender's `OK` passes its turn on. Every connection is used in turn, so what
//! a server has to fetch from memory for one is what it really has to; and a
//! server can't batch for anybody, whatever the size. The next one is not the
//! neighbour, because neighbours share cache lines that strangers don't.

use std::io;

use crate::client::Client;
use crate::crowd::{Crowd, Job, unexpected};
use crate::dialect::{Dialect, Verb};
use crate::load::payload;

/// The load; users are partners as in `load.rs`, and everybody sends.
pub struct Rotation {
    dialect: Dialect,
    users: Vec<User>,
    /// Whose turn it is.
    next: usize,
    /// Messages still to be sent, to be answered, and to be received.
    to_send: u64,
    to_answer: u64,
    to_receive: u64,
    /// Somebody's turn is over, and nobody has it yet.
    is_free: bool,
    under_way: usize,
}

struct User {
    send_head: Vec<u8>,
    message_head: Vec<u8>,
    sent: u32,
    answered: u32,
    received: u32,
}

impl Rotation {
    /// Users who have not sent anything.
    pub fn new(dialect: Dialect, users: usize) -> Rotation {
        assert!(users.is_multiple_of(2), "users come in pairs");
        let user = |user: usize| User {
            send_head: dialect.message_request(Verb::Send, user ^ 1),
            message_head: dialect.message_head(user ^ 1),
            sent: 0,
            answered: 0,
            received: 0,
        };
        let users = (0..users).map(user).collect();
        Rotation {
            dialect,
            users,
            next: 0,
            to_send: 0,
            to_answer: 0,
            to_receive: 0,
            is_free: false,
            under_way: 0,
        }
    }

    /// Moves so many messages, `under_way` at a time, and returns when all were answered and received.
    pub fn exchange(&mut self, crowd: &mut Crowd, messages: u64, under_way: usize) -> io::Result<()> {
        assert!(2 * under_way <= self.users.len(), "half of the users are idle, so that a turn can be passed on");
        (self.to_send, self.to_answer, self.to_receive) = (messages, messages, messages);
        self.under_way = under_way;
        crowd.run(self, under_way, under_way)
    }

    fn send(&mut self, client: &mut Client, number: usize) {
        let user = &mut self.users[number];
        client.send(&[&user.send_head[..], &payload(number, user.sent)].concat());
        user.sent += 1;
        self.to_send -= 1;
    }

    /// The next one in turn who waits for no answer.
    fn next(&self) -> usize {
        let mut number = self.next;
        while self.users[number].answered < self.users[number].sent {
            number = self.after(number);
        }
        number
    }

    fn after(&self, number: usize) -> usize {
        (number + STRIDE) % self.users.len()
    }
}

impl Job for Rotation {
    fn begin(&mut self, client: &mut Client, number: usize) -> io::Result<()> {
        self.send(client, number);
        Ok(())
    }

    fn line(&mut self, client: &mut Client, number: usize, line: &[u8]) -> io::Result<usize> {
        let user = &mut self.users[number];
        if let Some(rest) = line.strip_prefix(&user.message_head[..]) {
            if self.dialect.message_text(rest) != Some(&payload(number ^ 1, user.received)) {
                let wanted = format!("message {} of {}", user.received, self.dialect.name(number ^ 1));
                return Err(unexpected(number, line, &wanted));
            }
            user.received += 1;
            self.to_receive -= 1;
            if self.dialect.acks() {
                client.send(&self.dialect.acknowledgement(rest, number ^ 1));
            }
        } else if self.dialect.is_delivered(line) && user.answered < user.sent {
            user.answered += 1;
            self.to_answer -= 1;
            self.is_free = self.to_send > 0;
        } else {
            return Err(unexpected(number, line, "a message or the OK to one"));
        }
        // All turns end at once: until then each is passed on.
        Ok(if self.to_answer + self.to_receive == 0 { self.under_way } else { 0 })
    }

    fn partner(&self, _: usize) -> Option<usize> {
        self.is_free.then(|| self.next())
    }

    fn resume(&mut self, client: &mut Client, number: usize) {
        self.send(client, number);
        self.next = self.after(number);
        self.is_free = false;
    }
}

/// Has no divisor in common with the number of users, so that everybody has a turn.
const STRIDE: usize = 7_919;
