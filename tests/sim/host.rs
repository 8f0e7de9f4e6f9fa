//! One node as a process: its mind, its links, and the driver between them and the world.
//!
//! What the tasks of a real node do, in the same order: events from others are taken in, tasks that are woken
//! look at their connections, outboxes are written, and at the end of the round what is for other nodes leaves.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use pinpost::internals::cluster::event::Batch;
use pinpost::internals::cluster::event::ClusterEvent;
use pinpost::internals::cluster::links::Links;
use pinpost::internals::cluster::links::Unpacked;
use pinpost::internals::cluster::presence::Presence;
use pinpost::internals::node::out::Say;
use pinpost::internals::node::state::Node;
use pinpost::internals::node::state::NodeConfig;
use pinpost::internals::proto::NodeId;
use pinpost::internals::proto::wire::Head;
use pinpost::internals::proto::wire::Item;
use pinpost::internals::proto::wire::Items;
use pinpost::internals::proto::wire::parse_body;

use crate::broker::Back;
use crate::bus::BusState;
use crate::pipe::Pipe;
use crate::presence::PresenceThread;
use crate::queue::Event;
use crate::queue::SECOND;
use crate::redis::Asked;
use crate::redis::Replied;
use crate::world::TRACE_MAX;
use crate::world::World;

/// A place for a node, and the process that is there.
pub struct Host {
    /// Counts processes, from 1.
    pub process: u32,
    /// The process, if there is one.
    pub mind: Option<Mind>,
    /// It does not run, and what comes waits.
    pub is_frozen: bool,
    pub deferred: Vec<Event>,
    /// It accepts nobody any more.
    pub is_draining: bool,
    pub bus: BusState,
    pub publish: Pipe<(u32, NodeId, Vec<u8>)>,
    pub returns: Pipe<(u32, Back)>,
    pub consume: Pipe<(u32, u64, Vec<u8>)>,
    pub asks: Pipe<Asked>,
    pub answers: Pipe<Replied>,
    pub presence: PresenceThread,
}

/// A process.
pub struct Mind {
    pub node: Node,
    pub links: Links,
    pub presence: Presence,
    pub incoming: VecDeque<ClusterEvent>,
    pub is_turn_set: bool,
    pub due_at: Option<Instant>,
    /// The sockets of the node's connections, by the connections' indexes.
    pub by_index: Vec<usize>,
    pub batch: Vec<u8>,
}

/// Events of other nodes that are taken in at a time, as a real node does.
const EVENTS_MAX: usize = 256;

impl Host {
    /// A place without a process.
    pub fn new() -> Self {
        Host {
            process: 0,
            mind: None,
            is_frozen: false,
            deferred: vec![],
            is_draining: false,
            bus: BusState::default(),
            publish: Pipe::default(),
            returns: Pipe::default(),
            consume: Pipe::default(),
            asks: Pipe::default(),
            answers: Pipe::default(),
            presence: PresenceThread::default(),
        }
    }
}

