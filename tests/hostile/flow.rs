//! Floods: all arrives, nobody's memory grows.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use pinpost::CloseReason;

use crate::CUT_TIME_MAX;
use crate::rig::bystanders::Bystanders;
use crate::rig::node::Node;
use crate::rig::peer::{Peer, delivered, message};
use crate::rig::program::Program;
use crate::rig::{until, until_in};

#[test]
fn twenty_senders_of_10_000_to_one_recipient() {
    const SENDERS: usize = 20;
    const MESSAGES: usize = 10_000;
    const BURST: usize = 500;
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut sink = Peer::login(node.tcp, "sink");
    let addr = node.tcp;
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| {
            thread::spawn(move || {
                let mut client = Peer::login(addr, &format!("sender-{n}"));
                let mut ids = vec![];
                for burst in 0..MESSAGES / BURST {
                    let numbers = burst * BURST..(burst + 1) * BURST;
                    let lines: String = numbers.map(|n| format!("SEND sink {n}\n")).collect();
                    client.raw(lines.as_bytes());
                    for _ in 0..BURST {
                        let reply = client.hear();
                        ids.push(delivered(&reply).unwrap_or_else(|| panic!("{reply}")).to_owned());
                    }
                }
                (format!("sender-{n}"), ids)
            })
        })
        .collect();
    let mut heard: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..SENDERS * MESSAGES {
        let line = sink.hear();
        let (from, id, text) = message(&line).expect("the sink hears only messages");
        let ids = heard.entry(from.to_owned()).or_default();
        assert_eq!(text.parse(), Ok(ids.len()), "in the order in which {from} sent them");
        ids.push(id.to_owned());
    }
    for sender in senders {
        let (user, ids) = sender.join().expect("every message gets its OK");
        assert_eq!(heard.remove(&user), Some(ids), "each OK names its message, in order");
    }
    let talked = bystanders.noticed_nothing();
    assert_eq!(node.metrics().delivered, (SENDERS * MESSAGES + talked.messages) as u64);
    drop(sink);
    node.settles();
}

#[test]
fn a_sender_with_1024_in_flight_is_not_read() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut sink = Peer::login(node.tcp, "sink");
    let sender = Peer::login(node.tcp, "sender");
    let (pump, receipts) = fill(&node, &sender);
    // Now the sink reads, and everything is resolved.
    sender.stream().set_nonblocking(false).expect("a socket can be that");
    let sent = pump.finish(sender.stream());
    let reader = thread::spawn(move || {
        for n in 0..sent {
            let line = sink.hear();
            let number = message(&line).and_then(|(_, _, text)| text.split_once(' ')).expect("a message").0;
            assert_eq!(number.parse(), Ok(n));
        }
        sink
    });
    let receipts = read_lines(&sender, receipts, sent);
    assert!(receipts.lines().all(|line| delivered(line).is_some()));
    let sink = reader.join().expect("all arrive in order");
    bystanders.noticed_nothing();
    drop((sender, sink));
    node.settles();
}

#[test]
fn an_outbox_without_progress_for_5_seconds_is_a_slow_consumer_s() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let sink = Peer::login(node.tcp, "sink");
    let sender = Peer::login(node.tcp, "sender");
    let (mut pump, receipts) = fill(&node, &sender);
    let start = Instant::now();
    pump.flush(sender.stream());
    until_in(CUT_TIME_MAX, "the sink is cut off", || node.metrics().closes(CloseReason::Slow) == 1);
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(9), "{waited:?}");
    drop(sink);
    // None of what waited is lost without a word, and none of it is said to have been delivered.
    sender.stream().set_nonblocking(false).expect("a socket can be that");
    let sent = pump.finish(sender.stream());
    let receipts = read_lines(&sender, receipts, sent);
    let good = receipts.lines().take_while(|line| delivered(line).is_some()).count();
    assert!(sent - good >= IN_FLIGHT_MAX - 1, "{good} of {sent} delivered");
    assert!(receipts.lines().skip(good).all(|line| line.starts_with("ERR offline ")));
    bystanders.noticed_nothing();
    drop(sender);
    node.settles();
}

