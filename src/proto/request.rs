//! What a client says: requests, their tags, and what is wrong with a line.
//!
//! Parsing refuses in one fixed order: text, tag, verb, fields. So the same bad
//! line gets the same error whoever sends it, and the error still carries the
//! line's tag when it had a well-formed one.

use std::fmt;

use crate::proto::line::{Line, foreign};
use crate::proto::name::{NameFault, RoomRef, Tag, UserRef};
use crate::proto::reply::ErrorCode;
use crate::proto::verb::Verb;

/// One request, borrowing from its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Makes this connection a session of the user.
    Login {
        /// Who wants to come in.
        user: UserRef<'a>,
        /// What proves it, where proof is asked for.
        token: Option<&'a str>,
        /// The client will acknowledge each message.
        ack: bool,
    },
    /// Routes one message to a user.
    Send {
        /// The recipient.
        to: UserRef<'a>,
        /// The message; never empty.
        text: &'a str,
    },
    /// Routes one message to the members of a room.
    SendRoom {
        /// The room.
        room: RoomRef<'a>,
        /// The message; never empty.
        text: &'a str,
    },
    /// Routes one message at most once, without an answer.
    Cast {
        /// The recipient.
        to: UserRef<'a>,
        /// The message; never empty.
        text: &'a str,
    },
    /// The client has taken a message.
    Ack {
        /// The message.
        id: Tag<'a>,
        /// Its sender.
        from: UserRef<'a>,
    },
    /// Asks for presence.
    Who(UserRef<'a>),
    /// From now on `UP` and `DOWN` tell of changes.
    Watch(UserRef<'a>),
    /// Ends a watch.
    Unwatch(UserRef<'a>),
    /// Enters a room.
    Join(RoomRef<'a>),
    /// Leaves a room.
    Leave(RoomRef<'a>),
    /// Asks for a `PONG` with the same text.
    Ping(Option<&'a str>),
    /// Asks what can be said, or how one verb is used.
    Help(Option<&'a str>),
    /// Ends the connection in order.
    Quit,
}

/// A line as the server understood it: the tag to answer under, and the
/// request or the reason why it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaggedRequest<'a> {
    /// The tag, when the line began with a well-formed one.
    pub tag: Option<Tag<'a>>,
    /// The request.
    pub request: Result<Request<'a>, BadLine>,
}

/// What is wrong with a line: a code for programs, a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The code of the `ERR` reply.
    pub code: ErrorCode,
    /// The text of the `ERR` reply, as far as it is always the same.
    pub text: &'static str,
    /// What is wrong with a name.
    pub fault: Option<NameFault>,
}

impl BadLine {
    /// One whose text is always the same.
    pub const fn new(code: ErrorCode, text: &'static str) -> Self {
        BadLine { code, text, fault: None }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)?;
        self.fault.map_or(Ok(()), |fault| write!(f, ": the name {fault}"))
    }
}

impl<'a> TaggedRequest<'a> {
    /// Understands one decoded line.
    pub fn parse(line: Line<'a>) -> Self {
        let (head, bad) = match line {
            Line::Whole(bytes) => return Self::parse_bytes(bytes),
            Line::TooLong(head) => (head, bad(ErrorCode::TooLong, "the line is over this server's max-line")),
            Line::Cut(head) => {
                (head, bad(ErrorCode::BadLine, "the last line has no line feed: it was not carried out"))
            }
            Line::Foreign(head) => {
                (head, bad(ErrorCode::BadLine, foreign(head).unwrap_or("this is for another kind of server")))
            }
            Line::Telnet(_) => unreachable!("it is no line"),
        };
        TaggedRequest { tag: tag_of(head), request: Err(bad) }
    }

    fn parse_bytes(bytes: &'a [u8]) -> Self {
        let Some(text) = clean_text(bytes) else {
            let request = Err(bad(ErrorCode::BadText, "a line is UTF-8 without control characters"));
            return TaggedRequest { tag: tag_of(bytes), request };
        };
        let Some(tagged) = text.strip_prefix('@') else {
            return TaggedRequest { tag: None, request: Request::parse(text) };
        };
        let (tag, rest) = split(tagged).unwrap_or((tagged, ""));
        match Tag::parse(tag) {
            None => TaggedRequest {
                tag: None,
                request: Err(bad(ErrorCode::BadLine, "a tag is 1 to 64 of A-Z a-z 0-9 . _ - ~")),
            },
            Some(tag) => TaggedRequest { tag: Some(tag), request: Request::parse(rest) },
        }
    }

    /// Appends the line that parses to this, its LF included; nothing for one
    /// that is no request.
    pub fn print(&self, out: &mut Vec<u8>) {
        let Ok(request) = self.request else { return };
        if let Some(tag) = self.tag {
            out.push(b'@');
            out.extend_from_slice(tag.as_str().as_bytes());
            out.push(b' ');
        }
        request.print(out);
        out.push(b'\n');
    }
}

impl<'a> Request<'a> {
    /// Understands a request without tag and line ending.
    ///
    /// # Errors
    /// `unknown-verb`, or `bad-line` when a field is missing or malformed.
    pub fn parse(line: &'a str) -> Result<Self, BadLine> {
        // An empty field is a missing one; only an optional text at the end may be empty.
        let (word, rest) = match split(line) {
            Some((word, rest)) => (word, Some(rest)),
            None => (line, None),
        };
        if word.is_empty() {
            return Err(bad(ErrorCode::BadLine, "a request begins with its verb"));
        }
        let Some(verb) = Verb::parse(word) else {
            return Err(bad(ErrorCode::UnknownVerb, "no such request; HELP lists them"));
        };
        fields(verb, rest).map_err(|fault| BadLine { fault, ..bad(ErrorCode::BadLine, verb.usage()) })
    }

    /// The request's verb.
    pub fn verb(&self) -> Verb {
        match self {
            Request::Login { .. } => Verb::Login,
            Request::Send { .. } | Request::SendRoom { .. } => Verb::Send,
            Request::Cast { .. } => Verb::Cast,
            Request::Ack { .. } => Verb::Ack,
            Request::Who(_) => Verb::Who,
            Request::Watch(_) => Verb::Watch,
            Request::Unwatch(_) => Verb::Unwatch,
            Request::Join(_) => Verb::Join,
            Request::Leave(_) => Verb::Leave,
            Request::Ping(_) => Verb::Ping,
            Request::Help(_) => Verb::Help,
            Request::Quit => Verb::Quit,
        }
    }

    /// Appends the request without tag and line ending.
    pub fn print(&self, out: &mut Vec<u8>) {
        let mut put = |parts: &[&str]| parts.iter().for_each(|p| out.extend_from_slice(p.as_bytes()));
        put(&[self.verb().word()]);
        match *self {
            Request::Login { user, token, ack } => {
                put(&[" ", user.as_str()]);
                if let Some(token) = token {
                    put(&[" ", token]);
                }
                if ack {
                    put(&[" ack"]);
                }
            }
            Request::Send { to, text } | Request::Cast { to, text } => put(&[" ", to.as_str(), " ", text]),
            Request::SendRoom { room, text } => put(&[" #", room.as_str(), " ", text]),
            Request::Ack { id, from } => put(&[" ", id.as_str(), " ", from.as_str()]),
            Request::Who(user) | Request::Watch(user) | Request::Unwatch(user) => put(&[" ", user.as_str()]),
            Request::Join(room) | Request::Leave(room) => put(&[" #", room.as_str()]),
            Request::Ping(Some(text)) | Request::Help(Some(text)) => put(&[" ", text]),
            Request::Ping(None) | Request::Help(None) | Request::Quit => {}
        }
    }
}

/// Reads the fields after the verb; an error is a bad line, with what is wrong with a name.
fn fields(verb: Verb, rest: Option<&str>) -> Result<Request<'_>, Option<NameFault>> {
    // `WHO ` and `WHO` both lack the user; `PING ` and `PING` are the same.
    let rest = rest.filter(|rest| !rest.is_empty());
    let all = rest.ok_or(None);
    Ok(match verb {
        Verb::Ping => Request::Ping(rest),
        Verb::Help => match rest {
            Some(word) if word.contains(' ') => return Err(None),
            word => Request::Help(word),
        },
        Verb::Quit if rest.is_some() => return Err(None),
        Verb::Quit => Request::Quit,
        Verb::Who => Request::Who(UserRef::check(all?)?),
        Verb::Watch => Request::Watch(UserRef::check(all?)?),
        Verb::Unwatch => Request::Unwatch(UserRef::check(all?)?),
        Verb::Join => Request::Join(RoomRef::check(all?)?),
        Verb::Leave => Request::Leave(RoomRef::check(all?)?),
        Verb::Ack => {
            let (id, from) = split(all?).ok_or(None)?;
            Request::Ack { id: Tag::parse(id).ok_or(None)?, from: UserRef::check(from)? }
        }
        Verb::Cast | Verb::Send => {
            let (to, text) = split(all?).filter(|(_, text)| !text.is_empty()).ok_or(None)?;
            match verb {
                Verb::Cast => Request::Cast { to: UserRef::check(to)?, text },
                _ if to.starts_with('#') => Request::SendRoom { room: RoomRef::check(to)?, text },
                _ => Request::Send { to: UserRef::check(to)?, text },
            }
        }
        Verb::Login => return login(all?),
    })
}

fn login(rest: &str) -> Result<Request<'_>, Option<NameFault>> {
    let mut words = rest.split(' ');
    let user = UserRef::check(words.next().ok_or(None)?)?;
    let (token, ack) = match (words.next(), words.next(), words.next()) {
        (None, ..) => (None, false),
        (Some("ack"), None, _) => (None, true),
        (Some(token), None, _) => (Some(token), false),
        (Some(token), Some("ack"), None) if token != "ack" => (Some(token), true),
        _ => return Err(None),
    };
    let token_is_whole = token.is_none_or(|token| !token.is_empty());
    token_is_whole.then_some(Request::Login { user, token, ack }).ok_or(None)
}

/// What is before and behind the first space. Fields are short, so a plain loop
/// beats the searcher of `str::split_once`.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// The line as text, if it is UTF-8 and its only control characters are TABs.
pub(super) fn clean_text(bytes: &[u8]) -> Option<&str> {
    let is_control = |b: u8| (b < 0x20 && b != b'\t') || b == 0x7f;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut all_bits = 0;
    let suspicious = |word: &[u8; 8]| {
        let bits = u64::from_ne_bytes(*word);
        all_bits |= bits;
        may_hold_control(bits) && word.iter().any(|&b| is_control(b))
    };
    let controls = words.iter().any(suspicious) || rest.iter().any(|&b| is_control(b));
    let text = std::str::from_utf8(bytes).ok().filter(|_| !controls)?;
    if all_bits & UPPER_BITS == 0 && rest.is_ascii() {
        return Some(text);
    }
    // C1, U+0080 to U+009F, is written C2 80 to C2 9F.
    let has_c1 = |at: usize| (0x80..=0x9f).contains(&bytes[at + 1]);
    (!memchr::memchr_iter(0xc2, bytes).any(has_c1)).then_some(text)
}

/// Looks at eight bytes at once: `false` when none is below 0x20 or is 0x7f.
/// (The classic "has a byte less than n" of Bit Twiddling Hacks; TAB and bytes
/// above 0x7f may be suspected for nothing.)
fn may_hold_control(word: u64) -> bool {
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let not_delete = word ^ (ONES * 0x7f);
    let is_delete = not_delete.wrapping_sub(ONES) & !not_delete;
    (below_space | is_delete) & UPPER_BITS != 0
}

/// Eight bytes of one.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
/// The bit that no byte of ASCII has, of eight bytes.
const UPPER_BITS: u64 = ONES * 0x80;

/// The tag of a line that is bad for another reason.
fn tag_of(bytes: &[u8]) -> Option<Tag<'_>> {
    let end = memchr::memchr(b' ', bytes)?;
    Tag::parse(std::str::from_utf8(bytes[..end].strip_prefix(b"@")?).ok()?)
}

