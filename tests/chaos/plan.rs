//! Which faults come when, and for how long: a schedule that follows from the seed alone.
//!
//! Faults overlap as they like, except where one would undo the other: a broker that was
//! killed can't be frozen. Every now and then comes a calm, long enough for whatever goes
//! wrong then to be nobody's fault but ours.

use std::fmt;

use crate::history::Ms;
use crate::rig::random::Random;

/// Nodes of the cluster.
pub const NODES: usize = 3;

/// What goes wrong. Numbers are places of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed, and started again under its name.
    NodeKilled(usize),
    /// Stopped, and continued.
    NodeFrozen(usize),
    /// One node's links to the services are closed and refused.
    Cut(usize, Links),
    /// One node's links carry nothing, and stay open.
    Hung(usize, Links),
    /// Killed, and started again.
    BrokerKilled,
    BrokerFrozen,
    /// Believes that it is out of memory.
    BrokerAlarm,
    /// By an operator.
    QueuesDeleted,
    /// By an operator.
    ConnectionsClosed,
    /// Killed, and started again with what it had on disk.
    RedisKilled,
    RedisFrozen,
    /// Redis forgets who is where, and which nodes there are; mailboxes stay.
    PresenceLost,
    /// The machine has so much else to do that nobody runs. Nobody plans that.
    Stalled,
}

/// Links of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Redis,
    Broker,
    Both,
}

/// A fault that will be.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub fault: Fault,
    pub at: Ms,
    /// How long it lasts; healing takes its own time.
    pub time: Ms,
}

/// Parts of the cluster, a bit each.
type Parts = u32;

/// How many there are.
pub const PARTS: usize = 2 + 3 * NODES;

const BROKER: Parts = 1;
const REDIS: Parts = 2;
/// The first of the nodes, and of their links to Redis and to the broker.
const NODE: u32 = 2;
const LINK: u32 = NODE + NODES as u32;

/// On average there is a fault in so much time.
const FAULT_EVERY: Ms = 2_700;

/// How long a killed broker takes to be back, mostly and at most; and a killed node.
const BROKER_START_TIME: Ms = 4_000;
const BROKER_START_TIME_MAX: Ms = 12_000;
const NODE_START_TIME: Ms = 500;

/// Long enough to see how long a fault is felt.
const QUIET_TIME: Ms = 5_500;

/// Longer than any fault may be felt.
const CALM_TIME: Ms = 18_000;

impl Fault {
    /// What the report calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::NodeKilled(_) => "node killed",
            Fault::NodeFrozen(_) => "node frozen",
            Fault::Cut(_, Links::Redis) => "cut off from Redis",
            Fault::Cut(_, Links::Broker) => "cut off from the broker",
            Fault::Cut(_, Links::Both) => "cut off from both",
            Fault::Hung(_, Links::Redis) => "Redis hangs for one",
            Fault::Hung(_, Links::Broker) => "the broker hangs for one",
            Fault::Hung(_, Links::Both) => "both hang for one",
            Fault::BrokerKilled => "broker killed",
            Fault::BrokerFrozen => "broker frozen",
            Fault::BrokerAlarm => "memory alarm",
            Fault::QueuesDeleted => "queues deleted",
            Fault::ConnectionsClosed => "connections closed",
            Fault::RedisKilled => "Redis killed",
            Fault::RedisFrozen => "Redis frozen",
            Fault::PresenceLost => "presence lost",
            Fault::Stalled => "machine stalled",
        }
    }

    /// The node that alone has it.
    pub fn node(self) -> Option<usize> {
        match self {
            Fault::NodeKilled(node) | Fault::NodeFrozen(node) => Some(node),
            Fault::Cut(node, _) | Fault::Hung(node, _) => Some(node),
            _ => None,
        }
    }

    /// What was on its way may be routed again: a node dies or is taken for dead, or its queue
    /// at the broker is gone, or Redis does not say where a user is. A broker that is only out
    /// of memory has everything wait.
    pub fn reroutes(self) -> bool {
        self != Fault::BrokerAlarm
    }

    /// These two nodes can't tell each other what they have shown, or not by way of Redis. What
    /// one node has to tell itself nothing keeps back but its death.
    pub fn divides(self, one: usize, other: usize) -> bool {
        match self.node() {
            _ if one == other => self == Fault::NodeKilled(one),
            Some(node) => [one, other].contains(&node),
            None => true,
        }
    }

    /// As long as it lasts, a node can't tell Redis anything, or Redis forgets.
    pub fn silences(self) -> bool {
        match self {
            Fault::Cut(_, links) | Fault::Hung(_, links) => links != Links::Broker,
            Fault::NodeFrozen(_) | Fault::RedisKilled | Fault::RedisFrozen => true,
            Fault::PresenceLost | Fault::Stalled => true,
            _ => false,
        }
    }

    /// What it needs for itself.
    pub fn parts(self) -> Parts {
        match self {
            Fault::NodeKilled(node) | Fault::NodeFrozen(node) => 1 << (NODE + node as u32),
            Fault::Cut(node, links) | Fault::Hung(node, links) => {
                let links = match links {
                    Links::Redis => 1,
                    Links::Broker => 2,
                    Links::Both => 3,
                };
                links << (LINK + 2 * node as u32)
            }
            Fault::RedisKilled | Fault::RedisFrozen | Fault::PresenceLost => REDIS,
            _ => BROKER,
        }
    }

    /// From when on the next may come, counted from its end.
    fn rest(self) -> Ms {
        if self == Fault::BrokerKilled { BROKER_START_TIME_MAX } else { 2_000 }
    }
}

