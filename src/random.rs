//! Ids that are unique by chance, and keys that nobody can guess, of random bytes as the system gives them.

use nanoid::nanoid;

use crate::proto::name::NodeId;

/// An id of so many characters, all of the alphabet.
pub(crate) fn random_id(length: usize, alphabet: &[char]) -> String {
    nanoid!(length, alphabet, random_bytes)
}

/// A node id that is used by nobody else, ever. `name` is the readable part.
///
/// # Panics
/// When the name can't be one.
pub fn fresh_id(name: &str) -> NodeId {
    NodeId::new(name, &random_id(8, &nanoid::alphabet::SAFE)).expect("the settings take no other name")
}

/// A number of which every value is equally likely.
pub(crate) fn random_number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system has random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let id = || random_id(8, &nanoid::alphabet::SAFE);
        assert_ne!(id(), id());
        assert_eq!(id().len(), 8);
        assert_ne!(random_number(), random_number());
    }
}
