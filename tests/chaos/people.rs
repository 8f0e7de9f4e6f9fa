//! The users: they hop from node to node, and some of them send all the time.
//!
//! Each lives on a thread of its own, and each of its connections has a second one that
//! hears. Everybody writes down what they do before they do it, and what they hear as it
//! comes. Left out: what it means.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::history::{
    Answer, Asks, End, Fate, History, Leaving, Message, Ms, Question, Recorder, Seen, Session,
};
use crate::plan::NODES;
use crate::rig::peer::{Heard, Peer, Wire, message};
use crate::rig::random::Random;
use crate::world::World;

/// Users 0 and 1 stay where they are. 2 to 7 hop, and always say goodbye; the others also
/// just hang up.
pub const USERS: usize = 14;

/// Whose the devices are, one or two a user.
pub const DEVICES: [usize; USERS + 3] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 1, 3, 9];

const STEADY: usize = 2;
const POLITE: usize = 8;

/// Every so many-th device sends.
const EVERY: usize = 2;

/// How long a node may take to greet: one that is frozen is left for another.
const HELLO_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a login is waited for: its deadline, and the longest that its node is frozen.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(45);

/// Longer than any run.
const HEAR_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long anybody may need to be in when there are no faults any more.
const IN_TIME_MAX: Duration = Duration::from_secs(60);

/// A user, or one device of a user who has two.
pub struct Person<'a> {
    pub world: &'a World,
    pub device: usize,
    pub user: usize,
    pub random: Random,
}

/// A session, and the way to its node.
pub struct Line {
    /// Its place in the history.
    pub session: usize,
    recorder: Arc<Recorder>,
    socket: TcpStream,
    is_open: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Person<'_> {
    /// Lives until the run is over, and is in then.
    pub fn live(mut self) -> Line {
        let mut line = self.come();
        while !self.world.is_over() {
            let stay = if self.user < STEADY { 3_600_000 } else { 300 + self.random.below(6_000) };
            let until = Instant::now() + Duration::from_millis(stay as u64);
            while Instant::now() < until && line.is_open() && !self.world.is_over() {
                if self.device.is_multiple_of(EVERY) {
                    self.talk(&line);
                }
                self.rest(20, 140);
            }
            if line.is_open() && self.world.is_over() {
                return line;
            }
            // Sometimes there are two for a moment.
            let overlaps = self.random.below(3) == 0;
            let way = self.random.below(8);
            if !overlaps {
                line.leave(self.user, way);
                if way.is_multiple_of(2) {
                    self.rest(1, 600);
                }
                line = self.come();
            } else {
                let before = std::mem::replace(&mut line, self.come());
                before.leave(self.user, way);
            }
        }
        if line.is_open() { line } else { self.come() }
    }

    /// Is somewhere at last.
    fn come(&mut self) -> Line {
        let mut by = Instant::now() + IN_TIME_MAX;
        loop {
            if let Some(line) = self.connect() {
                return line;
            }
            if !self.world.is_over() {
                by = Instant::now() + IN_TIME_MAX;
            }
            assert!(Instant::now() < by, "user{} gets in nowhere", self.user);
            self.rest(50, 400);
        }
    }

    fn connect(&mut self) -> Option<Line> {
        let is_home = self.user < STEADY && self.random.below(3) > 0;
        let node = if is_home { self.device % NODES } else { self.random.below(NODES) };
        let mut peer = Peer::try_open(self.world.addr(node)?, Wire::Tcp).ok()?;
        peer.patient(HELLO_TIME_MAX);
        let Ok(Heard::Line(_)) = peer.try_hear() else { return None };
        peer.patient(LOGIN_TIME_MAX);
        let recorder = &self.world.recorder;
        let (user, asked) = (self.user, recorder.now());
        let asks = Asks::Login;
        let question = recorder.ask(Question { asks, node, user, asked, answered: None });
        peer.try_say(format!("LOGIN user{user}").as_bytes()).ok()?;
        let line = match peer.try_hear() {
            Ok(Heard::Line(line)) => line,
            // The history tells whether that may be.
            _ => return None,
        };
        let since = recorder.now();
        let mut history = recorder.write();
        let answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["OK", ..] => Answer::In,
            ["ERR", word, ..] => Answer::Error(word.to_owned()),
            _ => Answer::Error(line),
        };
        let is_in = answer == Answer::In;
        history.questions[question].answered = Some((since, answer));
        if !is_in {
            return None;
        }
        let session = history.sessions.len();
        history.sessions.push(Session { user, node, asked, since, left: None, ended: None, seen: vec![] });
        drop(history);
        Some(Line::new(peer, session, recorder))
    }

    /// Sends a few messages to somebody, or asks for somebody.
    fn talk(&mut self, line: &Line) {
        let to = self.random.below(USERS);
        if self.random.below(20) == 0 {
            line.ask(to);
        } else {
            line.send(to, 1 + self.random.below(4));
        }
    }

    fn rest(&mut self, from_ms: usize, to_ms: usize) {
        let time = from_ms + self.random.below(to_ms - from_ms);
        thread::park_timeout(Duration::from_millis(time as u64));
    }
}

