//! One connection, one task: a hand-written future over one socket.
//!
//! It waits for readiness before it reads, reads into a buffer of the thread,
//! carries out all lines of that read, and leaves writing to the flush at the
//! end of the turn. Only when its own socket blocks does it write itself. An
//! idle connection holds no buffer and no timer.
//!
//! Reading order: `Connection::poll` and its phases, then `talk` (what a line
//! does), `held` (lines that wait), `ws` and `http` (how lines come out of a WebSocket).

mod alarms;
mod held;
#[cfg_attr(not(feature = "websocket"), path = "conn/no_http.rs")]
mod http;
mod phase;
mod roll;
mod talk;
#[cfg_attr(not(feature = "websocket"), path = "conn/no_ws.rs")]
mod ws;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::conn::held::HeldLine;
use crate::conn::http::Head;
use crate::conn::phase::{End, Phase};
use crate::conn::talk::{Stop, Talk};
use crate::conn::ws::FrameDecoder;
use crate::outbox::{Await, Framing, Outbox, Socket};
use crate::proto::{CloseReason, Line, LineDecoder};
use crate::readiness::{HUNG, READABLE, Readiness, WRITABLE};
use crate::router::{Router, Turn};

pub use alarms::Alarms;
pub use roll::Roll;

/// What all connections of a node share.
pub struct Shared {
    /// The node's router.
    pub router: Arc<Router>,
    /// The longest request line, LF included.
    pub line_bytes_max: usize,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// How long a connection may take to log in.
    pub login_time_max: Duration,
    /// Every connection there is.
    pub roll: Roll,
    /// When connections have to act by themselves.
    pub alarms: Alarms,
    /// Tells when sockets are ready, each by its connection's place in the roll.
    pub readiness: Readiness,
}

/// One connection. Dropping it takes back all that it registered.
pub struct Connection {
    talk: Talk,
    decoder: Decoder,
    phase: Phase,
    /// Input that was read and can't be carried out yet.
    paused: Option<Box<Paused>>,
    /// The connection's place in the roll.
    place: usize,
    /// Its deadline among the alarms.
    alarm: Option<Instant>,
}

/// What came in.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A line.
    Line(Line<'a>),
    /// A WebSocket ping.
    Ping(&'a [u8]),
    /// A WebSocket close frame, with its code.
    Close(Option<u16>),
    /// The peer broke the WebSocket protocol, or sent what is not taken: close with this code.
    Broken(u16),
}

/// How bytes become lines.
enum Decoder {
    Lines(LineDecoder),
    /// An HTTP head in progress.
    Http(Vec<u8>),
    WebSocket(Box<FrameDecoder>),
}

struct Paused {
    /// A line that has to wait, the first of all.
    line: Option<HeldLine>,
    /// What was read behind it.
    unread: Vec<u8>,
}

/// What a thread keeps for whichever of its connections has a turn.
struct Scratch {
    buffer: Box<[u8]>,
    turn: Turn,
}

/// One step of a connection. With it ends its turn, also by a panic: what it pushed to will be written,
/// and nothing of it is left to the next connection of the thread.
struct Step<'a> {
    connection: &'a mut Connection,
    scratch: &'a mut Scratch,
}

/// Bytes of one read. A sender that has to wait keeps at most this much unread.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Reads of one turn, so that one connection can't keep the others waiting.
const READS_MAX: usize = 4;

/// An outbox that made no progress for so long belongs to a slow consumer.
pub const STALL_TIME_MAX: Duration = Duration::from_millis(5_000);

/// The same for an outbox that is full: senders wait for it.
pub const FULL_STALL_TIME_MAX: Duration = Duration::from_millis(1_000);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        buffer: vec![0; READ_BYTES_MAX].into(),
        turn: Turn::default(),
    });
}

