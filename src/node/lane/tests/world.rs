//! The world around one lane: its origin, the other nodes, what is on its way, presence and the mailbox.
//!
//! The lane is the real one. Everything else is as small as it can be and still do what the node does: the
//! origin's callers of the lane are in `origin.rs`, the sessions that messages are for in `recipient.rs`, and what
//! may happen next in `steps.rs`. There is one recipient, who logs in and out on the nodes. What is handed
//! out in one step of a node is one step here.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::node::lane::tests::rules::Rule;
use crate::node::lane::tests::set::Set;
use crate::node::lane::{Act, Lane, Member};
use crate::node::seam::Stored;
use crate::node::slab::PeerId;
use crate::proto::wire::Receipt;

/// A message: 0 is sent first.
pub type Msg = u8;

/// A node: [`HERE`], or another one.
pub type Place = usize;

/// The origin.
pub const HERE: Place = 0;

/// Nodes at most, the origin included.
pub const PLACES: usize = 3;

/// Messages at most.
pub const MESSAGES_MAX: usize = 5;

/// What may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Where the user may be.
    pub places: &'static [Place],
    /// Where the user is at first.
    pub at: &'static [Place],
    /// The origin knows that.
    pub remembers: bool,
    /// Messages that are sent.
    pub messages: u8,
    /// Which of them are `CAST`s.
    pub casts: &'static [Msg],
    /// Logins and ends of sessions.
    pub moves: u8,
    /// The user may come back to a node.
    pub back: bool,
    /// A session that is there at the end was shown all that was sent after its `OK`.
    pub is_complete: bool,
    /// Sessions acknowledge what they are shown, and so often one does not in time.
    pub overdue: Option<u8>,
    /// What a session takes is written later, or not at all.
    pub is_slow: bool,
    /// There are mailboxes, for so many messages.
    pub room: Option<u8>,
    /// How often a mailbox can't be reached.
    pub failures: u8,
    /// How often presence can't be reached.
    pub aways: u8,
    /// Other nodes that die.
    pub deaths: u8,
    /// How often a link gives back what it holds.
    pub returns: u8,
    /// How often it can't send what waits.
    pub cuts: u8,
    /// Deadlines that come.
    pub expiries: u8,
    /// The rule that is left out.
    pub off: Option<Rule>,
}

impl Setup {
    /// Nothing happens but messages to a user on one other node.
    pub const QUIET: Setup = Setup {
        places: &[1, 2],
        at: &[1],
        remembers: true,
        messages: 3,
        casts: &[],
        moves: 0,
        back: false,
        is_complete: false,
        overdue: None,
        is_slow: false,
        room: None,
        failures: 0,
        aways: 0,
        deaths: 0,
        returns: 0,
        cuts: 0,
        expiries: 0,
        off: None,
    };

    /// Tells whether a rule counts.
    pub fn has(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }
}

/// What is left of what may happen.
#[derive(Clone, Debug)]
pub struct Left {
    pub moves: u8,
    pub overdue: u8,
    pub failures: u8,
    pub aways: u8,
    pub deaths: u8,
    pub returns: u8,
    pub cuts: u8,
    pub expiries: u8,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct World<'s> {
    pub setup: &'s Setup,
    pub left: Left,
    pub sent: u8,
    pub lane: Option<Lane<Msg>>,
    /// On which other nodes the origin remembers the user.
    pub remembered: Option<Set>,
    pub question: Question,
    /// What goes into the mailbox, the oldest first.
    pub stores: Vec<Store>,
    pub mailbox: Vec<Msg>,
    pub nodes: [Node; PLACES],
    pub fates: [Option<End>; MESSAGES_MAX],
    /// Shown to anybody.
    pub shown: Set,
    /// Since they were sent the user was nowhere for a moment.
    pub lonely: Set,
    /// Went another way than the rest, so that its order is not promised.
    pub excepted: Set,
    pub todo: VecDeque<Todo>,
    /// What happens, for whoever is to read it.
    pub tale: Option<Vec<String>>,
}

/// The question where the user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    None,
    Asked {
        /// The user had a session here.
        was_here: bool,
    },
    Answered {
        /// As above.
        was_here: bool,
        /// `None`: presence is away.
        found: Option<Set>,
    },
}

/// Messages that are put into the mailbox.
#[derive(Clone, Debug)]
pub struct Store {
    pub numbers: Vec<u64>,
    pub messages: Vec<Msg>,
    /// The lane waits for it.
    pub is_wanted: bool,
    pub answer: Option<(Vec<Fate>, Option<Set>)>,
}

/// [`Stored`], with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Yes,
    Full,
    No,
    Unknown,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub is_dead: bool,
    /// The origin knows that.
    pub is_buried: bool,
    /// On their way to it.
    pub out: VecDeque<Item>,
    /// On their way from it.
    pub back: VecDeque<Word>,
    /// It has refused a message of the origin, and refuses what follows.
    pub refuses: bool,
    /// On which other nodes the user is, and what of it the origin was told.
    pub knows: Set,
    pub told: Set,
    pub sessions: u8,
    pub session: Session,
    /// The numbers of its sessions in presence, and those of them that have ended.
    pub tags: Set,
    pub old_tags: Set,
    /// What a session that has ended still writes.
    pub closing: Option<Closing>,
    /// What was taken and is not settled, and how many messages of the origin wait for that.
    pub pending: Vec<Pending>,
    /// What was settled as shown.
    pub seen: Set,
    /// What the session that is there had for too long.
    pub expired: Set,
    /// What could not be carried to it.
    pub missed: Set,
}

