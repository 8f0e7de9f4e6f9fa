//! The load: users in pairs, each sending to its partner, in a closed loop.
//!
//! Every user keeps a window of messages under way: an `OK` for one lets it send
//! the next, and the `OK`s of one read let it send as many in one write. With a
//! window of 1 nothing can be batched for a user; with 16 a server that handles
//! many lines at a time is rewarded.
//!
//! Each message carries its sender and a number. It must reach the recipient
//! whole, exactly once and in order, and its sender must be told so; the run
//! ends with an error as soon as that is not the case.

use std::io;

use crate::client::Client;
use crate::crowd::{Crowd, Job, unexpected};
use crate::dialect::{self, Dialect};

/// The load on one crowd, from its login to its end.
pub struct Pairs {
    dialect: Dialect,
    users: Vec<User>,
    window: u32,
}

/// One end of a pair. All counts are since login.
struct User {
    /// `SEND partner `.
    send_head: Vec<u8>,
    /// What a message from the partner begins with.
    message_head: Vec<u8>,
    /// Messages to send, and to receive, until this turn is over.
    goal: u32,
    sent: u32,
    answered: u32,
    received: u32,
}

impl Pairs {
    /// Pairs the users of a crowd: `u0` with `u1`, `u2` with `u3` and so on.
    pub fn new(dialect: Dialect, users: usize) -> Pairs {
        assert!(users.is_multiple_of(2), "users come in pairs");
        let user = |user| User {
            send_head: dialect::send_head(partner(user)),
            message_head: dialect.message_head(partner(user)),
            goal: 0,
            sent: 0,
            answered: 0,
            received: 0,
        };
        Pairs { dialect, users: (0..users).map(user).collect(), window: 0 }
    }

    /// Lets each user send `each` messages, `window` of them under way at a time, and at most
    /// `at_once` users. Returns when every message was answered and received.
    pub fn exchange(&mut self, crowd: &mut Crowd, window: u32, each: u32, at_once: usize) -> io::Result<()> {
        self.window = window;
        for user in &mut self.users {
            user.goal += each;
        }
        crowd.run(self, self.users.len(), at_once)
    }
}

impl Job for Pairs {
    fn begin(&mut self, client: &mut Client, number: usize) -> io::Result<()> {
        let window = self.window;
        let user = &mut self.users[number];
        while user.sent < user.goal && user.sent - user.answered < window {
            user.send(client, number);
        }
        Ok(())
    }

    fn line(&mut self, client: &mut Client, number: usize, line: &[u8]) -> io::Result<bool> {
        let user = &mut self.users[number];
        if let Some(rest) = line.strip_prefix(&user.message_head[..]) {
            let text = self.dialect.message_text(rest);
            if text != Some(&payload(partner(number), user.received)) || user.received == user.goal {
                let wanted = format!("message {} of u{}", user.received, partner(number));
                return Err(unexpected(number, line, &wanted));
            }
            user.received += 1;
        } else if self.dialect.is_delivered(line) && user.answered < user.sent {
            user.answered += 1;
            if user.sent < user.goal {
                user.send(client, number);
            }
        } else {
            return Err(unexpected(number, line, "a message or the OK to one"));
        }
        // The counts only grow, up to the goal: both are there in one line only, the last one.
        Ok(user.answered == user.goal && user.received == user.goal)
    }
}

impl User {
    fn send(&mut self, client: &mut Client, number: usize) {
        let mut line = [0; SEND_HEAD_BYTES_MAX + PAYLOAD_BYTES];
        let (head, text) = line.split_at_mut(self.send_head.len());
        head.copy_from_slice(&self.send_head);
        text[..PAYLOAD_BYTES].copy_from_slice(&payload(number, self.sent));
        client.send(&line[..self.send_head.len() + PAYLOAD_BYTES]);
        self.sent += 1;
    }
}

fn partner(user: usize) -> usize {
    user ^ 1
}

/// The text of a user's message with this number.
fn payload(user: usize, number: u32) -> [u8; PAYLOAD_BYTES] {
    let mut text = *b"user 00000 message 0000000000, and a few words to make it longer";
    digits(&mut text[5..10], user as u32);
    digits(&mut text[19..29], number);
    text
}

/// Writes a number in decimal over all of `place`; by hand, as it is done for every message twice.
fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The length of every message's text.
pub const PAYLOAD_BYTES: usize = 64;
const SEND_HEAD_BYTES_MAX: usize = 32;
