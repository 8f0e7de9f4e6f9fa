//! Mailboxes as the presence thread sees them: what it does with Redis for them.
//!
//! Storing comes with a look at where the recipient is, after the message is
//! stored: every login looks into the mailbox after it was written, so one of the
//! two always sees the other. One session at a time drains a mailbox: it is
//! marked in the user's hash, so the mark ends with the session, or with its
//! node. What is to be removed waits while Redis is away (`chores.rs`), and may be
//! removed twice.

use log::{debug, warn};
use redis::{Cmd, FromRedisValue, Pipeline, ServerError, Value};

use crate::cluster::left::LEFT_OF_USER_MAX;
use crate::cluster::presence::Presence;
use crate::cluster::presence::answers::key;
use crate::cluster::presence::chores::Chore;
use crate::cluster::sessions::{Entry, tag};
use crate::cluster::{Event, Mail, Place, Places, Stored, Unavailable};
use crate::mailbox::redis as mailbox;
use crate::outbox::SEEN_TIME;
use crate::proto::{Envelope, SessionId, UserName};

/// Marks the session ARGV[1] as the one that drains, unless another is: returns that one's tag, or 1.
const CLAIM: &str = r"
local own = redis.call('HGET', KEYS[1], ARGV[1])
if not own then return 1 end
if string.sub(own, -1) == 'd' then return 1 end
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  if string.sub(all[at + 1], -1) == 'd' then return all[at] end
end
redis.call('HSET', KEYS[1], ARGV[1], own .. 'd')
return 1
";

/// Adds the first ARGV[2] bytes of the hashes ARGV[1] before those that are there, or all where none are,
/// up to ARGV[3] bytes, for ARGV[4] milliseconds: a session that ends late must not erase what a later
/// one has left, nor make what its user was shown before look new. With ARGV[2] of -1 nobody knows which
/// are newer: the latest of both count the same. Who tells Redis again after a while of silence would
/// push out what others have left meanwhile.
pub const REMEMBER: &str = r"
local added, own, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local before, all = redis.pcall('GET', KEYS[1]), nil
if type(before) ~= 'string' then
  all = added
elseif own >= 0 then
  all = string.sub(added, 1, own) .. before
