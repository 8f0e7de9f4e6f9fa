//! A person on a connection, who asks, and reads on until the answer comes.
//!
//! Requests are tagged, so that answers may come in any order and messages in between; those
//! are kept. A message carries the name of whom it is for and a tag that its sender never
//! used before: whoever gets one that is meant for somebody else, or the same one twice,
//! fails the test. In the end [`promises_are_kept`] holds what senders were told against
//! what was heard.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::rig::peer::{Peer, message};

/// How long a person waits for an answer: a node's own deadline is 10 seconds, which it looks
/// at once a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection, logged in or not.
pub struct Person {
    pub name: String,
    /// `None` when the person has left.
    peer: Option<Peer>,
    count: usize,
    answers: HashMap<String, String>,
    /// Senders and tags of messages that came.
    heard: BTreeSet<(String, String)>,
    /// Recipients of messages whose fate is not known, by their tags.
    waits_for: HashMap<String, String>,
    /// Recipients, tags and fates of messages that were sent.
    told: Vec<(String, String, String)>,
}

impl Person {
    /// Connects, and says nothing yet.
    #[track_caller]
    pub fn comes(addr: SocketAddr, name: &str) -> Self {
        let mut peer = Peer::connect(addr);
        peer.patient(PATIENCE);
        Person {
            name: name.to_owned(),
            peer: Some(peer),
            count: 0,
            answers: HashMap::new(),
            heard: BTreeSet::new(),
            waits_for: HashMap::new(),
            told: vec![],
        }
    }

    /// Connects, and logs in.
    #[track_caller]
    pub fn login(addr: SocketAddr, name: &str) -> Self {
        let mut person = Self::comes(addr, name);
        assert_eq!(person.logs_in(), "in");
        person
    }

    /// Asks to log in: "in", or the code of an error.
    #[track_caller]
    pub fn logs_in(&mut self) -> String {
        self.asks(&format!("LOGIN {}", self.name.clone()))
    }

    /// Asks where somebody is: "online 1", "offline", or the code of an error.
    #[track_caller]
    pub fn finds(&mut self, user: &str) -> String {
        self.asks(&format!("WHO {user}"))
    }

    /// Sends a message: "delivered", or the code of an error.
    #[track_caller]
    pub fn sends(&mut self, to: &str) -> String {
        let tag = self.says_to(to);
        self.answer(&tag)
    }

    /// Sends a message, and tells too how long the answer took.
    #[track_caller]
    pub fn sends_timed(&mut self, to: &str) -> (String, Duration) {
        let start = Instant::now();
        (self.sends(to), start.elapsed())
    }

    /// Sends a message and doesn't wait; gives its tag.
    #[track_caller]
    pub fn says_to(&mut self, to: &str) -> String {
        // The recipient, and the tag that comes next: every text is another.
        let tag = self.says(&format!("SEND {to} {to} {}", self.count + 1));
        self.waits_for.insert(tag.clone(), to.to_owned());
        tag
    }

    /// Sends a message that arrives.
    #[track_caller]
    pub fn reaches(&mut self, to: &mut Person) {
        let tag = self.says_to(&to.name);
        let answer = self.answer(&tag);
        assert_eq!(answer, "delivered", "{} sends to {}", self.name, to.name);
        to.gets(&self.name, &tag);
    }

    /// Makes a request and doesn't wait; gives its tag.
    #[track_caller]
    pub fn says(&mut self, request: &str) -> String {
        self.count += 1;
        let tag = self.count.to_string();
        self.peer().say(&format!("@{tag} {request}"));
        tag
    }

    /// Makes a request, and waits for the answer.
    #[track_caller]
    pub fn asks(&mut self, request: &str) -> String {
        let tag = self.says(request);
        self.answer(&tag)
    }

    /// Waits for the answer to a request, in short.
    #[track_caller]
    pub fn answer(&mut self, tag: &str) -> String {
        loop {
            if let Some(answer) = self.answers.remove(tag) {
                return answer;
            }
            self.hear();
        }
    }

    /// Waits for a message.
    #[track_caller]
    pub fn gets(&mut self, from: &str, tag: &str) {
        let message = (from.to_owned(), tag.to_owned());
        while !self.heard.contains(&message) {
            self.hear();
        }
    }

    /// Hears on until the connection is ended, with this reason.
    #[track_caller]
    pub fn ends_with(&mut self, reason: &str) {
        loop {
            let line = self.peer().hear();
            if line.starts_with("BYE ") {
                assert!(line.starts_with(&format!("BYE {reason} ")), "{} hears {line}", self.name);
                return assert_eq!(self.leaves().next(), None);
            }
            self.take(&line);
        }
    }

    /// Leaves; what was heard and told is kept.
    #[track_caller]
    pub fn leaves(&mut self) -> Peer {
        self.peer.take().expect("not gone yet")
    }

    #[track_caller]
    fn peer(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("not gone")
    }

    #[track_caller]
    fn hear(&mut self) {
        let line = self.peer().hear();
        self.take(&line);
    }

    #[track_caller]
    fn take(&mut self, line: &str) {
        if let Some((tag, answer)) = line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
            let answer = in_short(answer);
            if let Some(to) = self.waits_for.remove(tag) {
                self.told.push((to, tag.to_owned(), answer.clone()));
            }
            self.answers.insert(tag.to_owned(), answer);
            return;
        }
        let (from, tag, text) = message(line).unwrap_or_else(|| panic!("{} hears {line:?}", self.name));
        assert_eq!(text, format!("{} {tag}", self.name), "{} hears what {from} said", self.name);
        let is_new = self.heard.insert((from.to_owned(), tag.to_owned()));
        assert!(is_new, "{} hears {line:?} twice", self.name);
    }
}

/// What was delivered was heard, and what was not delivered was not, and never is; of
/// `ERR timeout` nobody knows. These are all who were ever sent anything.
#[track_caller]
pub fn promises_are_kept(people: &mut [Person]) {
    for person in people.iter_mut().filter(|person| person.peer.is_some()) {
        // Whatever was on its way is behind this.
        assert_eq!(person.asks("PING"), "PONG");
        assert_eq!(person.waits_for, HashMap::new(), "{} was not answered", person.name);
    }
    for sender in people.iter() {
        for (to, tag, fate) in sender.told.iter().filter(|(_, _, fate)| fate != "timeout") {
            let message = (sender.name.clone(), tag.clone());
            let was_heard = people.iter().any(|person| person.name == *to && person.heard.contains(&message));
            assert_eq!(was_heard, fate == "delivered", "{fate}: {tag} from {} to {to}", sender.name);
        }
    }
}

/// An answer without the names that whoever asks knows, and without what is for people.
fn in_short(answer: &str) -> String {
    let words: Vec<&str> = answer.split(' ').collect();
    match words[..] {
        ["ERR", code, ..] => code.to_owned(),
        ["OK", _, "delivered"] => "delivered".to_owned(),
        ["OK", _, "offline"] => "offline".to_owned(),
        ["OK", _, "online", sessions] => format!("online {sessions}"),
        ["OK", _, _] => "in".to_owned(),
        _ => answer.to_owned(),
    }
}
