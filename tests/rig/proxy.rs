//! A proxy between one node and one service, so that a test can cut that node off.
//!
//! Threads and blocking sockets: one thread accepts, two a connection carry bytes. While it
//! hangs, bytes wait in the proxy and in the kernel, as they do before a machine that has
//! lost its network; nothing tells either side.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketType, sockopt};

/// A way to a service. Cut when dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// There is one unless it is cut.
    listener: Option<(TcpListener, JoinHandle<()>)>,
    /// Bound and never listening: the port is ours while it is cut, and refuses.
    _port: OwnedFd,
}

struct Shared {
    service: SocketAddr,
    /// How much later than it came anything is carried, each way.
    delay: Duration,
    state: Mutex<State>,
    has_changed: Condvar,
}

#[derive(Default)]
struct State {
    hangs: bool,
    /// Both ends of every connection; the end at the service comes later.
    open: HashMap<u64, Vec<TcpStream>>,
    count: u64,
}

impl Proxy {
    /// A way to this address, open.
    pub fn to(service: SocketAddr) -> Self {
        Proxy::far(service, Duration::ZERO)
    }

    /// A long way: what came in one read is carried so much later, and what comes meanwhile waits.
    pub fn far(service: SocketAddr, delay: Duration) -> Self {
        let port = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        // As the listener has it, so that both can have the port.
        sockopt::set_socket_reuseaddr(&port, true).expect("an option that there is");
        net::bind(&port, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let addr = net::getsockname(&port).expect("it is bound").try_into().expect("an IP address");
        let shared = Shared { service, delay, state: Mutex::default(), has_changed: Condvar::new() };
        let mut proxy = Proxy { addr, shared: Arc::new(shared), listener: None, _port: port };
        proxy.heal();
        proxy
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has.
    pub fn connections(&self) -> usize {
        self.shared.state().open.len()
    }

    /// Closes every connection, and refuses new ones.
    pub fn cut(&mut self) {
        if let Some((listener, thread)) = self.listener.take() {
            // Ends `accept`.
            let _ = net::shutdown(&listener, net::Shutdown::Both);
            thread.join().expect("the thread that accepts does not panic");
        }
        let mut state = self.shared.state();
        state.hangs = false;
        // Whoever carries for them finds them closed.
        state.open.drain().for_each(|(_, ends)| ends.iter().for_each(close));
        self.shared.has_changed.notify_all();
    }

    /// Keeps connections open and takes new ones, and carries nothing. What is under way at
    /// this moment may still arrive.
    pub fn hang(&mut self) {
        self.shared.state().hangs = true;
        self.listen();
    }

    /// Carries again, first what has waited.
    pub fn heal(&mut self) {
        self.shared.state().hangs = false;
        self.shared.has_changed.notify_all();
        self.listen();
    }

    fn listen(&mut self) {
        if self.listener.is_some() {
            return;
        }
        let listener = TcpListener::bind(self.addr).expect("the port is ours");
        let accepting = listener.try_clone().expect("a file is free");
        let shared = self.shared.clone();
        let thread = thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                shared.accept(client);
            }
        });
        self.listener = Some((listener, thread));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while it hangs.
    fn carrying(&self) -> MutexGuard<'_, State> {
        let state = self.state();
        self.has_changed.wait_while(state, |state| state.hangs).unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.state();
        state.count += 1;
        let id = state.count;
        state.open.insert(id, vec![client.try_clone().expect("a file is free")]);
        drop(state);
        let shared = self.clone();
        thread::spawn(move || {
            shared.join(id, &client);
            shared.state().open.remove(&id);
            close(&client);
        });
    }

    /// Carries both ways between a client and the service until both are done.
    fn join(&self, id: u64, client: &TcpStream) {
        drop(self.carrying());
        // When there is no service, the client finds its connection closed.
        let Ok(service) = TcpStream::connect(self.service) else { return };
        for end in [client, &service] {
            end.set_nodelay(true).expect("an option that there is");
        }
        match self.state().open.get_mut(&id) {
            Some(ends) => ends.push(service.try_clone().expect("a file is free")),
            // Cut in the meantime.
            None => return,
        }
        thread::scope(|scope| {
            scope.spawn(|| self.carry(client, &service));
            self.carry(&service, client);
        });
    }

    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            drop(self.carrying());
            thread::sleep(self.delay);
            if to.write_all(&bytes[..count]).is_err() {
                // Nothing that the sender says arrives any more; it may know.
                close(from);
            }
        }
        // An end is carried like bytes are.
        drop(self.carrying());
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn close(end: &TcpStream) {
    // Fails only for what is closed already.
    let _ = end.shutdown(Shutdown::Both);
}
