//! Names and ids: types whose values are valid because they exist.
//!
//! A borrowed form (`UserRef`) comes out of a parsed line without a copy; the
//! owned form (`UserName`) is one shared allocation. `parse` gives an `Option`, for
//! code that has its own answer to a wrong one; `FromStr` has a sentence for people.
//! Nothing here knows how an id is made: that takes randomness, which `proto` does without.

use std::borrow::Borrow;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::proto::number::{digits, print_number};

/// The most bytes of a user name, a room name or an id.
pub const NAME_BYTES_MAX: usize = 64;

/// A valid user name that borrows from the line it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserRef<'a>(&'a str);

impl<'a> UserRef<'a> {
    /// Takes 1 to 64 bytes without space, control character, or one that is not seen; not beginning with `#`, `@` or
    /// `+`, and holding no `#`. Anything else is `None`.
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::check(text).ok()
    }

    /// The same, with what is wrong.
    pub fn check(text: &'a str) -> Result<Self, NameFault> {
        match text.as_bytes().first() {
            None => return Err(NameFault::Empty),
            Some(mark @ (b'#' | b'@' | b'+')) => return Err(NameFault::Begins(char::from(*mark))),
            _ if text.len() > NAME_BYTES_MAX => return Err(NameFault::TooLong),
            _ => {}
        }
        // ASCII, the usual case, needs no decoding.
        if text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Ok(UserRef(text));
        }
        let bad = text.chars().find(|c| *c == '#' || c.is_whitespace() || c.is_control() || is_unseen(*c));
        bad.map_or(Ok(UserRef(text)), |bad| Err(NameFault::Holds(bad)))
    }

    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> TryFrom<&'a str> for UserRef<'a> {
    type Error = NameError;

    fn try_from(text: &'a str) -> Result<Self, NameError> {
        Self::check(text).map_err(|fault| NameError::of_user(text, fault))
    }
}

/// What is wrong with the name of a user or of a room; printed behind "the name".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It has no character.
    Empty,
    /// It has more than 64 bytes.
    TooLong,
    /// It begins with a character that means something else.
    Begins(char),
    /// It holds a character that no name may hold.
    Holds(char),
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NameFault::Empty => write!(f, "is empty"),
            NameFault::TooLong => write!(f, "has more than {NAME_BYTES_MAX} bytes"),
            NameFault::Begins(c) => write!(f, "begins with {c}"),
            NameFault::Holds('#') => write!(f, "holds #"),
            NameFault::Holds(c) => {
                let kind = match c {
                    _ if c.is_control() => "a control character",
                    _ if c.is_whitespace() => "a space",
                    '\u{61c}' | '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                        "a sign that turns direction"
                    }
                    _ => "an invisible character",
                };
                write!(f, "holds {kind}, U+{:04X}", u32::from(c))
            }
        }
    }
}

/// Tells whether a character shows nothing of itself, or turns the direction of what is around it: with one of these, a
/// name would look like another. The joiners U+200C and U+200D, and variation selectors, are parts of letters and
/// emoji.
fn is_unseen(c: char) -> bool {
    matches!(c,
        // The soft hyphen, the grapheme joiner, the Arabic letter mark; fillers of Hangul; Khmer's inherent vowels.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{17b4}' | '\u{17b5}'
        // The vowel separator of Mongolian; the zero-width space; marks, embeddings and isolates of direction.
        | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        // The word joiner, invisible operators, and what comes behind them, assigned or not; the blank of Braille.
        | '\u{2060}'..='\u{206f}' | '\u{2800}'
        // The byte order mark; annotations; formats of shorthand and of music; tags.
        | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}')
}

/// A valid user name, shared by all who need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

impl UserName {
    /// Takes what the protocol has for the name of a user.
    pub fn parse(text: &str) -> Option<Self> {
        UserRef::parse(text).map(Self::from)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> UserRef<'_> {
        UserRef(&self.0)
    }
}

impl From<UserRef<'_>> for UserName {
    fn from(user: UserRef<'_>) -> Self {
        UserName(user.0.into())
    }
}

