//! Single faults of Redis: it loses its data, refuses writes, changes its password, or says
//! nothing to many who ask.

use std::thread;
use std::time::{Duration, Instant};

use crate::again::{Again, slowest};
use crate::person::Person;
use crate::rig::node::Node;
use crate::rig::proxy::Proxy;
use crate::rig::resp::{Reply, Resp};
use crate::rig::services::Redis;
use crate::rig::until_in;
use crate::town::{LEASE, RECOVERY_TIME_MAX, SLACK, Town, after, calm};

#[test]
fn who_is_connected_is_found_again_after_a_flush() {
    let town = loses_its_data("flushed", |town| drop(town.redis.command(&["FLUSHALL"])));
    let mut alice = town.login(0, "alice");
    until_in(RECOVERY_TIME_MAX, "doubt ends", || alice.finds("nobody") == "offline");
}

#[test]
fn who_is_connected_is_found_again_after_a_restart() {
    loses_its_data("restarted", |town| {
        town.redis.kill();
        town.redis.start();
    });
}

fn loses_its_data(name: &str, lose: impl Fn(&Town)) -> Town {
    let town = Town::new(name, calm(), 2);
    let mut people = vec![town.login(0, "alice"), town.login(1, "bob"), town.login(1, "carol")];
    let watchers = [(0, "bob"), (1, "bob"), (0, "alice"), (1, "alice")].map(|(node, user)| {
        let sentry = town.login(node, &format!("sentry-of-{user}-{node}"));
        Again::start(sentry, move |sentry| sentry.finds(user))
    });
    let local = [town.login(0, "xenia"), town.login(0, "yuri")];
    let local = Again::start(local, |[xenia, yuri]| xenia.reaches(yuri));
    let mut losses = vec![];
    // The second time nobody is over the first yet.
    for _ in 0..2 {
        let ids = town.ids();
        losses.push(Instant::now());
        lose(&town);
        until_in(RECOVERY_TIME_MAX, "each node has a new id", || {
            let now = town.ids();
            ids.iter().all(|id| !now.contains(id))
        });
        town.recovers(&mut people.iter_mut().collect::<Vec<_>>());
        println!("{name}: whole again after {:?}", losses[losses.len() - 1].elapsed());
    }
    let (talkers, talked) = local.end();
    println!("{name}: the slowest local message took {:?}", slowest(&talked));
    assert!(slowest(&talked) < Duration::from_secs(2) + SLACK, "{:?}", slowest(&talked));
    people.extend(talkers);
    for watcher in watchers {
        let (sentry, seen) = watcher.end();
        println!("{name}: the slowest WHO of {} took {:?}", seen.len(), slowest(&seen));
        let is_fine = |answer: &str| matches!(answer, "online 1" | "unavailable");
        let wrong = seen.iter().find(|done| !is_fine(&done.what));
        let late = wrong
            .map(|done| losses.iter().map(|loss| done.at.checked_duration_since(*loss)).collect::<Vec<_>>());
        assert!(wrong.is_none(), "{}: {wrong:?}, begun {late:?} after the losses", sentry.name);
        people.push(sentry);
    }
    town.is_left_by(people);
    town
}

#[test]
fn a_redis_that_becomes_a_replica_counts_as_away() {
    let follow = |town: &Town, whom: [&str; 2]| {
        assert_eq!(town.redis.command(&["REPLICAOF", whom[0], whom[1]]).text(), "OK");
    };
    // For longer than a lease lasts.
    let time = LEASE + Duration::from_secs(1);
    refuses("replica", time, |town| follow(town, ["127.0.0.1", "1"]), |town| follow(town, ["NO", "ONE"]));
}

#[test]
fn a_redis_that_is_full_counts_as_away() {
    let limit = |town: &Town, bytes| {
        assert_eq!(town.redis.command(&["CONFIG", "SET", "maxmemory", bytes]).text(), "OK");
    };
    refuses("full", Duration::from_secs(1), |town| limit(town, "1"), |town| limit(town, "0"));
}

#[test]
fn a_redis_with_another_password_counts_as_away() {
    let town = Town::new("password", calm(), 2);
    let mut operator = Resp::connect(town.redis.addr()).expect("Redis is there");
    let mut set = |password: &str| {
        for words in [&["CONFIG", "SET", "requirepass", password][..], &["CLIENT", "KILL", "TYPE", "normal"]]
        {
            let reply = operator.command(words).expect("the operator stays");
            assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        }
    };
    let mut people = refused(&town, || set("an0ther"));
    set("");
    accepted(&town, &mut people);
    town.is_left_by(people);
}

/// A Redis that answers and takes no writes for some time.
fn refuses(name: &str, time: Duration, begin: impl FnOnce(&Town), end: impl FnOnce(&Town)) {
    let town = Town::new(name, calm(), 2);
    let ids = town.ids();
    let since = Instant::now();
    let mut people = refused(&town, || begin(&town));
    after(time, since);
    end(&town);
    accepted(&town, &mut people);
    // Nothing was lost, and nobody was given up.
    assert_eq!(town.ids(), ids);
    town.is_left_by(people);
}

