//! What Redis has lost while this node thought it safe: it is written again at once.
//!
//! A key's time to live ends by Redis's wall clock, which may be set; someone may delete keys. So each renewal compares
//! Redis's clock with ours, a user who is here and whose entry is not is looked for among the sessions, and
//! a session that the sweep finds missing is a sign that others are, too.

use std::time::{Duration, Instant};

use crate::cluster::command::{Place, RedisReply};
use crate::cluster::presence::{Presence, Round, Told};
use crate::proto::name::UserName;

/// By how much Redis's clock and ours may go apart between two renewals: more is a step, or a machine that slept.
const STEP_TIME: Duration = Duration::from_secs(10);

/// How often at most all sessions are written again because one was missing: a Redis that evicts keys goes on to.
const LOST_PAUSE: Duration = Duration::from_secs(30);

/// Users who are looked for among the sessions at once; others are met by the sweep.
const MISSING_MAX: usize = 1_024;

impl Presence {
    /// Redis's clock at this time.
    pub(super) fn note_clock(&mut self, redis_us: i64, now: Instant) {
        let Some((before, before_us)) = self.losses.clock.replace((now, redis_us)) else { return };
        let ahead_us = redis_us - before_us - now.duration_since(before).as_micros() as i64;
        let ahead = Duration::from_micros(ahead_us.unsigned_abs());
        if ahead >= STEP_TIME {
            let way = if ahead_us > 0 { "forward" } else { "back" };
            let why = format!("Redis's clock was set {way} by {} s, or this machine slept", ahead.as_secs());
            self.write_all_again(&why, now);
            if ahead_us > 0 {
                // All entries may have ended: until all nodes have written theirs, that Redis knows nothing proves nothing.
                (self.busy_since, self.nodes.in_doubt) = (Some(now), true);
            }
        }
    }

    /// Redis is another one: so is its clock.
    pub(super) fn forget_clock(&mut self) {
        self.losses.clock = None;
    }

    /// A user is here, and has no entry in Redis.
    pub(super) fn misses(&mut self, user: &UserName) {
        if self.losses.missing.len() < MISSING_MAX {
            self.losses.missing.push(user.clone());
        }
    }

    /// Those who are missing are written again, unless they have left since: once a second, for it takes a look at all
    /// sessions.
    pub(super) fn write_missing(&mut self, now: Instant) {
        let mut missing = std::mem::take(&mut self.losses.missing);
        if !missing.is_empty() {
            missing.sort_unstable();
            self.sessions.assert_some(|user| missing.binary_search(user).is_ok(), now);
        }
    }

    /// The entry of a session was not there when it was written once more: others may be lost, too.
    pub(super) fn has_lost(&mut self, user: &UserName, now: Instant) {
        let is_soon = |since| now.duration_since(since) < LOST_PAUSE;
        if !self.sessions.is_asserting_all() && !self.losses.since.is_some_and(is_soon) {
            self.write_all_again(&format!("Redis has lost entries, such as that of {}", user.as_str()), now);
        }
    }

    /// What presence asked about is none of ours, so nobody can be found or stored there. Entries of users are removed:
    /// they are made anew. A mailbox may be somebody's, and stays.
    pub(super) fn note_misfits(&mut self, round: &Round) {
        for reply in &round.replies {
            if let RedisReply::Misfit { key } = reply {
                self.note_misfit(key);
            }
        }
        let of_users = round.replies.len().saturating_sub(round.users.len());
        for (user, reply) in round.users.iter().zip(&round.replies[of_users..]) {
            if matches!(reply, RedisReply::Misfit { .. }) && self.losses.misfits.len() < MISSING_MAX {
                self.losses.misfits.insert(user.clone());
            }
        }
    }

    /// What this key holds is none of ours: said once.
    pub(super) fn note_misfit(&mut self, key: &str) {
        if self.losses.told.len() < MISSING_MAX && self.losses.told.insert(key.to_owned()) {
            let is_entry = key.starts_with("p:");
            let what = if is_entry { "it is replaced" } else { "mail there is refused until it is gone" };
            let why = format!("the key {key} in Redis holds what is none of ours: {what}");
            self.told.push(Told::Warning(why));
        }
    }

    /// Where a session was written, there was what is none of ours.
    pub(super) fn note_place(&mut self, user: &UserName, place: Place) {
        if place == Place::Misfit {
            let key = format!("the entry of the user {}", user.as_str());
            self.told.push(Told::Warning(format!("{key} in Redis was none of ours: it is replaced")));
        }
    }

    fn write_all_again(&mut self, why: &str, now: Instant) {
        self.losses.since = Some(now);
        self.told.push(Told::Warning(format!("{why}: all users of this node are announced again")));
        self.sessions.assert_all(now);
    }
}
