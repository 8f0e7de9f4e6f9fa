//! Mailboxes and acknowledgements: what it costs to keep messages for those who
//! are not here, and to wait for a word from those who are.
//!
//! What is measured, each in a file of its own: how fast messages are stored
//! beside live delivery, and shown at the next login (`pace`); what a stored
//! message weighs (`weight`); what an acknowledged one takes beside a plain one
//! (`acks`). `stream` is the one sender and the one recipient. Two nodes keep
//! mailboxes in Redis, a node that is alone in its own memory: both are measured.

mod acks;
mod pace;
mod stream;
mod weight;

use std::io;
use std::net::SocketAddr;

use crate::cluster::presence::flush_all;
use crate::cluster::{Nodes, Rig};
use crate::measure;
use crate::server::Server;

/// Runs all parts.
pub fn run(rig: &Rig<'_>) -> io::Result<()> {
    pace::run(rig)?;
    weight::run(rig)?;
    acks::run(rig)
}

/// Where mailboxes are: servers with them, and what they run on.
struct Place {
    name: &'static str,
    sender: SocketAddr,
    recipient: SocketAddr,
    nodes: Vec<Server>,
    /// Redis and the broker, where there are any.
    services: Option<[u32; 2]>,
}

impl Place {
    /// Two nodes on an empty Redis; the sender is on one, the recipient on the other.
    fn two_nodes(rig: &Rig<'_>) -> io::Result<Place> {
        flush_all(&mut rig.services.connect()?)?;
        let nodes = Nodes::of(rig.pinpost, rig, rig.cores, &FLAGS)?;
        let [sender, recipient] = nodes.addresses()?;
        let services = Some([rig.services.redis_pid, rig.services.broker_pid]);
        Ok(Place { name: "two nodes", sender, recipient, nodes: vec![nodes.a, nodes.b], services })
    }

    /// One node in its own memory.
    fn one_node(rig: &Rig<'_>) -> io::Result<Place> {
        let node = rig.pinpost.start(rig.cores, &FLAGS)?;
        let address = node.address(node.tcp)?;
        let (sender, recipient) = (address, address);
        Ok(Place { name: "one node", sender, recipient, nodes: vec![node], services: None })
    }

    /// CPU seconds until now: of all nodes, of Redis, of the broker.
    fn cpu(&self) -> io::Result<[f64; 3]> {
        let seconds = |pid| measure::cpu(pid).map(|time| time.as_secs_f64());
        let mut nodes = 0.0;
        for node in &self.nodes {
            nodes += seconds(node.pid())?;
        }
        match self.services {
            Some([redis, broker]) => Ok([nodes, seconds(redis)?, seconds(broker)?]),
            None => Ok([nodes, 0.0, 0.0]),
        }
    }
}

/// More than any part stores for one user.
const FLAGS: [&str; 2] = ["--mailbox", "20000"];
