//! The messages that were handed to the program, and what it owes the server for
//! them.
//!
//! A server gives a message again when it does not know that this client has it: the
//! connection broke before the `ACK`, or a sender repeated its `SEND`. A message is
//! remembered as a keyed hash of sender, room, id and text. The text is part of it so that a
//! sender who uses an id twice for two different messages loses neither.
//!
//! With `ack`, a duplicate of a message that the program is done with is acknowledged at
//! once; a duplicate of one that it is not done with is dropped, since the `ACK` follows on
//! whatever connection there is then. So an `ACK` may get lost with its connection,
//! and is not even kept when there is none.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};

use smol::channel::Sender;

use crate::client::event::Event;
use crate::proto::{MessageId, Request, Tag, TaggedRequest, UserName};

/// Shared by `Incoming`, which takes, and the task, which reads and writes.
pub(super) struct Received {
    /// One key for each client: no sender can make two messages look the same.
    hasher: RandomState,
    /// Whether messages are acknowledged at all.
    acks: bool,
    /// Tells the writer that there is something to write.
    wake: Sender<()>,
    state: Mutex<Messages>,
}

#[derive(Default)]
struct Messages {
    /// Every message that is remembered, and whether the program is done with it.
    done: HashMap<u64, bool>,
    /// The same in the order in which they came: the first is forgotten first.
    order: VecDeque<u64>,
    is_connected: bool,
    /// `ACK` lines to be written; always empty without a connection.
    acks: Vec<u8>,
}

impl Received {
    pub(super) fn new(acks: bool, wake: Sender<()>) -> Self {
        Received { hasher: RandomState::new(), acks, wake, state: Mutex::default() }
    }

    /// Tells whether an event that came in is news for the program. A message that is
    /// not is acknowledged here, if it has to be.
    pub(super) fn is_news(&self, event: &Event) -> bool {
        let Event::Message { from, room, id, text } = event else { return true };
        let key = self.key(from, room.as_ref(), id, text);
        let mut state = self.lock();
        match state.done.get(&key) {
            Some(true) => {
                self.acknowledge(&mut state, id, from);
                return false;
            }
            Some(false) => return false,
            None => {}
        }
        if state.order.len() == REMEMBERED_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.done.remove(&oldest);
        }
        state.order.push_back(key);
        state.done.insert(key, false);
        true
    }

    /// What has to be given back to [`Received::done_with`] when the program is done with
    /// an event; nothing when nobody waits for that.
    pub(super) fn taken(&self, event: &Event) -> Option<Handover> {
        let Event::Message { from, room, id, text } = event else { return None };
        self.acks.then(|| Handover {
            key: self.key(from, room.as_ref(), id, text),
            id: id.clone(),
            from: from.clone(),
        })
    }

    /// The program is done with a message. Never waits.
    pub(super) fn done_with(&self, taken: Handover) {
        let mut state = self.lock();
        // No longer remembered, it is acknowledged all the same.
        if let Some(done) = state.done.get_mut(&taken.key) {
            *done = true;
        }
        self.acknowledge(&mut state, &taken.id, &taken.from);
    }

    /// A new connection: from now on acknowledgements are kept for its writer.
    pub(super) fn connected(&self) {
        self.lock().is_connected = true;
    }

    /// The connection is gone, and with it the use of what was to be written to it: the
    /// server gives those messages again.
    pub(super) fn disconnected(&self) {
        let mut state = self.lock();
        state.is_connected = false;
        state.acks = Vec::new();
    }

    /// Moves the lines to be written to `out`.
    pub(super) fn take_acks(&self, out: &mut Vec<u8>) {
        let mut state = self.lock();
        out.extend_from_slice(&state.acks);
        state.acks.clear();
    }

    fn acknowledge(&self, state: &mut Messages, id: &MessageId, from: &UserName) {
        // One that does not fit is given again by the server, and acknowledged then.
        if !self.acks || !state.is_connected || state.acks.len() >= ACKS_BYTES_MAX {
            return;
        }
        let id = id.to_string();
        let id = Tag::parse(&id).expect("it came in a line, where it had this form");
        TaggedRequest { tag: None, request: Ok(Request::Ack { id, from: from.borrowed() }) }
            .print(&mut state.acks);
        // Full: the writer has not heard the last one yet.
        let _ = self.wake.try_send(());
    }

    fn key(&self, from: &UserName, room: Option<&UserName>, id: &MessageId, text: &str) -> u64 {
        self.hasher.hash_one((from.as_str(), room.map(UserName::as_str), id, text))
    }

    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.state.lock().expect("nothing panics with the messages locked")
    }
}

