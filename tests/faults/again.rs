//! What is done again and again beside a test, and what came of it each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long it rests each time.
const PAUSE: Duration = Duration::from_millis(10);

/// Something that is done until this is ended.
pub struct Again<P, T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(P, Vec<Done<T>>)>>,
}

/// One time of many.
#[derive(Debug)]
pub struct Done<T> {
    /// When it began.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    pub what: T,
}

impl<P: Send + 'static, T: Send + 'static> Again<P, T> {
    /// Lets these people do it.
    pub fn start(mut people: P, mut act: impl FnMut(&mut P) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut done = vec![];
            while !stopped.load(Relaxed) {
                let at = Instant::now();
                let what = act(&mut people);
                done.push(Done { at, took: at.elapsed(), what });
                thread::sleep(PAUSE);
            }
            (people, done)
        });
        Again { stop, thread: Some(thread) }
    }

    /// Ends it: the people, and what came of it.
    pub fn end(mut self) -> (P, Vec<Done<T>>) {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("taken once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<P, T> Drop for Again<P, T> {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Without a test's end there is nothing to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The longest time that one took.
pub fn slowest<T>(done: &[Done<T>]) -> Duration {
    done.iter().map(|done| done.took).max().unwrap_or_default()
}
