//! The cluster that suffers: three nodes, each with links of its own to Redis and the
//! broker, and what is done to them.

use std::env;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::history::Rules;
use crate::history::Time;
use crate::history::Trouble;
use crate::history::fault::Fault;
use crate::history::fault::Links;
use crate::plan::NODES;
use crate::plan::PARTS;
use crate::plan::Planned;
use crate::plan::parts;
use crate::process::MAILBOX_MAX;
use crate::process::Process;
use crate::recorder::Recorder;
use crate::rig::proxy::Proxy;
use crate::rig::services::Services;

/// Deletes who is where and which nodes there are, in one go, and leaves the mailboxes.
const LOSE_PRESENCE: &str = "for _, pattern in ipairs({'p:*', '{nodes}*'}) do \
    for _, key in ipairs(redis.call('KEYS', pattern)) do redis.call('DEL', key) end end";

/// How often the clock is looked at, and how late that may be: the nodes' shortest deadlines
/// are a second.
const LOOK_TIME: Duration = Duration::from_millis(50);
const STALL_TIME: Time = 500;

/// How the nodes are set up: but for their mailboxes, as they are without a word.
const RULES: Rules = Rules { mailbox_max: MAILBOX_MAX, sessions_max: 8, outbox_bytes_max: 256 * 1024 };

/// The nodes, the services, and what is between them.
pub struct World {
    pub recorder: Arc<Recorder>,
    /// Where all that the nodes log is, and all that was done to them.
    pub log_path: PathBuf,
    log: Arc<Mutex<File>>,
    /// `None` while a node is not there.
    nodes: [Mutex<Option<Process>>; NODES],
    addrs: Mutex<[Option<SocketAddr>; NODES]>,
    redis: [Mutex<Proxy>; NODES],
    broker: [Mutex<Proxy>; NODES],
    pub services: Services,
    /// What is held by a fault, by its part: on a slow machine one may come late, and the
    /// next then waits.
    held: [Mutex<()>; PARTS],
    is_over: AtomicBool,
}

impl World {
    /// Starts everything. The log is called so.
    pub fn start(name: &str) -> Self {
        let log_path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
        let log = Arc::new(Mutex::new(File::create(&log_path).expect("there is room for a log")));
        let services = Services::durable();
        let redis = [(); NODES].map(|()| Mutex::new(Proxy::to(services.redis.addr())));
        let broker = [(); NODES].map(|()| Mutex::new(Proxy::to(services.broker.addr())));
        let recorder = Arc::new(Recorder::new(RULES));
        let nodes = [(); NODES].map(|()| Mutex::default());
        let held = [(); PARTS].map(|()| Mutex::default());
        let (addrs, is_over) = (Mutex::default(), AtomicBool::new(false));
        let world = World { recorder, log_path, log, nodes, addrs, redis, broker, services, held, is_over };
        thread::scope(|scope| {
            for node in 0..NODES {
                let world = &world;
                scope.spawn(move || world.start_node(node));
            }
        });
        world
    }

    /// Where a node is, if it is there.
    pub fn addr(&self, node: usize) -> Option<SocketAddr> {
        self.addrs.lock().expect("nobody panicked")[node]
    }

    /// Whether people may go no more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// From now on there are no faults, and people stay where they are.
    pub fn end(&self) {
        self.is_over.store(true, SeqCst);
        self.note("all is healed");
    }

    /// Looks at the clock, and at the disk, up to the end. Whoever does nothing else and comes too late was not
    /// let run, or not let write, and neither were the nodes and Redis: calls may have met their deadlines.
    pub fn watch_the_clock(&self) {
        let path = env::temp_dir().join(format!("pinpost-chaos-{}", process::id()));
        let mut probe = File::create(&path).expect("there is room for a file");
        let mut last = self.recorder.now();
        while !self.is_over() {
            thread::park_timeout(LOOK_TIME);
            // A file grows, and is on disk: what Redis waits for before it answers. That it fails is no stall.
            let _ = probe.write_all(b"x").and_then(|()| probe.sync_data());
            let now = self.recorder.now();
            if now - last > STALL_TIME {
                let stall = Trouble { fault: Fault::Stalled, from: last, to: Some(now) };
                self.recorder.write().troubles.push(stall);
                self.note(&format!("nobody ran since {last}"));
            }
            last = now;
        }
        // Whoever cleans up later has it.
        let _ = fs::remove_file(path);
    }

