//! The lane in every order of events.

mod explore;
mod fingerprint;
mod origin;
mod recipient;
mod rules;
mod set;
mod steps;
mod world;

use crate::node::lane::tests::explore::{explore, explore_all};
use crate::node::lane::tests::rules::Rule;
use crate::node::lane::tests::steps::Step;
use crate::node::lane::tests::world::{Setup, World};

/// Nothing is broken in any state.
fn holds(setup: Setup) {
    let found = explore(&setup);
    println!("{} states, {} ends", found.states, found.ends);
    if let Some(broken) = found.broken {
        panic!("{setup:?}\n{broken}");
    }
}

#[test]
fn moves() {
    holds(Setup { moves: 2, is_complete: true, ..Setup::QUIET });
}

#[test]
fn forgot() {
    holds(Setup { moves: 2, is_complete: true, remembers: false, ..Setup::QUIET });
}

#[test]
fn back() {
    holds(Setup { moves: 2, back: true, remembers: false, ..Setup::QUIET });
}

#[test]
fn here_first() {
    holds(Setup { places: &[0, 1], at: &[0], moves: 2, is_complete: true, ..Setup::QUIET });
}

#[test]
fn here_then() {
    holds(Setup { places: &[0, 1], at: &[1], moves: 2, is_complete: true, ..Setup::QUIET });
}

#[test]
fn here_back() {
    holds(Setup { places: &[0, 1], at: &[0], moves: 3, back: true, remembers: false, ..Setup::QUIET });
}

#[test]
fn both() {
    holds(Setup { at: &[1, 2], moves: 2, back: true, remembers: false, ..Setup::QUIET });
}

#[test]
fn mailbox() {
    holds(Setup { at: &[], moves: 2, room: Some(4), is_complete: true, remembers: false, ..Setup::QUIET });
}

#[test]
fn mailbox_moves() {
    holds(Setup { at: &[1], moves: 2, room: Some(4), is_complete: true, ..Setup::QUIET });
}

#[test]
fn mailbox_fails() {
    holds(Setup { at: &[1], moves: 2, room: Some(1), failures: 1, ..Setup::QUIET });
}

#[test]
fn mailbox_here() {
    holds(Setup { places: &[0, 1], at: &[0], moves: 2, room: Some(4), is_complete: true, ..Setup::QUIET });
}

#[test]
fn deaths() {
    holds(Setup { at: &[1, 2], moves: 1, deaths: 1, is_complete: true, ..Setup::QUIET });
}

#[test]
fn deaths_moves() {
    holds(Setup { at: &[1], moves: 2, deaths: 1, messages: 2, ..Setup::QUIET });
}

#[test]
fn returns() {
    holds(Setup { at: &[1], moves: 1, returns: 1, ..Setup::QUIET });
}

#[test]
fn returns_two() {
    holds(Setup { at: &[1, 2], moves: 1, returns: 1, is_complete: true, ..Setup::QUIET });
}

#[test]
fn cuts() {
    holds(Setup { at: &[1], moves: 2, cuts: 1, ..Setup::QUIET });
}

#[test]
fn expiries() {
    holds(Setup { at: &[1], moves: 2, expiries: 1, ..Setup::QUIET });
}

#[test]
fn expiries_mailbox() {
    holds(Setup { at: &[1], moves: 2, expiries: 1, room: Some(4), ..Setup::QUIET });
}

#[test]
fn overdue() {
    holds(Setup { at: &[1], moves: 1, overdue: Some(1), messages: 2, ..Setup::QUIET });
}

#[test]
fn overdue_mailbox() {
    holds(Setup { at: &[1], moves: 1, overdue: Some(1), room: Some(4), messages: 2, ..Setup::QUIET });
}

#[test]
fn overdue_two() {
    holds(Setup { at: &[1, 2], moves: 1, overdue: Some(1), messages: 2, ..Setup::QUIET });
}

