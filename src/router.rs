//! The router: decides where a message goes, and tells its sender what became of it.
//!
//! One idea carries it: the origin owns the message. A message that was taken
//! from a client is in the in-flight table until its one fate is known, and
//! whatever happens to those who have it comes back here: written, not here,
//! their node is gone, or silence up to the deadline. A node that receives an
//! envelope delivers it or answers; it never forwards it.
//!
//! Every call is one step of a [`Turn`]: it pushes to outboxes and notes them,
//! and the flush at the end of the turn writes each once. Nothing here waits.
//!
//! Reading order: [`Router::send`], `written`, [`Router::on_said`]; then
//! `again.rs` (what happens when it did not work), `asked.rs` (who waits for
//! presence), `deliver.rs` (the sessions of this node), `acks.rs` (those that
//! acknowledge), `store.rs` and `drain.rs` (mailboxes), `login.rs` (who is here), `moves.rs` and
//! `refused.rs` (order while that changes), `flush.rs` (the end of a turn), `sweep.rs` (what takes too long).

mod acks;
mod again;
mod asked;
mod deliver;
mod drain;
mod flush;
mod in_flight;
mod login;
mod moves;
mod question;
mod refused;
mod store;
mod sweep;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use smol::channel;

use crate::cluster::{Answer, Cluster, Event, Places, Said, Unavailable};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, ReplyTo, Ticket};
use crate::proto::reply::{print_delivered, print_msg, print_presence};
use crate::proto::{EnvelopeRef, ErrorCode, Fate, IdRef, ServerLine, SessionId, Tag, UserName, UserRef};
use crate::router::acks::Watched;
use crate::router::asked::Asked;
use crate::router::deliver::Way;
use crate::router::drain::Drain;
use crate::router::flush::Unflushed;
use crate::router::in_flight::InFlight;
use crate::router::login::Entering;
use crate::router::question::{Question, Sent};
use crate::router::refused::Refused;
use crate::table::{Seat, Table};

pub use flush::Turn;
pub use login::{Entered, Login, Welcomed};

/// One node's routing: who is here, who is elsewhere, and what is under way.
pub struct Router {
    /// Who is here.
    table: Table,
    /// Who is elsewhere.
    cluster: Cluster,
    in_flight: Mutex<InFlight>,
    /// Questions that wait for presence, by the user they ask for.
    asked: Mutex<HashMap<UserName, Asked>>,
    /// Sessions that presence knows of and the user table does not yet.
    entering: Mutex<HashMap<SessionId, Entering>>,
    /// Sessions that acknowledge, or whose mailbox is drained.
    watched: Mutex<HashMap<SessionId, Watched>>,
    drains: Mutex<HashMap<SessionId, Drain>>,
    /// What other nodes must have back before anything is taken from them.
    refused: Mutex<Refused>,
    /// Tells that a drain waits for another one.
    busy: (channel::Sender<()>, channel::Receiver<()>),
    unflushed: Mutex<Unflushed>,
    draining: AtomicBool,
    sessions_max: usize,
    metrics: Arc<Metrics>,
}

/// How long a message, or a question to presence, may go without an answer:
/// then its sender gets `ERR timeout`, or `ERR unavailable` if nothing was sent.
pub const RECEIPT_MS_MAX: Duration = Duration::from_millis(10_000);

/// How often a message is routed again before its sender is told.
pub const RETRIES_MAX: u8 = 3;

/// Who sends: a session and its connection.
pub struct Sender<'a> {
    /// The user.
    pub user: &'a UserName,
    /// The session.
    pub session: SessionId,
    /// Where replies go.
    pub outbox: Arc<Outbox>,
    /// How many messages of this session were given an id by this node.
    pub count: &'a mut u64,
    /// Woken when a send that had to wait may be tried again.
    pub waker: &'a Waker,
}

/// Whether a message was taken from its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was; its fate will be told.
    Yes,
    /// Not now: the recipient's outbox, or what is under way to it, is at its
    /// bound. The sender's waker will be woken.
    Wait,
}

