//! Nodes in this process, each on a thread of its own, alone or one of several.
//!
//! What a node counts and holds can be read. The executor swallows the panic of a
//! connection; here it is remembered, and fails the test when its node ends.

use std::net::SocketAddr;
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{self, JoinHandle};

use pinpost::{Config, Counters, Handle, Holdings, NodeId, Server};

use super::net::Net;
use super::until;

/// A running node; drained when dropped, and then no task of it may have panicked.
pub struct Node {
    pub id: NodeId,
    /// Where lines are spoken.
    pub tcp: SocketAddr,
    /// Where WebSocket is spoken.
    pub http: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Nodes of which a task panicked, by the names of their threads.
static PANICKED: Mutex<Vec<String>> = Mutex::new(vec![]);

impl Node {
    /// Starts a node alone on free ports, with these settings changed.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::run(&config(settings), None)
    }

    /// Starts a node of several.
    pub fn start_on(net: &dyn Net, settings: &[(&str, &str)]) -> Self {
        Self::run(&config(settings), Some(net))
    }

    /// Starts a node; it accepts connections when this returns.
    pub fn run(config: &Config, net: Option<&dyn Net>) -> Self {
        remember_panics();
        let alone = || Server::bind(config).expect("loopback has free ports");
        let server = net.map_or_else(alone, |net| net.bind(config));
        let (id, handle) = (server.node(), server.handle());
        let (tcp, http) = (server.tcp_addrs()[0], server.http_addr().expect("a test node serves HTTP"));
        let builder = thread::Builder::new().name(id.as_str().to_owned());
        let run = move || smol::block_on(server.run()).expect("nothing fails here");
        let thread = builder.spawn(run).expect("a thread for the node");
        Node { id, tcp, http, handle, thread: Some(thread) }
    }

    pub fn metrics(&self) -> Counters {
        self.handle.metrics()
    }

    pub fn holdings(&self) -> Holdings {
        self.handle.holdings()
    }

    /// Waits until nobody is here and nothing is under way.
    #[track_caller]
    pub fn settles(&self) {
        until("the node holds nothing", || self.holdings() == Holdings::default());
    }

    /// Asks the node to stop in order, and does not wait for it.
    pub fn drain(&self) {
        self.handle.drain();
    }

    /// Drains the node, waits for its end, and tells what it still holds.
    pub fn stop(&mut self) -> Holdings {
        self.drain();
        if let Some(thread) = self.thread.take() {
            let has_ended = thread.join().is_ok();
            let panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fine = has_ended && !panicked.iter().any(|name| name == self.id.as_str());
            drop(panicked);
            assert!(is_fine || thread::panicking(), "a task of the node {} panicked", self.id.as_str());
        }
        self.holdings()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::ephemeral();
    for (name, value) in settings {
        config.set(name, value).expect("an allowed setting");
    }
    config
}

fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let name = thread::current().name().unwrap_or_default().to_owned();
            PANICKED.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            before(info);
        }));
    });
}
