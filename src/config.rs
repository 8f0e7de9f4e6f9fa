//! Settings of a node: what they are, where they come from, what is allowed.
//!
//! One table ([`SETTINGS`]) names every setting, its default and its meaning;
//! flags, the TOML file, environment variables, `--help` and `--print-config`
//! all follow from it, so that none of them can lie. A value is text until
//! [`Config::set`] understands it, wherever it came from.

pub mod features;
#[cfg_attr(not(feature = "cluster"), path = "config/no_services.rs")]
mod services;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::config::features::{Feature, WEBSOCKET};
use crate::proto::{LINE_BYTES_LIMIT, LINE_BYTES_MAX, NodeId};

pub use services::{Amqp, Redis};
pub use sources::Layers;

/// The settings of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How long a connection may take to log in.
    pub login_time_max: Duration,
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

/// A setting: its name, its default as text, the form of its value, its meaning.
#[derive(Debug)]
pub struct Setting {
    /// The name as a flag, without `--`.
    pub name: &'static str,
    /// The form of the value; empty for a switch.
    pub form: &'static str,
    /// The default.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

impl Setting {
    /// The feature that it needs to be anything but `off`, if this build is without.
    pub fn missing(&self) -> Option<Feature> {
        features::needed_by(self.name).filter(|feature| !feature.is_built)
    }
}

/// Every setting of `pinpost serve`.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        form: "ADDR",
        default: "127.0.0.1:7700",
        about: "line protocol over TCP; may be given twice",
        allowed: "an IP address and a port, such as 127.0.0.1:7700, at most two of them",
    },
    Setting {
        name: "http",
        form: "ADDR",
        default: if WEBSOCKET.is_built { "127.0.0.1:7780" } else { "off" },
        about: "HTTP and WebSocket (/ws); off for none",
        allowed: "an IP address and a port, such as 127.0.0.1:7780, or off",
    },
    Setting {
        name: "node",
        form: "NAME",
        default: "",
        about: "the readable part of the node id (default: the host name)",
        allowed: "1 to 32 of A-Z a-z 0-9 . _ -",
    },
    Setting {
        name: "redis",
        form: "URL",
        default: "off",
        about: "a cluster's Redis, which knows who is where; with --amqp",
        allowed: "redis://[[user]:password@]host[:port][/database] (no TLS), or off",
    },
    Setting {
        name: "amqp",
        form: "URL",
        default: "off",
        about: "a cluster's RabbitMQ, which carries lines from node to node; with --redis",
        allowed: "amqp://[user:password@]host[:port][/vhost] (no TLS), or off",
    },
    Setting {
        name: "sessions",
        form: "N",
        default: "8",
        about: "sessions a user may hold; with 1 a new login replaces the old",
        allowed: "a number from 1 to 1000",
    },
    Setting {
        name: "mailbox",
        form: "N",
        default: "0",
        about: "messages kept for an absent user; 0: the sender gets ERR offline",
        allowed: "a number from 0 to 1000000",
    },
    Setting {
        name: "mailbox-ttl",
        form: "TIME",
        default: "7d",
        about: "how long they are kept",
        allowed: "a time from 1s to 365d, such as 7d, 12h or 30m",
    },
    Setting {
        name: "login-timeout",
        form: "TIME",
        default: "60s",
        about: "a connection that has not logged in by then gets BYE idle",
        allowed: "a time from 100ms to 24h, such as 60s, 500ms or 5m",
    },
    Setting {
        name: "max-line",
        form: "BYTES",
        default: "4096",
        about: "the longest request line, its line feed included",
        allowed: "a number from 64 to 65536",
    },
    Setting {
        name: "outbox",
        form: "BYTES",
        default: "262144",
        about: "bytes that may wait for one connection",
        allowed: "a number from 4096 to 1073741824",
    },
    Setting {
        name: "connections",
        form: "N",
        default: "0",
        about: "connections at the same time; 0 is as many as the open-file limit allows, less a reserve",
        allowed: "a number from 0 to what the open-file limit allows, less a reserve",
    },
    Setting {
        name: "open",
        form: "",
        default: "false",
        about: "listen beyond loopback though nobody has to prove who they are",
        allowed: "true or false",
    },
    Setting {
        name: "log",
        form: "LEVEL",
        default: "info",
        about: "what is logged to standard error",
        allowed: "off, error, warn, info, debug or trace",
    },
];

