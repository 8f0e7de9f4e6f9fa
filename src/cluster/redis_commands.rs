//! Commands of ours in the words of Redis, and its replies in ours. No connection.
//!
//! The table of living nodes:
//!
//! ```text
//! {nodes}     sorted set   node id ':' version of the wire -> when its lease ends, in us
//! {nodes}:m   hash         v -> version of the table, hold -> nobody is removed before, in us
//! {nodes}:d   sorted set   the same members -> until when it is in doubt what they have
//! ```
//!
//! Only commands and scripts that touch keys of one slot, so that Redis Cluster can hold them.

use redis::{Cmd, FromRedisValue, ServerError, Value};

use crate::cluster::command::Act;
use crate::cluster::command::Command;
use crate::cluster::command::Entry;
use crate::cluster::command::Lease;
use crate::cluster::command::Reply;
use crate::cluster::command::parse_tag;
use crate::cluster::command::tag;
use crate::cluster::lease::LEASE_TIME;
use crate::cluster::redis_mailbox;
use crate::mailbox::Limits;
use crate::proto::name::NodeId;
use crate::proto::name::UserName;
use crate::proto::wire::VERSION;

/// How long a user may go unasked before the key ends; every sweep begins it anew.
const KEY_TIME_MS: u64 = 24 * 3_600_000;

/// Renews, joins or leaves; see the table above. ARGV: the node, lease in us, the version of the table
/// that the caller knows, what to do, whether the caller is busy.
const LEASE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local nodes, meta, doubt = KEYS[1], KEYS[2], KEYS[3]
local me, lease, known, act, busy = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local function text(n) return string.format('%.0f', n) end
local changed = act ~= 'renew'
if act == 'leave' then
  redis.call('ZREM', nodes, me)
  redis.call('ZREM', doubt, me)
else
  if act == 'renew' and not redis.call('ZSCORE', nodes, me) then return false end
  local last = redis.call('ZREVRANGE', nodes, 0, 0, 'WITHSCORES')[2]
  local hold = tonumber(redis.call('HGET', meta, 'hold') or 0)
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
if v == known then return {now, v, in_doubt, false} end
return {now, v, in_doubt, redis.call('ZRANGE', nodes, 0, -1)}
";

/// Writes a session, and begins the time to live of its user's key anew: in one command, so that
/// no node can die between the two.
const WRITE: &str =
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return redis.call('PEXPIRE', KEYS[1], ARGV[3])";

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

/// The command as Redis takes it.
pub fn printed(command: &Command, limits: Limits) -> Cmd {
    match command {
        Command::Lease { node, act, known, is_busy } => {
            let mut lease = redis::cmd("EVAL");
            let act = match act {
                Act::Join => "join",
                Act::Renew => "renew",
                Act::Leave => "leave",
            };
            lease.arg(LEASE).arg(3).arg("{nodes}").arg("{nodes}:m").arg("{nodes}:d");
            lease
                .arg(member(node))
                .arg(LEASE_TIME.as_micros() as u64)
                .arg(known)
                .arg(act)
                .arg(u8::from(*is_busy));
            lease
        }
        Command::Time => redis::cmd("TIME"),
        Command::IsMember { node } => with("ZSCORE", "{nodes}").arg(member(node)).take(),
        Command::Write { user, entry, drains } => {
            let (tag, value) = (tag(&entry.node, entry.session), entry.value(*drains));
            with("EVAL", WRITE).arg(1).arg(key(user)).arg(tag).arg(value).arg(KEY_TIME_MS).take()
        }
        Command::Remove { user, node, session } => with("HDEL", key(user)).arg(tag(node, *session)).take(),
        Command::Sessions { user } => with("HGETALL", key(user)),
        Command::HasMail { user } => redis_mailbox::has(user),
        Command::Store { user, messages } => redis_mailbox::store(user, messages, limits),
        Command::Claim { user, node, session } => {
            with("EVAL", CLAIM).arg(1).arg(key(user)).arg(tag(node, *session)).take()
        }
        Command::Read { user, after } => redis_mailbox::read(user, *after, limits),
        Command::Take { user, up_to, also } => redis_mailbox::take(user, *up_to, also),
    }
}

/// What Redis replied to the command.
pub fn parsed(command: &Command, reply: Value) -> Reply {
    if let Value::ServerError(error) = reply {
        return Reply::Refused { is_final: is_final(&error), why: error.to_string() };
    }
    let understood = match command {
        Command::Write { .. } | Command::Remove { .. } | Command::Take { .. } => Some(Reply::Done),
        Command::Lease { .. } => lease(reply).map(Reply::Lease),
        Command::Time => {
            let time = <(i64, i64)>::from_redis_value(reply).ok();
            time.map(|(s, us)| Reply::Time(s.saturating_mul(1_000_000).saturating_add(us)))
        }
        Command::IsMember { .. } => Some(Reply::Flag(reply != Value::Nil)),
        Command::HasMail { .. } => i64::from_redis_value(reply).ok().map(|count| Reply::Flag(count > 0)),
        Command::Sessions { .. } => {
            let fields = Vec::<(String, String)>::from_redis_value(reply).ok();
            let entries = |fields: Vec<(String, String)>| {
                fields.iter().filter_map(|(tag, value)| Entry::parse(tag, value)).collect()
            };
            fields.map(|fields| Reply::Sessions(entries(fields)))
        }
        Command::Claim { .. } => match reply {
            Value::Int(_) => Some(Reply::Claimed(None)),
            Value::BulkString(tag) => {
                str::from_utf8(&tag).ok().and_then(parse_tag).map(|other| Reply::Claimed(Some(other)))
            }
            _ => None,
        },
        Command::Store { .. } => redis_mailbox::stored(&reply).map(Reply::Stored),
        Command::Read { .. } => redis_mailbox::letters(reply).map(Reply::Letters),
    };
    let nonsense = || Reply::Refused { is_final: false, why: "it answers what makes no sense".to_owned() };
    understood.unwrap_or_else(nonsense)
}

fn with(name: &str, argument: impl redis::ToRedisArgs) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(argument);
    command
}

/// The hash of a user's sessions.
fn key(user: &UserName) -> String {
    format!("p:{}", user.as_str())
}

/// How a node stands in the table.
fn member(node: &NodeId) -> String {
    format!("{}:{VERSION}", node.as_str())
}

/// What the lease's script answers; `None` when it makes no sense.
fn lease(reply: Value) -> Option<Option<Lease>> {
    type Parts = (i64, String, i64, Option<Vec<String>>);
    let Some((now_us, version, in_doubt, members)) = Option::<Parts>::from_redis_value(reply).ok()? else {
        return Some(None);
    };
    let node = |member: &String| {
        let (node, version) = member.rsplit_once(':')?;
        Some((NodeId::parse(node)?, version.parse().ok()?))
    };
    let living = members.map(|members| members.iter().filter_map(node).collect());
    Some(Some(Lease { now_us, version, in_doubt: in_doubt > 0, living }))
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

#[cfg(test)]
#[path = "redis_commands_tests.rs"]
mod tests;
