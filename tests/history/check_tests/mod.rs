//! The checker is checked: it finds each kind of wrong in a history that is fine but for that.

mod arrivals;
mod fine;

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::check_tests::fine::ALICE;
use crate::check_tests::fine::BOB;
use crate::check_tests::fine::BOB_LATER;
use crate::check_tests::fine::CAROL;
use crate::check_tests::fine::COUNT;
use crate::check_tests::fine::attempt;
use crate::check_tests::fine::bobs;
use crate::check_tests::fine::carols;
use crate::check_tests::fine::fine;
use crate::check_tests::fine::margins;
use crate::check_tests::fine::sent;
use crate::history::Answer;
use crate::history::Attempt;
use crate::history::Client;
use crate::history::End;
use crate::history::Fate;
use crate::history::History;
use crate::history::Leaving;
use crate::history::Question;
use crate::history::Seen;
use crate::history::Session;
use crate::history::Time;
use crate::history::check::Rule;
use crate::history::check::check;
use crate::history::fault::Fault;
use crate::history::fault::Links;

#[test]
fn a_fine_history_has_nothing_wrong() {
    finds(&[], |_| {});
}

#[test]
fn a_loss_is_found() {
    finds(&[Rule::Lost], |history| history.unsee(BOB, 1));
    finds(&[Rule::Lost], |history| history.unsee(CAROL, 1));
    finds(&[Rule::Lost], |history| {
        history.unsee(BOB, 1);
        history.tell(bobs(1), Fate::Stored);
    });
    // What excuses carol's loss, see below, excuses nothing of what was acknowledged.
    let last = bobs(COUNT - 1);
    finds(&[Rule::Lost], |history| {
        history.unsee(BOB, COUNT - 1);
        history.hang_up(BOB, sent(last) + 5);
    });
    finds(&[Rule::Lost], |history| {
        history.unsee(BOB, COUNT - 1);
        history.fall(BOB, sent(last) + 5);
    });
    // The second attempt is told, the first is lost: it is the same message.
    finds(&[Rule::Lost], |history| {
        history.unsee(BOB, 1);
        history.retry(bobs(1));
    });
}

#[test]
fn a_duplicate_is_found() {
    finds(&[Rule::ShownTwice, Rule::Copied], |history| history.copy(BOB, BOB, 9, sent(bobs(9)) + 10, true));
    finds(&[Rule::ShownTwice], |history| history.copy(CAROL, CAROL, 9, sent(carols(9)) + 10, true));
    // The client dropped it, but should not have been sent it, on whichever connection.
    finds(&[Rule::Copied], |history| history.copy(BOB, BOB, 9, sent(bobs(9)) + 10, false));
    finds(&[Rule::Copied], |history| history.copy(BOB, BOB_LATER, 9, 51_000, false));
    finds(&[Rule::Copied], |history| {
        history.sessions[BOB_LATER].asked = sent(bobs(9)) - 5;
        history.sessions[BOB_LATER].since = sent(bobs(9));
        history.copy(BOB, BOB_LATER, 9, sent(bobs(9)) + 1, false);
        history.copy(BOB, BOB, 9, sent(bobs(9)) + 10, false);
    });
    finds(&[Rule::Odd], |history| history.clients[BOB].seen[3].is_shown = false);
}

#[test]
fn a_reorder_is_found() {
    finds(&[Rule::OutOfOrder], |history| history.swap(BOB));
    finds(&[Rule::OutOfOrder], |history| history.swap(CAROL));
    // On one connection, though the client had it from the other one already: none is excused by the other.
    finds(&[Rule::OutOfOrder], |history| {
        history.sessions[BOB_LATER].asked = 90;
        history.sessions[BOB_LATER].since = 95;
        for message in 0..COUNT {
            history.copy(BOB, BOB_LATER, message, sent(bobs(message)) + 1, false);
        }
        history.clients[BOB].seen.swap(COUNT + 3, COUNT + 4);
        history.questions.clear();
    });
    // What comes from a mailbox comes in order too.
    finds(&[Rule::OutOfOrder], |history| {
        for message in 0..COUNT {
            let seen = &mut history.clients[BOB].seen[message];
            (seen.session, seen.at, seen.acked) = (BOB_LATER, 50_100 + seen.at / 100, Some(51_000));
            history.tell(bobs(message), Fate::Stored);
        }
        history.sessions[BOB].ended = Some((5_000, End::Bye(CloseReason::Quit)));
        history.sessions[BOB].left = Some((4_995, Leaving::Quits));
        history.swap(BOB);
        history.questions.clear();
    });
}

