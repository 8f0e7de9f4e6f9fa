//! The lane in every order of events.

mod explore;
mod origin;
mod recipient;
mod rules;
mod steps;
mod world;

use crate::node::lane::tests::explore::explore;
use crate::node::lane::tests::rules::Rule;
use crate::node::lane::tests::world::Setup;

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
fn senders() {
    holds(Setup { at: &[1], moves: 2, back: true, messages: 4, senders: 2, ..Setup::QUIET });
}

#[test]
fn aways() {
    holds(Setup { at: &[1], moves: 2, aways: 1, back: true, ..Setup::QUIET });
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

mod big {
    use super::*;
    #[test]
    #[ignore = "takes minutes"]
    fn moves() {
        holds(Setup { moves: 3, back: true, remembers: false, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
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
    #[ignore = "takes minutes"]
    fn mailbox() {
        holds(Setup { at: &[1], moves: 3, back: true, room: Some(2), ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
    fn deaths() {
        holds(Setup { at: &[1], moves: 2, deaths: 1, room: Some(4), back: true, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
    fn deaths_two() {
        holds(Setup { at: &[1, 2], moves: 2, deaths: 1, back: true, messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
    fn returns() {
        holds(Setup {
            at: &[1],
            moves: 2,
            back: true,
            returns: 1,
            is_complete: false,
            messages: 2,
            ..Setup::QUIET
        });
    }

    #[test]
    #[ignore = "takes minutes"]
    fn returns_twice() {
        holds(Setup { at: &[1, 2], moves: 1, returns: 2, messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
    fn returns_mailbox() {
        holds(Setup { at: &[1], moves: 2, returns: 1, room: Some(4), messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
    fn cuts_mailbox() {
        holds(Setup { at: &[1], moves: 2, cuts: 1, room: Some(4), messages: 2, back: true, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
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
    #[ignore = "takes minutes"]
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
    #[ignore = "takes minutes"]
    fn overdue_moves() {
        holds(Setup { at: &[1, 2], moves: 3, back: true, overdue: Some(2), messages: 2, ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
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
    #[ignore = "takes minutes"]
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
    #[ignore = "takes minutes"]
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
    #[ignore = "takes minutes"]
    fn casts_mailbox() {
        holds(Setup { at: &[1], moves: 3, back: true, casts: &[1], room: Some(4), ..Setup::QUIET });
    }

    #[test]
    #[ignore = "takes minutes"]
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
            senders: 2,
            ..Setup::QUIET
        });
    }
}
