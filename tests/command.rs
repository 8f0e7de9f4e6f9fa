//! The command as it is installed: arguments, settings, exit codes, signals.
//!
//! Every test runs the real binary, without the `PINPOST_*` variables of whoever runs
//! the test, and ends what it started.

mod rig;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use pinpost::SETTINGS;
use rustix::process::Signal;

use rig::peer::{Heard, Peer};
use rig::program::{File, Program, Ran, SERVE, clean, command, run};
use rig::until;

#[test]
fn help_and_version() {
    let check = |args: &[&str], expected: &[&str]| {
        let ran = run(&mut command(args));
        assert_eq!((ran.code, &ran.err[..]), (0, ""), "{args:?}");
        for part in expected {
            assert!(ran.out.contains(part), "{args:?}: {part:?} is not in\n{}", ran.out);
        }
    };
    let version = format!("pinpost {}\n", env!("CARGO_PKG_VERSION"));
    check(&["--version"], &[&version]);
    check(&["-V"], &[&version]);
    check(&["--help"], &["pinpost serve ", "pinpost chat ", "pinpost send "]);
    check(&["-h"], &["pinpost serve "]);
    check(
        &["chat", "--help"],
        &["USER", "--to PEER", "--server HOST:PORT", "--token TOKEN", "127.0.0.1:7700"],
    );
    check(
        &["send", "--help"],
        &["--from USER TO TEXT", "--server HOST:PORT", "--token TOKEN", "127.0.0.1:7700"],
    );
    check(
        &["serve", "--help"],
        &["--config FILE", "--print-config", "--check", "PINPOST_LISTEN", "Exit codes"],
    );
    check(&["serve", "--sessions", "0", "--help"], &["--config FILE"]);
    for setting in SETTINGS {
        let flag = format!("--{} {}", setting.name, setting.form);
        let default = if setting.form.is_empty() { "" } else { setting.default };
        check(&["serve", "--help"], &[&flag, setting.about, default]);
    }
}

