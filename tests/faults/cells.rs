//! One row of the table: who is there, what breaks, what each of them gets, and the recovery.
//!
//! All cells of a row are played at the same time, on the first node. A cell that fails leaves
//! the others alone.

use std::thread;
use std::time::{Duration, Instant};

use crate::again::{Again, Done, slowest};
use crate::person::Person;
use crate::rig::until_in;
use crate::rows::{Cell, Fault, show, tried};
use crate::town::{AT_ONCE, LEASE, RECOVERY_TIME_MAX, SLACK, Town, after};

use Fault::*;

/// How long messages wait for a broker that may be back any moment: `DOWN_TIME_MAX` of
/// `src/cluster/links.rs`, and until that is looked at.
const GIVE_UP_TIME: Duration = Duration::from_secs(4);

/// After what time nobody knows what became of a message, and how long the answer may take.
const UNKNOWN_TIME: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(12)];

/// How long a call to a Redis that says nothing takes.
const CALL_TIME: Duration = Duration::from_secs(1);

impl Fault {
    /// Redis can be reached from the first node.
    fn has_redis(self) -> bool {
        matches!(self, BrokerKilled | BrokerFrozen)
    }

    /// So can the broker.
    fn has_broker(self) -> bool {
        matches!(self, RedisKilled | RedisFrozen)
    }

    /// Nothing tells the node what has happened.
    fn is_silent(self) -> bool {
        matches!(self, RedisFrozen | BrokerFrozen | BothFrozen | NodeHangs)
    }

    /// How long the first answers may take that need Redis.
    fn redis_time_max(self) -> Duration {
        if !self.has_redis() && self.is_silent() { CALL_TIME + SLACK } else { SLACK }
    }

    fn begin(self, town: &mut Town) {
        match self {
            RedisKilled => town.redis.kill(),
            RedisFrozen => town.redis.freeze(),
            BrokerKilled => town.broker.kill(),
            BrokerFrozen => town.broker.freeze(),
            BothKilled => {
                town.broker.kill();
                town.redis.kill();
            }
            BothFrozen => {
                town.broker.freeze();
                town.redis.freeze();
            }
            NodeCut => town.cut_off(false),
            NodeHangs => town.cut_off(true),
        }
    }

    fn end(self, town: &mut Town) {
        match self {
            RedisKilled => town.redis.start(),
            RedisFrozen => town.redis.thaw(),
            BrokerKilled => town.broker.start(),
            BrokerFrozen => town.broker.thaw(),
            BothKilled => {
                // The nodes write to a Redis that has lost everything while others can't be told.
                town.redis.start();
                town.broker.start();
            }
            BothFrozen => {
                town.redis.thaw();
                town.broker.thaw();
            }
            NodeCut | NodeHangs => town.heal(),
        }
    }

    /// Which nodes go on under a new id.
    fn is_new(self, node: usize) -> bool {
        match self {
            // Redis has lost its data.
            RedisKilled | BothKilled => true,
            // A Redis that was away for longer than a lease does not cost anybody his id.
            RedisFrozen | BrokerKilled | BrokerFrozen | BothFrozen => false,
            NodeCut | NodeHangs => node == 0,
        }
    }
}

