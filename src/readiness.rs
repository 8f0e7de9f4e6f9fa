//! Tells when sockets are ready, for as many of them as a node has.
//!
//! One epoll instance, edge-triggered: a socket is registered once, for both directions, and no system
//! call follows however often it becomes ready. A runtime that serves everybody has to ask again for
//! each event, and keeps some 220 bytes for each socket; a node has only one question, and keeps
//! nothing. Who is told is the caller's business, who gives every socket a number.
//!
//! Edge-triggered means: whoever is told reads until the socket has no more, or a
//! read comes back shorter than it could be and the peer has not hung up (epoll(7)).
//!
//! Left out: systems other than Linux.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// Sockets, and what wakes who waits for them.
pub struct Readiness {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    gates: Mutex<Vec<Arc<Gate>>>,
}

/// What a socket is ready for, or what else its connection is told, as bits.
pub type Ready = u8;

/// There is something to read.
pub const READABLE: Ready = 1;
/// There is room to write.
pub const WRITABLE: Ready = 2;
/// The peer says no more, or the socket is broken: reading will tell.
pub const HUNG: Ready = 4;
/// A deadline of the connection has come. No socket tells that, but it goes the same way.
pub const DUE: Ready = 8;

/// Ends the wait of a thread in [`Readiness::wait`]: the waker of what that thread runs.
pub struct Bell {
    event: OwnedFd,
    state: AtomicU8,
}

/// A file that one task waits for, such as a listener.
#[derive(Default)]
pub struct Gate {
    is_open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Nobody waits, and nothing was rung.
const QUIET: u8 = 0;
/// Somebody waits.
const WAITING: u8 = 1;
/// It was rung: the next wait does not wait.
const RUNG: u8 = 2;

/// Events of one wait.
const EVENTS_MAX: usize = 256;

/// The bell's number.
const BELL: u64 = u64::MAX;
/// Gates are numbered from here; sockets below.
const GATES: u64 = 1 << 63;

impl Readiness {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the system has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // It is never read: each write is an edge of its own.
        add(&epoll, event.as_fd(), BELL, epoll::EventFlags::IN)?;
        let bell = Bell { event, state: AtomicU8::new(QUIET) };
        Ok(Readiness { epoll, bell: Arc::new(bell), gates: Mutex::default() })
    }

    /// Watches a socket from now on, until it is closed. What it is ready for already is told, too.
    ///
    /// # Errors
    /// When the system has no room for one more.
    pub fn watch(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP;
        add(&self.epoll, socket.as_fd(), number as u64, both)
    }