impl Connection {
    /// Takes over an accepted socket, which must not block; `is_http` tells which listener it came
    /// from. The future ends when the connection has ended.
    ///
    /// # Errors
    /// When the system can't watch one more socket.
    pub fn new(shared: Arc<Shared>, socket: TcpStream, is_http: bool) -> io::Result<Self> {
        let metrics = shared.router.metrics();
        metrics.connections.enter();
        metrics.accepted.add();
        let outbox = Outbox::new(Socket(socket), Framing::Lines, shared.outbox_bytes_max, metrics);
        let outbox = Arc::new(outbox);
        let place = shared.roll.enter(outbox.clone());
        let decoder =
            if is_http { Decoder::Http(Vec::new()) } else { Decoder::Lines(LineDecoder::default()) };
        let talk = Talk::new(shared, outbox);
        let phase = Phase::Arriving;
        let connection = Connection { talk, decoder, phase, paused: None, place, alarm: None };
        connection.talk.shared.readiness.watch(&connection.socket().0, place)?;
        Ok(connection)
    }

    /// Does all that can be done now.
    fn advance(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let mut reads = 0;
        loop {
            if !self.write(&mut scratch.turn) {
                return Poll::Ready(());
            }
            let step = match self.phase {
                Phase::Arriving => self.arrive(&mut scratch.turn),
                Phase::Open { .. } => self.open(context, scratch, &mut reads),
                Phase::Entering(..) => self.entering(context, &mut scratch.turn),
                Phase::Finishing(..) => self.finishing(&mut scratch.turn),
                Phase::Flushing(_) => self.flushing(scratch.turn.now),
                Phase::Lingering(_) => self.lingering(context, scratch),
                Phase::Over => return Poll::Ready(()),
            };
            if step.is_pending() {
                // A deadline that has come sends us round again.
                if self.see_to_deadline(scratch.turn.now) {
                    continue;
                }
                return Poll::Pending;
            }
        }
    }

    /// Writes what is left from a flush that blocked; `false` when the socket is broken.
    fn write(&mut self, turn: &mut Turn) -> bool {
        while self.talk.outbox.blocked().is_some() && self.talk.outbox.take_ready(WRITABLE) != 0 {
            self.talk.shared.router.flush(&self.talk.outbox, turn);
        }
        if self.phase.is_open() && self.stalls_at().is_some_and(|at| at <= turn.now) {
            self.talk.outbox.close(CloseReason::Slow);
        }
        !self.talk.outbox.is_broken()
    }

    /// When a socket that blocks makes its connection a slow consumer.
    fn stalls_at(&self) -> Option<Instant> {
        let (since, is_full) = self.talk.outbox.blocked()?;
        Some(since + if is_full { FULL_STALL_TIME_MAX } else { STALL_TIME_MAX })
    }

    /// Says hello on a socket that needs no handshake first.
    fn arrive(&mut self, turn: &mut Turn) -> Poll<()> {
        if let Decoder::Lines(_) = self.decoder {
            self.talk.greet(turn);
        }
        self.phase = Phase::Open { login_by: Some(turn.now + self.talk.shared.login_time_max) };
        Poll::Ready(())
    }

