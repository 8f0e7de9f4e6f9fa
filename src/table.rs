//! The user table: which users have sessions on this node.
//!
//! One map behind one lock, held for a few lines; callers get cheap handles and
//! push to them after the lock is gone. A user with one session, the usual
//! case, costs one entry and no list.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::outbox::Outbox;
use crate::proto::{SessionId, UserName, UserRef};

/// The sessions of this node, by user.
#[derive(Default)]
pub struct Table {
    users: Mutex<HashMap<UserName, Sessions>>,
    /// How often sessions came or went.
    changes: AtomicU64,
}

/// One session: its id and the outbox of its connection.
#[derive(Clone)]
pub struct Seat {
    /// The session's id.
    pub session: SessionId,
    /// Where its messages go.
    pub outbox: Arc<Outbox>,
}

/// The user has as many sessions as allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

enum Sessions {
    One(Seat),
    Many(Vec<Seat>),
}

impl Table {
    /// Adds a session, if the user has fewer than `sessions_max` here.
    ///
    /// # Errors
    /// [`TooMany`] otherwise; nothing is added.
    pub fn insert(&self, user: &UserName, seat: Seat, sessions_max: usize) -> Result<(), TooMany> {
        let mut users = self.lock_to_change();
        match users.get_mut(user) {
            None if sessions_max == 0 => Err(TooMany),
            None => {
                users.insert(user.clone(), Sessions::One(seat));
                Ok(())
            }
            Some(sessions) if sessions.seats().len() >= sessions_max => Err(TooMany),
            Some(sessions) => {
                sessions.push(seat);
                Ok(())
            }
        }
    }

    /// Makes a session the only one of its user here, and returns those before it.
    pub fn replace(&self, user: &UserName, seat: Seat) -> Vec<Seat> {
        let before = self.lock_to_change().insert(user.clone(), Sessions::One(seat));
        before.map_or_else(Vec::new, |sessions| sessions.seats().to_vec())
    }

    /// Removes one session; `true` when it was here.
    pub fn remove(&self, user: &UserName, session: SessionId) -> bool {
        let mut users = self.lock_to_change();
        let Some(sessions) = users.get_mut(user) else { return false };
        let before = sessions.seats().len();
        if let Sessions::Many(seats) = sessions {
            seats.retain(|seat| seat.session != session);
            let was_here = seats.len() < before;
            if let [seat] = &seats[..] {
                *sessions = Sessions::One(seat.clone());
            }
            return was_here;
        }
        let was_here = sessions.seats()[0].session == session;
        if was_here {
            users.remove(user);
            // A map keeps its room for ever; after a crowd has left it goes back, in big steps.
            if users.capacity() > 4096 && users.len() < users.capacity() / 8 {
                users.shrink_to_fit();
            }
        }
        was_here
    }

    /// Appends the sessions of a user to `found`, and returns the name under which they are here.
    pub fn find(&self, user: UserRef<'_>, found: &mut Vec<Seat>) -> Option<UserName> {
        let users = self.lock();
        let (name, sessions) = users.get_key_value(user.as_str())?;
        found.extend_from_slice(sessions.seats());
        Some(name.clone())
    }

    /// The session `session` of a user.
    pub fn seat(&self, user: &UserName, session: SessionId) -> Option<Seat> {
        let users = self.lock();
        users.get(user)?.seats().iter().find(|seat| seat.session == session).cloned()
    }

    /// How many sessions a user has here.
    pub fn sessions_of(&self, user: UserRef<'_>) -> u32 {
        self.lock().get(user.as_str()).map_or(0, |sessions| sessions.seats().len() as u32)
    }

    /// How many users have sessions here.
    pub fn users(&self) -> usize {
        self.lock().len()
    }

    /// How often sessions may have come or gone: while it is the same, so is what [`Table::find`] finds.
    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    fn lock_to_change(&self) -> MutexGuard<'_, HashMap<UserName, Sessions>> {
        let users = self.lock();
        self.changes.fetch_add(1, SeqCst);
        users
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, Sessions>> {
        // No method leaves the map half changed, so a panic elsewhere does not spoil it.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn seats(&self) -> &[Seat] {
        match self {
            Sessions::One(seat) => std::slice::from_ref(seat),
            Sessions::Many(seats) => seats,
        }
    }

    fn push(&mut self, seat: Seat) {
        match self {
            Sessions::One(first) => *self = Sessions::Many(vec![first.clone(), seat]),
            Sessions::Many(seats) => seats.push(seat),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::outbox::{Framing, Socket};

    fn seat(session: &str) -> Seat {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let socket = Socket(std::net::TcpStream::connect(address).expect("it listens"));
        let outbox = Outbox::new(socket, Framing::Lines, 4096, &Arc::new(Metrics::default()));
        Seat { session: SessionId::parse(session).expect("valid"), outbox: Arc::new(outbox) }
    }

    #[test]
    fn sessions_come_and_go() {
        let table = Table::default();
        let bob = UserName::parse("bob").expect("valid");
        let ids = ["aaaaaaaa", "bbbbbbbb", "cccccccc"];
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(table.insert(&bob, seat(id), 3), Ok(()));
            assert_eq!(table.sessions_of(bob.borrowed()), n as u32 + 1);
        }
        assert_eq!(table.insert(&bob, seat("dddddddd"), 3), Err(TooMany));
        let mut found = vec![];
        table.find(bob.borrowed(), &mut found);
        assert_eq!(found.iter().map(|seat| seat.session.as_str()).collect::<Vec<_>>(), ids);
        for (n, id) in ids.iter().enumerate() {
            let id = SessionId::parse(id).expect("valid");
            assert!(table.remove(&bob, id));
            assert!(!table.remove(&bob, id));
            assert_eq!(table.sessions_of(bob.borrowed()), 2 - n as u32);
        }
        assert_eq!(table.users(), 0);
        let changes = table.changes();
        let mut found = vec![];
        table.find(bob.borrowed(), &mut found);
        assert!(found.is_empty() && table.changes() == changes, "looking changes nothing");
        assert_eq!(table.insert(&bob, seat("aaaaaaaa"), 3), Ok(()));
        assert!(table.changes() > changes);
        let changes = table.changes();
        assert!(table.remove(&bob, SessionId::parse("aaaaaaaa").expect("valid")));
        assert!(table.changes() > changes);
        assert_eq!(table.insert(&bob, seat("aaaaaaaa"), 0), Err(TooMany));
    }

    #[test]
    fn the_newest_replaces_all() {
        let table = Table::default();
        let bob = UserName::parse("bob").expect("valid");
        assert!(table.replace(&bob, seat("aaaaaaaa")).is_empty());
        assert_eq!(table.replace(&bob, seat("bbbbbbbb"))[0].session.as_str(), "aaaaaaaa");
        assert!(!table.remove(&bob, SessionId::parse("aaaaaaaa").expect("valid")), "a late removal");
        assert_eq!(table.sessions_of(bob.borrowed()), 1);
    }
}
