//! A courier: it sends a file line by line to a user, and neither side loses or doubles
//! a line when it is killed, at any moment, and started again with the same arguments.
//!
//! ```text
//! pinpost serve
//! cargo run --example courier -- --receive --user bob --out got.txt
//! seq 10000 >lines.txt
//! cargo run --example courier -- --from alice --to bob --state sent.txt lines.txt
//! ```
//!
//! Further flags: `--server HOST:PORT` (or several with commas), `--window N` (lines under
//! way at a time, 64; with 1 no refusal can change the order), `--count N` (the receiver
//! ends once it has so many lines). Without a file it sends its standard input, which
//! then has to be the same after a restart.
//!
//! The sender's state file holds a run id and the numbers of the lines whose fate is
//! known. A line's id is made of the run id and its number, so a line that is sent again
//! goes under the id it had, and the receiver drops the copy. The receiver writes
//! `SENDER ID<TAB>TEXT` and acknowledges a line only when it is in the file, where it finds
//! at its next start what it has. An empty line can't be sent and is left out.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use pinpost::{Client, ClientConfig, ClientError, Event, Fate, Incoming, SendError};
use smol::Timer;
use smol::future;
use smol::io::{AsyncBufReadExt, BufReader};
use smol::stream::StreamExt;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::read()?;
    let is_done = smol::block_on(async {
        match options.receives {
            true => receive(&options).await,
            false => Courier::send(&options).await,
        }
    })?;
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Connects as often as it takes: a node that is not there may come.
async fn connect(options: &Options, user: &str) -> Result<(Client, Incoming), ClientError> {
    let mut pause = PAUSE_MIN;
    loop {
        let config = ClientConfig::new(&options.server, user).ack(true);
        match Client::connect(config).await {
            Err(error @ (ClientError::Io { .. } | ClientError::TimedOut { .. })) => {
                eprintln!("{error}; trying again");
                Timer::after(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            result => return result,
        }
    }
}

/// The sending side.
struct Courier<'a> {
    client: Client,
    to: &'a str,
    state: State,
    /// In the order in which they were sent.
    under_way: VecDeque<UnderWay>,
    /// Refused for now, or nobody knows: sent again once nothing is under way.
    again: Vec<(u64, String)>,
    counts: Counts,
}

struct UnderWay {
    number: u64,
    text: String,
    fate: Pin<Box<dyn Future<Output = Result<Fate, SendError>>>>,
}

#[derive(Debug, Default)]
struct Counts {
    delivered: u64,
    stored: u64,
    known_before: u64,
    tried_again: u64,
    not_sent: u64,
}

impl Courier<'_> {
    /// Sends all lines; true when each of them is delivered or stored.
    async fn send(options: &Options) -> Result<bool, Box<dyn Error>> {
        let state = State::open(&options.state)?;
        let (client, mut incoming) = connect(options, &options.from).await?;
        // Nothing is expected, but what becomes of the connection is of interest. What others
        // send to this user stays unacknowledged, and so in the mailbox.
        smol::spawn(async move {
            while let Some(event) = incoming.next().await {
                match event {
                    Event::Message { .. } => break,
                    event => eprintln!("{event:?}"),
                }
            }
        })
        .detach();
        let (under_way, again, counts) = Default::default();
        let mut courier = Courier { client, to: &options.to, state, under_way, again, counts };
        courier.send_all(options).await?;
        courier.client.close().await;
        println!("{:?}", courier.counts);
        Ok(courier.counts.not_sent == 0)
    }

    async fn send_all(&mut self, options: &Options) -> Result<(), Box<dyn Error>> {
        let input: Box<dyn Read + Send> = match &options.input {
            Some(file) => Box::new(File::open(file)?),
            None => Box::new(io::stdin()),
        };
        let mut lines = BufReader::new(smol::Unblock::new(input)).lines();
        let (mut number, mut is_over, mut pause) = (0, false, PAUSE_MIN);
        loop {
            let has_room = self.under_way.len() < options.window && self.again.is_empty() && !is_over;
            if !has_room && self.under_way.is_empty() {
                if self.again.is_empty() {
                    return Ok(());
                }
                Timer::after(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                for (number, text) in std::mem::take(&mut self.again) {
                    self.counts.tried_again += 1;
                    self.submit(number, text).await?;
                }
                continue;
            }
            let fate = async {
                match self.under_way.front_mut() {
                    Some(first) => Next::Fate(first.fate.as_mut().await),
                    None => future::pending().await,
                }
            };
            let read = async {
                match has_room {
                    true => Next::Line(lines.next().await),
                    false => future::pending().await,
                }
            };
            match future::or(fate, read).await {
                Next::Line(None) => is_over = true,
                Next::Line(Some(text)) => {
                    number += 1;
                    match text? {
                        _ if self.state.known.contains(&number) => self.counts.known_before += 1,
                        text if text.is_empty() => {}
                        text => self.submit(number, text).await?,
                    }
                }
                Next::Fate(fate) => {
                    if self.settle(fate)? {
                        pause = PAUSE_MIN;
                    }
                }
            }
        }
    }

    async fn submit(&mut self, number: u64, text: String) -> Result<(), SendError> {
        match self.client.submit_as(&self.state.id(number), self.to, &text).await {
            Ok(sending) => {
                let fate = Box::pin(sending.fate());
                self.under_way.push_back(UnderWay { number, text, fate });
            }
            Err(error @ SendError::Closed) => return Err(error),
            Err(error) => {
                eprintln!("line {number} can't be sent: {error}");
                self.counts.not_sent += 1;
            }
        }
        Ok(())
    }

    /// Takes note of the fate of the line that was sent first; true when it is good.
    fn settle(&mut self, fate: Result<Fate, SendError>) -> Result<bool, Box<dyn Error>> {
        let line = self.under_way.pop_front().expect("its fate was waited for");
        match fate {
            Ok(Fate::Delivered) => self.counts.delivered += 1,
            Ok(Fate::Stored) => self.counts.stored += 1,
            // Whatever else there will be, it is with the recipient.
            Ok(_) => {}
            // Away, full, draining, or unknown: the same line under the same id, later.
            Err(SendError::Refused { .. } | SendError::Lost) => {
                self.again.push((line.number, line.text));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        self.state.note(line.number)?;
        Ok(true)
    }
}

enum Next {
    Line(Option<io::Result<String>>),
    Fate(Result<Fate, SendError>),
}

/// What the sender knows after a restart.
struct State {
    run: String,
    /// The lines whose fate is known.
    known: BTreeSet<u64>,
    file: File,
}

impl State {
    fn open(path: &Path) -> io::Result<State> {
        let text = read_whole_lines(path)?;
        let mut lines = text.lines();
        let run = lines.next().map_or_else(|| nanoid::nanoid!(10), str::to_owned).replace('_', "-");
        let known: BTreeSet<u64> = lines.filter_map(|line| line.parse().ok()).collect();
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if text.is_empty() {
            file.write_all(format!("{run}\n").as_bytes())?;
        }
        Ok(State { run, known, file })
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    fn note(&mut self, number: u64) -> io::Result<()> {
        self.known.insert(number);
        self.file.write_all(format!("{number}\n").as_bytes())
    }
}

/// The receiving side; true once it has as many lines as it was told to wait for.
async fn receive(options: &Options) -> Result<bool, Box<dyn Error>> {
    let text = read_whole_lines(&options.out)?;
    let mut names: HashSet<String> =
        text.lines().filter_map(|line| Some(line.split_once('\t')?.0.to_owned())).collect();
    let mut file = OpenOptions::new().append(true).create(true).open(&options.out)?;
    let (client, mut incoming) = connect(options, &options.user).await?;
    println!("{} lines from before; {} is at {}", names.len(), options.user, client.place().node);
    let mut copies = 0;
    while names.len() < options.count {
        // Asking for the next one acknowledges the one before.
        match incoming.next().await {
            Some(Event::Message { from, id, text, .. }) => {
                let name = format!("{from} {id}");
                let line = format!("{name}\t{text}\n");
                if !names.insert(name) {
                    copies += 1;
                    continue;
                }
                // No buffer in between: from here on a kill does not lose it. (A power cut
                // would: `sync_data` goes here if that matters.)
                file.write_all(line.as_bytes())?;
            }
            Some(Event::Closed(refusal)) => return Err(refusal.into()),
            Some(event) => println!("{event:?}"),
            None => return Ok(false),
        }
    }
    incoming.acknowledge();
    client.close().await;
    println!("{} lines, {copies} copies dropped", names.len());
    Ok(true)
}

/// Reads a file that may not be there yet, and cuts off what a kill left half written.
fn read_whole_lines(path: &Path) -> io::Result<String> {
    let mut text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        text => text?,
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        text.truncate(whole);
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
    }
    Ok(text)
}

struct Options {
    server: String,
    receives: bool,
    user: String,
    out: PathBuf,
    count: usize,
    from: String,
    to: String,
    state: PathBuf,
    window: usize,
    input: Option<PathBuf>,
}

impl Options {
    fn read() -> Result<Options, Box<dyn Error>> {
        let mut options = Options {
            server: "127.0.0.1:7700".to_owned(),
            receives: false,
            user: "bob".to_owned(),
            out: "got.txt".into(),
            count: usize::MAX,
            from: "alice".to_owned(),
            to: "bob".to_owned(),
            state: "sent.txt".into(),
            window: 64,
            input: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("receive") => options.receives = true,
                Long("server") => options.server = parser.value()?.string()?,
                Long("user") => options.user = parser.value()?.string()?,
                Long("out") => options.out = parser.value()?.into(),
                Long("count") => options.count = parser.value()?.parse()?,
                Long("from") => options.from = parser.value()?.string()?,
                Long("to") => options.to = parser.value()?.string()?,
                Long("state") => options.state = parser.value()?.into(),
                Long("window") => options.window = parser.value()?.parse::<usize>()?.max(1),
                Value(file) if options.input.is_none() => options.input = Some(file.into()),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