    /// Reads and carries out requests.
    fn open(&mut self, context: &mut Context<'_>, scratch: &mut Scratch, reads: &mut usize) -> Poll<()> {
        if let Some(reason) = self.talk.outbox.closing() {
            if reason == CloseReason::Draining {
                self.refuse_the_rest(context, scratch);
            }
            if !matches!(self.phase, Phase::Open { .. }) {
                // The rest held a reason of its own to end.
                return Poll::Ready(());
            }
            self.end(End::Closed(reason), &mut scratch.turn);
            return Poll::Ready(());
        }
        if let Phase::Open { login_by: Some(login_by) } = self.phase
            && login_by <= scratch.turn.now
        {
            self.end(End::Closed(CloseReason::Idle), &mut scratch.turn);
            return Poll::Ready(());
        }
        if let ControlFlow::Break(stop) = self.talk.go_on(context.waker(), &mut scratch.turn) {
            return self.stop(stop, vec![], &mut scratch.turn);
        }
        let waits = !self.talk.outbox.takes_requests() && self.talk.outbox.await_for(Await::Room);
        if self.talk.hears_no_more() {
            return Poll::Pending;
        }
        if waits {
            // Those who wait for each other's acknowledgements would wait for ever.
            let has_to_wait = self.paused.as_ref().is_some_and(|paused| paused.line.is_some());
            if has_to_wait || !self.talk.outbox.takes_acks() {
                return Poll::Pending;
            }
        }
        if let Some(paused) = self.paused.take() {
            return self.resume(*paused, context.waker(), &mut scratch.turn);
        }
        if *reads == READS_MAX {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        *reads += 1;
        match self.read(&mut scratch.buffer) {
            None => return Poll::Pending,
            Some(Ok(0)) => return self.stop(Stop::End(End::Eof), vec![], &mut scratch.turn),
            Some(Ok(count)) => {
                scratch.turn.forget_places();
                return self.feed(&mut scratch.buffer[..count], context.waker(), &mut scratch.turn);
            }
            Some(Err(_)) => self.phase = Phase::Over,
        }
        Poll::Ready(())
    }

    /// Reads once, if there may be something: `None` until the socket is readable again.
    fn read(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let ready = self.talk.outbox.take_ready(READABLE | HUNG);
        if ready == 0 {
            return None;
        }
        match self.socket().try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(count) => {
                // Less than there was room for is all there is, unless the end comes behind it.
                let more = if count == buffer.len() { ready } else { ready & HUNG };
                self.talk.outbox.put_ready(more);
                Some(Ok(count))
            }
            error => Some(error),
        }
    }

    /// Goes on with input that had to wait; pending when it still has to.
    fn resume(&mut self, paused: Paused, waker: &Waker, turn: &mut Turn) -> Poll<()> {
        let Paused { line, mut unread } = paused;
        if let Some(line) = line
            && let ControlFlow::Break(stop) = self.talk.hear(Heard::Line(line.line()), waker, turn)
        {
            return self.stop(stop, unread, turn);
        }
        self.feed(&mut unread, waker, turn)
    }

