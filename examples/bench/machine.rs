//! The machine that the bench runs on: what it is, which core does what, how
//! many files may be open.
//!
//! The server gets one core and the load generator another, so that neither
//! takes time from the other and a figure means "per core". With one core only
//! nothing is pinned, and the report says so. Nor is anything of a cluster: its
//! five processes share what there is.

use std::fs;
use std::io;
use std::thread::available_parallelism;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which core runs the server and which one this program; none with a single core.
#[derive(Clone, Copy)]
pub struct Cores {
    pinned: Option<(usize, usize)>,
    allowed: CpuSet,
}

impl Cores {
    /// Takes the first two cores that this process may use.
    pub fn choose() -> io::Result<Cores> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Ok(Cores { pinned: cores.next().zip(cores.next()), allowed })
    }

    /// Lets this process run on all cores again, and those that it starts with what this returns.
    pub fn unpinned(self) -> io::Result<Cores> {
        sched_setaffinity(None, &self.allowed)?;
        Ok(Cores { pinned: None, ..self })
    }

    /// Runs `start` on the server's core, which the child that it spawns inherits,
    /// and comes back to the load generator's.
    pub fn on_server_core<T>(self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((server, load)) = self.pinned else { return start() };
        pin(server)?;
        let started = start();
        pin(load)?;
        started
    }

    /// One line for the report.
    pub fn describe(self) -> String {
        match self.pinned {
            Some((server, load)) => format!("server pinned to core {server}, load generator to core {load}"),
            None => "one core only: server and load generator share it, expect noise".to_owned(),
        }
    }
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit on open files, which children inherit, as far as it goes, and returns it.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The machine in one line: processor, cores, kernel, load.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // x86 says `model name`; many ARM boards tell only the board's `Model`.
    let field = |name: &str| cpuinfo.lines().find_map(|line| line.strip_prefix(name)?.split_once(": "));
    let model =
        field("model name").or_else(|| field("Model")).map_or("unknown processor", |(_, model)| model);
    let first_line = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let kernel = first_line("/proc/sys/kernel/osrelease");
    let load = first_line("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let cores = available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, Linux {kernel}, {}, load average {load}", std::env::consts::ARCH)
}
