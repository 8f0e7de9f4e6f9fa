//! Who sends to whom, what was sent, and what has arrived.
//!
//! Each message's text carries its sender and a number. It must reach the
//! recipient whole, exactly once and in order, and come from whom it says: the
//! ledger tells as soon as that is not so. Nothing is allocated for a message.

use std::io;

use crate::client::Client;
use crate::dialect::{Dialect, Message, Verb, unexpected};
use crate::load::{NUMBER_AT, SENDER_AT, digits, read, text};

/// Everybody's counts, from login on.
pub struct Ledger {
    dialect: Dialect,
    pub users: Vec<User>,
    /// The text of message 0 from user 0.
    text: Vec<u8>,
    /// The message that is printed, its room kept for the next one.
    request: Vec<u8>,
}

/// One user as a sender. All counts are since login.
pub struct User {
    name: Vec<u8>,
    /// Whom this one sends to, if to anybody.
    recipient: Option<usize>,
    /// What every message begins with.
    head: Vec<u8>,
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
        let user = |user| User {
            name: dialect.name(user).into_bytes(),
            recipient: recipient(user),
            head: recipient(user).map(|to| dialect.message_head(verb, to, text_bytes)).unwrap_or_default(),
            sent: 0,
            arrived: 0,
            answered: 0,
        };
        let text = text(text_bytes);
        Ledger { dialect, users: (0..users).map(user).collect(), text, request: Vec::new() }
    }

    /// Whether this user sends to anybody.
    pub fn is_sender(&self, user: usize) -> bool {
        self.users[user].recipient.is_some()
    }

    /// Queues the next message of a sender.
    pub fn send(&mut self, client: &mut Client, sender: usize) {
        let user = &mut self.users[sender];
        let request = &mut self.request;
        request.clear();
        request.extend_from_slice(&user.head);
        self.dialect.number_head(request, user.sent);
        let text = request.len();
        request.extend_from_slice(&self.text);
        digits(&mut request[text..][SENDER_AT], sender as u32);
        digits(&mut request[text..][NUMBER_AT], user.sent);
        request.extend_from_slice(self.dialect.message_tail());
        client.send(request);
        user.sent += 1;
    }

    /// Takes a message that somebody has received; its sender and its number.
    pub fn take(&mut self, recipient: usize, message: Message<'_>) -> io::Result<(usize, u32)> {
        let text = message.text;
        let sender =
            self.sender(text).ok_or_else(|| unexpected(recipient, text, "a message of the bench"))?;
        let user = &mut self.users[sender];
        let number = user.arrived;
        let is_due = user.recipient == Some(recipient)
            && number < user.sent
            && message.from.is_none_or(|from| from == user.name)
            && read(&text[NUMBER_AT]) == Some(number);
        if !is_due {
            let wanted = format!("message {number} of u{sender} to u{:?}", user.recipient);
            return Err(unexpected(recipient, text, &wanted));
        }
        user.arrived += 1;
        Ok((sender, number))
    }

    /// Who wrote a text, if it is one of ours and whole.
    fn sender(&self, text: &[u8]) -> Option<usize> {
        let is_ours = text.len() == self.text.len()
            && text[..SENDER_AT.start] == self.text[..SENDER_AT.start]
            && text[SENDER_AT.end..NUMBER_AT.start] == self.text[SENDER_AT.end..NUMBER_AT.start]
            && text[NUMBER_AT.end..] == self.text[NUMBER_AT.end..];
        let sender = read(text.get(SENDER_AT)?)? as usize;
        (is_ours && sender < self.users.len()).then_some(sender)
    }
}
