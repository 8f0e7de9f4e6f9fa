//! The background task: it owns the socket and the requests without a reply.
//!
//! On one connection three futures run side by side: reading, writing, and
//! waiting for the stop; the first to end decides what happens next. Between
//! connections everything that waits can be stopped too. A request's answer is a
//! channel: dropping it says "lost", so no way out of here forgets one.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_net::TcpStream;
use smol::channel::{Receiver, Sender, TrySendError};
use smol::future;
use smol::io::AsyncWriteExt;

use crate::client::command::{Command, Pending};
use crate::client::connection::{Connection, Lines, Target};
use crate::client::error::{ClientError, Refusal, SendError};
use crate::client::{Event, OPEN_TIME_MAX, Place};
use crate::pause::{Pauses, random};
use crate::proto::{CloseReason, MessageId, ServerLine, Tag, UserName};

/// The state of one client, whatever the connection.
pub(super) struct Task {
    target: Target,
    tag_prefix: Arc<str>,
    commands: Receiver<Command>,
    /// A value, or the end of the channel: stop.
    stop: Receiver<()>,
    events: Sender<Event>,
    place: Arc<Mutex<Place>>,
    /// Written to the socket, or about to be, and not answered yet. Each holds one
    /// of the client's permits: they are the bound.
    pending: Mutex<HashMap<u64, Pending>>,
    /// Set when the stop came while connected: whatever ends the connection then
    /// ends the task.
    stopping: AtomicBool,
}

impl Task {
    pub(super) fn new(
        target: Target,
        tag_prefix: Arc<str>,
        commands: Receiver<Command>,
        stop: Receiver<()>,
        events: Sender<Event>,
        place: Arc<Mutex<Place>>,
    ) -> Self {
        let (pending, stopping) = (Mutex::default(), AtomicBool::new(false));
        Task { target, tag_prefix, commands, stop, events, place, pending, stopping }
    }

