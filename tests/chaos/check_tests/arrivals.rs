//! The excuses for copies and for disorder, each beside the nearest case that it does not cover.

use crate::check::{BELIEF_TIME, DEATH_TIME, NOTE_TIME_MAX, RETURN_TIME, Rule};
use crate::check_tests::finds;
use crate::check_tests::fine::{ALICE, BOB, BOB_LATER, CAROL, COUNT, bobs, sent};
use crate::history::{Attempt, Fate, History, Ms, Session};
use crate::plan::{Fault, Links};

#[test]
fn a_copy_has_a_cause() {
    let last = sent(bobs(9)) + 1;
    // Not acknowledged before its connection ended, or perhaps not read any more.
    copied(&[], last + 2_000, &|history| history.hang_up(BOB, last + 1_000));
    copied(&[Rule::Copied], last + 2_000, &|history| history.hang_up(BOB, last + 1_001));
    copied(&[], last + 2_000, &|history| history.quit(BOB, last));
    copied(&[Rule::Copied], last + 2_000, &|history| history.quit(BOB, last + 1));
    copied(&[], last + 5_000, &|history| {
        history.fall(BOB, last + 3_000);
        history.fall(CAROL, last + 3_000);
    });
    // Acknowledged when the next one was there already, or not at all.
    let acked = |history: &mut History, at: Ms| {
        history.clients[BOB].seen[9].acked = Some(at);
        history.messages[bobs(9)].attempts[0].told = Some((at + 1, Fate::Delivered));
    };
    for (at, rules) in [(last + 2_000, &[][..]), (last + 1_999, &[Rule::Copied])] {
        copied(rules, last + 2_000, &|history| acked(history, at));
    }
    copied(&[], last + 1_000, &|history| {
        acked(history, last + 1_100);
        history.clients[BOB].seen[9].acked = None;
    });
    // A copy that came in between, and was not acknowledged, is no excuse for one that was.
    copied(&[Rule::Copied], last + 2_000, &|history| {
        let again = history.clients[BOB].seen.pop().expect("it is there");
        history.sessions.push(Session {
            node: 0,
            asked: last - 1,
            since: last,
            ..history.sessions[BOB].clone()
        });
        history.copy(BOB, 4, 9, last + 1, false);
        history.clients[BOB].seen[10].acked = None;
        history.clients[BOB].seen.push(again);
    });
    // On one node, the next one is told.
    for (at, rules) in [(last + 3_000, &[][..]), (last + 3_001, &[Rule::Copied])] {
        copied(rules, last + 2_000, &|history| {
            history.sessions[BOB].node = 2;
            acked(history, last + 2_000);
            let again = history.clients[BOB].seen.last_mut().expect("it is there");
            (again.at, again.acked) = (at, Some(at));
        });
    }
    // Forgotten by Redis, and by the node that would have told it again.
    for (faults, rules) in [
        (&[Fault::PresenceLost, Fault::NodeKilled(1)][..], &[][..]),
        (&[Fault::PresenceLost, Fault::NodeKilled(2)], &[Rule::Copied]),
        (&[Fault::PresenceLost], &[Rule::Copied]),
        (&[Fault::NodeKilled(1)], &[Rule::Copied]),
    ] {
        copied(rules, last + 20_000, &|history| {
            history.quit(BOB, last + 1_000);
            history.quit(CAROL, last + 1_000);
            faults.iter().for_each(|fault| history.suffer(*fault, last + 8_000, last + 8_001));
        });
    }
    // On a connection that was there.
    copied(&[], last, &|_| {});
    copied(&[Rule::Copied], last + 1, &|_| {});
    // Who takes his time to acknowledge is not shown it again on the same connection.
    finds(&[Rule::Copied], |history| {
        history.clients[BOB].seen[9].acked = None;
        history.messages[bobs(9)].attempts[0].told = Some((last + 10_500, Fate::Stored));
        history.copy(BOB, BOB, 9, last + 10_500, false);
        history.suffer(Fault::BrokerKilled, last, last);
    });
}

