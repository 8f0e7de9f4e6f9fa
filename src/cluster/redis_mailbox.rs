//! Mailboxes in Redis: the commands, and what the replies say. No connection.
//!
//! A mailbox is a list, the oldest message first. An element is the place of a
//! message in 16 digits, a byte of 3, then the message's body on the wire. Redis's own
//! clock gives the places, so all nodes agree on them, and tells what has
//! expired; the key itself ends when its last message does. Most mailboxes hold
//! few messages, for which a list takes a tenth of the memory of a stream.
//!
//! ```text
//! m:USER   list   PPPPPPPPPPPPPPPP 3 body, ...
//! ```
//!
//! Every command has one key, so that Redis Cluster can hold it, and may be
//! repeated. What is no message, nobody here wrote: it is skipped, and removed
//! when it is met at an end of the list.

use std::fmt::Write;

use redis::{Cmd, Value};

use crate::mailbox::Limits;
use crate::mailbox::READ_BYTES_MAX;
use crate::mailbox::READ_MESSAGES_MAX;
use crate::mailbox::REPEATS_MAX;
use crate::node::seam::Letter;
use crate::proto::name::UserName;
use crate::proto::wire::parse_body;

/// How many bytes of an element are its place.
const PLACE_BYTES: usize = 16;

/// What follows: no digit, so that the place is seen to end.
const MARK: u8 = 3;

/// What the scripts share. `place` reads one, `now` is Redis's clock, and `below` counts the elements
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

/// Stores messages. ARGV: the most messages, how long they are kept in us, how many of the latest may
/// be the same if not all fit, then the messages.
const STORE: &str = r"
local most, time, sent = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV - 3
local at = now()
drop(at - time)
local last = c('LINDEX', k, -1)
while last and not place(last) do c('RPOP', k) last = c('LINDEX', k, -1) end
if last then at = math.max(at, place(last) + 1) end
local room, known = most - c('LLEN', k), {}
if room < sent then
  for _, e in ipairs(c('LRANGE', k, -ARGV[3] - sent, -1)) do known[string.sub(e, 17)] = true end
end
local new, stored = {}, 0
for i = 4, #ARGV do
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

/// The key of a user's mailbox.
pub fn key(user: &UserName) -> String {
    format!("m:{}", user.as_str())
}

/// Stores messages, the bodies of some on the wire, for one user, the oldest first.
pub fn store(user: &UserName, messages: &[Vec<u8>], limits: Limits) -> Cmd {
    let mut command = script(STORE, user);
    command.arg(limits.messages_max).arg(limits.time_us()).arg(REPEATS_MAX);
    for message in messages {
        command.arg([&[MARK], &message[..]].concat());
    }
    command
}

/// How many messages were stored, from the first on; the others met the bound. `None` is an error.
pub fn stored(reply: &Value) -> Option<usize> {
    match reply {
        Value::Int(count) => usize::try_from(*count).ok(),
        _ => None,
    }
}

/// Asks whether a message waits for the user: 1, or 0. It may have expired since.
pub fn has(user: &UserName) -> Cmd {
    redis::cmd("EXISTS").arg(key(user)).take()
}

/// Reads the oldest messages behind the place `after`, as many as one read may have.
pub fn read(user: &UserName, after: u64, limits: Limits) -> Cmd {
    let mut command = script(READ, user);
    command.arg(limits.time_us()).arg(after).arg(READ_MESSAGES_MAX).arg(READ_BYTES_MAX);
    command
}

/// The messages of a read. `None` is an error.
pub fn letters(reply: Value) -> Option<Vec<Letter>> {
    let Value::Array(elements) = reply else { return None };
    let letter = |element| match element {
        Value::BulkString(bytes) => letter(&bytes),
        _ => None,
    };
    Some(elements.into_iter().filter_map(letter).collect())
}

/// Removes the messages up to the place `up_to`, and those at the places `also`, which are near the
/// oldest. What is not there is left out.
pub fn take(user: &UserName, up_to: u64, also: &[u64]) -> Cmd {
    let mut command = script(TAKE, user);
    command.arg(up_to.saturating_add(1));
    let mut also: Vec<u64> = also.iter().copied().filter(|place| *place > up_to).collect();
    also.sort_unstable();
    let mut digits = String::new();
    for place in also {
        digits.clear();
        write!(digits, "{place:0PLACE_BYTES$}").expect("a string takes all");
        command.arg(&digits);
    }
    command
}

fn script(body: &str, user: &UserName) -> Cmd {
    redis::cmd("EVAL").arg(format!("{COMMON}{body}")).arg(1).arg(key(user)).take()
}

fn letter(element: &[u8]) -> Option<Letter> {
    let (place, rest) = element.split_at_checked(PLACE_BYTES)?;
    let is_number = place.iter().all(u8::is_ascii_digit);
    let place = std::str::from_utf8(place).ok().filter(|_| is_number)?.parse().ok()?;
    let (mark, body) = rest.split_first()?;
    let is_message = *mark == MARK && parse_body(body).is_some();
    is_message.then(|| Letter { place, body: body.to_vec() })
}
