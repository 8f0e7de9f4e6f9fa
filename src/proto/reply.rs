//! What the server says: replies, messages, errors and the last word.
//!
//! The codes are the contract: each stands here once and is never reused. The
//! text behind a code is for people and may change.

use std::fmt;

use crate::proto::name::{IdRef, SessionId, Tag, UserRef};
use crate::proto::number::print_number;
use crate::proto::{LINE_BYTES_LIMIT, VERSION};

/// The longest line that a server sends: the longest request, and what `MSG`
/// puts before its text.
pub const SERVER_LINE_BYTES_MAX: usize = LINE_BYTES_LIMIT + 256;

/// One line from the server, borrowing from what it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerLine<'a> {
    /// The first line of every connection.
    Hello {
        /// The protocol's version.
        version: u32,
        /// The node's id.
        node: &'a str,
    },
    /// A request worked; what follows depends on the request.
    Ok(&'a str),
    /// The answer to `PING`.
    Pong(Option<&'a str>),
    /// A line of help.
    Info(&'a str),
    /// A message.
    Msg {
        /// The sender.
        from: UserRef<'a>,
        /// The room it was sent to, without `#`, if it was.
        room: Option<UserRef<'a>>,
        /// Its id, unique for its sender.
        id: Tag<'a>,
        /// The text, byte for byte as it was sent.
        text: &'a str,
    },
    /// A watched user is online.
    Up {
        /// The user.
        user: UserRef<'a>,
        /// Its sessions.
        sessions: u32,
    },
    /// A watched user went offline.
    Down(UserRef<'a>),
    /// The last line before the server closes.
    Bye {
        /// Why it closes.
        reason: CloseReason,
        /// The same for people; may be empty.
        text: &'a str,
    },
    /// A request did not work.
    Err {
        /// Why not.
        code: ErrorCode,
        /// The same for people.
        text: &'a str,
    },
}

impl<'a> ServerLine<'a> {
    /// Reads a line without its ending: the tag, if any, and what was said.
    /// `None` when it is not a line of this protocol version.
    pub fn parse(line: &'a str) -> Option<(Option<Tag<'a>>, Self)> {
        match line.strip_prefix('@') {
            Some(tagged) => {
                let (tag, rest) = tagged.split_once(' ')?;
                Some((Some(Tag::parse(tag)?), Self::parse_untagged(rest)?))
            }
            None => Some((None, Self::parse_untagged(line)?)),
        }
    }

    fn parse_untagged(line: &'a str) -> Option<Self> {
        let (word, rest) = match line.split_once(' ') {
            Some((word, rest)) => (word, Some(rest)),
            None => (line, None),
        };
        Some(match (word, rest) {
            ("OK", rest) => ServerLine::Ok(rest.unwrap_or("")),
            ("PONG", rest) => ServerLine::Pong(rest),
            ("INFO", rest) => ServerLine::Info(rest.unwrap_or("")),
            ("DOWN", Some(user)) => ServerLine::Down(UserRef::parse(user)?),
            ("UP", Some(rest)) => {
                let (user, sessions) = rest.split_once(' ')?;
                ServerLine::Up { user: UserRef::parse(user)?, sessions: sessions.parse().ok()? }
            }
            ("MSG", Some(rest)) => {
                let (from, rest) = rest.split_once(' ')?;
                let (id, text) = rest.split_once(' ')?;
                let (from, room) = match from.split_once('#') {
                    Some((from, room)) => (from, Some(UserRef::parse(room)?)),
                    None => (from, None),
                };
                ServerLine::Msg { from: UserRef::parse(from)?, room, id: Tag::parse(id)?, text }
            }
            ("HELLO", Some(rest)) => {
                let (version, node) = rest.strip_prefix("pinpost ")?.split_once(' ')?;
                ServerLine::Hello { version: version.parse().ok()?, node }
            }
            ("BYE", Some(rest)) => {
                let (reason, text) = rest.split_once(' ').unwrap_or((rest, ""));
                ServerLine::Bye { reason: CloseReason::parse(reason)?, text }
            }
            ("ERR", Some(rest)) => {
                let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
                ServerLine::Err { code: ErrorCode::parse(code)?, text }
            }
            _ => return None,
        })
    }

    /// Appends the line without tag and ending.
    pub fn print(&self, out: &mut Vec<u8>) {
        match *self {
            ServerLine::Hello { version, node } => {
                put(out, &["HELLO pinpost "]);
                print_number(u64::from(version), out);
                put(out, &[" ", node]);
            }
            ServerLine::Ok("") => put(out, &["OK"]),
            ServerLine::Ok(rest) => put(out, &["OK ", rest]),
            ServerLine::Pong(None) => put(out, &["PONG"]),
            ServerLine::Pong(Some(text)) => put(out, &["PONG ", text]),
            ServerLine::Info(text) => put(out, &["INFO ", text]),
            ServerLine::Msg { from, room, id, text } => {
                put(out, &["MSG ", from.as_str()]);
                if let Some(room) = room {
                    put(out, &["#", room.as_str()]);
                }
                put(out, &[" ", id.as_str(), " ", text]);
            }
            ServerLine::Up { user, sessions } => {
                put(out, &["UP ", user.as_str(), " "]);
                print_number(u64::from(sessions), out);
            }
            ServerLine::Down(user) => put(out, &["DOWN ", user.as_str()]),
            ServerLine::Bye { reason, text: "" } => put(out, &["BYE ", reason.word()]),
            ServerLine::Bye { reason, text } => put(out, &["BYE ", reason.word(), " ", text]),
            ServerLine::Err { code, text } => put(out, &["ERR ", code.word(), " ", text]),
        }
    }
}

/// Appends `@<tag> ` when there is a tag.
pub fn print_tag(tag: Option<&str>, out: &mut Vec<u8>) {
    if let Some(tag) = tag {
        put(out, &["@", tag, " "]);
    }
}

/// Appends the `HELLO` of this version.
pub fn print_hello(node: &str, out: &mut Vec<u8>) {
    ServerLine::Hello { version: VERSION, node }.print(out);
}

/// Appends the reply to `LOGIN`.
pub fn print_logged_in(user: UserRef<'_>, session: SessionId, out: &mut Vec<u8>) {
    put(out, &["OK ", user.as_str(), " ", session.as_str()]);
}

/// Appends the reply to a `SEND` that was delivered.
pub fn print_delivered(id: IdRef<'_>, out: &mut Vec<u8>) {
    print_fate(id, b"delivered", out);
}

/// Appends the reply to a `SEND` that is in a mailbox.
pub fn print_stored(id: IdRef<'_>, out: &mut Vec<u8>) {
    print_fate(id, b"stored", out);
}

fn print_fate(id: IdRef<'_>, fate: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"OK");
    id.print_between_spaces(out);
    out.extend_from_slice(fate);
}

/// Appends the reply to `WHO`: how many sessions the user has, 0 for offline.
pub fn print_presence(user: UserRef<'_>, sessions: u32, out: &mut Vec<u8>) {
    put(out, &["OK ", user.as_str()]);
    if sessions == 0 {
        return put(out, &[" offline"]);
    }
    put(out, &[" online "]);
    print_number(u64::from(sessions), out);
}

/// Appends a `MSG` line.
pub fn print_msg(from: UserRef<'_>, id: IdRef<'_>, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"MSG ");
    out.extend_from_slice(from.as_str().as_bytes());
    id.print_between_spaces(out);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a `MSG` line back: its sender, its id and its text; `None` when it is another line.
pub fn parse_msg(line: &[u8]) -> Option<(UserRef<'_>, Tag<'_>, &str)> {
    match ServerLine::parse(std::str::from_utf8(line).ok()?)? {
        (None, ServerLine::Msg { from, room: None, id, text }) => Some((from, id, text)),
        _ => None,
    }
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Declares an enum of wire words: the variants, their words, and both directions.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the protocol's table.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The sentence for people that usually follows the word.
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// Finds the value of a word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// Why a request did not work.
    ErrorCode {
        /// A field is missing or has the wrong form.
        BadLine = "bad-line", "a field is missing or has the wrong form";
        /// Not UTF-8, or a control character.
        BadText = "bad-text", "a line is UTF-8 without control characters";
        /// Over `max-line`.
        TooLong = "too-long", "the line is over this server's max-line";
        /// No such request.
        UnknownVerb = "unknown-verb", "no such request; HELP lists them";
        /// Only `LOGIN`, `PING`, `HELP` and `QUIT` are taken before `LOGIN`.
        LoginFirst = "login-first", "LOGIN <user> comes first";
        /// A second `LOGIN`.
        AlreadyIn = "already-in", "this connection has logged in already";
        /// Wrong, expired or missing token, or not allowed.
        Denied = "denied", "not allowed";
        /// The recipient has no session, and there is no mailbox for it.
        Offline = "offline", "the user is not connected; the message was not delivered";
        /// The mailbox is at its limit.
        MailboxFull = "mailbox-full", "the user's mailbox is full; the message was not stored";
        /// `SEND` to a room that the session did not join.
        NotMember = "not-member", "JOIN the room first";
        /// Over this session's rate.
        Limited = "limited", "slow down";
        /// Over a limit on sessions, rooms or watches.
        TooMany = "too-many", "over a limit";
        /// Presence or the broker can't be reached now; nothing was sent.
        Unavailable = "unavailable", "other nodes can't be reached now; nothing was sent";
        /// The outcome is not known.
        Timeout = "timeout", "the outcome is not known; the same line with the same tag may be sent again";
        /// This node is shutting down.
        Draining = "draining", "this node is shutting down; reconnect elsewhere";
    }
}

words! {
    /// Why the server closes a connection.
    CloseReason {
        /// The client said `QUIT`.
        Quit = "quit", "";
        /// A newer login of the same user took its place.
        Replaced = "replaced", "a newer login took this one's place";
        /// A slow consumer: it did not read what waited for it.
        Slow = "slow", "too much waited for this connection, unread";
        /// No `LOGIN` in time.
        Idle = "idle", "no LOGIN in time";
        /// The node is shutting down.
        Draining = "draining", "this node is shutting down; reconnect elsewhere";
        /// Refused too often.
        Denied = "denied", "refused too often";
        /// Too fast for too long.
        Flood = "flood", "too fast for too long";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_again() {
        let samples = [
            "HELLO pinpost 1 pi-V1StGXR8",
            "OK",
            "OK alice 4k2jd8s0",
            "@t OK t delivered",
            "PONG",
            "PONG some  text ",
            "INFO SEND <user> <text>",
            "MSG alice 4k2jd8s0-1 hello there",
            "MSG alice#lobby x  two spaces",
            "UP bob 2",
            "DOWN bob",
            "BYE quit",
            "BYE slow too much waited",
            "ERR offline the user is not connected",
        ];
        for sample in samples {
            let (tag, line) = ServerLine::parse(sample).expect(sample);
            let mut out = vec![];
            print_tag(tag.map(Tag::as_str), &mut out);
            line.print(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), sample);
        }
        for bad in ["", "HELLO", "MSG alice", "MSG alice id", "ERR nonsense x", "BYE", "UP bob", "@t", "ok"] {
            assert_eq!(ServerLine::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_short_ways_print_the_same_lines() {
        let session = SessionId::parse("4k2jd8s0").expect("valid");
        let id = IdRef::Counted(session, 7);
        let alice = UserRef::parse("alice").expect("valid");
        let check = |print: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut out = vec![];
            print(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
            assert!(ServerLine::parse(expected).is_some(), "{expected}");
        };
        check(&|out| print_hello("pi-1", out), "HELLO pinpost 1 pi-1");
        check(&|out| print_logged_in(alice, session, out), "OK alice 4k2jd8s0");
        check(&|out| print_delivered(id, out), "OK 4k2jd8s0-7 delivered");
        check(&|out| print_stored(id, out), "OK 4k2jd8s0-7 stored");
        check(&|out| print_presence(alice, 0, out), "OK alice offline");
        check(&|out| print_presence(alice, 12, out), "OK alice online 12");
        check(
            &|out| print_msg(UserRef::parse("alice").expect("valid"), id, "hi", out),
            "MSG alice 4k2jd8s0-7 hi",
        );
    }

    #[test]
    fn words_are_unique() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.word()), Some(*code));
        }
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::parse(reason.word()), Some(*reason));
        }
    }
}
