//! The thread that carries between presence and Redis.
//!
//! The client library is synchronous, so it has a thread of its own. What to ask and what an
//! answer means is decided by [`Presence`], which is pure; here are the clock, the connection
//! and the log. Whatever waits goes in one pipeline.
//!
//! A call that takes too long, or fails in any other way, costs the connection:
//! what it would still say could not be told apart from later answers. It is
//! opened again after a growing, jittered pause, for ever, whatever the error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use redis::{FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, RedisResult, Value};

use crate::cluster::command::RedisCommand;
use crate::cluster::event::ClusterEvent;
use crate::cluster::lease::RENEW_TIME;
use crate::cluster::permissions::{ask, is_denied, missing};
use crate::cluster::presence::{Presence, PresenceConfig, PresenceStep, Told};
use crate::cluster::reasons::{LATE, of_redis, of_redis_at_first, of_replies};
use crate::cluster::redis_commands::{parsed, printed};
use crate::cluster::shared::{Note, Shared};
use crate::config::Redis;
use crate::mailbox::Limits;
use crate::pause::Pauses;
use crate::random::{fresh_id, random_number};

/// How long the bus may take to say its last words.
const BUS_END_TIME_MAX: Duration = Duration::from_millis(1_500);

/// How long connecting may take, and Redis say nothing when it was asked.
const CALL_TIME_MAX: Duration = Duration::from_secs(1);

/// How long all replies of one call may take, while they come: the lease must be renewed, too.
const REPLIES_TIME_MAX: Duration = Duration::from_secs(3);

/// The longest pause between attempts to connect.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(2);

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
        let config = PresenceConfig {
            is_single,
            has_mailboxes: limits.messages_max > 0,
            fresh_id: Box::new(move || fresh_id(&name)),
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

    fn carry_out(&mut self, step: PresenceStep) -> Result<(), String> {
        match step {
            PresenceStep::Connect => {
                let is_another = self.connection.connect()?;
                let has_mailboxes = self.limits.messages_max > 0;
                let replies = self.connection.run(&ask(has_mailboxes))?;
                if let Some(missing) = missing(has_mailboxes, &replies) {
                    return Err(missing);
                }
                self.presence.connected(is_another, Instant::now());
                Ok(())
            }
            PresenceStep::Run(commands) => self.ask(&commands),
        }
    }

    fn ask(&mut self, commands: &[RedisCommand]) -> Result<(), String> {
        let mut pipe = redis::pipe();
        for command in commands {
            pipe.add_command(printed(command, self.limits));
        }
        let replies = self.connection.run(&pipe)?;
        let denied =
            replies.iter().find(|reply| is_denied(reply)).map(|reply| format!("it refuses: {reply:?}"));
        let replies = commands.iter().zip(replies).map(|(command, reply)| parsed(command, reply));
        self.presence.replied(replies.collect(), Instant::now())?;
        // The next connection finds out all that is.
        denied.map_or(Ok(()), Err)
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
                Told::Answer(ticket, answer) => self.shared.hand_up(ClusterEvent::Answered(ticket, answer)),
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
        while let (Ok(()), Some(PresenceStep::Run(commands))) = (&result, self.presence.next(Instant::now()))
        {
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

/// A connection to Redis, open or not.
pub struct RedisConnection {
    redis: Redis,
    connection: Option<redis::Connection>,
    /// What Redis calls the connection: its id and our address.
    called: Option<(String, String)>,
    /// Which start of which Redis it is.
    run: Option<String>,
    since: Instant,
    pauses: Pauses,
    is_lost: bool,
}

impl RedisConnection {
    /// Not connected yet.
    pub fn new(redis: Redis) -> Self {
        let (since, pauses) = (Instant::now(), Pauses::new(PAUSE_TIME_MAX));
        RedisConnection { redis, connection: None, called: None, run: None, since, pauses, is_lost: false }
    }

    /// Tells whether it is connected.
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects; `true` when this is another Redis than the one before, or that one was started again.
    ///
    /// # Errors
    /// When it does not work.
    pub fn connect(&mut self) -> Result<bool, String> {
        let info = self.redis.url().into_connection_info().map_err(|error| of_redis(&error))?;
        // The name of the library would be two more replies to wait for.
        let who = info.redis_settings().clone().set_skip_set_lib_name();
        let settings = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_tcp_settings(settings).set_redis_settings(who);
        let open = || -> RedisResult<redis::Connection> {
            let connection = redis::Client::open(info)?.get_connection_with_timeout(CALL_TIME_MAX)?;
            connection.set_read_timeout(Some(CALL_TIME_MAX))?;
            connection.set_write_timeout(Some(CALL_TIME_MAX))?;
            Ok(connection)
        };
        let mut connection = open().map_err(|error| of_redis_at_first(&error))?;
        let mut pipe = redis::pipe();
        // What the connection before had sent and Redis has not done yet must not come after what
        // this one says. The address is checked too: a new Redis counts its connections anew.
        if let Some((id, addr)) = &self.called {
            // Refused where it is gone already, or not allowed: then late writes do little harm.
            pipe.cmd("CLIENT").arg("KILL").arg("ID").arg(id).arg("ADDR").arg(addr);
        }
        pipe.cmd("CLIENT").arg("INFO").cmd("INFO").arg("server");
        let replies = call(&mut connection, &pipe, of_redis_at_first)?;
        of_replies(&replies)?;
        let mut replies = replies.into_iter().rev();
        // Either may be refused.
        let mut text = || replies.next().and_then(|reply| String::from_redis_value(reply).ok());
        let (server, client) = (text().unwrap_or_default(), text().unwrap_or_default());
        let field = |key| client.split(' ').find_map(|field| field.strip_prefix(key)).map(str::to_owned);
        self.called = field("id=").zip(field("addr="));
        let run = server.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned);
        let is_another = self.run.is_some() && run != self.run;
        self.run = run;
        self.connection = Some(connection);
        self.since = Instant::now();
        Ok(is_another)
    }

    /// Runs commands; an error among the answers is an answer.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn run(&mut self, pipe: &Pipeline) -> Result<Vec<Value>, String> {
        let connection = self.connection.as_mut().ok_or("it is not connected")?;
        call(connection, pipe, of_redis)
    }

    /// Redis is as it should be; said once after it was not.
    pub fn is_well(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            info!("Redis at {} is back", self.redis);
        }
    }

    /// Gives the connection up, says so once, and tells when to connect again.
    pub fn lose(&mut self, why: &str) -> Instant {
        if self.connection.take().is_some() {
            self.pauses.held(self.since.elapsed());
        }
        if !std::mem::replace(&mut self.is_lost, true) {
            warn!("Redis at {} is away: {why}; trying again", self.redis);
        } else {
            debug!("Redis at {} is still away: {why}", self.redis);
        }
        Instant::now() + self.pauses.next(random_number())
    }
}

