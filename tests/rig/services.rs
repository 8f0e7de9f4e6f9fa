//! A Redis and a RabbitMQ for tests: the shared ones, or some of one's own to break.
//!
//! `tests/services.sh` knows how to start, break and stop them. [`Services::shared`] gives a
//! database of one's own in a Redis, and a broker, that all tests share: those of `make test`,
//! whose addresses it puts into `PINPOST_TEST_REDIS` and `PINPOST_TEST_AMQP`, else those of this
//! process, started by who asks first. Nothing may be broken in these. What is
//! [`Services::own`] can be, and ends with the value. However a test process ends, the
//! servers that it started end with it.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Signal, kill_process};

use super::resp::{Reply, Resp};
use super::until;

/// For a Redis with its append-only file on.
const DURABLE: &[&str] = &["--durable"];

/// A Redis and a broker. Who breaks one of them puts it together: `Services { redis: Redis::own(),
/// broker: Broker::shared() }`.
pub struct Services {
    pub redis: Redis,
    pub broker: Broker,
}

impl Services {
    /// An empty database in the shared Redis, and the shared broker.
    pub fn shared() -> Self {
        Services { redis: Redis::shared(), broker: Broker::shared() }
    }

    /// A Redis and a broker of one's own; the broker takes three seconds to start.
    pub fn own() -> Self {
        let folder = Arc::new(Folder::new());
        let [redis, broker] = folder.start_both(&[]);
        Services { redis: Redis::of(redis, &folder, &[]), broker: Broker::of(broker, &folder) }
    }

    /// The same with a Redis that answers when what it was told is on disk.
    pub fn durable() -> Self {
        let folder = Arc::new(Folder::new());
        let [redis, broker] = folder.start_both(DURABLE);
        Services { redis: Redis::of(redis, &folder, DURABLE), broker: Broker::of(broker, &folder) }
    }

    /// `redis://127.0.0.1:PORT/DATABASE`
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// `amqp://guest:guest@127.0.0.1:PORT`
    pub fn amqp_url(&self) -> String {
        self.broker.url()
    }

    /// Asks the Redis, in this database, on a connection made for it.
    #[track_caller]
    pub fn redis_command(&self, words: &[&str]) -> Reply {
        self.redis.command(words)
    }
}

/// A database of a Redis.
pub struct Redis {
    addr: SocketAddr,
    database: u32,
    process: Option<Process>,
    /// How it is started.
    args: &'static [&'static str],
}

impl Redis {
    /// An empty database in the shared Redis.
    pub fn shared() -> Self {
        let mut redis = Redis { addr: shared_addrs()[0], database: 0, process: None, args: &[] };
        // 0 counts those given away. The thousandth test after this one may have this one's
        // database; there are 1,024.
        let count = redis.command(&["INCR", "databases"]).number();
        redis.database = 1 + (count % 1_000) as u32;
        redis.command(&["FLUSHDB"]);
        redis
    }

    /// A Redis of one's own, which starts at once.
    pub fn own() -> Self {
        let folder = Arc::new(Folder::new());
        Redis::of(addr_of(&folder.start("redis", &[])), &folder, &[])
    }

    /// One that answers when what it was told is on disk.
    pub fn durable() -> Self {
        let folder = Arc::new(Folder::new());
        Redis::of(addr_of(&folder.start("redis", DURABLE)), &folder, DURABLE)
    }

    fn of(addr: SocketAddr, folder: &Arc<Folder>, args: &'static [&'static str]) -> Self {
        let process = Some(Process { name: "redis", folder: folder.clone() });
        Redis { addr, database: 0, process, args }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `redis://127.0.0.1:PORT/DATABASE`
    pub fn url(&self) -> String {
        self.url_at(self.addr)
    }

    /// The URL of this database at another address, such as that of a proxy.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        format!("redis://{addr}/{}", self.database)
    }

    /// Asks it, in this database, on a connection made for it. The reply is no error.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Reply {
        let database = self.database.to_string();
        let mut resp = Resp::connect(self.addr).unwrap_or_else(|error| panic!("{}: {error}", self.addr));
        let mut ask = |words: &[&str]| match resp.command(words) {
            Ok(Reply::Error(error)) => panic!("{words:?}: {error}"),
            Err(error) => panic!("{words:?}: {error}"),
            Ok(reply) => reply,
        };
        ask(&["SELECT", &database]);
        ask(words)
    }

    /// Ends it by `kill -9`; its port refuses.
    pub fn kill(&self) {
        self.process().kill(self.addr);
    }

    /// Starts it again on its port: empty, or with all that it has answered to if it is durable.
    pub fn start(&self) {
        self.process().start(self.addr, self.args);
    }

    /// Stops it where it stands: its connections stay open, and nobody answers.
    pub fn freeze(&self) {
        self.process().freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process().signal(Signal::CONT);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("only a Redis of one's own is broken")
    }
}

/// A broker; it ends with the last of its clones.
#[derive(Clone)]
pub struct Broker {
    addr: SocketAddr,
    process: Option<Process>,
}

impl Broker {
    /// The shared broker.
    pub fn shared() -> Self {
        Broker { addr: shared_addrs()[1], process: None }
    }

    /// A broker of one's own, which takes three seconds to start.
    pub fn own() -> Self {
        let folder = Arc::new(Folder::new());
        Broker::of(addr_of(&folder.start("broker", &[])), &folder)
    }

