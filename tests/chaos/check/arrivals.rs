//! What clients were sent, in the order in which they took it: for them, once, in order.
//!
//! A client with `ack` drops what it knows, so a copy is not shown; but it may be sent one
//! only where the node could not know that it had been shown. One without shows whatever it
//! is sent, so there the same is to be shown twice.

use std::collections::{HashMap, HashSet};

use crate::check::facts::BELIEF_TIME;
use crate::check::{Check, NOTE_TIME_MAX, Rule};
use crate::history::{Attempt, Client, Fate, Leaving, Message, Ms, Seen, Session};
use crate::plan::Fault;

/// How many other messages a user may be shown before a copy is taken for new, and how long
/// it is known.
const KNOWN_MAX: usize = 2_048;
const KNOWN_TIME: Ms = 60_000 - NOTE_TIME_MAX;

/// What a client has seen so far, by places in that.
#[derive(Default)]
struct Known {
    /// The last time that it was sent a message, at all and on a session.
    anywhere: HashMap<usize, usize>,
    here: HashMap<(usize, usize), usize>,
    shown: HashSet<usize>,
    /// The newest message of each session that sent something, of all that it showed, and on
    /// each of its own sessions.
    newest_shown: HashMap<usize, usize>,
    newest_here: HashMap<(usize, usize), usize>,
}

impl Known {
    /// A newer message of the same session that came before, on the same session or at all.
    fn newer(&mut self, client: &Client, message: &Message, place: usize) -> Option<usize> {
        let seen = &client.seen[place];
        let origin = message.attempts[0].session;
        let mut found = None;
        let mut look = |newest: &mut usize| match client.seen[*newest].message > seen.message {
            true => found = found.or(Some(*newest)),
            false => *newest = place,
        };
        look(self.newest_here.entry((seen.session, origin)).or_insert(place));
        if seen.is_shown && !self.shown.contains(&seen.message) {
            look(self.newest_shown.entry(origin).or_insert(place));
        }
        found
    }
}

