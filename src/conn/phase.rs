//! How a connection ends: what it still owes is said, then why, then it closes.
//!
//! Replies that are due come first (their deadline is the router's), then the
//! last words, then what is left in the outbox. Only then is the socket shut,
//! and what the peer still says is read away for a moment: closing a socket
//! with unread input would reset it and take the last words with it.

use std::net::Shutdown;
use std::ops::ControlFlow;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smol::stream::Stream;

use crate::cluster::Unavailable;
use crate::conn::talk::Entering;
use crate::conn::{Connection, Decoder, READS_MAX, Scratch, ws};
use crate::outbox::{Await, Bytes};
use crate::proto::reply::print_tag;
use crate::proto::{CloseReason, ServerLine};
use crate::router::{RECEIPT_MS_MAX, Turn};

/// Where a connection is in its life.
pub enum Phase {
    /// Accepted; nothing was said yet.
    Arriving,
    /// Requests are taken; until the login there is a deadline for it.
    Open {
        /// When a connection that has not logged in is closed.
        login_by: Option<Instant>,
    },
    /// A login waits for the cluster.
    Entering(Box<Entering>),
    /// No request is taken any more; replies are still due.
    Finishing(Box<(End, Instant)>),
    /// The last words are in the outbox.
    Flushing(Instant),
    /// All is written; the peer's last words are read away.
    Lingering(Instant),
    /// Nothing is left to do.
    Over,
}

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The peer said `QUIT`, perhaps under a tag.
    Quit(Option<Box<str>>),
    /// The server ends it.
    Closed(CloseReason),
    /// The peer says no more.
    Eof,
    /// The peer closed its WebSocket, or broke the protocol of it.
    WebSocket(u16),
    /// An HTTP request that wanted no WebSocket was answered.
    Http,
}

/// How long the replies that are due are waited for: their deadline, and time
/// enough for the sweep that looks at deadlines to come round.
const FINISH_TIME_MAX: Duration = RECEIPT_MS_MAX.saturating_add(Duration::from_secs(2));

/// How long the last words may take.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a peer may talk after the last words.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

impl Phase {
    /// When the connection has to act by itself.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Phase::Open { login_by } => *login_by,
            Phase::Finishing(finish) => Some(finish.1),
            Phase::Flushing(by) | Phase::Lingering(by) => Some(*by),
            Phase::Arriving | Phase::Entering(..) | Phase::Over => None,
        }
    }

    /// Tells whether the peer may still talk.
    pub fn is_open(&self) -> bool {
        matches!(self, Phase::Arriving | Phase::Open { .. } | Phase::Entering(..))
    }
}

impl Connection {
    /// Takes no request any more, and begins to end.
    pub(super) fn end(&mut self, end: End, turn: &mut Turn) {
        self.paused = None;
        if self.talk.outbox.blocked().is_none() {
            // What is written now is known to be shown, wherever the user logs in next.
            self.talk.shared.router.flush(&self.talk.outbox, turn);
        }
        self.talk.leave(turn);
        let metrics = self.talk.shared.router.metrics();
        match end {
            End::Closed(reason) => metrics.closed(reason),
            End::Quit(_) => metrics.closed(CloseReason::Quit),
            _ => {}
        }
        let is_blocked = self.talk.outbox.blocked().is_some();
        if end == End::Closed(CloseReason::Slow) || (end == End::Closed(CloseReason::Replaced) && is_blocked)
        {
            // What it did not read goes elsewhere now; it is told why, if it ever looks.
            let unwritten = self.talk.outbox.cut_short(|bytes| self.last_words(&end, bytes));
            self.talk.give_back(unwritten, turn);
            self.talk.shared.router.flush(&self.talk.outbox, turn);
            self.phase = Phase::Flushing(turn.now + FLUSH_TIME_MAX);
        } else {
            // No acknowledgement comes any more.
            self.talk.give_back(self.talk.outbox.give_back(), turn);
            self.phase = Phase::Finishing(Box::new((end, turn.now + FINISH_TIME_MAX)));
        }
    }

