//! The background task: it owns the socket and the requests without a reply.
//!
//! On one connection three futures run side by side: reading, writing, and
//! waiting for the stop; the first to end decides what happens next. Between
//! connections everything that waits can be stopped too. A request's answer is a
//! channel: dropping it says "lost", so no way out of here forgets one.
//!
//! The writer takes acknowledgements first, then what is to be said again, then what
//! is new: so requests keep their order over a broken connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_net::TcpStream;
use smol::channel::{TryRecvError, TrySendError};
use smol::future;
use smol::io::AsyncWriteExt;

use crate::client::core::Ends;
use crate::client::error::{ClientError, Refusal, SendError};
use crate::client::event::Event;
use crate::client::outstanding::{Outstanding, Reply, Unanswered};
use crate::client::request::Errand;
use crate::client::wire::{Lines, OPEN_TIME_MAX, Servers, Wire};
use crate::pause::Pauses;
use crate::proto::{CloseReason, MessageId, ServerLine, UserName};
use crate::random::random_number;

/// The state of one client, whatever the connection.
pub(super) struct Task {
    servers: Servers,
    ends: Ends,
    /// Written to the socket, or about to be, and not answered yet.
    outstanding: Mutex<Outstanding>,
    /// Set when the stop came while connected: whatever ends the connection then
    /// ends the task.
    stopping: AtomicBool,
}

impl Task {
    pub(super) fn new(servers: Servers, ends: Ends) -> Self {
        Task { servers, ends, outstanding: Mutex::default(), stopping: AtomicBool::new(false) }
    }

    /// Runs from the first connection until the client ends.
    pub(super) async fn run(self, wire: Wire) {
        let mut untold = VecDeque::new();
        let refusal = self.stay_connected(wire, &mut untold).await;
        self.end_outstanding();
        self.ends.errands.close();
        while let Ok(errand) = self.ends.errands.try_recv() {
            if let Errand::Request { pending, .. } = errand {
                pending.fail(SendError::Closed);
            }
        }
        self.ends.done.close();
        // Nobody waits for this task any more: it may wait for the program to make room.
        untold.extend(refusal.map(Event::Closed));
        for event in untold {
            // An error means that the program dropped its `Incoming`.
            let _ = self.ends.events.send(event).await;
        }
    }

    /// Ends with the refusal that forbids another attempt, or with none when stopped.
    async fn stay_connected(&self, mut wire: Wire, untold: &mut VecDeque<Event>) -> Option<Refusal> {
        let mut pauses = Pauses::new(PAUSE_TIME_MAX);
        loop {
            let (connected, server) = (Instant::now(), wire.server);
            self.ends.received.connected();
            let ending = self.serve(wire, untold).await;
            self.ends.received.disconnected();
            let reason = match ending {
                WireEnd::Stopped => return None,
                WireEnd::Refused(refusal) if refusal.is_final() => return Some(refusal),
                WireEnd::Refused(refusal) => refusal.to_string(),
                WireEnd::Lost(reason) => reason,
                WireEnd::Stalled => {
                    // The program may be waiting for one of them, and would only do so again.
                    self.end_outstanding();
                    "the program did not take what came in".to_owned()
                }
            };
            let given_up = self.lock_outstanding().interrupt(Instant::now());
            given_up.into_iter().for_each(Unanswered::give_up);
            pauses.held(connected.elapsed());
            self.note(Event::Lost { reason }, untold);
            let found = future::or(self.reconnect(server, &mut pauses), self.give_up_in_time());
            wire = match self.unless_stopped(found).await? {
                Ok(wire) => wire,
                Err(refusal) => return Some(refusal),
            };
            let place = wire.place.clone();
            *self.ends.place.lock().expect("nothing panics with the place locked") = place.clone();
            let found = Event::Found { node: place.node, session: place.session };
            self.note(found, untold);
        }
    }

    /// Tries one server after the other, beginning behind the one that was lost, and
    /// pauses before each round.
    async fn reconnect(&self, lost: usize, pauses: &mut Pauses) -> Result<Wire, Refusal> {
        loop {
            smol::Timer::after(pauses.next(random_number())).await;
            match Wire::open_one(&self.servers, lost + 1, OPEN_TIME_MAX).await {
                Ok(wire) => return Ok(wire),
                Err(ClientError::Refused(refusal)) if refusal.is_final() => return Err(refusal),
                // Anything else may pass: the program knows that the connection is lost.
                Err(_) => {}
            }
        }
    }

