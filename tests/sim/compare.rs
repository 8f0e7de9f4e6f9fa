//! The model of the broker is as good as a real one: both play the same scripts, and what comes out is compared.
//!
//! A script has sections, each of which ends when all that was on its way has arrived. What comes out of a section is
//! what each node heard, from whom and in which order, what came back to it, whether it was told to wait, and whether
//! its bus still has its session. The broker gives one outcome, and the model has to be able to give the same one, with
//! some seed: it may do more than a broker does, and nothing less. That needs no luck where there is no race; where
//! a queue goes while batches are on their way to it, the model has many outcomes.
//!
//! The real side says what the bus says, in the same words: one topic exchange, an exclusive queue a session that
//! goes with it, mandatory publishes, 300 unacknowledged deliveries, many acknowledged at once.
//!
//! Not seen here: a connection that hangs one way or is frozen (nothing here keeps half of one), and heartbeats, which
//! take ten seconds; a broker that is killed (`tests/remote.rs` has that), and what one lets through that is out of
//! memory; what becomes of batches of a dead connection that the broker reads after those of the next one; how much
//! time anything takes; batches that are lost, late or carried twice, which the simulator does to the nodes, and no
//! broker did here.

mod model;
mod real;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use pinpost::NodeId;

use crate::compare::model::Model;
use crate::compare::real::Real;
use crate::rig::random::{Random, seeds};
use crate::rig::services::Broker;

/// Nodes of a script.
const HOSTS: usize = 3;

/// In the place of a host: an id that no node has.
const NOBODY: usize = HOSTS;

/// Deliveries that the broker hands over before it waits for acknowledgements, as for the bus.
const PREFETCH_MAX: u16 = 300;

/// What the model may be asked again for one section, with another seed each time.
const TRIES_MAX: u64 = 20_000;

/// One step of a script. A node that is frozen, or has no session, publishes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The bus of a node begins a session, under the id that the node has.
    Connect(usize),
    /// It publishes so many batches for a node.
    Publish {
        from: usize,
        to: usize,
        count: usize,
    },
    /// Both connections of a node are shut.
    Cut(usize),
    /// The queue of a node is deleted.
    Delete(usize),
    /// A node takes nothing that comes, until it goes on.
    Freeze(usize),
    Thaw(usize),
    /// The broker is out of memory, or no more.
    Alarm(bool),
    /// What is on its way arrives.
    Rest,
    /// The same, and what came out since the last look is compared.
    Look,
}

use Step::{Alarm, Connect, Cut, Delete, Freeze, Look, Publish, Rest, Thaw};

/// What came out of a section at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The numbers of batches, by who had published them: the order is one of each publisher.
    heard: BTreeMap<usize, Vec<usize>>,
    /// The numbers of batches that came back, and for whom they were.
    returned: Vec<(usize, usize)>,
    /// The broker takes nothing of it now, or again.
    blocked: Vec<bool>,
    /// It has a session at the end.
    is_up: bool,
}

type Outcome = [Seen; HOSTS];

/// Who published a batch; the rest of it follows from its number.
struct Batches(Vec<usize>);

impl Batches {
    fn next(&mut self, from: usize) -> (usize, Vec<u8>) {
        self.0.push(from);
        let number = self.0.len() - 1;
        (number, body(number))
    }

    /// A batch has come: as it was, and not another one.
    fn heard(&self, seen: &mut Seen, bytes: &[u8]) {
        let number = number(bytes);
        seen.heard.entry(self.0[number]).or_default().push(number);
    }
}

/// The body of a batch: its number, and what makes some of them longer than a frame.
fn body(number: usize) -> Vec<u8> {
    let length = [4, 5, 300, 4_000, 65_536, 200_000][if number < 40 { number % 6 } else { 0 }];
    let mut body = (number as u32).to_be_bytes().to_vec();
    body.resize(length, number as u8);
    body
}

fn number(bytes: &[u8]) -> usize {
    let number = bytes.first_chunk().map(|number| u32::from_be_bytes(*number) as usize);
    let number = number.expect("a batch has a number");
    assert!(bytes == body(number), "batch {number} is not what it was");
    number
}

/// Ids of which some begin like others, and never used before.
fn ids() -> [NodeId; HOSTS + 1] {
    let suffix = format!("{:08x}", RandomState::new().hash_one(0) as u32);
    ["a", "a.a", "a.a.a-a", "a.b"].map(|name| NodeId::new(name, &suffix).expect("a name and a number"))
}

/// Plays a script on both.
fn play(broker: &Broker, script: &[Step]) {
    let mut real = Real::new(broker, ids());
    let sections: Vec<&[Step]> = script.split_inclusive(|step| *step == Look).collect();
    let mut seeds = vec![];
    for (at, section) in sections.iter().enumerate() {
        let outcome = real.play(section);
        let model = |seed| {
            let mut model = Model::default();
            sections.iter().zip(&seeds).for_each(|(section, seed)| drop(model.play(section, *seed)));
            model.play(section, seed)
        };
        let seed = (0..TRIES_MAX).find(|seed| model(*seed) == outcome);
        seeds.push(seed.unwrap_or_else(|| {
            panic!(
                "the broker does what the model never does, in section {at}: {section:?}\nthe broker: {outcome:?}\n\
                 the model, at first: {:?}\nall sections: {script:?}",
                model(0)
            )
        }));
    }
}

const ALL: [Step; HOSTS + 1] = [Connect(0), Connect(1), Connect(2), Look];

