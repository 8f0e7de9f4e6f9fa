//! What runs a node's tasks and tells its sockets' events, in one of two ways.
//!
//! On a thread of its own ([`alone`]), as the command runs, the thread sleeps in the node's own
//! epoll: one system call takes in what became ready on all sockets. As a future among others
//! ([`within`]), as in a program that embeds a node, that epoll is one file that the
//! runtime watches. Both run the same tasks, a few between two looks for events.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use smol::future::FutureExt;
use smol::{Async, Executor};

use crate::conn::Shared;
use crate::readiness::Ready;

/// Tasks that run between two looks for events: some 50 us of work.
const STEP_TASKS: usize = 24;

/// Runs `serve` and all tasks until it ends, on this thread.
pub fn alone(shared: &Shared, executor: &Executor<'static>, serve: impl Future<Output = ()>) {
    let bell = shared.readiness.bell();
    let waker = Waker::from(bell.clone());
    let mut context = Context::from_waker(&waker);
    let mut all = pin!(serve.or(tasks(executor)));
    let mut ready = vec![];
    while all.as_mut().poll(&mut context).is_pending() {
        let time_max = bell.begin_wait();
        tell_events(shared, time_max, &mut ready).expect("an epoll instance that is open can be waited for");
        bell.end_wait();
    }
}

/// The same as a future of somebody else's runtime.
///
/// # Errors
/// When the runtime can't watch one more file.
pub async fn within(
    shared: Arc<Shared>,
    executor: &Executor<'static>,
    serve: impl Future<Output = ()>,
) -> io::Result<()> {
    let epoll = Async::new_nonblocking(shared.readiness.as_fd().try_clone_to_owned()?)?;
    let events = executor.spawn(async move {
        let mut ready = vec![];
        loop {
            epoll.readable().await?;
            tell_events(&shared, Some(Duration::ZERO), &mut ready)?;
        }
    });
    let served = async {
        serve.await;
        Ok(())
    };
    served.or(events).or(async { tasks(executor).await }).await
}

/// Tells every socket that became ready, waiting for the first for so long. `ready` is empty before and
/// after: its room is used again.
fn tell_events(
    shared: &Shared,
    time_max: Option<Duration>,
    ready: &mut Vec<(usize, Ready)>,
) -> io::Result<()> {
    shared.readiness.wait(time_max, ready)?;
    shared.roll.tell_ready(ready);
    ready.clear();
    Ok(())
}

/// Runs tasks for ever, and comes back for a look for events every few of them.
async fn tasks<T>(executor: &Executor<'static>) -> T {
    loop {
        for _ in 0..STEP_TASKS {
            if !executor.try_tick() {
                executor.tick().await;
            }
        }
        smol::future::yield_now().await;
    }
}
