//! How a connection ends: what it still owes is said, then why, then it closes.
//!
//! Replies that are due come first (their deadline is the node's), then the last words, then what is left in the
//! outbox. What its session has and did not take goes elsewhere: at once where nothing more will be read,
//! and else as far as it can't be written any more.

use crate::node::connection::End;
use crate::node::connection::Ending;
use crate::node::connection::Finishing;
use crate::node::connection::Phase;
use crate::node::deadlines::Timeout;
use crate::node::slab::ConnectionId;
use crate::node::state::Node;
use crate::proto::reply::CloseReason;
use crate::proto::reply::ServerLine;
use crate::proto::reply::print_tag;
use crate::proto::wire::Receipt;

/// Which messages of a connection are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwrittens {
    /// Those that its session did not acknowledge, or was not shown. What only has to be written will be.
    OfSession,
    /// Besides, those of which nothing was written.
    NotBegun,
    /// All.
    All,
}

impl Node {
    /// A connection takes no request any more, and begins to end.
    pub(super) fn begin_end(&mut self, id: ConnectionId, end: End) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.is_open()) else {
            return;
        };
        if let (Phase::Entering(entering), End::Closed(CloseReason::Replaced)) = (&mut connection.phase, &end)
        {
            // Its login is owed an answer.
            entering.is_replaced = true;
            return;
        }
        let is_blocked = connection.outbox.blocked_since().is_some();
        let is_cut = match end {
            End::Closed(CloseReason::Slow) => true,
            End::Closed(CloseReason::Replaced) => is_blocked,
            _ => false,
        };
        connection.phase = Phase::Finishing(Box::new(Finishing { end: end.clone(), is_leaving: false }));
        (connection.is_waiting, connection.is_paused) = (false, false);
        match end {
            End::Closed(reason) => self.counters.close(reason),
            End::Quit(_) => self.counters.close(CloseReason::Quit),
            End::Eof | End::Peer => {}
        }
        let is_leaving = self.leave(id);
        let which = if is_cut { Unwrittens::NotBegun } else { Unwrittens::OfSession };
        self.give_all_back(id, which);
        self.leave_mail(id);
        if is_cut {
            // It is told why, if it ever looks.
            return self.say_last_words(id);
        }
        if let Some(connection) = self.connections.get_mut(id)
            && let Phase::Finishing(finishing) = &mut connection.phase
        {
            finishing.is_leaving = is_leaving;
        }
        self.timeouts.set(Timeout::Finishing, id, self.now);
        self.wake(id);
        self.finish(id);
    }

    /// Others know that a session is gone.
    pub(super) fn unregistered(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Phase::Finishing(finishing) = &mut connection.phase
        {
            finishing.is_leaving = false;
            self.finish(id);
        }
    }

    /// Says the last words, if nothing else is owed.
    pub(super) fn finish(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        if let Phase::Finishing(finishing) = &connection.phase
            && !finishing.is_leaving
            && connection.outbox.due() == 0
        {
            self.say_last_words(id);
        }
    }

    /// Says why a connection ends, and then nothing more.
    pub(super) fn say_last_words(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Finishing(finishing) = &connection.phase else { return };
        let (reason, tag) = match &finishing.end {
            End::Quit(tag) => (Some(CloseReason::Quit), tag.clone()),
            End::Closed(reason) => (Some(*reason), None),
            End::Eof | End::Peer => (None, None),
        };
        connection.outbox.forget_replies(&mut self.spares);
        if let Some(reason) = reason {
            connection.outbox.push_line(&mut self.spares, |out| {
                print_tag(tag.as_deref(), out);
                ServerLine::Bye { reason, text: reason.text() }.print(out);
            });
        }
        connection.phase = Phase::Ended(Ending { reason });
        self.note_bytes(id);
        self.wake(id);
    }

    /// The messages that a session has and did not take go elsewhere, in order; whoever waits for room here looks
    /// again after that.
    pub(super) fn give_all_back(&mut self, id: ConnectionId, which: Unwrittens) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let messages = connection.unacknowledged.take();
        let (mut all, held) = messages.map_or_else(Default::default, |messages| messages.end());
        all.extend(match which {
            Unwrittens::OfSession => vec![],
            Unwrittens::NotBegun => connection.outbox.cut(&mut self.spares),
            Unwrittens::All => connection.outbox.take_all(),
        });
        all.extend(held);
        let (waiting, user) = (std::mem::take(&mut connection.waiting), connection.user.clone());
        if let Some(user) = user {
            for message in all {
                let how = if message.in_doubt { Receipt::Left } else { Receipt::NotHere };
                self.lose_delivery(&user, message, how);
            }
        }
        self.go_on(waiting);
    }

    /// The connection is gone: takes back all that it registered.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Ended(Ending { reason: None });
        self.leave(id);
        self.give_all_back(id, Unwrittens::All);
        self.leave_mail(id);
        self.connections.remove(id);
    }

    /// The node drains: a connection is asked to say what it has said already, and to end.
    pub(super) fn start_draining_one(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if matches!(connection.phase, Phase::New | Phase::In) {
            connection.phase = Phase::Draining;
            (connection.is_waiting, connection.is_paused) = (false, false);
            self.wake(id);
        }
    }
}
