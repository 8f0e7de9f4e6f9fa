//! The thread that carries between presence and Redis.
//!
//! The client library is synchronous, so it has a thread of its own. What to ask and what an
//! answer means is decided by [`Presence`], which is pure; here are the clock, the connection
//! and the log. Whatever waits goes in one pipeline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::warn;

use crate::cluster::command::Command;
use crate::cluster::event::ClusterEvent;
use crate::cluster::lease::RENEW_TIME;
use crate::cluster::presence::Presence;
use crate::cluster::presence::PresenceConfig;
use crate::cluster::presence::Step;
use crate::cluster::presence::Told;
use crate::cluster::redis_commands::parsed;
use crate::cluster::redis_commands::printed;
use crate::cluster::redis_connection::RedisConnection;
use crate::cluster::shared::Note;
use crate::cluster::shared::Shared;
use crate::config::Redis;
use crate::mailbox::Limits;
use crate::random::fresh_id;

/// How long the bus may take to say its last words.
const BUS_END_TIME_MAX: Duration = Duration::from_millis(1_500);

/// The thread's state.
pub struct RedisThread {
    shared: Arc<Shared>,
    presence: Presence,
    connection: RedisConnection,
    limits: Limits,
}

impl RedisThread {
    /// Makes the thread's state. `name` is the readable part of the node's id.
    pub fn new(shared: Arc<Shared>, redis: Redis, name: &str, is_single: bool, limits: Limits) -> Self {
        let me = shared.links(|links| links.me().clone());
        let name = name.to_owned();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let config = PresenceConfig {
            is_single,
            has_mailboxes: limits.messages_max > 0,
            fresh_id: Box::new(move || fresh_id(&name)),
            clock_us: since_epoch.as_micros() as i64,
        };
        let presence = Presence::new(me, config, Instant::now());
        RedisThread { shared, presence, connection: RedisConnection::new(redis), limits }
    }

    /// Runs until the node goes.
    pub fn run(mut self) {
        let mut until = Instant::now();
        while !self.shared.desk().is_stopping {
            let notes = self.shared.take(until);
            self.note(notes);
            let now = Instant::now();
            self.shared.links(|links| links.give_up_waiting(now));
            let step = self.presence.next(now);
            // What waits for a broker that is away too is looked at all the same.
            until = if step.is_some() { now } else { self.presence.due().min(now + RENEW_TIME) };
            if let Some(step) = step
                && let Err(why) = self.carry_out(step)
            {
                self.lose(&why);
            }
            self.tell();
        }
        self.leave();
    }

    fn note(&mut self, notes: Vec<Note>) {
        for note in notes {
            match note {
                Note::Ask(ask) => self.presence.ask(ask),
                Note::Ended(user, session) => self.presence.ended(user, session),
                Note::Queue(queue) => self.presence.has_queue(queue),
                Note::AssertAll => self.presence.assert_all(Instant::now()),
            }
        }
    }

    fn carry_out(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Connect => {
                let is_another = self.connection.connect()?;
                self.presence.connected(is_another, Instant::now());
                Ok(())
            }
            Step::Run(commands) => self.ask(&commands),
        }
    }

    fn ask(&mut self, commands: &[Command]) -> Result<(), String> {
        let mut pipe = redis::pipe();
        for command in commands {
            pipe.add_command(printed(command, self.limits));
        }
        let replies = self.connection.run(&pipe)?.into_iter();
        let replies = commands.iter().zip(replies).map(|(command, reply)| parsed(command, reply));
        self.presence.replied(replies.collect(), Instant::now())
    }

    /// Redis is away: nobody waits for it, and what had come before is answered before what comes now.
    fn lose(&mut self, why: &str) {
        self.tell();
        let retry_at = self.connection.lose(why);
        self.presence.lost(retry_at);
        let shared = self.shared.clone();
        shared.change(|desk| {
            desk.is_open = false;
            self.note(std::mem::take(&mut desk.notes));
            self.tell();
        });
    }

    /// Tells everybody what presence has to tell.
    fn tell(&mut self) {
        let mut all: VecDeque<Told> = self.presence.told().into();
        while let Some(told) = all.pop_front() {
            match told {
                Told::Answer(answer) => self.shared.hand_up(ClusterEvent::Answered(answer)),
                Told::News(news) => self.shared.hand_up(ClusterEvent::News(news)),
                Told::Nodes { living, dead } => {
                    self.shared.links(|links| links.know(living, dead, Instant::now()));
                }
                Told::Renewed => {
                    let strangers = self.shared.links(|links| links.strangers(Instant::now()));
                    self.presence.strangers(strangers);
                    all.extend(self.presence.told());
                    self.connection.is_well();
                    let has_joined = self.presence.can_be_reached();
                    self.shared.change(|desk| (desk.is_open, desk.has_joined) = (true, has_joined));
                }
                Told::Renamed(me) => {
                    self.shared.links(|links| links.restart(me, Instant::now()));
                    self.shared.ring();
                }
                Told::Warning(why) => warn!("{why}"),
            }
        }
    }

    /// Takes this node out of the table, and what was left to remove with it.
    fn leave(mut self) {
        let notes = self.shared.take(Instant::now());
        self.note(notes);
        self.presence.stop();
        let mut result = Ok(());
        while let (Ok(()), Some(Step::Run(commands))) = (&result, self.presence.next(Instant::now())) {
            result = self.ask(&commands);
            self.tell();
        }
        self.tell();
        // A node that is not in the table any more is not listened to.
        drop(self.shared.wait_while(BUS_END_TIME_MAX, |desk| !desk.bus_has_ended));
        let leave = [self.presence.leave()];
        let mut pipe = redis::pipe();
        pipe.add_command(printed(&leave[0], self.limits));
        if self.connection.is_open() && result.and_then(|()| self.connection.run(&pipe)).is_err() {
            warn!("Redis was not told that this node goes: its lease will run out");
        }
    }
}
