//! The users: they hop from node to node, send all the time, and send again what they must.
//!
//! Each device lives on a thread of its own, and each of its connections has a second one
//! that hears (`line`). Most log in with `ack`, some like a person at netcat; some are killed
//! now and then, some are away for seconds, some nap. Left out: what it means.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::history::Answer;
use crate::history::Asks;
use crate::history::Client;
use crate::history::Leaving;
use crate::history::Question;
use crate::history::Session;
use crate::history::Time;
use crate::line::Device;
use crate::line::Line;
use crate::plan::NODES;
use crate::rig::peer::Heard;
use crate::rig::peer::Peer;
use crate::rig::peer::Wire;
use crate::rig::random::Random;
use crate::world::World;

/// Users 0 and 1 stay where they are. 2 to 11 hop, and always say goodbye; the others are
/// also killed.
pub const USERS: usize = 40;

/// Whose the devices are, one or two a user.
pub const DEVICES: [usize; USERS + 8] = devices();

const STEADY: usize = 2;
const POLITE: usize = 12;

/// These nap.
const SLEEPY: [usize; 4] = [20, 21, 22, 23];

/// These devices log in without `ack`; the user of the last has another one with it.
const RAW: [usize; 3] = [36, 37, 47];

/// How many messages of a client may be under way at a time: less than a node takes of one connection, so
/// that only a recipient without room gets its sender an `ERR limited`.
const WAITING_MAX: usize = 1_000;

/// For how long a client sends less than it should before that is forgotten.
const BACKLOG_TIME: f64 = 4.0;

/// How long a node may take to greet: one that is frozen is left for another.
const HELLO_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a login is waited for: its deadline, and the longest that its node is frozen.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(45);

/// How long anybody may need to be in when there are no faults any more.
const IN_TIME_MAX: Duration = Duration::from_secs(60);

/// A user, or one device of a user who has two.
pub struct Person<'a> {
    pub world: &'a World,
    pub device: Arc<Device>,
    pub random: Random,
    /// How many messages it sends a second.
    pub rate: f64,
    /// How many it has to send now, and when that was reckoned.
    pub backlog: f64,
    pub reckoned: Instant,
}

const fn devices() -> [usize; USERS + 8] {
    let second = [1, 3, 9, 15, 20, 27, 30, 38];
    let mut devices = [0; USERS + 8];
    let mut device = 0;
    while device < devices.len() {
        devices[device] = if device < USERS { device } else { second[device - USERS] };
        device += 1;
    }
    devices
}

impl<'a> Person<'a> {
    pub fn new(world: &'a World, client: usize, random: Random, rate: f64) -> Self {
        let user = DEVICES[client];
        let device = Arc::new(Device::new(client, user, !RAW.contains(&client)));
        Person { world, device, random, rate, backlog: 0.0, reckoned: Instant::now() }
    }

    /// What the history knows of it.
    pub fn client(&self) -> Client {
        Client { user: self.device.user, acks: self.device.acks, seen: vec![] }
    }

    /// Lives until the run is over, and is in then.
    pub fn live(mut self) -> (Self, Line) {
        let mut line = self.come();
        while !self.world.is_over() {
            self.stay(&line);
            if line.is_open() && self.world.is_over() {
                break;
            }
            // Sometimes there are two for a moment.
            if self.random.below(3) > 0 {
                self.leave(line);
                self.be_away();
                line = self.come();
            } else {
                let before = std::mem::replace(&mut line, self.come());
                self.leave(before);
            }
        }
        line.wake();
        let line = if line.is_open() { line } else { self.come() };
        (self, line)
    }

    /// Is on a line for some time, and talks.
    fn stay(&mut self, line: &Line) {
        let is_steady = self.device.user < STEADY;
        let stay = if is_steady { 3_600_000 } else { 300 + self.random.below(6_000) };
        let until = Instant::now() + Duration::from_millis(stay as u64);
        let mut wakes = None;
        while Instant::now() < until && line.is_open() && !self.world.is_over() {
            self.talk(line);
            if wakes.is_some_and(|wakes| wakes <= Instant::now()) {
                line.wake();
                wakes = None;
            } else if wakes.is_none() && SLEEPY.contains(&self.device.user) && self.random.below(25) == 0 {
                line.nap();
                wakes = Some(Instant::now() + Duration::from_millis(100 + self.random.below(3_000) as u64));
            }
            self.rest(20, 140);
        }
    }

