//! What may happen next, and what must be true when nothing may.

use std::fmt;

use crate::node::lane::tests::set::Set;
use crate::node::lane::tests::world::{
    Broken, End, Fate, Item, Msg, Place, Question, State, Word, World, name, place,
};
use crate::node::seam::Cause;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Send,
    /// Presence is read, can't be, or its answer comes.
    Read,
    Away,
    Answer,
    /// A node takes what is on its way to it; the origin takes what is on its way from it.
    Get(Place),
    Hear(Place),
    Login(Place),
    Register(Place),
    Note {
        at: Place,
        by: Place,
    },
    /// A session ends; or stays until its outbox is written.
    Kill(Place),
    Quit(Place),
    Write(Place),
    WriteLate(Place),
    EndWriting(Place),
    Acknowledge(Place),
    Overdue(Place),
    AcknowledgeLate(Place),
    Drain(Place),
    /// Presence forgets a session that has ended.
    Forget(Place, u8),
    /// The mailbox takes what it is given, or does not; its answer comes.
    Store,
    StoreFails {
        is_kept: bool,
        is_known: bool,
    },
    StoreAnswers,
    Die(Place),
    /// The origin hears that a node is dead, which may have got the first `published` messages that it had.
    Gone {
        at: Place,
        published: usize,
    },
    /// All that is on its way comes back, of which the node may get the first `published`; `is_all`: and what it
    /// has got already.
    Return {
        at: Place,
        published: usize,
        is_all: bool,
    },
    /// What is on its way comes back, but for the first `published`.
    Cut {
        at: Place,
        published: usize,
    },
    Expire(Msg),
}

