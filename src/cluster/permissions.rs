//! Whether Redis lets this node do all that it will do: asked once a connection, so that what is missing is named, and
//! a node is not half there.
//!
//! Each command is run on each kind of key, in a way that changes nothing. No user's name begins with `#`, so the
//! keys are nobody's.

use redis::{Cmd, Pipeline, Value};

/// On which key, the command, and arguments with which it does nothing.
const OF_USERS: &[(&str, &str)] = &[
    ("p:#", "HGET x"),
    ("p:#", "HGETALL"),
    ("p:#", "HDEL x"),
    ("m:#", "LLEN"),
    ("p:#", "PEXPIRE 1"),
    ("{nodes}", "ZSCORE x"),
    ("{nodes}", "ZREM x"),
    ("{nodes}", "ZREVRANGE 0 0"),
    ("{nodes}", "ZADD XX 1 x"),
    ("{nodes}", "ZREMRANGEBYSCORE (1 (1"),
    ("{nodes}", "ZRANGE 0 0"),
    ("{nodes}", "ZCARD"),
    ("{nodes}:m", "HGET x"),
    ("{nodes}:m", "HDEL x"),
    ("{nodes}:d", "ZREM x"),
    ("{nodes}:d", "ZADD XX 1 x"),
    ("{nodes}:d", "ZREMRANGEBYSCORE (1 (1"),
    ("{nodes}:d", "ZRANGE 0 0"),
    ("{nodes}:d", "ZCARD"),
];

/// The same where there are mailboxes.
const OF_MAIL: &[(&str, &str)] = &[
    ("m:#", "LINDEX 0"),
    ("m:#", "LRANGE 0 0"),
    ("m:#", "LPOP"),
    ("m:#", "RPOP"),
    ("m:#", "LREM 1 x"),
    ("m:#", "LTRIM 0 -1"),
    ("m:#", "PEXPIRE 1"),
];

/// What leaves something, so that it is taken away in the same step.
const SCRIPTS: &[(&str, &str, &str)] = &[
    ("p:#", "EVAL", "return 1"),
    ("p:#", "TIME", "return redis.call('TIME')"),
    ("p:#", "HSET", "redis.call('HSET', KEYS[1], 'x', 1) return redis.call('HDEL', KEYS[1], 'x')"),
    ("{nodes}:m", "HSET", "redis.call('HSET', KEYS[1], 'x', 1) return redis.call('HDEL', KEYS[1], 'x')"),
];
const SCRIPT_OF_MAIL: (&str, &str, &str) =
    ("m:#", "RPUSH", "redis.call('RPUSH', KEYS[1], 'x') return redis.call('LTRIM', KEYS[1], 1, 0)");

/// The questions, in order, each with what it is about.
fn questions(has_mailboxes: bool) -> Vec<(String, Cmd)> {
    let plain = OF_USERS.iter().chain(OF_MAIL.iter().filter(|_| has_mailboxes)).map(|(key, words)| {
        let mut words = words.split(' ');
        let name = words.next().unwrap_or_default();
        (about(name, key), redis::cmd(name).arg(key).arg(words.collect::<Vec<_>>()).take())
    });
    let scripts = SCRIPTS.iter().chain(Some(&SCRIPT_OF_MAIL).filter(|_| has_mailboxes));
    let scripts = scripts
        .map(|(key, name, script)| (about(name, key), redis::cmd("EVAL").arg(script).arg(1).arg(key).take()));
    plain.chain(scripts).collect()
}

fn about(name: &str, key: &str) -> String {
    format!("{name} of {}", key.replace('#', "*"))
}

/// What to ask a Redis.
pub fn ask(has_mailboxes: bool) -> Pipeline {
    let mut pipe = redis::pipe();
    for (_, question) in questions(has_mailboxes) {
        pipe.add_command(question);
    }
    pipe
}

/// What it does not allow, by its replies: `None` when that is nothing. Any other refusal is that of a moment.
pub fn missing(has_mailboxes: bool, replies: &[Value]) -> Option<String> {
    let refused = questions(has_mailboxes).into_iter().zip(replies).filter(|(_, reply)| is_denied(reply));
    let missing: Vec<String> = refused.map(|((what, _), _)| what).collect();
    (!missing.is_empty()).then(|| format!("it does not allow what a node needs: {}", missing.join(", ")))
}

/// Tells whether a reply says that something is not allowed, or not known.
pub fn is_denied(reply: &Value) -> bool {
    let Value::ServerError(error) = reply else { return false };
    let tells = [
        "NOPERM",
        "ACL failure",
        "The user executing the script can't",
        "nknown command",
        "nknown Redis command",
    ];
    error.code() == "NOPERM"
        || error.details().is_some_and(|details| tells.iter().any(|tell| details.contains(tell)))
}
