//! HTTP, as far as a WebSocket needs it: one request head, one response.
//!
//! `GET /ws` with an upgrade becomes a WebSocket; everything else gets a short
//! answer in plain text and the connection closes.

use std::io;

use async_tungstenite::tungstenite::Error;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::handshake::machine::TryParse;
use async_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};

use crate::net::connection::{ConnectionTask, Ready};
use crate::net::websocket::WebSocket;

/// The most bytes of a request head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Serves a connection of the HTTP listener until it has ended.
pub async fn serve(connection: ConnectionTask) {
    connection.start().await;
    // An error is a socket that is broken: nobody is there.
    let _ = match shake_hands(&connection).await {
        Ok(Ok(mut websocket)) => connection.talk(&mut websocket).await,
        Ok(Err(mut refused)) => connection.end(&mut refused, None).await,
        Err(error) => Err(error),
    };
}

/// Reads a request head, and answers it.
async fn shake_hands(connection: &ConnectionTask) -> io::Result<Result<WebSocket, WebSocket>> {
    let mut head = vec![];
    // Before it is a WebSocket, it has no lines to say last words in.
    let silent = WebSocket::refused(vec![]);
    while let Ready::Read = connection.ready(&silent, false).await? {
        if connection.read_once(|bytes| head.extend_from_slice(bytes))? == Some(0) {
            break;
        }
        match read(&head) {
            Ok(None) => {}
            Err(response) => return Ok(Err(WebSocket::refused(response))),
            Ok(Some((response, length))) => {
                connection.driver.step(|node, _| node.greet(connection.id));
                return Ok(Ok(WebSocket::new(&connection.driver, response, &head[length..])));
            }
        }
    }
    Ok(Err(silent))
}

/// Reads a request head, if it is whole: gives the response that makes this connection a WebSocket and the length of
/// the head, or else the response behind which the connection closes.
fn read(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Vec<u8>> {
    let (length, request) = match Request::try_parse(bytes) {
        Ok(Some(parsed)) => parsed,
        Ok(None) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(None) => return refuse("431 Request Header Fields Too Large", "the request head is too large"),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => {
            return refuse("405 Method Not Allowed", "only GET is served here");
        }
        Err(_) => return refuse("400 Bad Request", "this is not an HTTP request"),
    };
    if request.uri().path() != "/ws" {
        return refuse("404 Not Found", "the WebSocket is at /ws");
    }
    if !request.headers().contains_key("Upgrade") {
        return refuse("426 Upgrade Required", "this is a WebSocket: ws://HOST:PORT/ws");
    }
    match create_response(&request) {
        Ok(response) => {
            let mut out = Vec::new();
            write_response(&mut out, &response).expect("a vector takes every write");
            Ok(Some((out, length)))
        }
        Err(error) => refuse("400 Bad Request", &format!("not a WebSocket handshake: {error}")),
    }
}

fn refuse<T>(status: &str, text: &str) -> Result<T, Vec<u8>> {
    let length = text.len() + 1;
    let upgrade = if status.starts_with("426") { "Upgrade: websocket\r\n" } else { "" };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         {upgrade}Connection: close\r\n\r\n{text}\n"
    );
    Err(response.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, status: &str) {
        let response = read(request.as_bytes()).expect_err(request);
        let response = String::from_utf8(response).expect("text");
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {response}");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{response}");
    }

    #[test]
    fn an_upgrade() {
        // The example of RFC 6455, 1.3.
        let request = "GET /ws?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let read_all = read(format!("{request}more").as_bytes());
        let (response, length) = read_all.expect("not refused").expect("it is whole");
        let response = String::from_utf8(response).expect("text").to_lowercase();
        assert!(response.starts_with("http/1.1 101 "), "{response}");
        assert!(response.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n"));
        assert_eq!(length, request.len());
        for at in 0..request.len() {
            assert_eq!(read(&request.as_bytes()[..at]), Ok(None), "cut at {at}");
        }
    }

    #[test]
    fn refusals() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404");
        check("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "426");
        check("POST /ws HTTP/1.1\r\nHost: a\r\n\r\n", "405");
        check("LOGIN alice\r\n\r\n", "400");
        check("\u{16}\u{3}\u{1}", "400");
        check(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES_MAX)), "431");
        let old = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n";
        check(old, "400");
    }
}
