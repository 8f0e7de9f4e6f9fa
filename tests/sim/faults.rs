//! Which faults come when, and what each does to the world.
//!
//! Faults overlap as they like, except for two of one kind at one place. Some runs have none: what goes wrong then is
//! nobody's fault but ours.

use crate::history::Time;
use crate::history::Trouble;
use crate::history::fault::Fault;
use crate::history::fault::Links;
use crate::queue::Event;
use crate::queue::MS;
use crate::queue::PipeKind;
use crate::queue::SECOND;
use crate::rig::random::Random;
use crate::scene::Scene;
use crate::world::World;

/// A fault that will be.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub fault: Fault,
    pub at: Time,
    /// How long it lasts.
    pub time: Time,
}

/// How long a silent connection to the broker is kept, at least.
const HEARTBEAT_TIME: Time = 8 * SECOND;

/// In what time a node finds out that its queue is not bound.
const UNBOUND_TIME: Time = 5 * SECOND;

impl Planned {
    /// The faults of a run.
    pub fn all(scene: &Scene, random: &mut Random) -> Vec<Planned> {
        let mut plan: Vec<Planned> = vec![];
        if scene.fault_every == 0 {
            return plan;
        }
        let mut at = 3 * SECOND;
        while at + SECOND < scene.length {
            let (fault, time) = any(scene, random);
            let is_free = |other: &Planned| !other.fault.excludes(fault) || other.end() < at;
            if plan.iter().all(is_free) {
                plan.push(Planned { fault, at, time });
            }
            at += 1 + random.below(2 * scene.fault_every as usize) as Time;
        }
        plan
    }

    /// When the same may come again: a process needs time to start.
    fn end(&self) -> Time {
        self.at + self.time + 100 * MS
    }
}

fn any(scene: &Scene, random: &mut Random) -> (Fault, Time) {
    let node = random.below(scene.nodes);
    let cut = [Links::Redis, Links::Broker, Links::Both][random.below(3)];
    let hung = [Links::Redis, Links::Broker, Links::Both, Links::Out, Links::In][random.below(5)];
    let kind = random.below(42);
    let is_long = random.below(4) == 0;
    let mut time = |from: usize, to: usize| (from + random.below(to - from)) as Time * MS;
    let lease = if is_long { time(7_000, 10_000) } else { time(50, 5_000) };
    match kind {
        0..4 => (Fault::NodeKilled(node), time(50, 4_000)),
        4..8 => (Fault::NodeFrozen(node), lease),
        8..10 => (Fault::NodeDrained(node), 5_500 * MS + time(50, 2_000)),
        10..14 => (Fault::Cut(node, cut), time(100, 9_000)),
        14..20 => (Fault::Hung(node, hung), time(100, 9_000)),
        20 => (Fault::BatchesLost, time(100, 3_000)),
        21 => (Fault::BatchesTwice, time(100, 3_000)),
        22 => (Fault::BatchesLate, time(100, 3_000)),
        23 => (Fault::QueueDeleted(node), 0),
        // Until the node has noticed.
        24 => (Fault::Unbound(node), UNBOUND_TIME),
        25 => (Fault::QueuesDeleted, 0),
        26 => (Fault::ConnectionsClosed, 0),
        27..29 => (Fault::ConsumerFrozen(node), time(100, 7_000)),
        29 => (Fault::BrokerKilled, time(100, 4_000)),
        30 => (Fault::BrokerAlarm, time(100, 6_000)),
        31..33 => (Fault::BrokerFrozen, lease),
        33..35 => (Fault::RedisKilled, time(100, 4_000)),
        35..37 => (Fault::RedisFrozen, lease),
        37 => (Fault::PresenceLost, 0),
        38 => (Fault::RedisClock([-30, -1, 1, 30][node % 4]), 0),
        _ => (Fault::RedisOlder((time(100, 5_000) / MS) as usize), 0),
    }
}

impl World {
    /// Sets all that is planned.
    pub fn plan_faults(&mut self) {
        for (fault, planned) in self.plan.iter().enumerate() {
            self.queue.at(planned.at, Event::Begin { fault });
            if let Fault::RedisOlder(ms) = planned.fault {
                self.queue.at(planned.at.saturating_sub(ms as Time * MS), Event::Snapshot { fault });
            }
        }
    }

