//! HTTP, as far as a WebSocket and those who look after a node need it: one request head, one response.
//!
//! `GET /ws` with an upgrade becomes a WebSocket; everything else gets a short
//! answer in plain text and the connection closes.

use std::io;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use httparse::{Error, Header, Request, Status};

use crate::net::connection::{ConnectionTask, Ready};
use crate::net::websocket::WebSocket;

/// The most bytes of a request head, and the most fields in it.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEAD_FIELDS_MAX: usize = 64;

/// The one version of WebSocket (RFC 6455), and what is spoken over it, for who asks.
const WEBSOCKET_VERSION: &str = "13";
const SUBPROTOCOL: &str = "pinpost";

/// Serves a connection of the HTTP listener until it has ended.
pub async fn serve(connection: ConnectionTask) {
    connection.start().await;
    // An error is a socket that is broken: nobody is there.
    let _ = match shake_hands(&connection).await {
        Ok(Ok(mut websocket)) => connection.talk(&mut websocket).await,
        // What is short is boxed, so that a connection at rest is small.
        Ok(Err(mut refused)) => Box::pin(connection.end(&mut refused, None)).await,
        Err(error) => Err(error),
    };
}

/// Reads a request head, and answers it.
async fn shake_hands(connection: &ConnectionTask) -> io::Result<Result<WebSocket, WebSocket>> {
    let mut head = vec![];
    // Before it is a WebSocket, it has no lines to say last words in.
    let silent = WebSocket::answered(vec![]);
    while let Ready::Read = connection.ready(&silent, false).await? {
        if connection.read_once(|bytes| head.extend_from_slice(bytes))? == Some(0) {
            break;
        }
        match read(&head, || connection.driver.cluster.is_joined()) {
            Ok(None) => {}
            Err(response) => return Ok(Err(WebSocket::answered(response))),
            Ok(Some((response, length))) => {
                connection.driver.step(|node, now| node.greet(connection.id, now));
                return Ok(Ok(WebSocket::new(&connection.driver, response, &head[length..])));
            }
        }
    }
    Ok(Err(silent))
}

/// Reads a request head, if it is whole: gives the response that makes this connection a WebSocket and the length of
/// the head, or else the response behind which the connection closes. What is behind the bound is not looked at, so
/// that the answer is the same wherever TCP cut.
fn read(bytes: &[u8], is_joined: impl FnOnce() -> bool) -> Result<Option<(Vec<u8>, usize)>, Vec<u8>> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    let length = match request.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if head.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => {
            let text = "the request head is too large";
            return Err(answer("431 Request Header Fields Too Large", "", text, true));
        }
        Err(_) => return Err(answer("400 Bad Request", "", "this is not an HTTP request", true)),
    };
    let (method, is_1_1) = (request.method.unwrap_or_default(), request.version == Some(1));
    let has_body = method != "HEAD";
    let say = |status, field, text| Err(answer(status, field, text, has_body));
    let path = path(request.path.unwrap_or_default());
    let is_known = ["/", "/healthz", "/readyz", "/ws", "/ws/"].contains(&path);
    match path {
        _ if !is_known => say("404 Not Found", "", "there are /ws (a WebSocket), /healthz and /readyz"),
        _ if !["GET", "HEAD"].contains(&method) => {
            say("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only GET and HEAD are served here")
        }
        "/" => say("200 OK", "", "pinpost: the WebSocket is at /ws"),
        "/healthz" => say("200 OK", "", "ok"),
        "/readyz" if is_joined() => say("200 OK", "", "ready"),
        "/readyz" => say("503 Service Unavailable", "", "not ready: other nodes can't be reached"),
        _ => match upgrade(request.headers, method == "GET" && is_1_1) {
            Ok(response) => Ok(Some((response, length))),
            Err((status, field, text)) => say(status, field, text),
        },
    }
}

/// The path of a request, whatever else its target says.
fn path(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    // As it is said to a proxy.
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    }
}

