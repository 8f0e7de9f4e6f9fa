//! The driver: the node, its sockets, and what else the tasks of a node share.
//!
//! A task borrows the node for one step and never across an `.await`. After each step, also after one that
//! panicked, what it has left is taken: tasks that have to look are woken, outboxes with something new go to the
//! flusher. That is one task, and runs after every task that was ready has had its step, so that what many say to one
//! connection is one system call. Each plain outbox is written once, without waiting; one that blocks is its own
//! task's business. What was written settles fates, fates are replies, and those are written in the same round. At
//! its end leaves what gathered for other nodes.
//!
//! A connection that is dropped, in whatever way, is taken out here at once, and told to the node by the flusher.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use smol::Async;
use smol::future::yield_now;

use crate::cluster::Cluster;
use crate::metrics::Counters;
#[cfg(feature = "websocket")]
use crate::net::messages::Spare;
use crate::node::Holdings;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;

/// What all tasks of a node share.
pub struct Driver {
    pub(super) node: RefCell<Node>,
    /// How other nodes are reached.
    pub cluster: Cluster,
    /// The longest request line, LF included.
    pub line_bytes_max: usize,
    /// By the index of their connection.
    sockets: RefCell<Vec<Option<Socket>>>,
    connections: Cell<usize>,
    /// Outboxes that have something new.
    unflushed: RefCell<VecDeque<ConnectionId>>,
    /// Connections that were dropped.
    gone: RefCell<Vec<ConnectionId>>,
    flusher: Bell,
    /// Tells that the next sweep is too late.
    pub sweeper: Bell,
    /// When the next sweep is.
    pub sweeps_at: Cell<Instant>,
    /// Rung when no connection is left.
    pub emptied: Bell,
    /// For one read.
    pub(super) read_buffer: RefCell<Box<[u8]>>,
    /// For the frames of one write.
    #[cfg(feature = "websocket")]
    pub(super) frames: RefCell<Vec<u8>>,
    #[cfg(feature = "websocket")]
    pub(super) spare: Spare,
    published: Arc<Published>,
}

/// What other threads see of a node: what it had counted and held when it last wrote.
#[derive(Default)]
pub struct Published(Mutex<(Counters, Holdings)>);

/// Wakes one task, however often it is rung before that task looks.
#[derive(Default)]
pub struct Bell {
    is_rung: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// The socket of a connection.
pub(super) struct Socket {
    id: ConnectionId,
    pub stream: Async<TcpStream>,
    /// Wakes its task.
    pub waker: Waker,
}

/// What a write has left to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// More than is written in one turn.
    More,
    /// What the socket did not take.
    Blocked,
}

/// Bytes of one read. A sender that has to wait keeps at most this much unread.
pub(super) const READ_BYTES_MAX: usize = 16 * 1024;

/// Outboxes that are written before tasks that are ready have their turn,
const FLUSHES_MAX: usize = 24;

/// or the part of those that wait that is written in so many turns,
const FLUSH_TURNS: usize = 4;

/// up to so many.
const FLUSHES_OF_MANY_MAX: usize = 256;

impl Driver {
    /// Has no connection yet.
    pub fn new(node: Node, cluster: Cluster, line_bytes_max: usize, published: Arc<Published>) -> Self {
        Driver {
            node: RefCell::new(node),
            cluster,
            line_bytes_max,
            sockets: RefCell::default(),
            connections: Cell::default(),
            unflushed: RefCell::default(),
            gone: RefCell::default(),
            flusher: Bell::default(),
            sweeper: Bell::default(),
            sweeps_at: Cell::new(Instant::now()),
            emptied: Bell::default(),
            read_buffer: RefCell::new(vec![0; READ_BYTES_MAX].into()),
            #[cfg(feature = "websocket")]
            frames: RefCell::default(),
            #[cfg(feature = "websocket")]
            spare: Spare::default(),
            published,
        }
    }

