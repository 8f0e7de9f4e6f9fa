//! One node: its listeners, its tasks, and how it stops.
//!
//! [`Server::bind`] takes settings and opens the listeners; [`Server::run`] is a
//! future that serves until [`Handle::drain`] has ended in order. Every task
//! lives on the server's own executor, so that several nodes fit in one
//! program, and dropping a server stops all of its tasks. One thread runs it:
//! whoever polls `run`, or calls [`Server::run_alone`].

mod drive;
mod listen;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use smol::channel::{Receiver, Sender, bounded};
use smol::future::FutureExt;
use smol::{Executor, Task};

use crate::cluster::remote::Remote;
use crate::cluster::{Cluster, Mesh};
use crate::config::{Config, ConfigError};
use crate::conn::{Alarms, Roll, Shared};
use crate::mailbox::Limits;
use crate::metrics::Metrics;
use crate::outbox::SEEN_TIME;
use crate::proto::{CloseReason, NodeId};
use crate::random::random_id;
use crate::readiness::{Gate, Readiness};
use crate::router::{RECEIPT_MS_MAX, Router, Turn};
use crate::server::listen::Listener;
use crate::timer::Timer;

pub use listen::files_max;

/// A node with open listeners.
pub struct Server {
    executor: Arc<Executor<'static>>,
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    http: Option<SocketAddr>,
    timers: Timers,
    connections_max: usize,
    stop: Receiver<()>,
    handle: Handle,
}

/// One for each task that waits for times.
struct Timers {
    sweep: Timer,
    resume: Timer,
    drain: Timer,
}

/// What other threads and tasks know of a server. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    stop: Sender<()>,
}

/// What a node holds right now. All of it is 0 when everybody has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Connections, a task each.
    pub connections: u64,
    /// Outboxes alive.
    pub outboxes: u64,
    /// Users with a session here.
    pub users: usize,
    /// Messages and questions without an answer.
    pub in_flight: usize,
}

/// How long a drain may take.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How much of that is for replies that are still due; then they are `ERR timeout`.
const DRAIN_REPLIES_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a starting node waits for Redis and RabbitMQ.
const JOIN_TIME_MAX: Duration = Duration::from_secs(3);

/// How often deadlines are looked at.
const SWEEP_TIME: Duration = Duration::from_secs(1);

/// How soon a session looks again into a mailbox that another one drains.
const BUSY_TIME: Duration = Duration::from_millis(50);

/// How often what is remembered is looked at, and what waits in mailboxes.
const EXPIRE_TIME: Duration = SEEN_TIME;

/// Events after which a turn takes in nothing more, so that others have theirs.
const EVENTS_PER_TURN_MAX: usize = 256;

impl Server {
    /// Opens the listeners of a node: of a cluster if the settings name Redis
    /// and RabbitMQ, or else of one that needs no other. A node of a cluster
    /// waits up to 3 s until it can be reached by others, and goes on without.
    ///
    /// # Errors
    /// When a setting is not allowed, or an address can't be listened on.
    pub fn bind(config: &Config) -> Result<Self, ConfigError> {
        let limits = limits_of(config);
        Self::bind_with(config, || {
            let (Some(redis), Some(amqp)) = (config.redis.clone(), config.amqp.clone()) else {
                return Ok(Cluster::alone(fresh_id(&config.node)?, limits));
            };
            let remote = Remote::start(&config.node, redis, amqp, config.sessions_max, limits);
            if !remote.wait_until_joined(JOIN_TIME_MAX) {
                warn!("Redis or RabbitMQ can't be reached: other nodes are out of reach until both are");
            }
            Ok(Cluster::Remote(remote))
        })
    }

