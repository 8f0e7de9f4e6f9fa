//! One round: what is deferred, and the questions of all who ask, in one pipeline; then what the replies
//! mean: where users are, who came first, who has to be told.
//!
//! Each job asks for a few things in a row, and is given the replies to these. Behind all jobs
//! the sessions of the users are read, of each user once, however many ask: so of two logins
//! at least one sees the other, and who stores a message sees whoever logs in meanwhile.
//! Sessions of dead nodes, and those of this node that it does not know, are removed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use crate::cluster::command::{Place, RedisCommand, RedisReply, SessionEntry};
use crate::cluster::event::locations;
use crate::cluster::presence::{Flight, Job, Presence, Round, Told, is_write};
use crate::node::seam::{Answer, Ask, Location, Mail, News, Stored, Unavailable, Welcome, What};
use crate::node::slab::Ticket;
use crate::proto::name::{NodeId, SessionId, UserName};

/// Users in doubt that are looked for in one round.
const SEEKS_MAX: usize = 512;

/// Deferred writes in one round: Redis has a second for all.
pub(super) const DEFERRED_AT_ONCE_MAX: usize = 1_024;

/// How old the table may be when presence says that it knows nothing of a user.
const TABLE_TIME_MAX: Duration = Duration::from_millis(100);

/// How long a user that is not found is looked for while there is doubt, and how often.
const DOUBT_TIME_MAX: Duration = Duration::from_secs(3);
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

