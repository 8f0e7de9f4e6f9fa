//! When connections have to act by themselves: one queue for each kind, because what takes the same time
//! for all is due in the order it came. Whoever has no reason any more is passed over when its turn comes.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::node::slab::ConnectionId;

/// Why a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// It may not have logged in yet.
    Login,
    /// Its socket may still block.
    Stall,
    /// Other nodes may not have noted its login.
    Noting,
    /// Messages that it has may be there for too long.
    Watch,
    /// Another session may not drain its mailbox any more.
    MailBusy,
    /// Its mailbox may be within reach again.
    MailAway,
    /// The replies that it is owed may never come.
    Finishing,
}

/// The queues.
pub struct Timeouts {
    queues: [VecDeque<(Instant, ConnectionId)>; KINDS],
    login_time: Duration,
}

const KINDS: usize = 7;

/// How long a login waits for the nodes where its user is, too.
const NOTING_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a connection that ends waits for replies that are due. All have their deadline by then.
const FINISH_TIME_MAX: Duration = Duration::from_secs(12);

/// When a mailbox that another session drains is looked at again.
const MAIL_BUSY_TIME: Duration = Duration::from_millis(50);

const ALL: [Timeout; KINDS] = [
    Timeout::Login,
    Timeout::Stall,
    Timeout::Noting,
    Timeout::Watch,
    Timeout::MailBusy,
    Timeout::MailAway,
    Timeout::Finishing,
];

impl Timeouts {
    /// No connection has to act. `login_time`: how long it may take to log in.
    pub fn new(login_time: Duration) -> Self {
        Timeouts { queues: Default::default(), login_time }
    }

    /// A connection has to act after the time of that kind.
    pub fn set(&mut self, kind: Timeout, connection: ConnectionId, now: Instant) {
        let time = match kind {
            Timeout::Login => self.login_time,
            Timeout::Stall | Timeout::Watch | Timeout::MailAway => Duration::from_secs(1),
            Timeout::Noting => NOTING_TIME_MAX,
            Timeout::MailBusy => MAIL_BUSY_TIME,
            Timeout::Finishing => FINISH_TIME_MAX,
        };
        self.queues[kind as usize].push_back((now + time, connection));
    }

    /// Takes out one that is due.
    pub fn due(&mut self, now: Instant) -> Option<(Timeout, ConnectionId)> {
        ALL.into_iter().find_map(|kind| {
            let queue = &mut self.queues[kind as usize];
            let (at, connection) = *queue.front()?;
            (at <= now).then(|| queue.pop_front())?;
            Some((kind, connection))
        })
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_time() {
        let now = Instant::now();
        let mut timeouts = Timeouts::new(Duration::from_secs(60));
        let connection = ConnectionId::from_number;
        timeouts.set(Timeout::Login, connection(1), now);
        timeouts.set(Timeout::Stall, connection(2), now);
        timeouts.set(Timeout::MailBusy, connection(3), now);
        assert_eq!(timeouts.next(), Some(now + Duration::from_millis(50)));
        assert_eq!(timeouts.due(now), None);
        let mut due = vec![];
        while let Some(one) = timeouts.due(now + Duration::from_secs(60)) {
            due.push(one);
        }
        let expected = [(Timeout::Login, 1), (Timeout::Stall, 2), (Timeout::MailBusy, 3)]
            .map(|(k, n)| (k, connection(n)));
        assert_eq!(due, expected);
        assert_eq!(timeouts.next(), None);
    }
}
