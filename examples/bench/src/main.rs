//! The benchmark of pinpost: `make bench`, or
//! `cargo build --release && cargo run --release -p pinpost-bench`.
//!
//! It puts pinpost next to the servers that people would use for the same job, and
//! to a bare relay, which is the least that any of them does: CPU time for each
//! message, latency, logins, memory for each user. It also measures what pinpost
//! weighs by itself, and a cluster. It runs on loopback alone, and ends only what it
//! started. It fails when pinpost gives a wrong answer or loses a message, never
//! because of a figure: those are printed with their bounds.
//!
//! The tour, from the top: `compare` is the runner, `workload` and `logins` what it
//! runs, `results` what was found, `sheet`, `bars` and `chart` how that is told;
//! `size`, `instructions`, `growth`, `cluster` and `mailboxes` are the other parts. `load` is the traffic;
//! `crowd` runs many of `client`, which speaks TCP or `websocket`; `dialect` has the
//! protocols. `server` starts pinpost and the `relay`, `peer` the others, both by
//! `launch`; `measure` and `machine` ask the kernel, `report` prints.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::client::Transport;
use crate::cluster::Rig;
use crate::compare::Plan;
use crate::dialect::mqtt::Quality;
use crate::machine::Cores;
use crate::peer::Peer;
use crate::peer::nats::Release;
use crate::server::Program;
use crate::workload::Workload;

mod bars;
mod chart;
mod client;
mod cluster;
mod compare;
mod crowd;
mod dialect;
mod growth;
mod instructions;
mod launch;
mod load;
mod logins;
mod machine;
mod mailboxes;
mod measure;
mod peer;
mod relay;
mod report;
mod results;
mod server;
mod sheet;
mod size;
mod websocket;
mod workload;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(outcome) = launch::become_launched(&arguments).or_else(|| cluster::plain::run(&arguments)) {
        return exit_code(outcome);
    }
    // The relay is this same program, started by `server.rs`.
    let outcome = match arguments.first().map(String::as_str) {
        Some("relay") => relay::run(arguments.iter().any(|argument| argument == "--ack")),
        Some("--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => match Options::parse(arguments) {
            Ok(options) => bench(options),
            Err(error) => {
                eprintln!("bench: {error}\n{HELP}");
                return ExitCode::from(2);
            }
        },
    };
    exit_code(outcome)
}

fn exit_code(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Options {
    server: Option<PathBuf>,
    before: Option<PathBuf>,
    small: Option<PathBuf>,
    quick: bool,
    noise: bool,
    chart: Option<PathBuf>,
    /// The parts that are wanted; all of them where none is named.
    only: Vec<String>,
    window: Option<u32>,
}

impl Options {
    fn parse(arguments: Vec<String>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--server" => options.server = Some(arguments.next().ok_or("--server needs a path")?.into()),
                "--before" => options.before = Some(arguments.next().ok_or("--before needs a path")?.into()),
                "--small" => options.small = Some(arguments.next().ok_or("--small needs a path")?.into()),
                "--chart" => options.chart = Some(arguments.next().ok_or("--chart needs a path")?.into()),
                "--quick" | "quick" => options.quick = true,
                "--noise" => options.noise = true,
                "--only" => match arguments.next().as_deref() {
                    Some(
                        part @ (MESSAGES | SIZE | INSTRUCTIONS | FOOTPRINT | GROWTH | CLUSTER | MAILBOXES),
                    ) => options.only.push(part.to_owned()),
                    _ => {
                        return Err(format!(
                            "--only needs {MESSAGES}, {SIZE}, {INSTRUCTIONS}, {FOOTPRINT}, {GROWTH}, {CLUSTER} or {MAILBOXES}"
                        ));
                    }
                },
                "--window" => {
                    let window = arguments.next().and_then(|window| window.parse().ok());
                    options.window =
                        Some(window.filter(|w| [1, 16].contains(w)).ok_or("--window needs 1 or 16")?);
                }
                _ => return Err(format!("unknown argument: {argument}")),
            }
        }
        Ok(options)
    }

    /// Who else is compared: nobody where another build and a window ask for something quick and exact, and
    /// not the slowest of them in a hurry.
    fn peers(&self) -> Vec<Program> {
        let nats = Release::all();
        let mut peers: Vec<Peer> = nats.iter().copied().map(Peer::Nats).collect();
        peers.extend(nats.into_iter().map(Peer::NatsRequests));
        peers.extend([
            Peer::Redis,
            Peer::Mosquitto(Quality::AtMostOnce),
            Peer::Mosquitto(Quality::AtLeastOnce),
        ]);
        if !self.quick {
            peers.push(Peer::Ejabberd);
        }
        if self.window.is_some() {
            peers.clear();
        }
        peers.into_iter().map(Program::Peer).collect()
    }
}

