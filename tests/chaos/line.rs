//! One session of a client: what it says, what it hears, and what it acknowledges.
//!
//! A thread of its own hears. Everything is noted before it is said, and when it is heard.
//! What comes together is acknowledged together; while a client naps it is shown and not
//! acknowledged. Left out: when a client does what, which is the business of `people`.

use std::io::ErrorKind;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::history::Answer;
use crate::history::Asks;
use crate::history::Attempt;
use crate::history::End;
use crate::history::Fate;
use crate::history::History;
use crate::history::Leaving;
use crate::history::Message;
use crate::history::Question;
use crate::history::Seen;
use crate::history::Time;
use crate::history::memory::Memory;
use crate::recorder::Recorder;
use crate::rig::peer::Heard;
use crate::rig::peer::Peer;
use crate::rig::peer::message;

/// Longer than any run.
const HEAR_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// So many are acknowledged together at most.
const ACKS_MAX: usize = 64;

/// A client, over all its connections.
pub struct Device {
    /// Its place in the history.
    pub client: usize,
    pub user: usize,
    /// It logs in with `ack`.
    pub acks: bool,
    memory: Mutex<Memory>,
}

/// A session, and the way to its node.
pub struct Line {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

/// What the thread that hears has too.
struct Shared {
    device: Arc<Device>,
    /// Its place in the history.
    session: usize,
    recorder: Arc<Recorder>,
    socket: Mutex<TcpStream>,
    is_open: AtomicBool,
    /// While its client naps: what it has shown.
    held: Mutex<Option<Vec<Shown>>>,
}

/// A message that is to be acknowledged.
struct Shown {
    /// Its place in what the client has seen.
    place: usize,
    from: usize,
    message: usize,
}

impl Device {
    pub fn new(client: usize, user: usize, acks: bool) -> Self {
        Device { client, user, acks, memory: Mutex::new(Memory::new(1)) }
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    pub fn new(mut peer: Peer, device: &Arc<Device>, session: usize, recorder: &Arc<Recorder>) -> Self {
        let shared = Arc::new(Shared {
            device: device.clone(),
            session,
            recorder: recorder.clone(),
            socket: Mutex::new(peer.writer()),
            is_open: AtomicBool::new(true),
            held: Mutex::default(),
        });
        let hearing = shared.clone();
        let reader = thread::spawn(move || {
            peer.patient(HEAR_TIME_MAX);
            let end = hearing.hear_all(&mut peer);
            let now = hearing.recorder.now();
            hearing.recorder.write().sessions[session].ended = Some((now, end));
            hearing.is_open.store(false, SeqCst);
            hearing.device.memory().loses(session, now);
        });
        Line { shared, reader }
    }

    /// Whether it was not seen to end.
    pub fn is_open(&self) -> bool {
        self.shared.is_open.load(SeqCst)
    }

    /// Sends numbered messages: so many to each of these.
    pub fn send(&self, groups: &[(usize, usize)]) {
        let Shared { device, session, recorder, .. } = &*self.shared;
        let sent = recorder.now();
        let (mut lines, mut numbers) = (String::new(), vec![]);
        let mut history = recorder.write();
        for to in groups.iter().flat_map(|(to, count)| vec![*to; *count]) {
            let number = history.messages.len();
            let attempts = vec![Attempt { session: *session, sent, told: None }];
            history.messages.push(Message {
                client: device.client,
                to,
                is_cast: false,
                is_tagged: true,
                attempts,
            });
            lines += &request(number, to);
            numbers.push((number, to));
        }
        drop(history);
        let mut memory = device.memory();
        numbers.into_iter().for_each(|(number, to)| memory.sends(number, to, *session, sent));
        drop(memory);
        self.say_requests(&lines);
    }

    /// Sends again what has no fate yet, and is due.
    pub fn send_again(&self) {
        let Shared { device, session, recorder, .. } = &*self.shared;
        let sent = recorder.now();
        let due = device.memory().sends_again(*session, sent);
        if due.is_empty() {
            return;
        }
        let mut history = recorder.write();
        for (number, _) in &due {
            history.messages[*number].attempts.push(Attempt { session: *session, sent, told: None });
        }
        drop(history);
        let lines: String = due.into_iter().map(|(number, to)| request(number, to)).collect();
        self.say_requests(&lines);
    }

    fn say_requests(&self, lines: &str) {
        self.shared.say(lines);
        // It may have ended before these were noted.
        if !self.is_open() {
            self.shared.device.memory().loses(self.shared.session, self.shared.recorder.now());
        }
    }

    /// Asks where a user is.
    pub fn ask(&self, user: usize) {
        let Shared { session, recorder, .. } = &*self.shared;
        let (asked, asks) = (recorder.now(), Asks::Who(*session));
        let node = recorder.write().sessions[*session].node;
        let question = recorder.ask(Question { asks, node, user, asked, answered: None, given_up: None });
        self.shared.say(&format!("@w{question} WHO user{user}\n"));
    }

    /// From now on nothing is acknowledged.
    pub fn nap(&self) {
        let mut held = self.shared.held();
        if held.is_none() {
            *held = Some(vec![]);
            let now = self.shared.recorder.now();
            self.shared.recorder.write().sessions[self.shared.session].naps.push((now, Time::MAX));
        }
    }

    /// Acknowledges what was shown meanwhile.
    pub fn wake(&self) {
        let Some(shown) = self.shared.held().take() else { return };
        self.shared.acknowledge(shown);
        let now = self.shared.recorder.now();
        let mut history = self.shared.recorder.write();
        history.sessions[self.shared.session].naps.last_mut().expect("it has napped").1 = now;
    }

    /// Leaves so. Returns the thread that hears the rest.
    pub fn leave(self, leaving: Leaving) -> JoinHandle<()> {
        let mut socket = self.shared.socket();
        let now = self.shared.recorder.now();
        let mut history = self.shared.recorder.write();
        let session = &mut history.sessions[self.shared.session];
        if session.ended.is_none() {
            session.left = Some((now, leaving));
        }
        drop(history);
        // Any of these fails only where the node is gone already.
        let _ = match leaving {
            Leaving::Quits => socket.write_all(b"QUIT\n"),
            Leaving::HalfCloses => socket.shutdown(Shutdown::Write),
            Leaving::HangsUp => socket.shutdown(Shutdown::Both),
        };
        drop(socket);
        self.reader
    }
}

impl Shared {
    fn socket(&self) -> MutexGuard<'_, TcpStream> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<Shown>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, lines: &str) {
        // Its node may be dead.
        let _ = self.socket().write_all(lines.as_bytes());
    }

