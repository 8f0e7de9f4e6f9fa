//! What a thread that polls connections keeps to itself, whatever becomes of one of them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Wake;

use super::*;
use crate::cluster::Cluster;
use crate::mailbox::Limits;
use crate::proto::NodeId;
use crate::timer::Timer;

/// A node without a server: the test is its thread.
fn node() -> Arc<Shared> {
    let limits = Limits { messages_max: 0, time_max: Duration::ZERO };
    let readiness = Readiness::new().expect("a file");
    let cluster = Cluster::alone(NodeId::new("pi", "V1StGXR8").expect("valid"), limits);
    Arc::new(Shared {
        router: Arc::new(Router::new(cluster, 8, Arc::default())),
        line_bytes_max: 4_096,
        outbox_bytes_max: 1 << 20,
        login_time_max: Duration::from_secs(60),
        roll: Roll::default(),
        alarms: Alarms::new(Timer::new(&readiness).expect("a file")),
        readiness,
    })
}

/// A user who has logged in: the client's end of the socket, and the connection.
fn user(name: &str, shared: &Arc<Shared>) -> (TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (socket, _) = listener.accept().expect("it connected");
    socket.set_nonblocking(true).expect("a socket");
    let mut connection = Connection::new(shared.clone(), socket, false).expect("a file");
    writeln!(client, "LOGIN {name}").expect("it takes that");
    assert!(poll(&mut connection, Waker::noop()).is_pending());
    assert_eq!(shared.router.table().users(), shared.roll.len(), "logged in");
    flush(shared);
    (client, connection)
}

/// One poll of a connection that has something to read.
fn poll(connection: &mut Connection, waker: &Waker) -> Poll<()> {
    connection.talk.outbox.put_ready(READABLE);
    Pin::new(connection).poll(&mut Context::from_waker(waker))
}

/// Writes what turns have pushed to.
fn flush(shared: &Shared) {
    shared.router.poll_flush(&mut Context::from_waker(Waker::noop()), &mut Turn::default());
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("as a mistake of ours would");
    }
}

#[test]
fn what_a_connection_has_pushed_is_written_though_it_panics() {
    let shared = node();
    let (mut bob, _bobs) = user("bob", &shared);
    let (mut alice, mut alices) = user("alice", &shared);
    // More than is read at once, so that the connection asks for another turn, which is where it panics.
    let line = format!("SEND bob {}\n", "x".repeat(1_000));
    let lines = line.repeat(READ_BYTES_MAX * (READS_MAX + 1) / line.len());
    alice.write_all(lines.as_bytes()).expect("the socket's buffer takes that");
    let result = catch_unwind(AssertUnwindSafe(|| poll(&mut alices, &Waker::from(Arc::new(Panics)))));
    assert!(result.is_err(), "it panics");
    SCRATCH.with_borrow(|scratch| assert!(scratch.turn.dirty.0.is_empty(), "nothing is left behind"));

    flush(&shared);
    bob.set_nonblocking(true).expect("a socket");
    let mut heard = [0; 4_096];
    let count = bob.read(&mut heard).expect("it was written");
    assert!(heard[..count].windows(10).any(|part| part == b"MSG alice "), "bob is told what was sent");
}
