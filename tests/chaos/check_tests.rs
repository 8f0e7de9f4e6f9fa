//! The checker is checked: it finds each kind of wrong in a history that is fine but for that.

use crate::check::{AFTERMATH_TIME, REPLY_TIME_MAX, Rule, check};
use crate::history::{
    Answer, Asks, End, Fate, History, Leaving, Message, Ms, Question, Seen, Session, Trouble,
};
use crate::plan::{Fault, Links};

/// Sessions of a fine history: user0 on node 0 sends to user1, who is on node 1 up to
/// 50,000 and then on node 2.
const ALICE: usize = 0;
const BOB: usize = 1;
const BOB_LATER: usize = 2;

#[test]
fn a_fine_history_has_nothing_wrong() {
    finds(&[], |_| {});
}

#[test]
fn what_was_delivered_was_seen() {
    finds(&[Rule::Lost], |history| {
        history.sessions[BOB].seen.remove(1);
    });
    // To excuse it, a connection of the recipient has to break, and just then.
    let loses_last = |history: &mut History, way: Leaving, at: Ms| {
        history.sessions[BOB].seen.pop();
        history.sessions[BOB].left = Some((at, way));
        history.sessions[BOB].ended = Some((at + 10, End::Closed));
    };
    let last = fine().messages[9].sent;
    finds(&[], |history| loses_last(history, Leaving::HangsUp, last + 5));
    finds(&[Rule::Lost], |history| loses_last(history, Leaving::HangsUp, last + 3_000));
    finds(&[Rule::Lost], |history| loses_last(history, Leaving::HangsUp, last - 3_000));
    finds(&[Rule::Lost], |history| loses_last(history, Leaving::HalfCloses, last + 5));
    finds(&[], |history| {
        loses_last(history, Leaving::HangsUp, last - 3_000);
        history.suffer(Fault::NodeFrozen(1), last - 3_500, last + 1_000);
    });
    finds(&[], |history| {
        history.sessions[BOB].seen.pop();
        history.sessions[BOB].left = None;
        history.sessions[BOB].ended = Some((last + 10, End::Broken));
        history.suffer(Fault::NodeKilled(1), last + 5, last + 3_000);
    });
    finds(&[Rule::Lost], |history| {
        history.sessions[BOB].seen.pop();
        history.suffer(Fault::NodeKilled(0), last + 5, last + 3_000);
        history.sessions[ALICE].ended = Some((last + 10, End::Broken));
        history.sessions[ALICE].left = None;
    });
}

#[test]
fn what_was_delivered_was_seen_by_all() {
    let joined = |history: &mut History, at: Ms| {
        history.sessions[BOB_LATER].asked = at;
        history.sessions[BOB_LATER].since = at + 5;
    };
    let last = fine().messages[9].sent;
    finds(&[Rule::Partial], |history| joined(history, last - 10));
    finds(&[], |history| joined(history, last));
    finds(&[], |history| {
        joined(history, last - 10);
        history.suffer(Fault::RedisFlushed, last - 20, last - 20);
    });
}

#[test]
fn what_was_not_delivered_was_not_seen() {
    finds(&[Rule::SeenAfterAll, Rule::FalseOffline], |history| history.tell(3, "offline"));
    finds(&[Rule::SeenAfterAll, Rule::CauselessUnavailable], |history| history.tell(3, "unavailable"));
    finds(&[Rule::CauselessTimeout], |history| history.tell(3, "timeout"));
    finds(&[], |history| {
        history.tell(3, "timeout");
        history.suffer(Fault::BrokerFrozen, 1_000, 4_000);
    });
    finds(&[Rule::Odd], |history| {
        history.tell(3, "limited");
        history.sessions[BOB].seen.remove(3);
    });
}

