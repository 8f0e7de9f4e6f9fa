//! The servers that people would use for what pinpost does, as they are started
//! here: Debian's packages, and today's NATS besides (`nats`), installed by
//! `tests/needs.sh peers`.
//!
//! Each is a process of its own on a free port of loopback, without TLS,
//! passwords and storage, with the limits raised that the load would meet. Nothing
//! of the system's configuration is read, and no service of the system is touched.
//! Only ejabberd needs files.

pub mod nats;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::dialect::mqtt::Quality;
use crate::dialect::{Dialect, Verb};
use crate::launch;
use crate::machine::Cores;
use crate::peer::nats::Release;
use crate::server::Server;

/// A server of somebody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Nats(Release),
    /// The same, whose users request and reply.
    NatsRequests(Release),
    Mosquitto(Quality),
    Redis,
    Ejabberd,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Nats(release) => release.name(),
            Peer::NatsRequests(release) => release.name_of_requests(),
            Peer::Mosquitto(Quality::AtMostOnce) => "mosquitto, QoS 0",
            Peer::Mosquitto(Quality::AtLeastOnce) => "mosquitto, QoS 1",
            Peer::Redis => "redis",
            Peer::Ejabberd => "ejabberd",
        }
    }

    pub fn dialect(self) -> Dialect {
        match self {
            Peer::Nats(_) => Dialect::Nats,
            Peer::NatsRequests(_) => Dialect::NatsRequests,
            Peer::Mosquitto(quality) => Dialect::Mqtt(quality),
            Peer::Redis => Dialect::Resp,
            Peer::Ejabberd => Dialect::Xmpp,
        }
    }

    /// Whether a sender is answered as with `SEND`, or goes on without as with `CAST`.
    pub fn verb(self) -> Verb {
        match self {
            Peer::NatsRequests(_) | Peer::Mosquitto(Quality::AtLeastOnce) => Verb::Send,
            _ => Verb::Cast,
        }
    }

    /// Starts it on the server's core, and waits until it takes connections.
    pub fn start(self, cores: Cores) -> io::Result<Server> {
        let port = free_port()?;
        let port_text = port.to_string();
        match self {
            Peer::Nats(release) | Peer::NatsRequests(release) => {
                let arguments = ["--addr", "127.0.0.1", "--port", &port_text];
                start(cores, &release.program(), &arguments, port, "")
            }
            Peer::Mosquitto(_) => {
                let settings = format!("listener {port} 127.0.0.1\n{MOSQUITTO}");
                start(cores, "mosquitto".as_ref(), &["-c", "/dev/stdin"], port, &settings)
            }
            Peer::Redis => {
                let settings = format!("port {port}\n{REDIS}");
                start(cores, "redis-server".as_ref(), &["-"], port, &settings)
            }
            Peer::Ejabberd => start_ejabberd(cores, port),
        }
    }
}

/// The versions of all of them, as Debian tells, and of what is not Debian's.
pub fn versions() -> String {
    let packages = ["nats-server", "mosquitto", "redis-server", "ejabberd"];
    let output =
        Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}\n"]).args(packages).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let of_debian = match text.unwrap_or_default().lines().collect::<Vec<_>>()[..] {
        [] => "versions unknown: there is no dpkg here".to_owned(),
        ref lines => lines.join(", "),
    };
    let newest =
        nats::version().unwrap_or_else(|error| Some(format!("a NATS that tells no version: {error}")));
    [Some(of_debian), newest].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Starts a program that will listen on this port of loopback, and waits until it does. `input` is what
/// it reads from its standard input.
pub fn start(cores: Cores, program: &Path, arguments: &[&str], port: u16, input: &str) -> io::Result<Server> {
    let mut command = launch::command(program)?;
    command.args(arguments);
    spawn(cores, program, command, port, input, None)
}

/// The same with a folder of its own, which goes when the server does.
fn spawn(
    cores: Cores,
    program: &Path,
    mut command: Command,
    port: u16,
    input: &str,
    folder: Option<PathBuf>,
) -> io::Result<Server> {
    command.env("PATH", path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let (start, program) = (Instant::now(), program.display());
    let mut child = cores.on_server_core(|| command.spawn())?;
    let stdin = child.stdin.take();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = Server::of_peer(child, address, folder);
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

/// Erlang without a name needs no register of its nodes, and so leaves none behind.
fn start_ejabberd(cores: Cores, port: u16) -> io::Result<Server> {
    remove_left_folders();
    let folder = std::env::temp_dir().join(format!("{FOLDER}{}-{port}", std::process::id()));
    fs::create_dir(&folder)?;
    let settings = folder.join("ejabberd.yml");
    fs::write(&settings, EJABBERD.replace("PORT", &port.to_string()))?;
    let mut command = launch::command("erl")?;
    command.args(["-noinput", "+K", "true", "+P", "250000", "+Q", "65536"]);
    // Waiting without sleeping would be paid for by everybody else on the machine.
    command.args(["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]);
    command.args(["-mnesia", "dir", &format!("\"{}\"", folder.join("tables").display()), "-s", "ejabberd"]);
    command.env("ERL_LIBS", libraries()?).env("HOME", &folder).env("ERL_CRASH_DUMP", "/dev/null");
    command.env("EJABBERD_CONFIG_PATH", settings).env("EJABBERD_LOG_PATH", folder.join("log"));
    spawn(cores, "erl".as_ref(), command, port, "", Some(folder))
}

/// Removes folders of benches that were ended before they could do it.
fn remove_left_folders() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let bench = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next());
        if bench.is_some_and(|bench| !Path::new("/proc").join(bench).exists()) {
            // Somebody else's can't be removed, and is none of our concern.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The folder that has Debian's ejabberd for Erlang, named for the processor.
fn libraries() -> io::Result<PathBuf> {
    let is_it = |folder: &Path| -> io::Result<bool> {
        let mut entries = fs::read_dir(folder)?.filter_map(Result::ok);
        Ok(entries.any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"ejabberd-")))
    };
    let folders = fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let mut folders = folders.filter(|folder| folder.is_dir());
    let found = folders.find(|folder| is_it(folder).unwrap_or(false));
    found.ok_or_else(|| io::Error::other(format!("ejabberd is missing; {INSTALL}")))
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
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// What the names of folders begin with; the process comes next.
const FOLDER: &str = "pinpost-bench-ejabberd-";
const INSTALL: &str = "`tests/needs.sh peers` installs what is missing";
const START_MAX: Duration = Duration::from_secs(20);
const PORTS_FROM: u16 = 25_000;
const PORTS: u16 = 4_000;

/// As root it would become another user, who need not be here, and forget that it is to end with us.
const MOSQUITTO: &str = "\
user root
allow_anonymous true
persistence false
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 0
sys_interval 0
connection_messages false
log_dest none
";

const REDIS: &str = "\
bind 127.0.0.1
save \"\"
appendonly no
dir /tmp
databases 1
maxclients 15000
client-output-buffer-limit pubsub 0 0 0
loglevel warning
";

const EJABBERD: &str = "\
hosts:
  - localhost
loglevel: error
auth_method: anonymous
anonymous_protocol: login_anon
allow_multiple_connections: true
auth_use_cache: false
listen:
  -
    port: PORT
    ip: \"127.0.0.1\"
    module: ejabberd_c2s
    max_stanza_size: 262144
    backlog: 4096
    shaper: none
    access: all
    starttls: false
modules: {}
";
