//! A mesh: nodes of one process, in memory.
//!
//! It is what Redis and RabbitMQ are to nodes on several machines: it knows who is where,
//! keeps their mailboxes, and carries batches between the same links.
//! What is for a node that isn't there comes back. A test can cut a node off, hold back
//! what it says, and kill it.
//!
//! A mesh has no thread: time passes for a node's links whenever it says something, if only nothing,
//! which its driver does once a second at least. What waits for a node in its channel is bounded by
//! the links, as between machines.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, unbounded};

use crate::cluster::event::{Batch, ClusterEvent, locations, unavailable};
use crate::cluster::links::{Links, Unpacked};
use crate::mailbox::Limits;
use crate::mailbox::post::Post;
use crate::node::out::Says;
use crate::node::seam::{Answer, Ask, Location, Said, What};
use crate::proto::name::{NodeId, SessionId, UserName};
use crate::proto::wire::VERSION;

/// How often time passes for links, at most.
const TICK_TIME: Duration = Duration::from_millis(50);

/// Several nodes in one process. Cheap to clone; all clones are the same mesh.
#[derive(Clone, Default)]
pub struct Mesh(Arc<Mutex<MeshState>>);

/// One node's end of a mesh.
pub struct MeshNode {
    node: NodeId,
    mesh: Mesh,
    /// For the answers to a node that was killed, and asks on.
    events: Sender<ClusterEvent>,
    incoming: Receiver<ClusterEvent>,
}

#[derive(Default)]
struct MeshState {
    nodes: BTreeMap<NodeId, MeshMember>,
    dead: Vec<NodeId>,
    /// Where users are, in the order of their logins.
    sessions: HashMap<UserName, Vec<(NodeId, SessionId)>>,
    /// There when a node has joined.
    post: Option<Post>,
    /// What a batch is put together in.
    batch: Vec<u8>,
}

struct MeshMember {
    links: Links,
    ticked: Instant,
    events: Sender<ClusterEvent>,
    /// Reaches nobody, and nobody reaches it: what is said is lost.
    is_cut: bool,
    /// What it said while it was held back, and answers to itself.
    held: Option<Vec<(NodeId, ClusterEvent)>>,
}

impl Mesh {
    /// Adds a node.
    ///
    /// # Panics
    /// When a node of this id is in the mesh: ids are never used twice.
    pub fn join(&self, node: NodeId) -> MeshNode {
        let (events, incoming) = unbounded();
        let now = Instant::now();
        let mut links = Links::new(node.clone());
        links.set_up(true, now);
        let member = MeshMember { links, ticked: now, events: events.clone(), is_cut: false, held: None };
        self.bound(Limits::NONE);
        let before = self.lock().nodes.insert(node.clone(), member);
        assert!(before.is_none(), "a node id is never used twice");
        MeshNode { node, mesh: self.clone(), events, incoming }
    }

    /// Bounds the mailboxes, which all nodes share: as the first says who calls this or joins.
    pub fn bound(&self, limits: Limits) {
        self.lock().post.get_or_insert_with(|| Post::new(limits));
    }

    /// Cuts a node off: presence is unavailable to it, and what it says or is told is lost, until
    /// [`Mesh::heal`].
    pub fn cut(&self, node: &NodeId) {
        self.with(node, |member| member.is_cut = true);
    }

    /// Ends a [`Mesh::cut`].
    pub fn heal(&self, node: &NodeId) {
        self.with(node, |member| member.is_cut = false);
    }

    /// Holds back all that a node says, answers of presence to itself included, until [`Mesh::release`].
    pub fn hold(&self, node: &NodeId) {
        self.with(node, |member| {
            member.held.get_or_insert_default();
        });
    }

    /// Lets out what was held back, in order.
    pub fn release(&self, node: &NodeId) {
        let mut state = self.lock();
        let held = state.nodes.get_mut(node).and_then(|member| member.held.take());
        held.into_iter().flatten().for_each(|(to, event)| state.carry(node, &to, event));
    }

    /// How many batches and answers of a node are held back.
    pub fn held(&self, node: &NodeId) -> usize {
        self.lock().nodes.get(node).and_then(|member| member.held.as_ref()).map_or(0, Vec::len)
    }

    /// A node's lease has run out: its users are offline, what it said and was held back is lost, and
    /// whoever had to do with it is told.
    pub fn kill(&self, node: &NodeId) {
        let state = &mut *self.lock();
        if state.nodes.remove(node).is_none() {
            return;
        }
        state.forget(node);
        state.dead.push(node.clone());
        let (living, now) = (state.nodes.keys().map(|node| (node.clone(), VERSION)), Instant::now());
        let living: BTreeMap<NodeId, u8> = living.collect();
        for member in state.nodes.values_mut() {
            member.links.know(living.clone(), state.dead.clone(), now);
            member.tell();
        }
    }

    /// How many users are online.
    pub fn users(&self) -> usize {
        self.lock().sessions.len()
    }

    fn with(&self, node: &NodeId, change: impl FnOnce(&mut MeshMember)) {
        if let Some(member) = self.lock().nodes.get_mut(node) {
            change(member);
        }
    }

    fn lock(&self) -> MutexGuard<'_, MeshState> {
        // No method leaves the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What these mean stands at [`Cluster`](crate::cluster::Cluster).
impl MeshNode {
    pub(super) fn node(&self) -> NodeId {
        self.node.clone()
    }

    /// It can be reached as soon as it is there.
    pub(super) fn wait_until_joined(&self, _: Duration) -> bool {
        true
    }

