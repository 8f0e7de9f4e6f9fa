//! What a person with netcat could see, as files: `tests/transcripts/*.txt`.
//!
//! Every file runs over TCP and over WebSocket, on one node and on a mesh of three,
//! and over both at once on a mesh and on a real cluster; connections go round the nodes. `rig/script.rs`
//! tells how a file is written. At the end of each, every connection that is still
//! open must answer a `PING` with nothing before it, and every node must be empty.

mod rig;

use std::fs;
use std::net::Shutdown;
use std::path::Path;
use std::thread;

use pinpost::{Config, Holdings, Mesh};

use rig::net::{Net, Real};
use rig::node::Node;
use rig::peer::{Heard, Peer, Wire};
use rig::script::{Bound, NodeStep, Script, What};

/// Where and over what a file runs.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Connections take these in turn.
    wires: &'static [Wire],
    nodes: usize,
    /// Over a real Redis and RabbitMQ.
    is_real: bool,
}

const TCP: Variant = Variant { name: "TCP, one node", wires: &[Wire::Tcp], nodes: 1, is_real: false };
const TCP_MESH: Variant = Variant { name: "TCP, three nodes", wires: &[Wire::Tcp], nodes: 3, is_real: false };
const WEBSOCKET: Variant =
    Variant { name: "WebSocket, one node", wires: &[Wire::WebSocket], nodes: 1, is_real: false };
const WEBSOCKET_MESH: Variant =
    Variant { name: "WebSocket, three nodes", wires: &[Wire::WebSocket], nodes: 3, is_real: false };
const BOTH_MESH: Variant = Variant {
    name: "TCP and WebSocket, three nodes",
    wires: &[Wire::Tcp, Wire::WebSocket],
    nodes: 3,
    is_real: false,
};

const REAL: Variant = Variant {
    name: "TCP and WebSocket, a real cluster of three",
    wires: &[Wire::Tcp, Wire::WebSocket],
    nodes: 3,
    is_real: true,
};

#[test]
fn on_a_real_cluster() {
    run_all(REAL);
}

#[test]
fn over_tcp_on_one_node() {
    run_all(TCP);
}

#[test]
fn over_tcp_on_three_nodes() {
    run_all(TCP_MESH);
}

#[test]
fn over_websocket_on_one_node() {
    run_all(WEBSOCKET);
}

#[test]
fn over_websocket_on_three_nodes() {
    run_all(WEBSOCKET_MESH);
}

#[test]
fn over_both_on_three_nodes() {
    run_all(BOTH_MESH);
}

#[test]
#[cfg(feature = "internals")]
fn every_request_and_error_has_a_transcript() {
    use std::collections::BTreeSet;

    use pinpost::internals::proto::verb::Verb;
    use pinpost::{CloseReason, ErrorCode};

    // What no transcript can show yet: nothing serves it, or it takes a crowd, a
    // socket that nobody reads, or two things that meet by chance.
    const CODES_WITHOUT_TRANSCRIPT: &[&str] = &["denied", "not-member", "limited", "draining"];
    const REASONS_WITHOUT_TRANSCRIPT: &[&str] = &["slow", "denied", "flood"];

    let (mut verbs, mut codes, mut reasons) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for step in scripts().into_iter().flat_map(|script| script.steps) {
        match step.what {
            What::Say(_, line) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                verbs.extend(line.split(' ').take(2).filter_map(Verb::parse).map(Verb::word));
            }
            What::Hear(_, pattern) => {
                let words: Vec<&str> = pattern.words().collect();
                for pair in words.windows(2) {
                    codes.extend((pair[0] == "ERR").then(|| pair[1].to_owned()));
                    reasons.extend((pair[0] == "BYE").then(|| pair[1].to_owned()));
                }
            }
            _ => {}
        }
    }
    assert_eq!(verbs, Verb::ALL.into_iter().map(Verb::word).collect());
    let expected = |all: Vec<&'static str>, without: &[&str]| -> BTreeSet<String> {
        all.into_iter().filter(|word| !without.contains(word)).map(str::to_owned).collect()
    };
    let all_codes = ErrorCode::ALL.iter().map(|code| code.word()).collect();
    assert_eq!(codes, expected(all_codes, CODES_WITHOUT_TRANSCRIPT));
    let all_reasons = CloseReason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(reasons, expected(all_reasons, REASONS_WITHOUT_TRANSCRIPT));
}

