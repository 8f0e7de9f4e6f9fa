//! The services that tests run with, themselves: that they start, keep tests apart, can be
//! broken in every way that a test needs, and are gone when nobody is there any more.

mod rig;

use std::env;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

use rig::proxy::Proxy;
use rig::resp::{Reply, Resp};
use rig::services::{Broker, Redis, Services, script};
use rig::{WAIT_TIME_MAX, until};

/// How long nothing must come for a test to believe that nothing does.
const QUIET_TIME: Duration = Duration::from_millis(200);

#[test]
fn who_shares_the_redis_has_a_database_of_his_own() {
    let (a, b) = (Services::shared(), Services::shared());
    assert_ne!(a.redis_url(), b.redis_url());
    assert_eq!(a.redis.addr(), b.redis.addr());
    for services in [&a, &b] {
        assert_eq!(services.redis_command(&["KEYS", "*"]), Reply::List(vec![]));
    }
    assert_eq!(a.redis_command(&["SET", "key", "two words\r\nand a line"]).text(), "OK");
    assert_eq!(a.redis_command(&["GET", "key"]).text(), "two words\r\nand a line");
    assert_eq!(b.redis_command(&["GET", "key"]), Reply::Nothing);
    assert_eq!(a.redis_command(&["HSET", "hash", "field", "1", "other", ""]).number(), 2);
    assert_eq!(a.redis_command(&["HGETALL", "hash"]).list(), ["field", "1", "other", ""]);
    assert_eq!(a.redis_command(&["ZADD", "set", "2", "b", "1", "a"]).number(), 2);
    assert_eq!(a.redis_command(&["ZRANGE", "set", "0", "-1"]).list(), ["a", "b"]);
    assert!(a.redis_command(&["INFO", "server"]).text().contains("redis_version:"));
    let mut resp = Resp::connect(a.redis.addr()).unwrap();
    assert!(matches!(resp.command(&["NO-COMMAND"]).unwrap(), Reply::Error(_)));
    // The broker is one for all.
    assert_eq!(a.amqp_url(), b.amqp_url());
    assert!(a.amqp_url().ends_with(&format!("@{}", a.broker.addr())));
    assert!(Amqp::greet(a.broker.addr()));
}

#[test]
fn a_redis_of_ones_own_can_be_broken() {
    let redis = Redis::own();
    let addr = redis.addr();
    for _ in 0..2 {
        redis.command(&["SET", "key", "value"]);
        redis.kill();
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        redis.start();
        assert_eq!(redis.command(&["GET", "key"]), Reply::Nothing, "it is a new one");
    }
    let mut resp = Resp::connect(addr).unwrap();
    redis.freeze();
    resp.send(&["PING"]).unwrap();
    assert!(is_quiet(resp.stream()));
    TcpStream::connect(addr).expect("the kernel accepts for it");
    redis.thaw();
    assert_eq!(resp.reply().unwrap().text(), "PONG");
    // Frozen things end too.
    redis.freeze();
    drop(redis);
    until("it has ended", || TcpStream::connect(addr).is_err());
}

#[test]
fn a_durable_redis_keeps_what_it_was_told() {
    let redis = Redis::durable();
    for count in 1..4 {
        assert_eq!(redis.command(&["RPUSH", "list", "value"]).number(), count);
        redis.kill();
        redis.start();
        assert_eq!(redis.command(&["LLEN", "list"]).number(), count);
    }
}

#[test]
fn a_broker_of_ones_own_can_be_broken() {
    let broker = Broker::own();
    let addr = broker.addr();
    let mut amqp = Amqp::open(addr);
    assert_eq!(broker.queues().len(), 0);
    amqp.declare("one", Amqp::DURABLE);
    amqp.declare("two", Amqp::EXCLUSIVE);
    assert_eq!(broker.queues().len(), 2);
    broker.delete_queues();
    assert_eq!(broker.queues().len(), 0);

    broker.alarm(true);
    amqp.publish("nowhere");
    amqp.hears("connection.blocked", 10, 60);
    broker.alarm(false);
    amqp.hears("connection.unblocked", 10, 61);

    broker.close_connections();
    amqp.hears("connection.close", 10, 50);

    broker.freeze();
    let mut stream = TcpStream::connect(addr).expect("the kernel accepts for it");
    stream.write_all(Amqp::HEADER).unwrap();
    assert!(is_quiet(&stream));
    broker.thaw();
    assert!(Amqp::answers(&stream));

    Amqp::open(addr).declare("kept", Amqp::DURABLE);
    broker.kill();
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    broker.start();
    assert!(Amqp::greet(addr));
    // It may have kept the queue: what was declared a moment before a kill need not be on disk.
    broker.kill();
    broker.start_empty();
    assert_eq!(broker.queues().len(), 0);
    drop(broker);
    until("it has ended", || TcpStream::connect(addr).is_err());
}

#[test]
fn servers_end_with_the_process_that_they_are_for() {
    let folder = env::temp_dir().join(format!("pinpost-services-test-{}", process::id()));
    // Lives until it is killed.
    let mut starter = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let url = script("redis", &folder, &["--for", &starter.id().to_string()]).unwrap();
    let addr: SocketAddr = url.trim().trim_start_matches("redis://").parse().unwrap();
    assert_eq!(Resp::connect(addr).unwrap().command(&["PING"]).unwrap().text(), "PONG");
    let pids: Vec<String> = ["redis", "watch"]
        .iter()
        .map(|name| fs::read_to_string(folder.join(format!("{name}.pid"))).unwrap().trim().to_owned())
        .collect();
    // `Child::kill` is kill -9; only waiting takes the dead one away.
    starter.kill().unwrap();
    starter.wait().unwrap();
    until("the folder is gone", || !folder.exists());
    until("nobody listens", || TcpStream::connect(addr).is_err());
    for pid in pids {
        until("the process is gone", || !is_alive(&pid));
    }
}

