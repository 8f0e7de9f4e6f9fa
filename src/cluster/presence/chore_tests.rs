//! Chores and a Redis that refuses: what is said to it, in which order, and how often.
//!
//! The Redis is a script, so that it can refuse what a real one would seldom.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::mailbox::Limits;

/// Redis's answers to a command; the first one that knows the command decides, else it is `OK`.
type Answers = Arc<Mutex<Vec<(&'static str, String)>>>;

/// Presence, and the Redis it talks to.
struct Bench {
    presence: Presence,
    answers: Answers,
    /// What Redis was told, the words of a command with one space between them.
    heard: Receiver<String>,
}

impl Bench {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let redis = Redis::parse(&format!("redis://{}", listener.local_addr().unwrap())).unwrap();
        let answers = Answers::default();
        let (told, heard) = mpsc::channel();
        let script = answers.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut reader = BufReader::new(stream);
                while let Some(command) = command(&mut reader) {
                    let answers = script.lock().unwrap();
                    let answer = answers.iter().find(|(part, _)| command.contains(part));
                    let answer = answer.map_or("+OK", |(_, answer)| answer).to_owned();
                    drop(answers);
                    let _ = told.send(command);
                    if write!(reader.get_mut(), "{answer}\r\n").is_err() {
                        break;
                    }
                }
            }
        });
        let (asks_tx, asks) = mpsc::channel();
        let limits = Limits { messages_max: 10, time_max: Duration::from_secs(60) };
        let (incoming_tx, _) = smol::channel::unbounded();
        let shared = Shared::new("pi", limits, incoming_tx, crossbeam_channel::bounded(1).0, asks_tx);
        let mut presence = Presence::new(Arc::new(shared), redis, asks, 8);
        presence.store.connect().unwrap();
        let bench = Bench { presence, answers, heard };
        bench.heard();
        bench
    }

    fn answers(&self, answers: &[(&'static str, &str)]) {
        let answers = answers.iter().map(|(part, answer)| (*part, (*answer).to_owned()));
        *self.answers.lock().unwrap() = answers.collect();
    }

    /// What Redis was told since the last time, without the scripts: presence waits for the answers.
    fn heard(&self) -> Vec<String> {
        let plain = |command: String| {
            let command = command.replace(&format!("EVAL {}", answers::WRITE), "WRITE");
            let command = command.replace(&format!("EVAL {}", mail::REMEMBER), "REMEMBER");
            match command.rsplit_once('\n') {
                Some((_, arguments)) => format!("TAKE{arguments}"),
                None => command,
            }
        };
        self.heard.try_iter().map(plain).collect()
    }

    fn log_in(&mut self, user: &UserName, session: SessionId) -> String {
        self.presence.sessions.add(user, session, 5, Instant::now());
        tag(&self.presence.shared.node(), session)
    }
}

/// Reads one command.
fn command(reader: &mut impl BufRead) -> Option<String> {
    let number = |mark: char, reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().strip_prefix(mark)?.parse::<usize>().ok()
    };
    let mut words = vec![];
    for _ in 0..number('*', reader)? {
        let mut word = vec![0; number('$', reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words.join(" "))
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn session(n: usize) -> SessionId {
    SessionId::parse(&format!("{n:08}")).unwrap()
}

fn take(name: &str, up_to: u64) -> Ask {
    Ask::Take { user: user(name), up_to, also: vec![] }
}

#[test]
fn what_a_session_was_shown_is_there_before_the_session_is_not() {
    let mut bench = Bench::new();
    let ends = |n: usize| Ask::Unregister {
        user: user(&format!("u{n}")),
        session: session(n),
        shown: Shown { all: vec![1], inherited: 0 },
        number: n as u64,
    };
    // As after a failure: more than one pipeline may have.
    (0..2 * ASKS_MAX + 10).for_each(|n| bench.presence.refuse(ends(n)));
    let mut rounds = 0;
    while !(bench.presence.removals.is_empty() && bench.presence.mail.is_empty()) {
        bench.presence.answer(vec![]).unwrap();
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    let heard = bench.heard();
    assert_eq!(heard.len(), 2 * (2 * ASKS_MAX + 10));
    let place = |start: String| heard.iter().position(|command| command.starts_with(&start)).unwrap();
    for n in 0..2 * ASKS_MAX + 10 {
        assert!(place(format!("REMEMBER 1 d:u{n} ")) < place(format!("HDEL p:u{n} ")), "{n}");
    }
}

#[test]
fn removals_wait_for_the_chores_before_them_and_for_no_others() {
    let mut bench = Bench::new();
    (0..ASKS_MAX + 1).for_each(|n| bench.presence.refuse(take("bob", n as u64)));
    bench.presence.remove(user("bob"), "gone".to_owned());
    bench.presence.answer(vec![]).unwrap();
    assert!(bench.heard().iter().all(|command| command.starts_with("TAKE")));
    // As many more: they are behind the removal.
    (0..ASKS_MAX).for_each(|n| bench.presence.refuse(take("bob", n as u64)));
    bench.presence.answer(vec![]).unwrap();
    assert_eq!(bench.heard().pop().unwrap(), "HDEL p:bob gone");
    assert_eq!(bench.presence.mail.next().len(), 1);
}

#[test]
fn what_is_refused_for_good_is_not_tried_again() {
    let mut bench = Bench::new();
    bench.log_in(&user("bob"), session(1));
    for (error, is_final) in [
        ("-WRONGTYPE Operation against a key holding the wrong kind of value", true),
        ("-ERR unknown command", true),
        ("-ERR Error running script: @user_script:1: WRONGTYPE Operation", true),
        ("-ERR Error running script: @user_script: 1: -READONLY You can't write", false),
        ("-OOM command not allowed", false),
        ("-READONLY You can't write", false),
        ("-NOPERM this user has no permissions", false),
        ("-MISCONF Redis is configured to save", false),
        ("-STRANGE what nobody has heard of", false),
    ] {
        bench.presence.refuse(take("bob", 7));
        bench.presence.refuse(Ask::Release { session: session(1) });
        bench.presence.mail.remember(&user("bob"), &Shown { all: vec![1], inherited: 0 });
        bench.presence.remove(user("bob"), "gone".to_owned());
        bench.answers(&[("bob", error)]);
        let result = bench.presence.answer(vec![]);
        assert_eq!(result.is_ok(), is_final, "{error}");
        assert_eq!(bench.heard().len(), 4);
        bench.answers(&[]);
        bench.presence.answer(vec![]).unwrap();
        assert_eq!(bench.heard().len(), if is_final { 0 } else { 4 }, "{error}");
        assert!(bench.presence.mail.is_empty() && bench.presence.removals.is_empty());
    }
}

#[test]
fn one_that_is_refused_for_good_does_not_hold_up_the_others() {
    let mut bench = Bench::new();
    bench.answers(&[("m:bob", "-WRONGTYPE x"), ("m:carol", "-OOM x")]);
    ["bob", "carol", "dave"].into_iter().for_each(|name| bench.presence.refuse(take(name, 1)));
    assert!(bench.presence.answer(vec![]).is_err());
    bench.answers(&[]);
    bench.presence.answer(vec![]).unwrap();
    assert_eq!(bench.heard()[3..], ["TAKE 1 m:carol 2"]);
}

#[test]
fn a_session_keeps_its_mark_until_what_it_took_is_removed() {
    let mut bench = Bench::new();
    let tag = bench.log_in(&user("bob"), session(1));
    bench.presence.sessions.set_drains(session(1), true);
    bench.presence.refuse(take("bob", 1));
    bench.presence.refuse(Ask::Release { session: session(1) });
    // What a new connection to Redis begins with must not release it.
    let value = |bench: &mut Bench| {
        bench.answers(&[("HGETALL", &format!("*2\r\n${}\r\n{tag}\r\n$1\r\n5", tag.len())), ("EXISTS", ":0")]);
        bench.presence.assert().unwrap();
        bench.heard()[0].strip_prefix(&format!("WRITE 1 p:bob {tag} ")).unwrap().to_owned()
    };
    assert_eq!(value(&mut bench), "5d 86400000");
    // Nor does an attempt that fails.
    bench.answers(&[("p:bob", "-OOM x")]);
    assert!(bench.presence.answer(vec![]).is_err());
    bench.heard();
    assert_eq!(value(&mut bench), "5d 86400000");
    bench.answers(&[]);
    bench.presence.answer(vec![]).unwrap();
    assert_eq!(bench.heard(), [format!("WRITE 1 p:bob {tag} 5 86400000")]);
    assert_eq!(value(&mut bench), "5 86400000");
}

#[test]
fn a_session_that_drains_again_has_nothing_to_release() {
    let mut bench = Bench::new();
    let tag = bench.log_in(&user("bob"), session(1));
    bench.presence.sessions.set_drains(session(1), true);
    let hash = format!("*2\r\n${}\r\n{tag}\r\n$2\r\n5d", tag.len());
    bench.answers(&[("HGETALL p:bob", &hash), ("EVAL \nlocal own", ":1"), ("m:bob", "*0")]);
    let read = Ask::Read { user: user("bob"), session: session(1), after: 0 };
    bench.presence.answer(vec![Ask::Release { session: session(1) }, read]).unwrap();
    assert!(bench.presence.mail.is_empty(), "it would lose its claim");
    assert!(bench.presence.sessions.find(session(1)).unwrap().drains);
    // The end of a session is the end of its claim.
    bench.presence.refuse(Ask::Release { session: session(1) });
    assert!(!bench.presence.mail.is_empty());
    bench.presence.refuse(Ask::Unregister {
        user: user("bob"),
        session: session(1),
        shown: Shown::default(),
        number: 0,
    });
    assert!(bench.presence.mail.is_empty());
    bench.presence.refuse(Ask::Release { session: session(1) });
    assert!(bench.presence.mail.is_empty());
}