    /// Opens the listeners of one node of a mesh.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind_in(config: &Config, mesh: &Mesh) -> Result<Self, ConfigError> {
        mesh.bound(limits_of(config));
        Self::bind_with(config, || Ok(Cluster::Local(mesh.join(fresh_id(&config.node)?))))
    }

    fn bind_with(
        config: &Config,
        cluster: impl FnOnce() -> Result<Cluster, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let files_max = files_max();
        config.check(files_max)?;
        let no_file = |error: io::Error| ConfigError(format!("epoll: {error}"));
        let readiness = Readiness::new().map_err(no_file)?;
        let timer = || Timer::new(&readiness).map_err(no_file);
        let alarms = Alarms::new(timer()?);
        let timers = Timers { sweep: timer()?, resume: timer()?, drain: timer()? };
        let mut listeners = vec![];
        for addr in &config.listen {
            listeners.push(Listener::bind("listen", *addr, false, &readiness)?);
        }
        let http = config.http.map(|addr| Listener::bind("http", addr, true, &readiness)).transpose()?;
        let http_addr = http.as_ref().map(Listener::addr);
        listeners.extend(http);

        let metrics = Arc::new(Metrics::default());
        let router = Router::new(cluster()?, config.sessions_max, metrics);
        let shared = Arc::new(Shared {
            router: Arc::new(router),
            line_bytes_max: config.line_bytes_max,
            outbox_bytes_max: config.outbox_bytes_max,
            login_time_max: config.login_time_max,
            roll: Roll::default(),
            alarms,
            readiness,
        });
        let connections_max = files_max - crate::config::FILES_RESERVED;
        let (tx, stop) = bounded(1);
        Ok(Server {
            executor: Arc::default(),
            handle: Handle { shared: shared.clone(), stop: tx },
            shared,
            listeners,
            http: http_addr,
            timers,
            connections_max: config.connections_max.unwrap_or(connections_max),
            stop,
        })
    }

    /// The addresses of the line protocol, with the real ports.
    pub fn tcp_addrs(&self) -> Vec<SocketAddr> {
        let lines = self.listeners.iter().filter(|listener| !listener.is_http());
        lines.map(Listener::addr).collect()
    }

    /// The address of HTTP and WebSocket, with the real port.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.shared.router.cluster().node()
    }

    /// The line that says that connections are accepted.
    pub fn ready_line(&self) -> String {
        let tcp: Vec<String> = self.tcp_addrs().iter().map(|addr| format!("tcp={addr}")).collect();
        let http = self.http.map_or_else(|| "off".to_owned(), |addr| addr.to_string());
        format!("ready {} http={http} node={}", tcp.join(" "), self.node().as_str())
    }

    /// A handle to stop the server and to look at it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs a task of the caller's on the server's executor, while it serves.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(task).detach();
    }

    /// Watches a file of the caller's, for as long as the server lives: one task of [`Server::spawn`] can
    /// wait until it is ready.
    ///
    /// # Errors
    /// When the system has no room for one more.
    pub fn gate(&self, file: impl AsFd) -> io::Result<Arc<Gate>> {
        self.shared.readiness.gate(file)
    }

    /// Serves until [`Handle::drain`] is called and the drain has ended, as a future of any runtime.
    ///
    /// # Errors
    /// When there is no file descriptor left for it.
    pub async fn run(self) -> io::Result<()> {
        let (executor, shared) = (self.executor.clone(), self.shared.clone());
        drive::within(shared, &executor, self.serve()).await
    }

    /// Serves as [`Server::run`] does, on this thread, which does nothing else: for less CPU time a message.
    ///
    /// # Panics
    /// When the system does not let it wait for its own epoll instance, which does not happen.
    pub fn run_alone(self) {
        let (executor, shared) = (self.executor.clone(), self.shared.clone());
        drive::alone(&shared, &executor, self.serve());
    }

    async fn serve(self) {
        let accepting: Vec<Task<()>> = self
            .listeners
            .into_iter()
            .map(|listener| {
                let accept = listener.accept(self.shared.clone(), self.connections_max, &self.executor);
                self.executor.spawn(accept)
            })
            .collect();
        let flusher = self.executor.spawn(flush(self.shared.clone()));
        let events = self.executor.spawn(take_events(self.shared.clone()));
        let sweeper = self.executor.spawn(sweep(self.shared.clone(), self.timers.sweep));
        let resumer = self.executor.spawn(resume(self.shared.clone(), self.timers.resume));
        let alarms = self.executor.spawn(wake_due(self.shared.clone()));
        let until_drained = async {
            // A dropped handle is no reason to stop, and the server holds one itself.
            let _ = self.stop.recv().await;
            drop(accepting);
            drain(&self.shared, &self.timers.drain).await;
        };
        // These never end; but a panic in one of them must not leave a node that accepts and says
        // nothing: it comes out here.
        until_drained.or(flusher).or(events).or(sweeper).or(resumer).or(alarms).await;
    }
}

impl Handle {
    /// Asks the server to stop in order: nobody is accepted any more, every
    /// connection gets `BYE draining` after the replies that it is owed, and
    /// [`Server::run`] or [`Server::run_alone`] ends after [`DRAIN_TIME_MAX`] at the latest.
    pub fn drain(&self) {
        // Full means that it was asked already, closed that it has ended.
        let _ = self.stop.try_send(());
    }

