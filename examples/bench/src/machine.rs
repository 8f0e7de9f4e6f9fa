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

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
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

    /// Keeps this process to the load generator's core.
    pub fn on_load_core(self) -> io::Result<()> {
        self.pinned.map_or(Ok(()), |(_, load)| pin(load))
    }

    /// Keeps a process that runs already, with all of its threads, to the server's core.
    pub fn confine(self, pid: u32) -> io::Result<()> {
        let Some((server, _)) = self.pinned else { return Ok(()) };
        each_thread(pid, &one(server))
    }

    /// Lets such a process run on all cores again.
    pub fn release(self, pid: u32) -> io::Result<()> {
        each_thread(pid, &self.allowed)
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
    Ok(sched_setaffinity(None, &one(core))?)
}

fn one(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Those that are started later inherit it.
fn each_thread(pid: u32, cores: &CpuSet) -> io::Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let id = thread?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        match sched_setaffinity(id, cores) {
            // One that has ended meanwhile.
            Ok(()) | Err(Errno::SRCH) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