#[test]
fn a_misdelivery_is_found() {
    finds(&[Rule::Misdirected], |history| history.clients[BOB].seen[2].from = 7);
    finds(&[Rule::Lost, Rule::Misdirected], |history| history.clients[BOB].seen[2].message = 99);
    finds(&[Rule::Misdirected], |history| {
        let seen = history.clients[BOB].seen[2];
        history.clients[CAROL].seen.insert(2, Seen { session: CAROL, ..seen });
    });
    // Who it is for does not get it.
    finds(&[Rule::Lost, Rule::Misdirected], |history| {
        let seen = history.clients[BOB].seen.remove(2);
        history.clients[ALICE].seen.push(Seen { session: ALICE, ..seen });
    });
}

#[test]
fn what_is_delivered_was_acknowledged_before() {
    finds(&[Rule::Unacknowledged], |history| history.clients[BOB].seen[3].acked = None);
    finds(&[Rule::Unacknowledged], |history| history.clients[BOB].seen[3].acked = Some(sent(bobs(3)) + 3));
    finds(&[], |history| history.clients[BOB].seen[3].acked = Some(sent(bobs(3)) + 2));
    // A copy is acknowledged as well.
    finds(&[], |history| {
        history.clients[BOB].seen[9].acked = None;
        history.hang_up(BOB, sent(bobs(9)) + 5);
        history.sessions[BOB_LATER].asked = sent(bobs(9)) + 2_000;
        history.sessions[BOB_LATER].since = sent(bobs(9)) + 2_100;
        history.copy(BOB, BOB_LATER, 9, sent(bobs(9)) + 2_200, false);
        history.messages[bobs(9)].attempts[0].told = Some((sent(bobs(9)) + 2_300, Fate::Delivered));
    });
    // Another client of the user may do it, or show it without.
    finds(&[], |history| {
        history.clients[BOB].seen[3].acked = None;
        let seen = history.clients[BOB].seen[3];
        history.sessions[CAROL].user = 1;
        history.clients[CAROL] = Client { user: 1, acks: false, seen: vec![Seen { session: CAROL, ..seen }] };
        history.forget(2);
        history.questions.clear();
        history.sessions[CAROL].ended = Some((sent(bobs(3)) + 20, End::Bye(CloseReason::Quit)));
        history.sessions[CAROL].left = Some((sent(bobs(3)) + 10, Leaving::Quits));
        history.sessions[CAROL].since = sent(bobs(2)) + 100;
    });
}

#[test]
fn what_is_stored_is_shown_later() {
    let stores = |history: &mut History, message: usize| {
        let seen = &mut history.clients[BOB].seen[message];
        (seen.session, seen.at, seen.acked) = (BOB_LATER, 50_200, None);
        history.tell(bobs(message), Fate::Stored);
    };
    // With a session that is there it would be strange.
    finds(&[Rule::StoredThough], |history| stores(history, 9));
    let away = |history: &mut History| history.quit(BOB, sent(bobs(9)) - 10);
    finds(&[], |history| {
        stores(history, 9);
        away(history);
    });
    finds(&[Rule::Lost], |history| {
        history.unsee(BOB, 9);
        history.tell(bobs(9), Fate::Stored);
        away(history);
    });
    // A Redis that goes back to what it had before has lost it.
    let told = sent(bobs(9)) + 2;
    for (at, rules) in [(told + 500, &[][..]), (told + 501, &[Rule::Lost])] {
        finds(rules, |history| {
            history.unsee(BOB, 9);
            history.tell(bobs(9), Fate::Stored);
            away(history);
            history.suffer(Fault::RedisOlder(500), at, at);
        });
    }
    finds(&[], |history| {
        stores(history, 9);
        history.suffer(Fault::PresenceLost, 10_000, 10_000);
    });
    finds(&[], |history| {
        stores(history, 9);
        history.sessions[BOB].naps.push((sent(bobs(9)) - 5_000, sent(bobs(9))));
    });
}

