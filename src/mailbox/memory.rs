//! Mailboxes in memory: for a node without Redis. They end with the node.
//!
//! A message is kept as its bytes, one allocation, and 24 bytes in the queue of
//! its user. Places are the time since the first message, so they tell its age,
//! and one counter gives them to all mailboxes, so none is ever used twice.
//!
//! Besides the bound of each mailbox there is one on all of them together,
//! [`MEMORY_BYTES_MAX`]. It counts what the allocator takes: names, queues, the
//! tree of users and the rounding included. What is not used is given back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::mailbox::{Limits, READ_BYTES_MAX, READ_MESSAGES_MAX, REPEATS_MAX, Stored, decode, encode};
use crate::proto::Envelope;

/// The most memory of all mailboxes together.
pub const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a store that finds no room does not look again for messages that have expired meanwhile:
/// to look is to visit every mailbox.
const EXPIRE_PAUSE: Duration = Duration::from_secs(1);

/// The mailboxes of a node; whoever calls holds a lock.
#[derive(Debug)]
pub struct Mailboxes {
    limits: Limits,
    bytes_max: usize,
    /// A tree, which grows and shrinks by small steps. It never holds an empty queue.
    users: BTreeMap<Box<str>, Queue>,
    bytes: usize,
    messages: usize,
    /// When the first message was stored: places count from here.
    start: Option<Instant>,
    /// The place that was given last.
    last: u64,
    /// When all mailboxes were looked through.
    expired: Option<Instant>,
}

/// There is no room: the user's bound, or that of all users, is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One mailbox, the oldest message first.
type Queue = VecDeque<Kept>;

/// One message, encoded.
#[derive(Debug)]
struct Kept {
    place: u64,
    bytes: Box<[u8]>,
}

impl Mailboxes {
    /// Nothing is stored yet.
    pub fn new(limits: Limits) -> Self {
        Mailboxes {
            limits,
            bytes_max: MEMORY_BYTES_MAX,
            users: BTreeMap::new(),
            bytes: 0,
            messages: 0,
            start: None,
            last: 0,
            expired: None,
        }
    }

    /// Stores a message in the mailbox of its recipient.
    ///
    /// # Errors
    /// When the mailbox, or the memory of all, is full of messages that have not expired.
    pub fn store(&mut self, envelope: &Envelope, now: Instant) -> Result<(), Full> {
        let user = envelope.to.as_str();
        self.drop_below(user, self.expired_below(now));
        let mut bytes = vec![];
        encode(envelope, &mut bytes);
        if !self.has_memory(user, bytes.len()) && self.expire_is_due(now) {
            self.expire(now);
        }
        let queue = self.users.get(user);
        let is_full = queue.map_or(0, VecDeque::len) >= self.limits.messages_max;
        if is_full || !self.has_memory(user, bytes.len()) {
            let mut latest = queue.into_iter().flat_map(|queue| queue.iter().rev().take(REPEATS_MAX));
            return if latest.any(|kept| *kept.bytes == *bytes) { Ok(()) } else { Err(Full) };
        }
        // A copy: the allocator would not take back the end of what has grown.
        let kept = Kept { place: self.next_place(now), bytes: bytes[..].into() };
        self.bytes += chunk(kept.bytes.len());
        self.messages += 1;
        match self.users.get_mut(user) {
            Some(queue) => {
                self.bytes -= queue_bytes(queue);
                queue.push_back(kept);
                self.bytes += queue_bytes(queue);
            }
            None => {
                // Most mailboxes hold few messages: `from` takes no more than it needs.
                let queue = Queue::from([kept]);
                self.bytes += user_bytes(user) + queue_bytes(&queue);
                self.users.insert(user.into(), queue);
            }
        }
        Ok(())
    }

    /// Tells whether a message waits for the user.
    pub fn has(&mut self, user: &str, now: Instant) -> bool {
        self.drop_below(user, self.expired_below(now));
        self.users.contains_key(user)
    }

    /// The oldest messages behind the place `after`, as many as one read may have.
    pub fn read(&mut self, user: &str, after: u64, now: Instant) -> Vec<Stored> {
        self.drop_below(user, self.expired_below(now));
        let Some(queue) = self.users.get(user) else { return vec![] };
        let first = queue.partition_point(|kept| kept.place <= after);
        let (mut found, mut bytes) = (vec![], 0);
        for Kept { place, bytes: message } in queue.range(first..).take(READ_MESSAGES_MAX) {
            bytes += message.len();
            if bytes > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.extend(decode(message).map(|envelope| Stored { place: *place, envelope }));
        }
        found
    }

