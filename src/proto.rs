//! The pinpost line protocol, version 1: bytes in, values out.
//!
//! Server, client, examples and tests share this module, so it is pure: no
//! sockets, clocks, locks or logging. Whatever is parsed here can be printed
//! here, and parses again to the same value.
//!
//! Reading order: [`name`] (who and what), [`mod@line`] (bytes to lines),
//! [`request`] (what a client says), [`reply`] (what the server says),
//! [`wire`] (what one node tells another).

pub mod line;
pub mod name;
mod number;
pub mod reply;
pub mod request;
pub mod verb;
pub mod wire;

pub use line::{Line, LineDecoder};
pub use name::{MessageId, NameError, NodeId, SessionId, Tag, UserName, UserRef};
pub use reply::{CloseReason, ErrorCode, ServerLine};
pub use request::{Request, TaggedRequest};

/// The version that `HELLO` announces.
pub const VERSION: u32 = 1;

/// Default for the longest request line, LF included.
pub const LINE_BYTES_MAX: usize = 4096;

/// The most that the setting `max-line` may allow.
pub const LINE_BYTES_LIMIT: usize = 65_536;
