//! The world of one run: nodes, services, people, and what happened. One thread, one clock, one source of chance.

use std::collections::BTreeMap;
use std::time::Instant;

use pinpost::CloseReason;

use crate::broker::Broker;
use crate::device::Device;
use crate::device::Phase;
use crate::device::Shown;
use crate::faults::Planned;
use crate::history::History;
use crate::history::Leaving;
use crate::history::Time;
use crate::history::margins::Margins;
use crate::host::Host;
use crate::queue::Event;
use crate::queue::PipeKind;
use crate::queue::Queue;
use crate::queue::SECOND;
use crate::redis::Redis;
use crate::rig::random::Random;
use crate::scene::Scene;
use crate::socket::Socket;

/// Everything.
pub struct World {
    pub scene: Scene,
    pub queue: Queue,
    pub random: Random,
    /// When it all begins, by the nodes' clocks.
    pub base: Instant,
    pub hosts: Vec<Host>,
    pub sockets: Vec<Socket>,
    pub devices: Vec<Device>,
    pub broker: Broker,
    /// Batches that come behind others: host, session, epoch.
    pub late: Vec<(usize, u32, u64, Vec<u8>)>,
    pub redis: Redis,
    pub plan: Vec<Planned>,
    pub history: History,
    /// People stay where they are, and rest no more.
    pub is_calm: bool,
    /// People say nothing new.
    pub is_silent: bool,
    /// Everybody goes.
    pub is_leaving: bool,
    /// Nodes that there were.
    pub ids: u64,
    pub batches: u64,
    /// Last words of connections that are not closed yet.
    pub byes: BTreeMap<usize, CloseReason>,
    /// The lines of long messages.
    pub long: BTreeMap<usize, String>,
    /// Room that is used again.
    pub lines: String,
    pub shown: Vec<Shown>,
    /// What is told to whoever looks for a mistake.
    pub trace: Option<Vec<String>>,
}

/// A run has fewer events than that, or runs in circles.
const EVENTS_MAX: u64 = 4_000_000;

/// What is noted of a run at most, in lines.
pub const TRACE_MAX: usize = 400_000;

