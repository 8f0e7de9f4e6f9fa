//! The client's half of WebSocket, as much of it as a benchmark needs: the
//! upgrade request, masked text frames out, unmasked text frames in.
//!
//! Written by hand so that ten thousand clients cost the load generator little
//! and nothing stands between a byte on the wire and the check of it. The key
//! and the mask are constants, where a real client draws them: the server's
//! work is the same. Fragmented messages are an error here: the server has no
//! reason to send any.

use std::io;
use std::net::SocketAddr;

/// The request that turns a connection to `/ws` into a WebSocket.
pub fn upgrade_request(server: SocketAddr) -> Vec<u8> {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Checks the answer to the upgrade and returns its length; none when it is not complete yet.
pub fn upgrade_response(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let mut headers = lines.filter_map(|line| line.split_once(": "));
    let accepted =
        headers.any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value == ACCEPT);
    if !status.starts_with("HTTP/1.1 101 ") || !accepted {
        return Err(io::Error::other(format!("the upgrade to WebSocket was refused: {head:?}")));
    }
    Ok(Some(end + 4))
}

/// Appends a text as one masked frame.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(FINAL_TEXT);
    match text.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length => {
            let length = u16::try_from(length).expect("texts of the bench are short");
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(text.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Takes whole text frames off `bytes` and appends their lines, each with its LF.
/// Returns how many bytes were used.
pub fn take_texts(bytes: &[u8], lines: &mut Vec<u8>) -> io::Result<usize> {
    let mut used = 0;
    loop {
        let (header, length) = match bytes[used..] {
            [FINAL_TEXT, LENGTH_16, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            [FINAL_TEXT, length @ 0..LENGTH_16, ..] => (2, usize::from(length)),
            [] | [FINAL_TEXT] | [FINAL_TEXT, LENGTH_16, ..] => return Ok(used),
            [first, ..] => {
                return Err(io::Error::other(format!("no short text frame: it begins with {first}")));
            }
        };
        let Some(payload) = bytes.get(used + header..used + header + length) else { return Ok(used) };
        lines.extend_from_slice(payload);
        if !payload.ends_with(b"\n") {
            lines.push(b'\n');
        }
        used += header + length;
    }
}

/// The key and its answer from the standard's own example (RFC 6455, section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The first byte of a frame: the last (and only) one of a text message.
const FINAL_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x3e];