fn bench(options: Options) -> io::Result<()> {
    let cores = Cores::choose()?;
    let files = machine::raise_open_files()?;
    let machine = machine::describe();
    println!("{machine}");
    println!("{}", cores.describe());
    if options.noise {
        let [plain, answering] = &RELAYS;
        let programs = vec![plain, plain, answering, answering];
        let workloads = compare::messages(options.window);
        return compared(
            Plan { programs, workloads, cores, quick: options.quick, logins: 0 },
            &machine,
            None,
        );
    }
    let path = match &options.server {
        Some(path) => path.clone(),
        None => beside_this_program()?,
    };
    // Only where it is asked for: it takes valgrind.
    if options.only.iter().any(|only| only == INSTRUCTIONS) {
        instructions::run(&path, cores)?;
    }
    let pinpost = Program::Pinpost(path);
    let before = options.before.clone().map(Program::Before);
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    if wanted(SIZE) && options.window.is_none() {
        let small = options.small.clone().map(Program::Small);
        let builds: Vec<&Program> = [&pinpost].into_iter().chain(&small).collect();
        size::run(&builds, cores)?;
    }
    if wanted(MESSAGES) || wanted(FOOTPRINT) {
        // Both ends of every connection count, each in its own process; the server is told to
        // take a tenth more than there are users.
        let room = files.saturating_sub(FILES_RESERVED) as usize * 10 / 11;
        let mut workloads = if wanted(MESSAGES) { compare::messages(options.window) } else { vec![] };
        if wanted(FOOTPRINT) && options.window.is_none() {
            workloads.extend(
                [Transport::Tcp, Transport::WebSocket].map(|transport| Workload::Logins { transport }),
            );
        }
        let peers = options.peers();
        let programs = [&pinpost].into_iter().chain(&before).chain(&RELAYS).chain(&peers).collect();
        let logins = USERS.min(room / 2 * 2);
        let plan = Plan { programs, workloads, cores, quick: options.quick, logins };
        if !plan.workloads.is_empty() {
            compared(plan, &machine, options.chart.as_deref())?;
        }
    }
    let wants_growth = wanted(GROWTH) && options.window.is_none();
    if wants_growth {
        let users = files.saturating_sub(FILES_RESERVED) as usize;
        growth::users(&pinpost, cores, options.quick, users)?;
    }
    if wants_growth || wanted(CLUSTER) || wanted(MAILBOXES) {
        let rig = Rig::start(&pinpost, before.as_ref(), cores, options.quick)?;
        if wants_growth {
            growth::nodes(&rig)?;
        }
        if wanted(CLUSTER) {
            cluster::run(&rig, options.window)?;
        }
        if wanted(MAILBOXES) && options.window.is_none() {
            mailboxes::run(&rig)?;
        }
    }
    Ok(())
}

/// Compares, and tells what came of it.
fn compared(plan: Plan<'_>, machine: &str, drawing: Option<&Path>) -> io::Result<()> {
    let Plan { programs, workloads, .. } = &plan;
    if programs.iter().any(|program| !program.is_ours()) {
        println!("compared with {}", peer::versions());
    }
    let results = compare::run(&plan)?;
    sheet::print(programs, workloads, &results, plan.logins);
    bars::print(programs, workloads, &results);
    match programs[..] {
        [_, Program::Before(_), ..] => bars::versus(programs, [0, 1], workloads, &results),
        [Program::Relay, Program::Relay, ..] => {
            bars::versus(programs, [0, 1], workloads, &results);
            bars::versus(programs, [2, 3], workloads, &results);
        }
        _ => (),
    }
    match drawing {
        Some(path) => chart::write(path, machine, programs, workloads, &results),
        None => Ok(()),
    }
}

/// `target/release/pinpost`, seen from `target/release/pinpost-bench`.
fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("pinpost"))
}

const HELP: &str = "\
usage: bench [--quick] [--server PATH] [--before PATH] [--small PATH] [--only PART]...
             [--window N] [--noise] [--chart PATH]
  --quick        fewer and shorter rounds, fewer users of a cluster, no ejabberd
  --server PATH  the pinpost binary (default: the release build beside this program)
  --before PATH  another pinpost binary, which is measured beside
  --small PATH   the small node, whose size and start are measured beside
  --only PART    messages, size (and start), instructions (with valgrind), footprint (logins, memory), growth, cluster or mailboxes; may be repeated
  --window N     of the messages, only those with N under way, 1 or 16, beside the relay alone
  --noise        compare the relay with itself: how far apart equals come out here
  --chart PATH   draw the comparison of messages and footprint as an SVG";

const MESSAGES: &str = "messages";
const SIZE: &str = "size";
const INSTRUCTIONS: &str = "instructions";
const FOOTPRINT: &str = "footprint";
const GROWTH: &str = "growth";
const CLUSTER: &str = "cluster";
const MAILBOXES: &str = "mailboxes";
const RELAYS: [Program; 2] = [Program::Relay, Program::RelayAnswering];
const USERS: usize = 10_000;
const FILES_RESERVED: u64 = 200;
