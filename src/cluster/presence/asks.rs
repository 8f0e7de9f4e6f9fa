//! What the node asks and presence has not asked Redis yet, in the order in which it will: logins and what else
//! changes something, then where users are, which anybody may ask of anybody, then the reads of mailboxes, whose
//! replies are long. Each kind keeps its order.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cluster::command::RedisReply;
use crate::mailbox::READ_BYTES_MAX;
use crate::node::seam::{Ask, What};

/// Questions in one round, and as many where users are.
const ASKS_MAX: usize = 512;

/// Bytes that are stored in one round; a larger store goes alone.
const STORES_BYTES_MAX: usize = 1024 * 1024;

/// Reads of mailboxes in one round, of 64 KiB each,
const READS_MAX: usize = 512;

/// and in the first one.
const READS_AT_FIRST: usize = 16;

/// A round that takes longer, and brings more than one read, has too many of them.
const READS_TIME: Duration = Duration::from_millis(250);

/// What waits for the next round.
pub struct Asks {
    changes: VecDeque<Ask>,
    lookups: VecDeque<Ask>,
    reads: VecDeque<Ask>,
    /// So many of these go into the next round.
    reads_at_once: usize,
}

impl Default for Asks {
    fn default() -> Self {
        let (changes, lookups, reads) = Default::default();
        Asks { changes, lookups, reads, reads_at_once: READS_AT_FIRST }
    }
}

impl Asks {
    /// The node asks.
    pub fn push(&mut self, ask: Ask) {
        self.of(&ask).push_back(ask);
    }

    /// What could not be answered is asked again, before anything of its kind.
    pub fn put_back(&mut self, ask: Ask) {
        self.of(&ask).push_front(ask);
    }

    fn of(&mut self, ask: &Ask) -> &mut VecDeque<Ask> {
        match ask.what {
            What::Locate(_) => &mut self.lookups,
            What::Read(..) => &mut self.reads,
            _ => &mut self.changes,
        }
    }

    /// Takes out what goes into the next round.
    pub fn next(&mut self) -> Vec<Ask> {
        let (mut next, mut bytes) = (vec![], 0);
        while next.len() < ASKS_MAX && bytes < STORES_BYTES_MAX {
            let Some(ask) = self.changes.pop_front() else { break };
            if let What::Store(messages) = &ask.what {
                bytes += messages.iter().map(Vec::len).sum::<usize>();
            }
            next.push(ask);
        }
        next.extend(self.lookups.drain(..self.lookups.len().min(ASKS_MAX)));
        next.extend(self.reads.drain(..self.reads.len().min(self.reads_at_once)));
        next
    }

    /// A round took so long to bring these: mailboxes are read as fast as the way to Redis allows beside all else. That
    /// Redis is far says nothing.
    pub fn have_read(&mut self, replies: &[RedisReply], took: Duration) {
        let mut letters = replies.iter().filter_map(|reply| match reply {
            RedisReply::Letters(letters) => Some(letters),
            _ => None,
        });
        let Some(first) = letters.next() else { return };
        let bytes: usize = first.iter().chain(letters.flatten()).map(|letter| letter.body.len()).sum();
        let is_slow = took > READS_TIME && bytes > READ_BYTES_MAX;
        let reads = if is_slow { self.reads_at_once / 2 } else { self.reads_at_once * 2 };
        self.reads_at_once = reads.clamp(1, READS_MAX);
    }

    /// Takes out everything: Redis is away.
    pub fn take_all(&mut self) -> impl Iterator<Item = Ask> + use<> {
        let Asks { changes, lookups, reads, .. } = std::mem::take(self);
        changes.into_iter().chain(lookups).chain(reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::seam::Letter;
    use crate::node::slab::Ticket;
    use crate::proto::name::{SessionId, UserName};

    fn ask(what: What) -> Ask {
        Ask { ticket: Ticket::default(), user: UserName::parse("bob").expect("valid"), what }
    }

    fn session() -> SessionId {
        SessionId::parse("abcdefgh").expect("valid")
    }

    #[test]
    fn logins_come_before_lookups_and_these_before_mail() {
        let mut asks = Asks::default();
        (0..=2 * ASKS_MAX).for_each(|_| asks.push(ask(What::Locate(false))));
        (0..9).for_each(|_| asks.push(ask(What::Read(session(), 0))));
        asks.push(ask(What::Register(session())));
        let next = asks.next();
        assert_eq!((next.len(), &next[0].what), (1 + ASKS_MAX + 9, &What::Register(session())));
        assert_eq!(next[1 + ASKS_MAX].what, What::Read(session(), 0));
        asks.push(ask(What::Read(session(), 0)));
        assert_eq!(asks.next().len(), ASKS_MAX + 1);
        assert_eq!(asks.take_all().count(), 1);
    }

    #[test]
    fn what_is_stored_in_one_round_is_bounded() {
        let mut asks = Asks::default();
        let store = || ask(What::Store(vec![vec![0; STORES_BYTES_MAX / 2]]));
        (0..3).for_each(|_| asks.push(store()));
        asks.put_back(ask(What::Store(vec![vec![0; 2 * STORES_BYTES_MAX]])));
        assert_eq!([(); 3].map(|()| asks.next().len()), [1, 2, 1]);
    }

    #[test]
    fn mailboxes_are_read_as_fast_as_the_way_allows() {
        let mut asks = Asks::default();
        let mut reads = |took: Duration, bytes: usize| {
            (0..READS_MAX).for_each(|_| asks.push(ask(What::Read(session(), 0))));
            let count = asks.next().len();
            let letter = Letter { place: 1, body: vec![0; bytes] };
            asks.have_read(&[RedisReply::Letters(vec![letter]), RedisReply::Done], took);
            asks.have_read(&[RedisReply::Done], took);
            count
        };
        let (quick, slow, many) = (READS_TIME, READS_TIME * 2, 2 * READ_BYTES_MAX);
        assert_eq!([(); 7].map(|()| reads(quick, many)), [16, 32, 64, 128, 256, 512, 512]);
        assert_eq!([(); 11].map(|()| reads(slow, many)), [512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 1]);
        assert_eq!([(); 2].map(|()| reads(slow, READ_BYTES_MAX)), [1, 2], "it is far");
    }
}