/// Plays a row; gives what came of the recovery.
pub fn play(fault: Fault, town: &mut Town) -> Result<(), String> {
    let last = town.nodes.len() - 1;
    let name = |role: &str| format!("{role}-{fault:?}");
    let at = |node: usize, role: &str| town.login(node, &name(role));
    let [mut alice, mut carol, mut dave, mut walter] =
        ["alice", "carol", "dave", "walter"].map(|role| at(0, role));
    let [mut bob, frank] = ["bob", "frank"].map(|role| at(1, role));
    let mut olga = at(last, "olga");
    let mut newcomer = Person::comes(town.nodes[0].tcp, &name("newcomer"));
    alice.reaches(&mut bob);
    let ids = town.ids();
    // What goes on all the time.
    let talk = Again::start([at(0, "xenia"), at(0, "yuri")], |[xenia, yuri]| xenia.reaches(yuri));
    let from_first = watch(at(0, "sentry"), &bob.name);
    let from_last = watch(at(last, "guard"), &alice.name);

    let since = Instant::now();
    fault.begin(town);
    thread::scope(|scope| {
        scope.spawn(|| show(fault, Cell::Login, || login(fault, &mut newcomer)));
        scope.spawn(|| show(fault, Cell::SendHere, || send_here(fault, &mut carol, &mut dave)));
        let [bob, frank] = [&bob.name, &frank.name];
        scope.spawn(|| show(fault, Cell::SendElsewhere, || send_elsewhere(fault, &mut alice, bob, frank)));
        scope.spawn(|| show(fault, Cell::Who, || who(fault, &mut walter, [bob, &name("dave")])));
        if matches!(fault, NodeCut | NodeHangs) {
            scope.spawn(|| show(fault, Cell::Others, || others(since, &mut olga, &name("alice"))));
        }
    });
    if matches!(fault, RedisFrozen) {
        // All leases have lapsed, and nobody is to lose his id for that.
        after(LEASE + CALL_TIME, since);
    }
    let until = Instant::now();
    fault.end(town);
    tried(|| {
        if !fault.has_redis() {
            let first = &mut newcomer;
            until_in(RECOVERY_TIME_MAX, "who could not log in can", || first.logs_in() == "in");
        }
        let mut people = [&mut alice, &mut bob, &mut olga, &mut newcomer];
        town.recovers(&mut people);
        println!("{fault:?}: whole again after {:?}", until.elapsed());
        let changed = ids.iter().zip(town.ids()).map(|(before, now)| *before != now);
        let expected = (0..=last).map(|node| fault.is_new(node));
        assert_eq!(changed.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "nodes with a new id");
        let ([xenia, yuri], talked) = talk.end();
        println!("{fault:?}: {} local messages, the slowest took {:?}", talked.len(), slowest(&talked));
        assert!(slowest(&talked) < Duration::from_secs(2) + SLACK, "{:?}", slowest(&talked));
        let (sentry, seen) = from_first.end();
        is_never_offline(fault, since, &seen);
        let (guard, seen) = from_last.end();
        if !matches!(fault, NodeCut | NodeHangs) {
            is_never_offline(fault, since, &seen);
        }
        let all = vec![alice, bob, carol, dave, frank, walter, olga, newcomer, xenia, yuri, sentry, guard];
        town.is_left_by(all);
    })
}

/// Asks all the time where somebody is.
fn watch(asker: Person, user: &str) -> Again<Person, String> {
    let user = user.to_owned();
    Again::start(asker, move |asker| asker.finds(&user))
}

/// While there is doubt, it is not said that somebody is offline.
fn is_never_offline(fault: Fault, since: Instant, seen: &[Done<String>]) {
    for done in seen {
        let is_fine = matches!(&done.what[..], "online 1" | "unavailable");
        assert!(is_fine, "{fault:?}: {:?} after {:?}", done.what, done.at - since);
    }
    let slowest = slowest(seen);
    println!("{fault:?}: WHO was asked {} times, the slowest took {slowest:?}", seen.len());
}

fn login(fault: Fault, newcomer: &mut Person) {
    let expected = if fault.has_redis() { "in" } else { "unavailable" };
    let start = Instant::now();
    assert_eq!(newcomer.logs_in(), expected);
    is_within(start.elapsed(), fault.redis_time_max());
    // It can be used, and asked again.
    assert_eq!(newcomer.asks("PING"), "PONG");
    if !fault.has_redis() {
        assert_eq!(newcomer.logs_in(), expected);
    }
}

