//! Many clients on one thread and one epoll, doing a job each, a bounded
//! number at a time.
//!
//! The jobs are small state machines (`Job`): logging in is here, sending
//! messages is in `load.rs` and `open.rs`. Anything unexpected, silence included, is an
//! error: a figure from a run that went wrong is worth nothing.

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::client::{Client, Inbox, Transport};
use crate::dialect::{Dialect, Event, Phase, unexpected};

/// Connected clients; user `u7` is number 7.
pub struct Crowd {
    epoll: OwnedFd,
    servers: Vec<SocketAddr>,
    transport: Transport,
    dialect: Dialect,
    clients: Vec<Client>,
    inbox: Inbox,
    /// What the protocol wants answered by itself.
    reply: Vec<u8>,
    events: Vec<epoll::Event>,
}

/// Something that each client does once.
pub trait Job {
    const PHASE: Phase;
    /// What is due, for an error about what came instead.
    const WANTED: &str;

    /// Starts a client's turn, typically by queueing a request; whether the turn is over with that.
    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<bool>;

    /// Takes what a client has received, none of it wrong; returns how many turns that ends: its own,
    /// that of a sender, or none.
    fn event(&mut self, client: &mut Client, user: usize, event: Event<'_>) -> io::Result<usize>;

    /// Whoever else may go on after that, one after the other; `resume` is called for each.
    fn awake(&mut self) -> Option<usize> {
        None
    }

    /// Goes on with a client's turn.
    fn resume(&mut self, _client: &mut Client, _user: usize) {}
}

impl Crowd {
    /// Connects and logs in `users` clients, to the servers in turn, so many at a time, and returns
    /// when all have been told that they are.
    pub fn log_in(
        servers: &[SocketAddr],
        transport: Transport,
        dialect: Dialect,
        users: usize,
        at_once: usize,
    ) -> io::Result<Crowd> {
        let mut crowd = Crowd {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            servers: servers.to_vec(),
            transport,
            dialect,
            clients: Vec::with_capacity(users),
            inbox: Inbox::default(),
            reply: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
        };
        crowd.grow(users, at_once)?;
        Ok(crowd)
    }

    /// The same for those who are missing until there are `users` clients.
    ///
    /// A node that has lost its cluster for a moment tells those who come to try again; so they do, for a
    /// while, as any client would. It is said, because figures of such a run may suffer.
    pub fn grow(&mut self, users: usize, at_once: usize) -> io::Result<()> {
        let mut job = LogIn { dialect: self.dialect, is_again: false, refused: Vec::new() };
        self.run_those(&mut job, self.clients.len()..users, at_once)?;
        job.is_again = true;
        let start = Instant::now();
        while !job.refused.is_empty() {
            let refused = std::mem::take(&mut job.refused);
            let what = format!("{} of {users} users can't log in, the cluster is unavailable", refused.len());
            if start.elapsed() > REFUSED_TIME_MAX {
                return Err(io::Error::other(format!("{what} for {REFUSED_TIME_MAX:?}")));
            }
            eprintln!("bench: {what}; trying again");
            sleep(REFUSED_PAUSE);
            self.run_those(&mut job, refused.into_iter(), at_once)?;
        }
        Ok(())
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Asks every client's connection for a sign of life and accepts nothing else, such as a
    /// message that comes twice.
    pub fn expect_silence(&mut self) -> io::Result<()> {
        self.run(&mut Probe(self.dialect), self.clients.len(), AT_ONCE_MAX)
    }

    /// Lets `users` clients do the job, the first ones first, at most `at_once` of them at a time.
    pub fn run<J: Job>(&mut self, job: &mut J, users: usize, at_once: usize) -> io::Result<()> {
        self.run_those(job, 0..users, at_once)
    }

    fn run_those<J: Job>(
        &mut self,
        job: &mut J,
        mut users: impl ExactSizeIterator<Item = usize>,
        at_once: usize,
    ) -> io::Result<()> {
        let count = users.len();
        let (mut begun, mut over) = (0, 0);
        while over < count {
            while begun - over < at_once
                && let Some(user) = users.next()
            {
                over += usize::from(self.begin(job, user)?);
                begun += 1;
            }
            if over == count {
                break;
            }
            match self.turn(job, SILENCE_MAX)? {
                Some(ended) => over += ended,
                None => {
                    let error = format!("silence for {SILENCE_MAX:?} with {over} of {count} users done");
                    return Err(io::Error::other(error));
                }
            }
        }
        Ok(())
    }

    /// Starts one client's turn; whether it is over with that.
    pub fn begin<J: Job>(&mut self, job: &mut J, user: usize) -> io::Result<bool> {
        if user == self.clients.len() {
            let server = self.servers[user % self.servers.len()];
            self.clients.push(Client::connect(server, self.transport, &self.epoll, user)?);
        }
        let client = &mut self.clients[user];
        let is_over = job.begin(client, user)?;
        client.flush(&self.epoll, user)?;
        Ok(is_over)
    }

    /// Waits at most so long for something to be received, and handles all that is there; how many
    /// turns that ended, nothing when the time was up.
    pub fn turn<J: Job>(&mut self, job: &mut J, wait_max: Duration) -> io::Result<Option<usize>> {
        let wait_max = Timespec::try_from(wait_max).expect("a few seconds fit");
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait_max)) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let mut events = std::mem::take(&mut self.events);
        let mut over = 0;
        for event in events.drain(..) {
            // Copied out: the kernel's struct is packed.
            let (flags, user) = (event.flags, event.data.u64() as usize);
            // Whatever else it may be, an error for instance, reading finds out.
            if flags != epoll::EventFlags::OUT {
                over += self.receive(job, user)?;
            }
            self.clients[user].flush(&self.epoll, user)?;
            while let Some(user) = job.awake() {
                let client = &mut self.clients[user];
                job.resume(client, user);
                client.flush(&self.epoll, user)?;
            }
        }
        // Its room is kept for the next turn.
        self.events = events;
        Ok(Some(over))
    }

