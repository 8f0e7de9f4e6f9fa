//! The real binary as a child, and what it says and leaves behind.
//!
//! A child never sees the `PINPOST_*` variables of whoever runs the test, and never
//! outlives its [`Program`]. Two threads a child read its outputs, so that waiting
//! for a line has a deadline. Of a node, `/proc` tells the memory and the files.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::WAIT_TIME_MAX;
use super::terminal::Terminal;

/// A child that runs. When this is dropped, a node is drained, which must go well, and
/// whatever still runs is killed.
pub struct Program {
    child: Killed,
    input: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
    /// Where a node speaks lines.
    tcp: Option<SocketAddr>,
    /// Where a node speaks WebSocket.
    http: Option<SocketAddr>,
    has_ended: bool,
}

/// A node on free ports.
pub const SERVE: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", "warn"];

/// A child that does not outlive this.
struct Killed(Child);

impl Program {
    pub fn start(command: &mut Command) -> Self {
        Program::start_at(command, Stdio::piped(), Stdio::piped())
    }

    /// Starts with this input, and this for standard error.
    pub fn start_at(command: &mut Command, input: Stdio, err: Stdio) -> Self {
        Program::spawn(command.stdin(input).stdout(Stdio::piped()).stderr(err))
    }

    /// Starts on a terminal.
    pub fn start_on(command: &mut Command, terminal: &Terminal) -> Self {
        let [input, out, err] = [(); 3].map(|()| terminal.stdio());
        Program::spawn(command.stdin(input).stdout(out).stderr(err))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let out = child.stdout.take().map_or_else(|| channel().1, lines_of);
        let err = child.stderr.take().map_or_else(|| channel().1, lines_of);
        Program { child: Killed(child), input, out, err, tcp: None, http: None, has_ended: false }
    }

    /// Starts a node on free ports, and waits until it is ready.
    pub fn serve(args: &[&str]) -> Self {
        // A flag that is given twice counts as it was given last.
        Program::start(&mut command(&[SERVE, args].concat())).ready()
    }

    /// Waits until it is ready.
    pub fn ready(mut self) -> Self {
        let ready = self.line();
        let addr = |key: &str| ready.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
        (self.tcp, self.http) = (addr("tcp="), addr("http="));
        assert!(self.tcp.is_some(), "{ready}");
        self
    }

    pub fn tcp(&self) -> SocketAddr {
        self.tcp.expect("a node serves lines")
    }

    pub fn http(&self) -> SocketAddr {
        self.http.expect("it serves HTTP")
    }

    /// Memory that it allocated and touched, in bytes.
    pub fn memory(&self) -> usize {
        let rollup = fs::read_to_string(self.proc("smaps_rollup")).expect("it runs");
        let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.strip_suffix("kB"));
        kib.expect("the kernel tells it").trim().parse::<usize>().expect("a number") * 1024
    }

    /// Measures from now on how its memory grows.
    pub fn growth(&self) -> Growth<'_> {
        let before = self.memory();
        Growth { program: self, before, most: before }
    }

    /// How many files it has open.
    pub fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("it runs").count()
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.0.id())
    }

    /// The next line of standard output.
    pub fn line(&mut self) -> String {
        self.out.recv_timeout(WAIT_TIME_MAX).expect("a line in time").trim_end_matches('\n').to_owned()
    }

    /// The next line of standard error.
    pub fn trouble(&mut self) -> String {
        self.err.recv_timeout(WAIT_TIME_MAX).expect("a line in time").trim_end_matches('\n').to_owned()
    }

    /// The lines of standard error that have come and were not read.
    pub fn troubles(&self) -> Vec<String> {
        self.err.try_iter().map(|line| line.trim_end_matches('\n').to_owned()).collect()
    }

    pub fn type_in(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).unwrap();
    }

    /// The one child that it has.
    pub fn child(&self) -> Pid {
        let id = self.child.0.id();
        let children = fs::read_to_string(self.proc(&format!("task/{id}/children"))).expect("it runs");
        Pid::from_raw(children.trim().parse().expect("one child")).expect("not 0")
    }

    /// Ends it by `kill -9`, when it is over with it.
    pub fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
        self.has_ended = true;
    }

    /// Waits for the end, and gives what was not read yet. Nothing in it may have panicked.
    pub fn end(&mut self) -> Ran {
        let by = Instant::now() + WAIT_TIME_MAX;
        let rest = |lines: &Receiver<String>| {
            let mut text = String::new();
            loop {
                match lines.recv_timeout(by.saturating_duration_since(Instant::now())) {
                    Ok(line) => text.push_str(&line),
                    Err(RecvTimeoutError::Disconnected) => return text,
                    Err(RecvTimeoutError::Timeout) => panic!("it did not end in time; it said {text:?}"),
                }
            }
        };
        let (out, err) = (rest(&self.out), rest(&self.err));
        // Who has closed both its outputs is ending.
        let status: ExitStatus = self.child.0.wait().unwrap();
        self.has_ended = true;
        assert!(!err.contains("panicked"), "{err}");
        Ran { code: status.code().expect("no signal ended it"), out, err }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.tcp.is_some() && !self.has_ended && !thread::panicking() {
            self.signal(Signal::TERM);
            let ran = self.end();
            assert_eq!(ran.code, 0, "the node did not end well: {}", ran.err);
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails only for a child that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a program's memory grows, looked at again and again.
pub struct Growth<'a> {
    program: &'a Program,
    before: usize,
    most: usize,
}

impl Growth<'_> {
    pub fn look(&mut self) {
        self.most = self.most.max(self.program.memory());
    }

    /// How much more there was than before, at most.
    pub fn bytes(&self) -> usize {
        self.most - self.before
    }

    /// It was less than this at every look.
    #[track_caller]
    pub fn is_below(&self, bytes: usize) {
        let grown = self.bytes();
        assert!(grown < bytes, "memory grew by {} KiB", grown / 1024);
    }
}

/// What a program came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    pub fn of(code: i32, out: &str, err: &str) -> Self {
        Ran { code, out: out.to_owned(), err: err.to_owned() }
    }
}

/// The lines of a child's output, their line ends included, as they come.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (tx, rx) = channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|count| count > 0) {
            if tx.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    rx
}

/// The binary with these arguments.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinpost"));
    command.args(args);
    clean(command)
}

/// Without the settings of whoever runs the test.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PINPOST_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command that ends by itself.
pub fn run(command: &mut Command) -> Ran {
    let mut program = Program::start(command);
    program.close_input();
    program.end()
}

/// A file with this text, gone when dropped.
pub struct File(PathBuf);

impl File {
    pub fn new(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("pinpost-command-{}-{count}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        File(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
