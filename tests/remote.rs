//! The remote cluster with a real Redis and a real RabbitMQ, asked by hand in the place of nodes:
//! what its two threads carry, and what they tell when a service fails.
//!
//! What presence and links decide is tested where it is pure; here is what only the real
//! services show.

mod rig;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pinpost::internals::cluster::event::ClusterEvent;
use pinpost::internals::cluster::remote::Remote;
use pinpost::internals::mailbox::Limits;
use pinpost::internals::node::out::Says;
use pinpost::internals::node::seam::{
    Answer, Ask, Cause, Location, Mail, News, Said, Stored, Unavailable, Welcome, What,
};
use pinpost::internals::node::slab::Ticket;
use pinpost::internals::proto::name::{IdRef, NodeId, SessionId, Tag, UserName, UserRef};
use pinpost::internals::proto::wire::{Item, Receipt, parse_body, put_body};
use pinpost::{Amqp, Redis};

use rig::resp::Reply;
use rig::services::{self, Broker, Services};
use rig::{until, until_in};

/// One end of a cluster, and what came up to it.
struct End {
    remote: Remote,
    id: NodeId,
    texts: Vec<String>,
    /// What became of messages, by ticket.
    fates: BTreeMap<u64, &'static str>,
    answers: Vec<Answer>,
    news: Vec<News>,
    gone: Vec<NodeId>,
    items: usize,
    next: u64,
}

impl End {
    fn start(services: &Services, name: &str) -> Self {
        let (redis, amqp) = (services.redis_url(), services.amqp_url());
        let limits = Limits { messages_max: 3, time_max: Duration::from_secs(3_600), bytes_max: 64 << 20 };
        let (redis, amqp) = (Redis::parse(&redis).unwrap(), Amqp::parse(&amqp).unwrap());
        let remote = Remote::start(name, redis, amqp, false, limits);
        assert!(remote.wait_until_joined(Duration::from_secs(10)));
        let id = remote.node();
        End {
            remote,
            id,
            texts: vec![],
            fates: BTreeMap::new(),
            answers: vec![],
            news: vec![],
            gone: vec![],
            items: 0,
            next: 1,
        }
    }

    /// Sends so many messages, which tell their tickets.
    fn send(&mut self, to: &NodeId, count: u64) {
        let (user, mut says) = (UserRef::parse("bob").unwrap(), Says::default());
        for ticket in self.next..self.next + count {
            let text = ticket.to_string();
            let mut body = vec![];
            put_body(user, user, IdRef::Tag(Tag::parse(&text).unwrap()), &text, &mut body);
            says.message(to, Some(ticket), false, &body);
        }
        self.next += count;
        self.say(says);
    }

    fn say(&self, mut says: Says) {
        self.remote.say(&mut says, Instant::now());
    }

    /// Takes in what has come up; each message gets a receipt.
    fn hear(&mut self) {
        let mut says = Says::default();
        while let Ok(event) = self.remote.incoming().try_recv() {
            match event {
                ClusterEvent::Answered(_, answer) => self.answers.push(answer),
                ClusterEvent::News(news) => self.news.push(news),
                ClusterEvent::Returned(returned) => {
                    let cause = match returned.cause {
                        Cause::NotThere | Cause::Dead => "not there",
                        Cause::MaybeSeen => "maybe seen",
                        Cause::CutOff => "cut off",
                        Cause::Gone => "gone",
                    };
                    self.fates.extend(returned.tickets.iter().map(|ticket| (*ticket, cause)));
                    self.gone.extend((returned.cause == Cause::Gone).then_some(returned.node));
                }
                ClusterEvent::Unheard(_) => {}
                ClusterEvent::Renamed(id) => self.id = id,
                ClusterEvent::Batch(batch) => {
                    let End { remote, texts, fates, items, .. } = self;
                    remote.unpack(&batch, Instant::now(), &mut |node, said| match said {
                        Said::Message(number, message) => {
                            texts.push(message.text.to_owned());
                            says.receipt(node, number.unwrap(), Receipt::Delivered);
                        }
                        Said::Receipts(receipt, tickets) => {
                            assert_eq!(receipt, Receipt::Delivered);
                            fates.extend(tickets.iter().map(|ticket| (*ticket, "delivered")));
                        }
                        Said::Waits(_) => panic!("nobody waits"),
                        Said::Other(_) => *items += 1,
                    });
                }
            }
        }
        self.say(says);
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        self.remote.ask([ask].into_iter());
        until("there is an answer", || {
            self.hear();
            !self.answers.is_empty()
        });
        self.answers.pop().unwrap()
    }

