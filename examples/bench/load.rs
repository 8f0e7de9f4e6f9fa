//! The load: users in pairs, each or one of them sending to its partner, in a
//! closed loop.
//!
//! Every sender keeps a window of messages under way: an `OK` for one lets it
//! send the next, and the `OK`s of one read let it send as many in one write. With
//! a window of 1 nothing can be batched for a user; with 16 a server that handles
//! many lines at a time is rewarded. A `CAST` has no `OK`: what its recipient has
//! received lets the sender go on.
//!
//! Each message carries its sender and a number. It must reach the recipient
//! whole, exactly once and in order, and its sender must be told so; the run
//! ends with an error as soon as that is not the case. A `CAST` may be lost, but
//! not where nothing is full and nobody goes. Where the dialect says so, recipients
//! acknowledge each message.

use std::io;

use crate::client::Client;
use crate::crowd::{Crowd, Job, unexpected};
use crate::dialect::{Dialect, Verb};

/// The load on one crowd, from its login to its end.
pub struct Pairs {
    dialect: Dialect,
    verb: Verb,
    users: Vec<User>,
    window: u32,
}

/// One end of a pair. All counts are since login.
struct User {
    /// `SEND partner `.
    send_head: Vec<u8>,
    /// What a message from the partner begins with.
    message_head: Vec<u8>,
    is_sender: bool,
    /// Messages to send, and to receive, until this turn is over.
    to_send: u32,
    to_receive: u32,
    sent: u32,
    answered: u32,
    received: u32,
}

impl Pairs {
    /// Pairs the users of a crowd: `u0` with `u1`, `u2` with `u3` and so on; everybody sends.
    pub fn new(dialect: Dialect, users: usize) -> Pairs {
        Pairs::of(dialect, Verb::Send, users, |_| true)
    }

    /// The same, but only users with an even number send.
    pub fn one_way(dialect: Dialect, verb: Verb, users: usize) -> Pairs {
        Pairs::of(dialect, verb, users, |user| user % 2 == 0)
    }

    /// From now on messages are sent this way.
    pub fn say(&mut self, verb: Verb) {
        self.verb = verb;
        for (number, user) in self.users.iter_mut().enumerate() {
            user.send_head = self.dialect.message_request(verb, partner(number));
        }
    }

    fn of(dialect: Dialect, verb: Verb, users: usize, is_sender: impl Fn(usize) -> bool) -> Pairs {
        assert!(users.is_multiple_of(2), "users come in pairs");
        let user = |user| User {
            send_head: dialect.message_request(verb, partner(user)),
            message_head: dialect.message_head(partner(user)),
            is_sender: is_sender(user),
            to_send: 0,
            to_receive: 0,
            sent: 0,
            answered: 0,
            received: 0,
        };
        Pairs { dialect, verb, users: (0..users).map(user).collect(), window: 0 }
    }

    /// Lets each sender send `each` messages, `window` of them under way at a time, and at most
    /// `at_once` users. Returns when every message was answered and received.
    pub fn exchange(&mut self, crowd: &mut Crowd, window: u32, each: u32, at_once: usize) -> io::Result<()> {
        self.window = window;
        for number in 0..self.users.len() {
            if self.users[number].is_sender {
                self.users[number].to_send += each;
                self.users[partner(number)].to_receive += each;
            }
        }
        crowd.run(self, self.users.len(), at_once)
    }

    /// Sends what the window has room for.
    fn fill(&mut self, client: &mut Client, number: usize) {
        let window = self.window;
        let user = &mut self.users[number];
        while user.sent < user.to_send && user.sent - user.answered < window {
            user.send(client, number);
        }
    }
}

impl Job for Pairs {
    fn begin(&mut self, client: &mut Client, number: usize) -> io::Result<()> {
        self.fill(client, number);
        Ok(())
    }

    fn line(&mut self, client: &mut Client, number: usize, line: &[u8]) -> io::Result<usize> {
        let user = &mut self.users[number];
        let mut turns = 1;
        if let Some(rest) = line.strip_prefix(&user.message_head[..]) {
            let text = self.dialect.message_text(rest);
            if text != Some(&payload(partner(number), user.received)) || user.received == user.to_receive {
                let wanted = format!("message {} of {}", user.received, self.dialect.name(partner(number)));
                return Err(unexpected(number, line, &wanted));
            }
            user.received += 1;
            if self.dialect.acks() {
                client.send(&self.dialect.acknowledgement(rest, partner(number)));
            }
            if self.verb == Verb::Cast {
                let received = user.received;
                self.users[partner(number)].answered = received;
                // That of its sender, too, whom nobody answers.
                turns = 2;
            }
        } else if self.dialect.is_delivered(line) && user.answered < user.sent {
            user.answered += 1;
            if user.sent < user.to_send {
                user.send(client, number);
            }
        } else {
            return Err(unexpected(number, line, "a message or the OK to one"));
        }
        // The counts only grow, up to the goal: both are there in one line only, the last one.
        let user = &self.users[number];
        let is_over = user.answered == user.to_send && user.received == user.to_receive;
        Ok(if is_over { turns } else { 0 })
    }

    fn partner(&self, number: usize) -> Option<usize> {
        (self.verb == Verb::Cast).then_some(partner(number))
    }

    fn resume(&mut self, client: &mut Client, number: usize) {
        self.fill(client, number);
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
pub fn payload(user: usize, number: u32) -> [u8; PAYLOAD_BYTES] {
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
