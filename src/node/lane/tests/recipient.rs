//! The recipient's side of a node: sessions come and go, take messages, show them and give them back, as the node
//! does (`deliver`, `sessions`, `mail`); and what must be true of what is shown.

use crate::node::lane::tests::rules::Rule;
use crate::node::lane::tests::set::Set;
use crate::node::lane::tests::world::{
    Broken, Closing, End, HERE, Item, Msg, Node, PLACES, Pending, Place, Session, State, Word, World, name,
};
use crate::proto::wire::Receipt;

impl World<'_> {
    /// A node takes what comes to it next.
    pub fn get(&mut self, at: Place) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        let takes = node.session.takes();
        match node.out.pop_front() {
            Some(Item::Message { message, is_first, is_void }) => {
                let mut news = node.knows.but(node.told);
                if !self.setup.has(Rule::Notice) {
                    news = Set::default();
                }
                node.told = node.told.and(news);
                if !news.is_empty() && self.setup.has(Rule::NoticeFirst) {
                    node.back.push_back(Word::Further(news));
                    news = Set::default();
                }
                self.receive(at, message, is_first, is_void);
                if !news.is_empty() {
                    while self.flush()? {}
                    self.nodes[at].back.push_back(Word::Further(news));
                }
            }
            Some(Item::Cast(message)) if takes && !self.is_refusing(at) => self.push(at, message),
            Some(Item::Mail) => self.look(at),
            _ => {}
        }
        Ok(())
    }

    /// A session has to look into the mailbox, if there is one.
    pub fn look(&mut self, at: Place) {
        let session = &mut self.nodes[at].session;
        session.must_look |= session.takes();
    }

    fn is_refusing(&self, at: Place) -> bool {
        self.nodes[at].refuses && self.setup.has(Rule::First)
    }

    fn receive(&mut self, at: Place, message: Msg, is_first: bool, is_void: bool) {
        self.nodes[at].refuses &= !is_first;
        let session = &self.nodes[at].session;
        let is_here = session.state == State::In || (session.takes() && self.setup.has(Rule::Entering));
        if is_here && !self.is_refusing(at) {
            return self.hand(at, message, !is_void);
        }
        if is_here {
            self.nodes[at].back.push_back(Word::Further(Set::default().with(at)));
        }
        self.resolve(at, message, Receipt::NotHere, u8::from(!is_void));
    }

    /// A message is handed to the session. `waits`: the origin waits for its fate.
    pub fn hand(&mut self, at: Place, message: Msg, waits: bool) {
        let waiting = u8::from(waits);
        let node = &mut self.nodes[at];
        if node.seen.has(message) {
            self.resolve(at, message, Receipt::Delivered, waiting);
        } else if let Some(pending) = node.pending.iter_mut().find(|pending| pending.message == message) {
            pending.waiting += waiting;
        } else if node.expired.has(message) {
            self.resolve(at, message, Receipt::Unacked, waiting);
        } else {
            node.pending.push(Pending {
                message,
                waiting,
                is_mail: false,
                lost: Receipt::NotHere,
                is_late: false,
            });
            node.pending.sort_by_key(|pending| pending.message);
            self.push(at, message);
        }
    }

    /// A session is about to be shown a message.
    pub fn push(&mut self, at: Place, message: Msg) {
        let session = &mut self.nodes[at].session;
        let must_hold = session.state != State::In || (session.must_look && self.setup.has(Rule::Hold));
        let list = if must_hold { &mut session.held } else { &mut session.outbox };
        list.push(message);
    }

    /// Writes what is in outboxes; `false` if there is nothing.
    pub fn flush(&mut self) -> Result<bool, Broken> {
        let has_any = |at: &Place| !self.nodes[*at].session.outbox.is_empty();
        let Some(at) = (0..PLACES).find(has_any).filter(|_| !self.setup.is_slow) else { return Ok(false) };
        self.write(at)?;
        Ok(true)
    }

    /// The next message of a session's outbox is written.
    pub fn write(&mut self, at: Place) -> Result<(), Broken> {
        let message = self.nodes[at].session.outbox.remove(0);
        let shown = self.show(at, message, self.nodes[at].session.shown)?;
        let session = &mut self.nodes[at].session;
        session.shown = shown;
        if self.setup.overdue.is_some() && !self.setup.casts.contains(&message) {
            session.unacked.push(message);
        } else {
            self.take(at, message);
        }
        Ok(())
    }

    /// A session of which `shown` was shown is shown a message.
    fn show(&mut self, at: Place, message: Msg, shown: Set) -> Result<Set, Broken> {
        self.tell(|| format!("{message} is shown on {}", name(at)));
        let is_late = |pending: &Pending| pending.message == message && pending.is_late;
        let has_order = !self.excepted.has(message) && !self.nodes[at].pending.iter().any(is_late);
        if let Some(later) = shown.iter().find(|later| has_order && *later > message as usize) {
            return Err(format!("a session on {} is shown {message} after {later}", name(at)));
        }
        if shown.has(message) && self.setup.overdue.is_none() {
            return Err(format!("a session on {} is shown {message} twice", name(at)));
        }
        let fate = self.fates[message as usize];
        if matches!(fate, Some(End::Offline | End::MailboxFull | End::Unavailable)) {
            return Err(format!("{message} is shown, and had ended {fate:?}"));
        }
        self.shown = self.shown.with(message);
        Ok(shown.with(message))
    }

    /// A session has taken a message: whoever waits is told.
    fn take(&mut self, at: Place, message: Msg) {
        let node = &mut self.nodes[at];
        let Some(place) = node.pending.iter().position(|pending| pending.message == message) else { return };
        let pending = node.pending.remove(place);
        node.seen = node.seen.with(message);
        if pending.is_mail {
            self.mailbox.retain(|letter| *letter != message);
        }
        self.resolve(at, message, Receipt::Delivered, pending.waiting);
    }

    /// A session does not take a message.
    fn lose(&mut self, at: Place, message: Msg, how: Receipt) {
        let node = &mut self.nodes[at];
        let is_elsewhere = node.has(message);
        let Some(place) = node.pending.iter().position(|pending| pending.message == message) else { return };
        let pending = &mut node.pending[place];
        pending.lost = pending.lost.max(how);
        if is_elsewhere {
            return;
        }
        let pending = node.pending.remove(place);
        if !pending.is_mail || pending.waiting > 0 {
            self.resolve(at, message, pending.lost, pending.waiting);
        }
    }

    /// Whoever waits for a message is told what became of it.
    fn resolve(&mut self, at: Place, message: Msg, receipt: Receipt, waiting: u8) {
        if matches!(receipt, Receipt::NotHere | Receipt::Left) && at != HERE {
            self.nodes[at].refuses = true;
        }
        for _ in 0..waiting {
            if at == HERE {
                self.hear(at, message, receipt);
            } else {
                self.nodes[at].back.push_back(Word::Receipt(message, receipt));
            }
        }
    }

    /// The user wants to be in on a node, which takes messages from now on.
    pub fn login(&mut self, at: Place) {
        let gives = self.setup.has(Rule::Closing);
        if at == HERE && self.setup.has(Rule::OwnLogin) {
            self.remembered = None;
        }
        let node = &mut self.nodes[at];
        node.sessions += 1;
        let closing = node.closing.iter().flat_map(|closing| &closing.outbox);
        let is_live = |message: &&Msg| {
            node.pending.iter().any(|pending| pending.message == **message && !pending.is_mail)
        };
        let held = closing.filter(is_live).copied().filter(|_| gives).collect();
        node.session = Session { state: State::Coming, number: node.sessions, held, ..Session::default() };
    }

    /// Presence takes note of a login, and tells where else the user is.
    pub fn register(&mut self, at: Place) {
        let is_alive = |other: &usize| *other != at && !self.nodes[*other].is_dead;
        let others: Set = self.found().iter().filter(is_alive).collect();
        let node = &mut self.nodes[at];
        node.tags = node.tags.with(node.session.number);
        node.knows = node.knows.and(others);
        node.told = node.told.but(others);
        (node.session.state, node.session.since) = (State::Entering, self.sent);
        node.session.must_look |= !self.mailbox.is_empty();
        if self.setup.has(Rule::Announce) {
            node.session.waits = others;
        }
        if at == HERE && !others.is_empty() {
            self.remembered = None;
            let learns = self.setup.has(Rule::OwnLogin);
            others.iter().filter(|_| learns).for_each(|other| self.further(other));
        }
        if self.nodes[at].session.waits.is_empty() {
            self.admit(at);
        }
    }

    /// A node takes note that the user logs in on another.
    pub fn note(&mut self, at: Place, by: Place) {
        if self.nodes[by].session.takes() {
            self.nodes[by].knows = self.nodes[by].knows.with(at);
            self.nodes[by].told = self.nodes[by].told.without(at);
            if by == HERE {
                self.remembered = None;
            }
        }
        if by == HERE {
            self.further(at);
        }
        let session = &mut self.nodes[at].session;
        session.waits = session.waits.without(by);
        if session.waits.is_empty() {
            self.admit(at);
        }
    }

    /// A login is answered.
    fn admit(&mut self, at: Place) {
        self.tell(|| format!("OK for a login on {}", name(at)));
        let sent = self.sent;
        let session = &mut self.nodes[at].session;
        (session.state, session.since) = (State::In, sent);
        if !session.must_look || !self.setup.has(Rule::Hold) {
            session.outbox.append(&mut session.held);
        }
        if at == HERE {
            self.further(HERE);
        }
    }

    /// A session is shown what is in the mailbox.
    pub fn drain(&mut self, at: Place) {
        for message in self.mailbox.clone() {
            let node = &mut self.nodes[at];
            if node.seen.has(message) {
                self.mailbox.retain(|letter| *letter != message);
            } else if let Some(pending) = node.pending.iter_mut().find(|pending| pending.message == message) {
                pending.is_mail = true;
                pending.is_late |= node.missed.has(message) && node.session.held.contains(&message);
            } else if !node.expired.has(message) {
                node.pending.push(Pending {
                    message,
                    waiting: 0,
                    is_mail: true,
                    lost: Receipt::NotHere,
                    is_late: false,
                });
                node.pending.sort_by_key(|pending| pending.message);
                node.session.outbox.push(message);
            }
        }
        let session = &mut self.nodes[at].session;
        session.must_look = false;
        session.outbox.append(&mut session.held);
    }

    /// A session ends. `closes`: what is in its outbox may still be written.
    pub fn end_session(&mut self, at: Place, closes: bool) {
        let node = &mut self.nodes[at];
        let Session { state, number, held, outbox, unacked, shown, .. } = std::mem::take(&mut node.session);
        node.expired = Set::default();
        if state != State::Coming {
            node.tags = node.tags.without(number);
            node.old_tags = node.old_tags.with(number);
        }
        let mut back = vec![];
        if closes {
            node.closing = Some(Closing { outbox, shown });
        } else {
            back = outbox;
        }
        unacked.into_iter().for_each(|message| self.lose(at, message, Receipt::Left));
        back.into_iter().chain(held).for_each(|message| self.lose(at, message, Receipt::NotHere));
    }

    /// A session that has ended writes the next message of its outbox.
    pub fn write_late(&mut self, at: Place) -> Result<(), Broken> {
        let Some(closing) = &mut self.nodes[at].closing else { return Ok(()) };
        let (message, shown) = (closing.outbox.remove(0), closing.shown);
        if closing.outbox.is_empty() {
            self.nodes[at].closing = None;
        }
        let shown = self.show(at, message, shown)?;
        if let Some(closing) = &mut self.nodes[at].closing {
            closing.shown = shown;
        }
        self.take(at, message);
        Ok(())
    }

    /// A session that has ended writes no more.
    pub fn end_writing(&mut self, at: Place) {
        let closing = self.nodes[at].closing.take();
        let outbox = closing.into_iter().flat_map(|closing| closing.outbox);
        outbox.for_each(|message| self.lose(at, message, Receipt::NotHere));
    }

    /// A session acknowledges the first message that it was shown.
    pub fn acknowledge(&mut self, at: Place) {
        let message = self.nodes[at].session.unacked.remove(0);
        self.take(at, message);
    }

    /// A session does not acknowledge in time the first message that it was shown.
    pub fn overdue(&mut self, at: Place) {
        let node = &mut self.nodes[at];
        let message = node.session.unacked.remove(0);
        node.expired = node.expired.with(message);
        self.excepted = self.excepted.with(message);
        self.lose(at, message, Receipt::Unacked);
    }

    /// A node dies.
    pub fn die(&mut self, at: Place) {
        let Node { out, back, told, tags, old_tags, .. } = std::mem::take(&mut self.nodes[at]);
        let old_tags = old_tags.and(tags);
        self.nodes[at] = Node { is_dead: true, out, back, told, old_tags, ..Node::default() };
    }
}

impl Node {
    /// Tells whether a session has a message, or one that has ended.
    fn has(&self, message: Msg) -> bool {
        let Session { held, outbox, unacked, .. } = &self.session;
        let closing = self.closing.iter().flat_map(|closing| &closing.outbox);
        held.iter().chain(outbox).chain(unacked).chain(closing).any(|other| *other == message)
    }
}
