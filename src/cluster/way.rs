//! What is wrong with the way to another node, as its own link sees it: said once a change of state.

use log::{info, warn};

use crate::proto::name::NodeId;

/// What is wrong with the way to another node, and what was last said of that.
#[derive(Default)]
pub struct Way {
    /// What is wrong, if anything is.
    pub trouble: Option<Trouble>,
    told: Option<Trouble>,
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No queue takes what is published for it.
    ComesBack,
    /// What was published never came there.
    Unheard,
}

impl Way {
    /// What is wrong, if that is another thing than was told last; `Some(None)` when all is well again. Of a node
    /// that may be dead nothing is said.
    pub fn news(&mut self, is_living: bool) -> Option<Option<Trouble>> {
        if self.trouble == self.told || (self.trouble.is_some() && !is_living) {
            return None;
        }
        self.told = self.trouble;
        Some(self.trouble)
    }

    /// Logs it.
    pub fn tell(&mut self, node: &NodeId, is_living: bool) {
        let (Some(news), node) = (self.news(is_living), node.as_str()) else { return };
        match news {
            None => info!("messages reach the node {node} again"),
            Some(Trouble::ComesBack) => warn!(
                "messages to the node {node} come back, though it holds its lease: \
                 RabbitMQ has no queue bound for it now"
            ),
            Some(Trouble::Unheard) => warn!(
                "messages to the node {node} were published and never came: look in RabbitMQ at its queue, at \
                 policies on that, and at the bindings of its exchange"
            ),
        }
    }
}
