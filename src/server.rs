//! One node: its listeners, its tasks, and how it stops.
//!
//! [`Server::bind`] takes settings and opens the listeners; [`Server::run`] is a future that serves until
//! [`Handle::drain`] has ended in order. It builds the node where it is polled, so a server may be sent to
//! its thread and `run` may not. Every task lives on an executor of its own, so that several nodes fit in one
//! program, and dropping the future stops all of them.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{FutureExt, yield_now};
use smol::{LocalExecutor, Task, Timer};

use crate::cluster::event::ClusterEvent;
#[cfg(feature = "cluster")]
use crate::cluster::remote::Remote;
use crate::cluster::{Cluster, Mesh, fresh_id};
use crate::config::{Config, ConfigError, FILES_RESERVED};
use crate::mailbox::Limits;
use crate::metrics::Counters;
use crate::net::driver::{Driver, Published};
use crate::net::listen::Listener;
use crate::node::state::{Node, NodeConfig};
use crate::proto::name::NodeId;
use crate::random::random_number;

pub use crate::net::listen::files_max;
pub use crate::node::Holdings;

/// A node with open listeners.
pub struct Server {
    listeners: Vec<Listener>,
    connections_max: usize,
    line_bytes_max: usize,
    node: NodeId,
    config: NodeConfig,
    /// How other nodes are reached.
    cluster: Cluster,
    stop: Receiver<()>,
    handle: Handle,
}

/// What other threads and tasks know of a server. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    published: Arc<Published>,
    stop: Sender<()>,
}

/// How long a drain may take.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How much of that is for replies that are still due; then they are `ERR timeout`.
const DRAIN_REPLIES_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a starting node waits for Redis and RabbitMQ.
const JOIN_TIME_MAX: Duration = Duration::from_secs(3);

/// How often deadlines are looked at.
const SWEEP_TIME: Duration = Duration::from_secs(1);

/// How often at most: a crowd that logged in together is not looked at one by one.
const SWEEP_TIME_MIN: Duration = Duration::from_millis(5);

/// What other nodes say that is taken in before others have their turn.
const EVENTS_PER_TURN_MAX: usize = 256;

/// How long tasks run between two looks for events. The runtime's helper thread takes the events away from a thread
/// that does not look, and every message would be a switch of threads more.
const LOOK_TIME: Duration = Duration::from_micros(100);

/// How long the services may take to let a node do all that it has to.
#[cfg(feature = "cluster")]
const CHECK_TIME_MAX: Duration = Duration::from_secs(6);

/// Tries against Redis and RabbitMQ all that a node of these settings will do: joins the cluster for a moment, without
/// listening. What is missing is in the log; `false` when something is, or when the settings name no services.
pub fn check_services(config: &Config) -> bool {
    match open_cluster(config) {
        #[cfg(feature = "cluster")]
        Cluster::Remote(remote) => {
            let is_fine = remote.wait_until_joined(CHECK_TIME_MAX);
            remote.leave();
            is_fine
        }
        _ => false,
    }
}

impl Server {
    /// Opens the listeners of a node: of a cluster if the settings name Redis
    /// and RabbitMQ, or else of one that needs no other. A node of a cluster
    /// waits up to 3 s until it can be reached by others, and goes on without.
    ///
    /// # Errors
    /// When a setting is not allowed, or an address can't be listened on.
    pub fn bind(config: &Config) -> Result<Self, ConfigError> {
        Self::bind_with(config, || {
            let cluster = open_cluster(config);
            if !cluster.wait_until_joined(JOIN_TIME_MAX) {
                warn!("Redis or RabbitMQ can't be reached: other nodes are out of reach until both are");
            }
            cluster
        })
    }