    fn of(addr: SocketAddr, folder: &Arc<Folder>) -> Self {
        Broker { addr, process: Some(Process { name: "broker", folder: folder.clone() }) }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `amqp://guest:guest@127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.url_at(self.addr)
    }

    /// The URL at another address, such as that of a proxy.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        format!("amqp://guest:guest@{addr}")
    }

    /// Ends it by `kill -9`; its port refuses.
    pub fn kill(&self) {
        self.process().kill(self.addr);
    }

    /// Starts it again on its port, with what it kept on disk, which takes two seconds. What was
    /// declared durable a moment before [`Self::kill`] may be lost: it is written late.
    pub fn start(&self) {
        self.process().start(self.addr, &[]);
    }

    /// Starts it again on its port, as a new one, which takes three seconds.
    pub fn start_empty(&self) {
        self.process().start(self.addr, &["--empty"]);
    }

    /// Stops it where it stands: its connections stay open, and nobody answers.
    pub fn freeze(&self) {
        self.process().freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process().signal(Signal::CONT);
    }

    /// Makes it believe that it is out of memory, or not any more. While it does, it reads
    /// nothing from a connection that publishes.
    pub fn alarm(&self, is_on: bool) {
        self.process().folder.run("alarm", &[if is_on { "on" } else { "off" }]);
    }

    /// The names of all queues.
    pub fn queues(&self) -> Vec<String> {
        self.process().folder.run("queues", &[]).lines().map(str::to_owned).collect()
    }

    /// Deletes every queue, as an operator would, whoever uses it.
    pub fn delete_queues(&self) {
        self.process().folder.run("delete-queues", &[]);
    }

    /// Deletes the exchange of all nodes, as an operator would.
    pub fn delete_exchange(&self) {
        self.process().folder.run("delete-exchange", &[]);
    }

    /// Removes the bindings of the queues of nodes whose ids begin so, as an operator would.
    pub fn unbind(&self, prefix: &str) {
        self.process().folder.run("unbind", &[prefix]);
    }

    /// Closes every connection, as an operator would.
    pub fn close_connections(&self) {
        self.process().folder.run("close-connections", &[]);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("only a broker of one's own is broken")
    }
}

/// One server of a folder.
#[derive(Clone)]
struct Process {
    name: &'static str,
    folder: Arc<Folder>,
}

impl Process {
    fn pid(&self) -> Pid {
        let path = self.folder.0.join(format!("{}.pid", self.name));
        let text = fs::read_to_string(path).expect("it was started");
        Pid::from_raw(text.trim().parse().expect("a number")).expect("not 0")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    fn kill(&self, addr: SocketAddr) {
        let folder = format!("/proc/{}/cwd", self.pid());
        self.signal(Signal::KILL);
        until("its port refuses", || TcpStream::connect(addr).is_err());
        // By this the script tells who still runs; a zombie has none.
        until("it has ended", || fs::read_link(&folder).is_err());
    }

    fn freeze(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.pid());
        let is_stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).expect("it does not end");
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        until("all its threads are stopped", || {
            fs::read_dir(&threads).expect("it runs").all(|thread| is_stopped(thread.expect("it runs")))
        });
    }

    fn start(&self, addr: SocketAddr, args: &[&str]) {
        let url = self.folder.start(self.name, args);
        assert_eq!(addr_of(&url), addr, "it has the port that it had before");
    }
}

/// A folder of servers; they end and it is deleted when this is dropped.
struct Folder(PathBuf);

impl Folder {
    /// Nothing is there yet.
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Folder(env::temp_dir().join(format!("pinpost-services-{}-{count}", process::id())))
    }

    /// Starts what the verb tells, for as long as this process runs; gives what is printed.
    fn start(&self, verb: &str, args: &[&str]) -> String {
        self.run(verb, &[args, &["--for", &process::id().to_string()]].concat())
    }

    fn start_both(&self, args: &[&str]) -> [SocketAddr; 2] {
        let urls = self.start("both", args);
        let (redis, broker) = urls.trim().split_once('\n').expect("two lines");
        [addr_of(redis), addr_of(broker)]
    }

    fn run(&self, verb: &str, args: &[&str]) -> String {
        script(verb, &self.0, args).unwrap_or_else(|trouble| panic!("services.sh {verb}: {trouble}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left when this fails ends with the process.
        let _ = script("remove", &self.0, &[]);
    }
}

/// Runs `tests/services.sh`: what it printed, or what it complained of.
pub fn script(verb: &str, folder: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services.sh"));
    command.arg(verb).arg(folder).args(args).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Where the shared Redis and the shared broker are.
fn shared_addrs() -> [SocketAddr; 2] {
    static ADDRS: OnceLock<[SocketAddr; 2]> = OnceLock::new();
    *ADDRS.get_or_init(|| match (env::var("PINPOST_TEST_REDIS"), env::var("PINPOST_TEST_AMQP")) {
        (Ok(redis), Ok(broker)) => [addr_of(&redis), addr_of(&broker)],
        _ => {
            let folder = Folder::new();
            let addrs = folder.start_both(&[]);
            // They end with the process.
            std::mem::forget(folder);
            addrs
        }
    })
}

fn addr_of(url: &str) -> SocketAddr {
    let (_, rest) = url.trim().split_once("://").unwrap_or_else(|| panic!("{url} is no URL"));
    let addr = rest.rsplit('@').next().expect("one at least");
    addr.parse().unwrap_or_else(|_| panic!("{url} has no IP address and port"))
}
