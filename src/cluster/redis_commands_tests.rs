//! The scripts in a real Redis, and the model of it: the same commands, the same replies.

use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use super::*;
use crate::cluster::redis_model::RedisModel;
use crate::cluster::redis_thread::RedisConnection;
use crate::config::Redis;
use crate::node::seam::Letter;
use crate::proto::name::{IdRef, SessionId, Tag, UserRef};
use crate::proto::wire::put_body;

const LIMITS: Limits = Limits { messages_max: 5, time_max: Duration::from_secs(3_600), bytes_max: 64 << 20 };

/// A Redis of one's own, which ends with this process.
fn redis(name: &str) -> RedisConnection {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services.sh");
    let folder = std::env::temp_dir().join(format!("pinpost-{name}-{}", process::id()));
    let pid = process::id().to_string();
    let output =
        process::Command::new(script).arg("redis").arg(folder).args(["--for", &pid]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let url = String::from_utf8(output.stdout).unwrap();
    let mut connection = RedisConnection::new(Redis::parse(url.trim()).expect("a URL"));
    connection.connect().expect("it is there");
    connection
}

fn run(connection: &mut RedisConnection, command: &RedisCommand) -> RedisReply {
    let mut pipe = redis::pipe();
    pipe.add_command(printed(command, LIMITS));
    parsed(command, connection.run(&pipe).expect("it answers").pop().expect("a reply"))
}

/// The same of both, but for what their clocks tell.
fn comparable(reply: RedisReply) -> RedisReply {
    match reply {
        RedisReply::Lease(Some(held)) => {
            let mut living = held.living;
            living.iter_mut().for_each(|living| living.sort());
            RedisReply::Lease(Some(Lease {
                now_us: 0,
                was_misfit: false,
                version: String::new(),
                living,
                ..held
            }))
        }
        RedisReply::Sessions(mut entries) => {
            entries.sort_by_key(|entry| (entry.node.clone(), entry.session));
            let own_times = entries.iter_mut().filter(|entry| entry.since_us > 1 << 40);
            own_times.for_each(|entry| entry.since_us = i64::MAX);
            RedisReply::Sessions(entries)
        }
        RedisReply::Letters(letters) => {
            RedisReply::Letters(letters.into_iter().map(|letter| Letter { place: 0, ..letter }).collect())
        }
        reply => reply,
    }
}

/// A few users, nodes, sessions and messages, and commands about them.
struct Source {
    random: u64,
    /// What both told last: versions of the table, and places of letters.
    versions: [String; 2],
    places: [Vec<u64>; 2],
}

impl Source {
    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn user(&mut self) -> UserName {
        UserName::parse(["bob", "小明"][self.below(2) as usize]).expect("valid")
    }

    fn node(&mut self) -> NodeId {
        NodeId::parse(["a-1", "b-1", "c_2.x-9"][self.below(3) as usize]).expect("valid")
    }

    fn session(&mut self) -> SessionId {
        SessionId::parse(&format!("{:08}", self.below(3))).expect("valid")
    }

    fn body(&mut self) -> Vec<u8> {
        let (user, text) = (UserRef::parse("bob").expect("valid"), self.below(1_000).to_string());
        let mut body = vec![];
        put_body(user, user, IdRef::Tag(Tag::parse("1").expect("valid")), &text, &mut body);
        body
    }

    /// The same command for Redis and for the model.
    fn commands(&mut self) -> [RedisCommand; 2] {
        let (user, node, session) = (self.user(), self.node(), self.session());
        let command = match self.below(11) {
            0 => {
                let act = [LeaseAct::Join, LeaseAct::Renew, LeaseAct::Renew, LeaseAct::Leave]
                    [self.below(4) as usize];
                let is_busy = self.below(3) == 0;
                let knows = self.below(2) == 0;
                return [0, 1].map(|at| {
                    let known = if knows { self.versions[at].clone() } else { String::new() };
                    RedisCommand::Lease { node: node.clone(), act, known, is_busy }
                });
            }
            1 | 2 => RedisCommand::IsMember { node },
            3 | 4 => {
                let since_us = (self.below(2) == 0).then(|| self.below(1 << 40) as i64);
                RedisCommand::Write { user, node, session, since_us, drains: self.below(4) == 0 }
            }
            5 => RedisCommand::Remove { user, node, session },
            6 => RedisCommand::Sessions { user },
            7 => RedisCommand::HasMail { user },
            8 => RedisCommand::Store { user, messages: (0..self.below(4)).map(|_| self.body()).collect() },
            9 => RedisCommand::Claim { user, node, session },
            _ => {
                let picks: Vec<usize> = (0..3).map(|_| self.below(6) as usize).collect();
                let takes = self.below(2) == 0;
                return [0, 1].map(|at| {
                    let place = |pick: usize| self.places[at].get(pick).copied().unwrap_or(0);
                    if takes {
                        let also = vec![place(picks[0]), place(picks[1])];
                        return RedisCommand::Take { user: user.clone(), up_to: place(picks[2] / 3), also };
                    }
                    RedisCommand::Read { user: user.clone(), after: place(picks[0]) }
                });
            }
        };
        [command.clone(), command]
    }
}

#[test]
fn redis_and_its_model_reply_the_same() {
    let (mut redis, mut model) = (redis("model"), RedisModel::new(LIMITS, Instant::now()));
    let mut source = Source { random: 7, versions: Default::default(), places: Default::default() };
    let mut claimed = 0;
    for n in 0..20_000 {
        let [for_redis, for_model] = source.commands();
        // Its own clock, so that no two places or versions are the same.
        model.pass(Duration::from_micros(100));
        let replies = [run(&mut redis, &for_redis), model.run(&for_model)];
        for (at, reply) in replies.iter().enumerate() {
            match reply {
                RedisReply::Lease(Some(held)) => source.versions[at].clone_from(&held.version),
                RedisReply::Letters(letters) => {
                    source.places[at] = letters.iter().map(|letter| letter.place).collect();
                }
                _ => {}
            }
        }
        let is_one_of_many =
            matches!(&replies[..], [RedisReply::Claimed(Some(_)), RedisReply::Claimed(Some(_))]);
        claimed += u32::from(is_one_of_many);
        // Several may be marked by a write: then either names another.
        if !is_one_of_many {
            let [one, other] = replies.map(comparable);
            assert_eq!(one, other, "{n}: {for_redis:?}");
        }
    }
    assert!(claimed > 10, "{claimed}");
}

#[test]
fn what_makes_no_sense_is_refused_for_now() {
    let user = UserName::parse("bob").expect("valid");
    let node = NodeId::parse("a-1").expect("valid");
    let session = SessionId::parse("00000001").expect("valid");
    let commands = [
        RedisCommand::Sessions { user: user.clone() },
        RedisCommand::Claim { user: user.clone(), node: node.clone(), session },
        RedisCommand::Store { user: user.clone(), messages: vec![] },
        RedisCommand::Read { user: user.clone(), after: 0 },
        RedisCommand::Lease { node, act: LeaseAct::Renew, known: String::new(), is_busy: false },
    ];
    for command in &commands {
        for value in [Value::Okay, Value::SimpleString("x".into()), Value::Boolean(true)] {
            let reply = parsed(command, value.clone());
            assert!(
                matches!(reply, RedisReply::Refused { is_final: false, .. }),
                "{command:?} {value:?}: {reply:?}"
            );
        }
    }
}

#[test]
fn what_is_none_of_ours_is_replaced_where_nothing_is_lost_and_named_elsewhere() {
    let mut redis = redis("misfits");
    let mut set = |key: &str| {
        let mut pipe = redis::pipe();
        pipe.set(key, "x");
        redis.run(&pipe).expect("it answers");
    };
    ["p:bob", "p:carol", "m:bob", "{nodes}", "{nodes}:m", "{nodes}:d"].into_iter().for_each(&mut set);
    let (bob, carol) = (UserName::parse("bob").expect("valid"), UserName::parse("carol").expect("valid"));
    let (node, session) =
        (NodeId::parse("a-1").expect("valid"), SessionId::parse("00000001").expect("valid"));
    let misfit = |key: &str| RedisReply::Misfit { key: key.to_owned() };
    let write =
        RedisCommand::Write { user: bob.clone(), node: node.clone(), session, since_us: None, drains: false };
    let of_bob = RedisCommand::Sessions { user: bob.clone() };
    assert_eq!(run(&mut redis, &of_bob), misfit("p:bob"));
    for place in [Place::Misfit, Place::Known] {
        assert_eq!(run(&mut redis, &write), RedisReply::Wrote(place));
    }
    assert!(matches!(run(&mut redis, &of_bob), RedisReply::Sessions(entries) if entries.len() == 1));
    let of_carol = RedisCommand::Sessions { user: carol.clone() };
    assert_eq!(run(&mut redis, &of_carol), misfit("p:carol"));
    for user in [bob.clone(), carol] {
        assert_eq!(run(&mut redis, &RedisCommand::Clear { user }), RedisReply::Done);
    }
    assert_eq!(run(&mut redis, &of_carol), RedisReply::Sessions(vec![]));
    assert!(matches!(run(&mut redis, &of_bob), RedisReply::Sessions(entries) if entries.len() == 1));
    assert_eq!(run(&mut redis, &RedisCommand::HasMail { user: bob.clone() }), RedisReply::Flag(false));
    let store = RedisCommand::Store { user: bob.clone(), messages: vec![b"1".to_vec()] };
    assert_eq!(run(&mut redis, &store), misfit("m:bob"));
    assert_eq!(run(&mut redis, &RedisCommand::Read { user: bob, after: 0 }), misfit("m:bob"));
    for was_misfit in [true, false] {
        let join = RedisCommand::Lease {
            node: node.clone(),
            act: LeaseAct::Join,
            known: String::new(),
            is_busy: true,
        };
        let RedisReply::Lease(Some(lease)) = run(&mut redis, &join) else { panic!("it joins") };
        assert_eq!((lease.was_misfit, lease.living), (was_misfit, Some(vec![(node.clone(), VERSION)])));
    }
}
