//! A private Redis and a private RabbitMQ, through `tests/services.sh`.
//!
//! [`Services::shared`] is one pair for all tests of a run, each with a database of its
//! own; [`Services::own`] is for tests that break theirs. [`Redis`] talks to a database.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// A Redis and a RabbitMQ.
pub struct Services {
    redis: String,
    amqp: String,
    /// Where they are, if they are ours to end.
    dir: Option<PathBuf>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Redis,
    Broker,
}

impl Services {
    /// Those of this run: started by `make test`, or else once for this test program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Services> = OnceLock::new();
        SHARED.get_or_init(|| {
            let given = |name| env::var(name).ok();
            match (given("PINPOST_TEST_REDIS"), given("PINPOST_TEST_AMQP")) {
                (Some(redis), Some(amqp)) => Services { redis, amqp, dir: None },
                _ => Self::own(),
            }
        })
    }

    /// New ones. They end when this is dropped, and with this process at the latest.
    pub fn own() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("pinpost-services-{}-{count}", process::id()));
        let told = script(&["both", dir.to_str().expect("UTF-8"), "--for", &process::id().to_string()]);
        let (redis, amqp) = told.trim().split_once('\n').expect("two lines");
        Services { redis: redis.to_owned(), amqp: amqp.to_owned(), dir: Some(dir) }
    }

    /// A database that no other test has.
    pub fn redis_url(&self) -> String {
        let number = Redis::open(&self.redis).number(&["INCR", "databases"]);
        let url = format!("{}/{}", self.redis, 1 + number % 1000);
        Redis::open(&url).number(&["DBSIZE"]);
        Redis::open(&url).say(&["FLUSHDB"]);
        url
    }

    /// The broker, which tests can share: the ids of nodes are unique.
    pub fn amqp_url(&self) -> &str {
        &self.amqp
    }

    /// Ends one of them without a word.
    pub fn kill(&self, which: Which) {
        self.signal(which, Signal::KILL);
    }

    /// Freezes one of them: it is there, and says nothing.
    pub fn freeze(&self, which: Which) {
        self.signal(which, Signal::STOP);
    }

    /// Ends [`Services::freeze`].
    pub fn thaw(&self, which: Which) {
        self.signal(which, Signal::CONT);
    }

    /// Starts one of them again, where it was, empty; waits until it is ready.
    pub fn restart(&self, which: Which) {
        match which {
            Which::Redis => drop(script(&["redis", self.dir()])),
            Which::Broker => drop(script(&["broker", self.dir(), "--empty"])),
        }
    }

    /// Makes the broker believe that it has no memory left, or that it has.
    pub fn alarm(&self, is_on: bool) {
        script(&["alarm", self.dir(), if is_on { "on" } else { "off" }]);
    }

    /// Deletes every queue.
    pub fn delete_queues(&self) {
        script(&["delete-queues", self.dir()]);
    }

    /// Closes every connection of the broker.
    pub fn close_connections(&self) {
        script(&["close-connections", self.dir()]);
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        script(&["queues", self.dir()]).trim().parse().expect("a number")
    }

    fn signal(&self, which: Which, signal: Signal) {
        let name = if which == Which::Redis { "redis.pid" } else { "broker.pid" };
        let pid = fs::read_to_string(self.dir.as_ref().expect("ours").join(name)).expect("it runs");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("not 0");
        kill_process(pid, signal).expect("it runs");
    }

    fn dir(&self) -> &str {
        self.dir.as_ref().expect("shared ones are not broken").to_str().expect("UTF-8")
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if self.dir.is_some() {
            script(&["remove", self.dir()]);
        }
    }
}

/// A connection to a Redis database.
pub struct Redis(BufReader<TcpStream>);

/// What Redis says.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    List(Vec<Reply>),
    Nothing,
}

impl Redis {
    /// Opens the database of a URL.
    pub fn open(url: &str) -> Self {
        let rest = url.strip_prefix("redis://").expect("a URL");
        let (addr, database) = rest.split_once('/').unwrap_or((rest, "0"));
        let mut redis = Redis(BufReader::new(TcpStream::connect(addr).expect("it listens")));
        redis.say(&["SELECT", database]);
        redis
    }

    /// Runs a command.
    pub fn say(&mut self, words: &[&str]) -> Reply {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(command.as_bytes()).expect("it reads");
        self.reply()
    }

    /// Runs a command that answers with a number.
    pub fn number(&mut self, words: &[&str]) -> i64 {
        match self.say(words) {
            Reply::Number(number) => number,
            other => panic!("{words:?}: {other:?} is no number"),
        }
    }

    /// Runs a command that answers with texts.
    pub fn texts(&mut self, words: &[&str]) -> Vec<String> {
        let Reply::List(list) = self.say(words) else { panic!("{words:?}: no list") };
        let text = |reply| match reply {
            Reply::Text(text) => text,
            other => panic!("{words:?}: {other:?} is no text"),
        };
        list.into_iter().map(text).collect()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it answers");
        let (kind, rest) = line.trim_end().split_at(1);
        match (kind, rest) {
            ("+", text) => Reply::Text(text.to_owned()),
            (":", number) => Reply::Number(number.parse().expect("a number")),
            ("$" | "*", "-1") => Reply::Nothing,
            ("$", length) => {
                let mut text = vec![0; length.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut text).expect("as long as it says");
                text.truncate(text.len() - 2);
                Reply::Text(String::from_utf8(text).expect("UTF-8"))
            }
            ("*", count) => {
                Reply::List((0..count.parse().expect("a number")).map(|_| self.reply()).collect())
            }
            (_, error) => panic!("Redis says {kind}{error}"),
        }
    }
}

fn script(args: &[&str]) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services.sh");
    let out = Command::new(path).args(args).output().expect("bash is here");
    let (told, trouble) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "services.sh {args:?}: {told}{trouble}");
    told.into_owned()
}
