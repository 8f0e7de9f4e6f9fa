//! Numbers as decimal digits, without the formatting machinery of the standard library.
//!
//! Ids of messages that a node made end in one, so this is on the path of every message.

/// Appends `number` in decimal digits, without the formatting machinery.
pub(super) fn print_number(number: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let at = digits(number, &mut text);
    out.extend_from_slice(&text[at..]);
}

/// Puts the digits of a number at the end of `text`, and tells where they begin. This is on the path
/// of every message.
pub(super) fn digits(mut number: u64, text: &mut [u8]) -> usize {
    let mut at = text.len();
    loop {
        at -= 1;
        let tenth = tenth(number);
        text[at] = b'0' + (number - 10 * tenth) as u8;
        number = tenth;
        if number == 0 {
            return at;
        }
    }
}

/// `number / 10`, by multiplication with the reciprocal, rounded up, of 8 / 10 in units of 2^-64 (Granlund
/// and Montgomery, Division by Invariant Integers using Multiplication): where it optimizes for size,
/// the compiler takes the slow instruction that divides.
fn tenth(number: u64) -> u64 {
    const RECIPROCAL: u128 = 0xcccc_cccc_cccc_cccd;
    ((u128::from(number) * RECIPROCAL) >> 67) as u64
}