#[test]
fn wrong_arguments() {
    let check = |args: &[&str], expected: &[&str]| check_wrong(command(args), expected);
    check(&[], &["a command is missing", "serve, chat or send"]);
    check(&["--nonsense"], &["--nonsense", "--help"]);
    check(&["-x"], &["-x", "--help"]);
    check(&["listen"], &["\"listen\"", "serve, chat or send"]);
    check(&["no\nsense\x1b[2J"], &["serve, chat or send"]);

    check(&["serve", "--nonsense"], &["--nonsense", "serve --help"]);
    check(&["serve", "--nonsense=1"], &["--nonsense", "serve --help"]);
    check(&["serve", "--no\nsense\x1b[2J"], &["serve --help"]);
    check(&["serve", "extra"], &["\"extra\""]);
    check(&["serve", "--open=yes"], &["--open", "\"yes\""]);
    check(&["serve", "--config"], &["--config", "FILE"]);
    check(&["serve", "--config", "/nowhere/at/all"], &["--config", "/nowhere/at/all", "TOML file"]);
    for setting in SETTINGS.iter().filter(|setting| !setting.form.is_empty()) {
        let flag = format!("--{}", setting.name);
        check(&["serve", &flag], &[&format!("{flag} {}", setting.form)]);
        // A URL may have a password, and is never shown.
        let shown = |value: &str| if setting.form == "URL" { format!("{flag} is") } else { value.to_owned() };
        check(&["serve", &flag, "no such\nvalue"], &[&flag, &shown("\"no such\\nvalue\""), setting.allowed]);
        check(&["serve", "--check", &format!("{flag}=")], &[&flag, &shown("\"\""), setting.allowed]);
    }
    check(&["serve", "--max_line", "64"], &["--max_line is not a flag", "it takes --max-line"]);
    for args in
        [&["--redis", "redis://:s3/cret@h"][..], &["--amqp", "amqp://u:s3#cret@h"], &["redis://:s3cret@h"]]
    {
        let ran = run(command(&["serve"]).args(args));
        assert!(
            ran.code == 2 && !ran.err.contains("cret") && ran.err.contains("URL") | ran.err.contains("%23"),
            "{}",
            ran.err
        );
    }
    check(&["serve", "--redis", "redis://127.0.0.1"], &["--redis alone", "--amqp"]);
    check(&["serve", "--sessions", "0"], &["--sessions \"0\"", "from 1 to 1000"]);
    check(&["serve", "--sessions", "--check"], &["--sessions \"--check\"", "from 1 to 1000"]);
    check(&["serve", "--mailbox", "1000001"], &["--mailbox \"1000001\"", "1000000"]);
    check(&["serve", "--mailbox-ttl", "7"], &["--mailbox-ttl \"7\"", "7d"]);
    check(&["serve", "--login-timeout", "60"], &["--login-timeout \"60\"", "60s"]);
    check(&["serve", "--max-line", "65537"], &["--max-line \"65537\"", "65536"]);
    check(&["serve", "--outbox", "1"], &["--outbox \"1\"", "4096"]);
    check(&["serve", "--listen", "7700"], &["--listen \"7700\"", "127.0.0.1:7700"]);
    let thrice = ["serve", "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2", "--listen", "127.0.0.1:3"];
    check(&thrice, &["--listen", "127.0.0.1:3", "at most two"]);
    for flag in ["--listen", "--http"] {
        for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7700"] {
            check(&["serve", flag, addr], &[&format!("{flag} {addr}"), "loopback", "--open"]);
        }
    }

    check(&["chat"], &["USER"]);
    check(&["chat", "alice", "bob"], &["USER"]);
    check(&["chat", "al ice"], &["USER \"al ice\"", "holds a space"]);
    check(&["chat", "#lobby"], &["USER \"#lobby\"", "begins with #"]);
    check(&["chat", &"x".repeat(65)], &["USER", "more than 64 bytes"]);
    check(&["chat", "alice", "--to", "@bob"], &["--to \"@bob\"", "begins with @"]);
    check(&["chat", "alice", "--to"], &["--to", "PEER"]);
    check(&["chat", "alice", "--server", "somewhere"], &["--server \"somewhere\"", "HOST:PORT"]);
    check(&["chat", "alice", "--server", "here:1,"], &["--server \"here:1,\"", "HOST:PORT"]);
    check(&["chat", "alice", "--server", ":7700"], &["--server \":7700\"", "HOST:PORT"]);
    check(&["chat", "alice", "--server", "somewhere:65536"], &["--server \"somewhere:65536\"", "HOST:PORT"]);
    check(&["chat", "alice", "--sessions", "1"], &["--sessions"]);
    check(&["chat", "alice", "--token", ""], &["--token", "one word"]);

    check(&["send"], &["TO", "TEXT"]);
    check(&["send", "--from", "alice", "bob"], &["TO", "TEXT"]);
    check(&["send", "--from", "alice", "bob", "two", "words"], &["TEXT in quotes"]);
    check(&["send", "bob", "hello"], &["--from", "USER"]);
    check(&["send", "--from"], &["--from", "USER"]);
    check(&["send", "--from", "+alice", "bob", "hello"], &["--from \"+alice\"", "begins with +"]);
    check(&["send", "--from", "alice", "", "hello"], &["TO \"\"", "is empty"]);
    check(&["send", "--from", "alice", "b\nb", "hello"], &["TO \"b\\nb\"", "a control character, U+000A"]);
    check(&["send", "--from", "alice", "--server", "x", "bob", "hello"], &["--server \"x\"", "HOST:PORT"]);
    check(&["send", "--from", "alice", "bob", ""], &["TEXT \"\"", "not empty", "control character"]);
    check(&["send", "--from", "alice", "bob", "two\nlines"], &["TEXT \"two\\nlines\"", "control character"]);
    check(&["send", "--from", "alice", "--token", "ack", "bob", "hello"], &["--token", "one word"]);
    // Behind TO there are no flags: nothing is sent, and the exit code says so.
    check(&["send", "bob", "--help"], &["--from is missing"]);
    check(&["send", "bob", "hello", "--from", "alice"], &["flags, then TO and TEXT"]);
    check(&["send", "--from", "alice", "bob", "hello", "--help"], &["flags, then TO and TEXT"]);
    check(&["send", "bob", "--from", "--from"], &["flags, then TO and TEXT"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_error_changes_no_exit_code() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has one");
    let status = command(&["serve", "--nonsense"]).stderr(full).status().expect("it starts");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn wrong_environment() {
    let check = |name: &str, value: &str, expected: &[&str]| {
        let mut command = command(&["serve", "--check"]);
        command.env(name, value);
        check_wrong(command, expected);
    };
    check("PINPOST_SESSIONS", "many", &["PINPOST_SESSIONS \"many\"", "from 1 to 1000"]);
    check("PINPOST_LISTEN", "7700", &["PINPOST_LISTEN \"7700\"", "an IP address"]);
    check("PINPOST_REDIS", "redis://:s3@h?db=3", &["PINPOST_REDIS is not allowed", "[/database]"]);
    check("PINPOST_LOGIN_TIMEOUT", "1w", &["PINPOST_LOGIN_TIMEOUT \"1w\"", "100ms"]);
    check("PINPOST_MAX_LINE", "1", &["PINPOST_MAX_LINE \"1\"", "64 to"]);
    check("PINPOST_OPEN", "yes", &["PINPOST_OPEN \"yes\"", "true or false"]);
    check("PINPOST_HTTP", "0.0.0.0:1", &["0.0.0.0:1", "--open"]);
}

#[test]
fn an_empty_variable_is_as_if_unset() {
    let mut command = command(&["serve", "--check"]);
    for setting in SETTINGS {
        command.env(format!("PINPOST_{}", setting.name.to_ascii_uppercase().replace('-', "_")), "");
    }
    assert_eq!(run(&mut command), Ran::of(0, "the settings are fine\n", ""));
}

#[test]
fn wrong_settings_file() {
    let check = |text: &str, expected: &str| {
        let file = File::new(text);
        let expected = format!("{} {expected}", file.path());
        check_wrong(command(&["serve", "--check", "--config", file.path()]), &[&expected]);
    };
    check("# x\nsessions = 0\n", "line 2: sessions \"0\" is not allowed: it takes a number from 1 to 1000");
    check("log = \"info\"\nsession = 1\n", "line 2: session is not a setting");
    check("max-line = 4096\n", "line 1: max-line is not a setting: it takes max_line");
    check(
        "listen = 127.0.0.1:7700\n",
        "line 1: listen takes an IP address and a port, such as 127.0.0.1:7700",
    );
    check("\n\nlisten = [\"127.0.0.1:1\", \"x\"]\n", "line 3: listen \"127.0.0.1:1,x\" is not allowed");
    check("sessions = 1\n\nlisten = \n", "line 3: ");
    check("sessions = 1\nsessions = 2\n", "line 2: ");
    check("[http]\noff = true\n", "line 1: http takes an IP address and a port");
    check("open = \"yes\"\n", "line 1: open \"yes\" is not allowed: it takes true or false");
    check("\"a\\nb\" = 1\n", "line 1: ");
}

#[test]
fn what_can_not_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--http"), ("--http", "--listen")] {
        let command = command(&["serve", flag, &addr, other, "127.0.0.1:0"]);
        check_wrong(command, &[&format!("{flag} {addr}"), "in use", "free port"]);
    }
    // As many files as this are too few for so many connections.
    let mut few = Command::new("sh");
    let script = "ulimit -n 256 && exec \"$0\" serve --check --connections 193";
    few.args(["-c", script, env!("CARGO_BIN_EXE_pinpost")]);
    check_wrong(clean(few), &["--connections 193", "256 files", "192 connections"]);
    let mut enough = Command::new("sh");
    enough.args(["-c", &script.replace("193", "192"), env!("CARGO_BIN_EXE_pinpost")]);
    assert_eq!(run(&mut clean(enough)).code, 0);
}

