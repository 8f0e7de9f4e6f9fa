//! Redis loses everything: how long until all sessions of a node are in it
//! again, and how long lookups of another node take meanwhile.
//!
//! Real sessions on one node; `FLUSHALL`; then the users in Redis are counted
//! every few milliseconds, while a user on the other node asks for one user after
//! the other, each once, at a fixed pace whatever the answers.

use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::client::Transport;
use crate::cluster::presence::{flush_all, key_count};
use crate::cluster::talker::Talker;
use crate::cluster::{Nodes, Rig};
use crate::crowd::Crowd;
use crate::dialect::Dialect;
use crate::measure::Times;
use crate::report::{grouped, table, verdict};

/// Measures and prints it.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let users = if rig.quick { 2_000 } else { 10_000 };
    let mut redis = rig.services.connect()?;
    let nodes = Nodes::start(rig)?;
    let [a, b] = nodes.addresses()?;
    eprintln!("again: {users} sessions on one node");
    let crowd = Crowd::log_in(&[a], Transport::Tcp, Dialect::Cluster, users, LOGINS_AT_ONCE)?;
    // Those of the node before have gone when their processes ended.
    let count = key_count(&mut redis)?;
    if count < users as u64 {
        return Err(io::Error::other(format!("Redis has {count} of {users} users")));
    }

    let before = Lookups::start(Talker::log_in(b, "asker1")?, users);
    sleep(CALM_TIME);
    let before = before.stop()?;
    let during = Lookups::start(Talker::log_in(b, "asker2")?, users);
    flush_all(&mut redis)?;
    let flushed = Instant::now();
    let mut first = None;
    loop {
        let count = key_count(&mut redis)?;
        if count > ASKER {
            first.get_or_insert(flushed.elapsed());
        }
        if count >= users as u64 + ASKER {
            break;
        }
        if flushed.elapsed() > AGAIN_TIME_MAX {
            return Err(io::Error::other(format!("only {count} of {users} users are back in Redis")));
        }
        sleep(Duration::from_millis(2));
    }
    let all = flushed.elapsed();
    let during = during.stop()?;
    drop(crowd);

    let first = first.unwrap_or(all);
    let scaled = first + (all - first).mul_f64(SCALED / users as f64);
    println!();
    println!("Redis loses everything: {} sessions on one node of two", grouped(users as f64));
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let row = |what: String, figure: String, verdict: String| vec![what, figure, verdict];
    let rows = [
        row("until the first are back".to_owned(), seconds(first), String::new()),
        row("until all are back".to_owned(), seconds(all), String::new()),
        row(
            format!("the same for {}, by the pace of these", grouped(SCALED)),
            seconds(scaled),
            verdict(scaled.as_secs_f64(), TIME_AIM, "10 s"),
        ),
    ];
    table(&["", "", ""], &rows);
    println!(
        "lookups: WHO of one user after the other from the second node, {} a second",
        1_000 / PACE.as_millis()
    );
    let back = flushed + first;
    let rows = [
        before.row("before", |_| true),
        during.row("while Redis is empty", |at| at < back),
        during.row("while it is filled", |at| at >= back),
    ];
    table(&["", "lookups", "p50 us", "p99 us", "online", "offline", "unavailable"], &rows);
    Ok(())
}

/// One user who asks for others at a fixed pace, on two threads.
struct Lookups {
    is_over: Arc<AtomicBool>,
    asking: thread::JoinHandle<io::Result<Vec<Instant>>>,
    hearing: thread::JoinHandle<io::Result<Vec<(usize, Instant, Answer)>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Online,
    Offline,
    Unavailable,
}

/// What came of it: when each was asked, how long it took, and the answer.
struct Looked(Vec<(Instant, Duration, Answer)>);

impl Lookups {
    fn start(talker: Talker, users: usize) -> Lookups {
        let (mut to, from) = talker.split();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let asking = thread::spawn(move || {
            let mut asked = vec![];
            let start = Instant::now();
            while !over.load(SeqCst) {
                let number = asked.len();
                // So that those who come late are not asked for last.
                let user = Dialect::Cluster.name(number * STRIDE % users);
                asked.push(Instant::now());
                to.write_all(format!("@{number} WHO {user}\n").as_bytes())?;
                sleep((start + PACE * (number as u32 + 1)).saturating_duration_since(Instant::now()));
            }
            to.write_all(b"QUIT\n")?;
            Ok(asked)
        });
        let hearing = thread::spawn(move || {
            let mut heard = vec![];
            for line in from.lines() {
                let line = line?;
                if line.starts_with("BYE quit") {
                    break;
                }
                let wrong = || io::Error::other(format!("received {line:?} where an answer to WHO was due"));
                let (number, rest) =
                    line.strip_prefix('@').and_then(|l| l.split_once(' ')).ok_or_else(wrong)?;
                let answer = match rest.split(' ').collect::<Vec<_>>()[..] {
                    ["OK", _, "online", ..] => Answer::Online,
                    ["OK", _, "offline"] => Answer::Offline,
                    ["ERR", "unavailable", ..] => Answer::Unavailable,
                    _ => return Err(wrong()),
                };
                heard.push((number.parse().map_err(|_| wrong())?, Instant::now(), answer));
            }
            Ok(heard)
        });
        Lookups { is_over, asking, hearing }
    }

    /// Stops asking, and waits for the last answers.
    fn stop(self) -> io::Result<Looked> {
        self.is_over.store(true, SeqCst);
        let asked = self.asking.join().expect("it does not panic")?;
        let heard = self.hearing.join().expect("it does not panic")?;
        if heard.len() != asked.len() {
            return Err(io::Error::other(format!(
                "{} of {} lookups were answered",
                heard.len(),
                asked.len()
            )));
        }
        let looked = |(number, at, answer): (usize, Instant, Answer)| {
            (asked[number], at.duration_since(asked[number]), answer)
        };
        Ok(Looked(heard.into_iter().map(looked).collect()))
    }
}

impl Looked {
    /// A row of the table, of what was asked at a time of which `is_then` holds.
    fn row(&self, name: &str, is_then: impl Fn(Instant) -> bool) -> Vec<String> {
        let then: Vec<_> = self.0.iter().filter(|(at, _, _)| is_then(*at)).collect();
        let mut row = vec![name.to_owned(), grouped(then.len() as f64)];
        if then.is_empty() {
            row.extend(["-", "-", "-", "-", "-"].map(str::to_owned));
            return row;
        }
        let times = Times::of(then.iter().map(|(_, time, _)| *time));
        let of = |wanted| then.iter().filter(|(_, _, answer)| *answer == wanted).count() as f64;
        let answers = [Answer::Online, Answer::Offline, Answer::Unavailable].map(of);
        let times = [50, 99].map(|percent| times.percentile_us(percent));
        row.extend(times.into_iter().chain(answers).map(grouped));
        row
    }
}

const LOGINS_AT_ONCE: usize = 128;
/// Whoever asks is a user, too.
const ASKER: u64 = 1;
/// Of a lookup.
const PACE: Duration = Duration::from_millis(1);
const CALM_TIME: Duration = Duration::from_secs(1);
const AGAIN_TIME_MAX: Duration = Duration::from_secs(60);
/// Has no divisor in common with the number of users.
const STRIDE: usize = 7_919;
const SCALED: f64 = 100_000.0;
const TIME_AIM: f64 = 10.0;
