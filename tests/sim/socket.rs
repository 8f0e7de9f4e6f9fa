//! Connections between clients and nodes: what is on its way, and the task that serves each on its node.
//!
//! A socket takes as much as there is room for; what a client does not read stays there. When a client is killed,
//! what the kernel had taken for it is lost, and the node may find that out only later.

use std::time::Instant;

use pinpost::CloseReason;
use pinpost::internals::node::Turn;
use pinpost::internals::node::route::Flow;
use pinpost::internals::node::slab::ConnectionId;
use pinpost::internals::node::state::Node;
use pinpost::internals::proto::Line;

use crate::device::Side;
use crate::queue::Event;
use crate::queue::SECOND;
use crate::world::World;

/// One connection.
pub struct Socket {
    pub host: usize,
    pub process: u32,
    /// The node's name for it; none any more when it has closed it.
    pub id: Option<ConnectionId>,
    /// Its lines are framed: what is written of one in part may have been seen.
    is_framed: bool,
    /// On its way to the node.
    up: Vec<u8>,
    up_end: Option<UpEnd>,
    is_up_set: bool,
    /// Read by the node, up to what it has heard of it.
    inbox: Vec<u8>,
    heard: usize,
    is_eof: bool,
    /// Taken by the kernel, and not read by the client.
    pub down: Vec<u8>,
    /// Read by the client: a line that is not whole.
    pub input: Vec<u8>,
    pub down_end: Option<DownEnd>,
    pub is_down_set: bool,
    /// The node waits for room.
    waits_for_room: bool,
    is_late_set: bool,
    /// How long a line is that was framed in part, and the rest of it.
    begun: usize,
    rest: Vec<u8>,
    pub side: Side,
}

/// How the client's side ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpEnd {
    /// It says no more.
    Eof,
    /// Its process is gone.
    Reset,
}

/// How the node's side ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownEnd {
    Closed,
    Broken,
}

impl World {
    /// A client connects to a node, if there is one that listens.
    pub fn open(&mut self, host: usize, side: Side) -> Option<usize> {
        let now = self.instant();
        let is_framed = self.random.below(4) == 0;
        let (process, is_frozen) = (self.hosts[host].process, self.hosts[host].is_frozen);
        if is_frozen || self.hosts[host].is_draining {
            return None;
        }
        let number = self.sockets.len();
        let mind = self.hosts[host].mind.as_mut()?;
        let id = mind.node.opened(is_framed, now);
        if is_framed {
            mind.node.greet(id, now);
        }
        if mind.by_index.len() <= id.index() {
            mind.by_index.resize(id.index() + 1, usize::MAX);
        }
        mind.by_index[id.index()] = number;
        self.sockets.push(Socket {
            host,
            process,
            id: Some(id),
            is_framed,
            up: vec![],
            up_end: None,
            is_up_set: false,
            inbox: vec![],
            heard: 0,
            is_eof: false,
            down: vec![],
            input: vec![],
            down_end: None,
            is_down_set: false,
            waits_for_room: false,
            is_late_set: false,
            begun: 0,
            rest: vec![],
            side,
        });
        self.flush(host);
        Some(number)
    }

    /// A client says something.
    pub fn say(&mut self, socket: usize, bytes: &[u8]) {
        let at = self.arrival(self.scene.client_time);
        let of = &mut self.sockets[socket];
        if of.up_end.is_some() {
            return;
        }
        of.up.extend_from_slice(bytes);
        if !std::mem::replace(&mut of.is_up_set, true) {
            self.queue.at(at, Event::ReachNode { socket });
        }
    }

    /// A client's side ends.
    pub fn end_up(&mut self, socket: usize, end: UpEnd) {
        let at = self.arrival(self.scene.client_time);
        let is_lost = end == UpEnd::Reset && self.random.below(2) == 0;
        let of = &mut self.sockets[socket];
        of.up_end = Some(end);
        if is_lost {
            of.up.clear();
        }
        if end == UpEnd::Reset {
            of.down = vec![];
        }
        if !std::mem::replace(&mut of.is_up_set, true) {
            self.queue.at(at, Event::ReachNode { socket });
        }
    }

    /// What a client said has come to its node.
    pub fn reach_node(&mut self, socket: usize) {
        let now = self.instant();
        let of = &mut self.sockets[socket];
        of.is_up_set = false;
        let Some(id) = of.id else { return };
        let host = of.host;
        of.inbox.drain(..of.heard);
        of.heard = 0;
        of.inbox.append(&mut of.up);
        of.is_eof |= of.up_end.is_some();
        let is_reset = of.up_end == Some(UpEnd::Reset);
        self.serve(host, id);
        if is_reset && self.sockets[socket].id.take().is_some() {
            self.hosts[host].mind.as_mut().expect("it serves").node.closed(id, now);
        }
        self.flush(host);
    }

    /// What the task of a connection does when it is woken.
    pub fn serve(&mut self, host: usize, id: ConnectionId) {
        let now = self.instant();
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let number = mind.by_index[id.index()];
        let socket = &mut self.sockets[number];
        if socket.id != Some(id) {
            return;
        }
        loop {
            match mind.node.turn(id) {
                Turn::Read => match socket.next_line() {
                    Some(line) => {
                        let length = line.len();
                        if mind.node.line(id, Line::Whole(line), now) == Flow::Wait {
                            break;
                        }
                        socket.heard += length + 1;
                    }
                    None if socket.is_eof => {
                        socket.is_eof = false;
                        mind.node.end(id, None, now);
                    }
                    None => break,
                },
                Turn::Drain => {
                    while let Some(line) = socket.next_line() {
                        let length = line.len();
                        if mind.node.line(id, Line::Whole(line), now) == Flow::Wait {
                            break;
                        }
                        socket.heard += length + 1;
                    }
                    mind.node.end(id, Some(CloseReason::Draining), now);
                }
                // What is no line is not played.
                Turn::Ping => mind.node.pinged(id),
                Turn::Close(_) => return self.close(number),
                Turn::Wait | Turn::Gone => break,
            }
        }
        if socket.is_framed {
            self.write(host, id);
        }
    }

