//! A cluster of two nodes on one machine, with a private Redis and RabbitMQ.
//!
//! What is measured, each in a file of its own: messages from node to node
//! (`forward`, `cost`) and how long one of them takes (`latency`), both beside the
//! plain program (`plain`, `amqp`); what presence costs Redis (`presence`), and how
//! long it takes to tell Redis everything again (`again`). `services` starts the
//! two servers, `talker` is a single user.
//!
//! All processes share all cores: this is about what a message costs, not about
//! how many a second two cores can carry for five processes.

mod again;
mod amqp;
pub mod cost;
pub mod forward;
mod latency;
mod nats;
mod paced;
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
    /// Without a core of its own for anything.
    pub cores: Cores,
    /// With one for servers and one for the load generator, for parts that compare CPU time.
    pinned: Cores,
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
        let pinned = cores;
        let cores = cores.unpinned()?;
        eprintln!("starting a private Redis and RabbitMQ");
        Ok(Rig { pinpost, before, cores, pinned, services: Services::start()?, quick })
    }

    /// Moves both services to the servers' core, and this program to the load generator's, until
    /// what this returns is dropped. Servers are started with its `cores`.
    pub fn on_one_core(&self) -> io::Result<OneCore> {
        let pids = [self.services.redis_pid, self.services.broker_pid];
        for pid in pids {
            self.pinned.confine(pid)?;
        }
        self.pinned.on_load_core()?;
        Ok(OneCore { cores: self.pinned, pids })
    }
}

/// As long as it lives, Redis and the broker are on the servers' core.
pub struct OneCore {
    pub cores: Cores,
    pids: [u32; 2],
}

impl Drop for OneCore {
    fn drop(&mut self) {
        let released = self.pids.iter().try_for_each(|pid| self.cores.release(*pid));
        if let Err(error) = released.and_then(|()| self.cores.unpinned().map(drop)) {
            eprintln!("bench: {error}");
        }
    }
}

/// Runs all parts that are about clusters. `window`: of the messages, only those with so many under way.
pub fn run(rig: &Rig<'_>, window: Option<u32>) -> io::Result<()> {
    forward::run(rig, window)?;
    if window.is_none() {
        paced::run(rig)?;
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
        Nodes::of(rig.pinpost, rig, rig.cores, &[])
    }

    /// Two nodes of this program, with more flags.
    pub fn of(program: &Program, rig: &Rig<'_>, cores: Cores, more: &[&str]) -> io::Result<Nodes> {
        let start = |name| {
            let services = &rig.services;
            let flags = ["--redis", &services.redis, "--amqp", &services.amqp, "--node", name];
            program.start(cores, &[&flags[..], more].concat())
        };
        Ok(Nodes { a: start(NODE_NAMES[0])?, b: start(NODE_NAMES[1])? })
    }

    /// So many nodes on the servers' core, with default settings.
    pub fn many(rig: &Rig<'_>, cores: Cores, count: usize) -> io::Result<Vec<Server>> {
        let services = &rig.services;
        let start = |number| {
            let name = format!("bench-node-{number}");
            let flags = ["--redis", &services.redis, "--amqp", &services.amqp, "--node", &name];
            rig.pinpost.start(cores, &flags)
        };
        (0..count).map(start).collect()
    }

    /// Where clients of either connect to.
    pub fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        Ok([self.a.address(self.a.tcp)?, self.b.address(self.b.tcp)?])
    }
}

/// As long as names of machines may well be: what a user takes in Redis depends on it.
const NODE_NAMES: [&str; 2] = ["bench-node-a", "bench-node-b"];
