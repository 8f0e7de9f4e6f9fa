//! A node that starts without its services, or loses them: what it says in its log, and that
//! it joins by itself.
//!
//! The nodes are processes that log at `debug`, so that attempts which fail can be counted;
//! what they log at `info` is all but the lines that begin with `debug`.

use std::time::{Duration, Instant};

use crate::person::Person;
use crate::rig::node::Node;
use crate::rig::program::{Program, command, run};
use crate::rig::resp::{Reply, Resp};
use crate::rig::until_in;
use crate::town::{RECOVERY_TIME_MAX, SLACK, Town, calm, id_of};

/// A password that is in no log.
const PASSWORD: &str = "s3cret";

/// A process, and what it has logged.
struct Logged {
    node: Program,
    lines: Vec<String>,
    /// How long the start took.
    took: Duration,
    id: String,
}

impl Logged {
    /// Starts one that is named as the third node of a town.
    fn start_in(town: &Town, [redis, amqp]: [String; 2]) -> Self {
        let (name, start) = (town.node_name(2), Instant::now());
        let node = Program::serve(&["--node", &name, "--redis", &redis, "--amqp", &amqp, "--log", "debug"]);
        let took = start.elapsed();
        Logged { id: id_of(node.tcp()), node, lines: vec![], took }
    }

    /// It waits 3 seconds for its services, and starts without.
    fn is_ready_in_time(&self) {
        assert!(self.took < Duration::from_secs(4) + SLACK, "ready after {:?}", self.took);
    }

    fn login(&self, name: &str) -> Person {
        Person::login(self.node.tcp(), name)
    }

