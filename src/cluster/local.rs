//! Nodes of one process, talking in memory.
//!
//! A [`Mesh`] is what Redis and RabbitMQ are to nodes on several machines: it
//! knows who is where, and it carries what nodes say to each other, in order. A
//! test can cut a node off, hold back what it says, and kill it. A node alone
//! has no mesh, keeps no presence beside its own table, and pays nothing.
//!
//! What waits in the channel of a node is bounded by the origins, which keep
//! each `SEND` in flight until its receipt (`router::in_flight`). A `CAST` has no
//! receipt: while 1,024 things wait, it is refused, and its origin counts it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, unbounded};

use crate::cluster::post::Post;
use crate::cluster::{Answer, Event, Incoming, Mail, Place, Places, Stored, Unavailable, Welcome};
use crate::mailbox::Limits;
use crate::outbox::{SeenKey, SeenKeys, Shown};
use crate::proto::{Envelope, EnvelopeRef, Fate, NodeId, SessionId, UserName, UserRef};

/// One node's end: alone, or in a mesh.
pub struct Local {
    node: NodeId,
    mesh: Option<Mesh>,
    incoming: Receiver<Incoming>,
    /// Of a node alone, or what the whole mesh shares.
    post: Arc<Mutex<Post>>,
    limits: Limits,
    seen_key: SeenKey,
}

/// Several nodes in one process. Cheap to clone; all clones are the same mesh.
#[derive(Clone, Default)]
pub struct Mesh {
    state: Arc<Mutex<State>>,
    post: Arc<OnceLock<(Limits, Arc<Mutex<Post>>)>>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<NodeId, Node>,
    /// Who is where, in the order of the logins.
    presence: HashMap<UserName, Vec<(NodeId, SessionId)>>,
}

struct Node {
    tx: Sender<Incoming>,
    /// Reaches nobody, and nobody reaches it: what is said is lost.
    is_cut: bool,
    /// What it said while it was held back.
    held: Option<Vec<(NodeId, Incoming)>>,
}

/// With so many events waiting for a node, it is sent no `CAST`.
const EVENTS_BEFORE_CASTS_MAX: usize = 1_024;

/// Nothing is kept for anybody.
const NO_MAILBOXES: Limits = Limits { messages_max: 0, time_max: Duration::ZERO };

impl Local {
    /// A node without others.
    pub fn alone(node: NodeId, limits: Limits) -> Self {
        let (_, incoming) = unbounded();
        Self::with(node, None, incoming, limits, Arc::new(Mutex::new(Post::new(limits))))
    }

    fn with(
        node: NodeId,
        mesh: Option<Mesh>,
        incoming: Receiver<Incoming>,
        limits: Limits,
        post: Arc<Mutex<Post>>,
    ) -> Self {
        let seen_key = lock(&post).seen_key;
        Local { node, mesh, incoming, post, limits, seen_key }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node.clone()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.mesh.is_none()
    }

    pub(super) fn incoming(&self) -> Receiver<Incoming> {
        self.incoming.clone()
    }

    pub(super) fn register(&self, user: &UserName, session: SessionId, number: u64) -> Answer<Welcome> {
        let others = match &self.mesh {
            Some(mesh) => mesh.lock().register(&self.node, user, session, number),
            None => Some(vec![]),
        };
        let Some(others) = others else { return Answer::Now(Err(Unavailable)) };
        // After that: what is stored from now on is stored by somebody who finds the session.
        let welcome = Welcome { others, ..lock(&self.post).welcome(user) };
        if !self.is_held() {
            return Answer::Now(Ok(welcome));
        }
        self.say(&self.node, Event::Registered { number, welcome: Ok(welcome) });
        Answer::Later
    }

    pub(super) fn unregister(&self, user: &UserName, session: SessionId, shown: &Shown) {
        lock(&self.post).leave(user, &self.node, session, shown);
        let Some(mesh) = &self.mesh else { return };
        // Also while cut off: a real node repeats this until it has worked.
        mesh.lock().forget(user, |node, other| *node == self.node && *other == session);
    }

    pub(super) fn locate(&self, user: UserRef<'_>) -> Answer<Places> {
        let Some(mesh) = &self.mesh else { return Answer::Now(Ok(Places::default())) };
        let mut state = mesh.lock();
        if !state.reaches(&self.node) {
            return Answer::Now(Err(Unavailable));
        }
        let places = Places::from(state.places(user.as_str(), &self.node));
        if !state.holds(&self.node) {
            return Answer::Now(Ok(places));
        }
        let event = Event::Located { user: user.into(), places: Ok(places) };
        state.say(&self.node, &self.node, event);
        Answer::Later
    }