    /// Leaves in a way that this user may have; who naps may be killed in its sleep.
    fn leave(&mut self, line: Line) {
        let leaving = match self.random.below(8) {
            0..3 if self.device.user >= POLITE => Leaving::HangsUp,
            0..4 => Leaving::HalfCloses,
            _ => Leaving::Quits,
        };
        if leaving != Leaving::HangsUp && self.random.below(2) == 0 {
            line.wake();
        }
        let reader = line.leave(leaving);
        // What was not answered is sent again before anything new.
        if leaving == Leaving::HangsUp {
            reader.join().expect("who hears does not panic");
        }
    }

    /// Is nowhere: not at all, for a moment, or longer.
    fn be_away(&mut self) {
        match self.random.below(16) {
            0..8 => {}
            8..15 => self.rest(1, 600),
            _ => self.rest(1_000, 8_000),
        }
    }

    /// Is somewhere at last.
    pub fn come(&mut self) -> Line {
        let mut by = Instant::now() + IN_TIME_MAX;
        loop {
            if let Some(line) = self.connect() {
                line.send_again();
                return line;
            }
            if !self.world.is_over() {
                by = Instant::now() + IN_TIME_MAX;
            }
            assert!(Instant::now() < by, "user{} gets in nowhere", self.device.user);
            self.rest(50, 400);
        }
    }

    fn connect(&mut self) -> Option<Line> {
        let Device { user, client, acks, .. } = *self.device;
        let is_home = user < STEADY && self.random.below(3) > 0;
        let node = if is_home { client % NODES } else { self.random.below(NODES) };
        let mut peer = Peer::try_open(self.world.addr(node)?, Wire::Tcp).ok()?;
        peer.patient(HELLO_TIME_MAX);
        let Ok(Heard::Line(_)) = peer.try_hear() else { return None };
        peer.patient(LOGIN_TIME_MAX);
        let recorder = &self.world.recorder;
        let asked = recorder.now();
        let asks = Asks::Login;
        let question = recorder.ask(Question { asks, node, user, asked, answered: None, given_up: None });
        let ack = if acks { " ack" } else { "" };
        peer.try_say(format!("LOGIN user{user}{ack}").as_bytes()).ok()?;
        let line = match peer.try_hear() {
            Ok(Heard::Line(line)) => line,
            // The history tells whether that may be.
            _ => return None,
        };
        let since = recorder.now();
        let mut history = recorder.write();
        let answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["OK", ..] => Some(Answer::In),
            ["ERR", word, ..] => ErrorCode::parse(word).map(Answer::Error),
            ["BYE", word, ..] => CloseReason::parse(word).map(Answer::Ended),
            _ => None,
        };
        let Some(answer) = answer else {
            history.oddities.push((since, format!("user{user} logs in on node {node}, and hears {line:?}")));
            return None;
        };
        history.questions[question].answered = Some((since, answer));
        if answer != Answer::In {
            return None;
        }
        let session = history.sessions.len();
        let (left, ended, naps, stalls) = (None, None, vec![], vec![]);
        history.sessions.push(Session { client, user, node, asked, since, left, ended, naps, stalls });
        drop(history);
        Some(Line::new(peer, &self.device, session, recorder))
    }

    /// Sends what is due, or asks for somebody.
    fn talk(&mut self, line: &Line) {
        line.send_again();
        let passed = std::mem::replace(&mut self.reckoned, Instant::now()).elapsed().as_secs_f64();
        self.backlog = (self.backlog + self.rate * passed).min(self.rate * BACKLOG_TIME);
        if self.random.below(20) == 0 {
            line.ask(self.random.below(USERS));
        }
        let room = WAITING_MAX.saturating_sub(self.device.memory().waiting());
        let mut count = (self.backlog as usize).min(room);
        let mut groups = vec![];
        while count > 0 {
            let group = (1 + self.random.below(4)).min(count);
            groups.push((self.random.below(USERS), group));
            count -= group;
            self.backlog -= group as f64;
        }
        line.send(&groups);
    }

    fn rest(&mut self, from_ms: usize, to_ms: usize) {
        let time = from_ms + self.random.below(to_ms - from_ms);
        thread::park_timeout(Duration::from_millis(time as u64));
    }
}

/// The users whose clients never nap.
pub fn is_wakeful(user: usize) -> bool {
    !SLEEPY.contains(&user)
}

/// How many of the users' devices there are, for one user.
pub fn devices_of(user: usize) -> i64 {
    DEVICES.iter().filter(|of| **of == user).count() as i64
}

/// How many messages a second each device sends, when all together send so many.
pub fn rate_of_each(rate: Time) -> f64 {
    rate as f64 / DEVICES.len() as f64
}
