//! Users that are found nowhere while nodes write their sessions again: they are looked for
//! a while longer before anybody is told that they are nowhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::node::seam::Token;
use crate::proto::name::UserName;

/// How long a user that is not found is looked for while there is doubt, and how often.
const DOUBT_TIME_MAX: Duration = Duration::from_secs(3);
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// The users, and who waits for them; no more than the node asks for.
pub struct Doubts {
    users: BTreeMap<UserName, (Instant, Vec<Token>)>,
    due: Instant,
}

impl Doubts {
    /// None.
    pub fn new(now: Instant) -> Self {
        Doubts { users: BTreeMap::new(), due: now }
    }

    /// When to look for them again.
    pub fn due(&self) -> Option<Instant> {
        (!self.users.is_empty()).then_some(self.due)
    }

    /// Those to look for now, at most so many.
    pub fn again(&mut self, most: usize, now: Instant) -> Vec<UserName> {
        if self.users.is_empty() || now < self.due {
            return vec![];
        }
        self.due = now + DOUBT_PAUSE;
        self.users.keys().take(most).cloned().collect()
    }

    /// A user was not found. Gives all who wait when that has been so for long enough.
    pub fn wait(&mut self, user: &UserName, token: Option<Token>, now: Instant) -> Vec<Token> {
        if token.is_some() && self.users.is_empty() {
            self.due = now + DOUBT_PAUSE;
        }
        let Some(token) = token else {
            let is_over = self.users.get(user).is_some_and(|(since, _)| is_over(*since, now));
            return if is_over { self.end(user) } else { vec![] };
        };
        let (since, tokens) = self.users.entry(user.clone()).or_insert_with(|| (now, vec![]));
        tokens.push(token);
        if is_over(*since, now) { self.end(user) } else { vec![] }
    }

    /// A user is looked for no more: those who wait.
    pub fn end(&mut self, user: &UserName) -> Vec<Token> {
        self.users.remove(user).map_or_else(Vec::new, |(_, tokens)| tokens)
    }

    /// Nobody is: all who wait.
    pub fn end_all(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.users).into_values().flat_map(|(_, tokens)| tokens).collect()
    }
}

fn is_over(since: Instant, now: Instant) -> bool {
    now.duration_since(since) >= DOUBT_TIME_MAX
}
