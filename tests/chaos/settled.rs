//! The end of a run: all is healed, and after a while everything is as it should be.

use std::time::Duration;
use std::time::Instant;

use crate::history::Fate;
use crate::history::Leaving;
use crate::line::Line;
use crate::people::DEVICES;
use crate::people::Person;
use crate::people::USERS;
use crate::people::devices_of;
use crate::plan::NODES;
use crate::rig::peer::Heard;
use crate::rig::peer::Peer;
use crate::rig::peer::Wire;
use crate::rig::services::Services;
use crate::world::World;

/// How long anything may take to be as it should be.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Checks that everything is as it should be, then lets everybody leave.
pub fn check<'a>(world: &'a World, mut people: Vec<(Person<'a>, Line)>) {
    // Twice, because what has just been sent again may time out.
    let is_known = || people.iter().map(|(person, _)| person.device.memory().waiting()).sum::<usize>() == 0;
    for what in ["every message has a fate, or is given up", "every message has a fate at last"] {
        let is_so = settles(world, what, || {
            people.iter().for_each(|(_, line)| line.send_again());
            is_known()
        });
        if is_so {
            break;
        }
    }
    settles(world, "everybody who left is gone", || {
        let history = world.recorder.write();
        history.sessions.iter().filter(|session| session.ended.is_none()).count() == DEVICES.len()
    });
    let auditors = everyone_is_known(world);
    everyone_reaches_everyone(world, &people);
    settles(world, "nobody who is in has mail", || mail(world).is_empty());
    for (person, line) in &mut people {
        let before = std::mem::replace(line, person.come());
        before.leave(Leaving::Quits).join().expect("who hears does not panic");
    }
    if !settles(world, "nobody has mail", || mail(world).is_empty()) {
        world.recorder.oddity(format!("there is mail: {:?}", mail(world)));
    }
    drop(auditors);
    let readers: Vec<_> = people.into_iter().map(|(_, line)| line.leave(Leaving::Quits)).collect();
    settles(world, "everybody is let go", || readers.iter().all(|reader| reader.is_finished()));
    settles(world, "Redis has nobody", || users(world).is_empty());
}

/// Every node knows where everybody is, and so do Redis and the broker. Returns who has asked.
fn everyone_is_known(world: &World) -> Vec<Option<Peer>> {
    let Services { redis, broker } = &world.services;
    let mut auditors: Vec<Option<Peer>> = (0..NODES).map(|node| auditor(world, node)).collect();
    for (node, auditor) in auditors.iter_mut().enumerate() {
        for user in 0..USERS {
            let mut heard = String::new();
            let is_so = settles(world, &format!("node {node} knows where user{user} is"), || {
                heard = auditor.as_mut().and_then(|auditor| who(auditor, user)).unwrap_or_default();
                heard == format!("@who OK user{user} online {}", devices_of(user))
            });
            if !is_so {
                world.recorder.oddity(format!("node {node} says {heard:?} of user{user}"));
            }
        }
    }
    let mut keys: Vec<String> = vec![];
    let expected = USERS + NODES;
    if !settles(world, "Redis has a key for everybody, and no other", || {
        keys = users(world);
        keys.len() == expected
            && keys.iter().all(|key| redis.command(&["HLEN", key]).number() == devices(key))
    }) {
        world.recorder.oddity(format!("Redis has {keys:?}"));
    }
    settles(world, "Redis has the nodes", || redis.command(&["ZCARD", "{nodes}"]).number() == NODES as i64);
    settles(world, "the broker has a queue for each node", || broker.queues().len() == NODES);
    auditors
}

/// How many devices the user has whose key this is; an auditor has one.
fn devices(key: &str) -> i64 {
    key.strip_prefix("p:user").map_or(1, |user| devices_of(user.parse().expect("a number")))
}

/// The keys of all users in Redis.
fn users(world: &World) -> Vec<String> {
    world.services.redis.command(&["KEYS", "p:*"]).list()
}

/// The keys of all mailboxes in Redis.
fn mail(world: &World) -> Vec<String> {
    world.services.redis.command(&["KEYS", "m:*"]).list()
}

fn everyone_reaches_everyone(world: &World, people: &[(Person<'_>, Line)]) {
    let first = world.recorder.write().messages.len();
    let everyone: Vec<_> = (0..USERS).map(|user| (user, 1)).collect();
    people.iter().for_each(|(_, line)| line.send(&everyone));
    settles(world, "everyone reaches everyone", || {
        let history = world.recorder.write();
        history.messages[first..].iter().all(|message| message.attempts[0].told.is_some())
    });
    let history = world.recorder.write();
    let is_delivered = |fate: Option<(u64, Fate)>| matches!(fate, Some((_, Fate::Delivered)));
    let failed = history.messages[first..].iter().filter(|message| !is_delivered(message.fate()));
    let failed: Vec<String> = failed.map(|message| format!("{message:?}")).collect();
    drop(history);
    failed.into_iter().for_each(|message| world.recorder.oddity(format!("in the end: {message}")));
}

/// Somebody who asks a node; it may need a moment to take logins again.
fn auditor(world: &World, node: usize) -> Option<Peer> {
    let mut found = None;
    settles(world, &format!("node {node} takes logins"), || {
        found =
            world.addr(node).and_then(|addr| Peer::try_open(addr, Wire::Tcp).ok()).and_then(|mut peer| {
                let Ok(Heard::Line(_)) = peer.try_hear() else { return None };
                peer.try_say(format!("LOGIN auditor{node}").as_bytes()).ok()?;
                let Ok(Heard::Line(line)) = peer.try_hear() else { return None };
                line.starts_with("OK ").then_some(peer)
            });
        found.is_some()
    });
    found
}

fn who(auditor: &mut Peer, user: usize) -> Option<String> {
    auditor.try_say(format!("@who WHO user{user}").as_bytes()).ok()?;
    match auditor.try_hear() {
        Ok(Heard::Line(line)) => Some(line),
        _ => None,
    }
}

/// Waits until something is so. What takes too long is noted, and the run goes on.
fn settles(world: &World, what: &str, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if is_so() {
            if start.elapsed() > Duration::from_millis(100) {
                world.note(&format!("after {} ms: {what}", start.elapsed().as_millis()));
            }
            return true;
        }
        if start.elapsed() > SETTLE_TIME_MAX {
            world.recorder.oddity(format!("not within {SETTLE_TIME_MAX:?}: {what}"));
            return false;
        }
        world.park_until(Instant::now() + Duration::from_millis(10));
    }
}
