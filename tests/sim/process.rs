//! What happens to a node's process: it is killed, stopped and continued, or drained.

use crate::history::Time;
use crate::queue::Event;
use crate::queue::SECOND;
use crate::socket::DownEnd;
use crate::world::World;

/// How long a silent connection to the broker is kept, at least.
const HEARTBEAT_TIME: Time = 8 * SECOND;

/// What a drain does when: answers that don't come are given, and the process goes.
const REPLIES: u8 = 0;
const GONE: u8 = 1;
const REPLIES_TIME: Time = 3 * SECOND;
const GONE_TIME: Time = 5 * SECOND;

impl World {
    /// A process is killed: its connections are reset, and what it had not said is never said.
    pub fn kill(&mut self, host: usize) {
        self.end_process(host);
        // What the kernel had taken for the broker is still on its way, or lost.
        if self.random.below(2) == 0 {
            self.hosts[host].publish.clear();
        }
    }

    fn end_process(&mut self, host: usize) {
        let of = &mut self.hosts[host];
        let process = of.process;
        of.mind = None;
        of.is_frozen = false;
        of.deferred.clear();
        of.bus.is_up = false;
        of.returns.clear();
        of.consume.clear();
        of.answers.clear();
        let session = of.bus.session;
        self.broker.forget(host, session);
        for socket in 0..self.sockets.len() {
            let of = &mut self.sockets[socket];
            if of.host != host || of.process != process || of.id.take().is_none() {
                continue;
            }
            of.down_end = Some(DownEnd::Broken);
            if self.random.below(2) == 0 {
                self.sockets[socket].down.clear();
            }
            self.set_down(socket);
        }
    }

    /// A process is stopped: what comes waits.
    pub fn freeze(&mut self, host: usize) {
        self.hosts[host].is_frozen = true;
        let session = self.hosts[host].bus.session;
        let time = HEARTBEAT_TIME + self.random.below(4 * SECOND as usize) as Time;
        self.queue.after(time, Event::Heartbeat { host, session });
    }

    /// A process goes on; all that it missed is there at once.
    pub fn thaw(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].is_frozen) {
            let deferred = std::mem::take(&mut self.hosts[host].deferred);
            deferred.into_iter().for_each(|event| self.queue.after(0, event));
        }
    }

    /// A process is to end in order.
    pub fn drain(&mut self, host: usize) {
        let now = self.instant();
        let of = &mut self.hosts[host];
        let process = of.process;
        of.is_draining = true;
        let Some(mind) = of.mind.as_mut() else { return };
        mind.node.drain(now);
        self.queue.after(REPLIES_TIME, Event::Drain { host, process, step: REPLIES });
        self.queue.after(GONE_TIME, Event::Drain { host, process, step: GONE });
        self.flush(host);
    }

    /// A drain takes long, or is over.
    pub fn go_on_draining(&mut self, host: usize, step: u8) {
        let now = self.instant();
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.node.end_replies(now);
        self.flush(host);
        if step == GONE {
            self.leave_redis(host);
            self.publish(host);
            self.end_process(host);
        }
    }
}