#[test]
fn without_ack_the_kernel_may_lose() {
    // To excuse it, a connection of the recipient has to break, and just then.
    let last = sent(carols(9));
    let loses = |rules: &[Rule], spoil: &dyn Fn(&mut History)| {
        finds(rules, |history| {
            history.unsee(CAROL, 9);
            spoil(history);
        });
    };
    loses(&[], &|history| history.hang_up(CAROL, last + 5));
    loses(&[Rule::Lost], &|history| history.hang_up(CAROL, last + 3_000));
    loses(&[Rule::Lost], &|history| history.hang_up(CAROL, last - 3_000));
    loses(&[Rule::Lost], &|history| {
        history.sessions[CAROL].left = Some((last + 5, Leaving::HalfCloses));
        history.sessions[CAROL].ended = Some((last + 10, End::Closed));
    });
    loses(&[], &|history| {
        history.hang_up(CAROL, last - 3_000);
        history.suffer(Fault::NodeFrozen(1), last - 3_500, last + 1_000);
    });
    let late = margins().note.max(margins().way);
    for (frozen, rules) in [(late, &[][..]), (late + 1, &[Rule::Lost])] {
        loses(rules, &|history| {
            history.hang_up(CAROL, last - 3_000);
            history.suffer(Fault::NodeFrozen(1), last - 3_000 + frozen, last + 1_000);
        });
    }
    loses(&[], &|history| {
        history.fall(CAROL, last + 5);
        history.quit(BOB, last);
    });
    loses(&[Rule::Lost], &|history| history.fall(ALICE, last + 5));
    // Or one that was just logging in.
    let enters = |rules: &[Rule], answered: bool, killed: Time| {
        loses(rules, &|history| {
            let (asked, user) = (last - 5, CAROL);
            let answered = answered.then_some((last + 8, Answer::In));
            history.questions.push(Question { asked, user, answered, node: 2, ..history.questions[0] });
            history.suffer(Fault::NodeKilled(2), killed, killed + 100);
        });
    };
    let late = margins().note + margins().way;
    enters(&[], false, last + 2 + late);
    enters(&[Rule::Lost], false, last + 3 + late);
    enters(&[Rule::Lost], true, last + 5);
    // The same for what was stored: when it was drained.
    let stored = |rules: &[Rule], came: Time, fell: Time| {
        loses(rules, &|history| {
            history.tell(carols(9), Fate::Stored);
            history.quit(CAROL, last - 10);
            let session = Session { asked: came - 5, since: came, ..history.sessions[CAROL].clone() };
            history.sessions.push(session);
            history.hang_up(4, fell);
        });
    };
    stored(&[], last + 5_000, last + 5_100);
    stored(&[Rule::Lost], last + 5_000, last + 9_000);
    stored(&[Rule::Lost], last - 5_000, last - 4_900);
    // Who stored it died before it could tell of it, and nobody has logged in since.
    let died = last + margins().soon;
    for (at, came, rules) in
        [(died, died, &[][..]), (died + 1, died, &[Rule::Lost]), (died, died + 1, &[Rule::Lost])]
    {
        loses(rules, &|history| {
            history.tell(carols(9), Fate::Stored);
            history.messages[carols(9)].attempts[0].told = Some((last, Fate::Stored));
            history.fall(ALICE, at);
            let session = Session { asked: came, since: came + 5, ..history.sessions[CAROL].clone() };
            history.sessions.push(session);
        });
    }
}

