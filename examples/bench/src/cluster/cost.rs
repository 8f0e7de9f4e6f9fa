//! What a message from node to node costs: CPU time of every process that has to
//! do with it, and how many messages the broker took for it.

use std::io;

use crate::cluster::Rig;
use crate::measure::{self, Spread};

/// What one round of messages cost, by groups of processes.
#[derive(Clone, Copy)]
pub struct Cost<const GROUPS: usize> {
    /// CPU time a message of each group.
    pub cpu_us: [f64; GROUPS],
    /// Messages that the broker took for each of users.
    pub published: f64,
}

impl<const GROUPS: usize> Cost<GROUPS> {
    /// Lets `exchange` move so many messages, and tells what these processes needed for it.
    pub fn measure(
        rig: &Rig<'_>,
        groups: [&[u32]; GROUPS],
        messages: f64,
        exchange: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        let cpu = || -> io::Result<[f64; GROUPS]> {
            let mut seconds = [0.0; GROUPS];
            for (seconds, processes) in seconds.iter_mut().zip(groups) {
                for pid in processes {
                    *seconds += measure::cpu(*pid)?.as_secs_f64();
                }
            }
            Ok(seconds)
        };
        // Only with the broker there are any; asking takes a while.
        let has_broker = groups.iter().any(|processes| processes.contains(&rig.services.broker_pid));
        let published_until_now = || if has_broker { rig.services.published() } else { Ok(0) };
        let (published, before) = (published_until_now()?, cpu()?);
        exchange()?;
        let after = cpu()?;
        let published = (published_until_now()? - published) as f64 / messages;
        let cpu_us = std::array::from_fn(|group| (after[group] - before[group]) * 1e6 / messages);
        Ok(Cost { cpu_us, published })
    }

    /// CPU time a message of all groups.
    pub fn all_us(&self) -> f64 {
        self.cpu_us.iter().sum()
    }
}

/// The last cells of a table's row about some rounds: what each group cost, and what is in `TITLES`.
pub fn cells<const GROUPS: usize>(rounds: &[Cost<GROUPS>]) -> Vec<String> {
    let of = |figure: &dyn Fn(&Cost<GROUPS>) -> f64| Spread::of(rounds.iter().map(figure));
    let mut cells: Vec<String> =
        (0..GROUPS).map(|group| format!("{:.2}", of(&|cost| cost.cpu_us[group]).median)).collect();
    let all = of(&|cost| cost.all_us());
    cells.push(format!("{:.2}", all.median));
    cells.push(format!("{:.2} .. {:.2}", all.min, all.max));
    cells.push(format!("{:.1}", of(&|cost| cost.published).median * 1e3));
    cells
}

/// The titles of what follows the groups.
pub const TITLES: [&str; 3] = ["all", "min .. max", "AMQP"];
