//! Putting messages into mailboxes.
//!
//! The mailbox is the last to have a message: it is asked when nobody else has
//! it any more. While it has not answered, later messages to the same user wait
//! behind (`Asked`), so that they come to the mailbox in order, many at once; and
//! if the user turns out to have logged in meanwhile, the node where that is
//! looks into the mailbox before anything else comes to it from here.

use std::collections::HashSet;

use crate::cluster::{Answer, Place, Places, Stored, Unavailable};
use crate::outbox::Ticket;
use crate::proto::reply::print_stored;
use crate::proto::{ErrorCode, UserName};
use crate::router::question::{Question, Sent};
use crate::router::{Router, Turn};

impl Router {
    /// Nobody has a message: it goes into its recipient's mailbox, or its sender is told `code`.
    pub(super) fn store_or_give_up(&self, ticket: Ticket, code: ErrorCode, turn: &mut Turn) {
        if !self.cluster.has_mailboxes() {
            return self.give_up(ticket, code, turn);
        }
        let Some(envelope) = self.envelope(ticket) else { return };
        match self.cluster.store(&envelope, ticket.0) {
            Answer::Now(Ok((stored, places))) => {
                self.end_storing(ticket, stored, turn);
                if stored == Stored::Yes {
                    self.tell_mail(&envelope.to, &places, turn);
                }
            }
            Answer::Now(Err(_)) => self.give_up(ticket, ErrorCode::Unavailable, turn),
            Answer::Later => {
                if let Some(Question::Sent(sent)) = self.in_flight().question(ticket) {
                    // Until it answers, the mailbox may have the message.
                    sent.parties = 1;
                }
                self.asked().entry(envelope.to).or_default().storing.push(ticket);
            }
        }
    }

    /// The mailbox has answered: what waited behind goes on.
    pub(super) fn stored(
        &self,
        user: &UserName,
        fates: &[(u64, Stored)],
        places: Result<Places, Unavailable>,
        turn: &mut Turn,
    ) {
        for (number, stored) in fates {
            self.end_storing(Ticket(*number), *stored, turn);
        }
        if fates.iter().any(|(_, stored)| *stored == Stored::Yes) {
            self.tell_mail(user, places.as_deref().unwrap_or_default(), turn);
        }
        let is_answered = |ticket: &Ticket| fates.iter().any(|(number, _)| *number == ticket.0);
        let mut asked = self.asked();
        let Some(waiting) = asked.get_mut(user) else { return };
        waiting.storing.retain(|ticket| !is_answered(ticket));
        let goes_on = waiting.is_question();
        drop(asked);
        if goes_on {
            self.located(user, places, turn);
        }
    }

    /// The user is somewhere all the same: whoever has a session looks into the mailbox.
    fn tell_mail(&self, user: &UserName, places: &[Place], turn: &mut Turn) {
        for place in places {
            self.cluster.tell_mail(&place.node, user);
        }
        self.has_mail(user, turn);
    }

    fn end_storing(&self, ticket: Ticket, stored: Stored, turn: &mut Turn) {
        let question = self.in_flight().remove(ticket);
        // Past its deadline its sender has been told already.
        let Some(Question::Sent(sent)) = question else { return };
        let Sent { sender, reply, id, .. } = &sent;
        let code = match stored {
            Stored::Yes => {
                self.metrics.stored.add();
                return sender.answer(reply, &mut turn.dirty, |out| print_stored(id.borrowed(), out));
            }
            Stored::Full if !sent.maybe_seen => ErrorCode::MailboxFull,
            Stored::No if !sent.may_be_seen() => ErrorCode::Unavailable,
            _ => ErrorCode::Timeout,
        };
        self.in_flight().end_further(&HashSet::from([ticket]));
        self.fail(sender, reply, code, turn);
    }
}
