//! What tells a world from others. Worlds are one if nothing that may happen and no check can tell them apart:
//!
//! - A message is over when it is nowhere any more: nobody can be shown it, nothing can become of it. What nodes
//!   remember of it is left out; but where sessions have to be complete, of what was sent since they were let in.
//! - Whether a message was shown, or its user nowhere, is looked at when it ends: only while it is in the lane.
//! - Of what a session was shown it counts whether it lies behind a message that may still come.
//! - The lane compares its numbers, and no more: entries stand for their ranks.
//! - Tags of sessions that have ended are alike; what a node knows counts until it was told.
//! - A receipt for what is not in the lane is none.
//!
//! Without this the worlds that `tests.rs` goes through each time have 4.5 million states in all instead of 1.4
//! (the larger ones have 5.5 now). The tests called `fingerprints` hold it.

use crate::node::lane::tests::set::Set;
use crate::node::lane::tests::world::{End, Item, Msg, Node, Question, State, Store, Word, World, place};
use crate::node::lane::{Lane, Member};

/// A quick hash of 128 bits.
struct Fingerprint(u64, u64);

/// Which messages still matter.
struct Matters {
    /// They have no fate.
    in_lane: Set,
    /// They may still come to somebody.
    living: Set,
    /// Sessions that are in have to have been shown them.
    due: Set,
}

impl World<'_> {
    /// What tells it from others.
    pub fn fingerprint(&self) -> u128 {
        let mut print = Fingerprint(1, 2);
        let matters = self.matters();
        let left = &self.left;
        print.add_bytes([left.moves, left.overdue, left.failures, left.aways]);
        print.add_bytes([left.deaths, left.returns, left.cuts, left.expiries]);
        let (question, found) = match self.question {
            Question::None => (0, None),
            Question::Asked { was_here } => (1 + u8::from(was_here), None),
            Question::Answered { was_here, found } => (3 + u8::from(was_here), found),
        };
        print.add_bytes([self.sent, question, maybe(found), maybe(self.remembered)]);
        let entries = self.lane.as_ref().map_or(0, |lane| lane.entries.len() as u8 + 1);
        print.add_bytes([entries, self.stores.len() as u8, 0, 0]);
        self.lane.iter().for_each(|lane| print.add_lane(lane));
        self.stores.iter().for_each(|store| print.add_store(store));
        print.add_messages(&self.mailbox);
        self.setup.places.iter().for_each(|at| self.add_node(&self.nodes[*at], &matters, &mut print));
        let of_lane = |set: Set| set.in_both(matters.in_lane).bits();
        let excepted = self.excepted.in_both(matters.living.and(matters.due));
        print.add_bytes([of_lane(self.shown), of_lane(self.lonely), excepted.bits(), 0]);
        print.add_list((0..self.sent).map(|message| self.fate_that_matters(message, &matters)));
        u128::from(print.0) << 64 | u128::from(print.1)
    }

    fn matters(&self) -> Matters {
        let entries = self.lane.iter().flat_map(|lane| &lane.entries);
        let in_lane = entries.fold(Set::default(), |all, entry| all.with(entry.message));
        let mut living = in_lane;
        let mut add = |messages: &[Msg]| living = messages.iter().fold(living, |all, one| all.with(*one));
        add(&self.mailbox);
        self.stores.iter().for_each(|store| add(&store.messages));
        let mut due_from = self.sent;
        for at in self.setup.places {
            let Node { session, closing, out, pending, .. } = &self.nodes[*at];
            for list in [&session.held, &session.outbox, &session.unacked] {
                add(list);
            }
            closing.iter().for_each(|closing| add(&closing.outbox));
            pending.iter().for_each(|pending| add(&[pending.message]));
            for item in out {
                if let Item::Message { message, .. } | Item::Cast(message) = item {
                    add(&[*message]);
                }
            }
            if session.state == State::In && self.setup.is_complete {
                due_from = due_from.min(session.since);
            }
        }
        let all = Set::ALL.below(self.sent.into());
        let due = all.but(all.below(due_from.into()));
        Matters { in_lane, living, due }
    }

    fn fate_that_matters(&self, message: Msg, matters: &Matters) -> u64 {
        match self.fates[message as usize] {
            None => 0,
            Some(End::Delivered) if matters.due.has(message) => 2,
            Some(End::Stored) if matters.living.has(message) => 3,
            Some(End::Offline | End::MailboxFull | End::Unavailable) if matters.living.has(message) => 4,
            Some(_) => 1,
        }
    }

    fn add_node(&self, node: &Node, matters: &Matters, print: &mut Fingerprint) {
        let Node { session, closing, .. } = node;
        let is_due = self.setup.is_complete && session.state == State::In;
        let living = matters.living;
        let remembered = if is_due { living.and(matters.due) } else { living };
        let may_be_late = if self.setup.room.is_some() { living } else { Set::default() };
        let missed = node.missed.in_both(if is_due { remembered } else { may_be_late });
        let flags = [node.is_dead, node.is_buried, node.refuses, session.must_look, closing.is_some()];
        let flags = flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag));
        let was_there = node.sessions > 0 && !self.setup.back;
        let tags = [u8::from(was_there), u8::from(!node.tags.is_empty()), node.old_tags.count()];
        print.add_bytes([flags, session.state as u8, tags[0] << 1 | tags[1], tags[2]]);
        let since = if is_due { session.since } else { 0 };
        print.add_bytes([node.knows.but(node.told).bits(), session.waits.bits(), missed.bits(), since]);
        let written = closing.as_ref().map(|closing| self.shown_behind(closing.shown, living));
        let shown = self.shown_behind(session.shown, living).bits();
        // All that expired may be acknowledged late.
        print.add_bytes([node.seen.in_both(remembered).bits(), node.expired.bits(), shown, maybe(written)]);
        print.add_list(node.out.iter().map(item));
        print.add_list(node.back.iter().map(|word| receipt(word, matters.in_lane)));
        print.add_list(node.pending.iter().map(|pending| {
            u64::from(pending.message) * 4 + u64::from(pending.is_late) * 2 + u64::from(pending.is_mail)
        }));
        print.add_list(
            node.pending.iter().map(|pending| u64::from(pending.waiting) * 4 + pending.lost as u64),
        );
        [&session.held, &session.outbox, &session.unacked]
            .into_iter()
            .for_each(|list| print.add_messages(list));
        closing.iter().for_each(|closing| print.add_messages(&closing.outbox));
    }

    /// Those that may not be shown any more by a session that was shown these.
    fn shown_behind(&self, shown: Set, living: Set) -> Set {
        // Where sessions acknowledge, one may be shown a message twice.
        let may_again = u32::from(self.setup.overdue.is_some());
        living.below(shown.end().saturating_sub(may_again))
    }
}

