//! One connection, one `async fn`: waits, reads, hands lines to the node, and ends in order.
//!
//! It waits for its socket before it reads, and reads into the buffer of the thread; all lines of a read are one
//! step of the node. Only a line that has to wait is kept, with what was read behind it, and nothing is read
//! meanwhile. Plain lines are written by the flusher; a connection writes by itself when its socket blocked, and
//! when its lines are framed.
//!
//! The node tells when the last words are in the outbox. They are written, those of the peer are waited for where it
//! has any, the sending side is shut, and what the peer still says is read away for a moment: closing a socket with
//! unread input would reset it and take the last words with it.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use log::error;
use smol::future::{FutureExt, yield_now};
use smol::{Async, Timer};

use crate::net::driver::{Driver, Left, READ_BYTES_MAX};
use crate::node::Turn;
use crate::node::route::Flow;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;
use crate::proto::line::{Line, LineDecoder};
use crate::proto::reply::CloseReason;

/// A connection as its task knows it. Dropping it takes back all that it registered.
pub struct ConnectionTask {
    pub(super) driver: Rc<Driver>,
    pub(super) id: ConnectionId,
}

/// How bytes become lines, and lines bytes.
pub(super) trait Wire {
    /// Takes input, and gives its lines to `hear`, up to one that has to wait: that comes back.
    fn hear(&mut self, driver: &Driver, input: &[u8], hear: Hear<'_>) -> Option<Box<Paused>>;

    /// The peer has ended: what there is of a last line.
    fn rest(&mut self) -> Option<Line<'_>> {
        None
    }

    /// Writes what fits. With an ending, the last words are in the outbox.
    fn write(
        &mut self,
        to: &ConnectionTask,
        node: (&mut Node, Instant),
        ending: Option<CloseReason>,
    ) -> io::Result<Left>;

    /// Whether its task has something to write: what it has itself, or of its outbox. What is not framed is the
    /// flusher's.
    fn has_frames(&self, _outbox: &[u8]) -> bool {
        false
    }

    /// Whether it may be read.
    fn takes_more(&self) -> bool {
        true
    }

    /// Whether the peer has said its last word, or must say no more.
    fn is_closed(&self) -> bool {
        false
    }

    /// Writes, with the next write, what is no line and makes the way to the peer look busy.
    fn ping(&mut self) {}

    /// Takes what comes behind the last words, and tells whether the peer has said its own, if it has any to say.
    fn has_parted(&mut self, _input: &[u8]) -> bool {
        true
    }
}