#[test]
fn what_was_delivered_was_seen_by_all() {
    let joined = |history: &mut History, at: Time| {
        history.sessions[BOB_LATER].asked = at;
        history.sessions[BOB_LATER].since = at + 5;
    };
    let last = sent(bobs(9));
    finds(&[Rule::Partial], |history| joined(history, last - 10));
    finds(&[], |history| joined(history, last));
    finds(&[], |history| {
        joined(history, last - 10);
        history.suffer(Fault::PresenceLost, last - 20, last - 20);
    });
    // It comes back to a node that its user has just left.
    for (node, left, rules) in [
        (2, last - 20, &[][..]),
        (1, last - 20, &[Rule::Partial]),
        (2, last - 20 - margins().soon, &[Rule::Partial]),
    ] {
        finds(rules, |history| {
            joined(history, last - 10);
            history.sessions.push(Session {
                asked: left - 20,
                since: left - 15,
                node,
                ..history.sessions[BOB].clone()
            });
            history.quit(4, left);
        });
    }
    // It was with the broker, or not yet, when that was killed.
    for (killed, rules) in [(last + 3_002, &[][..]), (last + 3_003, &[Rule::Partial])] {
        finds(rules, |history| {
            joined(history, last - 10);
            history.suffer(Fault::BrokerKilled, killed, killed + 1_000);
        });
    }
    finds(&[], |history| {
        joined(history, last - 10);
        history.sessions[BOB_LATER].naps.push((last - 5, last + 500));
    });
}

