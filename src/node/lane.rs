//! A lane: the messages in flight to one recipient on several nodes, in order, and the nodes that have them.
//!
//! A pure state machine. Events go in; what to do comes out as a list of [`Act`]s, in order. It knows no
//! clock, no names and no texts: a message is whatever its owner keeps for it, a node is a [`Member`].
//!
//! ```text
//! Asking -> Flowing(members) -> Draining -> Asking        an empty lane is forgotten
//! Asking -> Storing -> Flowing, or empty
//! ```
//!
//! Asking: messages gather until it is known where the recipient is. Flowing: each goes to all members at once.
//! Draining: no member is left; what was given out has to come back before anything goes out again, or it
//! would be overtaken. Storing: what is here goes into the mailbox, and what comes gathers behind it. The rules, and
//! what breaks without each, are in the design, The lane; the tests explore them in every order of events.

use std::collections::VecDeque;

use crate::node::seam::{Cause, Stored};
use crate::node::slab::Member;
use crate::proto::reply::ErrorCode;
use crate::proto::wire::Receipt;

/// The lane. `M` is what its owner keeps for each message.
#[derive(Clone, Debug)]
pub struct Lane<M> {
    can_store: bool,
    mode: Mode,
    /// Where new messages go; none but while it flows.
    members: Vec<Member>,
    /// Further nodes that come in when they have answered all that they have, or the question is answered.
    returning: Vec<Member>,
    /// The messages without a fate, by ascending numbers.
    entries: VecDeque<LaneEntry<M>>,
    next_number: u64,
    /// It was asked where the recipient is: messages below this number were here then.
    asked_below: Option<u64>,
    /// Some member has refused a message in this round.
    was_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    Asking,
    Flowing,
    Draining,
    Storing,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act<M> {
    /// Give a member the message with this number. The last: it is the first of this lane, or of those that go out
    /// again, and a member that refused earlier ones takes what follows.
    Give(u64, Member, bool),
    /// Give a `CAST` to all of these; it is out of the lane.
    Cast(M, Vec<Member>),
    /// Ask where the recipient is; [`Lane::located`] takes the answer.
    Ask,
    /// Put these messages into the mailbox, in this order; [`Lane::stored`] takes the answer.
    Store(Vec<u64>),
    /// A message is out of the lane, and has its fate: delivered,
    Delivered(M),
    /// stored,
    Stored(M),
    /// or neither; a `CAST` was given to nobody.
    Failed(M, ErrorCode),
}

/// What to do, in order.
pub type Acts<M> = Vec<Act<M>>;

/// Where the recipient is; `None`: that can't be known now.
pub type Whereabouts = Option<Vec<Member>>;

#[derive(Clone, Debug)]
struct LaneEntry<M> {
    message: M,
    number: u64,
    /// The members that have it and have not answered.
    with: Vec<Member>,
    /// Nobody waits for its fate: it is given out once, and is not kept.
    is_cast: bool,
    /// It may have been shown.
    is_doubtful: bool,
    is_storing: bool,
    /// How often it was here when the recipient was found, and was not there.
    rounds: u8,
}

/// Messages for which an empty lane keeps room.
const ENTRIES_KEPT_MAX: usize = 32;

/// How often a recipient is looked for whose nodes all refuse.
pub const ROUNDS_MAX: u8 = 3;

impl<M> Lane<M> {
    /// An empty one. `can_store`: there are mailboxes.
    pub fn new(can_store: bool) -> Self {
        Lane {
            can_store,
            mode: Mode::Asking,
            members: vec![],
            returning: vec![],
            entries: VecDeque::new(),
            next_number: 0,
            asked_below: None,
            was_refused: false,
        }
    }

    /// An empty one is as good as new, and keeps its memory.
    pub fn renew(&mut self) {
        debug_assert!(self.entries.is_empty(), "it has no message");
        (self.mode, self.asked_below, self.was_refused) = (Mode::Asking, None, false);
        self.entries.shrink_to(ENTRIES_KEPT_MAX);
        self.members.clear();
        self.returning.clear();
    }

