//! Nodes on several machines: Redis says where, RabbitMQ carries.
//!
//! Two threads, each with a library that blocks: `Presence` talks to Redis,
//! `Bus` to RabbitMQ. Calls from above are answered from what all three sides
//! share (`shared.rs`), or become questions; answers and batches go up through
//! one channel. The channel has no bound of its own: answers are bounded by
//! questions, and batches by the broker's prefetch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use log::{error, warn};
use smol::channel::{Receiver, unbounded};

use crate::cluster::bus::Bus;
use crate::cluster::link::Heard;
use crate::cluster::presence::{Ask, Presence};
use crate::cluster::shared::Shared;
use crate::cluster::{Answer, Event, Incoming, Mail, Places, Said, Stored, Unavailable, Welcome};
use crate::config::{Amqp, Redis};
use crate::mailbox::Limits;
use crate::outbox::{SeenKeys, Shown};
use crate::proto::batch::{BadBatch, Head, Item, SHOWN_MAX};
use crate::proto::{Envelope, EnvelopeRef, Fate, NodeId, SessionId, UserName, UserRef};

/// How long leaving may take.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);

/// Items for which there is room between two batches.
const ITEMS_KEPT_MAX: usize = 2_048;

/// One node's end of a cluster of several machines.
pub struct Remote {
    shared: Arc<Shared>,
    incoming: Receiver<Incoming>,
    /// Room for the items of a batch.
    items: Mutex<Vec<Item<'static>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Remote {
    /// Starts both threads. `name` is the readable part of the node's id.
    pub fn start(name: &str, redis: Redis, amqp: Amqp, sessions_max: usize, limits: Limits) -> Self {
        let (incoming_tx, incoming) = unbounded();
        let (bell, rung) = bounded(1);
        let (asks, asked) = channel();
        let shared = Arc::new(Shared::new(name, limits, incoming_tx, bell, asks));
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
        Remote { shared, incoming, items: Mutex::default(), threads: Mutex::new(threads) }
    }

    /// Waits until this node can be reached by others; `false` when that took too long.
    pub fn wait_until_joined(&self, time_max: Duration) -> bool {
        self.shared.wait_until_joined(time_max)
    }

    pub(super) fn node(&self) -> NodeId {
        self.shared.node()
    }

    pub(super) fn incoming(&self) -> Receiver<Incoming> {
        self.incoming.clone()
    }

    pub(super) fn register(&self, user: &UserName, session: SessionId, number: u64) -> Answer<Welcome> {
        self.asked(Ask::Register { user: user.clone(), session, number })
    }

    pub(super) fn unregister(&self, user: &UserName, session: SessionId, shown: Shown, number: u64) -> bool {
        self.shared.left().insert(user, &shown, Instant::now());
        self.shared.ask(Ask::Unregister { user: user.clone(), session, shown, number });
        self.shared.has_presence()
    }

    /// Asks presence, if it can be asked now.
    fn asked<T>(&self, ask: Ask) -> Answer<T> {
        if !self.shared.has_presence() {
            return Answer::Now(Err(Unavailable));
        }
        self.shared.ask(ask);
        Answer::Later
    }

    pub(super) fn left(&self, user: &UserName) -> Vec<u64> {
        self.shared.left().find(user.as_str(), Instant::now())
    }

    pub(super) fn seen_keys(&self) -> SeenKeys {
        self.shared.seen_keys()
    }

    pub(super) fn has_mailboxes(&self) -> bool {
        self.shared.has_mailboxes()
    }

    pub(super) fn store(&self, envelope: &Envelope, number: u64) -> Answer<(Stored, Places)> {
        self.asked(Ask::Store { envelope: envelope.clone(), number })
    }

    pub(super) fn read(&self, user: &UserName, session: SessionId, after: u64) -> Answer<Mail> {
        self.asked(Ask::Read { user: user.clone(), session, after })
    }

    pub(super) fn take(&self, user: &UserName, up_to: u64, also: Vec<u64>) {
        self.shared.ask(Ask::Take { user: user.clone(), up_to, also });
    }

    pub(super) fn release(&self, session: SessionId) {
        self.shared.ask(Ask::Release { session });
    }

    pub(super) fn tell_resumes(&self, node: &NodeId, user: &UserName) {
        self.shared.say(node, &Item::Resumes { user: user.borrowed() });
    }

    pub(super) fn tell_mail(&self, node: &NodeId, user: &UserName) {
        self.shared.say(node, &Item::Mail { user: user.borrowed() });
    }

    pub(super) fn tell_waits(&self, origin: &NodeId, number: u64) {
        let message = self.shared.links().message(number);
        if let Some(first) = message {
            self.shared.say(origin, &Item::Waits { first, count: 1 });
        }
    }

    pub(super) fn tell_shown(&self, node: &NodeId, user: &UserName, login: u64, seen: &[u64]) {
        let seen = seen.iter().rev().take(SHOWN_MAX);
        let shown: Vec<u8> = seen.flat_map(|hash| hash.to_le_bytes()).collect();
        self.shared.say(node, &Item::Noted { user: user.borrowed(), login, shown: &shown });
    }

    pub(super) fn expire(&self, now: Instant) {
        self.shared.left().expire(now);
    }

    pub(super) fn locate(&self, user: UserRef<'_>, is_here: bool, now: Instant) -> Answer<Places> {
        match self.recall(user, is_here, now) {
            Some(places) => Answer::Now(Ok(places)),
            None => self.ask(user, is_here),
        }
    }

    pub(super) fn recall(&self, user: UserRef<'_>, is_here: bool, now: Instant) -> Option<Places> {
        self.shared.remembered().find(user, is_here, now)
    }