/// The runner itself: what a wrong transcript comes to.
#[test]
fn a_wrong_transcript_fails_and_tells_where() {
    let check = |text: &str, expected: &str| {
        let script = Script::parse("wrong.txt", text).unwrap();
        for variant in [TCP, WEBSOCKET] {
            let told = run(&script, variant).expect_err("a transcript that is wrong");
            let place = format!("wrong.txt:{}, {}", expected.split_once(' ').unwrap().0, variant.name);
            assert!(told.starts_with(&place), "{told}");
            for part in expected.split(' ').skip(1) {
                assert!(told.contains(part), "{part} is not in {told}");
            }
        }
    };
    check("a> PING\n\na< PONG x", "3 expected: got: PONG");
    check("a> PING x\na< PONG", "2 PONG x");
    check("a> PING\na< PONG *", "2 PONG");
    check("a> PING\na x", "2 end PONG");
    check("a> PING 1\na< PONG <n>\na> PING 2\na< PONG <n>", "4 PONG 2");
    check("a> PING\na< PONG\na> HELP QUIT", "3 left INFO");
    check("a> QUIT\na< BYE quit\na> PING", "3 end");
    check("a> QUIT\na< BYE quit", "2 end");
    let unreadable = Script::parse("x.txt", "a> PING\n! sessions=1").expect_err("a late setting");
    assert!(unreadable.starts_with("x.txt:2: "), "{unreadable}");
}

/// Every transcript there is.
fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Script::parse(&name, &fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    };
    paths.iter().map(read).collect()
}

/// Runs every transcript that applies, and tells of all that went wrong.
fn run_all(variant: Variant) {
    let applies = |script: &Script| {
        script.only.iter().all(|word| match word.as_str() {
            "tcp" => variant.wires == [Wire::Tcp],
            "websocket" => variant.wires == [Wire::WebSocket],
            "one" => variant.nodes == 1,
            "several" => variant.nodes > 1,
            // It breaks what nodes talk over, and that is done to memory only.
            "mesh" => variant.nodes > 1 && !variant.is_real,
            word => panic!("{}: only={word}: no such word", script.name),
        })
    };
    let scripts: Vec<Script> = scripts().into_iter().filter(applies).collect();
    assert!(!scripts.is_empty());
    let wrong: Vec<String> = scripts.iter().filter_map(|script| run(script, variant).err()).collect();
    assert!(wrong.is_empty(), "{} of {} transcripts:\n{}", wrong.len(), scripts.len(), wrong.join("\n"));
}

/// Runs one transcript; the error tells where it went wrong, and how.
fn run(script: &Script, variant: Variant) -> Result<(), String> {
    let mut config = Config::ephemeral();
    for (name, value) in &script.settings {
        config.set(name, value).map_err(|error| format!("{}: {error}", script.name))?;
    }
    let mesh = (variant.nodes > 1 && !variant.is_real).then(Mesh::default);
    let real = variant.is_real.then(Real::new);
    let net = mesh.as_ref().map(|mesh| mesh as &dyn Net).or(real.as_ref().map(|real| real as &dyn Net));
    let nodes = start(&config, variant.nodes, net);
    let mut run = Run { script, variant, connections: vec![], nodes, mesh, bound: Bound::default() };
    let mut last = 0;
    let place = |number: usize| format!("{}:{number}, {}", script.name, variant.name);
    for step in &script.steps {
        last = step.number;
        run.step(&step.what)
            .map_err(|why| format!("{}\n  {}\n{why}", place(last), shown(step.source.as_bytes())))?;
    }
    run.nothing_is_left().map_err(|why| format!("{}\n{why}", place(last)))
}

/// Starts nodes at the same time: those of a real cluster take a moment.
fn start(config: &Config, count: usize, net: Option<&dyn Net>) -> Vec<Node> {
    thread::scope(|scope| {
        let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| Node::run(config, net))).collect();
        starting.into_iter().map(|node| node.join().expect("a node starts")).collect()
    })
}

/// A transcript on its way.
struct Run<'a> {
    script: &'a Script,
    variant: Variant,
    /// Before the nodes, so that these are gone when the nodes are stopped.
    connections: Vec<Connection>,
    nodes: Vec<Node>,
    /// What several nodes talk over.
    mesh: Option<Mesh>,
    bound: Bound,
}

struct Connection {
    name: String,
    peer: Peer,
    /// Says no more.
    is_half_closed: bool,
    /// Its end was expected, and came.
    has_ended: bool,
}

