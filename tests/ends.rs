//! How connections end while something of theirs still waits.

mod rig;

use std::time::{Duration, Instant};

use pinpost::{CloseReason, Mesh};

use rig::net::nodes;
use rig::peer::Peer;
use rig::until;

/// Requests that may wait for their answers.
const DUE: usize = 1024;

#[test]
fn a_socket_that_stalls_while_its_login_waits_holds_up_nobody() {
    let mesh = Mesh::default();
    let [a, _b] = nodes(&mesh, &[("outbox", "1073741824")]);
    let mut bystander = Peer::connect(a.tcp);
    let mut mute = Peer::silent(a.tcp);
    mesh.hold(&a.id);
    // More than the kernels take, never read; then a login that presence does not answer.
    let ping = format!("PING {}\n", "x".repeat(4000));
    mute.raw(ping.repeat(6000).as_bytes());
    mute.raw(b"LOGIN mute\n");
    until("presence was asked", || mesh.held(&a.id) == 1);
    // Beyond the five seconds that make a slow consumer.
    let until_stalled = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until_stalled {
        bystander.say("PING are you there");
        bystander.hears("PONG are you there");
    }
    mesh.release(&a.id);
    until("it is cut off", || a.metrics().closes(CloseReason::Slow) == 1);
}

#[test]
fn a_drain_answers_what_is_due_and_refuses_the_rest_in_order() {
    let mesh = Mesh::default();
    let [a, _b] = nodes(&mesh, &[]);
    let mut alice = Peer::connect_websocket(a.http).logged_in("alice");
    mesh.hold(&a.id);
    alice.raw("WHO bob\n".repeat(DUE + 900).as_bytes());
    until("no more is taken", || a.holdings().in_flight == DUE);
    alice.say("PING behind all that");
    a.drain();
    let mut rest = alice.rest();
    let last = rest.pop();
    assert!(last.is_some_and(|line| line.starts_with("BYE draining ")));
    assert_eq!(rest.pop().as_deref(), Some("PONG behind all that"));
    let (due, refused) = rest.split_at(DUE);
    assert!(due.iter().all(|line| line.starts_with("ERR unavailable ")), "{due:?}");
    assert!(refused.iter().all(|line| line.starts_with("ERR draining ")), "{refused:?}");
    assert_eq!(refused.len(), 900);
}

#[test]
fn a_drain_hears_a_quit_behind_what_is_due() {
    let mesh = Mesh::default();
    let [a, _b] = nodes(&mesh, &[]);
    let mut alice = Peer::login(a.tcp, "alice");
    mesh.hold(&a.id);
    alice.raw(format!("{}@q QUIT\nPING after it\n", "WHO bob\n".repeat(DUE)).as_bytes());
    until("no more is taken", || a.holdings().in_flight == DUE);
    a.drain();
    let mut rest = alice.rest();
    assert_eq!(rest.pop().as_deref(), Some("@q BYE quit"));
    assert_eq!(rest.len(), DUE);
    assert_eq!(a.metrics().closes(CloseReason::Quit), 1);
    assert_eq!(a.metrics().closes(CloseReason::Draining), 0, "it ended for one reason");
}
