//! What a pair that talks notices while others misbehave: nobody can stall everybody.
//!
//! Two nodes over a mesh, in this process, so that their longest turn can be read. A pair says one message at a time
//! from node to node, and somebody logs in every now and then; beside them are, in turn, as many honest connections and
//! those that ask `HELP` all the time and read nothing, or a few that fill the lanes of users who never acknowledge.
//! The test holds what is true on any machine: every message arrives. `make fairness` prints how long that takes;
//! the crowd shares the machine with the nodes.

mod rig;

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pinpost::Mesh;

use rig::net::nodes;
use rig::peer::Peer;

#[test]
fn whoever_talks_one_message_at_a_time_is_let_through() {
    for crowd in [Crowd::Deaf, Crowd::Hoarders] {
        let Noticed { times, errors, .. } = watch(crowd, CROWD / 10, Duration::from_secs(2));
        assert_eq!(errors, 0, "{crowd:?}: of {}", times.len());
    }
}

#[test]
#[ignore = "figures, not a test"]
fn fairness() {
    println!("round crowd        p50 ms   p99 ms   messages  errors  slowest login ms  longest turn ms");
    for round in 1..=5 {
        for crowd in [Crowd::Honest, Crowd::Deaf, Crowd::Hoarders] {
            let Noticed { mut times, errors, login, turn } = watch(crowd, CROWD, Duration::from_secs(5));
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

/// Longer than a node takes to say that it does not know.
const PATIENCE: Duration = Duration::from_secs(15);

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

fn watch(crowd: Crowd, size: usize, time: Duration) -> Noticed {
    let mesh = Mesh::default();
    let [a, b] = nodes(&mesh, &[]);
    let goes_on = Arc::new(AtomicBool::new(true));
    let (mut alice, _bob) = (Peer::login(a.tcp, "alice"), Peer::login(b.tcp, "bob"));
    alice.patient(PATIENCE);
    let crowding = crowd.start([a.tcp, b.tcp], size, goes_on.clone());
    let (mut noticed, start) =
        (Noticed { times: vec![], errors: 0, login: Duration::ZERO, turn: Duration::ZERO }, Instant::now());
    let mut login_at = start;
    while start.elapsed() < time {
        let sent = Instant::now();
        alice.say("SEND bob hello");
        let reply = alice.hear();
        noticed.times.push(sent.elapsed());
        noticed.errors += usize::from(!reply.starts_with("OK "));
        if Instant::now() >= login_at {
            let asked = Instant::now();
            Peer::login(a.tcp, "carol").quits();
            noticed.login = noticed.login.max(asked.elapsed());
            login_at = Instant::now() + Duration::from_millis(100);
        }
    }
    goes_on.store(false, Ordering::Relaxed);
    crowding.join().expect("a crowd does not panic");
    let turn_us = [a, b].iter().map(|node| node.metrics().turn_us_max).max();
    Noticed { turn: Duration::from_micros(turn_us.unwrap_or_default()), ..noticed }
}

impl Crowd {
    /// Comes, and stays until it is told to go.
    fn start(self, [a, b]: [SocketAddr; 2], size: usize, goes_on: Arc<AtomicBool>) -> JoinHandle<()> {
        let count = if matches!(self, Crowd::Hoarders) { HOARDERS } else { size };
        let users = if matches!(self, Crowd::Hoarders) { HOARDERS * USERS_OF_A_HOARDER } else { 0 };
        let deaf: Vec<Peer> = (0..users).map(|user| Peer::login_acking(b, &format!("deaf{user}"))).collect();
        let mut streams: Vec<TcpStream> = (0..count).map(|n| self.join(a, n)).collect();
        let lines: Vec<Vec<u8>> = (0..count).map(|n| self.lines(n)).collect();
        thread::spawn(move || {
            let (mut at, _deaf) = (vec![0; count], deaf);
            while goes_on.load(Ordering::Relaxed) {
                for n in 0..count {
                    let done = self.act(&mut streams[n], &lines[n], &mut at[n]);
                    let is_over = done.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
                    // To come back takes a while, too.
                    if is_over && goes_on.load(Ordering::Relaxed) {
                        (streams[n], at[n]) = (self.join(a, n), 0);
                    }
                }
            }
        })
    }

    fn join(self, node: SocketAddr, n: usize) -> TcpStream {
        let mut stream = Peer::login(node, &format!("crowd{n}")).writer();
        stream.set_nonblocking(true).expect("it is a socket");
        if matches!(self, Crowd::Honest) {
            let _ = stream.write(b"PING\n");
        }
        stream
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
