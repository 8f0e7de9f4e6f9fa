//! Goes through all states of a world, the nearest first, so that what is broken is found by its shortest way.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::node::lane::tests::steps::Step;
use crate::node::lane::tests::world::{Broken, Setup, World};

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Those after which nothing may happen.
    pub ends: usize,
    /// What is broken, and the shortest way to it.
    pub broken: Option<String>,
}

/// Goes through all states.
pub fn explore(setup: &Setup) -> Found {
    let first = World::new(setup);
    // Where each state comes from, by which step.
    let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut known = HashSet::from([first.fingerprint()]);
    let mut todo = VecDeque::from([(0, first)]);
    let mut ends = 0;
    while let Some((at, world)) = todo.pop_front() {
        let steps = world.steps();
        if steps.is_empty() {
            ends += 1;
            if let Err(broken) = world.check_end() {
                return Found {
                    states: known.len(),
                    ends,
                    broken: Some(tell(setup, &ways, at, None, &broken)),
                };
            }
        }
        let last = steps.len().wrapping_sub(1);
        let mut world = Some(world);
        for (number, step) in steps.into_iter().enumerate() {
            let taken = if number == last { world.take() } else { world.clone() };
            let mut next = taken.expect("the last step takes it");
            if let Err(broken) = next.take_step(step) {
                let broken = Some(tell(setup, &ways, at, Some(step), &broken));
                return Found { states: known.len(), ends, broken };
            }
            if known.insert(next.fingerprint()) {
                todo.push_back((ways.len(), next));
                ways.push((at, Some(step)));
            }
        }
    }
    Found { states: known.len(), ends, broken: None }
}

/// Goes through all states, and leaves nothing out of them: those with one fingerprint lead to the same, and the
/// same is true of them.
pub fn explore_all(setup: &Setup) {
    let first = World::new(setup);
    let mut known = HashSet::from([first.all_of_it()]);
    let mut led: HashMap<u128, (bool, BTreeSet<Option<u128>>)> = HashMap::new();
    let mut todo = vec![first];
    while let Some(world) = todo.pop() {
        let steps = world.steps();
        let is_broken = steps.is_empty() && world.check_end().is_err();
        let mut leads = BTreeSet::new();
        for step in steps {
            let mut next = world.clone();
            let is_broken = next.take_step(step).is_err();
            leads.insert((!is_broken).then(|| next.fingerprint()));
            if !is_broken && known.insert(next.all_of_it()) {
                todo.push(next);
            }
        }
        let leads = (is_broken, leads);
        match led.entry(world.fingerprint()) {
            Entry::Vacant(entry) => _ = entry.insert(leads),
            Entry::Occupied(entry) => assert!(*entry.get() == leads, "{world:?}"),
        }
    }
    println!("{} states, {} fingerprints", known.len(), led.len());
    assert!(led.len() < known.len(), "something is left out");
}

/// The way to a state, step by step.
fn tell(
    setup: &Setup,
    ways: &[(usize, Option<Step>)],
    at: usize,
    last: Option<Step>,
    broken: &Broken,
) -> String {
    let mut steps: Vec<Step> = last.into_iter().collect();
    let mut at = at;
    while let (before, Some(step)) = ways[at] {
        steps.push(step);
        at = before;
    }
    let mut world = World::new(setup);
    let mut lines = vec![format!("{broken}; the shortest way:")];
    for step in steps.iter().rev() {
        world.tale = Some(vec![]);
        // The last one breaks it.
        let _ = world.take_step(*step);
        let tale = world.tale.take().unwrap_or_default();
        let more = if tale.is_empty() { String::new() } else { format!(": {}", tale.join("; ")) };
        lines.push(format!("  {step}{more}"));
    }
    lines.join("\n")
}
