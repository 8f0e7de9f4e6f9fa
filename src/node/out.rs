//! What a step of the node has left for other nodes to hear: a list, in order.
//!
//! A step appends, the driver hands all of it to the cluster and empties it; its memory
//! is used again. All bytes stand in one buffer, and what is said to the same node in a
//! row names that node once. Whether anybody can be reached is not known here.

use crate::proto::name::NodeId;
use crate::proto::wire::{Item, Receipt};

/// One thing that is said to another node. `B` is its bytes, `&[u8]`; in the list, where they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say<B> {
    /// A message. One with a ticket asks for a receipt, which brings the ticket back.
    Message {
        /// The node's own number for it.
        ticket: Option<u64>,
        /// It is the first of its lane, or of what goes out again.
        is_first: bool,
        /// What [`put_body`](crate::proto::wire::put_body) composes.
        body: B,
    },
    /// What became of a message of that node, by the number that came with it.
    Receipt(u64, Receipt),
    /// The receipt of that message takes longer.
    Waits(u64),
    /// Anything else: what [`Item::print`] composes.
    Item(B),
}

/// What is to be said.
#[derive(Debug, Default)]
pub struct Says {
    /// To whom, and how many in a row.
    runs: Vec<(NodeId, usize)>,
    says: Vec<Say<usize>>,
    bytes: Vec<u8>,
}

/// Bytes for which the memory is kept.
const BYTES_KEPT_MAX: usize = 256 * 1024;

impl Says {
    /// A message whose body is composed already.
    pub fn message(&mut self, node: &NodeId, ticket: Option<u64>, is_first: bool, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        self.push(node, Say::Message { ticket, is_first, body: self.bytes.len() });
    }

    /// A message that nobody waits for, composed where it is kept.
    pub fn cast(&mut self, node: &NodeId, put_body: impl FnOnce(&mut Vec<u8>)) {
        put_body(&mut self.bytes);
        self.push(node, Say::Message { ticket: None, is_first: false, body: self.bytes.len() });
    }

    /// What became of a message.
    pub fn receipt(&mut self, node: &NodeId, number: u64, receipt: Receipt) {
        self.push(node, Say::Receipt(number, receipt));
    }

    /// The receipt of a message takes longer.
    pub fn waits(&mut self, node: &NodeId, number: u64) {
        self.push(node, Say::Waits(number));
    }

    /// Anything else.
    pub fn item(&mut self, node: &NodeId, item: &Item<'_>) {
        item.print(&mut self.bytes);
        self.push(node, Say::Item(self.bytes.len()));
    }

    /// Tells whether there is nothing to say.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Gives all of it in order, and is empty then.
    pub fn drain(&mut self, mut give: impl FnMut(&NodeId, Say<&[u8]>)) {
        let (mut entries, mut at) = (self.says.drain(..), 0);
        for (node, count) in self.runs.drain(..) {
            for entry in entries.by_ref().take(count) {
                let mut bytes = |end| &self.bytes[std::mem::replace(&mut at, end)..end];
                let say = match entry {
                    Say::Message { ticket, is_first, body } => {
                        Say::Message { ticket, is_first, body: bytes(body) }
                    }
                    Say::Receipt(number, receipt) => Say::Receipt(number, receipt),
                    Say::Waits(number) => Say::Waits(number),
                    Say::Item(end) => Say::Item(bytes(end)),
                };
                give(&node, say);
            }
        }
        drop(entries);
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT_MAX);
        self.says.shrink_to(BYTES_KEPT_MAX / size_of::<Say<usize>>());
    }

    // Inlined, or each is composed twice.
    #[inline(always)]
    fn push(&mut self, node: &NodeId, say: Say<usize>) {
        self.says.push(say);
        match self.runs.last_mut().filter(|(last, _)| last == node) {
            Some((_, count)) => *count += 1,
            None => self.runs.push((node.clone(), 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::name::UserRef;

    #[test]
    fn all_that_was_said_is_given_in_order_once() {
        let (a, b) = (NodeId::new("a", "1").expect("valid"), NodeId::new("b", "1").expect("valid"));
        let item = Item::Mail { user: UserRef::parse("bob").expect("valid") };
        let mut says = Says::default();
        for _ in 0..2 {
            assert!(says.is_empty());
            says.message(&a, Some(7), true, b"one");
            says.receipt(&a, 8, Receipt::Left);
            says.item(&b, &item);
            says.waits(&a, 9);
            says.message(&a, None, false, b"two");
            let mut given = vec![];
            says.drain(|node, say| given.push(format!("{} {say:?}", node.as_str())));
            let mut printed = vec![];
            item.print(&mut printed);
            let expected: [(&str, Say<&[u8]>); 5] = [
                ("a", Say::Message { ticket: Some(7), is_first: true, body: b"one" }),
                ("a", Say::Receipt(8, Receipt::Left)),
                ("b", Say::Item(&printed)),
                ("a", Say::Waits(9)),
                ("a", Say::Message { ticket: None, is_first: false, body: b"two" }),
            ];
            assert_eq!(given, expected.map(|(node, say)| format!("{node}-1 {say:?}")));
        }
    }
}