impl World<'_> {
    /// What may happen.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = vec![];
        let mut may = |when: bool, step: Step| {
            if when {
                steps.push(step);
            }
        };
        may(self.sent < self.setup.messages, Step::Send);
        let is_asked = matches!(self.question, Question::Asked { .. });
        may(is_asked, Step::Read);
        may(is_asked && self.left.aways > 0, Step::Away);
        may(matches!(self.question, Question::Answered { .. }), Step::Answer);
        let answered = self.stores.iter().filter(|store| store.answer.is_some()).count();
        may(answered > 0, Step::StoreAnswers);
        may(answered < self.stores.len(), Step::Store);
        if answered < self.stores.len() && self.left.failures > 0 {
            for (is_kept, is_known) in [(false, true), (false, false), (true, false)] {
                may(true, Step::StoreFails { is_kept, is_known });
            }
        }
        for message in 0..self.sent {
            may(self.left.expiries > 0 && self.number(message).is_some(), Step::Expire(message));
        }
        self.setup.places.iter().for_each(|at| self.steps_of(*at, &mut may));
        self.others().for_each(|at| self.steps_of_link(at, &mut may));
        steps
    }

    /// What may happen to the sessions of a node.
    fn steps_of(&self, at: Place, may: &mut impl FnMut(bool, Step)) {
        let node = &self.nodes[at];
        let session = &node.session;
        let is_free = self.nodes.iter().all(|other| other.pending.iter().all(|pending| !pending.is_mail));
        node.old_tags.iter().for_each(|number| may(true, Step::Forget(at, number as u8)));
        let (moves, is_in) = (self.left.moves > 0, session.state == State::In);
        may(
            moves && !node.is_dead && !session.takes() && (self.setup.back || node.sessions == 0),
            Step::Login(at),
        );
        may(session.state == State::Coming, Step::Register(at));
        session.waits.iter().for_each(|by| may(true, Step::Note { at, by }));
        may(moves && is_in, Step::Kill(at));
        may(is_in && !session.outbox.is_empty(), Step::Write(at));
        may(moves && is_in && !session.outbox.is_empty() && node.closing.is_none(), Step::Quit(at));
        may(node.closing.is_some(), Step::WriteLate(at));
        may(node.closing.is_some(), Step::EndWriting(at));
        may(!session.unacked.is_empty(), Step::Acknowledge(at));
        may(!session.unacked.is_empty() && self.left.overdue > 0, Step::Overdue(at));
        may(!node.expired.is_empty(), Step::AcknowledgeLate(at));
        may(is_in && session.must_look && is_free, Step::Drain(at));
    }

    /// What may happen between the origin and another node.
    fn steps_of_link(&self, at: Place, may: &mut impl FnMut(bool, Step)) {
        let node = &self.nodes[at];
        may(!node.is_dead && !node.out.is_empty(), Step::Get(at));
        may(!node.is_buried && !node.back.is_empty(), Step::Hear(at));
        may(!node.is_dead && self.left.deaths > 0, Step::Die(at));
        let (with, on_way) = (self.with_node(at).len(), self.on_way(at).len());
        if node.is_dead && !node.is_buried {
            (0..=on_way).for_each(|published| may(true, Step::Gone { at, published }));
        }
        if node.is_dead {
            return;
        }
        for published in 0..=on_way {
            may(on_way > 0 && self.left.returns > 0, Step::Return { at, published, is_all: false });
            may(with > on_way && self.left.returns > 0, Step::Return { at, published, is_all: true });
            may(published < on_way && self.left.cuts > 0, Step::Cut { at, published });
        }
    }

    /// The messages on their way to a node.
    pub fn on_way(&self, at: Place) -> Vec<Msg> {
        let message = |item: &Item| match item {
            Item::Message { message, is_void: false, .. } => Some(*message),
            _ => None,
        };
        self.nodes[at].out.iter().filter_map(message).collect()
    }

    /// Something happens.
    ///
    /// # Errors
    /// What is broken by that.
    pub fn take_step(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::Send => self.send(),
            Step::Read => self.presence_answers(Some(self.found())),
            Step::Away => {
                self.left.aways -= 1;
                self.presence_answers(None);
            }
            Step::Answer => {
                let question = std::mem::replace(&mut self.question, Question::None);
                if let Question::Answered { was_here, found } = question {
                    self.located(was_here, found);
                }
            }
            Step::Get(at) => self.get(at)?,
            Step::Hear(at) => match self.nodes[at].back.pop_front() {
                Some(Word::Further(more)) => more.iter().for_each(|other| self.further(other)),
                Some(Word::Receipt(message, receipt)) => self.hear(at, message, receipt),
                None => {}
            },
            Step::Register(at) => self.register(at),
            Step::Note { at, by } => self.note(at, by),
            Step::Write(at) => self.write(at)?,
            Step::WriteLate(at) => self.write_late(at)?,
            Step::EndWriting(at) => self.end_writing(at),
            Step::Acknowledge(at) => self.acknowledge(at),
            Step::AcknowledgeLate(at) => {
                let node = &mut self.nodes[at];
                node.seen = node.seen.and(std::mem::take(&mut node.expired));
            }
            Step::Drain(at) => self.drain(at),
            Step::Forget(at, number) => {
                self.nodes[at].old_tags = self.nodes[at].old_tags.without(number);
            }
            Step::Store => self.store(None),
            Step::StoreAnswers => {
                let store = self.stores.remove(0);
                self.stored(&store);
            }
            Step::Gone { at, published } => {
                self.nodes[at].is_buried = true;
                self.nodes[at].back.clear();
                self.gone(at, published);
            }
            step => self.take_from_left(step)?,
        }
        self.settle()?;
        self.note_lonely();
        Ok(())
    }

    fn presence_answers(&mut self, found: Option<Set>) {
        if let Question::Asked { was_here } = self.question {
            self.question = Question::Answered { was_here, found };
        }
    }

    /// Something happens that may happen so often only.
    fn take_from_left(&mut self, step: Step) -> Result<(), Broken> {
        let left = &mut self.left;
        match step {
            Step::Login(at) => {
                left.moves -= 1;
                self.login(at);
            }
            Step::Kill(at) => {
                left.moves -= 1;
                self.end_session(at, false);
            }
            Step::Quit(at) => {
                left.moves -= 1;
                self.end_session(at, true);
            }
            Step::Overdue(at) => {
                left.overdue -= 1;
                self.overdue(at);
            }
            Step::StoreFails { is_kept, is_known } => {
                left.failures -= 1;
                self.store(Some((is_kept, if is_known { Fate::No } else { Fate::Unknown })));
            }
            Step::Die(at) => {
                left.deaths -= 1;
                self.die(at);
            }
            Step::Return { at, published, is_all } => {
                left.returns -= 1;
                self.give_back(at, published, is_all)?;
            }
            Step::Cut { at, published } => {
                left.cuts -= 1;
                let back = self.on_way(at).split_off(published);
                self.nodes[at].take_out(&back);
                self.returned(at, &back, Cause::CutOff);
            }
            Step::Expire(message) => {
                left.expiries -= 1;
                self.expire(message);
            }
            _ => unreachable!("it may happen at any time"),
        }
        Ok(())
    }

    /// The mailbox takes messages, or not; then presence is read.
    fn store(&mut self, fails: Option<(bool, Fate)>) {
        let room = self.setup.room.unwrap_or(0) as usize;
        let found = self.found();
        let Some(store) = self.stores.iter_mut().find(|store| store.answer.is_none()) else { return };
        let mut fates = vec![];
        for message in &store.messages {
            let has_room = self.mailbox.len() < room || self.mailbox.contains(message);
            let is_kept = has_room && fails.is_none_or(|(is_kept, _)| is_kept);
            if is_kept && !self.mailbox.contains(message) {
                self.mailbox.push(*message);
            }
            fates.push(match fails {
                Some((_, fate)) => fate,
                None if has_room => Fate::Yes,
                None => Fate::Full,
            });
        }
        store.answer = Some((fates, fails.is_none().then_some(found)));
    }

    fn give_back(&mut self, at: Place, published: usize, is_all: bool) -> Result<(), Broken> {
        let mut maybe = self.on_way(at);
        let sure = maybe.split_off(published);
        let node = &mut self.nodes[at];
        node.take_out(&sure);
        for item in &mut node.out {
            if let Item::Message { is_void, .. } = item {
                *is_void = true;
            }
        }
        if is_all {
            node.pending.iter_mut().for_each(|pending| pending.waiting = 0);
            node.back.retain(|word| matches!(word, Word::Further(_)));
            let numbers = self.with_node(at);
            let lane = self.lane.as_ref().expect("it has messages");
            let all = numbers.iter().filter_map(|number| lane.message(*number)).copied();
            maybe = all.filter(|message| !sure.contains(message)).collect();
        }
        self.returned(at, &maybe, Cause::MaybeSeen);
        self.settle()?;
        self.returned(at, &sure, Cause::NotThere);
        Ok(())
    }

    /// Tells whether what is sent next comes to a session: at once, or when the origin has heard of it.
    fn reaches(&self, at: Place) -> bool {
        let Some(known) = self.known() else { return true };
        let known: Set = known.into_iter().map(place).collect();
        let tells = |other: usize| self.nodes[other].knows.but(self.nodes[other].told).has(at);
        // Where nobody is any more, it is asked.
        let is_somebody_else = known.iter().any(|other| self.nodes[other].session.state == State::In);
        known.has(at) || known.iter().any(tells) || !is_somebody_else
    }

    /// What must be true when nothing may happen.
    ///
    /// # Errors
    /// What is not.
    pub fn check_end(&self) -> Result<(), Broken> {
        for message in 0..self.sent {
            if self.fates[message as usize].is_none() && !self.is_cast(message) {
                return Err(format!("{message} has no fate"));
            }
        }
        if self.lane.is_some() {
            return Err("the lane does not end".to_owned());
        }
        for at in self.setup.places {
            let node = &self.nodes[*at];
            if node.session.state != State::In {
                continue;
            }
            let is_left = |message: &&Msg| {
                self.fates[**message as usize] == Some(End::Stored) && !self.excepted.has(**message)
            };
            if let Some(message) = self.mailbox.iter().find(is_left) {
                return Err(format!(
                    "{message} is in the mailbox, and the session on {} does not look",
                    name(*at)
                ));
            }
            let is_missed = |message: &Msg| {
                let is_delivered = self.fates[*message as usize] == Some(End::Delivered);
                is_delivered && !node.seen.has(*message) && !self.excepted.and(node.missed).has(*message)
            };
            let missed = (node.session.since..self.sent).find(is_missed);
            if let Some(message) = missed.filter(|_| self.setup.is_complete) {
                return Err(format!(
                    "the session on {} was in before {message} was sent, and missed it",
                    name(*at)
                ));
            }
            if !self.reaches(*at) {
                return Err(format!("the session on {} misses all that is sent to others", name(*at)));
            }
        }
        Ok(())
    }
}