    /// Removes the messages up to the place `up_to`, and those at the places `also`. What is not
    /// there is left out, so this may be repeated.
    pub fn take(&mut self, user: &str, up_to: u64, also: &[u64]) {
        self.drop_below(user, up_to.saturating_add(1));
        if also.is_empty() {
            return;
        }
        self.change(user, |queue| {
            shrink(queue, |queue, removed| {
                for place in also {
                    if let Ok(at) = queue.binary_search_by_key(place, |kept| kept.place) {
                        removed.extend(queue.remove(at));
                    }
                }
            })
        });
    }

    /// Removes what has expired, from every mailbox.
    pub fn expire(&mut self, now: Instant) {
        self.expired = Some(now);
        let below = self.expired_below(now);
        let (bytes, messages) = (&mut self.bytes, &mut self.messages);
        self.users.retain(|user, queue| {
            if queue.front().is_some_and(|kept| kept.place < below) {
                let (bytes_freed, removed) = drop_from(queue, below);
                *bytes -= bytes_freed;
                *messages -= removed;
            }
            let is_kept = !queue.is_empty();
            *bytes -= if is_kept { 0 } else { user_bytes(user) };
            is_kept
        });
    }

    /// The memory of all mailboxes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages in all mailboxes.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Tells whether one more message of so many bytes fits, with all that has to grow for it.
    fn has_memory(&self, user: &str, bytes: usize) -> bool {
        let growth = match self.users.get(user) {
            // It doubles, or goes from one slot to four.
            Some(queue) if queue.len() == queue.capacity() => queue_bytes(queue).max(4 * SLOT_BYTES),
            Some(_) => 0,
            None => user_bytes(user) + chunk(SLOT_BYTES),
        };
        self.bytes + growth + chunk(bytes) <= self.bytes_max
    }

    /// Tells whether to look for what has expired, in order to make room.
    fn expire_is_due(&self, now: Instant) -> bool {
        self.expired.is_none_or(|at| now.saturating_duration_since(at) >= EXPIRE_PAUSE)
    }

    fn next_place(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        let us = now.saturating_duration_since(start).as_micros() as u64;
        self.last = us.max(self.last) + 1;
        self.last
    }

    /// Below this place everything has expired.
    fn expired_below(&self, now: Instant) -> u64 {
        let age = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        (age.as_micros() as u64 + 2).saturating_sub(self.limits.time_us())
    }

    /// Removes the messages whose places are below this one.
    fn drop_below(&mut self, user: &str, below: u64) {
        // The usual case is that nothing is so old.
        if self.users.get(user).and_then(|queue| queue.front()).is_some_and(|kept| kept.place < below) {
            self.change(user, |queue| drop_from(queue, below));
        }
    }

    /// Lets `remove` take messages out of a mailbox and tell what that freed.
    fn change(&mut self, user: &str, remove: impl FnOnce(&mut Queue) -> (usize, usize)) {
        let Some(queue) = self.users.get_mut(user) else { return };
        let (bytes_freed, removed) = remove(queue);
        self.bytes -= bytes_freed;
        self.messages -= removed;
        if queue.is_empty() {
            self.users.remove(user);
            self.bytes -= user_bytes(user);
        }
    }
}

/// Removes the messages whose places are below this one. Returns the bytes that were freed, and how
/// many messages it were.
fn drop_from(queue: &mut Queue, below: u64) -> (usize, usize) {
    shrink(queue, |queue, removed| {
        removed.extend(queue.drain(..queue.partition_point(|kept| kept.place < below)));
    })
}

/// Lets `remove` take messages out of a queue, and gives back what it does not need any more. Returns
/// the bytes that were freed, and how many messages it were.
fn shrink(queue: &mut Queue, remove: impl FnOnce(&mut Queue, &mut Vec<Kept>)) -> (usize, usize) {
    let (before, mut removed) = (queue_bytes(queue), vec![]);
    remove(queue, &mut removed);
    // Seldom enough that it costs each message next to nothing.
    if queue.len() <= queue.capacity() / 4 {
        queue.shrink_to(2 * queue.len());
    }
    let texts: usize = removed.iter().map(|kept| chunk(kept.bytes.len())).sum();
    (before - queue_bytes(queue) + texts, removed.len())
}

/// One message in a queue.
const SLOT_BYTES: usize = size_of::<Kept>();

fn queue_bytes(queue: &Queue) -> usize {
    if queue.capacity() == 0 { 0 } else { chunk(queue.capacity() * SLOT_BYTES) }
}

/// A user's name and entry; the nodes of a tree are half full at least.
fn user_bytes(user: &str) -> usize {
    chunk(user.len()) + 2 * size_of::<(Box<str>, Queue)>()
}