/// What a line does.
pub(super) type Hear<'a> = &'a mut dyn FnMut(Line<'_>) -> Flow;

/// What a connection that waited has to do.
pub(super) enum Ready {
    Read,
    Write,
    /// What the node tells, or to try again what had to wait.
    Turn(Turn),
}

/// A line that has to wait.
pub(super) struct Paused {
    kind: fn(&[u8]) -> Line<'_>,
    line: Box<[u8]>,
    /// What was read behind it, and is still to be heard.
    rest: Box<[u8]>,
}

/// Reads of one turn, so that one connection can't keep the others waiting.
const READS_MAX: usize = 4;

/// Lines of one read that are carried out in one turn, for the same.
const LINES_MAX: usize = 64;

/// What these may add to its own outbox.
const REPLIES_BYTES_MAX: usize = 4 * 1024;

/// How long the last words may take.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a WebSocket's close waits for the peer's.
const PARTING_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a peer may talk after the last words.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

impl ConnectionTask {
    /// Takes over an accepted socket; `is_http` tells which listener it came from.
    pub fn new(driver: Rc<Driver>, socket: Async<TcpStream>, is_http: bool) -> Self {
        let id = driver.enter(socket, is_http);
        ConnectionTask { driver, id }
    }

    /// Serves a connection of plain lines until it has ended.
    pub async fn serve(self) {
        self.start().await;
        // An error is a socket that is broken: nobody is there.
        let _ = self.talk(&mut LineDecoder::default()).await;
    }

    /// Its task can be woken from now on.
    pub(super) async fn start(&self) {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        self.driver.with(self.id, |socket| socket.waker = waker);
    }

    /// Carries out what is said until the node has ended the connection, and closes.
    pub(super) async fn talk(&self, wire: &mut impl Wire) -> io::Result<()> {
        // Behind a handshake something may have been read already.
        let mut paused = self.hear(wire, &[]);
        loop {
            match self.ready(wire, paused.is_some()).await? {
                Ready::Turn(Turn::Drain) => self.refuse_the_rest(wire, paused.take()),
                // What is short is boxed, so that a connection at rest is small.
                Ready::Turn(Turn::Close(ending)) => return Box::pin(self.end(wire, Some(ending))).await,
                Ready::Turn(Turn::Gone) => return Ok(()),
                Ready::Turn(Turn::Ping) => {
                    wire.ping();
                    self.driver.step(|node, _| node.pinged(self.id));
                    // It may have been woken for this, too.
                    paused = paused.and_then(|paused| self.resume(wire, paused));
                }
                Ready::Turn(_) => paused = paused.and_then(|paused| self.resume(wire, paused)),
                Ready::Read => paused = self.read(wire)?,
                Ready::Write if self.write(wire, None)? == Left::More => yield_now().await,
                Ready::Write => {}
            }
        }
    }

    /// Waits until there is something to do. With input that is paused, that is whenever the task is woken.
    // No `async fn`: a connection at rest is in here, and that would hold everything twice.
    pub(super) fn ready(&self, wire: &impl Wire, is_paused: bool) -> impl Future<Output = io::Result<Ready>> {
        let mut was_woken = false;
        poll_fn(move |context| {
            let mut node = self.driver.node.borrow_mut();
            let (turn, is_blocked) = (node.turn(self.id), node.is_blocked(self.id));
            let has_frames = !is_blocked && wire.has_frames(node.outbox(self.id));
            drop(node);
            let is_due = is_paused && std::mem::replace(&mut was_woken, true);
            if is_due || !matches!(turn, Turn::Read | Turn::Wait) {
                return Poll::Ready(Ok(Ready::Turn(turn)));
            }
            let reads = turn == Turn::Read && !is_paused && wire.takes_more();
            self.socket(|socket| {
                if has_frames || (is_blocked && socket.poll_writable(context)?.is_ready()) {
                    return Poll::Ready(Ok(Ready::Write));
                }
                if reads && socket.poll_readable(context)?.is_ready() {
                    return Poll::Ready(Ok(Ready::Read));
                }
                Poll::Pending
            })
        })
    }

    /// Reads, and carries out all lines of it, up to one that has to wait.
    fn read(&self, wire: &mut impl Wire) -> io::Result<Option<Box<Paused>>> {
        for _ in 0..READS_MAX {
            let mut paused = None;
            let is_all = match self.read_once(|input| paused = self.hear(wire, input))? {
                None => true,
                Some(0) => {
                    self.hear_rest(wire);
                    self.driver.step(|node, now| node.end(self.id, None, now));
                    true
                }
                // Less than there was room for is all there is.
                Some(count) => count < READ_BYTES_MAX,
            };
            if is_all || paused.is_some() || self.driver.node.borrow_mut().turn(self.id) != Turn::Read {
                return Ok(paused);
            }
        }
        Ok(None)
    }

    /// The peer says no more: what there is of a last line is answered.
    fn hear_rest(&self, wire: &mut impl Wire) {
        if let Some(line) = wire.rest() {
            // It may be read, so that no line has to wait.
            self.driver.step(|node, now| node.line(self.id, line, now));
        }
    }

    /// Reads once without waiting, and gives what there was to `take`. Returns how many bytes that were: 0 is the
    /// end, and `None` nothing for now.
    pub(super) fn read_once(&self, take: impl FnOnce(&[u8])) -> io::Result<Option<usize>> {
        let buffer = &mut self.driver.read_buffer.borrow_mut();
        match self.driver.read(self.id, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
            Ok(count) => {
                take(&buffer[..count]);
                Ok(Some(count))
            }
        }
    }

    /// Tries again what had to wait.
    fn resume(&self, wire: &mut impl Wire, paused: Box<Paused>) -> Option<Box<Paused>> {
        let line = (paused.kind)(&paused.line);
        match self.driver.step(|node, now| node.line(self.id, line, now)) {
            Flow::Wait => Some(paused),
            Flow::Next => self.hear(wire, &paused.rest),
        }
    }

    /// Carries out input, up to a line that has to wait, be it only for the next turn.
    fn hear(&self, wire: &mut impl Wire, input: &[u8]) -> Option<Box<Paused>> {
        let (mut lines, mut is_long) = (0, false);
        let paused = self.driver.step(|node, now| {
            let before = node.outbox(self.id).len();
            let hear = &mut |line: Line<'_>| {
                lines += 1;
                is_long = lines > LINES_MAX || node.outbox(self.id).len() > before + REPLIES_BYTES_MAX;
                // What the peer of a node that drains has said is refused at once.
                let waits = is_long && !node.is_draining();
                if waits { Flow::Wait } else { node.line(self.id, line, now) }
            };
            let paused = wire.hear(&self.driver, input, hear);
            if wire.is_closed() && paused.is_none() {
                node.end(self.id, None, now);
            }
            paused
        });
        if is_long {
            self.driver.with(self.id, |socket| socket.waker.wake_by_ref());
        }
        paused
    }

    /// The node drains: what the peer has said already is refused, not ignored.
    fn refuse_the_rest(&self, wire: &mut impl Wire, paused: Option<Box<Paused>>) {
        let mut paused = paused.and_then(|paused| self.resume(wire, paused));
        for _ in 0..READS_MAX {
            // What still has to wait comes before anything new, so nothing new is read.
            if paused.is_some() {
                break;
            }
            match self.read_once(|input| paused = self.hear(wire, input)) {
                Ok(Some(1..)) => {}
                Ok(Some(0)) => {
                    self.hear_rest(wire);
                    break;
                }
                _ => break,
            }
        }
        self.driver.step(|node, now| node.end(self.id, Some(CloseReason::Draining), now));
    }

    fn write(&self, wire: &mut impl Wire, ending: Option<CloseReason>) -> io::Result<Left> {
        self.driver.publish();
        self.driver.step(|node, now| wire.write(self, (node, now), ending))
    }

    /// Writes the last words, and closes in order.
    pub(super) async fn end(&self, wire: &mut impl Wire, ending: Option<CloseReason>) -> io::Result<()> {
        let late = async |time| {
            Timer::after(time).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let written = async {
            while self.write(wire, ending)? != Left::Nothing {
                poll_fn(|context| self.socket(|socket| socket.poll_writable(context))).await?;
            }
            Ok(())
        };
        written.or(late(FLUSH_TIME_MAX)).await?;
        if !wire.has_parted(&[]) {
            let parted = self.read_away(|input| wire.has_parted(input));
            // Who does not say goodbye in time is not waited for.
            let _ = parted.or(late(PARTING_TIME_MAX)).await;
        }
        self.socket(|socket| socket.get_ref().shutdown(Shutdown::Write))?;
        self.read_away(|_| false).or(late(LINGER_TIME_MAX)).await
    }

    /// Reads until `is_enough`, or to the end.
    async fn read_away(&self, mut is_enough: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut is_over = false;
        while !is_over && self.read_once(|input| is_over = is_enough(input))? != Some(0) {
            if !is_over {
                poll_fn(|context| self.socket(|socket| socket.poll_readable(context))).await?;
            }
        }
        Ok(())
    }

    fn socket<T>(&self, act: impl FnOnce(&Async<TcpStream>) -> T) -> T {
        self.driver
            .with(self.id, |socket| act(&socket.stream))
            .expect("a socket stays while its connection does")
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("a connection ended by a panic");
            self.driver.step(|node, _| node.counters().panics += 1);
        }
        self.driver.leave(self.id);
    }
}

