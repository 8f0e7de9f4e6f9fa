//! What stands in the place of HTTP in a node built without the feature `websocket`.
//!
//! The settings refuse `--http`, so there is no listener that speaks it, and no
//! connection comes here.

/// What a request head comes to.
#[expect(dead_code, reason = "nothing comes here, and callers know all cases")]
pub enum Head {
    /// It is not whole yet.
    Incomplete,
    /// The response that makes this connection a WebSocket, and the length of the head.
    Upgrade(Vec<u8>, usize),
    /// A whole response; the connection closes after it.
    Refuse(Vec<u8>),
}

/// Reads a request head.
pub fn read(_: &[u8]) -> Head {
    unreachable!("no listener speaks HTTP in this build")
}
