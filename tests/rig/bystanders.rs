//! Two users who have nothing to do with an attack, and must not notice it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::peer::{Peer, delivered, message};

/// Two users who talk to each other all the time. Every message must arrive, in
/// order, with its `OK`, and each round of messages within [`ROUND_TIME_MAX`].
pub struct Bystanders {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Talked>>,
}

/// What the bystanders came to.
#[derive(Debug)]
pub struct Talked {
    /// Messages that arrived.
    pub messages: usize,
    /// How long the slowest round took.
    pub slowest: Duration,
}

/// How long a few messages there and back may take.
const ROUND_TIME_MAX: Duration = Duration::from_secs(5);

/// Messages of one round, each way.
const ROUND: usize = 4;

impl Bystanders {
    /// Logs them in and lets them begin.
    pub fn start(addr: SocketAddr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Relaxed);
        let names = [format!("near-{n}"), format!("far-{n}")];
        let mut peers = [Peer::login(addr, &names[0]), Peer::login(addr, &names[1])];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut talked = Talked { messages: 0, slowest: Duration::ZERO };
            loop {
                // Read first: the last round begins after the attack has ended.
                let is_last = stopped.load(Relaxed);
                let start = Instant::now();
                round(&mut peers, &names, &mut talked.messages);
                talked.slowest = talked.slowest.max(start.elapsed());
                if is_last {
                    return talked;
                }
            }
        });
        Bystanders { stop, thread: Some(thread) }
    }

    /// Ends the talk with one more round, and tells that nothing was noticed.
    pub fn noticed_nothing(mut self) -> Talked {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("taken once");
        let talked = thread.join().expect("the bystanders have noticed something");
        assert!(talked.slowest < ROUND_TIME_MAX, "the bystanders had to wait: {talked:?}");
        talked
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Without a test's end there is nothing to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn round(peers: &mut [Peer; 2], names: &[String; 2], count: &mut usize) {
    for (from, to) in [(0, 1), (1, 0)] {
        let lines: String =
            (0..ROUND).map(|n| format!("SEND {} message {}\n", names[to], *count + n)).collect();
        peers[from].raw(lines.as_bytes());
        for n in 0..ROUND {
            let line = peers[to].hear();
            let expected = format!("message {}", *count + n);
            let (who, id, text) = message(&line).expect("a bystander hears only messages");
            assert_eq!((who, text), (&names[from][..], &expected[..]));
            let reply = peers[from].hear();
            assert_eq!(delivered(&reply), Some(id), "{reply:?}");
        }
        *count += ROUND;
    }
}
