//! The bus of a node: what the thread between its links and the broker does.

use pinpost::internals::cluster::reach::Look;
use pinpost::internals::cluster::reach::QUIET_TIME;
use pinpost::internals::cluster::reach::Reach;
use pinpost::internals::cluster::reach::WORD;
use pinpost::internals::proto::NodeId;

use crate::history::Time;
use crate::host::Mind;
use crate::queue::Event;
use crate::queue::MS;
use crate::queue::PipeKind;
use crate::queue::SECOND;
use crate::world::World;

/// A bus, and its session with the broker.
#[derive(Default)]
pub struct BusState {
    /// Counts sessions, from 1.
    pub session: u32,
    pub is_up: bool,
    /// Whether what is published for the node comes to it; while a session is up.
    reach: Option<Reach>,
    /// The broker takes nothing now.
    is_blocked: bool,
    /// The last session that the broker has told that it takes nothing now.
    pub told: u32,
    /// Connections are refused.
    pub refused: u32,
    is_set: bool,
    /// When time passes next.
    ticks_at: Option<Time>,
    failures: u32,
    /// Since when nothing can be published.
    down_since: Option<Time>,
}

/// How often time passes for links with something under way.
const TICK_TIME: Time = 50 * MS;

/// The longest pause between attempts to connect.
const PAUSE_TIME_MAX: Time = 2 * SECOND;

/// A bus that was away for longer has given up what it was to carry.
const OUTAGE_TIME: Time = 10 * SECOND;

impl BusState {
    /// The bus of a process that follows another one.
    pub fn after(before: &BusState) -> Self {
        BusState { session: before.session, refused: before.refused, ..BusState::default() }
    }
}

impl World {
    /// Wakes the bus of a node, if there is something to publish.
    pub fn ring(&mut self, host: usize) {
        let delay = 10 + self.random.below(self.scene.bus_time as usize) as Time;
        let process = self.hosts[host].process;
        let Some(mind) = &self.hosts[host].mind else { return };
        let has_next = mind.links.has_next();
        let bus = &mut self.hosts[host].bus;
        if has_next && !std::mem::replace(&mut bus.is_set, true) {
            self.queue.after(delay, Event::Bus { host, process });
        }
    }

    /// A bus publishes all that is due.
    pub fn publish(&mut self, host: usize) {
        self.hosts[host].bus.is_set = false;
        let now = self.instant();
        loop {
            let Some(Mind { links, batch, .. }) = self.hosts[host].mind.as_mut() else { return };
            let Some(to) = links.next(now, batch) else { break };
            let batch = batch.clone();
            self.put_out(host, to, batch);
        }
        self.tick_soon(host, TICK_TIME);
    }

    /// A batch leaves for the broker.
    pub fn put_out(&mut self, host: usize, to: NodeId, batch: Vec<u8>) {
        let at = self.arrival(self.scene.broker_time);
        let of = &mut self.hosts[host];
        let at = of.publish.push(at, (of.bus.session, to, batch));
        self.queue.at(at, Event::Pipe { host, pipe: PipeKind::Publish });
    }

    fn tick_soon(&mut self, host: usize, time: Time) {
        let (process, at) = (self.hosts[host].process, self.queue.now() + time);
        let bus = &mut self.hosts[host].bus;
        if bus.ticks_at.is_none_or(|set| set > at) {
            bus.ticks_at = Some(at);
            self.queue.at(at, Event::BusTick { host, process });
        }
    }

    /// Time passes for the links of a node.
    pub fn bus_tick(&mut self, host: usize) {
        let at = self.queue.now();
        // What was set for later comes later; a process that was stopped comes late.
        if self.hosts[host].bus.ticks_at.is_none_or(|set| set > at) {
            return;
        }
        self.hosts[host].bus.ticks_at = None;
        let now = self.instant();
        let is_up = self.hosts[host].bus.is_up;
        let Some(mind) = self.hosts[host].mind.as_mut().filter(|_| is_up) else { return };
        let mut is_active = mind.links.tick(now);
        self.tell_of_links(host);
        self.ring(host);
        is_active |= self.look_whether_it_is_reached(host);
        if self.hosts[host].bus.is_up {
            self.tick_soon(host, if is_active { TICK_TIME } else { QUIET_TIME.as_micros() as Time });
        }
    }

    /// Tells whether a word of the node to itself is on its way.
    fn look_whether_it_is_reached(&mut self, host: usize) -> bool {
        let now = self.instant();
        let bus = &mut self.hosts[host].bus;
        let (session, is_blocked) = (bus.session, bus.is_blocked);
        let Some(reach) = &mut bus.reach else { return false };
        match reach.look(is_blocked, now) {
            Look::Fine => return reach.is_waiting(),
            Look::Say => {
                let me = self.mind(host).expect("a bus has a node").links.me().clone();
                self.put_out(host, me, WORD.to_vec());
            }
            Look::Lost => self.give_up(host, session, "nothing comes"),
        }
        true
    }

