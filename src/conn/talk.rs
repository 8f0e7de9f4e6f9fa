//! What a line does: from the request to the router, and the reply.
//!
//! Everything that can be done at once is; what can't is handed back as a
//! [`Stop`], and the connection takes no further line before it is done.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use smol::channel::Receiver;

use crate::conn::held::{HeldLine, HeldLines};
use crate::conn::phase::End;
use crate::conn::{Heard, Shared, ws};
use crate::outbox::{Outbox, Unwritten};
use crate::proto::reply::{print_hello, print_logged_in};
use crate::proto::{ErrorCode, Line, Request, ServerLine, SessionId, Tag, TaggedRequest, UserName, UserRef};
use crate::random::random_id;
use crate::router::{Entered, Login, Router, Sender, Taken, Turn, Welcomed};
use crate::session::{Action, Session, print_help};

/// One connection's conversation.
pub struct Talk {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
    session: Session,
    /// The session was taken back.
    has_left: bool,
    /// Lines that have to wait, of a session that acknowledges.
    held: Option<Box<HeldLines>>,
}

/// Why the next line can't be taken yet.
pub enum Stop {
    /// This line has to wait; the waker will be woken when it may be tried again.
    Wait(HeldLine),
    /// The connection owes too many replies, or does not read them.
    Full,
    /// The user is in.
    Entered,
    /// The cluster was asked about a login.
    Entering(Entering),
    /// The connection ends.
    End(End),
}

/// A login that waits for the cluster.
pub struct Entering {
    /// Where the answer comes.
    pub answer: Pin<Box<Receiver<Welcomed>>>,
    tag: Option<Box<str>>,
    /// When a connection that has not logged in is closed.
    pub login_by: Option<Instant>,
}

impl Talk {
    /// Begins a conversation.
    pub fn new(shared: Arc<Shared>, outbox: Arc<Outbox>) -> Self {
        Talk { shared, outbox, session: Session::New, has_left: false, held: None }
    }

    fn router(&self) -> &Router {
        &self.shared.router
    }

    /// Says `HELLO`.
    pub fn greet(&self, turn: &mut Turn) {
        self.outbox
            .push_line(&mut turn.dirty, |out| print_hello(self.router().cluster().node().as_str(), out));
    }

    /// Carries out one line or control frame.
    pub fn hear(&mut self, heard: Heard<'_>, waker: &Waker, turn: &mut Turn) -> ControlFlow<Stop> {
        let flow = match heard {
            Heard::Line(line) => self.take_or_hold(line, waker, turn),
            Heard::Ping(payload) => {
                self.outbox.push_raw(&ws::pong(payload), &mut turn.dirty);
                ControlFlow::Continue(())
            }
            Heard::Close(code) => ControlFlow::Break(Stop::End(End::WebSocket(code.unwrap_or(1000)))),
            Heard::Broken(code) => ControlFlow::Break(Stop::End(End::WebSocket(code))),
        };
        // While the node drains, what was said already is refused at once and waits for nothing.
        if flow.is_continue() && self.is_full() && !self.outbox.takes_acks() {
            return ControlFlow::Break(Stop::Full);
        }
        flow
    }

