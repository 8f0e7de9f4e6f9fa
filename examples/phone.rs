//! A phone that drops off and comes back, while somebody writes to it all the time: in
//! the end it proves by counting that no line was lost, doubled or out of order.
//!
//! ```text
//! pinpost serve --mailbox 10000
//! cargo run --example phone
//! cargo run --example phone -- --server HOST:PORT,HOST:PORT --messages 5000 --seconds 60 --seed 1
//! ```
//!
//! The sender is a [`Client`] and keeps each line's fate. The phone speaks the protocol
//! itself, over plain sockets, because it has to misbehave: it kills its connection
//! without a word, with lines unread and acknowledgements unsaid, or says `QUIT`, or is
//! away for a while; of several servers it picks another each time. A line that it has
//! seen may come again only if its acknowledgement may have been lost: after an `ACK` the
//! phone asks `PING`, and once it has heard the `PONG` a copy is one too many.
//!
//! Without a mailbox most lines are refused, and one that was shown to a connection that died then has no fate: the
//! client sends it again, behind later ones. So order counts only if each line has a fate and none was refused.
//!
//! `--messages` are sent within `--seconds`, which also sets how long the phone stays
//! and is away. Exit code 1 when a line is missing, doubled, out of order, or was seen
//! though its sender was told that it was not delivered.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use pinpost::{Client, ClientConfig, ErrorCode, Fate, SendError};
use smol::Timer;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::read()?;
    println!("seed {}", options.seed);
    // Lines of another run may still lie in the mailbox.
    let run = nanoid::nanoid!(6);
    let mut phone = Phone::new(&options, &run);
    let is_over = Arc::new(AtomicBool::new(false));
    let until = is_over.clone();
    let living = thread::spawn(move || {
        phone.come_and_go(&until);
        phone
    });
    let fates = smol::block_on(send(&options, &run));
    is_over.store(true, Ordering::Relaxed);
    let mut phone = living.join().expect("the phone does not panic");
    let fates = fates?;
    phone.come_back_for(&fates)?;
    Ok(if report(&fates, &phone) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends the lines at an even pace, and waits for all fates. Line `n` is the `n`th.
async fn send(options: &Options, run: &str) -> Result<Vec<Result<Fate, SendError>>, Box<dyn Error>> {
    // Dropping the other half: nobody writes to the sender.
    let (client, _) = Client::connect(ClientConfig::new(&options.server, SENDER)).await?;
    let started = Instant::now();
    let mut sendings = vec![];
    for n in 0..options.messages {
        Timer::at(started + options.time * n / options.messages).await;
        let sending = client.submit(PHONE, &format!("{run} {n}")).await?;
        sendings.push(smol::spawn(sending.fate()));
    }
    let mut fates = vec![];
    for sending in sendings {
        fates.push(sending.await);
    }
    client.close().await;
    Ok(fates)
}

/// Tells what was counted, and whether it is as promised.
fn report(fates: &[Result<Fate, SendError>], phone: &Phone) -> bool {
    let count = |is: &dyn Fn(usize) -> bool| (0..fates.len()).filter(|n| is(*n)).count();
    let is_seen = |n: usize| phone.is_acked.contains_key(&(n as u32));
    println!(
        "sent {}: {} delivered, {} stored, {} refused, {} unknown",
        fates.len(),
        count(&|n| fates[n] == Ok(Fate::Delivered)),
        count(&|n| fates[n] == Ok(Fate::Stored)),
        count(&|n| is_refused(&fates[n])),
        count(&|n| fates[n].is_err() && !is_refused(&fates[n])),
    );
    println!("phone: {:?}", phone.counts);
    let missing = count(&|n| fates[n].is_ok() && !is_seen(n));
    let denied = count(&|n| is_refused(&fates[n]) && is_seen(n));
    let late = phone.seen.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let doubled = phone.counts.doubled;
    println!(
        "seen {}: {missing} missing, {doubled} doubled, {late} out of order, {denied} seen though refused",
        phone.seen.len()
    );
    let is_ordered = late == 0 || fates.iter().any(Result::is_err);
    (missing, doubled, denied) == (0, 0, 0) && is_ordered
}

/// The sender was told that it was not delivered.
fn is_refused(fate: &Result<Fate, SendError>) -> bool {
    matches!(fate, Err(SendError::Refused { code, .. }) if *code != ErrorCode::Timeout)
}

struct Phone {
    servers: Vec<String>,
    run: String,
    time: Duration,
    random: Random,
    /// Until the last visit.
    is_rude: bool,
    /// The lines, in the order in which each was seen first.
    seen: Vec<u32>,
    /// The same lines, and whether the server is known to have the acknowledgement.
    is_acked: HashMap<u32, bool>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    logins: u32,
    logins_failed: u32,
    killed: u32,
    killed_before_an_ack: u32,
    quit: u32,
    ended_by_server: u32,
    /// Seen before, and the server may not have known.
    copies: u32,
    /// Seen before, and the server knew.
    doubled: u32,
}

impl Phone {
    fn new(options: &Options, run: &str) -> Phone {
        Phone {
            servers: options.server.split(',').map(|server| server.trim().to_owned()).collect(),
            run: run.to_owned(),
            time: options.time,
            random: Random(options.seed),
            is_rude: true,
            seen: vec![],
            is_acked: HashMap::new(),
            counts: Counts::default(),
        }
    }

    /// Logs in and drops off until told that it is over.
    fn come_and_go(&mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            match self.log_in() {
                Ok(session) => {
                    let until = Instant::now() + self.random.up_to(self.time / 10);
                    // A broken connection is nothing special to a phone.
                    let _ = self.stay(session, until);
                }
                Err(_) => self.counts.logins_failed += 1,
            }
            let away = if self.random.one_in(4) { self.time / 5 } else { self.time / 40 };
            thread::sleep(self.random.up_to(away));
        }
    }

    /// One session, from the login to whatever ends it.
    fn stay(&mut self, mut session: Session, until: Instant) -> io::Result<()> {
        while Instant::now() < until {
            let Some(line) = session.hear()? else {
                session.ask()?;
                continue;
            };
            match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
                ["MSG", from, id, text] => {
                    let n = self.see(text);
                    if self.is_rude && self.random.one_in(500) {
                        self.counts.killed_before_an_ack += 1;
                        return Ok(());
                    }
                    session.say(&format!("ACK {id} {from}"))?;
                    session.unsure.extend(n);
                    if session.unsure.len() >= 32 {
                        session.ask()?;
                    }
                }
                ["PONG"] => {
                    self.is_acked.extend(session.asked.drain(..).map(|n| (n, true)));
                }
                _ => {
                    self.counts.ended_by_server += 1;
                    return Ok(());
                }
            }
        }
        if self.is_rude && self.random.one_in(2) {
            self.counts.killed += 1;
            return Ok(());
        }
        self.counts.quit += 1;
        session.say("QUIT")?;
        // What still comes is not looked at and not acknowledged: it will come again.
        let given_up = Instant::now() + PATIENCE;
        while Instant::now() < given_up && session.hear()?.is_none_or(|line| !line.starts_with("BYE")) {}
        Ok(())
    }

    /// The last session: stays until everything that has a good fate was seen, or nothing
    /// more comes, and a while longer for what should not come.
    fn come_back_for(&mut self, fates: &[Result<Fate, SendError>]) -> io::Result<()> {
        let is_waited_for = |phone: &Phone| {
            let mut good = (0..fates.len()).filter(|n| fates[*n].is_ok());
            good.any(|n| !phone.is_acked.contains_key(&(n as u32)))
        };
        self.is_rude = false;
        let mut given_up = Instant::now() + PATIENCE;
        while is_waited_for(self) && Instant::now() < given_up {
            let before = self.seen.len();
            match self.log_in() {
                Ok(session) => {
                    let _ = self.stay(session, Instant::now() + LAST_STAY);
                }
                Err(error) if Instant::now() > given_up => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(200)),
            }
            if self.seen.len() > before {
                given_up = Instant::now() + PATIENCE;
            }
        }
        let session = self.log_in()?;
        let _ = self.stay(session, Instant::now() + LAST_STAY);
        Ok(())
    }

    /// Takes note of a line; gives its number if it is of this run.
    fn see(&mut self, text: &str) -> Option<u32> {
        let n = text.strip_prefix(&self.run)?.trim_start().parse().ok()?;
        match self.is_acked.get(&n) {
            None => {
                self.is_acked.insert(n, false);
                self.seen.push(n);
            }
            Some(false) => self.counts.copies += 1,
            Some(true) => self.counts.doubled += 1,
        }
        Some(n)
    }

    fn log_in(&mut self) -> io::Result<Session> {
        let server = &self.servers[self.random.below(self.servers.len() as u64) as usize];
        let mut session = Session::connect(server)?;
        session.say(&format!("LOGIN {PHONE} ack"))?;
        let given_up = Instant::now() + PATIENCE;
        while Instant::now() < given_up {
            match session.hear()? {
                None => {}
                Some(line) if line.starts_with("HELLO ") => {}
                Some(line) if line.starts_with("OK ") => {
                    self.counts.logins += 1;
                    return Ok(session);
                }
                Some(line) => return Err(io::Error::other(line)),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// One connection of the phone. Dropped, it is killed without a word.
struct Session {
    stream: TcpStream,
    /// What was read behind the last whole line.
    buffer: Vec<u8>,
    /// What was acknowledged since the last question.
    unsure: Vec<u32>,
    /// What was acknowledged before the question that has no answer yet.
    asked: Vec<u32>,
}

impl Session {
    fn connect(server: &str) -> io::Result<Session> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Session { stream, buffer: vec![], unsure: vec![], asked: vec![] })
    }

    fn say(&mut self, request: &str) -> io::Result<()> {
        self.stream.write_all(format!("{request}\n").as_bytes())
    }

    /// Asks for a sign that the server has read all that was acknowledged.
    fn ask(&mut self) -> io::Result<()> {
        if self.unsure.is_empty() || !self.asked.is_empty() {
            return Ok(());
        }
        self.asked = std::mem::take(&mut self.unsure);
        self.say("PING")
    }

    /// The next line, or none when nothing comes for a moment.
    fn hear(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Random numbers that a seed repeats (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn up_to(&mut self, time: Duration) -> Duration {
        Duration::from_micros(self.below(time.as_micros() as u64 + 1))
    }
}

struct Options {
    server: String,
    messages: u32,
    time: Duration,
    seed: u64,
}

impl Options {
    fn read() -> Result<Options, Box<dyn Error>> {
        let mut options = Options {
            server: "127.0.0.1:7700".to_owned(),
            messages: 2000,
            time: Duration::from_secs(20),
            seed: u64::from(std::process::id()),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("server") => options.server = parser.value()?.string()?,
                Long("messages") => options.messages = parser.value()?.parse::<u32>()?.max(1),
                Long("seconds") => options.time = Duration::from_secs(parser.value()?.parse()?),
                Long("seed") => options.seed = parser.value()?.parse()?,
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }
}

const SENDER: &str = "sender";
const PHONE: &str = "phone";
/// Longer than a server waits for an acknowledgement before it gives a message again.
const PATIENCE: Duration = Duration::from_secs(15);
const LAST_STAY: Duration = Duration::from_secs(2);