impl Line {
    fn new(mut peer: Peer, session: usize, recorder: &Arc<Recorder>) -> Self {
        let is_open = Arc::new(AtomicBool::new(true));
        let socket = peer.writer();
        let reader = {
            let (recorder, is_open) = (recorder.clone(), is_open.clone());
            thread::spawn(move || {
                peer.patient(HEAR_TIME_MAX);
                let end = hear_all(&mut peer, session, &recorder);
                let now = recorder.now();
                recorder.write().sessions[session].ended = Some((now, end));
                is_open.store(false, SeqCst);
            })
        };
        Line { session, recorder: recorder.clone(), socket, is_open, reader }
    }

    /// Whether it was not seen to end.
    pub fn is_open(&self) -> bool {
        self.is_open.load(SeqCst)
    }

    /// Sends numbered messages.
    pub fn send(&self, to: usize, count: usize) {
        let sent = self.recorder.now();
        let mut lines = String::new();
        let mut history = self.recorder.write();
        for _ in 0..count {
            let number = history.messages.len();
            history.messages.push(Message { session: self.session, to, sent, told: vec![] });
            lines += &format!("@{number} SEND user{to} hi {number}\n");
        }
        drop(history);
        self.say(&lines);
    }

    /// Asks where a user is.
    pub fn ask(&self, user: usize) {
        let asked = self.recorder.now();
        let asks = Asks::Who(self.session);
        let node = self.recorder.write().sessions[self.session].node;
        let question = self.recorder.ask(Question { asks, node, user, asked, answered: None });
        self.say(&format!("@w{question} WHO user{user}\n"));
    }

    fn say(&self, lines: &str) {
        // Its node may be dead.
        let _ = (&self.socket).write_all(lines.as_bytes());
    }

    /// Leaves, in a way that this user may have.
    fn leave(self, user: usize, way: usize) {
        self.leave_so(match way {
            0 | 1 if user >= POLITE => Leaving::HangsUp,
            2 => Leaving::HalfCloses,
            _ => Leaving::Quits,
        });
    }

    /// Leaves so. Returns the thread that hears the rest.
    pub fn leave_so(self, leaving: Leaving) -> JoinHandle<()> {
        let now = self.recorder.now();
        let mut history = self.recorder.write();
        let session = &mut history.sessions[self.session];
        if session.ended.is_none() {
            session.left = Some((now, leaving));
        }
        drop(history);
        // Any of these fails only where the node is gone already.
        match leaving {
            Leaving::Quits => self.say("QUIT\n"),
            Leaving::HalfCloses => drop(self.socket.shutdown(Shutdown::Write)),
            Leaving::HangsUp => drop(self.socket.shutdown(Shutdown::Both)),
        }
        self.reader
    }
}

/// Hears all up to the end of a connection.
fn hear_all(peer: &mut Peer, session: usize, recorder: &Recorder) -> End {
    let mut end = End::Closed;
    loop {
        let heard = peer.try_hear();
        let now = recorder.now();
        match heard {
            Ok(Heard::Line(line)) => {
                if let Some(word) = line.strip_prefix("BYE ") {
                    end = End::Bye(word.split(' ').next().unwrap_or_default().to_owned());
                } else if !note(&line, session, now, &mut recorder.write()) {
                    recorder.oddity(format!("session {session} heard {line:?}"));
                }
            }
            Ok(Heard::End(_)) => return end,
            Err(error) => {
                let is_cut = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof);
                if !is_cut {
                    recorder.oddity(format!("session {session} heard {error}"));
                }
                return if end == End::Closed { End::Broken } else { end };
            }
        }
    }
}

/// Notes what a session heard; `false` when that makes no sense.
fn note(line: &str, session: usize, now: Ms, history: &mut History) -> bool {
    if let Some((from, id, text)) = message(line) {
        let from = from.strip_prefix("user").and_then(|user| user.parse().ok());
        let (Some(from), Ok(message)) = (from, id.parse()) else { return false };
        history.sessions[session].seen.push(Seen { at: now, from, message });
        return text == format!("hi {id}");
    }
    let words: Vec<&str> = line.split(' ').collect();
    let [tag, what, word, rest @ ..] = &words[..] else { return false };
    let Some(tag) = tag.strip_prefix('@') else { return false };
    if let Some(question) = tag.strip_prefix('w').and_then(|number| number.parse::<usize>().ok()) {
        let answer = match (*what, rest) {
            ("OK", ["offline"]) => Answer::Online(0),
            ("OK", ["online", count]) => Answer::Online(count.parse().unwrap_or(usize::MAX)),
            ("ERR", _) => Answer::Error((*word).to_owned()),
            _ => return false,
        };
        let Some(question) = history.questions.get_mut(question) else { return false };
        return question.answered.replace((now, answer)).is_none() && question.asks == Asks::Who(session);
    }
    let fate = match (*what, rest) {
        ("OK", ["delivered"]) if *word == tag => Fate::Delivered,
        ("ERR", _) => Fate::Error((*word).to_owned()),
        _ => return false,
    };
    let message = tag.parse::<usize>().ok().and_then(|number| history.messages.get_mut(number));
    let Some(message) = message.filter(|message| message.session == session) else { return false };
    message.told.push((now, fate));
    true
}
