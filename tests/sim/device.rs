//! The users' devices: they hop from node to node, send all the time, and send again what they must.
//!
//! Most log in with `ack`, some like a person at netcat; some are killed now and then, some are away for
//! seconds, some nap (acknowledge nothing), some stall (read nothing). What they hear is in `hearing`.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::history::Asks;
use crate::history::Attempt;
use crate::history::Leaving;
use crate::history::Message;
use crate::history::Question;
use crate::history::Time;
use crate::history::memory::Memory;
use crate::queue::Event;
use crate::queue::MS;
use crate::queue::SECOND;
use crate::socket::UpEnd;
use crate::world::World;

/// A user's device.
pub struct Device {
    pub user: usize,
    pub acks: bool,
    naps: bool,
    stalls: bool,
    pub memory: Memory,
    /// Where it is, or wants to be.
    pub socket: Option<usize>,
    stays_until: Time,
    wakes_at: Option<Time>,
}

/// A connection as its client knows it.
pub struct Side {
    pub device: usize,
    pub phase: Phase,
    /// Messages without a tag whose replies are due, in order.
    pub untagged: VecDeque<usize>,
    pub leaving: Option<Leaving>,
    /// It acknowledges nothing: what it has to.
    pub held: Option<Vec<Shown>>,
    /// It reads nothing.
    pub is_stalled: bool,
    opened: Time,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Greeting,
    /// `LOGIN` was said: the question.
    Entering(usize),
    /// The session.
    In(usize),
    Over,
}

/// A message that is to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Its place in what the client has seen.
    pub place: usize,
    pub from: usize,
    /// Its id, and how much of that is one.
    pub id: [u8; 40],
    pub id_length: usize,
}

/// How many messages of a client may be under way at a time.
const WAITING_MAX: usize = 300;

/// How long a node may take to greet, and to answer a login.
const HELLO_TIME_MAX: Time = 2 * SECOND;
const LOGIN_TIME_MAX: Time = 20 * SECOND;

impl World {
    /// Devices for the users, of which none is anywhere.
    pub fn bring_devices(&mut self) {
        for (number, user) in self.scene.devices.0.clone().into_iter().enumerate() {
            let percent = |random: &mut crate::rig::random::Random, share| random.below(100) < share;
            let acks = !percent(&mut self.random, self.scene.raw_percent);
            let naps = percent(&mut self.random, self.scene.nap_percent);
            let stalls = percent(&mut self.random, self.scene.stall_percent);
            let memory = Memory::new(MS);
            let (socket, stays_until, wakes_at) = (None, 0, None);
            self.devices.push(Device { user, acks, naps, stalls, memory, socket, stays_until, wakes_at });
            self.history.clients.push(crate::history::Client { user, acks, seen: vec![] });
            // Nodes need a moment to know each other.
            let at = 2 * SECOND + self.random.below(300 * MS as usize) as Time;
            self.queue.after(at, Event::Think { device: number });
        }
    }

    /// A device does what is next.
    pub fn think(&mut self, device: usize) {
        let now = self.queue.now();
        let is_one_too_many = device >= self.scene.users && self.is_calm && self.scene.sessions_max < 8;
        if self.is_leaving || (is_one_too_many && self.devices[device].socket.is_none()) {
            // A user's second device would replace the first again and again.
            return;
        }
        match self.devices[device].socket {
            None => self.come(device),
            Some(socket) => match self.sockets[socket].side.phase {
                Phase::Over => self.devices[device].socket = None,
                Phase::In(_) => self.stay(device, socket),
                Phase::Greeting | Phase::Entering(_) => self.wait_for_login(device, socket),
            },
        }
        let mut pause = 1 + self.random.below(self.scene.pause_max as usize) as Time;
        if self.devices[device].socket.is_none() && self.random.below(12) == 0 && !self.is_calm {
            // It is away for longer.
            pause += self.random.below(6 * SECOND as usize) as Time;
        }
        self.queue.at(now + pause, Event::Think { device });
    }