/// How long everything may take to come to rest when all is healed.
const QUIET_TIME: Time = 45 * SECOND;

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64, is_traced: bool) -> Self {
        let mut random = Random(seed);
        let scene = Scene::new(&mut random);
        let (way, soon) = (10 * scene.client_time, scene.soon());
        let history = History::new(Margins::simulated(way, soon), scene.rules());
        let hosts = (0..scene.nodes).map(|_| Host::new()).collect();
        let base = Instant::now();
        let redis = Redis::new(scene.limits(), base);
        let plan = Planned::all(&scene, &mut random);
        World {
            scene,
            queue: Queue::default(),
            random,
            base,
            hosts,
            sockets: vec![],
            devices: vec![],
            broker: Broker::default(),
            late: vec![],
            redis,
            plan,
            history,
            is_calm: false,
            is_silent: false,
            is_leaving: false,
            ids: 0,
            batches: 0,
            byes: BTreeMap::new(),
            long: BTreeMap::new(),
            lines: String::new(),
            shown: vec![],
            trace: is_traced.then(Vec::new),
        }
    }

    /// Lets everything happen, up to the end, when everybody has left.
    pub fn run(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.start(host));
        self.bring_devices();
        self.plan_faults();
        let healed = self.plan.iter().map(|planned| planned.at + planned.time).max().unwrap_or(0);
        self.queue.at(self.scene.length.max(healed), Event::Calm);
        while let Some(event) = self.queue.next() {
            if event == Event::End {
                break;
            }
            if self.queue.count() > EVENTS_MAX {
                let now = self.queue.now();
                self.history.oddities.push((now, "so much happens that it never ends".to_owned()));
                break;
            }
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        if self.is_stale(event) {
            return;
        }
        if let Some(host) = self.host_of(event)
            && self.hosts[host].is_frozen
        {
            return self.hosts[host].deferred.push(event);
        }
        match event {
            Event::Think { device } => self.think(device),
            Event::ReachNode { socket } => self.reach_node(socket),
            Event::ReachClient { socket } => self.reach_client(socket),
            Event::Room { socket } => self.room(socket),
            Event::Late { socket } => self.late(socket),
            Event::Turn { host, .. } => self.turn(host),
            Event::Tick { host, process } => {
                self.tick(host);
                self.queue.after(SECOND, Event::Tick { host, process });
            }
            Event::Due { host, .. } => self.due(host),
            Event::Bus { host, .. } => self.publish(host),
            Event::BusTick { host, .. } => self.bus_tick(host),
            Event::Connect { host, .. } => self.connect(host),
            Event::BusLost { host, session } => self.bus_lost(host, session),
            Event::Heartbeat { host, session } => self.heartbeat(host, session),
            Event::Presence { host, .. } => self.presence_turn(host),
            Event::RedisOpen { host, call } => self.redis_open(host, call),
            Event::RedisLate { host, call } => self.redis_late(host, call),
            Event::RedisLost { host, connection } => self.redis_lost(host, connection),
            Event::Drain { host, step, .. } => self.go_on_draining(host, step),
            Event::Snapshot { fault } => self.redis.older.push((fault, self.redis.data.clone())),
            Event::Pipe { host, pipe } => match pipe {
                PipeKind::Publish => self.route(host),
                PipeKind::Return => self.hear_back(host),
                PipeKind::Consume => self.consume(host),
                PipeKind::Ask => self.execute(host),
                PipeKind::Answer => self.take_replies(host),
            },
            Event::Begin { fault } => self.begin(fault),
            Event::Heal { fault } => self.heal(fault),
            Event::Calm => self.calm(),
            Event::Leave => self.all_leave(),
            Event::End => {}
        }
    }

    /// Tells whether an event was set for a process that has ended.
    fn is_stale(&self, event: Event) -> bool {
        match event {
            Event::Turn { host, process }
            | Event::Tick { host, process }
            | Event::Due { host, process }
            | Event::Bus { host, process }
            | Event::BusTick { host, process }
            | Event::Connect { host, process }
            | Event::Presence { host, process }
            | Event::Drain { host, process, .. } => self.hosts[host].process != process,
            Event::ReachNode { socket } | Event::Room { socket } | Event::Late { socket } => {
                let Socket { host, process, .. } = self.sockets[socket];
                self.hosts[host].process != process
            }
            _ => false,
        }
    }

    /// The process that has to run for an event.
    pub fn host_of(&self, event: Event) -> Option<usize> {
        match event {
            Event::ReachNode { socket } | Event::Room { socket } | Event::Late { socket } => {
                Some(self.sockets[socket].host)
            }
            Event::Turn { host, .. }
            | Event::Tick { host, .. }
            | Event::Due { host, .. }
            | Event::Bus { host, .. }
            | Event::BusTick { host, .. }
            | Event::Connect { host, .. }
            | Event::BusLost { host, .. }
            | Event::Presence { host, .. }
            | Event::RedisOpen { host, .. }
            | Event::RedisLate { host, .. }
            | Event::RedisLost { host, .. }
            | Event::Drain { host, .. } => Some(host),
            Event::Pipe { host, pipe: PipeKind::Return | PipeKind::Consume | PipeKind::Answer } => Some(host),
            _ => None,
        }
    }

    /// All is healed: people stay where they are for a while, and go then.
    fn calm(&mut self) {
        self.is_calm = true;
        self.is_silent = true;
        self.note(|| "all is healed".to_owned());
        for device in 0..self.devices.len() {
            if let Some(socket) = self.devices[device].socket {
                self.wake_up(device, socket);
            }
        }
        self.queue.after(QUIET_TIME, Event::Leave);
    }

    /// Everybody says goodbye.
    fn all_leave(&mut self) {
        self.is_leaving = true;
        self.look_at_rest();
        for socket in 0..self.sockets.len() {
            match self.sockets[socket].side.phase {
                Phase::In(_) if self.sockets[socket].side.leaving.is_none() => {
                    self.leave(socket, Leaving::Quits)
                }
                Phase::Greeting | Phase::Entering(_) => self.hang_up(socket),
                _ => {}
            }
        }
        self.queue.after(20 * SECOND, Event::End);
    }

    /// Tells whoever looks for a mistake.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.queue.now();
        if let Some(trace) = self.trace.as_mut().filter(|trace| trace.len() < TRACE_MAX) {
            trace.push(format!("{now:>10} {}", what()));
        }
    }
}
