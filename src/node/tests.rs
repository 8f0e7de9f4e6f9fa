//! One node by itself: lines in, bytes out, in virtual time.

mod fairness;

use std::time::{Duration, Instant};

use crate::mailbox::Limits;
use crate::node::Turn;
use crate::node::out::Say;
use crate::node::route::Flow;
use crate::node::seam::{Answer, Ask, Cause, Location, Mail, Returned, Said, Welcome, What};
use crate::node::slab::ConnectionId;
use crate::node::state::{Node, NodeConfig};
use crate::proto::line::Line;
use crate::proto::name::{IdRef, NodeId, Tag, UserRef};
use crate::proto::wire::{Item, Message, Receipt};

/// A node, and a clock that only the test moves.
struct Rig {
    node: Node,
    now: Instant,
}

impl Rig {
    fn new(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig {
            sessions_max: 8,
            outbox_bytes_max: 4_096,
            login_time_max: Duration::from_secs(60),
            ping_time: Some(Duration::from_secs(30)),
            mailboxes: Limits { messages_max: 0, time_max: Duration::from_secs(3_600), bytes_max: 64 << 20 },
            is_alone: true,
            hash_key: 7,
            seed: 7,
        };
        change(&mut config);
        let id = NodeId::new("pi", "V1StGXR8").expect("valid");
        let now = Instant::now();
        Rig { node: Node::new(id, config, now), now }
    }

    fn open(&mut self) -> ConnectionId {
        let id = self.node.opened(false, self.now);
        assert_eq!(self.hear(id), "HELLO pinpost 1 pi-V1StGXR8\n");
        id
    }

    fn login(&mut self, line: &str) -> ConnectionId {
        let id = self.open();
        self.say(id, line);
        let user = line.split(' ').nth(1).expect("a user");
        assert!(self.hear(id).starts_with(&format!("OK {user} ")));
        id
    }

    /// A login that presence lets in; the user is on these other nodes, too.
    fn enters(&mut self, line: &str, before: &[&NodeId]) -> ConnectionId {
        let id = self.open();
        self.say(id, line);
        self.lets_in(before);
        id
    }

    /// Presence answers the one login that waits: the user is on these other nodes, too.
    fn lets_in(&mut self, before: &[&NodeId]) {
        let asks: Vec<Ask> = self.node.out().asks.drain(..).collect();
        let [Ask { ticket, what: What::Register(session), .. }] = asks[..] else { panic!("{asks:?}") };
        let location = |node: &&NodeId| Location { node: (*node).clone(), sessions: vec![session] };
        let before = before.iter().map(location).collect();
        let welcome = Ok(Welcome { before, ..Welcome::default() });
        self.node.answered(ticket, Answer::Registered(welcome), self.now);
    }

    /// Presence answers the one lane that asks: its user is on these other nodes.
    fn is_located(&mut self, nodes: &[&NodeId]) {
        let asks: Vec<Ask> = self.node.out().asks.drain(..).collect();
        let [Ask { ticket, what: What::Locate(_), .. }] = asks[..] else { panic!("{asks:?}") };
        let location = |node: &&NodeId| Location { node: (*node).clone(), sessions: vec![] };
        let locations = Ok(nodes.iter().map(location).collect());
        self.node.answered(ticket, Answer::Located(locations), self.now);
    }

    fn is_gone(&mut self, node: &NodeId) {
        let gone = Returned { node: node.clone(), tickets: vec![], casts: 0, cause: Cause::Gone };
        self.node.returned(&gone, self.now);
    }

    /// A message that another node forwards, and what is said to others then.
    fn takes(&mut self, origin: &NodeId, number: u64, to: &str, is_first: bool) -> Vec<String> {
        let tag = number.to_string();
        let (from, to) = (UserRef::parse("alice").expect("valid"), UserRef::parse(to).expect("valid"));
        let id = IdRef::Tag(Tag::parse(&tag).expect("valid"));
        let message = Message { asks: true, is_first, from, to, id, text: "hi" };
        self.node.said(origin, Said::Message(Some(number), message), self.now);
        self.says()
    }

