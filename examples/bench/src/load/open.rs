//! The open loop: users in pairs who send at a fixed rate, whatever is under way.
//!
//! Each message has a time at which it is due. Its way is counted from then, not
//! from when it was really sent: who has to wait because the generator was held up
//! has waited. How late that was is told beside it, so that nobody takes the
//! generator's trouble for the server's.
//!
//! The generator does not sleep. It has a core of its own, and a sleep would end
//! tens of microseconds late.

use std::io;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::crowd::{Crowd, Job, SILENCE_MAX};
use crate::dialect::{Dialect, Event, Phase, Verb};
use crate::load::PAYLOAD_BYTES;
use crate::load::closed::partner;
use crate::load::ledger::Ledger;
use crate::measure::Times;

/// What came of it.
pub struct Outcome {
    pub messages: u64,
    /// From the time when a message was due to when its recipient has read it.
    pub ways: Times,
    /// From then to when it was sent.
    pub lateness: Times,
    /// Whether the server kept up: at the end less than half a second of messages was under way.
    pub is_sustained: bool,
}

/// Lets so many users send so many messages a second for so long, without answers, and waits for the last one.
pub fn run(
    crowd: &mut Crowd,
    dialect: Dialect,
    users: usize,
    rate: u32,
    time: Duration,
) -> io::Result<Outcome> {
    let ledger = Ledger::new(dialect, Verb::Cast, users, PAYLOAD_BYTES, |user| Some(partner(user)));
    let total = (time.as_secs_f64() * f64::from(rate)) as u64;
    let room = total as usize;
    let mut open = Open {
        ledger,
        // The first one is not due before everything is ready.
        start: Instant::now() + Duration::from_millis(1),
        rate: u64::from(rate),
        ways: Vec::with_capacity(room),
        lateness: Vec::with_capacity(room),
    };
    let mut next = 0;
    while next < total {
        let now = Instant::now();
        while next < total && open.due(next) <= now {
            crowd.begin(&mut open, (next % users as u64) as usize)?;
            next += 1;
        }
        crowd.turn(&mut open, Duration::ZERO)?;
    }
    let is_sustained = total - (open.ways.len() as u64) < u64::from(rate / 2);
    while (open.ways.len() as u64) < total {
        if crowd.turn(&mut open, SILENCE_MAX)?.is_none() {
            let missing = total - open.ways.len() as u64;
            return Err(io::Error::other(format!(
                "silence for {SILENCE_MAX:?}, {missing} messages are missing"
            )));
        }
    }
    let (ways, lateness) = (Times::of(open.ways), Times::of(open.lateness));
    Ok(Outcome { messages: total, ways, lateness, is_sustained })
}

struct Open {
    ledger: Ledger,
    start: Instant,
    /// Messages a second, the users in turn.
    rate: u64,
    ways: Vec<Duration>,
    lateness: Vec<Duration>,
}

impl Open {
    /// When the message with this number, of all users together, is due.
    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.rate)
    }
}

impl Job for Open {
    const PHASE: Phase = Phase::Load;
    const WANTED: &str = "a message";

    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<bool> {
        self.lateness.push(self.due(self.lateness.len() as u64).elapsed());
        self.ledger.send(client, user);
        Ok(false)
    }

    fn event(&mut self, _: &mut Client, user: usize, event: Event<'_>) -> io::Result<usize> {
        if let Event::Message(message) = event {
            let (sender, number) = self.ledger.take(user, message)?;
            let number = u64::from(number) * self.ledger.users.len() as u64 + sender as u64;
            self.ways.push(self.due(number).elapsed());
        }
        Ok(0)
    }
}
