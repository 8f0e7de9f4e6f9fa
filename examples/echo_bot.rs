//! A user named echo that answers each message with its text, until killed.
//!
//! ```text
//! pinpost serve
//! cargo run --example echo_bot
//! cargo run --example echo_bot -- HOST:PORT
//! pinpost chat alice --to echo
//! ```

use pinpost::{Client, ClientConfig, Event};
use smol::stream::StreamExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or("127.0.0.1:7700".to_owned());
    // With `ack` a message counts as delivered when the bot is done with it, which it says
    // by asking for the next: not before its answer is on the way.
    let config = ClientConfig::new(server, "echo").ack(true);
    smol::block_on(async {
        let (client, mut incoming) = Client::connect(config).await?;
        println!("echo is at {}", client.place().node);
        while let Some(event) = incoming.next().await {
            match event {
                // Two bots that answer each other would never stop.
                Event::Message { from, .. } if from.as_str() == "echo" => {}
                Event::Message { from, text, .. } => {
                    // Answers leave in order; their fates are waited for on the side.
                    let sending = client.submit(from.as_str(), &text).await?;
                    smol::spawn(async move {
                        if let Err(error) = sending.fate().await {
                            eprintln!("to {from}: {error}");
                        }
                    })
                    .detach();
                }
                event => println!("{event:?}"),
            }
        }
        Ok(())
    })
}
