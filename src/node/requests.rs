//! What a client says, line by line: what its connection may do, and carrying it out.
//!
//! All refusals that depend on the session's state are in [`decide`], in one place and one order.

use std::time::Instant;

use crate::node::connection::{Connection, Phase};
use crate::node::outbox::REPLIES_DUE_MAX;
use crate::node::route::Flow;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;
use crate::node::unacknowledged::Acked;
use crate::proto::line::Line;
use crate::proto::name::{Tag, UserRef};
use crate::proto::reply::{CloseReason, ErrorCode, ServerLine};
use crate::proto::request::{BadLine, Request, TaggedRequest};
use crate::proto::verb::Verb;

impl Node {
    /// A peer has said a line.
    pub fn line(&mut self, id: ConnectionId, line: Line<'_>, now: Instant) -> Flow {
        self.now = now;
        let flow = self.hear(id, line);
        self.settle();
        flow
    }

    /// Carries out one line, or tells that it has to wait.
    fn hear(&mut self, id: ConnectionId, line: Line<'_>) -> Flow {
        let (bytes_max, is_draining) = (self.config.outbox_bytes_max, self.is_draining);
        let Some(connection) = self.connections.get_mut(id) else { return Flow::Next };
        // If it has to wait, or has to once more, that is found below.
        connection.is_waiting = false;
        match connection.phase {
            Phase::Entering(_) => {
                connection.is_waiting = true;
                return Flow::Wait;
            }
            // Nothing behind `QUIT` counts.
            Phase::Finishing { .. } | Phase::Ended(_) => return Flow::Next,
            Phase::New | Phase::In | Phase::Draining => {}
        }
        // While the node drains, what was said already is refused at once and waits for nothing.
        if !is_draining && connection.is_overdue(bytes_max) {
            connection.is_paused = true;
            return Flow::Wait;
        }
        if let Line::Telnet(answer) = line {
            connection.outbox.push_bytes(&mut self.spares, answer);
            self.note_bytes(id);
            return Flow::Next;
        }
        let TaggedRequest { tag, mut request } = TaggedRequest::parse(line);
        let is_limited = connection.acks() && connection.outbox.due() >= REPLIES_DUE_MAX;
        // An acknowledgement and a `CAST` are due no reply.
        if is_limited && !matches!(request, Ok(Request::Ack { .. } | Request::Cast { .. })) {
            let text = "too many replies are due; nothing was done, try again in a moment";
            request = Err(BadLine::new(ErrorCode::Limited, text));
        }
        let is_in = connection.session.is_some();
        match request.and_then(|request| decide(request, is_in, is_draining)) {
            Ok(request) => self.act(id, request, tag),
            Err(bad) => {
                self.refuse(id, tag.map(Tag::as_str), bad.code, &bad.to_string());
                if let Line::Foreign(_) = line {
                    // What stands behind it is none of its sender's requests.
                    self.begin_end(id, None, None);
                }
                Flow::Next
            }
        }
    }

    fn act(&mut self, id: ConnectionId, request: Request<'_>, tag: Option<Tag<'_>>) -> Flow {
        let word = tag.map(Tag::as_str);
        match request {
            Request::Send { to, text } => return self.send(id, tag, to, text),
            Request::Cast { to, text } => return self.cast(id, to, text),
            Request::Who(user) => return self.who(id, tag, user),
            Request::Login { user, ack, .. } => self.login(id, user, ack, word),
            Request::Ack { id: message, from } => self.acknowledge(id, message, from),
            Request::Quit => self.begin_end(id, Some(CloseReason::Quit), word),
            Request::Ping(text) => self.reply(id, word, |out| ServerLine::Pong(text).print(out)),
            Request::Help(about) => {
                for verb in helped(about) {
                    let line = format!("{} - {}", verb.usage(), verb.about());
                    self.reply(id, word, |out| ServerLine::Info(&line).print(out));
                }
                self.reply(id, word, |out| ServerLine::Ok("").print(out));
            }
            _ => unreachable!("it is not served"),
        }
        Flow::Next
    }

