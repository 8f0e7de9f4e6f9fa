//! Listening and accepting.
//!
//! The listener carries the socket options, because what it accepts inherits
//! them: no system call for any of them a connection. Liveness of a silent peer is TCP's work.

use std::future::Future;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::warn;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smol::Executor;

use crate::config::ConfigError;
use crate::conn::{Connection, Shared};
use crate::proto::reply::print_hello;
use crate::proto::{ErrorCode, NodeId, ServerLine};
use crate::readiness::{Gate, Readiness};
use crate::timer::Timer;

/// An open listener.
pub struct Listener {
    socket: TcpListener,
    gate: Arc<Gate>,
    timer: Timer,
    addr: SocketAddr,
    is_http: bool,
}

/// Connections that may wait to be accepted; std asks for 128, which makes
/// login storms crawl. The kernel's own `somaxconn` may be lower.
const BACKLOG: i32 = 4_096;

/// A peer that is silent for so long is asked by TCP whether it is there,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// again after so long,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// so many times.
const KEEPALIVE_PROBES: u32 = 3;

/// Written data that a peer does not acknowledge for so long ends its connection.
const USER_TIMEOUT_MS: u32 = 30_000;

/// Connections that are accepted before other tasks have their turn.
const ACCEPTS_MAX: usize = 64;

/// How long to wait when there are no files for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// Listens on `addr`, which came from the setting `setting`.
    ///
    /// # Errors
    /// One sentence naming both.
    pub fn bind(
        setting: &str,
        addr: SocketAddr,
        is_http: bool,
        readiness: &Readiness,
    ) -> Result<Self, ConfigError> {
        let listener = Self::try_bind(addr, is_http, readiness);
        listener.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "is in use already: it takes a free port, or :0 for any".to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "is not allowed to this user: ports below 1024 often are not".to_owned()
                }
                io::ErrorKind::AddrNotAvailable => "is not an address of this machine".to_owned(),
                _ => format!("can't be listened on: {error}"),
            };
            ConfigError(format!("--{setting} {addr} {why}"))
        })
    }

    fn try_bind(addr: SocketAddr, is_http: bool, readiness: &Readiness) -> io::Result<Self> {
        let socket = TcpListener::bind(addr)?;
        rustix::net::listen(&socket, BACKLOG)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
        sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
        let addr = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        let gate = readiness.gate(&socket)?;
        let timer = Timer::new(readiness)?;
        Ok(Listener { socket, gate, timer, addr, is_http })
    }

    /// The address, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Tells whether HTTP is spoken here.
    pub fn is_http(&self) -> bool {
        self.is_http
    }

    /// Waits a little: out of files or memory, mostly, and others have to leave first.
    async fn pause(&self, error: &io::Error, was_failing: &mut bool) {
        if !std::mem::replace(was_failing, true) {
            warn!("{}: can't accept: {error}", self.addr);
        }
        self.timer.after(ACCEPT_PAUSE).await;
    }

    /// Waits for the next connection; its socket does not block.
    async fn accept_one(&self) -> io::Result<TcpStream> {
        loop {
            match accept_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(socket.into()),
                Err(Errno::AGAIN) => self.gate.open().await,
                // A peer that has given up already is no failure.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Accepts connections, each a task of `executor`, until it is dropped.
    pub fn accept(
        self,
        shared: Arc<Shared>,
        connections_max: usize,
        executor: &Arc<Executor<'static>>,
    ) -> impl Future<Output = ()> + Send + 'static {
        // A task that held its executor for good would be a ring that never drops.
        let executor: Weak<Executor<'static>> = Arc::downgrade(executor);
        async move {
            let (mut was_full, mut was_failing) = (false, false);
            for count in 1_usize.. {
                if count % ACCEPTS_MAX == 0 {
                    smol::future::yield_now().await;
                }
                match self.accept_one().await {
                    Ok(socket) if shared.roll.len() >= connections_max => {
                        if !std::mem::replace(&mut was_full, true) {
                            warn!("full: --connections {connections_max}; further ones are turned away");
                        }
                        shared.router.metrics().turned_away.add();
                        turn_away(&socket, self.is_http, &shared.router.cluster().node());
                    }
                    Ok(socket) => match Connection::new(shared.clone(), socket, self.is_http) {
                        Ok(connection) => {
                            (was_full, was_failing) = (false, false);
                            let Some(executor) = executor.upgrade() else { return };
                            executor.spawn(connection).detach();
                        }
                        Err(error) => {
                            shared.router.metrics().turned_away.add();
                            self.pause(&error, &mut was_failing).await;
                        }
                    },
                    Err(error) => self.pause(&error, &mut was_failing).await,
                }
            }
        }
    }
}

/// Tells a peer that there is no room for it; whatever its socket does not take at once is lost.
fn turn_away(mut socket: &TcpStream, is_http: bool, node: &NodeId) {
    let mut words = vec![];
    if is_http {
        words.extend_from_slice(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    } else {
        let text = "this node has as many connections as it may have";
        print_hello(node.as_str(), &mut words);
        words.push(b'\n');
        ServerLine::Err { code: ErrorCode::TooMany, text }.print(&mut words);
        words.push(b'\n');
    }
    let _ = socket.write(&words);
}

/// Raises the number of files that this process may open as far as it may be
/// raised, and returns it.
pub fn files_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all still leaves the kernel's own, which is about a million by default.
    current.map_or(1 << 20, |count| usize::try_from(count).unwrap_or(usize::MAX))
}