#[test]
fn slow() {
    holds(Setup { at: &[1], moves: 2, back: true, is_slow: true, ..Setup::QUIET });
}

#[test]
fn slow_here() {
    holds(Setup { places: &[0, 1], at: &[0], moves: 2, back: true, is_slow: true, ..Setup::QUIET });
}

#[test]
fn casts() {
    holds(Setup { at: &[1], moves: 2, back: true, casts: &[0, 1], remembers: false, ..Setup::QUIET });
}

#[test]
fn casts2() {
    holds(Setup { at: &[1], moves: 2, back: true, casts: &[1], is_complete: true, ..Setup::QUIET });
}

#[test]
fn aways() {
    holds(Setup { at: &[1], moves: 2, aways: 1, back: true, ..Setup::QUIET });
}

/// What is left out of fingerprints does not matter.
#[test]
fn fingerprints() {
    let q = Setup::QUIET;
    explore_all(&Setup { at: &[1, 2], moves: 1, overdue: Some(1), messages: 2, ..q });
    explore_all(&Setup { places: &[0, 1], at: &[0], moves: 2, room: Some(4), is_complete: true, ..q });
    explore_all(&Setup { at: &[1], moves: 2, back: true, casts: &[0, 1], remembers: false, ..q });
}

/// A letter is shown behind a later one only if its node held it and it came back from there all the same.
#[test]
fn late_letters() {
    let setup = Setup { messages: 2, room: Some(4), ..Setup::QUIET };
    for (came_back, is_held) in [(true, true), (false, true), (true, false)] {
        let mut world = World::new(&setup);
        (world.sent, world.mailbox) = (2, vec![0, 1]);
        world.nodes[1].session.must_look = true;
        if is_held {
            world.hand(1, 0, true);
        } else {
            // The letters are in the wrong order.
            world.mailbox.reverse();
        }
        if came_back {
            world.nodes[1].missed = world.nodes[1].missed.with(0usize);
        }
        let is_fine = world.take_step(Step::Drain(1)).is_ok();
        assert_eq!(is_fine, came_back && is_held, "{came_back} {is_held}");
    }
}

/// Without the rule the exploration finds something broken.
fn breaks(rule: Rule, setup: Setup) {
    let found = explore(&Setup { off: Some(rule), ..setup });
    assert!(found.broken.is_some(), "without {rule:?} all of {} states hold", found.states);
}

#[test]
fn each_rule_left_out_is_missed() {
    let q = Setup::QUIET;
    breaks(Rule::First, Setup { moves: 2, back: true, ..q });
    breaks(Rule::Earlier, Setup { moves: 2, ..q });
    breaks(Rule::Draining, Setup { moves: 2, back: true, ..q });
    breaks(Rule::Notice, Setup { moves: 2, is_complete: true, ..q });
    breaks(Rule::NoticeFirst, Setup { moves: 2, is_complete: true, ..q });
    breaks(Rule::Announce, Setup { moves: 2, is_complete: true, ..q });
    breaks(
        Rule::NewsWhileAsking,
        Setup { places: &[0, 1], at: &[0], moves: 2, is_complete: true, remembers: false, ..q },
    );
    breaks(Rule::Return, Setup { at: &[1, 2], returns: 1, is_complete: true, ..q });
    breaks(Rule::Gather, Setup { moves: 2, room: Some(4), ..q });
    breaks(Rule::WasHere, Setup { places: &[0, 1], at: &[0], moves: 2, remembers: false, ..q });
    breaks(Rule::Asked, Setup { moves: 2, remembers: false, ..q });
    breaks(Rule::Doubt, Setup { moves: 1, deaths: 1, messages: 2, ..q });
    breaks(Rule::Hint, Setup { moves: 2, room: Some(4), ..q });
    breaks(Rule::Hold, Setup { moves: 2, room: Some(4), ..q });
    breaks(Rule::Closing, Setup { moves: 2, back: true, is_slow: true, ..q });
    breaks(Rule::OwnLogin, Setup { places: &[0, 1], at: &[0], moves: 3, back: true, is_complete: true, ..q });
    breaks(Rule::Answered, Setup { moves: 2, back: true, at: &[1, 2], remembers: true, ..q });
    breaks(Rule::Entering, Setup { moves: 2, ..q });
}