#[test]
fn a_proxy_cuts_and_hangs_and_heals() {
    let redis = Redis::own();
    let mut proxy = Proxy::to(redis.addr());
    assert_eq!(redis.url_at(proxy.addr()), format!("redis://{}/0", proxy.addr()));
    let connect = |proxy: &Proxy| Resp::connect(proxy.addr()).unwrap();
    let ping = |resp: &mut Resp| resp.command(&["PING"]).unwrap().text();

    let mut first = connect(&proxy);
    assert_eq!(ping(&mut first), "PONG");
    assert_eq!(proxy.connections(), 1);

    // Who is cut off learns it, and can't come back.
    for _ in 0..3 {
        proxy.cut();
        assert_eq!(first.reply().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let refused = TcpStream::connect(proxy.addr()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.heal();
        first = connect(&proxy);
        assert_eq!(ping(&mut first), "PONG");
    }

    // Who hangs learns nothing, and neither do new ones.
    proxy.hang();
    let mut second = connect(&proxy);
    for resp in [&mut first, &mut second] {
        resp.send(&["PING"]).unwrap();
        assert!(is_quiet(resp.stream()));
    }
    assert_eq!(proxy.connections(), 2);
    proxy.heal();
    for resp in [&mut first, &mut second] {
        assert_eq!(resp.reply().unwrap().text(), "PONG", "what has waited is carried");
        assert_eq!(ping(resp), "PONG");
    }

    // From each to each other.
    proxy.cut();
    proxy.hang();
    let mut third = connect(&proxy);
    third.send(&["PING"]).unwrap();
    assert!(is_quiet(third.stream()));
    proxy.cut();
    assert_eq!(third.reply().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    proxy.heal();

    // Ends are carried, that of the service too.
    let mut fourth = connect(&proxy);
    assert_eq!(ping(&mut fourth), "PONG");
    redis.kill();
    assert!(fourth.reply().is_err());
    drop(fourth);
    until("nothing is left", || proxy.connections() == 0);
    // Without a service behind it, whoever comes is sent away.
    assert!(connect(&proxy).reply().is_err());
    redis.start();
    assert_eq!(ping(&mut connect(&proxy)), "PONG");
}

/// Nothing comes, and it stays open.
fn is_quiet(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(QUIET_TIME)).unwrap();
    let result = stream.peek(&mut [0]);
    stream.set_read_timeout(Some(WAIT_TIME_MAX)).unwrap();
    matches!(result.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// A process runs, and is no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// A connection to a broker by hand, with one channel: frames of AMQP 0-9-1.
struct Amqp(TcpStream);

impl Amqp {
    const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
    /// Kinds of queues.
    const DURABLE: u8 = 0b10;
    const EXCLUSIVE: u8 = 0b100;

    /// A broker is there, and speaks first.
    fn greet(addr: SocketAddr) -> bool {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(Self::HEADER).unwrap();
        Self::answers(&stream)
    }

    /// The first frame is a method.
    fn answers(mut stream: &TcpStream) -> bool {
        stream.set_read_timeout(Some(WAIT_TIME_MAX)).unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).is_ok() && first == [1]
    }

    fn open(addr: SocketAddr) -> Amqp {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(WAIT_TIME_MAX)).unwrap();
        stream.write_all(Self::HEADER).unwrap();
        let mut amqp = Amqp(stream);
        amqp.hears("connection.start", 10, 10);
        // Its properties: capabilities, a table (F), in which connection.blocked is true (t).
        let blocked = [short("connection.blocked"), b"t\x01".to_vec()].concat();
        let properties = [short("capabilities"), b"F".to_vec(), long(&blocked)].concat();
        let login = [long(&properties), short("PLAIN"), long(b"\0guest\0guest"), short("en_US")].concat();
        amqp.says(0, 10, 11, &login);
        amqp.hears("connection.tune", 10, 30);
        // One channel, frames of 128 KiB, no heartbeat.
        amqp.says(0, 10, 31, &[0, 1, 0, 2, 0, 0, 0, 0]);
        amqp.says(0, 10, 40, &[short("/"), short(""), vec![0]].concat());
        amqp.hears("connection.open-ok", 10, 41);
        amqp.says(1, 20, 10, &short(""));
        amqp.hears("channel.open-ok", 20, 11);
        amqp
    }

    fn declare(&mut self, queue: &str, kind: u8) {
        self.says(1, 50, 10, &[vec![0, 0], short(queue), vec![kind], long(b"")].concat());
        self.hears("queue.declare-ok", 50, 11);
    }

    /// An empty message.
    fn publish(&mut self, queue: &str) {
        self.says(1, 60, 40, &[vec![0, 0], short(""), short(queue), vec![0]].concat());
        self.frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    fn says(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind], &channel.to_be_bytes()[..], &long(payload), b"\xce"].concat();
        self.0.write_all(&frame).unwrap();
    }

    /// The next frame is this method.
    #[track_caller]
    fn hears(&mut self, name: &str, class: u16, method: u16) {
        let since = Instant::now();
        let mut read = |count: usize| {
            let mut bytes = vec![0; count];
            let result = self.0.read_exact(&mut bytes);
            result.unwrap_or_else(|error| panic!("{name} after {:?}: {error}", since.elapsed()));
            bytes
        };
        let head = read(7);
        let payload = read(u32::from_be_bytes(head[3..].try_into().unwrap()) as usize + 1);
        let expected = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert_eq!((head[0], &payload[..4]), (1, &expected[..]), "{name}");
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}
