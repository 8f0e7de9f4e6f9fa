//! Sessions come, are limited, are replaced, and go; and connections end.
//!
//! A session is registered first, so that it is known which were there before it: with `sessions = 1` it ends them,
//! otherwise it may be one too many. From then on messages are taken for it, and shown behind the `OK`. The `OK` waits,
//! a second at most, until the user's other nodes have noted the login: whoever sends after it reaches the session.
//!
//! When a connection ends, replies that are due come first (their deadline is the node's), then the last words, then
//! what is left in the outbox. What its session has and did not take goes elsewhere: at once where nothing more will
//! be read, and else as far as it can't be written any more.

use crate::node::connection::{Connection, Entering, Phase};
use crate::node::deadlines::{Pending, Timeout};
use crate::node::outbox::{Outbox, Spares, Unwritten};
use crate::node::seam::{Location, Unavailable, Welcome, What};
use crate::node::slab::{ConnectionId, Member};
use crate::node::state::{Node, Todo};
use crate::proto::name::{NodeId, SessionId, UserName, UserRef};
use crate::proto::reply::{CloseReason, ErrorCode, ServerLine, print_logged_in, print_tag};
use crate::proto::wire::{Item, Receipt};

impl Node {
    pub(super) fn login(&mut self, id: ConnectionId, user: UserRef<'_>, acks: bool, tag: Option<&str>) {
        let user = UserName::from(user);
        let session = self.fresh_session();
        let tag = tag.map(Box::from);
        // That the user was nowhere else counted while one of the sessions here was there.
        self.locations.forget(user.as_str());
        let entering = Entering { tag, acks, ..Entering::default() };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Entering(Box::new(entering));
        (connection.user, connection.session) = (Some(user.clone()), Some(session));
        self.table.enter(&user, id);
        // A node alone answers within this step.
        if self.own.is_none() {
            connection.unacknowledged.get_or_insert_default().is_held = true;
            self.give_from_others(id, &user);
        }
        self.ask(Some(Pending::Login(id)), user, What::Register(session));
    }

    pub(super) fn registered(&mut self, id: ConnectionId, welcome: Result<Welcome, Unavailable>) {
        if self.entering(id).is_none() {
            return;
        }
        let Some((user, _)) = self.session_of(id) else { return };
        let Ok(Welcome { before, after, earlier, has_mail }) = welcome else {
            return self.turn_away(id, ErrorCode::Unavailable);
        };
        let elsewhere: usize = before.iter().map(|location| location.sessions.len()).sum();
        let is_single = self.config.sessions_max == 1;
        // Of logins that race each counts those before it, also here, where they may wait to be let in: so whatever the
        // distances to presence are, those who came first stay, and no others.
        let earlier = earlier.max(self.table.count(user.as_str()) + elsewhere);
        if !is_single && earlier >= self.config.sessions_max {
            return self.turn_away(id, ErrorCode::TooMany);
        }
        let nodes: Vec<NodeId> = before.iter().chain(&after).map(|location| location.node.clone()).collect();
        for node in nodes.iter().filter(|_| !is_single) {
            // An origin may remember the user here from an earlier session, and not know of the others; so may this node.
            self.note_further(&user, node);
        }
        if let Some(entering) = self.entering(id) {
            entering.has_mail |= has_mail;
            entering.noting = nodes.clone();
            if is_single {
                entering.replaces = sessions_of(before);
            }
        }
        for node in &nodes {
            self.out.says.item(node, &Item::Announced { user: user.borrowed(), login: id.number() });
        }
        if nodes.is_empty() {
            self.admit(id);
        } else {
            self.timeouts.set(Timeout::Noting, id, self.now);
        }
    }

    pub(super) fn noted(&mut self, node: &NodeId, login: u64) {
        let id = ConnectionId::from_number(login);
        let Some(entering) = self.entering(id) else { return };
        let had = entering.noting.len();
        entering.noting.retain(|other| other != node);
        if had > 0 && entering.noting.is_empty() {
            self.admit(id);
        }
    }

    /// A user of this node logs in on another one, too.
    pub(super) fn announced(&mut self, node: &NodeId, user: UserRef<'_>, login: u64) {
        match self.table.find(user.as_str()).map(|(name, _)| name.clone()) {
            Some(name) => self.note_further(&name, node),
            None => {
                let peer = self.peers.name(node);
                self.heard_location(user.as_str(), peer);
            }
        }
        if login != 0 {
            self.out.says.item(node, &Item::Noted { user, login });
        }
    }

