//! Room: how many bytes of messages a client that acknowledges may have on their way.
//!
//! A server stops reading a connection whose messages wait for room at their recipient,
//! and then it does not read the `ACK` lines behind them either: two clients that flood
//! each other would wait for each other. But it sets 256 KiB of such lines of a session
//! with `ack` aside and reads on. So a client that stays well below that is always read.
//!
//! Room is counted in units, and taken in turn: what needs much room is not overtaken
//! for ever by what needs little, and no two hold a part each and wait for the rest. A
//! client without `ack` has no use for this.

use std::sync::Arc;

use smol::lock::{Mutex, Semaphore};

/// The room of one client.
pub(super) struct Room {
    /// Held by the one whose turn it is.
    turn: Mutex<()>,
    units: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Self {
        Room { turn: Mutex::new(()), units: Arc::new(Semaphore::new(UNITS)) }
    }

    /// Waits for room for a line; one that is longer than the room takes all of it.
    pub(super) async fn take(&self, bytes: usize) -> Taken {
        let count = bytes.div_ceil(UNIT_BYTES).min(UNITS);
        let _turn = self.turn.lock().await;
        // Whoever gives up waiting gives back what is in here.
        let mut taken = Taken { units: self.units.clone(), count: 0 };
        while taken.count < count {
            self.units.acquire().await.forget();
            taken.count += 1;
        }
        taken
    }
}

/// Room that is taken. Dropped, it is free again.
pub(super) struct Taken {
    units: Arc<Semaphore>,
    count: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.units.add_permits(self.count);
    }
}

/// The most bytes of messages without an answer: half of what the server sets aside.
pub(super) const ROOM_BYTES_MAX: usize = 128 * 1024;
/// So small that 1,024 short messages, the most requests without a reply, have room.
const UNIT_BYTES: usize = 128;
const UNITS: usize = ROOM_BYTES_MAX / UNIT_BYTES;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use smol::future::poll_once;

    use super::*;
    use crate::client::fake::run;

    #[test]
    fn a_line_takes_whole_units_and_at_most_all() {
        run(async {
            let room = Room::new();
            for (bytes, count) in [(1, 1), (128, 1), (129, 2), (65_536, 512), (1 << 20, UNITS)] {
                assert_eq!(poll_once(room.take(bytes)).await.unwrap().count, count);
            }
            let mut taken = vec![];
            while let Some(one) = poll_once(room.take(UNIT_BYTES)).await {
                taken.push(one);
            }
            assert_eq!(taken.len(), UNITS);
        });
    }

    #[test]
    fn a_long_line_is_not_overtaken_and_who_gives_up_holds_nothing() {
        run(async {
            let room = Room::new();
            let half = room.take(ROOM_BYTES_MAX / 2).await;
            let mut long = pin!(room.take(ROOM_BYTES_MAX));
            assert!(poll_once(&mut long).await.is_none());
            // There is room for this one soon, but it is not its turn.
            let mut short = pin!(room.take(1));
            assert!(poll_once(&mut short).await.is_none());
            drop(half);
            assert!(poll_once(&mut short).await.is_none());
            let long = poll_once(&mut long).await.expect("all of it is free");
            assert!(poll_once(&mut short).await.is_none());
            drop(long);
            assert_eq!(short.await.count, 1);
            let half = room.take(ROOM_BYTES_MAX / 2).await;
            // It has taken the other half when it gives up.
            assert!(poll_once(room.take(ROOM_BYTES_MAX)).await.is_none());
            assert!(poll_once(room.take(ROOM_BYTES_MAX / 2)).await.is_some());
            drop(half);
            assert!(poll_once(room.take(ROOM_BYTES_MAX)).await.is_some());
        });
    }
}
