//! Mailboxes in memory: for a node without Redis. They end with the node.
//!
//! A message is one allocation, and a slot in the queue of its user. Places are the time
//! since the first message, so they tell its age, and one counter gives them to all
//! mailboxes, so none is ever used twice.
//!
//! Besides the bound of each mailbox there is one on all of them together,
//! [`Limits::bytes_max`]. It counts what the allocator may take at most: names, half-full
//! queues, the tree of users and the rounding included. What is not used is given back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::mailbox::{Limits, READ_BYTES_MAX, READ_MESSAGES_MAX, REPEATS_MAX};
use crate::node::seam::Letter;

/// How long nobody looks for messages of all users that have expired, as that is to visit every mailbox;
/// and how long a store does not that finds no room.
const EXPIRE_PAUSE: Duration = Duration::from_secs(60);
const EXPIRE_PAUSE_MIN: Duration = Duration::from_secs(1);

/// The mailboxes of a node, or of a mesh.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    limits: Limits,
    /// A tree, which grows and shrinks by small steps. It never holds an empty queue.
    users: BTreeMap<Box<str>, Queue>,
    bytes: usize,
    messages: usize,
    /// When the first message was stored: places count from here.
    start: Option<Instant>,
    /// The place that was given last.
    last: u64,
    /// When all mailboxes were looked through last, or the first message came.
    expired: Option<Instant>,
}

/// There is no room: the user's bound, or that of all users, is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One mailbox, the oldest message first: a place and a body each.
type Queue = VecDeque<(u64, Box<[u8]>)>;

impl Mailboxes {
    /// Nothing is stored yet.
    pub fn new(limits: Limits) -> Self {
        Mailboxes {
            limits,
            users: BTreeMap::new(),
            bytes: 0,
            messages: 0,
            start: None,
            last: 0,
            expired: None,
        }
    }

    /// Stores a message, the body of one on the wire, in the mailbox of a user.
    ///
    /// # Errors
    /// When the mailbox, or the memory of all, is full of messages that have not expired.
    pub fn store(&mut self, user: &str, body: &[u8], now: Instant) -> Result<(), Full> {
        self.drop_expired(user, now);
        let pause = if self.has_memory(user, body) { EXPIRE_PAUSE } else { EXPIRE_PAUSE_MIN };
        if now.saturating_duration_since(*self.expired.get_or_insert(now)) >= pause {
            self.expire(now);
        }
        let queue = self.users.get(user);
        if queue.map_or(0, VecDeque::len) >= self.limits.messages_max || !self.has_memory(user, body) {
            let mut latest = queue.into_iter().flat_map(|queue| queue.iter().rev().take(REPEATS_MAX));
            return if latest.any(|(_, known)| **known == *body) { Ok(()) } else { Err(Full) };
        }
        let start = *self.start.get_or_insert(now);
        self.last = (now.saturating_duration_since(start).as_micros() as u64).max(self.last) + 1;
        self.bytes += message_bytes(body);
        self.messages += 1;
        let kept = (self.last, body.into());
        if let Some(queue) = self.users.get_mut(user) {
            queue.push_back(kept);
        } else {
            // Most mailboxes hold few messages: `from` takes no more than it needs.
            self.users.insert(user.into(), Queue::from([kept]));
            self.bytes += user_bytes(user);
        }
        Ok(())
    }

    /// Tells whether a message waits for the user.
    pub fn has(&mut self, user: &str, now: Instant) -> bool {
        self.drop_expired(user, now);
        self.users.contains_key(user)
    }

    /// The oldest messages behind the place `after`, as many as one read may have.
    pub fn read(&mut self, user: &str, after: u64, now: Instant) -> Vec<Letter> {
        self.drop_expired(user, now);
        let Some(queue) = self.users.get(user) else { return vec![] };
        let first = queue.partition_point(|(place, _)| *place <= after);
        let (mut found, mut bytes) = (vec![], 0);
        for (place, body) in queue.range(first..).take(READ_MESSAGES_MAX) {
            bytes += body.len();
            if bytes > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(Letter { place: *place, body: body.to_vec() });
        }
        found
    }

    /// Removes the messages up to the place `up_to`, and those at the places `also`. What is not
    /// there is left out, so this may be repeated.
    pub fn take(&mut self, user: &str, up_to: u64, also: &[u64]) {
        self.change(user, |queue| {
            let mut taken = drop_below(queue, up_to.saturating_add(1));
            for place in also {
                if let Ok(at) = queue.binary_search_by_key(place, |(place, _)| *place) {
                    taken.extend(queue.remove(at));
                }
            }
            taken
        });
    }

    /// Removes what has expired, from every mailbox.
    pub fn expire(&mut self, now: Instant) {
        self.expired = Some(now);
        let below = self.expired_below(now);
        let is_old = |queue: &Queue| queue.front().is_some_and(|(place, _)| *place < below);
        let old: Vec<Box<str>> =
            self.users.iter().filter(|(_, queue)| is_old(queue)).map(|(user, _)| user.clone()).collect();
        old.iter().for_each(|user| self.change(user, |queue| drop_below(queue, below)));
    }

