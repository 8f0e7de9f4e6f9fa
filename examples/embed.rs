//! A node inside another program: it listens on a free port, two users of it
//! talk through the client library, and the program looks at the counters,
//! drains the node and ends.
//!
//! ```text
//! cargo run --example embed
//! ```

use pinpost::{Client, ClientConfig, Config, Event, Incoming, Server};
use smol::stream::StreamExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Loopback, and any port that is free; every other setting at its default.
    let server = Server::bind(&Config::ephemeral())?;
    println!("{}", server.ready_line());
    let addr = server.tcp_addrs()[0].to_string();

    // A handle reaches the node from other threads and tasks while it runs.
    let node = server.handle();
    let running = std::thread::spawn(move || smol::block_on(server.run()));

    smol::block_on(async {
        let (alice, mut alice_hears) = Client::connect(ClientConfig::new(&addr, "alice")).await?;
        let (bob, mut bob_hears) = Client::connect(ClientConfig::new(&addr, "bob")).await?;
        for (from, to, hears, text) in [
            (&alice, "bob", &mut bob_hears, "are you inside this program too?"),
            (&bob, "alice", &mut alice_hears, "we both are, and so is the node"),
        ] {
            let fate = from.send(to, text).await?;
            println!("{} ({fate})", message(hears).await);
        }
        println!("now:   {:?}", node.holdings());
        alice.close().await;
        bob.close().await;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;

    // Everybody left in the house gets BYE draining, and `run` ends.
    node.drain();
    running.join().expect("the node does not panic")?;
    println!("after: {:?}", node.holdings());
    let metrics = node.metrics();
    println!("{} connections, {} messages", metrics.accepted, metrics.delivered);
    Ok(())
}

/// The next message, as a line to print.
async fn message(incoming: &mut Incoming) -> String {
    while let Some(event) = incoming.next().await {
        if let Event::Message { from, text, .. } = event {
            return format!("{from}: {text}");
        }
    }
    "nothing more will come".to_owned()
}
