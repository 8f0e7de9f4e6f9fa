//! The servers that people would use for what pinpost does, as they are started
//! here: Debian's packages, installed by `tests/needs.sh peers`.
//!
//! Each is a process of its own on a free port of loopback, without TLS,
//! passwords and storage, with the limits that the load needs, and ends with this
//! program, however it ends. Nothing of the system's configuration is read, and no
//! service of the system is touched.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::dialect::{Dialect, Verb};
use crate::machine::Cores;
use crate::server::Server;

/// A server of somebody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Nats,
}

impl Peer {
    /// Starts it on the server's core, and waits until it takes connections.
    pub fn start(self, cores: Cores) -> io::Result<Server> {
        let port = free_port()?;
        let port_text = port.to_string();
        match self {
            Peer::Nats => {
                start(cores, "nats-server", &["--addr", "127.0.0.1", "--port", &port_text], port, "")
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Peer::Nats => "nats",
        }
    }

    pub fn dialect(self) -> Dialect {
        match self {
            Peer::Nats => Dialect::Nats,
        }
    }

    /// How it sends messages.
    pub fn verb(self) -> Verb {
        match self {
            Peer::Nats => Verb::Cast,
        }
    }

    /// The version, as the program itself tells it.
    pub fn version(self) -> io::Result<String> {
        let (program, argument) = match self {
            Peer::Nats => ("nats-server", "--version"),
        };
        let output = Command::new(program).arg(argument).env("PATH", path()).output();
        let output = output.map_err(|error| is_missing(program, &error))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Starts a program that will listen on this port of loopback, and waits until it does. `input` is what
/// it reads from its standard input.
pub fn start(cores: Cores, program: &str, arguments: &[&str], port: u16, input: &str) -> io::Result<Server> {
    // This program itself, which becomes the other one.
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(LAUNCH).arg(program).args(arguments).env("PATH", path());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = cores.on_server_core(|| command.spawn())?;
    let stdin = child.stdin.take();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = Server::of_peer(child, address);
    if let Some(mut stdin) = stdin {
        stdin.write_all(input.as_bytes())?;
    }
    loop {
        let is_there = TcpStream::connect(address).is_ok();
        if server.has_ended()? {
            return Err(io::Error::other(format!("{program} has ended instead of starting; {INSTALL}")));
        }
        if is_there {
            server.started_in = start.elapsed();
            return Ok(server);
        }
        if start.elapsed() > START_MAX {
            return Err(io::Error::other(format!("{program} takes no connection after {START_MAX:?}")));
        }
        sleep(Duration::from_millis(2));
    }
}

/// Becomes another program, if that is what this one was started for; returns only when that fails.
pub fn launch(arguments: &[String]) -> Option<io::Result<()>> {
    let [LAUNCH, program, arguments @ ..] = &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        return None;
    };
    // Whose bench died must not stay behind.
    let outcome = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let become_it = |()| Err(Command::new(program).args(arguments).exec());
    Some(outcome.map_err(io::Error::from).and_then(become_it))
}

/// A port that nobody listens on. Ports that the system gives out by itself begin above these, so that
/// none of them is taken by some connection before the server has it.
pub fn free_port() -> io::Result<u16> {
    let start = Instant::now();
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let port = PORTS_FROM + (now.subsec_nanos() % u32::from(PORTS)) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) if start.elapsed() > START_MAX => return Err(error),
            Err(_) => (),
        }
    }
}

/// Where Debian has servers; not in everybody's `PATH`.
fn path() -> impl AsRef<OsStr> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn is_missing(program: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{program}: {error}; {INSTALL}"))
}

const LAUNCH: &str = "launch";
const INSTALL: &str = "`tests/needs.sh peers` installs what is missing";
const START_MAX: Duration = Duration::from_secs(20);
const PORTS_FROM: u16 = 25_000;
const PORTS: u16 = 4_000;
