//! What a run came to, for people: faults by kind, messages by fate, how long it took to
//! recover; and for a failure, all that happened, in order.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;

use crate::history::Fate;
use crate::history::History;
use crate::history::Leaving;
use crate::history::Message;
use crate::history::Session;
use crate::history::Time;
use crate::history::Trouble;
use crate::history::check::Rule;
use crate::history::check::Verdict;
use crate::history::fault::Fault;
use crate::people::is_wakeful;

/// A message that takes longer is not what users are used to.
const SLOW_TIME: Time = 1_000;

/// A fault is only measured with so much quiet before its end, and behind it.
const QUIET_BEFORE_TIME: Time = 1_500;
const QUIET_BEHIND_TIME: Time = 4_000;

/// Prints the report.
pub fn print(history: &History, verdict: &Verdict) {
    let books = &verdict.books;
    let History { messages, sessions, troubles, .. } = history;
    let kills = sessions.iter().filter(|session| matches!(session.left, Some((_, Leaving::HangsUp)))).count();
    println!("\n{} messages, {} faults, {kills} clients killed", messages.len(), troubles.len());
    println!("{} sessions, {} questions", sessions.len(), history.questions.len());
    println!("\nmessages by fate, as their senders know it in the end:");
    shares(&books.fates);
    println!("\nthe same by what they were told each time that they sent one:");
    shares(&books.replies);
    println!("\nfaults, and the time until all went well again (ms; measured where it was quiet enough):");
    recoveries(history);
    println!("\nduplicates that clients were sent (who acknowledges dropped them), by why:");
    books.copies.iter().for_each(|(why, number)| println!("{number:>9} {why}"));
    println!("\nexcused, by why, and how often when there was no fault:");
    let mut excused: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for ((why, faults), number) in &books.excused {
        let (all, calm) = excused.entry(why).or_default();
        *all += number;
        *calm += if faults.is_empty() { *number } else { 0 };
    }
    excused.iter().for_each(|(why, (all, calm))| println!("{all:>9} {calm:>7} {why}"));
    let count = |rules: &[Rule]| verdict.wrongs.iter().filter(|wrong| rules.contains(&wrong.rule)).count();
    println!(
        "\nlost: {}, shown twice: {}, shown to the wrong user: {}, out of order: {}, wrong in any way: {}",
        count(&[Rule::Lost, Rule::Unacknowledged]),
        count(&[Rule::ShownTwice]),
        count(&[Rule::Misdirected]),
        count(&[Rule::OutOfOrder]),
        verdict.wrongs.len()
    );
    verdict.wrongs.iter().take(50).for_each(|wrong| println!("    {wrong}"));
}

fn shares(counts: &BTreeMap<String, usize>) {
    let all: usize = counts.values().sum();
    for (name, number) in counts {
        println!("{number:>9} {name} ({:.2} %)", 100.0 * *number as f64 / all as f64);
    }
}

fn recoveries(history: &History) {
    let mut kinds: BTreeMap<&str, (usize, Vec<Time>)> = BTreeMap::new();
    let mut of_users: Vec<Vec<usize>> = vec![];
    for (at, session) in history.sessions.iter().enumerate() {
        of_users.resize_with(of_users.len().max(session.user + 1), Vec::new);
        of_users[session.user].push(at);
    }
    for trouble in &history.troubles {
        let time = recovery(history, &of_users, trouble);
        for kind in ["all", trouble.fault.kind()] {
            let (number, times) = kinds.entry(kind).or_default();
            *number += 1;
            times.extend(time);
        }
    }
    for (kind, (number, mut times)) in kinds {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        let measured = match times[..] {
            [] => String::new(),
            _ => format!("p50 {:>5} p99 {:>5} of {}", at(50), at(99), times.len()),
        };
        println!("{number:>9} {kind:<26} {measured}");
    }
}

