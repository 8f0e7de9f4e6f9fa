//! A script in the simulator: three nodes of a world without people, in the place of whose links the script publishes
//! and hears.

use pinpost::NodeId;

use crate::broker::Back;
use crate::compare::{Batches, HOSTS, NOBODY, Outcome, Step, number};
use crate::queue::{Event, MS, PipeKind};
use crate::rig::random::Random;
use crate::world::World;

/// The longest way to the broker, and that of what it says.
const TIME_MAX: u64 = 5 * MS;

/// A world, and what was published in it.
pub struct Model {
    world: World,
    batches: Batches,
    seen: Outcome,
}

impl Default for Model {
    fn default() -> Self {
        let mut world = World::new(0, false);
        world.scene.broker_time = TIME_MAX;
        world.hosts.truncate(HOSTS);
        (0..HOSTS).for_each(|host| world.start(host));
        Model { world, batches: Batches(vec![]), seen: Outcome::default() }
    }
}

impl Model {
    /// Plays a section with this seed.
    pub fn play(&mut self, section: &[Step], seed: u64) -> Outcome {
        self.world.random = Random(seed);
        self.seen = Outcome::default();
        for step in section {
            let pause = self.world.random.below(2 * TIME_MAX as usize) as u64;
            self.world.queue.after(pause, Event::Calm);
            self.go_on();
            self.step(*step);
        }
        for host in 0..HOSTS {
            self.seen[host].is_up = self.world.hosts[host].bus.is_up;
        }
        self.seen.clone()
    }

    fn step(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            Step::Connect(host) => world.connect(host),
            Step::Publish { from, to, count } => {
                let to = self.id(to);
                for _ in 0..count {
                    let (_, body) = self.batches.next(from);
                    self.world.put_out(from, to.clone(), body);
                }
            }
            Step::Cut(host) => {
                let session = world.hosts[host].bus.session;
                world.end_session(host, 0);
                world.bus_lost(host, session);
                world.thaw(host);
            }
            Step::Delete(host) => world.end_soon(host),
            Step::Freeze(host) => world.freeze(host),
            Step::Thaw(host) => world.thaw(host),
            Step::Alarm(is_on) => world.alarm(is_on),
            Step::Rest | Step::Look => self.go_on(),
        }
    }

    fn id(&mut self, host: usize) -> NodeId {
        if host == NOBODY {
            return NodeId::new("nobody", "0").expect("a name and a number");
        }
        self.world.mind(host).expect("it runs").links.me().clone()
    }

    /// Lets happen what is due before the next step, or all there is. What else the world sets is not of the broker.
    fn go_on(&mut self) {
        while let Some(event) = self.world.queue.next() {
            let world = &mut self.world;
            if let Some(host) = world.host_of(event)
                && world.hosts[host].is_frozen
            {
                world.hosts[host].deferred.push(event);
                continue;
            }
            match event {
                Event::Pipe { host, pipe: PipeKind::Publish } => world.route(host),
                Event::Pipe { host, pipe: PipeKind::Consume } => {
                    if let Some(batch) = world.take_delivery(host) {
                        self.batches.heard(&mut self.seen[host], &batch.bytes);
                    }
                }
                Event::Pipe { host, pipe: PipeKind::Return } => {
                    self.take_back(host);
                }
                Event::BusLost { host, session } => world.bus_lost(host, session),
                Event::Calm => return,
                _ => {}
            }
        }
    }

    fn take_back(&mut self, host: usize) {
        match self.world.take_back(host) {
            Some(Back::Return(to, batch)) => {
                let to = (0..HOSTS).find(|host| self.id(*host) == to).unwrap_or(NOBODY);
                self.seen[host].returned.push((number(&batch), to));
            }
            Some(Back::Blocked(is_blocked)) => {
                self.world.bus_blocked(host, is_blocked);
                self.seen[host].blocked.push(is_blocked);
            }
            None => {}
        }
    }
}
