//! Why something did not work, apart by what the caller can do about it: mend the
//! input, try again, or give up.

use std::error::Error;
use std::fmt;
use std::io;

use crate::proto::{CloseReason, ErrorCode, NameError};

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The name or the token can't be right; nothing was tried.
    BadInput(BadInput),
    /// The server can't be reached, or the connection broke during the login.
    Io {
        /// `HOST:PORT`.
        server: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// The server did not answer in time.
    TimedOut {
        /// `HOST:PORT`.
        server: String,
    },
    /// What answered does not speak this version of the protocol.
    NotPinpost {
        /// `HOST:PORT`.
        server: String,
        /// What it said, or what was wrong with it; escaped, and not all of it.
        said: String,
    },
    /// The server did not want this login.
    Refused(Refusal),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::BadInput(bad) => bad.fmt(f),
            ClientError::Io { server, error } => write!(f, "{server}: {error}"),
            ClientError::TimedOut { server } => write!(f, "{server}: no answer in time"),
            ClientError::NotPinpost { server, said } => {
                write!(f, "{server}: does not speak this version of pinpost: {said}")
            }
            ClientError::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ClientError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl<T: Into<BadInput>> From<T> for ClientError {
    fn from(bad: T) -> Self {
        ClientError::BadInput(bad.into())
    }
}

/// The server's no to this user being connected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// `ERR` to the `LOGIN`.
    Login {
        /// Why.
        code: ErrorCode,
        /// The same for people.
        text: String,
    },
    /// `BYE`.
    Bye {
        /// Why.
        reason: CloseReason,
        /// The same for people; may be empty.
        text: String,
    },
}

impl Refusal {
    /// Tells whether trying again would be refused again, or would only start a
    /// fight with another session of the same user.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Refusal::Login { code, .. } => !matches!(
                code,
                ErrorCode::TooMany
                    | ErrorCode::Limited
                    | ErrorCode::Unavailable
                    | ErrorCode::Timeout
                    | ErrorCode::Draining
            ),
            Refusal::Bye { reason, .. } => matches!(reason, CloseReason::Replaced | CloseReason::Denied),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, word, text) = match self {
            Refusal::Login { code, text } => ("login refused", code.word(), text),
            Refusal::Bye { reason, text } => ("the server closed the connection", reason.word(), text),
        };
        match text.as_str() {
            "" => write!(f, "{what}: {word}"),
            text => write!(f, "{what}: {word}: {text}"),
        }
    }
}

impl Error for Refusal {}

/// Why a request did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The request can't be said; nothing was sent.
    BadInput(BadInput),
    /// The server answered `ERR`. After [`ErrorCode::Timeout`] the outcome is not known;
    /// after any other code the request was not carried out.
    Refused {
        /// Why.
        code: ErrorCode,
        /// The same for people.
        text: String,
    },
    /// The connection broke before the reply, and saying it again led to nothing: there
    /// was no other connection in time, the client was closed, or the repeated message
    /// was refused, which tells nothing of the first. The outcome is not known.
    Lost,
    /// The client has ended; nothing was sent.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::BadInput(bad) => bad.fmt(f),
            SendError::Refused { code, text } if text.is_empty() => f.write_str(code.word()),
            SendError::Refused { code, text } => write!(f, "{}: {text}", code.word()),
            SendError::Lost => f.write_str("the connection broke before the reply: the outcome is not known"),
            SendError::Closed => f.write_str("the client has ended; nothing was sent"),
        }
    }
}

impl Error for SendError {}

impl<T: Into<BadInput>> From<T> for SendError {
    fn from(bad: T) -> Self {
        SendError::BadInput(bad.into())
    }
}

/// What is wrong with what was to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadInput {
    /// Not a user's name, or not an id.
    Name(NameError),
    /// Not a token.
    Token,
    /// No text.
    Empty,
    /// A control character other than TAB; a line break is one.
    Control {
        /// The first one.
        found: char,
    },
    /// Over the longest line.
    TooLong {
        /// What the line would be, LF included.
        bytes: usize,
        /// What it may be.
        bytes_max: usize,
    },
    /// The id of a message whose fate is not known yet.
    IdInUse {
        /// The id.
        id: String,
    },
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadInput::Name(error) => error.fmt(f),
            BadInput::Token => {
                f.write_str("a token is one word without control characters, and not the word ack")
            }
            BadInput::Empty => f.write_str("an empty text can't be sent"),
            BadInput::Control { found } => {
                write!(f, "a text is one line without control characters, and {found:?} is one")
            }
            BadInput::TooLong { bytes, bytes_max } => {
                write!(f, "the line would have {bytes} bytes; {bytes_max} is the most")
            }
            BadInput::IdInUse { id } => {
                write!(f, "the id {id} belongs to a message whose fate is not known yet")
            }
        }
    }
}

impl Error for BadInput {}

impl From<NameError> for BadInput {
    fn from(error: NameError) -> Self {
        BadInput::Name(error)
    }
}
