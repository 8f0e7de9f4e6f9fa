//! What a line means that a person typed, and what is a line to show.

use pinpost::UserName;

use crate::cli::outcome::printable;

/// What a person meant with a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    Text(String),
    To(UserName),
    Who(Option<UserName>),
    Help,
    Quit,
    /// No line to act on, and why.
    Wrong(String),
}

impl Typed {
    /// `None` for a line with nothing on it.
    pub fn parse(line: &str) -> Option<Typed> {
        if line.trim().is_empty() {
            return None;
        }
        let Some(command) = line.strip_prefix('/') else { return Some(Typed::Text(line.to_owned())) };
        if command.starts_with('/') {
            return Some(Typed::Text(command.to_owned()));
        }
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let user = |meant: fn(UserName) -> Typed| match rest.trim().parse() {
            Ok(user) => meant(user),
            Err(error) => Typed::Wrong(error.to_string()),
        };
        Some(match (word, rest.trim()) {
            ("to", "") => Typed::Wrong("/to PEER: to whom?".to_owned()),
            ("to", _) => user(Typed::To),
            ("who", "") => Typed::Who(None),
            ("who", _) => user(|user| Typed::Who(Some(user))),
            ("help", _) => Typed::Help,
            ("quit", _) => Typed::Quit,
            _ => {
                Typed::Wrong(format!("/{word} is none of /to, /who, /help, /quit; // begins a text with a /"))
            }
        })
    }
}

/// One line to show, safe for a terminal.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    Line(String),
    Trouble(String),
}

impl Output {
    pub fn line(text: &str) -> Self {
        Output::Line(printable(text).into_owned())
    }

    pub fn trouble(text: &str) -> Self {
        Output::Trouble(format!("! {}", printable(text)))
    }

    /// What `/help` shows.
    pub fn help() -> Self {
        Output::Line(HELP.to_owned())
    }
}

const HELP: &str = "\
* a line goes to the peer; //... sends a line that begins with a /
* /to PEER       who gets the lines from now on
* /who [USER]    is the peer, or USER, online?
* /quit          leave (also Ctrl-D, Ctrl-C)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_means() {
        let check =
            |line: &str, expected: Option<Typed>| assert_eq!(Typed::parse(line), expected, "{line:?}");
        let bob = || "bob".parse().unwrap();
        check("", None);
        check("  ", None);
        check(" hi ", Some(Typed::Text(" hi ".to_owned())));
        check("//etc", Some(Typed::Text("/etc".to_owned())));
        check("///", Some(Typed::Text("//".to_owned())));
        check("/to bob", Some(Typed::To(bob())));
        check("/to  bob ", Some(Typed::To(bob())));
        check("/who", Some(Typed::Who(None)));
        check("/who bob", Some(Typed::Who(Some(bob()))));
        check("/help", Some(Typed::Help));
        check("/quit", Some(Typed::Quit));
        for line in ["/", "/to", "/to #room", "/to two words", "/who @", "/TO bob", "/leave"] {
            assert!(matches!(Typed::parse(line), Some(Typed::Wrong(_))), "{line:?}");
        }
    }
}