else
  local both, known = {}, {}
  for at = 1, math.max(#before, #added), 8 do
    for _, of in ipairs({before, added}) do
      local hash = string.sub(of, at, at + 7)
      if not known[hash] then both[#both + 1] = hash end
      known[hash] = true
    end
  end
  all = table.concat(both)
end
redis.call('SET', KEYS[1], string.sub(all, 1, most), 'PX', ARGV[4])
return 1
";

/// Messages to one user that are to be stored, and what the answers are for.
pub struct Batch {
    pub user: UserName,
    pub messages: Vec<(u64, Envelope)>,
}

/// A session that reads on.
pub struct Reading {
    pub user: UserName,
    pub session: SessionId,
    pub after: u64,
}

/// The chores that are in a pipeline, with their numbers.
pub struct AtWork(Vec<(u64, Chore)>);

impl Presence {
    /// Adds the chores that are due.
    pub(super) fn add_chores(&mut self, pipe: &mut Pipeline) -> AtWork {
        let mut chores = self.mail.next();
        chores.retain(|(_, chore)| self.is_due(chore));
        for (_, chore) in &chores {
            match chore {
                Chore::Take { user, up_to, also } => {
                    pipe.add_command(mailbox::take(user.borrowed(), *up_to, also));
                }
                Chore::Release { session } => drop(self.write_as(pipe, *session, false)),
                Chore::Remember { user, shown, own } => {
                    let time_ms = SEEN_TIME.as_millis() as u64;
                    let remember = pipe.cmd("EVAL").arg(REMEMBER).arg(1).arg(shown_key(user));
                    let own = own.map_or(-1, |own| 8 * own as i64);
                    remember.arg(&shown[..]).arg(own).arg(8 * LEFT_OF_USER_MAX).arg(time_ms);
                }
            }
        }
        AtWork(chores)
    }

    /// A session that has ended has nothing to release.
    fn is_due(&self, chore: &Chore) -> bool {
        !matches!(chore, Chore::Release { session } if self.sessions.find(*session).is_none())
    }

    /// What came of the chores: what was not done waits again.
    pub(super) fn end_chores(&mut self, work: AtWork, replies: &mut impl Iterator<Item = Value>) -> bool {
        let mut undone = vec![];
        for (number, chore) in work.0 {
            if !self.is_settled(replies.next()) {
                undone.push((number, chore));
            } else if let Chore::Release { session } = chore {
                self.sessions.set_drains(session, false);
            }
        }
        let are_done = undone.is_empty();
        self.mail.put_back(undone);
        are_done
    }

    /// Tells whether a command needs no other attempt: it was done, or it is refused for good.
    /// One such key must not keep this node from Redis, and whoever wrote it wants it so.
    pub(super) fn is_settled(&mut self, reply: Option<Value>) -> bool {
        let Some(Value::ServerError(error)) = reply else { return reply.is_some() };
        if !is_final(&error) {
            return false;
        }
        if std::mem::replace(&mut self.was_refused, true) {
            debug!("Redis refuses what is not tried again: {error}");
        } else {
            warn!(
                "Redis refuses what is not tried again: {error}; others wrote to our keys, or it is too old"
            );
        }
        true
    }

    /// Adds a message to those that are stored in this round.
    pub(super) fn batch(batches: &mut Vec<Batch>, envelope: Envelope, number: u64) {
        match batches.iter_mut().find(|batch| batch.user == envelope.to) {
            Some(batch) => batch.messages.push((number, envelope)),
            None => {
                batches.push(Batch { user: envelope.to.clone(), messages: vec![(number, envelope)] });
            }
        }
    }

    /// The command that stores a batch.
    pub(super) fn store(&self, batch: &Batch) -> Cmd {
        let envelopes: Vec<&Envelope> = batch.messages.iter().map(|(_, envelope)| envelope).collect();
        mailbox::store(&envelopes, self.shared.limits)
    }

    /// Tells what became of a batch. Without knowing where its recipient is now, nobody knows
    /// whether the messages will be seen.
    pub(super) fn tell_stored(&self, batch: Batch, reply: Option<&Value>, places: Option<Vec<Place>>) {
        let stored = reply.map(mailbox::stored);
        let fate = |at: usize| match (stored, &places) {
            (Some(Some(count)), Some(_)) if at < count => Stored::Yes,
            (Some(Some(count)), _) if at >= count => Stored::Full,
            (Some(None), _) => Stored::No,
            _ => Stored::Unknown,
        };
        let numbers = batch.messages.into_iter().map(|(number, _)| number);
        let fates = numbers.enumerate().map(|(at, number)| (number, fate(at))).collect();
        self.shared.tell(Event::Stored {
            user: batch.user,
            fates,
            places: places.map(Places::from).ok_or(Unavailable),
        });
    }

    /// Adds the commands that read on for a session.
    pub(super) fn add_reading(&self, pipe: &mut Pipeline, reading: &Reading) {
        let Reading { user, session, after } = reading;
        let tag = tag(&self.shared.node(), *session);
        pipe.cmd("EVAL").arg(CLAIM).arg(1).arg(key(user)).arg(tag);
        pipe.add_command(mailbox::read(user.borrowed(), *after, self.shared.limits));
    }

    /// Tells what a session has read.
    pub(super) fn tell_read(&mut self, reading: Reading, claim: Option<Value>, messages: Option<Value>) {
        let Reading { user, session, after } = reading;
        let mail = match claim {
            Some(Value::Int(_)) => {
                self.sessions.set_drains(session, true);
                self.mail.cancel_release(session);
                messages.and_then(mailbox::messages).map(Mail::Messages)
            }
            Some(Value::BulkString(other)) => {
                let other = String::from_utf8_lossy(&other).into_owned();
                if self.is_void(&other) {
                    self.remove(user.clone(), other);
                    // Behind the removal.
                    return self.shared.ask(super::Ask::Read { user, session, after });
                }
                Some(Mail::Busy)
            }
            _ => None,
        };
        let mail = mail.ok_or(crate::cluster::Unavailable);
        self.shared.tell(Event::Read { session, mail });
    }

    /// Tells whether a tag is that of a dead node, or of a session of this node that has ended.
    fn is_void(&self, tag: &str) -> bool {
        let Some(entry) = Entry::parse(tag, "0") else { return true };
        if entry.node == self.shared.node() {
            return self.sessions.find(entry.session).is_none();
        }
        self.shared.nodes().is_dead(&entry.node)
    }
}

/// Tells whether the same command would be refused for ever: the key holds something else, or the
/// command makes no sense to this Redis. Any other code tells of the state that Redis is in, and so
/// does a cause behind a dash, where an old Redis puts what went wrong in a script.
fn is_final(error: &ServerError) -> bool {
    match error.code() {
        "WRONGTYPE" => true,
        "ERR" => !error.details().is_some_and(|details| details.contains(": -")),
        _ => false,
    }
}

/// Where it stands what a user was shown.
pub fn shown_key(user: &UserName) -> String {
    format!("d:{}", user.as_str())
}

/// Reads it: the oldest first.
pub fn shown(reply: Option<Value>) -> Vec<u64> {
    let bytes = reply.and_then(|reply| Vec::<u8>::from_redis_value(reply).ok()).unwrap_or_default();
    let (hashes, _) = bytes.as_chunks::<8>();
    hashes.iter().take(LEFT_OF_USER_MAX).rev().map(|hash| u64::from_le_bytes(*hash)).collect()
}
