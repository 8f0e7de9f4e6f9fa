//! The excuses for copies and for disorder, each beside the nearest case that it does not cover.

use pinpost::internals::proto::CloseReason;
use pinpost::internals::proto::ErrorCode;

use crate::check_tests::finds;
use crate::check_tests::fine::ALICE;
use crate::check_tests::fine::BOB;
use crate::check_tests::fine::BOB_LATER;
use crate::check_tests::fine::CAROL;
use crate::check_tests::fine::COUNT;
use crate::check_tests::fine::bobs;
use crate::check_tests::fine::carols;
use crate::check_tests::fine::margins;
use crate::check_tests::fine::sent;
use crate::history::Answer;
use crate::history::Attempt;
use crate::history::Client;
use crate::history::End;
use crate::history::Fate;
use crate::history::History;
use crate::history::Question;
use crate::history::Seen;
use crate::history::Session;
use crate::history::Time;
use crate::history::check::Rule;
use crate::history::fault::Fault;
use crate::history::fault::Links;

/// A session that bob may have had before.
const BOB_EARLIER: usize = 4;

#[test]
fn a_copy_on_another_node_comes_after_a_hop() {
    let last = sent(bobs(9)) + 1;
    // There is nothing that could bring it when its sender has known for a while that it was delivered.
    let settled = last + 1 + margins().soon;
    copied(&[], settled, &|_| {});
    copied(&[Rule::Copied], settled + 1, &|_| {});
    copied(&[], settled + 1, &|history| history.suffer(Fault::BrokerFrozen, settled + 101, settled + 101));
    copied(&[Rule::Copied], settled + 1, &|history| {
        history.suffer(Fault::BrokerFrozen, settled + 102, settled + 102);
    });
    // A session is given what others of its user have not acknowledged.
    copied(&[], settled + 1, &|history| history.sessions[BOB].naps.push((last, last + 1)));
    // Sent again, and stored this time, it may wait in a mailbox.
    copied(&[], settled + 1, &|history| {
        history.retry(bobs(9));
        history.messages[bobs(9)].attempts[1].told = Some((settled, Fate::Stored));
        history.suffer(Fault::NodeKilled(2), last, last + 100);
    });
}

