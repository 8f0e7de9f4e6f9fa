//! Leases: which nodes are alive.
//!
//! One sorted set in Redis holds all nodes and when their leases end, by Redis's
//! own clock. Each node renews its lease once a second by one small script,
//! which also removes nodes whose lease has run out, and hands out the table
//! when it has changed since the caller last saw it. The cost is O(nodes).
//!
//! A node is dead when it was removed, not when a clock says so, and it never
//! lives again: whoever is told that it is not in the table takes a new id. If
//! even the freshest lease has run out, it was Redis that was away, and nobody
//! is removed until everybody had the time of a lease to renew (the hold).
//!
//! Whoever came back under a new id is busy writing its sessions again. While
//! anybody is, that presence knows nothing of a user proves nothing (the doubt).
//!
//! ```text
//! {nodes}     sorted set   node id -> when its lease ends, in us
//! {nodes}:m   hash         v -> version of the table, hold -> nobody is removed before, in us,
//!                          k -> what the nodes remember messages by, ks -> since when, in us,
//!                          kb -> what they did before, if it was replaced,
//!                          born -> when the first node came, in us: another time is other data
//! {nodes}:d   sorted set   node id -> until when it is in doubt what it has
//! ```

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{Cmd, FromRedisValue, Value};

use crate::outbox::{SEEN_TIME, SeenKey, SeenKeys};
use crate::pause::random;
use crate::proto::NodeId;

/// How long a lease lasts.
pub const LEASE_TIME: Duration = Duration::from_secs(6);

/// How often it is renewed.
pub const RENEW_TIME: Duration = Duration::from_secs(1);

/// Dead nodes that are remembered as such; of others it has to be asked.
const DEAD_MAX: usize = 4_096;

/// Renews, joins or leaves; see the table above. ARGV: id, lease in us, the version that the
/// caller knows, what to do, whether the caller is busy, its own key for messages, and since when that
/// is the key of the nodes, or 0. The oldest key counts: when Redis has lost it, those who knew it bring
/// it back, whoever came before them.
const SCRIPT: &str = r"
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
  if act == 'renew' and not redis.call('ZSCORE', nodes, me) then return {-1} end
  local last = redis.call('ZREVRANGE', nodes, 0, 0, 'WITHSCORES')[2]
  local hold = tonumber(redis.call('HGET', meta, 'hold') or 0)
  if last and tonumber(last) < now then
    hold = now + lease
    redis.call('HSET', meta, 'hold', text(hold))
  end
  redis.call('ZADD', nodes, text(now + lease), me)
  if now >= hold and redis.call('ZREMRANGEBYSCORE', nodes, '-inf', '(' .. text(now)) > 0 then changed = true end
  local key_since, since = tonumber(redis.call('HGET', meta, 'ks')), tonumber(ARGV[7])
  if since == 0 then since = now end
  if not key_since or since < key_since then
    if key_since then redis.call('HSET', meta, 'kb', redis.call('HGET', meta, 'k')) end
    redis.call('HSET', meta, 'k', ARGV[6], 'ks', text(since))
    changed = true
  end
  if not redis.call('HGET', meta, 'born') then
    redis.call('HSET', meta, 'born', text(now))
    changed = true
  end
  if busy == '1' then redis.call('ZADD', doubt, text(now + lease), me) else redis.call('ZREM', doubt, me) end
end
local v = redis.call('HGET', meta, 'v') or '0'
if changed then
  v = text(math.max(now, tonumber(v) + 1))
  redis.call('HSET', meta, 'v', v)
end
redis.call('ZREMRANGEBYSCORE', doubt, '-inf', '(' .. text(now))
local in_doubt = redis.call('ZCARD', doubt)
if v == known then return {now, v, in_doubt} end
local function of(field) return redis.call('HGET', meta, field) end
return {now, v, in_doubt, redis.call('ZRANGE', nodes, 0, -1), of('k'), of('ks'), of('kb'), of('born')}
";

/// What this node knows of the nodes.
pub struct Nodes {
    version: String,
    living: HashSet<NodeId>,
    dead: VecDeque<NodeId>,
    clock: Clock,
    /// The latest time that was told.
    last_us: i64,
    /// Some node is busy writing its sessions again.
    pub in_doubt: bool,
    /// What all nodes remember messages by.
    seen_key: SeenKey,
    /// Since when, by Redis's clock in us; 0 for a key of this node's own.
    key_since_us: i64,
    /// The key before, and when it was heard of.
    key_before: Option<(SeenKey, Instant)>,
    /// When the first node came to the data that Redis has.
    born: Option<String>,
    /// It had other data before.
    has_lost_data: bool,
}