    pub(super) fn forward(&self, node: &NodeId, envelope: EnvelopeRef<'_>) -> Result<(), Unavailable> {
        let Some(mesh) = &self.mesh else { return Err(Unavailable) };
        let mut state = mesh.lock();
        let there = state.nodes.get(node).ok_or(Unavailable)?;
        if envelope.number.is_none() && there.tx.len() >= EVENTS_BEFORE_CASTS_MAX {
            return Err(Unavailable);
        }
        let (origin, envelope) = (self.node.clone(), envelope.into());
        state.carry(&self.node, node, Incoming::Envelope { origin, envelope });
        Ok(())
    }

    pub(super) fn receipt(&self, origin: &NodeId, number: u64, fate: Fate) {
        let Some(mesh) = &self.mesh else { return };
        mesh.lock().carry(&self.node, origin, Incoming::Receipt { node: self.node.clone(), number, fate });
    }

    pub(super) fn tell_waits(&self, origin: &NodeId, number: u64) {
        self.say(origin, Event::Waits { node: self.node.clone(), number });
    }

    pub(super) fn tell_shown(&self, node: &NodeId, user: &UserName, seen: &[u64]) {
        self.say(node, Event::Shown { user: user.clone(), seen: seen.to_vec() });
    }

    pub(super) fn tell_mail(&self, node: &NodeId, user: &UserName) {
        self.say(node, Event::Mail(user.clone()));
    }

    pub(super) fn tell_resumes(&self, node: &NodeId, user: &UserName) {
        self.say(node, Event::Resumes { node: self.node.clone(), user: user.clone() });
    }

    /// Tells whether what this node says waits, answers to itself included.
    fn is_held(&self) -> bool {
        self.mesh.as_ref().is_some_and(|mesh| mesh.lock().holds(&self.node))
    }

    fn say(&self, node: &NodeId, event: Event) {
        if let Some(mesh) = &self.mesh {
            mesh.lock().say(&self.node, node, event);
        }
    }

    pub(super) fn left(&self, user: &UserName) -> Vec<u64> {
        lock(&self.post).left(user)
    }

    pub(super) fn seen_keys(&self) -> SeenKeys {
        self.seen_key.into()
    }

    pub(super) fn has_mailboxes(&self) -> bool {
        self.limits.messages_max > 0
    }

    pub(super) fn store(&self, envelope: &Envelope, number: u64) -> Answer<(Stored, Places)> {
        if !self.reaches_others() {
            return Answer::Now(Err(Unavailable));
        }
        let stored = lock(&self.post).store(envelope);
        // After that: whoever logs in from now on finds the message.
        let places = self.mesh.as_ref().map(|mesh| mesh.lock().places(envelope.to.as_str(), &self.node));
        let places = Places::from(places.unwrap_or_default());
        if !self.is_held() {
            return Answer::Now(Ok((stored, places)));
        }
        let fates = vec![(number, stored)];
        self.say(&self.node, Event::Stored { user: envelope.to.clone(), fates, places: Ok(places) });
        Answer::Later
    }

    pub(super) fn read(&self, user: &UserName, session: SessionId, after: u64) -> Answer<Mail> {
        if !self.reaches_others() {
            return Answer::Now(Err(Unavailable));
        }
        let mail = lock(&self.post).read(user, &self.node, session, after);
        if !self.is_held() {
            return Answer::Now(Ok(mail));
        }
        self.say(&self.node, Event::Read { session, mail: Ok(mail) });
        Answer::Later
    }

    fn reaches_others(&self) -> bool {
        self.mesh.as_ref().is_none_or(|mesh| mesh.lock().reaches(&self.node))
    }

    pub(super) fn take(&self, user: &UserName, up_to: u64, also: &[u64]) {
        lock(&self.post).take(user, up_to, also);
    }

    pub(super) fn release(&self, user: &UserName, session: SessionId) {
        lock(&self.post).release(user, &self.node, session);
    }

    pub(super) fn expire(&self, now: Instant) {
        lock(&self.post).expire(now);
    }

    pub(super) fn replace(&self, node: &NodeId, user: &UserName, session: SessionId) {
        let Some(mesh) = &self.mesh else { return };
        let mut state = mesh.lock();
        state.forget(user, |other, tag| other == node && *tag == session);
        state.say(&self.node, node, Event::Replaced { user: user.clone(), session });
    }

    pub(super) fn leave(&self) {
        if let Some(mesh) = &self.mesh {
            mesh.kill(&self.node);
        }
    }
}

impl Mesh {
    /// Adds a node.
    ///
    /// # Panics
    /// When a node of this id is or was in the mesh: ids are never used twice.
    pub fn join(&self, node: NodeId) -> Local {
        let (tx, incoming) = unbounded();
        let entry = Node { tx, is_cut: false, held: None };
        let before = self.lock().nodes.insert(node.clone(), entry);
        assert!(before.is_none(), "a node id is never used twice");
        let (limits, post) = self.post(NO_MAILBOXES);
        Local::with(node, Some(self.clone()), incoming, limits, post)
    }

