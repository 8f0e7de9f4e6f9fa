//! What a mesh promises, asked by hand in the place of nodes.

use super::*;
use crate::node::seam::{Answer, Cause, Location, Mail, Returned, Stored, Unavailable, Welcome};
use crate::node::slab::Ticket;
use crate::proto::name::{IdRef, SessionId, Tag, UserName, UserRef};
use crate::proto::wire::{Receipt, put_body};

const TICKET: Ticket = Ticket::from_number(7);

fn id(name: &str) -> NodeId {
    NodeId::new(name, "1").expect("valid")
}

fn bob() -> UserName {
    UserName::parse("bob").expect("valid")
}

fn session(n: usize) -> SessionId {
    SessionId::parse(&format!("{n:08}")).expect("valid")
}

fn body(text: &str) -> Vec<u8> {
    let (user, mut body) = (UserRef::parse("bob").expect("valid"), vec![]);
    put_body(user, user, IdRef::Tag(Tag::parse("1").expect("valid")), text, &mut body);
    body
}

impl MeshNode {
    fn send(&self, to: &MeshNode, ticket: u64, text: &str) {
        let mut says = Says::default();
        says.message(&to.node(), Some(ticket), true, &body(text));
        self.say(&mut says, Instant::now());
    }

    /// All that has come up; each message gets a receipt.
    fn hear(&self) -> Vec<String> {
        let (mut heard, mut says) = (vec![], Says::default());
        while let Ok(event) = self.incoming.try_recv() {
            let ClusterEvent::Batch(batch) = event else {
                heard.push(format!("{event:?}"));
                continue;
            };
            self.unpack(&batch, Instant::now(), &mut |node, said| match said {
                Said::Message(number, message) => {
                    heard.push(message.text.to_owned());
                    says.receipt(node, number.expect("it asks"), Receipt::Delivered);
                }
                Said::Receipts(receipt, tickets) => heard.push(format!("{receipt:?} {tickets:?}")),
                said => heard.push(format!("{said:?}")),
            });
        }
        self.say(&mut says, Instant::now());
        heard
    }

    /// The answer to one question.
    fn answer(&self, ask: Ask) -> Answer {
        self.ask([ask].into_iter());
        match self.incoming.try_recv() {
            Ok(ClusterEvent::Answered(TICKET, answer)) => answer,
            event => panic!("{event:?}"),
        }
    }

    fn register(&self, n: usize) -> Result<Welcome, Unavailable> {
        match self.answer(Ask { ticket: TICKET, user: bob(), what: What::Register(session(n)) }) {
            Answer::Registered(welcome) => welcome,
            answer => panic!("{answer:?}"),
        }
    }

    fn locate(&self) -> Result<Vec<Location>, Unavailable> {
        match self.answer(Ask { ticket: TICKET, user: bob(), what: What::Locate(false) }) {
            Answer::Located(locations) => locations,
            answer => panic!("{answer:?}"),
        }
    }
}

fn location(node: &MeshNode, sessions: &[usize]) -> Location {
    Location { node: node.node(), sessions: sessions.iter().copied().map(session).collect() }
}

