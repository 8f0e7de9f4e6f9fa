//! Mailboxes in memory and in a real Redis: the same checks for both, and what only one can show.
//!
//! The checks talk to a [`Backend`] and know no more of it than what the node may rely on.
//! What is forged, such as an old message or garbage, stands in Redis, where others may write.

mod rig;

use std::time::{Duration, Instant};

use pinpost::internals::cluster::command::{RedisCommand, RedisReply};
use pinpost::internals::cluster::redis_commands::{parsed, printed};
use pinpost::internals::mailbox::memory::Mailboxes;
use pinpost::internals::mailbox::{Limits, READ_BYTES_MAX, READ_MESSAGES_MAX};
use pinpost::internals::node::seam::Letter;
use pinpost::internals::proto::name::{IdRef, NodeId, SessionId, Tag, UserName, UserRef};
use pinpost::internals::proto::wire::{parse_body, put_body};
use redis::{Connection, Value};

use rig::random::{Random, seeds};
use rig::services::Redis;
use rig::until;

const DAY: Duration = Duration::from_secs(86_400);

/// Where mailboxes are.
enum Backend {
    Memory(Mailboxes),
    /// The server ends with the last.
    Redis(Connection, Limits, #[expect(dead_code)] Redis),
}

fn store(user: &str, messages: &[Vec<u8>]) -> RedisCommand {
    RedisCommand::Store { user: name(user), messages: messages.to_vec() }
}

fn run(connection: &mut Connection, limits: Limits, command: &RedisCommand) -> RedisReply {
    parsed(command, printed(command, limits).query(connection).unwrap())
}

impl Backend {
    fn both(limits: Limits) -> [Backend; 2] {
        [Backend::Memory(Mailboxes::new(limits)), Backend::redis(limits)]
    }

    fn redis(limits: Limits) -> Self {
        let server = Redis::own();
        let client = redis::Client::open(server.url()).unwrap();
        Backend::Redis(client.get_connection().unwrap(), limits, server)
    }

    /// How many were stored, from the first on.
    fn store(&mut self, user: &str, messages: &[Vec<u8>]) -> usize {
        match self {
            Backend::Memory(mailboxes) => {
                let now = Instant::now();
                messages.iter().take_while(|message| mailboxes.store(user, message, now).is_ok()).count()
            }
            Backend::Redis(connection, limits, _) => match run(connection, *limits, &store(user, messages)) {
                RedisReply::Stored(count) => count,
                reply => panic!("{reply:?}"),
            },
        }
    }

    fn has(&mut self, user: &str) -> bool {
        match self {
            Backend::Memory(mailboxes) => mailboxes.has(user, Instant::now()),
            Backend::Redis(connection, limits, _) => {
                run(connection, *limits, &RedisCommand::HasMail { user: name(user) })
                    == RedisReply::Flag(true)
            }
        }
    }

    fn read(&mut self, user: &str, after: u64) -> Vec<Letter> {
        match self {
            Backend::Memory(mailboxes) => mailboxes.read(user, after, Instant::now()),
            Backend::Redis(connection, limits, _) => {
                match run(connection, *limits, &RedisCommand::Read { user: name(user), after }) {
                    RedisReply::Letters(letters) => letters,
                    reply => panic!("{reply:?}"),
                }
            }
        }
    }

    fn take(&mut self, user: &str, up_to: u64, also: &[u64]) {
        match self {
            Backend::Memory(mailboxes) => mailboxes.take(user, up_to, also),
            Backend::Redis(connection, limits, _) => {
                let command = RedisCommand::Take { user: name(user), up_to, also: also.to_vec() };
                assert_eq!(run(connection, *limits, &command), RedisReply::Done);
            }
        }
    }

    /// The texts of all that waits, read by read.
    fn texts(&mut self, user: &str) -> Vec<String> {
        let (mut texts, mut after) = (vec![], 0);
        loop {
            let read = self.read(user, after);
            let Some(last) = read.last() else { return texts };
            assert!(read.len() <= READ_MESSAGES_MAX);
            assert!(read[0].place > after && read.is_sorted_by(|one, other| one.place < other.place));
            after = last.place;
            texts.extend(read.iter().map(text));
        }
    }
}

fn limits(messages_max: usize, time_max: Duration) -> Limits {
    Limits { messages_max, time_max, bytes_max: 64 << 20 }
}

fn name(user: &str) -> UserName {
    UserName::parse(user).unwrap()
}

/// The body of a message.
fn message(to: &str, text: &str) -> Vec<u8> {
    let user = |name| UserRef::parse(name).unwrap();
    let id = text.chars().take(20).collect::<String>().replace(' ', "-");
    let mut body = vec![];
    put_body(user("alice"), user(to), IdRef::Tag(Tag::parse(&id).unwrap()), text, &mut body);
    body
}

fn messages(to: &str, texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| message(to, text)).collect()
}

