//! The load on a server: users who send messages to one another.
//!
//! `closed` is a load where everybody waits for what is under way, `open` one at a
//! fixed rate, `rotation` one that is the same for any number of users; `ledger`
//! checks every message. What a message's text is, is here: its sender and a
//! number, and words up to the length that is wanted.

pub mod closed;
mod ledger;
pub mod open;
pub mod rotation;

use std::ops::Range;

/// The text of a user's message with this number, of the usual length.
pub fn payload(user: usize, number: u32) -> Vec<u8> {
    let mut text = text(user, PAYLOAD_BYTES);
    digits(&mut text[NUMBER_AT], number);
    text
}

/// The text of a user's message 0, of so many bytes.
fn text(user: usize, bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> = TEXT.iter().chain(FILLING.iter().cycle()).copied().take(bytes).collect();
    digits(&mut text[SENDER_AT], user as u32);
    text
}

/// Writes a number in decimal over all of `place`.
fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Adds one to the number that is all of `place`.
fn count_up(place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

/// The number that is all of `place`.
fn read(place: &[u8]) -> Option<u32> {
    place.iter().try_fold(0u32, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u32::from(digit - b'0')),
        _ => None,
    })
}

/// The length of most messages' texts.
pub const PAYLOAD_BYTES: usize = TEXT.len();
const TEXT: &[u8; 64] = b"user 00000 message 0000000000, and a few words to make it longer";
const FILLING: &[u8] = b", and more of them";
const SENDER_AT: Range<usize> = 5..10;
const NUMBER_AT: Range<usize> = 19..29;