    /// Adds a message, and returns its number. `is_doubtful`: it may have been shown already. `known`: where the
    /// recipient was when that was asked last; it counts for the first message of a lane.
    pub fn send(
        &mut self,
        message: M,
        (is_cast, is_doubtful): (bool, bool),
        known: Option<&[Member]>,
        acts: &mut Acts<M>,
    ) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let with = Vec::with_capacity(known.map_or(self.members.len(), <[Member]>::len));
        let entry = LaneEntry { message, number, with, is_cast, is_doubtful, is_storing: false, rounds: 0 };
        self.entries.push_back(entry);
        let is_new = self.mode == Mode::Asking && self.asked_below.is_none();
        match known.filter(|known| is_new && !known.is_empty()) {
            Some(known) => self.flow(known.to_vec(), acts),
            None if is_new => self.ask(acts),
            None if self.mode == Mode::Flowing => {
                let members = std::mem::take(&mut self.members);
                self.give(number, &members, false, acts);
                self.members = members;
            }
            None => {}
        }
        number
    }

    /// What the owner keeps for a message.
    pub fn message(&self, number: u64) -> Option<&M> {
        self.position(number).map(|at| &self.entries[at].message)
    }

    /// Where new messages go at once; `None` while they wait.
    pub fn members(&self) -> Option<&[Member]> {
        (self.mode == Mode::Flowing).then_some(&self.members[..])
    }

    /// Tells whether a node is a member, or will be when it has answered what it has.
    pub fn counts_on(&self, member: Member) -> bool {
        self.members.contains(&member) || self.returning.contains(&member)
    }

    /// Tells whether nobody would have a message if this member did not.
    pub fn is_only_with(&self, number: u64, member: Member) -> bool {
        self.position(number).is_some_and(|at| self.entries[at].with == [member])
    }

    /// The answer where the recipient is.
    pub fn located(&mut self, members: Whereabouts, acts: &mut Acts<M>) {
        if let Some(asked_below) = self.asked_below.take() {
            self.go_on(members, asked_below, acts);
        }
    }

    /// The mailbox has answered: what became of these messages, and where the recipient is after that.
    pub fn stored(&mut self, numbers: &[u64], fates: &[Stored], members: Whereabouts, acts: &mut Acts<M>) {
        for (at, number) in numbers.iter().enumerate() {
            let Some(entry) = self.take(*number) else { continue };
            acts.push(match fates.get(at).unwrap_or(&Stored::Unknown) {
                Stored::Yes => Act::Stored(entry.message),
                Stored::Full => entry.fail(ErrorCode::MailboxFull),
                Stored::No => entry.fail(ErrorCode::Unavailable),
                Stored::Unknown => entry.fail(ErrorCode::Timeout),
            });
        }
        // One of a message that stood alone says nothing of the others.
        if self.mode == Mode::Storing && !self.entries.iter().any(|entry| entry.is_storing) {
            self.mode = Mode::Asking;
            return self.go_on(members, self.next_number, acts);
        }
        self.settle(acts);
    }

    /// It is known where the recipient is, which all messages below a number have waited for.
    fn go_on(&mut self, members: Whereabouts, asked_below: u64, acts: &mut Acts<M>) {
        // Nobody has anything now; and the answer may be older than what was heard meanwhile.
        let heard = std::mem::take(&mut self.returning);
        let members = members.or_else(|| (!heard.is_empty()).then(Vec::new)).map(|mut members| {
            heard.into_iter().for_each(|member| push_new(&mut members, member));
            members
        });
        match members {
            None => self.end_where(|entry| !entry.is_storing, ErrorCode::Unavailable, acts),
            Some(members) if members.is_empty() && !self.can_store => {
                // Those that came later may have somebody.
                self.end_where(|entry| entry.number < asked_below, ErrorCode::Offline, acts);
                self.ask(acts);
            }
            Some(members)
                if members.is_empty() || (self.can_store && self.entries.iter().any(LaneEntry::is_tired)) =>
            {
                self.store_all(acts);
            }
            Some(members) => {
                self.end_where(LaneEntry::is_tired, ErrorCode::Offline, acts);
                self.flow(members, acts);
            }
        }
        self.settle(acts);
    }