fn text(letter: &Letter) -> String {
    parse_body(&letter.body).expect("a body").3.to_owned()
}

#[test]
fn what_is_stored_is_read_in_order_until_it_is_taken() {
    for mut backend in Backend::both(limits(100, DAY)) {
        for user in ["bob", "小明", "a}{b"] {
            assert!(!backend.has(user) && backend.read(user, 0).is_empty());
            assert_eq!(backend.store(user, &messages(user, &["1"])), 1);
            assert_eq!(backend.store(user, &messages(user, &["2", "3", "4", "5", "6"])), 5);
            assert!(backend.has(user));
            let read = backend.read(user, 0);
            assert_eq!(read[0].body, message(user, "1"));
            let places: Vec<u64> = read.iter().map(|letter| letter.place).collect();
            assert_eq!(backend.read(user, places[3]), read[4..]);
            assert_eq!(backend.read(user, u64::MAX), []);
            let mut check = |up_to, also: &[u64], expected: &[&str]| {
                for _ in 0..2 {
                    backend.take(user, up_to, also);
                    assert_eq!(backend.texts(user), expected);
                }
            };
            check(0, &[], &["1", "2", "3", "4", "5", "6"]);
            check(places[0] - 1, &[places[5] + 1], &["1", "2", "3", "4", "5", "6"]);
            check(places[0], &[places[4], places[2], places[0]], &["2", "4", "6"]);
            check(places[2], &[], &["4", "6"]);
            check(0, &[places[3]], &["6"]);
            check(u64::MAX, &[1], &[]);
            assert!(!backend.has(user));
        }
        if let Backend::Memory(mailboxes) = &backend {
            assert_eq!((mailboxes.bytes(), mailboxes.messages()), (0, 0));
        }
    }
}

#[test]
fn a_full_mailbox_refuses_and_knows_what_it_has() {
    for mut backend in Backend::both(limits(3, DAY)) {
        assert_eq!(backend.store("bob", &messages("bob", &["1", "2"])), 2);
        assert_eq!(backend.store("bob", &messages("bob", &["3", "4", "5"])), 1);
        assert_eq!(backend.store("bob", &messages("bob", &["3", "4", "5"])), 1, "as it was told before");
        assert_eq!(backend.store("bob", &messages("bob", &["1", "2", "3"])), 3);
        assert_eq!(backend.store("bob", &messages("bob", &["4"])), 0);
        assert_eq!(backend.texts("bob"), ["1", "2", "3"]);
        assert_eq!(backend.store("eve", &messages("eve", &["1"])), 1, "another user's mailbox is not full");
        let first = backend.read("bob", 0)[0].place;
        backend.take("bob", first, &[]);
        assert_eq!(backend.store("bob", &messages("bob", &["4", "5"])), 1);
        assert_eq!(backend.texts("bob"), ["2", "3", "4"]);
    }
    for mut backend in Backend::both(limits(0, DAY)) {
        assert_eq!(backend.store("bob", &messages("bob", &["1"])), 0);
        assert!(!backend.has("bob"));
    }
}

#[test]
fn ten_thousand_messages_are_read_in_order() {
    let texts: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    for mut backend in Backend::both(limits(10_000, DAY)) {
        for texts in texts.chunks(3_000) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(backend.store("bob", &messages("bob", &texts)), texts.len());
        }
        assert_eq!(backend.store("bob", &messages("bob", &["more"])), 0);
        assert_eq!(backend.texts("bob"), texts);
        let mut shown = vec![];
        loop {
            let read = backend.read("bob", 0);
            let Some(last) = read.last() else { break };
            backend.take("bob", last.place, &[]);
            shown.extend(read.iter().map(text));
        }
        assert_eq!(shown, texts);
        assert!(!backend.has("bob"));
    }
}

#[test]
fn a_read_is_bounded_in_bytes() {
    let (long, short) = ("x".repeat(READ_BYTES_MAX), "y".repeat(READ_BYTES_MAX / 3));
    for mut backend in Backend::both(limits(100, DAY)) {
        let texts = [&long[..], &short, "1", &short, &short, "2", &long];
        assert_eq!(backend.store("bob", &messages("bob", &texts)), texts.len());
        let (mut counts, mut after) = (vec![], 0);
        loop {
            let read = backend.read("bob", after);
            let Some(last) = read.last() else { break };
            after = last.place;
            counts.push(read.len());
        }
        assert_eq!(counts, [1, 3, 2, 1]);
        assert_eq!(backend.texts("bob"), texts);
    }
}

#[test]
fn messages_expire() {
    for mut backend in Backend::both(limits(2, Duration::from_millis(100))) {
        assert_eq!(backend.store("bob", &messages("bob", &["1", "2"])), 2);
        until("there is room again", || backend.store("bob", &messages("bob", &["3"])) == 1);
        until("they have expired", || backend.read("bob", 0).is_empty());
        until("the mailbox is gone", || !backend.has("bob"));
    }
}

