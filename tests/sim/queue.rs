//! Virtual time: events by the time they are due, and those of one time in the order they were set.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::history::Time;

/// A millisecond, and a second.
pub const MS: Time = 1_000;
pub const SECOND: Time = 1_000 * MS;

/// What happens next. Numbers are places; `process` is that of the host's process: what was set for an earlier
/// one is nobody's business any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device does something.
    Think {
        device: usize,
    },
    /// What a client said, or its end, reaches its node.
    ReachNode {
        socket: usize,
    },
    /// What a node wrote, or its end, reaches the client.
    ReachClient {
        socket: usize,
    },
    /// The socket of a connection takes more.
    Room {
        socket: usize,
    },
    /// A node's time for a connection to take its last words is over.
    Late {
        socket: usize,
    },
    /// A node takes in what came from other nodes and from presence.
    Turn {
        host: usize,
        process: u32,
    },
    /// A node looks at its deadlines.
    Tick {
        host: usize,
        process: u32,
    },
    /// The same, when one of them is due.
    Due {
        host: usize,
        process: u32,
    },
    /// The bus of a node publishes.
    Bus {
        host: usize,
        process: u32,
    },
    /// Time passes for the links of a node.
    BusTick {
        host: usize,
        process: u32,
    },
    /// The bus of a node connects.
    Connect {
        host: usize,
        process: u32,
    },
    /// The bus of a node finds that its connection is gone.
    BusLost {
        host: usize,
        session: u32,
    },
    /// A silent connection to the broker is given up, if it still is silent.
    Heartbeat {
        host: usize,
        session: u32,
    },
    /// Presence looks at what it has to do.
    Presence {
        host: usize,
        process: u32,
    },
    /// A connection to Redis is open.
    RedisOpen {
        host: usize,
        call: u32,
    },
    /// A call to Redis takes too long.
    RedisLate {
        host: usize,
        call: u32,
    },
    /// A connection to Redis is broken.
    RedisLost {
        host: usize,
        connection: u32,
    },
    /// A node that drains goes on with that.
    Drain {
        host: usize,
        process: u32,
        step: u8,
    },
    /// Redis's data is kept, for a fault.
    Snapshot {
        fault: usize,
    },
    /// What is in a pipe comes out.
    Pipe {
        host: usize,
        pipe: PipeKind,
    },
    /// A fault begins, and is healed.
    Begin {
        fault: usize,
    },
    Heal {
        fault: usize,
    },
    /// People stop to move about.
    Calm,
    /// Everybody leaves.
    Leave,
    /// The books are closed.
    End,
}

/// What connects a node with the services, one way each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeKind {
    /// Batches to the broker.
    Publish,
    /// Batches that come back from it.
    Return,
    /// Batches from the node's queue.
    Consume,
    /// To Redis.
    Ask,
    /// From Redis.
    Answer,
}

/// All that is to happen, and the time.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    count: u64,
    now: Time,
}

struct Entry {
    at: Time,
    number: u64,
    event: Event,
}

impl Queue {
    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sets an event: at that time, or now if that is over.
    pub fn at(&mut self, at: Time, event: Event) {
        let at = at.max(self.now);
        self.heap.push(Entry { at, number: self.count, event });
        self.count += 1;
    }

    /// Sets an event so much later.
    pub fn after(&mut self, time: Time, event: Event) {
        self.at(self.now + time, event);
    }

    /// The next event: it is its time now.
    pub fn next(&mut self) -> Option<Event> {
        let Entry { at, event, .. } = self.heap.pop()?;
        self.now = at;
        Some(event)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives its greatest first.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}
