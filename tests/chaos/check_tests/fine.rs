//! A history in which nothing is wrong, and ways to spoil it.

use crate::check::{AFTERMATH_TIME, REPLY_TIME_MAX};
use crate::history::{
    Answer, Asks, Attempt, Client, End, Fate, History, Leaving, Message, Ms, Question, Seen, Session, Trouble,
};
use crate::plan::Fault;

/// Clients of a fine history, and the sessions that they have: alice is on node 0 and sends
/// to the others in turn. bob is on node 1 up to 50,000 and then on node 2; carol is on node 1
/// and does not acknowledge.
pub const ALICE: usize = 0;
pub const BOB: usize = 1;
pub const CAROL: usize = 2;
pub const BOB_LATER: usize = 3;

/// Messages to each of them.
pub const COUNT: usize = 10;

/// The message to bob, and to carol, with this number.
pub const fn bobs(number: usize) -> usize {
    2 * number
}
pub const fn carols(number: usize) -> usize {
    2 * number + 1
}

/// When it is sent.
pub const fn sent(message: usize) -> Ms {
    AFTERMATH_TIME + 500 * message as Ms
}

pub fn fine() -> History {
    let client = |user, acks| Client { user, acks, seen: vec![] };
    let session = |client, node, since, left| Session {
        client,
        user: client,
        node,
        asked: since - 5,
        since,
        left: Some((left, Leaving::Quits)),
        ended: Some((left + 5, End::Bye("quit".to_owned()))),
        naps: vec![],
    };
    let mut history = History {
        clients: vec![client(0, true), client(1, true), client(2, false)],
        sessions: vec![
            session(ALICE, 0, 100, 80_000),
            session(BOB, 1, 100, 50_000),
            session(CAROL, 1, 100, 80_000),
            session(BOB, 2, 50_100, 80_000),
        ],
        ..History::default()
    };
    for number in 0..2 * COUNT {
        let to = if number % 2 == 0 { BOB } else { CAROL };
        history.messages.push(Message { client: ALICE, to, attempts: vec![attempt(number)] });
        let at = sent(number) + 1;
        let acked = (to == BOB).then_some(at);
        let seen = Seen { at, session: to, from: 0, message: number, is_shown: true, acked };
        history.clients[to].seen.push(seen);
    }
    let question =
        |asks, asked, answer| Question { asks, node: 0, user: 1, asked, answered: Some((asked + 3, answer)) };
    history.questions.push(question(Asks::Login, REPLY_TIME_MAX, Answer::In));
    history.questions.push(question(Asks::Who(ALICE), 10_000, Answer::Online(1)));
    history
}

pub fn attempt(message: usize) -> Attempt {
    let sent = sent(message);
    Attempt { session: ALICE, sent, told: Some((sent + 2, Fate::Delivered)) }
}

pub fn error(word: &str) -> Fate {
    Fate::Error(word.to_owned())
}

impl History {
    pub fn tell(&mut self, message: usize, fate: Fate) {
        self.messages[message].attempts[0].told.as_mut().expect("it is").1 = fate;
    }

    pub fn fail(&mut self, message: usize, word: &str) {
        self.tell(message, error(word));
    }

    /// The first attempt times out; the second gets what it got.
    pub fn retry(&mut self, message: usize) {
        let first = Attempt { told: Some((sent(message) + 1, error("timeout"))), ..attempt(message) };
        self.messages[message].attempts.insert(0, first);
        // What a memory alarm holds up may time out, and is not routed again.
        self.suffer(Fault::BrokerAlarm, sent(message), sent(message) + 1);
    }

    /// A client has not seen one of its messages.
    pub fn unsee(&mut self, client: usize, place: usize) {
        self.clients[client].seen.remove(place);
    }

    /// A client sees the fourth and the fifth of its messages the wrong way round.
    pub fn swap(&mut self, client: usize) {
        let seen = &mut self.clients[client].seen;
        seen.swap(3, 4);
        seen[4].at = seen[3].at;
    }

    /// A client sees one of its messages again.
    pub fn copy(&mut self, client: usize, session: usize, place: usize, at: Ms, is_shown: bool) {
        let seen = self.clients[client].seen[place];
        let acked = self.clients[client].acks.then_some(at);
        self.clients[client].seen.push(Seen { at, session, is_shown, acked, ..seen });
    }

    /// There are no messages to a user.
    pub fn forget(&mut self, user: usize) {
        for message in self.messages.iter_mut().filter(|message| message.to == user) {
            message.attempts[0].told = Some((message.sent() + 2, error("unavailable")));
        }
        self.suffer(Fault::BrokerAlarm, sent(0), sent(2 * COUNT));
    }

    pub fn quit(&mut self, session: usize, at: Ms) {
        self.sessions[session].left = Some((at, Leaving::Quits));
        self.sessions[session].ended = Some((at + 5, End::Bye("quit".to_owned())));
    }

    pub fn hang_up(&mut self, session: usize, at: Ms) {
        self.sessions[session].left = Some((at, Leaving::HangsUp));
        self.sessions[session].ended = Some((at + 10, End::Closed));
    }

    /// Its node is killed.
    pub fn fall(&mut self, session: usize, at: Ms) {
        self.sessions[session].left = None;
        self.sessions[session].ended = Some((at + 10, End::Broken));
        self.suffer(Fault::NodeKilled(self.sessions[session].node), at, at + 3_000);
    }

    /// Everything is so much later.
    pub fn delay(&mut self, time: Ms) {
        for session in &mut self.sessions {
            session.left.as_mut().expect("it is").0 += time;
            session.ended.as_mut().expect("it is").0 += time;
            (session.asked, session.since) = (session.asked + time, session.since + time);
        }
        for attempt in self.messages.iter_mut().flat_map(|message| &mut message.attempts) {
            attempt.sent += time;
            attempt.told.as_mut().expect("it is").0 += time;
        }
        for seen in self.clients.iter_mut().flat_map(|client| &mut client.seen) {
            seen.at += time;
            seen.acked = seen.acked.map(|acked| acked + time);
        }
        for question in &mut self.questions {
            question.asked += time;
            question.answered.as_mut().expect("it is").0 += time;
        }
    }

    pub fn suffer(&mut self, fault: Fault, from: Ms, to: Ms) {
        self.troubles.push(Trouble { fault, from, to: Some(to) });
    }
}
