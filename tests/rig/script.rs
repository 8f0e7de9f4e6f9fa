//! Transcript files: what is said on which connection, and what must come back.
//!
//! ```text
//! # a comment
//! ! sessions=1            a setting of the node, before the first step
//! ! only=tcp,mesh         where it applies: tcp or websocket, one or several or mesh
//! ! hello                 the file expects each connection's HELLO itself
//! alice> SEND bob hi      alice sends a line; a connection opens at its first mention
//! bob< MSG alice <id> hi  the next line that bob gets, byte for byte
//! alice< ERR offline *    any text behind the code
//! alice| PING\r\nPI       bytes as they are: one write on TCP, one text message on WebSocket
//! alice% PING             a binary message on WebSocket
//! alice!                  alice says no more
//! alice x                 the end of the connection
//! alice x 1003            the same; on WebSocket with this code
//! == drain                all nodes shut down
//! == cut alice            hold, release, cut, heal, kill: what happens to alice's node in a mesh
//! ```
//!
//! `<word>` stands for one id: the first match binds it, and from then on it stands
//! for that text, also in what is sent. It always stands for itself as well, so that
//! the usage lines of `HELP` need no quoting. In what is said or expected `\\`, `\r`,
//! `\n`, `\t`, `\xNN` and `\{TEXT*COUNT}` (a repetition) are escapes; a space at the
//! end of a line is written `\x20`.

use std::collections::HashMap;

/// One transcript.
#[derive(Debug, Default)]
pub struct Script {
    /// The file's name.
    pub name: String,
    /// Settings of the nodes, as name and value.
    pub settings: Vec<(String, String)>,
    /// The words of `! only=`; none means everywhere.
    pub only: Vec<String>,
    /// Whether the file expects `HELLO` itself.
    pub has_hello: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One line of a transcript.
#[derive(Debug)]
pub struct Step {
    /// Its number in the file.
    pub number: usize,
    /// How it stands in the file.
    pub source: String,
    /// What it means.
    pub what: What,
}

/// What happens in a step; the first field names the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// Sends a line.
    Say(String, Vec<u8>),
    /// Sends bytes.
    SayRaw(String, Vec<u8>),
    /// Sends a binary message.
    SayBinary(String, Vec<u8>),
    /// Expects a line.
    Hear(String, Pattern),
    /// Expects the end, on WebSocket with this code if there is one.
    End(String, Option<u16>),
    /// Says no more.
    HalfClose(String),
    /// Does something to the connection's node.
    Node(String, NodeStep),
    /// Shuts all nodes down.
    Drain,
}

/// What a mesh can do to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStep {
    Cut,
    Heal,
    Hold,
    Release,
    Kill,
}

/// What a line must look like.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
    /// Ends with a `*`: any text may follow, but some must.
    is_open: bool,
}

impl Script {
    /// Reads a transcript; the error names the line.
    pub fn parse(name: &str, text: &str) -> Result<Script, String> {
        let mut script = Script { name: name.to_owned(), ..Script::default() };
        for (at, line) in text.lines().enumerate() {
            let number = at + 1;
            let parsed = script.parse_line(number, line);
            parsed.map_err(|why| format!("{name}:{number}: {why}: {line}"))?;
        }
        Ok(script)
    }

    fn parse_line(&mut self, number: usize, line: &str) -> Result<(), &'static str> {
        if line.ends_with([' ', '\t']) {
            return Err("white space at the end (write \\x20)");
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(directive) = line.strip_prefix("! ") {
            if !self.steps.is_empty() {
                return Err("a setting after the first step");
            }
            match directive.split_once('=') {
                None if directive == "hello" => self.has_hello = true,
                None => return Err("no such directive"),
                Some(("only", words)) => self.only = words.split(',').map(str::to_owned).collect(),
                Some((name, value)) => self.settings.push((name.to_owned(), value.to_owned())),
            }
            return Ok(());
        }
        self.steps.push(Step { number, source: line.to_owned(), what: step(line)? });
        Ok(())
    }
}