/// The response that makes a WebSocket of a connection, or the status, a field and the text of another one.
fn upgrade(
    fields: &[Header<'_>],
    may_upgrade: bool,
) -> Result<Vec<u8>, (&'static str, &'static str, &'static str)> {
    if !may_upgrade || !has(fields, "Upgrade", "websocket") || !has(fields, "Connection", "upgrade") {
        let text = "this is a WebSocket: ws://HOST:PORT/ws";
        return Err(("426 Upgrade Required", "Upgrade: websocket\r\n", text));
    }
    if !has(fields, "Sec-WebSocket-Version", WEBSOCKET_VERSION) {
        let field = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        return Err(("426 Upgrade Required", field, "the version of WebSocket is 13 here"));
    }
    let mut keys = values(fields, "Sec-WebSocket-Key");
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => key,
        _ => return Err(("400 Bad Request", "", "Sec-WebSocket-Key is 16 bytes in Base64")),
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if values(fields, "Sec-WebSocket-Protocol").any(|offered| offered == SUBPROTOCOL) {
        response += &format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n");
    }
    Ok((response + "\r\n").into_bytes())
}

/// 16 bytes are 22 characters of Base64 and two that fill it up.
fn is_key(key: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    key.strip_suffix("==").is_some_and(|key| key.len() == 22 && key.bytes().all(is_base64))
}

/// The values of a field that is a list, on one line or on several.
fn values<'a>(fields: &'a [Header<'a>], name: &str) -> impl Iterator<Item = &'a str> {
    let its = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let lines = its.filter_map(|field| std::str::from_utf8(field.value).ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn has(fields: &[Header<'_>], name: &str, value: &str) -> bool {
    values(fields, name).any(|found| found.eq_ignore_ascii_case(value))
}

/// A response with one line of text; the answer to `HEAD` has none and says how long it would be. `fields` end with
/// their line ends.
fn answer(status: &str, fields: &str, text: &str, has_body: bool) -> Vec<u8> {
    let length = text.len() + 1;
    let connection = if fields.contains("Upgrade") { "Upgrade, close" } else { "close" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         {fields}Connection: {connection}\r\n\r\n"
    );
    if has_body { format!("{head}{text}\n") } else { head }.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a request, wherever it is cut: its head and its body.
    fn answered(request: &str) -> (String, String) {
        let read = |bytes: &[u8]| read(bytes, || true);
        let response = read(request.as_bytes()).expect_err("no upgrade");
        for at in 0..request.len() {
            let cut = read(&request.as_bytes()[..at]);
            assert!(cut == Ok(None) || cut == Err(response.clone()), "cut at {at} of {}", request.len());
        }
        let response = String::from_utf8(response).expect("text");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_owned(), body.to_owned())
    }

    fn check(request: &str, status: &str) -> String {
        let (head, body) = answered(request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.ends_with('\n') && body.lines().count() == 1, "{body}");
        head
    }

    /// The example of RFC 6455, 1.3, with these fields for those of the same names.
    fn handshake(target: &str, changed: &str) -> String {
        let fields = [
            "Host: a",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ];
        let name = |field: &str| field.split_once(':').map(|(name, _)| name.to_lowercase());
        let kept = fields.into_iter().filter(|field| !changed.lines().any(|line| name(line) == name(field)));
        let all: String = kept.chain(changed.lines()).map(|field| format!("{field}\r\n")).collect();
        format!("GET {target} HTTP/1.1\r\n{all}\r\n")
    }

    fn accepted(request: &str) -> String {
        let (response, length) =
            read(format!("{request}more").as_bytes(), || true).expect("not refused").expect("it is whole");
        let response = String::from_utf8(response).expect("text").to_lowercase();
        assert!(response.starts_with("http/1.1 101 "), "{response}");
        assert!(
            response.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
            "{response}"
        );
        assert!(response.ends_with("\r\n\r\n"));
        assert_eq!(length, request.len());
        for at in 0..request.len() {
            assert_eq!(read(&request.as_bytes()[..at], || true), Ok(None), "cut at {at}");
        }
        response
    }

    #[test]
    fn an_upgrade() {
        for target in ["/ws", "/ws/", "/ws?x=1", "/ws/?x=/", "http://a:7780/ws"] {
            assert!(!accepted(&handshake(target, "")).contains("protocol:"));
        }
        accepted(&handshake("/ws", "connection: keep-alive\nCONNECTION: upgrade"));
        accepted(&handshake("/ws", "Upgrade: h2c, WebSocket"));
        for offered in ["pinpost", "mqtt, pinpost", "mqtt\nSec-WebSocket-Protocol: pinpost"] {
            let response = accepted(&handshake("/ws", &format!("Sec-WebSocket-Protocol: {offered}")));
            assert!(response.contains("\r\nsec-websocket-protocol: pinpost\r\n"), "{response}");
        }
        assert!(!accepted(&handshake("/ws", "Sec-WebSocket-Protocol: mqtt, PinPost")).contains("protocol:"));
    }

    #[test]
    fn no_upgrade() {
        let versions = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade, close";
        for version in ["8", "14", "13a"] {
            let head = check(&handshake("/ws", &format!("Sec-WebSocket-Version: {version}")), "426");
            assert!(head.ends_with(versions), "{head}");
        }
        check(&handshake("/ws", "Upgrade: h2c"), "426");
        check(&handshake("/ws", "Connection: close"), "426");
        check(&handshake("/ws", "").replace("HTTP/1.1", "HTTP/1.0"), "426");
        check("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "426");
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "dGhlIHNhbXBsZSBub25j*Q=="] {
            check(&handshake("/ws", &format!("Sec-WebSocket-Key: {key}")), "400");
        }
        let twice = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        check(&handshake("/ws", &format!("{twice}\n{twice}")), "400");
    }

    #[test]
    fn what_is_asked_of_a_node_is_answered() {
        for (target, text) in
            [("/", "pinpost: the WebSocket is at /ws\n"), ("/healthz", "ok\n"), ("/readyz", "ready\n")]
        {
            for version in ["1.0", "1.1"] {
                check(&format!("GET {target}?x HTTP/{version}\r\n\r\n"), "200");
                let (head, body) = answered(&format!("GET {target} HTTP/{version}\r\n\r\n"));
                assert_eq!(body, text);
                assert_eq!(answered(&format!("HEAD {target} HTTP/{version}\r\n\r\n")), (head, String::new()));
            }
        }
        let away = read(b"GET /readyz HTTP/1.1\r\n\r\n", || false).expect_err("not joined");
        assert!(away.starts_with(b"HTTP/1.1 503 "));
        check("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "404");
        check("POST /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "404");
        for target in ["/", "/ws", "/readyz"] {
            let head = check(&format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n"), "405");
            assert!(head.contains("\r\nAllow: GET, HEAD\r\n"), "{head}");
        }
    }

    #[test]
    fn what_is_no_head_or_too_large_is_refused() {
        check("LOGIN alice\r\n\r\n", "400");
        check("\u{16}\u{3}\u{1}", "400");
        let fields = |count| "X: 1\r\n".repeat(count);
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", fields(HEAD_FIELDS_MAX)), "200");
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", fields(HEAD_FIELDS_MAX + 1)), "431");
        // As long as it may be, and one byte more; that one ends soon, never ends, or ends in nonsense.
        let fits = |length| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(length - 23));
        assert_eq!(fits(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
        check(&fits(HEAD_BYTES_MAX), "200");
        for request in [fits(HEAD_BYTES_MAX + 1), fits(HEAD_BYTES_MAX + 2).replace("\n\r\n", "\n\0")] {
            check(&request, "431");
        }
        check(&fits(3 * HEAD_BYTES_MAX), "431");
    }
}