#[test]
fn a_copy_after_a_quick_hop_has_a_cause() {
    let gone = sent(bobs(9)) + 5_000;
    let hops = |rules: &[Rule], after: Ms, fault: Fault, from: Ms, to: Ms| {
        copied(rules, gone + after, &|history| {
            history.quit(BOB, gone - 5);
            history.suffer(fault, from, to);
        });
    };
    // A session ends when its connection does, which may be a while after the goodbye.
    for (asked, rules) in [(gone + 1_000, &[][..]), (gone + 1_001, &[Rule::Copied])] {
        copied(rules, asked, &|history| {
            history.quit(BOB, gone - 2_000);
            history.sessions[BOB].ended.as_mut().expect("it is").0 = gone;
            history.suffer(Fault::BrokerFrozen, gone - 3_000, gone + 2_000);
        });
    }
    // Quick is a second, however long the broker is away.
    hops(&[], 1_000, Fault::BrokerKilled, gone, gone + 2_000);
    hops(&[Rule::Copied], 1_001, Fault::BrokerKilled, gone, gone + 2_000);
    // The fault was there from the end of the one to the beginning of the other.
    hops(&[], 500, Fault::BrokerKilled, gone + 505, gone + 2_000);
    hops(&[Rule::Copied], 500, Fault::BrokerKilled, gone + 506, gone + 2_000);
    hops(&[], 500, Fault::BrokerKilled, 1_000, gone - RETURN_TIME);
    hops(&[Rule::Copied], 500, Fault::BrokerKilled, 1_000, gone - RETURN_TIME - 1);
    // It was with one of the two nodes.
    hops(&[], 500, Fault::Hung(1, Links::Broker), gone, gone + 1_000);
    hops(&[], 500, Fault::Cut(2, Links::Broker), gone, gone + 1_000);
    hops(&[Rule::Copied], 500, Fault::Cut(0, Links::Broker), gone, gone + 1_000);
    // What Redis was not told up to then, nobody knows.
    let late = gone + 4_000;
    hops(&[], 4_000, Fault::Hung(1, Links::Redis), gone, late - RETURN_TIME);
    hops(&[Rule::Copied], 4_000, Fault::Hung(1, Links::Redis), gone, late - RETURN_TIME - 1);
    hops(&[Rule::Copied], 4_000, Fault::Hung(1, Links::Redis), gone + 1_001, late);
    hops(&[Rule::Copied], 4_000, Fault::Hung(1, Links::Broker), gone, late);
    // One fault after the other keeps it from Redis.
    for (from, rules) in [(gone + 4_000, &[][..]), (gone + 4_001, &[Rule::Copied])] {
        copied(rules, gone + 9_000, &|history| {
            history.quit(BOB, gone - 5);
            history.suffer(Fault::Hung(1, Links::Redis), gone, gone + 1_000);
            history.suffer(Fault::NodeFrozen(1), from, gone + 8_000);
        });
    }
    // What it has not told before it is killed, it never tells.
    for (kill, rules) in [(gone + 1_000, &[][..]), (gone + 1_001, &[Rule::Copied])] {
        copied(rules, gone + 5_000, &|history| {
            history.quit(BOB, gone - 5);
            history.quit(CAROL, gone - 5);
            history.suffer(Fault::NodeKilled(1), kill, kill + 500);
        });
    }
    // A node has nothing to tell itself.
    for (fault, rules) in [(Fault::RedisKilled, &[Rule::Copied][..]), (Fault::NodeKilled(2), &[])] {
        copied(rules, gone + 500, &|history| {
            history.sessions[BOB].node = 2;
            history.quit(BOB, gone - 5);
            history.suffer(fault, gone + 10, gone + 400);
        });
    }
}