#[test]
fn what_was_not_delivered_was_not_seen() {
    finds(&[Rule::SeenAfterAll, Rule::Offline], |history| history.fail(3, ErrorCode::Offline));
    finds(&[Rule::SeenAfterAll, Rule::CauselessUnavailable], |history| {
        history.fail(3, ErrorCode::Unavailable)
    });
    finds(&[Rule::CauselessTimeout], |history| history.fail(3, ErrorCode::Timeout));
    // Who read nothing may have been cut off, though its node was killed before it could know.
    for (stalled, rules) in [(45_000, &[][..]), (44_999, &[Rule::CauselessTimeout])] {
        finds(rules, |history| {
            history.rules.mailbox_max = 0;
            history.fail(bobs(3), ErrorCode::Timeout);
            history.sessions[BOB].stalls.push((sent(bobs(3)) - 1, stalled));
            history.fall(BOB, 45_000);
        });
    }
    // Behind the rest for which it was cut off it may read and rest again; but it is sent nothing new.
    for (number, rules) in [(9, &[][..]), (8, &[Rule::CauselessTimeout])] {
        finds(rules, |history| {
            history.rules.mailbox_max = 0;
            history.fail(bobs(number), ErrorCode::Timeout);
            let sent = sent(bobs(number));
            history.sessions[BOB].stalls = vec![(sent - 1, sent + 990), (40_000, 49_000)];
            history.sessions[BOB].left = None;
            history.sessions[BOB].ended = Some((50_000, End::Bye(CloseReason::Slow)));
        });
    }
    // A fault was at work while it waited for its fate.
    let at = sent(bobs(3));
    let failed = |rules: &[Rule], code: ErrorCode, fault: Fault, from: Time, to: Time| {
        finds(rules, |history| {
            history.fail(bobs(3), code);
            history.suffer(fault, from, to);
            if code == ErrorCode::Unavailable {
                history.unsee(BOB, 3);
            }
            // Node 2 is one where bob was, and perhaps is.
            let session = Session { node: 2, asked: 1, since: 2, ..history.sessions[BOB].clone() };
            history.sessions.push(session);
            history.quit(4, 50);
        });
    };
    let codes = [
        (ErrorCode::Timeout, Rule::CauselessTimeout, 0),
        (ErrorCode::Unavailable, Rule::CauselessUnavailable, margins().doubt),
    ];
    for (word, rule, doubt) in codes {
        let at_least = at - doubt - margins().back;
        failed(&[], word, Fault::PresenceLost, 1_000, at_least);
        failed(&[rule], word, Fault::PresenceLost, 1_000, at_least - 1);
        failed(&[], word, Fault::BrokerFrozen, at + 2, at + 100);
        failed(&[rule], word, Fault::BrokerFrozen, at + 3, at + 100);
        let at_least = at - doubt - margins().death;
        failed(&[], word, Fault::NodeKilled(2), at_least, at_least + 100);
        failed(&[rule], word, Fault::NodeKilled(2), at_least - 1, at_least + 100);
    }
    // What is lost on the way is sent again.
    failed(&[Rule::CauselessTimeout], ErrorCode::Timeout, Fault::BatchesLost, at, at + 100);
    // A node where he never was is back under a new id.
    for (fault, rules) in [
        (Fault::NodeFrozen(2), &[][..]),
        (Fault::Cut(2, Links::Both), &[]),
        (Fault::Cut(2, Links::Broker), &[Rule::CauselessUnavailable]),
    ] {
        finds(rules, |history| {
            history.fail(bobs(3), ErrorCode::Unavailable);
            history.unsee(BOB, 3);
            history.suffer(fault, 1_000, at - 5_000);
        });
    }
    // One that has a new id is not done with its sessions, and is killed.
    let renamed = at - margins().doubt - margins().back - 1;
    for (killed, rules) in [(true, &[][..]), (false, &[Rule::CauselessUnavailable])] {
        finds(rules, |history| {
            history.fail(bobs(3), ErrorCode::Unavailable);
            history.unsee(BOB, 3);
            history.suffer(Fault::PresenceLost, 1_000, renamed);
            if killed {
                history.suffer(Fault::NodeKilled(2), at - 10, at - 5);
            }
        });
    }
    for (left, rules) in [(at + 1, &[][..]), (at + 3, &[Rule::CauselessTimeout])] {
        finds(rules, |history| {
            history.fail(bobs(3), ErrorCode::Timeout);
            history.quit(BOB, left);
            history.clients[BOB].seen[4..].iter_mut().for_each(|seen| seen.session = BOB_LATER);
            (history.sessions[BOB_LATER].asked, history.sessions[BOB_LATER].since) = (left + 5, left + 10);
            history.suffer(Fault::NodeFrozen(2), 1_000, at - margins().doubt);
            history.questions.clear();
        });
    }
    // Nobody is offline, whether he is there or not: there is a mailbox.
    finds(&[Rule::Offline], |history| {
        history.fail(bobs(9), ErrorCode::Offline);
        history.unsee(BOB, 9);
        history.quit(BOB, sent(bobs(9)) - 10);
        history.suffer(Fault::PresenceLost, 1_000, 1_000);
    });
    finds(&[Rule::MailboxFull], |history| {
        history.fail(bobs(3), ErrorCode::MailboxFull);
        history.unsee(BOB, 3);
    });
    // What a session did not take came back too late to go elsewhere.
    let last = bobs(9);
    for (rest, rules) in [(3_000, &[][..]), (2_999, &[Rule::CauselessUnavailable])] {
        finds(rules, |history| {
            let fate = Fate::Error(ErrorCode::Unavailable);
            history.messages[last].attempts[0].told = Some((sent(last) + 10_000, fate));
            history.unsee(BOB, 9);
            history.sessions[BOB].naps.push((sent(last), sent(last) + rest));
        });
    }
    // A second attempt that fails says nothing of the first.
    finds(&[], |history| {
        history.fail(bobs(3), ErrorCode::Timeout);
        let again = Attempt {
            told: Some((sent(bobs(3)) + 20, Fate::Error(ErrorCode::Unavailable))),
            ..attempt(bobs(3))
        };
        history.messages[bobs(3)].attempts.push(again);
        history.suffer(Fault::BrokerFrozen, at, at);
    });
}

#[test]
fn timeouts_are_rare() {
    let late = |count: usize, rules: &[Rule]| {
        finds(rules, |history| {
            history.more(CAROL, 1_980);
            (0..count).for_each(|message| history.fail(message, ErrorCode::Timeout));
            history.suffer(Fault::BrokerFrozen, 1_000, 30_000);
        });
    };
    late(100, &[]);
    late(101, &[Rule::TooManyTimeouts]);
}

