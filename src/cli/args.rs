//! The command line: flags to settings and options, and the help that tells of them.
//!
//! What is wrong with an argument is said here, with the argument's name, before
//! anything else is done.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
#[cfg(feature = "client")]
use pinpost::{ClientConfig, UserName};
use pinpost::{Config, ConfigError, Layers, SETTINGS, files_max, version};

use crate::cli::outcome::Failure;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print a text and end.
    Print(String),
    /// Run a node.
    Serve(Box<Config>),
    /// Try all that a node will do with its services.
    CheckServices(Box<Config>),
    /// Talk as a user; lines typed go to `to`.
    #[cfg(feature = "client")]
    Chat { config: ClientConfig, to: Option<UserName> },
    /// Send one line.
    #[cfg(feature = "client")]
    Send { config: ClientConfig, to: UserName, text: String },
}

/// Reads the arguments behind the program's name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Failure> {
    let mut parser = lexopt::Parser::from_args(args);
    let command = match parser.next().map_err(usage)? {
        None => {
            let text = "a command is missing: serve, chat or send (see pinpost --help)";
            return Err(Failure::Usage(text.to_owned()));
        }
        Some(Long("help") | Short('h')) => return Ok(Command::Print(help())),
        Some(Long("version") | Short('V')) => return Ok(Command::Print(format!("pinpost {}\n", version()))),
        Some(Value(command)) => command.to_string_lossy().into_owned(),
        Some(other) => return Err(usage(other.unexpected())),
    };
    match command.as_str() {
        "help" => Ok(Command::Print(help())),
        "serve" => serve(parser),
        "chat" | "send" => talk::parse(&command, parser),
        _ => Err(Failure::Usage(format!(
            "{command:?} is not a command: it takes serve, chat or send (see pinpost --help)"
        ))),
    }
}