    /// A user of this node is on a further one, too: origins are told of it, and so is the user's lane here.
    pub(super) fn note_further(&mut self, user: &UserName, node: &NodeId) {
        let peer = self.peers.name(node);
        self.locations.heard_further(user, peer, self.now);
        self.add_member(user.as_str(), Member::Node(peer));
    }

    /// A login is answered: the session is in.
    pub(super) fn admit(&mut self, id: ConnectionId) {
        let Some(entering) = self.entering(id).map(std::mem::take) else { return };
        let Entering { tag, acks, has_mail, replaces, is_replaced, .. } = entering;
        let Some((user, session)) = self.session_of(id) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::In;
        let single = self.config.sessions_max == 1;
        self.table.admit(&user, id);
        if single {
            self.replace_earlier(id, &user, replaces);
        }
        self.reply(id, tag.as_deref(), |out| print_logged_in(user.borrowed(), session, out));
        let Some(connection) = self.connections.get_mut(id) else { return };
        if acks || connection.unacknowledged.is_some() {
            connection.unacknowledged.get_or_insert_default().let_in(acks, self.now);
        }
        if has_mail {
            self.start_mail(id);
        }
        if self.own.is_some() {
            self.give_from_others(id, &user);
        }
        self.show(id);
        self.add_member(user.as_str(), Member::Here);
        if is_replaced {
            self.todo.push_back(Todo::Close(id, CloseReason::Replaced));
        }
        self.start_draining_one(id);
        self.wake(id);
    }

    /// A login takes the place of all earlier ones of its user; a later one will take its own.
    fn replace_earlier(&mut self, id: ConnectionId, user: &UserName, replaces: Vec<(NodeId, SessionId)>) {
        self.find(user.as_str());
        let earlier = self.seats.iter().map(|seat| seat.connection).take_while(|other| *other != id);
        let earlier: Vec<Todo> = earlier.map(|other| Todo::Close(other, CloseReason::Replaced)).collect();
        self.todo.extend(earlier);
        for (node, session) in replaces {
            self.out.says.item(&node, &Item::Replaced { user: user.borrowed(), session });
            self.ask(None, user.clone(), What::Remove(node, session));
        }
    }

    /// A session of this node was replaced by a login elsewhere.
    pub(super) fn replaced(&mut self, user: &str, session: SessionId) {
        self.find(user);
        let is_it = |connection: &ConnectionId| {
            self.connections.get(*connection).is_some_and(|connection| connection.session == Some(session))
        };
        let found = self.seats.iter().map(|seat| seat.connection).find(is_it);
        self.todo.extend(found.map(|id| Todo::Close(id, CloseReason::Replaced)));
    }

