//! A node of a mesh made by hand: it is in the mesh, says where users are, and answers
//! envelopes as the test likes, truly or not. It serves nobody.

use std::time::Instant;

use pinpost::cluster::{Cluster, Event, Incoming, Mesh};
use pinpost::proto::{Envelope, Fate, NodeId, SessionId, UserName};

use super::until;

/// A node of a mesh, made by hand.
pub struct Ghost {
    cluster: Cluster,
}

impl Ghost {
    pub fn join(mesh: &Mesh, name: &str) -> Ghost {
        let id = NodeId::new(name, "ghost").expect("valid");
        Ghost { cluster: Cluster::Local(mesh.join(id)) }
    }

    /// Claims to have a session of a user.
    pub fn claims(&self, user: &str) {
        let user = UserName::parse(user).expect("valid");
        let session = SessionId::parse("gh0stgh0").expect("valid");
        let _ = self.cluster.register(&user, session, 0);
    }

    /// A node that speaks to others like one of them.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What it is told next.
    pub fn hears(&self) -> Incoming {
        let incoming = self.cluster.incoming();
        let mut said = None;
        until("something comes", || {
            said = incoming.try_recv().ok();
            said.is_some()
        });
        said.expect("it has come")
    }

    /// Tells whether something has come.
    pub fn has_heard(&self) -> bool {
        !self.cluster.incoming().is_empty()
    }

    /// The next envelope, and its origin.
    pub fn takes(&self) -> (NodeId, Envelope) {
        let incoming = self.cluster.incoming();
        let mut said = None;
        until("an envelope comes", || {
            said = incoming.try_recv().ok();
            // Where the user logs in too, it is asked what the user was shown; and what it refuses is
            // said to have come back.
            let is_beside = |event: &Event| {
                matches!(event, Event::Also { .. } | Event::Shown { .. } | Event::Resumes { .. })
            };
            said.as_ref().is_some_and(|said| !matches!(said, Incoming::Event(event) if is_beside(event)))
        });
        match said {
            Some(Incoming::Envelope { origin, envelope }) => (origin, envelope),
            other => panic!("{other:?} is no envelope"),
        }
    }

    /// Answers an envelope.
    pub fn answers(&self, (origin, envelope): &(NodeId, Envelope), fate: Fate) {
        self.cluster.receipt(origin, envelope.number.expect("no cast"), fate, Instant::now());
    }
}