    /// The memory of all mailboxes, at most.
    #[cfg(any(test, feature = "internals"))]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages in all mailboxes.
    #[cfg(any(test, feature = "internals"))]
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Tells whether there is memory for one more message.
    fn has_memory(&self, user: &str, body: &[u8]) -> bool {
        let of_user = if self.users.contains_key(user) { 0 } else { user_bytes(user) };
        (self.bytes + of_user + message_bytes(body)) as u64 <= self.limits.bytes_max
    }

    /// Below this place everything has expired.
    fn expired_below(&self, now: Instant) -> u64 {
        let age = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        (age.as_micros() as u64 + 2).saturating_sub(self.limits.time_us())
    }

    fn drop_expired(&mut self, user: &str, now: Instant) {
        let below = self.expired_below(now);
        self.change(user, |queue| drop_below(queue, below));
    }

    /// Lets `remove` take messages out of a mailbox, and gives back what it does not need any more.
    fn change(&mut self, user: &str, remove: impl FnOnce(&mut Queue) -> Vec<(u64, Box<[u8]>)>) {
        let Some(queue) = self.users.get_mut(user) else { return };
        let removed = remove(queue);
        self.messages -= removed.len();
        self.bytes -= removed.iter().map(|(_, body)| message_bytes(body)).sum::<usize>();
        if queue.is_empty() {
            self.users.remove(user);
            self.bytes -= user_bytes(user);
        } else if queue.len() < queue.capacity() / 2 {
            // Seldom enough that it costs each message next to nothing.
            queue.shrink_to(queue.len() + queue.len() / 2);
        }
    }
}

/// Takes out the messages whose places are below this one.
fn drop_below(queue: &mut Queue, below: u64) -> Vec<(u64, Box<[u8]>)> {
    queue.drain(..queue.partition_point(|(place, _)| *place < below)).collect()
}

/// One message in a queue.
const SLOT_BYTES: usize = size_of::<(u64, Box<[u8]>)>();

/// A message, in a queue that is half full.
fn message_bytes(body: &[u8]) -> usize {
    chunk(body.len()) + 2 * SLOT_BYTES
}

/// A user's name, a queue with few messages, and the entry; the nodes of a tree are half full at least.
fn user_bytes(user: &str) -> usize {
    chunk(user.len()) + chunk(4 * SLOT_BYTES) + 2 * size_of::<(Box<str>, Queue)>()
}