#[test]
fn a_request_has_one_reply_in_time() {
    finds(&[Rule::Unanswered], |history| history.messages[3].told.clear());
    finds(&[], |history| {
        history.messages[9].told.clear();
        history.sessions[ALICE].left = Some((history.messages[9].sent + 1, Leaving::HangsUp));
    });
    finds(&[Rule::AnsweredTwice], |history| {
        let told = history.messages[3].told[0].clone();
        history.messages[3].told.push(told);
    });
    let late = |history: &mut History| history.messages[9].told[0].0 += REPLY_TIME_MAX;
    finds(&[Rule::Late], late);
    finds(&[Rule::Slow], |history| history.messages[9].told[0].0 += 4_000);
    finds(&[], |history| {
        history.messages[9].told[0].0 += 4_000;
        history.suffer(Fault::BrokerFrozen, 20_000, 23_000);
    });
    finds(&[], |history| {
        late(history);
        let sent = history.messages[9].sent;
        history.suffer(Fault::NodeFrozen(0), sent, sent + 5_000);
    });
    finds(&[Rule::Late], |history| {
        late(history);
        let sent = history.messages[9].sent;
        history.suffer(Fault::NodeFrozen(1), sent, sent + 5_000);
    });
    finds(&[Rule::Unanswered], |history| history.questions[0].answered = None);
    finds(&[Rule::Unanswered], |history| history.questions[1].answered = None);
    finds(&[Rule::Late], |history| history.questions[0].asked = 0);
}

#[test]
fn nothing_is_shown_twice() {
    finds(&[Rule::ShownTwice], |history| {
        let seen = history.sessions[BOB].seen[9];
        history.sessions[BOB].seen.push(Seen { at: seen.at + 1, ..seen });
    });
    // By another session it may be.
    finds(&[], |history| {
        let seen = history.sessions[BOB].seen[9];
        history.sessions[BOB_LATER].seen.push(Seen { at: 60_000, ..seen });
    });
}

#[test]
fn messages_come_in_order() {
    finds(&[Rule::OutOfOrder], |history| history.sessions[BOB].seen.swap(3, 4));
    finds(&[Rule::OutOfOrder], |history| {
        history.sessions[BOB].seen.swap(3, 4);
        history.suffer(Fault::RedisFlushed, 60_000, 60_000);
    });
    finds(&[], |history| {
        history.sessions[BOB].seen.swap(3, 4);
        history.suffer(Fault::BrokerKilled, 1_000, 20_000);
    });
}

#[test]
fn messages_go_where_they_should() {
    finds(&[Rule::Misdirected], |history| history.sessions[BOB].seen[2].from = 7);
    finds(&[Rule::Lost, Rule::Misdirected], |history| history.sessions[BOB].seen[2].message = 99);
    finds(&[Rule::Misdirected], |history| {
        let seen = history.sessions[BOB].seen[2];
        history.sessions[ALICE].seen.push(seen);
    });
}

#[test]
fn who_is_there_is_not_offline() {
    let offline = |history: &mut History| {
        history.tell(3, "offline");
        history.sessions[BOB].seen.remove(3);
    };
    let sent = fine().messages[3].sent;
    finds(&[Rule::FalseOffline], offline);
    let with = |fault, from, to, rules: &[Rule]| {
        finds(rules, |history| {
            offline(history);
            history.suffer(fault, from, to);
        });
    };
    with(Fault::RedisFlushed, sent - 1_000, sent - 1_000, &[]);
    with(Fault::RedisFlushed, sent - 2_000, sent - 2_000, &[Rule::FalseOffline]);
    with(Fault::RedisFrozen, sent - 1_000, sent - 500, &[Rule::FalseOffline]);
    with(Fault::NodeFrozen(1), sent - 8_000, sent + 1_000, &[]);
    with(Fault::NodeFrozen(1), sent - 2_000, sent + 1_000, &[Rule::FalseOffline]);
    with(Fault::NodeFrozen(0), sent - 8_000, sent + 1_000, &[Rule::FalseOffline]);
    with(Fault::Cut(1, Links::Both), sent - 8_000, sent + 1_000, &[]);
    with(Fault::Cut(1, Links::Broker), sent - 8_000, sent + 1_000, &[Rule::FalseOffline]);
    // Who is nowhere for a moment is.
    finds(&[], |history| {
        history.tell(9, "offline");
        history.sessions[BOB].seen.pop();
        history.sessions[BOB].left = Some((history.messages[9].sent, Leaving::Quits));
        history.sessions[BOB].ended = Some((history.messages[9].sent + 1, End::Bye("quit".to_owned())));
    });
}

