//! Several nodes in one process, and people at netcat: what the tests of a mesh share.
//!
//! Nodes serve real sockets, each on a thread of its own. Whoever listens has a
//! deadline, so that what never comes is a failure and not a hang.

#![allow(dead_code)] // Each test program uses its part.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinpost::cluster::{Cluster, Event, Mesh};
use pinpost::config::Config;
use pinpost::metrics::Metrics;
use pinpost::proto::{Envelope, Fate, NodeId, SessionId, UserName};
use pinpost::server::{Handle, Holdings, Server};

/// How long anything may take that is about to happen.
pub const SOON: Duration = Duration::from_secs(8);

/// One node on its own thread; dropping it drains it.
pub struct Node {
    pub id: NodeId,
    pub addr: SocketAddr,
    pub handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(mesh: &Mesh, name: &str) -> Node {
        Self::start_with(mesh, name, |_| {})
    }

    pub fn start_with(mesh: &Mesh, name: &str, change: impl FnOnce(&mut Config)) -> Node {
        let mut config = Config { node: name.to_owned(), http: None, ..Config::ephemeral() };
        change(&mut config);
        let server = Server::bind_in(&config, mesh).expect("a free port");
        let (id, addr, handle) = (server.node(), server.tcp_addrs()[0], server.handle());
        let thread = std::thread::spawn(move || smol::block_on(server.run()));
        Node { id, addr, handle, thread: Some(thread) }
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.handle.metrics()
    }

    /// Waits until nobody is here and nothing is under way.
    pub fn settles(&self) {
        until("the node holds nothing", || self.handle.holdings() == Holdings::default());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.drain();
        let ended = self.thread.take().expect("taken only here").join();
        if !std::thread::panicking() {
            ended.expect("the node does not panic");
        }
    }
}

/// Starts nodes a, b, c and so on.
pub fn nodes<const COUNT: usize>(mesh: &Mesh) -> [Node; COUNT] {
    std::array::from_fn(|n| Node::start(mesh, &char::from(b'a' + n as u8).to_string()))
}

/// One connection, used by hand.
pub struct Person {
    who: String,
    reader: BufReader<TcpStream>,
}

impl Person {
    /// Connects, and hears `HELLO`.
    pub fn connect(node: &Node) -> Person {
        Self::over(TcpStream::connect(node.addr).expect("the node listens"))
    }

    pub fn over(socket: TcpStream) -> Person {
        socket.set_nodelay(true).expect("a live socket");
        socket.set_read_timeout(Some(SOON)).expect("not zero");
        socket.set_write_timeout(Some(SOON)).expect("not zero");
        let mut person = Person { who: "somebody".to_owned(), reader: BufReader::new(socket) };
        person.hears_start("HELLO pinpost 1 ");
        person
    }

    /// Connects and logs in.
    pub fn login(node: &Node, user: &str) -> Person {
        Self::connect(node).logged_in(user)
    }

    pub fn logged_in(mut self, user: &str) -> Person {
        self.who = user.to_owned();
        self.say(&format!("LOGIN {user}"));
        self.hears_start(&format!("OK {user} "));
        self
    }

    /// Waits longer than usual from now on.
    pub fn patient(&mut self, time: Duration) {
        self.reader.get_ref().set_read_timeout(Some(time)).expect("not zero");
    }

    pub fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.reader.get_ref().write_all(line.as_bytes()).expect("the node reads");
    }

    /// The next line.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        self.try_hear().unwrap_or_else(|| panic!("{}: the connection ended", self.who))
    }

    /// The next line, or `None` at the end of the connection.
    #[track_caller]
    pub fn try_hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{} heard nothing: {error}", self.who),
        }
    }

    #[track_caller]
    pub fn hears(&mut self, line: &str) {
        assert_eq!(self.hear(), line, "{} hears", self.who);
    }

    #[track_caller]
    pub fn hears_start(&mut self, start: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(start), "{} hears {line:?} instead of {start:?}", self.who);
        line
    }

    /// Nothing has come for this connection that was not heard.
    #[track_caller]
    pub fn heard_all(&mut self) {
        self.say("@quiet PING");
        self.hears("@quiet PONG");
    }

    /// Sends one message under a tag, and waits for `OK`.
    #[track_caller]
    pub fn sends(&mut self, to: &str, tag: &str, text: &str) {
        self.say(&format!("@{tag} SEND {to} {text}"));
        self.hears(&format!("@{tag} OK {tag} delivered"));
    }

    /// `WHO` is answered so.
    #[track_caller]
    pub fn finds(&mut self, user: &str, presence: &str) {
        self.say(&format!("@who WHO {user}"));
        self.hears(&format!("@who OK {user} {presence}"));
    }

    /// Says goodbye, and hears nothing but that.
    #[track_caller]
    pub fn quits(mut self) {
        self.say("QUIT");
        self.hears_start("BYE quit");
    }

    /// A second handle of the socket, for a thread that writes.
    pub fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().expect("a file to spare")
    }

    /// Reads what has come without handing it on, up to the end of the connection.
    pub fn drain(mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the node closes");
        rest
    }

    pub fn half_closes(&self) {
        self.reader.get_ref().shutdown(Shutdown::Write).expect("a live socket");
    }
}

/// Writes `count` numbered messages for `to` in one go.
pub fn pour(mut socket: TcpStream, to: &str, count: usize, padding: usize) {
    let padding = "x".repeat(padding);
    let lines: String = (0..count).map(|n| format!("@{n} SEND {to} {n} {padding}\n")).collect();
    socket.write_all(lines.as_bytes()).expect("the node reads");
}

/// A node made by hand: it is in the mesh, says where users are, and answers
/// envelopes as the test likes.
pub struct Ghost {
    cluster: Cluster,
}

impl Ghost {
    pub fn join(mesh: &Mesh, name: &str) -> Ghost {
        let id = NodeId::new(name, "ghost").expect("valid");
        Ghost { cluster: Cluster::Local(mesh.join(id)) }
    }

    pub fn id(&self) -> &NodeId {
        self.cluster.node()
    }

    /// Claims to have a session of a user.
    pub fn claims(&self, user: &str) {
        let user = UserName::parse(user).expect("valid");
        let _ = self.cluster.register(&user, ghost_session(), 0);
    }

    /// Claims no more to have it.
    pub fn leaves(&self, user: &str) {
        self.cluster.unregister(&UserName::parse(user).expect("valid"), ghost_session());
    }

    /// The next envelope, and its origin.
    pub fn takes(&self) -> (NodeId, Envelope) {
        let events = self.cluster.events();
        let mut event = None;
        until("an envelope comes", || {
            event = events.try_recv().ok();
            event.is_some()
        });
        match event {
            Some(Event::Envelope { origin, envelope }) => (origin, envelope),
            other => panic!("{other:?} is no envelope"),
        }
    }

    /// Answers an envelope.
    pub fn answers(&self, (origin, envelope): &(NodeId, Envelope), fate: Fate) {
        self.cluster.receipt(origin, envelope.number.expect("no cast"), fate);
    }
}

fn ghost_session() -> SessionId {
    SessionId::parse("gh0stgh0").expect("valid")
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {SOON:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits until a number has not changed for a while.
pub fn stands_still(mut number: impl FnMut() -> usize) -> usize {
    let (mut last, mut since) = (number(), Instant::now());
    until("it stands still", || {
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(150)
    });
    last
}