/// How long after a fault a message was sent last that did not arrive at once. A node that
/// was killed counts from its death, everything else from when it was healed.
fn recovery(history: &History, of_users: &[Vec<usize>], trouble: &Trouble) -> Option<Time> {
    let is_kill = matches!(trouble.fault, Fault::NodeKilled(_));
    let from = if is_kill { trouble.from } else { trouble.to? };
    let others = || history.troubles.iter().filter(|other| other.from != trouble.from);
    if others().any(|other| other.is_within(from.saturating_sub(QUIET_BEFORE_TIME), from)) {
        return None;
    }
    let to = others().map(|other| other.from).filter(|next| *next > from).min().unwrap_or(Time::MAX);
    if to - from < QUIET_BEHIND_TIME {
        return None;
    }
    // What was sent just before the next one may suffer from that.
    let to = to.min(from + history.margins.aftermath) - SLOW_TIME;
    let place = |at: Time| history.messages.partition_point(|message| message.sent() < at);
    let sent = &history.messages[place(from)..place(to)];
    let of_user = |user: usize| of_users.get(user).into_iter().flatten().map(|at| &history.sessions[*at]);
    let failed = sent.iter().rfind(|message| !is_fine(message, of_user(message.to)));
    Some(failed.map_or(0, |message| message.sent() - from))
}

/// Whether a message arrived at once, or could not.
fn is_fine<'a>(message: &Message, recipients: impl Iterator<Item = &'a Session>) -> bool {
    let sent = message.sent();
    let Some((told, fate)) = message.fate() else { return false };
    let is_late = told - sent > SLOW_TIME && is_wakeful(message.to);
    let is_there = |session: &Session| {
        let gone = session.left.map(|left| left.0).or(session.ended.as_ref().map(|ended| ended.0));
        session.since <= sent.saturating_sub(SLOW_TIME) && gone.is_none_or(|gone| gone > told)
    };
    match fate {
        Fate::Delivered => !is_late,
        // Who is there should have no mail.
        Fate::Stored => !is_late && (!is_wakeful(message.to) || !{ recipients }.any(is_there)),
        Fate::Error(_) => false,
    }
}

/// Writes all that happened behind what the log has already, in order.
pub fn dump(history: &History, verdict: &Verdict, path: &Path) {
    let mut lines: Vec<(Time, String)> = vec![];
    for (at, session) in history.sessions.iter().enumerate() {
        let Session { client, user, node, .. } = session;
        let name = format!("session {at} (client {client} of user{user} on node {node})");
        lines.push((session.since, format!("{name} is in, asked at {}", session.asked)));
        lines.extend(session.left.map(|(when, way)| (when, format!("{name} leaves: {way:?}"))));
        lines.extend(session.ended.iter().map(|(when, end)| (*when, format!("{name} ends: {end:?}"))));
        lines.extend(session.naps.iter().map(|(when, to)| (*when, format!("{name} naps up to {to}"))));
    }
    for (at, client) in history.clients.iter().enumerate() {
        for seen in &client.seen {
            let name = format!("client {at} on session {}", seen.session);
            let how = if seen.is_shown { "sees" } else { "sees again" };
            lines.push((seen.at, format!("{name} {how} {}", seen.message)));
            lines.extend(seen.acked.map(|at| (at, format!("{name} acknowledges {}", seen.message))));
        }
    }
    for (number, message) in history.messages.iter().enumerate() {
        for attempt in &message.attempts {
            let name = format!("message {number} (session {} to user{})", attempt.session, message.to);
            lines.push((attempt.sent, format!("{name} is sent")));
            lines.extend(attempt.told.iter().map(|(at, fate)| (*at, format!("{name}: {fate}"))));
        }
    }
    for question in &history.questions {
        lines.push((question.asked, format!("asked: {question:?}")));
    }
    for trouble in &history.troubles {
        lines.push((trouble.from, format!("begins: {}", trouble.fault)));
        lines.extend(trouble.to.map(|to| (to, format!("ends: {}", trouble.fault))));
    }
    let excused = &verdict.books.excused;
    lines.extend(
        excused.iter().map(|((why, faults), number)| (0, format!("excused {number}: {why}: {faults}"))),
    );
    lines.extend(verdict.wrongs.iter().map(|wrong| (wrong.at, format!("WRONG {wrong}"))));
    // What has the same time stays as it is noted.
    lines.sort_by_key(|line| line.0);
    let file = OpenOptions::new().append(true).open(path).expect("the log is there");
    let mut file = BufWriter::new(file);
    let result = lines.iter().try_for_each(|(at, line)| writeln!(file, "{at:>7} {line}"));
    result.and_then(|()| file.flush()).expect("there is room for a log");
}
