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
#[cfg_attr(not(feature = "line-editor"), path = "chat/no_editor.rs")]
mod editor;

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use smol::channel::{Receiver, Sender, bounded};
use smol::future;
use smol::stream::StreamExt;

use crate::chat::console::Console;
use crate::client::{
    BadInput, Client, ClientConfig, ClientError, Event, Incoming, Presence, Refusal, Sending,
};
use crate::proto::UserName;
use crate::send::trouble;
use crate::terminal::printable;

/// Talks until the person leaves or the input ends.
///
/// # Errors
/// When the first connection does not work, when the server ends the session for
/// good, and when the terminal or a thread can't be had.
pub fn run(options: ChatOptions) -> Result<(), ChatError> {
    let peer = options.to.as_deref().map(|name| {
        UserName::parse(name).ok_or_else(|| ClientError::from(BadInput::User { name: name.to_owned() }))
    });
    let peer = peer.transpose()?;
    let config = ClientConfig {
        token: options.token,
        ack: true,
        ..ClientConfig::new(options.server, options.user.as_str())
    };
    let (client, incoming) = smol::block_on(Client::connect(config))?;
    let console = Console::open(peer.clone()).map_err(ChatError::Console)?;
    if console.is_terminal() {
        let greeting =
            format!("* {} at {}; /help tells what can be typed", options.user, client.place().node);
        // Full is impossible: it is the first. Closed shows at the next line.
        let _ = console.shown.try_send(Shown::Line(printable(&greeting).into_owned()));
    }
    let talk = Talk { client, peer, shown: console.shown.clone() };
    let result = smol::block_on(talk.run(incoming, console.typed.clone(), console.patience()));
    console.close(result.is_err());
    result
}

/// Who talks, to whom, and where.
#[derive(Clone)]
pub struct ChatOptions {
    /// `HOST:PORT`.
    pub server: String,
    /// What proves that the user is who it says, where the server asks.
    pub token: Option<String>,
    /// The user.
    pub user: String,
    /// Who gets the lines typed, until `/to` changes it.
    pub to: Option<String>,
}

impl ChatOptions {
    /// A chat at the default server, without a token or a peer.
    pub fn new(user: impl Into<String>) -> Self {
        ChatOptions { server: "127.0.0.1:7700".to_owned(), token: None, user: user.into(), to: None }
    }
}

/// Shows everything but the token.
impl fmt::Debug for ChatOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatOptions")
            .field("server", &self.server)
            .field("user", &self.user)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// Why a chat did not begin, or ended against the person's will.
#[derive(Debug)]
pub enum ChatError {
    /// No first connection.
    Client(ClientError),
    /// The server does not want this user here any more.
    Closed(Refusal),
    /// The terminal or a thread can't be had.
    Console(io::Error),
    /// The input of a pipe ended, or could not be sent, and nobody knows what became
    /// of so many of its lines or more.
    Unanswered(usize),
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ChatError::Client(error) => error.to_string(),
            ChatError::Closed(refusal) => refusal.to_string(),
            ChatError::Console(error) => format!("the terminal: {error}"),
            ChatError::Unanswered(lines) => format!("left without the fate of {lines} or more lines"),
        };
        f.write_str(&printable(&text))
    }
}

impl Error for ChatError {}

impl From<ClientError> for ChatError {
    fn from(error: ClientError) -> Self {
        ChatError::Client(error)
    }
}

/// The conversation.
struct Talk {
    client: Client,
    peer: Option<UserName>,
    shown: Sender<Shown>,
}

