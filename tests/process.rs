//! The node as a process: what signals do to it, in a terminal, in a container, and while it starts; and a log
//! that nobody reads.

mod rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};

use rig::peer::Peer;
use rig::program::{Program, Ran, SERVE, clean, command, run};
use rig::terminal::Terminal;
use rig::until;

#[test]
fn a_closed_terminal_drains() {
    let terminal = Terminal::open();
    let mut node = Program::start_at(&mut command(SERVE), terminal.stdio(), Stdio::piped()).ready();
    let mut alice = Peer::login(node.tcp(), "alice");
    // One that hears nothing of the drain for a moment: `SIGHUP` comes twice, from the shell and from the system.
    node.signal(Signal::HUP);
    node.signal(Signal::HUP);
    alice.hears_start("BYE draining ");
    drop(alice);
    assert_eq!(node.end(), Ran::of(0, "", ""));
}

#[test]
fn without_a_terminal_a_hangup_is_ignored_and_logged() {
    let mut node = Program::serve(&[]);
    let mut alice = Peer::login(node.tcp(), "alice");
    node.signal(Signal::HUP);
    assert_eq!(node.trouble(), "warn: SIGHUP is ignored: settings are read at the start only");
    alice.say("PING");
    alice.hears("PONG");
}

#[test]
fn a_signal_ends_a_node_that_waits_for_its_services() {
    for signal in [Signal::TERM, Signal::INT] {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let (node, _silence) = waits_for(&mute, &mut command(SERVE));
        node.signal(signal);
        ends_unready(node);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_ends_process_1() {
    let alone = |program: &str, args: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", program]).args(args);
        clean(unshare)
    };
    if run(&mut alone("true", &[])).code != 0 {
        eprintln!("not tested: this machine lets nobody be process 1");
        return;
    }
    let as_process_1 = |args: &[&str]| alone(env!("CARGO_BIN_EXE_pinpost"), args);
    let mut node = Program::start(&mut as_process_1(SERVE)).ready();
    kill_process(node.child(), Signal::TERM).unwrap();
    assert_eq!(node.end(), Ran::of(0, "", ""));

    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (node, _silence) = waits_for(&mute, &mut as_process_1(SERVE));
    kill_process(node.child(), Signal::TERM).unwrap();
    ends_unready(node);

    let server = mute.local_addr().unwrap().to_string();
    let mut send =
        Program::start(&mut as_process_1(&["send", "--from", "cron", "--server", &server, "bob", "hello"]));
    let _silence = mute.accept().unwrap();
    kill_process(send.child(), Signal::TERM).unwrap();
    assert_eq!(send.end(), Ran::of(128 + 15, "", ""));
}

/// Starts a node of a cluster, which has just come to its Redis, and hears nothing there.
fn waits_for(mute: &TcpListener, serve: &mut Command) -> (Program, TcpStream) {
    let redis = format!("redis://{}", mute.local_addr().unwrap());
    let node =
        Program::start(serve.args(["--log", "info", "--redis", &redis, "--amqp", "amqp://127.0.0.1:1"]));
    (node, mute.accept().unwrap().0)
}

fn ends_unready(mut node: Program) {
    let Ran { code, out, err } = node.end();
    assert_eq!((code, &out[..]), (0, ""), "{err}");
    assert!(err.contains("info: a signal: stopped before it was ready\n"), "{err}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (mut log, end) = UnixStream::pair().unwrap();
    end.set_nonblocking(true).unwrap();
    let filled = loop {
        if let Err(error) = (&end).write_all(b"..") {
            break error.kind();
        }
    };
    assert_eq!(filled, ErrorKind::WouldBlock);
    end.set_nonblocking(false).unwrap();
    let args = [SERVE, &["--connections", "1"]].concat();
    let mut node = Program::start_at(&mut command(&args), Stdio::null(), OwnedFd::from(end).into()).ready();
    let mut alice = Peer::login(node.tcp(), "alice");
    // This is logged.
    let mut refused = Peer::connect(node.tcp());
    refused.hears_start("ERR too-many ");
    alice.say("PING");
    alice.hears("PONG");

    // Whoever comes to read it at last finds the line.
    log.set_nonblocking(true).unwrap();
    let mut read = String::new();
    until("the line is there", || {
        let _ = log.read_to_string(&mut read);
        read.contains("warn: full: ")
    });

    // And the end does not wait for a reader either.
    log.set_nonblocking(false).unwrap();
    alice.quits();
    node.signal(Signal::TERM);
    assert_eq!(node.end(), Ran::of(0, "", ""));
}
