//! Whoever can publish to the broker can say anything to a node: it is input like any other.
//!
//! Bytes that are no batch, batches from nodes that nobody knows, receipts for messages
//! that nobody sent, messages for users who are not here: the node goes on, and its users
//! notice nothing.

mod rig;

use amiquip::{Connection, Exchange, ExchangeDeclareOptions, ExchangeType, Publish};
use pinpost::proto::batch::{Head, Item, Message, put_envelope};
use pinpost::proto::{Envelope, Fate, IdRef, MessageId, NodeId, SessionId, UserName, UserRef};

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
    Head { from, number, oldest: number.min(1), have: 7, has_gap, asks_word, first: 1 }.print(&mut batch);
    items.iter().for_each(|item| item.print(&mut batch));
    batch
}

/// What a stranger could say.
fn sayings(random: &mut Random) -> Vec<Vec<u8>> {
    let session = SessionId::parse("4k2jd8s0").expect("valid");
    let message = |asks, to| {
        let id = IdRef::Counted(session, 1);
        Item::Message(Message {
            asks,
            is_shared: false,
            is_again: false,
            from: user("mallory"),
            to: user(to),
            id,
            text: "boo",
        })
    };
    let receipts = |fate, first, count| Item::Receipts { fate, first, count };
    let items = [
        message(true, "nobody"),
        message(false, "nobody"),
        receipts(Fate::Delivered, 0, u64::MAX),
        receipts(Fate::NotHere, u64::MAX - 1, 1),
        receipts(Fate::Delivered, 1, 1 << 40),
        Item::Replaced { user: user("nobody"), session },
        Item::Also { user: user("alice"), login: u64::MAX },
        Item::Receipts { fate: Fate::Unacked, first: 1, count: 9 },
        Item::Waits { first: 1, count: u64::MAX >> 1 },
        Item::Mail { user: user("alice") },
        Item::Noted { user: user("alice"), login: 3, shown: &[1, 2, 3, 4, 5, 6, 7, 8] },
        Item::Changed { user: user("bob") },
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
    let envelope = |n: u64| Envelope {
        number: Some(n),
        is_shared: false,
        is_again: false,
        from: UserName::from(user("mallory")),
        to: user("nobody").into(),
        id: MessageId::Tag("1".into()),
        text: text.as_str().into(),
    };
    let mut long = batch("stranger-long", 1, &[]);
    (0..50).for_each(|n| put_envelope(envelope(n).borrowed(), &mut long));
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