/// Carol has not sent to Dave before: where else he is has to be asked.
fn send_here(fault: Fault, carol: &mut Person, dave: &mut Person) {
    let start = Instant::now();
    carol.reaches(dave);
    is_within(start.elapsed(), fault.redis_time_max());
    let quickest = (0..20).map(|_| {
        let start = Instant::now();
        carol.reaches(dave);
        start.elapsed()
    });
    is_within(quickest.min().expect("some"), AT_ONCE);
}

/// Alice has sent to Bob before, and not to Frank.
fn send_elsewhere(fault: Fault, alice: &mut Person, bob: &str, frank: &str) {
    let start = Instant::now();
    let [to_bob, to_frank] = [bob, frank].map(|to| alice.says_to(to));
    if fault.has_broker() {
        assert_eq!(alice.answer(&to_bob), "delivered");
        is_within(start.elapsed(), SLACK);
    }
    if !fault.has_redis() {
        // Whom she has to look for she can't find.
        assert_eq!(alice.answer(&to_frank), "unavailable");
        is_within(start.elapsed(), fault.redis_time_max());
    }
    if fault.has_broker() {
        for _ in 0..10 {
            assert_eq!(alice.sends(bob), "delivered");
            assert_eq!(alice.sends(frank), "unavailable");
        }
        return;
    }
    let waiting = if fault.has_redis() { vec![to_bob, to_frank] } else { vec![to_bob] };
    let mut is_late = false;
    for tag in waiting {
        let answer = alice.answer(&tag);
        let took = start.elapsed();
        match &answer[..] {
            // It was on its way before anybody could know.
            "timeout" => {
                assert!(took >= UNKNOWN_TIME[0], "{took:?}");
                is_within(took, UNKNOWN_TIME[1] + SLACK);
                is_late = true;
            }
            // Read after the other's answer, which took its time.
            "unavailable" if is_late => {}
            "unavailable" if !fault.is_silent() => is_within(took, GIVE_UP_TIME + SLACK),
            _ => panic!("{answer} after {took:?}"),
        }
    }
    // By now it is known.
    let (answer, took) = alice.sends_timed(bob);
    assert_eq!(answer, "unavailable");
    is_within(took, GIVE_UP_TIME + SLACK);
    let quickest = (0..10).map(|_| {
        let (answer, took) = alice.sends_timed(bob);
        assert_eq!(answer, "unavailable");
        took
    });
    is_within(quickest.min().expect("some"), AT_ONCE);
}

/// About somebody here, somebody elsewhere and nobody.
fn who(fault: Fault, walter: &mut Person, [elsewhere, here]: [&str; 2]) {
    for _ in 0..5 {
        for (user, presence) in [(elsewhere, "online 1"), (here, "online 1"), ("nobody", "offline")] {
            let start = Instant::now();
            let expected = if fault.has_redis() { presence } else { "unavailable" };
            assert_eq!(walter.finds(user), expected, "{user}");
            is_within(start.elapsed(), fault.redis_time_max());
        }
    }
}

/// What somebody on another node notices of Alice, whose node is cut off.
fn others(since: Instant, olga: &mut Person, alice: &str) {
    let first = olga.says_to(alice);
    let presence = || {
        let answer = olga.finds(alice);
        assert!(matches!(&answer[..], "online 1" | "offline"), "{answer}");
        answer == "offline"
    };
    until_in(RECOVERY_TIME_MAX, "Alice is offline", presence);
    let took = since.elapsed();
    println!("a node that was cut off is given up after {took:?}");
    is_within(took, LEASE + Duration::from_secs(2) + SLACK);
    // She may have it, if it was on its way.
    let answer = olga.answer(&first);
    assert!(matches!(&answer[..], "timeout" | "offline"), "{answer}");
    for _ in 0..3 {
        assert_eq!(olga.sends(alice), "offline");
        assert_eq!(olga.finds(alice), "offline");
    }
}

#[track_caller]
fn is_within(took: Duration, time_max: Duration) {
    assert!(took <= time_max, "{took:?} is more than {time_max:?}");
}
