//! NATS's own cluster: two servers with a route between them, senders on one,
//! recipients on the other, of messages or of requests.
//!
//! A server drops what nobody has asked for, and learns over the route, some time
//! later, what users of the other one ask for. So two more users log in after all
//! others, and one calls the other until it is heard, or until there is a reply to a
//! request: then everybody before is known.

use std::io;
use std::time::{Duration, Instant};

use crate::client::{Client, Transport};
use crate::crowd::{Crowd, Job};
use crate::dialect::{Dialect, Event, Phase, Verb};
use crate::load::{PAYLOAD_BYTES, payload};
use crate::machine::Cores;
use crate::peer::nats::Release;
use crate::peer::{free_port, start};
use crate::server::Server;

/// Both servers.
pub struct Nats {
    pub servers: [Server; 2],
    pub dialect: Dialect,
}

impl Nats {
    /// Starts both, for users who send this way.
    pub fn start(cores: Cores, release: Release, verb: Verb) -> io::Result<Nats> {
        let (first, first_route) = one(cores, release, None)?;
        let (second, _) = one(cores, release, Some(first_route))?;
        let dialect = if verb == Verb::Send { Dialect::NatsRequests } else { Dialect::Nats };
        Ok(Nats { servers: [first, second], dialect })
    }

    /// Logs users in, those with an even number on the first server, and waits until both know all.
    pub fn log_in(&self, users: usize, at_once: usize) -> io::Result<Crowd> {
        let [a, b] = &self.servers;
        let addresses = [a.address(a.tcp)?, b.address(b.tcp)?];
        let mut crowd = Crowd::log_in(&addresses, Transport::Tcp, self.dialect, users, at_once)?;
        crowd.grow(users + 2, at_once)?;
        let mut call = Call { dialect: self.dialect, caller: users, calls: 0, heard: 0 };
        let clock = Instant::now();
        while call.heard == 0 {
            if clock.elapsed() > JOIN_MAX {
                return Err(io::Error::other(format!(
                    "NATS carries nothing over its route for {JOIN_MAX:?}"
                )));
            }
            crowd.begin(&mut call, users)?;
            call.calls += 1;
            crowd.turn(&mut call, CALL_PAUSE)?;
        }
        // Calls that came late must not be taken for messages of the load.
        while call.heard < call.calls && crowd.turn(&mut call, CALL_PAUSE)?.is_some() {}
        Ok(crowd)
    }
}

/// Starts one server; where it listens for routes.
fn one(cores: Cores, release: Release, other_route: Option<u16>) -> io::Result<(Server, u16)> {
    let (port, route) = (free_port()?, free_port()?);
    let url = |port: u16| format!("nats://127.0.0.1:{port}");
    let (port_text, own) = (port.to_string(), url(route));
    let mut arguments = vec!["--addr", "127.0.0.1", "--port", &port_text];
    // A client that logs in while the other server is found is not told of that.
    arguments.extend(["--cluster", &own, "--cluster_name", "bench", "--no_advertise"]);
    let other = other_route.map(url);
    arguments.extend(other.iter().flat_map(|other| ["--routes", other]));
    Ok((start(cores, &release.program(), &arguments, port, "")?, route))
}

/// One user calls the next one until that hears it.
struct Call {
    dialect: Dialect,
    caller: usize,
    calls: u32,
    heard: u32,
}

impl Job for Call {
    const PHASE: Phase = Phase::Load;
    const WANTED: &str = "a call";

    fn begin(&mut self, client: &mut Client, _: usize) -> io::Result<bool> {
        let to = self.caller + 1;
        let mut request = self.dialect.message_head(Verb::Cast, self.caller, to, PAYLOAD_BYTES);
        request.extend_from_slice(&payload(self.caller, self.calls));
        request.extend_from_slice(self.dialect.message_tail());
        client.send(&request);
        Ok(false)
    }

    fn event(&mut self, _: &mut Client, _: usize, event: Event<'_>) -> io::Result<usize> {
        self.heard += u32::from(match event {
            Event::Message(_) => self.dialect == Dialect::Nats,
            Event::Answered { .. } => true,
            _ => false,
        });
        Ok(0)
    }
}

const JOIN_MAX: Duration = Duration::from_secs(10);
const CALL_PAUSE: Duration = Duration::from_millis(50);