#[test]
fn a_service_that_is_something_else_is_told_in_one_line() {
    let check = |setting: &str, answer: &'static [u8], expected: &[&str]| {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = door.local_addr().unwrap();
        let (redis, amqp) = match setting {
            "Redis" => (format!("redis://{addr}"), "amqp://127.0.0.1:1".to_owned()),
            _ => ("redis://127.0.0.1:1".to_owned(), format!("amqp://guest:s3cret@{addr}")),
        };
        // It ends with the node, whose connections it would wait for.
        std::thread::spawn(move || {
            for stream in door.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(answer));
            }
        });
        let mut node = Program::start(&mut command(&[SERVE, &["--redis", &redis, "--amqp", &amqp]].concat()));
        let start = format!("warn: {setting} at {addr} is away: ");
        let line = loop {
            let line = node.trouble();
            if let Some(line) = line.strip_prefix(&start) {
                break line.to_owned();
            }
        };
        for part in expected {
            assert!(line.contains(part), "{setting}, {answer:?}: {part} is not in {line}");
        }
        node.kill();
    };
    let (banner, alert) = (b"AMQP\x00\x00\x09\x01", b"\x15\x03\x03\x00\x02\x02\x46");
    check(
        "Redis",
        b"-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n",
        &["wants a password", "--redis redis://:PASSWORD@HOST"],
    );
    check("Redis", banner, &["not Redis", "RabbitMQ", "the port of --redis"]);
    check("Redis", alert, &["not Redis", "TLS", "the port of --redis"]);
    check("Redis", b"HTTP/1.1 400 Bad Request\r\n\r\n", &["not Redis", "HTTP", "the port of --redis"]);
    check("Redis", b"", &["ended the connection at once", "TLS", "the port of --redis"]);
    check("RabbitMQ", alert, &["TLS", "the port of --amqp"]);
    check("RabbitMQ", b"", &["ended the connection at once", "TLS", "the port of --amqp"]);
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let check = |file: Option<&str>, variable: Option<&str>, flag: Option<&str>, expected: &str| {
        let mut command = command(&["serve", "--print-config"]);
        let file = file.map(|value| File::new(&format!("max_line = {value}\n")));
        if let Some(file) = &file {
            command.args(["--config", file.path()]);
        }
        variable.map(|value| command.env("PINPOST_MAX_LINE", value));
        flag.map(|value| command.args(["--max-line", value]));
        let ran = run(&mut command);
        assert!(ran.out.contains(&format!("\nmax_line = {expected}\n")), "{}{}", ran.out, ran.err);
    };
    let (file, variable, flag) = (Some("1001"), Some("1002"), Some("1003"));
    check(None, None, None, "4096");
    check(file, None, None, "1001");
    check(None, variable, None, "1002");
    check(None, None, flag, "1003");
    check(file, variable, None, "1002");
    check(file, None, flag, "1003");
    check(None, variable, flag, "1003");
    check(file, variable, flag, "1003");
}