    /// Opens the listeners of one node of a mesh.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind_in(config: &Config, mesh: &Mesh) -> Result<Self, ConfigError> {
        mesh.bound(limits_of(config));
        Self::bind_with(config, || Cluster::Mesh(mesh.join(fresh_id(&config.node))))
    }

    fn bind_with(config: &Config, cluster: impl FnOnce() -> Cluster) -> Result<Self, ConfigError> {
        let files_max = files_max();
        config.check(files_max)?;
        let tcp = config.listen.iter().map(|addr| Listener::bind("listen", *addr, false));
        let http = config.http.iter().map(|addr| Listener::bind("http", *addr, true));
        let listeners = tcp.chain(http).collect::<Result<_, _>>()?;
        let cluster = cluster();
        let node = cluster.node();
        let (stop, stopped) = bounded(1);
        Ok(Server {
            listeners,
            connections_max: config.connections_max.unwrap_or(files_max - FILES_RESERVED),
            line_bytes_max: config.line_bytes_max,
            config: NodeConfig {
                sessions_max: config.sessions_max,
                outbox_bytes_max: config.outbox_bytes_max,
                login_time_max: config.login_time_max,
                ping_time: config.ping_time,
                mailboxes: limits_of(config),
                is_alone: matches!(cluster, Cluster::Alone(_)),
                hash_key: random_number(),
                seed: random_number(),
            },
            node,
            cluster,
            stop: stopped,
            handle: Handle { published: Arc::default(), stop },
        })
    }

    /// The addresses of the line protocol, with the real ports.
    pub fn tcp_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter(|listener| !listener.is_http()).map(Listener::addr).collect()
    }

    /// The address of HTTP and WebSocket, with the real port.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.listeners.iter().find(|listener| listener.is_http()).map(Listener::addr)
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.node.clone()
    }

    /// The line that says that connections are accepted.
    pub fn ready_line(&self) -> String {
        let tcp: Vec<String> = self.tcp_addrs().iter().map(|addr| format!("tcp={addr}")).collect();
        let http = self.http_addr().map_or_else(|| "off".to_owned(), |addr| addr.to_string());
        format!("ready {} http={http} node={}", tcp.join(" "), self.node.as_str())
    }

    /// A handle to stop the server and to look at it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::drain`] is called and the drain has ended.
    ///
    /// # Panics
    /// When a mistake of ours shows that is not one connection's alone.
    pub async fn run(self) -> io::Result<()> {
        let executor = Rc::new(LocalExecutor::new());
        let node = Node::new(self.node, self.config, Instant::now());
        let driver = Driver::new(node, self.cluster, self.line_bytes_max, self.handle.published.clone());
        let driver = Rc::new(driver);
        let accept = |listener: Listener| {
            let executor_of_connections = Rc::downgrade(&executor);
            executor.spawn(listener.accept(driver.clone(), self.connections_max, executor_of_connections))
        };
        let accepting: Vec<Task<()>> = self.listeners.into_iter().map(accept).collect();
        let flusher = executor.spawn(driver.clone().flush());
        let events = executor.spawn(hear_others(driver.clone()));
        let sweeper = executor.spawn(sweep(driver.clone()));
        let draining = driver.clone();
        let until_drained = async move {
            // A dropped handle is no reason to stop, and the server holds one itself.
            let _ = self.stop.recv().await;
            drop(accepting);
            drain(&draining).await;
        };
        // The others never end; but a panic in one of them must not leave a node that accepts and says nothing: it
        // comes out here.
        let serving = executor.spawn(async { until_drained.or(flusher).or(events).or(sweeper).await });
        run_tasks(&executor, &serving, &driver).await;
        let ended = AssertUnwindSafe(serving).catch_unwind().await;
        // Takes back what connections have registered that are left.
        drop(executor);
        match ended {
            Ok(()) => while driver.flush_some() {},
            Err(panic) => resume_unwind(panic),
        }
        Ok(())
    }
}

impl Handle {
    /// Asks the server to stop in order: nobody is accepted any more, every
    /// connection gets `BYE draining` after the replies that it is owed, and
    /// [`Server::run`] ends after 5 seconds at the latest.
    pub fn drain(&self) {
        // Full means that it was asked already, closed that it has ended.
        let _ = self.stop.try_send(());
    }

    /// What the node holds right now.
    pub fn holdings(&self) -> Holdings {
        self.published.get().1
    }

    /// What has happened on the node.
    pub fn metrics(&self) -> Counters {
        self.published.get().0
    }
}

/// The cluster that the settings name, or none.
fn open_cluster(config: &Config) -> Cluster {
    #[cfg(feature = "cluster")]
    if let (Some(redis), Some(amqp)) = (config.redis.clone(), config.amqp.clone()) {
        let is_single = config.sessions_max == 1;
        if config.mailbox_messages_max > 0 {
            let mib = config.mailbox_bytes_max >> 20;
            info!("--mailbox-total: mail is stored while all that is in Redis takes less than {mib} MiB");
        }
        return Cluster::Remote(Remote::start(&config.node, redis, amqp, is_single, limits_of(config)));
    }
    Cluster::Alone(fresh_id(&config.node))
}

