//! The settings of a node as values, their defaults, and how a program sets them: each builder
//! method has the name of its setting, and none of them checks anything.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::features::WEBSOCKET;
use crate::config::services::{Amqp, Redis};
use crate::proto::{LINE_BYTES_MAX, NodeId};

/// The settings of a node.
///
/// ```
/// use std::time::Duration;
/// use pinpost::Config;
///
/// let config = Config::ephemeral().node("pi").mailbox(1000).mailbox_ttl(Duration::from_secs(3600));
/// assert_eq!(config.value("mailbox-ttl"), "60m");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where the line protocol is served over TCP.
    pub listen: Vec<SocketAddr>,
    /// Where HTTP and WebSocket are served.
    pub http: Option<SocketAddr>,
    /// The readable part of the node id.
    pub node: String,
    /// Where Redis is, for a node of a cluster.
    pub redis: Option<Redis>,
    /// Where RabbitMQ is, for a node of a cluster.
    pub amqp: Option<Amqp>,
    /// Sessions a user may hold; with 1 a new login replaces the old.
    pub sessions_max: usize,
    /// Messages kept for a user who has no session; 0 for no mailboxes.
    pub mailbox_messages_max: usize,
    /// How long such a message is kept.
    pub mailbox_time_max: Duration,
    /// Memory of all mailboxes, in bytes; in a cluster that of all that is in Redis.
    pub mailbox_bytes_max: u64,
    /// How long a connection may take to log in.
    pub login_time_max: Duration,
    /// How often a WebSocket is sent a ping, if ever.
    pub ping_time: Option<Duration>,
    /// The longest request line, LF included.
    pub line_bytes_max: usize,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// Connections at the same time; `None` is as many as the open-file limit allows.
    pub connections_max: Option<usize>,
    /// Listen beyond loopback though nobody has to prove who they are.
    pub is_open: bool,
    /// What is logged.
    pub log: log::LevelFilter,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7700))],
            http: WEBSOCKET.is_built.then(|| SocketAddr::from(([127, 0, 0, 1], 7780))),
            node: host_name(),
            redis: None,
            amqp: None,
            sessions_max: 8,
            mailbox_messages_max: 0,
            mailbox_time_max: Duration::from_secs(7 * 24 * 3_600),
            mailbox_bytes_max: 64 * 1024 * 1024,
            login_time_max: Duration::from_secs(60),
            ping_time: Some(Duration::from_secs(30)),
            line_bytes_max: LINE_BYTES_MAX,
            outbox_bytes_max: 256 * 1024,
            connections_max: None,
            is_open: false,
            log: log::LevelFilter::Info,
        }
    }
}

impl Config {
    /// Loopback, and ports that are free: for tests and for nodes inside other programs.
    pub fn ephemeral() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Config::default().listen([any_port]).http(WEBSOCKET.is_built.then_some(any_port)).node("node")
    }

    /// Where the line protocol is served over TCP: one address or two.
    pub fn listen(self, addresses: impl Into<Vec<SocketAddr>>) -> Self {
        Config { listen: addresses.into(), ..self }
    }

    /// Where HTTP and WebSocket are served, if anywhere.
    pub fn http(self, address: impl Into<Option<SocketAddr>>) -> Self {
        Config { http: address.into(), ..self }
    }

    /// The readable part of the node id.
    pub fn node(self, name: impl Into<String>) -> Self {
        Config { node: name.into(), ..self }
    }

    /// A cluster's Redis, with [`Config::amqp`].
    pub fn redis(self, redis: Redis) -> Self {
        Config { redis: Some(redis), ..self }
    }

    /// A cluster's RabbitMQ, with [`Config::redis`].
    pub fn amqp(self, amqp: Amqp) -> Self {
        Config { amqp: Some(amqp), ..self }
    }

    /// How many sessions a user may hold; with 1 a new login replaces the old.
    pub fn sessions(self, count: usize) -> Self {
        Config { sessions_max: count, ..self }
    }

    /// How many messages are kept for a user who has no session; 0 for no mailboxes.
    pub fn mailbox(self, messages: usize) -> Self {
        Config { mailbox_messages_max: messages, ..self }
    }

    /// How long such a message is kept.
    pub fn mailbox_ttl(self, time: Duration) -> Self {
        Config { mailbox_time_max: time, ..self }
    }

    /// Memory of all mailboxes, in bytes; in a cluster that of all that is in Redis.
    pub fn mailbox_total(self, bytes: u64) -> Self {
        Config { mailbox_bytes_max: bytes, ..self }
    }

    /// How long a connection may take to log in.
    pub fn login_timeout(self, time: Duration) -> Self {
        Config { login_time_max: time, ..self }
    }

    /// How often a WebSocket is sent a ping, if ever.
    pub fn ping(self, time: impl Into<Option<Duration>>) -> Self {
        Config { ping_time: time.into(), ..self }
    }

    /// The longest request line in bytes, LF included.
    pub fn max_line(self, bytes: usize) -> Self {
        Config { line_bytes_max: bytes, ..self }
    }

    /// How many bytes may wait for one connection.
    pub fn outbox(self, bytes: usize) -> Self {
        Config { outbox_bytes_max: bytes, ..self }
    }

    /// How many connections there may be, if not as many as the open-file limit allows.
    pub fn connections(self, count: impl Into<Option<usize>>) -> Self {
        Config { connections_max: count.into(), ..self }
    }

    /// Whether a node may listen beyond loopback though nobody has to prove who they are.
    pub fn open(self, is_open: bool) -> Self {
        Config { is_open, ..self }
    }

    /// What the command logs.
    pub fn log(self, level: log::LevelFilter) -> Self {
        Config { log: level, ..self }
    }
}

/// The host's name, as far as it can be part of a node id.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name: String = uname.nodename().to_string_lossy().chars().take(NodeId::NAME_BYTES_MAX).collect();
    if NodeId::is_name(&name) { name } else { "node".to_owned() }
}