    /// The messages that are to be said, and nothing else is: the ticket of each, and whether it is a first.
    fn gives(&mut self) -> Vec<(u64, bool)> {
        let mut gives = vec![];
        self.node.out().says.drain(|_, say| match say {
            Say::Message { ticket: Some(ticket), is_first, .. } => gives.push((ticket, is_first)),
            _ => panic!("{say:?}"),
        });
        gives
    }

    /// What is to be said to other nodes.
    fn says(&mut self) -> Vec<String> {
        let mut says = vec![];
        self.node.out().says.drain(|node, say| says.push(format!("{} {say:?}", node.as_str())));
        says
    }

    fn say(&mut self, id: ConnectionId, line: &str) {
        assert_eq!(self.node.line(id, Line::Whole(line.as_bytes()), self.now), Flow::Next, "{line}");
    }

    /// Writes all that waits for a connection, and gives it.
    fn hear(&mut self, id: ConnectionId) -> String {
        let bytes = self.node.outbox(id).to_vec();
        self.node.written(id, bytes.len(), self.now);
        String::from_utf8(bytes).expect("text")
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.node.tick(self.now);
        }
    }

    fn close_all(&mut self, all: &[ConnectionId]) {
        all.iter().for_each(|id| self.node.closed(*id, self.now));
        assert_eq!(self.node.holdings(), Default::default());
    }
}

#[test]
fn a_message_is_delivered_when_it_is_written() {
    let mut rig = Rig::new(|_| ());
    let (alice, bob) = (rig.login("LOGIN alice"), rig.login("LOGIN bob"));
    rig.say(alice, "@t SEND bob hello");
    assert_eq!(rig.hear(alice), "");
    assert_eq!(rig.hear(bob), "MSG alice t hello\n");
    assert_eq!(rig.hear(alice), "@t OK t delivered\n");
    rig.say(alice, "@t SEND bob hello");
    assert_eq!((rig.hear(bob), rig.hear(alice)), (String::new(), "@t OK t delivered\n".to_owned()));
    rig.say(alice, "SEND carol hello");
    assert!(rig.hear(alice).starts_with("ERR offline "));
    rig.say(alice, "WHO bob");
    assert_eq!(rig.hear(alice), "OK bob online 1\n");
    rig.close_all(&[alice, bob]);
}

#[test]
fn what_a_session_did_not_take_goes_to_the_next_one_or_back() {
    let mut rig = Rig::new(|_| ());
    let (alice, bob) = (rig.login("LOGIN alice"), rig.login("LOGIN bob"));
    rig.say(alice, "@1 SEND bob one");
    let bob2 = rig.open();
    rig.say(bob2, "LOGIN bob");
    let heard = rig.hear(bob2);
    assert!(heard.starts_with("OK bob ") && heard.ends_with("\nMSG alice 1 one\n"), "{heard}");
    rig.node.closed(bob, rig.now);
    assert_eq!(rig.hear(alice), "@1 OK 1 delivered\n");
    rig.say(alice, "@2 SEND bob two");
    rig.say(alice, "@3 SEND bob three");
    rig.node.closed(bob2, rig.now);
    let heard = rig.hear(alice);
    assert!(heard.contains("@2 ERR offline") && heard.contains("@3 ERR offline"), "{heard}");
    rig.close_all(&[alice]);
}

#[test]
fn a_mailbox_is_drained_before_anything_live() {
    let mut rig = Rig::new(|config| config.mailboxes.messages_max = 10);
    let alice = rig.login("LOGIN alice");
    for n in 0..3 {
        rig.say(alice, &format!("@{n} SEND bob {n}"));
        assert_eq!(rig.hear(alice), format!("@{n} OK {n} stored\n"));
    }
    let bob = rig.open();
    rig.say(bob, "LOGIN bob ack");
    rig.say(alice, "@4 SEND bob 4");
    let heard = rig.hear(bob);
    let lines: Vec<&str> = heard.lines().skip(1).collect();
    assert_eq!(lines, ["MSG alice 0 0", "MSG alice 1 1", "MSG alice 2 2", "MSG alice 4 4"]);
    for n in 0..3 {
        rig.say(bob, &format!("ACK {n} alice"));
    }
    assert_eq!(rig.hear(alice), "");
    rig.say(bob, "ACK 4 alice");
    assert_eq!(rig.hear(alice), "@4 OK 4 delivered\n");
    rig.close_all(&[alice, bob]);
}

