//! What a batch from another node says to this one: all of it, or nothing.
//!
//! A batch is read whole, then the links count it and find the tickets that its receipts
//! are for, and then the node is given what it says, item by item: the links are not held
//! while the node works.

use std::cell::Cell;
use std::time::Instant;

use log::warn;

use crate::cluster::link::Heard;
use crate::cluster::links::Links;
use crate::node::seam::Said;
use crate::proto::name::NodeId;
use crate::proto::wire::BadBatch;
use crate::proto::wire::Head;
use crate::proto::wire::Item;

/// Reads batches.
#[derive(Default)]
pub struct Unpacker {
    /// A batch made no sense; said once.
    was_puzzled: Cell<bool>,
}

/// A batch that makes sense.
pub struct Unpacked<'a> {
    head: Head,
    items: Vec<Item<'a>>,
    /// The tickets of all receipts in it, and of all that it takes longer for, in order.
    tickets: Vec<u64>,
    /// What the node knows its first message by.
    number: u64,
}

impl Unpacker {
    /// Reads a batch; `None` when it makes no sense.
    pub fn read<'a>(&self, batch: &'a [u8]) -> Option<Unpacked<'a>> {
        let read = Head::parse(batch).and_then(|(head, items)| {
            let items = items.collect::<Result<Vec<_>, BadBatch>>().ok()?;
            Some(Unpacked { head, items, tickets: vec![], number: 0 })
        });
        if read.is_none() && !self.was_puzzled.replace(true) {
            warn!("a batch of {} bytes makes no sense, and is dropped; so are others like it", batch.len());
        }
        read
    }
}

impl Unpacked<'_> {
    /// The links count the batch, which came to the incarnation `epoch`. Of one that is not the next on
    /// its link nothing is left.
    pub fn hear(&mut self, epoch: u64, links: &mut Links, now: Instant) {
        let (from, tickets) = (&self.head.from, &mut self.tickets);
        if links.hear(epoch, &self.head, now) == Heard::Nothing {
            return self.items.clear();
        }
        self.number = links.number(self.head.first);
        for item in &mut self.items {
            let before = tickets.len();
            // From here on a count is that of the tickets that were found.
            match item {
                Item::Receipts { first, count, .. } => {
                    links.settle(from, *first, *count, tickets);
                    *count = (tickets.len() - before) as u64;
                }
                Item::Waits { first, count } => {
                    links.waits(from, *first, *count, tickets);
                    *count = (tickets.len() - before) as u64;
                }
                _ => {}
            }
        }
    }

    /// Gives what the batch says, in order.
    pub fn give(self, take: &mut dyn FnMut(&NodeId, Said<'_>)) {
        let Unpacked { head, items, tickets, mut number } = self;
        let mut rest = &tickets[..];
        let mut next = |count: u64| rest.split_off(..count as usize).expect("they were counted");
        for item in items {
            let said = match item {
                Item::Message(message) => {
                    let number_of_this = message.asks.then_some(number);
                    number += u64::from(message.asks);
                    Said::Message { number: number_of_this, message }
                }
                Item::Receipts { count: 0, .. } | Item::Waits { count: 0, .. } => continue,
                Item::Receipts { receipt, count, .. } => Said::Receipts { receipt, tickets: next(count) },
                Item::Waits { count, .. } => Said::Waits { tickets: next(count) },
                item => Said::Other(item),
            };
            take(&head.from, said);
        }
    }
}