/// On its way to a node.
#[derive(Clone, Debug)]
pub enum Item {
    /// `is_void`: its receipt is not waited for any more.
    Message {
        message: Msg,
        is_first: bool,
        is_void: bool,
    },
    Cast(Msg),
    Mail,
}

/// On its way from a node.
#[derive(Clone, Debug)]
pub enum Word {
    Further(Set),
    Receipt(Msg, Receipt),
}

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    Stored,
    Offline,
    MailboxFull,
    Unavailable,
    Timeout,
    /// A `CAST` was given to nobody.
    Lost,
}

/// A session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub state: State,
    pub number: u8,
    /// Nodes that have to note the login.
    pub waits: Set,
    /// It has to look into the mailbox, and shows nothing live before.
    pub must_look: bool,
    /// Taken, and not to be written yet.
    pub held: Vec<Msg>,
    /// To be written.
    pub outbox: Vec<Msg>,
    /// Written, and not acknowledged.
    pub unacked: Vec<Msg>,
    pub shown: Set,
    /// The first message that was sent after it was registered; when it is in, after its `OK`.
    pub since: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Out,
    /// The node has it, presence not yet.
    Coming,
    /// Its `OK` waits.
    Entering,
    In,
}

/// What is left of a session.
#[derive(Clone, Debug)]
pub struct Closing {
    pub outbox: Vec<Msg>,
    pub shown: Set,
}

/// A message that a node's sessions have.
#[derive(Clone, Debug)]
pub struct Pending {
    pub message: Msg,
    /// How many of the origin wait for its fate.
    pub waiting: u8,
    /// It is in the mailbox, too.
    pub is_mail: bool,
    /// The furthest that it came with those who lost it.
    pub lost: Receipt,
    /// It came back to the origin though it was here, was stored, and is shown behind what was stored with it: it
    /// was routed again because the node could not be reached, so its order is not promised.
    pub is_late: bool,
}

/// What is left to do in a step of the origin.
#[derive(Clone, Debug)]
pub enum Todo {
    Act(Act<Msg>),
    EndLane,
}

/// What was broken.
pub type Broken = String;

impl<'s> World<'s> {
    /// Where everything begins.
    pub fn new(setup: &'s Setup) -> Self {
        let Setup { moves, overdue, failures, aways, deaths, returns, cuts, expiries, .. } = *setup;
        let overdue = overdue.unwrap_or(0);
        let left = Left { moves, overdue, failures, aways, deaths, returns, cuts, expiries };
        let mut world = World {
            setup,
            left,
            sent: 0,
            lane: None,
            remembered: None,
            question: Question::None,
            stores: vec![],
            mailbox: vec![],
            nodes: Default::default(),
            fates: [None; MESSAGES_MAX],
            shown: Set::default(),
            lonely: Set::default(),
            excepted: Set::default(),
            todo: VecDeque::new(),
            tale: None,
        };
        let all: Set = setup.at.iter().copied().collect();
        for at in setup.at {
            let node = &mut world.nodes[*at];
            node.session = Session { state: State::In, number: 1, ..Session::default() };
            node.sessions = 1;
            node.knows = all.without(*at);
            node.told = if setup.remembers { node.knows } else { Set::default() };
            node.tags = node.tags.with(1u8);
        }
        world.remembered = setup.remembers.then(|| all.without(HERE));
        world
    }

    /// A hash of all of it.
    pub fn all_of_it(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        hasher.finish()
    }

    /// Tells what happens.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(tale) = &mut self.tale {
            tale.push(what());
        }
    }

    /// Where presence finds the user.
    pub fn found(&self) -> Set {
        let is_there = |at: &Place| !self.nodes[*at].tags.and(self.nodes[*at].old_tags).is_empty();
        (0..PLACES).filter(is_there).collect()
    }

    /// The other nodes that may have messages.
    pub fn others(&self) -> impl Iterator<Item = Place> + use<'s> {
        self.setup.places.iter().copied().filter(|at| *at != HERE)
    }

    /// Tells whether a message is a `CAST`.
    pub fn is_cast(&self, message: Msg) -> bool {
        self.setup.casts.contains(&message)
    }

    /// The number of a message in the lane, if it is there.
    pub fn number(&self, message: Msg) -> Option<u64> {
        let entries = &self.lane.as_ref()?.entries;
        entries.iter().find(|entry| entry.message == message).map(|entry| entry.number)
    }
}

impl Session {
    /// Messages are taken for it.
    pub fn takes(&self) -> bool {
        self.state != State::Out
    }
}

impl Fate {
    /// What it stands for.
    pub fn stored(self) -> Stored {
        match self {
            Fate::Yes => Stored::Yes,
            Fate::Full => Stored::Full,
            Fate::No => Stored::No,
            Fate::Unknown => Stored::Unknown,
        }
    }
}

/// A node as a member of the lane.
pub fn member(at: Place) -> Member {
    if at == HERE { Member::Here } else { Member::Node(PeerId::from_number(at as u64)) }
}

/// The node that a member of the lane stands for.
pub fn place(member: Member) -> Place {
    match member {
        Member::Here => HERE,
        Member::Node(peer) => peer.number() as usize,
    }
}

/// A node's name.
pub fn name(at: Place) -> &'static str {
    ["here", "A", "B"][at]
}
