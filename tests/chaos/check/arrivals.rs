//! What clients were sent, in the order in which they took it: for them, once, in order.
//!
//! A client with `ack` drops what it knows, so a copy is not shown; but it may be sent one
//! only where the node could not know that it had been shown. One without shows whatever it
//! is sent, so there the same is to be shown twice.

use std::collections::{HashMap, HashSet};

use crate::check::{Check, NOTE_TIME_MAX, RETURN_TIME, Rule};
use crate::history::{Client, Message, Ms, Seen};

/// How many other messages a user may be shown before a copy is taken for new, and how long
/// it is known.
const KNOWN_MAX: usize = 2_048;
const KNOWN_TIME: Ms = 60_000 - NOTE_TIME_MAX;

/// How long an acknowledgement is waited for.
const ACK_TIME: Ms = 10_000 - NOTE_TIME_MAX;

/// A client that acknowledges nothing for so long may have been given up, or be full.
const NAP_TIME: Ms = 1_000;

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
                self.disorder(&name, client, message, &client.seen[newer], seen);
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
        let session = &self.history.sessions[first.session];
        let is_known = others <= KNOWN_MAX && seen.at < first.at + KNOWN_TIME;
        if !is_known {
            return Some("after more than 2,048 others, or 60 s");
        }
        let waited = first.acked.unwrap_or(Ms::MAX).min(seen.at) - first.at.min(seen.at);
        if client.acks && waited > ACK_TIME {
            return Some("not acknowledged for 10 s");
        }
        if first.session == seen.session {
            return None;
        }
        // Each session is shown each message.
        let later = self.history.sessions[seen.session].asked;
        if later <= first.at + NOTE_TIME_MAX && facts.gone(first.session) + NOTE_TIME_MAX >= later {
            return Some("on two connections at once");
        }
        if facts.is_killed(first.session) {
            return Some("its node was killed");
        }
        let gone = facts.gone(first.session);
        let is_taken = match first.acked {
            _ if !client.acks => {
                facts.fell(first.session).is_none_or(|fell| fell.0 > first.at + NOTE_TIME_MAX)
            }
            Some(acked) => acked + NOTE_TIME_MAX < gone,
            None => false,
        };
        if !is_taken && gone <= seen.at {
            return Some("its connection ended before it was acknowledged");
        }
        let mut troubles = facts.troubles(first.at.saturating_sub(RETURN_TIME), seen.at);
        troubles
            .any(|t| t.fault.touches_redis() || t.fault.node() == Some(session.node))
            .then_some("its node could not tell others")
    }

    /// A message came behind one that was sent after it.
    fn disorder(&mut self, name: &str, client: &Client, message: &Message, before: &Seen, seen: &Seen) {
        let (sent, facts) = (message.sent(), &self.facts);
        let from = sent.saturating_sub(RETURN_TIME);
        let is_retried = message.attempts.get(1).is_some_and(|second| second.sent <= seen.at);
        let is_beside = before.session != seen.session
            && facts.gone(seen.session).min(facts.gone(before.session)) + NOTE_TIME_MAX >= before.at;
        // What was on its way to where its recipient had been may come back late when there is a fault.
        let has_hopped = || {
            let margin =
                if facts.troubles(from, seen.at).next().is_some() { RETURN_TIME } else { NOTE_TIME_MAX };
            facts.has_lost_one(client.user, sent.saturating_sub(margin), seen.at)
        };
        let has_died = || facts.troubles(from, seen.at).any(|trouble| trouble.fault.takes_node());
        let why = if is_retried {
            "out of order: sent again"
        } else if is_beside {
            "out of order: on two connections at once"
        } else if has_hopped() {
            "out of order: a connection of its recipient had ended"
        } else if facts.has_napped(client.user, sent, seen.at, NAP_TIME) {
            "out of order: its recipient acknowledged nothing"
        } else if has_died() {
            "out of order: a node died, or was taken for dead"
        } else {
            let what = format!("{name}, sent at {sent}, came behind {}", before.message);
            return self.wrong(Rule::OutOfOrder, seen.at, what);
        };
        self.excuse(why, from, seen.at);
    }
}