    fn acknowledge(&self, shown: Vec<Shown>) {
        if shown.is_empty() {
            return;
        }
        let mut lines = String::new();
        // Held from the note to the words, here and where one leaves: both are in the same order.
        let mut socket = self.socket();
        let now = self.recorder.now();
        let mut history = self.recorder.write();
        for Shown { place, from, message } in shown {
            history.clients[self.device.client].seen[place].acked = Some(now);
            lines += &format!("ACK {message} user{from}\n");
        }
        drop(history);
        // Its node may be dead.
        let _ = socket.write_all(lines.as_bytes());
    }

    /// Hears all up to the end of the connection.
    fn hear_all(&self, peer: &mut Peer) -> End {
        let mut end = End::Closed;
        let mut shown = vec![];
        loop {
            if shown.len() >= ACKS_MAX || !peer.has_line() {
                self.has_shown(std::mem::take(&mut shown));
            }
            match peer.try_hear() {
                Ok(Heard::Line(line)) => {
                    if let Some(reason) = bye(&line) {
                        end = End::Bye(reason);
                    } else if self.note(&line, &mut shown).is_none() {
                        self.recorder.oddity(format!("session {} heard {line:?}", self.session));
                    }
                }
                Ok(Heard::End(_)) => return end,
                Err(error) => {
                    let is_cut =
                        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof);
                    if !is_cut {
                        self.recorder.oddity(format!("session {} heard {error}", self.session));
                    }
                    return if end == End::Closed { End::Broken } else { end };
                }
            }
        }
    }

    fn has_shown(&self, shown: Vec<Shown>) {
        if let Some(held) = &mut *self.held() {
            return held.extend(shown);
        }
        self.acknowledge(shown);
    }

    /// Notes what was heard; nothing when that makes no sense.
    fn note(&self, line: &str, shown: &mut Vec<Shown>) -> Option<()> {
        if let Some((from, id, text)) = message(line) {
            let (from, message) = (from.strip_prefix("user")?.parse().ok()?, id.parse().ok()?);
            let place = self.see(from, message);
            if self.device.acks {
                shown.push(Shown { place, from, message });
            }
            return (text == format!("hi {id}")).then_some(());
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [tag, what, word, rest @ ..] = &words[..] else { return None };
        let tag = tag.strip_prefix('@')?;
        let now = self.recorder.now();
        let mut history = self.recorder.write();
        if let Some(question) = tag.strip_prefix('w') {
            let answer = match (*what, rest) {
                ("OK", ["offline"]) => Answer::Online(0),
                ("OK", ["online", count]) => Answer::Online(count.parse().ok()?),
                ("ERR", _) => Answer::Error(ErrorCode::parse(word)?),
                _ => return None,
            };
            let question = history.questions.get_mut(question.parse::<usize>().ok()?)?;
            let is_new = question.answered.replace((now, answer)).is_none();
            return (is_new && question.asks == Asks::Who(self.session)).then_some(());
        }
        let fate = match (*what, rest) {
            ("OK", ["delivered"]) if *word == tag => Fate::Delivered,
            ("OK", ["stored"]) if *word == tag => Fate::Stored,
            ("ERR", _) => Fate::Error(ErrorCode::parse(word)?),
            _ => return None,
        };
        let number = tag.parse::<usize>().ok()?;
        self.tell(&mut history, number, now, fate)?;
        drop(history);
        self.device.memory().hears(number, self.session, fate, now);
        Some(())
    }

    /// Notes a message that came, and whether it is shown. Returns its place.
    fn see(&self, from: usize, message: usize) -> usize {
        let at = self.recorder.now();
        let mut history = self.recorder.write();
        // One who looks shows no copy; the history has them in the order in which he looked.
        let is_shown = !self.device.acks || self.device.memory().sees(from, message);
        let seen = &mut history.clients[self.device.client].seen;
        seen.push(Seen { at, session: self.session, from, message, is_shown, acked: None });
        seen.len() - 1
    }

    /// Notes what the sender of a message was told.
    fn tell(&self, history: &mut History, number: usize, now: Time, fate: Fate) -> Option<()> {
        let attempts = &mut history.messages.get_mut(number)?.attempts;
        let mut here = attempts.iter_mut().filter(|attempt| attempt.session == self.session).peekable();
        here.peek()?;
        match here.find(|attempt| attempt.told.is_none()) {
            Some(attempt) => attempt.told = Some((now, fate)),
            None => history.again.push((now, number)),
        }
        Some(())
    }
}

/// Why the connection ends, if the line tells that.
fn bye(line: &str) -> Option<CloseReason> {
    CloseReason::parse(line.strip_prefix("BYE ")?.split(' ').next()?)
}

fn request(number: usize, to: usize) -> String {
    format!("@{number} SEND user{to} hi {number}\n")
}