impl Router {
    /// Makes the router of one node.
    pub fn new(cluster: Cluster, sessions_max: usize, metrics: Arc<Metrics>) -> Self {
        Router {
            table: Table::default(),
            cluster,
            in_flight: Mutex::default(),
            asked: Mutex::default(),
            entering: Mutex::default(),
            watched: Mutex::default(),
            drains: Mutex::default(),
            refused: Mutex::default(),
            busy: channel::bounded(1),
            unflushed: Mutex::default(),
            draining: AtomicBool::new(false),
            sessions_max,
            metrics,
        }
    }

    /// Routes a `SEND`: its reply is given now, or expected by the sender's outbox.
    pub fn send(
        &self,
        mut from: Sender<'_>,
        tag: Option<Tag<'_>>,
        to: UserRef<'_>,
        text: &str,
        turn: &mut Turn,
    ) -> Taken {
        self.find(to, turn);
        if !has_room(&turn.seats, from.waker) {
            return Taken::Wait;
        }
        let is_here = !turn.seats.is_empty();
        let places = match self.ask_for(to, is_here, turn) {
            Answer::Now(Ok(places)) if places.is_empty() && is_here => {
                self.send_here(from, tag, to, text, turn);
                return Taken::Yes;
            }
            Answer::Now(Ok(places)) if places.is_empty() && !self.cluster.has_mailboxes() => {
                self.refuse(&from.outbox, tag, ErrorCode::Offline, turn);
                return Taken::Yes;
            }
            // While presence is away, local messages flow as before.
            Answer::Now(Err(Unavailable)) if is_here => {
                self.send_here(from, tag, to, text, turn);
                return Taken::Yes;
            }
            Answer::Now(Err(Unavailable)) => {
                self.refuse(&from.outbox, tag, ErrorCode::Unavailable, turn);
                return Taken::Yes;
            }
            places => places,
        };
        if !self.in_flight().has_window(to, from.waker) {
            return Taken::Wait;
        }
        let id = from.next_id(tag);
        let reply = from.outbox.expect(tag.map(Tag::as_str));
        let envelope = from.envelope(to, id, text);
        let names = (from.user.clone(), turn.name(to));
        let mut in_flight = self.in_flight();
        let mut sent = Sent::new(from.outbox, reply, id.into(), 0);
        sent.remote = Some(in_flight.remote(envelope, names));
        let ticket = in_flight.insert(Question::Sent(sent), Some(turn.now + RECEIPT_MS_MAX));
        drop(in_flight);
        match places {
            Answer::Now(places) => self.place_envelope(ticket, envelope, places, turn),
            Answer::Later => self.wait_for_presence(turn.name(to), vec![ticket]),
        }
        Taken::Yes
    }

    /// Routes a `CAST`: at most once, without a word.
    pub fn cast(&self, mut from: Sender<'_>, to: UserRef<'_>, text: &str, turn: &mut Turn) -> Taken {
        self.find(to, turn);
        if !has_room(&turn.seats, from.waker) {
            return Taken::Wait;
        }
        let id = from.next_id(None);
        let is_here = !turn.seats.is_empty();
        let goes_on = match self.ask_for(to, is_here, turn) {
            Answer::Now(Ok(places)) if !places.is_empty() => {
                self.cast_to(&places, from.envelope(to, id, text), turn.now)
            }
            Answer::Now(_) => false,
            Answer::Later => self.cast_later(from.envelope(to, id, text).into(), is_here, turn),
        };
        if is_here || !goes_on {
            self.push_cast(from.user.borrowed(), id, text, turn);
        }
        Taken::Yes
    }

