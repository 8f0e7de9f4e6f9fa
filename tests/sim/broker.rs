//! A model of the broker: one queue a node, by the node's id; what no queue takes comes back.

use pinpost::internals::cluster::event::Batch;
use pinpost::internals::cluster::event::ClusterEvent;
use pinpost::internals::proto::NodeId;

use crate::history::Time;
use crate::queue::Event;
use crate::queue::MS;
use crate::queue::PipeKind;
use crate::world::World;

/// The broker.
#[derive(Default)]
pub struct Broker {
    queues: Vec<Declared>,
    pub is_dead: bool,
    /// Of a hundred batches it loses so many, carries so many twice, and lets so many come late.
    pub lost_percent: usize,
    pub twice_percent: usize,
    pub late_percent: usize,
}

/// A queue, which goes with the session of its bus.
struct Declared {
    id: NodeId,
    host: usize,
    session: u32,
    epoch: u64,
}

impl Broker {
    /// A bus declares its queue.
    pub fn declare(&mut self, id: NodeId, host: usize, session: u32, epoch: u64) {
        self.queues.push(Declared { id, host, session, epoch });
    }

    /// A session of a bus is over, and with it its queue.
    pub fn forget(&mut self, host: usize, session: u32) {
        self.queues.retain(|queue| (queue.host, queue.session) != (host, session));
    }

    fn find(&self, id: &NodeId) -> Option<(usize, u32, u64)> {
        let found = self.queues.iter().find(|queue| queue.id == *id);
        found.map(|queue| (queue.host, queue.session, queue.epoch))
    }
}

impl World {
    /// A batch has come to the broker.
    pub fn route(&mut self, from: usize) {
        let now = self.queue.now();
        let Some((session, to, batch)) = self.hosts[from].publish.pop(now) else { return };
        if self.broker.is_dead {
            return;
        }
        self.batches += 1;
        let chance = self.random.below(100);
        let Broker { lost_percent, twice_percent, late_percent, .. } = self.broker;
        let Some((host, session_to, epoch)) = self.broker.find(&to) else {
            if session == self.hosts[from].bus.session {
                let at = self.arrival(self.scene.broker_time);
                let at = self.hosts[from].returns.push(at, (session, to, batch));
                self.queue.at(at, Event::Pipe { host: from, pipe: PipeKind::Return });
            }
            return;
        };
        if chance < lost_percent {
            return;
        }
        let at = self.arrival(self.scene.broker_time);
        let times = 1 + usize::from(chance < lost_percent + twice_percent);
        for _ in 0..times {
            let item = (session_to, epoch, batch.clone());
            let at = if self.random.below(100) < late_percent {
                // It is handed over by itself, behind what comes after it.
                self.late.push((host, session_to, epoch, batch.clone()));
                self.queue
                    .after(self.scene.broker_time + 300 * MS, Event::Pipe { host, pipe: PipeKind::Consume });
                continue;
            } else {
                self.hosts[host].consume.push(at, item)
            };
            self.queue.at(at, Event::Pipe { host, pipe: PipeKind::Consume });
        }
    }

    /// A batch has come to a node.
    pub fn consume(&mut self, host: usize) {
        let now = self.queue.now();
        let session = self.hosts[host].bus.session;
        let is_hung = self.hosts[host].consume.is_hung();
        let mut taken = self.hosts[host].consume.pop(now);
        if taken.is_none() && !is_hung && !self.late.is_empty() {
            let late = self.late.iter().position(|late| (late.0, late.1) == (host, session));
            taken =
                late.map(|at| self.late.remove(at)).map(|(_, session, epoch, bytes)| (session, epoch, bytes));
        }
        let Some((session_to, epoch, bytes)) = taken else { return };
        if session == session_to && self.hosts[host].bus.is_up {
            self.tell(host, ClusterEvent::Batch(Batch { epoch, bytes }));
        }
    }

    /// A batch has come back to the bus that published it.
    pub fn take_return(&mut self, host: usize) {
        let now = self.instant();
        let Some((session, to, batch)) = self.hosts[host].returns.pop(self.queue.now()) else { return };
        if session != self.hosts[host].bus.session || !self.hosts[host].bus.is_up {
            return;
        }
        if let Some(mind) = self.hosts[host].mind.as_mut() {
            mind.links.returned(&to, &batch, now);
            self.tell_of_links(host);
            self.ring(host);
        }
    }

    /// When what takes at most so long arrives.
    pub fn arrival(&mut self, time_max: Time) -> Time {
        let time = time_max / 4 + self.random.below(time_max as usize) as Time;
        // Now and then something takes much longer.
        let time = if self.random.below(200) == 0 { 4 * time } else { time };
        self.queue.now() + time
    }
}