#[test]
fn a_flood_slows_down_to_its_reader() {
    const MESSAGES: usize = 30_000;
    let server = Program::serve(&[]);
    let bystanders = Bystanders::start(server.tcp());
    let sink = Peer::login(server.tcp(), "sink");
    let sender = Peer::login(server.tcp(), "sender");
    sender.stream().set_nonblocking(true).expect("a socket can be that");
    let text = "x".repeat(1_000);
    let (mut growth, mut pump) = (server.growth(), Pump::default());
    let (mut messages, mut receipts, mut said, mut turns) = (0, 0, vec![], 0);
    let mut buffer = vec![0; 64 * 1024];
    // All that the sender can write, then one read of its receipts and one read of the sink:
    // the sender is always ahead.
    while pump.count < MESSAGES || messages < pump.count || receipts < pump.count {
        if pump.count < MESSAGES {
            pump.write(sender.stream(), |n| format!("SEND sink {n} {text}\n"));
        } else {
            pump.flush(sender.stream());
        }
        let length = read(sender.stream(), &mut buffer);
        receipts += count_lines(&buffer[..length]);
        said.extend_from_slice(&buffer[..length]);
        if messages < pump.count {
            let length = read(sink.stream(), &mut buffer);
            assert!(length > 0, "a message comes, or was lost");
            messages += count_lines(&buffer[..length]);
        }
        turns += 1;
        if turns % 50 == 0 {
            growth.look();
        }
    }
    let said = String::from_utf8(said).expect("the server says UTF-8");
    assert!(said.lines().all(|line| delivered(line).is_some()));
    growth.is_below(3 << 20);
    bystanders.noticed_nothing();
}

/// Sends one may have in flight; the bystanders of a test have 4 more.
const IN_FLIGHT_MAX: usize = 1_024;

/// A numbered line to `sink`, so short that an outbox holds [`IN_FLIGHT_MAX`] of them.
fn line(n: usize) -> String {
    format!("SEND sink {n} {}\n", "x".repeat(180))
}

/// Lets `sender`, not blocking from here on, send until it has as many in flight as it may:
/// the kernels take the first ones. It is not read any more then: its socket blocks, and stays
/// so. Returns what it has been told so far.
fn fill(node: &Node, sender: &Peer) -> (Pump, Vec<u8>) {
    sender.stream().set_nonblocking(true).expect("a socket can be that");
    let (mut pump, mut receipts) = (Pump::default(), vec![]);
    let mut buffer = vec![0; 64 * 1024];
    let mut looks = 0;
    until("as many sends as may be are in flight, and the sender's socket blocks", || {
        let blocks = !pump.write(sender.stream(), line);
        let count = read(sender.stream(), &mut buffer);
        receipts.extend_from_slice(&buffer[..count]);
        let in_flight = node.holdings().in_flight;
        assert!(in_flight <= IN_FLIGHT_MAX + 4, "{in_flight} in flight");
        // For more than a moment: a busy server blocks a socket too, and then goes on.
        looks = if blocks && in_flight >= IN_FLIGHT_MAX { looks + 1 } else { 0 };
        looks == 50
    });
    (pump, receipts)
}

/// Reads on until there are `count` lines.
fn read_lines(client: &Peer, mut bytes: Vec<u8>, count: usize) -> String {
    let mut buffer = vec![0; 64 * 1024];
    let mut lines = count_lines(&bytes);
    while lines < count {
        let length = read(client.stream(), &mut buffer);
        assert!(length > 0, "not all lines come");
        lines += count_lines(&buffer[..length]);
        bytes.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(bytes).expect("the server says UTF-8")
}

/// Writes numbered lines as fast as a socket takes them.
#[derive(Default)]
struct Pump {
    /// Lines that were begun.
    count: usize,
    unsent: Vec<u8>,
}

impl Pump {
    /// Writes until the socket blocks, or for a while: `false` when it blocked at once.
    fn write(&mut self, socket: &TcpStream, mut line: impl FnMut(usize) -> String) -> bool {
        for n in 0..64 {
            if self.unsent.is_empty() {
                for _ in 0..16 {
                    self.unsent.extend(line(self.count).as_bytes());
                    self.count += 1;
                }
            }
            if !self.flush(socket) {
                return n > 0;
            }
        }
        true
    }

    /// Writes what is begun; `false` when the socket blocks.
    fn flush(&mut self, mut socket: &TcpStream) -> bool {
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("the server reads on: {error}"),
            }
        }
        true
    }

    /// Writes the rest on a thread of its own; returns how many lines there are.
    fn finish(self, socket: &TcpStream) -> usize {
        let mut socket = socket.try_clone().expect("a socket can be cloned");
        thread::spawn(move || socket.write_all(&self.unsent).expect("the server reads on"));
        self.count
    }
}

/// Reads what is there: perhaps nothing, but from a socket that blocks only at its deadline.
fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> usize {
    loop {
        match socket.read(buffer) {
            Ok(0) => panic!("the peer was cut off"),
            Ok(count) => return count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            // As a socket with a deadline is when its process forks.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("nothing comes: {error}"),
        }
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}
