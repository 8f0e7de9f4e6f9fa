//! A few nodes on a Redis and a broker, and how to tell that all of it is whole again.
//!
//! Each town has a Redis of its own, which costs nothing, so `{nodes}` and all keys in it are
//! the town's; its queues are told by the names of its nodes, so towns can share a broker.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::person::{Person, promises_are_kept};
use crate::rig::node::Node;
use crate::rig::peer::Peer;
use crate::rig::proxy::Proxy;
use crate::rig::services::{Broker, Redis};
use crate::rig::until_in;
use crate::rows::begin_beside;

/// How long a lease lasts: `LEASE_TIME` of `src/cluster/lease.rs`.
pub const LEASE: Duration = Duration::from_secs(6);

/// How long it may take until all is whole again. A service that is back is noticed within 2
/// seconds, and whoever is given up meanwhile gets a lease's time; a busy machine takes longer.
pub const RECOVERY_TIME_MAX: Duration = Duration::from_secs(30);

/// How long what needs no waiting may take on a busy machine.
pub const AT_ONCE: Duration = Duration::from_millis(900);

/// How much later than it should anything may happen on a busy machine.
pub const SLACK: Duration = Duration::from_secs(3);

/// The broker of all tests that do not break it.
pub fn calm() -> Broker {
    static CALM: LazyLock<Broker> = LazyLock::new(Broker::own);
    let broker = CALM.clone();
    // Not before: several brokers that start at once are slow.
    begin_beside();
    broker
}

/// Nodes, and what they share.
pub struct Town {
    name: String,
    pub redis: Redis,
    pub broker: Broker,
    /// The ways of the first node to both.
    pub ways: Option<[Proxy; 2]>,
    pub nodes: Vec<Node>,
    /// Where nodes are that are no part of this process.
    pub others: Vec<SocketAddr>,
}

impl Town {
    /// Starts so many nodes on a Redis of their own and this broker.
    pub fn new(name: &str, broker: Broker, count: usize) -> Self {
        Self::with(name, broker, count, None, &[])
    }

    /// The same, and the first node can be cut off.
    pub fn with_ways(name: &str, broker: Broker, count: usize) -> Self {
        Self::with(name, broker, count, Some(()), &[])
    }

    /// The same with these settings.
    pub fn with_settings(name: &str, broker: Broker, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::with(name, broker, count, None, settings)
    }

    fn with(name: &str, broker: Broker, count: usize, ways: Option<()>, settings: &[(&str, &str)]) -> Self {
        let redis = Redis::own();
        let ways = ways.map(|()| [Proxy::to(redis.addr()), Proxy::to(broker.addr())]);
        let mut town = Town { name: name.to_owned(), redis, broker, ways, nodes: vec![], others: vec![] };
        town.nodes = thread::scope(|scope| {
            let start = |n| {
                let (node, [redis, amqp]) = (town.node_name(n), town.urls(n));
                let mine = [("node", &node[..]), ("redis", &redis), ("amqp", &amqp)];
                Node::start(&[&mine, settings].concat())
            };
            let starting: Vec<_> = (0..count).map(|n| scope.spawn(move || start(n))).collect();
            starting.into_iter().map(|node| node.join().expect("a node starts")).collect()
        });
        town
    }

    /// The name of the `n`th node.
    pub fn node_name(&self, n: usize) -> String {
        format!("{}-{}", self.name, char::from(b'a' + n as u8))
    }

    /// Where the `n`th node finds the services.
    pub fn urls(&self, n: usize) -> [String; 2] {
        match &self.ways {
            Some([redis, broker]) if n == 0 => {
                [self.redis.url_at(redis.addr()), self.broker.url_at(broker.addr())]
            }
            _ => [self.redis.url(), self.broker.url()],
        }
    }

    /// Closes the ways of the first node, or lets them hang.
    pub fn cut_off(&mut self, hangs: bool) {
        for way in self.ways.as_mut().expect("it has some") {
            if hangs { way.hang() } else { way.cut() }
        }
    }

    /// Opens them again.
    pub fn heal(&mut self) {
        self.ways.as_mut().expect("it has some").iter_mut().for_each(Proxy::heal);
    }

    /// Somebody logs in at the `n`th node.
    #[track_caller]
    pub fn login(&self, n: usize, name: &str) -> Person {
        Person::login(self.nodes[n].tcp, name)
    }