/// What to ask the script for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Enter the table.
    Join,
    /// Stay in it.
    Renew,
    /// Leave it.
    Leave,
}

/// The command that asks whether a node is in the table: `Nil` if not.
pub fn is_member(node: &NodeId) -> Cmd {
    let mut command = redis::cmd("ZSCORE");
    command.arg("{nodes}").arg(node.as_str());
    command
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease holds; these nodes are dead since the last time.
    Held(Vec<NodeId>),
    /// This node is not in the table, or the table is older than what this node knows.
    Lost,
}

impl Default for Nodes {
    fn default() -> Self {
        Nodes {
            version: String::new(),
            living: HashSet::new(),
            dead: VecDeque::new(),
            clock: Clock::default(),
            last_us: 0,
            in_doubt: false,
            seen_key: SeenKey(random()),
            key_since_us: 0,
            key_before: None,
            born: None,
            has_lost_data: false,
        }
    }
}

impl Nodes {
    /// The command to send.
    pub fn command(&self, me: &NodeId, act: Act, is_busy: bool) -> Cmd {
        let mut command = redis::cmd("EVAL");
        let act = match act {
            Act::Join => "join",
            Act::Renew => "renew",
            Act::Leave => "leave",
        };
        command.arg(SCRIPT).arg(3).arg("{nodes}").arg("{nodes}:m").arg("{nodes}:d");
        command.arg(me.as_str()).arg(LEASE_TIME.as_micros() as u64).arg(&self.version[..]);
        command.arg(act).arg(u8::from(is_busy)).arg(self.seen_key.0).arg(self.key_since_us);
        command
    }

    /// Takes in the script's answer to what was asked at `asked_us`, by [`clock_us`]; `None`
    /// when it makes no sense.
    pub fn renewed(&mut self, answer: Value, asked_us: i64) -> Option<Renewed> {
        let Value::Array(answer) = answer else { return None };
        let mut answer = answer.into_iter();
        let now_us = i64::from_redis_value(answer.next()?).ok()?;
        if now_us < 0 {
            return Some(Renewed::Lost);
        }
        self.clock.learn(now_us, asked_us, clock_us());
        let version = String::from_redis_value(answer.next()?).ok()?;
        self.in_doubt = i64::from_redis_value(answer.next()?).ok()? > 0;
        let Some(list) = answer.next() else { return Some(Renewed::Held(vec![])) };
        let list = Vec::<String>::from_redis_value(list).ok()?;
        let living: HashSet<NodeId> = list.iter().filter_map(|id| NodeId::parse(id)).collect();
        let count = self.dead.len();
        self.dead.retain(|node| !living.contains(node));
        if self.dead.len() < count {
            // Redis has gone back in time. We have ended our link to a node that kept its end: only
            // under a new id do both begin anew.
            return Some(Renewed::Lost);
        }
        let key = answer.next().and_then(|key| u64::from_redis_value(key).ok());
        let since_us = answer.next().and_then(|since_us| i64::from_redis_value(since_us).ok());
        let before = answer.next().and_then(|key| u64::from_redis_value(key).ok());
        if let (Some(key), Some(since_us)) = (key, since_us) {
            self.set_key(SeenKey(key), before.map(SeenKey));
            self.key_since_us = since_us;
        }
        let born = answer.next().and_then(|born| String::from_redis_value(born).ok());
        self.has_lost_data |= self.born.is_some() && born != self.born;
        self.born = born;
        self.version = version;
        let dead: Vec<NodeId> = self.living.difference(&living).cloned().collect();
        self.living = living;
        dead.iter().for_each(|node| self.bury(node));
        Some(Renewed::Held(dead))
    }

    /// Takes over the key of the nodes. The one `before`, or else the one that this node has shared with
    /// others until now, counts for a while.
    fn set_key(&mut self, key: SeenKey, before: Option<SeenKey>) {
        let shared = Some(self.seen_key).filter(|_| self.key_since_us > 0);
        let is_new =
            |before: &SeenKey| *before != key && self.key_before.is_none_or(|(known, _)| known != *before);
        if let Some(before) = before.filter(is_new).or(shared.filter(is_new)) {
            self.key_before = Some((before, Instant::now()));
        }
        self.seen_key = key;
    }