    /// Watches a file that one task reads.
    ///
    /// # Errors
    /// As [`Readiness::watch`].
    pub fn gate(&self, file: impl AsFd) -> io::Result<Arc<Gate>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        add(&self.epoll, file.as_fd(), GATES + gates.len() as u64, epoll::EventFlags::IN)?;
        let gate = Arc::new(Gate::default());
        gates.push(gate.clone());
        Ok(gate)
    }

    /// Waits until something is ready, the bell is rung, or `time_max` is over; without `time_max` there is
    /// no end to it. Appends what sockets are ready for now.
    ///
    /// # Errors
    /// None that could be mended.
    pub fn wait(&self, time_max: Option<Duration>, ready: &mut Vec<(usize, Ready)>) -> io::Result<()> {
        let time_max = time_max.map(|time| Timespec::try_from(time).expect("a few seconds fit"));
        let mut room = [MaybeUninit::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut room, time_max.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            // Copied out: the kernel's struct is packed.
            let (number, flags) = (event.data.u64(), event.flags);
            match number {
                BELL => {}
                GATES.. => self.open_gate((number - GATES) as usize),
                _ => ready.push((number as usize, bits(flags))),
            }
        }
        Ok(())
    }

    /// What ends a wait.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// The epoll instance: readable when a wait would not wait.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn open_gate(&self, at: usize) {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates[at].clone();
        drop(gates);
        gate.is_open.store(true, SeqCst);
        let waker = gate.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Gate {
    /// Waits until there is something new to read since the last call. The caller reads all there is.
    pub async fn open(&self) {
        std::future::poll_fn(|context| {
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            if self.is_open.swap(false, SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Bell {
    /// Tells how long the next [`Readiness::wait`] may take: without end, or not at all because the
    /// bell was rung since the last one.
    pub fn begin_wait(&self) -> Option<Duration> {
        match self.state.swap(WAITING, SeqCst) {
            RUNG => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// That wait is over.
    pub fn end_wait(&self) {
        // What rang meanwhile has ended the wait: that is all it was for.
        self.state.swap(QUIET, SeqCst);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, SeqCst) == WAITING {
            // It is never full: that takes 2^64 - 1 of them.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

fn add(epoll: &OwnedFd, file: BorrowedFd<'_>, number: u64, wanted: epoll::EventFlags) -> io::Result<()> {
    Ok(epoll::add(epoll, file, epoll::EventData::new_u64(number), wanted | epoll::EventFlags::ET)?)
}

fn bits(flags: epoll::EventFlags) -> Ready {
    let is = |flags: epoll::EventFlags, wanted, bit| if flags.intersects(wanted) { bit } else { 0 };
    let hung = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
    is(flags, epoll::EventFlags::IN, READABLE)
        | is(flags, epoll::EventFlags::OUT, WRITABLE)
        | is(flags, hung, HUNG)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(30));
    const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let here = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        (here, listener.accept().expect("it connected").0)
    }

    fn ready(readiness: &Readiness, time_max: Option<Duration>) -> Vec<(usize, Ready)> {
        let mut ready = vec![];
        readiness.wait(time_max, &mut ready).expect("it is open");
        ready
    }

    #[test]
    fn each_change_is_told_once() {
        let readiness = Readiness::new().expect("a file");
        let (mut here, there) = pair();
        readiness.watch(&there, 7).expect("a socket");
        assert_eq!(ready(&readiness, LONG), [(7, WRITABLE)], "what it is ready for already");
        assert_eq!(ready(&readiness, NOT_AT_ALL), []);
        for _ in 0..2 {
            here.write_all(b"x").expect("it takes that");
            assert_eq!(ready(&readiness, LONG), [(7, READABLE | WRITABLE)], "though nobody has read");
            assert_eq!(ready(&readiness, NOT_AT_ALL), []);
        }
        drop(here);
        let [(7, last)] = ready(&readiness, LONG)[..] else { panic!("the end is told") };
        assert_eq!(last & HUNG, HUNG);
        drop(there);
        assert_eq!(ready(&readiness, NOT_AT_ALL), [], "closed is not watched");
    }

    #[test]
    fn the_bell_ends_a_wait_and_is_not_forgotten_between_two() {
        let readiness = Readiness::new().expect("a file");
        let bell = readiness.bell();
        Waker::from(bell.clone()).wake();
        assert_eq!(bell.begin_wait(), NOT_AT_ALL, "it was rung before");
        bell.end_wait();
        assert_eq!(bell.begin_wait(), None);
        let waker = Waker::from(bell.clone());
        let ringing = thread::spawn(move || waker.wake());
        // Rung before this wait begins or while it lasts: it ends either way.
        assert_eq!(ready(&readiness, LONG), []);
        bell.end_wait();
        ringing.join().expect("no panic");
        assert_eq!(bell.begin_wait(), None, "once is enough");
        bell.end_wait();
    }

    #[test]
    fn a_gate_opens_for_the_task_that_waits() {
        let readiness = Readiness::new().expect("a file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let gate = readiness.gate(&listener).expect("a file");
        let woken = readiness.bell();
        let waker = Waker::from(woken.clone());
        let mut context = std::task::Context::from_waker(&waker);
        let mut open = std::pin::pin!(gate.open());
        assert!(open.as_mut().poll(&mut context).is_pending());
        let _peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        assert_eq!(ready(&readiness, LONG), [], "a gate is no socket");
        assert_eq!(woken.begin_wait(), NOT_AT_ALL, "its task was woken");
        assert!(open.as_mut().poll(&mut context).is_ready());
    }
}
