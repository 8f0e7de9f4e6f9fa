//! Plays the rows of the table, beside the other tests, and tells the cells' tests of it.
//!
//! A row takes long and mostly waits, so all rows begin when the first test begins; those that
//! break a broker share one, and are played in turn, because a broker takes seconds to start.
//! If one test is run by its name, only its row is played. What is shown in a row is in
//! `cells.rs`.

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use crate::cells::play;
use crate::rig::services::Broker;
use crate::town::{Town, calm};

/// What fails: the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    RedisKilled,
    RedisFrozen,
    BrokerKilled,
    BrokerFrozen,
    BothKilled,
    BothFrozen,
    /// The first node is cut off from both.
    NodeCut,
    /// The same, and nothing tells it.
    NodeHangs,
}

/// What is shown meanwhile and afterwards: the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Login,
    SendHere,
    SendElsewhere,
    Who,
    Others,
    Recovery,
}

const CELLS: [Cell; 6] =
    [Cell::Login, Cell::SendHere, Cell::SendElsewhere, Cell::Who, Cell::Others, Cell::Recovery];

/// Rows that are played in turn, in one town.
struct Play {
    faults: &'static [Fault],
    town: fn() -> Town,
    begun: Once,
}

static PLAYS: [Play; 6] = [
    Play::of(&[Fault::RedisKilled], || Town::new("redis-killed", calm(), 2)),
    Play::of(&[Fault::RedisFrozen], || Town::new("redis-frozen", calm(), 2)),
    Play::of(&[Fault::BrokerKilled, Fault::BothKilled], || Town::new("killed", Broker::own(), 2)),
    Play::of(&[Fault::BrokerFrozen, Fault::BothFrozen], || Town::new("frozen", Broker::own(), 2)),
    Play::of(&[Fault::NodeCut], || Town::with_ways("cut", calm(), 3)),
    Play::of(&[Fault::NodeHangs], || Town::with_ways("hangs", calm(), 3)),
];

/// What was shown, and has not been told to its test.
static SHOWN: Mutex<BTreeMap<(Fault, Cell), Result<(), String>>> = Mutex::new(BTreeMap::new());
static HAS_SHOWN: Condvar = Condvar::new();

/// Waits until a cell was shown, and fails if it was not as it should be.
pub fn is_as_told(fault: Fault, cell: Cell) {
    begin_beside();
    PLAYS.iter().filter(|play| play.faults.contains(&fault)).for_each(Play::begin);
    let waited = HAS_SHOWN.wait_while(shown(), |shown| !shown.contains_key(&(fault, cell)));
    let result = waited.unwrap_or_else(PoisonError::into_inner).remove(&(fault, cell));
    if let Some(Err(why)) = result {
        panic!("{fault:?}, {cell:?}: {why}");
    }
}

/// Begins to play all rows, unless this program was told which tests to run.
pub fn begin_beside() {
    if env::args().len() == 1 {
        PLAYS.iter().for_each(Play::begin);
    }
}

/// Shows one cell.
pub fn show(fault: Fault, cell: Cell, act: impl FnOnce()) {
    tell(fault, cell, tried(act));
}

fn tell(fault: Fault, cell: Cell, result: Result<(), String>) {
    shown().entry((fault, cell)).or_insert(result);
    HAS_SHOWN.notify_all();
}

impl Play {
    const fn of(faults: &'static [Fault], town: fn() -> Town) -> Self {
        Play { faults, town, begun: Once::new() }
    }

    fn begin(&'static self) {
        self.begun.call_once(|| drop(thread::spawn(|| self.run())));
    }

    fn run(&self) {
        let result = tried(|| {
            let mut town = (self.town)();
            let (last, others) = self.faults.split_last().expect("one at least");
            for fault in others {
                tell(*fault, Cell::Recovery, play(*fault, &mut town));
            }
            let recovery = play(*last, &mut town);
            // Fails if a task of a node has panicked.
            drop(town);
            tell(*last, Cell::Recovery, recovery);
        });
        // For cells that were not reached, because something failed before.
        let Err(why) = result else { return };
        for fault in self.faults {
            CELLS.iter().for_each(|cell| tell(*fault, *cell, Err(why.clone())));
        }
    }
}

/// Runs it: what its panic said.
pub fn tried(act: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

fn shown() -> MutexGuard<'static, BTreeMap<(Fault, Cell), Result<(), String>>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
