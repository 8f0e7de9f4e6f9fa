//! What a stored message weighs: in Redis, and in the memory of a node alone.
//!
//! Many users with few messages each, which is what mailboxes mostly hold: the
//! user's share of the memory counts. The messages come to the users in turn, as
//! they would, not one mailbox after the other. The figure is the difference
//! between full and empty, divided by the messages: nothing is estimated.

use std::io;
use std::time::Instant;

use crate::cluster::Rig;
use crate::cluster::presence::{key_count, settled_memory};
use crate::cluster::talker::Talker;
use crate::dialect::Dialect;
use crate::load::PAYLOAD_BYTES;
use crate::mailboxes::Place;
use crate::mailboxes::stream::send;
use crate::measure;
use crate::report::{grouped, table, verdict};

/// Measures and prints both.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    let users = if rig.quick { 1_000 } else { 10_000 };
    let names: Vec<String> = (1..=users).map(|user| Dialect::Cluster.name(user)).collect();
    let messages = (users * EACH) as u32;
    eprintln!("{messages} stored messages");

    let mut redis = rig.services.connect()?;
    let two_nodes = Place::two_nodes(rig)?;
    let mut sender = Talker::log_in(two_nodes.sender, SENDER)?;
    let (empty, keys) = (settled_memory(&mut redis)?, key_count(&mut redis)?);
    let redis_rate = store(&mut sender, &names, messages)?;
    let redis_bytes = (settled_memory(&mut redis)? as f64 - empty as f64) / f64::from(messages);
    let mailboxes = key_count(&mut redis)? - keys;
    if mailboxes != users as u64 {
        return Err(io::Error::other(format!("Redis has {mailboxes} of {users} mailboxes")));
    }
    drop((sender, two_nodes));

    let one_node = Place::one_node(rig)?;
    let mut sender = Talker::log_in(one_node.sender, SENDER)?;
    let pid = one_node.nodes[0].pid();
    let empty = measure::settled_memory(pid)?;
    let memory_rate = store(&mut sender, &names, messages)?;
    let memory_bytes = (measure::settled_memory(pid)?.pss as f64 - empty.pss as f64) / f64::from(messages);

    println!();
    println!(
        "stored messages: {} users with {EACH} each, {PAYLOAD_BYTES} bytes, names of {} characters",
        grouped(users as f64),
        SENDER.len()
    );
    let row = |name: &str, rate: f64, bytes: f64, verdict: String| {
        vec![name.to_owned(), grouped(rate), grouped(bytes), verdict]
    };
    let rows = [
        row("two nodes, in Redis", redis_rate, redis_bytes, verdict(redis_bytes, MESSAGE_BYTES_MAX, "250")),
        row("one node, in its memory", memory_rate, memory_bytes, String::new()),
    ];
    table(&["", "messages/s", "bytes a message", ""], &rows);
    Ok(())
}

/// Stores so many messages for these users in turn; how many a second.
fn store(sender: &mut Talker, names: &[String], messages: u32) -> io::Result<f64> {
    let clock = Instant::now();
    send(sender, names, 0..messages, WINDOW, " stored")?;
    Ok(f64::from(messages) / clock.elapsed().as_secs_f64())
}

const SENDER: &str = "user00000000";
const EACH: usize = 10;
const WINDOW: u32 = 256;
const MESSAGE_BYTES_MAX: f64 = 250.0;
