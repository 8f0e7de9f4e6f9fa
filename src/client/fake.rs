//! A node for tests: it listens on a port of its own and follows a script.
//!
//! It knows nothing of the client that comes, so that the tests of the commands, which
//! stand outside the library, have it too.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use smol::future;

/// Stands for a node: what a test writes is what happens.
pub(crate) struct FakeNode {
    pub(crate) addr: String,
    script: JoinHandle<()>,
}

impl FakeNode {
    /// Runs `script` on a thread; what it panics with fails the test in `finish`.
    pub(crate) fn run(script: impl FnOnce(Door) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        FakeNode { addr, script: thread::spawn(move || script(Door(listener))) }
    }

    pub(crate) fn finish(self) {
        if let Err(panic) = self.script.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The script's side of the listener.
pub(crate) struct Door(TcpListener);

impl Door {
    pub(crate) fn accept(&self) -> Peer {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Accepts a connection and lets it log in as session `s`.
    pub(crate) fn let_in(&self, session: &str) -> Peer {
        self.log_in("LOGIN alice", session)
    }

    /// The same for a client that acknowledges.
    pub(crate) fn let_in_with_ack(&self, session: &str) -> Peer {
        self.log_in("LOGIN alice ack", session)
    }

    fn log_in(&self, login: &str, session: &str) -> Peer {
        let mut peer = self.accept();
        peer.say("HELLO pinpost 1 pi-1");
        peer.hear(login);
        peer.say(&format!("OK alice {session}"));
        peer
    }
}

/// The script's side of one connection.
pub(crate) struct Peer {
    pub(crate) reader: BufReader<TcpStream>,
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    pub(crate) fn hear(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Hears a tagged request, and returns its tag with the `@`.
    pub(crate) fn hear_tagged(&mut self, expected: &str) -> String {
        let line = self.line();
        let (tag, request) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} has no tag"));
        assert_eq!(request, expected);
        assert!(tag.starts_with('@'), "{line:?}");
        tag.to_owned()
    }

    /// The client leaves in order.
    pub(crate) fn part(mut self) {
        self.hear("QUIT");
        self.say("BYE quit");
    }
}

/// Runs a test's client side; one that hangs fails.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let deadline = async {
        smol::Timer::after(PATIENCE).await;
        panic!("the test hangs")
    };
    smol::block_on(future::or(test, deadline))
}

const PATIENCE: Duration = Duration::from_secs(10);
