//! How long one message takes on an idle link: from the sender's write to the
//! recipient's read.
//!
//! pinpost's way is client, node, broker, node, client; the plain program's is
//! publisher, broker, consumer. The first has two hops more, which a pair of
//! users on one node shows by itself. One message at a time, each kind in turn.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use amiquip::Publish;

use crate::cluster::talker::Talker;
use crate::cluster::{Nodes, Rig, amqp};
use crate::load::PAYLOAD_BYTES;
use crate::measure::Times;
use crate::report::{grouped, table, verdict};

/// Measures and prints all kinds.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let count = if rig.quick { 200 } else { 2_000 };
    eprintln!("latency of {count} messages, one at a time");
    let nodes = Nodes::start(rig)?;
    let [a, b] = nodes.addresses()?;
    let mut alice = Talker::log_in(a, "alice")?;
    let mut bob = Talker::log_in(b, "bob")?;
    let mut carol = Talker::log_in(a, "carol")?;
    let (mut far, mut far_ok, mut near, mut plain) = (vec![], vec![], vec![], vec![]);
    amqp::with_queue(&rig.services.amqp, |channel, inbox| {
        let (key, text) = (amqp::key(std::process::id()), "x".repeat(PAYLOAD_BYTES));
        for round in 0..WARM_UP + count {
            let clock = Instant::now();
            alice.say(&format!("SEND bob {text}"))?;
            bob.hear("MSG alice ")?;
            let one_way = clock.elapsed();
            alice.hear("OK ")?;
            let with_reply = clock.elapsed();
            sleep(PAUSE);
            let clock = Instant::now();
            alice.say(&format!("SEND carol {text}"))?;
            carol.hear("MSG alice ")?;
            let on_one_node = clock.elapsed();
            alice.hear("OK ")?;
            sleep(PAUSE);
            let clock = Instant::now();
            amqp::publish(channel, Publish::new(text.as_bytes(), &key[..]))?;
            inbox.next(Some(amqp::SILENCE_MAX))?;
            let published = clock.elapsed();
            sleep(PAUSE);
            if round >= WARM_UP {
                far.push(one_way);
                far_ok.push(with_reply);
                near.push(on_one_node);
                plain.push(published);
            }
        }
        Ok(())
    })?;
    let [far, far_ok, near, plain] = [far, far_ok, near, plain].map(Times::of);
    println!();
    println!(
        "one message at a time: {} of each kind in turn, {PAYLOAD_BYTES} bytes, in us",
        grouped(count as f64)
    );
    let row = |name: &str, times: &Times| {
        let figure = |percent| grouped(times.percentile_us(percent));
        vec![name.to_owned(), figure(50), figure(99)]
    };
    let rows = [
        row("pinpost, client to client, two nodes", &far),
        row("plain, publish to consume", &plain),
        row("pinpost, client to client, one node", &near),
        row("pinpost, SEND to OK, two nodes", &far_ok),
    ];
    table(&["", "p50", "p99"], &rows);
    let ratio = far.percentile_us(50) / plain.percentile_us(50);
    println!("  p50 of pinpost on two nodes / plain: {ratio:.2} ({})", verdict(ratio, RATIO_AIM, "1.50"));
    let hops = (far.percentile_us(50) - near.percentile_us(50)) / plain.percentile_us(50);
    println!("  the same without what a message takes on one node: {hops:.2}");
    Ok(())
}

const WARM_UP: usize = 50;
/// Long enough that everything is asleep again, short enough to stay in step.
const PAUSE: Duration = Duration::from_millis(2);
const RATIO_AIM: f64 = 1.5;