impl crate::node::lane::tests::world::Node {
    /// Messages are on their way no more.
    fn take_out(&mut self, messages: &[Msg]) {
        self.out.retain(
            |item| !matches!(item, Item::Message { message, is_void: false, .. } if messages.contains(message)),
        );
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>, what: &str, at: &Place| write!(f, "{what} {}", name(*at));
        match self {
            Step::Send => write!(f, "the next message is sent"),
            Step::Read => write!(f, "presence is read"),
            Step::Away => write!(f, "presence is away"),
            Step::Answer => write!(f, "presence has answered"),
            Step::Get(to) => at(f, "a message or a word arrives on", to),
            Step::Hear(from) => at(f, "the origin hears from", from),
            Step::Login(on) => at(f, "a login begins on", on),
            Step::Register(on) => at(f, "presence notes the login on", on),
            Step::Note { at, by } => write!(f, "{} notes the login on {}", name(*by), name(*at)),
            Step::Kill(on) => at(f, "the session ends on", on),
            Step::Quit(on) => at(f, "the session ends, and still writes, on", on),
            Step::Write(on) => at(f, "the next message is written on", on),
            Step::WriteLate(on) => at(f, "the session that has ended writes on", on),
            Step::EndWriting(on) => at(f, "the session that has ended writes no more on", on),
            Step::Acknowledge(on) => at(f, "the session acknowledges on", on),
            Step::Overdue(on) => at(f, "the session does not acknowledge in time on", on),
            Step::AcknowledgeLate(on) => at(f, "the session acknowledges too late on", on),
            Step::Drain(on) => at(f, "the mailbox is drained on", on),
            Step::Forget(of, _) => at(f, "presence forgets the session on", of),
            Step::Store => write!(f, "the mailbox is given messages"),
            Step::StoreFails { is_kept, .. } => write!(f, "the mailbox fails, and has them: {is_kept}"),
            Step::StoreAnswers => write!(f, "the mailbox has answered"),
            Step::Die(who) => write!(f, "{} dies", name(*who)),
            Step::Gone { at, published } => {
                write!(f, "the origin hears that {} is dead, which may have {published}", name(*at))
            }
            Step::Return { at, published, .. } => {
                write!(f, "all comes back from {}, which may get {published}", name(*at))
            }
            Step::Cut { at, published } => {
                write!(f, "what waits for {} comes back but {published}", name(*at))
            }
            Step::Expire(message) => write!(f, "the deadline of {message} comes"),
        }
    }
}
