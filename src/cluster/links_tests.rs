//! What holds for all links of a node together, and what they tell it.

use super::*;
use crate::node::seam::Returned;
use crate::proto::name::UserRef;
use crate::proto::wire::put_body;

fn node(id: &str) -> NodeId {
    NodeId::new("a", id).expect("valid")
}

fn bob() -> UserRef<'static> {
    UserRef::parse("bob").expect("valid")
}

fn links(me: &NodeId, now: Instant) -> Links {
    let mut links = Links::new(me.clone());
    links.set_up(true, now);
    links
}

fn announce(links: &mut Links, to: &NodeId, now: Instant) {
    let mut item = vec![];
    Item::Announced { user: bob(), login: 1 }.print(&mut item);
    links.say(to, Say::Item(&item), now);
}

fn forward(links: &mut Links, to: &NodeId, ticket: Option<u64>, now: Instant) {
    let id = crate::proto::name::IdRef::Tag(crate::proto::name::Tag::parse("1").expect("valid"));
    let mut body = vec![];
    put_body(bob(), bob(), id, "hi", &mut body);
    links.say(to, Say::Message { ticket, is_first: false, body: &body }, now);
}

/// A batch that `links` have for `to`.
fn said(links: &mut Links, to: &NodeId, now: Instant) -> Vec<u8> {
    announce(links, to, now);
    let mut batch = vec![];
    links.next(now, &mut batch).expect("there is something to say");
    batch
}

/// Tells whether a batch that came to an incarnation counts.
fn counts(links: &mut Links, epoch: u64, batch: &[u8], now: Instant) -> bool {
    let mut unpacked = Unpacked::read(batch).expect("our own");
    links.hear(epoch, &mut unpacked, now);
    !unpacked.items.is_empty()
}

fn events(links: &mut Links) -> Vec<ClusterEvent> {
    links.events().collect()
}

fn returned(node: &NodeId, tickets: &[u64], casts: u64, cause: Cause) -> ClusterEvent {
    ClusterEvent::Returned(Returned { node: node.clone(), tickets: tickets.to_vec(), casts, cause })
}

/// The table has these, and knows that others are dead.
fn know(links: &mut Links, living: &[(&NodeId, u8)], dead: &[&NodeId], now: Instant) {
    let living = living.iter().map(|(node, version)| ((*node).clone(), *version)).collect();
    links.know(living, dead.iter().copied().cloned().collect(), now);
}

#[test]
fn what_came_to_an_incarnation_before_counts_no_more() {
    let now = Instant::now();
    let (us, them, us_again) = (node("1"), node("2"), node("3"));
    let (mut ours, mut theirs) = (links(&us, now), links(&them, now));
    // It has come from the queue, and waits to be unpacked while this node takes a new id.
    let late = said(&mut theirs, &us, now);
    ours.restart(us_again.clone(), now);
    assert!(!counts(&mut ours, 0, &late, now));
    let fresh = said(&mut theirs, &us_again, now);
    assert!(counts(&mut ours, 1, &fresh, now));
}

#[test]
fn an_idle_bus_hears_of_what_will_be_due_soon() {
    let now = Instant::now();
    let (us, them) = (node("1"), node("2"));
    let mut links = links(&us, now);
    // The other node has no queue, and is left alone for a while.
    link(&mut links.peers, &them, now).expect("there is room").returned(1, now, &mut vec![]);
    assert!(!links.tick(now) && !links.has_next());
    announce(&mut links, &them, now);
    assert!(links.next(now, &mut vec![]).is_none() && links.has_next(), "the bus has to wake up for it");
    assert!(links.tick(now) && !links.has_next(), "and then looks by itself");
}