fn maybe(set: Option<Set>) -> u8 {
    set.map_or(0, |set| set.bits() + 1)
}

fn item(item: &Item) -> u64 {
    match *item {
        Item::Message { message, is_first, is_void } => {
            u64::from(message) * 4 + u64::from(is_first) * 2 + u64::from(is_void)
        }
        Item::Cast(message) => 20 + u64::from(message),
        Item::Mail => 25,
    }
}

fn receipt(word: &Word, in_lane: Set) -> u64 {
    match *word {
        Word::Further(more) => u64::from(more.bits()),
        Word::Receipt(message, receipt) if in_lane.has(message) => {
            8 + u64::from(message) * 4 + receipt as u64
        }
        Word::Receipt(..) => 28,
    }
}

fn members(members: &[Member]) -> u8 {
    members.iter().map(|member| place(*member)).collect::<Set>().bits()
}

impl Fingerprint {
    fn add(&mut self, what: u64) {
        self.0 = (self.0.rotate_left(23) ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.1 = (self.1 ^ (self.1 >> 31)).wrapping_add(what).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }

    fn add_bytes(&mut self, bytes: [u8; 4]) {
        self.add(u64::from(u32::from_le_bytes(bytes)));
    }

    /// Some numbers below 31.
    fn add_list(&mut self, list: impl Iterator<Item = u64>) {
        // Too many of them overflow, which is checked.
        self.add(list.fold(0, |all, what| all * 32 + what + 1));
    }

    fn add_messages(&mut self, messages: &[Msg]) {
        if messages.is_empty() {
            return self.add(0);
        }
        self.add_list(messages.iter().map(|message| u64::from(*message)));
    }

    fn add_store(&mut self, store: &Store) {
        self.add_messages(&store.messages);
        let (fates, found) = match &store.answer {
            Some((fates, found)) if store.is_wanted => (&fates[..], *found),
            _ => (&[][..], None),
        };
        self.add_list(fates.iter().map(|fate| *fate as u64));
        self.add_bytes([maybe(found), u8::from(store.is_wanted), u8::from(store.answer.is_some()), 0]);
    }

    fn add_lane(&mut self, lane: &Lane<Msg>) {
        let asked =
            lane.asked_below.map(|below| lane.entries.iter().filter(|entry| entry.number < below).count());
        let asked = asked.map_or(0, |count| count as u8 + 1);
        let mode = lane.mode as u8 * 2 + u8::from(lane.was_refused);
        self.add_bytes([mode, asked, members(&lane.members), members(&lane.returning)]);
        for entry in &lane.entries {
            let flags = [entry.is_cast, entry.is_doubtful, entry.is_storing];
            let flags = flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag));
            self.add_bytes([entry.message + 1, flags, entry.rounds, members(&entry.with)]);
        }
    }
}
