//! Presence: what a node asks Redis, and what the answers mean.
//!
//! A pure state machine: asks and time go in, rounds of commands come out, one at a time;
//! replies go in, and what they tell comes out. A thread carries (`redis_thread.rs`), or a
//! simulator in its place.
//!
//! A login is two commands: the session is written, then all sessions of the user are read.
//! Of two that race at least one sees the other, and which came first is written in the hash,
//! so all agree. A session removes its own field and no other, so a late removal can't erase
//! a newer login. Fields of dead nodes are ignored and removed by whoever meets them; keys
//! that nobody asks for end by their time to live, which begins anew with every sweep.
//!
//! While Redis is away every ask is answered "unavailable" at once, and what is to be removed
//! waits. `presence/table.rs` keeps this node in the table, `presence/round.rs` asks, and
//! `presence/answers.rs` tells.

mod answers;
mod doubts;
mod job;
mod round;
mod state;
mod table;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::cluster::command::Command;
use crate::cluster::command::Reply;
use crate::cluster::presence::job::Job;
use crate::cluster::presence::job::Round;
use crate::cluster::presence::state::Flight;
use crate::cluster::told::Told;
use crate::cluster::told::unavailable;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::node::seam::Unavailable;
use crate::proto::name::NodeId;
use crate::proto::name::SessionId;
use crate::proto::name::UserName;

pub use crate::cluster::presence::state::Presence;
pub use crate::cluster::presence::state::PresenceConfig;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Connect to Redis: [`Presence::connected`] or [`Presence::lost`] follows.
    Connect,
    /// Run these in one pipeline: [`Presence::replied`] or [`Presence::lost`] follows.
    Run(Vec<Command>),
}

impl Presence {
    /// The node asks.
    pub fn ask(&mut self, ask: Ask) {
        if self.away.is_none() && !self.is_stopping {
            self.asks.push_back(ask);
        } else {
            self.refuse(ask);
        }
    }

    /// A session has ended, and its node was told so already.
    pub fn ended(&mut self, user: UserName, session: SessionId) {
        self.unregister(user, session, None);
    }

    /// There is a connection to Redis; `is_another` when it is not the Redis of before, or one that was
    /// started again.
    pub fn connected(&mut self, is_another: bool, now: Instant) {
        self.away = None;
        self.table.renew_at = now;
        if is_another {
            // Its data may be old: sessions may be missing until all nodes have written them.
            self.table.busy_since = Some(now);
        }
        // Whatever happened to Redis meanwhile: what it must know is written again.
        self.sessions.assert_all(now);
    }

    /// Redis can't be asked; it is to be tried again at this time.
    pub fn lost(&mut self, retry_at: Instant) {
        self.away = Some(retry_at);
        self.table.join_since = None;
        self.refuse_doubts();
        match self.flight.take() {
            Some(Flight::Round(round)) => self.give_up(round),
            Some(Flight::Leave) => self.has_too_many = true,
            Some(Flight::Lease { .. } | Flight::Time { .. }) | None => {}
        }
        self.refuse_all();
        self.stop_waiting_for_removals();
        self.told.push(Told::Up(false));
    }

    /// There is a queue at the broker for the node of this id.
    pub fn has_queue(&mut self, node: Option<NodeId>) {
        self.table.queue = node;
    }

    /// All sessions are to be written again.
    pub fn assert_all(&mut self, now: Instant) {
        self.sessions.assert_all(now);
    }

    /// These nodes talk to this one and should have come into the table long since.
    pub fn strangers(&mut self, strangers: Vec<NodeId>) {
        let is_unknown = |node: &NodeId| !self.nodes.is_living(node) && !self.nodes.is_dead(node);
        let unknown: BTreeSet<NodeId> = strangers.into_iter().filter(is_unknown).collect();
        self.bury(unknown);
    }

    /// The node goes: nothing is answered any more, and what is deferred is still done.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.refuse_doubts();
        self.refuse_all();
    }

    /// When to look for a step by itself.
    pub fn due(&self) -> Instant {
        if let Some(retry_at) = self.away {
            return retry_at;
        }
        let due = self.table.due();
        let sessions = self.sessions.due().filter(|_| self.table.has_joined);
        let doubts = self.doubts.due().filter(|_| self.table.has_joined);
        sessions.into_iter().chain(doubts).fold(due, Instant::min)
    }

    /// What is to be done now, if anything is; nothing while a step is under way.
    pub fn next(&mut self, now: Instant) -> Option<Step> {
        if self.flight.is_some() {
            return None;
        }
        if let Some(retry_at) = self.away {
            return (now >= retry_at && !self.is_stopping).then_some(Step::Connect);
        }
        let of_table = if self.is_stopping { None } else { self.next_of_table(now) };
        let can_ask = self.is_stopping || self.table.has_joined;
        of_table.or_else(|| can_ask.then(|| self.next_round(now))?).map(Step::Run)
    }

    /// The replies to the last step, in order.
    ///
    /// # Errors
    /// When Redis does not do its work: the connection is to be given up.
    pub fn replied(&mut self, replies: Vec<Reply>, now: Instant) -> Result<(), String> {
        let flight = self.flight.take().expect("replies come to what was asked");
        let mut replies = replies.into_iter();
        match flight {
            Flight::Lease { is_joining, since } => self.renewed(is_joining, since, replies.next(), now),
            Flight::Leave => {
                self.restart("too many sessions ended while Redis was away", now);
                Ok(())
            }
            Flight::Time { since } => {
                if let Some(Reply::Time(redis_us)) = replies.next() {
                    let (asked_us, answered_us) = (self.clock_us(since), self.clock_us(now));
                    self.nodes.told_time(redis_us, asked_us, answered_us);
                }
                Ok(())
            }
            Flight::Round(round) => self.replied_to_round(round, replies, now),
        }
    }

    /// What there is to tell, in order; it is taken out.
    pub fn told(&mut self) -> Vec<Told> {
        let given_up = self.deferred.given_up();
        if given_up > 0 {
            let why = format!("too much waits for Redis: {given_up} messages or more may be shown twice");
            self.told.push(Told::Warning(why));
        }
        std::mem::take(&mut self.told)
    }

    /// Does what can be done without Redis.
    fn refuse(&mut self, ask: Ask) {
        match unavailable(&ask) {
            Some(answer) => self.answer(answer),
            None => self.put_off(ask),
        }
    }

    /// Redis did not answer: what was to be written is to be again.
    fn give_up(&mut self, round: Round) {
        let mut writes = vec![];
        for job in round.jobs() {
            match job {
                Job::Write(write) => writes.push(write),
                job => self.refuse_job(job),
            }
        }
        self.deferred.put_back(writes);
    }

    /// Nobody waits any more for what was asked.
    fn refuse_all(&mut self) {
        let held = std::mem::take(&mut self.held);
        held.jobs.into_iter().for_each(|(job, _)| self.refuse_job(job));
        let asks = std::mem::take(&mut self.asks);
        asks.into_iter().for_each(|ask| self.refuse(ask));
    }

    fn refuse_doubts(&mut self) {
        for token in self.doubts.end_all() {
            self.answer(Answer::Located { token, locations: Err(Unavailable) });
        }
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
