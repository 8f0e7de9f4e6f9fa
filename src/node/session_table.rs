//! The session table: which users have sessions on this node, and what each was shown here.
//!
//! A session stands here from its login on; until the login is answered it is *entering*: messages are taken
//! for it, but it does not count as online. What a user was shown is remembered while the user has a session
//! here and for a while after; all of that is bounded, and the users who left first are forgotten first.

use std::collections::VecDeque;
use std::time::Instant;

use crate::node::duplicates::{SEEN_TIME, Seen};
use crate::node::slab::ConnectionId;
use crate::proto::name::UserName;
use crate::recent::Recent;

/// Messages that are remembered of users who have left, 10 to 20 bytes each; with more, those of the users who
/// left first are forgotten.
pub const LEFT_MAX: usize = 1_048_576;

#[derive(Default)]
pub struct SessionTable {
    users: Recent<UserName, User>,
    /// Users with a session that has entered.
    online: usize,
    /// Users of whom something is remembered, and when it is looked at next: the oldest first.
    remembered: VecDeque<(Instant, UserName)>,
    /// Users without a session of whom something is remembered, in the order they left; some are back. Each stands
    /// here once, however often it comes and goes.
    left: VecDeque<UserName>,
    /// What is remembered of these.
    left_count: usize,
    /// Who was looked for last and is not here: many messages in a row are for one user elsewhere.
    missed: String,
}

#[derive(Default)]
pub struct User {
    sessions: Vec<Seat>,
    seen: Option<Box<Seen>>,
}

/// One session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub connection: ConnectionId,
    /// Its login has been answered.
    pub is_in: bool,
}

impl SessionTable {
    /// Adds a session that enters.
    pub fn enter(&mut self, user: &UserName, connection: ConnectionId) {
        self.missed.clear();
        let entry = self.users.get_or_insert_with(user, User::default);
        // Most users have one session.
        entry.sessions.reserve_exact(1);
        entry.sessions.push(Seat { connection, is_in: false });
    }

    /// The login of a session is answered.
    pub fn admit(&mut self, user: &UserName, connection: ConnectionId) {
        let Some(entry) = self.users.get_mut(user.as_str()) else { return };
        let was_online = entry.count() > 0;
        if let Some(seat) = entry.sessions.iter_mut().find(|seat| seat.connection == connection) {
            seat.is_in = true;
            self.online += usize::from(!was_online);
        }
    }

    /// Removes a session, if it is here.
    pub fn leave(&mut self, user: &UserName, connection: ConnectionId) {
        let Some(entry) = self.users.get_mut(user.as_str()) else { return };
        let was_online = entry.count() > 0;
        entry.sessions.retain(|seat| seat.connection != connection);
        self.online -= usize::from(was_online && entry.count() == 0);
        if !entry.sessions.is_empty() {
            return;
        }
        let Some(seen) = &mut entry.seen else { return drop(self.users.remove(user.as_str())) };
        if seen.counted == 0 {
            self.left.push_back(user.clone());
        }
        self.left_count = self.left_count - seen.counted + seen.len();
        seen.counted = seen.len();
        self.forget_first();
    }

    /// The sessions of a user, in the order of their logins, and the name under which they are here.
    pub fn find(&mut self, user: &str) -> Option<(&UserName, &[Seat])> {
        if self.missed == user {
            return None;
        }
        let found = self.users.get(user).filter(|(_, entry)| !entry.sessions.is_empty());
        if found.is_none() {
            self.missed.clear();
            self.missed.push_str(user);
        }
        found.map(|(name, entry)| (name, &entry.sessions[..]))
    }

    /// How many sessions of a user have entered.
    pub fn count(&mut self, user: &str) -> usize {
        self.users.get_mut(user).map_or(0, |entry| entry.count())
    }

    pub fn online(&self) -> usize {
        self.online
    }

    /// Tells whether a user was shown a message here.
    pub fn has_seen(&mut self, user: &str, hash: u64) -> bool {
        let seen = self.users.get_mut(user).and_then(|entry| entry.seen.as_mut());
        seen.is_some_and(|seen| seen.contains(hash))
    }

    /// A user was shown a message here; the session may have left since.
    pub fn see(&mut self, user: &UserName, hash: u64, now: Instant) {
        let entry = self.users.get_or_insert_with(user, User::default);
        let seen = entry.seen.get_or_insert_with(|| {
            self.remembered.push_back((now + SEEN_TIME, user.clone()));
            Box::default()
        });
        seen.add(hash, now);
        if entry.sessions.is_empty() && seen.counted == 0 {
            self.left.push_back(user.clone());
            self.left_count += 1;
            seen.counted = 1;
        }
    }

