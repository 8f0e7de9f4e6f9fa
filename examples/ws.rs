//! The WebSocket side: the same lines in text messages. Logs in, sends one
//! line, and prints whatever comes, until Ctrl-C or the server says goodbye.
//!
//! ```text
//! pinpost serve
//! cargo run --example ws
//! cargo run --example ws -- web 127.0.0.1:7780
//! cargo run --example ws -- web 127.0.0.1:7780 alice hello from a browser, nearly
//! ```
//!
//! The arguments are the user to be, the server, whom to send to (itself if
//! nobody is named), and what. `pinpost send --from alice web hello` answers.

use async_net::TcpStream;
use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message;
use smol::stream::StreamExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let user = args.next().unwrap_or("web".to_owned());
    let server = args.next().unwrap_or("127.0.0.1:7780".to_owned());
    let to = args.next().unwrap_or(user.clone());
    let words: Vec<String> = args.collect();
    let text = if words.is_empty() { "hello over WebSocket".to_owned() } else { words.join(" ") };

    smol::block_on(async {
        let stream = TcpStream::connect(&server).await?;
        let (mut socket, _) = client_async(format!("ws://{server}/ws"), stream).await?;
        // A text message holds one line or several. No tag: one that is used again within a minute, for the same
        // text, names the same message, and nobody is shown it twice.
        let lines = format!("LOGIN {user}\nSEND {to} {text}");
        socket.send(Message::text(lines)).await?;
        while let Some(message) = socket.next().await {
            // Pings and the close are answered by the library.
            if let Message::Text(line) = message? {
                println!("{line}");
            }
        }
        Ok(())
    })
}
