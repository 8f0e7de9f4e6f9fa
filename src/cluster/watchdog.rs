//! The watchdog of the bus: shuts its sockets when a blocking call takes too long.
//!
//! The calls of the AMQP library have no deadline of their own, and only the
//! death of their connection ends them. So a thread looks every now and then
//! whether one is overdue, and if so, shuts the sockets under it.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// A watchdog; its thread ends some time after the last clone is dropped.
#[derive(Clone)]
pub struct Watchdog {
    watched: Arc<Watched>,
}

struct Watched {
    start: Instant,
    /// When the call in progress is overdue, in ms since the start; 0 for no call.
    overdue_ms: AtomicU64,
    sockets: Mutex<Vec<TcpStream>>,
}

/// How often it looks.
const LOOK_TIME: Duration = Duration::from_millis(500);

impl Watchdog {
    /// Starts the thread.
    pub fn start() -> Self {
        let watched =
            Watched { start: Instant::now(), overdue_ms: AtomicU64::new(0), sockets: Mutex::default() };
        let watched = Arc::new(watched);
        let weak = Arc::downgrade(&watched);
        let thread = thread::Builder::new().name("bus-watchdog".to_owned()).stack_size(64 * 1024);
        // Without it, a broker that hangs would hang the bus: no reason to run at all.
        thread.spawn(move || watch(&weak)).expect("there is room for a thread");
        Watchdog { watched }
    }

    /// From now on these are the sockets to shut.
    pub fn sockets(&self, sockets: Vec<TcpStream>) {
        *self.watched.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    }

    /// Runs a blocking call that is overdue after `time_max`; one within another counts alone.
    pub fn limit<T>(&self, time_max: Duration, call: impl FnOnce() -> T) -> T {
        let overdue = self.watched.start.elapsed() + time_max;
        let outer = self.watched.overdue_ms.swap(overdue.as_millis() as u64, SeqCst);
        let result = call();
        self.watched.overdue_ms.store(outer, SeqCst);
        result
    }

    /// Shuts the sockets now, and forgets them: whatever still uses them ends.
    pub fn shut(&self) {
        let mut sockets = self.watched.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.drain(..) {
            // Fails only for one that is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn watch(watched: &Weak<Watched>) {
    loop {
        thread::sleep(LOOK_TIME);
        let Some(watched) = watched.upgrade() else { return };
        let overdue_ms = watched.overdue_ms.load(SeqCst);
        if overdue_ms != 0 && watched.start.elapsed() > Duration::from_millis(overdue_ms) {
            Watchdog { watched }.shut();
        }
    }
}
