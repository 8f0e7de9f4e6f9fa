//! Random schedules: users hop, nodes are held back, cut off and killed, while
//! everybody sends to everybody, with mailboxes and without. Then the books are
//! checked: each message has one fate, and its fate is the truth.
//!
//! A failure names its seed; `PINPOST_SEED=N cargo test --test mesh_random` plays
//! that schedule again. The schedule follows from the seed alone; what the
//! threads make of it does not.

mod rig;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pinpost::{Mesh, NodeId};

use rig::net::nodes;
use rig::node::Node;
use rig::peer::{Heard, Peer};
use rig::random::{Random, seeds};
use rig::until;

/// Users 0 and 1 stay where they are, on nodes that are never killed. 2 and 3
/// hop and always say goodbye, the others also just hang up.
const USERS: usize = 6;
const STEADY: usize = 2;
const POLITE: usize = 4;

const STEPS: usize = 600;

/// The node that is killed, again and again.
const MORTAL: usize = 2;

#[test]
fn every_message_has_one_fate_and_it_is_true() {
    // At once: most of a schedule's time is a deadline that nothing happens before.
    let playing: Vec<_> =
        seeds(6).into_iter().map(|seed| (seed, thread::spawn(move || play(seed)))).collect();
    for (seed, playing) in playing {
        match playing.join() {
            Ok(books) => println!("seed {seed}: {books:?}"),
            Err(_) => panic!("PINPOST_SEED={seed} plays this again"),
        }
    }
}

/// Plays one schedule, checks it, and returns how many messages had which fate.
fn play(seed: u64) -> BTreeMap<String, usize> {
    let mut random = Random(seed);
    let mailbox = if seed.is_multiple_of(2) { "0" } else { "100000" };
    let mut world = World::new(&[("mailbox", mailbox)]);
    for _ in 0..STEPS {
        world.heal();
        match random.below(100) {
            0..70 => world.send(&mut random),
            70..82 => world.hop(&mut random),
            82..92 => world.hold_or_release(&mut random),
            92..94 => world.cut(&mut random),
            94 => world.kill(&mut random),
            _ => thread::park_timeout(Duration::from_micros(random.below(3_000) as u64)),
        }
    }
    world.end()
}

struct World {
    mesh: Mesh,
    settings: [(&'static str, &'static str); 1],
    nodes: [Node; 3],
    held: [bool; 3],
    /// For how many more steps each node is cut off.
    cut_steps: [usize; 3],
    /// Killed nodes, as they end.
    dead: Vec<JoinHandle<()>>,
    /// Every connection there ever was.
    links: Vec<Link>,
    /// Each user's newest connection.
    at: [usize; USERS],
    /// The recipient of each message, and the connection that it was sent over.
    messages: Vec<(usize, usize)>,
}

/// One connection of a user.
struct Link {
    user: usize,
    node: NodeId,
    socket: TcpStream,
    /// Reads to the end.
    reader: JoinHandle<Vec<String>>,
    /// Every request on it is answered.
    is_answered: bool,
}

impl World {
    fn new(settings: &[(&'static str, &'static str); 1]) -> Self {
        let mesh = Mesh::default();
        let nodes = nodes(&mesh, settings);
        let mut world = World {
            mesh,
            settings: *settings,
            nodes,
            held: [false; 3],
            cut_steps: [0; 3],
            dead: vec![],
            links: vec![],
            at: [0; USERS],
            messages: vec![],
        };
        (0..USERS).for_each(|user| world.connect(user, user % 2));
        until("all are in", || world.mesh.users() == USERS);
        world
    }

    fn connect(&mut self, user: usize, slot: usize) {
        let mut peer = Peer::silent(self.nodes[slot].tcp);
        // Answers that were cut off are given up after 10 seconds.
        peer.patient(Duration::from_secs(20));
        peer.say(&format!("LOGIN user{user}"));
        let socket = peer.writer();
        let reader = thread::spawn(move || hear_all(peer));
        let node = self.nodes[slot].id.clone();
        self.at[user] = self.links.len();
        self.links.push(Link { user, node, socket, reader, is_answered: true });
    }

    fn send(&mut self, random: &mut Random) {
        let link = self.at[random.below(USERS)];
        let to = random.below(USERS);
        let mut lines = String::new();
        for _ in 0..=random.below(20) {
            let number = self.messages.len();
            lines += &format!("@{number} SEND user{to} hi\n");
            self.messages.push((to, link));
        }
        // Its node may be dead.
        let _ = self.links[link].socket.write_all(lines.as_bytes());
    }

    fn hop(&mut self, random: &mut Random) {
        let user = STEADY + random.below(USERS - STEADY);
        let slot = random.below(3);
        let way = random.below(4);
        let link = &mut self.links[self.at[user]];
        match way {
            0 if user >= POLITE => {
                link.is_answered = false;
                let _ = link.socket.shutdown(Shutdown::Both);
            }
            1 => drop(link.socket.shutdown(Shutdown::Write)),
            _ => drop(link.socket.write_all(b"QUIT\n")),
        }
        self.connect(user, slot);
    }

    fn hold_or_release(&mut self, random: &mut Random) {
        let slot = random.below(3);
        // Held less often than not.
        self.held[slot] = !self.held[slot] && random.below(2) == 0;
        let id = &self.nodes[slot].id;
        if self.held[slot] { self.mesh.hold(id) } else { self.mesh.release(id) }
    }