    /// Runs from the first connection until the client ends. `done` is dropped when
    /// every request has its answer.
    pub(super) async fn run(self, connection: Connection, done: Sender<Infallible>) {
        let mut untold = VecDeque::new();
        let refusal = self.stay_connected(connection, &mut untold).await;
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Request { pending, .. } = command {
                pending.answer.fail(SendError::Closed);
            }
        }
        drop(done);
        // Nobody waits for this task any more: it may wait for the program to make room.
        untold.extend(refusal.map(Event::Closed));
        for event in untold {
            // An error means that the program dropped its `Incoming`.
            let _ = self.events.send(event).await;
        }
    }

    /// Ends with the refusal that forbids another attempt, or with none when stopped.
    async fn stay_connected(
        &self,
        mut connection: Connection,
        untold: &mut VecDeque<Event>,
    ) -> Option<Refusal> {
        let mut pauses = Pauses::new(PAUSE_TIME_MAX);
        loop {
            let connected = Instant::now();
            let ending = self.serve(connection, untold).await;
            // Their answers are dropped with them: lost.
            self.lock_pending().clear();
            let reason = match ending {
                Ending::Stopped => return None,
                Ending::Refused(refusal) if refusal.is_final() => return Some(refusal),
                Ending::Refused(refusal) => refusal.to_string(),
                Ending::Lost(reason) => reason,
            };
            pauses.held(connected.elapsed());
            self.note(Event::Lost { reason }, untold);
            connection = match self.unless_stopped(self.reconnect(&mut pauses)).await? {
                Ok(connection) => connection,
                Err(refusal) => return Some(refusal),
            };
            let place = connection.place.clone();
            *self.place.lock().expect("nothing panics with the place locked") = place.clone();
            let found = Event::Found { node: place.node, session: place.session };
            self.note(found, untold);
        }
    }

    async fn reconnect(&self, pauses: &mut Pauses) -> Result<Connection, Refusal> {
        loop {
            smol::Timer::after(pauses.next(random())).await;
            match Connection::open(&self.target, OPEN_TIME_MAX).await {
                Ok(connection) => return Ok(connection),
                Err(ClientError::Refused(refusal)) if refusal.is_final() => return Err(refusal),
                // Anything else may pass: the program knows that the connection is lost.
                Err(_) => {}
            }
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            let _ = self.stop.recv().await;
            None
        };
        future::or(stopped, async { Some(work.await) }).await
    }

    /// Uses one connection until it ends.
    async fn serve(&self, connection: Connection, untold: &mut VecDeque<Event>) -> Ending {
        let Connection { stream, mut lines, .. } = connection;
        let ending =
            future::or(self.read(&mut lines, untold), future::or(self.write(stream), self.stop())).await;
        match self.stopping.load(Ordering::Relaxed) {
            true => Ending::Stopped,
            false => ending,
        }
    }

    /// Waits for the stop; then the writer comes to its end, and the server has a
    /// while to say `BYE`.
    async fn stop(&self) -> Ending {
        let _ = self.stop.recv().await;
        self.stopping.store(true, Ordering::Relaxed);
        self.commands.close();
        smol::Timer::after(BYE_TIME_MAX).await;
        Ending::Stopped
    }

    async fn write(&self, mut stream: TcpStream) -> Ending {
        let mut out = Vec::new();
        let mut last = false;
        while !last {
            match self.commands.recv().await {
                Ok(command) => self.take(command, &mut out),
                Err(_) => {
                    out.extend_from_slice(b"QUIT\n");
                    last = true;
                }
            }
            while out.len() < WRITE_BYTES
                && let Ok(command) = self.commands.try_recv()
            {
                self.take(command, &mut out);
            }
            if let Err(error) = stream.write_all(&out).await {
                // What the server said last may still be unread, and tells more than this.
                smol::Timer::after(LAST_WORDS_TIME_MAX).await;
                return Ending::Lost(error.to_string());
            }
            out.clear();
            out.shrink_to(WRITE_BYTES);
        }
        future::pending().await
    }

    /// Appends a command's line, and remembers the request.
    fn take(&self, command: Command, out: &mut Vec<u8>) {
        match command {
            Command::Line(line) => out.extend_from_slice(&line),
            // Nobody waits for it any more, and nothing of it has been said yet.
            Command::Request { pending, .. } if pending.answer.is_unwanted() => {}
            Command::Request { number, pending, line } => {
                self.lock_pending().insert(number, pending);
                out.extend_from_slice(&line);
            }
        }
    }

    /// Reads line after line, each one only when what came before it was told.
    async fn read(&self, lines: &mut Lines, untold: &mut VecDeque<Event>) -> Ending {
        loop {
            if !self.tell(untold).await {
                return Ending::Lost("the program did not take what came in".to_owned());
            }
            let heard = match lines.next().await {
                Ok(line) => self.understand(line),
                Err(error) => return Ending::Lost(error.to_string()),
            };
            match heard {
                Heard::Answer => {}
                Heard::Event(event) => untold.push_back(event),
                Heard::Ending(ending) => return ending,
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
                let _ = self.events.send(event).await;
                true
            };
            let stalled = async {
                smol::Timer::after(STALL_TIME_MAX).await;
                false
            };
            if future::or(told, stalled).await {
                untold.pop_front();
            } else if !self.lock_pending().is_empty() {
                return false;
            }
        }
        true
    }

    /// Tells without waiting; true when nothing is left.
    fn tell_what_fits(&self, untold: &mut VecDeque<Event>) -> bool {
        while let Some(event) = untold.pop_front() {
            // Closed means that the program dropped its `Incoming`: it wants none of this.
            if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
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

    /// Answers the request that a line is the reply to, or tells what else it is.
    fn understand(&self, line: &str) -> Heard {
        // A peer that breaks the protocol may have answered anything: start afresh with it.
        let strange = || {
            let start: String = line.chars().take(60).collect();
            Heard::Ending(Ending::Lost(format!(
                "the server said what is no line of this protocol: {start:?}"
            )))
        };
        match ServerLine::parse(line) {
            Some((Some(tag), line)) => match self.pending_of(tag).map(|pending| pending.answer.give(line)) {
                Some(true) => Heard::Answer,
                Some(false) | None => strange(),
            },
            Some((None, ServerLine::Msg { from, room, id, text })) => Heard::Event(Event::Message {
                from: from.into(),
                room: room.map(UserName::from),
                id: MessageId::Tag(id.as_str().into()),
                text: text.to_owned(),
            }),
            Some((None, ServerLine::Err { code, text })) => {
                Heard::Event(Event::Refused { code, text: text.to_owned() })
            }
            Some((None, ServerLine::Bye { reason: CloseReason::Quit, .. })) => {
                Heard::Ending(Ending::Lost("the server said BYE quit".to_owned()))
            }
            Some((None, ServerLine::Bye { reason, text })) => {
                Heard::Ending(Ending::Refused(Refusal::Bye { reason, text: text.to_owned() }))
            }
            // News of watches, which this client never asks for, and help for people.
            Some((None, ServerLine::Up { .. } | ServerLine::Down(_) | ServerLine::Info(_))) => Heard::Answer,
            Some((None, ServerLine::Ok(_) | ServerLine::Pong(_) | ServerLine::Hello { .. })) | None => {
                strange()
            }
        }
    }

    /// Takes out the request of a tag.
    fn pending_of(&self, tag: Tag<'_>) -> Option<Pending> {
        let number = tag.as_str().strip_prefix(&*self.tag_prefix)?.parse().ok()?;
        self.lock_pending().remove(&number)
    }

    fn lock_pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().expect("nothing panics with the requests locked")
    }
}

/// What one line was.
enum Heard {
    /// Nothing for the program to hear.
    Answer,
    Event(Event),
    Ending(Ending),
}

/// How a connection ended.
enum Ending {
    Stopped,
    Refused(Refusal),
    Lost(String),
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
