//! `pinpost chat`: a person at a terminal, or a pipe, talks as a user.
//!
//! The conversation itself knows no terminal: typed lines come in and lines to show
//! go out by bounded channels, with a named thread at each end. On a terminal the
//! reading thread is the line editor, and the showing thread prints through it, so
//! that what comes in does not tear the line being typed. Otherwise lines are plain:
//! standard input to the peer, messages to standard output, trouble (`! ...`) to
//! standard error; at the end of the input it waits for the fates of what was sent.
//!
//! It logs in with `ack`, so that a message that was not handed on to be shown is not
//! lost: it goes to another session of the user or to the mailbox.

mod console;
#[cfg(feature = "line-editor")]
mod editor;
mod typed;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use pinpost::{
    Client, ClientConfig, ErrorCode, Event, Fate, Incoming, Refusal, SendError, Sending, UserName,
    UserPresence,
};
use smol::channel::{Receiver, Sender, bounded};
use smol::future;
use smol::stream::StreamExt;

use crate::cli::chat::console::Console;
use crate::cli::chat::typed::{Output, Typed};
use crate::cli::outcome::Failure;
use crate::cli::send::{close, trouble};

/// Talks until the person leaves or the input ends. Lines typed go to `peer`, until `/to`
/// changes it.
///
/// # Errors
/// When the first connection does not work, when the server ends the session for
/// good, when the terminal or a thread can't be had, and when the input of a pipe ended
/// and nobody knows what became of its lines.
pub fn run(config: ClientConfig, peer: Option<UserName>) -> Result<(), Failure> {
    let user = config.user.clone();
    let (client, incoming) = smol::block_on(Client::connect(config)).map_err(at_run_time)?;
    let console =
        Console::open(peer.clone()).map_err(|error| Failure::AtRunTime(format!("the terminal: {error}")))?;
    let mut patience = Patience { time_max: PIPE_LEAVE_TIME_MAX, is_pipe: true };
    if console.is_terminal() {
        // A person who leaves has seen what there was to see.
        patience = Patience { time_max: LEAVE_TIME_MAX, is_pipe: false };
        let greeting = format!("* {user} at {}; /help tells what can be typed", client.place().node);
        // Full is impossible: it is the first. Closed shows at the next line.
        let _ = console.shown.try_send(Output::line(&greeting));
    }
    let conversation = Conversation { client, peer, shown: console.shown.clone() };
    let result = smol::block_on(conversation.run(incoming, console.typed.clone(), patience));
    console.close(result.is_err());
    result.map_err(at_run_time)
}

fn at_run_time(error: impl fmt::Display) -> Failure {
    Failure::AtRunTime(error.to_string())
}

/// Why a chat ended against the person's will.
#[derive(Debug)]
enum ChatError {
    /// The server does not want this user here any more.
    Closed(Refusal),
    /// The input of a pipe ended, or could not be sent, and nobody knows what became
    /// of so many of its lines or more.
    Unanswered(usize),
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChatError::Closed(refusal) => refusal.fmt(f),
            ChatError::Unanswered(lines) => write!(f, "left without the fate of {lines} or more lines"),
        }
    }
}

/// The conversation.
struct Conversation {
    client: Client,
    peer: Option<UserName>,
    shown: Sender<Output>,
}

impl Conversation {
    /// Ends with the input, once every line has its fate or patience is over; with the
    /// connection; or when nothing can be shown any more.
    async fn run(
        self,
        incoming: Incoming,
        typed: Receiver<Typed>,
        patience: Patience,
    ) -> Result<(), ChatError> {
        let Conversation { client, peer, shown } = self;
        let (asked_tx, asked_rx) = bounded(ASKED_MAX);
        let input_end = typed.clone();
        let ended = Cell::new(Ok(()));
        // When the connection was found again that was lost last.
        let found = Cell::new(None);
        let say = async {
            say(&client, peer, typed, asked_tx, &shown, patience).await;
            smol::Timer::after(patience.time_max).await;
            ended.set(Err(ChatError::Unanswered(asked_rx.len() + 1)));
        };
        // An end from outside closes the input: what was sent still gets its fate told.
        let hear = async {
            ended.set(hear(incoming, &shown, &found).await);
            input_end.close();
            future::pending().await
        };
        // Hearing first: what has come in is shown before the talk ends.
        future::or(hear, future::or(report(&client, asked_rx.clone(), &shown, &found), say)).await;
        close(&client).await;
        ended.into_inner()
    }
}