fn limits_of(config: &Config) -> Limits {
    Limits {
        messages_max: config.mailbox_messages_max,
        time_max: config.mailbox_time_max,
        bytes_max: config.mailbox_bytes_max,
    }
}

/// Runs tasks until `serving` has ended, and comes back for a look for events every now and then.
async fn run_tasks(executor: &LocalExecutor<'static>, serving: &Task<()>, driver: &Driver) {
    let (mut looked, mut last) = (Instant::now(), Instant::now());
    let mut longest = Duration::ZERO;
    while !serving.is_finished() {
        let is_idle = !executor.try_tick();
        if is_idle {
            executor.tick().await;
        }
        let now = Instant::now();
        if !is_idle && now.duration_since(last) > longest {
            longest = now.duration_since(last);
            driver.step(|node, _| node.counters().turn_us_max = longest.as_micros() as u64);
        }
        last = now;
        if is_idle {
            looked = now;
        } else if now.duration_since(looked) >= LOOK_TIME {
            yield_now().await;
            last = Instant::now();
            looked = last;
        }
    }
}

/// Takes in what comes from other nodes, and from presence.
async fn hear_others(driver: Rc<Driver>) {
    let cluster = &driver.cluster;
    let incoming = cluster.incoming();
    while let Ok(first) = incoming.recv().await {
        driver.step(|node, now| {
            let (mut next, mut count) = (first, 0);
            loop {
                // A batch that says nothing takes its time, too.
                count += 1;
                match next {
                    ClusterEvent::Answered(ticket, answer) => node.answered(ticket, answer, now),
                    ClusterEvent::News(news) => node.heard(news, now),
                    ClusterEvent::Returned(returned) => node.returned(&returned, now),
                    ClusterEvent::Unheard(count) => node.unheard(count),
                    ClusterEvent::Renamed(id) => node.renamed(id),
                    ClusterEvent::Batch(batch) => cluster.unpack(&batch, now, &mut |from, said| {
                        count += 1;
                        node.said(from, said, now);
                    }),
                }
                if count >= EVENTS_PER_TURN_MAX {
                    break;
                }
                let Ok(more) = incoming.try_recv() else { break };
                next = more;
            }
        });
        yield_now().await;
    }
    std::future::pending().await
}

/// Lets the node look at its deadlines.
async fn sweep(driver: Rc<Driver>) {
    let mut last = Instant::now();
    let mut second = last + SWEEP_TIME;
    loop {
        let due = driver.step(|node, _| node.due());
        driver.sweeps_at.set(due.map_or(second, |due| due.min(second)));
        let at = driver.sweeps_at.get().max(last + SWEEP_TIME_MIN);
        let in_time = async {
            Timer::at(at).await;
        };
        in_time.or(driver.sweeper.rung()).await;
        let now = Instant::now();
        if now >= at {
            driver.step(|node, now| node.tick(now));
            last = now;
        }
        if now >= second {
            second = now + SWEEP_TIME;
        }
    }
}

/// Ends every connection in order.
async fn drain(driver: &Driver) {
    let open = driver.connections();
    info!("draining; connections: {open}; for {} s at most", DRAIN_TIME_MAX.as_secs());
    driver.step(|node, now| node.drain(now));
    let gone = async {
        while driver.connections() > 0 {
            driver.emptied.rung().await;
        }
        true
    };
    let replies_are_late = async {
        Timer::after(DRAIN_REPLIES_TIME_MAX).await;
        driver.step(|node, now| node.end_replies(now));
        Timer::after(DRAIN_TIME_MAX - DRAIN_REPLIES_TIME_MAX).await;
        false
    };
    if gone.or(replies_are_late).await {
        info!("drained");
    } else {
        warn!("drained, but {} connections did not take their last words in time", driver.connections());
    }
    while driver.flush_some() {}
    // What nobody waits for any more: casts that wait for presence, messages of those who left.
    driver.step(|node, now| node.end_replies(now));
    while driver.flush_some() {}
    driver.cluster.leave();
}
