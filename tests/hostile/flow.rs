//! Floods: all arrives, nobody's memory grows.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::support::bystanders::Bystanders;
use crate::support::node::{Child, Node};
use crate::support::{Client, DEADLINE, delivered, message, until};

#[test]
fn twenty_senders_of_10_000_to_one_recipient() {
    const SENDERS: usize = 20;
    const MESSAGES: usize = 10_000;
    const BURST: usize = 500;
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut sink = Client::login(node.tcp, "sink");
    let addr = node.tcp;
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| {
            thread::spawn(move || {
                let mut client = Client::login(addr, &format!("sender-{n}"));
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
    assert_eq!(node.handle.metrics().delivered.count(), (SENDERS * MESSAGES + talked.messages) as u64);
    drop(sink);
    node.settles();
}

#[test]
fn a_sender_with_1024_in_flight_is_not_read() {
    let node = Node::start(&[]);
    let bystanders = Bystanders::start(node.tcp);
    let mut sink = Client::login(node.tcp, "sink");
    let sender = Client::login(node.tcp, "sender");
    sender.socket.set_nonblocking(true).expect("a socket can be that");
    let in_flight = || node.handle.holdings().in_flight;
    // The kernels take what is not read first; only then messages stay in flight, 1,024 of them
    // being less than an outbox holds.
    let text = "x".repeat(180);
    let line = |n| format!("SEND sink {n} {text}\n");
    let mut pump = Pump::default();
    let (mut receipts, mut buffer) = (vec![], vec![0; 64 * 1024]);
    // The bystanders have 4 at most.
    until("1,024 sends are in flight", || {
        pump.write(&sender.socket, line);
        let count = read(&sender.socket, &mut buffer);
        receipts.extend_from_slice(&buffer[..count]);
        assert!(in_flight() <= 1_024 + 4, "{} in flight", in_flight());
        in_flight() >= 1_024
    });
    until("the sender's socket blocks", || !pump.write(&sender.socket, line));
    assert!((1_024..=1_024 + 4).contains(&in_flight()), "{} in flight", in_flight());
    // Now the sink reads, and everything is resolved.
    sender.socket.set_nonblocking(false).expect("a socket can be that");
    let sent = pump.finish(&sender.socket);
    let reader = thread::spawn(move || {
        for n in 0..sent {
            let line = sink.hear();
            let number = message(&line).and_then(|(_, _, text)| text.split_once(' ')).expect("a message").0;
            assert_eq!(number.parse(), Ok(n));
        }
        sink
    });
    while count_lines(&receipts) < sent {
        let count = read(&sender.socket, &mut buffer);
        receipts.extend_from_slice(&buffer[..count]);
    }
    let receipts = String::from_utf8(receipts).expect("the server says UTF-8");
    assert!(receipts.lines().all(|line| delivered(line).is_some()));
    let sink = reader.join().expect("all arrive in order");
    bystanders.noticed_nothing();
    drop((sender, sink));
    node.settles();
}

#[test]
fn a_flood_slows_down_to_its_reader() {
    const MESSAGES: usize = 30_000;
    let server = Child::start(&[]);
    let bystanders = Bystanders::start(server.tcp);
    let sink = Client::login(server.tcp, "sink");
    let sender = Client::login(server.tcp, "sender");
    sender.socket.set_nonblocking(true).expect("a socket can be that");
    let text = "x".repeat(1_000);
    let before = server.memory();
    let (mut most, mut pump) = (before, Pump::default());
    let (mut messages, mut receipts, mut turns) = (0, 0, 0);
    let mut buffer = vec![0; 64 * 1024];
    // All that the sender can write, then one read of its receipts and one read of the sink:
    // the sender is always ahead.
    while receipts < MESSAGES {
        if pump.count < MESSAGES {
            pump.write(&sender.socket, |n| format!("SEND sink {n} {text}\n"));
        } else {
            pump.flush(&sender.socket);
        }
        let receipt_bytes = read(&sender.socket, &mut buffer);
        receipts += count_lines(&buffer[..receipt_bytes]);
        if messages < pump.count {
            let mut sink = &sink.socket;
            let length = sink.read(&mut buffer).expect("a message comes, or was lost");
            assert!(length > 0, "the sink was cut off");
            messages += count_lines(&buffer[..length]);
        }
        turns += 1;
        if turns % 50 == 0 {
            most = most.max(server.memory());
        }
    }
    assert_eq!(receipts, pump.count);
    assert!(most - before < 3 << 20, "memory grew by {} KiB", (most - before) / 1024);
    bystanders.noticed_nothing();
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

/// Reads what is there, perhaps nothing.
fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> usize {
    match socket.read(buffer) {
        Ok(0) => panic!("the sender was cut off"),
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("nothing for {DEADLINE:?}: {error}"),
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}
