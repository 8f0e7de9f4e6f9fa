//! How long messages take from node to node at a fixed rate: pinpost, NATS's own
//! cluster of two, and the plain program that publishes each message by itself.
//!
//! Each message has a time at which it is due, and its way is counted from then,
//! whatever held it up. pinpost's and NATS's way is client, node, node, client; half
//! of the messages go in either direction. The plain program has no clients: the
//! load generator hands the sender each message through a pipe when it is due, and
//! the recipient's clock stops when it has it, one hop less than for the others. All
//! processes of a program share one core, the load generator has the other.

use std::io::{self, BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use amiquip::{Channel, Publish};
use nix::time::ClockId;

use crate::client::Transport;
use crate::cluster::amqp::{self, Inbox};
use crate::cluster::nats::Nats;
use crate::cluster::plain::Role;
use crate::cluster::{Nodes, OneCore, Rig};
use crate::crowd::Crowd;
use crate::dialect::{Dialect, Verb};
use crate::load::{PAYLOAD_BYTES, open};
use crate::measure::{Spread, Times};
use crate::peer::nats::Release;
use crate::report::{grouped, table, verdict};

/// Measures all in turn and prints them.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let (rounds, time) = if rig.quick { (1, TIME_QUICK) } else { (5, TIME) };
    let one_core = rig.on_one_core()?;
    let mut series = vec![vec![]; NAMES.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}: {RATE} messages a second from node to node", round + 1);
        series[0].push(pinpost(rig, &one_core, time)?);
        series[1].push(nats(&one_core, time)?);
        series[2].push(plain(rig, &one_core, time)?);
    }
    drop(one_core);
    println!();
    println!(
        "from node to node at {} messages a second: {PAYLOAD_BYTES} bytes, {USERS} users, {} s, {rounds} rounds in turn",
        grouped(f64::from(RATE)),
        time.as_secs()
    );
    println!("  from when a message was due to when its recipient had it, in us; medians of the rounds");
    let of = |which: usize, figure: usize| {
        let samples: &Vec<[f64; FIGURES]> = &series[which];
        Spread::of(samples.iter().map(|sample| sample[figure]))
    };
    let row = |which: usize| {
        let p50 = of(which, 0);
        let mut row = vec![NAMES[which].to_owned(), grouped(p50.median)];
        row.push(format!("{} .. {}", grouped(p50.min), grouped(p50.max)));
        row.extend((1..FIGURES).map(|figure| grouped(of(which, figure).median)));
        row
    };
    let rows: Vec<Vec<String>> = (0..NAMES.len()).map(row).collect();
    table(&["", "p50", "min .. max", "p99", "p99.9", "sent late, p50", "p99"], &rows);
    let ratio = of(0, 0).median / of(2, 0).median;
    let is_in_time = |which| of(which, LATE_P50).median < LATE_SHARE_MAX * of(which, 0).median;
    let verdict = match is_in_time(0) && is_in_time(2) {
        true => verdict(ratio, PLAIN_RATIO_MAX, "1.30"),
        false => "not judged: the load generator was late, the machine is busy".to_owned(),
    };
    println!("  p50 of pinpost / plain: {ratio:.2} ({verdict})");
    println!("  p50 of pinpost / nats: {:.2}", of(0, 0).median / of(1, 0).median);
    Ok(())
}

fn pinpost(rig: &Rig<'_>, one_core: &OneCore, time: Duration) -> io::Result<[f64; FIGURES]> {
    let nodes = Nodes::of(rig.pinpost, rig, one_core.cores, &[])?;
    let dialect = Dialect::Cluster;
    let mut crowd = Crowd::log_in(&nodes.addresses()?, Transport::Tcp, dialect, USERS, USERS)?;
    crowds(&mut crowd, dialect, time)
}

fn nats(one_core: &OneCore, time: Duration) -> io::Result<[f64; FIGURES]> {
    let nats = Nats::start(one_core.cores, Release::Newest, Verb::Cast)?;
    let mut crowd = nats.log_in(USERS, USERS)?;
    crowds(&mut crowd, nats.dialect, time)
}

/// The second round counts: in the first one places are looked up, and buffers grow.
fn crowds(crowd: &mut Crowd, dialect: Dialect, time: Duration) -> io::Result<[f64; FIGURES]> {
    open::run(crowd, dialect, USERS, RATE, WARM_UP)?;
    let outcome = open::run(crowd, dialect, USERS, RATE, time)?;
    crowd.expect_silence()?;
    Ok(figures(&outcome.ways, &outcome.lateness))
}