    fn register(&mut self, name: &str, n: usize) -> Welcome {
        match self.answer(Ask { ticket: TICKET, user: user(name), what: What::Register(session(n)) }) {
            Answer::Registered(welcome) => welcome.unwrap(),
            answer => panic!("{answer:?}"),
        }
    }

    fn locate(&mut self, name: &str) -> Result<Vec<Location>, Unavailable> {
        match self.answer(Ask { ticket: TICKET, user: user(name), what: What::Locate(false) }) {
            Answer::Located(locations) => locations,
            answer => panic!("{answer:?}"),
        }
    }

    fn unregister(&mut self, n: usize) {
        let ask = Ask { ticket: TICKET, user: bob(), what: What::Unregister(session(n)) };
        assert_eq!(self.answer(ask), Answer::Unregistered);
    }
}

const TICKET: Ticket = Ticket::from_number(7);

/// How long links keep what they could not carry.
const KEEP_TIME_MAX: Duration = Duration::from_secs(10);

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn bob() -> UserName {
    user("bob")
}

fn session(n: usize) -> SessionId {
    SessionId::parse(&format!("{n:08}")).unwrap()
}

/// Both hear until it is so.
fn hear_until(what: &str, a: &mut End, b: &mut End, mut is_so: impl FnMut(&mut End, &mut End) -> bool) {
    until(what, || {
        a.hear();
        b.hear();
        is_so(a, b)
    });
}

/// Messages go from one to the other all the while, and each has a fate in the end; what was delivered
/// came once and in order.
fn settles(a: &mut End, b: &mut End, mut trouble: impl FnMut()) {
    for n in 0..60 {
        a.send(&b.id, 20);
        if n == 20 {
            trouble();
        }
        b.hear();
        a.hear();
    }
    let count = a.next - 1;
    // What is too old is given up without a word: its sender was answered long since.
    let by = Instant::now() + KEEP_TIME_MAX;
    until_in(2 * KEEP_TIME_MAX, "all have a fate", || {
        a.hear();
        b.hear();
        a.fates.len() as u64 == count || Instant::now() > by
    });
    assert!(a.fates.len() as u64 > count / 2);
    let heard: Vec<u64> = b.texts.iter().map(|text| text.parse().unwrap()).collect();
    assert!(heard.is_sorted_by(|one, other| one < other), "in order, once");
    let has_come = |ticket: &u64| heard.binary_search(ticket).is_ok();
    for (ticket, fate) in &a.fates {
        match *fate {
            "delivered" => assert!(has_come(ticket), "{ticket}"),
            "not there" | "cut off" => assert!(!has_come(ticket), "{ticket} {fate}"),
            _ => {}
        }
    }
    a.send(&b.id, 1);
    hear_until("there is a way again", a, b, |a, b| {
        let fate = a.fates.get(&(a.next - 1)).copied();
        if fate.is_some_and(|fate| fate != "delivered") {
            a.send(&b.id, 1);
        }
        fate == Some("delivered")
    });
}