/// A message that the program took and may not be done with.
pub(super) struct Handover {
    key: u64,
    id: MessageId,
    from: UserName,
}

/// How many messages are remembered. Those that the program has not taken yet are
/// always among them: the newest, and less than a third.
pub(super) const REMEMBERED_MAX: usize = 4096;
/// How many bytes of `ACK` lines wait for the writer, and one line more. A server that
/// keeps its own bound, 256 messages without an `ACK`, never makes a client meet it.
const ACKS_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use smol::channel::bounded;

    use super::*;

    fn message(id: &str, room: Option<&str>, text: &str) -> Event {
        Event::Message {
            from: UserName::parse("bob").unwrap(),
            room: room.map(|room| UserName::parse(room).unwrap()),
            id: MessageId::Tag(id.into()),
            text: text.to_owned(),
        }
    }

    fn acks(received: &Received) -> String {
        let mut out = Vec::new();
        received.take_acks(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_copy_is_the_same_line() {
        let received = Received::new(false, bounded(1).0);
        for (id, room, text) in [("1", None, "x"), ("2", None, "x"), ("1", Some("r"), "x"), ("1", None, "y")]
        {
            assert!(received.is_news(&message(id, room, text)), "{id} {room:?} {text}");
            assert!(!received.is_news(&message(id, room, text)), "{id} {room:?} {text}");
        }
        let other = Event::Lost { reason: String::new() };
        assert!(received.is_news(&other) && received.is_news(&other));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let received = Received::new(false, bounded(1).0);
        for n in 0..=REMEMBERED_MAX {
            assert!(received.is_news(&message(&n.to_string(), None, "x")));
        }
        assert!(!received.is_news(&message("1", None, "x")), "the oldest that is remembered");
        assert!(received.is_news(&message("0", None, "x")), "forgotten");
        assert_eq!(received.lock().done.len(), REMEMBERED_MAX);
    }

    #[test]
    fn a_copy_is_acknowledged_once_the_program_is_done_with_the_first() {
        let (wake, woken) = bounded(1);
        let received = Received::new(true, wake);
        let one = message("1", None, "x");
        received.connected();
        assert!(received.is_news(&one));
        assert!(!received.is_news(&one));
        assert_eq!(acks(&received), "");
        // Taken, and not done with: the program may still be killed.
        let taken = received.taken(&one).unwrap();
        assert!(!received.is_news(&one));
        assert!(woken.is_empty());
        // Done with while there is no connection.
        received.disconnected();
        received.done_with(taken);
        received.connected();
        assert_eq!(acks(&received), "");
        assert!(!received.is_news(&one));
        assert_eq!(acks(&received), "ACK 1 bob\n");
        assert_eq!(woken.len(), 1);
        // An acknowledgement that was not written is not for the next connection.
        assert!(!received.is_news(&one));
        received.disconnected();
        received.connected();
        assert_eq!(acks(&received), "");
    }

    #[test]
    fn acknowledgements_are_bounded() {
        let received = Received::new(true, bounded(1).0);
        received.connected();
        for n in 0..2 * ACKS_BYTES_MAX / "ACK 10000 bob\n".len() {
            let event = message(&(10_000 + n).to_string(), None, "x");
            assert!(received.is_news(&event));
            received.done_with(received.taken(&event).unwrap());
        }
        assert!((ACKS_BYTES_MAX..ACKS_BYTES_MAX + 256).contains(&acks(&received).len()));
    }
}