#[test]
fn what_is_for_a_dead_node_comes_back_at_once() {
    let now = Instant::now();
    let (us, them, other) = (node("1"), node("2"), node("3"));
    let mut links = links(&us, now);
    forward(&mut links, &them, Some(1), now);
    links.next(now, &mut vec![]).expect("it is published");
    forward(&mut links, &them, Some(2), now);
    forward(&mut links, &other, Some(3), now);
    know(&mut links, &[(&other, VERSION)], &[&them], now);
    let gone = ClusterEvent::Returned(Returned {
        node: them.clone(),
        tickets: vec![1],
        casts: 0,
        cause: Cause::Gone,
    });
    assert_eq!(events(&mut links), [returned(&them, &[2], 0, Cause::Dead), gone]);
    (4..6).for_each(|ticket| forward(&mut links, &them, Some(ticket), now));
    forward(&mut links, &them, None, now);
    announce(&mut links, &them, now);
    assert_eq!(events(&mut links), [returned(&them, &[4, 5], 1, Cause::Dead)]);
    let batch = said(&mut links, &other, now);
    let mut unpacked = Unpacked::read(&batch).expect("our own");
    unpacked.head.from = them;
    links.hear(0, &mut unpacked, now);
    assert!(unpacked.items.is_empty(), "it does not know that it is dead");
}

#[test]
fn what_can_not_be_carried_comes_back_after_a_moment() {
    let now = Instant::now();
    let (us, them) = (node("1"), node("2"));
    let mut links = Links::new(us);
    forward(&mut links, &them, Some(1), now);
    assert_eq!(events(&mut links), [returned(&them, &[1], 0, Cause::CutOff)], "there never was a broker");
    links.set_up(true, now);
    links.set_up(false, now);
    forward(&mut links, &them, Some(2), now);
    forward(&mut links, &them, None, now);
    links.give_up_waiting(now);
    assert_eq!(events(&mut links), []);
    let later = now + DOWN_TIME_MAX;
    links.give_up_waiting(later);
    forward(&mut links, &them, Some(3), later);
    assert_eq!(events(&mut links), [returned(&them, &[2, 3], 1, Cause::CutOff)]);
}

#[test]
fn under_a_new_id_everything_begins_anew() {
    let now = Instant::now();
    let (us, them, us_again) = (node("1"), node("2"), node("3"));
    let mut links = links(&us, now);
    forward(&mut links, &them, Some(1), now);
    links.next(now, &mut vec![]).expect("it is published");
    let number = links.epoch << EPOCH_SHIFT | 7;
    links.restart(us_again.clone(), now);
    let gone = ClusterEvent::Returned(Returned {
        node: them.clone(),
        tickets: vec![1],
        casts: 0,
        cause: Cause::Gone,
    });
    assert_eq!(events(&mut links), [gone, ClusterEvent::Renamed(us_again)]);
    links.say(&them, Say::Receipt(number, crate::proto::wire::Receipt::Delivered), now);
    assert!(!links.has_next(), "the receipt is nobody's business any more");
}

#[test]
fn a_link_writes_what_both_ends_read() {
    let now = Instant::now();
    let (us, old, new) = (node("1"), node("2"), node("3"));
    let mut links = links(&us, now);
    let version =
        |links: &mut Links, node: &NodeId| Head::parse(&said(links, node, now)).expect("our own").0.version;
    assert_eq!(version(&mut links, &new), VERSION_MIN, "it is not in the table yet");
    know(&mut links, &[(&old, VERSION_MIN), (&new, VERSION + 1)], &[], now);
    assert_eq!(version(&mut links, &new), VERSION);
    assert_eq!(version(&mut links, &old), VERSION_MIN);
}

#[test]
fn who_is_not_in_the_table_for_long_is_a_stranger() {
    let now = Instant::now();
    let (us, them, other) = (node("1"), node("2"), node("3"));
    let mut links = links(&us, now);
    announce(&mut links, &them, now);
    announce(&mut links, &other, now);
    know(&mut links, &[(&other, VERSION)], &[], now);
    assert_eq!(links.strangers(now), []);
    assert_eq!(links.strangers(now + STRANGER_TIME_MAX), [them]);
}