#[test]
fn what_is_stored_and_sent_again_meanwhile_does_not_wait_for_itself() {
    let mut rig =
        Rig::new(|config| (config.mailboxes.messages_max, config.outbox_bytes_max) = (1_000, 1 << 20));
    let alice = rig.login("LOGIN alice");
    let send = |rig: &mut Rig| (0..600).for_each(|n| rig.say(alice, &format!("@{n} SEND bob {n}")));
    send(&mut rig);
    assert_eq!(rig.hear(alice).matches(" stored\n").count(), 600);
    let bob = rig.open();
    rig.say(bob, "LOGIN bob ack");
    // Live messages wait for the mailbox, in which most of these still are.
    send(&mut rig);
    let mut shown = vec![];
    loop {
        let heard = rig.hear(bob);
        let ids: Vec<&str> =
            heard.lines().filter_map(|line| line.strip_prefix("MSG alice ")?.split(' ').next()).collect();
        if ids.is_empty() {
            break;
        }
        ids.iter().for_each(|id| rig.say(bob, &format!("ACK {id} alice")));
        shown.extend(ids.iter().map(|id| (*id).to_owned()));
    }
    assert!(shown.iter().eq((0..600).map(|n| n.to_string()).collect::<Vec<_>>().iter()), "{shown:?}");
    assert_eq!(rig.hear(alice).matches(" delivered\n").count(), 600);
    rig.close_all(&[alice, bob]);
}

#[test]
fn an_unacknowledged_message_is_routed_again_and_then_stored() {
    let mut rig = Rig::new(|config| config.mailboxes.messages_max = 10);
    let (alice, bob) = (rig.login("LOGIN alice"), rig.login("LOGIN bob ack"));
    rig.say(alice, "@1 SEND bob one");
    assert_eq!(rig.hear(bob), "MSG alice 1 one\n");
    rig.pass(30);
    assert_eq!(rig.hear(alice), "@1 OK 1 stored\n");
    assert_eq!(rig.hear(bob), "", "it was shown that already");
    rig.node.closed(bob, rig.now);
    let bob = rig.open();
    rig.say(bob, "LOGIN bob");
    assert!(rig.hear(bob).ends_with("MSG alice 1 one\n"));
    rig.close_all(&[alice, bob]);
}

#[test]
fn no_message_is_shown_before_the_ok_of_its_login() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let origin = NodeId::new("a", "1").expect("valid");
    let bob = rig.open();
    rig.say(bob, "LOGIN bob");
    // Presence knows of bob already, and has not answered yet.
    rig.takes(&origin, 1, "bob", true);
    assert_eq!(rig.hear(bob), "");
    rig.lets_in(&[]);
    let heard = rig.hear(bob);
    let (reply, messages) = heard.split_once('\n').expect("a line");
    assert!(reply.starts_with("OK bob ") && messages == "MSG alice 1 hi\n", "{heard}");
    rig.node.closed(bob, rig.now);
}

#[test]
fn who_finds_no_room_waits_or_is_told() {
    let mut rig = Rig::new(|_| ());
    let (alice, bob) = (rig.login("LOGIN alice"), rig.login("LOGIN bob"));
    let carol = rig.login("LOGIN carol ack");
    let line = format!("SEND bob {}", "x".repeat(1_000));
    let mut sent = 0;
    while rig.node.line(alice, Line::Whole(line.as_bytes()), rig.now) == Flow::Next {
        sent += 1;
    }
    assert_eq!(sent, 5);
    assert_eq!(rig.node.turn(alice), Turn::Wait);
    rig.say(carol, &line);
    assert!(rig.hear(carol).starts_with("ERR limited "));
    rig.node.out().woken.clear();
    rig.hear(bob);
    assert!(rig.node.out().woken.contains(&alice));
    assert_eq!(rig.node.turn(alice), Turn::Read);
    rig.say(alice, &line);
    rig.node.blocks(bob, rig.now);
    rig.pass(6);
    assert!(matches!(rig.node.turn(bob), Turn::Close(_)), "a slow consumer");
    assert!(rig.hear(bob).starts_with("BYE slow"));
    assert!(rig.hear(alice).ends_with("not delivered\n"));
    rig.close_all(&[alice, bob, carol]);
}

