//! Nodes on several machines: Redis says where, RabbitMQ carries.
//!
//! Two threads, each with a library that blocks: `RedisThread` carries for presence, `Bus`
//! for the links. What the node says lands in the links, and what it asks on the desk
//! (`shared.rs`); answers and batches go up through one channel, which has no bound of its
//! own: answers are bounded by asks, and batches by the broker's prefetch.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use log::{error, warn};
use smol::channel::{Receiver, unbounded};

use crate::cluster::bus::Bus;
use crate::cluster::event::{Batch, ClusterEvent};
use crate::cluster::links::Unpacked;
use crate::cluster::redis_thread::RedisThread;
use crate::cluster::shared::Shared;
use crate::config::{Amqp, Redis};
use crate::mailbox::Limits;
use crate::node::out::Says;
use crate::node::seam::{Ask, Said};
use crate::proto::name::NodeId;
use crate::random::fresh_id;

/// How long leaving may take.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);

/// One node's end of a cluster of several machines.
pub struct Remote {
    shared: Arc<Shared>,
    incoming: Receiver<ClusterEvent>,
    threads: RefCell<Vec<JoinHandle<()>>>,
}

impl Remote {
    /// Starts both threads. `name` is the readable part of the node's id; `is_single` when a user may have
    /// one session only.
    pub fn start(name: &str, redis: Redis, amqp: Amqp, is_single: bool, limits: Limits) -> Self {
        let (incoming_tx, incoming) = unbounded();
        let (bell, rung) = bounded(1);
        let shared = Arc::new(Shared::new(fresh_id(name), incoming_tx, bell));
        let bus = Bus::new(shared.clone(), amqp, rung);
        let presence = RedisThread::new(shared.clone(), redis, name, is_single, limits);
        let start = |name: &str, run: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = shared.clone();
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared));
            // Without them there is no cluster: a node that can't have two threads does not start.
            thread.expect("there is room for a thread")
        };
        let bus = |shared: &Shared| {
            bus.run();
            shared.change(|desk| desk.bus_has_ended = true);
        };
        let presence = |shared: &Shared| {
            if catch_unwind(AssertUnwindSafe(|| presence.run())).is_err() {
                error!("the presence thread panicked: this node is cut off until it is started again");
                shared.refuse_all();
            }
        };
        let threads = vec![start("bus", Box::new(bus)), start("presence", Box::new(presence))];
        Remote { shared, incoming, threads: RefCell::new(threads) }
    }

    /// Waits until this node can be reached by others; `false` when that took too long.
    pub fn wait_until_joined(&self, time_max: Duration) -> bool {
        !self.shared.wait_while(time_max, |desk| !desk.has_joined).1
    }

    /// Tells whether it can be now, and presence can be asked.
    #[cfg(feature = "websocket")]
    pub fn is_joined(&self) -> bool {
        let desk = self.shared.desk();
        desk.is_open && desk.has_joined
    }

    /// This node's id now.
    pub fn node(&self) -> NodeId {
        self.shared.links(|links| links.me().clone())
    }

    /// Where everything comes up.
    pub fn incoming(&self) -> Receiver<ClusterEvent> {
        self.incoming.clone()
    }

    /// Sends off what the node says to others, and what was due before.
    pub fn say(&self, says: &mut Says, now: Instant) {
        let has_next = self.shared.links(|links| {
            says.drain(|node, say| links.say(node, say, now));
            links.has_next()
        });
        if has_next {
            self.shared.ring();
        }
    }

    /// Asks presence; answers come up.
    pub fn ask(&self, asks: impl Iterator<Item = Ask>) {
        self.shared.ask(asks);
    }

    /// Gives what another node says.
    pub fn unpack(&self, batch: &Batch, now: Instant, take: &mut dyn FnMut(&NodeId, Said<'_>)) {
        if let Some(mut unpacked) = Unpacked::read(&batch.bytes) {
            self.shared.links(|links| links.hear(batch.epoch, &mut unpacked, now));
            unpacked.give(take);
        }
        self.shared.taken.fetch_add(1, Ordering::Release);
    }

    /// Stops both threads, and waits a moment for what they have to say last.
    pub fn leave(&self) {
        self.shared.change(|desk| desk.is_stopping = true);
        self.shared.ring();
        let by = Instant::now() + LEAVE_TIME_MAX;
        for thread in self.threads.take() {
            while !thread.is_finished() && Instant::now() < by {
                thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                warn!("the {} thread does not end in time", thread.thread().name().unwrap_or_default());
            } else if thread.join().is_err() {
                warn!("a thread of the cluster panicked");
            }
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.leave();
    }
}
