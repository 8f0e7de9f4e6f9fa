//! The table of settings: one row has all that there is to know of a setting.
//!
//! A new setting is a row here, a field and a builder method in `values.rs`, and the
//! ends of what it allows in `tests.rs`.

use std::error::Error;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::config::features::{CLUSTER, Feature, WEBSOCKET};
use crate::config::services::{AMQP_FORM, Amqp, REDIS_FORM, Redis};
use crate::config::values::Config;
use crate::proto::{LINE_BYTES_LIMIT, NodeId};

/// A setting: its name, its default as text, the form of its value, its meaning.
#[derive(Debug)]
#[non_exhaustive]
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
    /// The feature that it needs to be anything but `off`.
    needs: Option<Feature>,
    /// Changes nothing and gives `None` when the text is not allowed.
    set: fn(&mut Config, &str) -> Option<()>,
    /// What `set` would take.
    value: fn(&Config) -> String,
}

impl Setting {
    /// The feature that it needs to be anything but `off`, if this build is without.
    pub fn missing(&self) -> Option<Feature> {
        self.needs.filter(|feature| !feature.is_built)
    }

    /// A line of a settings file, with the value as it is written there.
    pub(super) fn line(&self, value: &str) -> String {
        let quoted = |text: &str| format!("\"{text}\"");
        let value = match self.name {
            "listen" => format!("[{}]", value.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
            "open" => value.to_owned(),
            // A name of digits alone is no number: 007 would not even be TOML.
            "node" => quoted(value),
            _ if value.bytes().all(|b| b.is_ascii_digit()) => value.to_owned(),
            // Every value is plain ASCII without quotes: `set` takes no other.
            _ => quoted(value),
        };
        format!("{} = {value}", self.name.replace('-', "_"))
    }

    pub(super) fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
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
        needs: None,
        set: |config, text| {
            let addresses: Option<Vec<_>> = text.split(',').map(|addr| address(addr.trim())).collect();
            config.listen = addresses.filter(|addresses| (1..=2).contains(&addresses.len()))?;
            Some(())
        },
        value: |config| config.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(","),
    },
    Setting {
        name: "http",
        form: "ADDR",
        default: if WEBSOCKET.is_built { "127.0.0.1:7780" } else { "off" },
        about: "HTTP and WebSocket (/ws); off for none",
        allowed: "an IP address and a port, such as 127.0.0.1:7780, or off",
        needs: Some(WEBSOCKET),
        set: |config, text| optional(text, address).map(|http| config.http = http),
        value: |config| or_off(config.http.as_ref()),
    },
    Setting {
        name: "node",
        form: "NAME",
        default: "",
        about: "the readable part of the node id (default: the host name)",
        allowed: "1 to 32 of A-Z a-z 0-9 . _ -",
        needs: None,
        set: |config, text| NodeId::is_name(text).then(|| config.node = text.to_owned()),
        value: |config| config.node.clone(),
    },
    Setting {
        name: "redis",
        form: "URL",
        default: "off",
        about: "a cluster's Redis, which knows who is where; with --amqp",
        allowed: REDIS_FORM,
        needs: Some(CLUSTER),
        set: |config, text| optional(text, |text| Redis::parse(text).ok()).map(|redis| config.redis = redis),
        value: |config| or_off(config.redis.as_ref().map(Redis::url)),
    },
    Setting {
        name: "amqp",
        form: "URL",
        default: "off",
        about: "a cluster's RabbitMQ, which carries lines from node to node; with --redis",
        allowed: AMQP_FORM,
        needs: Some(CLUSTER),
        set: |config, text| optional(text, |text| Amqp::parse(text).ok()).map(|amqp| config.amqp = amqp),
        value: |config| or_off(config.amqp.as_ref().map(Amqp::url)),
    },
    Setting {
        name: "sessions",
        form: "N",
        default: "8",
        about: "sessions a user may hold; with 1 a new login replaces the old",
        allowed: "a number from 1 to 1000",
        needs: None,
        set: |config, text| number(text, 1, 1000).map(|count| config.sessions_max = count),
        value: |config| config.sessions_max.to_string(),
    },
    Setting {
        name: "mailbox",
        form: "N",
        default: "0",
        about: "messages kept for an absent user; 0: the sender gets ERR offline",
        allowed: "a number from 0 to 1000000",
        needs: None,
        set: |config, text| number(text, 0, 1_000_000).map(|count| config.mailbox_messages_max = count),
        value: |config| config.mailbox_messages_max.to_string(),
    },
    Setting {
        name: "mailbox-ttl",
        form: "TIME",
        default: "7d",
        about: "how long they are kept",
        allowed: "a time from 1s to 365d, such as 7d, 12h or 30m",
        needs: None,
        set: |config, text| time(text, 1_000, 365 * DAY_MS).map(|time| config.mailbox_time_max = time),
        value: |config| print_time(config.mailbox_time_max),
    },
    Setting {
        name: "mailbox-total",
        form: "SIZE",
        default: "64M",
        about: "what all mailboxes may take; in a cluster: all that is in Redis",
        allowed: "a size from 1M to 1024G, such as 64M",
        needs: None,
        set: |config, text| size(text, 1 << 20, 1 << 40).map(|bytes| config.mailbox_bytes_max = bytes),
        value: |config| print_size(config.mailbox_bytes_max),
    },
    Setting {
        name: "login-timeout",
        form: "TIME",
        default: "60s",
        about: "a connection that has not logged in by then gets BYE idle",
        allowed: "a time from 100ms to 24h, such as 60s, 500ms or 5m",
        needs: None,
        set: |config, text| time(text, 100, DAY_MS).map(|time| config.login_time_max = time),
        value: |config| print_time(config.login_time_max),
    },
    Setting {
        name: "ping",
        form: "TIME",
        default: "30s",
        about: "how often a WebSocket is sent a ping, so that proxies keep it; off for never",
        allowed: "a time from 100ms to 24h, such as 30s or 5m, or off",
        needs: None,
        set: |config, text| {
            optional(text, |text| time(text, 100, DAY_MS)).map(|time| config.ping_time = time)
        },
        value: |config| or_off(config.ping_time.map(print_time)),
    },
    Setting {
        name: "max-line",
        form: "BYTES",
        default: "4096",
        about: "the longest request line: all of it, with verb, names and line feed",
        allowed: "a number from 64 to 65536",
        needs: None,
        set: |config, text| number(text, 64, LINE_BYTES_LIMIT).map(|bytes| config.line_bytes_max = bytes),
        value: |config| config.line_bytes_max.to_string(),
    },
    Setting {
        name: "outbox",
        form: "BYTES",
        default: "262144",
        about: "bytes that may wait for one connection",
        allowed: "a number from 4096 to 1073741824",
        needs: None,
        set: |config, text| number(text, 4096, 1 << 30).map(|bytes| config.outbox_bytes_max = bytes),
        value: |config| config.outbox_bytes_max.to_string(),
    },
    Setting {
        name: "connections",
        form: "N",
        default: "0",
        about: "connections at the same time; 0 is as many as the open-file limit allows, less a reserve",
        allowed: "a number from 0 to what the open-file limit allows, less a reserve",
        needs: None,
        set: |config, text| {
            let count = number(text, 0, 1 << 24)?;
            config.connections_max = Some(count).filter(|count| *count > 0);
            Some(())
        },
        value: |config| config.connections_max.unwrap_or(0).to_string(),
    },
    Setting {
        name: "open",
        form: "",
        default: "false",
        about: "listen beyond loopback though nobody has to prove who they are",
        allowed: "true or false",
        needs: None,
        set: |config, text| text.parse().ok().map(|is_open| config.is_open = is_open),
        value: |config| config.is_open.to_string(),
    },
    Setting {
        name: "log",
        form: "LEVEL",
        default: "info",
        about: "what is logged to standard error",
        allowed: "off, error, warn, info, debug or trace",
        needs: None,
        set: |config, text| text.parse().ok().map(|level| config.log = level),
        value: |config| config.log.as_str().to_ascii_lowercase(),
    },
];