#[test]
fn disorder_has_a_cause() {
    let swapped = |rules: &[Rule], spoil: &dyn Fn(&mut History)| {
        finds(rules, |history| {
            history.swap(BOB);
            spoil(history);
        });
    };
    let (earlier, later) = (sent(bobs(3)), sent(bobs(4)));
    // It came at once with the later one.
    let came = later + 1;
    let suffers = |rules: &[Rule], fault: Fault, from: Ms, to: Ms| {
        swapped(rules, &|history| history.suffer(fault, from, to));
    };
    // A fault that makes messages take another way was there between sending and seeing it.
    suffers(&[], Fault::BrokerKilled, came, came + 5_000);
    suffers(&[Rule::OutOfOrder], Fault::BrokerKilled, came + 1, came + 5_000);
    suffers(&[], Fault::BrokerKilled, 1_000, earlier - RETURN_TIME);
    suffers(&[Rule::OutOfOrder], Fault::BrokerKilled, 1_000, earlier - RETURN_TIME - 1);
    suffers(&[], Fault::NodeKilled(1), earlier - DEATH_TIME, earlier - DEATH_TIME + 500);
    suffers(&[Rule::OutOfOrder], Fault::NodeKilled(1), earlier - DEATH_TIME - 1, earlier - DEATH_TIME + 500);
    for fault in [Fault::QueuesDeleted, Fault::RedisKilled, Fault::Cut(1, Links::Broker)] {
        suffers(&[], fault, came, came);
        suffers(&[Rule::OutOfOrder], fault, came + 1, came + 1);
    }
    suffers(&[Rule::OutOfOrder], Fault::BrokerAlarm, earlier, came);
    // It is with a node of one of the two, or one where the recipient was thought to be.
    suffers(&[], Fault::Cut(0, Links::Broker), earlier, came);
    suffers(&[Rule::OutOfOrder], Fault::Cut(2, Links::Broker), earlier, came);
    for (ended, rules) in [(0, &[][..]), (1, &[Rule::OutOfOrder])] {
        swapped(rules, &|history| {
            // All of it later, so that there is room before it.
            history.delay(BELIEF_TIME);
            let ended = earlier - 2 * NOTE_TIME_MAX - ended;
            let session = Session { node: 2, asked: 1, since: 2, ..history.sessions[BOB].clone() };
            history.sessions.push(session);
            history.quit(4, ended - 5);
            history.suffer(Fault::Cut(2, Links::Broker), earlier + BELIEF_TIME, came + BELIEF_TIME);
        });
    }
    // To hop or to nap makes none.
    swapped(&[Rule::OutOfOrder], &|history| history.sessions[BOB].naps.push((earlier, later)));
    finds(&[Rule::OutOfOrder], |history| {
        history.swap(BOB);
        history.quit(BOB, later + 2);
        history.clients[BOB].seen[4..].iter_mut().for_each(|seen| seen.session = BOB_LATER);
        history.clients[BOB].seen[4].at = later + 20;
        history.clients[BOB].seen[4].acked = Some(later + 20);
        history.messages[bobs(3)].attempts[0].told = Some((later + 30, Fate::Delivered));
        (history.sessions[BOB_LATER].asked, history.sessions[BOB_LATER].since) = (later + 5, later + 10);
        history.questions.clear();
    });
    // Sent again behind the later one it comes behind it.
    for (again, rules) in [(later, &[][..]), (later - 1, &[Rule::OutOfOrder])] {
        swapped(rules, &|history| {
            history.retry(bobs(3));
            history.messages[bobs(3)].attempts[1].sent = again;
            history.messages[bobs(3)].attempts[1].told = Some((came + 1, Fate::Delivered));
        });
    }
    swapped(&[Rule::OutOfOrder], &|history| history.retry(bobs(4)));
    // Over another connection the later one may overtake it.
    let overtakes = |rules: &[Rule], again: Ms, spoil: &dyn Fn(&mut History)| {
        swapped(rules, &|history| {
            history.sessions.push(history.sessions[ALICE].clone());
            history.retry(bobs(4));
            let again = Attempt { session: 4, sent: again, told: Some((came + 1, Fate::Delivered)) };
            history.messages[bobs(4)].attempts[1] = again;
            spoil(history);
        });
    };
    overtakes(&[], came, &|_| {});
    overtakes(&[Rule::OutOfOrder], came + 1, &|_| {});
    overtakes(&[Rule::OutOfOrder, Rule::StoredThough], came, &|history| {
        history.messages[bobs(3)].attempts[0].told = Some((earlier + 2, Fate::Stored));
    });
}

#[test]
fn two_devices_have_one_order_each() {
    let later = sent(bobs(4));
    // bob is on nodes 1 and 2 at once; on one of them two messages come the wrong way round.
    let beside = |rules: &[Rule], spoil: &dyn Fn(&mut History)| {
        finds(rules, |history| {
            (history.sessions[BOB_LATER].asked, history.sessions[BOB_LATER].since) = (90, 95);
            for message in 0..COUNT {
                history.copy(BOB, BOB_LATER, message, sent(bobs(message)) + 1, false);
            }
            let seen = &mut history.clients[BOB].seen[COUNT..];
            seen.swap(3, 4);
            seen[4].at = seen[3].at;
            history.questions.clear();
            spoil(history);
        });
    };
    beside(&[Rule::OutOfOrder], &|_| {});
    // The broker forgot a queue, and what was for that node took another way.
    beside(&[], &|history| history.suffer(Fault::BrokerKilled, later + 1, later + 500));
    beside(&[Rule::OutOfOrder], &|history| history.suffer(Fault::BrokerKilled, later + 2, later + 500));
    // One connection may be faster than the other, as long as both are there.
    for (asked, rules) in [(later + 1, &[][..]), (later + 2, &[Rule::OutOfOrder])] {
        finds(rules, |history| {
            history.swap(BOB);
            let seen = &mut history.clients[BOB].seen[4];
            (seen.session, seen.at, seen.acked) = (BOB_LATER, later + 10, Some(later + 10));
            history.messages[bobs(3)].attempts[0].told = Some((later + 20, Fate::Delivered));
            (history.sessions[BOB_LATER].asked, history.sessions[BOB_LATER].since) = (asked, asked + 1);
            history.quit(BOB, later + 400);
            history.clients[BOB].seen[5..].iter_mut().for_each(|seen| seen.session = BOB_LATER);
            history.questions.clear();
        });
    }
}

/// bob is sent his last message again, on a second connection that begins then.
#[track_caller]
fn copied(rules: &[Rule], asked: Ms, spoil: &dyn Fn(&mut History)) {
    finds(rules, |history| {
        history.sessions[BOB_LATER].asked = asked;
        history.sessions[BOB_LATER].since = asked + 5;
        history.copy(BOB, BOB_LATER, 9, asked + 100, false);
        spoil(history);
    });
}
