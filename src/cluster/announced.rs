//! Logins that wait until the nodes where the user is already know of them.
//!
//! An origin that remembers a user's place sends there and nowhere else, so the
//! node at that place has to know of a further session before the login is
//! answered: from then on it tells every such origin. A node that does not
//! answer holds a login up for a second, not longer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cluster::{Event, Welcome};
use crate::proto::NodeId;

/// How long a login waits for other nodes.
const WAIT_TIME_MAX: Duration = Duration::from_secs(1);

/// The logins that wait.
#[derive(Default)]
pub struct Announced {
    logins: HashMap<u64, Login>,
}

struct Login {
    welcome: Welcome,
    /// Who has not answered.
    nodes: Vec<NodeId>,
    by: Instant,
}

impl Announced {
    /// A login was announced to these nodes.
    pub fn add(&mut self, number: u64, welcome: Welcome, nodes: Vec<NodeId>, now: Instant) {
        self.logins.insert(number, Login { welcome, nodes, by: now + WAIT_TIME_MAX });
    }

    /// A node knows of a login; the event to tell if it was the last.
    pub fn noted(&mut self, node: &NodeId, number: u64) -> Option<Event> {
        let login = self.logins.get_mut(&number)?;
        login.nodes.retain(|other| other != node);
        if !login.nodes.is_empty() {
            return None;
        }
        let login = self.logins.remove(&number)?;
        Some(Event::Registered { number, welcome: Ok(login.welcome) })
    }

    /// The logins that have waited long enough.
    pub fn overdue(&mut self, now: Instant) -> Vec<Event> {
        let overdue = self.logins.extract_if(|_, login| login.by <= now);
        overdue.map(|(number, login)| Event::Registered { number, welcome: Ok(login.welcome) }).collect()
    }

    /// When the next of them has.
    pub fn due(&self) -> Option<Instant> {
        self.logins.values().map(|login| login.by).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(event: &Event) -> u64 {
        let Event::Registered { number, welcome: Ok(_) } = event else { panic!("{event:?}") };
        *number
    }

    #[test]
    fn the_last_answer_or_the_deadline_lets_a_login_in() {
        let now = Instant::now();
        let nodes = ["a", "b"].map(|name| NodeId::new(name, "1").expect("valid"));
        let mut announced = Announced::default();
        announced.add(1, Welcome::default(), nodes.to_vec(), now);
        announced.add(2, Welcome::default(), nodes.to_vec(), now);
        assert!(announced.noted(&nodes[0], 1).is_none());
        assert!(announced.noted(&nodes[0], 1).is_none(), "the same again");
        assert_eq!(announced.noted(&nodes[1], 1).map(|event| number(&event)), Some(1));
        assert!(announced.noted(&nodes[1], 1).is_none());
        assert!(announced.overdue(now).is_empty());
        let due = announced.due().expect("one waits");
        assert_eq!(announced.overdue(due).iter().map(number).collect::<Vec<_>>(), [2]);
        assert!(announced.due().is_none());
    }
}