#[test]
fn users_are_found_messages_carried_and_nothing_is_left() {
    let services = Services::shared();
    let (mut a, mut b) = (End::start(&services, "a"), End::start(&services, "b"));
    assert_eq!(a.register("bob", 1), Welcome::default());
    let at_a = Location { node: a.id.clone(), sessions: vec![session(1)] };
    assert_eq!(b.locate("bob"), Ok(vec![at_a.clone()]));
    assert_eq!(b.register("bob", 2).before, [at_a]);
    settles(&mut a, &mut b, || {});
    assert!(a.fates.values().all(|fate| *fate == "delivered"), "{:?}", a.fates);
    let mut says = Says::default();
    says.item(&b.id, &Item::Announced { user: bob().borrowed(), login: 7 });
    a.say(says);
    hear_until("items are carried", &mut a, &mut b, |_, b| b.items == 1);
    // Mailboxes.
    let body = |text: &str| {
        let (user, mut body) = (UserRef::parse("bob").unwrap(), vec![]);
        put_body(user, user, IdRef::Tag(Tag::parse("1").unwrap()), text, &mut body);
        body
    };
    let messages = ["1", "2", "3", "4"].map(body).to_vec();
    match b.answer(Ask { ticket: TICKET, user: bob(), what: What::Store(messages) }) {
        Answer::Stored(fates, locations) => {
            assert_eq!(fates, [Stored::Yes, Stored::Yes, Stored::Yes, Stored::Full]);
            assert_eq!(locations.unwrap().len(), 1);
        }
        answer => panic!("{answer:?}"),
    }
    let read = |end: &mut End, n| match end.answer(Ask {
        ticket: TICKET,
        user: bob(),
        what: What::Read(session(n), 0),
    }) {
        Answer::Read(mail) => mail.unwrap(),
        answer => panic!("{answer:?}"),
    };
    let Mail::Letters(letters) = read(&mut a, 1) else { panic!("it is free") };
    let texts: Vec<_> = letters.iter().map(|letter| parse_body(&letter.body).unwrap().3).collect();
    assert_eq!(texts, ["1", "2", "3"]);
    assert_eq!(read(&mut b, 2), Mail::Busy(Some(a.remote.node())));
    a.remote.ask(
        [Ask { ticket: Ticket::default(), user: bob(), what: What::Take(letters[2].place, vec![]) }]
            .into_iter(),
    );
    a.unregister(1);
    b.unregister(2);
    until("only the nodes' own keys are left", || {
        let keys = services.redis_command(&["KEYS", "*"]).list();
        keys.iter().all(|key| key.starts_with("{nodes}"))
    });
    let b_id = b.id.clone();
    b.remote.leave();
    hear_until("the end of a node is told", &mut a, &mut b, |a, _| a.gone.contains(&b_id));
    a.remote.leave();
    assert_eq!(services.redis_command(&["ZRANGE", "{nodes}", "0", "-1"]), Reply::List(vec![]));
}

#[test]
fn a_broker_that_fails_loses_nothing_without_a_word() {
    let services = Services { redis: services::Redis::shared(), broker: Broker::own() };
    let (mut a, mut b) = (End::start(&services, "a"), End::start(&services, "b"));
    settles(&mut a, &mut b, || services.broker.delete_queues());
    assert!(a.remote.is_joined());
    services.broker.kill();
    until("it is told that it can't be reached", || !a.remote.is_joined());
    until("what waits is given up", || {
        a.send(&b.id, 1);
        a.hear();
        a.fates.values().any(|fate| *fate == "cut off")
    });
    services.broker.start();
    until("it can be reached", || a.remote.is_joined());
    b.texts.clear();
    hear_until("it is carried again", &mut a, &mut b, |a, b| {
        a.send(&b.id, 1);
        !b.texts.is_empty()
    });
    assert!(a.gone.is_empty() && b.gone.is_empty(), "nobody has died");
}

#[test]
fn a_redis_that_has_lost_its_data_makes_all_begin_anew() {
    let services = Services { redis: services::Redis::own(), broker: Broker::shared() };
    let (mut a, mut b) = (End::start(&services, "a"), End::start(&services, "b"));
    a.register("bob", 1);
    b.register("bob", 2);
    b.register("carol", 3);
    let before = [a.id.clone(), b.id.clone()];
    a.send(&b.id, 1);
    hear_until("there is a link", &mut a, &mut b, |a, _| a.fates.len() == 1);
    services.redis.kill();
    until("it is told that nobody can log in", || !a.remote.is_joined());
    services.redis.start();
    hear_until("both have new ids", &mut a, &mut b, |a, b| a.id != before[0] && b.id != before[1]);
    assert_eq!((&a.gone, &b.gone), (&vec![before[1].clone()], &vec![before[0].clone()]));
    // Nobody is told that carol is nowhere, whenever they ask.
    let mut found = Err(Unavailable);
    until("she is found", || {
        found = a.locate("carol");
        found.is_ok()
    });
    assert_eq!(found, Ok(vec![Location { node: b.id.clone(), sessions: vec![session(3)] }]));
    let is_told = |end: &End, other: &End| {
        let elsewhere =
            |news: &News| matches!(news, News::Elsewhere(_, nodes) if *nodes == [other.id.clone()]);
        end.news.iter().any(elsewhere)
    };
    hear_until("one of the two hears of the other", &mut a, &mut b, |a, b| is_told(a, b) || is_told(b, a));
    assert!(a.remote.is_joined() && b.remote.is_joined());
    a.texts.clear();
    a.fates.clear();
    a.next = 1;
    b.texts.clear();
    settles(&mut a, &mut b, || {});
}