impl Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A valid room name, kept without its `#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomRef<'a>(UserRef<'a>);

impl<'a> RoomRef<'a> {
    /// Takes `#` and then what a user name may be; an error is what is wrong with that.
    pub fn check(text: &'a str) -> Result<Self, Option<NameFault>> {
        Ok(RoomRef(UserRef::check(text.strip_prefix('#').ok_or(None)?)?))
    }

    /// The name without its `#`.
    pub fn as_str(self) -> &'a str {
        self.0.as_str()
    }
}

/// A tag or a client's message id: 1 to 64 of `A-Z a-z 0-9 . _ - ~`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag<'a>(&'a str);

impl<'a> Tag<'a> {
    /// Takes the form of an `<id>`; anything else is `None`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-~".contains(&b));
        (fits && clean).then_some(Tag(text))
    }

    /// The tag without its `@`.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> TryFrom<&'a str> for Tag<'a> {
    type Error = NameError;

    fn try_from(text: &'a str) -> Result<Self, NameError> {
        Self::parse(text).ok_or_else(|| NameError::of(text, ID_FORM))
    }
}

/// The name of one session: 8 of `0-9 a-z`, unique in the cluster by chance
/// (one in 2.8 million million).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 8]);

impl SessionId {
    /// The characters of a session id.
    pub const ALPHABET: [char; 36] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j',
        'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
    ];

    /// Takes 8 characters of [`SessionId::ALPHABET`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::of_bytes(text.as_bytes().try_into().ok()?)
    }

    /// The same for bytes.
    pub(super) fn of_bytes(bytes: [u8; 8]) -> Option<Self> {
        let clean = bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        clean.then_some(SessionId(bytes))
    }

    /// The id as bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a session id is ASCII: parse is its only maker")
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of one message: together with its sender it is unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageId {
    /// Made by the sender's node: the sender's session and a counter.
    Counted(SessionId, u64),
    /// Chosen by the sender: the tag of its `SEND`.
    Tag(Box<str>),
}

/// A message's id that borrows from the line or batch it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdRef<'a> {
    /// As [`MessageId::Counted`].
    Counted(SessionId, u64),
    /// As [`MessageId::Tag`].
    Tag(Tag<'a>),
}

impl IdRef<'_> {
    /// Appends the id as it stands in a line, between two spaces.
    pub(super) fn print_between_spaces(self, out: &mut Vec<u8>) {
        match self {
            IdRef::Counted(session, count) => {
                // Composed backwards in one place, as many small appends cost more.
                let mut text = [b' '; COUNTED_BYTES_MAX];
                let last = text.len() - 1;
                let at = digits(count, &mut text[..last]) - 1;
                text[at] = b'-';
                text[at - 8..at].copy_from_slice(&session.0);
                out.extend_from_slice(&text[at - 9..]);
            }
            IdRef::Tag(tag) => {
                out.push(b' ');
                out.extend_from_slice(tag.as_str().as_bytes());
                out.push(b' ');
            }
        }
    }
}

impl From<Tag<'_>> for MessageId {
    /// The same id whether a node made it or a sender chose it: by its form alone.
    fn from(id: Tag<'_>) -> Self {
        let counted = id.0.split_once('-').and_then(|(session, count)| {
            Some(MessageId::Counted(SessionId::parse(session)?, count.parse().ok()?))
        });
        counted.filter(|counted| counted.is(id.0)).unwrap_or_else(|| MessageId::Tag(id.0.into()))
    }
}

impl From<IdRef<'_>> for MessageId {
    fn from(id: IdRef<'_>) -> Self {
        match id {
            IdRef::Counted(session, count) => MessageId::Counted(session, count),
            IdRef::Tag(tag) => MessageId::Tag(tag.as_str().into()),
        }
    }
}