impl Wire for LineDecoder {
    fn hear(&mut self, driver: &Driver, mut input: &[u8], hear: Hear<'_>) -> Option<Box<Paused>> {
        while !input.is_empty() {
            let (used, line) = self.next(input, driver.line_bytes_max);
            input = &input[used..];
            if let Some(line) = line
                && hear(line) == Flow::Wait
            {
                return Some(Paused::new(line, input));
            }
        }
        None
    }

    fn rest(&mut self) -> Option<Line<'_>> {
        LineDecoder::rest(self)
    }

    fn write(
        &mut self,
        to: &ConnectionTask,
        (node, now): (&mut Node, Instant),
        _: Option<CloseReason>,
    ) -> io::Result<Left> {
        to.driver.write_lines(to.id, node, now)
    }
}

impl Paused {
    /// Copies a line, and what was read behind it.
    pub fn new(line: Line<'_>, rest: &[u8]) -> Box<Self> {
        let (kind, bytes): (fn(&[u8]) -> Line<'_>, _) = match line {
            Line::Whole(bytes) => (|bytes| Line::Whole(bytes), bytes),
            Line::TooLong(bytes) => (|bytes| Line::TooLong(bytes), bytes),
            Line::Cut(bytes) => (|bytes| Line::Cut(bytes), bytes),
            Line::Foreign(bytes) => (|bytes| Line::Foreign(bytes), bytes),
            Line::Telnet(bytes) => (|bytes| Line::Telnet(bytes), bytes),
        };
        Box::new(Paused { kind, line: bytes.into(), rest: rest.into() })
    }
}