    pub(super) fn ask(&self, user: UserRef<'_>, is_here: bool) -> Answer<Places> {
        if self.shared.has_presence() {
            self.shared.remembered().asking(user);
        }
        self.asked(Ask::Locate { user: user.into(), is_here })
    }

    pub(super) fn forget(&self, user: UserRef<'_>) {
        self.shared.remembered().forget(user);
    }

    pub(super) fn forward(
        &self,
        node: &NodeId,
        envelope: EnvelopeRef<'_>,
        now: Instant,
    ) -> Result<(), Unavailable> {
        let forwarded = self.shared.links().forward(node, envelope, now);
        if let Some(forwarded) = forwarded {
            return forwarded;
        }
        if self.shared.nodes().is_dead(node) {
            let number = envelope.number.ok_or(Unavailable)?;
            let (node, numbers) = (node.clone(), vec![number]);
            self.shared.tell(Event::Returned { node, numbers, maybe_seen: false });
            return Ok(());
        }
        let mut links = self.shared.links();
        links.open(node, now);
        links.forward(node, envelope, now).unwrap_or(Err(Unavailable))
    }

    pub(super) fn receipt(&self, origin: &NodeId, number: u64, fate: Fate, now: Instant) {
        self.shared.links().receipt(origin, number, fate, now);
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
    pub(super) fn unpack(&self, epoch: u64, batch: &[u8], take: &mut dyn FnMut(Said<'_>)) {
        let mut items = std::mem::take(&mut *self.items());
        if self.understand(epoch, batch, &mut items, take).is_err() && !self.shared.is_puzzled_again() {
            warn!("a batch of {} bytes makes no sense, and is dropped; so are others like it", batch.len());
        }
        *self.items() = emptied(items);
        self.shared.taken.fetch_add(1, Ordering::Release);
    }

    fn items(&self) -> MutexGuard<'_, Vec<Item<'static>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn understand<'a>(
        &self,
        epoch: u64,
        batch: &'a [u8],
        items: &mut Vec<Item<'a>>,
        take: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), BadBatch> {
        let (head, mut parsed) = Head::parse(batch).ok_or(BadBatch)?;
        // All of it, or nothing.
        parsed.try_for_each(|item| item.map(|item| items.push(item)))?;
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
        for item in items.drain(..) {
            self.item(&head.from, item, &mut number, now, take);
        }
        Ok(())
    }

    fn item(
        &self,
        from: &NodeId,
        item: Item<'_>,
        next: &mut u64,
        now: Instant,
        take: &mut dyn FnMut(Said<'_>),
    ) {
        match item {
            Item::Message(message) => {
                let number = message.asks.then_some(*next);
                *next += u64::from(message.asks);
                if self.shared.remembered().is_news_to(from, message.to, now) {
                    self.shared.links().say(from, &Item::Changed { user: message.to }, now);
                }
                take(Said::Envelope { origin: from, envelope: message.envelope(number) });
            }
            Item::Receipts { fate, first, count } => {
                let mut numbers = vec![];
                self.shared.links().settle(from, first, count, &mut numbers);
                take(Said::Receipts { node: from, numbers: &numbers, fate });
            }
            item => self.rare_item(from, item, now, &mut |event| take(Said::Event(event))),
        }
    }

    fn rare_item(&self, from: &NodeId, item: Item<'_>, now: Instant, take: &mut dyn FnMut(Event)) {
        match item {
            Item::Message(_) | Item::Receipts { .. } => unreachable!("they are not rare"),
            Item::Replaced { user, session } => take(Event::Replaced { user: user.into(), session }),
            Item::Waits { first, count } => {
                let mut tickets = vec![];
                self.shared.links().waits(from, first, count, &mut tickets);
                tickets.into_iter().for_each(|number| take(Event::Waits { node: from.clone(), number }));
            }
            Item::Mail { user } => take(Event::Mail(user.into())),
            Item::Resumes { user } => take(Event::Resumes { node: from.clone(), user: user.into() }),
            Item::Also { user, login } => {
                self.shared.remembered().heard_news(user, now);
                take(Event::Also { node: from.clone(), user: user.into(), login });
            }
            Item::Noted { user, login, shown } => {
                // The latest come first there, and are remembered last.
                let (hashes, _) = shown.as_chunks::<8>();
                let seen: Vec<u64> = hashes.iter().rev().map(|hash| u64::from_le_bytes(*hash)).collect();
                if !seen.is_empty() {
                    take(Event::Shown { user: user.into(), seen });
                }
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
        self.shared.stop();
        self.shared.ask(Ask::Wake);
        self.shared.ring();
        let by = Instant::now() + LEAVE_TIME_MAX;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
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

/// The room for items that borrow from one batch, for those of another. A vector whose items are mapped
/// to others of the same size is collected where it is; none of much more than a batch takes is kept.
fn emptied(mut items: Vec<Item<'_>>) -> Vec<Item<'static>> {
    items.clear();
    items.shrink_to(ITEMS_KEPT_MAX);
    items.into_iter().map(|_| unreachable!("it is empty")).collect()
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_items_is_used_again() {
        let items: Vec<Item<'_>> = Vec::with_capacity(ITEMS_KEPT_MAX);
        let place = items.as_ptr().addr();
        let items = emptied(items);
        assert_eq!((items.as_ptr().addr(), items.capacity()), (place, ITEMS_KEPT_MAX));
        assert_eq!(emptied(Vec::with_capacity(9 * ITEMS_KEPT_MAX)).capacity(), ITEMS_KEPT_MAX);
    }
}