    fn acknowledge(&mut self, id: ConnectionId, message: Tag<'_>, from: UserRef<'_>) {
        let Some(Connection { unacknowledged: Some(messages), user: Some(user), .. }) =
            self.connections.get_mut(id)
        else {
            return;
        };
        if !messages.acks {
            return;
        }
        let user = user.clone();
        match messages.acknowledge(message.as_str(), from.as_str(), self.now) {
            Acked::Taken(delivery) => self.take_delivery(delivery, Some(&user)),
            Acked::Late(hash) => {
                self.table.see(&user, hash, self.now);
                if self.has_mailboxes() {
                    // It takes messages again: what went into the mailbox meanwhile comes back.
                    self.mail_again(id);
                }
            }
            Acked::Unknown => {}
        }
        self.show(id);
    }
}

/// Lets a request through, or tells why not. `is_in`: the connection is a user's session.
fn decide(request: Request<'_>, is_in: bool, is_draining: bool) -> Result<Request<'_>, BadLine> {
    let refused = match request {
        Request::Help(about) if helped(about).next().is_none() => ErrorCode::UnknownVerb,
        Request::Ping(_) | Request::Help(_) | Request::Quit => return Ok(request),
        Request::Login { .. } if is_in => ErrorCode::AlreadyIn,
        Request::Login { .. } if is_draining => ErrorCode::Draining,
        Request::Login { .. } => return Ok(request),
        _ if !is_in => ErrorCode::LoginFirst,
        Request::SendRoom { .. } => return Err(NOT_SERVED),
        _ if !is_served(request.verb()) => return Err(NOT_SERVED),
        // They have no reply.
        Request::Ack { .. } | Request::Cast { .. } => return Ok(request),
        _ if is_draining => ErrorCode::Draining,
        _ => return Ok(request),
    };
    Err(BadLine::new(refused, refused.text()))
}

const NOT_SERVED: BadLine = BadLine::new(ErrorCode::UnknownVerb, "this server does not serve that request");

/// Tells whether this server carries out a verb.
fn is_served(verb: Verb) -> bool {
    !matches!(verb, Verb::Watch | Verb::Unwatch | Verb::Join | Verb::Leave)
}

fn helped(about: Option<&str>) -> impl Iterator<Item = Verb> {
    let about = about.map(Verb::parse);
    Verb::ALL
        .into_iter()
        .filter(move |verb| is_served(*verb) && about.is_none_or(|about| about == Some(*verb)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line, and what it comes to before login, after it, and while draining after it: `ok`, or an error.
    fn check(line: &str, before: &str, after: &str, draining: &str) {
        let take = |is_in, is_draining| {
            let decided = Request::parse(line).and_then(|request| decide(request, is_in, is_draining));
            decided.map_or_else(|bad| bad.code.word(), |_| "ok")
        };
        assert_eq!(take(false, false), before, "{line} before login");
        assert_eq!(take(true, false), after, "{line} after login");
        assert_eq!(take(true, true), draining, "{line} while draining");
        if line.starts_with("LOGIN") {
            assert_eq!(take(false, true), "draining");
        }
    }

    #[test]
    fn every_request_in_every_state() {
        check("LOGIN bob", "ok", "already-in", "already-in");
        check("LOGIN bob token ack", "ok", "already-in", "already-in");
        check("SEND bob hi", "login-first", "ok", "draining");
        check("CAST bob hi", "login-first", "ok", "ok");
        check("WHO bob", "login-first", "ok", "draining");
        check("ACK id bob", "login-first", "ok", "ok");
        for line in ["SEND #room hi", "WATCH bob", "UNWATCH bob", "JOIN #room", "LEAVE #room"] {
            check(line, "login-first", "unknown-verb", "unknown-verb");
        }
        for line in ["PING", "HELP", "HELP send", "QUIT"] {
            check(line, "ok", "ok", "ok");
        }
        for line in ["HELP join", "HELP nonsense", "NONSENSE"] {
            check(line, "unknown-verb", "unknown-verb", "unknown-verb");
        }
        check("SEND bob", "bad-line", "bad-line", "bad-line");
        assert_eq!((helped(None).count(), helped(Some("send")).count()), (8, 1));
    }
}