    pub(super) fn turn_away(&mut self, id: ConnectionId, code: ErrorCode) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Entering(entering) = std::mem::replace(&mut connection.phase, Phase::New) else { return };
        self.leave(id, |_, _| vec![]);
        let text = match code {
            ErrorCode::TooMany => "the user has as many sessions as it may have",
            ErrorCode::Unavailable => {
                "other nodes can't be reached now; you are not logged in, try again in a moment"
            }
            _ => code.text(),
        };
        self.refuse(id, entering.tag.as_deref(), code, text);
        self.start_draining_one(id);
        self.wake(id);
    }

    pub(super) fn entering(&mut self, id: ConnectionId) -> Option<&mut Entering> {
        match &mut self.connections.get_mut(id)?.phase {
            Phase::Entering(entering) => Some(entering),
            _ => None,
        }
    }

    /// An id that no session ever had, but by a chance of one in 36^8, made of a number that nobody can guess who does
    /// not know the seed (splitmix64).
    fn fresh_session(&mut self) -> SessionId {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let letter = |at| SessionId::ALPHABET[(z / 36_u64.pow(at) % 36) as usize];
        let text: String = (0..8).map(letter).collect();
        SessionId::parse(&text).expect("made of the alphabet")
    }

    /// A connection takes no request any more, and begins to end, as [`Node::end`] has it. `tag`: that of its `QUIT`.
    pub(super) fn begin_end(&mut self, id: ConnectionId, reason: Option<CloseReason>, tag: Option<&str>) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.is_open()) else {
            return;
        };
        if let (Phase::Entering(entering), Some(CloseReason::Replaced)) = (&mut connection.phase, reason) {
            // Its login is owed an answer.
            entering.is_replaced = true;
            return;
        }
        let is_cut = match reason {
            Some(CloseReason::Slow) => true,
            Some(CloseReason::Replaced) => connection.outbox.blocked_since().is_some(),
            _ => false,
        };
        let is_leaving = connection.session.is_some();
        connection.phase = Phase::Finishing { reason, tag: tag.map(Box::from), is_leaving };
        (connection.is_waiting, connection.is_paused) = (false, false);
        reason.into_iter().for_each(|reason| self.counters.close(reason));
        // What only has to be written will be.
        self.leave(id, |outbox, spares| if is_cut { outbox.cut(spares) } else { vec![] });
        if is_cut {
            // It is told why, if it ever looks.
            return self.say_last_words(id);
        }
        self.timeouts.set(Timeout::Finishing, id, self.now);
        self.wake(id);
        self.finish(id);
    }

    /// Others know that a session is gone.
    pub(super) fn unregistered(&mut self, id: ConnectionId) {
        if let Some(Connection { phase: Phase::Finishing { is_leaving, .. }, .. }) =
            self.connections.get_mut(id)
        {
            *is_leaving = false;
            self.finish(id);
        }
    }

    /// Says the last words, if nothing else is owed.
    pub(super) fn finish(&mut self, id: ConnectionId) {
        if let Some(Connection { phase: Phase::Finishing { is_leaving: false, .. }, outbox, .. }) =
            self.connections.get(id)
            && outbox.due() == 0
        {
            self.say_last_words(id);
        }
    }

    /// Says why a connection ends, and then nothing more.
    pub(super) fn say_last_words(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Finishing { reason, tag, .. } = &connection.phase else { return };
        let (ended, outbox) = (reason.unwrap_or(CloseReason::Quit), &mut connection.outbox);
        outbox.forget_replies(&mut self.spares);
        if let Some(reason) = *reason {
            outbox.push_line(&mut self.spares, |out| {
                print_tag(tag.as_deref(), out);
                ServerLine::Bye { reason, text: reason.text() }.print(out);
            });
        }
        connection.phase = Phase::Ended(ended);
        self.note_bytes(id);
        self.wake(id);
    }

    /// Takes a session, if there is one, out of the table and out of presence: no new message comes in. The messages
    /// that it has and did not take go elsewhere, in order: those that it did not acknowledge or was not shown, and
    /// what `cut` takes out of its outbox. Whoever waits for room here looks again after that.
    fn leave(&mut self, id: ConnectionId, cut: impl FnOnce(&mut Outbox, &mut Spares) -> Vec<Unwritten>) {
        if let Some((user, session)) = self.session_of(id) {
            self.connections.get_mut(id).into_iter().for_each(|connection| connection.session = None);
            self.table.leave(&user, id);
            self.ask(Some(Pending::Leaving(id)), user, What::Unregister(session));
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let messages = connection.unacknowledged.take();
        let (mut all, held) = messages.map_or_else(Default::default, |messages| messages.end());
        all.extend(cut(&mut connection.outbox, &mut self.spares));
        all.extend(held);
        let (waiting, user) = (std::mem::take(&mut connection.waiting), connection.user.clone());
        if let Some(user) = user {
            for message in all {
                let how = if message.in_doubt { Receipt::Left } else { Receipt::NotHere };
                self.lose_delivery(&user, message, how);
            }
        }
        self.go_on(waiting);
        self.leave_mail(id);
    }

    /// The connection is gone: takes back all that it registered.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Ended(CloseReason::Quit);
        self.leave(id, |outbox, _| outbox.take_all());
        self.connections.remove(id);
    }

    /// If the node drains, a connection is asked to say what it has said already, and to end.
    pub(super) fn start_draining_one(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if self.is_draining && matches!(connection.phase, Phase::New | Phase::In) {
            connection.phase = Phase::Draining;
            (connection.is_waiting, connection.is_paused) = (false, false);
            self.wake(id);
        }
    }
}

/// Each session with its node.
pub fn sessions_of(locations: Vec<Location>) -> Vec<(NodeId, SessionId)> {
    let each = |Location { node, sessions }: Location| {
        sessions.into_iter().map(move |session| (node.clone(), session))
    };
    locations.into_iter().flat_map(each).collect()
}
