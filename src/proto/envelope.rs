//! What one node tells another: a message with its addressing, and what became
//! of it.
//!
//! These are the values; how they are written to bytes is the business of the
//! carrier that needs bytes.

use crate::proto::name::{IdRef, MessageId, UserName, UserRef};

/// One message on its way from the origin to a node that holds sessions of the
/// recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The origin's number for this message: the receipt names it. `None` asks
    /// for no receipt (`CAST`).
    pub number: Option<u64>,
    /// Others have it too: where it is refused it is not routed again.
    pub is_shared: bool,
    /// It was on its way to somebody before: a copy may have been shown.
    pub is_again: bool,
    /// The sender.
    pub from: UserName,
    /// The recipient.
    pub to: UserName,
    /// The message's id.
    pub id: MessageId,
    /// The message's text.
    pub text: String,
}

/// An [`Envelope`] that borrows from the line or batch it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the owned form")]
pub struct EnvelopeRef<'a> {
    pub number: Option<u64>,
    pub is_shared: bool,
    pub is_again: bool,
    pub from: UserRef<'a>,
    pub to: UserRef<'a>,
    pub id: IdRef<'a>,
    pub text: &'a str,
}

impl From<EnvelopeRef<'_>> for Envelope {
    fn from(envelope: EnvelopeRef<'_>) -> Self {
        let EnvelopeRef { number, is_shared, is_again, from, to, id, text } = envelope;
        let (from, to, id, text) = (from.into(), to.into(), id.into(), text.into());
        Envelope { number, is_shared, is_again, from, to, id, text }
    }
}

impl Envelope {
    /// The borrowed form.
    pub fn borrowed(&self) -> EnvelopeRef<'_> {
        let Envelope { number, is_shared, is_again, from, to, id, text } = self;
        let (number, is_shared, is_again) = (*number, *is_shared, *is_again);
        let (from, to, id) = (from.borrowed(), to.borrowed(), id.borrowed());
        EnvelopeRef { number, is_shared, is_again, from, to, id, text }
    }

    /// The memory that the envelope holds, in bytes: what bounds count.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

/// What a receipt tells of one message.
///
/// Of several that a node could tell, the later here counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Written to a session of the recipient.
    Delivered,
    /// The recipient has no session on that node, or none that took it.
    NotHere,
    /// A session of the recipient on that node was shown it, and left without an acknowledgement.
    Left,
    /// Sessions of the recipient on that node were shown it, and none acknowledged it in time.
    Unacked,
}
