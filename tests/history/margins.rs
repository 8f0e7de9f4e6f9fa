//! How exact a history is: what its units are, and how much later than it was a thing may be noted.
//!
//! In a real run threads note what they hear a little late, and machines have other work too. In virtual
//! time a note is exact, and only what nodes and services take their time for is a margin.

use crate::history::Time;

/// The margins of a history, in its units.
#[derive(Clone, Copy, Debug)]
pub struct Margins {
    /// Units of a millisecond.
    pub ms: Time,
    /// How late a client may note what came.
    pub note: Time,
    /// How long what a client says may be on its way to its node, and back.
    pub way: Time,
    /// How long anything may take from one end of the cluster to the other where nothing is wrong.
    pub soon: Time,
    /// How long a reply may take: the deadline, the sweep that looks at it, and some time for
    /// everything else. A node that was frozen has that much more, and so has a machine.
    pub reply: Time,
    /// How long after its end a fault may still make messages take another way, or tell less
    /// than the truth: nodes connect again within 2 s.
    pub back: Time,
    /// How long after its end a fault may still be felt: a reply's deadline, and the way there.
    pub aftermath: Time,
    /// For how long the others may still send to a node that was killed: its lease, and the
    /// next time that they renew theirs.
    pub death: Time,
    /// How long a node may remember where a user was.
    pub belief: Time,
    /// For how long there is doubt where users are, after a node is back under a new id.
    pub doubt: Time,
    /// How long after its login a session may still be drained its mailbox.
    pub drain: Time,
    /// How long before a message a client may have stopped to acknowledge, for its session to
    /// have no room for it.
    pub full: Time,
    /// How long a session may leave a message unacknowledged before it goes elsewhere.
    pub ack: Time,
    /// For how long a node knows what it has shown.
    pub known: Time,
    /// Of so many messages that were sent while a fault was at work one may time out.
    pub timeouts: usize,
}

impl Margins {
    /// Of a real run: in milliseconds.
    pub fn real() -> Self {
        let ms = 1;
        Margins {
            ms,
            note: 1_000,
            way: 1_000,
            soon: 3_000,
            reply: 13_000,
            known: 59_000,
            ..Self::in_units(ms)
        }
    }

    /// Of the simulator: in microseconds. What a client says is on its way for so long at most.
    /// `soon`: the longest that anything takes from one end to the other. Its faults may leave hardly a second.
    pub fn simulated(way: Time, soon: Time) -> Self {
        Margins { way, soon, timeouts: 5, ..Self::in_units(1_000) }
    }

    fn in_units(ms: Time) -> Self {
        Margins {
            ms,
            note: 0,
            way: 0,
            soon: 1_000 * ms,
            reply: 12_500 * ms,
            back: 3_000 * ms,
            aftermath: 12_000 * ms,
            death: 8_000 * ms,
            belief: 60_000 * ms,
            doubt: 5_000 * ms,
            drain: 3_000 * ms,
            full: 12_000 * ms,
            ack: 10_000 * ms,
            known: 60_000 * ms,
            timeouts: 20,
        }
    }
}
