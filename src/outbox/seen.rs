//! The messages that a session was shown, so that a copy is not shown twice.
//!
//! A copy comes when a sender repeats a `SEND` under the same tag, or when a
//! node routes a message again because another one went away. A message is
//! remembered as a hash of its line (`seen_key.rs`): sender, id and text. The text
//! is part of it so that a client that uses a tag twice for two different
//! messages loses neither.
//!
//! Two generations: the last 2,048 messages are known at least, for 60 seconds
//! at least, whichever ends first, and no more or longer than twice that. A
//! generation is a list, oldest first, and a table of 16-bit places in it, which
//! is brought up to date when something is looked for: most messages can't be
//! copies, and adding to a list touches little memory. With 2,048 messages the
//! two take 24 KiB, with eight 96 bytes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Messages after which a generation is full: so many are remembered at least.
pub const SEEN_MAX: usize = 2_048;

/// So many messages of others are remembered at most: with one more the older generation would go.
const INHERITED_MAX: usize = 2 * SEEN_MAX - 2;

/// How long a message is remembered at least, unless [`SEEN_MAX`] others follow.
pub const SEEN_TIME: Duration = Duration::from_secs(60);

/// The last messages, as hashes.
#[derive(Debug, Default)]
pub struct Seen {
    newer: Generation,
    older: Generation,
    /// So many of the oldest are forgotten when [`SEEN_TIME`] has passed: they were here at `since`.
    aging: usize,
    /// So many of the oldest were shown elsewhere.
    inherited: usize,
    /// When time was last looked at and something was forgotten, or might have been.
    since: Option<Instant>,
}

/// Hashes of what a session was shown, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// All of them, beginning with what its user was shown elsewhere.
    pub all: Vec<u64>,
    /// So many were shown elsewhere.
    pub inherited: usize,
}

impl Shown {
    /// As many as are surely remembered, [`SEEN_MAX`]: a session that ends late, and knows less, must
    /// leave room for what others were shown.
    pub fn latest(&self) -> &[u64] {
        &self.all[self.all.len().saturating_sub(SEEN_MAX)..]
    }

    /// Those among the latest that the session itself was shown. Where the others are remembered
    /// already, adding them again would make them look new, and push out what is.
    pub fn latest_own(&self) -> &[u64] {
        let own = self.all.len() - self.inherited;
        &self.all[self.all.len() - own.min(SEEN_MAX)..]
    }
}

/// What a user was shown in several places, each list the oldest first, as one. Nobody knows how old the
/// messages are beside those of other lists, so the latest of all count the same.
pub fn merged(mut lists: Vec<Vec<u64>>) -> Vec<u64> {
    lists.retain(|list| !list.is_empty());
    if lists.len() < 2 {
        return lists.pop().unwrap_or_default();
    }
    latest_of(lists.iter().map(|list| &list[..]), INHERITED_MAX, HashSet::new())
}

/// About `most` hashes that are not `known`, the oldest first: from the ends of all lists, in turn.
fn latest_of<'a>(
    lists: impl IntoIterator<Item = &'a [u64]>,
    most: usize,
    mut known: HashSet<u64>,
) -> Vec<u64> {
    let mut lists: Vec<_> = lists.into_iter().map(|list| list.iter().rev()).collect();
    let mut latest = vec![];
    while latest.len() < most && !lists.is_empty() {
        lists.retain_mut(|list| {
            let hash = list.next();
            latest.extend(hash.filter(|hash| known.insert(**hash)));
            hash.is_some()
        });
    }
    latest.reverse();
    latest
}

/// Some hashes in the order they came, each once.
#[derive(Debug, Default)]
struct Generation {
    hashes: Vec<u64>,
    /// A table of where in `hashes` each stands: at most half full, a power of two long. A slot is 0,
    /// or the place plus one with the upper four bits of the hash above it. A hash belongs into the
    /// slot that its lower bits number, or the next free one.
    slots: Box<[u16]>,
    /// So many of the first are in the table.
    indexed: usize,
}

/// The bits of a slot that are of the hash.
const SIGN: u16 = 0xf000;

/// The slots of the smallest table.
const SLOTS_MIN: usize = 16;

const _: () = assert!(SEEN_MAX <= !SIGN as usize, "a place plus one fits into a slot");
const _: () = assert!(SEEN_MAX.is_power_of_two(), "the lists grow to that by doubling");

impl Seen {
    /// Remembers a message; `false` when it was remembered already.
    pub fn insert(&mut self, hash: u64) -> bool {
        let is_new = !self.contains(hash);
        if is_new {
            self.append(hash);
        }
        is_new
    }

