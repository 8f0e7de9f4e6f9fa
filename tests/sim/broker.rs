//! A model of the broker: one queue a node, by the node's id; what no queue takes comes back.

use pinpost::internals::cluster::event::Batch;
use pinpost::internals::cluster::event::ClusterEvent;
use pinpost::internals::cluster::reach::WORD;
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
    /// It is out of memory, and reads nothing of who publishes.
    pub is_alarmed: bool,
    /// Of a hundred batches it loses so many, carries so many twice, and lets so many come late.
    pub lost_percent: usize,
    pub twice_percent: usize,
    pub late_percent: usize,
}

/// What a bus hears on the connection on which it publishes.
pub enum Back {
    /// A batch that no queue takes, and for whom it is.
    Return(NodeId, Vec<u8>),
    /// The broker takes nothing of it now, or again.
    Blocked(bool),
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

    /// An operator removes the binding of a node's queue.
    pub fn unbind(&mut self, host: usize) {
        self.queues.retain(|queue| queue.host != host);
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
        let of = &mut self.hosts[from];
        if self.broker.is_alarmed {
            // Who publishes nothing is not told.
            if of.bus.is_up && !of.publish.is_hung() && of.bus.told != of.bus.session {
                of.bus.told = of.bus.session;
                self.put_back(from, Back::Blocked(true));
            }
            return;
        }
        let Some((session, to, batch)) = of.publish.pop(now) else { return };
        if self.broker.is_dead {
            return;
        }
        self.batches += 1;
        let chance = self.random.below(100);
        let Broker { lost_percent, twice_percent, late_percent, .. } = self.broker;
        let Some((host, session_to, epoch)) = self.broker.find(&to) else {
            if session == self.hosts[from].bus.session {
                self.put_back(from, Back::Return(to, batch));
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

    /// The broker tells a bus something, in its session.
    fn put_back(&mut self, host: usize, back: Back) {
        let at = self.arrival(self.scene.broker_time);
        let of = &mut self.hosts[host];
        let at = of.returns.push(at, (of.bus.session, back));
        self.queue.at(at, Event::Pipe { host, pipe: PipeKind::Return });
    }

    /// The broker is out of memory, or no more.
    pub fn alarm(&mut self, is_on: bool) {
        self.broker.is_alarmed = is_on;
        let hosts = if is_on { 0..0 } else { 0..self.hosts.len() };
        for host in hosts {
            let of = &mut self.hosts[host];
            for _ in 0..of.publish.len() {
                self.queue.after(0, Event::Pipe { host, pipe: PipeKind::Publish });
            }
            if std::mem::take(&mut of.bus.told) == of.bus.session {
                self.put_back(host, Back::Blocked(false));
            }
        }
    }

    /// A batch has come to a node.
    pub fn consume(&mut self, host: usize) {
        if let Some(batch) = self.take_delivery(host) {
            self.tell(host, ClusterEvent::Batch(batch));
        }
    }

    /// What comes from the broker now, unless it is for a session that is over.
    pub fn take_delivery(&mut self, host: usize) -> Option<Batch> {
        let now = self.queue.now();
        let session = self.hosts[host].bus.session;
        let is_hung = self.hosts[host].consume.is_hung();
        let mut taken = self.hosts[host].consume.pop(now);
        if taken.is_none() && !is_hung && !self.late.is_empty() {
            let late = self.late.iter().position(|late| (late.0, late.1) == (host, session));
            taken =
                late.map(|at| self.late.remove(at)).map(|(_, session, epoch, bytes)| (session, epoch, bytes));
        }
        let is_now = |taken: &(u32, u64, Vec<u8>)| taken.0 == session && self.hosts[host].bus.is_up;
        let (_, epoch, bytes) = taken.filter(is_now)?;
        self.is_reached(host);
        (bytes != WORD).then_some(Batch { epoch, bytes })
    }

    /// Something has come to a bus that publishes.
    pub fn hear_back(&mut self, host: usize) {
        let now = self.instant();
        match self.take_back(host) {
            Some(Back::Return(_, word)) if word == WORD => {
                let session = self.hosts[host].bus.session;
                self.give_up(host, session, "its queue is not bound");
            }
            Some(Back::Return(to, batch)) => {
                if let Some(mind) = self.hosts[host].mind.as_mut() {
                    mind.links.returned(&to, &batch, now);
                    self.tell_of_links(host);
                    self.ring(host);
                }
            }
            Some(Back::Blocked(is_blocked)) => self.bus_blocked(host, is_blocked),
            None => {}
        }
    }

    /// What the broker tells a bus now, unless it is of a session that is over.
    pub fn take_back(&mut self, host: usize) -> Option<Back> {
        let of = &mut self.hosts[host];
        let (session, back) = of.returns.pop(self.queue.now())?;
        (session == of.bus.session && of.bus.is_up).then_some(back)
    }

    /// When what takes at most so long arrives.
    pub fn arrival(&mut self, time_max: Time) -> Time {
        let time = time_max / 4 + self.random.below(time_max as usize) as Time;
        // Now and then something takes much longer.
        let time = if self.random.below(200) == 0 { 4 * time } else { time };
        self.queue.now() + time
    }
}