    /// Tells whether Redis has lost its data since this was asked last.
    pub fn take_data_loss(&mut self) -> bool {
        std::mem::take(&mut self.has_lost_data)
    }

    /// What messages are remembered by at some time.
    pub fn seen_keys(&self, now: Instant) -> SeenKeys {
        // A session remembers what it was shown no longer than this.
        let counts = |since: Instant| now.duration_since(since) < 2 * SEEN_TIME;
        let before = self.key_before.filter(|(_, since)| counts(*since)).map(|(key, _)| key);
        SeenKeys { now: self.seen_key, before }
    }

    /// Tells whether a node is in the table.
    pub fn is_living(&self, node: &NodeId) -> bool {
        self.living.contains(node)
    }

    /// Tells whether a node is known to be dead. One that is neither living nor
    /// dead may have joined since the table was seen: ask.
    pub fn is_dead(&self, node: &NodeId) -> bool {
        !self.living.contains(node) && self.dead.contains(node)
    }

    /// A node is not in the table, and has been.
    pub fn bury(&mut self, node: &NodeId) {
        if self.dead.len() == DEAD_MAX {
            self.dead.pop_front();
        }
        self.dead.push_back(node.clone());
    }

    /// What was known is worth nothing: Redis lost it, or this node was away for long.
    pub fn forget_table(&mut self) {
        self.version.clear();
    }

    /// Tells whether Redis's clock is known well: of logins on two nodes that follow each other at once,
    /// the later one has the later time.
    pub fn knows_the_time(&self) -> bool {
        self.clock.between.is_some_and(|(least, most)| most - least <= CLOSE_US)
    }

    /// Takes in the answer to a `TIME` that was asked at `asked_us`, by [`clock_us`].
    pub fn told_time(&mut self, answer: Value, asked_us: i64) {
        if let Ok((seconds, us)) = <(i64, i64)>::from_redis_value(answer) {
            self.clock.learn(seconds.saturating_mul(1_000_000).saturating_add(us), asked_us, clock_us());
        }
    }

    /// The time by Redis's clock, in us: later logins have later times on every node, and
    /// no two of one node have the same.
    pub fn now_us(&mut self) -> i64 {
        self.last_us = (clock_us() + self.clock.offset_us()).max(self.last_us + 1);
        self.last_us
    }
}

/// What is known of Redis's clock. Each answer says that Redis's time was read between the
/// question and the answer; what all answers say together is much closer than that.
#[derive(Debug, Default)]
struct Clock {
    /// Redis's clock less ours is at least and at most this, in us.
    between: Option<(i64, i64)>,
}

/// A clock that is known to within this, in us, is known well.
const CLOSE_US: i64 = 1_000;

/// What can be a time: up to the year 9999. Redis is asked, not trusted.
const TIMES_US: Range<i64> = 0..253_402_300_800 * 1_000_000;

/// How much two clocks may drift apart between two answers, in us: 100 ppm of a second.
const DRIFT_US: i64 = 100;

impl Clock {
    fn learn(&mut self, redis_us: i64, asked_us: i64, answered_us: i64) {
        if !TIMES_US.contains(&redis_us) {
            return;
        }
        let new = (redis_us - answered_us, redis_us - asked_us);
        let old = self.between.map_or(new, |(least, most)| (least - DRIFT_US, most + DRIFT_US));
        let both = (old.0.max(new.0), old.1.min(new.1));
        // If they contradict each other, a clock was set, or it is another Redis.
        self.between = Some(if both.0 <= both.1 { both } else { new });
    }

    fn offset_us(&self) -> i64 {
        self.between.map_or(0, |(least, most)| least + (most - least) / 2)
    }
}