#[test]
fn what_is_printed_is_a_settings_file() {
    let check = |args: &[&str], expected: &[&str]| {
        let printed = run(command(&["serve", "--print-config"]).args(args));
        assert_eq!((printed.code, &printed.err[..]), (0, ""), "{args:?}");
        for setting in SETTINGS {
            let key = format!("\n{} = ", setting.name.replace('-', "_"));
            assert_eq!(printed.out.matches(&key).count(), 1, "{key}{}", printed.out);
        }
        for line in expected {
            assert!(printed.out.lines().any(|other| other == *line), "{line}: {}", printed.out);
        }
        let file = File::new(&printed.out);
        let again = run(&mut command(&["serve", "--config", file.path(), "--print-config"]));
        assert_eq!(again.out, printed.out, "{}", again.err);
        let checked = run(&mut command(&["serve", "--config", file.path(), "--check"]));
        assert_eq!((checked.code, &checked.err[..]), (0, ""));
    };
    check(
        &[],
        &["listen = [\"127.0.0.1:7700\"]", "http = \"127.0.0.1:7780\"", "sessions = 8", "open = false"],
    );
    let other = [
        ["--listen", "[::1]:1"],
        ["--listen", "0.0.0.0:2"],
        ["--http", "off"],
        ["--node", "pi-4.local_x"],
        ["--redis", "redis://:secret@127.0.0.1:6380/7"],
        ["--amqp", "amqp://me:secret%40@localhost/pinpost"],
        ["--sessions", "1"],
        ["--mailbox", "1000"],
        ["--mailbox-ttl", "30d"],
        ["--login-timeout", "500ms"],
        ["--max-line", "65536"],
        ["--outbox", "4096"],
        ["--connections", "10"],
        ["--log", "off"],
    ];
    let other: Vec<&str> = other.iter().flatten().copied().chain(["--open"]).collect();
    check(&other, &["listen = [\"[::1]:1\", \"0.0.0.0:2\"]", "http = \"off\"", "open = true"]);
}

