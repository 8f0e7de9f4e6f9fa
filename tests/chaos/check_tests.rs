//! The checker is checked: it finds each kind of wrong in a history that is fine but for that.

mod fine;

use crate::check::{
    BELIEF_TIME, DEATH_TIME, DOUBT_TIME, NOTE_TIME_MAX, REPLY_TIME_MAX, RETURN_TIME, Rule, check,
};
use crate::check_tests::fine::{
    ALICE, BOB, BOB_LATER, CAROL, COUNT, attempt, bobs, carols, error, fine, sent,
};
use crate::history::{Answer, Attempt, Client, End, Fate, History, Leaving, Ms, Seen, Session};
use crate::plan::{Fault, Links};

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
        history.sessions[BOB].ended = Some((5_000, End::Bye("quit".to_owned())));
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
        history.sessions[CAROL].ended = Some((sent(bobs(3)) + 20, End::Bye("quit".to_owned())));
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
    loses(&[], &|history| {
        history.fall(CAROL, last + 5);
        history.quit(BOB, last);
    });
    loses(&[Rule::Lost], &|history| history.fall(ALICE, last + 5));
    // The same for what was stored: when it was drained.
    let stored = |rules: &[Rule], came: Ms, fell: Ms| {
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
}

#[test]
fn what_was_delivered_was_seen_by_all() {
    let joined = |history: &mut History, at: Ms| {
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
    finds(&[], |history| {
        joined(history, last - 10);
        history.sessions[BOB_LATER].naps.push((last - 5, last + 500));
    });
}

#[test]
fn what_was_not_delivered_was_not_seen() {
    finds(&[Rule::SeenAfterAll, Rule::Offline], |history| history.fail(3, "offline"));
    finds(&[Rule::SeenAfterAll, Rule::CauselessUnavailable], |history| history.fail(3, "unavailable"));
    finds(&[Rule::CauselessTimeout], |history| history.fail(3, "timeout"));
    // A fault was at work while it waited for its fate.
    let at = sent(bobs(3));
    let failed = |rules: &[Rule], word: &str, fault: Fault, from: Ms, to: Ms| {
        finds(rules, |history| {
            history.fail(bobs(3), word);
            history.suffer(fault, from, to);
            if word == "unavailable" {
                history.unsee(BOB, 3);
            }
        });
    };
    for (word, rule) in [("timeout", Rule::CauselessTimeout), ("unavailable", Rule::CauselessUnavailable)] {
        let doubt = if word == "unavailable" { DOUBT_TIME } else { 0 };
        let at_least = at - doubt - RETURN_TIME;
        failed(&[], word, Fault::PresenceLost, 1_000, at_least);
        failed(&[rule], word, Fault::PresenceLost, 1_000, at_least - 1);
        failed(&[], word, Fault::BrokerFrozen, at + 2, at + 100);
        failed(&[rule], word, Fault::BrokerFrozen, at + 3, at + 100);
        let at_least = at - doubt - DEATH_TIME;
        failed(&[], word, Fault::NodeKilled(2), at_least, at_least + 100);
        failed(&[rule], word, Fault::NodeKilled(2), at_least - 1, at_least + 100);
    }
    // Nobody is offline, whether he is there or not: there is a mailbox.
    finds(&[Rule::Offline], |history| {
        history.fail(bobs(9), "offline");
        history.unsee(BOB, 9);
        history.quit(BOB, sent(bobs(9)) - 10);
        history.suffer(Fault::PresenceLost, 1_000, 1_000);
    });
    finds(&[Rule::Odd], |history| {
        history.fail(bobs(3), "mailbox-full");
        history.unsee(BOB, 3);
    });
    // A second attempt that fails says nothing of the first.
    finds(&[], |history| {
        history.fail(bobs(3), "timeout");
        let again = Attempt { told: Some((sent(bobs(3)) + 20, error("unavailable"))), ..attempt(bobs(3)) };
        history.messages[bobs(3)].attempts.push(again);
        history.suffer(Fault::BrokerFrozen, at, at);
    });
}

#[test]
fn timeouts_are_rare() {
    let late = |count: usize, rules: &[Rule]| {
        finds(rules, |history| {
            (0..count).for_each(|message| history.fail(message, "timeout"));
            history.suffer(Fault::BrokerFrozen, 1_000, 30_000);
        });
    };
    late(4, &[]);
    late(5, &[Rule::TooManyTimeouts]);
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
    let late = |history: &mut History, time: Ms| {
        let told = history.messages[last].attempts[0].told.as_mut().expect("it is");
        told.0 += time;
    };
    finds(&[Rule::Late], |history| late(history, REPLY_TIME_MAX));
    finds(&[Rule::Slow], |history| late(history, 4_000));
    finds(&[], |history| {
        late(history, 4_000);
        history.suffer(Fault::BrokerFrozen, sent(last), sent(last) + 3_000);
    });
    finds(&[], |history| {
        late(history, 4_000);
        history.sessions[BOB].naps.push((sent(last), sent(last) + 2_000));
    });
    for (node, rules) in [(0, &[][..]), (1, &[Rule::Late])] {
        finds(rules, |history| {
            late(history, REPLY_TIME_MAX);
            history.suffer(Fault::NodeFrozen(node), sent(last), sent(last) + 5_000);
        });
    }
    finds(&[Rule::Unanswered], |history| history.questions[0].answered = None);
    finds(&[Rule::Unanswered], |history| history.questions[1].answered = None);
    finds(&[Rule::Late], |history| history.questions[0].asked = 0);
}

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
            history.quit(BOB, gone);
            history.suffer(fault, from, to);
        });
    };
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
            history.quit(BOB, gone);
            history.suffer(Fault::Hung(1, Links::Redis), gone, gone + 1_000);
            history.suffer(Fault::NodeFrozen(1), from, gone + 8_000);
        });
    }
    // What it has not told before it is killed, it never tells.
    for (kill, rules) in [(gone + 1_000, &[][..]), (gone + 1_001, &[Rule::Copied])] {
        copied(rules, gone + 5_000, &|history| {
            history.quit(BOB, gone);
            history.quit(CAROL, gone);
            history.suffer(Fault::NodeKilled(1), kill, kill + 500);
        });
    }
    // A node has nothing to tell itself.
    for (fault, rules) in [(Fault::RedisKilled, &[Rule::Copied][..]), (Fault::NodeKilled(2), &[])] {
        copied(rules, gone + 500, &|history| {
            history.sessions[BOB].node = 2;
            history.quit(BOB, gone);
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
    finds(&[], |history| history.fall(BOB_LATER, 69_990));
    finds(&[Rule::Odd], |history| history.sessions[BOB_LATER].ended = None);
    finds(&[Rule::Odd], |history| history.oddities.push((1, "a panic".to_owned())));
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
