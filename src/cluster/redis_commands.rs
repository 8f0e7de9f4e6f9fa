//! Commands of ours in the words of Redis, and its replies in ours. No connection.
//!
//! ```text
//! p:{user}    hash         node id and session -> time of the login, and a `d` while it drains
//! m:{user}    list         PPPPPPPPPPPPPPPP 3 body, ...
//! {nodes}     sorted set   node id ':' version of the wire -> when its lease ends, in us
//! {nodes}:m   hash         v -> version of the table, hold -> nobody is removed before, in us
//! {nodes}:d   sorted set   the same members -> until when it is in doubt what they have
//! ```
//!
//! An element of a mailbox is the place of a message in 16 digits, a byte of 3, then its body.
//! Redis's own clock gives the places, so all nodes agree on them; the key itself ends when its
//! last message does. Most mailboxes hold few messages, for which a list takes a tenth of the
//! memory of a stream. What is no message, nobody here wrote: it is skipped, and removed when it
//! is met at an end of the list.
//!
//! Only commands and scripts that touch keys of one slot, so that Redis Cluster can hold them; each may
//! be repeated.

use redis::{Cmd, FromRedisValue, ServerError, Value};

use crate::cluster::command::{
    Lease, LeaseAct, Place, RedisCommand, RedisReply, SessionEntry, parse_tag, tag,
};
use crate::cluster::lease::LEASE_TIME;
use crate::mailbox::{Limits, READ_BYTES_MAX, READ_MESSAGES_MAX, REPEATS_MAX};
use crate::node::seam::Letter;
use crate::proto::name::{NodeId, UserName};
use crate::proto::wire::{VERSION, parse_body};

/// How long a user may go unasked before the key ends; every sweep begins it anew.
const KEY_TIME_MS: u64 = 24 * 3_600_000;

/// How many bytes of an element of a mailbox are its place.
const PLACE_BYTES: usize = 16;

/// What follows: no digit, so that the place is seen to end.
const MARK: u8 = 3;

/// Renews, joins or leaves; see the table above. ARGV: the node, lease in us, the version of the table
/// that the caller knows, what to do, whether the caller is busy.
const LEASE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local nodes, meta, doubt = KEYS[1], KEYS[2], KEYS[3]
local me, lease, known, act, busy = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local function text(n) return string.format('%.0f', n) end
local changed, misfit = act ~= 'renew', 0
local function look(key, ...)
  local found = redis.pcall(...)
  if type(found) == 'table' and string.find(found.err, 'WRONGTYPE') then misfit = redis.call('PEXPIRE', key, 0) end
end
look(nodes, 'ZCARD', nodes)
look(meta, 'HGET', meta, 'v')
look(doubt, 'ZCARD', doubt)
local function cap(set)
  for _, one in ipairs(redis.call('ZRANGE', set, '(' .. text(now + lease), '+inf', 'BYSCORE')) do
    redis.call('ZADD', set, text(now + lease), one)
  end
end
if act == 'leave' then
  redis.call('ZREM', nodes, me)
  redis.call('ZREM', doubt, me)
else
  if act == 'renew' and not redis.call('ZSCORE', nodes, me) then return false end
  cap(nodes)
  cap(doubt)
  local last = redis.call('ZREVRANGE', nodes, 0, 0, 'WITHSCORES')[2]
  local hold = math.min(tonumber(redis.call('HGET', meta, 'hold') or 0), now + lease)
  if last and tonumber(last) < now then
    hold = now + lease
    redis.call('HSET', meta, 'hold', text(hold))
  end
  redis.call('ZADD', nodes, text(now + lease), me)
  if now >= hold and redis.call('ZREMRANGEBYSCORE', nodes, '-inf', '(' .. text(now)) > 0 then changed = true end
  if busy == '1' then redis.call('ZADD', doubt, text(now + lease), me) else redis.call('ZREM', doubt, me) end
end
local v = redis.call('HGET', meta, 'v') or '0'
if changed then
  v = text(math.max(now, tonumber(v) + 1))
  redis.call('HSET', meta, 'v', v)
end
redis.call('ZREMRANGEBYSCORE', doubt, '-inf', '(' .. text(now))
local in_doubt = redis.call('ZCARD', doubt)
if v == known then return {v, in_doubt, false, now, misfit} end
return {v, in_doubt, redis.call('ZRANGE', nodes, 0, -1), now, misfit}
";

