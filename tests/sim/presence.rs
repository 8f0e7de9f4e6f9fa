//! What the thread between presence and Redis does: a desk where the node leaves what it asks, one call at a time, each
//! with a deadline, and a connection that is opened again after a pause.

use std::collections::VecDeque;

use pinpost::internals::cluster::command::RedisReply;
use pinpost::internals::cluster::event::ClusterEvent;
use pinpost::internals::cluster::event::unavailable;
use pinpost::internals::cluster::presence::Presence;
use pinpost::internals::cluster::presence::PresenceConfig;
use pinpost::internals::cluster::presence::PresenceStep;
use pinpost::internals::cluster::presence::Told;
use pinpost::internals::node::seam::Answer;
use pinpost::internals::node::seam::Ask;
use pinpost::internals::node::seam::What;
use pinpost::internals::proto::NodeId;
use pinpost::internals::proto::SessionId;
use pinpost::internals::proto::UserName;

use crate::history::Time;
use crate::queue::Event;
use crate::queue::MS;
use crate::queue::PipeKind;
use crate::queue::SECOND;
use crate::world::World;

/// The thread of one process.
#[derive(Default)]
pub struct PresenceThread {
    /// Counts connections, from 1, and the calls on all of them.
    pub connection: u32,
    call: u32,
    /// What the thread waits for.
    waits: Waits,
    /// Which start of Redis it talked to.
    run: u32,
    since: Time,
    pause: Time,
    /// Connections are refused.
    pub refused: u32,
    /// Its connection is gone, and the next call finds that out.
    is_broken: bool,
    /// Presence can be asked.
    is_open: bool,
    notes: Vec<Note>,
    /// When it looks next.
    set_at: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waits {
    /// For notes, or for its time.
    #[default]
    Idle,
    Connecting,
    Calling,
}

/// What lies on the desk.
enum Note {
    Ask(Ask),
    Ended(UserName, SessionId),
    Queue(Option<NodeId>),
    AssertAll,
}

/// How long connecting, and every call, may take.
const CALL_TIME_MAX: Time = SECOND;

/// The bounds of the pause between attempts to connect.
const PAUSE_TIME_MIN: Time = 100 * MS;
const PAUSE_TIME_MAX: Time = 2 * SECOND;

/// How often the links are looked at, at least.
const LOOK_TIME: Time = SECOND;

impl World {
    /// The presence of a process that starts.
    pub fn new_presence(&mut self, host: usize, me: NodeId) -> Presence {
        let (name, start, mut count) = (format!("n{host}"), self.ids, 0);
        let fresh_id = Box::new(move || {
            count += 1;
            NodeId::new(&name, &format!("{start:04}{count:04}")).expect("a name and numbers")
        });
        let config = PresenceConfig {
            is_single: self.scene.sessions_max == 1,
            has_mailboxes: self.scene.messages_max > 0,
            fresh_id,
        };
        let connection = self.hosts[host].presence.connection;
        let refused = self.hosts[host].presence.refused;
        self.hosts[host].presence =
            PresenceThread { connection, refused, pause: PAUSE_TIME_MIN, ..PresenceThread::default() };
        self.wake_presence(host, 0);
        Presence::new(me, config, self.instant())
    }

    /// A node asks: while presence is away it is answered at once.
    pub fn ask(&mut self, host: usize, ask: Ask) {
        let desk = &mut self.hosts[host].presence;
        match (desk.is_open, unavailable(&ask), ask) {
            (false, Some(refusal), ask) => self.tell(host, ClusterEvent::Answered(ask.ticket, refusal)),
            (false, None, Ask { ticket, user, what: What::Unregister(session) }) => {
                desk.notes.push(Note::Ended(user, session));
                self.tell(host, ClusterEvent::Answered(ticket, Answer::Unregistered));
                self.wake_presence(host, 0);
            }
            (_, _, ask) => {
                desk.notes.push(Note::Ask(ask));
                self.wake_presence(host, 0);
            }
        }
    }

    /// The bus tells for which id there is a queue.
    pub fn note_queue(&mut self, host: usize, queue: Option<NodeId>) {
        self.hosts[host].presence.notes.push(Note::Queue(queue));
        self.wake_presence(host, 0);
    }

    /// What other nodes said of replaced sessions may be lost.
    pub fn note_outage(&mut self, host: usize) {
        self.hosts[host].presence.notes.push(Note::AssertAll);
        self.wake_presence(host, 0);
    }