/// This machine's clock, in us, never set back while the process runs.
pub fn clock_us() -> i64 {
    use std::sync::LazyLock;
    static START: LazyLock<(Instant, i64)> = LazyLock::new(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), since_epoch.as_micros() as i64)
    });
    START.1 + START.0.elapsed().as_micros() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_answers_do_not_spoil_what_quick_ones_told() {
        let mut clock = Clock::default();
        // Redis is 1,000,000 us ahead.
        clock.learn(1_000_050, 0, 100);
        assert_eq!(clock.offset_us(), 1_000_000);
        for n in 1..5 {
            let asked = n * 1_000_000;
            // Redis was quick, the answer slow: alone it would say 40 ms less.
            clock.learn(asked + 1_000_050, asked, asked + 80_000);
            let error = clock.offset_us() - 1_000_000;
            assert!(error.abs() <= n * DRIFT_US, "{error}");
        }
        // Another Redis, one second behind.
        clock.learn(8_000_050, 9_000_000, 9_000_100);
        assert_eq!(clock.offset_us(), -1_000_000);
    }

    #[test]
    fn what_can_be_no_time_is_not_believed() {
        let mut nodes = Nodes::default();
        for seconds in [i64::MIN, -1, i64::MAX / 1_000_000, i64::MAX] {
            nodes.told_time(Value::Array(vec![Value::Int(seconds), Value::Int(i64::MAX)]), 0);
            assert_eq!(nodes.clock.between, None, "{seconds}");
        }
        let answer = [i64::MAX, 0, 0].map(Value::Int).to_vec();
        nodes.renewed(Value::Array(answer), 0);
        assert_eq!(nodes.clock.between, None);
        nodes.told_time(Value::Array(vec![Value::Int(1_800_000_000), Value::Int(1)]), clock_us());
        assert!(nodes.clock.between.is_some());
    }

    #[test]
    fn later_logins_have_later_times() {
        let mut nodes = Nodes::default();
        let mut last = nodes.now_us();
        for n in 0..1_000 {
            nodes.clock.between = Some((-n, -n));
            let now = nodes.now_us();
            assert!(now > last);
            last = now;
        }
    }

    #[test]
    fn the_key_before_counts_for_as_long_as_sessions_remember() {
        let answer = |key: u64, since: i64, before: Option<u64>| {
            let before = before.map_or(Value::Nil, |key| Value::BulkString(key.to_string().into()));
            let key = Value::BulkString(key.to_string().into());
            let head = [Value::Int(1), Value::BulkString("1".into()), Value::Int(0), Value::Array(vec![])];
            Value::Array(head.into_iter().chain([key, Value::Int(since), before]).collect())
        };
        let start = Instant::now();
        let mut nodes = Nodes::default();
        let mut keys = |key, since, before| {
            nodes.renewed(answer(key, since, before), 0).expect("it makes sense");
            let keys = nodes.seen_keys(start);
            (keys.now.0, keys.before.map(|key| key.0), nodes.seen_keys(start + 3 * SEEN_TIME).before)
        };
        assert_eq!(keys(5, 50, None), (5, None, None), "nobody knew the node's own");
        assert_eq!(keys(4, 40, None), (4, Some(5), None), "Redis was told, not who it was before");
        assert_eq!(keys(4, 40, Some(7)), (4, Some(7), None));
        assert_eq!(keys(3, 30, Some(4)), (3, Some(4), None));
        assert_eq!(keys(3, 30, Some(3)), (3, Some(4), None));
    }

    #[test]
    fn a_node_that_was_dead_and_lives_makes_this_one_begin_anew() {
        let table = |version: &str, nodes: &[&str]| {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            let nodes = Value::Array(nodes.iter().map(|node| text(node)).collect());
            Value::Array(vec![Value::Int(1), text(version), Value::Int(0), nodes])
        };
        let other = NodeId::parse("b-1").expect("valid");
        let mut nodes = Nodes::default();
        assert_eq!(nodes.renewed(table("1", &["a-1", "b-1"]), 0), Some(Renewed::Held(vec![])));
        assert_eq!(nodes.renewed(table("2", &["a-1"]), 0), Some(Renewed::Held(vec![other.clone()])));
        assert!(nodes.is_dead(&other) && !nodes.is_living(&other));
        assert_eq!(nodes.renewed(table("1", &["a-1", "b-1"]), 0), Some(Renewed::Lost));
        let us_before = NodeId::parse("a-1").expect("valid");
        assert_eq!(nodes.renewed(table("3", &["a-2", "b-1"]), 0), Some(Renewed::Held(vec![us_before])));
        assert!(nodes.is_living(&other) && !nodes.is_dead(&other));
        assert_eq!(nodes.renewed(Value::Array(vec![Value::Int(-1)]), 0), Some(Renewed::Lost));
        assert_eq!(nodes.renewed(Value::Nil, 0), None);
    }
}