    #[cfg(feature = "websocket")]
    pub(super) fn is_joined(&self) -> bool {
        self.mesh.lock().reaches(&self.node)
    }

    pub(super) fn incoming(&self) -> Receiver<ClusterEvent> {
        self.incoming.clone()
    }

    pub(super) fn say(&self, says: &mut Says, now: Instant) {
        let mut state = self.mesh.lock();
        let Some(member) = state.nodes.get_mut(&self.node) else { return says.drain(|_, _| {}) };
        says.drain(|node, say| member.links.say(node, say, now));
        state.publish(&self.node, now);
    }

    pub(super) fn ask(&self, asks: impl Iterator<Item = Ask>) {
        let mut state = self.mesh.lock();
        let now = Instant::now();
        for ask in asks {
            let ticket = ask.ticket;
            let Some(answer) = state.answer(&self.node, ask, now) else { continue };
            let event = ClusterEvent::Answered(ticket, answer);
            if state.nodes.contains_key(&self.node) {
                state.carry(&self.node, &self.node, event);
            } else {
                // Fails only when the driver is gone.
                let _ = self.events.try_send(event);
            }
        }
    }

    pub(super) fn unpack(&self, batch: &Batch, now: Instant, take: &mut dyn FnMut(&NodeId, Said<'_>)) {
        let Some(mut unpacked) = Unpacked::read(&batch.bytes) else { return };
        let mut state = self.mesh.lock();
        let Some(member) = state.nodes.get_mut(&self.node) else { return };
        member.links.hear(batch.epoch, &mut unpacked, now);
        drop(state);
        unpacked.give(take);
    }

    pub(super) fn leave(&self) {
        self.mesh.lock().publish(&self.node, Instant::now());
        self.mesh.kill(&self.node);
    }
}

impl MeshState {
    fn reaches(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|member| !member.is_cut)
    }

    fn forget(&mut self, node: &NodeId) {
        let post = self.post.as_mut().expect("a node has joined");
        self.sessions.retain(|user, sessions| {
            let gone = sessions.extract_if(.., |(other, _)| other == node);
            gone.for_each(|(_, session)| post.release(user, session));
            !sessions.is_empty()
        });
    }

    /// On which nodes a user is, beside one.
    fn locations(&self, user: &UserName, except: &NodeId) -> Vec<Location> {
        let sessions = self.sessions.get(user).into_iter().flatten().filter(|(node, _)| node != except);
        locations(sessions.map(|(node, session)| (node, *session)))
    }

    fn remove(&mut self, user: &UserName, node: &NodeId, session: SessionId) {
        if let Some(sessions) = self.sessions.get_mut(user) {
            sessions.retain(|(other, known)| (other, *known) != (node, session));
            if sessions.is_empty() {
                self.sessions.remove(user);
            }
        }
    }

    /// Answers what a node asks, if an answer follows.
    fn answer(&mut self, me: &NodeId, ask: Ask, now: Instant) -> Option<Answer> {
        let refusal = unavailable(&ask).filter(|_| !self.reaches(me));
        if refusal.is_some() {
            return refusal;
        }
        let elsewhere = self.locations(&ask.user, me);
        let count = self.sessions.get(&ask.user).map_or(0, Vec::len);
        match &ask.what {
            // What is stored from now on is stored by somebody who finds the session.
            What::Register(session) => {
                self.sessions.entry(ask.user.clone()).or_default().push((me.clone(), *session));
            }
            // Also while cut off: a real node repeats this until it has worked.
            What::Unregister(session) => self.remove(&ask.user, me, *session),
            What::Remove(node, session) => self.remove(&ask.user, node, *session),
            _ => {}
        }
        let mut answer = self.post.as_mut().expect("a node has joined").answer(ask, elsewhere, now);
        if let Some(Answer::Registered(Ok(welcome))) = &mut answer {
            welcome.earlier = count;
        }
        answer
    }

    fn publish(&mut self, me: &NodeId, now: Instant) {
        let mut batch = std::mem::take(&mut self.batch);
        while let Some(member) = self.nodes.get_mut(me) {
            if now.duration_since(member.ticked) >= TICK_TIME {
                member.links.tick(now);
                member.ticked = now;
            }
            let Some(node) = member.links.next(now, &mut batch) else {
                member.tell();
                break;
            };
            let epoch = member.links.epoch();
            self.carry(me, &node, ClusterEvent::Batch(Batch { epoch, bytes: batch.clone() }));
        }
        self.batch = batch;
    }

    /// Carries what a node says, holds it back, loses it, or gives it back.
    fn carry(&mut self, from: &NodeId, to: &NodeId, event: ClusterEvent) {
        let Some(member) = self.nodes.get_mut(from) else { return };
        if from != to && member.is_cut {
            return;
        }
        if let Some(held) = &mut member.held {
            held.push((to.clone(), event));
        } else if from == to || self.reaches(to) {
            // Fails only for a node whose receiver is dropped already: it is as good as gone.
            let _ = self.nodes[to].events.try_send(event);
        } else if let (ClusterEvent::Batch(batch), false) = (event, self.nodes.contains_key(to)) {
            let member = self.nodes.get_mut(from).expect("it was there above");
            member.links.returned(to, &batch.bytes, Instant::now());
            member.tell();
        }
    }
}

impl MeshMember {
    fn tell(&mut self) {
        for event in self.links.events() {
            // Fails only for a node whose receiver is dropped already.
            let _ = self.events.try_send(event);
        }
    }
}

#[cfg(test)]
#[path = "mesh_tests.rs"]
mod tests;