    /// The thread looks at the desk so much later, at the latest.
    fn wake_presence(&mut self, host: usize, time: Time) {
        let at = self.queue.now() + time + 5 + self.random.below(40) as Time;
        let process = self.hosts[host].process;
        let thread = &mut self.hosts[host].presence;
        if thread.waits == Waits::Idle && thread.set_at.is_none_or(|set| set > at) {
            thread.set_at = Some(at);
            self.queue.at(at, Event::Presence { host, process });
        }
    }

    /// The thread looks at the desk, and takes the next step.
    pub fn presence_turn(&mut self, host: usize) {
        let now = self.queue.now();
        let thread = &mut self.hosts[host].presence;
        // What was set for later comes later; a process that was stopped comes late.
        if thread.set_at.is_none_or(|at| at > now) || thread.waits != Waits::Idle {
            return;
        }
        thread.set_at = None;
        self.next_step(host);
    }

    fn next_step(&mut self, host: usize) {
        let now = self.instant();
        let notes = std::mem::take(&mut self.hosts[host].presence.notes);
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.note(notes, now);
        mind.links.give_up_waiting(now);
        let step = mind.presence.next(now);
        let due = mind.presence.due().saturating_duration_since(now).as_micros() as Time;
        match step {
            None => self.wake_presence(host, due.min(LOOK_TIME)),
            Some(PresenceStep::Connect) => self.connect_to_redis(host),
            Some(PresenceStep::Run(commands)) => {
                self.note(|| format!("node {host} asks Redis {commands:?}"));
                let at = self.arrival(self.scene.redis_time);
                let of = &mut self.hosts[host];
                of.presence.call += 1;
                of.presence.waits = Waits::Calling;
                let (connection, call) = (of.presence.connection, of.presence.call);
                if of.presence.is_broken {
                    self.queue.at(at, Event::RedisLate { host, call });
                    return self.tell_after_step(host);
                }
                let at = of.asks.push(at, (connection, call, commands));
                self.queue.at(at, Event::Pipe { host, pipe: PipeKind::Ask });
                self.queue.after(CALL_TIME_MAX, Event::RedisLate { host, call });
            }
        }
        self.tell_after_step(host);
    }

    fn tell_after_step(&mut self, host: usize) {
        self.tell_of_presence(host);
        self.tell_of_links(host);
    }

    fn connect_to_redis(&mut self, host: usize) {
        let at = self.arrival(2 * self.scene.redis_time);
        let of = &mut self.hosts[host];
        of.presence.call += 1;
        of.presence.waits = Waits::Connecting;
        let call = of.presence.call;
        let is_silent = of.asks.is_hung() || of.answers.is_hung();
        if self.redis.is_dead || of.presence.refused > 0 {
            self.queue.at(at, Event::RedisLate { host, call });
        } else if is_silent {
            self.queue.after(CALL_TIME_MAX, Event::RedisLate { host, call });
        } else {
            self.queue.at(at, Event::RedisOpen { host, call });
        }
    }

    /// There is a connection to Redis: what was sent on the one before is not done any more.
    pub fn redis_open(&mut self, host: usize, call: u32) {
        let (now, run) = (self.instant(), self.redis.run);
        let of = &mut self.hosts[host];
        if of.presence.call != call || of.presence.waits != Waits::Connecting {
            return;
        }
        of.presence.connection += 1;
        of.asks.clear();
        of.answers.clear();
        let before = std::mem::replace(&mut of.presence.run, run);
        (of.presence.waits, of.presence.since) = (Waits::Idle, self.queue.now());
        of.presence.is_broken = false;
        self.note(|| format!("node {host} is connected to Redis"));
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.presence.connected(before != 0 && before != run, now);
        self.tell_of_presence(host);
        self.wake_presence(host, 0);
    }

    /// Replies have come to a node.
    pub fn take_replies(&mut self, host: usize) {
        let now = self.instant();
        let Some((connection, call, replies)) = self.hosts[host].answers.pop(self.queue.now()) else {
            return;
        };
        let thread = &mut self.hosts[host].presence;
        if (thread.connection, thread.call, thread.waits) != (connection, call, Waits::Calling) {
            return;
        }
        thread.waits = Waits::Idle;
        self.note(|| {
            format!("Redis replies to node {host} {:?}", replies.iter().map(in_short).collect::<Vec<_>>())
        });
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let result = mind.presence.replied(replies, now);
        self.tell_of_presence(host);
        match result {
            Ok(()) => self.wake_presence(host, 0),
            Err(_) => self.lose_redis(host),
        }
    }

