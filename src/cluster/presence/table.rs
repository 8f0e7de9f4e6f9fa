//! How this node stays in the table of living nodes, and comes back under a new id.

use std::time::{Duration, Instant};

use crate::cluster::command::{LeaseAct, RedisCommand, RedisReply};
use crate::cluster::lease::RENEW_TIME;
use crate::cluster::presence::{Flight, Presence, QUEUE_TIME_MAX, Told};

/// How long there is doubt after this node came back under a new id. If Redis lost its data the
/// others are to come back too: each looks for Redis every 2 seconds, and waits as long for a queue.
const DOUBT_TIME: Duration = Duration::from_secs(5);

impl Presence {
    /// Renews the lease, or enters the table.
    pub(super) fn next_of_table(&mut self, now: Instant) -> Option<Vec<RedisCommand>> {
        if self.has_joined && self.held.jobs.is_empty() && now < self.renew_at {
            return None;
        }
        if std::mem::take(&mut self.has_too_many) {
            // Under the old id those who are gone would count until its lease has run out.
            self.flight = Some(Flight::Leave);
            return Some(vec![self.leave()]);
        }
        if !self.has_joined && !self.may_join(now) {
            return None;
        }
        let is_new = self.busy_since.is_some_and(|since| now.duration_since(since) < DOUBT_TIME);
        let is_busy = is_new || (self.busy_since.is_some() && self.sessions.is_asserting_all());
        self.flight = Some(Flight::Lease);
        let act = if self.has_joined || self.may_have_joined { LeaseAct::Renew } else { LeaseAct::Join };
        self.may_have_joined = true;
        Some(vec![self.lease(act, is_busy)])
    }

    /// The command that takes this node out of the table: the last word of one that goes.
    pub fn leave(&self) -> RedisCommand {
        self.lease(LeaseAct::Leave, false)
    }

    fn lease(&self, act: LeaseAct, is_busy: bool) -> RedisCommand {
        RedisCommand::Lease { node: self.me.clone(), act, known: self.nodes.version.clone(), is_busy }
    }

    /// Others are to hear of this node when they can reach it, or soon.
    fn may_join(&mut self, now: Instant) -> bool {
        let has_queue = self.queue.as_ref() == Some(&self.me);
        let since = *self.join_since.get_or_insert(now);
        if !has_queue && now.duration_since(since) < QUEUE_TIME_MAX {
            return false;
        }
        if !has_queue && self.had_queue {
            // Others may look for us at the broker in vain; their messages wait until we are there.
            let why = "joining without RabbitMQ: users of other nodes can't be reached yet";
            self.told.push(Told::Warning(why.to_owned()));
        }
        self.had_queue = has_queue;
        // Redis may have lost its data once more since.
        self.busy_since = self.busy_since.map(|_| now);
        true
    }

    pub(super) fn renewed(&mut self, reply: Option<RedisReply>, now: Instant) -> Result<(), String> {
        // Whatever the answer is, it is known what came of it: what is refused was not done.
        self.may_have_joined = false;
        let lease = match reply {
            Some(RedisReply::Lease(lease)) => lease,
            Some(RedisReply::Refused { why, .. }) => return Err(why),
            _ => return Err("it answers what makes no sense".to_owned()),
        };
        (self.renewed, self.renew_at) = (now, now + RENEW_TIME);
        if lease.as_ref().is_some_and(|lease| lease.was_misfit) {
            let why = "the table of nodes in Redis was none of ours: it is replaced".to_owned();
            self.told.push(Told::Warning(why));
        }
        let clock_us = lease.as_ref().map(|lease| lease.now_us);
        let Some(is_changed) = self.nodes.renewed(lease) else {
            self.restart("others took this node for dead, or Redis lost its data", now);
            return Ok(());
        };
        if is_changed {
            self.tell_nodes();
        }
        clock_us.into_iter().for_each(|clock_us| self.note_clock(clock_us, now));
        self.write_missing(now);
        self.told.push(Told::Renewed);
        (self.has_joined, self.join_since) = (true, None);
        let held = std::mem::take(&mut self.held);
        self.finish(held, now);
        Ok(())
    }

    /// This node goes on under a new id.
    pub(super) fn restart(&mut self, why: &str, now: Instant) {
        self.me = (self.config.fresh_id)();
        self.told.push(Told::Warning(format!("{why}: it is {} from now on", self.me.as_str())));
        // What was known is worth nothing: Redis lost it, or this node was away for long.
        self.nodes.version.clear();
        (self.has_joined, self.may_have_joined) = (false, false);
        self.join_since = None;
        self.busy_since = Some(now);
        self.sessions.assert_all(now);
        self.told.push(Told::Renamed(self.me.clone()));
    }
}
