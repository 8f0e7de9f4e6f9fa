//! The connection to Redis: kept up, with a deadline for everything.
//!
//! A call that takes too long, or fails in any other way, costs the connection:
//! what it would still say could not be told apart from later answers. It is
//! opened again after a growing, jittered pause, for ever, whatever the error.

use std::time::{Duration, Instant};

use log::{debug, info, warn};
use redis::{FromRedisValue, IntoConnectionInfo, Pipeline, Value};

use crate::config::Redis;
use crate::pause::Pauses;
use crate::pause::random;

/// How long connecting, and every call, may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest pause between attempts to connect.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(2);

/// What is said of a Redis that does not answer.
const LATE: &str = "it does not answer in time";

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
        let now = Instant::now();
        let pauses = Pauses::new(PAUSE_TIME_MAX);
        RedisConnection {
            redis,
            connection: None,
            called: None,
            run: None,
            since: now,
            pauses,
            is_lost: false,
        }
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
        let info = self.redis.url().into_connection_info().map_err(text)?;
        // The name of the library would be two more replies to wait for.
        let who = info.redis_settings().clone().set_skip_set_lib_name();
        let settings = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_tcp_settings(settings).set_redis_settings(who);
        let client = redis::Client::open(info).map_err(text)?;
        let mut connection = client.get_connection_with_timeout(CALL_TIME_MAX).map_err(text)?;
        connection.set_read_timeout(Some(CALL_TIME_MAX)).map_err(text)?;
        connection.set_write_timeout(Some(CALL_TIME_MAX)).map_err(text)?;
        let mut pipe = redis::pipe();
        // What the connection before had sent and Redis has not done yet must not come after what
        // this one says. The address is checked too: a new Redis counts its connections anew.
        if let Some((id, addr)) = &self.called {
            // Refused where it is gone already, or not allowed: then late writes do little harm.
            pipe.cmd("CLIENT").arg("KILL").arg("ID").arg(id).arg("ADDR").arg(addr);
        }
        pipe.cmd("CLIENT").arg("INFO").cmd("INFO").arg("server");
        let mut replies = call(&mut connection, &pipe)?.into_iter().rev();
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
        call(connection, pipe)
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
        Instant::now() + self.pauses.next(random())
    }
}

/// Sends commands and takes in their replies. The library's own call waits on for every
/// further reply when one did not come in time, a second each.
fn call(connection: &mut redis::Connection, pipe: &Pipeline) -> Result<Vec<Value>, String> {
    let count = pipe.cmd_iter().count();
    if count == 0 {
        return Ok(vec![]);
    }
    let by = Instant::now() + CALL_TIME_MAX;
    connection.send_packed_command(&pipe.get_packed_pipeline()).map_err(text)?;
    let receive = |_| {
        if Instant::now() >= by {
            return Err(LATE.to_owned());
        }
        connection.recv_response().map_err(text)
    };
    (0..count).map(receive).collect()
}

fn text(error: redis::RedisError) -> String {
    if error.is_timeout() { LATE.to_owned() } else { error.to_string() }
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