impl Run<'_> {
    fn step(&mut self, what: &What) -> Result<(), String> {
        match what {
            What::Say(who, line) => {
                let line = self.bound.fill(line);
                self.open_connection(who)?.peer.try_say(&line).map_err(|error| error.to_string())
            }
            What::SayRaw(who, bytes) => {
                let bytes = self.bound.fill(bytes);
                self.open_connection(who)?.peer.try_raw(&bytes).map_err(|error| error.to_string())
            }
            What::SayBinary(who, bytes) => {
                self.open_connection(who)?.peer.try_binary(bytes).map_err(|error| error.to_string())
            }
            What::HalfClose(who) => {
                let connection = self.open_connection(who)?;
                connection.is_half_closed = true;
                connection.peer.stream().shutdown(Shutdown::Write).map_err(|error| error.to_string())
            }
            What::Hear(who, pattern) => {
                let heard = self.open_connection(who)?.peer.try_hear();
                match &heard {
                    Ok(Heard::Line(line)) if pattern.matches(line.as_bytes(), &mut self.bound) => Ok(()),
                    _ => Err(format!("  expected: the line above, got: {}", told(&heard))),
                }
            }
            What::End(who, code) => {
                let code = *code;
                let connection = self.open_connection(who)?;
                connection.has_ended = true;
                match connection.peer.try_hear() {
                    Ok(Heard::End(got)) if code.is_none() || got.is_none() || got == code => Ok(()),
                    heard => Err(format!("  expected: the end, got: {}", told(&heard))),
                }
            }
            What::Drain => {
                self.nodes.iter().for_each(Node::drain);
                Ok(())
            }
            What::Node(who, step) => self.node_step(who, *step),
        }
    }

    fn node_step(&mut self, who: &str, step: NodeStep) -> Result<(), String> {
        let at = self.connections.iter().position(|connection| connection.name == who);
        let id = &self.node(at.ok_or("no such connection")?).id;
        let mesh = self.mesh.as_ref().ok_or("this takes a mesh: only=mesh")?;
        match step {
            NodeStep::Cut => mesh.cut(id),
            NodeStep::Heal => mesh.heal(id),
            NodeStep::Hold => mesh.hold(id),
            NodeStep::Release => mesh.release(id),
            NodeStep::Kill => mesh.kill(id),
        }
        Ok(())
    }

    /// The node of the connection number `n`: round robin.
    fn node(&self, n: usize) -> &Node {
        &self.nodes[n % self.nodes.len()]
    }

    /// The connection of this name, opened at its first mention.
    fn open_connection(&mut self, name: &str) -> Result<&mut Connection, String> {
        let count = self.connections.len();
        let at = self.connections.iter().position(|connection| connection.name == name).unwrap_or(count);
        if at == count {
            let node = self.node(count);
            let wire = self.variant.wires[count % self.variant.wires.len()];
            let addr = if wire == Wire::Tcp { node.tcp } else { node.http };
            let mut peer = Peer::try_open(addr, wire).map_err(|error| format!("  connecting: {error}"))?;
            if !self.script.has_hello {
                let hello = format!("HELLO pinpost 1 {}", node.id.as_str());
                let heard = peer.try_hear();
                if !matches!(&heard, Ok(Heard::Line(line)) if *line == hello) {
                    return Err(format!("  expected: {hello}, got: {}", told(&heard)));
                }
            }
            let name = name.to_owned();
            self.connections.push(Connection { name, peer, is_half_closed: false, has_ended: false });
        }
        match &mut self.connections[at] {
            connection if connection.has_ended => Err(format!("  {name} has come to its end")),
            connection => Ok(connection),
        }
    }

    /// Every open connection answers a `PING` and says nothing else, and the nodes are empty in the end.
    fn nothing_is_left(mut self) -> Result<(), String> {
        for connection in self.connections.iter_mut().filter(|connection| !connection.has_ended) {
            let name = &connection.name;
            if connection.is_half_closed {
                return Err(format!("  {name} was half closed, and its end is not expected"));
            }
            let ping = format!("PING is anything left for {name}");
            let said = connection.peer.try_say(ping.as_bytes());
            said.map_err(|error| format!("  {name} came to its end: {error}"))?;
            let heard = connection.peer.try_hear();
            let pong = ping.replacen('I', "O", 1);
            if !matches!(&heard, Ok(Heard::Line(line)) if *line == pong) {
                return Err(format!("  left for {name}, which nothing expects: {}", told(&heard)));
            }
        }
        // Otherwise the nodes would wait for them.
        self.connections.clear();
        self.nodes.iter().for_each(Node::drain);
        let left: Vec<Holdings> = self.nodes.iter_mut().map(Node::stop).collect();
        match left.iter().find(|holdings| **holdings != Holdings::default()) {
            Some(holdings) => Err(format!("  left in a node: {holdings:?}")),
            None => Ok(()),
        }
    }
}

fn told(heard: &std::io::Result<Heard>) -> String {
    match heard {
        Ok(Heard::Line(line)) => shown(line.as_bytes()),
        Ok(Heard::End(None)) => "the end".to_owned(),
        Ok(Heard::End(Some(code))) => format!("the end, with the code {code}"),
        Err(error) => error.to_string(),
    }
}

/// A line for people: control characters visible, long ones cut.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    if text.chars().nth(200).is_some() {
        shown.push_str(&format!("... ({} bytes)", line.len()));
    }
    shown
}