    /// A call takes too long, or a connection can't be opened.
    pub fn redis_late(&mut self, host: usize, call: u32) {
        let thread = &self.hosts[host].presence;
        if thread.call == call && thread.waits != Waits::Idle {
            self.lose_redis(host);
        }
    }

    /// A connection to Redis is broken: found out by the call that waits, or the next.
    pub fn redis_lost(&mut self, host: usize, connection: u32) {
        let thread = &mut self.hosts[host].presence;
        if thread.connection != connection {
            return;
        }
        thread.is_broken = true;
        if thread.waits == Waits::Calling {
            self.lose_redis(host);
        }
    }

    /// Redis is away: nobody waits for it.
    fn lose_redis(&mut self, host: usize) {
        let (now, at) = (self.instant(), self.queue.now());
        let thread = &mut self.hosts[host].presence;
        if at - thread.since >= PAUSE_TIME_MAX {
            thread.pause = PAUSE_TIME_MIN;
        }
        let bound = thread.pause;
        thread.pause = (2 * bound).min(PAUSE_TIME_MAX);
        (thread.waits, thread.is_open) = (Waits::Idle, false);
        let notes = std::mem::take(&mut thread.notes);
        let retry_at = now + std::time::Duration::from_micros(self.random.below(bound as usize + 1) as u64);
        self.note(|| format!("node {host} has lost Redis"));
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.presence.lost(retry_at);
        mind.note(notes, now);
        self.tell_of_presence(host);
        self.wake_presence(host, 0);
    }

    /// Tells everybody what presence has to tell.
    pub fn tell_of_presence(&mut self, host: usize) {
        let now = self.instant();
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        let mut all: VecDeque<Told> = mind.presence.told().into();
        while let Some(told) = all.pop_front() {
            let Some(mind) = self.hosts[host].mind.as_mut() else { return };
            match told {
                Told::Answer(ticket, answer) => self.tell(host, ClusterEvent::Answered(ticket, answer)),
                Told::News(news) => self.tell(host, ClusterEvent::News(news)),
                Told::Nodes { living, dead } => mind.links.know(living, dead, now),
                Told::Renewed => {
                    let strangers = mind.links.strangers(now);
                    mind.presence.strangers(strangers);
                    all.extend(mind.presence.told());
                    self.hosts[host].presence.is_open = true;
                }
                Told::Renamed(me) => {
                    self.note(|| format!("node {host} is {} now", me.as_str()));
                    mind_of(self, host).links.restart(me, now);
                    self.restart_bus(host);
                }
                Told::Warning(why) => self.note(|| format!("node {host} warns: {why}")),
            }
            self.tell_of_links(host);
        }
    }

    /// A node that goes leaves the table, if Redis is there.
    pub fn leave_redis(&mut self, host: usize) {
        let now = self.instant();
        let notes = std::mem::take(&mut self.hosts[host].presence.notes);
        let of = &self.hosts[host];
        let is_away =
            self.redis.is_dead || of.presence.refused > 0 || of.asks.is_hung() || !of.presence.is_open;
        let is_calling = of.presence.waits == Waits::Calling;
        let Some(mind) = self.hosts[host].mind.as_mut() else { return };
        mind.note(notes, now);
        mind.presence.stop();
        if is_away || is_calling {
            return;
        }
        let data = &mut self.redis.data;
        data.now = now;
        while let Some(PresenceStep::Run(commands)) = mind.presence.next(now) {
            let replies = commands.iter().map(|command| data.run(command)).collect();
            if mind.presence.replied(replies, now).is_err() {
                return;
            }
        }
        data.run(&mind.presence.leave());
    }
}

fn mind_of(world: &mut World, host: usize) -> &mut crate::host::Mind {
    world.hosts[host].mind.as_mut().expect("it was there above")
}

impl crate::host::Mind {
    fn note(&mut self, notes: Vec<Note>, now: std::time::Instant) {
        for note in notes {
            match note {
                Note::Ask(ask) => self.presence.ask(ask),
                Note::Ended(user, session) => self.presence.ended(user, session),
                Note::Queue(queue) => self.presence.has_queue(queue),
                Note::AssertAll => self.presence.assert_all(now),
            }
        }
    }
}

fn in_short(reply: &RedisReply) -> String {
    let mut text = format!("{reply:?}");
    text.truncate(200);
    text
}