/// Writes a session, and begins the time to live of its user's key anew: in one command, so that
/// no node can die between the two. ARGV: its field, when it logged in or nothing for now, its mark, the time to
/// live in ms. Returns 0 when it was there and 1 when it was not, or 2 when something was that is none of ours, which
/// it replaces. Now is later than whatever is there, though the clock was set back.
const WRITE: &str = r"
local since, misfit = ARGV[2], 0
local own = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(own) == 'table' then
  if not string.find(own.err, 'WRONGTYPE') then return own end
  own = false
  misfit = redis.call('PEXPIRE', KEYS[1], 0)
end
if since == '' then since = own and string.match(own, '^(%d+)d?$') end
if not since then
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2]
  local at = now
  local all = redis.call('HGETALL', KEYS[1])
  for n = 2, #all, 2 do
    local other = tonumber(string.match(all[n], '^(%d+)d?$') or 0)
    if other >= at and other < now + 1e14 then at = other + 1 end
  end
  since = string.format('%.0f', at)
end
local is_new = redis.call('HSET', KEYS[1], ARGV[1], since .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return is_new + misfit
";

/// Removes what is no hash.
const CLEAR: &str = r"
local found = redis.pcall('HGET', KEYS[1], '')
if type(found) == 'table' and string.find(found.err, 'WRONGTYPE') then redis.call('PEXPIRE', KEYS[1], 0) end
";

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

/// What the scripts for mailboxes share. `place` reads one, `now` is Redis's clock, and `below` counts the elements
/// at the head whose places are lower than `p`: in growing steps, then halving, because they are few.
const COMMON: &str = r"
local k, c = KEYS[1], redis.call
local function place(e)
  return e and select(2, string.find(e, '^%d+\3')) == 17 and tonumber(string.sub(e, 1, 16))
end
local function now() local t = c('TIME') return t[1] * 1000000 + t[2] end
local function is_below(i, p)
  local e = c('LINDEX', k, i)
  while e and not place(e) do i = i + 1 e = c('LINDEX', k, i) end
  return e and place(e) < p
end
local function below(p)
  local low, high = 0, 1
  if not is_below(0, p) then return 0 end
  while is_below(high, p) do low = high high = high * 2 end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if is_below(middle, p) then low = middle else high = middle end
  end
  return high
end
local function drop(p)
  local n = below(p)
  if n > 0 then c('LTRIM', k, n, -1) end
  local e = c('LINDEX', k, 0)
  while e and not place(e) do c('LPOP', k) e = c('LINDEX', k, 0) end
end
";

/// Stores messages, while Redis uses less than it may, and less than 3/4 of what it has: the rest is for presence.
/// Where it does not tell there is no such bound. ARGV: the most messages, how long they are kept in us, how many of
/// the latest may be the same if not all fit, what Redis may use in bytes, then the messages.
const STORE: &str = r"
local most, time, sent = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV - 4
local at, memory = now(), redis.pcall('INFO', 'memory')
local function of(key)
  return type(memory) == 'string' and tonumber(string.match(memory, '\n' .. key .. ':(%d+)')) or 0
end
local whole = of('maxmemory')
local bytes = math.min(tonumber(ARGV[4]), whole > 0 and whole / 4 * 3 or math.huge)
if of('used_memory') >= bytes then most = 0 end
drop(at - time)
local last = c('LINDEX', k, -1)
while last and not place(last) do c('RPOP', k) last = c('LINDEX', k, -1) end
if last then at = math.max(at, place(last) + 1) end
local room, known = most - c('LLEN', k), {}
if room < sent then
  for _, e in ipairs(c('LRANGE', k, -ARGV[3] - sent, -1)) do known[string.sub(e, 17)] = true end
end
local new, stored = {}, 0
for i = 5, #ARGV do
  if not known[ARGV[i]] then
    if room <= 0 then break end
    room = room - 1
    new[#new + 1] = string.format('%016.0f', at) .. ARGV[i]
    at = at + 1
  end
  stored = stored + 1
end
for i = 1, #new, 1000 do c('RPUSH', k, unpack(new, i, math.min(i + 999, #new))) end
if #new > 0 then c('PEXPIRE', k, string.format('%.0f', math.ceil(time / 1000))) end
return stored
";

/// Reads messages. ARGV: how long they are kept in us, the place behind which to begin, the most
/// messages, the most bytes.
const READ: &str = r"
drop(now() - tonumber(ARGV[1]))
local i, most, bytes = below(tonumber(ARGV[2]) + 1), tonumber(ARGV[3]), tonumber(ARGV[4])
local found = {}
while true do
  local some = c('LRANGE', k, i, i + 15)
  for _, e in ipairs(some) do
    if place(e) then
      bytes = bytes - #e + 16
      if #found > 0 and bytes < 0 or #found == most then return found end
      found[#found + 1] = e
    end
  end
  if #some < 16 then return found end
  i = i + 16
end
";

/// Removes messages. ARGV: the place below which all go, then the places of others, in 16 digits and
/// in order. Only commands that Redis takes when it is out of memory.
const TAKE: &str = r"
drop(tonumber(ARGV[1]))
local wanted, last, i = {}, tonumber(ARGV[#ARGV]), 0
for n = 2, #ARGV do wanted[ARGV[n]] = true end
while #ARGV > 1 do
  local some = c('LRANGE', k, i, i + 15)
  i = i + #some
  for _, e in ipairs(some) do
    if wanted[string.sub(e, 1, 16)] then i = i - c('LREM', k, 1, e) end
    if (place(e) or 0) >= last then return end
  end
  if #some < 16 then return end
end
";

/// The command as Redis takes it.
pub fn printed(command: &RedisCommand, limits: Limits) -> Cmd {
    match command {
        RedisCommand::Lease { node, act, known, is_busy } => {
            let act = match act {
                LeaseAct::Join => "join",
                LeaseAct::Renew => "renew",
                LeaseAct::Leave => "leave",
            };
            let mut lease = redis::cmd("EVAL");
            lease.arg(LEASE).arg(3).arg("{nodes}").arg("{nodes}:m").arg("{nodes}:d");
            lease.arg(member(node)).arg(LEASE_TIME.as_micros() as u64).arg(known).arg(act);
            lease.arg(u8::from(*is_busy)).take()
        }
        RedisCommand::IsMember { node } => Cmd::zscore("{nodes}", member(node)),
        RedisCommand::Write { user, node, session, since_us, drains } => {
            let since = since_us.map_or_else(String::new, |since| since.to_string());
            let mark = if *drains { "d" } else { "" };
            let mut write = eval(WRITE, sessions(user));
            write.arg(tag(node, *session)).arg(since).arg(mark).arg(KEY_TIME_MS).take()
        }
        RedisCommand::Clear { user } => eval(CLEAR, sessions(user)),
        RedisCommand::Remove { user, node, session } => Cmd::hdel(sessions(user), tag(node, *session)),
        RedisCommand::Sessions { user } => Cmd::hgetall(sessions(user)),
        RedisCommand::HasMail { user } => Cmd::llen(mailbox(user)),
        RedisCommand::Store { user, messages } => {
            let mut store = eval(&[COMMON, STORE].concat(), mailbox(user));
            store.arg(limits.messages_max).arg(limits.time_us()).arg(REPEATS_MAX).arg(limits.bytes_max);
            for message in messages {
                store.arg([&[MARK], &message[..]].concat());
            }
            store
        }
        RedisCommand::Claim { user, node, session } => {
            eval(CLAIM, sessions(user)).arg(tag(node, *session)).take()
        }
        RedisCommand::Read { user, after } => {
            let mut read = eval(&[COMMON, READ].concat(), mailbox(user));
            read.arg(limits.time_us()).arg(after).arg(READ_MESSAGES_MAX).arg(READ_BYTES_MAX).take()
        }
        RedisCommand::Take { user, up_to, also } => {
            let mut also: Vec<u64> = also.iter().copied().filter(|place| place > up_to).collect();
            also.sort_unstable();
            let mut take = eval(&[COMMON, TAKE].concat(), mailbox(user));
            take.arg(up_to.saturating_add(1));
            for place in also {
                take.arg(format!("{place:0PLACE_BYTES$}"));
            }
            take
        }
    }
}

/// What Redis replied to the command.
pub fn parsed(command: &RedisCommand, reply: Value) -> RedisReply {
    if let Value::ServerError(error) = &reply
        && error.code() == "WRONGTYPE"
        && let Some(key) = key(command)
    {
        // Where there is no mailbox, there is no mail.
        let is_look = matches!(command, RedisCommand::HasMail { .. });
        return if is_look { RedisReply::Flag(false) } else { RedisReply::Misfit { key } };
    }
    if let Value::ServerError(error) = reply {
        return RedisReply::Refused { is_final: is_final(&error), why: error.to_string() };
    }
    let nonsense =
        || RedisReply::Refused { is_final: false, why: "it answers what makes no sense".to_owned() };
    understood(command, reply).unwrap_or_else(nonsense)
}

fn understood(command: &RedisCommand, reply: Value) -> Option<RedisReply> {
    let reply = match (command, reply) {
        (RedisCommand::Clear { .. } | RedisCommand::Remove { .. } | RedisCommand::Take { .. }, _) => {
            RedisReply::Done
        }
        (RedisCommand::Write { .. }, reply) => {
            RedisReply::Wrote(match i64::from_redis_value(reply).ok()? {
                0 => Place::Known,
                1 => Place::New,
                _ => Place::Misfit,
            })
        }
        (RedisCommand::IsMember { .. }, reply) => RedisReply::Flag(reply != Value::Nil),
        (RedisCommand::HasMail { .. }, reply) => RedisReply::Flag(i64::from_redis_value(reply).ok()? > 0),
        (RedisCommand::Lease { .. }, reply) => RedisReply::Lease(lease(reply)?),
        (RedisCommand::Sessions { .. }, reply) => {
            let fields = Vec::<(String, String)>::from_redis_value(reply).ok()?;
            let entries = fields.iter().filter_map(|(tag, value)| SessionEntry::parse(tag, value));
            RedisReply::Sessions(entries.collect())
        }
        (RedisCommand::Claim { .. }, Value::Int(_)) => RedisReply::Claimed(None),
        (RedisCommand::Claim { .. }, Value::BulkString(tag)) => {
            RedisReply::Claimed(Some(parse_tag(str::from_utf8(&tag).ok()?)?))
        }
        (RedisCommand::Store { .. }, Value::Int(count)) => RedisReply::Stored(count.try_into().ok()?),
        (RedisCommand::Read { .. }, Value::Array(elements)) => {
            RedisReply::Letters(elements.iter().filter_map(letter).collect())
        }
        (RedisCommand::Claim { .. } | RedisCommand::Store { .. } | RedisCommand::Read { .. }, _) => {
            return None;
        }
    };
    Some(reply)
}

fn eval(script: &str, key: String) -> Cmd {
    redis::cmd("EVAL").arg(script).arg(1).arg(key).take()
}

/// The key of a user that a command is about.
fn key(command: &RedisCommand) -> Option<String> {
    match command {
        RedisCommand::Lease { .. } | RedisCommand::IsMember { .. } => None,
        RedisCommand::Write { user, .. }
        | RedisCommand::Clear { user }
        | RedisCommand::Remove { user, .. }
        | RedisCommand::Sessions { user }
        | RedisCommand::Claim { user, .. } => Some(sessions(user)),
        RedisCommand::HasMail { user }
        | RedisCommand::Store { user, .. }
        | RedisCommand::Read { user, .. }
        | RedisCommand::Take { user, .. } => Some(mailbox(user)),
    }
}

/// The hash of a user's sessions.
fn sessions(user: &UserName) -> String {
    format!("p:{}", user.as_str())
}

/// The list of a user's messages.
fn mailbox(user: &UserName) -> String {
    format!("m:{}", user.as_str())
}

/// How a node stands in the table.
fn member(node: &NodeId) -> String {
    format!("{}:{VERSION}", node.as_str())
}

/// What the lease's script answers; `None` when it makes no sense.
fn lease(reply: Value) -> Option<Option<Lease>> {
    type Parts = (String, i64, Option<Vec<String>>, i64, i64);
    let Some((version, in_doubt, members, now_us, misfit)) = Option::<Parts>::from_redis_value(reply).ok()?
    else {
        return Some(None);
    };
    let node = |member: &String| {
        let (node, version) = member.rsplit_once(':')?;
        Some((NodeId::parse(node)?, version.parse().ok()?))
    };
    let living = members.map(|members| members.iter().filter_map(node).collect());
    Some(Some(Lease { now_us, was_misfit: misfit > 0, version, in_doubt: in_doubt > 0, living }))
}

fn letter(element: &Value) -> Option<Letter> {
    let Value::BulkString(element) = element else { return None };
    let (place, rest) = element.split_at_checked(PLACE_BYTES)?;
    let is_number = place.iter().all(u8::is_ascii_digit);
    let place = str::from_utf8(place).ok().filter(|_| is_number)?.parse().ok()?;
    let body = rest.strip_prefix(&[MARK]).filter(|body| parse_body(body).is_some())?;
    Some(Letter { place, body: body.to_vec() })
}

/// Tells whether the same command would be refused for ever: the key holds something else, or the
/// command makes no sense to this Redis. Any other code tells of the state that Redis is in, and so
/// does a cause behind a dash, where an old Redis puts what went wrong in a script.
fn is_final(error: &ServerError) -> bool {
    match error.code() {
        "ERR" => !error.details().is_some_and(|details| details.contains(": -")),
        _ => false,
    }
}

#[cfg(test)]
#[path = "redis_commands_tests.rs"]
mod tests;