fn plain(rig: &Rig<'_>, one_core: &OneCore, time: Duration) -> io::Result<[f64; FIGURES]> {
    let warm_up = messages_of(WARM_UP);
    let messages = warm_up + messages_of(time);
    let amqp = &rig.services.amqp;
    let mut recipient = Role::start(one_core.cores, &[RECIPIENT, amqp, &messages.to_string()])?;
    let key = amqp::key(recipient.pid());
    let mut sender = Role::start(one_core.cores, &[SENDER, amqp, &key])?;
    let mut lateness = Vec::with_capacity(messages as usize);
    let start = Instant::now();
    let start_ns = now_ns()?;
    for number in 0..messages {
        let due = Duration::from_nanos(number * 1_000_000_000 / u64::from(RATE));
        // As the other generator, it does not sleep: it would end late.
        while start.elapsed() < due {
            std::hint::spin_loop();
        }
        lateness.push(start.elapsed() - due);
        let due_ns = start_ns + due.as_nanos() as u64;
        sender.commands.write_all(&due_ns.to_be_bytes())?;
    }
    let mut ways = Vec::with_capacity(messages as usize);
    for _ in 0..messages {
        let mut way = [0; 8];
        recipient.answers.read_exact(&mut way)?;
        ways.push(Duration::from_nanos(u64::from_be_bytes(way)));
    }
    let counted = warm_up as usize..;
    Ok(figures(
        &Times::of(ways[counted.clone()].iter().copied()),
        &Times::of(lateness[counted].iter().copied()),
    ))
}

fn messages_of(time: Duration) -> u64 {
    (time.as_secs_f64() * f64::from(RATE)) as u64
}

fn figures(ways: &Times, lateness: &Times) -> [f64; FIGURES] {
    let [p50, p99, p999] = [500, 990, 999].map(|per_mille| ways.per_mille_us(per_mille));
    [p50, p99, p999, lateness.percentile_us(50), lateness.percentile_us(99)]
}

/// The plain sender: publishes a message for each time that comes through its standard input.
pub fn send(to: &Channel, recipient: &str) -> io::Result<()> {
    let mut dues = BufReader::new(io::stdin().lock());
    let mut message = [b'.'; 8 + PAYLOAD_BYTES];
    loop {
        if let Err(error) = dues.read_exact(&mut message[..8]) {
            let is_over = error.kind() == io::ErrorKind::UnexpectedEof;
            return if is_over { Ok(()) } else { Err(error) };
        }
        amqp::publish(to, Publish::new(&message, recipient))?;
    }
}

/// The plain recipient: tells the ways of so many messages once it has them all.
pub fn receive(inbox: &mut Inbox<'_>, messages: u64) -> io::Result<()> {
    let mut ways = Vec::with_capacity(8 * messages as usize);
    for _ in 0..messages {
        let message = inbox.next(Some(amqp::SILENCE_MAX))?;
        let due = message.first_chunk().map(|due| u64::from_be_bytes(*due));
        let due = due.ok_or_else(|| io::Error::other("a message came that should not"))?;
        ways.extend_from_slice(&now_ns()?.saturating_sub(due).to_be_bytes());
    }
    io::stdout().write_all(&ways)?;
    io::stdout().flush()
}

/// The clock that all processes of a machine share.
fn now_ns() -> io::Result<u64> {
    Ok(Duration::from(ClockId::CLOCK_MONOTONIC.now()?).as_nanos() as u64)
}

pub const SENDER: &str = "plain-paced-sender";
pub const RECIPIENT: &str = "plain-paced-recipient";
const NAMES: [&str; 3] = ["pinpost", "nats", "plain"];
/// p50, p99, p99.9, and how late messages were sent, p50 and p99.
const FIGURES: usize = 5;
const LATE_P50: usize = 3;
/// How much of the p50 may be the generator's own.
const LATE_SHARE_MAX: f64 = 0.1;
const RATE: u32 = 5_000;
const USERS: usize = 200;
const WARM_UP: Duration = Duration::from_millis(500);
const TIME: Duration = Duration::from_secs(3);
const TIME_QUICK: Duration = Duration::from_secs(1);
const PLAIN_RATIO_MAX: f64 = 1.3;