#[test]
fn random_calls_mean_the_same_to_both() {
    for seed in seeds(2) {
        let mut random = Random(seed);
        let mut backends = Backend::both(limits(40, DAY));
        // What was read last: the places, for each user and backend.
        let mut places_of: [[Vec<u64>; 2]; 2] = Default::default();
        for n in 0..1_500 {
            let who = random.below(2);
            let (user, places) = (["bob", "小明"][who], &mut places_of[who]);
            match random.below(3) {
                0 => {
                    let count = 1 + random.below(20);
                    let sent: Vec<_> = (0..count).map(|i| message(user, &format!("{n}.{i}"))).collect();
                    let stored = backends.each_mut().map(|backend| backend.store(user, &sent));
                    assert_eq!(stored[0], stored[1]);
                }
                1 => {
                    let at = random.below(places[0].len() + 1);
                    let after = [0, 1].map(|i| places[i].get(at).copied().unwrap_or(0));
                    let [one, other] = [0, 1].map(|i| backends[i].read(user, after[i]));
                    let texts = |read: &[Letter]| read.iter().map(text).collect::<Vec<_>>();
                    assert_eq!(texts(&one), texts(&other));
                    *places = [one, other].map(|read| read.iter().map(|letter| letter.place).collect());
                    let texts = backends.each_mut().map(|backend| backend.texts(user));
                    assert_eq!(texts[0], texts[1]);
                    if random.below(2) == 0 {
                        let picks: Vec<usize> = (0..4).map(|_| random.below(places[0].len() + 5)).collect();
                        for i in [0, 1] {
                            let place = |at: usize| places[i].get(picks[at] / (1 + at)).copied().unwrap_or(0);
                            backends[i].take(user, place(3), &[place(0), place(1), place(2)]);
                        }
                    }
                }
                _ => {
                    let has = backends.each_mut().map(|backend| backend.has(user));
                    assert_eq!(has[0], has[1]);
                }
            }
        }
    }
}

/// A message as it stands in Redis.
fn element(place: u64, text: &str) -> Vec<u8> {
    [format!("{place:016}\x03").into_bytes(), message("bob", text)].concat()
}

#[test]
fn redis_tells_by_its_own_clock_what_is_old() {
    let mut backend = Backend::redis(limits(3, Duration::from_secs(60)));
    assert_eq!(backend.store("bob", &messages("bob", &["now"])), 1);
    let now = backend.read("bob", 0)[0].place;
    let Backend::Redis(connection, ..) = &mut backend else { unreachable!() };
    let ttl: u64 = redis::cmd("PTTL").arg("m:bob").query(connection).unwrap();
    assert!((50_000..=60_000).contains(&ttl), "{ttl}");
    let mut push = |command: &str, age_s: u64, text: &str| {
        let element = element(now - age_s * 1_000_000, text);
        redis::cmd(command).arg("m:bob").arg(element).exec(connection).unwrap();
    };
    push("LPUSH", 50, "young");
    push("LPUSH", 61, "old");
    push("LPUSH", 62, "older");
    assert_eq!(backend.store("bob", &messages("bob", &["new", "no"])), 1, "what is old does not count");
    assert_eq!(backend.texts("bob"), ["young", "now", "new"]);
    // A clock that was set back gives no place twice.
    let Backend::Redis(connection, ..) = &mut backend else { unreachable!() };
    let ahead = now + 3_600_000_000;
    redis::cmd("RPUSH").arg("m:eve").arg(element(ahead, "ahead")).exec(connection).unwrap();
    assert_eq!(backend.store("eve", &messages("eve", &["1", "2"])), 2);
    let places: Vec<u64> = backend.read("eve", 0).iter().map(|letter| letter.place).collect();
    assert_eq!(places, [ahead, ahead + 1, ahead + 2]);
}

