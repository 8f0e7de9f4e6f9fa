//! One connection, one task: a hand-written future over one socket.
//!
//! It waits for readiness before it reads, reads into a buffer of the thread,
//! carries out all lines of that read, and leaves writing to the flush at the
//! end of the turn. Only when its own socket blocks does it write itself. An
//! idle connection holds no buffer and no timer.
//!
//! Reading order: `Connection::poll` and its phases, then `talk` (what a line
//! does), `held` (lines that wait), `ws` and `http` (how lines come out of a WebSocket).

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
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use smol::{Async, Timer};

use crate::conn::held::HeldLine;
use crate::conn::http::Head;
use crate::conn::phase::{End, Phase};
use crate::conn::talk::{Stop, Talk};
use crate::conn::ws::FrameDecoder;
use crate::outbox::{Await, Framing, Outbox, Sink};
use crate::proto::{CloseReason, Line, LineDecoder};
use crate::router::{Router, Turn};

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
}

/// The socket of a connection, as its outbox sees it.
pub struct Socket(Async<TcpStream>);

/// One connection. Dropping it takes back all that it registered.
pub struct Connection {
    outbox: Arc<Outbox<Socket>>,
    talk: Talk,
    decoder: Decoder,
    phase: Phase,
    /// Input that was read and can't be carried out yet.
    paused: Option<Box<Paused>>,
    timer: Option<Box<Alarm>>,
    /// The connection's place in the roll.
    place: usize,
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

struct Alarm {
    at: Instant,
    timer: Timer,
}

/// What a thread keeps for whichever of its connections has a turn.
struct Scratch {
    buffer: Box<[u8]>,
    turn: Turn,
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
    /// Takes over an accepted socket; `is_http` tells which listener it came
    /// from. The future ends when the connection has ended.
    pub fn new(shared: Arc<Shared>, socket: Async<TcpStream>, is_http: bool) -> Self {
        let metrics = shared.router.metrics();
        metrics.connections.enter();
        metrics.accepted.add();
        let outbox = Outbox::new(Socket(socket), Framing::Lines, shared.outbox_bytes_max, metrics);
        let outbox = Arc::new(outbox);
        let place = shared.roll.enter(outbox.clone());
        let decoder =
            if is_http { Decoder::Http(Vec::new()) } else { Decoder::Lines(LineDecoder::default()) };
        let talk = Talk::new(shared, outbox.clone());
        let phase = Phase::Arriving;
        Connection { outbox, talk, decoder, phase, paused: None, timer: None, place }
    }

    /// Does all that can be done now.
    fn advance(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let mut reads = 0;
        loop {
            if !self.write(context, &mut scratch.turn) {
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
                ready!(self.poll_alarm(context, scratch.turn.now));
                scratch.turn.now = Instant::now();
            }
        }
    }

    /// Writes what is left from a flush that blocked; `false` when the socket is broken.
    fn write(&mut self, context: &mut Context<'_>, turn: &mut Turn) -> bool {
        while self.outbox.blocked().is_some() && self.socket().poll_writable(context).is_ready() {
            self.talk.shared.router.flush(&*self.outbox, turn);
        }
        if self.phase.is_open() && self.stalls_at().is_some_and(|at| at <= turn.now) {
            self.outbox.close(CloseReason::Slow);
        }
        !self.outbox.is_broken()
    }

    /// When a socket that blocks makes its connection a slow consumer.
    fn stalls_at(&self) -> Option<Instant> {
        let (since, is_full) = self.outbox.blocked()?;
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
        if let Some(reason) = self.outbox.closing() {
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
        let waits = !self.outbox.takes_requests() && self.outbox.await_for(Await::Room);
        if self.talk.hears_no_more() {
            return Poll::Pending;
        }
        if waits {
            // Those who wait for each other's acknowledgements would wait for ever.
            let has_to_wait = self.paused.as_ref().is_some_and(|paused| paused.line.is_some());
            if has_to_wait || !self.outbox.takes_acks() {
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
        if self.socket().poll_readable(context).is_pending() {
            return Poll::Pending;
        }
        *reads += 1;
        match self.socket().get_ref().read(&mut scratch.buffer) {
            Ok(0) => return self.stop(Stop::End(End::Eof), vec![], &mut scratch.turn),
            Ok(count) => {
                return self.feed(&mut scratch.buffer[..count], context.waker(), &mut scratch.turn);
            }
            Err(error) if is_retry(&error) => {}
            Err(_) => self.phase = Phase::Over,
        }
        Poll::Ready(())
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
                    self.outbox.set_framing(Framing::WebSocket);
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
                if self.outbox.takes_requests() || self.outbox.await_for(Await::Room) {
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
            match self.socket().get_ref().read(&mut scratch.buffer) {
                Ok(count) if count > 0 => {
                    let _ = self.feed(&mut scratch.buffer[..count], waker, &mut scratch.turn);
                }
                _ => return,
            }
        }
    }

    fn socket(&self) -> &Async<TcpStream> {
        &self.outbox.sink().0
    }

    /// Waits for the next deadline, if there is one; ready when it has come.
    fn poll_alarm(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<()> {
        // Once it closes, a stall changes nothing: a deadline that has come must always lead on.
        let is_watched = self.phase.is_open() && self.outbox.closing().is_none();
        let stalled = self.stalls_at().filter(|_| is_watched);
        let Some(at) = self.phase.deadline().into_iter().chain(stalled).min() else {
            self.timer = None;
            return Poll::Pending;
        };
        if at <= now {
            return Poll::Ready(());
        }
        if self.timer.as_ref().is_none_or(|alarm| alarm.at != at) {
            self.timer = Some(Box::new(Alarm { at, timer: Timer::at(at) }));
        }
        let alarm = self.timer.as_mut().expect("set just now");
        Pin::new(&mut alarm.timer).poll(context).map(|_| self.timer = None)
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.turn.now = Instant::now();
            this.outbox.set_owner(context.waker());
            let step = this.advance(context, scratch);
            this.talk.shared.router.end(&mut scratch.turn);
            step
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.talk.shared.roll.leave(self.place);
        let mut turn = Turn::default();
        self.talk.leave(&mut turn);
        // Questions in flight may hold the outbox, and its socket, a while longer: the peer is told now.
        let _ = self.socket().get_ref().shutdown(Shutdown::Both);
        self.talk.give_back(self.outbox.abandon(), &mut turn);
        self.talk.shared.router.end(&mut turn);
        self.talk.shared.router.metrics().connections.leave();
    }
}

impl Sink for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_ref().write(bytes)
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

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
