//! A cluster of two nodes on one machine, with a private Redis and RabbitMQ.
//!
//! What is measured, each in a file of its own: messages from node to node
//! (`forward`) and how long one of them takes (`latency`), both beside the plain
//! program (`plain`, `amqp`); what presence costs Redis (`presence`), and how
//! long it takes to tell Redis everything again (`again`). `services` starts the
//! two servers, `talker` is a single user.
//!
//! All processes share all cores: this is about what a message costs, not about
//! how many a second two cores can carry for five processes.

mod again;
mod amqp;
pub mod forward;
mod latency;
pub mod plain;
pub mod presence;
mod services;
pub mod talker;

use std::io;
use std::net::SocketAddr;

use crate::cluster::services::Services;
use crate::machine::Cores;
use crate::server::{Program, Server};

/// What every part needs.
pub struct Rig<'a> {
    pub pinpost: &'a Program,
    /// Another build of it, to compare with.
    pub before: Option<&'a Program>,
    pub cores: Cores,
    pub services: Services,
    pub quick: bool,
}

impl<'a> Rig<'a> {
    /// Starts both servers.
    pub fn start(
        pinpost: &'a Program,
        before: Option<&'a Program>,
        cores: Cores,
        quick: bool,
    ) -> io::Result<Self> {
        let cores = cores.unpinned()?;
        eprintln!("starting a private Redis and RabbitMQ");
        Ok(Rig { pinpost, before, cores, services: Services::start()?, quick })
    }
}

/// Runs all parts that are about clusters. `window`: of the messages, only those with so many under way.
pub fn run(rig: &Rig<'_>, window: Option<u32>) -> io::Result<()> {
    forward::run(rig, window)?;
    if window.is_none() {
        latency::run(rig)?;
        presence::run(rig)?;
        again::run(rig)?;
    }
    Ok(())
}

/// Two nodes of one cluster.
pub struct Nodes {
    pub a: Server,
    pub b: Server,
}

impl Nodes {
    /// Two nodes with default settings.
    fn start(rig: &Rig<'_>) -> io::Result<Nodes> {
        Nodes::of(rig.pinpost, rig, &[])
    }

    /// Two nodes of this program, with more flags.
    pub fn of(program: &Program, rig: &Rig<'_>, more: &[&str]) -> io::Result<Nodes> {
        let start = |name| {
            let services = &rig.services;
            let flags = ["--redis", &services.redis, "--amqp", &services.amqp, "--node", name];
            program.start(rig.cores, &[&flags[..], more].concat())
        };
        Ok(Nodes { a: start(NODE_NAMES[0])?, b: start(NODE_NAMES[1])? })
    }

    /// Where clients of either connect to.
    pub fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        Ok([self.a.address(self.a.tcp)?, self.b.address(self.b.tcp)?])
    }
}

/// As long as names of machines may well be: what a user takes in Redis depends on it.
const NODE_NAMES: [&str; 2] = ["bench-node-a", "bench-node-b"];
