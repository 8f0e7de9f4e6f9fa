//! Two users: alice sends a line, bob prints it, and alice learns its fate.
//!
//! ```text
//! pinpost serve
//! cargo run --example hello
//! cargo run --example hello -- HOST:PORT
//! ```

use pinpost::{Client, ClientConfig, Event};
use smol::stream::StreamExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or("127.0.0.1:7700".to_owned());
    smol::block_on(async {
        let (alice, _) = Client::connect(ClientConfig::new(&server, "alice")).await?;
        let (bob, mut bob_hears) = Client::connect(ClientConfig::new(&server, "bob")).await?;

        let fate = alice.send("bob", "hello").await?;
        println!("alice: {fate}");

        // Other events tell of a connection that was lost and found.
        while let Some(event) = bob_hears.next().await {
            if let Event::Message { from, text, .. } = event {
                println!("bob: {from} says {text}");
                break;
            }
        }

        alice.close().await;
        bob.close().await;
        Ok(())
    })
}
