//! What pinpost's cluster is compared with: a plain program that publishes each
//! message by itself.
//!
//! Two processes on one broker. The sender publishes to a topic exchange with
//! the recipient's routing key; the recipient has a queue of its own, takes each
//! message and answers it with one. Both are this program, and both are written
//! as well as the library allows without batches: no delay in their sockets, no
//! confirms, acknowledgements by the dozen, one thread beside the library's.
//!
//! For `CAST` the recipient answers once in a while, so that the sender does not
//! fill the broker's memory; that is all the answer is for.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use amiquip::{Channel, Publish};
use rustix::process::Signal;

use crate::cluster::amqp::{self, Inbox};
use crate::cluster::paced;
use crate::load::PAYLOAD_BYTES;
use crate::machine::Cores;

/// Both processes; dropping it ends them.
pub struct Plain {
    sender: Role,
    recipient: Role,
}

/// One of the two.
pub struct Role {
    child: Child,
    pub commands: ChildStdin,
    pub answers: BufReader<ChildStdout>,
}

impl Plain {
    /// Starts both. The recipient answers one in so many messages; so many are under way.
    pub fn start(amqp: &str, cores: Cores, answer_every: u64, window: u64) -> io::Result<Plain> {
        let recipient = Role::start(cores, &[RECIPIENT, amqp, &answer_every.to_string()])?;
        let key = amqp::key(recipient.pid());
        let sender = Role::start(cores, &[SENDER, amqp, &key, &window.to_string()])?;
        Ok(Plain { sender, recipient })
    }

    /// Sends so many messages, a multiple of those to one answer, and waits for the last answer.
    pub fn exchange(&mut self, messages: u64) -> io::Result<()> {
        writeln!(self.sender.commands, "{messages}")?;
        self.sender.expect("done")
    }

    pub fn sender_pid(&self) -> u32 {
        self.sender.pid()
    }

    pub fn recipient_pid(&self) -> u32 {
        self.recipient.pid()
    }
}

impl Role {
    /// Starts it on the server's core, and waits until it is connected.
    pub fn start(cores: Cores, arguments: &[&str]) -> io::Result<Role> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cores.on_server_core(|| command.spawn())?;
        let commands = child.stdin.take().expect("it was asked for as a pipe");
        let answers = BufReader::new(child.stdout.take().expect("it was asked for as a pipe"));
        let mut role = Role { child, commands, answers };
        role.expect("ready")?;
        Ok(role)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn expect(&mut self, word: &str) -> io::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim_end() == word {
            return Ok(());
        }
        Err(io::Error::other(format!("a plain program said {line:?} where {word:?} was due")))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It has nothing to say, and the broker takes back what it had.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one of the two, if that is what this program was started as.
pub fn run(arguments: &[String]) -> Option<io::Result<()>> {
    let (role, rest) = arguments.split_first()?;
    let (url, rest) = rest.split_first()?;
    let run = || -> io::Result<()> {
        // Whose bench died must not stay behind.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        amqp::with_queue(url, |to, inbox| {
            println!("ready");
            match (&role[..], rest) {
                (SENDER, [recipient, window]) => send(to, inbox, recipient, number(window)?),
                (paced::SENDER, [recipient]) => paced::send(to, recipient),
                (paced::RECIPIENT, [messages]) => paced::receive(inbox, number(messages)?),
                (_, [every]) => answer(to, inbox, number(every)?),
                _ => Err(io::Error::other("a plain program was started in a wrong way")),
            }
        })
    };
    [SENDER, RECIPIENT, paced::SENDER, paced::RECIPIENT].contains(&&role[..]).then(run)
}

/// The sender: reads from its standard input how many messages it is to send.
fn send(to: &Channel, inbox: &mut Inbox<'_>, recipient: &str, window: u64) -> io::Result<()> {
    let own_key = amqp::key(std::process::id());
    let mut message = own_key.clone().into_bytes();
    message.resize(KEY_BYTES, b' ');
    message.resize(KEY_BYTES + NUMBER_BYTES + PAYLOAD_BYTES, b'.');
    let (mut sent, mut answered) = (0, 0);
    for line in io::stdin().lines() {
        let goal = sent + number(&line?)?;
        while answered < goal {
            while sent < goal && sent - answered < window {
                sent += 1;
                message[KEY_BYTES..][..NUMBER_BYTES].copy_from_slice(&u64::to_be_bytes(sent));
                amqp::publish(to, Publish::new(&message, recipient))?;
            }
            let answer = inbox.next(Some(amqp::SILENCE_MAX))?;
            let count = <[u8; NUMBER_BYTES]>::try_from(answer).map(u64::from_be_bytes);
            answered = count.ok().filter(|count| (answered + 1..=sent).contains(count)).ok_or_else(wrong)?;
        }
        println!("done");
    }
    Ok(())
}

/// The recipient: answers one in so many messages with how many it has had.
fn answer(to: &Channel, inbox: &mut Inbox<'_>, every: u64) -> io::Result<()> {
    let mut received = 0;
    loop {
        let message = inbox.next(None)?;
        received += 1;
        let (sender, rest) = message.split_at_checked(KEY_BYTES).ok_or_else(wrong)?;
        if rest.len() != NUMBER_BYTES + PAYLOAD_BYTES || !rest.starts_with(&u64::to_be_bytes(received)) {
            return Err(wrong());
        }
        if received % every == 0 {
            let sender = std::str::from_utf8(sender).map_err(io::Error::other)?.trim_end();
            amqp::publish(to, Publish::new(&u64::to_be_bytes(received), sender))?;
        }
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::other(format!("{text:?} is no number")))
}

fn wrong() -> io::Error {
    io::Error::other("a message came that should not")
}

const SENDER: &str = "plain-sender";
const RECIPIENT: &str = "plain-recipient";
/// A message is the sender's key, a number, and as much text as pinpost's have.
const KEY_BYTES: usize = 24;
const NUMBER_BYTES: usize = 8;