#[test]
fn a_limit_has_a_cause() {
    let at = sent(bobs(3));
    let limited = |rules: &[Rule], spoil: &dyn Fn(&mut History)| {
        finds(rules, |history| {
            history.fail(bobs(3), ErrorCode::Limited);
            history.unsee(BOB, 3);
            spoil(history);
        });
    };
    limited(&[Rule::CauselessLimit], &|_| {});
    // Its recipient had no room, or might not have had.
    let naps = |history: &mut History, to: Time| history.sessions[BOB].naps.push((0, to));
    limited(&[], &|history| naps(history, at - margins().full + 1));
    limited(&[Rule::CauselessLimit], &|history| naps(history, at - margins().full));
    limited(&[], &|history| history.suffer(Fault::BrokerFrozen, at, at));
    limited(&[Rule::CauselessLimit], &|history| history.suffer(Fault::BrokerFrozen, at + 3, at + 3));
    // Who does not acknowledge waits.
    limited(&[Rule::CauselessLimit], &|history| {
        naps(history, at);
        history.clients[ALICE].acks = false;
    });
    // With it, as many were under way from one node as may fill a lane.
    let last = bobs(COUNT - 1);
    for (count, node, rules) in
        [(20, 0, &[][..]), (19, 0, &[Rule::CauselessLimit]), (20, 2, &[Rule::CauselessLimit])]
    {
        finds(rules, |history| {
            history.fail(last, ErrorCode::Limited);
            history.unsee(BOB, COUNT - 1);
            history.more(BOB, count);
            let session = if node == 0 { ALICE } else { BOB_LATER };
            for message in &mut history.messages[2 * COUNT..] {
                (message.attempts[0].sent, message.attempts[0].session) = (sent(last), session);
            }
        });
    }
    // It was not delivered.
    finds(&[Rule::SeenAfterAll], |history| {
        history.fail(bobs(3), ErrorCode::Limited);
        naps(history, at);
    });
}