    /// Tells whether a message is remembered.
    pub fn contains(&mut self, hash: u64) -> bool {
        self.older.contains(hash) || self.newer.contains(hash)
    }

    /// Remembers a message that is no copy.
    pub fn append(&mut self, hash: u64) {
        self.newer.hashes.push(hash);
        if self.newer.hashes.len() >= SEEN_MAX {
            self.aging = self.aging.saturating_sub(self.older.hashes.len());
            self.inherited = self.inherited.saturating_sub(self.older.hashes.len());
            // So many may well come again: the memory is used again, too.
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
    }

    /// Remembers messages that were shown elsewhere, the oldest first: before what was shown here.
    /// Nobody knows how old they are beside others from elsewhere, so the latest of both count the same.
    pub fn inherit(&mut self, hashes: &[u64]) {
        if hashes.iter().all(|hash| self.contains(*hash)) {
            return;
        }
        let Shown { all, inherited } = std::mem::take(self).shown();
        let (before, own) = all.split_at(inherited);
        let most = INHERITED_MAX.saturating_sub(own.len());
        let latest = latest_of([before, hashes], most, own.iter().copied().collect());
        latest.iter().chain(own).for_each(|hash| self.append(*hash));
        self.inherited = latest.len();
    }

    /// Forgets messages, which may be shown once more.
    pub fn remove(&mut self, hashes: &[u64]) {
        if hashes.iter().any(|hash| self.contains(*hash)) {
            let gone: HashSet<u64> = hashes.iter().copied().collect();
            let stay = |count: usize| self.all().take(count).filter(|hash| !gone.contains(hash)).count();
            (self.aging, self.inherited) = (stay(self.aging), stay(self.inherited));
            for generation in [&mut self.newer, &mut self.older] {
                generation.hashes.retain(|hash| !gone.contains(hash));
                generation.fit();
            }
        }
    }

    /// All that is remembered.
    pub fn shown(&self) -> Shown {
        Shown { all: self.all().collect(), inherited: self.inherited }
    }

    /// The same, the oldest first.
    fn all(&self) -> impl Iterator<Item = u64> {
        self.older.hashes.iter().chain(&self.newer.hashes).copied()
    }

    /// Time passes: what is old enough is forgotten. Tells whether anything is left.
    pub fn age(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= SEEN_TIME {
            let in_newer = self.aging.checked_sub(self.older.hashes.len());
            if in_newer.is_some() {
                self.older = std::mem::take(&mut self.newer);
            }
            self.older.hashes.drain(..in_newer.unwrap_or(self.aging));
            self.older.fit();
            self.inherited = self.inherited.saturating_sub(self.aging);
            self.aging = self.older.hashes.len() + self.newer.hashes.len();
            self.since = Some(now);
        }
        self.all().next().is_some()
    }
}

impl Generation {
    fn contains(&mut self, hash: u64) -> bool {
        self.index();
        !self.slots.is_empty() && self.slot(hash).is_none()
    }

    /// Puts the hashes that are not in the table yet into it.
    fn index(&mut self) {
        if self.indexed == self.hashes.len() {
            return;
        }
        let slots = (2 * self.hashes.len()).next_power_of_two().max(SLOTS_MIN);
        if slots > self.slots.len() {
            self.slots = vec![0; slots].into();
            self.indexed = 0;
        }
        for place in self.indexed..self.hashes.len() {
            let hash = self.hashes[place];
            if let Some(slot) = self.slot(hash) {
                self.slots[slot] = sign(hash) | (place as u16 + 1);
            }
        }
        self.indexed = self.hashes.len();
    }

    /// The free slot that a hash belongs into; `None` when it is here.
    fn slot(&self, hash: u64) -> Option<usize> {
        let last = self.slots.len() - 1;
        let mut at = hash as usize & last;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Some(at);
            }
            if slot & SIGN == sign(hash) && self.hashes[usize::from(slot & !SIGN) - 1] == hash {
                return None;
            }
            at = (at + 1) & last;
        }
    }

    /// Gives the memory back that it does not take any more: some hashes were removed.
    fn fit(&mut self) {
        self.hashes.shrink_to_fit();
        self.slots = Box::default();
        self.indexed = 0;
    }

    /// Forgets all, but keeps the memory.
    fn clear(&mut self) {
        self.hashes.clear();
        if self.indexed > 0 {
            self.slots.fill(0);
            self.indexed = 0;
        }
    }
}

