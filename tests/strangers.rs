//! Whoever can publish to the broker can say anything to a node: it is input like any other.
//!
//! Bytes that are no batch, batches from nodes that nobody knows, receipts for messages
//! that nobody sent, messages for users who are not here: the node goes on, and its users
//! notice nothing.

mod rig;

use amiquip::{Connection, Exchange, ExchangeDeclareOptions, ExchangeType, Publish};
use pinpost::internals::proto::name::{IdRef, Tag, UserRef};
use pinpost::internals::proto::wire::{Head, Item, Message, Receipt, VERSION};
use pinpost::{NodeId, SessionId};

use rig::net::{Real, nodes};
use rig::node::Node;
use rig::peer::Peer;
use rig::random::{Random, seeds};

fn user(name: &str) -> UserRef<'_> {
    UserRef::parse(name).expect("valid")
}

/// A batch of a node called `from`.
fn batch(from: &str, number: u64, items: &[Item<'_>]) -> Vec<u8> {
    let from = NodeId::parse(from).expect("valid");
    let mut batch = vec![];
    let (has_gap, asks_word) = (number.is_multiple_of(2), number.is_multiple_of(3));
    let (version, oldest) = (VERSION, number.min(1));
    Head { version, from, number, oldest, have: 7, has_gap, asks_word, first: 1 }.print(&mut batch);
    // What a later version may say.
    batch.extend([64, 3, 1, 2, 3]);
    items.iter().for_each(|item| item.print(&mut batch));
    batch
}

/// What a stranger could say.
fn sayings(random: &mut Random) -> Vec<Vec<u8>> {
    let session = SessionId::parse("4k2jd8s0").expect("valid");
    let message = |asks, to| {
        let id = IdRef::Counted(session, 1);
        Item::Message(Message { asks, is_first: asks, from: user("mallory"), to: user(to), id, text: "boo" })
    };
    let receipts = |receipt, first, count| Item::Receipts { receipt, first, count };
    let items = [
        message(true, "nobody"),
        message(false, "nobody"),
        receipts(Receipt::Delivered, 0, u64::MAX),
        receipts(Receipt::NotHere, u64::MAX - 1, 1),
        receipts(Receipt::Delivered, 1, 1 << 40),
        Item::Replaced { user: user("nobody"), session },
        Item::Announced { user: user("alice"), login: u64::MAX },
        Item::Announced { user: user("bob"), login: 0 },
        receipts(Receipt::Unacked, 1, 9),
        Item::Waits { first: 1, count: u64::MAX >> 1 },
        Item::Mail { user: user("alice") },
        Item::Noted { user: user("alice"), login: 3 },
        Item::Further { user: user("bob"), node: "stranger-5" },
    ];
    let whole = batch("stranger-1", 1, &items);
    let mut sayings = vec![whole.clone(), batch("stranger-2", 9, &items), batch("stranger-3", 0, &[])];
    for number in [u64::MAX, 1 << 48, (1 << 48) - 1] {
        sayings.push(batch("stranger-4", number, &items));
        sayings.push(batch("stranger-4", number, &items));
    }
    for number in 0..200 {
        sayings.push(batch(&format!("stranger-{number}"), 1 + number % 3, &items[..number as usize % 9]));
        let mut broken = whole.clone();
        for _ in 0..3 {
            let at = random.below(broken.len());
            broken[at] = random.below(256) as u8;
        }
        broken.truncate(1 + random.below(broken.len()));
        sayings.push(broken);
        sayings.push((0..random.below(300)).map(|_| random.below(256) as u8).collect());
    }
    // As long as the broker takes it.
    let text = "x".repeat(60_000);
    let id = IdRef::Tag(Tag::parse("1").expect("valid"));
    let (from, to) = (user("mallory"), user("nobody"));
    let message = Item::Message(Message { asks: true, is_first: true, from, to, id, text: &text });
    let mut long = batch("stranger-long", 1, &[]);
    (0..50).for_each(|_| message.print(&mut long));
    sayings.push(long);
    sayings
}

#[test]
fn what_strangers_say_over_the_broker_disturbs_nobody() {
    let real = Real::new();
    let [a, b] = nodes(&real, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    let mut bob = Peer::login(b.tcp, "bob");
    alice.sends("bob", "before", "hi");
    bob.hears("MSG alice before hi");

    let seed = seeds(1)[0];
    let mut connection = Connection::insecure_open(&real.0.amqp_url()).expect("the broker is there");
    let channel = connection.open_channel(None).expect("it is open");
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let exchange = channel.exchange_declare(ExchangeType::Topic, "pinpost", durable).expect("as nodes do");
    let say = |exchange: &Exchange<'_>, to: &Node, saying: &[u8]| {
        exchange.publish(Publish::new(saying, to.id.as_str())).expect("it is open");
    };
    for saying in sayings(&mut Random(seed)) {
        say(&exchange, &a, &saying);
        say(&exchange, &b, &saying);
    }

    for n in 0..20 {
        alice.sends("bob", &format!("a{n}"), "hi");
        bob.hears(&format!("MSG alice a{n} hi"));
        bob.sends("alice", &format!("b{n}"), "hi");
        alice.hears(&format!("MSG bob b{n} hi"));
    }
    alice.finds("bob", "online 1");
    alice.finds("nobody", "offline");
    alice.heard_all();
    bob.heard_all();
    drop((alice, bob));
    [&a, &b].into_iter().for_each(Node::settles);
    drop(exchange);
    drop(channel);
    connection.close().expect("in order");
}