#[test]
fn a_copy_on_the_same_node_has_a_cause() {
    let last = sent(bobs(9)) + 1;
    let same = |rules: &[Rule], asked: Time, spoil: &dyn Fn(&mut History)| {
        copied(rules, asked, &|history| {
            history.sessions[BOB_LATER].node = 1;
            spoil(history);
        });
    };
    // On a connection that was there before the first was acknowledged.
    same(&[], last + 1_000, &|_| {});
    same(&[Rule::Copied], last + 1_001, &|_| {});
    same(&[Rule::Copied], last + 2_000, &|history| history.suffer(Fault::BrokerKilled, last, last + 500));
    // A process that drains ends some time later; on another node that means nothing.
    for (node, rules) in [(1, &[][..]), (0, &[Rule::Copied])] {
        same(rules, last + 2_000, &|history| {
            history.suffer(Fault::NodeDrained(node), last - 10, last + 1_000);
        });
    }
    // Not acknowledged before its connection ended, or perhaps not read any more.
    same(&[], last + 2_000, &|history| history.hang_up(BOB, last + 1_000));
    same(&[Rule::Copied], last + 2_000, &|history| history.hang_up(BOB, last + 1_001));
    // Where a user may have one session only, one that a login replaced which raced with its own is not heard.
    for (answered, rules) in [(95, &[][..]), (94, &[Rule::Copied])] {
        same(rules, last + 2_000, &|history| {
            history.rules.sessions_max = 1;
            history.hang_up(BOB, last + 1_500);
            history.questions.truncate(1);
            (history.questions[0].asked, history.questions[0].answered) = (90, Some((answered, Answer::In)));
        });
    }
    // A node that is frozen reads nothing.
    let frozen = |history: &mut History, from: Time| {
        history.hang_up(BOB, last + 1_500);
        history.suffer(Fault::NodeFrozen(1), from, last + 1_900);
    };
    same(&[], last + 2_000, &|history| frozen(history, last + 1_000));
    same(&[Rule::Copied], last + 2_000, &|history| frozen(history, last + 1_001));
    same(&[], last + 2_000, &|history| history.quit(BOB, last));
    same(&[Rule::Copied], last + 2_000, &|history| history.quit(BOB, last + 1));
    // One that was replaced may say goodbye without having heard of that.
    for (replaced, rules) in [(last + 1_000, &[][..]), (last + 1_001, &[Rule::Copied])] {
        same(rules, last + 2_000, &|history| {
            history.rules.sessions_max = 1;
            history.quit(BOB, last + 1_500);
            let login = Question { asked: replaced, answered: None, ..history.questions[0] };
            history.questions = vec![Question { given_up: Some(replaced), ..login }];
        });
    }
    same(&[], last + 2_000, &|history| {
        history.clients[BOB].seen[9].acked = None;
        history.messages[bobs(9)].attempts[0].told = Some((last + 2_101, Fate::Delivered));
        history.quit(BOB, last + 1_000);
    });
    // Not acknowledged while both were there.
    same(&[], last + 2_000, &|history| {
        history.clients[BOB].seen[9].acked = None;
        history.messages[bobs(9)].attempts[0].told = Some((last + 2_101, Fate::Delivered));
        history.quit(BOB, last + 2_200);
    });
    // Of two logins that race, either may be the one before, and may be replaced before it acknowledges.
    let races = |history: &mut History, answered: Time, told: Time| {
        history.rules.sessions_max = 1;
        let asked = last - 20;
        (history.sessions[BOB].asked, history.sessions[BOB].since) = (asked, last - 5);
        history.sessions[BOB].left = None;
        history.sessions[BOB].ended = Some((told, End::Bye(CloseReason::Replaced)));
        let question = Question { asked: asked - 10, ..history.questions[0] };
        history.questions.push(Question { answered: Some((answered, Answer::In)), ..question });
        history.messages[bobs(9)].attempts[0].told = Some((last + 1_600, Fate::Delivered));
        (0..9).for_each(|place| history.clients[BOB].seen[place].session = BOB_EARLIER);
        let earlier = Session { asked: 1, since: 2, ..history.sessions[BOB].clone() };
        history.sessions.push(earlier);
        history.quit(BOB_EARLIER, asked - 100);
    };
    // Who is replaced is told so behind the replies that are due.
    let late = last + margins().way + margins().reply;
    same(&[], late + 500, &|history| races(history, last - 20, late + 1));
    same(&[], late + 500, &|history| races(history, last - 21, late));
    same(&[Rule::Copied], late + 500, &|history| races(history, last - 21, late + 1));
    // What the process before has shown this one does not know.
    same(&[], last + 5_000, &|history| {
        history.fall(BOB, last + 3_000);
        history.fall(CAROL, last + 3_000);
    });
    same(&[Rule::Copied], last + 5_000, &|history| {
        history.suffer(Fault::NodeKilled(2), last + 3_000, last + 4_000);
    });
    // Who does not acknowledge had it when the kernel had taken it.
    let first = sent(carols(9)) + 1;
    for (fell, rules) in [(first + 1_000, &[][..]), (first + 1_001, &[Rule::ShownTwice])] {
        finds(rules, |history| {
            history.hang_up(CAROL, fell);
            let since = first + 2_000;
            let session = Session { asked: since, since, ..history.sessions[CAROL].clone() };
            history.sessions.push(session);
            history.quit(4, 80_000);
            history.copy(CAROL, 4, 9, since + 100, true);
        });
    }
    // Who takes his time to acknowledge is not shown it again on the same connection.
    finds(&[Rule::Copied], |history| {
        history.clients[BOB].seen[9].acked = None;
        history.messages[bobs(9)].attempts[0].told = Some((last + 10_500, Fate::Stored));
        history.copy(BOB, BOB, 9, last + 10_500, false);
        history.suffer(Fault::BrokerKilled, last, last);
    });
}

#[test]
fn a_copy_is_known_for_a_while() {
    let last = sent(bobs(9)) + 1;
    let after = |rules: &[Rule], time: Time| {
        copied(rules, last + time - 100, &|history| history.quit(BOB_LATER, 90_000));
    };
    after(&[], margins().known);
    after(&[Rule::Copied], margins().known - 1);
    for (others, rules) in [(2_048, &[Rule::Copied][..]), (2_049, &[])] {
        finds(rules, |history| {
            history.more(BOB, others);
            history.copy(BOB, BOB, 9, sent(2 * COUNT) + 2, false);
        });
    }
}