fn sign(hash: u64) -> u16 {
    (hash >> 48) as u16 & SIGN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::SeenKey;

    #[test]
    fn copies_are_known_over_the_window() {
        let mut seen = Seen::default();
        let hash = |n: usize| SeenKey(7).hash(format!("MSG alice {n} x").as_bytes());
        for n in 0..10 * SEEN_MAX {
            assert!(seen.insert(hash(n)));
            assert!(!seen.insert(hash(n)));
            assert!(!seen.insert(hash(n.saturating_sub(SEEN_MAX - 1))), "{n}");
            assert!(seen.all().count() <= 2 * SEEN_MAX);
        }
        assert!(seen.insert(hash(0)), "forgotten");
        seen.remove(&[hash(0)]);
        assert!(seen.insert(hash(0)), "forgotten once more");
    }

    #[test]
    fn time_forgets_too() {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.insert(1);
        assert!(seen.age(start));
        seen.insert(2);
        assert!(seen.age(start + SEEN_TIME) && !seen.insert(1) && !seen.insert(2));
        seen.insert(3);
        assert!(seen.age(start + 2 * SEEN_TIME - Duration::from_millis(1)) && !seen.insert(1));
        assert!(seen.age(start + 2 * SEEN_TIME) && seen.insert(1) && !seen.insert(3));
        seen.age(start + 3 * SEEN_TIME);
        assert!(!seen.age(start + 4 * SEEN_TIME), "nothing is left");
    }

    #[test]
    fn memory_grows_with_use_and_is_given_back() {
        let start = Instant::now();
        let bytes = |seen: &Seen| {
            let bytes = |of: &Generation| 8 * of.hashes.capacity() + 2 * of.slots.len();
            bytes(&seen.newer) + bytes(&seen.older)
        };
        let mut seen = Seen::default();
        assert_eq!(bytes(&seen), 0);
        let mut hashes = (0..).map(|n: u64| SeenKey(7).hash(&n.to_le_bytes()));
        seen.age(start);
        for count in 1..=8 * SEEN_MAX {
            seen.insert(hashes.next().expect("endless"));
            let places = count.next_power_of_two().clamp(SLOTS_MIN / 2, SEEN_MAX);
            assert!(bytes(&seen) <= 2 * 12 * places, "{count}");
        }
        assert!(seen.age(start + SEEN_TIME) && bytes(&seen) > 12 * SEEN_MAX);
        seen.insert(hashes.next().expect("endless"));
        assert!(seen.age(start + 2 * SEEN_TIME));
        assert_eq!(bytes(&seen), 8, "one hash, which nobody has looked for");
        assert!(!seen.age(start + 3 * SEEN_TIME) && bytes(&seen) == 0);
    }

    #[test]
    fn time_does_not_forget_what_came_just_now() {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.age(start);
        let count = 2 * SEEN_MAX as u64;
        assert!((0..count).all(|hash| seen.insert(hash)));
        assert!(
            seen.age(start + SEEN_TIME) && (count - SEEN_MAX as u64..count).all(|hash| !seen.insert(hash))
        );
    }

    #[test]
    fn all_are_told_oldest_first() {
        let mut seen = Seen::default();
        let count = 3 * SEEN_MAX as u64 + 100;
        assert!((0..count).all(|hash| seen.insert(hash)));
        assert!(seen.all().eq(2 * SEEN_MAX as u64..count));
        let latest = count - 1;
        seen.remove(&[latest, 7, 2 * SEEN_MAX as u64, latest]);
        assert!(seen.all().eq(2 * SEEN_MAX as u64 + 1..latest));
        assert!(seen.insert(latest) && !seen.insert(latest));
    }

    #[test]
    fn what_is_inherited_came_before() {
        let many = |from: u64, count: usize| (from..from + count as u64).collect::<Vec<u64>>();
        let mut seen = Seen::default();
        let own = many(1_000_000, SEEN_MAX);
        assert!(own.iter().all(|hash| seen.insert(*hash)));
        seen.inherit(&many(0, 4 * SEEN_MAX));
        assert!(own.iter().all(|hash| !seen.insert(*hash)), "no matter how much that was");
        assert!(many(3 * SEEN_MAX as u64 + 2, SEEN_MAX - 2).iter().all(|hash| !seen.insert(*hash)));
        assert_eq!(seen.shown().latest_own(), own);
        seen.append(7);
        assert_eq!(seen.shown().latest(), [&own[1..], &[7]].concat());
        // The latest from two places count the same.
        let mut seen = Seen::default();
        seen.inherit(&many(0, 4 * SEEN_MAX));
        seen.inherit(&many(1_000_000, 4 * SEEN_MAX));
        let latest = |from: u64| many(from + 3 * SEEN_MAX as u64 + 1, SEEN_MAX - 1);
        assert!(latest(0).iter().chain(&latest(1_000_000)).all(|hash| !seen.insert(*hash)));
        assert!(seen.shown().latest_own().is_empty());
        let mut seen = Seen::default();
        seen.append(7);
        seen.inherit(&[1, 2, 7]);
        seen.inherit(&[3, 4]);
        assert_eq!(seen.shown(), Shown { all: vec![3, 1, 4, 2, 7], inherited: 4 });
        seen.remove(&[3, 7]);
        assert_eq!(seen.shown(), Shown { all: vec![1, 4, 2], inherited: 3 });
    }

    #[test]
    fn what_was_shown_in_several_places_becomes_one_list() {
        let merged = |lists: &[&[u64]]| merged(lists.iter().map(|list| list.to_vec()).collect());
        assert!(merged(&[]).is_empty() && merged(&[&[], &[]]).is_empty());
        let many: Vec<u64> = (0..4 * SEEN_MAX as u64).collect();
        assert_eq!(merged(&[&[], &many, &[]]), many, "as it is");
        assert_eq!(merged(&[&[1, 2, 3], &[], &[3, 4], &[2, 5]]), [1, 2, 5, 4, 3]);
        let all = merged(&[&many, &[1 << 40, 1 << 41], &many[..SEEN_MAX]]);
        let last = many.len() as u64 - 1;
        assert!(all.ends_with(&[1 << 40, last - 1, SEEN_MAX as u64 - 1, 1 << 41, last]), "in turn");
        assert!((INHERITED_MAX..INHERITED_MAX + 3).contains(&all.len()));
    }

    #[test]
    fn what_is_inherited_is_forgotten_first() {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.inherit(&[1, 2]);
        seen.age(start);
        seen.append(3);
        seen.age(start + SEEN_TIME);
        assert_eq!(seen.shown(), Shown { all: vec![1, 2, 3], inherited: 2 });
        seen.append(4);
        seen.age(start + 2 * SEEN_TIME);
        assert_eq!(seen.shown(), Shown { all: vec![4], inherited: 0 });
        seen.inherit(&(100..100 + SEEN_MAX as u64).collect::<Vec<_>>());
        let own = 10_000..10_000 + 2 * SEEN_MAX as u64;
        own.clone().for_each(|hash| seen.append(hash));
        let shown = seen.shown();
        assert!(shown.inherited == 0 && shown.all.iter().all(|hash| own.contains(hash)));
    }

    #[test]
    fn it_does_what_a_plain_list_does() {
        let key = match std::env::var("PINPOST_SEED") {
            Ok(seed) => seed.parse().expect("a number"),
            Err(_) => crate::pause::random(),
        };
        println!("PINPOST_SEED={key}");
        let mut count = 0_u64;
        let mut random = |below: u64| {
            count += 1;
            SeenKey(key).hash(&count.to_le_bytes()) % below
        };
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.age(start);
        // All that is known, with the minute in which it came; how many of them came first, and
        // go together when so many others have come.
        let (mut list, mut first, mut minute): (Vec<(u64, u32)>, usize, u32) = (vec![], 0, 0);
        for step in 0..30_000 {
            // Few different lower and upper bits: long runs of slots, and signs that are the same.
            let hash = (random(3) << 60) + (random(4) << 20) + random(2_048) * 5 % 4_096;
            match random(3_000) {
                0 => {
                    minute += 1;
                    let old = list.iter().filter(|(_, came)| came + 1 < minute).count();
                    list.drain(..old);
                    first = if old >= first { list.len() } else { first - old };
                    assert_eq!(seen.age(start + SEEN_TIME * minute), !list.is_empty());
                }
                1..50 => {
                    let mut gone: Vec<u64> = list.iter().map(|(hash, _)| *hash).collect();
                    gone.retain(|_| random(300) == 0);
                    first -= list[..first].iter().filter(|(hash, _)| gone.contains(hash)).count();
                    list.retain(|(hash, _)| !gone.contains(hash));
                    gone.push(hash + (1 << 59));
                    seen.remove(&gone);
                }
                _ => {
                    let is_new = list.iter().all(|(other, _)| *other != hash);
                    if is_new {
                        list.push((hash, minute));
                    }
                    if list.len() - first >= SEEN_MAX {
                        list.drain(..first);
                        first = list.len();
                    }
                    if is_new && random(4) > 0 {
                        seen.append(hash);
                    } else {
                        assert_eq!(seen.insert(hash), is_new, "step {step}");
                    }
                }
            }
            assert!(step % 16 != 0 || seen.all().eq(list.iter().map(|(hash, _)| *hash)), "step {step}");
        }
    }
}
