//! What the kernel tells about a process, and what a series of figures comes to.
//!
//! CPU time is user and system time of all threads, those that ended too, by the
//! clock that the kernel keeps for each process: in nanoseconds, where the times
//! in `/proc/PID/stat` come in ticks of 10 ms.
//!
//! Memory is the proportional set size (PSS): pages shared with other
//! processes, such as the C library's, count by their share.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;

/// Memory of a process at one moment, in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub pss: u64,
    pub rss: u64,
}

/// Reads the memory of a process.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let (Some(pss), Some(rss)) = (field("Pss:"), field("Rss:")) else {
        return Err(io::Error::other(format!("/proc/{pid}/smaps_rollup has no Pss and Rss")));
    };
    Ok(Memory { pss, rss })
}

/// Reads the memory of a process once it stays the same for a while, or, on a
/// restless machine, when the time for that is up.
pub fn settled_memory(pid: u32) -> io::Result<Memory> {
    settled_memory_within(pid, SETTLE_MAX)
}

/// The same with another time.
pub fn settled_memory_within(pid: u32, time_max: Duration) -> io::Result<Memory> {
    let start = Instant::now();
    let mut last = memory(pid)?;
    let mut same = 0;
    while same < SAME_READINGS && start.elapsed() < time_max {
        sleep(READING_PAUSE);
        let now = memory(pid)?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// The CPU time that a process has used since it began, all threads together.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32))?;
    Ok(clock.now()?.into())
}

/// How many files and sockets a process has open.
pub fn open_files(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// In which order so many programs have their turn: back and forth, since whoever comes first, after
/// something else, pays for it by some percent.
pub fn order(round: usize, programs: usize) -> impl Iterator<Item = usize> {
    (0..programs).map(move |at| if round.is_multiple_of(2) { at } else { programs - 1 - at })
}

/// A series of figures in short.
#[derive(Clone, Copy)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Sums up a series; an empty one is a mistake in the bench.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = match figures.len() % 2 {
            0 => (figures[middle - 1] + figures[middle]) / 2.0,
            _ => figures[middle],
        };
        Spread { min: figures[0], median, max: figures[figures.len() - 1] }
    }
}

/// Times of single messages or requests, sorted.
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts them; none at all is a mistake in the bench.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Times {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort();
        assert!(!times.is_empty(), "nothing was measured");
        Times(times)
    }

    /// The time, in microseconds, that so many percent of them did not take longer than.
    pub fn percentile_us(&self, percent: usize) -> f64 {
        self.per_mille_us(10 * percent)
    }

    /// The same for so many of a thousand of them.
    pub fn per_mille_us(&self, per_mille: usize) -> f64 {
        let at = (self.0.len() * per_mille).div_ceil(1000).max(1) - 1;
        self.0[at].as_secs_f64() * 1e6
    }
}

const SAME_READINGS: u32 = 10;
const READING_PAUSE: Duration = Duration::from_millis(20);
const SETTLE_MAX: Duration = Duration::from_secs(5);
