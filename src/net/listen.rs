//! Listening and accepting.
//!
//! The listener carries the socket options, because what it accepts inherits
//! them: no system call for any of them a connection. Liveness of a silent peer is TCP's work.

use std::io;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use log::warn;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smol::{Async, LocalExecutor, Timer};

use crate::config::ConfigError;
use crate::net::connection::ConnectionTask;
use crate::net::driver::Driver;
#[cfg(feature = "websocket")]
use crate::net::http;
use crate::proto::name::NodeId;
use crate::proto::reply::{ErrorCode, ServerLine, print_hello};

/// An open listener.
pub struct Listener {
    socket: Async<TcpListener>,
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

/// Written data that a peer does not acknowledge for so long ends its connection. Where a system has no such option,
/// TCP's own patience with a lost peer does, and a full outbox long before that.
#[cfg(target_os = "linux")]
const USER_TIMEOUT_MS: u32 = 30_000;

/// Connections that are accepted before other tasks have their turn.
const ACCEPTS_MAX: usize = 64;

/// How long to wait when there are no files for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said at most that connections are turned away, or can't be accepted.
const SAY_TIME: Duration = Duration::from_secs(1);

impl Listener {
    /// Listens on `addr`, which came from the setting `setting`.
    ///
    /// # Errors
    /// One sentence naming both.
    pub fn bind(setting: &str, addr: SocketAddr, is_http: bool) -> Result<Self, ConfigError> {
        Self::try_bind(addr, is_http).map_err(|error| {
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

    fn try_bind(addr: SocketAddr, is_http: bool) -> io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpListener::bind(addr)? } else { bind_ipv6(addr)? };
        rustix::net::listen(&socket, BACKLOG)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        // A telnet client sends the last byte of some commands as urgent data: it stays where it belongs.
        sockopt::set_socket_oobinline(&socket, true)?;
        // OpenBSD has these for the whole system only.
        #[cfg(not(target_os = "openbsd"))]
        {
            sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
            sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
            sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
        }
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
        let addr = socket.local_addr()?;
        Ok(Listener { socket: Async::new(socket)?, addr, is_http })
    }

    /// The address, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Tells whether HTTP is spoken here.
    pub fn is_http(&self) -> bool {
        self.is_http
    }

    /// Accepts connections, each a task of `executor`, until it is dropped.
    pub async fn accept(
        self,
        driver: Rc<Driver>,
        connections_max: usize,
        // A task that held its executor for good would be a ring that never drops.
        executor: Weak<LocalExecutor<'static>>,
    ) {
        let (mut refused, mut failed) = (Rarely::default(), Rarely::default());
        for count in 1_usize.. {
            if count.is_multiple_of(ACCEPTS_MAX) {
                smol::future::yield_now().await;
            }
            match self.socket.accept().await {
                Ok((socket, _)) if driver.connections() >= connections_max => {
                    let node = driver.step(|node, now| {
                        if let Some(count) = refused.count(now) {
                            warn!(
                                "full: --connections {connections_max}; turned away since last said: {count}"
                            );
                        }
                        node.counters().turned_away += 1;
                        node.id().clone()
                    });
                    driver.publish();
                    turn_away(socket.get_ref(), self.is_http, &node);
                }
                Ok((socket, _)) => {
                    let Some(executor) = executor.upgrade() else { return };
                    let connection = ConnectionTask::new(driver.clone(), socket, self.is_http);
                    match self.is_http {
                        #[cfg(feature = "websocket")]
                        true => executor.spawn(http::serve(connection)).detach(),
                        _ => executor.spawn(connection.serve()).detach(),
                    }
                }
                // A peer that has given up already is no failure.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Out of files or memory, mostly, and others have to leave first.
                Err(error) => {
                    if let Some(count) = failed.count(Instant::now()) {
                        warn!("{}: can't accept: {error}; failed since last said: {count}", self.addr);
                    }
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What happens so often that it is not always said.
#[derive(Default)]
struct Rarely {
    count: u64,
    said: Option<Instant>,
}

impl Rarely {
    /// It has happened: how often since it was said last, if it is to be said now.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        let is_rare = self.said.is_none_or(|said| now.duration_since(said) >= SAY_TIME);
        is_rare.then(|| {
            self.said = Some(now);
            std::mem::take(&mut self.count)
        })
    }
}

/// What `std` does, but for IPv6 alone: else, on many systems, `[::]` is every IPv4 address, too, and both at one port
/// can't be had.
fn bind_ipv6(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    Ok(socket.into())
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_flood_is_said_once_a_second_with_its_count() {
        let (mut flood, start) = (Rarely::default(), Instant::now());
        let said: Vec<u64> =
            (0..5_000).filter_map(|ms| flood.count(start + Duration::from_millis(ms))).collect();
        assert_eq!(said, [1, 1_000, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn one_port_is_had_for_both_families() {
        // All addresses of the machine, for a moment, and nobody is accepted.
        let (first, second) = (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), Ipv4Addr::UNSPECIFIED);
        if Listener::bind("listen", first, false).is_err() {
            eprintln!("not tested: this machine has no IPv6");
            return;
        }
        let is_had = (0..10).any(|_| {
            let ipv6 = Listener::bind("listen", first, false).expect("there is IPv6");
            // Somebody else may have that port.
            Listener::bind("listen", (second, ipv6.addr().port()).into(), false).is_ok()
        });
        assert!(is_had);
        let again = Listener::bind("listen", first, false).expect("there is IPv6");
        let error = Listener::bind("http", again.addr(), true).err().expect("it is in use");
        assert!(error.0.contains("is in use already"), "{error}");
    }
}
