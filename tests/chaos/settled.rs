//! The end of a run: all is healed, and after a while everything is as it should be.

use std::time::{Duration, Instant};

use crate::history::{Fate, Leaving};
use crate::people::{DEVICES, Line, USERS};
use crate::plan::NODES;
use crate::rig::peer::{Heard, Peer, Wire};
use crate::rig::services::Services;
use crate::world::World;

/// How long anything may take to be as it should be.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Checks that everything is as it should be, then lets everybody leave.
pub fn check(world: &World, lines: Vec<Line>) {
    settles(world, "every message that is due a reply has one", || {
        let history = world.recorder.write();
        let is_due = |session: usize| history.sessions[session].ended.is_none();
        history.messages.iter().all(|message| !message.told.is_empty() || !is_due(message.session))
    });
    settles(world, "everybody who left is gone", || {
        let history = world.recorder.write();
        history.sessions.iter().filter(|session| session.ended.is_none()).count() == DEVICES.len()
    });
    let Services { redis, broker } = &world.services;
    let mut auditors: Vec<Option<Peer>> = (0..NODES).map(|node| auditor(world, node)).collect();
    for (node, auditor) in auditors.iter_mut().enumerate() {
        for user in 0..USERS {
            let mut heard = String::new();
            let is_so = settles(world, &format!("node {node} knows where user{user} is"), || {
                heard = auditor.as_mut().and_then(|auditor| who(auditor, user)).unwrap_or_default();
                heard == format!("@who OK user{user} online {}", devices(&format!("p:user{user}")))
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
    everyone_reaches_everyone(world, &lines);
    drop(auditors);
    let readers: Vec<_> = lines.into_iter().map(|line| line.leave_so(Leaving::Quits)).collect();
    settles(world, "everybody is let go", || readers.iter().all(|reader| reader.is_finished()));
    settles(world, "Redis has nobody", || users(world).is_empty());
}

/// How many devices the user has whose key this is; an auditor has one.
fn devices(key: &str) -> i64 {
    let count = |user: usize| DEVICES.iter().filter(|of| **of == user).count() as i64;
    key.strip_prefix("p:user").map_or(1, |user| count(user.parse().expect("a number")))
}

/// The keys of all users in Redis.
fn users(world: &World) -> Vec<String> {
    world.services.redis.command(&["KEYS", "p:*"]).list()
}

fn everyone_reaches_everyone(world: &World, lines: &[Line]) {
    let first = world.recorder.write().messages.len();
    for line in lines {
        (0..USERS).for_each(|user| line.send(user, 1));
    }
    settles(world, "everyone reaches everyone", || {
        let history = world.recorder.write();
        history.messages[first..].iter().all(|message| !message.told.is_empty())
    });
    let history = world.recorder.write();
    let failed = history.messages[first..].iter();
    let failed: Vec<String> = failed
        .filter(|message| !matches!(message.told[..], [(_, Fate::Delivered)]))
        .map(|message| format!("{message:?}"))
        .collect();
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
