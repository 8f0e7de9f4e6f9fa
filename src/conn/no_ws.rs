//! What stands in the place of WebSocket frames in a node built without the feature `websocket`.
//!
//! No connection becomes a WebSocket without a request head (`no_http.rs`), so
//! nothing here is ever called.

use std::ops::ControlFlow;

use crate::conn::Heard;

/// Splits a stream of client frames into lines and control frames.
#[derive(Default)]
pub struct FrameDecoder;

impl FrameDecoder {
    /// Reads `input`.
    pub fn feed(&mut self, _: &mut [u8], _: usize, _: impl FnMut(Heard<'_>) -> ControlFlow<()>) -> usize {
        unreachable!("no connection is a WebSocket in this build")
    }
}

/// The bytes of a `PONG` frame.
pub fn pong(_: &[u8]) -> Vec<u8> {
    unreachable!("no connection is a WebSocket in this build")
}

/// The bytes of a close frame.
pub fn close(_: u16) -> Vec<u8> {
    unreachable!("no connection is a WebSocket in this build")
}