impl MessageId {
    /// The borrowed form.
    pub fn borrowed(&self) -> IdRef<'_> {
        match self {
            MessageId::Counted(session, count) => IdRef::Counted(*session, *count),
            MessageId::Tag(tag) => IdRef::Tag(Tag(tag)),
        }
    }

    /// Tells whether it stands in a line as `text`.
    pub fn is(&self, text: &str) -> bool {
        match self {
            MessageId::Counted(session, count) => {
                let number = text.strip_prefix(session.as_str()).and_then(|rest| rest.strip_prefix('-'));
                // As it is printed, and in no other form of the same number.
                number.is_some_and(|number| {
                    let mut digits = Vec::with_capacity(20);
                    print_number(*count, &mut digits);
                    number.as_bytes() == digits
                })
            }
            MessageId::Tag(tag) => &**tag == text,
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageId::Counted(session, count) => write!(f, "{session}-{count}"),
            MessageId::Tag(tag) => f.write_str(tag),
        }
    }
}

impl FromStr for MessageId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Tag::try_from(text).map(Self::from)
    }
}

/// A session, `-`, the digits of a 64-bit number, and two spaces.
const COUNTED_BYTES_MAX: usize = 8 + 1 + 20 + 2;

/// The name of one incarnation of one node: its readable name, `-`, and 8
/// random characters. Fresh at every start, dead for ever once dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The most bytes of the readable part.
    pub const NAME_BYTES_MAX: usize = 32;

    /// Joins a readable name with a random suffix. `None` when the name is not
    /// 1 to 32 of `A-Z a-z 0-9 . _ -` or the suffix is not 1 to 31 of the same.
    pub fn new(name: &str, suffix: &str) -> Option<Self> {
        let is_valid = Self::is_name(name) && !suffix.is_empty();
        is_valid.then(|| Self::parse(&format!("{name}-{suffix}"))).flatten()
    }

    /// The most bytes of an id.
    pub const BYTES_MAX: usize = 64;

    /// Reads an id back: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_id(text).then(|| NodeId(text.into()))
    }

    /// Tells whether [`NodeId::parse`] would read it.
    pub fn is_id(text: &str) -> bool {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }

    /// Tells whether `name` can be the readable part of a node id.
    pub fn is_name(name: &str) -> bool {
        let fits = (1..=Self::NAME_BYTES_MAX).contains(&name.len());
        fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Gives a name the forms of the standard library: printed, read, and borrowed as text.
macro_rules! is_text {
    ($($name:ident: $error:expr;)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text).ok_or_else(|| $error(text))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}

is_text! {
    UserName: |text| NameError::of_user(text, UserRef::check(text).err().unwrap_or(NameFault::Empty));
    NodeId: |text| NameError::of(text, "a node's id: 1 to 64 of A-Z a-z 0-9 . _ -");
    SessionId: |text| NameError::of(text, "a session's id: 8 of 0-9 a-z");
}

const ID_FORM: &str = "a message's id: 1 to 64 of A-Z a-z 0-9 . _ - ~";

/// Tells that a text is no name or id of the wanted kind, and what form that has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    text: Box<str>,
    form: &'static str,
    fault: Option<NameFault>,
}

impl NameError {
    fn of(text: &str, form: &'static str) -> Self {
        NameError { text: text.into(), form, fault: None }
    }

    fn of_user(text: &str, fault: NameFault) -> Self {
        NameError { text: text.into(), form: "a user's name", fault: Some(fault) }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} can't be {}", self.text, self.form)?;
        self.fault.map_or(Ok(()), |fault| write!(f, ": it {fault}"))
    }
}