impl Planned {
    /// When it is healed, mostly.
    fn end(&self) -> Ms {
        let start = match self.fault {
            Fault::BrokerKilled => BROKER_START_TIME,
            Fault::NodeKilled(_) => NODE_START_TIME,
            _ => 0,
        };
        self.at + self.time + start
    }

    /// When its parts may have another.
    fn is_over(&self) -> Ms {
        self.at + self.time + self.fault.rest()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.node().map_or(Ok(()), |node| write!(f, " ({node})"))
    }
}

/// The most telling faults in about 20 seconds.
pub fn short(random: &mut Random) -> Vec<Planned> {
    let mut node = || random.below(NODES);
    let (killed, cut, frozen) = (node(), node(), node());
    let set = [
        (1_500, Fault::NodeKilled(killed), 1_500),
        (4_500, Fault::PresenceLost, 0),
        (6_000, Fault::Hung(cut, Links::Both), 3_000),
        (8_500, Fault::BrokerKilled, 500),
        (11_000, Fault::RedisKilled, 700),
        (13_500, Fault::NodeFrozen(frozen), 7_000),
        (16_000, Fault::QueuesDeleted, 0),
        (18_000, Fault::ConnectionsClosed, 0),
    ];
    set.map(|(at, fault, time)| Planned { fault, at: at + random.below(800) as Ms, time }).into()
}

/// A minute in which the broker, Redis and a node are killed, one after the other.
pub fn minute(random: &mut Random) -> Vec<Planned> {
    let killed = random.below(NODES);
    let set = [
        (8_000, Fault::BrokerKilled, 1_000),
        (24_000, Fault::RedisKilled, 1_500),
        (38_000, Fault::NodeKilled(killed), 2_000),
    ];
    set.map(|(at, fault, time)| Planned { fault, at: at + random.below(4_000) as Ms, time }).into()
}

/// Faults of all kinds, as long as it says: some alone, with quiet before and behind, the
/// others so close that several are there at a time.
pub fn long(random: &mut Random, length: Ms) -> Vec<Planned> {
    let mut plan: Vec<Planned> = vec![];
    let mut is_alone = false;
    let mut at = 3_000;
    while at + 4_000 < length {
        let (fault, time) = any(random);
        let is_free = |other: &Planned| other.fault.parts() & fault.parts() == 0 || other.is_over() < at;
        if !plan.iter().all(is_free) {
            at += 100;
            continue;
        }
        plan.push(Planned { fault, at, time });
        let ends = plan.iter().map(Planned::end).max().unwrap_or(at);
        // There is only as much quiet as leaves time for all the others.
        let is_early = plan.len() as Ms * FAULT_EVERY > at;
        at = match random.below(10) {
            0 if is_early => ends + CALM_TIME,
            _ if is_early || is_alone => ends + QUIET_TIME,
            _ => at + 200 + random.below(800) as Ms,
        };
        is_alone = is_early && !is_alone;
    }
    plan
}

fn any(random: &mut Random) -> (Fault, Ms) {
    let node = random.below(NODES);
    let links = [Links::Redis, Links::Broker, Links::Both][random.below(3)];
    let mut time = |from: usize, to: usize| (from + random.below(to - from)) as Ms;
    let lease = [time(7_000, 10_000), time(500, 5_000)][usize::from(time(0, 4) == 0)];
    match time(0, 32) {
        0..4 => (Fault::NodeKilled(node), time(300, 6_000)),
        4..8 => (Fault::NodeFrozen(node), lease),
        8..11 => (Fault::Cut(node, links), time(300, 10_000)),
        11..15 => (Fault::Hung(node, links), time(300, 10_000)),
        15..17 => (Fault::BrokerKilled, time(0, 2_000)),
        17..19 => (Fault::BrokerFrozen, time(2_000, 12_000)),
        19..21 => (Fault::BrokerAlarm, time(1_000, 8_000)),
        21..23 => (Fault::QueuesDeleted, 0),
        23..25 => (Fault::ConnectionsClosed, 0),
        25..27 => (Fault::RedisKilled, time(0, 4_000)),
        27..30 => (Fault::RedisFrozen, time(500, 9_000)),
        _ => (Fault::PresenceLost, 0),
    }
}

#[test]
fn ten_minutes_have_more_than_200_faults_of_all_kinds() {
    for seed in 0..100 {
        let plan = long(&mut Random(seed), 600_000);
        assert!((205..260).contains(&plan.len()), "{} faults", plan.len());
        let mut kinds: Vec<_> = plan.iter().map(|planned| planned.fault.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 16, "{kinds:?}");
    }
}