    /// What the nodes call themselves now.
    pub fn ids(&self) -> Vec<String> {
        let nodes = self.nodes.iter().map(|node| &node.tcp);
        nodes.chain(&self.others).map(|addr| id_of(*addr)).collect()
    }

    /// Waits until all these people, who are in once each, find each other and get what they
    /// send, and until nothing is left in Redis and the broker but what is alive.
    #[track_caller]
    pub fn recovers(&self, people: &mut [&mut Person]) {
        let start = Instant::now();
        for (asker, other) in pairs(people.len()) {
            let name = people[other].name.clone();
            let what = format!("{}: {} finds {name}", self.name, people[asker].name);
            until_in(left(start), &what, || people[asker].finds(&name) == "online 1");
        }
        for (sender, other) in pairs(people.len()) {
            let name = people[other].name.clone();
            let what = format!("{}: {} reaches {name}", self.name, people[sender].name);
            until_in(left(start), &what, || people[sender].sends(&name) == "delivered");
        }
        self.is_whole(people);
    }

    /// All these people reach each other, and only living nodes are in Redis and the broker.
    #[track_caller]
    pub fn is_whole(&self, people: &mut [&mut Person]) {
        for (sender, other) in pairs(people.len()) {
            let [sender, other] = people.get_disjoint_mut([sender, other]).expect("two people");
            sender.reaches(other);
        }
        self.has_no_remains();
    }

    /// The table of nodes and the queues are those of the nodes that live.
    #[track_caller]
    pub fn has_no_remains(&self) {
        let mut ids = self.ids();
        ids.sort();
        until_in(RECOVERY_TIME_MAX, "the table of nodes is right", || {
            let members = self.redis.command(&["ZRANGE", "{nodes}", "0", "-1"]).list();
            // Each with the version that it reads.
            let id = |member: String| member.rsplit_once(':').map(|(id, _)| id.to_owned());
            let mut nodes: Vec<String> = members.into_iter().filter_map(id).collect();
            nodes.sort();
            nodes == ids
        });
        let ours = format!("pinpost.{}-", self.name);
        until_in(RECOVERY_TIME_MAX, "there is one queue a node", || {
            let queues = self.broker.queues();
            let queues: Vec<_> = queues.iter().filter(|queue| queue.starts_with(&ours)).collect();
            let is_of = |id: &String| queues.iter().any(|queue| queue.starts_with(&format!("pinpost.{id}.")));
            queues.len() == ids.len() && ids.iter().all(is_of)
        });
    }

    /// Waits until a user's entry in Redis names just these nodes.
    #[track_caller]
    pub fn is_at(&self, user: &str, nodes: &[&str]) {
        until_in(RECOVERY_TIME_MAX, &format!("{user} is on {nodes:?}"), || {
            let fields = self.redis.command(&["HKEYS", &format!("p:{user}")]).list();
            let mut on: Vec<_> = fields
                .iter()
                .filter_map(|tag| Some(tag.split_at_checked(tag.len().checked_sub(8)?)?.0))
                .collect();
            on.sort();
            on == nodes
        });
    }

    /// Everybody goes: all that was promised was kept, and nothing is held.
    #[track_caller]
    pub fn is_left_by(&self, mut people: Vec<Person>) {
        promises_are_kept(&mut people);
        drop(people);
        self.nodes.iter().for_each(Node::settles);
        until_in(RECOVERY_TIME_MAX, "nobody is online", || {
            self.redis.command(&["KEYS", "p:*"]).list().is_empty()
        });
    }
}

/// What a node calls itself now.
#[track_caller]
pub fn id_of(addr: SocketAddr) -> String {
    let hello = Peer::silent(addr).hears_start("HELLO pinpost 1 ");
    hello["HELLO pinpost 1 ".len()..].to_owned()
}

/// Lets time pass that nothing tells the end of: that of a lease, or of attempts that fail.
pub fn after(time: Duration, since: Instant) {
    thread::sleep(time.saturating_sub(since.elapsed()));
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count * count).map(move |n| (n / count, n % count)).filter(|(a, b)| a != b)
}

fn left(start: Instant) -> Duration {
    RECOVERY_TIME_MAX.saturating_sub(start.elapsed())
}