    /// Lets the node do something, and takes what it has left.
    pub fn step<T>(&self, act: impl FnOnce(&mut Node, Instant) -> T) -> T {
        struct TakesOut<'a>(&'a Driver);
        impl Drop for TakesOut<'_> {
            fn drop(&mut self) {
                self.0.take_out();
                self.0.flusher.ring();
            }
        }
        let _end = TakesOut(self);
        act(&mut self.node.borrow_mut(), Instant::now())
    }

    /// Takes what a step has left, but for what is for other nodes.
    fn take_out(&self) {
        let mut node = self.node.borrow_mut();
        let out = node.out();
        self.unflushed.borrow_mut().extend(out.dirty.drain(..));
        for id in out.woken.drain(..) {
            self.with(id, |socket| socket.waker.wake_by_ref());
        }
    }

    /// Writes what steps have left, for ever.
    pub async fn flush(self: Rc<Self>) {
        loop {
            self.flusher.rung().await;
            // Rung by the first step of a turn: the others come first.
            yield_now().await;
            while self.flush_some() {
                yield_now().await;
            }
        }
    }

    /// Writes some outboxes; `false` when the round is at its end.
    pub fn flush_some(&self) -> bool {
        // Whoever was written something, and then looks here, finds it counted: such a look waits for this.
        let mut published = self.published.lock();
        let now = Instant::now();
        // Of a crowd more: between two turns of the flusher all others have theirs.
        let part = self.unflushed.borrow().len() / FLUSH_TURNS;
        let count_max = part.clamp(FLUSHES_MAX, FLUSHES_OF_MANY_MAX);
        let mut count = 0;
        while count < count_max && self.flush_one(now) {
            count += 1;
        }
        // Not only when all is written, which in a crowd may be never.
        self.tell_others(now);
        *published = self.state();
        count == count_max
    }

    /// Writes an outbox, or takes back what a connection had that is gone; `false` when there is none.
    fn flush_one(&self, now: Instant) -> bool {
        let gone = self.gone.borrow_mut().pop();
        let next = if gone.is_none() { self.unflushed.borrow_mut().pop_front() } else { None };
        let mut node = self.node.borrow_mut();
        match (gone, next) {
            (Some(id), _) => node.closed(id, now),
            // One that is broken is its own task's, which finds that out again.
            (_, Some(id)) if self.write_lines(id, &mut node, now).is_err() => node.blocks(id, now),
            (_, Some(_)) => {}
            (None, None) => return false,
        }
        drop(node);
        self.take_out();
        true
    }

    /// Writes what fits of an outbox to its plain socket.
    pub(super) fn write_lines(&self, id: ConnectionId, node: &mut Node, now: Instant) -> io::Result<Left> {
        let lines = node.outbox(id);
        let (count, length) = (self.write(id, lines)?, lines.len());
        if count > 0 || length == 0 {
            node.written(id, count, now);
        }
        if count < length {
            node.blocks(id, now);
            return Ok(Left::Blocked);
        }
        Ok(Left::Nothing)
    }

    /// What gathered for other nodes leaves.
    fn tell_others(&self, now: Instant) {
        let mut node = self.node.borrow_mut();
        let out = node.out();
        if !out.asks.is_empty() {
            self.cluster.ask(out.asks.drain(..));
        }
        self.cluster.say(&mut out.says, now);
        if node.due().is_some_and(|due| due < self.sweeps_at.get()) {
            self.sweeper.ring();
        }
        if self.connections() == 0 {
            self.emptied.ring();
        }
    }

    /// Lets other threads see what was counted.
    pub(super) fn publish(&self) {
        *self.published.lock() = self.state();
    }

    fn state(&self) -> (Counters, Holdings) {
        let mut node = self.node.borrow_mut();
        (node.counters().clone(), node.holdings())
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Takes a connection in; `is_framed` when its own task writes its lines.
    pub(super) fn enter(&self, stream: Async<TcpStream>, is_framed: bool) -> ConnectionId {
        self.step(|node, now| {
            let id = node.opened(is_framed, now);
            let mut sockets = self.sockets.borrow_mut();
            if sockets.len() <= id.index() {
                sockets.resize_with(id.index() + 1, || None);
            }
            sockets[id.index()] = Some(Socket { id, stream, waker: Waker::noop().clone() });
            self.connections.set(self.connections() + 1);
            id
        })
    }

    /// A connection was dropped: closes its socket. The node is told by the flusher, so that a panic meanwhile
    /// is the node's and not the connection's.
    pub(super) fn leave(&self, id: ConnectionId) {
        let socket = self.sockets.borrow_mut()[id.index()].take();
        drop(socket);
        self.connections.set(self.connections() - 1);
        if self.connections() == 0 {
            // A crowd has left: its memory goes back.
            self.sockets.take();
        }
        self.gone.borrow_mut().push(id);
        self.flusher.ring();
    }

    /// Does something with a connection's socket, if it is still there.
    pub(super) fn with<T>(&self, id: ConnectionId, act: impl FnOnce(&mut Socket) -> T) -> Option<T> {
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.get_mut(id.index())?.as_mut();
        socket.filter(|socket| socket.id == id).map(act)
    }

    /// Reads what there is, without waiting: 0 bytes are the end.
    pub(super) fn read(&self, id: ConnectionId, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(id, |socket| uninterrupted(|| socket.stream.get_ref().read(buffer))).unwrap_or(Ok(0))
    }

    /// Writes what fits, without waiting, and tells how much that was.
    pub(super) fn write(&self, id: ConnectionId, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.with(id, |socket| uninterrupted(|| socket.stream.get_ref().write(bytes))) {
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            written => Ok(written.and_then(Result::ok).unwrap_or(0)),
        }
    }
}

impl Published {
    /// What was counted, and what was held.
    pub fn get(&self) -> (Counters, Holdings) {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, (Counters, Holdings)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    /// Wakes the task that waits, or lets its next wait end at once.
    pub fn ring(&self) {
        if !self.is_rung.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Waits until it is rung.
    pub async fn rung(&self) {
        std::future::poll_fn(|context| {
            if self.is_rung.take() {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Makes a call again that a signal interrupted: a socket that is taken for blocked has to be, or nothing tells when
/// it is not.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_interrupts_is_made_again() {
        for interrupts in [0, 3, 1_000] {
            let mut calls = 0;
            let result = uninterrupted(|| {
                calls += 1;
                if calls <= interrupts { Err(io::ErrorKind::Interrupted.into()) } else { Ok(7) }
            });
            assert_eq!((calls, result.ok()), (interrupts + 1, Some(7)));
        }
    }

    #[test]
    fn a_bell_that_was_rung_before_or_meanwhile_ends_one_wait() {
        let bell = Bell::default();
        let context = &mut std::task::Context::from_waker(Waker::noop());
        bell.ring();
        bell.ring();
        assert!(std::pin::pin!(bell.rung()).poll(context).is_ready());
        let mut wait = std::pin::pin!(bell.rung());
        assert!(wait.as_mut().poll(context).is_pending(), "twice is once");
        bell.ring();
        assert!(wait.poll(context).is_ready());
    }
}