fn serve(mut parser: lexopt::Parser) -> Result<Command, Failure> {
    let mut flags: Vec<(&'static str, String)> = vec![];
    let mut file: Option<PathBuf> = None;
    let (mut prints, mut checks, mut checks_services) = (false, false, false);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(serve_help())),
            Long("config") => file = Some(value(&mut parser, "config", "FILE")?.into()),
            Long("print-config") => prints = true,
            Long("check") => checks = true,
            Long("check-services") => checks_services = true,
            Long(name) => {
                let find = |name: &str| SETTINGS.iter().find(|setting| setting.name == name);
                let Some(setting) = find(name) else {
                    let hint = match find(&name.replace('_', "-")) {
                        Some(setting) => format!(": it takes --{}", setting.name),
                        None => " (see pinpost serve --help)".to_owned(),
                    };
                    return Err(Failure::Usage(format!("--{name} is not a flag of serve{hint}")));
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
            // It may have a password.
            Value(value) if value.to_string_lossy().contains("://") => {
                let why = "a URL needs its flag: --redis URL or --amqp URL (see pinpost serve --help)";
                return Err(Failure::Usage(why.to_owned()));
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let wrong = |error: ConfigError| Failure::Usage(error.to_string());
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
        _ if checks_services => Ok(Command::CheckServices(Box::new(config))),
        _ => Ok(Command::Serve(Box::new(config))),
    }
}

fn help() -> String {
    format!(
        "pinpost - a small, fast, honest message router for connected users\n\n\
         pinpost serve                               runs a node\n{}\n\
         pinpost COMMAND --help tells more.\n",
        talk::HELP
    )
}

fn serve_help() -> String {
    let mut help = "pinpost serve: runs a node\n\n".to_owned();
    let mut row = |flag: String, about: &str| help.push_str(&format!("  {flag:<22} {about}\n"));
    for setting in SETTINGS {
        let default = match setting.default {
            "" | "false" => String::new(),
            default => format!(" (default: {default})"),
        };
        let about = match setting.missing() {
            None => format!("{}{default}", setting.about),
            Some(feature) => format!("not in this build: it needs the feature {}", feature.name),
        };
        row(format!("--{} {}", setting.name, setting.form), &about);
    }
    row("--config FILE".to_owned(), "reads settings from a TOML file: the names above, _ for -");
    row("--print-config".to_owned(), "prints the settings in force as such a file");
    row("--check".to_owned(), "reads all settings, says what is wrong, and ends");
    row(
        "--check-services".to_owned(),
        "tries all that it will do with Redis and RabbitMQ, says what is missing, and ends",
    );
    help.push_str(
        "\nA flag beats the environment (PINPOST_LISTEN, ...), which beats the file, which beats the default.\n\
         When it accepts connections it prints one line: ready tcp=ADDR http=ADDR node=ID\n\
         SIGTERM and SIGINT drain it, within 5 seconds, in a cluster 8; a second one ends it at once.\n\
         SIGHUP drains it where standard input is a terminal, and is ignored elsewhere.\n\
         Exit codes: 0 after a drain, 1 for a failure at run time, 2 for wrong arguments or settings.\n",
    );
    help
}

/// The value of the flag `name`.
fn value(parser: &mut lexopt::Parser, name: &str, form: &str) -> Result<String, Failure> {
    let value =
        parser.value().map_err(|_| Failure::Usage(format!("--{name} needs a value: --{name} {form}")))?;
    value.into_string().map_err(|value| {
        Failure::Usage(format!(
            "--{name} {:?} is not allowed: it takes text in UTF-8",
            value.to_string_lossy()
        ))
    })
}

/// The sentence about an argument that is not understood.
fn usage(error: lexopt::Error) -> Failure {
    Failure::Usage(format!("{error} (see pinpost --help)"))
}

/// What stands behind `chat` and `send`.
#[cfg(feature = "client")]
mod talk {
    use super::*;

    /// What `pinpost --help` tells of `chat` and `send`.
    pub(super) const HELP: &str = "\
pinpost chat USER [--to PEER]               talks as USER
pinpost send --from USER TO TEXT            sends one line, prints its fate
";

    const CHAT_HELP: &str = "\
pinpost chat USER [--to PEER]: talks as USER; lines typed go to PEER

  --to PEER              who gets the lines typed; /to PEER changes it
  --server HOST:PORT     the node to talk to, or several: HOST:PORT,HOST:PORT are tried
                         in turn (default: 127.0.0.1:7700)
  --token TOKEN          what proves that you are USER, where the node asks

/to PEER, /who [USER], /help and /quit are commands; Ctrl-D and Ctrl-C quit too. After a
lost connection, lines for a PEER who is not back yet are tried again for 5 seconds.
Exit codes: 0 when all is said, 1 for a failure at run time or lines without a fate,
2 for wrong arguments.
";

    const SEND_HELP: &str = "\
pinpost send --from USER TO TEXT: sends one line, and prints its fate

  TO TEXT                come last, TEXT in quotes; it may begin with anything, also with a -
  --from USER            who sends it
  --server HOST:PORT     the node to talk to, or several: HOST:PORT,HOST:PORT are tried
                         in turn (default: 127.0.0.1:7700)
  --token TOKEN          what proves that you are USER, where the node asks

Exit codes: 0 only for delivered or stored, 1 when it was not or nobody knows,
2 for wrong arguments.
";

    /// Reads the arguments of `pinpost chat` and `pinpost send`.
    pub(super) fn parse(command: &str, mut parser: lexopt::Parser) -> Result<Command, Failure> {
        let is_chat = command == "chat";
        let (mut server, mut token, mut peer) = ("127.0.0.1:7700".to_owned(), None, None);
        let mut words = vec![];
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Long("help") | Short('h') => {
                    return Ok(Command::Print(if is_chat { CHAT_HELP } else { SEND_HELP }.to_owned()));
                }
                Long("to") if is_chat => peer = Some(user("--to", &value(&mut parser, "to", "PEER")?)?),
                Long("from") if !is_chat => {
                    peer = Some(user("--from", &value(&mut parser, "from", "USER")?)?)
                }
                Long("server") => server = checked_server(value(&mut parser, "server", "HOST:PORT")?)?,
                Long("token") => token = Some(checked_token(value(&mut parser, "token", "TOKEN")?)?),
                Value(word) => {
                    words.push(word);
                    // What stands behind TO is the text, whatever it begins with.
                    if !is_chat {
                        words.extend(parser.raw_args().map_err(usage)?);
                    }
                }
                other => return Err(usage(other.unexpected())),
            }
        }
        let config = |user: &UserName| {
            let mut config = ClientConfig::new(server, user.as_str()).ack(true);
            config.token = token;
            config
        };
        if is_chat {
            let [name] = exactly(words, "chat takes one USER: pinpost chat USER [--to PEER]")?;
            return Ok(Command::Chat { config: config(&user("USER", &name)?), to: peer });
        }
        let [to, text] = exactly(words, SEND_NEEDS)?;
        let (to, text) = (user("TO", &to)?, one_line(text)?);
        let missing = || Failure::Usage(format!("--from is missing: {SEND_NEEDS}"));
        Ok(Command::Send { config: config(&peer.ok_or_else(missing)?), to, text })
    }

    const SEND_NEEDS: &str =
        "send takes flags, then TO and TEXT, TEXT in quotes: pinpost send --from USER TO TEXT";

    /// Exactly `N` words, as text.
    fn exactly<const N: usize>(words: Vec<OsString>, needs: &str) -> Result<[String; N], Failure> {
        let texts: Result<Vec<String>, _> = words.into_iter().map(OsString::into_string).collect();
        let texts = texts.map_err(|word| {
            Failure::Usage(format!("{:?} is not allowed: it takes text in UTF-8", word.to_string_lossy()))
        })?;
        texts.try_into().map_err(|_| Failure::Usage(needs.to_owned()))
    }

    fn user(name: &str, value: &str) -> Result<UserName, Failure> {
        value.parse().map_err(|error| Failure::Usage(format!("{name} {error}")))
    }

    /// The value of a token is nobody's business, so the sentence does without it.
    fn checked_token(value: String) -> Result<String, Failure> {
        let is_word = !value.is_empty() && !value.chars().any(|c| c == ' ' || c.is_control());
        if is_word && value != "ack" {
            return Ok(value);
        }
        let allowed = "one word without control characters, and not the word ack";
        Err(Failure::Usage(format!("--token is not allowed: it takes {allowed}")))
    }

    fn one_line(text: String) -> Result<String, Failure> {
        if !text.is_empty() && !text.chars().any(|c| c.is_control() && c != '\t') {
            return Ok(text);
        }
        Err(Failure::Usage(format!(
            "TEXT {text:?} is not allowed: it takes one line, not empty, without control characters"
        )))
    }

    fn checked_server(value: String) -> Result<String, Failure> {
        let is_whole = |server: &str| {
            server
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if value.split(',').all(is_whole) {
            return Ok(value);
        }
        Err(Failure::Usage(format!(
            "--server {value:?} is not allowed: it takes HOST:PORT, such as 127.0.0.1:7700, or several with commas"
        )))
    }
}

/// Both are known, and not in this build.
#[cfg(not(feature = "client"))]
mod talk {
    use super::*;

    pub(super) const HELP: &str = "\
pinpost chat, pinpost send                  not in this build: they need the feature client
";

    pub(super) fn parse(command: &str, _: lexopt::Parser) -> Result<Command, Failure> {
        let text = format!("{command} is not in this pinpost: it was built without the feature client");
        Err(Failure::Usage(text))
    }
}
