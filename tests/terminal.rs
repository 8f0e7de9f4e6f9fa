//! `pinpost chat` on a terminal: what a person sees there.

#![cfg(feature = "line-editor")]

mod rig;

use rustix::process::Signal;

use rig::peer::Peer;
use rig::program::{Program, command};
use rig::terminal::Terminal;
use rig::until;

/// A node, bob, and alice's chat with him.
fn chat() -> (Terminal, Program, Peer, Program) {
    let node = Program::serve(&[]);
    let bob = Peer::login(node.tcp(), "bob");
    let mut terminal = Terminal::open();
    let server = node.tcp().to_string();
    let mut chat = command(&["chat", "alice", "--to", "bob", "--server", &server]);
    chat.env("TERM", "xterm");
    let chat = Program::start_on(&mut chat, &terminal);
    terminal.shows(&["* alice at "]);
    (terminal, chat, bob, node)
}

#[test]
fn the_prompt_says_to_whom() {
    let (mut terminal, mut chat, mut bob, _node) = chat();
    terminal.type_in(b"hello\r");
    let line = bob.hear();
    assert!(line.starts_with("MSG alice ") && line.ends_with(" hello"), "{line}");
    terminal.type_in(b"/to carol\r");
    terminal.shows(&["to bob> ", "to carol> "]);
    terminal.type_in(b"anybody?\r");
    terminal.shows(&["! carol is not connected: not delivered: anybody?"]);
    terminal.type_in(b"/quit\r");
    assert_eq!(chat.end().code, 0);
    assert!(!terminal.is_raw());
}

#[test]
fn after_a_stop_the_line_and_its_mode_are_back() {
    let (mut terminal, chat, mut bob, _node) = chat();
    terminal.type_in(b"half a li");
    terminal.shows(&["half a li"]);
    until("it edits", || terminal.is_raw());
    // The shell has taken the terminal, and `fg` lets the program go on.
    terminal.take_back();
    chat.signal(Signal::CONT);
    terminal.shows(&["* here again", "to bob> half a li"]);
    assert!(terminal.is_raw());
    terminal.type_in(b"ne\r");
    assert!(bob.hear().ends_with(" half a line"));
}

#[test]
fn what_is_not_utf_8_is_told_and_the_rest_goes_on() {
    let (mut terminal, _chat, mut bob, _node) = chat();
    terminal.type_in(b"x\xffy");
    terminal.shows(&["! what was typed is not UTF-8, and is dropped", "to bob> "]);
    terminal.type_in(b"hello\r");
    let line = bob.hear();
    assert!(line.ends_with("hello"), "{line}");
}
