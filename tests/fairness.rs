//! What a pair that talks notices while others misbehave: nobody can stall everybody.
//!
//! Two nodes over a mesh, in this process, so that their longest turn can be read. A pair says one message at a time
//! from node to node, and somebody logs in every now and then; beside them are, in turn, as many honest connections and
//! those that ask `HELP` all the time and read nothing, or a few that fill the lanes of users who never acknowledge.
//! The test holds what is true on any machine: every message arrives. `make fairness` prints how long that takes;
//! the crowd shares the machine with the nodes.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pinpost::{Config, Handle, Mesh, Server};

#[test]
fn whoever_talks_one_message_at_a_time_is_let_through() {
    for crowd in [Crowd::Deaf, Crowd::Hoarders] {
        let Noticed { times, errors, .. } =
            watch(crowd, CROWD / 10, Duration::from_secs(2)).expect("nodes serve");
        assert_eq!(errors, 0, "{crowd:?}: of {}", times.len());
    }
}

#[test]
#[ignore = "figures, not a test"]
fn fairness() {
    println!("round crowd        p50 ms   p99 ms   messages  errors  slowest login ms  longest turn ms");
    for round in 1..=5 {
        for crowd in [Crowd::Honest, Crowd::Deaf, Crowd::Hoarders] {
            let noticed = watch(crowd, CROWD, Duration::from_secs(5)).expect("nodes serve");
            let Noticed { mut times, errors, login, turn } = noticed;
            times.sort_unstable();
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let at = |part: usize| ms(times[(times.len() - 1) * part / 100]);
            let mut row = format!("{round:>5} {:<9}", format!("{crowd:?}"));
            for figure in [at(50), at(99)] {
                write!(row, "{figure:>9.2}").expect("a string takes it");
            }
            println!("{row}{:>11}{errors:>8}{:>18.1}{:>17.2}", times.len(), ms(login), ms(turn));
        }
    }
}

const CROWD: usize = 500;
const HOARDERS: usize = 24;
const USERS_OF_A_HOARDER: usize = 16;

/// Who else is there.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    /// Ask for a `PONG`, read it, and ask again.
    Honest,
    /// Ask `HELP`, and read nothing.
    Deaf,
    /// Send to users who never acknowledge.
    Hoarders,
}

struct Noticed {
    times: Vec<Duration>,
    errors: usize,
    login: Duration,
    turn: Duration,
}

struct Node {
    addr: SocketAddr,
    handle: Handle,
    thread: JoinHandle<io::Result<()>>,
}

impl Node {
    fn start(mesh: &Mesh, name: &str) -> io::Result<Node> {
        let server = Server::bind_in(&Config::ephemeral().node(name), mesh).map_err(io::Error::other)?;
        let (addr, handle) = (server.tcp_addrs()[0], server.handle());
        let thread = thread::spawn(move || smol::block_on(server.run()));
        Ok(Node { addr, handle, thread })
    }
}

fn watch(crowd: Crowd, size: usize, time: Duration) -> io::Result<Noticed> {
    let mesh = Mesh::default();
    let [a, b] = [Node::start(&mesh, "a")?, Node::start(&mesh, "b")?];
    let goes_on = Arc::new(AtomicBool::new(true));
    let mut alice = Talker::login(a.addr, "LOGIN alice")?;
    let _bob = Talker::login(b.addr, "LOGIN bob")?;
    let crowding = crowd.start([a.addr, b.addr], size, goes_on.clone())?;
    let (mut noticed, start) =
        (Noticed { times: vec![], errors: 0, login: Duration::ZERO, turn: Duration::ZERO }, Instant::now());
    let mut login_at = start;
    while start.elapsed() < time {
        let sent = Instant::now();
        let reply = alice.ask("SEND bob hello")?;
        noticed.times.push(sent.elapsed());
        noticed.errors += usize::from(!reply.starts_with("OK "));
        if Instant::now() >= login_at {
            let asked = Instant::now();
            Talker::login(a.addr, "LOGIN carol")?.ask("QUIT")?;
            noticed.login = noticed.login.max(asked.elapsed());
            login_at = Instant::now() + Duration::from_millis(100);
        }
    }
    goes_on.store(false, Ordering::Relaxed);
    crowding.join().expect("a crowd does not panic")?;
    for node in [a, b] {
        noticed.turn = noticed.turn.max(Duration::from_micros(node.handle.metrics().turn_us_max));
        node.handle.drain();
        node.thread.join().expect("a node does not panic")?;
    }
    Ok(noticed)
}