    /// Something has come to a node. If it is the first thing, others may hear of it.
    pub fn is_reached(&mut self, host: usize) {
        let now = self.instant();
        let bus = &mut self.hosts[host].bus;
        let is_blocked = bus.is_blocked;
        if bus.reach.as_mut().is_some_and(|reach| reach.heard(now)) {
            self.set_up(host, !is_blocked);
            let me = self.mind(host).expect("a bus has a node").links.me().clone();
            self.note_queue(host, Some(me));
            self.ring(host);
        }
    }

    /// A bus gives up a session that does not work.
    pub fn give_up(&mut self, host: usize, session: u32, why: &str) {
        self.note(|| format!("bus {host} gives up session {session}: {why}"));
        self.end_session(host, 0);
        self.bus_lost(host, session);
    }

    /// A bus connects, or finds that it can't.
    pub fn connect(&mut self, host: usize) {
        let of = &mut self.hosts[host];
        let is_refused = self.broker.is_dead || of.bus.refused > 0;
        if of.bus.is_up || of.mind.is_none() {
            return;
        }
        if is_refused || of.publish.is_hung() || of.returns.is_hung() || of.consume.is_hung() {
            return self.connect_again(host);
        }
        of.bus.session += 1;
        (of.bus.is_up, of.bus.failures, of.bus.is_blocked) = (true, 0, false);
        let session = of.bus.session;
        let mind = of.mind.as_mut().expect("it was looked at above");
        let (id, epoch) = (mind.links.me().clone(), mind.links.epoch());
        self.note(|| format!("bus {host} is up, session {session}"));
        self.broker.declare(id, host, session, epoch);
        self.hosts[host].bus.reach = Some(Reach::new(self.instant()));
        self.tick_soon(host, 0);
    }

    fn connect_again(&mut self, host: usize) {
        let bus = &mut self.hosts[host].bus;
        bus.failures += 1;
        let bound = ((100 * MS) << bus.failures.min(5)).min(PAUSE_TIME_MAX);
        let pause = 1 + self.random.below(bound as usize) as Time;
        let process = self.hosts[host].process;
        self.queue.after(pause, Event::Connect { host, process });
    }

    /// Batches can be published, or no longer.
    fn set_up(&mut self, host: usize, is_up: bool) {
        let (now, at) = (self.instant(), self.queue.now());
        let of = &mut self.hosts[host];
        let Some(mind) = of.mind.as_mut() else { return };
        mind.links.set_up(is_up, now);
        let since = of.bus.down_since.take();
        if !is_up {
            of.bus.down_since = Some(since.unwrap_or(at));
        } else if since.is_some_and(|since| at - since >= OUTAGE_TIME) {
            self.note_outage(host);
        }
        self.tell_of_links(host);
    }

    /// The broker tells that it takes nothing now, or again.
    pub fn bus_blocked(&mut self, host: usize, is_blocked: bool) {
        let bus = &mut self.hosts[host].bus;
        bus.is_blocked = is_blocked;
        let is_proven = bus.reach.as_ref().is_some_and(|reach| reach.is_proven);
        self.set_up(host, !is_blocked && is_proven);
        self.ring(host);
    }

    /// The broker knows a session of a bus no more; the bus will find that out after some time.
    pub fn end_session(&mut self, host: usize, notice: Time) {
        let session = self.hosts[host].bus.session;
        self.broker.forget(host, session);
        // Of what is on its way some may arrive, as far as it had left: of a queue, as far as it was handed over.
        let random = &mut self.random;
        let of = &mut self.hosts[host];
        of.publish.cut(random.below(of.publish.len() + 1));
        of.returns.cut(random.below(of.returns.len() + 1));
        of.consume.cut(random.below(of.consume.len() + 1));
        self.queue.after(notice, Event::BusLost { host, session });
    }

    /// A bus finds that its session is over.
    pub fn bus_lost(&mut self, host: usize, session: u32) {
        let bus = &mut self.hosts[host].bus;
        if bus.session != session || !std::mem::replace(&mut bus.is_up, false) {
            return;
        }
        self.note(|| format!("bus {host} is down, session {session}"));
        self.broker.forget(host, session);
        self.set_up(host, false);
        self.note_queue(host, None);
        self.connect_again(host);
    }

    /// The node has a new id: the bus begins anew under that.
    pub fn restart_bus(&mut self, host: usize) {
        let process = self.hosts[host].process;
        if std::mem::replace(&mut self.hosts[host].bus.is_up, false) {
            let session = self.hosts[host].bus.session;
            self.broker.forget(host, session);
            self.set_up(host, false);
            self.note_queue(host, None);
            self.queue.after(MS, Event::Connect { host, process });
        }
    }

    /// A connection that was silent for too long is given up, by both.
    pub fn heartbeat(&mut self, host: usize, session: u32) {
        let of = &self.hosts[host];
        let is_silent = of.publish.is_hung() || of.returns.is_hung() || of.consume.is_hung() || of.is_frozen;
        if is_silent && of.bus.session == session {
            self.end_session(host, 0);
        }
    }
}