#[test]
fn who_tells_the_truth() {
    let says = |count, rules: &[Rule]| {
        finds(rules, |history| {
            history.questions[1].answered.as_mut().expect("it is").1 = Answer::Online(count)
        });
    };
    says(0, &[Rule::WrongPresence]);
    says(1, &[]);
    says(2, &[Rule::WrongPresence]);
    finds(&[], |history| {
        history.questions[1].answered.as_mut().expect("it is").1 = Answer::Online(0);
        history.suffer(Fault::RedisFlushed, 1_000, 1_000);
    });
    let error = Answer::Error("unavailable".to_owned());
    finds(&[Rule::CauselessUnavailable], |history| {
        history.questions[1].answered.as_mut().expect("it is").1 = error;
    });
}

#[test]
fn connections_stand() {
    let ends = |end: End, rules: &[Rule]| {
        finds(rules, |history| {
            history.sessions[BOB_LATER].left = None;
            history.sessions[BOB_LATER].ended = Some((70_000, end));
        });
    };
    ends(End::Broken, &[Rule::Dropped]);
    ends(End::Closed, &[Rule::Dropped]);
    ends(End::Bye("slow".to_owned()), &[Rule::Dropped]);
    finds(&[Rule::Dropped], |history| history.sessions[BOB].ended = Some((50_000, End::Closed)));
    finds(&[], |history| {
        history.sessions[BOB_LATER].left = None;
        history.sessions[BOB_LATER].ended = Some((70_000, End::Broken));
        history.suffer(Fault::NodeKilled(2), 69_990, 75_000);
    });
    finds(&[Rule::Odd], |history| history.sessions[BOB_LATER].ended = None);
    finds(&[Rule::Odd], |history| history.oddities.push((1, "a panic".to_owned())));
}

/// Spoils a fine history, and checks what is found in it.
#[track_caller]
fn finds(rules: &[Rule], spoil: impl FnOnce(&mut History)) {
    let mut history = fine();
    spoil(&mut history);
    let verdict = check(&history);
    let mut found: Vec<Rule> = verdict.wrongs.iter().map(|wrong| wrong.rule).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, rules, "{:#?}", verdict.wrongs);
}

fn fine() -> History {
    let quit = |at| (Some((at, Leaving::Quits)), Some((at + 5, End::Bye("quit".to_owned()))));
    let session = |user, node, since, (left, ended)| Session {
        user,
        node,
        asked: since - 5,
        since,
        left,
        ended,
        seen: vec![],
    };
    let mut history = History {
        sessions: vec![
            session(0, 0, 100, quit(80_000)),
            session(1, 1, 100, quit(50_000)),
            session(1, 2, 50_100, quit(80_000)),
        ],
        ..History::default()
    };
    for number in 0..10 {
        let sent = AFTERMATH_TIME + 1_000 * number as Ms;
        let told = vec![(sent + 2, Fate::Delivered)];
        history.messages.push(Message { session: ALICE, to: 1, sent, told });
        history.sessions[BOB].seen.push(Seen { at: sent + 1, from: 0, message: number });
    }
    let question =
        |asks, asked, answer| Question { asks, node: 0, user: 1, asked, answered: Some((asked + 3, answer)) };
    history.questions.push(question(Asks::Login, REPLY_TIME_MAX, Answer::In));
    history.questions.push(question(Asks::Who(ALICE), 10_000, Answer::Online(1)));
    history
}

impl History {
    fn tell(&mut self, message: usize, error: &str) {
        self.messages[message].told[0].1 = Fate::Error(error.to_owned());
    }

    fn suffer(&mut self, fault: Fault, from: Ms, to: Ms) {
        self.troubles.push(Trouble { fault, from, to: Some(to) });
    }
}