impl Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for good in ["a", "alice", "小明", "a@b", "a+b", "o'neil", &"x".repeat(64)] {
            assert!(UserRef::parse(good).is_some(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", "#a", "@a", "+a", "a#b", "a b", "a\tb", "a\u{85}b", "a\u{7f}", &long] {
            assert!(UserRef::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_user_is_told_why() {
        let check = |name: &str, why: &str| {
            let fault = UserRef::check(name).expect_err(name);
            assert_eq!(fault.to_string(), why, "{name:?}");
        };
        check("", "is empty");
        check("#a", "begins with #");
        check("@a", "begins with @");
        check("+a", "begins with +");
        check(&"明".repeat(22), "has more than 64 bytes");
        check("a#b", "holds #");
        for space in
            "\u{20}\u{a0}\u{1680}\u{2000}\u{2007}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}".chars()
        {
            check(&format!("a{space}"), &format!("holds a space, U+{:04X}", u32::from(space)));
        }
        for turn in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}".chars() {
            check(
                &format!("{turn}a"),
                &format!("holds a sign that turns direction, U+{:04X}", u32::from(turn)),
            );
        }
        for unseen in "\u{ad}\u{180e}\u{200b}\u{2060}\u{2064}\u{3164}\u{feff}\u{fffb}\u{e0041}".chars() {
            let why = format!("holds an invisible character, U+{:04X}", u32::from(unseen));
            check(&format!("小{unseen}明"), &why);
        }
        // Words of Persian and Hindi, a family, a heart, marks, and what only looks strange.
        for good in
            ["می\u{200c}خواهم", "क्\u{200d}ष", "👩\u{200d}👧", "❤\u{fe0f}", "e\u{301}", "ｆｕｌｌ", "ʞ"]
        {
            assert!(UserRef::parse(good).is_some(), "{good}");
        }
    }

    #[test]
    fn rooms_tags_sessions_nodes() {
        assert!(RoomRef::check("#lobby").is_ok());
        for bad in ["lobby", "#", "##a", "#a#b", "#@a"] {
            assert!(RoomRef::check(bad).is_err(), "{bad}");
        }
        assert!(Tag::parse("A.z_0-~").is_some());
        for bad in ["", "a b", "a@", "é", &"t".repeat(65)] {
            assert!(Tag::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(SessionId::parse("4k2jd8s0").expect("valid").as_str(), "4k2jd8s0");
        for bad in ["4k2jd8s", "4K2jd8s0", "4k2jd8s00"] {
            assert!(SessionId::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(NodeId::new("pi", "V1StGXR8").expect("valid").as_str(), "pi-V1StGXR8");
        for bad in ["", "a b", "a/b", &"n".repeat(33)] {
            assert!(NodeId::new(bad, "x").is_none(), "{bad}");
        }
        assert!(NodeId::parse("pi-V1StGXR8").is_some());
        for bad in ["", "a b", "a/b", "é", &"n".repeat(65)] {
            assert!(NodeId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_read_is_printed_the_same() {
        fn check<T>(good: &[&str], bad: &str, sentence: &str)
        where
            T: FromStr<Err = NameError> + fmt::Display + fmt::Debug,
        {
            for text in good {
                assert_eq!(text.parse::<T>().expect(text).to_string(), *text);
            }
            assert_eq!(bad.parse::<T>().expect_err(bad).to_string(), sentence);
        }
        let said = "\"a\\nb\" can't be a user's name: it holds a control character, U+000A";
        check::<UserName>(&["bob", "小明"], "a\nb", said);
        check::<NodeId>(&["pi-4"], "", "\"\" can't be a node's id: 1 to 64 of A-Z a-z 0-9 . _ -");
        check::<SessionId>(&["4k2jd8s0"], "4K2jd8s0", "\"4K2jd8s0\" can't be a session's id: 8 of 0-9 a-z");
        let ids = ["x-1", "4k2jd8s0-12", "4k2jd8s0-012", "4k2jd8s0-", "4k2jd8s0-1-2"];
        check::<MessageId>(&ids, "a b", "\"a b\" can't be a message's id: 1 to 64 of A-Z a-z 0-9 . _ - ~");
        let counted = MessageId::Counted(SessionId::parse("4k2jd8s0").expect("valid"), 12);
        assert_eq!("4k2jd8s0-12".parse(), Ok(counted));
        assert!(matches!("4k2jd8s0-012".parse(), Ok(MessageId::Tag(_))), "printed in another form");
    }

    #[test]
    fn message_ids_print_as_they_display() {
        let session = SessionId::parse("4k2jd8s0").expect("valid");
        let powers = (0..20).map(|n| 10_u64.pow(n)).flat_map(|power| [power - 1, power, power + 1]);
        for count in powers.chain([4_294_967_296, u64::MAX - 1, u64::MAX]) {
            let id = MessageId::Counted(session, count);
            let mut out = vec![];
            id.borrowed().print_between_spaces(&mut out);
            assert_eq!(out, format!(" {id} ").into_bytes());
        }
    }
}
