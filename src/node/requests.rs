//! Carrying out what a client says, line by line.

use crate::node::connection::Connection;
use crate::node::connection::End;
use crate::node::connection::Phase;
use crate::node::outbox::REPLIES_DUE_MAX;
use crate::node::route::Flow;
use crate::node::session::Action;
use crate::node::session::decide;
use crate::node::session::print_help;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;
use crate::node::unacknowledged::Acked;
use crate::proto::line::Line;
use crate::proto::name::Tag;
use crate::proto::name::UserRef;
use crate::proto::reply::ErrorCode;
use crate::proto::reply::ServerLine;
use crate::proto::request::Request;
use crate::proto::request::TaggedRequest;

impl Node {
    /// Carries out one line, or tells that it has to wait.
    pub(super) fn hear(&mut self, id: ConnectionId, line: Line<'_>) -> Flow {
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
            Phase::Finishing(_) | Phase::Ended(_) => return Flow::Next,
            Phase::New | Phase::In | Phase::Draining => {}
        }
        // While the node drains, what was said already is refused at once and waits for nothing.
        if !is_draining && connection.is_overdue(bytes_max) {
            connection.is_paused = true;
            return Flow::Wait;
        }
        let TaggedRequest { tag, request } = TaggedRequest::parse(line);
        let is_limited = connection.acks() && connection.outbox.due() >= REPLIES_DUE_MAX;
        // An acknowledgement and a `CAST` are due no reply.
        if is_limited && !matches!(request, Ok(Request::Ack { .. } | Request::Cast { .. })) {
            self.refuse(id, tag.map(Tag::as_str), ErrorCode::Limited);
            return Flow::Next;
        }
        let is_in = connection.session.is_some();
        self.act(id, decide(request, is_in, is_draining), tag)
    }

    fn act(&mut self, id: ConnectionId, action: Action<'_>, tag: Option<Tag<'_>>) -> Flow {
        let word = tag.map(Tag::as_str);
        match action {
            Action::Send(to, text) => return self.send(id, tag, to, text),
            Action::Cast(to, text) => return self.cast(id, to, text),
            Action::Login(user, acks) => self.login(id, user, acks, word),
            Action::Ack(message, from) => self.acknowledge(id, message, from),
            Action::Quit => self.begin_end(id, End::Quit(word.map(Box::from))),
            Action::Who(user) => self.who(id, tag, user),
            Action::Pong(text) => self.reply(id, word, |out| ServerLine::Pong(text).print(out)),
            Action::Help(verbs) => print_help(&verbs, |line| self.reply(id, word, |out| line.print(out))),
            Action::Refuse(code, text) => {
                self.counters.error(code);
                self.reply(id, word, |out| ServerLine::Err { code, text }.print(out));
            }
        }
        Flow::Next
    }

    /// A session acknowledges a message.
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
