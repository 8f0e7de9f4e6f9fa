//! A history in which nothing is wrong, and ways to spoil it.

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::history::Answer;
use crate::history::Asks;
use crate::history::Attempt;
use crate::history::Client;
use crate::history::End;
use crate::history::Fate;
use crate::history::History;
use crate::history::Leaving;
use crate::history::Message;
use crate::history::Question;
use crate::history::Rules;
use crate::history::Seen;
use crate::history::Session;
use crate::history::Time;
use crate::history::Trouble;
use crate::history::fault::Fault;
use crate::history::margins::Margins;

/// How the nodes are set up.
const RULES: Rules = Rules { mailbox_max: 100_000, sessions_max: 8, outbox_bytes_max: 256 * 1024 };

/// The first message is sent when nothing that was wrong at the beginning is felt any more.
const BEGIN: Time = 12_000;

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
pub const fn sent(message: usize) -> Time {
    BEGIN + 500 * message as Time
}

/// Those of a real run: in milliseconds.
pub fn margins() -> Margins {
    Margins::real()
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
        ended: Some((left + 5, End::Bye(CloseReason::Quit))),
        naps: vec![],
        stalls: vec![],
    };
    let mut history = History::new(margins(), RULES);
    history.clients = vec![client(0, true), client(1, true), client(2, false)];
    history.sessions = vec![
        session(ALICE, 0, 100, 80_000),
        session(BOB, 1, 100, 50_000),
        session(CAROL, 1, 100, 80_000),
        session(BOB, 2, 50_100, 80_000),
    ];
    for number in 0..2 * COUNT {
        let to = if number % 2 == 0 { BOB } else { CAROL };
        history.messages.push(message(to, attempt(number)));
        let at = sent(number) + 1;
        let acked = (to == BOB).then_some(at);
        let seen = Seen { at, session: to, from: 0, message: number, is_shown: true, acked };
        history.clients[to].seen.push(seen);
    }
    let question = |asks, asked, answer| {
        let answered = Some((asked + 3, answer));
        Question { asks, node: 0, user: 1, asked, answered, given_up: None }
    };
    history.questions.push(question(Asks::Login, margins().reply, Answer::In));
    history.questions.push(question(Asks::Who(ALICE), 10_000, Answer::Online(1)));
    history
}

pub fn attempt(message: usize) -> Attempt {
    let sent = sent(message);
    Attempt { session: ALICE, sent, told: Some((sent + 2, Fate::Delivered)) }
}

fn message(to: usize, attempt: Attempt) -> Message {
    Message { client: ALICE, to, is_cast: false, is_tagged: true, attempts: vec![attempt] }
}

impl History {
    pub fn tell(&mut self, message: usize, fate: Fate) {
        self.messages[message].attempts[0].told.as_mut().expect("it is").1 = fate;
    }

    pub fn fail(&mut self, message: usize, code: ErrorCode) {
        self.tell(message, Fate::Error(code));
    }

    /// There are so many further messages to a client, each of which it sees.
    pub fn more(&mut self, client: usize, count: usize) {
        for _ in 0..count {
            let number = self.messages.len();
            self.messages.push(message(client, attempt(2 * COUNT)));
            let seen = self.clients[client].seen[0];
            let at = sent(2 * COUNT) + 1;
            let acked = seen.acked.map(|_| at);
            self.clients[client].seen.push(Seen { at, message: number, acked, ..seen });
        }
    }

    /// The first attempt times out; the second gets what it got.
    pub fn retry(&mut self, message: usize) {
        let first =
            Attempt { told: Some((sent(message) + 1, Fate::Error(ErrorCode::Timeout))), ..attempt(message) };
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
    pub fn copy(&mut self, client: usize, session: usize, place: usize, at: Time, is_shown: bool) {
        let seen = self.clients[client].seen[place];
        let acked = self.clients[client].acks.then_some(at);
        self.clients[client].seen.push(Seen { at, session, is_shown, acked, ..seen });
    }

    /// There are no messages to a user.
    pub fn forget(&mut self, user: usize) {
        for message in self.messages.iter_mut().filter(|message| message.to == user) {
            message.attempts[0].told = Some((message.sent() + 2, Fate::Error(ErrorCode::Unavailable)));
        }
        self.suffer(Fault::BrokerAlarm, sent(0), sent(2 * COUNT));
    }

    pub fn quit(&mut self, session: usize, at: Time) {
        self.sessions[session].left = Some((at, Leaving::Quits));
        self.sessions[session].ended = Some((at + 5, End::Bye(CloseReason::Quit)));
    }

    pub fn hang_up(&mut self, session: usize, at: Time) {
        self.sessions[session].left = Some((at, Leaving::HangsUp));
        self.sessions[session].ended = Some((at + 10, End::Closed));
    }

    /// Its node is killed.
    pub fn fall(&mut self, session: usize, at: Time) {
        self.sessions[session].left = None;
        self.sessions[session].ended = Some((at + 10, End::Broken));
        self.suffer(Fault::NodeKilled(self.sessions[session].node), at, at + 3_000);
    }

    /// Everything is so much later.
    pub fn delay(&mut self, time: Time) {
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

    pub fn suffer(&mut self, fault: Fault, from: Time, to: Time) {
        self.troubles.push(Trouble { fault, from, to: Some(to) });
    }
}