    /// Answers a `WHO`.
    pub fn who(&self, asker: &Arc<Outbox>, tag: Option<Tag<'_>>, user: UserRef<'_>, turn: &mut Turn) {
        // What is remembered may be wrong, and here nobody would notice.
        let is_here = self.table.sessions_of(user) > 0;
        let answer = self.unless_asked(user, || self.cluster.locate_now(user, is_here));
        match answer {
            Answer::Now(Ok(places)) => {
                let sessions = self.sessions(user, &places);
                asker.reply(tag.map(Tag::as_str), &mut turn.dirty, |out| print_presence(user, sessions, out));
            }
            Answer::Now(Err(Unavailable)) => self.refuse(asker, tag, ErrorCode::Unavailable, turn),
            Answer::Later => {
                let reply = asker.expect(tag.map(Tag::as_str));
                let question = Question::Who { asker: asker.clone(), reply };
                let ticket = self.in_flight().insert(question, Some(turn.now + RECEIPT_MS_MAX));
                self.wait_for_presence(user.into(), vec![ticket]);
            }
        }
    }

    /// Messages were written to a session: their fates are known.
    fn written(&self, tickets: &mut Vec<Ticket>, turn: &mut Turn) {
        for ticket in tickets.drain(..) {
            let question = self.in_flight().remove(ticket);
            match question {
                Some(Question::Sent(sent)) => {
                    self.delivered(&sent, turn);
                    if sent.is_awaited {
                        self.unbar(ticket, sent.awaited_for(), turn);
                    }
                }
                Some(Question::Received(received)) => {
                    self.cluster.receipt(&received.origin, received.number, Fate::Delivered, turn.now);
                }
                Some(Question::Mail { session, place }) => self.mail_taken(session, place, turn),
                // Another session of the user had it first, or the deadline has passed.
                _ => {}
            }
        }
    }

    /// Takes in what another node, or presence, tells.
    pub fn on_said(&self, said: Said<'_>, turn: &mut Turn) {
        match said {
            Said::Envelope { origin, envelope } => self.receive(origin, envelope, turn),
            Said::Receipts { node, numbers, fate } => {
                numbers.iter().for_each(|number| self.receipt(node, Ticket(*number), fate, turn));
            }
            Said::Event(event) => self.on_event(event, turn),
        }
    }

    fn on_event(&self, event: Event, turn: &mut Turn) {
        match event {
            Event::Registered { number, welcome } => self.registered(Ticket(number), welcome),
            Event::Unregistered { number } => self.unregistered(Ticket(number)),
            Event::Stored { user, fates, places } => self.stored(&user, &fates, places, turn),
            Event::Read { session, mail } => self.read(session, mail, turn),
            Event::Mail(user) => self.has_mail(&user, turn),
            Event::Resumes { node, user } => self.resume(&node, &user),
            Event::Also { node, user, login } => self.tell_shown(&node, &user, login),
            Event::Shown { user, seen } => self.inherit(&user, &seen),
            Event::Waits { node, number } => self.waits(&node, Ticket(number), turn),
            Event::Located { user, places } => self.located(&user, places, turn),
            Event::Gone(node) => self.gone(&node, turn),
            Event::Returned { node, numbers, maybe_seen } => self.returned(&node, &numbers, maybe_seen, turn),
            Event::Changed { node, user } => self.look_again(&node, user, turn),
            Event::Replaced { user, session } => self.replaced(&user, session),
        }
    }

    /// From now on requests that need the node to stay are refused.
    pub fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Tells whether the node is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Who is here.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Who is elsewhere.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The node's counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many messages and questions wait for an answer.
    pub fn questions(&self) -> usize {
        self.in_flight().count()
    }

    /// Asks where else a user is. While an earlier question about the user is
    /// open, or some messages have to come back from where the user was, later messages queue
    /// behind: one sender's messages stay in order.
    fn ask_for(&self, user: UserRef<'_>, is_here: bool, turn: &mut Turn) -> Answer<Places> {
        if is_here && self.cluster.is_alone() {
            return Answer::Now(Ok(Places::default()));
        }
        // All that one read sends to a user was there before the first of it was asked for: the rest goes
        // where that went.
        let told = turn.places_of(user);
        let locate = || self.cluster.locate(user, is_here, turn.now);
        let answer = self.unless_asked(user, || told.map_or_else(locate, |places| Answer::Now(Ok(places))));
        let Answer::Now(Ok(places)) = answer else { return answer };
        if !self.cluster.is_alone() && self.has_left_behind(user, &places) {
            return Answer::Later;
        }
        turn.set_places(user, &places);
        Answer::Now(Ok(places))
    }