    /// A member has answered for a message. Only who has it is believed.
    pub fn answered(&mut self, number: u64, by: Member, receipt: Receipt, acts: &mut Acts<M>) {
        if receipt == Receipt::Delivered {
            if self.entry(number).is_some_and(|entry| entry.with.contains(&by))
                && let Some(entry) = self.take(number)
            {
                acts.push(Act::Delivered(entry.message));
            }
            return self.settle(acts);
        }
        self.take_from(number, by, receipt != Receipt::NotHere);
        // Who does not acknowledge is there, and takes others.
        if receipt != Receipt::Unacked {
            self.was_refused = true;
            self.members.retain(|other| *other != by);
        }
        self.settle_back(acts);
    }

    /// Messages could not be carried to a member, or it is dead and had them.
    pub fn returned(&mut self, numbers: &[u64], member: Member, cause: Cause, acts: &mut Acts<M>) {
        let is_doubtful = matches!(cause, Cause::MaybeSeen | Cause::Gone);
        numbers.iter().for_each(|number| self.take_from(*number, member, is_doubtful));
        self.members.retain(|other| *other != member);
        match cause {
            Cause::Dead | Cause::Gone => self.returning.retain(|other| *other != member),
            Cause::CutOff => {
                // Asking again would give the same answer.
                let is_back = |entry: &LaneEntry<M>| entry.with.is_empty() && numbers.contains(&entry.number);
                self.end_where(is_back, ErrorCode::Unavailable, acts);
            }
            // Nobody would tell that the recipient is still there; with no other member that is asked anyway.
            _ if !self.members.is_empty() => push_new(&mut self.returning, member),
            _ => {}
        }
        self.settle_back(acts);
    }

    /// The recipient is on a further node, or has come to this one: it is first given what has no fate yet.
    pub fn add(&mut self, member: Member, acts: &mut Acts<M>) {
        // What it has may still be refused, and the answer may be older than this. While it drains, that will be asked.
        if self.mode != Mode::Draining {
            push_new(&mut self.returning, member);
        }
        self.settle(acts);
    }

    /// The deadline of a message has come.
    pub fn expired(&mut self, number: u64, acts: &mut Acts<M>) {
        if let Some(entry) = self.take(number) {
            let was_sent = entry.is_storing || !entry.with.is_empty();
            acts.push(entry.fail(if was_sent { ErrorCode::Timeout } else { ErrorCode::Unavailable }));
        }
        self.settle(acts);
    }

    /// Follows up on every change.
    fn settle(&mut self, acts: &mut Acts<M>) {
        if self.mode == Mode::Flowing {
            while let Some(at) = self.returning.iter().position(|member| !self.has_any(member)) {
                let member = self.returning.remove(at);
                self.add_now(member, acts);
            }
            if self.members.is_empty() {
                self.mode = Mode::Draining;
            }
        }
        if self.mode == Mode::Draining && self.entries.iter().all(|entry| entry.with.is_empty()) {
            let rounds = u8::from(self.was_refused);
            self.entries.iter_mut().for_each(|entry| entry.rounds += rounds);
            self.ask(acts);
        }
        if self.mode == Mode::Storing && !self.entries.iter().any(|entry| entry.is_storing) {
            // All of it has expired: what came behind it is stored next.
            self.store_all(acts);
        }
    }

    /// Asks where the recipient is, if any message waits for that.
    fn ask(&mut self, acts: &mut Acts<M>) {
        self.mode = Mode::Asking;
        self.returning.clear();
        if self.entries.iter().any(|entry| !entry.is_storing) {
            self.asked_below = Some(self.next_number);
            acts.push(Act::Ask);
        }
    }

    /// From now on messages go to these members, beginning with all that are here.
    fn flow(&mut self, members: Vec<Member>, acts: &mut Acts<M>) {
        (self.mode, self.was_refused) = (Mode::Flowing, false);
        self.give_all(&members, acts);
        self.members = members;
    }

    fn add_now(&mut self, member: Member, acts: &mut Acts<M>) {
        if !self.members.contains(&member) {
            self.give_all(&[member], acts);
            self.members.push(member);
        }
    }

    /// Gives members all that is here, in order.
    fn give_all(&mut self, members: &[Member], acts: &mut Acts<M>) {
        let waiting = self.entries.iter().filter(|entry| !entry.is_storing);
        let numbers: Vec<u64> = waiting.map(|entry| entry.number).collect();
        let mut is_first = true;
        for number in numbers {
            is_first &= !self.give(number, members, is_first, acts);
        }
    }