impl Crowd {
    /// Comes, and stays until it is told to go.
    fn start(
        self,
        [a, b]: [SocketAddr; 2],
        size: usize,
        goes_on: Arc<AtomicBool>,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let count = if matches!(self, Crowd::Hoarders) { HOARDERS } else { size };
        let mut deaf = vec![];
        if matches!(self, Crowd::Hoarders) {
            for user in 0..HOARDERS * USERS_OF_A_HOARDER {
                deaf.push(Talker::login(b, &format!("LOGIN deaf{user} ack"))?);
            }
        }
        let mut streams = (0..count).map(|n| self.join(a, n)).collect::<io::Result<Vec<TcpStream>>>()?;
        let lines: Vec<Vec<u8>> = (0..count).map(|n| self.lines(n)).collect();
        Ok(thread::spawn(move || {
            let (mut at, _deaf) = (vec![0; count], deaf);
            while goes_on.load(Ordering::Relaxed) {
                for n in 0..count {
                    let is_over = match self.act(&mut streams[n], &lines[n], &mut at[n]) {
                        Ok(()) => false,
                        Err(error) => error.kind() != ErrorKind::WouldBlock,
                    };
                    // To come back takes a while, too.
                    if is_over && goes_on.load(Ordering::Relaxed) {
                        (streams[n], at[n]) = (self.join(a, n)?, 0);
                    }
                }
            }
            Ok(())
        }))
    }

    fn join(self, node: SocketAddr, n: usize) -> io::Result<TcpStream> {
        let talker = Talker::login(node, &format!("LOGIN crowd{n}"))?;
        let mut stream = talker.into_stream();
        stream.set_nonblocking(true)?;
        if matches!(self, Crowd::Honest) {
            let _ = stream.write(b"PING\n");
        }
        Ok(stream)
    }

    /// What one of them says, again and again.
    fn lines(self, n: usize) -> Vec<u8> {
        match self {
            Crowd::Honest => b"PING\n".to_vec(),
            Crowd::Deaf => b"HELP\n".repeat(800),
            Crowd::Hoarders => {
                let to = |user: usize| n * USERS_OF_A_HOARDER + user % USERS_OF_A_HOARDER;
                let line = |user: usize| format!("SEND deaf{} {}\n", to(user), "x".repeat(1_000));
                (0..256).map(line).collect::<String>().into_bytes()
            }
        }
    }

    fn act(self, stream: &mut TcpStream, lines: &[u8], at: &mut usize) -> io::Result<()> {
        if !matches!(self, Crowd::Deaf) {
            match stream.read(&mut [0; 4_096]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if !(matches!(self, Crowd::Hoarders) && error.kind() == ErrorKind::WouldBlock) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        *at = (*at + stream.write(&lines[*at..])?) % lines.len();
        Ok(())
    }
}

/// One who waits for each reply.
struct Talker {
    reader: BufReader<TcpStream>,
}

impl Talker {
    fn login(node: SocketAddr, line: &str) -> io::Result<Talker> {
        let stream = TcpStream::connect(node)?;
        stream.set_nodelay(true)?;
        let mut talker = Talker { reader: BufReader::new(stream) };
        talker.hear()?;
        let reply = talker.ask(line)?;
        if reply.starts_with("OK ") { Ok(talker) } else { Err(io::Error::other(format!("{line}: {reply}"))) }
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes())?;
        self.hear()
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    fn into_stream(self) -> TcpStream {
        self.reader.into_inner()
    }
}