    fn unless_asked(&self, user: UserRef<'_>, ask: impl FnOnce() -> Answer<Places>) -> Answer<Places> {
        if !self.cluster.is_alone() && self.asked().contains_key(user.as_str()) {
            return Answer::Later;
        }
        ask()
    }

    /// The whole way of a message whose recipient is only here: no copy is kept
    /// beside the outboxes.
    fn send_here(
        &self,
        mut from: Sender<'_>,
        tag: Option<Tag<'_>>,
        to: UserRef<'_>,
        text: &str,
        turn: &mut Turn,
    ) {
        let id = from.next_id(tag);
        let reply = from.outbox.expect(tag.map(Tag::as_str));
        self.catch_up_here(to, turn);
        let parties = turn.seats.len() as u32;
        let sent = Sent::new(from.outbox, reply, id.into(), parties);
        let ticket = self.in_flight().insert(Question::Sent(sent), Some(turn.now + RECEIPT_MS_MAX));
        let lost = self.push(ticket, from.user.borrowed(), id, text, Way::Here, turn);
        if !lost.is_none() {
            let mut line = vec![];
            print_msg(from.user.borrowed(), id, text, &mut line);
            self.lost(ticket, lost, Some((&to.into(), &line)), turn);
        }
    }

    /// The sender learns that its message was delivered.
    fn delivered(&self, sent: &Sent, turn: &mut Turn) {
        self.metrics.delivered.add();
        sent.sender.answer(&sent.reply, &mut turn.dirty, |out| print_delivered(sent.id.borrowed(), out));
    }

    /// Answers at once that a request did not work.
    fn refuse(&self, outbox: &Arc<Outbox>, tag: Option<Tag<'_>>, code: ErrorCode, turn: &mut Turn) {
        self.metrics.error(code);
        outbox.reply(tag.map(Tag::as_str), &mut turn.dirty, |out| print_error(code, out));
    }

    /// Answers later that a request did not work.
    fn fail(&self, outbox: &Arc<Outbox>, reply: &ReplyTo, code: ErrorCode, turn: &mut Turn) {
        self.metrics.error(code);
        outbox.answer(reply, &mut turn.dirty, |out| print_error(code, out));
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        // The table asserts nothing that a panic between two of its calls could break.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<UserName, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entering(&self) -> MutexGuard<'_, HashMap<SessionId, Entering>> {
        self.entering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<SessionId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drains(&self) -> MutexGuard<'_, HashMap<SessionId, Drain>> {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'s> Sender<'s> {
    /// The id of the next message: its tag, or one that this node makes.
    fn next_id<'a>(&mut self, tag: Option<Tag<'a>>) -> IdRef<'a> {
        match tag {
            Some(tag) => IdRef::Tag(tag),
            None => {
                *self.count += 1;
                IdRef::Counted(self.session, *self.count)
            }
        }
    }

    /// The message for other nodes, without a number: a receipt is asked for where it is placed.
    fn envelope<'a>(&self, to: UserRef<'a>, id: IdRef<'a>, text: &'a str) -> EnvelopeRef<'a>
    where
        's: 'a,
    {
        let from = self.user.borrowed();
        EnvelopeRef { number: None, is_shared: false, is_again: false, from, to, id, text }
    }
}

/// Tells whether every seat takes a message now; if not, `waker` is woken when that may be so.
fn has_room(seats: &[Seat], waker: &Waker) -> bool {
    match seats.iter().find(|seat| seat.outbox.has_room() == Some(false)) {
        Some(full) => {
            full.outbox.wait_for_room(waker);
            false
        }
        None => true,
    }
}

fn print_error(code: ErrorCode, out: &mut Vec<u8>) {
    ServerLine::Err { code, text: code.text() }.print(out);
}
