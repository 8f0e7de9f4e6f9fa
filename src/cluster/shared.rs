//! What the threads of a node in a cluster share: its own, the bus and presence.
//!
//! Each part is behind a lock of its own that is held for a few lines: the
//! links, the table of living nodes, the remembered places, and how far this
//! node has come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender as AskSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as Bell;
use smol::channel::Sender;

use crate::cluster::announced::Announced;
use crate::cluster::lease::Nodes;
use crate::cluster::left::Left;
use crate::cluster::links::Links;
use crate::cluster::presence::Ask;
use crate::cluster::remembered::Remembered;
use crate::cluster::{Event, Incoming, Places, Unavailable};
use crate::mailbox::Limits;
use crate::outbox::{SeenKey, SeenKeys};
use crate::proto::batch::Item;
use crate::proto::{NodeId, UserName};
use crate::random::random_id;

/// A bus that was away for longer has given up what it was to carry.
const OUTAGE_TIME: Duration = Duration::from_secs(10);

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
    /// Until Redis knows it, for when Redis loses it, and for nodes that ask.
    left: Mutex<Left>,
    seen_key: AtomicU64,
    /// The one before; 0 for none.
    seen_key_before: AtomicU64,
    /// Of mailboxes.
    pub limits: Limits,
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

impl Shared {
    /// What a node begins with.
    pub fn new(
        name: &str,
        limits: Limits,
        incoming: Sender<Incoming>,
        bell: Bell<()>,
        asks: AskSender<Ask>,
    ) -> Self {
        let me = fresh_id(name);
        let nodes = Nodes::default();
        Shared {
            name: name.to_owned(),
            me: Mutex::new(me.clone()),
            epoch: AtomicU64::new(0),
            links: Mutex::new(Links::new(me)),
            seen_key: AtomicU64::new(nodes.seen_keys(Instant::now()).now.0),
            seen_key_before: AtomicU64::new(0),
            nodes: Mutex::new(nodes),
            remembered: Mutex::default(),
            announced: Mutex::default(),
            left: Mutex::default(),
            limits,
            incoming,
            taken: AtomicU64::new(0),
            was_puzzled: AtomicBool::new(false),
            bell,
            asks,
            has_presence: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            stage: Mutex::default(),
            stage_changed: Condvar::new(),
        }
    }

    /// Waits until this node can be reached by others; `false` when that took too long.
    pub fn wait_until_joined(&self, time_max: Duration) -> bool {
        let waited = self.stage_changed.wait_timeout_while(lock(&self.stage), time_max, |stage| {
            !stage.has_joined || stage.queue.is_none()
        });
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// This node's id now.
    pub fn node(&self) -> NodeId {
        lock(&self.me).clone()
    }

    /// Tells whether there are mailboxes.
    pub fn has_mailboxes(&self) -> bool {
        self.limits.messages_max > 0
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
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// A batch makes no sense; tells whether that was so before.
    pub fn is_puzzled_again(&self) -> bool {
        self.was_puzzled.swap(true, Ordering::Relaxed)
    }

    /// What messages are remembered by.
    pub fn seen_keys(&self) -> SeenKeys {
        // Whoever finds a new key finds the one before it, too.
        let now = SeenKey(self.seen_key.load(Ordering::Acquire));
        let before = self.seen_key_before.load(Ordering::Relaxed);
        SeenKeys { now, before: Some(before).filter(|key| *key > 0).map(SeenKey) }
    }

    /// All nodes remember messages by this from now on.
    pub fn set_seen_keys(&self, keys: SeenKeys) {
        self.seen_key_before.store(keys.before.map_or(0, |key| key.0), Ordering::Relaxed);
        self.seen_key.store(keys.now.0, Ordering::Release);
    }

    /// What users who have left were shown.
    pub fn left(&self) -> MutexGuard<'_, Left> {
        lock(&self.left)
    }

    /// Tells whether this node goes.
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
    pub fn located(&self, user: UserName, places: Result<Places, Unavailable>, is_here: bool) {
        // While some node writes its sessions again, an answer may be a part of the truth.
        let is_whole = !self.nodes().in_doubt;
        let worth = places.as_ref().ok().filter(|places| is_whole && (is_here || !places.is_empty()));
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
    pub fn set_bus_ended(&self) {
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
    NodeId::new(name, &random_id(8, &nanoid::alphabet::SAFE)).expect("the settings take no other name")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // None of the parts is left half changed by its methods.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
