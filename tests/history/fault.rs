//! What goes wrong in a cluster. Numbers are places of nodes.

use std::fmt;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed, and started again under its name.
    NodeKilled(usize),
    /// Stopped, and continued.
    NodeFrozen(usize),
    /// Drained, and started again.
    NodeDrained(usize),
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
    /// The same for the queue of one node.
    QueueDeleted(usize),
    /// An operator removes the binding of the queue of one node.
    Unbound(usize),
    /// By an operator.
    ConnectionsClosed,
    /// The broker hands a node nothing of what is in its queue.
    ConsumerFrozen(usize),
    /// The broker loses some batches, carries some twice, or lets some overtake others.
    BatchesLost,
    BatchesTwice,
    BatchesLate,
    /// Killed, and started again with what it had on disk.
    RedisKilled,
    RedisFrozen,
    /// Redis forgets who is where, and which nodes there are; mailboxes stay.
    PresenceLost,
    /// Redis's clock is set so many hours forward, or back.
    RedisClock(i32),
    /// Redis has what it had so many milliseconds ago.
    RedisOlder(usize),
    /// The machine has so much else to do that nobody runs, or writes to its disk. Nobody plans that.
    Stalled,
}

/// Links of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Redis,
    Broker,
    Both,
    /// What it publishes.
    Out,
    /// What it consumes.
    In,
}

impl Fault {
    /// What the report calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::NodeKilled(_) => "node killed",
            Fault::NodeFrozen(_) => "node frozen",
            Fault::NodeDrained(_) => "node drained",
            Fault::Cut(_, Links::Redis) => "cut off from Redis",
            Fault::Cut(_, Links::Broker) => "cut off from the broker",
            Fault::Cut(_, Links::Both) => "cut off from both",
            Fault::Cut(_, Links::Out) => "cut off one way, publishing",
            Fault::Cut(_, Links::In) => "cut off one way, consuming",
            Fault::Hung(_, Links::Redis) => "Redis hangs for one",
            Fault::Hung(_, Links::Broker) => "the broker hangs for one",
            Fault::Hung(_, Links::Both) => "both hang for one",
            Fault::Hung(_, Links::Out) => "publishing hangs for one",
            Fault::Hung(_, Links::In) => "consuming hangs for one",
            Fault::BrokerKilled => "broker killed",
            Fault::BrokerFrozen => "broker frozen",
            Fault::BrokerAlarm => "memory alarm",
            Fault::QueuesDeleted => "queues deleted",
            Fault::QueueDeleted(_) => "queue deleted",
            Fault::Unbound(_) => "queue unbound",
            Fault::ConnectionsClosed => "connections closed",
            Fault::ConsumerFrozen(_) => "consumer frozen",
            Fault::BatchesLost => "batches lost",
            Fault::BatchesTwice => "batches twice",
            Fault::BatchesLate => "batches late",
            Fault::RedisKilled => "Redis killed",
            Fault::RedisFrozen => "Redis frozen",
            Fault::PresenceLost => "presence lost",
            Fault::RedisClock(_) => "Redis's clock set",
            Fault::RedisOlder(_) => "Redis older",
            Fault::Stalled => "machine stalled",
        }
    }

    /// The node that alone has it.
    pub fn node(self) -> Option<usize> {
        match self {
            Fault::NodeKilled(node) | Fault::NodeFrozen(node) | Fault::NodeDrained(node) => Some(node),
            Fault::Cut(node, _) | Fault::Hung(node, _) => Some(node),
            Fault::QueueDeleted(node) | Fault::Unbound(node) | Fault::ConsumerFrozen(node) => Some(node),
            _ => None,
        }
    }

    /// What was on its way may be routed again: a node dies or is taken for dead, or its queue
    /// at the broker is gone, or Redis does not say where a user is. A broker that is only out
    /// of memory has everything wait, and so has one that is late; what it carries twice is known.
    pub fn reroutes(self) -> bool {
        !matches!(self, Fault::BrokerAlarm | Fault::BatchesTwice)
    }

    /// Both ends of a link count: what the broker loses, carries twice or carries late is made good within a second or so,
    /// and is no reason for `ERR timeout`.
    pub fn is_made_good(self) -> bool {
        matches!(self, Fault::BatchesLost | Fault::BatchesTwice | Fault::BatchesLate)
    }

    /// A node may be back under a new id: until it has written again who is there, nobody is known to be nowhere.
    pub fn renames(self) -> bool {
        match self {
            Fault::Cut(_, links) | Fault::Hung(_, links) => matches!(links, Links::Redis | Links::Both),
            Fault::NodeFrozen(_) | Fault::Stalled => true,
            Fault::RedisKilled | Fault::RedisFrozen | Fault::PresenceLost | Fault::RedisOlder(_) => true,
            Fault::RedisClock(_) => true,
            _ => false,
        }
    }

    /// A node says nothing to others, or hears nothing.
    pub fn cuts_broker(self) -> bool {
        matches!(self, Fault::Cut(_, links) | Fault::Hung(_, links) if links != Links::Redis)
    }

    /// Two that one place can't have at a time.
    pub fn excludes(self, other: Fault) -> bool {
        let is_of_process = |fault: Fault| fault.ends_process() || matches!(fault, Fault::NodeFrozen(_));
        if is_of_process(self) && is_of_process(other) {
            return self.node() == other.node();
        }
        self == other
    }

    /// Its process ends: who was connected there is not, and what it had shown it does not know.
    pub fn ends_process(self) -> bool {
        matches!(self, Fault::NodeKilled(_) | Fault::NodeDrained(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.node().map_or(Ok(()), |node| write!(f, " ({node})"))
    }
}