    /// Carries out the lines that are held, as far as they need not wait any more; breaks where the
    /// connection ends.
    pub fn go_on(&mut self, waker: &Waker, turn: &mut Turn) -> ControlFlow<Stop> {
        while let Some(held) = &mut self.held {
            let Some(line) = held.pop() else {
                let end = held.end.take();
                self.held = None;
                return end.map_or(ControlFlow::Continue(()), |end| ControlFlow::Break(Stop::End(end)));
            };
            match self.line(line.line(), waker, turn) {
                ControlFlow::Break(Stop::Wait(line)) => {
                    self.held.get_or_insert_default().put_back(line);
                    break;
                }
                ControlFlow::Break(stop) => {
                    // Nothing behind `QUIT` counts.
                    self.held = None;
                    return ControlFlow::Break(stop);
                }
                ControlFlow::Continue(()) => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// The peer ends the connection: gives `end` back, or keeps it until the lines before are
    /// carried out.
    pub fn end_behind(&mut self, end: End) -> Option<End> {
        let Some(held) = &mut self.held else { return Some(end) };
        held.end = Some(end);
        None
    }

    /// Tells whether the peer has said its last word, and lines before it have to wait.
    pub fn hears_no_more(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.end.is_some())
    }

    /// Carries out a line, or holds it if it, or one before it, has to wait.
    fn take_or_hold(&mut self, line: Line<'_>, waker: &Waker, turn: &mut Turn) -> ControlFlow<Stop> {
        let is_ack = || matches!(TaggedRequest::parse(line).request, Ok(Request::Ack { .. }));
        if self.held.is_some() && !is_ack() {
            return self.hold(line);
        }
        match self.line(line, waker, turn) {
            ControlFlow::Break(Stop::Wait(_)) if self.outbox.acknowledges() => self.hold(line),
            flow => flow,
        }
    }

    fn hold(&mut self, line: Line<'_>) -> ControlFlow<Stop> {
        let held = self.held.get_or_insert_default();
        held.push(line, self.shared.outbox_bytes_max)
            .map_or_else(|line| ControlFlow::Break(Stop::Wait(line)), ControlFlow::Continue)
    }

    /// Tells whether a request that has a reply has to wait.
    fn is_full(&self) -> bool {
        !self.outbox.takes_requests() && !self.router().is_draining()
    }

    /// Ends a login that waited for the cluster; breaks when the user is in.
    pub fn entered(&mut self, welcome: Welcomed, entering: &Entering, turn: &mut Turn) -> ControlFlow<Stop> {
        self.enter(welcome, entering.tag.as_deref(), turn)
    }

    /// Takes the session out of the user table and out of presence, once: no new
    /// message comes in.
    pub fn leave(&mut self, turn: &mut Turn) {
        if let (Some((user, id)), false) = (self.session.user(), self.has_left) {
            self.router().leave(user, id, &self.outbox, turn);
            self.has_left = true;
        }
    }

    /// Hands messages that will not be written back to the router.
    pub fn give_back(&self, messages: Vec<Unwritten>, turn: &mut Turn) {
        if let Some((user, _)) = self.session.user() {
            self.router().unwritten(user, messages, turn);
        }
    }

    /// Answers all that the connection is still owed.
    pub fn settle(&self, turn: &mut Turn) {
        self.router().settle(&self.outbox, turn);
    }

    fn line(&mut self, line: Line<'_>, waker: &Waker, turn: &mut Turn) -> ControlFlow<Stop> {
        let TaggedRequest { tag, request } = TaggedRequest::parse(line);
        if self.is_full() && !matches!(request, Ok(Request::Ack { .. })) {
            // Its acknowledgements may be what the replies that it is owed wait for.
            return ControlFlow::Break(Stop::Wait(HeldLine::new(line)));
        }
        match self.session.take(request, self.router().is_draining()) {
            Action::Send(to, text) => {
                let (router, sender) = self.sender(waker);
                return taken(router.send(sender, tag, to, text, turn), line);
            }
            Action::Cast(to, text) => {
                let (router, sender) = self.sender(waker);
                return taken(router.cast(sender, to, text, turn), line);
            }
            Action::Login(user, acks) => return self.login(user, acks, tag, turn),
            Action::Ack(id, from) => {
                let Some((user, session)) = self.session.user() else {
                    unreachable!("the session lets nobody acknowledge before LOGIN");
                };
                let message = (id.as_str(), from.as_str());
                self.router().acknowledge(user, session, &self.outbox, message, turn);
            }
            Action::Quit => return ControlFlow::Break(Stop::End(End::Quit(tag.map(owned)))),
            Action::Who(user) => self.router().who(&self.outbox, tag, user, turn),
            Action::Pong(text) => self.reply(tag, ServerLine::Pong(text), turn),
            Action::Help(verbs) => print_help(&verbs, |line| self.reply(tag, line, turn)),
            Action::Refuse(code, text) => self.refuse(tag, code, text, turn),
        }
        ControlFlow::Continue(())
    }

    /// The session as a sender.
    fn sender<'a>(&'a mut self, waker: &'a Waker) -> (&'a Router, Sender<'a>) {
        let Session::In { user, id, count } = &mut self.session else {
            unreachable!("the session lets nobody send before LOGIN");
        };
        let sender = Sender { user, session: *id, outbox: self.outbox.clone(), count, waker };
        (&self.shared.router, sender)
    }

    fn login(
        &mut self,
        user: UserRef<'_>,
        acks: bool,
        tag: Option<Tag<'_>>,
        turn: &mut Turn,
    ) -> ControlFlow<Stop> {
        let user = UserName::from(user);
        let id = random_id(8, &SessionId::ALPHABET);
        let id = SessionId::parse(&id).expect("made of the alphabet");
        let login = self.router().register(&user, id, &self.outbox, turn);
        self.session = Session::Entering { user, id, acks };
        match login {
            Login::Now(welcome) => self.enter(welcome, tag.map(Tag::as_str), turn),
            Login::Later(answer) => ControlFlow::Break(Stop::Entering(Entering {
                answer: Box::pin(answer),
                tag: tag.map(owned),
                login_by: None,
            })),
        }
    }

    /// Ends a login with the cluster's answer; breaks when the user is in.
    fn enter(&mut self, welcome: Welcomed, tag: Option<&str>, turn: &mut Turn) -> ControlFlow<Stop> {
        let Session::Entering { user, id, acks } = std::mem::take(&mut self.session) else {
            unreachable!("a login that is answered was asked for");
        };
        match self.router().enter(&user, id, &self.outbox, welcome, turn) {
            Ok(Entered { has_mail, replaced }) => {
                // Before any message: a node has one thread, and this is still the same turn.
                self.outbox.reply(tag, &mut turn.dirty, |out| print_logged_in(user.borrowed(), id, out));
                if acks {
                    self.router().set_acks(&user, id, &self.outbox, turn);
                }
                if has_mail {
                    self.router().start_drain(&user, id, &self.outbox, turn);
                }
                self.router().take_over(&user, &self.outbox, &replaced, turn);
                self.session = Session::In { user, id, count: 0 };
                ControlFlow::Break(Stop::Entered)
            }
            Err(code) => {
                self.router().leave(&user, id, &self.outbox, turn);
                self.router().metrics().error(code);
                let text = match code {
                    ErrorCode::TooMany => "the user has as many sessions as it may have",
                    _ => code.text(),
                };
                self.outbox.reply(tag, &mut turn.dirty, |out| ServerLine::Err { code, text }.print(out));
                ControlFlow::Continue(())
            }
        }
    }

    fn refuse(&self, tag: Option<Tag<'_>>, code: ErrorCode, text: &str, turn: &mut Turn) {
        self.router().metrics().error(code);
        self.reply(tag, ServerLine::Err { code, text }, turn);
    }

    fn reply(&self, tag: Option<Tag<'_>>, line: ServerLine<'_>, turn: &mut Turn) {
        self.outbox.reply(tag.map(Tag::as_str), &mut turn.dirty, |out| line.print(out));
    }
}

fn taken(taken: Taken, line: Line<'_>) -> ControlFlow<Stop> {
    match taken {
        Taken::Wait => ControlFlow::Break(Stop::Wait(HeldLine::new(line))),
        Taken::Yes => ControlFlow::Continue(()),
    }
}

fn owned(tag: Tag<'_>) -> Box<str> {
    tag.as_str().into()
}