    /// Bounds the mailboxes, which all nodes share: as the first says who calls this or joins.
    pub fn bound(&self, limits: Limits) {
        self.post(limits);
    }

    fn post(&self, limits: Limits) -> (Limits, Arc<Mutex<Post>>) {
        self.post.get_or_init(|| (limits, Arc::new(Mutex::new(Post::new(limits))))).clone()
    }

    /// Cuts a node off: presence is unavailable to it, and what it says or is
    /// told is lost, until [`Mesh::heal`].
    pub fn cut(&self, node: &NodeId) {
        self.with(node, |entry| entry.is_cut = true);
    }

    /// Ends a [`Mesh::cut`].
    pub fn heal(&self, node: &NodeId) {
        self.with(node, |entry| entry.is_cut = false);
    }

    /// Holds back all that a node says, answers of presence to itself
    /// included, until [`Mesh::release`].
    pub fn hold(&self, node: &NodeId) {
        self.with(node, |entry| {
            entry.held.get_or_insert_default();
        });
    }

    /// Lets out what was held back, in order.
    pub fn release(&self, node: &NodeId) {
        let mut state = self.lock();
        let held = state.nodes.get_mut(node).and_then(|entry| entry.held.take());
        for (to, said) in held.unwrap_or_default() {
            state.carry(node, &to, said);
        }
    }

    /// How many events of a node are held back.
    pub fn held(&self, node: &NodeId) -> usize {
        self.lock().nodes.get(node).and_then(|entry| entry.held.as_ref()).map_or(0, Vec::len)
    }

    /// A node's lease has run out: its users are offline, what it said and was
    /// held back is lost, and every other node is told.
    pub fn kill(&self, node: &NodeId) {
        if let Some((_, post)) = self.post.get() {
            lock(post).bury(node);
        }
        let mut state = self.lock();
        if state.nodes.remove(node).is_none() {
            return;
        }
        state.presence.retain(|_, sessions| {
            sessions.retain(|(other, _)| other != node);
            !sessions.is_empty()
        });
        for entry in state.nodes.values() {
            // Fails only for a node whose receiver is dropped already.
            let _ = entry.tx.try_send(Incoming::Event(Event::Gone(node.clone())));
        }
    }

    /// How many users are online.
    pub fn users(&self) -> usize {
        self.lock().presence.len()
    }

    fn with(&self, node: &NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(entry) = self.lock().nodes.get_mut(node) {
            change(entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(post: &Mutex<Post>) -> MutexGuard<'_, Post> {
    // No method leaves it half changed.
    post.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn reaches(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|entry| !entry.is_cut)
    }

    /// Adds a session, and returns where else its user is; `None` for a node that is cut off.
    fn register(
        &mut self,
        node: &NodeId,
        user: &UserName,
        session: SessionId,
        login: u64,
    ) -> Option<Vec<Place>> {
        if !self.reaches(node) {
            return None;
        }
        let others = self.places(user.as_str(), node);
        self.presence.entry(user.clone()).or_default().push((node.clone(), session));
        for place in &others {
            self.say(node, &place.node, Event::Also { node: node.clone(), user: user.clone(), login });
        }
        Some(others)
    }

    fn holds(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|entry| entry.held.is_some())
    }

    fn say(&mut self, from: &NodeId, to: &NodeId, event: Event) {
        self.carry(from, to, Incoming::Event(event));
    }

    /// Carries what a node says, holds it back, or loses it.
    fn carry(&mut self, from: &NodeId, to: &NodeId, said: Incoming) {
        if !self.reaches(from) {
            return;
        }
        if let Some(held) = self.nodes.get_mut(from).and_then(|entry| entry.held.as_mut()) {
            held.push((to.clone(), said));
        } else if self.reaches(to) {
            // Fails only for a node whose receiver is dropped already: it is as good as gone.
            let _ = self.nodes[to].tx.try_send(said);
        }
    }

    /// Where a user is beside `except`.
    fn places(&self, user: &str, except: &NodeId) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for (node, session) in self.presence.get(user).into_iter().flatten() {
            if node == except {
                continue;
            }
            match places.iter_mut().find(|place| place.node == *node) {
                Some(place) => place.sessions.push(*session),
                None => places.push(Place { node: node.clone(), sessions: vec![*session] }),
            }
        }
        places
    }

    fn forget(&mut self, user: &UserName, which: impl Fn(&NodeId, &SessionId) -> bool) {
        if let Some(sessions) = self.presence.get_mut(user) {
            sessions.retain(|(node, session)| !which(node, session));
            if sessions.is_empty() {
                self.presence.remove(user);
            }
        }
    }
}
