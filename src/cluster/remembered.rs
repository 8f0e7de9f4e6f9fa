//! Remembered places: where users were when presence was last asked.
//!
//! A remembered place costs a look into a map instead of a question to Redis.
//! It may be wrong: a node that does not have the user says so, and the place is
//! forgotten and asked for again. What such a node can't notice is a *further*
//! session elsewhere; so whoever logs in tells the nodes where the user is
//! already, and those tell the origins that still send to them alone. No place
//! is believed for more than a minute. That a user is nowhere is not remembered.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::cluster::Places;
use crate::proto::{NodeId, UserName, UserRef};
use crate::recent::Recent;

/// Users whose places are remembered at most; then all are forgotten.
pub const REMEMBERED_MAX: usize = 65_536;

/// How long a place is believed.
const BELIEF_TIME_MAX: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Default)]
pub struct Remembered {
    places: Recent<UserName, (Instant, Places)>,
    /// Users that were asked for and not forgotten since: an answer that is
    /// older than the latest news is not remembered.
    asked: HashSet<UserName>,
    /// Users of this node who logged in elsewhere too, when that was, and which
    /// origins were told.
    news: HashMap<UserName, (Instant, Vec<NodeId>)>,
}

impl Remembered {
    /// Where else a user is, if that is remembered. `is_here`: the user has a session on this
    /// node. "Nowhere else" is believed only then: who was nowhere else and has left may be
    /// anywhere by now, and nobody would tell this node.
    pub fn find(&mut self, user: UserRef<'_>, is_here: bool, now: Instant) -> Option<Places> {
        let (since, places) = self.places.get_mut(user.as_str())?;
        let counts = is_here || !places.is_empty();
        (counts && now.duration_since(*since) < BELIEF_TIME_MAX).then(|| places.clone())
    }

    /// Presence is asked for a user.
    pub fn asking(&mut self, user: UserRef<'_>) {
        self.asked.insert(user.into());
    }

    /// Presence has answered: `None` when that is nothing to remember.
    pub fn answered(&mut self, user: &UserName, places: Option<&Places>, now: Instant) {
        if let (true, Some(places)) = (self.asked.remove(user), places) {
            if self.places.len() >= REMEMBERED_MAX {
                self.places = Recent::default();
            }
            *self.places.get_or_insert_with(user, || (now, Places::default())) = (now, places.clone());
        }
    }

    /// What is remembered of a user is wrong.
    pub fn forget(&mut self, user: UserRef<'_>) {
        self.places.remove(user.as_str());
        self.asked.remove(user.as_str());
    }

    /// Nodes are dead: they can't say any more that a user is not there.
    pub fn bury(&mut self, dead: &[NodeId]) {
        if !dead.is_empty() {
            self.places.retain(|(_, places)| !places.iter().any(|place| dead.contains(&place.node)));
        }
    }

    /// Everything may be wrong.
    pub fn forget_all(&mut self) {
        self.places = Recent::default();
        self.asked.clear();
        self.news.clear();
    }

    /// A user of this node has logged in elsewhere too.
    pub fn heard_news(&mut self, user: UserRef<'_>, now: Instant) {
        self.forget(user);
        if self.news.len() >= REMEMBERED_MAX {
            self.news.retain(|_, (since, _)| now.duration_since(*since) < BELIEF_TIME_MAX);
        }
        if self.news.len() >= REMEMBERED_MAX {
            // Origins that remember these are corrected when their belief ends.
            self.news.clear();
        }
        self.news.insert(user.into(), (now, vec![]));
    }