    /// A fault begins.
    pub fn begin(&mut self, number: usize) {
        let Planned { fault, time, .. } = self.plan[number];
        let from = self.queue.now();
        self.note(|| format!("begins: {fault} for {} ms", time / MS));
        self.history.troubles.push(Trouble { fault, from, to: Some(from + time) });
        let hosts = 0..self.hosts.len();
        match fault {
            Fault::NodeKilled(host) => self.kill(host),
            Fault::NodeFrozen(host) => self.freeze(host),
            Fault::NodeDrained(host) => self.drain(host),
            Fault::Cut(host, links) => self.cut(host, links),
            Fault::Hung(host, links) => self.hang(host, links),
            Fault::BatchesLost => self.broker.lost_percent = 20,
            Fault::BatchesTwice => self.broker.twice_percent = 30,
            Fault::BatchesLate => self.broker.late_percent = 20,
            Fault::QueueDeleted(host) => self.end_soon(host),
            Fault::Unbound(host) => self.broker.unbind(host),
            Fault::QueuesDeleted | Fault::ConnectionsClosed => hosts.for_each(|host| self.end_soon(host)),
            Fault::ConsumerFrozen(host) => self.hang(host, Links::In),
            Fault::BrokerKilled => {
                self.broker.is_dead = true;
                hosts.for_each(|host| self.end_soon(host));
            }
            Fault::BrokerAlarm => self.alarm(true),
            Fault::BrokerFrozen => hosts.for_each(|host| self.hang(host, Links::Broker)),
            Fault::RedisKilled => {
                self.redis.is_dead = true;
                hosts.for_each(|host| self.break_redis(host));
            }
            Fault::RedisFrozen => hosts.for_each(|host| self.hang(host, Links::Redis)),
            Fault::PresenceLost => self.redis.data.lose_presence(),
            Fault::RedisClock(hours) => self.redis.data.set_clock(i64::from(hours) * 3_600_000_000),
            Fault::RedisOlder(_) => {
                let at = self.redis.older.iter().position(|(fault, _)| *fault == number);
                self.redis.data = self.redis.older.remove(at.expect("it was kept")).1;
                self.redis.run += 1;
                hosts.for_each(|host| self.break_redis(host));
            }
            Fault::Stalled => unreachable!("nobody plans that"),
        }
        self.queue.after(time, Event::Heal { fault: number });
    }

    /// A fault is healed.
    pub fn heal(&mut self, number: usize) {
        let fault = self.plan[number].fault;
        self.note(|| format!("ends: {fault}"));
        let hosts = 0..self.hosts.len();
        match fault {
            Fault::NodeKilled(host) | Fault::NodeDrained(host) => self.start(host),
            Fault::NodeFrozen(host) => self.thaw(host),
            Fault::Cut(host, links) => self.mend(host, links),
            Fault::Hung(host, links) => self.unhang(host, links),
            Fault::BatchesLost => self.broker.lost_percent = 0,
            Fault::BatchesTwice => self.broker.twice_percent = 0,
            Fault::BatchesLate => self.broker.late_percent = 0,
            Fault::ConsumerFrozen(host) => self.unhang(host, Links::In),
            Fault::BrokerKilled => self.broker.is_dead = false,
            Fault::BrokerAlarm => self.alarm(false),
            Fault::BrokerFrozen => hosts.for_each(|host| self.unhang(host, Links::Broker)),
            Fault::RedisKilled => {
                self.redis.is_dead = false;
                self.redis.run += 1;
            }
            Fault::RedisFrozen => hosts.for_each(|host| self.unhang(host, Links::Redis)),
            _ => {}
        }
    }

    /// The broker ends a connection of a node, which hears of it soon.
    pub fn end_soon(&mut self, host: usize) {
        let notice = 1 + self.random.below(300 * MS as usize) as Time;
        self.end_session(host, notice);
    }

    fn cut(&mut self, host: usize, links: Links) {
        if links != Links::Redis {
            self.hosts[host].bus.refused += 1;
            self.end_soon(host);
        }
        if matches!(links, Links::Redis | Links::Both) {
            self.hosts[host].presence.refused += 1;
            self.break_redis(host);
        }
    }

    fn mend(&mut self, host: usize, links: Links) {
        if links != Links::Redis {
            self.hosts[host].bus.refused -= 1;
        }
        if matches!(links, Links::Redis | Links::Both) {
            self.hosts[host].presence.refused -= 1;
        }
    }

    fn hang(&mut self, host: usize, links: Links) {
        let of = &mut self.hosts[host];
        let is_of_broker = links != Links::Redis;
        if is_of_broker && links != Links::In {
            of.publish.hang();
            of.returns.hang();
        }
        if is_of_broker && links != Links::Out {
            of.consume.hang();
        }
        if matches!(links, Links::Redis | Links::Both) {
            of.asks.hang();
            of.answers.hang();
        }
        if is_of_broker {
            let session = of.bus.session;
            let time = HEARTBEAT_TIME + self.random.below(4 * SECOND as usize) as Time;
            self.queue.after(time, Event::Heartbeat { host, session });
        }
    }

    fn unhang(&mut self, host: usize, links: Links) {
        let is_of_broker = links != Links::Redis;
        if is_of_broker && links != Links::In {
            self.let_out(host, PipeKind::Publish);
            self.let_out(host, PipeKind::Return);
        }
        if is_of_broker && links != Links::Out {
            self.let_out(host, PipeKind::Consume);
        }
        if matches!(links, Links::Redis | Links::Both) {
            self.let_out(host, PipeKind::Ask);
            self.let_out(host, PipeKind::Answer);
        }
    }

    /// What is in a pipe comes out again, unless something else keeps it.
    fn let_out(&mut self, host: usize, pipe: PipeKind) {
        let of = &mut self.hosts[host];
        let count = match pipe {
            PipeKind::Publish => of.publish.thaw(),
            PipeKind::Return => of.returns.thaw(),
            PipeKind::Consume => of.consume.thaw(),
            PipeKind::Ask => of.asks.thaw(),
            PipeKind::Answer => of.answers.thaw(),
        };
        (0..count).for_each(|_| self.queue.after(0, Event::Pipe { host, pipe }));
    }
}
