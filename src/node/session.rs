//! What one connection may do.
//!
//! A request goes in, an action comes out; all refusals that depend on the session's state are here, in one
//! place and one order. Carrying an action out is the node's business.

use crate::proto::name::Tag;
use crate::proto::name::UserRef;
use crate::proto::reply::ErrorCode;
use crate::proto::reply::ServerLine;
use crate::proto::request::BadLine;
use crate::proto::request::Request;
use crate::proto::verb::Verb;

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Let the user in, if the cluster agrees; whether it will acknowledge each message.
    Login(UserRef<'a>, bool),
    /// Take note that the client has a message, given its id and its sender.
    Ack(Tag<'a>, UserRef<'a>),
    /// Route a message and answer with its fate.
    Send(UserRef<'a>, &'a str),
    /// Route a message and say nothing.
    Cast(UserRef<'a>, &'a str),
    /// Answer where a user is.
    Who(UserRef<'a>),
    /// Answer with the same text.
    Pong(Option<&'a str>),
    /// Answer with the help for these verbs.
    Help(Vec<Verb>),
    /// End the connection.
    Quit,
    /// Answer with an error.
    Refuse(ErrorCode, &'static str),
}

/// Decides on one request. `is_in`: the connection is a user's session.
pub fn decide<'a>(request: Result<Request<'a>, BadLine>, is_in: bool, is_draining: bool) -> Action<'a> {
    let request = match request {
        Ok(request) => request,
        Err(bad) => return Action::Refuse(bad.code, bad.text),
    };
    match request {
        Request::Ping(text) => Action::Pong(text),
        Request::Help(word) => help(word),
        Request::Quit => Action::Quit,
        Request::Login { .. } if is_in => refuse(ErrorCode::AlreadyIn),
        Request::Login { .. } if is_draining => refuse(ErrorCode::Draining),
        Request::Login { user, ack, .. } => Action::Login(user, ack),
        _ if !is_in => refuse(ErrorCode::LoginFirst),
        Request::Ack { id, from } => Action::Ack(id, from),
        request if !is_served(request.verb()) || matches!(request, Request::SendRoom { .. }) => {
            Action::Refuse(ErrorCode::UnknownVerb, "this server does not serve that request")
        }
        // It has no reply.
        Request::Cast { to, text } => Action::Cast(to, text),
        _ if is_draining => refuse(ErrorCode::Draining),
        Request::Send { to, text } => Action::Send(to, text),
        Request::Who(user) => Action::Who(user),
        _ => unreachable!("every served request has its action above"),
    }
}

/// Gives the lines that answer `HELP` for these verbs, one after the other.
pub fn print_help(verbs: &[Verb], mut line: impl FnMut(ServerLine<'_>)) {
    for verb in verbs {
        line(ServerLine::Info(&format!("{} - {}", verb.usage(), verb.about())));
    }
    line(ServerLine::Ok(""));
}

/// Tells whether this server carries out a verb.
fn is_served(verb: Verb) -> bool {
    !matches!(verb, Verb::Watch | Verb::Unwatch | Verb::Join | Verb::Leave)
}

fn help(word: Option<&str>) -> Action<'_> {
    let Some(word) = word else {
        return Action::Help(Verb::ALL.into_iter().filter(|verb| is_served(*verb)).collect());
    };
    match Verb::parse(word).filter(|verb| is_served(*verb)) {
        Some(verb) => Action::Help(vec![verb]),
        None => refuse(ErrorCode::UnknownVerb),
    }
}

fn refuse(code: ErrorCode) -> Action<'static> {
    Action::Refuse(code, code.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(is_in: bool, line: &str, is_draining: bool) -> String {
        match decide(Request::parse(line), is_in, is_draining) {
            Action::Refuse(code, _) => code.word().to_owned(),
            Action::Login(user, acks) => format!("login {}{}", user.as_str(), if acks { " ack" } else { "" }),
            Action::Ack(id, from) => format!("ack {} {}", id.as_str(), from.as_str()),
            Action::Send(to, text) => format!("send {} {text}", to.as_str()),
            Action::Cast(to, text) => format!("cast {} {text}", to.as_str()),
            Action::Who(user) => format!("who {}", user.as_str()),
            Action::Pong(text) => format!("pong {text:?}"),
            Action::Help(verbs) => format!("help {}", verbs.len()),
            Action::Quit => "quit".to_owned(),
        }
    }

    /// A line, and what it comes to before login, after it, and while draining after it.
    fn check(line: &str, before: &str, after: &str, draining: &str) {
        assert_eq!(take(false, line, false), before, "{line} before login");
        assert_eq!(take(true, line, false), after, "{line} after login");
        assert_eq!(take(true, line, true), draining, "{line} while draining");
    }

    #[test]
    fn every_request_in_every_state() {
        check("LOGIN bob", "login bob", "already-in", "already-in");
        check("LOGIN bob token ack", "login bob ack", "already-in", "already-in");
        check("SEND bob hi", "login-first", "send bob hi", "draining");
        check("CAST bob hi", "login-first", "cast bob hi", "cast bob hi");
        check("WHO bob", "login-first", "who bob", "draining");
        check("ACK id bob", "login-first", "ack id bob", "ack id bob");
        for line in ["SEND #room hi", "WATCH bob", "UNWATCH bob", "JOIN #room", "LEAVE #room"] {
            check(line, "login-first", "unknown-verb", "unknown-verb");
        }
        check("PING", "pong None", "pong None", "pong None");
        check("HELP", "help 8", "help 8", "help 8");
        check("HELP send", "help 1", "help 1", "help 1");
        check("HELP join", "unknown-verb", "unknown-verb", "unknown-verb");
        check("HELP nonsense", "unknown-verb", "unknown-verb", "unknown-verb");
        check("QUIT", "quit", "quit", "quit");
        check("NONSENSE", "unknown-verb", "unknown-verb", "unknown-verb");
        check("SEND bob", "bad-line", "bad-line", "bad-line");
        assert_eq!(take(false, "LOGIN bob", true), "draining");
    }
}
