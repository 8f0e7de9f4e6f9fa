//! Who sends to whom, what was sent, and what has arrived.
//!
//! Each message's text carries its sender and a number. It must reach the
//! recipient whole, exactly once and in order, and come from whom it says: the
//! ledger tells as soon as that is not so. This is the generator's part of every
//! message, so nothing is allocated or printed anew for one: a sender's next
//! request and the next text that is due from it are kept, and counted up in place.

use std::io;

use crate::client::Client;
use crate::dialect::{Dialect, Message, Verb, unexpected};
use crate::load::{NUMBER_AT, SENDER_AT, count_up, read, text};

/// Everybody's counts, from login on.
pub struct Ledger {
    dialect: Dialect,
    pub users: Vec<User>,
}

/// One user as a sender. All counts are since login.
pub struct User {
    name: Vec<u8>,
    /// Whom this one sends to, if to anybody.
    recipient: Option<usize>,
    /// The next message, as it is sent, and where its text begins.
    request: Vec<u8>,
    text_at: usize,
    /// The text of the next message to arrive.
    due: Vec<u8>,
    pub sent: u32,
    /// How many of those have reached their recipient.
    pub arrived: u32,
    /// How many of those were answered; where nothing is, as many as have arrived.
    pub answered: u32,
}

impl Ledger {
    /// So many users who send to whom `recipient` tells, texts of so many bytes.
    pub fn new(
        dialect: Dialect,
        verb: Verb,
        users: usize,
        text_bytes: usize,
        recipient: impl Fn(usize) -> Option<usize>,
    ) -> Ledger {
        let user = |number| {
            let due = text(number, text_bytes);
            let head = recipient(number).map(|to| dialect.message_head(verb, number, to, text_bytes));
            let head = head.unwrap_or_default();
            User {
                name: dialect.name(number).into_bytes(),
                recipient: recipient(number),
                request: [&head, &due[..], dialect.message_tail()].concat(),
                text_at: head.len(),
                due,
                sent: 0,
                arrived: 0,
                answered: 0,
            }
        };
        Ledger { dialect, users: (0..users).map(user).collect() }
    }

    /// Whether this user sends to anybody.
    pub fn is_sender(&self, user: usize) -> bool {
        self.users[user].recipient.is_some()
    }

    /// Queues the next message of a sender.
    pub fn send(&mut self, client: &mut Client, sender: usize) {
        let user = &mut self.users[sender];
        self.dialect.number_head(&mut user.request[..user.text_at], user.sent);
        client.send(&user.request);
        count_up(&mut user.request[user.text_at..][NUMBER_AT]);
        user.sent += 1;
    }

    /// Takes a message that somebody has received; its sender and its number.
    pub fn take(&mut self, recipient: usize, message: Message<'_>) -> io::Result<(usize, u32)> {
        let text = message.text;
        let sender = text.get(SENDER_AT).and_then(read).map(|sender| sender as usize);
        let Some(sender) = sender.filter(|sender| *sender < self.users.len()) else {
            return Err(unexpected(recipient, text, "a message of the bench"));
        };
        let user = &mut self.users[sender];
        let number = user.arrived;
        let is_due = user.recipient == Some(recipient)
            && number < user.sent
            && message.from.is_none_or(|from| from == user.name)
            && text == user.due;
        if !is_due {
            let wanted = format!("message {number} of u{sender} to u{:?}", user.recipient);
            return Err(unexpected(recipient, text, &wanted));
        }
        count_up(&mut user.due[NUMBER_AT]);
        user.arrived += 1;
        Ok((sender, number))
    }
}