    /// Tells whether `origin`, which sends to a user here, has to be told that
    /// the user is elsewhere too; once each.
    pub fn is_news_to(&mut self, origin: &NodeId, user: UserRef<'_>, now: Instant) -> bool {
        if self.news.is_empty() {
            return false;
        }
        let Some((since, told)) = self.news.get_mut(user.as_str()) else { return false };
        if now.duration_since(*since) >= BELIEF_TIME_MAX {
            self.news.remove(user.as_str());
            return false;
        }
        let is_news = !told.contains(origin);
        if is_news {
            told.push(origin.clone());
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Place;

    fn places(names: &[&str]) -> Places {
        let place = |name: &&str| Place { node: node(name), sessions: vec![] };
        names.iter().map(place).collect::<Vec<_>>().into()
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name, "1").expect("valid")
    }

    #[test]
    fn places_are_believed_for_a_while_and_forgotten() {
        let now = Instant::now();
        let bob = UserName::parse("bob").expect("valid");
        let mut remembered = Remembered::default();
        remembered.asking(bob.borrowed());
        remembered.answered(&bob, Some(&places(&["a"])), now);
        assert_eq!(remembered.find(bob.borrowed(), false, now), Some(places(&["a"])));
        assert_eq!(remembered.find(bob.borrowed(), false, now + BELIEF_TIME_MAX), None);
        remembered.forget(bob.borrowed());
        assert_eq!(remembered.find(bob.borrowed(), false, now), None);
        // An answer that was overtaken by news is not remembered.
        remembered.asking(bob.borrowed());
        remembered.forget(bob.borrowed());
        remembered.answered(&bob, Some(&places(&["a"])), now);
        assert_eq!(remembered.find(bob.borrowed(), false, now), None);
        remembered.asking(bob.borrowed());
        remembered.answered(&bob, None, now);
        assert!(remembered.asked.is_empty() && remembered.places.is_empty());
    }

    #[test]
    fn nowhere_else_is_no_answer_for_who_has_left() {
        let now = Instant::now();
        let bob = UserName::parse("bob").expect("valid");
        let mut remembered = Remembered::default();
        remembered.asking(bob.borrowed());
        remembered.answered(&bob, Some(&Places::default()), now);
        assert_eq!(remembered.find(bob.borrowed(), true, now), Some(Places::default()));
        assert_eq!(remembered.find(bob.borrowed(), false, now), None);
    }

    #[test]
    fn places_of_dead_nodes_are_forgotten() {
        let now = Instant::now();
        let mut remembered = Remembered::default();
        for (user, at) in [("bob", vec!["a"]), ("carol", vec!["a", "b"]), ("dave", vec!["b"])] {
            let user = UserName::parse(user).expect("valid");
            let places = places(&at);
            remembered.asking(user.borrowed());
            remembered.answered(&user, Some(&places), now);
        }
        remembered.bury(&[node("a")]);
        let mut users: Vec<&str> = remembered.places.iter_mut().map(|(user, _)| user.as_str()).collect();
        users.sort_unstable();
        assert_eq!(users, ["dave"]);
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut remembered = Remembered::default();
        for n in 0..=REMEMBERED_MAX {
            let user = UserName::parse(&format!("user{n}")).expect("valid");
            remembered.asking(user.borrowed());
            remembered.answered(&user, Some(&places(&["a"])), now);
            assert!(remembered.places.len() <= REMEMBERED_MAX);
        }
        assert_eq!(remembered.places.len(), 1);
    }

    #[test]
    fn every_origin_is_told_once() {
        let now = Instant::now();
        let bob = UserName::parse("bob").expect("valid");
        let bob = bob.borrowed();
        let mut remembered = Remembered::default();
        assert!(!remembered.is_news_to(&node("a"), bob, now));
        remembered.heard_news(bob, now);
        assert!(remembered.is_news_to(&node("a"), bob, now));
        assert!(!remembered.is_news_to(&node("a"), bob, now));
        assert!(remembered.is_news_to(&node("b"), bob, now));
        remembered.heard_news(bob, now);
        assert!(remembered.is_news_to(&node("a"), bob, now), "there is more news");
        assert!(!remembered.is_news_to(&node("c"), bob, now + BELIEF_TIME_MAX));
        assert!(remembered.news.is_empty());
    }
}
