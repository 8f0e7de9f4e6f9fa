//! The commands for people, `pinpost chat` and `pinpost send`: their arguments, and running them.
//!
//! What they do is in the library (`chat.rs`, `send.rs`). A command built without
//! the feature `client` has `no_talk.rs` in this place.

use std::ffi::OsString;

use lexopt::prelude::*;
use pinpost::chat::ChatOptions;
use pinpost::proto::UserRef;
use pinpost::send::SendOptions;

use crate::args::{Usage, usage, value};
use crate::outcome::{Failure, print};

/// What a person wants to say.
pub enum Talk {
    /// Talk as a user.
    Chat(ChatOptions),
    /// Send one line.
    Send(SendOptions),
    /// Only read how.
    Help(&'static str),
}

/// What `pinpost --help` tells of them.
pub const HELP: &str = "\
pinpost chat USER [--to PEER]               talks as USER
pinpost send TO TEXT --from USER            sends one line, prints its fate
";

const CHAT_HELP: &str = "\
pinpost chat USER [--to PEER]: talks as USER; lines typed go to PEER

  --to PEER              who gets the lines typed; /to PEER changes it
  --server HOST:PORT     the node to talk to, or several: HOST:PORT,HOST:PORT are tried
                         in turn (default: 127.0.0.1:7700)
  --token TOKEN          what proves that you are USER, where the node asks

/to PEER, /who [USER], /help and /quit are commands; Ctrl-D and Ctrl-C quit too.
Exit codes: 0 when all is said, 1 for a failure at run time or lines without a fate,
2 for wrong arguments.
";

const SEND_HELP: &str = "\
pinpost send TO TEXT --from USER: sends one line, and prints its fate

  --from USER            who sends it
  --server HOST:PORT     the node to talk to, or several: HOST:PORT,HOST:PORT are tried
                         in turn (default: 127.0.0.1:7700)
  --token TOKEN          what proves that you are USER, where the node asks

Exit codes: 0 only for delivered or stored, 1 when it was not or nobody knows,
2 for wrong arguments.
";

impl Talk {
    /// Says it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Talk::Help(text) => print(text),
            Talk::Chat(options) => {
                pinpost::chat::run(options).map_err(|error| Failure::AtRunTime(error.to_string()))
            }
            Talk::Send(options) => match pinpost::send::run(options) {
                true => Ok(()),
                false => Err(Failure::Told),
            },
        }
    }
}

/// Reads the arguments of `pinpost chat`.
pub fn chat(mut parser: lexopt::Parser) -> Result<Talk, Usage> {
    let mut options = ChatOptions::new("");
    let mut words = vec![];
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Talk::Help(CHAT_HELP)),
            Long("to") => options.to = Some(user("--to", value(&mut parser, "to", "PEER")?)?),
            Long("server") => options.server = server(value(&mut parser, "server", "HOST:PORT")?)?,
            Long("token") => options.token = Some(token(value(&mut parser, "token", "TOKEN")?)?),
            Value(word) => words.push(word),
            other => return Err(usage(other.unexpected())),
        }
    }
    let [name] = exactly(words, "chat takes one USER: pinpost chat USER [--to PEER]")?;
    options.user = user("USER", name)?;
    Ok(Talk::Chat(options))
}

/// Reads the arguments of `pinpost send`.
pub fn send(mut parser: lexopt::Parser) -> Result<Talk, Usage> {
    let mut options = SendOptions::new("", "", "");
    let mut words = vec![];
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Talk::Help(SEND_HELP)),
            Long("from") => options.from = user("--from", value(&mut parser, "from", "USER")?)?,
            Long("server") => options.server = server(value(&mut parser, "server", "HOST:PORT")?)?,
            Long("token") => options.token = Some(token(value(&mut parser, "token", "TOKEN")?)?),
            Value(word) => words.push(word),
            other => return Err(usage(other.unexpected())),
        }
    }
    let needs = "send takes TO and TEXT, TEXT in quotes: pinpost send TO TEXT --from USER";
    let [to, text] = exactly(words, needs)?;
    options.to = user("TO", to)?;
    options.text = one_line(text)?;
    if options.from.is_empty() {
        return Err(Usage("--from is missing: pinpost send TO TEXT --from USER".to_owned()));
    }
    Ok(Talk::Send(options))
}

/// Exactly `N` words, as text.
fn exactly<const N: usize>(words: Vec<OsString>, needs: &str) -> Result<[String; N], Usage> {
    let texts: Result<Vec<String>, _> = words.into_iter().map(OsString::into_string).collect();
    let texts = texts.map_err(|word| {
        Usage(format!("{:?} is not allowed: it takes text in UTF-8", word.to_string_lossy()))
    })?;
    texts.try_into().map_err(|_| Usage(needs.to_owned()))
}

fn user(name: &str, value: String) -> Result<String, Usage> {
    match UserRef::parse(&value) {
        Some(_) => Ok(value),
        None => Err(Usage(format!(
            "{name} {value:?} is not allowed: it takes 1 to 64 bytes without space or #, \
             not beginning with @ or +"
        ))),
    }
}

/// The value of a token is nobody's business, so the sentence does without it.
fn token(value: String) -> Result<String, Usage> {
    let is_word = !value.is_empty() && !value.chars().any(|c| c == ' ' || c.is_control());
    if is_word && value != "ack" {
        return Ok(value);
    }
    let allowed = "one word without control characters, and not the word ack";
    Err(Usage(format!("--token is not allowed: it takes {allowed}")))
}

fn one_line(text: String) -> Result<String, Usage> {
    if !text.is_empty() && !text.chars().any(|c| c.is_control() && c != '\t') {
        return Ok(text);
    }
    Err(Usage(format!(
        "TEXT {text:?} is not allowed: it takes one line, not empty, without control characters"
    )))
}

fn server(value: String) -> Result<String, Usage> {
    let is_whole = |server: &str| {
        server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if value.split(',').all(is_whole) {
        return Ok(value);
    }
    Err(Usage(format!(
        "--server {value:?} is not allowed: it takes HOST:PORT, such as 127.0.0.1:7700, or several with commas"
    )))
}