#[test]
fn a_connection_ends_behind_its_replies() {
    let mut rig = Rig::new(|config| config.sessions_max = 1);
    let (alice, bob) = (rig.login("LOGIN alice"), rig.login("LOGIN bob ack"));
    rig.say(alice, "SEND bob one");
    rig.say(alice, "QUIT");
    assert_eq!((rig.hear(alice), rig.node.turn(alice)), (String::new(), Turn::Wait));
    let id = rig.hear(bob);
    let id = id.split(' ').nth(2).expect("an id").to_owned();
    rig.say(bob, &format!("ACK {id} alice"));
    assert_eq!(rig.hear(alice), format!("OK {id} delivered\nBYE quit\n"));
    assert!(matches!(rig.node.turn(alice), Turn::Close(_)));
    let bob2 = rig.login("LOGIN bob");
    assert!(rig.hear(bob).starts_with("BYE replaced "));
    rig.node.drain(rig.now);
    assert_eq!(rig.node.turn(bob2), Turn::Drain);
    rig.say(bob2, "SEND bob x");
    rig.node.end(bob2, Some(crate::proto::reply::CloseReason::Draining), rig.now);
    let heard = rig.hear(bob2);
    assert!(heard.starts_with("ERR draining ") && heard.contains("\nBYE draining "), "{heard}");
    rig.close_all(&[alice, bob, bob2]);
}

#[test]
fn what_waits_behind_a_login_goes_on_and_the_connection_is_read_again() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let alice = rig.open();
    rig.say(alice, "LOGIN alice");
    let behind = Line::Whole(b"PING behind");
    assert_eq!(rig.node.line(alice, behind, rig.now), Flow::Wait);
    assert_eq!(rig.node.turn(alice), Turn::Wait);
    rig.lets_in(&[]);
    assert!(rig.node.out().woken.contains(&alice));
    rig.say(alice, "PING behind");
    let heard = rig.hear(alice);
    assert!(heard.starts_with("OK alice ") && heard.ends_with("PONG behind\n"), "{heard}");
    assert_eq!(rig.node.turn(alice), Turn::Read);
}

#[test]
fn a_question_of_a_cast_is_over_with_the_drain() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let alice = rig.enters("LOGIN alice", &[]);
    rig.say(alice, "CAST bob hello");
    rig.node.closed(alice, rig.now);
    rig.node.drain(rig.now);
    assert!(rig.node.holdings().lanes == 1 && rig.node.holdings().in_flight > 0);
    rig.node.end_replies(rig.now);
    assert_eq!(rig.node.holdings(), Default::default());
}

#[test]
fn origins_are_told_of_further_sessions_but_not_of_those_that_were_replaced_or_whose_node_is_dead() {
    for (is_single, is_dead) in [(false, false), (true, false), (false, true)] {
        let mut rig = Rig::new(|config| {
            config.is_alone = false;
            config.sessions_max = if is_single { 1 } else { 8 };
        });
        let [origin, other] = ["a-1", "b-1"].map(|node| NodeId::parse(node).expect("valid"));
        rig.enters("LOGIN bob", &[&other]);
        rig.says();
        if is_dead {
            rig.is_gone(&other);
        }
        let says = rig.takes(&origin, 1, "bob", true);
        let tells = says.iter().any(|say| say.starts_with("a-1 Item"));
        assert_eq!(tells, !is_single && !is_dead, "{says:?}");
    }
}

#[test]
fn whoever_waits_for_a_mailbox_tells_the_node_of_the_session_that_drains_it_once() {
    let mut rig = Rig::new(|config| (config.is_alone, config.mailboxes.messages_max) = (false, 10));
    let other = NodeId::new("b", "1").expect("valid");
    let bob = rig.open();
    rig.say(bob, "LOGIN bob");
    let ask = |rig: &mut Rig| rig.node.out().asks.pop().expect("one waits");
    let register = ask(&mut rig);
    let welcome = Welcome { has_mail: true, ..Welcome::default() };
    rig.node.answered(register.ticket, Answer::Registered(Ok(welcome)), rig.now);
    for told in [1, 0] {
        let read = ask(&mut rig);
        assert!(matches!(read.what, What::Read(..)), "{read:?}");
        rig.node.answered(read.ticket, Answer::Read(Ok(Mail::Busy(Some(other.clone())))), rig.now);
        assert_eq!(rig.says().len(), told);
        rig.pass(1);
    }
    rig.node.closed(bob, rig.now);
}