    /// All lines that it has logged that hold this text.
    fn count(&mut self, text: &str) -> usize {
        self.lines.extend(self.node.troubles());
        self.lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until this was logged so often.
    #[track_caller]
    fn says(&mut self, text: &str, times: usize) {
        until_in(RECOVERY_TIME_MAX, &format!("it logs {text:?}"), || self.count(text) >= times);
    }

    /// What it has logged at `info` since the last time is this, line by line, in any order.
    #[track_caller]
    fn has_said(&mut self, expected: &[&str]) {
        expected.iter().for_each(|text| self.says(text, 1));
        assert!(!self.lines.iter().any(|line| line.contains(PASSWORD)), "{:?}", self.lines);
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain(|line| !line.starts_with("debug: "));
        let mut left = lines.clone();
        for text in expected {
            let at = left.iter().position(|line| line.contains(text));
            left.remove(at.unwrap_or_else(|| panic!("{text:?} is not in {lines:?}")));
        }
        assert!(left.is_empty(), "more than expected: {left:?}");
    }
}

#[test]
fn each_change_is_logged_once_when_services_refuse() {
    logs_each_change_once("refused", false, 3);
}

#[test]
fn each_change_is_logged_once_when_services_hang() {
    // It takes 8 seconds until a broker that says nothing is missed, and an attempt that hangs takes 5.
    logs_each_change_once("hangs", true, 1);
}

fn logs_each_change_once(name: &str, hangs: bool, attempts: usize) {
    let mut town = Town::with_ways(&format!("log-{name}"), calm(), 0);
    let ways = town.ways.as_ref().expect("it has some");
    let names = [("Redis", &ways[0]), ("RabbitMQ", &ways[1])];
    let names = names.map(|(name, way)| format!("{name} at {} is ", way.addr()));
    let mut node = Logged::start_in(&town, town.urls(0));
    node.has_said(&[]);
    town.cut_off(hangs);
    for name in &names {
        node.says(&format!("{name}still away: "), attempts);
    }
    town.heal();
    let lines = names.map(|name| [format!("warn: {name}away: "), format!("info: {name}back")]).concat();
    node.has_said(&lines.iter().map(|line| &line[..]).collect::<Vec<_>>());
    let mut alice = node.login("alice");
    assert_eq!(alice.finds("alice"), "online 1");
    assert_eq!(id_of(node.node.tcp()), node.id, "a node alone is taken for dead by nobody");
}

#[test]
fn what_is_not_bound_is_said_once_by_its_node_and_by_who_sends_there() {
    let town = Town::new("said", calm(), 1);
    let mut node = Logged::start_in(&town, town.urls(2));
    let (mut alice, mut carol) = (town.login(0, "alice"), node.login("carol"));
    carol.reaches(&mut alice);
    town.broker.unbind("said-c");
    node.has_said(&["is away: it has nothing bound for this node", "is back"]);
    town.broker.unbind("said-a");
    until_in(RECOVERY_TIME_MAX, "it is mended", || carol.sends("alice") == "delivered");
    let other = id_of(town.nodes[0].tcp);
    node.has_said(&[&format!("to the node {other} come back"), &format!("reach the node {other} again")]);
    town.is_left_by(vec![alice, carol]);
}

#[test]
fn a_node_starts_without_services_and_joins_when_they_are_there() {
    let mut town = Town::with_ways("without", calm(), 0);
    town.cut_off(false);
    let mut node = Logged::start_in(&town, town.urls(0));
    node.is_ready_in_time();
    let mut alice = Person::comes(node.node.tcp(), "alice");
    for _ in 0..3 {
        assert_eq!(alice.logs_in(), "unavailable");
        assert_eq!(alice.asks("PING"), "PONG");
    }
    // Others need not know of it.
    let other =
        Node::start(&[("node", "without-b"), ("redis", &town.redis.url()), ("amqp", &town.broker.url())]);
    let mut bob = Person::login(other.tcp, "bob");
    assert_eq!(bob.sends("alice"), "offline");
    town.heal();
    until_in(RECOVERY_TIME_MAX, "Alice is in", || alice.logs_in() == "in");
    town.others.extend([node.node.tcp(), other.tcp]);
    town.recovers(&mut [&mut alice, &mut bob]);
    node.has_said(&[
        "warn: Redis at ",
        "warn: RabbitMQ at ",
        "warn: Redis or RabbitMQ can't be reached",
        "info: Redis at ",
        "info: RabbitMQ at ",
    ]);
    town.is_left_by(vec![alice, bob]);
}

#[test]
fn a_node_that_can_join_nowhere_does_not_repeat_itself() {
    let mut town = Town::with_ways("nowhere", calm(), 0);
    town.ways.as_mut().expect("it has some")[1].cut();
    town.redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let mut node = Logged::start_in(&town, town.urls(0));
    node.says("Redis at 127.0.0.1:", 2);
    town.redis.command(&["REPLICAOF", "NO", "ONE"]);
    town.heal();
    node.has_said(&[
        "warn: Redis at ",
        "warn: RabbitMQ at ",
        "warn: Redis or RabbitMQ can't be reached",
        "warn: joining without RabbitMQ",
        "info: Redis at ",
        "info: RabbitMQ at ",
    ]);
    town.others.push(node.node.tcp());
    town.has_no_remains();
}

#[test]
fn a_wrong_password_for_redis_is_said_once_and_may_be_right_later() {
    let mut town = Town::new("redis-password", calm(), 0);
    let mut operator = Resp::connect(town.redis.addr()).expect("Redis is there");
    let mut set = |password: &str| {
        let reply = operator.command(&["CONFIG", "SET", "requirepass", password]);
        assert_eq!(reply.expect("the operator stays"), Reply::Text("OK".to_owned()));
    };
    set("an0ther");
    let [redis, amqp] = town.urls(0);
    let redis = redis.replace("redis://", &format!("redis://:{PASSWORD}@"));
    let mut node = Logged::start_in(&town, [redis, amqp]);
    node.is_ready_in_time();
    let mut alice = Person::comes(node.node.tcp(), "alice");
    assert_eq!(alice.logs_in(), "unavailable");
    node.says("still away: ", 3);
    set(PASSWORD);
    until_in(RECOVERY_TIME_MAX, "Alice is in", || alice.logs_in() == "in");
    assert_eq!(alice.finds("alice"), "online 1");
    node.has_said(&["warn: Redis at ", "warn: Redis or RabbitMQ can't be reached", "info: Redis at "]);
    // So that others can look.
    set("");
    town.others.push(node.node.tcp());
    town.has_no_remains();
    town.is_left_by(vec![alice]);
}

#[test]
fn a_wrong_password_for_the_broker_is_said_once_and_users_of_the_node_reach_each_other() {
    let town = Town::new("amqp-password", calm(), 2);
    let [redis, amqp] = town.urls(2);
    let mut node = Logged::start_in(&town, [redis, amqp.replace(":guest@", &format!(":{PASSWORD}@"))]);
    node.is_ready_in_time();
    let [mut alice, mut carol] = ["alice", "carol"].map(|name| node.login(name));
    let mut bob = town.login(0, "bob");
    alice.reaches(&mut carol);
    assert_eq!(alice.finds("bob"), "online 1");
    assert_eq!(bob.finds("alice"), "online 1");
    let to_alice = bob.says_to("alice");
    assert_eq!(alice.sends("bob"), "unavailable");
    node.says("still away: ", 2);
    // The node that he sends from can't know when she is to be reached; that nothing was sent it may know.
    let answer = bob.answer(&to_alice);
    assert!(["timeout", "unavailable"].contains(&&answer[..]), "{answer}");
    alice.reaches(&mut carol);
    node.has_said(&[
        "warn: RabbitMQ at ",
        "warn: Redis or RabbitMQ can't be reached",
        "warn: joining without RabbitMQ",
    ]);
    town.is_left_by(vec![alice, carol, bob]);
}

/// The line `user` of README.md, without this.
fn rights_without(right: &str) -> Vec<String> {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find_map(|line| line.strip_prefix("user pinpost ")).expect("it is there");
    let words = line
        .split(' ')
        .map(|word| if word.starts_with('>') { format!(">{PASSWORD}") } else { word.to_owned() });
    let rights: Vec<String> = words.filter(|word| word != right).collect();
    ["ACL", "SETUSER", "pinpost", "reset"].into_iter().map(str::to_owned).chain(rights).collect()
}

#[test]
fn a_redis_that_does_not_allow_all_is_away_and_says_once_what_is_missing() {
    let town = Town::new("rights", calm(), 0);
    let mut operator = Resp::connect(town.redis.addr()).expect("Redis is there");
    let mut allow_all_but = |right: &str| {
        let command = rights_without(right);
        let reply = operator.command(&command.iter().map(|word| &word[..]).collect::<Vec<_>>());
        assert_eq!(reply.expect("the operator stays"), Reply::Text("OK".to_owned()));
    };
    let [redis, amqp] = town.urls(0);
    let redis = redis.replace("redis://", &format!("redis://pinpost:{PASSWORD}@"));
    let check = || {
        let args = [
            "serve",
            "--check-services",
            "--log",
            "warn",
            "--mailbox",
            "10",
            "--redis",
            &redis,
            "--amqp",
            &amqp,
        ];
        run(&mut command(&args))
    };
    allow_all_but("");
    let ran = check();
    assert_eq!((ran.code, &ran.err[..]), (0, ""), "{}", ran.out);
    let args =
        ["--mailbox", "10", "--redis", &redis, "--amqp", &amqp, "--log", "debug", "--node", "rights-a"];
    let node = Program::serve(&args);
    let mut node = Logged { id: id_of(node.tcp()), node, lines: vec![], took: Duration::ZERO };
    let mut alice = node.login("alice");
    node.has_said(&["info: --mailbox-total: "]);
    for (right, missing) in [
        ("+hgetall", "HGETALL of p:*"),
        ("+lrange", "LRANGE of m:*"),
        ("~p:*", "HSET of p:*"),
        ("+zcard", "ZCARD of {nodes}"),
    ] {
        allow_all_but(right);
        // Whatever it does next that it needs this for.
        until_in(RECOVERY_TIME_MAX, "it is noticed", || {
            alice.sends("nobody");
            // There is mail to read.
            Person::comes(node.node.tcp(), "nobody").logs_in();
            node.count("is away: ") > 0
        });
        let mut bob = Person::comes(node.node.tcp(), "bob");
        assert_eq!(bob.logs_in(), "unavailable");
        node.says("is still away: it does not allow what a node needs: ", 3);
        node.says(missing, 1);
        allow_all_but("");
        node.has_said(&["warn: Redis at ", "info: Redis at "]);
    }
    allow_all_but("+rpush");
    let ran = check();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("needs: RPUSH of m:*; "), "{}", ran.err);
}
