//! One sender that keeps a window of messages under way, and one recipient that
//! takes them: in order, each once, and each answered as it should be.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cluster::talker::Talker;
use crate::load::payload;

/// Sends messages to one user, or to several in turn; each must come to this outcome.
pub fn send(
    talker: &mut Talker,
    to: &[String],
    numbers: Range<u32>,
    window: u32,
    outcome: &str,
) -> io::Result<()> {
    let (mut next, mut answered) = (numbers.start, numbers.start);
    let mut lines = String::new();
    while answered < numbers.end {
        // What one read answered, one write follows up.
        if !talker.has_line() {
            lines.clear();
            while next < numbers.end && next - answered < window {
                let to = &to[next as usize % to.len()];
                let separator = if lines.is_empty() { "" } else { "\n" };
                lines += &format!("{separator}SEND {to} {}", text(next));
                next += 1;
            }
            if !lines.is_empty() {
                talker.say(&lines)?;
            }
        }
        let line = talker.hear("OK ")?;
        if !line.ends_with(outcome) {
            return Err(io::Error::other(format!("received {line:?} where {outcome:?} was due")));
        }
        answered += 1;
    }
    Ok(())
}

/// Takes messages from one user, and acknowledges them if that is wanted.
pub fn take(talker: &mut Talker, from: &str, numbers: Range<u32>, acks: bool) -> io::Result<()> {
    let head = format!("MSG {from} ");
    let mut lines = String::new();
    for number in numbers {
        let line = talker.hear(&head)?;
        let (id, found) = line[head.len()..].split_once(' ').unwrap_or_default();
        if found != text(number) {
            return Err(io::Error::other(format!("received {line:?} where message {number} was due")));
        }
        if acks {
            let separator = if lines.is_empty() { "" } else { "\n" };
            lines += &format!("{separator}ACK {id} {from}");
        }
        if !lines.is_empty() && !talker.has_line() {
            talker.say(&lines)?;
            lines.clear();
        }
    }
    if lines.is_empty() { Ok(()) } else { talker.say(&lines) }
}

/// Logs out, and waits until `other` hears that the user is gone.
pub fn leave(mut talker: Talker, name: &str, other: &mut Talker) -> io::Result<()> {
    talker.say("QUIT")?;
    talker.hear("BYE quit")?;
    let start = Instant::now();
    loop {
        other.say(&format!("WHO {name}"))?;
        if other.hear(&format!("OK {name} "))?.ends_with(" offline") {
            return Ok(());
        }
        if start.elapsed() > LEAVE_TIME_MAX {
            return Err(io::Error::other(format!("{name} is still here {LEAVE_TIME_MAX:?} after QUIT")));
        }
        sleep(Duration::from_millis(5));
    }
}

/// Logs in, and returns when the clock of `LOGIN` began.
pub fn log_in(node: SocketAddr, name: &str, acks: bool) -> io::Result<(Talker, Instant)> {
    let mut talker = Talker::connect(node)?;
    let clock = Instant::now();
    talker.enter(name, acks)?;
    Ok((talker, clock))
}

fn text(number: u32) -> String {
    String::from_utf8_lossy(&payload(0, number)).into_owned()
}

const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);
