//! What clients hear, and what they make of it: notes in the history, and acknowledgements.

use std::fmt::Write;

use pinpost::CloseReason;
use pinpost::ErrorCode;

use crate::device::Phase;
use crate::device::Shown;
use crate::history::Answer;
use crate::history::Asks;
use crate::history::End;
use crate::history::Fate;
use crate::history::Question;
use crate::history::Seen;
use crate::history::Session;
use crate::history::Time;
use crate::socket::DownEnd;
use crate::socket::UpEnd;
use crate::world::World;

impl World {
    /// What a node wrote has come to its client.
    pub fn reach_client(&mut self, socket: usize) {
        self.sockets[socket].is_down_set = false;
        self.hear(socket);
    }

    /// A client reads all that is there, unless it reads nothing now.
    pub fn hear(&mut self, socket: usize) {
        if self.sockets[socket].side.is_stalled || self.sockets[socket].side.phase == Phase::Over {
            return;
        }
        let of = &mut self.sockets[socket];
        let mut bytes = std::mem::take(&mut of.input);
        bytes.append(&mut of.down);
        let mut shown = std::mem::take(&mut self.shown);
        shown.clear();
        let mut at = 0;
        while let Some(end) = memchr(&bytes[at..]) {
            let line = std::str::from_utf8(&bytes[at..at + end]).expect("nodes say text");
            at += end + 1;
            self.hear_line(socket, line, &mut shown);
            if self.sockets[socket].side.phase == Phase::Over {
                break;
            }
        }
        // The rest of a line comes later.
        bytes.drain(..at);
        self.sockets[socket].input = bytes;
        self.make_room(socket);
        match &mut self.sockets[socket].side.held {
            Some(held) => held.extend_from_slice(&shown),
            None => self.acknowledge(socket, &shown),
        }
        self.shown = shown;
        if let Some(end) = self.sockets[socket].down_end {
            let end = if end == DownEnd::Closed { End::Closed } else { End::Broken };
            self.is_over(socket, end);
        }
    }

    /// Nothing more is heard on a connection.
    pub fn is_over(&mut self, socket: usize, end: End) {
        let now = self.queue.now();
        let side = &mut self.sockets[socket].side;
        let device = side.device;
        let phase = std::mem::replace(&mut side.phase, Phase::Over);
        let farewell = self.byes.remove(&socket);
        match phase {
            Phase::Over => return,
            Phase::Greeting => {}
            Phase::Entering(question) => {
                let question = &mut self.history.questions[question];
                match farewell {
                    Some(reason) => question.answered = Some((now, Answer::Ended(reason))),
                    None => question.given_up = Some(now),
                }
            }
            Phase::In(session) => {
                let end = farewell.map_or(end, End::Bye);
                self.note(|| format!("session {session} ends: {end:?}"));
                let of = &mut self.history.sessions[session];
                of.ended = Some((now, end));
                for rest in of.naps.iter_mut().chain(&mut of.stalls) {
                    rest.1 = rest.1.min(now);
                }
                self.devices[device].memory.loses(session, now);
            }
        }
        if self.sockets[socket].id.is_some() && end != End::Closed {
            self.end_up(socket, UpEnd::Reset);
        }
        if self.devices[device].socket == Some(socket) {
            self.devices[device].socket = None;
        }
    }

    /// Acknowledges what was shown.
    pub fn acknowledge(&mut self, socket: usize, shown: &[Shown]) {
        if shown.is_empty() {
            return;
        }
        let now = self.queue.now();
        let client = self.sockets[socket].side.device;
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for Shown { place, from, id, id_length, .. } in shown {
            self.history.clients[client].seen[*place].acked = Some(now);
            let id = std::str::from_utf8(&id[..*id_length]).expect("an id");
            let _ = writeln!(lines, "ACK {id} user{from}");
        }
        self.say(socket, lines.as_bytes());
        self.lines = lines;
    }

    fn hear_line(&mut self, socket: usize, line: &str, shown: &mut Vec<Shown>) {
        let is_known = match self.sockets[socket].side.phase {
            Phase::Greeting => self.greeted(socket, line),
            Phase::Entering(question) => self.let_in(socket, question, line),
            Phase::In(session) => self.told(socket, session, line, shown),
            Phase::Over => Some(()),
        };
        if is_known.is_none() {
            let now = self.queue.now();
            self.history.oddities.push((now, format!("socket {socket} heard {line:?}")));
        }
    }

    fn greeted(&mut self, socket: usize, line: &str) -> Option<()> {
        if let Some(bye) = line.strip_prefix("BYE ") {
            return self.bye(socket, bye);
        }
        line.strip_prefix("HELLO pinpost 1 ")?;
        let device = self.sockets[socket].side.device;
        let (user, acks) = (self.devices[device].user, self.devices[device].acks);
        let (node, asked) = (self.sockets[socket].host, self.queue.now());
        let question = self.history.questions.len();
        let (answered, given_up) = (None, None);
        self.history.questions.push(Question { asks: Asks::Login, node, user, asked, answered, given_up });
        self.sockets[socket].side.phase = Phase::Entering(question);
        let line = format!("LOGIN user{user}{}\n", if acks { " ack" } else { "" });
        self.say(socket, line.as_bytes());
        Some(())
    }