/// How long a chat waits for what the connection does not do.
#[derive(Clone, Copy)]
struct Patience {
    time_max: Duration,
    is_pipe: bool,
}

impl Patience {
    /// What `work` gives, or `None` when it takes too long.
    async fn with<T>(self, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            smol::Timer::after(self.time_max).await;
            None
        };
        future::or(async { Some(work.await) }, late).await
    }
}

/// Shows what comes in.
async fn hear(
    mut incoming: Incoming,
    shown: &Sender<Output>,
    found: &Cell<Option<Instant>>,
) -> Result<(), ChatError> {
    while let Some(event) = incoming.next().await {
        if let Event::Found { .. } = event {
            found.set(Some(Instant::now()));
        }
        let line = match event {
            Event::Message { from, room: None, text, .. } => Output::line(&format!("{from}: {text}")),
            Event::Message { from, room: Some(room), text, .. } => {
                Output::line(&format!("{from}#{room}: {text}"))
            }
            Event::Refused { code, text } => Output::trouble(&format!("{code}: {text}")),
            Event::Lost { reason } => Output::trouble(&format!("connection lost, trying again: {reason}")),
            Event::Found { node, .. } => Output::trouble(&format!("connected again, at {node}")),
            Event::Closed(refusal) => return Err(ChatError::Closed(refusal)),
            event => Output::trouble(&format!("{event:?}")),
        };
        if shown.send(line).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Carries out what is typed, until the input ends.
async fn say(
    client: &Client,
    mut peer: Option<UserName>,
    typed: Receiver<Typed>,
    asked: Sender<Awaited>,
    shown: &Sender<Output>,
    patience: Patience,
) {
    while let Ok(typed) = typed.recv().await {
        let line = match (typed, &peer) {
            // Without a connection, lines wait in the client up to its bound, and then here.
            (Typed::Text(text), Some(to)) => match patience.with(client.submit(to.as_str(), &text)).await {
                Some(Ok(sending)) => {
                    let _ = asked.send(Awaited::Fate { to: to.clone(), text, sending }).await;
                    continue;
                }
                Some(Err(error)) => failed(to, &text, &error),
                None if patience.is_pipe => return,
                None => Output::trouble(&format!(
                    "not sent: too many lines wait for the connection: {}",
                    beginning(&text)
                )),
            },
            (Typed::Who(user), _) => match user.or_else(|| peer.clone()) {
                Some(user) => {
                    let _ = asked.send(Awaited::Presence { user }).await;
                    continue;
                }
                None => Output::trouble("who? /who USER, or /to PEER first"),
            },
            (Typed::Text(_), None) => Output::trouble("to whom? /to PEER comes first"),
            (Typed::To(user), _) => {
                peer = Some(user);
                continue;
            }
            (Typed::Help, _) => Output::help(),
            (Typed::Wrong(why), _) => Output::trouble(&why),
            (Typed::Quit, _) => return,
        };
        if shown.send(line).await.is_err() {
            return;
        }
    }
}

/// Shows the answers, in the order of the questions.
async fn report(
    client: &Client,
    asked: Receiver<Awaited>,
    shown: &Sender<Output>,
    found: &Cell<Option<Instant>>,
) {
    while let Ok(asked) = asked.recv().await {
        let line = match asked {
            Awaited::Fate { to, text, sending } => {
                match with_the_peer(client, &to, &text, sending.fate().await, found).await {
                    Ok(_) => continue,
                    Err(error) => failed(&to, &text, &error),
                }
            }
            Awaited::Presence { user } => match client.who(user.as_str()).await {
                Ok(UserPresence::Offline) => Output::line(&format!("* {user} is offline")),
                Ok(UserPresence::Online { sessions: 1 }) => Output::line(&format!("* {user} is online")),
                Ok(UserPresence::Online { sessions }) => {
                    Output::line(&format!("* {user} is online, {sessions} sessions"))
                }
                Err(error) => Output::trouble(&format!("/who {user}: {error}")),
            },
        };
        if shown.send(line).await.is_err() {
            return;
        }
    }
}

/// The fate of a line. After a connection was lost and found the peer's may be lost still, as when their node was
/// started again: for a moment, who is offline is tried again.
async fn with_the_peer(
    client: &Client,
    to: &UserName,
    text: &str,
    mut fate: Result<Fate, SendError>,
    found: &Cell<Option<Instant>>,
) -> Result<Fate, SendError> {
    let is_early = || found.get().is_some_and(|found| found.elapsed() < REUNION_TIME_MAX);
    while matches!(fate, Err(SendError::Refused { code: ErrorCode::Offline, .. })) && is_early() {
        smol::Timer::after(REUNION_PAUSE).await;
        fate = client.send(to.as_str(), text).await;
    }
    fate
}

fn failed(to: &UserName, text: &str, error: &SendError) -> Output {
    Output::trouble(&format!("{}: {}", trouble(to, error), beginning(text)))
}

/// Enough of a line to know which it was.
fn beginning(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(BEGINNING_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// What will have an answer.
enum Awaited {
    Fate { to: UserName, text: String, sending: Sending },
    Presence { user: UserName },
}

/// Lines without a fate that may wait; the client has a bound of its own below it.
const ASKED_MAX: usize = 1024;
/// How long a peer may take to be back after the own connection is, and how often it is tried.
const REUNION_TIME_MAX: Duration = Duration::from_secs(5);
const REUNION_PAUSE: Duration = Duration::from_millis(200);
/// How much of a line that failed is shown.
const BEGINNING_CHARS_MAX: usize = 60;
const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);
/// Longer than a server takes to answer `ERR timeout`.
const PIPE_LEAVE_TIME_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::thread;

    use pinpost::{CloseReason, SendError};

    use super::*;
    use crate::cli::chat::console::{SHOWN_MAX, TYPED_MAX, read};
    use crate::cli::fake::{self, FakeNode, Peer};

    /// Runs a chat of alice to bob over `input`, left open when `open`, against a
    /// server that follows `script` after the login; gives what was shown.
    fn chat(
        input: &'static str,
        open: bool,
        script: impl FnOnce(Peer) + Send + 'static,
    ) -> (Result<(), ChatError>, Vec<String>) {
        let server = FakeNode::run(|door| script(door.let_in("4k2jd8s1")));
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let (shown_tx, shown_rx) = bounded(SHOWN_MAX);
        let kept_open = open.then(|| typed_tx.clone());
        let reader = thread::spawn(move || read(input.as_bytes(), &typed_tx));
        let result = fake::run(async {
            let (client, incoming) = Client::connect(ClientConfig::new(&server.addr, "alice")).await.unwrap();
            let conversation = Conversation { client, peer: "bob".parse().ok(), shown: shown_tx };
            conversation
                .run(incoming, typed_rx, Patience { time_max: Duration::from_secs(1), is_pipe: true })
                .await
        });
        drop(kept_open);
        reader.join().unwrap();
        server.finish();
        let shown = std::iter::from_fn(|| shown_rx.try_recv().ok());
        (result, shown.map(|(Output::Line(line) | Output::Trouble(line))| line).collect())
    }

    fn check(input: &'static str, script: impl FnOnce(Peer) + Send + 'static, expected: &[&str]) {
        let (result, shown) = chat(input, false, script);
        result.unwrap();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_pipe_waits_for_the_fates_of_its_lines() {
        let script = |mut peer: Peer| {
            let one = peer.hear_tagged("SEND bob one");
            let two = peer.hear_tagged("SEND bob /two");
            let three = peer.hear_tagged("SEND carol three");
            peer.say(&format!("{three} ERR offline x"));
            peer.say("MSG bob x-1 hello\u{1b}[2J");
            peer.say(&format!("{two} OK x stored"));
            peer.say(&format!("{one} OK x delivered"));
            peer.part();
        };
        let expected = ["bob: hello\u{fffd}[2J", "! carol is not connected: not delivered: three"];
        check("one\r\n\n//two\n/to carol\nthree", script, &expected);
    }

    #[test]
    fn presence_is_told() {
        let script = |mut peer: Peer| {
            for (question, answer) in
                [("bob", "bob online 1"), ("carol", "carol offline"), ("bob", "bob online 3")]
            {
                let tag = peer.hear_tagged(&format!("WHO {question}"));
                peer.say(&format!("{tag} OK {answer}"));
            }
            peer.part();
        };
        let expected = ["* bob is online", "* carol is offline", "* bob is online, 3 sessions"];
        check("/who\n/who carol\n/who bob\n/quit\nnot sent\n", script, &expected);
    }

    #[test]
    fn a_pipe_into_a_lost_connection_ends() {
        let lines: &'static str = Box::leak("line\n".repeat(2000).into_boxed_str());
        let (result, _) = chat(lines, false, drop);
        let Err(ChatError::Unanswered(lines)) = result else { panic!("{result:?}") };
        assert!(lines > 1, "{lines}");
    }

    #[test]
    fn a_replaced_chat_ends() {
        let (result, shown) = chat("hello\n", true, |mut peer| {
            peer.hear_tagged("SEND bob hello");
            peer.say("BYE replaced newer");
        });
        let Err(ChatError::Closed(Refusal::Bye { reason, .. })) = result else { panic!("{result:?}") };
        assert_eq!(reason, CloseReason::Replaced);
        assert_eq!(shown, [format!("! {}: hello", trouble(&"bob".parse().unwrap(), &SendError::Lost))]);
    }

    #[test]
    fn who_is_offline_after_a_lost_connection_is_tried_again_for_a_moment() {
        let server = FakeNode::run(|door| {
            drop(door.let_in("4k2jd8s1"));
            let mut peer = door.let_in("4k2jd8s2");
            for reply in ["ERR offline x", "ERR offline x", "OK x delivered"] {
                let tag = peer.hear_tagged("SEND bob one");
                peer.say(&format!("{tag} {reply}"));
            }
            peer.part();
        });
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let (shown_tx, shown_rx) = bounded(SHOWN_MAX);
        fake::run(async {
            let (client, incoming) = Client::connect(ClientConfig::new(&server.addr, "alice")).await.unwrap();
            let conversation = Conversation { client, peer: "bob".parse().ok(), shown: shown_tx };
            let patience = Patience { time_max: Duration::from_secs(5), is_pipe: true };
            let talk = conversation.run(incoming, typed_rx, patience);
            let type_on = async {
                let Output::Trouble(line) = shown_rx.recv().await.unwrap() else { panic!("no trouble") };
                assert!(line.starts_with("! connection lost"), "{line}");
                read(b"one\n".as_slice(), &typed_tx);
                drop(typed_tx);
                future::pending().await
            };
            future::or(talk, type_on).await.unwrap();
        });
        server.finish();
        let Ok(Output::Trouble(line)) = shown_rx.try_recv() else { panic!("nothing") };
        assert!(line.starts_with("! connected again") && shown_rx.is_empty(), "{line}");
    }

    #[test]
    fn a_long_line_that_failed_is_told_by_its_beginning() {
        assert_eq!(beginning("hello"), "hello");
        assert_eq!(beginning(&"ß".repeat(BEGINNING_CHARS_MAX)), "ß".repeat(BEGINNING_CHARS_MAX));
        let long = format!("{}...", "ß".repeat(BEGINNING_CHARS_MAX));
        assert_eq!(beginning(&"ß".repeat(BEGINNING_CHARS_MAX + 1)), long);
    }
}