impl Talk {
    /// Ends with the input, once every line has its fate or patience is over; with the
    /// connection; or when nothing can be shown any more.
    async fn run(
        self,
        incoming: Incoming,
        typed: Receiver<Typed>,
        patience: Patience,
    ) -> Result<(), ChatError> {
        let Talk { client, peer, shown } = self;
        let (asked_tx, asked_rx) = bounded(ASKED_MAX);
        let input_end = typed.clone();
        let ended = Cell::new(Ok(()));
        let say = async {
            say(&client, peer, typed, asked_tx, &shown, patience).await;
            smol::Timer::after(patience.time_max).await;
            ended.set(Err(ChatError::Unanswered(asked_rx.len() + 1)));
        };
        // An end from outside closes the input: what was sent still gets its fate told.
        let hear = async {
            ended.set(hear(incoming, &shown).await);
            input_end.close();
            future::pending().await
        };
        // Hearing first: what has come in is shown before the talk ends.
        future::or(hear, future::or(report(&client, asked_rx.clone(), &shown), say)).await;
        let enough = async {
            smol::Timer::after(CLOSE_TIME_MAX).await;
        };
        future::or(client.close(), enough).await;
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
async fn hear(mut incoming: Incoming, shown: &Sender<Shown>) -> Result<(), ChatError> {
    while let Some(event) = incoming.next().await {
        let line = match event {
            Event::Message { from, room: None, text, .. } => {
                Shown::line(&format!("{}: {text}", from.as_str()))
            }
            Event::Message { from, room: Some(room), text, .. } => {
                Shown::line(&format!("{}#{}: {text}", from.as_str(), room.as_str()))
            }
            Event::Refused { code, text } => Shown::trouble(&format!("{}: {text}", code.word())),
            Event::Lost { reason } => Shown::trouble(&format!("connection lost, trying again: {reason}")),
            Event::Found { node, .. } => Shown::trouble(&format!("connected again, at {node}")),
            Event::Closed(refusal) => return Err(ChatError::Closed(refusal)),
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
    asked: Sender<Asked>,
    shown: &Sender<Shown>,
    patience: Patience,
) {
    while let Ok(typed) = typed.recv().await {
        let line = match (typed, &peer) {
            // Without a connection, lines wait in the client up to its bound, and then here.
            (Typed::Text(text), Some(to)) => match patience.with(client.submit(to.as_str(), &text)).await {
                Some(Ok(sending)) => {
                    let _ = asked.send(Asked::Fate { to: to.clone(), sending }).await;
                    continue;
                }
                Some(Err(error)) => Shown::trouble(&trouble(to.as_str(), &error)),
                None if patience.is_pipe => return,
                None => Shown::trouble("not sent: too many lines wait for the connection"),
            },
            (Typed::Who(user), _) => match user.or_else(|| peer.clone()) {
                Some(user) => {
                    let _ = asked.send(Asked::Presence { user }).await;
                    continue;
                }
                None => Shown::trouble("who? /who USER, or /to PEER first"),
            },
            (Typed::Text(_), None) => Shown::trouble("to whom? /to PEER comes first"),
            (Typed::To(user), _) => {
                peer = Some(user);
                continue;
            }
            (Typed::Help, _) => Shown::Line(HELP.to_owned()),
            (Typed::Wrong(why), _) => Shown::trouble(&why),
            (Typed::Quit, _) => return,
        };
        if shown.send(line).await.is_err() {
            return;
        }
    }
}

/// Shows the answers, in the order of the questions.
async fn report(client: &Client, asked: Receiver<Asked>, shown: &Sender<Shown>) {
    while let Ok(asked) = asked.recv().await {
        let line = match asked {
            Asked::Fate { to, sending } => match sending.fate().await {
                Ok(_) => continue,
                Err(error) => Shown::trouble(&trouble(to.as_str(), &error)),
            },
            Asked::Presence { user } => match client.who(user.as_str()).await {
                Ok(Presence::Offline) => Shown::line(&format!("* {} is offline", user.as_str())),
                Ok(Presence::Online { sessions: 1 }) => {
                    Shown::line(&format!("* {} is online", user.as_str()))
                }
                Ok(Presence::Online { sessions }) => {
                    Shown::line(&format!("* {} is online, {sessions} sessions", user.as_str()))
                }
                Err(error) => Shown::trouble(&format!("/who {}: {error}", user.as_str())),
            },
        };
        if shown.send(line).await.is_err() {
            return;
        }
    }
}

/// What will have an answer.
enum Asked {
    Fate { to: UserName, sending: Sending },
    Presence { user: UserName },
}

/// What a person meant with a line.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Text(String),
    To(UserName),
    Who(Option<UserName>),
    Help,
    Quit,
    /// No line to act on, and why.
    Wrong(String),
}

impl Typed {
    /// `None` for a line with nothing on it.
    fn parse(line: &str) -> Option<Typed> {
        if line.trim().is_empty() {
            return None;
        }
        let Some(command) = line.strip_prefix('/') else { return Some(Typed::Text(line.to_owned())) };
        if command.starts_with('/') {
            return Some(Typed::Text(command.to_owned()));
        }
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let rest = rest.trim();
        let user = || {
            UserName::parse(rest)
                .ok_or_else(|| Typed::Wrong(BadInput::User { name: rest.to_owned() }.to_string()))
        };
        Some(match (word, rest) {
            ("to", "") => Typed::Wrong("/to PEER: to whom?".to_owned()),
            ("to", _) => user().map_or_else(|wrong| wrong, Typed::To),
            ("who", "") => Typed::Who(None),
            ("who", _) => user().map_or_else(|wrong| wrong, |user| Typed::Who(Some(user))),
            ("help", _) => Typed::Help,
            ("quit", _) => Typed::Quit,
            _ => {
                Typed::Wrong(format!("/{word} is none of /to, /who, /help, /quit; // begins a text with a /"))
            }
        })
    }
}

/// One line to show, safe for a terminal.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Line(String),
    Trouble(String),
}

impl Shown {
    fn line(text: &str) -> Self {
        Shown::Line(printable(text).into_owned())
    }

    fn trouble(text: &str) -> Self {
        Shown::Trouble(format!("! {}", printable(text)))
    }
}

const HELP: &str = "\
* a line goes to the peer; //... sends a line that begins with a /
* /to PEER       who gets the lines from now on
* /who [USER]    is the peer, or USER, online?
* /quit          leave (also Ctrl-D, Ctrl-C)";

/// Lines without a fate that may wait; the client has a bound of its own below it.
const ASKED_MAX: usize = 1024;
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::chat::console::{SHOWN_MAX, TYPED_MAX, read};
    use crate::client::SendError;
    use crate::client::fake::{self, Peer, Server};
    use crate::proto::CloseReason;

    /// Runs a chat of alice to bob over `input`, left open when `open`, against a
    /// server that follows `script` after the login; gives what was shown.
    fn chat(
        input: &'static str,
        open: bool,
        script: impl FnOnce(Peer) + Send + 'static,
    ) -> (Result<(), ChatError>, Vec<String>) {
        let server = Server::run(|door| script(door.let_in("4k2jd8s1")));
        let (typed_tx, typed_rx) = bounded(TYPED_MAX);
        let (shown_tx, shown_rx) = bounded(SHOWN_MAX);
        let kept_open = open.then(|| typed_tx.clone());
        let reader = thread::spawn(move || read(input.as_bytes(), &typed_tx));
        let result = fake::run(async {
            let (client, incoming) = Client::connect(server.config()).await.unwrap();
            let talk = Talk { client, peer: UserName::parse("bob"), shown: shown_tx };
            talk.run(incoming, typed_rx, Patience { time_max: Duration::from_secs(1), is_pipe: true }).await
        });
        drop(kept_open);
        reader.join().unwrap();
        server.finish();
        let shown = std::iter::from_fn(|| shown_rx.try_recv().ok());
        (result, shown.map(|(Shown::Line(line) | Shown::Trouble(line))| line).collect())
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
        let expected = ["bob: hello\u{fffd}[2J", "! carol is not connected: not delivered"];
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
        assert_eq!(shown, [format!("! {}", trouble("bob", &SendError::Lost))]);
    }

    #[test]
    fn what_a_line_means() {
        let check =
            |line: &str, expected: Option<Typed>| assert_eq!(Typed::parse(line), expected, "{line:?}");
        let bob = || UserName::parse("bob").unwrap();
        check("", None);
        check("  ", None);
        check(" hi ", Some(Typed::Text(" hi ".to_owned())));
        check("//etc", Some(Typed::Text("/etc".to_owned())));
        check("///", Some(Typed::Text("//".to_owned())));
        check("/to bob", Some(Typed::To(bob())));
        check("/to  bob ", Some(Typed::To(bob())));
        check("/who", Some(Typed::Who(None)));
        check("/who bob", Some(Typed::Who(Some(bob()))));
        check("/help", Some(Typed::Help));
        check("/quit", Some(Typed::Quit));
        for line in ["/", "/to", "/to #room", "/to two words", "/who @", "/TO bob", "/leave"] {
            assert!(matches!(Typed::parse(line), Some(Typed::Wrong(_))), "{line:?}");
        }
    }
}
