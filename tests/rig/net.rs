//! What several nodes talk over: memory, or a real Redis and a real RabbitMQ.
//!
//! A test that takes a [`Net`] runs on both; whatever is tested on one is tested on the other.

use std::thread;

use pinpost::cluster::Mesh;
use pinpost::config::Config;
use pinpost::server::Server;

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

/// A Redis database of its own, and a broker that others use too.
pub struct Real {
    services: &'static Services,
    redis_url: String,
}

impl Net for Mesh {
    fn bind(&self, config: &Config) -> Server {
        Server::bind_in(config, self).expect("loopback has free ports")
    }

    fn users(&self) -> usize {
        Mesh::users(self)
    }
}

impl Real {
    /// With a database that nobody else uses.
    pub fn new() -> Self {
        let services = Services::shared();
        Real { services, redis_url: services.redis_url() }
    }
}

impl Net for Real {
    fn bind(&self, config: &Config) -> Server {
        let mut config = config.clone();
        config.set("redis", &self.redis_url).expect("a URL");
        config.set("amqp", self.services.amqp_url()).expect("a URL");
        Server::bind(&config).expect("loopback has free ports")
    }

    fn users(&self) -> usize {
        self.services.users(&self.redis_url)
    }
}

/// Runs a test on every net.
pub fn on_every_net(test: impl Fn(&dyn Net)) {
    for (name, net) in [("memory", Box::new(Mesh::default()) as Box<dyn Net>), ("a real cluster", Box::new(Real::new()))] {
        println!("over {name}");
        test(&*net);
    }
}

/// Starts nodes a, b, c and so on, at the same time: a node of a real cluster takes a moment.
pub fn nodes<const COUNT: usize>(net: &dyn Net, settings: &[(&str, &str)]) -> [Node; COUNT] {
    let names: [String; COUNT] = std::array::from_fn(|n| char::from(b'a' + n as u8).to_string());
    let nodes = thread::scope(|scope| {
        let starting = names.each_ref().map(|name| {
            scope.spawn(|| Node::start_on(net, &[&[("node", &name[..])], settings].concat()))
        });
        starting.map(|node| node.join().expect("a node starts"))
    });
    // Everybody knows of everybody.
    nodes
}

/// Waits until nobody is online any more.
pub fn is_empty(net: &dyn Net) {
    until("nobody is online", || net.users() == 0);
}
