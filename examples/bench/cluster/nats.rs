//! NATS's own cluster: two servers with a route between them, senders on one,
//! recipients on the other.
//!
//! A server drops what nobody has asked for, and learns over the route, some time
//! later, what users of the other one ask for. So one more user logs in after all
//! others, and is sent messages until one arrives: then everybody before is known.

use std::io;
use std::time::{Duration, Instant};

use crate::client::{Client, Transport};
use crate::crowd::{Crowd, Job};
use crate::dialect::{Dialect, Event, Phase, Verb};
use crate::load::{PAYLOAD_BYTES, payload};
use crate::machine::Cores;
use crate::peer::{free_port, start};
use crate::server::Server;

/// Both servers.
pub struct Nats {
    pub servers: [Server; 2],
}

impl Nats {
    /// Starts both.
    pub fn start(cores: Cores) -> io::Result<Nats> {
        let (first, first_route) = one(cores, None)?;
        let (second, _) = one(cores, Some(first_route))?;
        Ok(Nats { servers: [first, second] })
    }

    /// Logs users in, those with an even number on the first server, and waits until both know all.
    pub fn log_in(&self, users: usize, at_once: usize) -> io::Result<Crowd> {
        let [a, b] = &self.servers;
        let addresses = [a.address(a.tcp)?, b.address(b.tcp)?];
        let mut crowd = Crowd::log_in(&addresses, Transport::Tcp, Dialect::Nats, users, at_once)?;
        crowd.grow(users + 2, at_once)?;
        let mut call = Call { caller: users, calls: 0, heard: 0 };
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
fn one(cores: Cores, other_route: Option<u16>) -> io::Result<(Server, u16)> {
    let (port, route) = (free_port()?, free_port()?);
    let url = |port: u16| format!("nats://127.0.0.1:{port}");
    let (port_text, own) = (port.to_string(), url(route));
    let mut arguments = vec!["--addr", "127.0.0.1", "--port", &port_text];
    // A client that logs in while the other server is found is not told of that.
    arguments.extend(["--cluster", &own, "--cluster_name", "bench", "--no_advertise"]);
    let other = other_route.map(url);
    arguments.extend(other.iter().flat_map(|other| ["--routes", other]));
    Ok((start(cores, "nats-server", &arguments, port, "")?, route))
}

/// One user calls the next one until that hears it.
struct Call {
    caller: usize,
    calls: u32,
    heard: u32,
}

impl Job for Call {
    const PHASE: Phase = Phase::Load;
    const WANTED: &str = "a call";

    fn begin(&mut self, client: &mut Client, _: usize) -> io::Result<bool> {
        let dialect = Dialect::Nats;
        let mut request = dialect.message_head(Verb::Cast, self.caller + 1, PAYLOAD_BYTES);
        request.extend_from_slice(&payload(self.caller, self.calls));
        request.extend_from_slice(dialect.message_tail());
        client.send(&request);
        Ok(false)
    }

    fn event(&mut self, _: &mut Client, _: usize, event: Event<'_>) -> io::Result<usize> {
        self.heard += u32::from(matches!(event, Event::Message(_)));
        Ok(0)
    }
}

const JOIN_MAX: Duration = Duration::from_secs(10);
const CALL_PAUSE: Duration = Duration::from_millis(50);
