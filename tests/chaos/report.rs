//! What a run came to, for people: faults by kind, messages by fate, how long it took to
//! recover; and for a failure, all that happened, in order.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::check::{AFTERMATH_TIME, Verdict};
use crate::history::{Fate, History, Message, Ms, Trouble};
use crate::plan::Fault;

/// A message that takes longer is not what users are used to.
const SLOW_TIME: Ms = 1_000;

/// A fault is only measured with so much quiet before its end, and behind it.
const QUIET_BEFORE_TIME: Ms = 5_000;
const QUIET_BEHIND_TIME: Ms = 2_500;

/// Prints the report.
pub fn print(history: &History, verdict: &Verdict) {
    let books = &verdict.books;
    let count = history.messages.len();
    println!(
        "\n{count} messages, {} sessions, {} questions",
        history.sessions.len(),
        history.questions.len()
    );
    println!("\nmessages by what their senders were told:");
    for (fate, number) in &books.fates {
        println!("{number:>8} {fate} ({:.2} %)", 100.0 * *number as f64 / count as f64);
    }
    println!("\ntimeouts by the faults of the {} s before:", AFTERMATH_TIME / 1_000);
    books.timeouts.iter().for_each(|(faults, number)| println!("{number:>8} {faults}"));
    println!("\nexcused:");
    books.excused.iter().for_each(|(why, number)| println!("{number:>8} {why}"));
    println!("\nfaults, and the time until all went well again (ms; measured where it was quiet enough):");
    let mut kinds: BTreeMap<&str, (usize, Vec<Ms>)> = BTreeMap::new();
    for trouble in &history.troubles {
        let (number, times) = kinds.entry(trouble.fault.kind()).or_default();
        *number += 1;
        times.extend(recovery(history, trouble));
    }
    for (kind, (number, mut times)) in kinds {
        times.sort_unstable();
        let measured = match times[..] {
            [] => String::new(),
            [.., max] => format!("p50 {:>5} max {max:>5} of {}", times[times.len() / 2], times.len()),
        };
        println!("{number:>8} {kind:<26} {measured}");
    }
    println!("\nwrong: {}", verdict.wrongs.len());
    verdict.wrongs.iter().take(50).for_each(|wrong| println!("    {wrong}"));
}

/// How long after a fault a message was sent last that did not arrive at once. A node that
/// was killed counts from its death, everything else from when it was healed.
fn recovery(history: &History, trouble: &Trouble) -> Option<Ms> {
    let is_kill = matches!(trouble.fault, Fault::NodeKilled(_));
    let from = if is_kill { trouble.from } else { trouble.to? };
    let others = || history.troubles.iter().filter(|other| other.from != trouble.from);
    if others().any(|other| other.is_within(from.saturating_sub(QUIET_BEFORE_TIME), from)) {
        return None;
    }
    let to = others().map(|other| other.from).filter(|next| *next > from).min().unwrap_or(Ms::MAX);
    if to - from < QUIET_BEHIND_TIME {
        return None;
    }
    // What was sent just before the next one may suffer from that.
    let to = to.min(from + AFTERMATH_TIME) - SLOW_TIME;
    let sent = history.messages.iter().filter(|message| (from..to).contains(&message.sent));
    let failed = sent.filter(|message| !is_fine(history, message));
    Some(failed.map(|message| message.sent - from).max().unwrap_or(0))
}

/// Whether a message arrived at once, or could not.
fn is_fine(history: &History, message: &Message) -> bool {
    let (told, fate) = match &message.told[..] {
        [(told, fate)] => (*told, fate),
        _ => return true,
    };
    let recipients = history.sessions.iter().filter(|session| session.user == message.to);
    let mut there = recipients.filter(|session| {
        let gone = session.left.map(|left| left.0).or(session.ended.as_ref().map(|ended| ended.0));
        session.since <= message.sent && gone.is_none_or(|gone| gone > told)
    });
    there.next().is_none() || (*fate == Fate::Delivered && told - message.sent <= SLOW_TIME)
}

/// Writes all that happened behind what the log has already, in order.
pub fn dump(history: &History, verdict: &Verdict, path: &Path) {
    let mut lines: Vec<(Ms, String)> = vec![];
    for (at, session) in history.sessions.iter().enumerate() {
        let name = format!("session {at} (user{} on node {})", session.user, session.node);
        lines.push((session.since, format!("{name} is in, asked at {}", session.asked)));
        lines.extend(session.left.map(|(when, way)| (when, format!("{name} leaves: {way:?}"))));
        lines.extend(session.ended.iter().map(|(when, end)| (*when, format!("{name} ends: {end:?}"))));
        lines.extend(session.seen.iter().map(|seen| (seen.at, format!("{name} sees {}", seen.message))));
    }
    for (number, message) in history.messages.iter().enumerate() {
        let name = format!("message {number} (session {} to user{})", message.session, message.to);
        lines.push((message.sent, format!("{name} is sent")));
        lines.extend(message.told.iter().map(|(at, fate)| (*at, format!("{name}: {fate}"))));
    }
    for question in &history.questions {
        lines.push((question.asked, format!("asked: {question:?}")));
    }
    for trouble in &history.troubles {
        lines.push((trouble.from, format!("begins: {}", trouble.fault)));
        lines.extend(trouble.to.map(|to| (to, format!("ends: {}", trouble.fault))));
    }
    lines.extend(verdict.wrongs.iter().map(|wrong| (wrong.at, format!("WRONG {wrong}"))));
    // What has the same time stays as it is noted.
    lines.sort_by_key(|line| line.0);
    let file = OpenOptions::new().append(true).open(path).expect("the log is there");
    let mut file = BufWriter::new(file);
    let result = lines.iter().try_for_each(|(at, line)| writeln!(file, "{at:>7} {line}"));
    result.and_then(|()| file.flush()).expect("there is room for a log");
}
