//! How one run is set up: all of it follows from the seed.

use std::fmt;
use std::time::Duration;

use pinpost::internals::mailbox::Limits;

use crate::history::Rules;
use crate::history::Time;
use crate::queue::MS;
use crate::queue::SECOND;
use crate::rig::random::Random;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Scene {
    pub nodes: usize,
    pub users: usize,
    /// The users of the devices.
    pub devices: Devices,
    /// These devices log in without `ack`.
    pub raw_percent: usize,
    /// Devices that nap, and that stall.
    pub nap_percent: usize,
    pub stall_percent: usize,
    /// How long a device stays on a node, at most.
    pub stay_max: Time,
    /// How long a device rests between two bursts, at most.
    pub pause_max: Time,
    /// Messages of a burst, at most.
    pub burst_max: usize,
    /// Of a hundred messages so many are long, and so many `CAST`s, and so many without a tag.
    pub long_percent: usize,
    pub cast_percent: usize,
    pub untagged_percent: usize,
    pub messages_max: usize,
    pub sessions_max: usize,
    pub outbox_bytes_max: usize,
    /// What a socket takes that is not read.
    pub room: usize,
    /// How long things take on their way, at most.
    pub client_time: Time,
    pub broker_time: Time,
    pub redis_time: Time,
    pub bus_time: Time,
    /// For how long people move about.
    pub length: Time,
    /// A fault every so often; 0 for never.
    pub fault_every: Time,
}

/// The users of the devices.
#[derive(Clone)]
pub struct Devices(pub Vec<usize>);

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.len())
    }
}

impl Scene {
    /// The scene of a seed.
    pub fn new(random: &mut Random) -> Self {
        let mut pick = |from: usize, to: usize| from + random.below(to - from + 1);
        let nodes = pick(3, 5);
        let users = [4, 10, 24][pick(0, 2)];
        let mut devices: Vec<usize> = (0..users).collect();
        (0..users / 3).for_each(|_| devices.push(pick(0, users - 1)));
        let is_calm = pick(0, 2) == 0;
        let (rate, burst_max) = ([60, 200, 500][pick(0, 2)], [1, 4, 12][pick(0, 2)]);
        // On average half of a burst, after half of a pause.
        let pause_max = devices.len() as Time * burst_max as Time * SECOND / rate;
        let length = if is_calm { pick(5, 40) } else { pick(20, 90) } as Time * SECOND;
        let client_time = [200, 2 * MS, 40 * MS][pick(0, 2)];
        // What is under way to a client and unread is what a socket takes: a small one on a long way carries little.
        let room = [2_048, 16_384, 65_536][pick(0, 2)];
        let room = if client_time > 2 * MS { room.max(16_384) } else { room };
        Scene {
            nodes,
            users,
            devices: Devices(devices),
            raw_percent: [0, 15, 60][pick(0, 2)],
            nap_percent: [0, 0, 15][pick(0, 2)],
            stall_percent: [0, 0, 15][pick(0, 2)],
            stay_max: [300, 2_000, 8_000, 30_000][pick(0, 3)] * MS,
            pause_max,
            burst_max,
            long_percent: [0, 2, 20][pick(0, 2)],
            cast_percent: [0, 10][pick(0, 1)],
            untagged_percent: [0, 20][pick(0, 1)],
            messages_max: [0, 1_000, 1_000, 60][pick(0, 3)],
            sessions_max: [8, 8, 8, 2, 1][pick(0, 4)],
            outbox_bytes_max: [4_096, 65_536, 262_144][pick(0, 2)],
            room,
            client_time,
            broker_time: [500, 5 * MS, 40 * MS][pick(0, 2)],
            redis_time: [300, 3 * MS, 80 * MS][pick(0, 2)],
            bus_time: [50, 500, 3 * MS][pick(0, 2)],
            length,
            fault_every: if is_calm { 0 } else { [500, 2_000, 8_000][pick(0, 2)] as Time * MS },
        }
    }

    /// How long it may take that a message finds its recipient who moves, when each step may take its time.
    pub fn soon(&self) -> Time {
        SECOND + 12 * (self.redis_time + self.broker_time + self.client_time)
    }

    /// What bounds mailboxes.
    pub fn limits(&self) -> Limits {
        Limits { messages_max: self.messages_max, time_max: Duration::from_secs(86_400), bytes_max: 64 << 20 }
    }

    /// What the checker has to know.
    pub fn rules(&self) -> Rules {
        Rules {
            mailbox_max: self.messages_max,
            sessions_max: self.sessions_max,
            outbox_bytes_max: self.outbox_bytes_max,
        }
    }
}
