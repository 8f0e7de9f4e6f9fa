//! The origin: what it tells its lane, and how it carries out what the lane wants, as the node does
//! (`route`, `carry_out`); and what must be true of each fate.

use crate::node::lane::tests::rules::Rule;
use crate::node::lane::tests::set::Set;
use crate::node::lane::tests::world::{
    Broken, End, Fate, HERE, Item, Msg, Place, Question, Session, State, Store, Todo, World, member, name,
    place,
};
use crate::node::lane::{Act, Lane, Member, Mode};
use crate::node::seam::{Cause, Stored};
use crate::proto::reply::ErrorCode;
use crate::proto::wire::Receipt;

impl World<'_> {
    /// The next message is sent.
    pub fn send(&mut self) {
        let message = self.sent;
        self.sent += 1;
        let known = self.known();
        if self.is_cast(message) {
            let members = match &self.lane {
                Some(lane) => lane.members().map(<[Member]>::to_vec),
                None => known.clone(),
            };
            if let Some(members) = members {
                return members.iter().for_each(|to| self.give_cast(message, place(*to)));
            }
        }
        let (is_cast, gathers) = (self.is_cast(message), self.setup.has(Rule::Gather));
        self.with_lane(true, |lane, acts| {
            lane.send(message, (is_cast, false), known.as_deref(), acts);
            if lane.mode == Mode::Storing && !gathers {
                lane.ask(acts);
            }
        });
    }

    /// Where the user was when that was asked last.
    pub fn known(&self) -> Option<Vec<Member>> {
        let is_here = self.nodes[HERE].session.takes();
        let known = self.remembered.filter(|known| is_here || !known.is_empty())?;
        let here = is_here.then_some(Member::Here);
        Some(here.into_iter().chain(known.iter().map(member)).collect())
    }

    /// Changes the lane, and notes what it wants done.
    pub fn with_lane(&mut self, opens: bool, change: impl FnOnce(&mut Lane<Msg>, &mut Vec<Act<Msg>>)) {
        if opens && self.lane.is_none() {
            self.lane = Some(Lane::new(self.setup.room.is_some()));
        }
        let Some(lane) = &mut self.lane else { return };
        let mut acts = vec![];
        change(lane, &mut acts);
        self.todo.extend(acts.into_iter().map(Todo::Act));
        self.todo.push_back(Todo::EndLane);
    }

    /// Carries out all that a step has led to, in order.
    pub fn settle(&mut self) -> Result<(), Broken> {
        loop {
            while let Some(todo) = self.todo.pop_front() {
                match todo {
                    Todo::Act(act) => self.carry_out(act)?,
                    Todo::EndLane if self.lane.as_ref().is_some_and(|lane| lane.entries.is_empty()) => {
                        self.lane = None;
                        self.question = Question::None;
                        self.stores.iter_mut().for_each(|store| store.is_wanted = false);
                    }
                    Todo::EndLane => {}
                }
            }
            if !self.flush()? {
                break;
            }
        }
        if let Some(lane) = &mut self.lane {
            lane.members.sort_unstable();
            lane.returning.sort_unstable();
            lane.entries.iter_mut().for_each(|entry| entry.with.sort_unstable());
        }
        Ok(())
    }

    fn carry_out(&mut self, act: Act<Msg>) -> Result<(), Broken> {
        match act {
            Act::Give(number, Member::Here, _) => self.give_here(number),
            Act::Give(number, to, is_first) => self.give(number, place(to), is_first),
            Act::Cast(message, members) => {
                members.iter().for_each(|to| self.give_cast(message, place(*to)));
            }
            Act::Ask => {
                self.ask();
            }
            Act::Store(numbers) => {
                let messages: Vec<Msg> = numbers.iter().filter_map(|number| self.message(*number)).collect();
                self.tell(|| format!("to the mailbox: {messages:?}"));
                self.stores.push(Store { numbers, messages, is_wanted: true, answer: None });
            }
            Act::Delivered(message) => self.end(message, End::Delivered)?,
            Act::Stored(message) => self.end(message, End::Stored)?,
            Act::Failed(message, _) if self.is_cast(message) => self.end(message, End::Lost)?,
            Act::Failed(message, ErrorCode::Offline) => self.end(message, End::Offline)?,
            Act::Failed(message, ErrorCode::MailboxFull) => self.end(message, End::MailboxFull)?,
            Act::Failed(message, ErrorCode::Unavailable) => self.end(message, End::Unavailable)?,
            Act::Failed(message, ErrorCode::Timeout) => self.end(message, End::Timeout)?,
            Act::Failed(_, code) => return Err(format!("{code:?} is no fate")),
        }
        Ok(())
    }

    fn ask(&mut self) {
        self.tell(|| "presence is asked".to_owned());
        self.remembered = None;
        self.question = Question::Asked { was_here: self.nodes[HERE].session.takes() };
    }

    fn message(&self, number: u64) -> Option<Msg> {
        self.lane.as_ref()?.message(number).copied()
    }

    fn give(&mut self, number: u64, to: Place, is_first: bool) {
        let Some(message) = self.message(number) else { return };
        if self.nodes[to].is_buried {
            return self.hear(to, message, Receipt::NotHere);
        }
        self.tell(|| format!("give {message} to {}{}", name(to), if is_first { ", first" } else { "" }));
        self.nodes[to].out.push_back(Item::Message { message, is_first, is_void: false });
    }

    fn give_here(&mut self, number: u64) {
        let Some(message) = self.message(number) else { return };
        self.tell(|| format!("give {message} to a session here"));
        if !self.nodes[HERE].session.takes() {
            return self.hear(HERE, message, Receipt::NotHere);
        }
        self.hand(HERE, message, true);
    }

    fn give_cast(&mut self, message: Msg, to: Place) {
        self.tell(|| format!("give the CAST {message} to {}", name(to)));
        if to != HERE {
            self.nodes[to].out.push_back(Item::Cast(message));
        } else if self.nodes[HERE].session.takes() {
            self.push(HERE, message);
        }
    }

    /// A node says what became of a message.
    pub fn hear(&mut self, by: Place, message: Msg, receipt: Receipt) {
        let Some(number) = self.number(message) else { return };
        self.with_lane(false, |lane, acts| lane.answered(number, member(by), receipt, acts));
        if receipt == Receipt::Delivered {
            return;
        }
        if self.lane.as_ref().is_some_and(|lane| !lane.counts_on(member(by))) {
            self.forget(by);
        }
        self.go_out_early();
    }

    /// A user who is remembered is not on a node any more.
    fn forget(&mut self, at: Place) {
        if let Some(known) = self.remembered {
            let rest = known.without(at);
            self.remembered = (at == HERE || !rest.is_empty()).then_some(rest);
        }
    }

    /// The rule left out that what is with a node that left has to come back before anything goes out again.
    fn go_out_early(&mut self) {
        if !self.setup.has(Rule::Draining) {
            self.with_lane(false, |lane, acts| {
                if lane.mode == Mode::Draining {
                    lane.ask(acts);
                }
            });
        }
    }

    /// The user is on a further node.
    pub fn further(&mut self, at: Place) {
        if at != HERE
            && let Some(known) = &mut self.remembered
        {
            *known = known.with(at);
        }
        let rules = self.setup;
        self.with_lane(false, |lane, acts| {
            if lane.mode == Mode::Asking && !rules.has(Rule::NewsWhileAsking) {
                return;
            }
            if lane.mode == Mode::Flowing && !rules.has(Rule::Answered) {
                return lane.add_now(member(at), acts);
            }
            lane.add(member(at), acts);
            if !rules.has(Rule::Earlier) {
                let is_it = |act: &Act<Msg>| matches!(act, Act::Give(..));
                acts.retain(|act| !is_it(act));
                lane.entries.iter_mut().for_each(|entry| entry.with.retain(|with| *with != member(at)));
            }
        });
    }

    /// Presence has answered.
    pub fn located(&mut self, was_here: bool, found: Option<Set>) {
        let members = self.members(found);
        if was_here && members.as_ref().is_some_and(Vec::is_empty) && self.setup.has(Rule::WasHere) {
            return self.ask();
        }
        if !self.setup.has(Rule::Asked)
            && let Some(lane) = &mut self.lane
        {
            lane.asked_below = lane.asked_below.map(|_| lane.next_number);
        }
        self.tell(|| format!("the answer: {members:?}"));
        self.with_lane(false, |lane, acts| lane.located(members, acts));
        self.note_locations(found);
    }

    /// The members that the lane has found are remembered, with those that it has heard of meanwhile.
    fn note_locations(&mut self, found: Option<Set>) {
        if let Some(members) = self.lane.as_ref().and_then(|lane| lane.members()).filter(|_| found.is_some())
        {
            let members: Set = members.iter().map(|member| place(*member)).collect();
            self.remembered = Some(members.without(HERE));
        }
    }

    fn members(&mut self, found: Option<Set>) -> Option<Vec<Member>> {
        let is_here = self.nodes[HERE].session.takes();
        let here = is_here.then_some(Member::Here);
        match found {
            Some(found) => Some(here.into_iter().chain(found.without(HERE).iter().map(member)).collect()),
            None => {
                let known = self.remembered.unwrap_or_default();
                let members: Vec<Member> = here.into_iter().chain(known.iter().map(member)).collect();
                (!members.is_empty()).then_some(members)
            }
        }
    }

    /// The mailbox has answered.
    pub fn stored(&mut self, store: &Store) {
        let Some((fates, found)) = &store.answer else { return };
        if !store.is_wanted {
            return;
        }
        if fates.contains(&Fate::Yes) && self.setup.has(Rule::Hint) {
            for at in found.iter().flat_map(|found| found.without(HERE).iter()) {
                self.nodes[at].out.push_back(Item::Mail);
            }
            self.look(HERE);
        }
        let members = self.members(*found);
        let fates: Vec<Stored> = fates.iter().map(|fate| fate.stored()).collect();
        self.tell(|| format!("stored: {:?}, {fates:?}; the user: {members:?}", store.messages));
        self.with_lane(false, |lane, acts| lane.stored(&store.numbers, &fates, members, acts));
        self.note_locations(*found);
    }

    /// A node is dead: `published` of what it had may have reached it.
    pub fn gone(&mut self, at: Place, published: usize) {
        let on_way = self.on_way(at);
        let is_sure = |number: &u64| {
            let message = self.message(*number);
            on_way.iter().skip(published).any(|other| Some(*other) == message)
        };
        let (sure, maybe): (Vec<u64>, Vec<u64>) = self.with_node(at).into_iter().partition(is_sure);
        self.nodes[at].out.clear();
        self.forget(at);
        let cause = Cause::NotThere;
        if !sure.is_empty() {
            self.with_lane(false, |lane, acts| lane.returned(&sure, member(at), cause, acts));
        }
        if !maybe.is_empty() && self.setup.has(Rule::Doubt) {
            self.with_lane(false, |lane, acts| lane.returned(&maybe, member(at), Cause::Gone, acts));
        } else if !maybe.is_empty() {
            self.with_lane(false, |lane, acts| lane.returned(&maybe, member(at), cause, acts));
        }
    }

    /// The messages that a node has, by their numbers.
    pub fn with_node(&self, at: Place) -> Vec<u64> {
        let entries = self.lane.iter().flat_map(|lane| &lane.entries);
        entries.filter(|entry| entry.with.contains(&member(at))).map(|entry| entry.number).collect()
    }

    /// Messages come back from a node's link.
    pub fn returned(&mut self, at: Place, messages: &[Msg], cause: Cause) {
        if messages.is_empty() {
            return;
        }
        let numbers: Vec<u64> = messages.iter().filter_map(|message| self.number(*message)).collect();
        self.nodes[at].missed =
            messages.iter().fold(self.nodes[at].missed, |all, message| all.with(*message));
        self.tell(|| format!("{messages:?} come back from {}: {cause:?}", name(at)));
        let returns = self.setup.has(Rule::Return);
        self.with_lane(false, |lane, acts| {
            lane.returned(&numbers, member(at), cause, acts);
            if !returns {
                lane.members.retain(|other| *other != member(at));
            }
        });
    }

    /// The deadline of a message has come.
    pub fn expire(&mut self, message: Msg) {
        if let Some(number) = self.number(message) {
            self.with_lane(false, |lane, acts| lane.expired(number, acts));
        }
    }

    /// A message has its fate.
    fn end(&mut self, message: Msg, end: End) -> Result<(), Broken> {
        self.tell(|| format!("{message} ends: {end:?}"));
        if let Some(before) = self.fates[message as usize].replace(end) {
            return Err(format!("{message} ends {end:?}, and had ended {before:?}"));
        }
        let is_shown = self.shown.has(message);
        let is_in_mailbox = self.mailbox.contains(&message);
        match end {
            End::Delivered if !is_shown => Err(format!("{message} ends Delivered, and nobody was shown it")),
            End::Stored if !is_shown && !is_in_mailbox => {
                Err(format!("{message} ends Stored, and is not in the mailbox"))
            }
            End::Offline | End::MailboxFull | End::Unavailable if is_shown || is_in_mailbox => {
                Err(format!("{message} ends {end:?}, and was shown or stored"))
            }
            End::Offline if !self.lonely.has(message) => {
                Err(format!("{message} ends Offline, and the user was somewhere all the time"))
            }
            End::Timeout | End::Unavailable if !self.has_cause() => {
                Err(format!("{message} ends {end:?}, and nothing went wrong"))
            }
            _ => Ok(()),
        }
    }

    /// Notes what is sent and has no fate while the user is nowhere.
    pub fn note_lonely(&mut self) {
        let is_there = |at: &Session| matches!(at.state, State::Entering | State::In);
        if self.nodes.iter().any(|node| is_there(&node.session)) {
            return;
        }
        let sent = (0..self.sent).filter(|message| self.fates[*message as usize].is_none());
        self.lonely = sent.fold(self.lonely, Set::with);
    }

    /// Tells whether anything went wrong, so that a fate may be unknown.
    fn has_cause(&self) -> bool {
        let Self { setup, left, .. } = self;
        left.deaths < setup.deaths
            || left.returns < setup.returns
            || left.cuts < setup.cuts
            || left.expiries < setup.expiries
            || left.aways < setup.aways
            || left.failures < setup.failures
            || setup.overdue.is_some()
    }
}
