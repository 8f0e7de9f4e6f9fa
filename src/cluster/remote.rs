//! Nodes on several machines: Redis says where, RabbitMQ carries.
//!
//! Two threads, each with a library that blocks: `Presence` talks to Redis,
//! `Bus` to RabbitMQ. What all three sides share is here, each part behind a
//! lock of its own that is held for a few lines: the links, the table of living
//! nodes, the remembered places. Calls from above are answered from these or
//! become questions; answers and batches go up through one channel.
//!
//! The channel has no bound of its own: answers are bounded by questions, and
//! batches by the broker's prefetch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender as AskSender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender as Bell, bounded};
use log::{error, warn};
use nanoid::nanoid;
use smol::channel::{Receiver, Sender, unbounded};

use crate::cluster::announced::Announced;
use crate::cluster::bus::Bus;
use crate::cluster::lease::Nodes;
use crate::cluster::link::Heard;
use crate::cluster::links::Links;
use crate::cluster::presence::{Ask, Presence};
use crate::cluster::remembered::Remembered;
use crate::cluster::{Answer, Event, Incoming, Place, Unavailable};
use crate::config::{Amqp, Redis};
use crate::proto::batch::{BadBatch, Head, Item};
use crate::proto::{Envelope, Fate, NodeId, SessionId, UserName, UserRef};

/// How long leaving may take.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);

/// A bus that was away for longer has given up what it was to carry.
const OUTAGE_TIME: Duration = Duration::from_secs(10);