#[test]
fn a_request_has_one_reply_in_time() {
    let last = bobs(9);
    finds(&[Rule::Unanswered], |history| history.messages[3].attempts[0].told = None);
    finds(&[], |history| {
        history.messages[carols(9)].attempts[0].told = None;
        history.hang_up(ALICE, sent(carols(9)) + 1);
    });
    finds(&[Rule::AnsweredTwice], |history| history.again.push((sent(3) + 5, 3)));
    let late = |history: &mut History, time: Time| {
        let told = history.messages[last].attempts[0].told.as_mut().expect("it is");
        told.0 += time;
    };
    finds(&[Rule::Late], |history| late(history, margins().reply));
    finds(&[Rule::Slow], |history| late(history, 4_000));
    finds(&[], |history| {
        late(history, 4_000);
        history.suffer(Fault::BrokerFrozen, sent(last), sent(last) + 3_000);
    });
    finds(&[], |history| {
        late(history, 4_000);
        history.sessions[BOB].naps.push((sent(last), sent(last) + 2_000));
    });
    // Who does not acknowledge is not read behind a rest of anybody.
    let rested = sent(last) - margins().soon;
    for (rest, rules) in [(rested, &[Rule::Slow][..]), (rested + 1, &[])] {
        finds(rules, |history| {
            late(history, 4_000);
            history.clients[ALICE].acks = false;
            history.sessions[CAROL].naps.push((rested - 10, rest));
        });
    }
    // Its recipient rested while its sender did not read, or so shortly before it was sent that what it was stored
    // meanwhile may come first.
    let since = sent(last) - margins().full;
    for (rest, rules) in [(1, &[][..]), (0, &[Rule::Slow])] {
        finds(rules, |history| {
            late(history, 4_000);
            history.sessions[ALICE].stalls.push((sent(last) + 1_000, sent(last) + 1_500));
            history.sessions[BOB].naps.push((since - 10, since + rest));
        });
    }
    for (node, rules) in [(0, &[][..]), (1, &[Rule::Late])] {
        finds(rules, |history| {
            late(history, margins().reply);
            history.suffer(Fault::NodeFrozen(node), sent(last), sent(last) + 5_000);
        });
    }
    // With two faults it may have been held up and then not been told.
    for (count, rules) in [(2, &[][..]), (1, &[Rule::Late])] {
        finds(rules, |history| {
            late(history, margins().reply);
            (0..count).for_each(|_| history.suffer(Fault::BrokerFrozen, sent(last), sent(last) + 9_000));
        });
    }
    // The reply took two milliseconds more than it may.
    for (stall, rules) in [(2, &[][..]), (1, &[Rule::Late])] {
        finds(rules, |history| {
            late(history, margins().reply);
            history.suffer(Fault::BrokerFrozen, sent(last), sent(last) + 9_000);
            history.suffer(Fault::Stalled, sent(last) - 500, sent(last) + stall);
        });
    }
    finds(&[Rule::Unanswered], |history| history.questions[0].answered = None);
    finds(&[Rule::Unanswered], |history| history.questions[1].answered = None);
    finds(&[Rule::Late], |history| history.questions[0].asked = 0);
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
        history.suffer(Fault::PresenceLost, 1_000, 1_000);
    });
    // Redis went back to when another session was there, which has ended since.
    let ended = 2_005 + 2 * margins().note.max(margins().soon);
    for (then, rules) in [(ended, &[][..]), (ended + 1, &[Rule::WrongPresence])] {
        finds(rules, |history| {
            let session = Session { asked: 1, since: 2, ..history.sessions[BOB].clone() };
            history.sessions.push(session);
            history.quit(4, 2_000);
            history.suffer(Fault::RedisOlder((20_000 - then) as usize), 20_000, 20_000);
            history.questions[1].asked = 40_000;
            history.questions[1].answered = Some((40_003, Answer::Online(2)));
        });
    }
    let error = Answer::Error(ErrorCode::Unavailable);
    finds(&[Rule::CauselessUnavailable], |history| {
        history.questions[1].answered.as_mut().expect("it is").1 = error;
    });
    // Such a session counts at a login, too.
    for (then, rules) in [(ended, &[][..]), (ended + 1, &[Rule::Odd])] {
        finds(rules, |history| {
            history.rules.sessions_max = 2;
            let session = Session { asked: 1, since: 2, ..history.sessions[BOB].clone() };
            history.sessions.push(session);
            history.quit(4, 2_000);
            history.suffer(Fault::RedisOlder((20_000 - then) as usize), 20_000, 20_000);
            history.questions[0].asked = 40_000;
            history.questions[0].answered = Some((40_003, Answer::Error(ErrorCode::TooMany)));
        });
    }
}

#[test]
fn a_user_has_no_more_sessions_than_it_may() {
    let came = fine().sessions[BOB_LATER].since;
    // The first of three leaves at that time.
    let stays = |most: usize, left: Time, rules: &[Rule], spoil: &dyn Fn(&mut History)| {
        finds(rules, |history| {
            history.rules.sessions_max = most;
            history.quit(BOB, left);
            if most > 1 {
                let another = Session { asked: 40_000, since: 40_005, ..history.sessions[BOB_LATER].clone() };
                history.sessions.push(another);
            }
            spoil(history);
        });
    };
    let soon = margins().soon;
    for (most, by) in [(1, came + soon), (2, came)] {
        stays(most, by, &[], &|_| {});
        stays(most, by + 1, &[Rule::TooManySessions], &|_| {});
        stays(most, by + 1, &[], &|history| history.suffer(Fault::PresenceLost, came - 5_000, came - 5_000));
    }
    stays(3, 60_000, &[], &|_| {});
    stays(1, 60_000, &[], &|history| history.sessions[CAROL].naps.push((came, came + 1)));
    // The other one was the later of the two.
    stays(1, 60_000, &[], &|history| history.quit(BOB_LATER, came + soon));
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
    ends(End::Bye(CloseReason::Slow), &[Rule::Dropped]);
    finds(&[Rule::Dropped], |history| history.sessions[BOB].ended = Some((50_000, End::Closed)));
    finds(&[], |history| history.fall(BOB_LATER, 69_990));
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
