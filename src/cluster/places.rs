//! Places: where a user is, as answers of presence tell it and as it is remembered.

use std::ops::Deref;
use std::sync::Arc;

use crate::proto::{NodeId, SessionId};

/// A node that holds sessions of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The user's sessions there; never empty.
    pub sessions: Vec<SessionId>,
}

/// All places of a user: one allocation that is shared, none when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Option<Arc<[Place]>>);

impl From<Vec<Place>> for Places {
    fn from(places: Vec<Place>) -> Self {
        Places((!places.is_empty()).then(|| places.into()))
    }
}

impl Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        self.0.as_deref().unwrap_or_default()
    }
}