fn step(line: &str) -> Result<What, &'static str> {
    if let Some(step) = line.strip_prefix("== ") {
        return match step.split_once(' ') {
            None if step == "drain" => Ok(What::Drain),
            None => Err("no such step, or it lacks its connection"),
            Some((word, who)) => Ok(What::Node(who.to_owned(), node_step(word)?)),
        };
    }
    let end = line.find(|c: char| !c.is_ascii_alphanumeric()).ok_or("no such step")?;
    let (who, rest) = line.split_at(end);
    let who = who.to_owned();
    if who.is_empty() {
        return Err("a step begins with a connection's name");
    }
    match rest {
        "!" => return Ok(What::HalfClose(who)),
        " x" => return Ok(What::End(who, None)),
        _ => {}
    }
    if let Some(code) = rest.strip_prefix(" x ") {
        return code.parse().map(|code| What::End(who, Some(code))).map_err(|_| "no such code");
    }
    let (mark, rest) = rest.split_at(1);
    let text = match rest.strip_prefix(' ') {
        Some(text) => text,
        None if rest.is_empty() => "",
        None => return Err("a space is missing"),
    };
    Ok(match mark {
        ">" => What::Say(who, unescape(text)?),
        "|" => What::SayRaw(who, unescape(text)?),
        "%" => What::SayBinary(who, unescape(text)?),
        "<" => What::Hear(who, Pattern::parse(text)?),
        _ => return Err("no such step"),
    })
}

fn node_step(word: &str) -> Result<NodeStep, &'static str> {
    Ok(match word {
        "cut" => NodeStep::Cut,
        "heal" => NodeStep::Heal,
        "hold" => NodeStep::Hold,
        "release" => NodeStep::Release,
        "kill" => NodeStep::Kill,
        _ => return Err("no such step"),
    })
}

/// What the escapes of a text stand for.
fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = vec![];
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.extend(before.as_bytes());
        let kind = behind.chars().next().ok_or("a \\ at the end")?;
        rest = &behind[kind.len_utf8()..];
        match kind {
            '\\' => out.push(b'\\'),
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'x' => {
                let digits = rest.get(..2).ok_or("\\x takes two digits")?;
                out.push(u8::from_str_radix(digits, 16).map_err(|_| "\\x takes two digits")?);
                rest = &rest[2..];
            }
            '{' => {
                let (repeat, behind) = rest.split_once('}').ok_or("\\{ without its }")?;
                let (what, count) = repeat.rsplit_once('*').ok_or("\\{TEXT*COUNT} lacks its *")?;
                let count = count.parse().map_err(|_| "\\{TEXT*COUNT} lacks its count")?;
                out.extend(what.repeat(count).as_bytes());
                rest = behind;
            }
            _ => return Err("no such escape"),
        }
    }
    out.extend(rest.as_bytes());
    Ok(out)
}

/// What the ids of one run are bound to.
#[derive(Debug, Default)]
pub struct Bound(HashMap<String, Vec<u8>>);

impl Bound {
    /// `text` with what is bound put in.
    pub fn fill(&self, text: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        let mut at = 0;
        while at < text.len() {
            let name = placeholder(&text[at..]);
            match name.and_then(|name| self.0.get(name).map(|id| (name, id))) {
                Some((name, id)) => {
                    out.extend(id);
                    at += name.len() + 2;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        out
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, &'static str> {
        let (text, is_open) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        Ok(Pattern { text: unescape(text)?, is_open })
    }

    /// The words it begins with, as they stand in the file.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        std::str::from_utf8(&self.text).unwrap_or("").split(' ')
    }

    /// Tells whether `line` is as expected, and binds what it tells.
    pub fn matches(&self, line: &[u8], bound: &mut Bound) -> bool {
        let (mut text, mut rest) = (&self.text[..], line);
        while let Some(first) = text.first() {
            let Some(name) = placeholder(text) else {
                let Some(behind) = rest.strip_prefix(&[*first]) else { return false };
                (text, rest) = (&text[1..], behind);
                continue;
            };
            let (itself, behind) = text.split_at(name.len() + 2);
            text = behind;
            if let Some(behind) = rest.strip_prefix(itself) {
                rest = behind;
                continue;
            }
            let is_id = |b: &u8| b.is_ascii_alphanumeric() || b"._-~".contains(b);
            let length = match bound.0.get(name) {
                Some(id) if rest.starts_with(id) => id.len(),
                Some(_) => return false,
                None => rest.iter().take_while(|b| is_id(b)).count(),
            };
            if length == 0 {
                return false;
            }
            bound.0.entry(name.to_owned()).or_insert_with(|| rest[..length].to_vec());
            rest = &rest[length..];
        }
        rest.is_empty() != self.is_open
    }
}

/// The name in the `<name>` that `text` begins with.
fn placeholder(text: &[u8]) -> Option<&str> {
    let end = text.strip_prefix(b"<")?.iter().position(|b| *b == b'>')?;
    let name = std::str::from_utf8(&text[1..=end]).ok()?;
    let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (is_name && !name.is_empty()).then_some(name)
}