/// What an allocator takes for so many bytes: a word of its own, rounded up.
fn chunk(bytes: usize) -> usize {
    (bytes + size_of::<usize>()).next_multiple_of(16).max(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(messages_max: usize, time_s: u64) -> Limits {
        Limits { messages_max, time_max: Duration::from_secs(time_s), bytes_max: 1 << 20 }
    }

    fn texts(letters: &[Letter]) -> Vec<String> {
        letters.iter().map(|letter| String::from_utf8_lossy(&letter.body).into_owned()).collect()
    }

    /// What `bytes` must be, and is never less than what is taken.
    fn count(mailboxes: &Mailboxes) -> usize {
        let of_user = |user: &str, queue: &Queue| {
            let bodies: usize = queue.iter().map(|(_, body)| chunk(body.len())).sum();
            let taken = chunk(user.len()) + bodies + chunk(queue.capacity() * SLOT_BYTES);
            let counted = user_bytes(user) + queue.iter().map(|(_, body)| message_bytes(body)).sum::<usize>();
            assert!(taken <= counted, "{taken} of {counted}");
            counted
        };
        mailboxes.users.iter().map(|(user, queue)| of_user(user, queue)).sum()
    }

    #[test]
    fn the_bound_on_all_makes_room_only_for_what_has_expired() {
        let mut mailboxes = Mailboxes::new(limits(1_000, 10));
        mailboxes.limits.bytes_max = 10_000;
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (text, other) = ("x".repeat(500), "y".repeat(500));
        let mut stored = 0;
        while mailboxes.store(&format!("user{stored}"), text.as_bytes(), at(0)) == Ok(()) {
            stored += 1;
            assert_eq!(mailboxes.bytes(), count(&mailboxes));
            assert!(mailboxes.bytes() <= 10_000);
        }
        assert!(stored >= 10, "{stored}");
        assert_eq!(mailboxes.store("user0", other.as_bytes(), at(0)), Err(Full), "known or not");
        assert_eq!(mailboxes.store("user0", text.as_bytes(), at(0)), Ok(()), "it is there already");
        assert_eq!(mailboxes.messages(), stored);
        assert!((0..stored).all(|n| mailboxes.has(&format!("user{n}"), at(9_999))), "nothing was dropped");
        assert_eq!(mailboxes.store("other", text.as_bytes(), at(9_999)), Err(Full));
        assert_eq!(mailboxes.store("other", text.as_bytes(), at(11_000)), Ok(()));
        assert_eq!(mailboxes.messages(), 1);
        mailboxes.take("other", u64::MAX, &[]);
        assert_eq!((mailboxes.bytes(), mailboxes.messages()), (0, 0));
    }

    #[test]
    fn each_message_has_its_own_time() {
        let mut mailboxes = Mailboxes::new(limits(2, 10));
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(mailboxes.store("bob", b"one", at(0)), Ok(()));
        assert_eq!(mailboxes.store("bob", b"two", at(4)), Ok(()));
        assert_eq!(mailboxes.store("bob", b"three", at(9)), Err(Full));
        assert_eq!(mailboxes.store("bob", b"three", at(10)), Ok(()), "the first has expired");
        assert_eq!(texts(&mailboxes.read("bob", 0, at(10))), ["two", "three"]);
        assert_eq!(mailboxes.read("bob", 0, at(14)).len(), 1);
        assert!(mailboxes.has("bob", at(19)));
        mailboxes.expire(at(20));
        assert_eq!((mailboxes.bytes(), mailboxes.messages()), (0, 0));
        assert!(!mailboxes.has("bob", at(20)));
    }

    #[test]
    fn what_has_expired_goes_though_nobody_asks_for_it() {
        let mut mailboxes = Mailboxes::new(limits(10, 10));
        let start = Instant::now();
        (0..100).for_each(|n| assert_eq!(mailboxes.store(&n.to_string(), b"hello", start), Ok(())));
        assert_eq!(mailboxes.store("bob", b"hello", start + EXPIRE_PAUSE / 2), Ok(()));
        assert_eq!(mailboxes.messages(), 101);
        assert_eq!(mailboxes.store("bob", b"hello", start + EXPIRE_PAUSE), Ok(()));
        assert_eq!(mailboxes.messages(), 1);
    }

    #[test]
    fn memory_is_given_back_as_messages_go() {
        let mut mailboxes = Mailboxes::new(limits(10_000, 10));
        let now = Instant::now();
        for n in 0..10_000 {
            mailboxes.store("bob", format!("hello {n}").as_bytes(), now).expect("it fits");
        }
        let mut left = 10_000;
        while let Some(last) = mailboxes.read("bob", 0, now).last() {
            mailboxes.take("bob", last.place, &[]);
            left = mailboxes.messages();
            assert!(mailboxes.bytes() <= 300 + left * 200, "{left} take {}", mailboxes.bytes());
        }
        assert_eq!((left, mailboxes.bytes()), (0, 0));
    }

    /// Random calls on a few mailboxes, and what a list of all messages makes of them.
    #[test]
    fn random_calls_do_what_a_plain_list_does() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let users = ["bob", "小明", "a}{b"];
        let mut mailboxes = Mailboxes::new(limits(20, 1));
        let (start, mut ms) = (Instant::now(), 0);
        // User, when it was stored in ms, place, text.
        let mut list: Vec<(&str, u64, u64, String)> = vec![];
        for n in 0..50_000 {
            ms += below(20);
            let now = start + Duration::from_millis(ms);
            let user = users[below(3) as usize];
            list.retain(|(_, at, ..)| at + 1_000 > ms);
            let own: Vec<_> = list.iter().filter(|(to, ..)| *to == user).cloned().collect();
            match below(5) {
                0 | 1 => {
                    let result = mailboxes.store(user, n.to_string().as_bytes(), now);
                    assert_eq!(result.is_ok(), own.len() < 20);
                    if result.is_ok() {
                        list.push((user, ms, mailboxes.last, n.to_string()));
                    }
                }
                2 => {
                    let after = own.get(below(30) as usize).map_or(0, |(_, _, place, _)| *place);
                    let read = mailboxes.read(user, after, now);
                    let read: Vec<_> = read.iter().map(|letter| letter.place).zip(texts(&read)).collect();
                    let wanted = own.into_iter().filter(|(_, _, place, _)| *place > after);
                    assert_eq!(read, wanted.map(|(_, _, place, text)| (place, text)).collect::<Vec<_>>());
                }
                3 if below(4) == 0 => {
                    let mut place = || own.get(below(30) as usize).map_or(0, |(_, _, place, _)| *place);
                    let (up_to, also) = (place(), [place(), place()]);
                    mailboxes.take(user, up_to, &also);
                    mailboxes.take(user, up_to, &also);
                    list.retain(|(to, _, at, _)| *to != user || *at > up_to && !also.contains(at));
                }
                3 => assert_eq!(mailboxes.has(user, now), !own.is_empty()),
                _ => mailboxes.expire(now),
            }
            assert_eq!(mailboxes.bytes(), count(&mailboxes));
        }
    }
}