#[test]
fn the_sample_settings_file() {
    let print = |args: &[&str]| {
        let checked = run(command(&["serve", "--check"]).args(args));
        assert_eq!((checked.code, &checked.err[..]), (0, ""));
        run(command(&["serve", "--print-config"]).args(args)).out
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pinpost.toml");
    assert_eq!(print(&["--config", path]), print(&[]), "as it is, it changes nothing");
    // With every setting in force it shows the defaults, but where there is none.
    let text = fs::read_to_string(path).unwrap();
    let is_setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let lines =
        text.lines().map(|line| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line));
    let all = File::new(&lines.collect::<Vec<_>>().join("\n"));
    let (shown, expected) = (print(&["--config", all.path()]), print(&[]));
    for setting in SETTINGS {
        let key = format!("{} = ", setting.name.replace('-', "_"));
        let count = text.lines().filter(|line| line.trim_start_matches('#').starts_with(&key)).count();
        assert_eq!(count, 1, "{key}");
        let line = |text: &str| text.lines().find(|line| line.starts_with(&key)).map(str::to_owned);
        let has_example = matches!(setting.name, "node" | "redis" | "amqp");
        assert_eq!(line(&shown) == line(&expected), !has_example, "{key}");
    }
}

#[test]
fn the_ready_line() {
    let check = |args: &[&str], form: &str| {
        let mut program = Program::start(command(&["serve", "--log", "off"]).args(args));
        let line = program.line();
        let mut words = line.split(' ');
        for part in form.split(' ') {
            let word = words.next().unwrap_or_default();
            let value = word.strip_prefix(part);
            let value = value.unwrap_or_else(|| panic!("{part} is not at its place in {line}"));
            match part {
                "tcp=" | "http=" => {
                    let addr: SocketAddr = value.parse().unwrap();
                    TcpStream::connect(addr).unwrap();
                }
                part if part.starts_with("node=") => {
                    let is_suffix = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
                    assert!(value.len() == 8 && value.bytes().all(is_suffix), "{line}");
                }
                _ => assert_eq!(value, "", "{line}"),
            }
        }
        assert_eq!(words.next(), None, "{line}");
        program.signal(Signal::TERM);
        assert_eq!(program.end(), Ran::of(0, "", ""));
    };
    let (any, own) =
        ("127.0.0.1:0", ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "a-b.c_d"]);
    check(&own, "ready tcp= http= node=a-b.c_d-");
    check(&["--listen", any, "--http", "off", "--node", "x"], "ready tcp= http=off node=x-");
    check(&["--listen", any, "--listen", any, "--http", any, "--node", "x"], "ready tcp= tcp= http= node=x-");
    check(&["--listen", "0.0.0.0:0", "--http", any, "--node", "x", "--open"], "ready tcp= http= node=x-");
}

#[test]
fn a_signal_drains() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Program::serve(&[]);
        let mut peers = [Peer::login(node.tcp(), "alice"), Peer::connect_websocket(node.http())];
        node.signal(signal);
        for peer in &mut peers {
            peer.hears_start("BYE draining ");
            assert!(matches!(peer.try_hear().unwrap(), Heard::End(_)));
        }
        drop(peers);
        assert_eq!(node.end(), Ran::of(0, "", ""), "{signal:?}");
        let refused = TcpStream::connect(node.tcp()).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_second_signal_ends_a_drain_that_hangs() {
    let mut node = Program::serve(&["--outbox", "4096"]);
    let mut witness = Peer::connect(node.tcp());
    // A peer that reads nothing, and so has no room for its last words.
    let mut deaf = TcpStream::connect(node.tcp()).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let lines = format!("PING {}\n", "x".repeat(4000)).repeat(64);
    while deaf.write(lines.as_bytes()).map_or_else(|e| e.kind() == ErrorKind::Interrupted, |_| true) {}

    node.signal(Signal::TERM);
    witness.hears_start("BYE draining ");
    node.signal(Signal::INT);
    let ran = node.end();
    assert_eq!((ran.code, &ran.out[..]), (1, ""));
    assert!(ran.err.contains("a second signal"), "{}", ran.err);
}