#[test]
fn messages_and_receipts_are_carried_in_order() {
    let mesh = Mesh::default();
    let (a, b) = (mesh.join(id("a")), mesh.join(id("b")));
    (1..100).for_each(|n| a.send(&b, n, &n.to_string()));
    let (mut heard, mut settled) = (vec![], vec![]);
    // More than may be on its way at once: words let the rest go.
    while settled.len() < 99 {
        heard.extend(b.hear());
        for said in a.hear() {
            let tickets = said.strip_prefix("Delivered [").and_then(|said| said.strip_suffix(']'));
            settled
                .extend(tickets.expect("a receipt").split(", ").map(|n| n.parse::<u64>().expect("a ticket")));
        }
    }
    assert_eq!(heard, (1..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(settled, (1..100).collect::<Vec<_>>());
}

#[test]
fn what_is_held_back_comes_in_order_and_what_is_cut_off_is_lost() {
    let mesh = Mesh::default();
    let (a, b) = (mesh.join(id("a")), mesh.join(id("b")));
    mesh.hold(&a.node());
    a.send(&b, 1, "one");
    a.ask([Ask { ticket: TICKET, user: bob(), what: What::Locate(false) }].into_iter());
    a.send(&b, 2, "two");
    assert_eq!((mesh.held(&a.node()), b.hear().len(), a.hear().len()), (3, 0, 0));
    mesh.release(&a.node());
    assert_eq!(b.hear(), ["one", "two"]);
    assert_eq!(a.hear().len(), 2, "an answer, and both receipts");
    mesh.cut(&b.node());
    a.send(&b, 3, "lost");
    b.send(&a, 4, "lost");
    assert_eq!((a.hear().len(), b.hear().len()), (0, 0));
    assert_eq!((b.locate(), b.register(1)), (Err(Unavailable), Err(Unavailable)));
    assert_eq!(a.locate(), Ok(vec![]));
    mesh.heal(&b.node());
    // What comes later tells that something is missing, and then it is said again.
    a.send(&b, 5, "found");
    let mut heard = vec![];
    while heard.len() < 2 {
        heard.extend(b.hear());
        a.hear();
    }
    assert_eq!(heard, ["lost", "found"]);
}

#[test]
fn who_is_where_is_told_in_the_order_of_the_logins_until_the_node_is_dead() {
    let mesh = Mesh::default();
    let (a, b, c) = (mesh.join(id("a")), mesh.join(id("b")), mesh.join(id("c")));
    assert_eq!(a.register(1), Ok(Welcome::default()));
    assert_eq!(b.register(2).unwrap().before, [location(&a, &[1])]);
    assert_eq!(a.register(3).unwrap().before, [location(&b, &[2])]);
    assert_eq!(c.locate(), Ok(vec![location(&a, &[1, 3]), location(&b, &[2])]));
    assert_eq!(a.locate(), Ok(vec![location(&b, &[2])]));
    a.answer(Ask { ticket: TICKET, user: bob(), what: What::Unregister(session(1)) });
    c.ask(
        [Ask { ticket: Ticket::default(), user: bob(), what: What::Remove(b.node(), session(2)) }]
            .into_iter(),
    );
    assert_eq!((c.locate(), mesh.users()), (Ok(vec![location(&a, &[3])]), 1));
    mesh.hold(&c.node());
    c.send(&a, 1, "it is lost with its node");
    a.send(&c, 2, "published");
    mesh.kill(&c.node());
    let gone = |tickets| Returned { node: c.node(), tickets, casts: 0, cause: Cause::Gone };
    assert_eq!(a.hear(), [format!("{:?}", ClusterEvent::Returned(gone(vec![2])))]);
    a.send(&c, 3, "it is known to be dead");
    let back = Returned { node: c.node(), tickets: vec![3], casts: 0, cause: Cause::Dead };
    assert_eq!(a.hear(), [format!("{:?}", ClusterEvent::Returned(back.clone()))]);
    // Who has joined since finds out.
    let d = mesh.join(id("d"));
    d.send(&c, 3, "nobody is there");
    let back = Returned { cause: Cause::NotThere, ..back };
    assert_eq!(d.hear(), [format!("{:?}", ClusterEvent::Returned(back))]);
    assert_eq!(c.hear().len(), 0);
    assert_eq!(c.locate(), Err(Unavailable), "who is dead is answered all the same");
    a.leave();
    assert_eq!(d.hear(), [format!("{:?}", ClusterEvent::Returned(gone(vec![])))]);
    assert_eq!((d.locate(), mesh.users()), (Ok(vec![]), 0));
}

#[test]
fn all_nodes_share_the_mailboxes_and_one_session_drains_one() {
    let mesh = Mesh::default();
    mesh.bound(Limits { messages_max: 2, time_max: Duration::from_secs(60), bytes_max: 64 << 20 });
    let (a, b) = (mesh.join(id("a")), mesh.join(id("b")));
    let store = Ask { ticket: TICKET, user: bob(), what: What::Store(["1", "2", "3"].map(body).to_vec()) };
    let fates = vec![Stored::Yes, Stored::Yes, Stored::Full];
    assert_eq!(a.answer(store), Answer::Stored(fates, Ok(vec![])));
    assert!(b.register(1).unwrap().has_mail && a.register(2).unwrap().has_mail);
    let read = |node: &MeshNode, n, after| match node.answer(Ask {
        ticket: TICKET,
        user: bob(),
        what: What::Read(session(n), after),
    }) {
        Answer::Read(Ok(mail)) => mail,
        answer => panic!("{answer:?}"),
    };
    let Mail::Letters(letters) = read(&b, 1, 0) else { panic!("it is free") };
    assert_eq!(letters.iter().map(|letter| letter.body.clone()).collect::<Vec<_>>(), ["1", "2"].map(body));
    assert_eq!(read(&a, 2, 0), Mail::Busy(None));
    b.ask(
        [Ask { ticket: Ticket::default(), user: bob(), what: What::Take(letters[0].place, vec![]) }]
            .into_iter(),
    );
    b.ask([Ask { ticket: Ticket::default(), user: bob(), what: What::Release(session(1)) }].into_iter());
    assert_eq!(read(&a, 2, 0), Mail::Letters(vec![letters[1].clone()]));
    mesh.kill(&a.node());
    assert_eq!(read(&b, 1, letters[1].place), Mail::Letters(vec![]), "a dead node drains nothing");
}
