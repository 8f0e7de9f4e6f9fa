//! Which faults come when, and for how long: a schedule that follows from the seed alone.
//!
//! Faults overlap as they like, except where one would undo the other: a broker that was
//! killed can't be frozen. Every now and then comes a calm, long enough for whatever goes
//! wrong then to be nobody's fault but ours.

use crate::history::Time;
use crate::history::fault::Fault;
use crate::history::fault::Links;
use crate::rig::random::Random;

/// Nodes of the cluster.
pub const NODES: usize = 3;

/// A fault that will be.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub fault: Fault,
    pub at: Time,
    /// How long it lasts; healing takes its own time.
    pub time: Time,
}

/// Parts of the cluster, a bit each.
pub type Parts = u32;

/// How many there are.
pub const PARTS: usize = 2 + 3 * NODES;

const BROKER: Parts = 1;
const REDIS: Parts = 2;
/// The first of the nodes, and of their links to Redis and to the broker.
const NODE: u32 = 2;
const LINK: u32 = NODE + NODES as u32;

/// On average there is a fault in so much time.
const FAULT_EVERY: Time = 2_700;

/// How long a killed broker takes to be back, mostly and at most; and a killed node.
const BROKER_START_TIME: Time = 4_000;
const BROKER_START_TIME_MAX: Time = 12_000;
const NODE_START_TIME: Time = 500;

/// Long enough to see how long a fault is felt.
const QUIET_TIME: Time = 5_500;

/// Longer than any fault may be felt.
const CALM_TIME: Time = 18_000;

/// What a fault needs for itself.
pub fn parts(fault: Fault) -> Parts {
    match fault {
        Fault::NodeKilled(node) | Fault::NodeFrozen(node) => 1 << (NODE + node as u32),
        Fault::Cut(node, links) | Fault::Hung(node, links) => {
            let links = match links {
                Links::Redis => 1,
                Links::Broker => 2,
                _ => 3,
            };
            links << (LINK + 2 * node as u32)
        }
        Fault::RedisKilled | Fault::RedisFrozen | Fault::PresenceLost => REDIS,
        _ => BROKER,
    }
}

/// From when on the next may come, counted from the end of this one.
fn rest(fault: Fault) -> Time {
    if fault == Fault::BrokerKilled { BROKER_START_TIME_MAX } else { 2_000 }
}

impl Planned {
    /// When it is healed, mostly.
    fn end(&self) -> Time {
        let start = match self.fault {
            Fault::BrokerKilled => BROKER_START_TIME,
            Fault::NodeKilled(_) => NODE_START_TIME,
            _ => 0,
        };
        self.at + self.time + start
    }

    /// When its parts may have another.
    fn is_over(&self) -> Time {
        self.at + self.time + rest(self.fault)
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
    set.map(|(at, fault, time)| Planned { fault, at: at + random.below(800) as Time, time }).into()
}

/// A minute in which the broker, Redis and a node are killed, one after the other.
pub fn minute(random: &mut Random) -> Vec<Planned> {
    let killed = random.below(NODES);
    let set = [
        (8_000, Fault::BrokerKilled, 1_000),
        (24_000, Fault::RedisKilled, 1_500),
        (38_000, Fault::NodeKilled(killed), 2_000),
    ];
    set.map(|(at, fault, time)| Planned { fault, at: at + random.below(4_000) as Time, time }).into()
}

/// Faults of all kinds, as long as it says: some alone, with quiet before and behind, the
/// others so close that several are there at a time.
pub fn long(random: &mut Random, length: Time) -> Vec<Planned> {
    let mut plan: Vec<Planned> = vec![];
    let mut is_alone = false;
    let mut at = 3_000;
    while at + 4_000 < length {
        let (fault, time) = any(random);
        let is_free = |other: &Planned| parts(other.fault) & parts(fault) == 0 || other.is_over() < at;
        if !plan.iter().all(is_free) {
            at += 100;
            continue;
        }
        plan.push(Planned { fault, at, time });
        let ends = plan.iter().map(Planned::end).max().unwrap_or(at);
        // There is only as much quiet as leaves time for all the others.
        let is_early = plan.len() as Time * FAULT_EVERY > at;
        at = match random.below(10) {
            0 if is_early => ends + CALM_TIME,
            _ if is_early || is_alone => ends + QUIET_TIME,
            _ => at + 200 + random.below(800) as Time,
        };
        is_alone = is_early && !is_alone;
    }
    plan
}

fn any(random: &mut Random) -> (Fault, Time) {
    let node = random.below(NODES);
    let links = [Links::Redis, Links::Broker, Links::Both][random.below(3)];
    let mut time = |from: usize, to: usize| (from + random.below(to - from)) as Time;
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
