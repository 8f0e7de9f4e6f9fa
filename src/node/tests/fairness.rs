//! Nobody can stall everybody: what all share has a part left for whoever comes next.

use crate::node::Turn;
use crate::node::deadlines::ANSWER_TIME_MAX;
use crate::node::route::{Flow, QUESTIONS_MAX};
use crate::node::seam::{Answer, Ask, Location, Said};
use crate::node::tests::Rig;
use crate::proto::line::Line;
use crate::proto::name::NodeId;
use crate::proto::wire::Receipt;

#[test]
fn who_takes_all_the_room_in_lanes_leaves_a_share_and_whoever_has_none_passes() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let other = NodeId::parse("b-1").expect("valid");
    let text = "x".repeat(3_000);
    // Each says as much as it may to users who never answer.
    let flood = |rig: &mut Rig, name: &str| {
        let sender = rig.enters(&format!("LOGIN {name}"), &[]);
        let (mut count, mut user) = (0, 0);
        while rig.node.turn(sender) == Turn::Read {
            let line = format!("SEND {name}-{user} {text}");
            if rig.node.line(sender, Line::Whole(line.as_bytes()), rig.now) == Flow::Next {
                (count, user) = (count + 1, (user + 1) % 2_000);
            }
            while let Some(ask) = rig.node.out().asks.pop() {
                let locations = vec![Location { node: other.clone(), sessions: vec![] }];
                rig.node.answered(ask.ticket, Answer::Located(Ok(locations)), rig.now);
            }
        }
        rig.says();
        count
    };
    let counts: Vec<usize> = (0..40).map(|n| flood(&mut rig, &format!("flood{n}"))).collect();
    assert!(counts[39] > 30, "{counts:?}");
    assert!(counts.is_sorted_by(|earlier, later| earlier >= later), "{counts:?}");
    // Who talks one message at a time is let through, whatever they have.
    let alice = rig.enters("LOGIN alice", &[]);
    rig.say(alice, "@1 SEND bob hi");
    rig.is_located(&[&other]);
    let gives = rig.gives();
    assert_eq!(gives.len(), 1);
    rig.node.said(&other, Said::Receipts(Receipt::Delivered, &[gives[0].0]), rig.now);
    assert!(rig.hear(alice).ends_with("@1 OK 1 delivered\n"));
}

#[test]
fn questions_are_shared_and_whoever_has_none_open_may_ask() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let mut open = vec![];
    let mut ask = |rig: &mut Rig, name: &str| {
        let asker = rig.enters(&format!("LOGIN {name}"), &[]);
        while rig.node.turn(asker) == Turn::Read {
            rig.node.line(asker, Line::Whole(b"WHO somebody"), rig.now);
        }
        let asks: Vec<Ask> = rig.node.out().asks.drain(..).collect();
        open.push((asker, asks));
        open[open.len() - 1].1.len()
    };
    // As many as an eighth of what it leaves.
    let first = QUESTIONS_MAX / 9;
    assert_eq!(ask(&mut rig, "alice"), first);
    assert_eq!(ask(&mut rig, "bob"), (QUESTIONS_MAX - first) / 9);
    let counts: Vec<usize> = (0..100).map(|n| ask(&mut rig, &format!("user{n}"))).collect();
    assert_eq!(counts[99], 1, "{counts:?}");
    // Who acknowledges is told.
    let carol = rig.enters("LOGIN carol ack", &[]);
    rig.say(carol, "@1 WHO somebody");
    rig.say(carol, "@2 WHO somebody");
    assert!(rig.hear(carol).ends_with(
        "\n@2 ERR limited too much of yours is under way; nothing was done, try again in a moment\n"
    ));
    // An answer lets its asker go on, and nobody else.
    let (bob, asks) = &open[1];
    rig.node.out().woken.clear();
    rig.node.answered(asks[0].ticket, Answer::Located(Ok(vec![])), rig.now);
    assert_eq!(rig.node.out().woken, [*bob]);
    for (_, asks) in &open {
        asks[1..].iter().for_each(|ask| rig.node.answered(ask.ticket, Answer::Located(Ok(vec![])), rig.now));
    }
    assert_eq!(rig.node.questions, open.len(), "the first of each but bob's, and carol's");
}

#[test]
fn what_expires_at_once_is_carried_out_in_turns() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let alice = rig.enters("LOGIN alice", &[]);
    (0..700).for_each(|n| rig.say(alice, &format!("@{n} SEND user{n} hi")));
    rig.hear(alice);
    rig.now += ANSWER_TIME_MAX;
    let mut turns = vec![];
    while turns.iter().sum::<usize>() < 700 {
        rig.node.tick(rig.now);
        turns.push(rig.hear(alice).lines().filter(|line| line.contains("ERR unavailable")).count());
        let goes_on = rig.node.due() == Some(rig.now);
        assert_eq!(goes_on, turns.len() == 1, "{turns:?}");
    }
    assert_eq!(turns, [512, 188]);
}

#[test]
fn who_says_goodbye_is_owed_all_that_expires_before() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let alice = rig.enters("LOGIN alice", &[]);
    (0..700).for_each(|n| rig.say(alice, &format!("@{n} SEND user{n} hi")));
    rig.say(alice, "QUIT");
    rig.hear(alice);
    // A node that was stopped for longer than anybody waits.
    rig.now += ANSWER_TIME_MAX * 2;
    rig.node.tick(rig.now);
    while rig.node.due() == Some(rig.now) {
        rig.node.tick(rig.now);
    }
    let heard = rig.hear(alice);
    assert_eq!(heard.lines().filter(|line| line.contains("ERR unavailable")).count(), 700);
    assert!(heard.lines().last().is_some_and(|line| line.starts_with("BYE quit")), "{heard}");
}
