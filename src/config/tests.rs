//! Tests of settings: the table tells the truth, a value is told as it was set.
//!
//! Each group is a list of settings and values, to which a new setting adds the
//! ends of what it allows, and what is just beyond them. What a file or the
//! environment says is tested with the command, in `tests/command.rs`; addresses
//! of services are tested in their own file.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Config, Feature, SETTINGS};

#[test]
fn the_table_tells_the_defaults() {
    let mut config = Config::default();
    for setting in SETTINGS.iter().filter(|setting| setting.name != "node") {
        assert_eq!(config.value(setting.name), setting.default, "{}", setting.name);
        config.set(setting.name, setting.default).expect(setting.name);
    }
    assert_eq!(config, Config::default());
}

#[test]
fn what_is_set_is_told() {
    let good = [
        ("listen", "127.0.0.1:1"),
        ("listen", "127.0.0.1:1,[::1]:0"),
        ("http", "off"),
        ("http", "[::1]:80"),
        ("node", "pi-4.local_x"),
        ("redis", "off"),
        ("redis", "redis://:secret@127.0.0.1:6380/7"),
        ("amqp", "off"),
        ("amqp", "amqp://me:secret@pi.local/pinpost"),
        ("sessions", "1"),
        ("sessions", "1000"),
        ("mailbox", "0"),
        ("mailbox", "1000000"),
        ("mailbox-ttl", "1000ms"),
        ("mailbox-ttl", "36h"),
        ("mailbox-ttl", "7d"),
        ("mailbox-ttl", "365d"),
        ("mailbox-total", "1M"),
        ("mailbox-total", "1048577"),
        ("mailbox-total", "1024G"),
        ("login-timeout", "100ms"),
        ("login-timeout", "24h"),
        ("ping", "off"),
        ("ping", "100ms"),
        ("ping", "24h"),
        ("max-line", "65536"),
        ("outbox", "4096"),
        ("connections", "10000"),
        ("open", "true"),
        ("log", "debug"),
    ];
    for (name, value) in good {
        if !is_built(name) && value != "off" {
            continue;
        }
        let mut config = Config::default();
        config.set(name, value).expect(value);
        assert_eq!(config.value(name), value, "{name}");
    }
}

#[test]
fn the_name_of_an_interface_stands_for_its_number() {
    let mut config = Config::default();
    config.set("listen", "[fe80::1%lo]:7700,[fe80::1%lo]:7701").expect("there is a loopback interface");
    let SocketAddr::V6(addr) = config.listen[0] else { panic!("{:?}", config.listen) };
    assert!(addr.scope_id() > 0 && config.value("listen").starts_with("[fe80::1%"));
    for bad in ["[fe80::1%nosuch]:7700", "[fe80::1%]:7700", "[1.2.3.4%lo]:1", "[host%lo]:1", "[fe80::1%lo]:x"]
    {
        config.set("listen", bad).expect_err(bad);
    }
}

