//! The watchdog of the bus: shuts its sockets when a blocking call takes too long.
//!
//! The calls of the AMQP library have no deadline of their own, and only the
//! death of their connection ends them. So a thread looks every now and then
//! whether one is overdue, and if so, shuts the sockets under it.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// A watchdog; its thread ends some time after the last clone is dropped.
#[derive(Clone, Default)]
pub struct Watchdog(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    /// When the call in progress is overdue, if there is one.
    overdue: Option<Instant>,
    sockets: Vec<TcpStream>,
}

/// How often it looks.
const LOOK_TIME: Duration = Duration::from_millis(500);

impl Watchdog {
    /// Starts the thread.
    pub fn start() -> Self {
        let watchdog = Watchdog::default();
        let weak = Arc::downgrade(&watchdog.0);
        let thread = thread::Builder::new().name("bus-watchdog".to_owned()).stack_size(64 * 1024);
        // Without it, a broker that hangs would hang the bus: no reason to run at all.
        thread.spawn(move || watch(&weak)).expect("there is room for a thread");
        watchdog
    }

    /// From now on these are the sockets to shut.
    pub fn sockets(&self, sockets: Vec<TcpStream>) {
        self.lock().sockets = sockets;
    }

    /// Runs a blocking call that is overdue after `time_max`; one within another counts alone.
    pub fn limit<T>(&self, time_max: Duration, call: impl FnOnce() -> T) -> T {
        let outer = self.lock().overdue.replace(Instant::now() + time_max);
        let result = call();
        self.lock().overdue = outer;
        result
    }

    /// Shuts the sockets now, and forgets them: whatever still uses them ends.
    pub fn shut(&self) {
        for socket in self.lock().sockets.drain(..) {
            // Fails only for one that is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(watched: &Weak<Mutex<Watched>>) {
    loop {
        thread::sleep(LOOK_TIME);
        let Some(watchdog) = watched.upgrade().map(Watchdog) else { return };
        let is_overdue = watchdog.lock().overdue.is_some_and(|overdue| overdue < Instant::now());
        if is_overdue {
            watchdog.shut();
        }
    }
}