fn bad(code: ErrorCode, text: &'static str) -> BadLine {
    BadLine::new(code, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> TaggedRequest<'_> {
        TaggedRequest::parse(Line::Whole(line))
    }

    fn check_bad(line: &[u8], tag: Option<&str>, code: ErrorCode) {
        let parsed = parse(line);
        assert_eq!(parsed.tag.map(Tag::as_str), tag, "{line:?}");
        assert_eq!(parsed.request.expect_err("bad").code, code, "{:?}", String::from_utf8_lossy(line));
    }

    #[test]
    fn what_parses_prints_and_parses_again() {
        let samples = [
            "LOGIN alice",
            "LOGIN alice ack",
            "LOGIN alice token",
            "LOGIN alice token ack",
            "LOGIN 小明",
            "SEND bob hello there",
            "SEND bob  two  spaces ",
            "SEND bob \ttab",
            "SEND #lobby hi all",
            "CAST bob hi",
            "ACK a.b_c-d~1 bob",
            "WHO bob",
            "WATCH bob",
            "UNWATCH bob",
            "JOIN #lobby",
            "LEAVE #lobby",
            "PING",
            "PING some text",
            "HELP",
            "HELP SEND",
            "QUIT",
            "@t-1 SEND bob hi",
        ];
        for sample in samples {
            let parsed = parse(sample.as_bytes());
            assert!(parsed.request.is_ok(), "{sample}");
            let mut printed = vec![];
            parsed.print(&mut printed);
            assert_eq!(String::from_utf8_lossy(&printed), format!("{sample}\n"));
        }
    }

    #[test]
    fn verbs_are_matched_without_regard_to_case() {
        assert_eq!(parse(b"ping x").request, Ok(Request::Ping(Some("x"))));
        assert_eq!(parse(b"Quit").request, Ok(Request::Quit));
        assert_eq!(parse(b"PING ").request, Ok(Request::Ping(None)));
    }

    #[test]
    fn control_characters_are_found_wherever_they_stand() {
        for length in 1..40 {
            for at in 0..length {
                for byte in 0..=0x7f_u8 {
                    let mut line = vec![b'x'; length];
                    line[at] = byte;
                    let is_control = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
                    assert_eq!(clean_text(&line).is_none(), is_control, "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert!(clean_text("é\u{a0}\u{9f}".as_bytes()).is_none(), "C1");
        assert!(clean_text("\u{a0}ÿ小明\u{c2}\u{2028}\t".as_bytes()).is_some());
    }

    #[test]
    fn bad_lines() {
        let bad = ErrorCode::BadLine;
        for line in [
            " ",
            " PING",
            "LOGIN",
            "LOGIN ",
            "LOGIN  alice",
            "LOGIN #a",
            "LOGIN a b c",
            "LOGIN a ack ack",
            "LOGIN a ",
            "LOGIN a t ack x",
            "LOGIN a  ack",
            "SEND",
            "SEND bob",
            "SEND bob ",
            "SEND  bob hi",
            "SEND @x hi",
            "SEND #a#b hi",
            "SEND # hi",
            "CAST #room hi",
            "CAST bob",
            "WHO",
            "WHO a b",
            "WHO ",
            "WATCH #a",
            "JOIN lobby",
            "JOIN #",
            "LEAVE",
            "ACK",
            "ACK id",
            "ACK i!d bob",
            "QUIT now",
            "HELP a b",
            "@",
            "@ PING",
            "@a!b PING",
        ] {
            check_bad(line.as_bytes(), None, bad);
        }
        check_bad(b"@tag", Some("tag"), bad);
        check_bad(b"@tag ", Some("tag"), bad);
        check_bad(b"@tag WHO", Some("tag"), bad);
        check_bad(b"@tag  PING", Some("tag"), bad);
    }

    #[test]
    fn unknown_verbs_and_bad_text_keep_their_tag() {
        check_bad(b"FETCH x", None, ErrorCode::UnknownVerb);
        check_bad(b"@t FETCH x", Some("t"), ErrorCode::UnknownVerb);
        for line in
            [&b"SEND bob \x1b[2J"[..], b"SEND bob \x7f", b"PING \xc2\x9b", b"PING \xff", b"PING a\rb", b"\0"]
        {
            check_bad(line, None, ErrorCode::BadText);
        }
        check_bad(b"@t PING \x07", Some("t"), ErrorCode::BadText);
        check_bad(b"@t\xff PING \x07", None, ErrorCode::BadText);
        let long = TaggedRequest::parse(Line::TooLong(b"@t SEND bob xxxxx"));
        assert_eq!(long.tag.map(Tag::as_str), Some("t"));
        assert_eq!(long.request.expect_err("bad").code, ErrorCode::TooLong);
        assert_eq!(TaggedRequest::parse(Line::TooLong(b"SEND bob xxxxx")).tag, None);
        assert!(parse("PING \u{c2}\u{a0}é".as_bytes()).request.is_ok());
    }
}