    /// Waits for the cluster's answer to a login.
    pub(super) fn entering(&mut self, context: &mut Context<'_>, turn: &mut Turn) -> Poll<()> {
        let Phase::Entering(entering) = &mut self.phase else { return Poll::Ready(()) };
        // The router answers, or drops what it would answer with.
        let answer = ready!(entering.answer.as_mut().poll_next(context));
        let answer = answer.unwrap_or(Err(Unavailable));
        let login_by = match self.talk.entered(answer, entering, turn) {
            ControlFlow::Break(_) => None,
            ControlFlow::Continue(()) => entering.login_by,
        };
        self.phase = Phase::Open { login_by };
        Poll::Ready(())
    }

    /// Waits for the replies that are due, then says the last words.
    pub(super) fn finishing(&mut self, turn: &mut Turn) -> Poll<()> {
        let Phase::Finishing(finish) = &self.phase else { return Poll::Ready(()) };
        let (end, by) = &**finish;
        if self.talk.outbox.await_for(Await::Replies) {
            if turn.now < *by {
                return Poll::Pending;
            }
            // Some may wait for acknowledgements that take longer than this connection can.
            self.talk.settle(turn);
        }
        self.talk.outbox.finish(|bytes| self.last_words(end, bytes));
        let lingers = *end != End::Eof;
        self.talk.shared.router.flush(&self.talk.outbox, turn);
        let is_over = !lingers && self.talk.outbox.is_empty();
        self.phase = if is_over { Phase::Over } else { Phase::Flushing(turn.now + FLUSH_TIME_MAX) };
        Poll::Ready(())
    }

    /// Waits until the last words are written, then shuts the socket's writing side.
    pub(super) fn flushing(&mut self, now: Instant) -> Poll<()> {
        let Phase::Flushing(by) = &self.phase else { return Poll::Ready(()) };
        if !self.talk.outbox.is_empty() && now < *by {
            return Poll::Pending;
        }
        let is_shut = self.talk.outbox.is_empty() && self.socket().0.shutdown(Shutdown::Write).is_ok();
        self.phase = if is_shut { Phase::Lingering(now + LINGER_TIME_MAX) } else { Phase::Over };
        Poll::Ready(())
    }

    /// Reads away what the peer still says.
    pub(super) fn lingering(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let Phase::Lingering(by) = &self.phase else { return Poll::Ready(()) };
        if scratch.turn.now >= *by {
            self.phase = Phase::Over;
            return Poll::Ready(());
        }
        for _ in 0..READS_MAX {
            match self.read(&mut scratch.buffer) {
                Some(Ok(count)) if count > 0 => {}
                None => return Poll::Pending,
                Some(_) => {
                    self.phase = Phase::Over;
                    return Poll::Ready(());
                }
            }
        }
        // There may be more: after others have had their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Appends what is said last.
    fn last_words(&self, end: &End, bytes: &mut Bytes) {
        let (reason, tag) = match end {
            End::Quit(tag) => (Some(CloseReason::Quit), tag.as_deref()),
            End::Closed(reason) => (Some(*reason), None),
            End::Eof | End::WebSocket(_) | End::Http => (None, None),
        };
        // A connection that never became a WebSocket has no lines to say it in.
        if let (Some(reason), Decoder::Lines(_) | Decoder::WebSocket(_)) = (reason, &self.decoder) {
            bytes.push_line(|out| {
                print_tag(tag, out);
                ServerLine::Bye { reason, text: reason.text() }.print(out);
            });
        }
        if let Decoder::WebSocket(_) = self.decoder {
            let code = match (end, reason) {
                (End::WebSocket(code), _) => *code,
                // RFC 6455, 7.4.1: normal, going away, policy.
                (_, Some(CloseReason::Quit) | None) => 1000,
                (_, Some(CloseReason::Draining)) => 1001,
                (_, Some(_)) => 1008,
            };
            bytes.push_raw(&ws::close(code));
        }
    }
}