#[test]
fn garbage_in_redis_is_skipped() {
    let mut backend = Backend::redis(limits(100, DAY));
    let Backend::Redis(connection, ..) = &mut backend else { unreachable!() };
    let now: (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    let place = |n: u64| now.0 * 1_000_000 + n;
    let cut_off = |n: u64| element(place(n), "cut off")[..29].to_vec();
    let elements = [
        b"".to_vec(),
        b"garbage".to_vec(),
        element(place(1), "1"),
        b"zzzzzzzzzzzzzzzzzzzzzzzz".to_vec(),
        cut_off(2),
        element(place(3), "3"),
        vec![0xff; 1_000],
        element(place(4), "4"),
        b"                ".to_vec(),
        b"0000000000000001".to_vec(),
    ];
    redis::cmd("RPUSH").arg("m:bob").arg(&elements[..]).exec(connection).unwrap();
    assert_eq!(backend.texts("bob"), ["1", "3", "4"]);
    assert_eq!(backend.store("bob", &messages("bob", &["5", "6"])), 2);
    assert_eq!(backend.texts("bob"), ["1", "3", "4", "5", "6"]);
    backend.take("bob", place(1), &[place(4)]);
    assert_eq!(backend.texts("bob"), ["3", "5", "6"]);
    let last = backend.read("bob", 0)[2].place;
    backend.take("bob", last, &[]);
    assert!(!backend.has("bob"));
    // A key of another kind is an error, and so is a reply of another kind.
    let Backend::Redis(connection, limits, _) = &mut backend else { unreachable!() };
    redis::cmd("SET").arg("m:bob").arg("text").exec(connection).unwrap();
    let (read, store) = (RedisCommand::Read { user: name("bob"), after: 0 }, store("bob", &[]));
    assert!(printed(&read, *limits).query::<Value>(connection).is_err());
    for value in [Value::Nil, Value::Okay, Value::Int(-1)] {
        for command in [&read, &store] {
            let reply = parsed(command, value.clone());
            assert!(matches!(reply, RedisReply::Refused { is_final: false, .. }), "{reply:?}");
        }
    }
}

#[test]
fn a_redis_without_memory_stores_nothing_and_gives_what_it_has() {
    let mut backend = Backend::redis(limits(100, DAY));
    assert_eq!(backend.store("bob", &messages("bob", &["1", "2", "3", "4"])), 4);
    let Backend::Redis(connection, ..) = &mut backend else { unreachable!() };
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(connection).unwrap();
    assert_eq!(backend.store("bob", &messages("bob", &["5"])), 0);
    let read = backend.read("bob", 0);
    assert_eq!(read.len(), 4);
    backend.take("bob", read[0].place, &[read[2].place]);
    assert_eq!(backend.texts("bob"), ["2", "4"]);
}

#[test]
fn mail_leaves_room_in_redis_for_presence() {
    const MIB: u64 = 1 << 20;
    // By the setting, and by what Redis has.
    for (total, maxmemory, most) in [(6 * MIB, 0, 6 * MIB), (64 * MIB, 8 * MIB, 6 * MIB)] {
        let mut backend = Backend::redis(Limits { bytes_max: total, ..limits(1_000, DAY) });
        let Backend::Redis(connection, ..) = &mut backend else { unreachable!() };
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(maxmemory).exec(connection).unwrap();
        let text = "x".repeat(2_000);
        let mail = |user: &str| messages(user, &[&text]);
        let users: Vec<String> = (0..10_000).map(|n| format!("user{n}")).collect();
        let stored = users.iter().take_while(|user| backend.store(user, &mail(user)) == 1).count();
        assert!((1_000..most as usize / 2_000).contains(&stored), "{stored}");
        // What is there is there, and everybody may still log in.
        assert_eq!(backend.store(&users[0], &mail(&users[0])), 1);
        let (node, session) = (NodeId::parse("a-1").unwrap(), SessionId::parse("00000001").unwrap());
        let Backend::Redis(connection, limits, _) = &mut backend else { unreachable!() };
        for user in &users {
            let user = UserName::parse(user).unwrap();
            let write =
                RedisCommand::Write { user, node: node.clone(), session, since_us: None, drains: false };
            assert!(matches!(run(connection, *limits, &write), RedisReply::Wrote(_)));
        }
        // With room there is again, mail is stored.
        for user in &users[..stored] {
            let read = backend.read(user, 0);
            backend.take(user, read[0].place, &[]);
        }
        assert_eq!(backend.store("user0", &mail("user0")), 1);
    }
}

#[test]
fn a_message_costs_redis_few_bytes() {
    let mut backend = Backend::redis(limits(100, DAY));
    let used = |backend: &mut Backend| -> usize {
        let Backend::Redis(connection, ..) = backend else { unreachable!() };
        let info: String = redis::cmd("INFO").arg("memory").query(connection).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse().unwrap()
    };
    assert_eq!(backend.store("bob", &messages("bob", &["warm"])), 1);
    let before = used(&mut backend);
    let text = "x".repeat(64);
    let Backend::Redis(connection, limits, _) = &mut backend else { unreachable!() };
    for users in (0..10_000).collect::<Vec<_>>().chunks(100) {
        let mut pipe = redis::pipe();
        for user in users {
            let user = format!("user{user:08}");
            let mail = vec![message(&user, &text); 10];
            pipe.add_command(printed(&store(&user, &mail), *limits)).ignore();
        }
        pipe.exec(connection).unwrap();
    }
    let bytes = (used(&mut backend) - before) / 100_000;
    println!("bytes a stored message: {bytes}");
    assert!(bytes <= 250, "{bytes}");
}