    /// Time passes: forgets what is old enough.
    pub fn age(&mut self, now: Instant) {
        while self.remembered.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, user)) = self.remembered.pop_front() else { return };
            let Some(entry) = self.users.get_mut(user.as_str()) else { continue };
            if entry.seen.as_mut().is_some_and(|seen| seen.age(now)) {
                self.remembered.push_back((now + SEEN_TIME, user));
                continue;
            }
            self.left_count -= entry.seen.take().map_or(0, |seen| seen.counted);
            if entry.sessions.is_empty() {
                self.users.remove(user.as_str());
            }
        }
        // Those that were forgotten by age, or are back, stand in front.
        while let Some(user) = self.left.front()
            && !self.users.get_mut(user.as_str()).is_some_and(|entry| entry.is_left())
        {
            self.pop_left();
        }
    }

    /// Forgets users who have left while too much is remembered of them.
    fn forget_first(&mut self) {
        while self.left_count > LEFT_MAX
            && let Some(user) = self.pop_left()
        {
            if self.users.get_mut(user.as_str()).is_some_and(|entry| entry.is_left()) {
                self.users.remove(user.as_str());
            }
        }
    }

    fn pop_left(&mut self) -> Option<UserName> {
        let user = self.left.pop_front()?;
        if let Some(seen) = self.users.get_mut(user.as_str()).and_then(|entry| entry.seen.as_mut()) {
            self.left_count -= std::mem::take(&mut seen.counted);
        }
        Some(user)
    }
}

impl User {
    fn count(&self) -> usize {
        self.sessions.iter().filter(|seat| seat.is_in).count()
    }

    fn is_left(&self) -> bool {
        self.sessions.is_empty() && self.seen.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).expect("valid")
    }

    fn connection(number: u64) -> ConnectionId {
        ConnectionId::from_number(number)
    }

    #[test]
    fn sessions_come_and_go() {
        let mut table = SessionTable::default();
        let bob = user("bob");
        for number in 1..4 {
            table.enter(&bob, connection(number));
            assert_eq!((table.count("bob"), table.online()), (number as usize - 1, usize::from(number > 1)));
            table.admit(&bob, connection(number));
            assert_eq!((table.count("bob"), table.online()), (number as usize, 1));
        }
        let (name, seats) = table.find("bob").expect("here");
        assert_eq!((name, seats.len(), seats[0].connection), (&bob, 3, connection(1)));
        for number in 1..4 {
            table.leave(&bob, connection(number));
            table.leave(&bob, connection(number));
            assert_eq!(table.count("bob"), 3 - number as usize);
        }
        assert_eq!((table.online(), table.users.len()), (0, 0));
        assert!(table.find("bob").is_none());
    }

    #[test]
    fn what_was_shown_outlives_the_session_for_a_while() {
        let now = Instant::now();
        let mut table = SessionTable::default();
        let bob = user("bob");
        table.enter(&bob, connection(1));
        table.see(&bob, 7, now);
        table.leave(&bob, connection(1));
        assert!(table.has_seen("bob", 7) && !table.has_seen("bob", 8) && table.find("bob").is_none());
        table.age(now + SEEN_TIME);
        assert!(table.has_seen("bob", 7));
        table.age(now + 2 * SEEN_TIME);
        assert!(!table.has_seen("bob", 7));
        assert_eq!((table.users.len(), table.left.len(), table.left_count), (0, 0, 0));
    }

    #[test]
    fn who_comes_and_goes_all_the_time_counts_once() {
        let now = Instant::now();
        let mut table = SessionTable::default();
        let bob = user("bob");
        (0..2_000).for_each(|hash| table.see(&bob, hash, now));
        for number in 0..1_000 {
            table.enter(&bob, connection(number));
            table.leave(&bob, connection(number));
        }
        assert!(table.has_seen("bob", 0));
        assert_eq!((table.left.len(), table.left_count), (1, 2_000));
        table.enter(&bob, connection(0));
        table.age(now);
        assert_eq!((table.left.len(), table.left_count), (0, 0), "he is back");
        table.leave(&bob, connection(0));
        assert_eq!((table.left.len(), table.left_count), (1, 2_000));
    }

    #[test]
    fn what_is_remembered_of_those_who_left_is_bounded() {
        let now = Instant::now();
        let mut table = SessionTable::default();
        for n in 0..600 {
            let user = user(&format!("user{n}"));
            table.enter(&user, connection(n));
            (0..2_000).for_each(|hash| table.see(&user, hash, now));
            table.leave(&user, connection(n));
            assert!(table.left_count <= LEFT_MAX);
        }
        assert!(!table.has_seen("user0", 1) && table.has_seen("user599", 1));
        table.age(now + SEEN_TIME);
        table.age(now + 2 * SEEN_TIME);
        assert_eq!((table.users.len(), table.left.len(), table.left_count), (0, 0, 0));
    }
}
