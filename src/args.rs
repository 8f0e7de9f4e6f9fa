//! The command line: flags to settings and options, and the help that tells of them.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use pinpost::chat::ChatOptions;
use pinpost::config::{Config, Layers, SETTINGS};
use pinpost::proto::UserRef;
use pinpost::send::SendOptions;
use pinpost::server::files_max;

/// What the command line asks for.
pub enum Command {
    /// Print a text and end.
    Print(String),
    /// Run a node.
    Serve(Box<Config>),
    /// Talk as a user.
    Chat(ChatOptions),
    /// Send one line.
    Send(SendOptions),
}

/// One sentence about a wrong argument.
pub struct Usage(pub String);

const HELP: &str = "\
pinpost - a small, fast, honest message router for connected users

pinpost serve                               runs a node
pinpost chat USER [--to PEER]               talks as USER
pinpost send TO TEXT --from USER            sends one line, prints its fate

pinpost COMMAND --help tells more.
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

/// Reads the arguments behind the program's name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Usage> {
    let mut parser = lexopt::Parser::from_args(args);
    match parser.next().map_err(usage)? {
        None => Err(Usage("a command is missing: serve, chat or send (see pinpost --help)".to_owned())),
        Some(Long("help") | Short('h')) => Ok(Command::Print(HELP.to_owned())),
        Some(Value(command)) if command == "help" => Ok(Command::Print(HELP.to_owned())),
        Some(Long("version") | Short('V')) => {
            Ok(Command::Print(format!("pinpost {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Some(Value(command)) if command == "serve" => serve(parser),
        Some(Value(command)) if command == "chat" => chat(parser),
        Some(Value(command)) if command == "send" => send(parser),
        Some(Value(command)) => Err(Usage(format!(
            "{:?} is not a command: it takes serve, chat or send (see pinpost --help)",
            command.to_string_lossy()
        ))),
        Some(other) => Err(usage(other.unexpected())),
    }
}

fn serve(mut parser: lexopt::Parser) -> Result<Command, Usage> {
    let mut flags: Vec<(&'static str, String)> = vec![];
    let mut file: Option<PathBuf> = None;
    let (mut prints, mut checks) = (false, false);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(serve_help())),
            Long("config") => file = Some(value(&mut parser, "config", "FILE")?.into()),
            Long("print-config") => prints = true,
            Long("check") => checks = true,
            Long(name) => {
                let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                    return Err(Usage(format!("--{name} is not a flag of serve (see pinpost serve --help)")));
                };
                let value = match setting.form {
                    "" => "true".to_owned(),
                    form => value(&mut parser, setting.name, form)?,
                };
                match flags.iter_mut().find(|(name, _)| *name == "listen" && setting.name == "listen") {
                    Some((_, listen)) => *listen = format!("{listen},{value}"),
                    None => flags.push((setting.name, value)),
                }
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let wrong = |error: pinpost::config::ConfigError| Usage(error.to_string());
    let mut layers = Layers::default();
    if let Some(file) = file {
        layers.file(&file).map_err(wrong)?;
    }
    layers.environment().map_err(wrong)?;
    for (name, value) in flags {
        layers.flag(name, &value).map_err(wrong)?;
    }
    let config = layers.config();
    config.check(files_max()).map_err(wrong)?;
    match (prints, checks) {
        (true, _) => Ok(Command::Print(config.print())),
        (_, true) => Ok(Command::Print("the settings are fine\n".to_owned())),
        _ => Ok(Command::Serve(Box::new(config))),
    }
}

fn chat(mut parser: lexopt::Parser) -> Result<Command, Usage> {
    let mut options = ChatOptions::new("");
    let mut words = vec![];
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(CHAT_HELP.to_owned())),
            Long("to") => options.to = Some(user("--to", value(&mut parser, "to", "PEER")?)?),
            Long("server") => options.server = server(value(&mut parser, "server", "HOST:PORT")?)?,
            Long("token") => options.token = Some(token(value(&mut parser, "token", "TOKEN")?)?),
            Value(word) => words.push(word),
            other => return Err(usage(other.unexpected())),
        }
    }
    let [name] = exactly(words, "chat takes one USER: pinpost chat USER [--to PEER]")?;
    options.user = user("USER", name)?;
    Ok(Command::Chat(options))
}

fn send(mut parser: lexopt::Parser) -> Result<Command, Usage> {
    let mut options = SendOptions::new("", "", "");
    let mut words = vec![];
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(SEND_HELP.to_owned())),
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
    Ok(Command::Send(options))
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

fn serve_help() -> String {
    let mut help = "pinpost serve: runs a node\n\n".to_owned();
    let mut row = |flag: String, about: &str| help.push_str(&format!("  {flag:<22} {about}\n"));
    for setting in SETTINGS {
        let default = match setting.default {
            "" | "false" => String::new(),
            default => format!(" (default: {default})"),
        };
        row(format!("--{} {}", setting.name, setting.form), &format!("{}{default}", setting.about));
    }
    row("--config FILE".to_owned(), "reads settings from a TOML file: the names above, _ for -");
    row("--print-config".to_owned(), "prints the settings in force as such a file");
    row("--check".to_owned(), "reads all settings, says what is wrong, and ends");
    help.push_str(
        "\nA flag beats the environment (PINPOST_LISTEN, ...), which beats the file, which beats the default.\n\
         When it accepts connections it prints one line: ready tcp=ADDR http=ADDR node=ID\n\
         SIGTERM and SIGINT drain it, within 5 seconds, in a cluster 8; a second one ends it at once.\n\
         Exit codes: 0 after a drain, 1 for a failure at run time, 2 for wrong arguments or settings.\n",
    );
    help
}

fn value(parser: &mut lexopt::Parser, name: &str, form: &str) -> Result<String, Usage> {
    let value = parser.value().map_err(|_| Usage(format!("--{name} needs a value: --{name} {form}")))?;
    value.into_string().map_err(|value| {
        Usage(format!("--{name} {:?} is not allowed: it takes text in UTF-8", value.to_string_lossy()))
    })
}

fn usage(error: lexopt::Error) -> Usage {
    Usage(format!("{error} (see pinpost --help)"))
}