    /// Connects somewhere.
    fn come(&mut self, device: usize) {
        let host = self.random.below(self.scene.nodes);
        let opened = self.queue.now();
        let (phase, untagged, leaving, held) = (Phase::Greeting, VecDeque::new(), None, None);
        let side = Side { device, phase, untagged, leaving, held, is_stalled: false, opened };
        let stay = 1 + self.random.below(self.scene.stay_max as usize) as Time;
        self.devices[device].socket = self.open(host, side);
        self.devices[device].stays_until = opened + stay;
        self.devices[device].wakes_at = None;
    }

    /// Waits for a greeting and an answer, but not for ever.
    fn wait_for_login(&mut self, device: usize, socket: usize) {
        let waits = self.queue.now() - self.sockets[socket].side.opened;
        let is_greeted = self.sockets[socket].side.phase != Phase::Greeting;
        let time = if is_greeted { LOGIN_TIME_MAX } else { HELLO_TIME_MAX };
        if waits > time {
            self.hang_up(socket);
            self.devices[device].socket = None;
        }
    }

    /// Is in, and talks, rests or leaves.
    fn stay(&mut self, device: usize, socket: usize) {
        let now = self.queue.now();
        if let Some(at) = self.devices[device].wakes_at
            && at <= now
        {
            self.wake_up(device, socket);
        }
        if now >= self.devices[device].stays_until && !self.is_calm {
            return self.hop(device, socket);
        }
        let Device { naps, stalls, wakes_at, .. } = self.devices[device];
        if wakes_at.is_none() && !self.is_calm && self.random.below(20) == 0 && (naps || stalls) {
            let is_nap = naps && (!stalls || self.random.below(2) == 0);
            self.rest(device, socket, is_nap);
        }
        self.send_again(device, socket);
        if self.devices[device].memory.waiting() < WAITING_MAX && !self.is_silent {
            self.send_burst(device, socket);
        }
        if self.random.below(20) == 0 && !self.is_silent {
            self.ask_who(socket);
        }
    }

    /// Acknowledges, or reads, nothing for a while.
    fn rest(&mut self, device: usize, socket: usize, is_nap: bool) {
        let now = self.queue.now();
        let Phase::In(session) = self.sockets[socket].side.phase else { return };
        let longest = if self.random.below(4) == 0 { 15 * SECOND } else { 3 * SECOND };
        let until = now + 50 * MS + self.random.below(longest as usize) as Time;
        self.devices[device].wakes_at = Some(until);
        let of = &mut self.history.sessions[session];
        if is_nap {
            self.sockets[socket].side.held = Some(vec![]);
            of.naps.push((now, Time::MAX));
        } else {
            self.sockets[socket].side.is_stalled = true;
            of.stalls.push((now, Time::MAX));
        }
        self.note(|| format!("session {session} rests up to {until}"));
    }

    /// Goes on to read and to acknowledge.
    pub fn wake_up(&mut self, device: usize, socket: usize) {
        let now = self.queue.now();
        self.devices[device].wakes_at = None;
        let Phase::In(session) = self.sockets[socket].side.phase else { return };
        if std::mem::take(&mut self.sockets[socket].side.is_stalled) {
            self.history.sessions[session].stalls.last_mut().expect("it stalls").1 = now;
            self.hear(socket);
        }
        if let Some(shown) = self.sockets[socket].side.held.take() {
            self.history.sessions[session].naps.last_mut().expect("it naps").1 = now;
            self.acknowledge(socket, &shown);
        }
    }

    /// Goes elsewhere; sometimes it is there before it has left.
    fn hop(&mut self, device: usize, socket: usize) {
        let leaving = match self.random.below(8) {
            0..3 => Leaving::HangsUp,
            3 => Leaving::HalfCloses,
            _ => Leaving::Quits,
        };
        if leaving != Leaving::HangsUp && (self.random.below(2) == 0 || self.sockets[socket].side.is_stalled)
        {
            self.wake_up(device, socket);
        }
        let is_beside = self.random.below(3) == 0;
        self.devices[device].socket = None;
        if is_beside {
            self.come(device);
        }
        self.leave(socket, leaving);
    }

