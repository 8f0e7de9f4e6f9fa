//! The end of a run: everything is healed, everybody has a session, and then nobody has.

use pinpost::internals::cluster::command::SessionEntry;
use pinpost::internals::node::Holdings;

use crate::device::Phase;
use crate::faults::Planned;
use crate::history::Session;
use crate::history::fault::Fault;
use crate::world::World;

impl World {
    /// All is healed, and has been for long: everybody is in, and nothing is under way.
    pub fn look_at_rest(&mut self) {
        let now = self.queue.now();
        let mut odd = vec![];
        for (number, device) in self.devices.iter().enumerate() {
            let is_in =
                device.socket.is_some_and(|socket| matches!(self.sockets[socket].side.phase, Phase::In(_)));
            if !is_in && self.scene.sessions_max > 2 {
                odd.push(format!("device {number} is not in"));
            }
            let waiting = device.memory.pending().filter(|waiting| !self.is_refused(*waiting)).count();
            if waiting > 0 && is_in {
                odd.push(format!("{waiting} messages of device {number} have no fate"));
            }
        }
        for (place, host) in self.hosts.iter().enumerate() {
            let Some(mind) = &host.mind else { continue };
            let Holdings { mut in_flight, deliveries, lanes, .. } = mind.node.holdings();
            if self.scene.sessions_max < 8 {
                // Devices that are one too many come again and again.
                in_flight = 0;
            }
            if (in_flight, deliveries, lanes) != (0, 0, 0) {
                odd.push(format!("node {place} at rest: {:?}", mind.node.holdings()));
            }
        }
        self.history.oddities.extend(odd.into_iter().map(|what| (now, what)));
    }

    /// Without a mailbox, what a session has never acknowledged is not shown to it again, however often it is sent.
    fn is_refused(&self, (number, to): (usize, usize)) -> bool {
        let last = self.history.messages[number].attempts.last().and_then(|attempt| attempt.told);
        let naps = |session: &Session| session.user == to && !session.naps.is_empty();
        self.scene.messages_max == 0
            && last.is_some_and(|(_, fate)| fate.is_timeout())
            && self.history.sessions.iter().any(naps)
    }

    /// Everybody has left.
    pub fn look_at_end(&mut self) {
        let now = self.queue.now();
        let mut odd = vec![];
        for (place, host) in self.hosts.iter().enumerate() {
            let Some(mind) = &host.mind else { continue };
            if mind.node.holdings() != Holdings::default() {
                odd.push(format!("node {place} at the end: {:?}", mind.node.holdings()));
            }
        }
        for (number, socket) in self.sockets.iter().enumerate() {
            if let (Some(id), Some(mind)) = (socket.id, &mut self.hosts[socket.host].mind) {
                let (turn, outbox) = (mind.node.turn(id), mind.node.outbox(id).len());
                odd.push(format!(
                    "socket {number} at the end: {turn:?}, {outbox} bytes wait, {}",
                    socket.state()
                ));
            }
        }
        let (data, is_older) =
            (&self.redis.data, |planned: &Planned| matches!(planned.fault, Fault::RedisOlder(_)));
        // What a dead node left stays until its time is over, and so does what came back with old data.
        let living = data.nodes();
        let lives = |(_, (entry, _)): (&String, &(SessionEntry, bool))| living.contains(&&entry.node);
        let users: Vec<&str> =
            data.sessions.iter().filter(|(_, of)| of.iter().any(lives)).map(|of| of.0.as_str()).collect();
        if !users.is_empty() && !self.plan.iter().any(is_older) {
            odd.push(format!("Redis knows sessions of {users:?}"));
        }
        self.history.oddities.extend(odd.into_iter().map(|what| (now, what)));
    }
}