/// Sends commands and takes in their replies. The library's own call waits on for every
/// further reply when one did not come in time, a second each.
fn call(
    connection: &mut redis::Connection,
    pipe: &Pipeline,
    reason: fn(&RedisError) -> String,
) -> Result<Vec<Value>, String> {
    let count = pipe.cmd_iter().count();
    if count == 0 {
        return Ok(vec![]);
    }
    let by = Instant::now() + REPLIES_TIME_MAX;
    connection.send_packed_command(&pipe.get_packed_pipeline()).map_err(|error| reason(&error))?;
    let receive = |_| {
        if Instant::now() >= by {
            return Err(LATE.to_owned());
        }
        connection.recv_response().map_err(|error| reason(&error))
    };
    (0..count).map(receive).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn many_replies_that_do_not_come_are_waited_for_together() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let redis = Redis::parse(&format!("redis://{}", listener.local_addr().expect("it is bound")));
        let mut connection = RedisConnection::new(redis.expect("a URL"));
        // Answers the first questions, as a Redis would that stops then.
        let silent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody comes");
            let _ = stream.read(&mut [0; 1024]).expect("CLIENT INFO, INFO");
            stream.write_all(b"+id=7 addr=127.0.0.1:1\r\n+run_id:1\r\n").expect("it listens");
            let _ = stream.read_to_end(&mut vec![]);
        });
        connection.connect().expect("there is an answer");
        let mut pipe = redis::pipe();
        for n in 0..100 {
            pipe.hgetall(n);
        }
        let start = Instant::now();
        assert_eq!(connection.run(&pipe).expect_err("nothing comes"), LATE);
        assert!(start.elapsed() < 3 * CALL_TIME_MAX, "{:?}", start.elapsed());
        connection.lose(LATE);
        silent.join().expect("it was there all the time");
    }
}