#[test]
fn mail_for_somebody_who_is_not_here_makes_presence_look() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let (other, bob) = (NodeId::new("b", "1").expect("valid"), UserRef::parse("bob").expect("valid"));
    rig.node.said(&other, Said::Other(Item::Mail { user: bob }), rig.now);
    let asks: Vec<Ask> = rig.node.out().asks.drain(..).collect();
    assert_eq!(
        asks.iter().map(|ask| (&ask.what, ask.user.as_str())).collect::<Vec<_>>(),
        [(&What::Locate(false), "bob")]
    );
    rig.node.answered(asks[0].ticket, Answer::Located(Ok(vec![])), rig.now);
    rig.close_all(&[]);
}

#[test]
fn what_comes_behind_a_refused_message_is_refused_until_the_next_first() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let [origin, other] = ["a-1", "b-1"].map(|node| NodeId::parse(node).expect("valid"));
    let receipt = |number: u64, receipt| format!("a-1 Receipt({number}, {receipt})");
    assert_eq!(rig.takes(&origin, 1, "bob", true), [receipt(1, "NotHere")]);
    let bob = rig.enters("LOGIN bob", &[]);
    assert!(rig.hear(bob).starts_with("OK bob "));
    let refused = rig.takes(&origin, 2, "bob", false);
    assert_eq!(refused[1..], [receipt(2, "NotHere")], "it would overtake the first");
    assert!(refused[0].starts_with("a-1 Item("), "bob is here: {refused:?}");
    assert_eq!(rig.takes(&other, 3, "bob", false), [""; 0], "of another origin");
    assert_eq!(rig.takes(&origin, 4, "bob", true), [""; 0]);
    assert_eq!(rig.takes(&origin, 5, "bob", false), [""; 0]);
    assert_eq!(rig.hear(bob), "MSG alice 3 hi\nMSG alice 4 hi\nMSG alice 5 hi\n");
    let says = rig.says();
    assert_eq!(says[1..], [receipt(4, "Delivered"), receipt(5, "Delivered")]);
}

#[test]
fn another_node_hears_which_message_is_the_first_also_when_this_one_has_shown_it_before() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let other = NodeId::parse("b-1").expect("valid");
    let [alice, bob] = ["LOGIN alice", "LOGIN bob"].map(|line| rig.enters(line, &[]));
    rig.say(alice, "@1 SEND bob one");
    rig.is_located(&[]);
    assert!(rig.hear(bob).ends_with("MSG alice 1 one\n"));
    let user = UserRef::parse("bob").expect("valid");
    rig.node.said(&other, Said::Other(Item::Announced { user, login: 7 }), rig.now);
    rig.says();
    rig.say(alice, "@1 SEND bob one");
    rig.say(alice, "@2 SEND bob two");
    rig.is_located(&[&other]);
    let firsts: Vec<bool> = rig.gives().into_iter().map(|(_, is_first)| is_first).collect();
    assert_eq!(firsts, [true, false]);
    assert_eq!(rig.hear(bob), "MSG alice 2 two\n");
    assert!(rig.hear(alice).ends_with("@1 OK 1 delivered\n@1 OK 1 delivered\n@2 OK 2 delivered\n"));
}

#[test]
fn what_was_said_to_a_node_before_it_was_known_to_be_gone_is_routed_again() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let other = NodeId::parse("b-1").expect("valid");
    let alice = rig.enters("LOGIN alice", &[]);
    rig.say(alice, "@1 SEND bob one");
    rig.is_located(&[&other]);
    let tickets: Vec<u64> = rig.gives().into_iter().map(|(ticket, _)| ticket).collect();
    rig.is_gone(&other);
    let returned = Returned { node: other, tickets, casts: 0, cause: Cause::Dead };
    rig.node.returned(&returned, rig.now);
    rig.is_located(&[]);
    assert!(rig.hear(alice).contains("\n@1 ERR offline "));
}