/// Files that are not for connections: listeners, what the reactor opens, those of the
/// threads for Redis and RabbitMQ, what signals come through, logs.
pub const FILES_RESERVED: usize = 64;

/// One sentence that names the setting, its value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}

impl Config {
    /// Sets one setting from text. `listen` takes one address or several, a comma between them.
    ///
    /// # Errors
    /// When there is no such setting, or the value is not allowed; nothing is changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let setting = Setting::find(name);
        let setting = setting.ok_or_else(|| ConfigError(format!("{name}: there is no such setting")))?;
        let why = match (setting.missing(), name) {
            (Some(Feature { name, .. }), _) if value != "off" => {
                format!("it takes off, because this pinpost was built without the feature {name}")
            }
            _ if (setting.set)(self, value).is_some() => return Ok(()),
            (_, "redis") => Redis::parse(value).err().unwrap_or_default(),
            (_, "amqp") => Amqp::parse(value).err().unwrap_or_default(),
            _ => format!("it takes {}", setting.allowed),
        };
        // A URL may have a password anywhere, when it is not of the right form.
        let shown = if setting.form == "URL" { String::new() } else { format!(" {value:?}") };
        Err(ConfigError(format!("--{name}{shown} is not allowed: {why}")))
    }

    /// The value of a setting as text: what [`Config::set`] would take.
    ///
    /// # Panics
    /// When there is no such setting.
    pub fn value(&self, name: &str) -> String {
        let setting = Setting::find(name).unwrap_or_else(|| panic!("{name}: there is no such setting"));
        (setting.value)(self)
    }

    /// Checks all settings, and what no single one can tell: addresses against `open`,
    /// and connections against the open files this process may have, `files_max`.
    ///
    /// # Errors
    /// One sentence naming the setting, its value and what is allowed.
    pub fn check(&self, files_max: usize) -> Result<(), ConfigError> {
        let mut copy = self.clone();
        SETTINGS.iter().try_for_each(|setting| copy.set(setting.name, &(setting.value)(self)))?;
        let addresses = self.listen.iter().map(|addr| ("listen", addr));
        for (name, addr) in addresses.chain(self.http.iter().map(|addr| ("http", addr))) {
            if !addr.ip().is_loopback() && !self.is_open {
                return Err(ConfigError(format!(
                    "--{name} {addr} is beyond loopback, where anybody could be any user: \
                     it takes a loopback address such as 127.0.0.1, or --open"
                )));
            }
        }
        if self.redis.is_some() != self.amqp.is_some() {
            let (one, other) = if self.redis.is_some() { ("redis", "amqp") } else { ("amqp", "redis") };
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
            let line = setting.line(&self.value(setting.name));
            out.push_str(&format!("# {}\n{line}\n", setting.about));
        }
        out
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    // Only "localhost" is looked up: a name server has no say in where a node listens.
    match text.parse() {
        Ok(addr) => Some(addr),
        Err(_) if text.starts_with("localhost:") => text.to_socket_addrs().ok()?.next(),
        Err(_) => {
            // `[fe80::1%eth0]:7700`: std knows numbers of interfaces, and the system their names.
            let (ip, rest) = text.strip_prefix('[')?.split_once('%')?;
            let (scope, port) = rest.split_once("]:")?;
            let (ip, port) = (ip.parse::<Ipv6Addr>().ok()?, port.parse::<u16>().ok()?);
            (format!("{ip}%{scope}"), port).to_socket_addrs().ok()?.next()
        }
    }
}

/// None is `off`.
fn or_off(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "off".to_owned(), |value| value.to_string())
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

/// A number of bytes, or with `K`, `M` or `G` of so many times 1,024 of them.
fn size(text: &str, least: u64, most: u64) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let power = ["", "K", "M", "G"].iter().position(|name| *name == unit)?;
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))?;
    (least..=most).contains(&bytes).then_some(bytes)
}

/// Prints a size in the largest unit of which it is several.
fn print_size(bytes: u64) -> String {
    let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)).unwrap_or((1, ""));
    format!("{}{name}", bytes / unit)
}

/// A number and a unit: `ms`, `s`, `m`, `h` or `d`.
fn time(text: &str, least_ms: u64, most_ms: u64) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (least_ms..=most_ms).contains(&ms).then(|| Duration::from_millis(ms))
}

/// Prints a time in the largest unit of which it is several.
fn print_time(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = |(unit, _): &(u128, &str)| ms.is_multiple_of(*unit) && ms > *unit;
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1, "ms"));
    format!("{}{name}", ms / unit)
}

const DAY_MS: u64 = 24 * 3_600_000;
