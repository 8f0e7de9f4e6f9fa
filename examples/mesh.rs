//! Three nodes in one process. One of them dies with a message that its
//! recipient may not have got, and the message finds its way over another.
//!
//! ```text
//! cargo run --example mesh
//! ```

use std::error::Error;

use pinpost::{Client, ClientConfig, Config, Event, Handle, Incoming, Mesh, NodeId, Server};
use smol::stream::StreamExt;

fn main() -> Result<(), Box<dyn Error>> {
    // A mesh knows who is where, and carries messages from node to node.
    let mesh = Mesh::default();
    let [a, b, c] = [Node::start(&mesh, "a")?, Node::start(&mesh, "b")?, Node::start(&mesh, "c")?];
    smol::block_on(async {
        let (alice, _) = a.login("alice").await?;
        let (_bob, mut bob_at_b) = b.login("bob").await?;
        println!("alice: {}", alice.send("bob", "hello").await?);
        hear("bob at b", &mut bob_at_b).await;

        println!("\nfrom now on nobody hears what b says");
        mesh.hold(&b.id);
        let sending = alice.submit("bob", "are you there?").await?;
        hear("bob at b", &mut bob_at_b).await;
        println!("alice: has no answer; the message may have been seen, or not");

        println!("\nbob logs in at c as well, and b dies");
        let (_bob, mut bob_at_c) = c.login("bob").await?;
        mesh.kill(&b.id);
        hear("bob at c", &mut bob_at_c).await;
        println!("alice: {}", sending.fate().await?);

        println!("\nthe same again, but now bob is nowhere else");
        mesh.hold(&c.id);
        let sending = alice.submit("bob", "and now?").await?;
        hear("bob at c", &mut bob_at_c).await;
        mesh.kill(&c.id);
        match sending.fate().await {
            Ok(fate) => return Err(format!("{fate}: nobody can know that").into()),
            Err(error) => println!("alice: {error}"),
        }
        alice.close().await;
        Ok::<(), Box<dyn Error>>(())
    })?;

    for node in [a, b, c] {
        node.handle.drain();
        node.thread.join().expect("a node does not panic")?;
    }
    println!("\nall nodes have ended");
    Ok(())
}

/// A node on a thread of its own.
struct Node {
    id: NodeId,
    addr: String,
    handle: Handle,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Node {
    fn start(mesh: &Mesh, name: &str) -> Result<Node, Box<dyn Error>> {
        let server = Server::bind_in(&Config::ephemeral().node(name), mesh)?;
        let (id, addr, handle) = (server.node(), server.tcp_addrs()[0].to_string(), server.handle());
        let thread = std::thread::spawn(move || smol::block_on(server.run()));
        println!("node {id} listens on {addr}");
        Ok(Node { id, addr, handle, thread })
    }

    async fn login(&self, user: &str) -> Result<(Client, Incoming), Box<dyn Error>> {
        Ok(Client::connect(ClientConfig::new(&self.addr, user)).await?)
    }
}

/// Prints the next message.
async fn hear(who: &str, incoming: &mut Incoming) {
    while let Some(event) = incoming.next().await {
        if let Event::Message { from, text, .. } = event {
            return println!("{who}: {from} says {text:?}");
        }
    }
}
