//! What the clones of a client and its `Incoming` share: their ends of the channels to
//! the task, and what keeps requests apart.
//!
//! When the last of them is dropped, the channels close, and the task ends. The other
//! ends are the task's ([`Ends`]).

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Semaphore;

use crate::client::config::ClientConfig;
use crate::client::error::{BadInput, SendError};
use crate::client::event::{Event, Place};
use crate::client::received::Received;
use crate::client::request::{Caller, Errand, OpenRequest, OwnId, OwnIds};
use crate::proto::{Request, SessionId, Tag, TaggedRequest};
use crate::random::random_id;

/// The program's side of a client.
pub(super) struct Core {
    pub(super) errands: Sender<Errand>,
    /// One place: asking twice is asking once.
    pub(super) stop: Sender<()>,
    /// Closed by the task when it has ended; nothing ever comes through.
    pub(super) done: Receiver<Infallible>,
    pub(super) place: Arc<Mutex<Place>>,
    pub(super) received: Arc<Received>,
    permits: Arc<Semaphore>,
    /// Fresh for each client, so that no two messages of one user share an id.
    pub(super) tag_prefix: String,
    pub(super) tag_next: AtomicU64,
    own_ids: OwnIds,
    line_bytes_max: usize,
}

/// The task's side of a client.
pub(super) struct Ends {
    pub(super) errands: Receiver<Errand>,
    /// A value, or the end of the channel: stop.
    pub(super) stop: Receiver<()>,
    /// To be closed when every request has its answer.
    pub(super) done: Sender<Infallible>,
    pub(super) events: Sender<Event>,
    /// Written at each login.
    pub(super) place: Arc<Mutex<Place>>,
    pub(super) received: Arc<Received>,
    /// Tells the writer, who may wait for requests, that there is something else.
    pub(super) wake: Sender<()>,
    pub(super) woken: Receiver<()>,
}

impl Core {
    /// Both sides of a client that is at `place`, and the events that its task tells.
    pub(super) fn new(config: &ClientConfig, place: Place) -> (Self, Ends, Receiver<Event>) {
        let (errands_tx, errands_rx) = bounded(ERRANDS_MAX);
        let (events_tx, events_rx) = bounded(EVENTS_MAX);
        let (stop_tx, stop_rx) = bounded(1);
        let (done_tx, done_rx) = bounded(1);
        let (wake, woken) = bounded(1);
        let place = Arc::new(Mutex::new(place));
        let received = Arc::new(Received::new(config.ack, wake.clone()));
        let core = Core {
            errands: errands_tx,
            stop: stop_tx,
            done: done_rx,
            place: place.clone(),
            received: received.clone(),
            permits: Arc::new(Semaphore::new(OUTSTANDING_MAX)),
            tag_prefix: format!("{}-", random_id(10, &SessionId::ALPHABET)),
            tag_next: AtomicU64::new(1),
            own_ids: OwnIds::default(),
            line_bytes_max: config.line_bytes_max,
        };
        let ends = Ends {
            errands: errands_rx,
            stop: stop_rx,
            done: done_tx,
            events: events_tx,
            place,
            received,
            wake,
            woken,
        };
        (core, ends, events_rx)
    }

    /// Prints one request line.
    pub(super) fn line(&self, tag: Option<Tag<'_>>, request: Request<'_>) -> Result<Vec<u8>, BadInput> {
        let mut line = Vec::new();
        TaggedRequest { tag, request: Ok(request) }.print(&mut line);
        if line.len() > self.line_bytes_max {
            return Err(BadInput::TooLong { bytes: line.len(), bytes_max: self.line_bytes_max });
        }
        Ok(line)
    }

    /// Takes an id of the program's own; `None` while it is in use, and for those with
    /// this client's prefix, which are its own to give.
    pub(super) fn claim(&self, id: &str) -> Option<OwnId> {
        (!id.starts_with(&self.tag_prefix)).then(|| self.own_ids.claim(id)).flatten()
    }

    /// Queues a request under a fresh tag; the answer arrives in the channel.
    pub(super) async fn request<T>(
        &self,
        request: Request<'_>,
        caller: fn(Sender<Result<T, SendError>>) -> Caller,
    ) -> Result<Receiver<Result<T, SendError>>, SendError> {
        let number = self.tag_next.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}{number}", self.tag_prefix);
        let tag = Tag::parse(&tag).expect("letters, digits and one -");
        self.request_as(tag, None, request, caller).await
    }

    /// Queues a request under this tag.
    pub(super) async fn request_as<T>(
        &self,
        tag: Tag<'_>,
        own_id: Option<OwnId>,
        request: Request<'_>,
        caller: fn(Sender<Result<T, SendError>>) -> Caller,
    ) -> Result<Receiver<Result<T, SendError>>, SendError> {
        let line = self.line(Some(tag), request)?;
        let permit = self.permits.acquire_arc().await;
        let (tx, rx) = bounded(1);
        let pending = OpenRequest::new(own_id, caller(tx), permit);
        let request = Errand::Request { tag: tag.as_str().into(), pending, line };
        self.errands.send(request).await.map_err(|_| SendError::Closed)?;
        Ok(rx)
    }
}

/// The most requests without a reply. A server answers `ERR limited` beyond as many.
pub(super) const OUTSTANDING_MAX: usize = 1024;
/// The most lines that wait for the task.
const ERRANDS_MAX: usize = 256;
/// The most events that wait in `Incoming`.
pub(super) const EVENTS_MAX: usize = 1024;
