//! Redis: the model of the commands' meaning, and what may happen to it.

use std::time::Instant;

use pinpost::internals::cluster::command::RedisCommand;
use pinpost::internals::cluster::command::RedisReply;
use pinpost::internals::cluster::redis_model::RedisModel;
use pinpost::internals::mailbox::Limits;

use crate::queue::Event;
use crate::queue::PipeKind;
use crate::world::World;

/// A pipeline of commands: on which connection of its node, and which call that is.
pub type Asked = (u32, u32, Vec<RedisCommand>);
/// The replies.
pub type Replied = (u32, u32, Vec<RedisReply>);

/// Redis.
pub struct Redis {
    pub data: RedisModel,
    /// What it had some time before each of these faults.
    pub older: Vec<(usize, RedisModel)>,
    pub is_dead: bool,
    /// Which start of it this is.
    pub run: u32,
}

impl Redis {
    /// Holds nothing.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Redis { data: RedisModel::new(limits, now), older: vec![], is_dead: false, run: 1 }
    }
}

impl World {
    /// What a node asks has come to Redis.
    pub fn execute(&mut self, host: usize) {
        let Some((connection, call, commands)) = self.hosts[host].asks.pop(self.queue.now()) else { return };
        if self.redis.is_dead {
            return;
        }
        self.redis.data.now = self.instant();
        let data = &mut self.redis.data;
        let replies: Vec<RedisReply> = commands.iter().map(|command| data.run(command)).collect();
        let at = self.arrival(self.scene.redis_time);
        let at = self.hosts[host].answers.push(at, (connection, call, replies));
        self.queue.at(at, Event::Pipe { host, pipe: PipeKind::Answer });
    }

    /// A node's connection to Redis is gone.
    pub fn break_redis(&mut self, host: usize) {
        let connection = self.hosts[host].presence.connection;
        self.hosts[host].asks.clear();
        self.hosts[host].answers.clear();
        let at = self.arrival(self.scene.redis_time);
        self.queue.at(at, Event::RedisLost { host, connection });
    }
}
