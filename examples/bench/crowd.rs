//! Many clients on one thread and one epoll, doing a job each, a bounded
//! number at a time.
//!
//! The jobs are small state machines (`Job`): logging in is here, sending
//! messages is in `load.rs`. Anything unexpected, silence included, is an error
//! that ends the bench: a figure from a run that went wrong is worth nothing.

use std::io;
use std::net::SocketAddr;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::client::{Client, Inbox, Transport};
use crate::dialect::Dialect;

/// Connected clients; user `u7` is number 7.
pub struct Crowd {
    epoll: OwnedFd,
    servers: Vec<SocketAddr>,
    transport: Transport,
    clients: Vec<Client>,
}

/// Something that each client does once.
pub trait Job {
    /// Starts a client's turn, typically by queueing a line.
    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<()>;

    /// Takes one line that a client received; returns how many turns that ends: its own, or none.
    fn line(&mut self, client: &mut Client, user: usize, line: &[u8]) -> io::Result<usize>;

    /// Who else may go on when a client has received something; `resume` is called for it.
    fn partner(&self, _user: usize) -> Option<usize> {
        None
    }

    /// Goes on with a client's turn.
    fn resume(&mut self, _client: &mut Client, _user: usize) {}
}

impl Crowd {
    /// Connects and logs in `users` clients, to the servers in turn, so many at a time, and returns
    /// when all have their `OK`.
    pub fn log_in(
        servers: &[SocketAddr],
        transport: Transport,
        dialect: Dialect,
        users: usize,
        at_once: usize,
    ) -> io::Result<Crowd> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let servers = servers.to_vec();
        let mut crowd = Crowd { epoll, servers, transport, clients: Vec::with_capacity(users) };
        crowd.grow(dialect, users, at_once)?;
        Ok(crowd)
    }

    /// The same for those who are missing until there are `users` clients.
    pub fn grow(&mut self, dialect: Dialect, users: usize, at_once: usize) -> io::Result<()> {
        self.run_from(self.clients.len(), &mut LogIn(dialect), users, at_once)
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Asks every client's connection for a sign of life and accepts nothing else, such as a
    /// message that comes twice.
    pub fn expect_silence(&mut self, dialect: Dialect) -> io::Result<()> {
        self.run(&mut Probe(dialect), self.clients.len(), AT_ONCE_MAX)
    }

    /// Lets `users` clients do the job, the first ones first, at most `at_once` of them at a time.
    pub fn run(&mut self, job: &mut impl Job, users: usize, at_once: usize) -> io::Result<()> {
        self.run_from(0, job, users, at_once)
    }

    fn run_from(
        &mut self,
        first: usize,
        job: &mut impl Job,
        users: usize,
        at_once: usize,
    ) -> io::Result<()> {
        let mut inbox = Inbox::default();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let (mut begun, mut over) = (first, first);
        while over < users {
            while begun < users && begun - over < at_once {
                self.begin(job, begun)?;
                begun += 1;
            }
            let silence = Timespec { tv_sec: SILENCE_SECONDS_MAX, tv_nsec: 0 };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&silence)) {
                Ok(0) => {
                    let error =
                        format!("silence for {SILENCE_SECONDS_MAX} s with {over} of {users} users done");
                    return Err(io::Error::other(error));
                }
                Ok(_) | Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                // Copied out: the kernel's struct is packed.
                let (flags, user) = (event.flags, event.data.u64() as usize);
                let client = &mut self.clients[user];
                // Whatever else it may be, an error for instance, reading finds out.
                if flags != epoll::EventFlags::OUT {
                    client.receive(&mut inbox)?;
                    let mut rest = &inbox.lines[..];
                    while let Some(length) = memchr::memchr(b'\n', rest) {
                        over += job.line(client, user, &rest[..length])?;
                        rest = &rest[length + 1..];
                    }
                }
                client.flush(&self.epoll, user)?;
                if let Some(partner) = job.partner(user) {
                    job.resume(&mut self.clients[partner], partner);
                    self.clients[partner].flush(&self.epoll, partner)?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, job: &mut impl Job, user: usize) -> io::Result<()> {
        if user == self.clients.len() {
            let server = self.servers[user % self.servers.len()];
            self.clients.push(Client::connect(server, self.transport, &self.epoll, user)?);
        }
        let client = &mut self.clients[user];
        job.begin(client, user)?;
        client.flush(&self.epoll, user)
    }
}

/// An error that shows the line nobody expected.
pub fn unexpected(user: usize, line: &[u8], wanted: &str) -> io::Error {
    io::Error::other(format!("u{user} received {:?} where {wanted} was due", String::from_utf8_lossy(line)))
}

/// Logging in: after the greeting where there is one, at once elsewhere.
struct LogIn(Dialect);

impl Job for LogIn {
    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<()> {
        if !self.0.greets() {
            client.send(&self.0.login(user));
        }
        Ok(())
    }

    fn line(&mut self, client: &mut Client, user: usize, line: &[u8]) -> io::Result<usize> {
        if self.0.is_greeting(line) {
            client.send(&self.0.login(user));
            return Ok(0);
        }
        match self.0.is_login_reply(line, user) {
            true => Ok(1),
            false => Err(unexpected(user, line, "the reply to LOGIN")),
        }
    }
}

/// Asking for a sign of life.
struct Probe(Dialect);

impl Job for Probe {
    fn begin(&mut self, client: &mut Client, user: usize) -> io::Result<()> {
        client.send(&self.0.probe(user));
        Ok(())
    }

    fn line(&mut self, _: &mut Client, user: usize, line: &[u8]) -> io::Result<usize> {
        match self.0.is_probe_reply(line) {
            true => Ok(1),
            false => Err(unexpected(user, line, "nothing but the answer to the last question")),
        }
    }
}

const AT_ONCE_MAX: usize = 128;
const EVENTS_MAX: usize = 512;
const SILENCE_SECONDS_MAX: i64 = 30;
