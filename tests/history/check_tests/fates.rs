//! Fates that are neither `delivered` nor `stored`, and what the kernel may lose: each cause beside the nearest case that is none.

use pinpost::internals::proto::{CloseReason, ErrorCode};

use crate::check_tests::finds;
use crate::check_tests::fine::{ALICE, BOB, BOB_LATER, CAROL, COUNT, attempt, bobs, carols, margins, sent};
use crate::history::check::Rule;
use crate::history::fault::{Fault, Links};
use crate::history::{Answer, Attempt, End, Fate, History, Leaving, Question, Session, Time};

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
    // It may have logged in before it was stored, and was told of it.
    stored(&[], last - 2_000, last + 900);
    // Others took who stored it for dead, and nobody has logged in since.
    for (node, rules) in [(0, &[][..]), (2, &[Rule::Lost])] {
        loses(rules, &|history| {
            history.tell(carols(9), Fate::Stored);
            history.suffer(Fault::NodeFrozen(node), last - 10, last + 1);
        });
    }
    // Both were cut off in turn.
    for (to, rules) in [(last + margins().ack, &[][..]), (last + margins().ack + 1, &[Rule::Lost])] {
        loses(rules, &|history| {
            history.tell(carols(9), Fate::Stored);
            history.messages[carols(9)].attempts[0].told = Some((last, Fate::Stored));
            history.suffer(Fault::Cut(1, Links::Broker), last - 10, last + 5);
            history.suffer(Fault::Cut(0, Links::Both), to, to + 10);
        });
    }
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
    for (bytes, rules) in [(64 * 1024, &[][..]), (64 * 1024 + 1, &[Rule::CauselessLimit])] {
        limited(rules, &|history| history.rules.outbox_bytes_max = bytes);
    }
    // Who does not acknowledge waits.
    limited(&[Rule::CauselessLimit], &|history| {
        naps(history, at);
        history.clients[ALICE].acks = false;
    });
    // With it, as many were under way as may fill a lane.
    let last = bobs(COUNT - 1);
    for (count, rules) in [(20, &[][..]), (19, &[Rule::CauselessLimit])] {
        finds(rules, |history| {
            history.fail(last, ErrorCode::Limited);
            history.unsee(BOB, COUNT - 1);
            history.more(BOB, count);
            history.messages[2 * COUNT..]
                .iter_mut()
                .for_each(|message| message.attempts[0].sent = sent(last));
        });
    }
    // It was not delivered.
    finds(&[Rule::SeenAfterAll], |history| {
        history.fail(bobs(3), ErrorCode::Limited);
        naps(history, at);
    });
}