    /// Does one fault, from its beginning to its end, when it is time.
    pub fn suffer(&self, planned: &Planned) {
        let Planned { fault, at, time } = *planned;
        self.park_until(self.recorder.instant(at));
        let parts = (0..PARTS).filter(|part| parts(fault) & 1 << part != 0);
        let _held: Vec<_> = parts.map(|part| self.held[part].lock().expect("nobody panicked")).collect();
        let mut history = self.recorder.write();
        let trouble = history.troubles.len();
        let from = self.recorder.now();
        history.troubles.push(Trouble { fault, from, to: None });
        drop(history);
        self.note(&format!("begins: {fault} for {time} ms"));
        let begun = Instant::now();
        self.begin(fault);
        self.park_until(begun + Duration::from_millis(time));
        self.heal(fault);
        let to = self.recorder.now();
        self.recorder.write().troubles[trouble].to = Some(to);
        self.note(&format!("ends: {fault}"));
    }

    fn begin(&self, fault: Fault) {
        let Services { redis, broker } = &self.services;
        match fault {
            Fault::NodeKilled(node) => {
                self.addrs.lock().expect("nobody panicked")[node] = None;
                let process = self.nodes[node].lock().expect("nobody panicked").take();
                process.expect("a node is killed once").kill();
            }
            Fault::NodeFrozen(node) => self.signal(node, Signal::STOP),
            Fault::Cut(node, links) => self.links(node, links, Proxy::cut),
            Fault::Hung(node, links) => self.links(node, links, Proxy::hang),
            Fault::BrokerKilled => broker.kill(),
            Fault::BrokerFrozen => broker.freeze(),
            Fault::BrokerAlarm => broker.alarm(true),
            Fault::QueuesDeleted => broker.delete_queues(),
            Fault::ConnectionsClosed => broker.close_connections(),
            Fault::RedisKilled => redis.kill(),
            Fault::RedisFrozen => redis.freeze(),
            Fault::PresenceLost => drop(redis.command(&["EVAL", LOSE_PRESENCE, "0"])),
            _ => unreachable!("nobody plans that"),
        }
    }

    fn heal(&self, fault: Fault) {
        let Services { redis, broker } = &self.services;
        match fault {
            Fault::NodeKilled(node) => self.start_node(node),
            Fault::NodeFrozen(node) => self.signal(node, Signal::CONT),
            Fault::Cut(node, links) | Fault::Hung(node, links) => self.links(node, links, Proxy::heal),
            Fault::BrokerKilled => broker.start_empty(),
            Fault::BrokerFrozen => broker.thaw(),
            Fault::BrokerAlarm => broker.alarm(false),
            Fault::RedisKilled => redis.start(),
            Fault::RedisFrozen => redis.thaw(),
            _ => {}
        }
    }

    fn start_node(&self, node: usize) {
        let name = char::from(b'a' + node as u8).to_string();
        let at = |proxy: &Mutex<Proxy>| proxy.lock().expect("nobody panicked").addr();
        let redis = self.services.redis.url_at(at(&self.redis[node]));
        let amqp = self.services.broker.url_at(at(&self.broker[node]));
        let (log, recorder, prefix) = (self.log.clone(), self.recorder.clone(), name.clone());
        let process = Process::start(&name, &redis, &amqp, move |line| {
            if line.contains("panicked") && !line.contains("amiquip-io") {
                recorder.oddity(format!("node {prefix}: {line}"));
            }
            write(&log, recorder.now(), &format!("node {prefix}: {line}"));
        });
        self.addrs.lock().expect("nobody panicked")[node] = Some(process.addr);
        *self.nodes[node].lock().expect("nobody panicked") = Some(process);
    }

    /// Drains all nodes, which must go well.
    pub fn stop(&self) {
        for node in &self.nodes {
            let process = node.lock().expect("nobody panicked").take();
            let status = process.expect("all are there in the end").drain();
            if status.code() != Some(0) {
                self.recorder.oddity(format!("a node ends with {status}"));
            }
        }
    }

    /// Writes a line into the log.
    pub fn note(&self, what: &str) {
        write(&self.log, self.recorder.now(), what);
    }

    pub fn park_until(&self, at: Instant) {
        while let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            thread::park_timeout(left);
        }
    }

    fn signal(&self, node: usize, signal: Signal) {
        let process = self.nodes[node].lock().expect("nobody panicked");
        process.as_ref().expect("it is not killed meanwhile").signal(signal);
    }

    fn links(&self, node: usize, links: Links, change: impl Fn(&mut Proxy)) {
        let redis = (links != Links::Broker).then_some(&self.redis[node]);
        let broker = (links != Links::Redis).then_some(&self.broker[node]);
        let both = redis.into_iter().chain(broker);
        both.for_each(|proxy| change(&mut proxy.lock().expect("nobody panicked")));
    }
}

fn write(log: &Mutex<File>, now: u64, what: &str) {
    let mut log = log.lock().expect("nobody panicked");
    writeln!(log, "{now:>7} {what}").expect("there is room for a log");
}