/// What users notice of a Redis that refuses.
fn refused(town: &Town, begin: impl FnOnce()) -> Vec<Person> {
    let [mut alice, mut xenia, mut yuri] = ["alice", "xenia", "yuri"].map(|name| town.login(0, name));
    let [mut bob, mut carol] = ["bob", "carol"].map(|name| town.login(1, name));
    let mut newcomer = Person::comes(town.nodes[0].tcp, "newcomer");
    alice.reaches(&mut bob);
    begin();
    // Reading goes on until the lease is to be renewed.
    until_in(RECOVERY_TIME_MAX, "presence is away", || {
        let answer = alice.finds("bob");
        assert!(matches!(&answer[..], "online 1" | "unavailable"), "{answer}");
        answer == "unavailable"
    });
    for _ in 0..5 {
        assert_eq!(newcomer.logs_in(), "unavailable");
        assert_eq!(alice.finds("bob"), "unavailable");
        assert_eq!(alice.sends("carol"), "unavailable");
        alice.reaches(&mut bob);
        xenia.reaches(&mut yuri);
    }
    carol.reaches(&mut bob);
    vec![alice, bob, carol, xenia, yuri, newcomer]
}

/// It takes everybody again.
fn accepted(town: &Town, people: &mut [Person]) {
    let newcomer = people.last_mut().expect("there is one");
    until_in(RECOVERY_TIME_MAX, "the newcomer is in", || newcomer.logs_in() == "in");
    town.recovers(&mut people.iter_mut().collect::<Vec<_>>());
}

#[test]
fn a_redis_that_hangs_holds_many_who_ask_up_for_a_second_together() {
    let town = Town::new("crowd", calm(), 1);
    let mut people: Vec<Person> = (0..10).map(|n| town.login(0, &format!("asker{n}"))).collect();
    let mut newcomers: Vec<Person> =
        (0..10).map(|n| Person::comes(town.nodes[0].tcp, &format!("newcomer{n}"))).collect();
    town.redis.freeze();
    let start = Instant::now();
    for newcomer in &mut newcomers {
        newcomer.says(&format!("LOGIN {}", newcomer.name.clone()));
    }
    let asked: Vec<(usize, String)> =
        (0..200).map(|n| (n % 10, people[n % 10].says(&format!("WHO user{n}")))).collect();
    for (n, tag) in asked {
        assert_eq!(people[n].answer(&tag), "unavailable");
    }
    for newcomer in &mut newcomers {
        assert_eq!(newcomer.answer("1"), "unavailable");
    }
    println!("crowd: all were answered after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", start.elapsed());
    town.redis.thaw();
    for newcomer in &mut newcomers {
        until_in(RECOVERY_TIME_MAX, "they are in", || newcomer.logs_in() == "in");
    }
    people.extend(newcomers);
    town.is_left_by(people);
}

#[test]
fn who_is_here_is_announced_again_when_somebody_deletes_the_entry() {
    let town = Town::new("deleted-entry", calm(), 2);
    let mut people = ["alice", "bob", "carol"].map(|name| town.login(usize::from(name != "alice"), name));
    for _ in 0..2 {
        town.redis.command(&["DEL", "p:bob", "p:carol"]);
        let [alice, bob, carol] = &mut people;
        // Their own node holds both sessions.
        assert_eq!(carol.finds("bob"), "online 1");
        carol.reaches(bob);
        bob.reaches(carol);
        until_in(Duration::from_secs(10) + SLACK, "he is found", || alice.finds("bob") == "online 1");
        // Nobody may have asked for her: the sweep comes to a few sessions within 8 s.
        until_in(Duration::from_secs(10) + SLACK, "and so is she", || alice.finds("carol") == "online 1");
        alice.reaches(bob);
    }
    town.is_whole(&mut people.iter_mut().collect::<Vec<_>>());
    town.is_left_by(people.into());
}

#[test]
fn of_logins_that_race_at_different_distances_as_many_stay_as_may() {
    let (redis, broker) = (Redis::own(), calm());
    let ways = [0, 50, 100].map(|ms| Proxy::far(redis.addr(), Duration::from_millis(ms)));
    let nodes = ways.each_ref().map(|way| {
        let (redis, amqp) = (redis.url_at(way.addr()), broker.url());
        Node::start(&[("node", "far"), ("redis", &redis), ("amqp", &amqp), ("sessions", "8")])
    });
    let mut first = Person::login(nodes[2].tcp, "bob");
    for _ in 0..3 {
        let mut people: Vec<_> = (0..45).map(|n| Person::comes(nodes[n % 3].tcp, "bob")).collect();
        let login = |person: &mut Person| person.logs_in();
        let answers: Vec<String> = thread::scope(|scope| {
            let logins: Vec<_> = people.iter_mut().map(|person| scope.spawn(|| login(person))).collect();
            logins.into_iter().map(|login| login.join().expect("it is answered")).collect()
        });
        let is_in = |answer: &&String| *answer == "in";
        assert_eq!(answers.iter().filter(is_in).count(), 7, "{answers:?}");
        assert!(answers.iter().all(|answer| answer == "in" || answer == "too-many"), "{answers:?}");
        assert_eq!(first.finds("bob"), "online 8");
        for person in &mut people {
            assert_eq!(person.asks("PING"), "PONG");
        }
        drop(people);
        until_in(RECOVERY_TIME_MAX, "the others have left", || first.finds("bob") == "online 1");
    }
}