/// Larger ones, for `make lanes`.
mod big {
    use super::*;

    #[test]
    #[ignore = "make lanes"]
    fn messages() {
        holds(Setup { at: &[1], moves: 2, back: true, messages: 4, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn moves() {
        holds(Setup { moves: 3, back: true, remembers: false, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn three_places() {
        holds(Setup {
            places: &[0, 1, 2],
            at: &[0],
            messages: 2,
            moves: 3,
            back: true,
            remembers: false,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn mailbox() {
        holds(Setup { at: &[1], moves: 3, back: true, room: Some(2), ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn deaths() {
        holds(Setup { at: &[1], moves: 2, deaths: 1, room: Some(4), back: true, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn deaths_two() {
        holds(Setup { at: &[1, 2], moves: 2, deaths: 1, back: true, messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn returns_twice() {
        holds(Setup { at: &[1, 2], moves: 1, returns: 2, messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn returns_mailbox() {
        holds(Setup { at: &[1], moves: 2, returns: 1, room: Some(4), messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn cuts_mailbox() {
        holds(Setup { at: &[1], moves: 2, cuts: 1, room: Some(4), messages: 2, back: true, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn expiries_slow() {
        holds(Setup {
            at: &[1],
            moves: 2,
            back: true,
            is_slow: true,
            expiries: 1,
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn overdue_back() {
        holds(Setup {
            at: &[1],
            moves: 2,
            back: true,
            overdue: Some(1),
            room: Some(4),
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn overdue_moves() {
        holds(Setup { at: &[1, 2], moves: 3, back: true, overdue: Some(2), messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn slow_mailbox() {
        holds(Setup {
            places: &[0, 1],
            at: &[0],
            moves: 3,
            back: true,
            is_slow: true,
            room: Some(4),
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn slow_deaths() {
        holds(Setup {
            at: &[1],
            moves: 2,
            back: true,
            is_slow: true,
            deaths: 1,
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn slow_returns() {
        holds(Setup {
            at: &[1],
            moves: 2,
            back: true,
            is_slow: true,
            returns: 1,
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn casts_mailbox() {
        holds(Setup { at: &[1], moves: 3, back: true, casts: &[1], room: Some(4), ..Setup::QUIET });
    }

    #[test]
    #[ignore = "make lanes"]
    fn all() {
        holds(Setup {
            at: &[1, 2],
            moves: 1,
            back: true,
            returns: 1,
            deaths: 1,
            expiries: 1,
            aways: 1,
            room: Some(1),
            failures: 1,
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "make lanes"]
    fn fingerprints() {
        let q = Setup::QUIET;
        for setup in [
            Setup { at: &[1], moves: 1, overdue: Some(1), room: Some(4), messages: 2, ..q },
            Setup { at: &[1], moves: 2, back: true, casts: &[1], is_complete: true, ..q },
            Setup { places: &[0, 1], at: &[0], moves: 2, back: true, is_slow: true, ..q },
            Setup { places: &[0, 1], at: &[0], moves: 3, back: true, remembers: false, ..q },
            Setup { at: &[1, 2], moves: 1, deaths: 1, is_complete: true, ..q },
            Setup { at: &[1, 2], moves: 1, returns: 1, is_complete: true, ..q },
            Setup { at: &[1], moves: 2, room: Some(1), failures: 1, expiries: 1, messages: 2, ..q },
            Setup { at: &[1], moves: 2, aways: 1, cuts: 1, back: true, messages: 2, ..q },
            Setup { at: &[1], moves: 2, returns: 1, room: Some(4), messages: 2, ..q },
        ] {
            explore_all(&setup);
        }
    }
}
