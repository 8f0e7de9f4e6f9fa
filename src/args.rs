//! The command line: flags to settings and options, and the help that tells of them.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use pinpost::config::features::version;
use pinpost::config::{Config, Layers, SETTINGS};
use pinpost::server::files_max;

use crate::talk::{self, Talk};

/// What the command line asks for.
pub enum Command {
    /// Print a text and end.
    Print(String),
    /// Run a node.
    Serve(Box<Config>),
    /// Talk as a user, or send one line.
    Talk(Talk),
}

/// One sentence about a wrong argument.
pub struct Usage(pub String);

/// Reads the arguments behind the program's name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Usage> {
    let mut parser = lexopt::Parser::from_args(args);
    match parser.next().map_err(usage)? {
        None => Err(Usage("a command is missing: serve, chat or send (see pinpost --help)".to_owned())),
        Some(Long("help") | Short('h')) => Ok(Command::Print(help())),
        Some(Value(command)) if command == "help" => Ok(Command::Print(help())),
        Some(Long("version") | Short('V')) => Ok(Command::Print(format!("pinpost {}\n", version()))),
        Some(Value(command)) if command == "serve" => serve(parser),
        Some(Value(command)) if command == "chat" => talk::chat(parser).map(Command::Talk),
        Some(Value(command)) if command == "send" => talk::send(parser).map(Command::Talk),
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
    help.push_str(
        "\nA flag beats the environment (PINPOST_LISTEN, ...), which beats the file, which beats the default.\n\
         When it accepts connections it prints one line: ready tcp=ADDR http=ADDR node=ID\n\
         SIGTERM and SIGINT drain it, within 5 seconds, in a cluster 8; a second one ends it at once.\n\
         Exit codes: 0 after a drain, 1 for a failure at run time, 2 for wrong arguments or settings.\n",
    );
    help
}

/// The value of the flag `name`.
pub fn value(parser: &mut lexopt::Parser, name: &str, form: &str) -> Result<String, Usage> {
    let value = parser.value().map_err(|_| Usage(format!("--{name} needs a value: --{name} {form}")))?;
    value.into_string().map_err(|value| {
        Usage(format!("--{name} {:?} is not allowed: it takes text in UTF-8", value.to_string_lossy()))
    })
}

/// The sentence about an argument that is not understood.
pub fn usage(error: lexopt::Error) -> Usage {
    Usage(format!("{error} (see pinpost --help)"))
}
