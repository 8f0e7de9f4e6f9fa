//! What clients were sent, in the order in which they took it: for them, once, in order.
//!
//! A client with `ack` drops what it knows, so a copy is not shown; but it may be sent one only by a node
//! that could not know that it had been shown: another one, or one of which it left before the node had its
//! word. One without `ack` shows whatever it is sent, so there the same is to be shown twice.

use std::collections::HashMap;
use std::collections::HashSet;

use pinpost::internals::proto::CloseReason;

use crate::history::Attempt;
use crate::history::Client;
use crate::history::End;
use crate::history::Fate;
use crate::history::Leaving;
use crate::history::Message;
use crate::history::Seen;
use crate::history::Time;
use crate::history::check::Check;
use crate::history::check::Rule;

/// How many other messages a user may be shown before a copy is taken for new.
const KNOWN_MAX: usize = 2_048;

/// What a client has seen so far, by places in that.
#[derive(Default)]
struct Known {
    /// Every time that it was sent a message.
    places: HashMap<usize, Vec<usize>>,
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
            let name = || format!("message {} to client {at} of user{}", seen.message, client.user);
            let Some(message) = self.history.messages.get(seen.message) else {
                self.wrong(Rule::Misdirected, seen.at, format!("{} was never sent", name()));
                continue;
            };
            let from = self.history.clients[message.client].user;
            if (message.to, from) != (client.user, seen.from) {
                let what = format!("{} is from user{from} to user{}", name(), message.to);
                self.wrong(Rule::Misdirected, seen.at, what);
            }
            let before = known.places.entry(seen.message).or_default();
            let was_here = before.iter().any(|before| client.seen[*before].session == seen.session);
            if !before.is_empty() {
                let before = before.clone();
                self.copy(&name(), client, &before, place);
            }
            known.places.entry(seen.message).or_default().push(place);
            if !was_here && let Some(newer) = known.newer(client, message, place) {
                self.disorder(&name(), message, &client.seen[newer], seen);
            }
            let was_shown = known.shown.contains(&seen.message);
            if was_shown && seen.is_shown && client.acks {
                self.wrong(Rule::ShownTwice, seen.at, name());
            } else if !was_shown && !seen.is_shown {
                self.wrong(Rule::Odd, seen.at, format!("{} was dropped, and is no copy", name()));
            }
            if seen.is_shown {
                known.shown.insert(seen.message);
            }
        }
    }

    /// A client was sent what it had been sent before.
    fn copy(&mut self, name: &str, client: &Client, before: &[usize], place: usize) {
        let seen = &client.seen[place];
        let mut why = "after a hop";
        for first in before {
            match self.why_copied(client, *first, place) {
                Some(reason) => why = reason,
                None => {
                    let rule = if client.acks { Rule::Copied } else { Rule::ShownTwice };
                    let others = place - first - 1;
                    let first = client.seen[*first];
                    let what = format!(
                        "{name} on session {} was there at {} on session {}, {others} others between",
                        seen.session, first.at, first.session
                    );
                    return self.wrong(rule, seen.at, what);
                }
            }
        }
        *self.verdict.books.copies.entry(why).or_default() += 1;
    }

    /// Why what a client was sent first was sent again; nothing where it should not have been.
    fn why_copied(&self, client: &Client, first: usize, place: usize) -> Option<&'static str> {
        let (facts, others) = (&self.facts, place - first - 1);
        let (first, seen) = (&client.seen[first], &client.seen[place]);
        let message = &self.history.messages[seen.message];
        if message.is_cast {
            // It was on its way to both when the client left the one.
            let is_on_both = self.history.sessions[seen.session].asked <= first.at + self.margins.soon
                || facts.near(message, message.sent(), seen.at).is_some();
            return (first.session != seen.session && is_on_both)
                .then_some("a CAST that was on its way to two");
        }
        if others > KNOWN_MAX || seen.at >= first.at + self.margins.known {
            return Some("after more than 2,048 others, or 60 s");
        }
        if first.session == seen.session {
            return None;
        }
        // Each session is shown what comes while it is there.
        let known = first.acked.map_or(first.at, |acked| acked + self.margins.way).max(first.at);
        // What is not acknowledged on the one is given to the other as it comes.
        let is_held = client.acks && first.acked.is_none();
        let until = if is_held { facts.gone(first.session).max(known) } else { known };
        if self.history.sessions[seen.session].asked <= until {
            return Some("on two connections at once");
        }
        let nodes = [first, seen].map(|seen| self.history.sessions[seen.session].node);
        if nodes[0] != nodes[1] {
            return (!self.is_settled(message, seen)).then_some("after a hop");
        }
        if !facts.is_same_process(nodes[0], first.at, seen.at) {
            return Some("its node was another process");
        }
        if facts.gone(first.session) <= seen.at && !self.is_taken(client, first) {
            return Some("its connection ended before it was acknowledged");
        }
        None
    }

    /// Its sender knew that it was delivered, and nothing was wrong, long before the session came on which it
    /// is sent again: there is nothing that could bring it.
    fn is_settled(&self, message: &Message, seen: &Seen) -> bool {
        let asked = self.history.sessions[seen.session].asked;
        let is_told = |attempt: &Attempt| {
            let by = |(told, fate)| fate == Fate::Delivered && told + self.margins.soon < asked;
            attempt.told.is_some_and(by)
        };
        // A session that is given what others there have not taken is given this, too.
        let is_held = self.facts.has_napped(message.to, message.sent(), seen.at, 1);
        message.attempts.iter().all(is_told)
            && !is_held
            && self.facts.cause(message.sent(), seen.at).is_none()
    }

    /// The node of a session that has ended surely knows that its client has a message.
    fn is_taken(&self, client: &Client, seen: &Seen) -> bool {
        let session = &self.history.sessions[seen.session];
        let late = self.margins.way;
        // One that was replaced may not have heard of it.
        let gone = self.facts.gone(seen.session);
        let is_sent_away = matches!(session.ended, Some((_, End::Bye(reason))) if reason != CloseReason::Quit)
            || session.left.is_some_and(|(left, _)| gone < left);
        match (seen.acked, &session.left) {
            _ if !client.acks => self.facts.fell(seen.session).is_none_or(|(fell, _)| fell > seen.at + late),
            (None, _) => false,
            // Who says goodbye, and was not sent away before, says it behind the acknowledgement.
            (Some(acked), Some((left, Leaving::Quits | Leaving::HalfCloses))) if !is_sent_away => {
                acked < *left
            }
            (Some(acked), _) => {
                // Who is replaced is told so behind the replies that are due: its session ended as long before.
                let is_replaced = matches!(session.ended, Some((_, End::Bye(CloseReason::Replaced))));
                let late = late + if is_replaced { self.margins.reply } else { 0 };
                acked + late + self.facts.frozen(session.node, acked, gone) < gone
            }
        }
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
        // Not one from the mailbox, where it comes before what was sent later; but a session that was there before
        // it was stored may not have heard of it yet.
        let asked = self.history.sessions[newer.session].asked;
        let was_stored = |by: Time| {
            let is_stored = |(told, fate): (Time, Fate)| {
                let heard = if asked <= told { told + self.margins.soon } else { told };
                heard <= by && fate == Fate::Stored
            };
            message.attempts.iter().any(|attempt| attempt.told.is_some_and(is_stored))
        };
        let is_elsewhere = |again: &&Attempt| again.session != origin && again.sent <= newer.at;
        let is_overtaken =
            newer_message.attempts.iter().skip(1).filter(is_elsewhere).any(|again| !was_stored(again.sent));
        // Nor between two of the recipient, while both are heard.
        let is_beside =
            newer.session != seen.session && self.history.sessions[seen.session].asked <= newer.at;
        // One that another device of the user took, or this one on another node, may still be on its way to where
        // this one goes next.
        let is_taken_elsewhere = self.is_taken_elsewhere(seen, newer);
        let is_unacked =
            self.facts.has_napped(message.to, sent, seen.at, self.margins.ack - self.margins.soon);
        let why = if is_again {
            "out of order: sent again"
        } else if is_overtaken {
            "out of order: a later one sent again over another connection"
        } else if is_beside {
            "out of order: on two connections at once"
        } else if message.is_cast && newer.session != seen.session {
            // What it was sent with may have taken another way since, and it does not.
            "out of order: a CAST behind a hop"
        } else if is_taken_elsewhere {
            "out of order: taken elsewhere"
        } else if newer.session != seen.session && self.is_in_the_kernel(message, newer.at) {
            // It counted as delivered; a login where others have not taken it yet is given it.
            "out of order: a connection that broke had it"
        } else if is_unacked {
            "out of order: not acknowledged in time"
        } else if self.is_rerouted(message, seen.at) {
            "out of order: routed again"
        } else {
            let what = if seen.is_shown { "came" } else { "came as a copy" };
            let what = format!(
                "{name}, sent at {sent}, {what} behind {} on session {}",
                newer.message, seen.session
            );
            return self.wrong(Rule::OutOfOrder, seen.at, what);
        };
        self.excuse(why, sent, seen.at);
    }

    /// Another device of the user had a message by the time that a newer one was seen on another session; or this
    /// one had it on another node, and had left that, by the time that the newer one was seen.
    fn is_taken_elsewhere(&self, seen: &Seen, newer: &Seen) -> bool {
        let sessions = &self.history.sessions;
        let session = &sessions[seen.session];
        self.facts.sights(seen.message).any(|(other, place)| {
            let sight = &self.history.clients[other].seen[place];
            let is_elsewhere = if other == session.client {
                sessions[sight.session].node != session.node && self.facts.gone(sight.session) <= newer.at
            } else {
                newer.session != seen.session
            };
            is_elsewhere && sight.acked.unwrap_or(sight.at) <= newer.at
        })
    }

    /// A fault that makes messages take another way was at work between sending and seeing this
    /// one: with all nodes, that of its sender, or one where its recipient was or was thought to be.
    fn is_rerouted(&self, message: &Message, seen: Time) -> bool {
        let mut faults = self.facts.at_work(message.sent(), seen).map(|trouble| trouble.fault);
        faults.any(|fault| fault.reroutes() && self.facts.is_near(fault, message, seen))
    }
}
