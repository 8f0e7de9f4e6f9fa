//! What takes too long: questions past their deadline are answered.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cluster::Unavailable;
use crate::outbox::{Outbox, Ticket};
use crate::proto::ErrorCode;
use crate::router::question::Question;
use crate::router::{Router, Turn};

impl Router {
    /// Does what is due by now.
    pub fn sweep(&self, turn: &mut Turn) {
        let mut expired = HashSet::new();
        loop {
            let ticket = self.in_flight().due(turn.now);
            let Some(ticket) = ticket else { break };
            self.expire(ticket, turn);
            expired.insert(ticket);
        }
        if !expired.is_empty() {
            self.ask_again(expired, turn);
        }
        self.in_flight().give_memory_back();
        self.expire_entered(turn.now);
        self.expire_refused(turn.now);
        self.age_ledgers(turn);
        self.give_up_reading(turn);
        self.resume_drains(None, turn);
    }

    /// A connection waits no more: answers all that it is still owed.
    pub fn settle(&self, asker: &Arc<Outbox>, turn: &mut Turn) {
        let tickets = self.in_flight().asked_by(asker);
        tickets.iter().for_each(|ticket| self.expire(*ticket, turn));
        self.ask_again(tickets.into_iter().collect(), turn);
    }

    /// A question gets the answer that there is none.
    fn expire(&self, ticket: Ticket, turn: &mut Turn) {
        let question = self.in_flight().remove(ticket);
        match question {
            Some(Question::Leaving(outbox)) => outbox.end_silence(),
            Some(Question::Sent(sent)) => {
                let never_sent = sent.parties == 0 && !sent.may_be_seen();
                let code = if never_sent { ErrorCode::Unavailable } else { ErrorCode::Timeout };
                self.fail(&sent.sender, &sent.reply, code, turn);
            }
            Some(Question::Who { asker, reply }) => {
                self.fail(&asker, &reply, ErrorCode::Unavailable, turn);
            }
            Some(Question::Login(tx)) => {
                // Fails only if the connection is gone.
                let _ = tx.try_send(Err(Unavailable));
            }
            Some(Question::Cast { .. }) => self.metrics.casts_lost.add(),
            Some(Question::Received(_) | Question::Further { .. } | Question::Mail { .. }) | None => {}
        }
    }
}