/// What an allocator takes for so many bytes: a word of its own, rounded up.
fn chunk(bytes: usize) -> usize {
    (bytes + size_of::<usize>()).next_multiple_of(16).max(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{MessageId, UserName};

    fn limits(messages_max: usize, time_s: u64) -> Limits {
        Limits { messages_max, time_max: Duration::from_secs(time_s) }
    }

    fn envelope(to: &str, id: &str, text: &str) -> Envelope {
        let name = |name| UserName::parse(name).expect("valid");
        let id = MessageId::Tag(id.into());
        Envelope {
            number: None,
            is_shared: false,
            is_again: false,
            from: name("alice"),
            to: name(to),
            id,
            text: text.into(),
        }
    }

    /// What `bytes` must be.
    fn count(mailboxes: &Mailboxes) -> usize {
        let texts = |queue: &Queue| queue.iter().map(|kept| chunk(kept.bytes.len())).sum::<usize>();
        let users = mailboxes.users.iter();
        users.map(|(user, queue)| user_bytes(user) + queue_bytes(queue) + texts(queue)).sum()
    }

    #[test]
    fn the_bound_on_all_makes_room_only_for_what_has_expired() {
        let mut mailboxes = Mailboxes::new(limits(1_000, 10));
        mailboxes.bytes_max = 10_000;
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let text = "x".repeat(500);
        let mut stored = 0;
        while mailboxes.store(&envelope(&format!("user{stored}"), "1", &text), at(0)) == Ok(()) {
            stored += 1;
            assert_eq!(mailboxes.bytes(), count(&mailboxes));
            assert!(mailboxes.bytes() <= 10_000);
        }
        assert!(stored >= 10, "{stored}");
        assert_eq!(mailboxes.store(&envelope("user0", "2", &text), at(0)), Err(Full), "known or not");
        assert_eq!(mailboxes.store(&envelope("user0", "1", &text), at(0)), Ok(()), "it is there already");
        assert_eq!(mailboxes.messages(), stored);
        assert!((0..stored).all(|n| mailboxes.has(&format!("user{n}"), at(9_999))), "nothing was dropped");
        assert_eq!(mailboxes.store(&envelope("other", "1", &text), at(9_999)), Err(Full));
        assert_eq!(mailboxes.store(&envelope("other", "1", &text), at(11_000)), Ok(()));
        assert_eq!(mailboxes.messages(), 1);
        mailboxes.take("other", u64::MAX, &[]);
        assert_eq!((mailboxes.bytes(), mailboxes.messages()), (0, 0));
    }

    #[test]
    fn each_message_has_its_own_time() {
        let mut mailboxes = Mailboxes::new(limits(2, 10));
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(mailboxes.store(&envelope("bob", "1", "one"), at(0)), Ok(()));
        assert_eq!(mailboxes.store(&envelope("bob", "2", "two"), at(4)), Ok(()));
        assert_eq!(mailboxes.store(&envelope("bob", "3", "three"), at(9)), Err(Full));
        assert_eq!(mailboxes.store(&envelope("bob", "3", "three"), at(10)), Ok(()), "the first has expired");
        let texts: Vec<_> =
            mailboxes.read("bob", 0, at(10)).iter().map(|m| m.envelope.text.to_string()).collect();
        assert_eq!(texts, ["two", "three"]);
        assert_eq!(mailboxes.read("bob", 0, at(14)).len(), 1);
        assert!(mailboxes.has("bob", at(19)));
        mailboxes.expire(at(20));
        assert_eq!((mailboxes.bytes(), mailboxes.messages()), (0, 0));
        assert!(!mailboxes.has("bob", at(20)));
    }

    #[test]
    fn memory_is_given_back_as_messages_go() {
        let mut mailboxes = Mailboxes::new(limits(10_000, 10));
        let now = Instant::now();
        for n in 0..10_000 {
            mailboxes.store(&envelope("bob", &n.to_string(), "hello"), now).expect("it fits");
        }
        let mut left = 10_000;
        while let Some(last) = mailboxes.read("bob", 0, now).last() {
            mailboxes.take("bob", last.place, &[]);
            left = mailboxes.messages();
            assert!(mailboxes.bytes() <= 200 + left * 200, "{left} take {}", mailboxes.bytes());
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
                    let result = mailboxes.store(&envelope(user, &n.to_string(), &n.to_string()), now);
                    assert_eq!(result.is_ok(), own.len() < 20);
                    if result.is_ok() {
                        list.push((user, ms, mailboxes.last, n.to_string()));
                    }
                }
                2 => {
                    let after = own.get(below(30) as usize).map_or(0, |(_, _, place, _)| *place);
                    let read = mailboxes.read(user, after, now);
                    let read: Vec<_> = read.iter().map(|m| (m.place, m.envelope.text.to_string())).collect();
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
