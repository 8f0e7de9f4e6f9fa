//! What presence asks and tells, with a model in the place of Redis.

use std::time::Duration;

use super::*;
use crate::cluster::command::LeaseAct;
use crate::cluster::lease::{LEASE_TIME, RENEW_TIME};
use crate::cluster::presence::round::DEFERRED_AT_ONCE_MAX;
use crate::cluster::redis_model::RedisModel;
use crate::mailbox::Limits;
use crate::node::seam::{Location, Mail, News, Stored, Welcome};

/// A few nodes, and the Redis that they share.
struct World {
    redis: RedisModel,
    nodes: Vec<Node>,
    is_single: bool,
    made: usize,
}

struct Node {
    presence: Presence,
    told: Vec<Told>,
    /// What Redis was asked for.
    asked: Vec<RedisCommand>,
    /// Refuses commands, by what they look like, with whether that is final.
    refuses: Vec<(&'static str, bool)>,
    is_cut: bool,
}

const TICKET: Ticket = Ticket::from_number(7);

/// How often a node looks after itself in these tests.
const STEP_TIME: Duration = Duration::from_millis(20);

fn user(name: &str) -> UserName {
    UserName::parse(name).expect("valid")
}

fn bob() -> UserName {
    user("bob")
}

fn session(n: usize) -> SessionId {
    SessionId::parse(&format!("{n:08}")).expect("valid")
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("valid")
}

fn body(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

impl World {
    fn new(count: usize) -> Self {
        Self::with(count, false)
    }

    fn with(count: usize, is_single: bool) -> Self {
        let limits = Limits { messages_max: 3, time_max: Duration::from_secs(3_600), bytes_max: 64 << 20 };
        let redis = RedisModel::new(limits, Instant::now());
        let mut world = World { redis, nodes: vec![], is_single, made: 0 };
        (0..count).for_each(|_| world.join());
        world.told_all();
        world
    }

    /// One more node, `a-1`, `b-1` and so on, joins.
    fn join(&mut self) {
        let name = ["a", "b", "c", "d"][self.made];
        self.made += 1;
        let mut count = 1;
        let config = PresenceConfig {
            is_single: self.is_single,
            has_mailboxes: true,
            fresh_id: Box::new(move || {
                count += 1;
                node(&format!("{name}-{count}"))
            }),
        };
        let me = node(&format!("{name}-1"));
        let mut presence = Presence::new(me.clone(), config, self.redis.now);
        presence.has_queue(Some(me));
        self.nodes.push(Node { presence, told: vec![], asked: vec![], refuses: vec![], is_cut: false });
        self.run();
    }

    /// All do what they have to do now.
    fn run(&mut self) {
        for at in 0..self.nodes.len() {
            while self.step(at) {}
        }
    }

    /// One step of a node; `false` if there is none.
    fn step(&mut self, at: usize) -> bool {
        let (node, now) = (&mut self.nodes[at], self.redis.now);
        let Some(step) = node.presence.next(now) else {
            node.told.extend(node.presence.told());
            return false;
        };
        let result = match step {
            _ if node.is_cut => Err("it is cut off".to_owned()),
            PresenceStep::Connect => {
                node.presence.connected(false, now);
                Ok(())
            }
            PresenceStep::Run(commands) => {
                let run = |command: &RedisCommand| {
                    let printed = format!("{command:?}");
                    let refusal = node.refuses.iter().find(|(part, _)| printed.contains(part));
                    match refusal {
                        Some((_, is_final)) => {
                            RedisReply::Refused { is_final: *is_final, why: "no".to_owned() }
                        }
                        None => self.redis.run(command),
                    }
                };
                let replies = commands.iter().map(run).collect();
                node.asked.extend(commands);
                node.presence.replied(replies, now)
            }
        };
        if result.is_err() {
            node.presence.lost(now + RENEW_TIME);
        }
        // Whoever has a new id has a queue soon.
        let me = node.presence.me.clone();
        node.presence.has_queue(Some(me));
        node.told.extend(node.presence.told());
        true
    }

    fn pass(&mut self, time: Duration) {
        let end = self.redis.now + time;
        while self.redis.now < end {
            self.redis.pass(STEP_TIME);
            self.run();
        }
    }

    fn ask(&mut self, at: usize, ask: Ask) {
        self.nodes[at].presence.ask(ask);
    }

    /// What a node was told since the last time, answers and news only.
    fn told(&mut self, at: usize) -> Vec<Told> {
        self.run();
        let told = std::mem::take(&mut self.nodes[at].told);
        told.into_iter().filter(|told| matches!(told, Told::Answer(..) | Told::News(_))).collect()
    }

    fn told_all(&mut self) {
        (0..self.nodes.len()).for_each(|at| drop(self.told(at)));
    }

    /// The one answer to an ask.
    fn answer(&mut self, at: usize, ask: Ask) -> Answer {
        self.ask(at, ask);
        let mut told = self.told(at);
        told.retain(|told| matches!(told, Told::Answer(..)));
        match (told.pop(), told.pop()) {
            (Some(Told::Answer(TICKET, answer)), None) => answer,
            told => panic!("{told:?}"),
        }
    }

    fn register(&mut self, at: usize, name: &str, n: usize) -> Welcome {
        match self.answer(at, Ask { ticket: TICKET, user: user(name), what: What::Register(session(n)) }) {
            Answer::Registered(welcome) => welcome.expect("Redis is here"),
            answer => panic!("{answer:?}"),
        }
    }

    fn locate(&mut self, at: usize, name: &str) -> Result<Vec<Location>, Unavailable> {
        match self.answer(at, Ask { ticket: TICKET, user: user(name), what: What::Locate(false) }) {
            Answer::Located(locations) => locations,
            answer => panic!("{answer:?}"),
        }
    }

    fn unregister(&mut self, at: usize, name: &str, n: usize) {
        let ask = Ask { ticket: TICKET, user: user(name), what: What::Unregister(session(n)) };
        assert_eq!(self.answer(at, ask), Answer::Unregistered);
    }

    fn read(&mut self, at: usize, n: usize) -> Result<Mail, Unavailable> {
        match self.answer(at, Ask { ticket: TICKET, user: bob(), what: What::Read(session(n), 0) }) {
            Answer::Read(mail) => mail,
            answer => panic!("{answer:?}"),
        }
    }

    fn take(&mut self, name: &str, up_to: u64) {
        self.ask(0, Ask { ticket: Ticket::default(), user: user(name), what: What::Take(up_to, vec![]) });
    }

    /// What the first node has asked Redis for since the last time, in short, but for its lease.
    fn asked(&mut self) -> Vec<String> {
        let short = |command| match command {
            RedisCommand::Take { user, up_to, .. } => Some(format!("take {} {up_to}", user.as_str())),
            RedisCommand::Remove { user, node, session } => {
                Some(format!("remove {} {}{}", user.as_str(), node.as_str(), session.as_str()))
            }
            RedisCommand::Write { user, drains, .. } => Some(format!("write {} {drains}", user.as_str())),
            _ => None,
        };
        std::mem::take(&mut self.nodes[0].asked).into_iter().filter_map(short).collect()
    }
}

fn location(name: &str, sessions: &[usize]) -> Location {
    Location { node: node(name), sessions: sessions.iter().copied().map(session).collect() }
}

#[test]
fn who_logs_in_is_found_until_nobody_is_left() {
    let mut world = World::new(2);
    assert_eq!(world.locate(1, "bob"), Ok(vec![]));
    assert_eq!(world.register(0, "bob", 1), Welcome::default());
    assert_eq!(world.register(1, "bob", 2).before, [location("a-1", &[1])]);
    assert_eq!(world.register(0, "bob", 3).before, [location("b-1", &[2])]);
    assert_eq!(world.locate(1, "bob"), Ok(vec![location("a-1", &[1, 3])]));
    world.ask(1, Ask { ticket: Ticket::default(), user: bob(), what: What::Remove(node("a-1"), session(3)) });
    world.run();
    assert_eq!(world.locate(1, "bob"), Ok(vec![location("a-1", &[1])]));
    world.unregister(0, "bob", 1);
    world.unregister(0, "bob", 3);
    world.unregister(1, "bob", 2);
    assert_eq!(world.locate(0, "bob"), Ok(vec![]));
    assert!(world.redis.sessions.is_empty(), "nothing is left of users");
}

#[test]
fn of_two_logins_in_one_round_each_sees_the_other() {
    let mut world = World::new(1);
    for n in [1, 2] {
        world.ask(
            0,
            Ask { ticket: Ticket::from_number(n as u64), user: bob(), what: What::Register(session(n)) },
        );
    }
    world.run();
    let registered = |ticket, earlier| {
        let welcome = Welcome { earlier, ..Welcome::default() };
        Told::Answer(Ticket::from_number(ticket), Answer::Registered(Ok(welcome)))
    };
    assert_eq!(world.told(0), [registered(1, 0), registered(2, 1)], "both are here");
    let mut other = World::new(2);
    other.ask(0, Ask { ticket: TICKET, user: bob(), what: What::Register(session(1)) });
    let Some(PresenceStep::Run(first)) = other.nodes[0].presence.next(other.redis.now) else {
        panic!("it asks")
    };
    // The session is written, and then another logs in before the first reads.
    let mut replies: Vec<RedisReply> = first[..1].iter().map(|command| other.redis.run(command)).collect();
    other.redis.pass(STEP_TIME);
    assert_eq!(other.register(1, "bob", 2).before, [location("a-1", &[1])]);
    replies.extend(first[1..].iter().map(|command| other.redis.run(command)));
    other.nodes[0].presence.replied(replies, other.redis.now).expect("Redis is well");
    let welcome = Welcome { after: vec![location("b-1", &[2])], ..Welcome::default() };
    assert_eq!(other.told(0), [Told::Answer(TICKET, Answer::Registered(Ok(welcome)))]);
}

#[test]
fn the_sessions_of_a_user_are_read_once_however_many_ask() {
    let mut world = World::new(1);
    world.nodes[0].asked.clear();
    for n in 0..100 {
        world.ask(0, Ask { ticket: TICKET, user: bob(), what: What::Register(session(n)) });
        world.ask(0, Ask { ticket: TICKET, user: bob(), what: What::Locate(true) });
        world.ask(0, Ask { ticket: TICKET, user: user("carol"), what: What::Locate(true) });
    }
    assert_eq!(world.told(0).len(), 300);
    let asked =
        world.nodes[0].asked.iter().filter(|command| matches!(command, RedisCommand::Sessions { .. }));
    assert_eq!(asked.count(), 2);
}

#[test]
fn where_one_session_is_allowed_the_latest_wins() {
    let mut world = World::with(2, true);
    world.register(0, "bob", 1);
    assert_eq!(world.register(1, "bob", 2).before, [location("a-1", &[1])]);
    let replaced = |n| Told::News(News::Replaced(bob(), session(n)));
    // The loser finds out by its sweep, and the winner by its own, if nobody tells.
    world.nodes[0].presence.assert_all(world.redis.now);
    assert_eq!(world.told(0), [replaced(1)]);
    world.nodes[1].presence.assert_all(world.redis.now);
    let replaces = Told::News(News::Replaces(bob(), vec![location("a-1", &[1])]));
    assert_eq!(world.told(1), [replaces]);
    assert_eq!(world.redis.sessions[&bob()].len(), 1);
    world.ask(1, Ask { ticket: TICKET, user: bob(), what: What::Register(session(3)) });
    let welcome = Ok(Welcome { earlier: 1, ..Welcome::default() });
    assert_eq!(world.told(1), [replaced(2), Told::Answer(TICKET, Answer::Registered(welcome))]);
}

#[test]
fn a_node_whose_lease_has_run_out_is_dead_and_its_sessions_are_removed() {
    let mut world = World::new(3);
    world.register(0, "bob", 1);
    world.register(1, "bob", 2);
    world.nodes[0].is_cut = true;
    world.pass(LEASE_TIME + 2 * RENEW_TIME);
    assert_eq!(world.redis.nodes(), [&node("b-1"), &node("c-1")]);
    let buried = |told: &Told| matches!(told, Told::Nodes { dead, .. } if dead.contains(&node("a-1")));
    assert!(world.nodes[1].told.iter().any(buried));
    assert_eq!(world.locate(2, "bob"), Ok(vec![location("b-1", &[2])]));
    world.pass(STEP_TIME);
    assert_eq!(world.redis.sessions[&bob()].len(), 1, "whoever met it has removed it");
    // It comes back under a new id, and nobody has to ask for it to be there.
    world.nodes[0].is_cut = false;
    world.pass(2 * RENEW_TIME);
    assert!(world.nodes[0].told.contains(&Told::Renamed(node("a-2"))));
    assert_eq!(world.locate(2, "bob"), Ok(vec![location("a-2", &[1]), location("b-1", &[2])]));
    let elsewhere = News::Elsewhere(bob(), vec![node("b-1")]);
    assert!(world.told(0).contains(&Told::News(elsewhere)));
}

#[test]
fn when_redis_was_away_for_all_nobody_is_dead() {
    let mut world = World::new(3);
    world.nodes.iter_mut().for_each(|node| node.is_cut = true);
    world.pass(2 * LEASE_TIME);
    world.nodes[0].is_cut = false;
    world.pass(3 * RENEW_TIME);
    world.nodes.iter_mut().for_each(|node| node.is_cut = false);
    world.pass(2 * LEASE_TIME);
    assert_eq!(world.redis.nodes(), [&node("a-1"), &node("b-1"), &node("c-1")]);
}

#[test]
fn while_redis_is_away_asks_are_answered_at_once_and_removals_wait() {
    let mut world = World::new(2);
    world.register(0, "bob", 1);
    world.nodes[0].is_cut = true;
    // It finds out with the first.
    assert_eq!(world.locate(0, "bob"), Err(Unavailable));
    let unregister = Ask { ticket: TICKET, user: bob(), what: What::Unregister(session(1)) };
    world.ask(0, unregister);
    let store = Ask { ticket: TICKET, user: bob(), what: What::Store(vec![body("1")]) };
    world.ask(0, store.clone());
    let no = Answer::Stored(vec![Stored::No], Err(Unavailable));
    assert_eq!(world.told(0), [Told::Answer(TICKET, Answer::Unregistered), Told::Answer(TICKET, no)]);
    assert_eq!(world.locate(1, "bob"), Ok(vec![location("a-1", &[1])]));
    world.nodes[0].is_cut = false;
    world.pass(RENEW_TIME);
    assert_eq!(world.locate(1, "bob"), Ok(vec![]));
    // What was under way may have been done.
    world.ask(0, store);
    let Some(PresenceStep::Run(_)) = world.nodes[0].presence.next(world.redis.now) else { panic!("it asks") };
    let retry_at = world.redis.now;
    world.nodes[0].presence.lost(retry_at);
    let unknown = Answer::Stored(vec![Stored::Unknown], Err(Unavailable));
    assert_eq!(world.told(0), [Told::Answer(TICKET, unknown)]);
}

#[test]
fn another_redis_is_asked_for_its_whole_table() {
    let mut world = World::new(2);
    let now = world.redis.now;
    let mut known = |is_another: bool| {
        world.nodes[0].presence.lost(now);
        world.nodes[0].presence.connected(is_another, now);
        match world.nodes[0].presence.next(now) {
            Some(PresenceStep::Run(commands)) => match &commands[..] {
                [RedisCommand::Lease { known, .. }] => known.clone(),
                other => panic!("{other:?}"),
            },
            step => panic!("{step:?}"),
        }
    };
    assert!(!known(false).is_empty() && known(true).is_empty());
}

#[test]
fn when_redis_has_lost_its_data_users_are_looked_for_until_all_are_back() {
    let mut world = World::new(3);
    world.register(0, "bob", 1);
    world.register(1, "carol", 2);
    world.redis.empty();
    // The first to notice has a new id at once; the others come back as they renew.
    for name in ["bob", "carol", "nobody"] {
        world.ask(2, Ask { ticket: TICKET, user: user(name), what: What::Locate(false) });
    }
    world.step(2);
    assert_eq!(world.nodes[2].presence.told().len(), 0, "nobody is told that they are nowhere");
    world.pass(2 * RENEW_TIME);
    let found = |name| {
        let there = location(name, &[if name == "a-2" { 1 } else { 2 }]);
        Told::Answer(TICKET, Answer::Located(Ok(vec![there])))
    };
    let mut told = world.told(2);
    assert!(told.contains(&found("a-2")) && told.contains(&found("b-2")), "{told:?}");
    told.retain(|told| !matches!(told, Told::Answer(_, Answer::Located(Ok(_)))));
    assert!(told.is_empty(), "there is doubt about the third: {told:?}");
    world.pass(4 * RENEW_TIME);
    let unavailable = Told::Answer(TICKET, Answer::Located(Err(Unavailable)));
    assert_eq!(world.told(2), [unavailable], "it is not known");
    world.pass(10 * RENEW_TIME);
    assert_eq!(world.locate(2, "nobody"), Ok(vec![]), "all have written what they have");
}

/// What is to be run next.
#[test]
fn of_logins_that_race_each_is_told_how_many_came_before_it() {
    let mut world = World::new(2);
    for n in 0..20 {
        world.ask(n % 2, Ask { ticket: TICKET, user: bob(), what: What::Register(session(n)) });
    }
    let told: Vec<Told> = (0..2).flat_map(|at| world.told(at)).collect();
    let earlier = |told: Told| match told {
        Told::Answer(_, Answer::Registered(Ok(welcome))) => welcome.earlier,
        told => panic!("{told:?}"),
    };
    let mut ranks: Vec<usize> = told.into_iter().map(earlier).collect();
    ranks.sort_unstable();
    assert_eq!(ranks, (0..20).collect::<Vec<_>>());
}

const DAY_US: i64 = 86_400_000_000;

#[test]
fn a_day_that_redis_skips_makes_nobody_offline() {
    let mut world = World::new(2);
    for n in 0..1_000 {
        world.register(0, &format!("user{n}"), n);
    }
    for _ in 0..2 {
        world.pass(Duration::from_millis(300));
        world.redis.set_clock(DAY_US);
        let ask =
            |n: usize| Ask { ticket: TICKET, user: user(&format!("user{n}")), what: What::Locate(false) };
        (0..1_000).for_each(|n| world.ask(1, ask(n)));
        world.pass(Duration::from_secs(3));
        let told = world.told(1);
        assert_eq!(told.len(), 1_000);
        let is_found =
            |told: &Told| matches!(told, Told::Answer(_, Answer::Located(Ok(at))) if at.len() == 1);
        assert!(told.iter().all(is_found), "nobody is told that somebody is nowhere");
    }
}

#[test]
fn when_redis_goes_back_a_day_the_dead_are_found_and_later_logins_are_later() {
    let mut world = World::with(2, true);
    world.register(0, "bob", 1);
    world.redis.set_clock(-DAY_US);
    world.pass(RENEW_TIME);
    world.nodes[1].is_cut = true;
    world.pass(LEASE_TIME + 2 * RENEW_TIME);
    assert_eq!(world.redis.nodes(), [&node("a-1")]);
    world.told_all();
    world.register(0, "bob", 2);
    assert!(world.nodes[0].told.is_empty());
    let replaced =
        world.redis.sessions[&bob()].values().map(|(entry, _)| entry).max_by_key(|entry| entry.age());
    assert_eq!(replaced.map(|entry| entry.session), Some(session(2)));
}

#[test]
fn an_entry_that_somebody_deletes_is_written_again() {
    let mut world = World::new(2);
    for n in 0..300 {
        world.register(0, &format!("user{n}"), n);
    }
    world.register(0, "bob", 300);
    world.redis.sessions.remove(&bob());
    assert_eq!(world.locate(1, "bob"), Ok(vec![]), "nobody can know");
    // Somebody of his node asks where else he is.
    world.ask(0, Ask { ticket: TICKET, user: bob(), what: What::Locate(true) });
    world.pass(RENEW_TIME + STEP_TIME);
    assert_eq!(world.locate(1, "bob"), Ok(vec![location("a-1", &[300])]));
    // Nobody asks: one that the sweep finds missing is a sign that others are.
    world.pass(Duration::from_secs(40));
    world.redis.sessions.clear();
    world.pass(Duration::from_secs(11));
    assert_eq!(world.redis.sessions.len(), 301);
}

fn next_commands(presence: &mut Presence, now: Instant) -> Vec<RedisCommand> {
    let Some(PresenceStep::Run(commands)) = presence.next(now) else { panic!("nothing to run") };
    commands
}

/// Runs that.
fn run(presence: &mut Presence, redis: &mut RedisModel) -> Vec<RedisReply> {
    next_commands(presence, redis.now).iter().map(|command| redis.run(command)).collect()
}

#[test]
fn a_node_whose_join_was_not_answered_does_not_join_again_under_that_id() {
    for is_forgotten in [false, true] {
        let mut world = World::new(1);
        world.redis.empty();
        world.redis.pass(RENEW_TIME);
        let now = world.redis.now;
        let presence = &mut world.nodes[0].presence;
        let replies = run(presence, &mut world.redis);
        presence.replied(replies, now).expect("Redis is well");
        presence.has_queue(Some(node("a-2")));
        // One that was refused was not done, and is made again.
        for _ in 0..2 {
            let refused = RedisReply::Refused { is_final: false, why: "read only".to_owned() };
            let commands = next_commands(presence, now);
            assert!(
                matches!(&commands[..], [RedisCommand::Lease { act: LeaseAct::Join, .. }]),
                "{commands:?}"
            );
            assert!(presence.replied(vec![refused], now).is_err());
            presence.lost(now);
            presence.connected(false, now);
        }
        run(presence, &mut world.redis);
        presence.lost(now);
        if is_forgotten {
            world.redis.empty();
        }
        presence.connected(false, now);
        let replies = run(presence, &mut world.redis);
        presence.replied(replies, now).expect("Redis is well");
        assert_eq!(presence.me, node(if is_forgotten { "a-3" } else { "a-2" }));
        assert_eq!(presence.can_be_reached(), !is_forgotten);
    }
}

#[test]
fn a_node_joins_when_it_has_a_queue_or_has_waited_for_one() {
    let mut world = World::new(1);
    world.nodes[0].presence.has_queue(None);
    world.redis.empty();
    let now = world.redis.now + RENEW_TIME;
    world.redis.pass(RENEW_TIME);
    let presence = &mut world.nodes[0].presence;
    let mut answer = |presence: &mut Presence, step, now| {
        let Some(PresenceStep::Run(commands)) = step else { panic!("{step:?}") };
        let replies = commands.iter().map(|command| world.redis.run(command)).collect();
        presence.replied(replies, now).expect("Redis is well");
    };
    let step = presence.next(now);
    answer(presence, step, now);
    assert_eq!((presence.me.clone(), presence.next(now)), (node("a-2"), None));
    let due = presence.due();
    assert!(due > now && presence.next(due - STEP_TIME).is_none());
    let step = presence.next(due);
    answer(presence, step, due);
    assert!(presence.told().contains(&Told::Renewed), "without");
}

#[test]
fn a_stranger_is_dead() {
    let mut world = World::new(2);
    world.pass(RENEW_TIME);
    let presence = &mut world.nodes[0].presence;
    presence.strangers(vec![node("b-1"), node("x-1")]);
    let told = presence.told();
    assert!(matches!(&told[..], [Told::Nodes { dead, .. }] if *dead == [node("x-1")]), "{told:?}");
    presence.strangers(vec![node("x-1")]);
    assert!(presence.told().is_empty(), "known");
}

#[test]
fn mail_is_stored_where_the_recipient_may_be_all_the_same() {
    let mut world = World::new(2);
    world.register(0, "bob", 1);
    let messages = ["1", "2", "3", "4"].map(body).to_vec();
    let fates = vec![Stored::Yes, Stored::Yes, Stored::Yes, Stored::Full];
    let stored = Answer::Stored(fates, Ok(vec![location("a-1", &[1])]));
    assert_eq!(world.answer(1, Ask { ticket: TICKET, user: bob(), what: What::Store(messages) }), stored);
    assert!(world.register(1, "bob", 2).has_mail);
    world.nodes[0].presence.assert_all(world.redis.now);
    let mail = Told::News(News::Mail(bob()));
    assert!(world.told(0).contains(&mail), "if nobody tells, its sweep does");
    // Nobody tells what was stored when it can't be known where the recipient is.
    world.nodes[1].refuses = vec![("Sessions", false)];
    let store = Ask { ticket: TICKET, user: user("carol"), what: What::Store(vec![body("1")]) };
    let unknown = Answer::Stored(vec![Stored::Unknown], Err(Unavailable));
    assert_eq!(world.answer(1, store.clone()), unknown);
    world.nodes[1].refuses = vec![("Store", true)];
    let no = Answer::Stored(vec![Stored::No], Ok(vec![]));
    assert_eq!(world.answer(1, store), no);
}

#[test]
fn one_session_drains_a_mailbox_until_it_lets_go_or_its_node_is_dead() {
    let mut world = World::new(2);
    world.answer(0, Ask { ticket: TICKET, user: bob(), what: What::Store(vec![body("1")]) });
    world.register(0, "bob", 1);
    world.register(1, "bob", 2);
    world.register(1, "bob", 3);
    let Ok(Mail::Letters(letters)) = world.read(0, 1) else { panic!("it is free") };
    assert_eq!(letters.len(), 1);
    let is_with = |world: &World, at: usize| Ok(Mail::Busy(Some(world.nodes[at].presence.me.clone())));
    assert_eq!(world.read(1, 2), is_with(&world, 0));
    assert_eq!(world.read(0, 1), Ok(Mail::Letters(letters.clone())));
    world.ask(0, Ask { ticket: Ticket::default(), user: bob(), what: What::Release(session(1)) });
    world.run();
    assert_eq!(world.read(1, 2), Ok(Mail::Letters(letters.clone())));
    assert_eq!(world.read(1, 3), Ok(Mail::Busy(None)), "that is its own node");
    assert_eq!(world.read(0, 1), is_with(&world, 1));
    world.unregister(1, "bob", 2);
    assert_eq!(world.read(1, 3), Ok(Mail::Letters(letters.clone())), "who has ended drains nothing");
    world.nodes[1].is_cut = true;
    world.pass(LEASE_TIME + 2 * RENEW_TIME);
    assert_eq!(world.read(0, 1), Ok(Mail::Letters(letters)));
}

#[test]
fn removals_wait_for_what_was_deferred_before_them_and_for_no_others() {
    let mut world = World::new(1);
    world.nodes[0].is_cut = true;
    world.pass(2 * RENEW_TIME);
    // More than two rounds may have.
    (0..2 * DEFERRED_AT_ONCE_MAX + 1).for_each(|n| world.take("bob", n as u64));
    world.nodes[0].is_cut = false;
    while world.nodes[0].asked.len() < DEFERRED_AT_ONCE_MAX {
        world.redis.pass(STEP_TIME);
        world.step(0);
    }
    world.ask(0, Ask { ticket: Ticket::default(), user: bob(), what: What::Remove(node("x-1"), session(1)) });
    let takings = |from: usize, to: usize| (from..to).map(|n| format!("take bob {n}"));
    let asked = takings(0, DEFERRED_AT_ONCE_MAX).collect::<Vec<_>>();
    assert_eq!(world.asked(), asked);
    world.step(0);
    assert_eq!(world.asked().len(), DEFERRED_AT_ONCE_MAX, "nothing passes what waits");
    world.step(0);
    let last = 2 * DEFERRED_AT_ONCE_MAX;
    assert_eq!(world.asked(), [format!("take bob {last}"), format!("remove bob x-1{:08}", 1)]);
}

#[test]
fn what_is_refused_for_good_is_not_tried_again_and_holds_up_nothing() {
    for is_final in [true, false] {
        let mut world = World::new(1);
        world.register(0, "bob", 1);
        world.asked();
        world.nodes[0].refuses = vec![("\"bob\"", is_final)];
        world.take("bob", 7);
        world.ask(0, Ask { ticket: Ticket::default(), user: bob(), what: What::Release(session(1)) });
        world.ask(
            0,
            Ask { ticket: Ticket::default(), user: bob(), what: What::Remove(node("x-1"), session(2)) },
        );
        world.take("carol", 8);
        world.run();
        let all = ["take bob 7", "write bob false", "remove bob x-100000002", "take carol 8"];
        assert_eq!(world.asked(), all);
        assert_eq!(world.nodes[0].presence.away.is_none(), is_final, "it takes no writes");
        world.nodes[0].refuses = vec![];
        world.pass(2 * RENEW_TIME);
        let again = world.asked();
        let deferred: Vec<_> = again.iter().filter(|asked| !asked.starts_with("write")).collect();
        assert_eq!(deferred, if is_final { vec![] } else { vec!["take bob 7", "remove bob x-100000002"] });
    }
}

#[test]
fn a_session_keeps_its_mark_until_what_it_took_is_removed() {
    let mut world = World::new(1);
    world.register(0, "bob", 1);
    assert!(world.read(0, 1).is_ok());
    world.asked();
    world.nodes[0].is_cut = true;
    world.pass(2 * RENEW_TIME);
    world.take("bob", 1);
    world.ask(0, Ask { ticket: Ticket::default(), user: bob(), what: What::Release(session(1)) });
    // What a new connection to Redis begins with must not release it, and an attempt that fails does not.
    world.nodes[0].is_cut = false;
    world.nodes[0].refuses = vec![("drains: false", false)];
    world.pass(RENEW_TIME);
    assert_eq!(world.asked(), ["write bob true", "take bob 1", "write bob false"]);
    world.nodes[0].refuses = vec![];
    world.pass(RENEW_TIME);
    assert_eq!(world.asked(), ["write bob true", "write bob false"]);
    world.nodes[0].presence.assert_all(world.redis.now);
    world.run();
    assert_eq!(world.asked(), ["write bob false"]);
}

#[test]
fn a_session_that_drains_again_has_nothing_to_release() {
    let mut world = World::new(1);
    world.register(0, "bob", 1);
    world.asked();
    world.ask(0, Ask { ticket: Ticket::default(), user: bob(), what: What::Release(session(1)) });
    assert!(world.read(0, 1).is_ok());
    world.run();
    let drains = |world: &World| world.redis.sessions[&bob()].values().all(|(_, drains)| *drains);
    assert!(drains(&world), "it would lose its claim");
    assert_eq!(world.asked(), ["write bob false"], "before it");
    world.nodes[0].presence.assert_all(world.redis.now);
    world.run();
    assert!(drains(&world) && world.asked() == ["write bob true"]);
    // The end of a session is the end of its claim.
    world.ask(0, Ask { ticket: TICKET, user: bob(), what: What::Unregister(session(1)) });
    world.ask(0, Ask { ticket: Ticket::default(), user: bob(), what: What::Release(session(1)) });
    world.run();
    assert_eq!(world.asked(), [format!("remove bob a-1{:08}", 1)]);
}

#[test]
fn too_many_removals_are_worth_a_new_id() {
    let mut world = World::new(2);
    world.register(0, "bob", 1);
    world.nodes[0].is_cut = true;
    world.pass(2 * RENEW_TIME);
    for n in 0..DEFERRED_MAX + 1 {
        world.nodes[0].presence.ended(bob(), session(n));
    }
    world.nodes[0].is_cut = false;
    world.pass(2 * RENEW_TIME);
    assert_eq!(world.redis.nodes(), [&node("a-2"), &node("b-1")]);
    world.pass(10 * RENEW_TIME);
    assert_eq!(world.locate(1, "bob"), Ok(vec![]));
}

#[test]
fn who_goes_removes_what_is_left_and_answers_all() {
    let mut world = World::new(2);
    world.register(0, "bob", 1);
    world.take("bob", 7);
    world.ask(0, Ask { ticket: TICKET, user: bob(), what: What::Unregister(session(1)) });
    world.ask(0, Ask { ticket: Ticket::from_number(8), user: bob(), what: What::Locate(false) });
    world.nodes[0].presence.stop();
    world.ask(0, Ask { ticket: Ticket::from_number(9), user: bob(), what: What::Locate(false) });
    let located = |ticket| Told::Answer(Ticket::from_number(ticket), Answer::Located(Err(Unavailable)));
    let unregistered = Told::Answer(TICKET, Answer::Unregistered);
    assert_eq!(world.told(0), [unregistered, located(8), located(9)]);
    assert!(world.redis.sessions.is_empty());
    let leave = world.nodes[0].presence.leave();
    world.redis.run(&leave);
    assert_eq!(world.redis.nodes(), [&node("b-1")]);
}

#[test]
fn an_entry_of_this_node_that_it_does_not_know_is_removed() {
    let mut world = World::new(1);
    let (node, session) = (node("a-1"), session(9));
    world.redis.run(&RedisCommand::Write { user: bob(), node, session, since_us: None, drains: false });
    assert_eq!(world.locate(0, "bob"), Ok(vec![]));
    world.run();
    assert!(world.redis.sessions.is_empty());
}
