//! Single faults of the broker: what an operator may do to it, an alarm, and a short absence.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::again::{Again, slowest};
use crate::rig::services::Broker;
use crate::rig::until_in;
use crate::town::{RECOVERY_TIME_MAX, SLACK, Town, after, calm};

/// How long it may take a node to notice that it can't be reached.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(5);

/// A broker for tests in turn: what they do to it everybody on it notices.
fn broker() -> MutexGuard<'static, Option<Broker>> {
    static BROKER: Mutex<Option<Broker>> = Mutex::new(None);
    let mut broker = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
    broker.get_or_insert_with(Broker::own);
    broker
}

#[test]
fn queues_that_are_deleted_are_made_again() {
    is_not_noticed("deleted", Broker::delete_queues);
}

#[test]
fn connections_that_are_closed_are_opened_again() {
    is_not_noticed("closed", Broker::close_connections);
}

#[test]
fn a_queue_that_lost_its_binding_is_bound_again_within_seconds() {
    is_mended("unbound", |broker| broker.unbind("unbound-b"));
}

#[test]
fn an_exchange_that_is_deleted_is_made_again_within_seconds() {
    is_mended("exchange", Broker::delete_exchange);
}

/// Nobody has to do anything.
fn is_mended(name: &str, act: fn(&Broker)) {
    let broker = broker();
    let town = Town::new(name, broker.clone().expect("there is one"), 2);
    let ids = town.ids();
    let mut people = [town.login(0, "alice"), town.login(1, "bob")];
    for _ in 0..3 {
        people[0].sends("bob");
        act(&town.broker);
        let start = Instant::now();
        let mut is_mended =
            || people[0].sends("bob") == "delivered" && people[1].sends("alice") == "delivered";
        until_in(NOTICE_TIME_MAX + SLACK, "they reach each other", &mut is_mended);
        println!("{name}: mended after {:?}", start.elapsed());
    }
    town.is_whole(&mut people.iter_mut().collect::<Vec<_>>());
    assert_eq!(town.ids(), ids);
    town.is_left_by(people.into());
}

/// Every message arrives, a moment late at most.
fn is_not_noticed(name: &str, act: fn(&Broker)) {
    let broker = broker();
    let town = Town::new(name, broker.clone().expect("there is one"), 2);
    let ids = town.ids();
    let there = [town.login(0, "alice"), town.login(1, "bob")];
    let back = [town.login(1, "carol"), town.login(0, "dave")];
    let talks = [there, back].map(|pair| Again::start(pair, |[from, to]| from.reaches(to)));
    let mut people = vec![town.login(0, "erin"), town.login(1, "frank")];
    for _ in 0..3 {
        act(&town.broker);
        // Whatever is away now is back when they have reached each other.
        people.iter_mut().for_each(|person| assert_eq!(person.finds("alice"), "online 1"));
        town.is_whole(&mut people.iter_mut().collect::<Vec<_>>());
    }
    for talk in talks {
        let (pair, talked) = talk.end();
        println!("{name}: {} messages, the slowest took {:?}", talked.len(), slowest(&talked));
        assert!(slowest(&talked) < Duration::from_secs(2) + SLACK, "{:?}", slowest(&talked));
        people.extend(pair);
    }
    assert_eq!(town.ids(), ids);
    town.is_left_by(people);
}

#[test]
fn messages_wait_for_a_broker_that_is_back_in_a_moment() {
    let mut town = Town::with_ways("moment", calm(), 2);
    let mut people = vec![town.login(0, "alice"), town.login(1, "bob")];
    for _ in 0..5 {
        let way = &mut town.ways.as_mut().expect("it has some")[1];
        way.cut();
        let there = people[0].says_to("bob");
        let back = people[1].says_to("alice");
        way.heal();
        // Whether they were on their way already or not.
        assert_eq!(people[0].answer(&there), "delivered");
        assert_eq!(people[1].answer(&back), "delivered");
    }
    town.is_whole(&mut people.iter_mut().collect::<Vec<_>>());
    town.is_left_by(people);
}

#[test]
fn a_broker_without_memory_counts_as_away_for_messages_to_other_nodes() {
    let broker = broker();
    let town = Town::new("alarm", broker.clone().expect("there is one"), 2);
    let ids = town.ids();
    let [mut alice, xenia, yuri] = ["alice", "xenia", "yuri"].map(|name| town.login(0, name));
    let mut bob = town.login(1, "bob");
    let local = Again::start([xenia, yuri], |[xenia, yuri]| xenia.reaches(yuri));
    alice.reaches(&mut bob);
    town.broker.alarm(true);
    // The broker says that it reads no more when something comes, which may be this message.
    let first = alice.says_to("bob");
    after(Duration::from_secs(1), Instant::now());
    let start = Instant::now();
    let answer = alice.sends("bob");
    println!("alarm: {answer} after {:?}", start.elapsed());
    assert_eq!(answer, "unavailable");
    assert!(start.elapsed() < Duration::from_secs(4) + SLACK, "{:?}", start.elapsed());
    assert_eq!(alice.sends("bob"), "unavailable");
    assert_eq!(alice.finds("bob"), "online 1");
    let mut carol = town.login(0, "carol");
    assert_eq!(bob.finds("carol"), "online 1");
    town.broker.alarm(false);
    let fate = alice.answer(&first);
    assert!(matches!(&fate[..], "delivered" | "timeout" | "unavailable"), "{fate}");
    until_in(RECOVERY_TIME_MAX, "the broker takes messages", || alice.sends("bob") == "delivered");
    town.recovers(&mut [&mut alice, &mut bob, &mut carol]);
    let ([xenia, yuri], talked) = local.end();
    assert!(slowest(&talked) < SLACK, "{:?}", slowest(&talked));
    assert_eq!(town.ids(), ids);
    town.is_left_by(vec![alice, bob, carol, xenia, yuri]);
}
