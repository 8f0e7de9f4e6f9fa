//! Ids that are unique by chance, of random bytes as the system gives them.

use nanoid::nanoid;
use rustix::rand::{GetRandomFlags, getrandom};

/// An id of so many characters, all of the alphabet.
pub(crate) fn random_id(length: usize, alphabet: &[char]) -> String {
    nanoid!(length, alphabet, random_bytes)
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let filled = rustix::io::retry_on_intr(|| getrandom(&mut bytes[..], GetRandomFlags::empty()));
    assert!(filled == Ok(count), "the system gives up to 256 bytes at once");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let id = || random_id(8, &nanoid::alphabet::SAFE);
        assert_ne!(id(), id());
        assert_eq!(id().len(), 8);
    }
}