    /// A client leaves a connection so.
    pub fn leave(&mut self, socket: usize, leaving: Leaving) {
        let now = self.queue.now();
        let Phase::In(session) = self.sockets[socket].side.phase else { return };
        self.note(|| format!("session {session} leaves: {leaving:?}"));
        self.sockets[socket].side.leaving = Some(leaving);
        self.history.sessions[session].left = Some((now, leaving));
        match leaving {
            Leaving::Quits => self.say(socket, b"QUIT\n"),
            Leaving::HalfCloses => self.end_up(socket, UpEnd::Eof),
            Leaving::HangsUp => self.hang_up(socket),
        }
    }

    /// A client's process is gone.
    pub fn hang_up(&mut self, socket: usize) {
        self.end_up(socket, UpEnd::Reset);
        self.is_over(socket, crate::history::End::Closed);
    }

    /// Sends messages to somebody.
    fn send_burst(&mut self, device: usize, socket: usize) {
        let Phase::In(session) = self.sockets[socket].side.phase else { return };
        let now = self.queue.now();
        let count = self.random.below(self.scene.burst_max + 1);
        let to = self.random.below(self.scene.users);
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for _ in 0..count {
            let number = self.history.messages.len();
            let chance = self.random.below(100);
            let is_cast = chance < self.scene.cast_percent;
            let is_untagged = chance >= 100 - self.scene.untagged_percent;
            let is_long = self.random.below(100) < self.scene.long_percent;
            let attempts = vec![Attempt { session, sent: now, told: None }];
            self.history.messages.push(Message {
                client: device,
                to,
                is_cast,
                is_tagged: !is_untagged,
                attempts,
            });
            let _ = match (is_cast, is_untagged) {
                (true, _) => write!(lines, "CAST user{to} {number}"),
                (false, true) => write!(lines, "SEND user{to} {number}"),
                (false, false) => write!(lines, "@{number} SEND user{to} {}", words(number)),
            };
            if is_long {
                lines.push(' ');
                let length = 1 + self.random.below(3_000);
                lines.extend(std::iter::repeat_n('x', length));
            }
            lines.push('\n');
            if !is_cast && is_untagged {
                self.sockets[socket].side.untagged.push_back(number);
            } else if !is_cast {
                self.devices[device].memory.sends(number, to, session, now);
                if is_long {
                    self.long.insert(number, lines.lines().last().expect("a line").to_owned());
                }
            }
        }
        self.say(socket, lines.as_bytes());
        self.lines = lines;
    }

    /// Sends again what has no fate yet, and is due.
    fn send_again(&mut self, device: usize, socket: usize) {
        let Phase::In(session) = self.sockets[socket].side.phase else { return };
        let now = self.queue.now();
        let due = self.devices[device].memory.sends_again(session, now);
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for (number, to) in due {
            self.history.messages[number].attempts.push(Attempt { session, sent: now, told: None });
            // The same line, or it is another message.
            let _ = match self.long.get(&number) {
                Some(line) => writeln!(lines, "{line}"),
                None => writeln!(lines, "@{number} SEND user{to} {}", words(number)),
            };
        }
        if !lines.is_empty() {
            self.say(socket, lines.as_bytes());
        }
        self.lines = lines;
    }

    /// Asks where somebody is.
    fn ask_who(&mut self, socket: usize) {
        let Phase::In(session) = self.sockets[socket].side.phase else { return };
        let (user, asked) = (self.random.below(self.scene.users), self.queue.now());
        let (asks, node) = (Asks::Who(session), self.sockets[socket].host);
        let question = self.history.questions.len();
        let (answered, given_up) = (None, None);
        self.history.questions.push(Question { asks, node, user, asked, answered, given_up });
        self.say(socket, format!("@w{question} WHO user{user}\n").as_bytes());
    }
}

/// What a message with a tag says. Some say the same, and only their tag tells them apart.
fn words(number: usize) -> String {
    if number.is_multiple_of(8) { "hello".to_owned() } else { number.to_string() }
}