    fn let_in(&mut self, socket: usize, question: usize, line: &str) -> Option<()> {
        let since = self.queue.now();
        if let Some(bye) = line.strip_prefix("BYE ") {
            return self.bye(socket, bye);
        }
        if let Some(rest) = line.strip_prefix("ERR ") {
            let code = ErrorCode::parse(rest.split(' ').next()?)?;
            self.history.questions[question].answered = Some((since, Answer::Error(code)));
            // Its device comes again, here or elsewhere.
            self.sockets[socket].side.phase = Phase::Greeting;
            self.hang_up(socket);
            return Some(());
        }
        line.strip_prefix("OK user")?;
        self.history.questions[question].answered = Some((since, Answer::In));
        let Question { node, user, asked, .. } = self.history.questions[question];
        let client = self.sockets[socket].side.device;
        let session = self.history.sessions.len();
        let (left, ended, naps, stalls) = (None, None, vec![], vec![]);
        self.history.sessions.push(Session { client, user, node, asked, since, left, ended, naps, stalls });
        self.sockets[socket].side.phase = Phase::In(session);
        self.note(|| {
            format!("session {session}: client {client} of user{user} is in on node {node}, socket {socket}")
        });
        Some(())
    }

    fn bye(&mut self, socket: usize, bye: &str) -> Option<()> {
        let reason = CloseReason::parse(bye.split(' ').next()?)?;
        self.byes.insert(socket, reason);
        Some(())
    }

    fn told(&mut self, socket: usize, session: usize, line: &str, shown: &mut Vec<Shown>) -> Option<()> {
        let now = self.queue.now();
        if let Some(message) = line.strip_prefix("MSG user") {
            return self.see(socket, session, message, shown);
        }
        if let Some(tagged) = line.strip_prefix('@') {
            let (tag, reply) = tagged.split_once(' ')?;
            if let Some(question) = tag.strip_prefix('w') {
                return self.answered(session, question.parse().ok()?, reply);
            }
            let number = tag.parse().ok()?;
            let fate = fate(reply, |id| id == tag)?;
            self.tell_fate(number, session, fate, now)?;
            self.devices[self.sockets[socket].side.device].memory.hears(number, session, fate, now);
            return Some(());
        }
        if let Some(bye) = line.strip_prefix("BYE ") {
            return self.bye(socket, bye);
        }
        // The reply to the first message without a tag; or to a CAST that is over a limit.
        let fate = fate(line, |id| id.contains('-'))?;
        let number = self.sockets[socket].side.untagged.pop_front()?;
        self.tell_fate(number, session, fate, now)
    }

    fn see(&mut self, socket: usize, session: usize, message: &str, shown: &mut Vec<Shown>) -> Option<()> {
        let at = self.queue.now();
        let (from, rest) = message.split_once(' ')?;
        let (id, text) = rest.split_once(' ')?;
        let from = from.parse().ok()?;
        // Its number is what it says, or its tag.
        let message: usize = text.split(' ').next()?.parse().or_else(|_| id.parse()).ok()?;
        let client = self.sockets[socket].side.device;
        let device = &mut self.devices[client];
        let is_shown = !device.acks || device.memory.sees(from, message);
        let acks = device.acks;
        let seen = &mut self.history.clients[client].seen;
        seen.push(Seen { at, session, from, message, is_shown, acked: None });
        if acks {
            let mut its = [0; 40];
            its.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
            shown.push(Shown { place: seen.len() - 1, from, id: its, id_length: id.len() });
        }
        Some(())
    }

    /// Notes what the sender of a message was told.
    fn tell_fate(&mut self, number: usize, session: usize, fate: Fate, now: Time) -> Option<()> {
        let attempts = &mut self.history.messages.get_mut(number)?.attempts;
        let mut here = attempts.iter_mut().filter(|attempt| attempt.session == session).peekable();
        here.peek()?;
        match here.find(|attempt| attempt.told.is_none()) {
            Some(attempt) => attempt.told = Some((now, fate)),
            None => self.history.again.push((now, number)),
        }
        Some(())
    }

    fn answered(&mut self, session: usize, question: usize, reply: &str) -> Option<()> {
        let words: Vec<&str> = reply.split(' ').collect();
        let answer = match words[..] {
            ["OK", _, "offline"] => Answer::Online(0),
            ["OK", _, "online", count] => Answer::Online(count.parse().ok()?),
            ["ERR", word, ..] => Answer::Error(ErrorCode::parse(word)?),
            _ => return None,
        };
        let now = self.queue.now();
        let question = self.history.questions.get_mut(question)?;
        let is_new = question.answered.replace((now, answer)).is_none();
        (is_new && question.asks == Asks::Who(session)).then_some(())
    }
}

fn fate(reply: &str, is_id: impl Fn(&str) -> bool) -> Option<Fate> {
    if let Some(rest) = reply.strip_prefix("ERR ") {
        return ErrorCode::parse(rest.split(' ').next()?).map(Fate::Error);
    }
    let (id, word) = reply.strip_prefix("OK ")?.split_once(' ')?;
    match word {
        "delivered" if is_id(id) => Some(Fate::Delivered),
        "stored" if is_id(id) => Some(Fate::Stored),
        _ => None,
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}