/// Files that are not for connections: listeners and their timers, those of the
/// node, the epoll, what signals come through, logs, what a library opens.
pub const FILES_RESERVED: usize = 64;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// One sentence that names the setting, its value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

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
            mailbox_time_max: 7 * DAY,
            login_time_max: Duration::from_secs(60),
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
        let http = WEBSOCKET.is_built.then_some(any_port);
        Config { listen: vec![any_port], http, node: "node".to_owned(), ..Config::default() }
    }

    /// Sets one setting from text. `listen` takes one address or several, a comma between them.
    ///
    /// # Errors
    /// When there is no such setting, or the value is not allowed; nothing is changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.ok_or_else(|| ConfigError(format!("{name}: there is no such setting")))?;
        match setting.missing() {
            Some(feature) if value != "off" => Err(not_built(name, value, &feature)),
            _ => self.try_set(name, value).ok_or_else(|| {
                ConfigError(format!("--{name} {value:?} is not allowed: it takes {}", setting.allowed))
            }),
        }
    }

    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "listen" => {
                let addresses: Option<Vec<_>> = value.split(',').map(|addr| address(addr.trim())).collect();
                self.listen = addresses.filter(|addresses| (1..=2).contains(&addresses.len()))?;
            }
            "http" => self.http = optional(value, address)?,
            "node" => self.node = NodeId::is_name(value).then(|| value.to_owned())?,
            "redis" => self.redis = optional(value, Redis::parse)?,
            "amqp" => self.amqp = optional(value, Amqp::parse)?,
            "sessions" => self.sessions_max = number(value, 1, 1000)?,
            "mailbox" => self.mailbox_messages_max = number(value, 0, 1_000_000)?,
            "mailbox-ttl" => self.mailbox_time_max = time(value, Duration::from_secs(1), 365 * DAY)?,
            "login-timeout" => self.login_time_max = time(value, Duration::from_millis(100), DAY)?,
            "max-line" => self.line_bytes_max = number(value, 64, LINE_BYTES_LIMIT)?,
            "outbox" => self.outbox_bytes_max = number(value, 4096, 1 << 30)?,
            "connections" => {
                self.connections_max = Some(number(value, 0, 1 << 24)?).filter(|count| *count > 0);
            }
            "open" => self.is_open = value.parse().ok()?,
            "log" => self.log = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// The value of a setting as text: what [`Config::set`] would take.
    pub fn value(&self, name: &str) -> String {
        match name {
            "listen" => {
                let addresses: Vec<String> = self.listen.iter().map(SocketAddr::to_string).collect();
                addresses.join(",")
            }
            "http" => self.http.map_or_else(|| "off".to_owned(), |addr| addr.to_string()),
            "node" => self.node.clone(),
            "redis" => self.redis.as_ref().map_or("off", Redis::url).to_owned(),
            "amqp" => self.amqp.as_ref().map_or("off", Amqp::url).to_owned(),
            "sessions" => self.sessions_max.to_string(),
            "mailbox" => self.mailbox_messages_max.to_string(),
            "mailbox-ttl" => print_time(self.mailbox_time_max),
            "login-timeout" => print_time(self.login_time_max),
            "max-line" => self.line_bytes_max.to_string(),
            "outbox" => self.outbox_bytes_max.to_string(),
            "connections" => self.connections_max.unwrap_or(0).to_string(),
            "open" => self.is_open.to_string(),
            "log" => self.log.as_str().to_ascii_lowercase(),
            _ => unreachable!("{name} is not in the table of settings"),
        }
    }

    /// Checks what no single setting can tell: addresses against `open`, and
    /// connections against the open files this process may have, `files_max`.
    ///
    /// # Errors
    /// One sentence naming the setting, its value and what is allowed.
    pub fn check(&self, files_max: usize) -> Result<(), ConfigError> {
        if let (Some(addr), false) = (self.http, WEBSOCKET.is_built) {
            return Err(not_built("http", &addr.to_string(), &WEBSOCKET));
        }
        let addresses = self.listen.iter().map(|addr| ("listen", addr));
        for (name, addr) in addresses.chain(self.http.iter().map(|addr| ("http", addr))) {
            if !addr.ip().is_loopback() && !self.is_open {
                return Err(ConfigError(format!(
                    "--{name} {addr} is beyond loopback, where anybody could be any user: \
                     it takes a loopback address such as 127.0.0.1, or --open"
                )));
            }
        }
        let (one, other) = match (&self.redis, &self.amqp) {
            (Some(_), None) => ("redis", "amqp"),
            (None, Some(_)) => ("amqp", "redis"),
            _ => ("", ""),
        };
        if !one.is_empty() {
            return Err(ConfigError(format!(
                "--{one} alone is not allowed: a cluster takes --{other} too, a single node neither"
            )));
        }
        let connections_max = files_max.saturating_sub(FILES_RESERVED);
        match self.connections_max {
            Some(count) if count > connections_max => Err(ConfigError(format!(
                "--connections {count} is not allowed: this process may open {files_max} files, \
                 which is enough for {connections_max} connections"
            ))),
            None if connections_max == 0 => Err(ConfigError(format!(
                "--connections is not allowed to be as many as possible: this process may open only \
                 {files_max} files, and {FILES_RESERVED} of them are not for connections"
            ))),
            _ => Ok(()),
        }
    }

    /// The settings in force as a TOML file.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for setting in SETTINGS {
            let key = setting.name.replace('-', "_");
            let value = self.value(setting.name);
            let value = match setting.name {
                "listen" => format!("[{}]", value.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
                "open" => value,
                // A name of digits alone is no number: 007 would not even be TOML.
                "node" => quoted(&value),
                _ if value.bytes().all(|b| b.is_ascii_digit()) => value,
                _ => quoted(&value),
            };
            out.push_str(&format!("# {}\n{key} = {value}\n", setting.about));
        }
        out
    }
}