impl Check<'_> {
    /// Checks what each client saw.
    pub fn arrivals(&mut self) {
        for (at, client) in self.history.clients.iter().enumerate() {
            self.arrivals_at(at, client);
        }
    }

    fn arrivals_at(&mut self, at: usize, client: &Client) {
        let mut known = Known::default();
        for (place, seen) in client.seen.iter().enumerate() {
            let name = format!("message {} to client {at} of user{}", seen.message, client.user);
            let Some(message) = self.history.messages.get(seen.message) else {
                self.wrong(Rule::Misdirected, seen.at, format!("{name} was never sent"));
                continue;
            };
            let from = self.history.clients[message.client].user;
            if (message.to, from) != (client.user, seen.from) {
                let what = format!("{name} is from user{from} to user{}", message.to);
                self.wrong(Rule::Misdirected, seen.at, what);
            }
            let here = known.here.insert((seen.session, seen.message), place);
            let anywhere = known.anywhere.insert(seen.message, place);
            if let Some(before) = here.or(anywhere) {
                self.copy(&name, client, before, place);
            }
            if here.is_none()
                && let Some(newer) = known.newer(client, message, place)
            {
                self.disorder(&name, message, &client.seen[newer], seen);
            }
            let was_shown = known.shown.contains(&seen.message);
            if was_shown && seen.is_shown && client.acks {
                self.wrong(Rule::ShownTwice, seen.at, name);
            } else if !was_shown && !seen.is_shown {
                self.wrong(Rule::Odd, seen.at, format!("{name} was dropped, and is no copy"));
            }
            if seen.is_shown {
                known.shown.insert(seen.message);
            }
        }
    }

    /// A client was sent what it had been sent before.
    fn copy(&mut self, name: &str, client: &Client, before: usize, place: usize) {
        let (first, seen) = (&client.seen[before], &client.seen[place]);
        let others = place - before - 1;
        match self.why_copied(client, first, seen, others) {
            Some(why) => *self.verdict.books.copies.entry(why).or_default() += 1,
            None => {
                let rule = if client.acks { Rule::Copied } else { Rule::ShownTwice };
                let what = format!("{name} was there at {}, {others} others between", first.at);
                self.wrong(rule, seen.at, what);
            }
        }
    }

    fn why_copied(&self, client: &Client, first: &Seen, seen: &Seen, others: usize) -> Option<&'static str> {
        let facts = &self.facts;
        if others > KNOWN_MAX || seen.at >= first.at + KNOWN_TIME {
            return Some("after more than 2,048 others, or 60 s");
        }
        if first.session == seen.session {
            return None;
        }
        // Each session is shown what comes while it is there.
        if self.history.sessions[seen.session].asked <= first.at {
            return Some("on two connections at once");
        }
        if facts.is_killed(first.session) {
            return Some("its node was killed");
        }
        if facts.gone(first.session) <= seen.at && !self.is_taken(client, first) {
            return Some("its connection ended before it was acknowledged");
        }
        if client.acks && self.is_taken_late(client, first, seen) {
            return Some("it was acknowledged after the next one had come");
        }
        if self.is_forgotten(first, seen) {
            return Some("Redis lost its data, and its node was killed");
        }
        self.is_untold(first.session, seen.session).then_some("its node could not tell others")
    }

    /// The node of a session that has ended surely knows that its client has a message.
    fn is_taken(&self, client: &Client, seen: &Seen) -> bool {
        let session = &self.history.sessions[seen.session];
        match (seen.acked, &session.left) {
            _ if !client.acks => {
                self.facts.fell(seen.session).is_none_or(|(fell, _)| fell > seen.at + NOTE_TIME_MAX)
            }
            (None, _) => false,
            // Who says goodbye says it behind the acknowledgement.
            (Some(acked), Some((left, Leaving::Quits | Leaving::HalfCloses))) => acked < *left,
            (Some(acked), _) => acked + NOTE_TIME_MAX < self.facts.gone(seen.session),
        }
    }

    /// A client had acknowledged a message nowhere when the session came on which it is sent again:
    /// sessions on other nodes are not told of it after that.
    fn is_taken_late(&self, client: &Client, first: &Seen, seen: &Seen) -> bool {
        let next = &self.history.sessions[seen.session];
        let is_late = |sight: &Seen| {
            let is_elsewhere = self.history.sessions[sight.session].node != next.node;
            let is_after = |acked| next.asked <= acked && (is_elsewhere || seen.at <= acked + NOTE_TIME_MAX);
            sight.acked.is_none_or(is_after)
        };
        let is_before = |sight: &&Seen| {
            sight.message == seen.message && sight.session != seen.session && sight.at <= first.at
        };
        client.seen.iter().filter(is_before).all(is_late)
    }

    /// When Redis loses its data, the node that told it what was shown tells it again, if it is still there.
    fn is_forgotten(&self, first: &Seen, seen: &Seen) -> bool {
        let node = self.history.sessions[first.session].node;
        let suffered = |fault| self.facts.at_work(first.at, seen.at).any(|trouble| trouble.fault == fault);
        suffered(Fault::PresenceLost) && suffered(Fault::NodeKilled(node))
    }

    /// What was shown on one session could not be told where the next one began: a fault kept
    /// their nodes apart, and Redis was not surely told before that.
    fn is_untold(&self, before: usize, next: usize) -> bool {
        let Session { node, asked, since, .. } = self.history.sessions[next];
        let mut faults = self.facts.at_work(self.facts.over(before).min(asked), since);
        asked <= self.facts.told(before)
            && faults.any(|trouble| trouble.fault.divides(self.history.sessions[before].node, node))
    }

    /// A fault that makes messages take another way was at work between sending and seeing this
    /// one: with all nodes, that of its sender, or one where its recipient was or was thought to be.
    fn is_rerouted(&self, message: &Message, seen: Ms) -> bool {
        let sessions = &self.history.sessions;
        let is_near = |node: usize| {
            let mut origins = message.attempts.iter().map(|attempt| sessions[attempt.session].node);
            let since = message.sent().saturating_sub(BELIEF_TIME);
            let mut of_user = self.facts.of_user(message.to);
            let is_there =
                |at: usize, session: &Session| session.node == node && self.facts.may_be_in(at, since, seen);
            origins.any(|origin| origin == node) || of_user.any(|(at, session)| is_there(at, session))
        };
        let mut faults = self.facts.at_work(message.sent(), seen).map(|trouble| trouble.fault);
        faults.any(|fault| fault.reroutes() && fault.node().is_none_or(is_near))
    }

    /// A message came behind one that was sent after it.
    fn disorder(&mut self, name: &str, message: &Message, newer: &Seen, seen: &Seen) {
        let sent = message.sent();
        let newer_message = &self.history.messages[newer.message];
        let newer_sent = newer_message.sent();
        // The order is that of what arrived, and that is an attempt behind the newer one.
        let mut again = message.attempts.iter().skip(1).map(|attempt| attempt.sent);
        let is_again = again.any(|again| (newer_sent..=seen.at).contains(&again));
        // Between two connections of the sender there is none: the newer one was said over another.
        let origin = message.attempts[0].session;
        // Not one from the mailbox, where it comes before what was sent later.
        let was_stored = |by: Ms| {
            let is_stored = |(told, fate): &(Ms, Fate)| *told <= by && *fate == Fate::Stored;
            message.attempts.iter().any(|attempt| attempt.told.as_ref().is_some_and(is_stored))
        };
        let is_elsewhere = |again: &&Attempt| again.session != origin && again.sent <= newer.at;
        let is_overtaken =
            newer_message.attempts.iter().skip(1).filter(is_elsewhere).any(|again| !was_stored(again.sent));
        // Nor between two of the recipient, as long as both are there.
        let is_beside = newer.session != seen.session
            && self.history.sessions[seen.session].asked <= newer.at
            && self.facts.gone(seen.session) + NOTE_TIME_MAX >= newer.at;
        let why = if is_again {
            "out of order: sent again"
        } else if is_overtaken {
            "out of order: a later one sent again over another connection"
        } else if is_beside {
            "out of order: on two connections at once"
        } else if self.is_rerouted(message, seen.at) {
            "out of order: routed again"
        } else {
            let what = if seen.is_shown { "came" } else { "came as a copy" };
            let what = format!("{name}, sent at {sent}, {what} behind {}", newer.message);
            return self.wrong(Rule::OutOfOrder, seen.at, what);
        };
        self.excuse(why, sent, seen.at);
    }
}