#[test]
fn send_tells_what_became_of_the_line() {
    let mut node = Program::serve(&[]);
    let server = node.tcp().to_string();
    let send =
        |to: &str, text: &str| run(&mut command(&["send", "--from", "alice", "--server", &server, to, text]));
    let mut bob = Peer::login(node.tcp(), "bob");

    assert_eq!(send("bob", " hello  there 你好"), Ran::of(0, "delivered\n", ""));
    let line = bob.hear();
    assert!(line.starts_with("MSG alice ") && line.ends_with("  hello  there 你好"), "{line}");
    // Its own session acknowledges nothing; another one of the same user takes the line.
    let mut alice = Peer::login(node.tcp(), "alice");
    assert_eq!(send("alice", "to myself"), Ran::of(0, "delivered\n", ""));
    assert!(alice.hear().ends_with(" to myself"));
    alice.quits();
    for text in ["-hot water", "--help", "-h", "--from", "--from=cron", "--", "-"] {
        assert_eq!(send("bob", text), Ran::of(0, "delivered\n", ""), "{text}");
        let line = bob.hear();
        assert!(line.starts_with("MSG alice ") && line.ends_with(&format!(" {text}")), "{line}");
    }
    assert_eq!(send("carol", "hello"), Ran::of(1, "", "pinpost: carol is not connected: not delivered\n"));
    let long = send("bob", &"x".repeat(5000));
    assert_eq!((long.code, &long.out[..], long.err.lines().count()), (1, "", 1), "{}", long.err);
    // It takes no session with it: alice has left each time.
    bob.say("WHO alice");
    bob.hears("OK alice offline");

    drop(bob);
    node.signal(Signal::TERM);
    assert_eq!(node.end().code, 0);
    let closed = send("bob", "hello");
    assert_eq!((closed.code, &closed.out[..], closed.err.lines().count()), (1, "", 1), "{}", closed.err);
    assert!(closed.err.starts_with(&format!("pinpost: not sent: {server}: ")), "{}", closed.err);
}

#[test]
fn two_users_chat_through_pipes() {
    let node = Program::serve(&["--sessions", "1"]);
    let server = node.tcp().to_string();
    let chat = |user: &str, peer: &str| {
        Program::start(&mut command(&["chat", user, "--to", peer, "--server", &server]))
    };
    let mut witness = Peer::login(node.tcp(), "witness");
    let mut alice = chat("alice", "bob");
    let mut bob = chat("bob", "alice");
    await_presence(&mut witness, "alice", "online 1");
    await_presence(&mut witness, "bob", "online 1");

    alice.type_in("hello bob\n");
    assert_eq!(bob.line(), "alice: hello bob");
    bob.type_in("hello alice, 你好\n//slash\n");
    assert_eq!(alice.line(), "bob: hello alice, 你好");
    assert_eq!(alice.line(), "bob: /slash");
    alice.type_in("/who\n/who carol\n");
    assert_eq!(alice.line(), "* bob is online");
    assert_eq!(alice.line(), "* carol is offline");
    witness.say("SEND alice from a third");
    assert_eq!(alice.line(), "witness: from a third");
    alice.type_in("/to carol\nanybody?\n");
    assert_eq!(alice.trouble(), "! carol is not connected: not delivered: anybody?");
    alice.type_in("/nonsense\n");
    assert!(alice.trouble().starts_with("! /nonsense "));

    // The end of the input ends alice's, a command bob's, a newer login the other's.
    alice.close_input();
    assert_eq!(alice.end(), Ran::of(0, "", ""));
    bob.type_in("last words\n/quit\n");
    assert_eq!(bob.end(), Ran::of(0, "", "! alice is not connected: not delivered: last words\n"));
    await_presence(&mut witness, "alice", "offline");
    let mut replaced = chat("witness", "bob");
    // The reply to its SEND.
    witness.hears_start("OK ");
    witness.hears_start("BYE replaced ");
    let mut newer = Peer::connect_websocket(node.http());
    newer.say("LOGIN witness");
    let ran = replaced.end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("pinpost: ") && ran.err.contains("replaced"), "{}", ran.err);
}

/// Runs a command that must end with the code 2 and one sentence.
fn check_wrong(mut command: Command, expected: &[&str]) {
    let ran = run(&mut command);
    assert_eq!((ran.code, &ran.out[..]), (2, ""), "{command:?}: {}", ran.err);
    let sentence = ran.err.strip_prefix("pinpost: ").and_then(|rest| rest.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("{command:?}: {:?}", ran.err));
    assert!(!sentence.chars().any(char::is_control), "{command:?}: {sentence:?}");
    for part in expected {
        assert!(sentence.contains(part), "{command:?}: {part:?} is not in {sentence:?}");
    }
}

/// Asks until a user's presence is `expected`.
fn await_presence(peer: &mut Peer, user: &str, expected: &str) {
    until(&format!("{user} is {expected}"), || {
        peer.say(&format!("WHO {user}"));
        peer.hear() == format!("OK {user} {expected}")
    });
}