    /// Gives members one message; `false` for a `CAST`.
    fn give(&mut self, number: u64, members: &[Member], is_first: bool, acts: &mut Acts<M>) -> bool {
        let Some(at) = self.position(number) else { return false };
        if self.entries[at].is_cast {
            let entry = self.entries.remove(at).expect("it is there");
            acts.push(Act::Cast(entry.message, members.to_vec()));
            return false;
        }
        self.entries[at].with.extend_from_slice(members);
        // This node may settle it within the step: the others must have heard before that which is the first.
        let of = |is_here| members.iter().filter(move |to| (**to == Member::Here) == is_here);
        acts.extend(of(false).chain(of(true)).map(|to| Act::Give(number, *to, is_first)));
        true
    }

    /// Follows up on what came back. What nobody has any more, though there are members, goes into the mailbox by
    /// itself: some were shown it and did not acknowledge it, others have left.
    fn settle_back(&mut self, acts: &mut Acts<M>) {
        self.settle(acts);
        let is_lonely = |entry: &LaneEntry<M>| entry.with.is_empty();
        match self.mode {
            Mode::Flowing if self.can_store => self.store_where(is_lonely, acts),
            Mode::Flowing => self.end_where(is_lonely, ErrorCode::Timeout, acts),
            _ => {}
        }
    }

    /// The recipient is nowhere: everything goes into the mailbox, in order; a `CAST` nowhere.
    fn store_all(&mut self, acts: &mut Acts<M>) {
        self.mode = Mode::Storing;
        self.end_where(|entry| entry.is_cast, ErrorCode::Timeout, acts);
        self.store_where(|_| true, acts);
    }

    fn store_where(&mut self, stores: impl Fn(&LaneEntry<M>) -> bool, acts: &mut Acts<M>) {
        let mut numbers = vec![];
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_storing && stores(entry)) {
            entry.is_storing = true;
            numbers.push(entry.number);
        }
        if !numbers.is_empty() {
            acts.push(Act::Store(numbers));
        }
    }

    fn end_where(&mut self, ends: impl Fn(&LaneEntry<M>) -> bool, code: ErrorCode, acts: &mut Acts<M>) {
        if self.entries.iter().any(&ends) {
            let all = std::mem::take(&mut self.entries).into_iter();
            let (ended, rest): (VecDeque<_>, VecDeque<_>) = all.partition(ends);
            self.entries = rest;
            acts.extend(ended.into_iter().map(|entry| entry.fail(code)));
        }
    }

    fn has_any(&self, member: &Member) -> bool {
        self.entries.iter().any(|entry| entry.with.contains(member))
    }

    /// A member has a message no more.
    fn take_from(&mut self, number: u64, member: Member, is_doubtful: bool) {
        if let Some(entry) = self.entry(number)
            && let Some(at) = entry.with.iter().position(|other| *other == member)
        {
            entry.with.remove(at);
            entry.is_doubtful |= is_doubtful;
        }
    }

    fn take(&mut self, number: u64) -> Option<LaneEntry<M>> {
        self.position(number).and_then(|at| self.entries.remove(at))
    }

    fn entry(&mut self, number: u64) -> Option<&mut LaneEntry<M>> {
        self.position(number).map(|at| &mut self.entries[at])
    }

    fn position(&self, number: u64) -> Option<usize> {
        let first = self.entries.front()?.number;
        // Most often none in between has left yet.
        let guess = number.checked_sub(first)? as usize;
        if self.entries.get(guess).is_some_and(|entry| entry.number == number) {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }
}

impl<M> LaneEntry<M> {
    /// It has had its rounds.
    fn is_tired(&self) -> bool {
        self.rounds > ROUNDS_MAX
    }

    /// Of what may have been shown nothing more is known.
    fn fail(self, code: ErrorCode) -> Act<M> {
        Act::Failed(self.message, if self.is_doubtful { ErrorCode::Timeout } else { code })
    }
}

fn push_new(members: &mut Vec<Member>, member: Member) {
    if !members.contains(&member) {
        members.push(member);
    }
}

#[cfg(test)]
mod tests;