    fn cut(&mut self, random: &mut Random) {
        let slot = random.below(3);
        self.cut_steps[slot] = 1 + random.below(20);
        self.mesh.cut(&self.nodes[slot].id);
    }

    fn heal(&mut self) {
        for (node, steps) in self.nodes.iter().zip(&mut self.cut_steps) {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                self.mesh.heal(&node.id);
            }
        }
    }

    fn kill(&mut self, random: &mut Random) {
        self.mesh.kill(&self.nodes[MORTAL].id);
        self.held[MORTAL] = false;
        let new = Node::start_on(&self.mesh, &[&[("node", "m")], &self.settings[..]].concat());
        let mut node = std::mem::replace(&mut self.nodes[MORTAL], new);
        for link in self.links.iter_mut().filter(|link| link.node == node.id) {
            link.is_answered = false;
        }
        for user in STEADY..USERS {
            if self.links[self.at[user]].node == node.id {
                self.connect(user, random.below(3));
            }
        }
        self.dead.push(thread::spawn(move || {
            // What it had in flight went down with it.
            let held = node.stop();
            assert_eq!((held.connections, held.users), (0, 0), "a dead node lets go of everybody");
        }));
    }

    /// Everybody leaves; what is left is checked.
    fn end(mut self) -> BTreeMap<String, usize> {
        for node in &self.nodes {
            self.mesh.heal(&node.id);
            self.mesh.release(&node.id);
        }
        for link in self.at {
            let _ = self.links[link].socket.write_all(b"QUIT\n");
        }
        let mut links: Vec<(usize, bool, Vec<String>)> = self
            .links
            .drain(..)
            .map(|link| (link.user, link.is_answered, link.reader.join().expect("it ends in time")))
            .collect();
        self.dead.drain(..).for_each(|dead| dead.join().expect("it ends in order"));
        self.nodes.iter().for_each(Node::settles);
        assert_eq!(self.mesh.users(), 0, "presence knows that all have left");
        links.extend((0..USERS).map(|user| (user, true, mail(&self.nodes[0], user))));
        check(&self.messages, &links)
    }
}

/// What waits for a user.
fn mail(node: &Node, user: usize) -> Vec<String> {
    let mut peer = Peer::login(node.tcp, &format!("user{user}"));
    // It comes behind all that waits.
    peer.say(&format!("CAST user{user} that is all"));
    let lines = std::iter::from_fn(|| Some(peer.hear()));
    let mail = lines.take_while(|line| !line.ends_with(" that is all")).collect();
    peer.quits();
    mail
}

/// Hears all up to the end of a connection. One that its node cut short has no end that matters.
fn hear_all(mut peer: Peer) -> Vec<String> {
    let mut heard = vec![];
    loop {
        match peer.try_hear() {
            Ok(Heard::Line(line)) => heard.push(line),
            Ok(Heard::End(_)) => return heard,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                return heard;
            }
            Err(error) => panic!("the node said nothing more: {error}; before that {:?}", heard.last()),
        }
    }
}

/// Checks what everybody heard against what was sent, and counts the fates.
fn check(messages: &[(usize, usize)], links: &[(usize, bool, Vec<String>)]) -> BTreeMap<String, usize> {
    let mut fates: HashMap<usize, String> = HashMap::new();
    let mut seen: HashSet<usize> = HashSet::new();
    for (at, (user, _, heard)) in links.iter().enumerate() {
        let mut here = HashSet::new();
        let mut last: HashMap<usize, usize> = HashMap::new();
        for line in heard {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["MSG", from, id, "hi"] => {
                    let number: usize = id.parse().expect("a number");
                    let (to, link) = messages[number];
                    assert_eq!((to, from), (*user, &*format!("user{}", links[link].0)), "{line}");
                    assert!(here.insert(number), "{number} is shown twice by one connection");
                    let before = last.insert(link, number);
                    // Not what was stored when everybody left.
                    if *user < STEADY && at < links.len() - USERS {
                        assert!(before < Some(number), "{number} comes behind {before:?} to {user}");
                    }
                }
                [tag, what, ..] if tag.starts_with('@') => {
                    let number: usize = tag[1..].parse().expect("a number");
                    assert_eq!(messages[number].1, at, "only its sender hears of {number}");
                    let fate = if what == "OK" { words[3] } else { words[2] };
                    let before = fates.insert(number, fate.to_owned());
                    assert_eq!(before, None, "{number} has one fate, not {fate} as well");
                }
                _ => {}
            }
        }
        seen.extend(here);
    }
    let mut books: BTreeMap<String, usize> = BTreeMap::new();
    for (number, (to, link)) in messages.iter().enumerate() {
        let fate = fates.get(&number).map_or("none", String::as_str);
        let is_seen = seen.contains(&number);
        let is_true = match fate {
            // What the kernel had for a connection that hung up is nobody's promise.
            "delivered" | "stored" => is_seen || *to >= POLITE,
            "timeout" => true,
            "none" => !links[*link].1,
            _ => !is_seen,
        };
        assert!(is_true, "{number} to {to}: {fate}, seen: {is_seen}");
        *books.entry(fate.to_owned()).or_default() += 1;
    }
    assert!(books["delivered"] > messages.len() / 20, "too little went well to prove anything: {books:?}");
    books
}