    /// Writes what fits of an outbox.
    pub fn write(&mut self, host: usize, id: ConnectionId) {
        let (now, room) = (self.instant(), self.scene.room);
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let number = mind.by_index[id.index()];
        let socket = &mut self.sockets[number];
        if socket.id != Some(id) {
            return;
        }
        // What is written to nobody is gone.
        let is_gone = socket.up_end == Some(UpEnd::Reset);
        let room = if is_gone { usize::MAX } else { room.saturating_sub(socket.down.len()) };
        let before = socket.down.len();
        if socket.is_framed {
            socket.write_frames(&mut mind.node, id, room, now);
        } else {
            let outbox = mind.node.outbox(id);
            let (length, count) = (outbox.len(), outbox.len().min(room));
            socket.down.extend_from_slice(&outbox[..count]);
            if count > 0 || length == 0 {
                mind.node.written(id, count, now);
            }
            if count < length {
                mind.node.blocks(id, now);
                socket.waits_for_room = true;
            }
        }
        if is_gone {
            socket.down.clear();
        } else if socket.down.len() > before {
            self.set_down(number);
        }
    }

    /// Something is on its way to a client.
    pub fn set_down(&mut self, socket: usize) {
        let at = self.arrival(self.scene.client_time);
        if !std::mem::replace(&mut self.sockets[socket].is_down_set, true) {
            self.queue.at(at, Event::ReachClient { socket });
        }
    }

    /// A client has read: its node may have waited for that.
    pub fn make_room(&mut self, socket: usize) {
        if std::mem::take(&mut self.sockets[socket].waits_for_room) {
            let at = self.arrival(self.scene.client_time);
            self.queue.at(at, Event::Room { socket });
        }
    }

    /// The socket of a connection takes more.
    pub fn room(&mut self, socket: usize) {
        let Some(id) = self.sockets[socket].id else { return };
        let host = self.sockets[socket].host;
        self.write(host, id);
        self.serve(host, id);
        self.flush(host);
    }

    /// A node closes a connection, when its last words are written.
    fn close(&mut self, socket: usize) {
        let Some(id) = self.sockets[socket].id else { return };
        let host = self.sockets[socket].host;
        self.write(host, id);
        let of = &mut self.sockets[socket];
        if of.waits_for_room {
            if !std::mem::replace(&mut of.is_late_set, true) {
                self.queue.after(5 * SECOND, Event::Late { socket });
            }
            return;
        }
        self.shut(socket, DownEnd::Closed);
    }

    /// The time for the last words is over.
    pub fn late(&mut self, socket: usize) {
        if self.sockets[socket].id.is_some() {
            let host = self.sockets[socket].host;
            self.shut(socket, DownEnd::Broken);
            self.flush(host);
        }
    }

    fn shut(&mut self, socket: usize, end: DownEnd) {
        let now = self.instant();
        let of = &mut self.sockets[socket];
        of.down_end = Some(end);
        let (host, id) = (of.host, of.id.take());
        if let (Some(mind), Some(id)) = (self.hosts[host].mind.as_mut(), id) {
            mind.node.closed(id, now);
        }
        self.set_down(socket);
    }
}

impl Socket {
    /// How it is, in short, for whoever looks for a mistake.
    pub fn state(&self) -> String {
        let Socket { up_end, is_eof, waits_for_room, is_framed, begun, .. } = self;
        let (heard, down, rest) = (self.inbox.len() - self.heard, self.down.len(), self.rest.len());
        format!(
            "{heard} bytes unheard, {down} on their way, {up_end:?}, is_eof {is_eof}, waits {waits_for_room}, \
             is_framed {is_framed}, begun {begun}, rest {rest}"
        )
    }

    /// The next line that the node has not heard.
    fn next_line(&self) -> Option<&[u8]> {
        let rest = &self.inbox[self.heard..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        Some(&rest[..end])
    }

    /// Writes lines as frames: of one that was begun the rest comes first, and until then it is in doubt.
    fn write_frames(&mut self, node: &mut Node, id: ConnectionId, mut room: usize, now: Instant) {
        let count = self.rest.len().min(room);
        self.down.extend(self.rest.drain(..count));
        room -= count;
        let (mut whole, mut begun) = (0, 0);
        if self.rest.is_empty() {
            whole = std::mem::take(&mut self.begun);
            let outbox = node.outbox(id);
            let mut at = 0;
            while let Some(length) = outbox[at..].iter().position(|byte| *byte == b'\n').map(|end| end + 1) {
                let count = length.min(room);
                self.down.extend_from_slice(&outbox[at..at + count]);
                room -= count;
                if count == length {
                    (at, whole) = (at + length, whole + length);
                    continue;
                }
                if count > 0 {
                    begun = length;
                    self.rest = outbox[at + count..at + length].to_vec();
                }
                break;
            }
        }
        if whole > 0 {
            node.written(id, whole, now);
        }
        node.took(id, begun);
        self.begun += begun;
        self.waits_for_room = !self.rest.is_empty() || !node.outbox(id).is_empty();
        if self.waits_for_room {
            node.blocks(id, now);
        }
    }
}