    /// What the node holds right now.
    pub fn holdings(&self) -> Holdings {
        let router = &self.shared.router;
        Holdings {
            connections: router.metrics().connections.count(),
            outboxes: router.metrics().outboxes.count(),
            users: router.table().users(),
            in_flight: router.questions(),
        }
    }

    /// The node's counters.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.router.metrics().clone()
    }
}

fn limits_of(config: &Config) -> Limits {
    Limits { messages_max: config.mailbox_messages_max, time_max: config.mailbox_time_max }
}

/// An id that no node ever had.
fn fresh_id(name: &str) -> Result<NodeId, ConfigError> {
    NodeId::new(name, &random_id(8, &nanoid::alphabet::SAFE))
        .ok_or_else(|| ConfigError(format!("--node {name:?} is not allowed")))
}

/// Writes what every turn has left to write.
async fn flush(shared: Arc<Shared>) {
    let mut turn = Turn::default();
    std::future::poll_fn(|context| {
        shared.router.poll_flush(context, &mut turn);
        std::task::Poll::<()>::Pending
    })
    .await;
}

/// Takes in what the cluster tells.
async fn take_events(shared: Arc<Shared>) {
    let cluster = shared.router.cluster();
    let incoming = cluster.incoming();
    let mut turn = Turn::default();
    while let Ok(mut next) = incoming.recv().await {
        turn.now = Instant::now();
        let mut count = 0;
        loop {
            // A batch that says nothing takes its time, too.
            count += 1;
            cluster.unpack(next, &mut |said| {
                count += said.count();
                shared.router.on_said(said, &mut turn);
            });
            if count >= EVENTS_PER_TURN_MAX {
                break;
            }
            let Ok(more) = incoming.try_recv() else { break };
            next = more;
        }
        shared.router.end(&mut turn);
        smol::future::yield_now().await;
    }
    // A node alone hears nothing.
    std::future::pending().await
}

/// Answers what has waited too long.
async fn sweep(shared: Arc<Shared>, timer: Timer) {
    let mut turn = Turn::default();
    let mut expire_at = Instant::now() + EXPIRE_TIME;
    loop {
        timer.after(SWEEP_TIME).await;
        turn.now = Instant::now();
        shared.router.sweep(&mut turn);
        shared.router.end(&mut turn);
        if turn.now >= expire_at {
            expire_at = turn.now + EXPIRE_TIME;
            shared.roll.each(|outbox| outbox.forget_old(turn.now));
            shared.router.cluster().expire(turn.now);
        }
    }
}

/// Wakes connections that have to act by themselves.
async fn wake_due(shared: Arc<Shared>) {
    loop {
        let due = shared.alarms.due().await;
        shared.roll.tell_ready(&due);
    }
}

/// Lets sessions look again into mailboxes that others drain.
async fn resume(shared: Arc<Shared>, timer: Timer) {
    let mut turn = Turn::default();
    loop {
        shared.router.wait_for_busy_mailbox().await;
        timer.after(BUSY_TIME).await;
        turn.now = Instant::now();
        shared.router.resume_drains(None, &mut turn);
        shared.router.end(&mut turn);
    }
}

/// Ends every connection in order.
async fn drain(shared: &Shared, timer: &Timer) {
    let open = shared.roll.len();
    info!("draining; connections: {open}; for {} s at most", DRAIN_TIME_MAX.as_secs());
    shared.router.start_draining();
    shared.roll.close(CloseReason::Draining);
    let gone = async {
        shared.roll.all_gone().await;
        true
    };
    let settle = || {
        let mut turn = Turn::default();
        // As if all that waits for an answer had waited for too long.
        turn.now += RECEIPT_MS_MAX;
        shared.router.sweep(&mut turn);
        turn.now = Instant::now();
        shared.router.end(&mut turn);
    };
    let replies_are_late = async {
        timer.after(DRAIN_REPLIES_TIME_MAX).await;
        settle();
        timer.after(DRAIN_TIME_MAX - DRAIN_REPLIES_TIME_MAX).await;
        false
    };
    if gone.or(replies_are_late).await {
        info!("drained");
    } else {
        warn!("drained, but {} connections did not take their last words in time", shared.roll.len());
    }
    // What nobody waits for any more: casts that wait for presence, messages of those who left.
    settle();
    shared.router.cluster().leave();
}
