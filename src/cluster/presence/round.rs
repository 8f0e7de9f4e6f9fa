//! One round: what is deferred, and the questions of all who ask, in one pipeline.
//!
//! Each job asks for a few things in a row, and is given the replies to these. Behind all jobs
//! the sessions of the users are read, of each user once, however many ask: so of two logins
//! at least one sees the other, and who stores a message sees whoever logs in meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::cluster::command::Command;
use crate::cluster::command::Entry;
use crate::cluster::command::Reply;
use crate::cluster::command::tag;
use crate::cluster::deferred::DeferredWrite;
use crate::cluster::presence::job::Job;
use crate::cluster::presence::job::Replies;
use crate::cluster::presence::job::Round;
use crate::cluster::presence::state::Flight;
use crate::cluster::presence::state::Presence;
use crate::cluster::told::Told;
use crate::node::seam::Answer;
use crate::node::seam::Ask;
use crate::proto::name::SessionId;

/// Questions in one round.
const ASKS_MAX: usize = 512;

/// How old the table may be when presence says that it knows nothing of a user.
const TABLE_TIME_MAX: Duration = Duration::from_millis(100);

impl Presence {
    /// The commands of the next round, if there is anything to do.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Vec<Command>> {
        let mut jobs = vec![];
        if !self.is_stopping {
            self.add_assertions(&mut jobs, now);
        }
        for write in self.deferred.next() {
            // A session that has ended, or drains again, has nothing to release.
            if let Some(command) = self.deferred_command(&write) {
                jobs.push((Job::Write(write), vec![command]));
            }
        }
        for _ in 0..self.asks.len().min(ASKS_MAX) {
            let ask = self.asks.pop_front().expect("it was counted");
            jobs.extend(self.begin(ask, now));
        }
        for user in if self.is_stopping { vec![] } else { self.doubts.again(ASKS_MAX, now) } {
            jobs.push((Job::Locate { token: None, user, is_here: false }, vec![]));
        }
        if jobs.is_empty() {
            // What was asked may have been put off: to this round, as there is no other.
            let has_more = !self.asks.is_empty() || !self.deferred.is_empty();
            return if has_more { self.next_round(now) } else { None };
        }
        let (mut commands, mut known, mut users) = (vec![], HashSet::new(), vec![]);
        let looks_for_others = jobs.iter().any(|(job, _)| job.looks_for_others());
        let mut counted = vec![];
        for (job, mut of_job) in jobs {
            users.extend(job.user().filter(|user| known.insert((*user).clone())).cloned());
            counted.push((job, of_job.len()));
            commands.append(&mut of_job);
        }
        commands.extend(users.iter().map(|user| Command::Sessions { user: user.clone() }));
        if looks_for_others {
            // Last: if Redis lost its data before any of them, it lost this too.
            commands.push(Command::IsMember { node: self.me.clone() });
        }
        self.flight = Some(Flight::Round(Round { jobs: counted, users }));
        Some(commands)
    }

    /// Adds the sessions that are written once more now. One that is to drain no more keeps its mark until
    /// that is its turn, which is behind this: when what it took is removed.
    fn add_assertions(&mut self, jobs: &mut Vec<(Job, Vec<Command>)>, now: Instant) {
        if self.sessions.due().is_none_or(|due| due > now) {
            return;
        }
        let is_urgent = self.sessions.is_asserting_all();
        for session in self.sessions.take(now) {
            let own = self.sessions.find(session).expect("one that has ended is not taken");
            let (user, drains) = (own.user.clone(), own.drains);
            let mut commands: Vec<Command> = self.write(session, drains).into_iter().collect();
            commands.push(Command::HasMail { user: user.clone() });
            jobs.push((Job::Assert { user, session, is_urgent }, commands));
        }
    }

    /// What to ask for somebody who asks, unless that is put off.
    fn begin(&mut self, ask: Ask, now: Instant) -> Option<(Job, Vec<Command>)> {
        match ask {
            Ask::Locate { token, user, is_here } => {
                Some((Job::Locate { token: Some(token), user, is_here }, vec![]))
            }
            Ask::Register { token, user, session } => {
                let since_us = self.nodes.now_us(self.clock_us(now));
                self.sessions.add(&user, session, since_us, now);
                let mut commands: Vec<Command> = self.write(session, false).into_iter().collect();
                commands.push(Command::HasMail { user: user.clone() });
                Some((Job::Register { token, user, session }, commands))
            }
            Ask::Store { token, user, messages } => {
                let count = messages.len();
                let store = Command::Store { user: user.clone(), messages };
                Some((Job::Store { token, user, count }, vec![store]))
            }
            Ask::Read { token, user, session, after } => {
                let claim = Command::Claim { user: user.clone(), tag: tag(&self.me, session) };
                let read = Command::Read { user: user.clone(), after };
                Some((Job::Read { token, user, session, after }, vec![claim, read]))
            }
            ask => {
                self.put_off(ask);
                None
            }
        }
    }

    /// The command that writes a session of this node.
    fn write(&self, session: SessionId, drains: bool) -> Option<Command> {
        let own = self.sessions.find(session)?;
        let entry = Entry { node: self.me.clone(), session, since_us: own.since_us };
        Some(Command::Write { user: own.user.clone(), entry, drains })
    }

    fn deferred_command(&self, write: &DeferredWrite) -> Option<Command> {
        match write {
            DeferredWrite::Take { user, up_to, also } => {
                Some(Command::Take { user: user.clone(), up_to: *up_to, also: also.clone() })
            }
            DeferredWrite::Release { session, number } => {
                self.sessions.releases(*session, *number).then(|| self.write(*session, false))?
            }
            DeferredWrite::Remove { user, tag, .. } => {
                Some(Command::Remove { user: user.clone(), tag: tag.clone() })
            }
        }
    }

    pub(super) fn replied_to_round(
        &mut self,
        Round { jobs, users }: Round,
        mut replies: impl Iterator<Item = Reply>,
        now: Instant,
    ) -> Result<(), String> {
        let (mut undone, mut sorted) = (vec![], Replies::default());
        for (job, count) in jobs {
            let mut of_job: Vec<Reply> = replies.by_ref().take(count).collect();
            match job {
                Job::Write(write) if self.is_settled(of_job.pop()) => self.wrote(write),
                Job::Write(write) => undone.push(write),
                job => sorted.jobs.push((job, of_job)),
            }
        }
        for user in users {
            if let Some(Reply::Sessions(entries)) = replies.next() {
                sorted.sessions.insert(user, entries);
            }
        }
        let is_writable = undone.is_empty();
        self.deferred.put_back(undone);
        // That presence knows nothing may mean that it lost everything since the lease was renewed,
        // or that others are about to write their sessions again.
        let is_member = replies.next() != Some(Reply::Flag(false));
        let is_old = !is_member || now.duration_since(self.table.renewed) >= TABLE_TIME_MAX;
        let knows_nothing = sorted.sessions.values().any(Vec::is_empty);
        if (knows_nothing && is_old) || !self.unknown(&sorted).is_empty() {
            self.held = sorted;
        } else {
            self.finish(sorted, now);
        }
        if is_writable { Ok(()) } else { Err("it takes no writes".to_owned()) }
    }

    /// A deferred write is done.
    fn wrote(&mut self, write: DeferredWrite) {
        match write {
            DeferredWrite::Release { session, number } if self.sessions.releases(session, number) => {
                self.sessions.set_drains(session, false);
            }
            DeferredWrite::Remove { token: Some(token), .. } => self.answer(Answer::Unregistered { token }),
            DeferredWrite::Take { .. } | DeferredWrite::Release { .. } | DeferredWrite::Remove { .. } => {}
        }
    }

    /// Tells whether a command needs no other attempt: it was done, or it is refused for good.
    /// One such key must not keep this node from Redis, and whoever wrote it wants it so.
    fn is_settled(&mut self, reply: Option<Reply>) -> bool {
        let Some(Reply::Refused { is_final, why }) = reply else { return reply.is_some() };
        if is_final && !std::mem::replace(&mut self.was_refused, true) {
            self.told.push(Told::Warning(format!(
                "Redis refuses what is not tried again: {why}; others wrote to our keys, or it is too old"
            )));
        }
        is_final
    }
}