impl Presence {
    /// The commands of the next round, if there is anything to do.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Vec<RedisCommand>> {
        let jobs = self.next_jobs(now);
        if jobs.is_empty() {
            return None;
        }
        let (mut commands, mut known) = (vec![], HashSet::new());
        let mut round = Round { since: Some(now), ..Round::default() };
        // Somebody is told that a user is nowhere if presence knows nothing.
        let mut looks_for_others = false;
        for (job, mut of_job) in jobs {
            let (user, looks) = match &job {
                Job::Ask(Ask { user, what: What::Locate(is_here), .. }) => (Some(user), !is_here),
                Job::Ask(Ask { user, what: What::Store(_), .. }) | Job::Seek(user) => (Some(user), true),
                Job::Ask(Ask { user, what: What::Register(_), .. }) | Job::Assert { user, .. } => {
                    (Some(user), false)
                }
                Job::Ask(_) | Job::Clear => (None, false),
            };
            looks_for_others |= looks;
            round.users.extend(user.filter(|user| known.insert((*user).clone())).cloned());
            round.jobs.push((job, of_job.len()));
            commands.append(&mut of_job);
        }
        commands.extend(round.users.iter().map(|user| RedisCommand::Sessions { user: user.clone() }));
        if looks_for_others {
            // Last: if Redis lost its data before any of them, it lost this too.
            commands.push(RedisCommand::IsMember { node: self.me.clone() });
        }
        self.flight = Some(Flight::Round(round));
        Some(commands)
    }

    fn next_jobs(&mut self, now: Instant) -> Vec<(Job, Vec<RedisCommand>)> {
        let mut jobs = vec![];
        for user in std::mem::take(&mut self.losses.misfits) {
            jobs.push((Job::Clear, vec![RedisCommand::Clear { user }]));
        }
        if !self.is_stopping && self.sessions.due.is_some_and(|due| due <= now) {
            let is_urgent = self.sessions.is_asserting_all();
            for session in self.sessions.take(now) {
                let own = self.sessions.find(session).expect("one that has ended is not taken");
                let user = own.user.clone();
                // One that is to drain no more keeps its mark until that is its turn, which is behind
                // this: when what it took is removed.
                let commands = self.write_and_look(session, &user, own.drains);
                jobs.push((Job::Assert { user, session, is_urgent }, commands));
            }
        }
        for _ in 0..self.deferred.len().min(DEFERRED_AT_ONCE_MAX) {
            let ask = self.deferred.pop_front().expect("it was counted");
            jobs.extend(self.begin(ask, now));
        }
        for ask in self.asks.next() {
            if is_write(&ask) && !self.deferred.is_empty() {
                self.defer(ask);
            } else {
                jobs.extend(self.begin(ask, now));
            }
        }
        if !self.doubts.is_empty() && now >= self.doubts_due {
            self.doubts_due = now + DOUBT_PAUSE;
            jobs.extend(self.doubts.keys().take(SEEKS_MAX).map(|user| (Job::Seek(user.clone()), vec![])));
        }
        jobs
    }

    /// What to ask for somebody who asks; a session that has ended has nothing to release.
    fn begin(&mut self, mut ask: Ask, now: Instant) -> Option<(Job, Vec<RedisCommand>)> {
        let (user, node) = (ask.user.clone(), self.me.clone());
        let commands = match &mut ask.what {
            What::Locate(_) => vec![],
            What::Register(session) => {
                self.sessions.add(&user, *session, now);
                self.write_and_look(*session, &user, false)
            }
            // Their number stays.
            What::Store(messages) => {
                let messages = messages.iter_mut().map(std::mem::take).collect();
                vec![RedisCommand::Store { user, messages }]
            }
            What::Read(session, after) => {
                if self.sessions.find(*session).is_none() {
                    // It would claim the mailbox for a session that has ended.
                    self.answer(ask.ticket, Answer::Read(Err(Unavailable)));
                    return None;
                }
                let read = RedisCommand::Read { user: user.clone(), after: *after };
                vec![RedisCommand::Claim { user, node, session: *session }, read]
            }
            What::Unregister(session) => {
                self.sessions.remove(*session);
                vec![RedisCommand::Remove { user, node, session: *session }]
            }
            What::Remove(node, session) => {
                vec![RedisCommand::Remove { user, node: node.clone(), session: *session }]
            }
            What::Take(up_to, also) => vec![RedisCommand::Take { user, up_to: *up_to, also: also.clone() }],
            What::Release(session) => vec![self.write(*session, false)?],
        };
        Some((Job::Ask(ask), commands))
    }

    /// The commands that write a session of this node, and look into its user's mailbox.
    fn write_and_look(&self, session: SessionId, user: &UserName, drains: bool) -> Vec<RedisCommand> {
        let look = RedisCommand::HasMail { user: user.clone() };
        self.write(session, drains).into_iter().chain([look]).collect()
    }

    fn write(&self, session: SessionId, drains: bool) -> Option<RedisCommand> {
        let (own, node) = (self.sessions.find(session)?, self.me.clone());
        Some(RedisCommand::Write { user: own.user.clone(), node, session, since_us: own.since_us, drains })
    }

    pub(super) fn replied_to_round(
        &mut self,
        round: Round,
        replies: Vec<RedisReply>,
        now: Instant,
    ) -> Result<(), String> {
        if let Some(since) = round.since {
            self.asks.have_read(&replies, now.duration_since(since));
        }
        let mut replies = replies.into_iter();
        let (mut undone, mut rest) = (vec![], Round::default());
        for (job, count) in round.jobs {
            match job {
                Job::Ask(ask) if is_write(&ask) => match self.is_settled(replies.next()) {
                    true => self.wrote(ask),
                    false => undone.push(ask),
                },
                job => {
                    rest.replies.extend(replies.by_ref().take(count));
                    rest.jobs.push((job, count));
                }
            }
        }
        rest.replies.extend(replies.by_ref().take(round.users.len()));
        rest.users = round.users;
        self.note_misfits(&rest);
        let is_writable = undone.is_empty();
        self.put_back(undone);
        // That presence knows nothing may mean that it lost everything since the lease was renewed,
        // or that others are about to write their sessions again.
        let is_member = replies.next() != Some(RedisReply::Flag(false));
        let is_old = !is_member || now.duration_since(self.renewed) >= TABLE_TIME_MAX;
        let is_nothing =
            |reply: &RedisReply| matches!(reply, RedisReply::Sessions(entries) if entries.is_empty());
        if (is_old && rest.replies.iter().any(is_nothing)) || !self.unknown(&rest).is_empty() {
            self.held = rest;
        } else {
            self.finish(rest, now);
        }
        if is_writable { Ok(()) } else { Err("it takes no writes".to_owned()) }
    }

    fn wrote(&mut self, ask: Ask) {
        match ask.what {
            What::Release(session) => self.sessions.set_drains(session, false),
            What::Unregister(_) => self.answer(ask.ticket, Answer::Unregistered),
            _ => {}
        }
    }

    /// Tells whether a command needs no other attempt: it was done, or it is refused for good.
    /// One such key must not keep this node from Redis, and whoever wrote it wants it so.
    fn is_settled(&mut self, reply: Option<RedisReply>) -> bool {
        if let Some(RedisReply::Misfit { key }) = &reply {
            self.note_misfit(key);
            return true;
        }
        let Some(RedisReply::Refused { is_final, why }) = reply else { return reply.is_some() };
        if is_final && !std::mem::replace(&mut self.was_refused, true) {
            self.told.push(Told::Warning(format!(
                "Redis refuses what is not tried again: {why}; others wrote to our keys, or it is too old"
            )));
        }
        is_final
    }

    /// Nodes that replies name and that are neither living nor dead, as far as this node knows.
    fn unknown(&self, round: &Round) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        for reply in &round.replies {
            match reply {
                RedisReply::Sessions(entries) => nodes.extend(entries.iter().map(|entry| entry.node.clone())),
                RedisReply::Claimed(Some((node, _))) => nodes.extend([node.clone()]),
                _ => {}
            }
        }
        nodes.retain(|node| *node != self.me && self.nodes.is_unknown(node));
        nodes
    }

    /// Tells everybody what came of it. The table is as new as it has to be: a node that is not in it is
    /// dead.
    pub(super) fn finish(&mut self, mut round: Round, now: Instant) {
        let unknown = self.unknown(&round);
        self.bury(unknown);
        let of_users = round.replies.split_off(round.jobs.iter().map(|(_, count)| count).sum());
        let mut living = BTreeMap::new();
        for (user, reply) in round.users.into_iter().zip(of_users) {
            if let RedisReply::Sessions(entries) = reply {
                let entries = self.living(&user, entries);
                living.insert(user, entries);
            }
        }
        let mut replies = round.replies.into_iter();
        for (job, count) in round.jobs {
            let mut next = |has_one| if has_one { replies.next() } else { None };
            let (one, two) = (next(count > 0), next(count > 1));
            self.finish_job(job, one, two, &living, now);
        }
    }

    /// Tells what came of one job: the replies to its commands, and the sessions of users that live.
    fn finish_job(
        &mut self,
        job: Job,
        one: Option<RedisReply>,
        two: Option<RedisReply>,
        living: &BTreeMap<UserName, Vec<SessionEntry>>,
        now: Instant,
    ) {
        match job {
            Job::Ask(Ask { ticket, user, what: What::Locate(is_here) }) => {
                self.tell_located(Some(ticket), &user, is_here, living.get(&user), now);
            }
            Job::Seek(user) => self.tell_located(None, &user, false, living.get(&user), now),
            Job::Ask(Ask { ticket, user, what: What::Register(session) }) => {
                let welcome = match (one, two, living.get(&user)) {
                    (Some(RedisReply::Wrote(place)), Some(RedisReply::Flag(has_mail)), Some(entries)) => {
                        self.note_place(&user, place);
                        let (before, after) = self.settle(&user, session, entries);
                        let own =
                            entries.iter().find(|entry| entry.session == session).map(SessionEntry::age);
                        let earlier = entries.iter().filter(|entry| Some(entry.age()) < own).count();
                        Ok(Welcome { before, after, earlier, has_mail })
                    }
                    _ => Err(Unavailable),
                };
                self.answer(ticket, Answer::Registered(welcome));
            }
            Job::Ask(Ask { ticket, user, what: What::Store(messages) }) => {
                let locations = living.get(&user).map(|entries| self.elsewhere(entries));
                // Without knowing where the recipient is now, nobody knows whether it will see them.
                let fate = |at: usize| match (&one, &locations) {
                    (Some(RedisReply::Stored(stored)), Some(_)) if at < *stored => Stored::Yes,
                    (Some(RedisReply::Stored(stored)), _) if at >= *stored => Stored::Full,
                    (Some(RedisReply::Refused { .. } | RedisReply::Misfit { .. }), _) => Stored::No,
                    _ => Stored::Unknown,
                };
                let fates = (0..messages.len()).map(fate).collect();
                self.answer(ticket, Answer::Stored(fates, locations.ok_or(Unavailable)));
            }
            Job::Clear => {}
            Job::Ask(ask) => self.tell_read(ask, one, two),
            Job::Assert { user, session, is_urgent } => {
                if two == Some(RedisReply::Flag(true)) && self.config.has_mailboxes {
                    // Somebody stored it who did not see the session, and could not tell.
                    self.told.push(Told::News(News::Mail(user.clone())));
                }
                let Some(RedisReply::Wrote(place)) = one else { return };
                let is_new = place != Place::Known;
                self.note_place(&user, place);
                if is_new && !is_urgent {
                    self.has_lost(&user, now);
                }
                if let Some(entries) = living.get(&user) {
                    self.tell_asserted(user, session, entries, is_urgent || is_new);
                }
            }
        }
    }

    /// Tells where a user is, also those who wait for that since there was doubt.
    fn tell_located(
        &mut self,
        ticket: Option<Ticket>,
        user: &UserName,
        is_here: bool,
        entries: Option<&Vec<SessionEntry>>,
        now: Instant,
    ) {
        if self.doubts.is_empty() {
            self.doubts_due = now + DOUBT_PAUSE;
        }
        let (since, mut tickets) = self.doubts.remove(user).unwrap_or((now, vec![]));
        tickets.extend(ticket);
        let has_entry = entries.into_iter().flatten().any(|entry| entry.node == self.me);
        if is_here && !has_entry && entries.is_some() {
            self.misses(user);
        }
        let is_here = is_here || has_entry;
        let mut locations = entries.map(|entries| self.elsewhere(entries)).ok_or(Unavailable);
        if self.nodes.in_doubt && !is_here && locations.as_ref().is_ok_and(Vec::is_empty) {
            if now.duration_since(since) < DOUBT_TIME_MAX && !tickets.is_empty() {
                self.doubts.insert(user.clone(), (since, tickets));
                return;
            }
            locations = Err(Unavailable);
        }
        for ticket in tickets {
            self.answer(ticket, Answer::Located(locations.clone()));
        }
    }

    /// Tells what a session has read.
    fn tell_read(&mut self, ask: Ask, claim: Option<RedisReply>, letters: Option<RedisReply>) {
        let What::Read(session, _) = ask.what else { unreachable!("it was told already") };
        let mail = match (claim, letters) {
            (Some(RedisReply::Claimed(None)), letters) => {
                self.sessions.set_drains(session, true);
                match letters {
                    Some(RedisReply::Letters(letters)) => Ok(Mail::Letters(letters)),
                    _ => Err(Unavailable),
                }
            }
            (Some(RedisReply::Claimed(Some((node, other)))), _) if self.is_void(&node, other) => {
                self.remove(ask.user.clone(), node, other);
                // Behind the removal.
                return self.asks.put_back(ask);
            }
            (Some(RedisReply::Claimed(Some((node, _)))), _) => {
                Ok(Mail::Busy((node != self.me).then_some(node)))
            }
            _ => Err(Unavailable),
        };
        self.answer(ask.ticket, Answer::Read(mail));
    }

    /// Tells whether a session is that of a dead node, or one of this node that has ended.
    fn is_void(&self, node: &NodeId, session: SessionId) -> bool {
        if *node == self.me { self.sessions.find(session).is_none() } else { self.nodes.is_dead(node) }
    }

    /// Tells what stands beside a session that was written once more.
    fn tell_asserted(
        &mut self,
        user: UserName,
        session: SessionId,
        entries: &[SessionEntry],
        is_urgent: bool,
    ) {
        if !self.config.is_single {
            // Its tag may be new, so other nodes may know the user's locations without this one.
            let nodes: Vec<NodeId> = self.elsewhere(entries).into_iter().map(|there| there.node).collect();
            if is_urgent && !nodes.is_empty() {
                self.told.push(Told::News(News::Elsewhere(user, nodes)));
            }
            return;
        }
        let (locations, _) = self.settle(&user, session, entries);
        for Location { node, sessions } in &locations {
            sessions.iter().for_each(|session| self.remove(user.clone(), node.clone(), *session));
        }
        if !locations.is_empty() {
            self.told.push(Told::News(News::Replaces(user, locations)));
        }
    }

    /// A session of this node stands beside others of its user. Returns on which other nodes the user was
    /// before it, and came after it. Where a user may have one session, one that is not the latest has
    /// lost, and replaces nobody.
    fn settle(
        &mut self,
        user: &UserName,
        session: SessionId,
        entries: &[SessionEntry],
    ) -> (Vec<Location>, Vec<Location>) {
        let own = entries.iter().find(|entry| entry.session == session);
        let Some(own) = own.map(SessionEntry::age) else { return (vec![], vec![]) };
        let replaced = |session| Told::News(News::Replaced(user.clone(), session));
        let others = entries.iter().filter(|entry| entry.session != session);
        let (after, before): (Vec<_>, Vec<_>) = others.partition(|entry| own < entry.age());
        if self.config.is_single && !after.is_empty() {
            self.told.push(replaced(session));
            return (vec![], vec![]);
        }
        if self.config.is_single {
            let here = before.iter().filter(|entry| entry.node == self.me);
            self.told.extend(here.map(|entry| replaced(entry.session)));
        }
        (self.elsewhere(before), self.elsewhere(after))
    }

    /// The sessions of a user on nodes that live. Those of dead ones, and those of this node that it does
    /// not know, will be removed.
    fn living(&mut self, user: &UserName, mut entries: Vec<SessionEntry>) -> Vec<SessionEntry> {
        for entry in entries.iter().filter(|entry| entry.node == self.me) {
            self.sessions.set_since(entry.session, entry.since_us);
        }
        let is_wrong = |SessionEntry { node, session, .. }: &mut SessionEntry| {
            if *node == self.me {
                self.sessions.find(*session).is_none()
            } else {
                !self.nodes.is_living(node)
            }
        };
        let wrong: Vec<SessionEntry> = entries.extract_if(.., is_wrong).collect();
        wrong
            .into_iter()
            .for_each(|SessionEntry { node, session, .. }| self.remove(user.clone(), node, session));
        entries
    }

    /// The sessions on other nodes, by node, in the order of the logins.
    fn elsewhere<'a>(&self, entries: impl IntoIterator<Item = &'a SessionEntry>) -> Vec<Location> {
        let mut entries: Vec<&SessionEntry> =
            entries.into_iter().filter(|entry| entry.node != self.me).collect();
        entries.sort_unstable_by_key(|entry| entry.age());
        locations(entries.into_iter().map(|entry| (&entry.node, entry.session)))
    }
}