    /// Carries out input, up to where it has to stop; pending when it has to wait.
    fn feed(&mut self, mut input: &mut [u8], waker: &Waker, turn: &mut Turn) -> Poll<()> {
        if let Decoder::Http(head) = &mut self.decoder {
            let before = head.len();
            head.extend_from_slice(input);
            match http::read(head) {
                Head::Incomplete => return Poll::Ready(()),
                Head::Refuse(response) => {
                    self.talk.outbox.push_raw(&response, &mut turn.dirty);
                    self.end(End::Http, turn);
                    return Poll::Ready(());
                }
                Head::Upgrade(response, length) => {
                    self.talk.outbox.push_raw(&response, &mut turn.dirty);
                    self.talk.outbox.set_framing(Framing::WebSocket);
                    self.decoder = Decoder::WebSocket(Box::default());
                    self.talk.greet(turn);
                    input = &mut input[length - before..];
                }
            }
        }
        let line_bytes_max = self.talk.shared.line_bytes_max;
        let mut stop = None;
        let mut hear = |heard: Heard<'_>| match self.talk.hear(heard, waker, turn) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(why) => {
                stop = Some(why);
                ControlFlow::Break(())
            }
        };
        let used = match &mut self.decoder {
            Decoder::Lines(lines) => feed_lines(lines, input, line_bytes_max, hear),
            Decoder::WebSocket(frames) => frames.feed(input, line_bytes_max, &mut hear),
            Decoder::Http(_) => unreachable!("an upgraded connection is a WebSocket"),
        };
        match stop {
            None => Poll::Ready(()),
            Some(stop) => self.stop(stop, input[used..].to_vec(), turn),
        }
    }

    /// Does what a line that could not simply be answered asks for.
    fn stop(&mut self, stop: Stop, unread: Vec<u8>, turn: &mut Turn) -> Poll<()> {
        let mut line = None;
        let mut step = Poll::Ready(());
        match stop {
            Stop::Wait(waiting) => {
                line = Some(waiting);
                // It may wait for this connection's own replies.
                if self.talk.outbox.takes_requests() || self.talk.outbox.await_for(Await::Room) {
                    step = Poll::Pending;
                }
            }
            Stop::Full => {}
            Stop::Entered => self.phase = Phase::Open { login_by: None },
            Stop::Entering(mut entering) => {
                entering.login_by = self.phase.deadline();
                self.phase = Phase::Entering(Box::new(entering));
            }
            Stop::End(end) => {
                if let Some(end) = self.talk.end_behind(end) {
                    self.end(end, turn);
                }
                return Poll::Ready(());
            }
        }
        if line.is_some() || !unread.is_empty() {
            self.paused = Some(Box::new(Paused { line, unread }));
        }
        step
    }

    /// The node is draining: what the peer has said already is refused, not ignored.
    fn refuse_the_rest(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) {
        let waker = context.waker();
        if let ControlFlow::Break(stop) = self.talk.go_on(waker, &mut scratch.turn) {
            let _ = self.stop(stop, vec![], &mut scratch.turn);
        }
        for _ in 0..READS_MAX {
            if let Some(paused) = self.paused.take() {
                let _ = self.resume(*paused, waker, &mut scratch.turn);
            }
            // What still has to wait comes before anything new, so nothing new is read.
            if self.paused.is_some() || !matches!(self.phase, Phase::Open { .. }) {
                return;
            }
            match self.socket().try_read(&mut scratch.buffer) {
                Ok(count) if count > 0 => {
                    let _ = self.feed(&mut scratch.buffer[..count], waker, &mut scratch.turn);
                }
                _ => return,
            }
        }
    }

    fn socket(&self) -> &Socket {
        self.talk.outbox.sink()
    }

    /// Tells whether a deadline has come; if not, there is an alarm for the next one from now on.
    fn see_to_deadline(&mut self, now: Instant) -> bool {
        // Once it closes, a stall changes nothing: a deadline that has come must always lead on.
        let is_watched = self.phase.is_open() && self.talk.outbox.closing().is_none();
        let stalled = self.stalls_at().filter(|_| is_watched);
        let at = self.phase.deadline().into_iter().chain(stalled).min();
        let is_due = at.is_some_and(|at| at <= now);
        if !is_due && at != self.alarm {
            self.talk.shared.alarms.set(self.place, self.alarm, at);
            self.alarm = at;
        }
        is_due
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let connection = self.get_mut();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.turn.now = Instant::now();
            let step = Step { connection, scratch };
            step.connection.talk.outbox.set_owner(context.waker());
            step.connection.advance(context, step.scratch)
        })
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.connection.talk.shared.router.end(&mut self.scratch.turn);
    }
}

// What every connection costs: `docs/performance.md` computes with it, `tests/crowd.rs` measures all of it.
const _: () = assert!(size_of::<Connection>() <= 160 || usize::BITS < 64);
const _: () = assert!(size_of::<Outbox>() <= 112 || usize::BITS < 64);

impl Drop for Connection {
    fn drop(&mut self) {
        if self.alarm.is_some() {
            self.talk.shared.alarms.set(self.place, self.alarm, None);
        }
        self.talk.shared.roll.leave(self.place);
        let mut turn = Turn::default();
        self.talk.leave(&mut turn);
        // Questions in flight may hold the outbox, and its socket, a while longer: the peer is told now.
        let _ = self.socket().0.shutdown(Shutdown::Both);
        self.talk.give_back(self.talk.outbox.abandon(), &mut turn);
        self.talk.shared.router.end(&mut turn);
        self.talk.shared.router.metrics().connections.leave();
    }
}

fn feed_lines(
    lines: &mut LineDecoder,
    input: &[u8],
    line_bytes_max: usize,
    mut hear: impl FnMut(Heard<'_>) -> ControlFlow<()>,
) -> usize {
    let mut at = 0;
    while at < input.len() {
        let (used, line) = lines.next(&input[at..], line_bytes_max);
        at += used;
        if line.is_some_and(|line| hear(Heard::Line(line)).is_break()) {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests;