fn publish(from: usize, to: usize, count: usize) -> Step {
    Publish { from, to, count }
}

/// Each of these begins with three nodes that have sessions.
fn scripts() -> Vec<Vec<Step>> {
    let each_to_each = (0..HOSTS).flat_map(|from| [0, 1, 2, NOBODY].map(|to| publish(from, to, 3)));
    let in_turn = (0..40).map(|n| publish(0, [1, NOBODY, 2][n % 3], 1));
    vec![
        // Who gets what: also oneself, and what nobody has comes back, between what arrives.
        each_to_each.chain([Look]).collect(),
        in_turn.chain([Look]).collect(),
        // Longer than what may be unacknowledged.
        vec![publish(0, 1, 1_000), publish(2, 1, 1_000), publish(1, NOBODY, 500), Look],
        // Who takes nothing loses nothing.
        vec![Freeze(1), publish(0, 1, 310), Look, publish(2, 1, 5), Look, Thaw(1), Look],
        // A node without a session is nobody, and what it had not acknowledged does not come again.
        vec![
            publish(0, 1, 10),
            Look,
            Cut(1),
            Look,
            publish(0, 1, 3),
            Look,
            Connect(1),
            publish(0, 1, 3),
            Look,
        ],
        vec![Freeze(1), publish(0, 1, 310), Look, Cut(1), Look, Connect(1), publish(0, 1, 3), Look],
        // Nor does what came back to it.
        vec![publish(0, NOBODY, 3), Freeze(0), Rest, Cut(0), Look, Connect(0), publish(0, NOBODY, 1), Look],
        // A connection dies while batches come to it, and while it publishes.
        vec![publish(0, 1, 6), Cut(1), publish(0, 1, 1), Look],
        vec![publish(0, 1, 4), publish(0, NOBODY, 2), publish(0, 2, 4), Cut(0), Look],
        // So does a queue.
        vec![Delete(1), Look, publish(0, 1, 3), Look, Connect(1), publish(0, 1, 3), Look],
        vec![publish(0, 1, 6), Delete(1), publish(0, 1, 2), Look, Connect(1), publish(1, 1, 2), Look],
        vec![publish(1, NOBODY, 5), publish(1, 0, 5), Delete(1), Look],
        // What was handed over before is heard, though what was published later came back before.
        vec![Freeze(1), publish(0, 1, 3), Rest, Delete(1), publish(0, 1, 2), Rest, Thaw(1), Look],
        vec![Freeze(1), publish(0, 1, 310), Rest, Delete(1), Rest, Thaw(1), Look],
        vec![publish(1, NOBODY, 3), Freeze(1), Rest, Delete(1), Rest, Thaw(1), Look],
    ]
}

#[test]
fn the_model_does_what_a_broker_does() {
    let broker = Broker::shared();
    for script in scripts() {
        play(&broker, &[&ALL[..], &script].concat());
    }
}

#[test]
fn the_model_does_what_a_broker_does_that_is_out_of_memory() {
    let broker = Broker::own();
    let to_all = [publish(0, 1, 1), publish(1, 2, 1), publish(2, 0, 1), publish(0, NOBODY, 1)];
    let scripts = [
        // Who publishes is told to wait, and nobody else.
        vec![Alarm(true), Look, publish(0, 1, 3), Look, Alarm(false), Look, publish(0, 1, 3), Look],
        [&[Alarm(true)], &to_all[..], &[Look, Alarm(false), Look], &to_all, &[Look]].concat(),
        vec![Alarm(true), Look, Alarm(false), Look, publish(0, 1, 1), Look],
        // A session can begin meanwhile.
        vec![Cut(1), Look, Alarm(true), Connect(1), Look, publish(0, 1, 1), Look, Alarm(false), Look],
    ];
    for script in scripts {
        play(&broker, &[&ALL[..], &script].concat());
    }
}

#[test]
fn the_model_does_what_a_broker_does_whatever_happens() {
    let broker = Broker::shared();
    for seed in seeds(10) {
        play(&broker, &any(&mut Random(seed)));
    }
}

/// A script at random. At most one thing goes wrong in a section, or the model has too many outcomes to find one.
fn any(random: &mut Random) -> Vec<Step> {
    let mut script = ALL.to_vec();
    let (mut is_up, mut is_frozen) = ([true; HOSTS], [false; HOSTS]);
    for _ in 0..16 {
        let wrong = random.below(8);
        let host = random.below(HOSTS);
        for _ in 0..random.below(5) {
            let from = random.below(HOSTS);
            // What a bus had published when its session ended arrives at any time, or never.
            if is_up[from] && !is_frozen[from] && (wrong > 1 || host != from) {
                script.push(publish(from, random.below(HOSTS + 1), 1 + random.below(3)));
            }
        }
        match wrong {
            _ if !is_up[host] => {
                is_up[host] = true;
                script.push(Connect(host));
            }
            0 => {
                (is_up[host], is_frozen[host]) = (false, false);
                script.push(Cut(host));
            }
            1 => {
                script.push(Delete(host));
                if std::mem::take(&mut is_frozen[host]) {
                    script.extend([Rest, Thaw(host)]);
                }
                is_up[host] = false;
            }
            2..4 if !is_frozen[host] => {
                is_frozen[host] = true;
                script.push(Freeze(host));
            }
            4..7 if is_frozen[host] => {
                is_frozen[host] = false;
                script.push(Thaw(host));
            }
            _ => {}
        }
        script.push(Look);
    }
    script
}