/// One node's end of a cluster of several machines.
pub struct Remote {
    shared: Arc<Shared>,
    incoming: Receiver<Incoming>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the node's thread, the bus and presence share.
pub struct Shared {
    name: String,
    me: Mutex<NodeId>,
    /// How often this node has changed its id.
    pub epoch: AtomicU64,
    links: Mutex<Links>,
    nodes: Mutex<Nodes>,
    remembered: Mutex<Remembered>,
    announced: Mutex<Announced>,
    incoming: Sender<Incoming>,
    /// Batches that the node has taken over.
    pub taken: AtomicU64,
    /// A batch made no sense; said once.
    was_puzzled: AtomicBool,
    bell: Bell<()>,
    asks: AskSender<Ask>,
    /// Presence can be asked.
    has_presence: AtomicBool,
    is_stopping: AtomicBool,
    stage: Mutex<Stage>,
    stage_changed: Condvar,
}

/// How far this node has come.
#[derive(Default)]
struct Stage {
    /// The id for which there is a queue.
    queue: Option<NodeId>,
    has_joined: bool,
    /// Since when the bus is away.
    bus_away: Option<Instant>,
    bus_has_ended: bool,
}

impl Remote {
    /// Starts both threads. `name` is the readable part of the node's id.
    pub fn start(name: &str, redis: Redis, amqp: Amqp, sessions_max: usize) -> Self {
        let (incoming_tx, incoming) = unbounded();
        let (bell, rung) = bounded(1);
        let (asks, asked) = channel();
        let me = fresh_id(name);
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            me: Mutex::new(me.clone()),
            epoch: AtomicU64::new(0),
            links: Mutex::new(Links::new(me)),
            nodes: Mutex::default(),
            remembered: Mutex::default(),
            announced: Mutex::default(),
            incoming: incoming_tx,
            taken: AtomicU64::new(0),
            was_puzzled: AtomicBool::new(false),
            bell,
            asks,
            has_presence: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            stage: Mutex::default(),
            stage_changed: Condvar::new(),
        });
        let bus = Bus::new(shared.clone(), amqp, rung);
        let presence = Presence::new(shared.clone(), redis, asked, sessions_max);
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            // Without them there is no cluster: a node that can't have two threads does not start.
            thread::Builder::new().name(name.to_owned()).spawn(run).expect("there is room for a thread")
        };
        let (bus_shared, presence_shared) = (shared.clone(), shared.clone());
        let bus = move || {
            bus.run();
            bus_shared.set_bus_ended();
        };
        let presence = move || {
            if catch_unwind(AssertUnwindSafe(|| presence.run())).is_err() {
                // Nobody would answer: from now on everybody is told so at once.
                presence_shared.set_presence(false);
                error!("the presence thread panicked: this node is cut off until it is started again");
            }
        };
        let threads = vec![start("bus", Box::new(bus)), start("presence", Box::new(presence))];
        Remote { shared, incoming, threads: Mutex::new(threads) }
    }

    /// Waits until this node can be reached by others; `false` when that took too long.
    pub fn wait_until_joined(&self, time_max: Duration) -> bool {
        let stage = lock(&self.shared.stage);
        let waited = self
            .shared
            .stage_changed
            .wait_timeout_while(stage, time_max, |stage| !stage.has_joined || stage.queue.is_none());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn node(&self) -> NodeId {
        self.shared.node()
    }

    pub(super) fn incoming(&self) -> Receiver<Incoming> {
        self.incoming.clone()
    }

    pub(super) fn register(&self, user: &UserName, session: SessionId, number: u64) -> Answer<Vec<Place>> {
        if !self.shared.has_presence() {
            return Answer::Now(Err(Unavailable));
        }
        self.shared.ask(Ask::Register { user: user.clone(), session, number });
        Answer::Later
    }

    pub(super) fn unregister(&self, user: &UserName, session: SessionId) {
        self.shared.ask(Ask::Unregister { user: user.clone(), session });
    }

    pub(super) fn locate(&self, user: UserRef<'_>, is_here: bool) -> Answer<Vec<Place>> {
        match self.recall(user, is_here) {
            Some(places) => Answer::Now(Ok(places)),
            None => self.ask(user, is_here),
        }
    }

    pub(super) fn recall(&self, user: UserRef<'_>, is_here: bool) -> Option<Vec<Place>> {
        self.shared.remembered().find(user, is_here, Instant::now())
    }

    pub(super) fn ask(&self, user: UserRef<'_>, is_here: bool) -> Answer<Vec<Place>> {
        if !self.shared.has_presence() {
            return Answer::Now(Err(Unavailable));
        }
        self.shared.remembered().asking(user);
        self.shared.ask(Ask::Locate { user: user.into(), is_here });
        Answer::Later
    }

    pub(super) fn forget(&self, user: UserRef<'_>) {
        self.shared.remembered().forget(user);
    }

    pub(super) fn forward(&self, node: &NodeId, envelope: &Envelope) -> Result<(), Unavailable> {
        let has_link = self.shared.links().has(node);
        if !has_link && self.shared.nodes().is_dead(node) {
            let number = envelope.number.ok_or(Unavailable)?;
            let (node, numbers) = (node.clone(), vec![number]);
            self.shared.tell(Event::Returned { node, numbers, maybe_seen: false });
            return Ok(());
        }
        self.shared.links().forward(node, envelope, Instant::now())
    }

    pub(super) fn receipt(&self, origin: &NodeId, number: u64, fate: Fate) {
        self.shared.links().receipt(origin, number, fate, Instant::now());
    }

    pub(super) fn replace(&self, node: &NodeId, user: &UserName, session: SessionId) {
        self.shared.ask(Ask::Remove { user: user.clone(), node: node.clone(), session });
        self.shared.say(node, &Item::Replaced { user: user.borrowed(), session });
    }

    pub(super) fn flush(&self) {
        if self.shared.links().has_next() {
            self.shared.ring();
        }
    }

    /// Takes in what another node says.
    pub(super) fn unpack(&self, epoch: u64, batch: &[u8], take: &mut dyn FnMut(Event)) {
        if self.read(epoch, batch, take).is_err() && !self.shared.was_puzzled.swap(true, Ordering::Relaxed) {
            warn!("a batch of {} bytes makes no sense, and is dropped; so are others like it", batch.len());
        }
        self.shared.taken.fetch_add(1, Ordering::Release);
    }

    fn read(&self, epoch: u64, batch: &[u8], take: &mut dyn FnMut(Event)) -> Result<(), BadBatch> {
        let (head, items) = Head::parse(batch).ok_or(BadBatch)?;
        // All of it, or nothing.
        let items: Vec<Item<'_>> = items.collect::<Result<_, _>>()?;
        let now = Instant::now();
        if self.shared.nodes().is_dead(&head.from) {
            // It was cut off, and does not know yet. Nobody waits for what it says.
            return Ok(());
        }
        let mut links = self.shared.links();
        if links.hear(epoch, &head, now) == Heard::Nothing {
            return Ok(());
        }
        let mut number = links.number(head.first);
        drop(links);
        for item in items {
            self.item(&head.from, item, &mut number, now, take);
        }
        Ok(())
    }

    fn item(&self, from: &NodeId, item: Item<'_>, next: &mut u64, now: Instant, take: &mut dyn FnMut(Event)) {
        match item {
            Item::Message(message) => {
                let number = message.asks.then_some(*next);
                *next += u64::from(message.asks);
                if self.shared.remembered().is_news_to(from, message.to, now) {
                    self.shared.links().say(from, &Item::Changed { user: message.to }, now);
                }
                take(Event::Envelope { origin: from.clone(), envelope: message.envelope(number) });
            }
            Item::Receipts { fate, first, count } => {
                let mut tickets = vec![];
                self.shared.links().settle(from, first, count, &mut tickets);
                for number in tickets {
                    take(Event::Receipt { node: from.clone(), number, fate });
                }
            }
            Item::Replaced { user, session } => take(Event::Replaced { user: user.into(), session }),
            Item::Also { user, login } => {
                self.shared.remembered().heard_news(user, now);
                self.shared.links().say(from, &Item::Noted { login }, now);
            }
            Item::Noted { login } => {
                let event = self.shared.announced().noted(from, login);
                event.into_iter().for_each(take);
            }
            Item::Changed { user } => {
                self.shared.remembered().forget(user);
                take(Event::Changed { node: from.clone(), user: user.into() });
            }
        }
    }

    /// Stops both threads, and waits a moment for what they have to say last.
    pub(super) fn leave(&self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.ask(Ask::Wake);
        self.shared.ring();
        let by = Instant::now() + LEAVE_TIME_MAX;
        for thread in lock(&self.threads).drain(..) {
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

impl Shared {
    /// This node's id now.
    pub fn node(&self) -> NodeId {
        lock(&self.me).clone()
    }

    /// Tells whether presence can be asked: otherwise nobody waits for it to find out.
    pub fn has_presence(&self) -> bool {
        self.has_presence.load(Ordering::Relaxed)
    }

    /// Presence can be asked from now on, or no more.
    pub fn set_presence(&self, is_up: bool) {
        self.has_presence.store(is_up, Ordering::Relaxed);
    }

    /// This node goes.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// The links to other nodes.
    pub fn links(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }

    /// The living nodes.
    pub fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    /// The remembered places.
    pub fn remembered(&self) -> MutexGuard<'_, Remembered> {
        lock(&self.remembered)
    }

    /// The logins that wait for other nodes.
    pub fn announced(&self) -> MutexGuard<'_, Announced> {
        lock(&self.announced)
    }

    /// Hands something up.
    pub fn hand_up(&self, incoming: Incoming) {
        // Fails only when the node is gone.
        let _ = self.incoming.try_send(incoming);
    }

    /// Hands an event up.
    pub fn tell(&self, event: Event) {
        self.hand_up(Incoming::Event(event));
    }

    /// Asks presence.
    pub fn ask(&self, ask: Ask) {
        // Fails only when the thread is gone, and then so is the node.
        let _ = self.asks.send(ask);
    }

    /// Wakes the bus.
    pub fn ring(&self) {
        // Full means that it is rung already.
        let _ = self.bell.try_send(());
    }

    /// Says something to another node.
    pub fn say(&self, node: &NodeId, item: &Item<'_>) {
        self.links().say(node, item, Instant::now());
        self.ring();
    }

    /// Presence has answered where a user is.
    pub fn located(&self, user: UserName, places: Result<Vec<Place>, Unavailable>, is_here: bool) {
        // While some node writes its sessions again, an answer may be a part of the truth.
        let is_whole = !self.nodes().in_doubt;
        let worth = places.as_deref().ok().filter(|places| is_whole && (is_here || !places.is_empty()));
        self.remembered().answered(&user, worth, Instant::now());
        self.tell(Event::Located { user, places });
    }

    /// These nodes are dead.
    pub fn bury(&self, dead: &[NodeId]) {
        self.remembered().bury(dead);
        let now = Instant::now();
        let mut gone = vec![];
        let mut links = self.links();
        for node in dead {
            gone.extend(links.end(node, now));
        }
        drop(links);
        gone.into_iter().for_each(|event| self.tell(event));
    }

    /// Ends links to nodes that never came into the table.
    pub fn end_strangers(&self) {
        let now = Instant::now();
        let strangers = self.links().strangers(now);
        let nodes = self.nodes();
        let strangers: Vec<NodeId> = strangers.into_iter().filter(|node| !nodes.is_living(node)).collect();
        drop(nodes);
        self.bury(&strangers);
    }

    /// Gives this node a new id: to all others it is another node.
    pub fn restart(&self) -> NodeId {
        let me = fresh_id(&self.name);
        lock(&self.me).clone_from(&me);
        self.nodes().forget_table();
        self.remembered().forget_all();
        let gone = self.links().restart(me.clone());
        lock(&self.stage).has_joined = false;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.ring();
        gone.into_iter().for_each(|event| self.tell(event));
        me
    }

    /// The bus can publish, or no longer.
    pub fn set_bus_up(&self, is_up: bool) {
        self.links().set_up(is_up);
        let mut stage = lock(&self.stage);
        if !is_up {
            stage.bus_away.get_or_insert_with(Instant::now);
        } else if stage.bus_away.take().is_some_and(|since| since.elapsed() >= OUTAGE_TIME) {
            // What other nodes said of replaced sessions meanwhile may be lost.
            drop(stage);
            self.ask(Ask::AssertAll);
        }
    }

    /// The bus has no queue any more.
    pub fn lose_queue(&self) {
        lock(&self.stage).queue = None;
    }

    /// The bus has said its last words.
    fn set_bus_ended(&self) {
        lock(&self.stage).bus_has_ended = true;
        self.stage_changed.notify_all();
    }

    /// Waits until the bus has said its last words, or so long.
    pub fn wait_for_bus_end(&self, time_max: Duration) {
        let ended = |stage: &mut Stage| !stage.bus_has_ended;
        drop(self.stage_changed.wait_timeout_while(lock(&self.stage), time_max, ended));
    }

    /// Gives up what waits for a broker that does not come back.
    pub fn give_up_waiting(&self) {
        let events = self.links().give_up_waiting(Instant::now());
        events.into_iter().for_each(|event| self.tell(event));
    }

    /// There is a queue for this id now.
    pub fn has_queue(&self, node: &NodeId) {
        lock(&self.stage).queue = Some(node.clone());
        self.stage_changed.notify_all();
    }

    /// Waits until there is a queue for this node's id; `false` when that took too long.
    pub fn wait_for_queue(&self, time_max: Duration) -> bool {
        let me = self.node();
        let waited = self.stage_changed.wait_timeout_while(lock(&self.stage), time_max, |stage| {
            stage.queue.as_ref() != Some(&me) && !self.is_stopping()
        });
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Others know of this node now.
    pub fn set_joined(&self) {
        lock(&self.stage).has_joined = true;
        self.stage_changed.notify_all();
    }
}

fn fresh_id(name: &str) -> NodeId {
    NodeId::new(name, &nanoid!(8)).expect("the settings take no other name")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // None of the parts is left half changed by its methods.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