/// A setting asks for what this build does not have.
fn not_built(name: &str, value: &str, feature: &Feature) -> ConfigError {
    ConfigError(format!(
        "--{name} {value:?} is not allowed: it takes off, because this pinpost was built without \
         the feature {}",
        feature.name
    ))
}

fn quoted(text: &str) -> String {
    // Every value is plain ASCII without quotes: `set` takes no other.
    format!("\"{text}\"")
}

fn address(text: &str) -> Option<SocketAddr> {
    // Only "localhost" is looked up: a name server has no say in where a node listens.
    match text.parse() {
        Ok(addr) => Some(addr),
        Err(_) if text.starts_with("localhost:") => text.to_socket_addrs().ok()?.next(),
        Err(_) => None,
    }
}

/// `off` is none.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "off" { Some(None) } else { parse(text).map(Some) }
}

fn number(text: &str, least: usize, most: usize) -> Option<usize> {
    // Digits only: `parse` would take "+5" too.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (least..=most).contains(number))
}

/// A number and a unit: `ms`, `s`, `m`, `h` or `d`.
fn time(text: &str, least: Duration, most: Duration) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit_ms)?);
    (least..=most).contains(&time).then_some(time)
}

/// Prints a time in the largest unit of which it is several.
fn print_time(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = |(unit, _): &(u128, &str)| ms.is_multiple_of(*unit) && ms > *unit;
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1, "ms"));
    format!("{}{name}", ms / unit)
}

/// The host's name, as far as it can be part of a node id.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name: String = uname.nodename().to_string_lossy().chars().take(NodeId::NAME_BYTES_MAX).collect();
    if NodeId::is_name(&name) { name } else { "node".to_owned() }
}