#[test]
fn what_is_not_allowed_changes_nothing() {
    let bad = [
        ("listen", ""),
        ("listen", "7700"),
        ("listen", "127.0.0.1"),
        ("listen", "example.org:7700"),
        ("listen", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"),
        ("http", "on"),
        ("node", ""),
        ("node", "a b"),
        ("redis", ""),
        ("redis", "127.0.0.1:6379"),
        ("redis", "rediss://127.0.0.1"),
        ("redis", "redis://127.0.0.1?db=3"),
        ("amqp", "localhost"),
        ("amqp", "amqps://localhost"),
        ("ping", "99ms"),
        ("ping", "25h"),
        ("ping", "0"),
        ("sessions", "0"),
        ("sessions", "1001"),
        ("sessions", "+1"),
        ("sessions", "-1"),
        ("mailbox", "1000001"),
        ("mailbox", "all"),
        ("mailbox-ttl", "0d"),
        ("mailbox-ttl", "7"),
        ("mailbox-ttl", "999ms"),
        ("mailbox-ttl", "366d"),
        ("mailbox-ttl", "d"),
        ("mailbox-total", "1023K"),
        ("mailbox-total", "1.5M"),
        ("mailbox-total", "M"),
        ("mailbox-total", "64MB"),
        ("mailbox-total", "1025G"),
        ("login-timeout", "60"),
        ("login-timeout", "0s"),
        ("login-timeout", "2d"),
        ("login-timeout", "1w"),
        ("login-timeout", "99999999999999999999s"),
        ("max-line", "63"),
        ("max-line", "65537"),
        ("outbox", "4095"),
        ("outbox", "1e6"),
        ("connections", "many"),
        ("open", "yes"),
        ("log", "loud"),
    ];
    for (name, value) in bad {
        let mut config = Config::default();
        let error = config.set(name, value).expect_err(value).to_string();
        let is_url = ["redis", "amqp"].contains(&name);
        let shown = if is_url { format!("--{name} is") } else { format!("--{name} {value:?} is") };
        assert!(error.contains(&shown), "{error}");
        assert_eq!(config, Config::default());
    }
    assert!(Config::default().set("nonsense", "1").is_err());
}

#[test]
fn what_only_the_whole_tells() {
    let config = |name: &str, value: &str| {
        let mut config = Config::default();
        config.set(name, value).expect(value);
        config
    };
    assert!(config("listen", "0.0.0.0:1").check(1024).expect_err("open").0.contains("--listen 0.0.0.0:1"));
    if is_built("http") {
        let error = config("http", "192.0.2.1:1").check(1024).expect_err("open").0;
        assert!(error.contains("--http 192.0.2.1:1"), "{error}");
    }
    let mut open = config("listen", "0.0.0.0:1");
    open.is_open = true;
    assert_eq!(open.check(1024), Ok(()));
    assert_eq!(config("connections", "960").check(1024), Ok(()));
    let error = config("connections", "961").check(1024).expect_err("too many").0;
    assert!(error.contains("--connections 961") && error.contains("960"), "{error}");
    assert!(Config::default().check(64).is_err());
    if is_built("redis") {
        let error = config("redis", "redis://h").check(1024).expect_err("no broker").0;
        assert!(error.contains("--redis alone") && error.contains("--amqp too"), "{error}");
        let error = config("amqp", "amqp://h").check(1024).expect_err("no store").0;
        assert!(error.contains("--amqp alone") && error.contains("--redis too"), "{error}");
    }
}

#[test]
fn what_is_not_built_in_is_refused() {
    for (name, value) in [("http", "127.0.0.1:1"), ("redis", "redis://h"), ("amqp", "amqp://h")] {
        let result = Config::default().set(name, value);
        let Some(feature) = missing(name) else {
            assert_eq!(result, Ok(()), "{name}");
            continue;
        };
        let error = result.expect_err(name).0;
        let shown = if name == "http" { format!("--{name} {value:?}") } else { format!("--{name}") };
        assert!(error.contains(&format!("{shown} is not allowed: it takes off")), "{error}");
        assert!(error.ends_with(&format!("the feature {}", feature.name)), "{error}");
        assert_eq!(Config::default().value(name), "off");
    }
    let program = Config::default().http(SocketAddr::from(([127, 0, 0, 1], 0)));
    assert_eq!(program.check(1024).is_ok(), is_built("http"));
}

#[test]
fn what_a_program_builds_is_checked_too() {
    let config = Config::ephemeral().sessions(1).mailbox(10).max_line(64).outbox(4096).connections(1);
    let config = config.mailbox_ttl(Duration::from_secs(1)).login_timeout(Duration::from_millis(100));
    let config = config.node("x").open(true).listen([([0, 0, 0, 0], 0).into(), ([127, 0, 0, 1], 0).into()]);
    assert_eq!(config.check(1024), Ok(()));
    let check = |config: Config, start: &str| {
        let error = config.check(1024).expect_err(start).0;
        assert!(error.starts_with(start), "{error}");
    };
    check(config.clone().sessions(0), "--sessions \"0\" is not allowed: it takes a number from 1");
    check(config.clone().node("a b"), "--node \"a b\"");
    check(config.clone().listen([]), "--listen \"\"");
    check(config.clone().login_timeout(Duration::from_micros(100)), "--login-timeout \"0ms\"");
    check(config.clone().outbox(1), "--outbox \"1\"");
    check(config.clone().mailbox_total(1 << 10), "--mailbox-total \"1K\"");
    check(config.open(false), "--listen 0.0.0.0:0 is beyond loopback");
}

/// Tells whether this build has what a setting needs.
fn is_built(name: &str) -> bool {
    missing(name).is_none()
}

fn missing(name: &str) -> Option<Feature> {
    SETTINGS.iter().find(|setting| setting.name == name).expect(name).missing()
}
