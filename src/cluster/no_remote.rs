//! What stands in the place of the remote cluster in a node built without the feature `cluster`.
//!
//! There is no value of this [`Remote`], so nothing here is ever called, and the
//! compiler leaves it out. It is here so that whatever is above the seam is the
//! same in both builds. The settings refuse `--redis` and `--amqp` first
//! (`config/no_services.rs`).

use std::convert::Infallible;
use std::time::{Duration, Instant};

use smol::channel::Receiver;

use crate::cluster::{Answer, Incoming, Mail, Places, Said, Stored, Unavailable, Welcome};
use crate::config::{Amqp, Redis};
use crate::mailbox::Limits;
use crate::outbox::{SeenKeys, Shown};
use crate::proto::{Envelope, EnvelopeRef, Fate, NodeId, SessionId, UserName, UserRef};

/// One node's end of a cluster of several machines: there is none in this build.
pub struct Remote(Infallible);

#[allow(clippy::needless_pass_by_value, reason = "the calls are those of the real one")]
impl Remote {
    /// Starts a cluster, if there could be one.
    pub fn start(_: &str, redis: Redis, _: Amqp, _: usize, _: Limits) -> Self {
        redis.never()
    }

    /// Waits until this node can be reached by others.
    pub fn wait_until_joined(&self, _: Duration) -> bool {
        match self.0 {}
    }

    pub(super) fn node(&self) -> NodeId {
        match self.0 {}
    }

    pub(super) fn incoming(&self) -> Receiver<Incoming> {
        match self.0 {}
    }

    pub(super) fn register(&self, _: &UserName, _: SessionId, _: u64) -> Answer<Welcome> {
        match self.0 {}
    }

    pub(super) fn unregister(&self, _: &UserName, _: SessionId, _: Shown, _: u64) -> bool {
        match self.0 {}
    }

    pub(super) fn left(&self, _: &UserName) -> Vec<u64> {
        match self.0 {}
    }

    pub(super) fn seen_keys(&self) -> SeenKeys {
        match self.0 {}
    }

    pub(super) fn has_mailboxes(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn store(&self, _: &Envelope, _: u64) -> Answer<(Stored, Places)> {
        match self.0 {}
    }

    pub(super) fn read(&self, _: &UserName, _: SessionId, _: u64) -> Answer<Mail> {
        match self.0 {}
    }

    pub(super) fn take(&self, _: &UserName, _: u64, _: Vec<u64>) {
        match self.0 {}
    }

    pub(super) fn release(&self, _: SessionId) {
        match self.0 {}
    }

    pub(super) fn tell_resumes(&self, _: &NodeId, _: &UserName) {
        match self.0 {}
    }

    pub(super) fn tell_mail(&self, _: &NodeId, _: &UserName) {
        match self.0 {}
    }

    pub(super) fn tell_waits(&self, _: &NodeId, _: u64) {
        match self.0 {}
    }

    pub(super) fn tell_shown(&self, _: &NodeId, _: &UserName, _: u64, _: &[u64]) {
        match self.0 {}
    }

    pub(super) fn expire(&self, _: Instant) {
        match self.0 {}
    }

    pub(super) fn locate(&self, _: UserRef<'_>, _: bool, _: Instant) -> Answer<Places> {
        match self.0 {}
    }

    pub(super) fn recall(&self, _: UserRef<'_>, _: bool, _: Instant) -> Option<Places> {
        match self.0 {}
    }

    pub(super) fn ask(&self, _: UserRef<'_>, _: bool) -> Answer<Places> {
        match self.0 {}
    }

    pub(super) fn forget(&self, _: UserRef<'_>) {
        match self.0 {}
    }

    pub(super) fn forward(&self, _: &NodeId, _: EnvelopeRef<'_>, _: Instant) -> Result<(), Unavailable> {
        match self.0 {}
    }

    pub(super) fn receipt(&self, _: &NodeId, _: u64, _: Fate, _: Instant) {
        match self.0 {}
    }

    pub(super) fn replace(&self, _: &NodeId, _: &UserName, _: SessionId) {
        match self.0 {}
    }

    pub(super) fn flush(&self) {
        match self.0 {}
    }

    pub(super) fn unpack(&self, _: u64, _: &[u8], _: &mut dyn FnMut(Said<'_>)) {
        match self.0 {}
    }

    pub(super) fn leave(&self) {
        match self.0 {}
    }
}
