//! The checker is checked: it finds each kind of wrong in a history that is fine but for that.

mod arrivals;
mod fates;
mod fine;

use pinpost::internals::proto::{CloseReason, ErrorCode};

use crate::check_tests::fine::{ALICE, BOB, BOB_LATER, CAROL, COUNT, bobs, carols, fine, margins, sent};
use crate::history::check::{Rule, check};
use crate::history::fault::Fault;
use crate::history::{Answer, Client, End, Fate, History, Leaving, Seen, Session, Time};

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
    // It may wait for the mailbox of a session that has just come, where there are mailboxes.
    let new = sent(last) - margins().drain;
    for (came, most, rules) in [(new, 1, &[][..]), (new - 1, 1, &[Rule::Slow]), (new, 0, &[Rule::Slow])] {
        finds(rules, |history| {
            late(history, 4_000);
            history.rules.mailbox_max = most;
            history.sessions.push(Session {
                asked: came - 5,
                since: came,
                node: 2,
                ..history.sessions[BOB].clone()
            });
            history.quit(4, came + 10);
        });
    }
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
    for (count, rest, rules) in [(2, 0, &[][..]), (1, 0, &[Rule::Late]), (1, 1, &[]), (0, 1, &[Rule::Late])] {
        finds(rules, |history| {
            late(history, margins().reply);
            history.sessions[BOB].naps.push((sent(last), sent(last) + rest));
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
    // Who read nothing until it said goodbye may have been cut off before that was heard.
    for (rested, rules) in [(70_000, &[][..]), (69_999, &[Rule::Dropped])] {
        finds(rules, |history| {
            history.quit(BOB_LATER, 70_000);
            history.sessions[BOB_LATER].ended = Some((70_010, End::Broken));
            history.sessions[BOB_LATER].stalls.push((60_000, rested));
        });
    }
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