#[test]
fn who_waits_for_room_in_a_lane_goes_on_when_all_receipts_come_at_once() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let other = NodeId::parse("b-1").expect("valid");
    let alice = rig.enters("LOGIN alice", &[]);
    let line = format!("SEND bob {}", "x".repeat(1_000));
    let mut sent = 0;
    while rig.node.line(alice, Line::Whole(line.as_bytes()), rig.now) == Flow::Next {
        sent += 1;
    }
    assert_eq!((sent, rig.node.turn(alice)), (55, Turn::Wait));
    rig.is_located(&[&other]);
    let tickets: Vec<u64> = rig.gives().into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(tickets.len(), sent);
    rig.node.said(&other, Said::Receipts(Receipt::Delivered, &tickets), rig.now);
    assert!(rig.node.out().woken.contains(&alice));
    rig.say(alice, &line);
    assert_eq!(rig.node.turn(alice), Turn::Read);
}

#[test]
fn a_login_that_is_replaced_is_answered_first_and_replaces_none_that_came_later() {
    let mut rig = Rig::new(|config| (config.is_alone, config.sessions_max) = (false, 1));
    let logins = [rig.open(), rig.open()];
    logins.into_iter().for_each(|id| rig.say(id, "LOGIN bob"));
    let asks: Vec<Ask> = rig.node.out().asks.drain(..).collect();
    let [one, two] = &asks[..] else { panic!("{asks:?}") };
    for ask in [two, one] {
        rig.node.answered(ask.ticket, Answer::Registered(Ok(Welcome::default())), rig.now);
    }
    let asks: Vec<Ask> = rig.node.out().asks.drain(..).collect();
    let [Ask { ticket, what: What::Unregister(_), .. }] = asks[..] else { panic!("{asks:?}") };
    rig.node.answered(ticket, Answer::Unregistered, rig.now);
    let [first, second] = logins.map(|id| rig.hear(id));
    assert!(first.starts_with("OK bob ") && first.contains("\nBYE replaced "), "{first}");
    assert!(second.starts_with("OK bob ") && second.lines().count() == 1, "{second}");
    assert_eq!(rig.node.turn(logins[1]), Turn::Read);
}

#[test]
fn an_origin_is_told_of_a_further_session_before_the_receipt_of_what_it_has_in_flight() {
    let mut rig = Rig::new(|config| config.is_alone = false);
    let [origin, other] = ["a-1", "b-1"].map(|node| NodeId::parse(node).expect("valid"));
    let bob = rig.enters("LOGIN bob ack", &[]);
    assert_eq!(rig.takes(&origin, 1, "bob", true), [""; 0]);
    let user = UserRef::parse("bob").expect("valid");
    rig.node.said(&other, Said::Other(Item::Announced { user, login: 7 }), rig.now);
    assert_eq!(rig.says().len(), 1, "it is noted");
    rig.hear(bob);
    rig.pass(10);
    let says = rig.says();
    let at = |start: &str| says.iter().position(|say| say.starts_with(start)).expect("it is said");
    assert!(at("a-1 Item") < at("a-1 Receipt"), "{says:?}");
}

#[test]
fn a_silent_stream_is_pinged_unless_something_waits_for_it() {
    let mut rig = Rig::new(|config| config.login_time_max = Duration::from_secs(3600));
    let plain = rig.node.opened(false, rig.now);
    let web = rig.node.opened(true, rig.now);
    rig.pass(20);
    rig.node.greet(web, rig.now);
    rig.pass(29);
    assert_eq!(rig.node.turn(web), Turn::Read);
    rig.pass(1);
    // HELLO was not written.
    assert_eq!(rig.node.turn(web), Turn::Read);
    rig.hear(web);
    rig.pass(30);
    assert_eq!((rig.node.turn(web), rig.node.turn(web)), (Turn::Ping, Turn::Ping));
    rig.node.pinged(web);
    assert_eq!((rig.node.turn(web), rig.node.turn(plain)), (Turn::Read, Turn::Read));
    rig.node.blocks(web, rig.now);
    rig.pass(2);
    rig.node.end(web, None, rig.now);
    rig.pass(60);
    assert!(matches!(rig.node.turn(web), Turn::Close(_)));
}