    /// Reads what a client has received; how many turns that ends.
    fn receive<J: Job>(&mut self, job: &mut J, user: usize) -> io::Result<usize> {
        let Crowd { inbox, reply, clients, dialect, .. } = self;
        let client = &mut clients[user];
        client.receive(inbox)?;
        let mut rest = &inbox.bytes[..];
        let mut over = 0;
        while let Some((length, event)) = dialect.decode(J::PHASE, user, rest, reply) {
            if matches!(event, Event::Wrong) {
                return Err(unexpected(user, &rest[..length], J::WANTED));
            }
            over += job.event(client, user, event)?;
            if !reply.is_empty() {
                client.send(reply);
                reply.clear();
            }
            rest = &rest[length..];
        }
        client.keep(rest)?;
        Ok(over)
    }
}

/// Logging in: after the greeting where there is one, at once elsewhere.
struct LogIn {
    dialect: Dialect,
    /// Whether it is the turn of those who were refused.
    is_again: bool,
    /// Who was told to try again.
    refused: Vec<usize>,
}

impl Job for LogIn {
    const PHASE: Phase = Phase::LogIn;
    const WANTED: &str = "the answer to a login";

    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<bool> {
        let words = match self.is_again {
            true => self.dialect.words_again(user),
            false => self.dialect.first_words(user),
        };
        if !words.is_empty() {
            client.send(&words);
        }
        Ok(false)
    }

    fn event(&mut self, _: &mut Client, user: usize, event: Event<'_>) -> io::Result<usize> {
        if matches!(event, Event::Refused) {
            self.refused.push(user);
        }
        Ok(usize::from(matches!(event, Event::LoggedIn | Event::Refused)))
    }
}

/// Asking for a sign of life.
struct Probe(Dialect);

impl Job for Probe {
    const PHASE: Phase = Phase::Probe;
    const WANTED: &str = "nothing but the answer to the last question";

    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<bool> {
        client.send(&self.0.probe(user));
        Ok(false)
    }

    fn event(&mut self, _: &mut Client, _: usize, event: Event<'_>) -> io::Result<usize> {
        Ok(usize::from(matches!(event, Event::Pong)))
    }
}

/// How long nothing may come while something is due.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a cluster may be unavailable to those who log in, and how often they try.
const REFUSED_TIME_MAX: Duration = Duration::from_secs(30);
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
const AT_ONCE_MAX: usize = 128;
const EVENTS_MAX: usize = 512;