    /// Tells the callers whose requests can't be said again any more. For the time
    /// without a connection; never ends.
    async fn give_up_in_time<T>(&self) -> T {
        loop {
            let Some(end) = self.lock_outstanding().next_end() else { return future::pending().await };
            smol::Timer::at(end).await;
            let given_up = self.lock_outstanding().give_up(Instant::now());
            given_up.into_iter().for_each(Unanswered::give_up);
        }
    }

    /// Tells all callers whose requests went out that there will be no other answer.
    fn end_outstanding(&self) {
        let ended = self.lock_outstanding().end();
        ended.into_iter().for_each(Unanswered::give_up);
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            let _ = self.ends.stop.recv().await;
            None
        };
        future::or(stopped, async { Some(work.await) }).await
    }

    /// Uses one connection until it ends.
    async fn serve(&self, wire: Wire, untold: &mut VecDeque<Event>) -> WireEnd {
        let Wire { stream, mut lines, .. } = wire;
        let ending =
            future::or(self.read(&mut lines, untold), future::or(self.write(stream), self.stop())).await;
        match self.stopping.load(Ordering::Relaxed) {
            true => WireEnd::Stopped,
            false => ending,
        }
    }

    /// Waits for the stop; then the writer comes to its end, and the server has a
    /// while to say `BYE`.
    async fn stop(&self) -> WireEnd {
        let _ = self.ends.stop.recv().await;
        self.stopping.store(true, Ordering::Relaxed);
        self.ends.errands.close();
        smol::Timer::after(BYE_TIME_MAX).await;
        WireEnd::Stopped
    }

    async fn write(&self, mut stream: TcpStream) -> WireEnd {
        let mut out = Vec::new();
        let mut last = false;
        while !last {
            last = self.gather(&mut out);
            if out.is_empty() {
                self.wait_for_work(&mut out).await;
                continue;
            }
            if let Err(error) = stream.write_all(&out).await {
                // What the server said last may still be unread, and tells more than this.
                smol::Timer::after(LAST_WORDS_TIME_MAX).await;
                return WireEnd::Lost(error.to_string());
            }
            out.clear();
            out.shrink_to(WRITE_BYTES);
        }
        future::pending().await
    }

    /// Appends what there is to write now, up to a bound; true when it is the last.
    fn gather(&self, out: &mut Vec<u8>) -> bool {
        self.ends.received.take_acks(out);
        let given_up = self.lock_outstanding().repeat(Instant::now(), out, WRITE_BYTES);
        given_up.into_iter().for_each(Unanswered::give_up);
        // Nothing new goes out while there is more to be said again: then `out` is full.
        while out.len() < WRITE_BYTES {
            match self.ends.errands.try_recv() {
                Ok(errand) => self.take(errand, out),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Closed) => {
                    // Once more: what was acknowledged before the stop is in there by now.
                    self.ends.received.take_acks(out);
                    out.extend_from_slice(b"QUIT\n");
                    return true;
                }
            }
        }
        false
    }

    /// Waits until there may be something to gather; takes the line it waited for.
    async fn wait_for_work(&self, out: &mut Vec<u8>) {
        let repeat = self.lock_outstanding().next_repeat();
        let errand = async { self.ends.errands.recv().await.ok() };
        let woken = async {
            let _ = self.ends.woken.recv().await;
            None
        };
        let due = async {
            match repeat {
                Some(repeat) => drop(smol::Timer::at(repeat).await),
                None => future::pending().await,
            }
            None
        };
        if let Some(errand) = future::or(errand, future::or(woken, due)).await {
            self.take(errand, out);
        }
    }

    /// Appends a line, and remembers the request.
    fn take(&self, errand: Errand, out: &mut Vec<u8>) {
        match errand {
            Errand::Cast(line) => out.extend_from_slice(&line),
            // Nobody waits for it any more, and nothing of it has been said yet.
            Errand::Request { pending, .. } if !pending.is_wanted() => {}
            Errand::Request { tag, pending, line } => {
                out.extend_from_slice(&line);
                self.lock_outstanding().add(tag, line, pending, Instant::now());
            }
        }
    }

    /// Reads line after line, each one only when what came before it was told.
    async fn read(&self, lines: &mut Lines, untold: &mut VecDeque<Event>) -> WireEnd {
        loop {
            if !self.tell(untold).await {
                return WireEnd::Stalled;
            }
            match lines.next().await.map(|line| self.understand(line)) {
                Ok(Ok(event)) => untold.extend(event.filter(|event| self.ends.received.is_news(event))),
                Ok(Err(end)) => return end,
                Err(error) => return WireEnd::Lost(error.to_string()),
            }
        }
    }

    /// Waits until the program has room, so that a program that doesn't read is not
    /// read for. Gives up, and returns false, when that would never end: the program
    /// may be waiting for a reply which stands behind what it does not take.
    async fn tell(&self, untold: &mut VecDeque<Event>) -> bool {
        while !self.tell_what_fits(untold) {
            // A copy, so that the event is still there when this future is dropped.
            let event = untold[0].clone();
            let told = async {
                let _ = self.ends.events.send(event).await;
                true
            };
            let stalled = async {
                smol::Timer::after(STALL_TIME_MAX).await;
                false
            };
            if future::or(told, stalled).await {
                untold.pop_front();
            } else if !self.lock_outstanding().is_empty() {
                return false;
            }
        }
        true
    }

    /// Tells without waiting; true when nothing is left.
    fn tell_what_fits(&self, untold: &mut VecDeque<Event>) -> bool {
        while let Some(event) = untold.pop_front() {
            // Closed means that the program dropped its `Incoming`: it wants none of this.
            if let Err(TrySendError::Full(event)) = self.ends.events.try_send(event) {
                untold.push_front(event);
                return false;
            }
        }
        true
    }

    /// Notes news of the connection without waiting: getting it back does not depend
    /// on the program. What does not fit is told before anything that the next
    /// connection brings; of several losses only the first loss and the last return.
    fn note(&self, event: Event, untold: &mut VecDeque<Event>) {
        match untold.back() {
            Some(Event::Found { .. }) => drop(untold.pop_back()),
            _ => untold.push_back(event),
        }
        self.tell_what_fits(untold);
    }

    /// Answers the request that a line is the reply to, or gives what else it tells the
    /// program; an error when the connection is of no more use.
    fn understand(&self, line: &str) -> Result<Option<Event>, WireEnd> {
        Ok(match ServerLine::parse(line) {
            Some((Some(tag), line)) if self.answer(tag.as_str(), line) => None,
            Some((None, ServerLine::Msg { from, room, id, text })) => Some(Event::Message {
                from: from.into(),
                room: room.map(UserName::from),
                id: MessageId::from(id),
                text: text.to_owned(),
            }),
            Some((None, ServerLine::Err { code, text })) => {
                Some(Event::Refused { code, text: text.to_owned() })
            }
            Some((None, ServerLine::Bye { reason: CloseReason::Quit, .. })) => {
                return Err(WireEnd::Lost("the server said BYE quit".to_owned()));
            }
            Some((None, ServerLine::Bye { reason, text })) => {
                return Err(WireEnd::Refused(Refusal::Bye { reason, text: text.to_owned() }));
            }
            // News of watches, which this client never asks for, and help for people.
            Some((None, ServerLine::Up { .. } | ServerLine::Down(_) | ServerLine::Info(_))) => None,
            // A peer that breaks the protocol may have answered anything: start afresh with it.
            _ => {
                let start: String = line.chars().take(60).collect();
                let reason = format!("the server said what is no line of this protocol: {start:?}");
                return Err(WireEnd::Lost(reason));
            }
        })
    }

    /// Gives a reply to whoever waits for it, or has its request said again; false when
    /// it is no reply to anything.
    fn answer(&self, tag: &str, line: ServerLine<'_>) -> bool {
        let reply = self.lock_outstanding().reply(tag, line, Instant::now());
        match reply {
            Reply::Final(pending) => pending.give(line),
            Reply::Again => {
                // Full: the writer has not heard the last one yet.
                let _ = self.ends.wake.try_send(());
                true
            }
            Reply::Unknowable(request) => {
                request.give_up();
                true
            }
            Reply::Unknown => false,
        }
    }

    fn lock_outstanding(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().expect("nothing panics with the requests locked")
    }
}

/// How a connection ended.
enum WireEnd {
    Stopped,
    Refused(Refusal),
    Lost(String),
    /// The program takes nothing, and waits for a reply that stands behind it.
    Stalled,
}

/// What is gathered for one write, at most, and one line more.
const WRITE_BYTES: usize = 64 * 1024;
/// The longest pause between attempts to connect.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the queued lines, the `QUIT` and its `BYE` may take.
const BYE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the reader may go on after a write failed.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the program may take none of what comes in while it waits for a reply.
const STALL_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