#[test]
fn a_cast_may_be_on_its_way_to_two() {
    let last = sent(bobs(9)) + 1;
    for (asked, rules) in [(last + 3_000, &[][..]), (last + 3_001, &[Rule::Copied])] {
        copied(rules, asked, &|history| history.messages[bobs(9)].is_cast = true);
    }
    finds(&[Rule::Copied], |history| {
        history.messages[bobs(9)].is_cast = true;
        history.copy(BOB, BOB, 9, last + 10, false);
    });
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
    let suffers = |rules: &[Rule], fault: Fault, from: Time, to: Time| {
        swapped(rules, &|history| history.suffer(fault, from, to));
    };
    // A fault that makes messages take another way was there between sending and seeing it.
    suffers(&[], Fault::BrokerKilled, came, came + 5_000);
    suffers(&[Rule::OutOfOrder], Fault::BrokerKilled, came + 1, came + 5_000);
    suffers(&[], Fault::BrokerKilled, 1_000, earlier - margins().back);
    suffers(&[Rule::OutOfOrder], Fault::BrokerKilled, 1_000, earlier - margins().back - 1);
    suffers(&[], Fault::NodeKilled(1), earlier - margins().death, earlier - margins().death + 500);
    suffers(
        &[Rule::OutOfOrder],
        Fault::NodeKilled(1),
        earlier - margins().death - 1,
        earlier - margins().death + 500,
    );
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
            history.delay(margins().belief);
            let ended = earlier - 2 * margins().soon - ended;
            let session = Session { node: 2, asked: 1, since: 2, ..history.sessions[BOB].clone() };
            history.sessions.push(session);
            history.quit(4, ended - 5);
            history.suffer(Fault::Cut(2, Links::Broker), earlier + margins().belief, came + margins().belief);
        });
    }
    for (asked, rules) in [(0, &[][..]), (1, &[Rule::OutOfOrder])] {
        swapped(rules, &|history| {
            history.delay(margins().belief);
            let login = Question { node: 2, asked: earlier - asked, ..history.questions[0] };
            history.questions.push(Question { answered: None, given_up: Some(earlier), ..login });
            history.suffer(Fault::Cut(2, Links::Broker), earlier + margins().belief, came + margins().belief);
        });
    }
    // To hop or to nap makes none.
    swapped(&[Rule::OutOfOrder], &|history| history.sessions[BOB].naps.push((earlier, later)));
    // What is not acknowledged goes another way at last.
    let patient = earlier + margins().ack - margins().soon;
    for (slept, rules) in [(earlier, &[][..]), (earlier + 1, &[Rule::OutOfOrder])] {
        swapped(rules, &|history| {
            let seen = &mut history.clients[BOB].seen[4];
            (seen.at, seen.acked) = (patient, Some(patient));
            history.messages[bobs(3)].attempts[0].told = Some((patient + 1, Fate::Delivered));
            history.sessions[BOB].naps.push((slept, patient));
        });
    }
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
    // So does one that found no room, and was sent again.
    for (again, rules) in [(later, &[][..]), (later - 1, &[Rule::OutOfOrder])] {
        swapped(rules, &|history| {
            let told = Some((earlier + 1, Fate::Error(ErrorCode::Limited)));
            let first = Attempt { told, ..history.messages[bobs(3)].attempts[0] };
            let second = Attempt { session: ALICE, sent: again, told: Some((came + 1, Fate::Delivered)) };
            history.messages[bobs(3)].attempts = vec![first, second];
            history.sessions[BOB].naps.push((earlier - 10, earlier));
        });
    }
    // Over another connection the later one may overtake it.
    let overtakes = |rules: &[Rule], again: Time, spoil: &dyn Fn(&mut History)| {
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
    // Not one that is in the mailbox, once that is known where its recipient is.
    let known = came - margins().soon;
    for (stored, rules) in
        [(known, &[Rule::OutOfOrder, Rule::StoredThough][..]), (known + 1, &[Rule::StoredThough])]
    {
        overtakes(rules, came, &|history| {
            history.messages[bobs(3)].attempts[0].told = Some((stored, Fate::Stored));
        });
    }
    // Who comes later is given the one from the mailbox, whatever an earlier session was given before.
    for (stored, rules) in
        [(known, &[Rule::OutOfOrder, Rule::StoredThough][..]), (known + 1, &[Rule::StoredThough])]
    {
        overtakes(rules, came, &|history| {
            history.messages[bobs(3)].attempts[0].told = Some((stored, Fate::Stored));
            history.clients[BOB].seen[4..].iter_mut().for_each(|seen| seen.session = BOB_LATER);
            history.clients[BOB].seen[4].at = came + 1;
            history.quit(BOB, came);
            (history.sessions[BOB_LATER].asked, history.sessions[BOB_LATER].since) = (came + 1, came + 1);
            history.questions.clear();
        });
    }
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
fn what_another_device_has_taken_may_come_later() {
    let (earlier, later) = (sent(bobs(3)), sent(bobs(4)));
    for (at, rules) in [(later + 1, &[][..]), (later + 2, &[Rule::OutOfOrder])] {
        finds(rules, |history| {
            // bob hops, and is shown an earlier message there.
            history.swap(BOB);
            history.quit(BOB, later + 2);
            history.clients[BOB].seen[4..].iter_mut().for_each(|seen| seen.session = BOB_LATER);
            let seen = &mut history.clients[BOB].seen[4];
            (seen.at, seen.acked) = (later + 20, Some(later + 20));
            history.messages[bobs(3)].attempts[0].told = Some((later + 30, Fate::Delivered));
            (history.sessions[BOB_LATER].asked, history.sessions[BOB_LATER].since) = (later + 5, later + 10);
            history.questions.clear();
            // carol is another device of his.
            let seen = Seen { at, session: CAROL, acked: None, ..history.clients[BOB].seen[4] };
            history.sessions[CAROL].user = 1;
            history.clients[CAROL] = Client { user: 1, acks: false, seen: vec![seen] };
            (history.sessions[CAROL].asked, history.sessions[CAROL].since) = (earlier - 10, earlier - 5);
            history.quit(CAROL, later - 10);
            history.forget(2);
        });
    }
}

/// bob is sent his last message again, on a second connection that begins then.
#[track_caller]
fn copied(rules: &[Rule], asked: Time, spoil: &dyn Fn(&mut History)) {
    finds(rules, |history| {
        history.sessions[BOB_LATER].asked = asked;
        history.sessions[BOB_LATER].since = asked + 5;
        history.copy(BOB, BOB_LATER, 9, asked + 100, false);
        spoil(history);
    });
}

#[test]
fn what_the_kernel_of_a_broken_connection_had_may_come_later() {
    let (earlier, later) = (sent(carols(3)), sent(carols(4)));
    let late = margins().note + margins().way;
    for (fell, rules) in [(later + 1 + late, &[][..]), (later + 2 + late, &[Rule::OutOfOrder])] {
        finds(rules, |history| {
            // carol sees a later one on the connection that she has next, and then the earlier one on a third.
            let session = |asked| Session { asked, since: asked, ..history.sessions[CAROL].clone() };
            let next = [session(earlier - 5), session(later + 5)];
            history.sessions.extend(next);
            let seen = &mut history.clients[CAROL].seen;
            seen.swap(3, 4);
            (seen[3].session, seen[4].session) = (4, 5);
            seen[4].at = later + 20;
            seen[5..].iter_mut().for_each(|seen| seen.session = 5);
            history.messages[carols(3)].attempts[0].told = Some((later + 30, Fate::Delivered));
            history.quit(4, later + 6);
            history.hang_up(CAROL, fell);
        });
    }
}

#[test]
fn what_it_took_on_another_node_may_come_again_behind_a_later_one() {
    let (earlier, later) = (sent(bobs(3)), sent(bobs(4)));
    let hops = |rules: &[Rule], node: usize, acked: Time, left: Time| {
        finds(rules, |history| {
            history.quit(BOB, left);
            let hopped = &mut history.sessions[BOB_LATER];
            (hopped.node, hopped.asked, hopped.since) = (node, earlier + 11, earlier + 12);
            let seen = &mut history.clients[BOB].seen;
            seen[4..].iter_mut().for_each(|seen| seen.session = BOB_LATER);
            seen[3].acked = Some(acked);
            let again = Seen { at: later + 2, session: BOB_LATER, is_shown: false, ..seen[3] };
            seen.insert(5, Seen { acked: Some(later + 3), ..again });
            history.messages[bobs(3)].attempts[0].told = Some((later + 4, Fate::Delivered));
            history.questions.clear();
        });
    };
    hops(&[], 2, later + 1, later + 1);
    hops(&[Rule::OutOfOrder], 2, later + 2, later + 1);
    hops(&[Rule::OutOfOrder], 2, later + 1, later + 2);
    hops(&[Rule::OutOfOrder], 1, later + 1, later + 1);
}
