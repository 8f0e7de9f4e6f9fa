//! What several nodes talk over: memory, or a real Redis and a real RabbitMQ.
//!
//! A test that takes a [`Net`] runs on both; whatever is tested on one is tested on the other.

use std::thread;

use pinpost::{Config, Mesh, Server};

use super::node::Node;
use super::services::Services;
use super::until;

/// What nodes of one test talk over.
pub trait Net: Sync {
    /// Binds a node to it.
    fn bind(&self, config: &Config) -> Server;

    /// How many users are online, as the net knows it.
    fn users(&self) -> usize;
}

/// A Redis and a broker; those of [`Real::new`] are shared, and the database is not.
pub struct Real(pub Services);

impl Net for Mesh {
    fn bind(&self, config: &Config) -> Server {
        Server::bind_in(config, self).expect("loopback has free ports")
    }

    fn users(&self) -> usize {
        Mesh::users(self)
    }
}

impl Real {
    /// The shared services.
    pub fn new() -> Self {
        Real(Services::shared())
    }
}

impl Net for Real {
    fn bind(&self, config: &Config) -> Server {
        let mut config = config.clone();
        config.set("redis", &self.0.redis_url()).expect("a URL");
        config.set("amqp", &self.0.amqp_url()).expect("a URL");
        Server::bind(&config).expect("loopback has free ports")
    }

    fn users(&self) -> usize {
        self.0.redis_command(&["KEYS", "p:*"]).list().len()
    }
}

/// Runs a test on every net.
pub fn on_every_net(test: impl Fn(&dyn Net)) {
    for (name, net) in
        [("memory", Box::new(Mesh::default()) as Box<dyn Net>), ("a real cluster", Box::new(Real::new()))]
    {
        println!("over {name}");
        test(&*net);
    }
}

/// Starts nodes a, b, c and so on, at the same time: a node of a real cluster takes a moment.
pub fn nodes<const COUNT: usize>(net: &dyn Net, settings: &[(&str, &str)]) -> [Node; COUNT] {
    let names: [String; COUNT] = std::array::from_fn(|n| char::from(b'a' + n as u8).to_string());
    thread::scope(|scope| {
        let start = |name: &str| Node::start_on(net, &[&[("node", name)], settings].concat());
        let starting = names.each_ref().map(|name| scope.spawn(move || start(name)));
        starting.map(|node| node.join().expect("a node starts"))
    })
}

/// Waits until nobody is online any more.
pub fn is_empty(net: &dyn Net) {
    until("nobody is online", || net.users() == 0);
}