impl World {
    /// An instant of the virtual clock.
    pub fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.queue.now())
    }

    /// A node's mind, if its process is there.
    pub fn mind(&mut self, host: usize) -> Option<&mut Mind> {
        self.hosts[host].mind.as_mut()
    }

    /// A process starts at a place.
    pub fn start(&mut self, host: usize) {
        self.hosts[host].process += 1;
        let process = self.hosts[host].process;
        let id = self.fresh_id(host);
        let config = NodeConfig {
            sessions_max: self.scene.sessions_max,
            outbox_bytes_max: self.scene.outbox_bytes_max,
            login_time_max: Duration::from_secs(60),
            ping_time: Some(Duration::from_secs(30)),
            mailboxes: self.scene.limits(),
            is_alone: false,
            hash_key: self.random.next(),
            seed: self.random.next(),
        };
        self.note(|| format!("node {host} starts as {}", id.as_str()));
        let (presence, now) = (self.new_presence(host, id.clone()), self.instant());
        self.hosts[host].mind = Some(Mind {
            node: Node::new(id.clone(), config, now),
            links: Links::new(id.clone()),
            presence,
            incoming: VecDeque::new(),
            is_turn_set: false,
            due_at: None,
            by_index: vec![],
            batch: vec![],
        });
        self.queue.after(SECOND, Event::Tick { host, process });
        self.hosts[host].bus = BusState::after(&self.hosts[host].bus);
        self.hosts[host].is_draining = false;
        self.queue.after(0, Event::Connect { host, process });
    }

    /// An id that no node ever had.
    pub fn fresh_id(&mut self, host: usize) -> NodeId {
        self.ids += 1;
        NodeId::new(&format!("n{host}"), &format!("{:08}", self.ids)).expect("a name and a number")
    }

    /// Something came up to a node.
    pub fn tell(&mut self, host: usize, event: ClusterEvent) {
        let delay = self.random.below(60) as u64;
        let process = self.hosts[host].process;
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.incoming.push_back(event);
        if !std::mem::replace(&mut mind.is_turn_set, true) {
            self.queue.after(delay, Event::Turn { host, process });
        }
    }

    /// What the links have to tell goes up to their node.
    pub fn tell_of_links(&mut self, host: usize) {
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let events: Vec<ClusterEvent> = mind.links.events().collect();
        events.into_iter().for_each(|event| self.tell(host, event));
    }

    /// A node takes in what came.
    pub fn turn(&mut self, host: usize) {
        let now = self.instant();
        let process = self.hosts[host].process;
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.is_turn_set = false;
        for _ in 0..EVENTS_MAX {
            let Some(event) = mind.incoming.pop_front() else { break };
            if let Some(trace) = self.trace.as_mut().filter(|trace| trace.len() < TRACE_MAX) {
                trace.push(format!("{:>10} node {host} hears {}", self.queue.now(), told(&event)));
            }
            mind.take(event, now);
        }
        if !mind.incoming.is_empty() {
            mind.is_turn_set = true;
            self.queue.after(1, Event::Turn { host, process });
        }
        self.flush(host);
    }

    /// A node looks at its deadlines.
    pub fn tick(&mut self, host: usize) {
        let now = self.instant();
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.node.tick(now);
        self.flush(host);
    }

    /// Takes what the steps of a node have left, until nothing is.
    pub fn flush(&mut self, host: usize) {
        let now = self.instant();
        loop {
            let Some(mind) = self.hosts[host].mind.as_mut() else { return };
            let out = mind.node.out();
            let (woken, dirty) = (std::mem::take(&mut out.woken), std::mem::take(&mut out.dirty));
            if woken.is_empty() && dirty.is_empty() {
                break;
            }
            for id in woken {
                self.serve(host, id);
            }
            for id in dirty {
                self.write(host, id);
            }
        }
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let Mind { node, links, .. } = mind;
        let out = node.out();
        let has_said = !out.says.is_empty();
        let (trace, at) = (&mut self.trace, self.queue.now());
        out.says.drain(|to, say| {
            if let Some(trace) = trace.as_mut().filter(|trace| trace.len() < TRACE_MAX) {
                trace.push(format!("{at:>10} node {host} says to {}: {}", to.as_str(), said(&say)));
            }
            links.say(to, say, now);
        });
        let asks = std::mem::take(&mut out.asks);
        for ask in asks {
            self.note(|| format!("node {host} asks {ask:?}"));
            self.ask(host, ask);
        }
        if has_said {
            self.tell_of_links(host);
        }
        self.ring(host);
        self.set_due(host);
    }

    /// Sees to it that the node looks at its next deadline in time.
    fn set_due(&mut self, host: usize) {
        let process = self.hosts[host].process;
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let Some(due) = mind.node.due() else { return };
        if mind.due_at.is_some_and(|at| at <= due) {
            return;
        }
        mind.due_at = Some(due);
        let at = due.duration_since(self.base).as_micros() as u64;
        self.queue.at(at, Event::Due { host, process });
    }

    /// A deadline is due.
    pub fn due(&mut self, host: usize) {
        if let Some(mind) = self.mind(host) {
            mind.due_at = None;
            self.tick(host);
        }
    }
}

impl Mind {
    fn take(&mut self, event: ClusterEvent, now: Instant) {
        let node = &mut self.node;
        match event {
            ClusterEvent::Answered(ticket, answer) => node.answered(ticket, answer, now),
            ClusterEvent::News(news) => node.heard(news, now),
            ClusterEvent::Returned(returned) => node.returned(&returned, now),
            ClusterEvent::Unheard(count) => node.unheard(count),
            ClusterEvent::Renamed(id) => node.renamed(id),
            ClusterEvent::Batch(Batch { epoch, bytes }) => {
                let unpacked = Unpacked::read(&bytes);
                let mut unpacked = unpacked.expect("nodes say what makes sense");
                self.links.hear(epoch, &mut unpacked, now);
                unpacked.give(&mut |from, said| node.said(from, said, now));
            }
        }
    }
}

/// What an event is, in short, for whoever looks for a mistake.
fn told(event: &ClusterEvent) -> String {
    let ClusterEvent::Batch(Batch { bytes, .. }) = event else { return format!("{event:?}") };
    let Some((head, items)) = Head::parse(bytes) else { return "nonsense".to_owned() };
    let items = items.flatten().map(|item| item_in_short(&item)).collect::<Vec<_>>().join(", ");
    format!("batch {} of {} from message {}: {items}", head.number, head.from.as_str(), head.first)
}

fn said(say: &Say<&[u8]>) -> String {
    match say {
        Say::Message { ticket, is_first, body } => {
            let text = parse_body(body).map_or("", |(.., text)| text);
            let text = text.split(' ').next().unwrap_or_default();
            format!("message {text}, ticket {ticket:?}, is_first {is_first}")
        }
        Say::Item(item) => Items::of(item).flatten().map(|item| item_in_short(&item)).collect(),
        say => format!("{say:?}"),
    }
}

fn item_in_short(item: &Item<'_>) -> String {
    match item {
        Item::Message(message) => {
            let text = message.text.split(' ').next().unwrap_or_default();
            format!(
                "message {text} to {}{}",
                message.to.as_str(),
                if message.is_first { " (first)" } else { "" }
            )
        }
        item => format!("{item:?}"),
    }
}
