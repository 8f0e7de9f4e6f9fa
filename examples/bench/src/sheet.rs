//! The table of the comparison: for each workload and program the median of all
//! rounds, and in parentheses the least and the most.

use crate::load::PAYLOAD_BYTES;
use crate::logins::AT_ONCE_MAX;
use crate::report::{grouped, table};
use crate::results::{Figure, Results};
use crate::server::Program;
use crate::workload::{USERS, Workload};

/// Prints it.
pub fn print(programs: &[&Program], workloads: &[Workload], results: &Results, logins: usize) {
    let pairs =
        || (0..workloads.len()).flat_map(|number| (0..programs.len()).map(move |which| (number, which)));
    let has =
        |figure: &Figure| pairs().any(|(number, which)| results.spread(number, which, *figure).is_some());
    let columns: Vec<Figure> = COLUMNS.into_iter().filter(has).collect();
    let mut rows = Vec::new();
    for (number, workload) in workloads.iter().enumerate() {
        if (0..programs.len()).all(|which| !results.has(number, which)) {
            continue;
        }
        let mut title = vec![workload.title()];
        title.resize(columns.len() + 2, String::new());
        rows.push(title);
        for (which, program) in programs.iter().enumerate() {
            if !results.has(number, which) {
                continue;
            }
            let mut row = vec![format!("  {}", program.name())];
            row.extend(columns.iter().map(|figure| cell(results, number, which, *figure)));
            row.push(remark(results, number, which));
            rows.push(row);
        }
    }
    println!();
    println!(
        "{USERS} users on one node, in pairs where nothing else is said, texts of {PAYLOAD_BYTES} bytes;"
    );
    if workloads.iter().any(|workload| matches!(workload, Workload::Logins { .. })) {
        println!("of the logins {} users, {AT_ONCE_MAX} at a time;", grouped(logins as f64));
    }
    println!(
        "p50 and on: until the recipient has a message that was due, or until the answer to one that was sent;"
    );
    println!("medians of the rounds, in parentheses the least and the most");
    println!();
    let titles: Vec<&str> =
        [""].into_iter().chain(columns.iter().map(|figure| figure.title())).chain([""]).collect();
    table(&titles, &rows);
}

fn cell(results: &Results, workload: usize, program: usize, figure: Figure) -> String {
    let Some(spread) = results.spread(workload, program, figure) else { return String::new() };
    let scale = if figure == Figure::Rate { 1e-3 } else { 1.0 };
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|number| short(number * scale));
    if min == max { median } else { format!("{median} ({min}-{max})") }
}

/// What else there is to say about a row.
fn remark(results: &Results, workload: usize, program: usize) -> String {
    let memory = [(Figure::Used, "after a message each"), (Figure::Gone, "when all have gone")];
    let memory = memory.into_iter().filter_map(|(figure, when)| {
        let bytes = results.median(workload, program, figure)?;
        Some(format!("{when} {}", grouped(bytes)))
    });
    let notes = results.notes(workload, program);
    memory.chain((!notes.is_empty()).then_some(notes)).collect::<Vec<_>>().join(", ")
}

/// A number in three digits or more.
pub fn short(number: f64) -> String {
    match number {
        0.0..10.0 => format!("{number:.2}"),
        0.0..100.0 => format!("{number:.1}"),
        _ => grouped(number),
    }
}

impl Figure {
    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Figure::Cpu => "server CPU us",
            Figure::Rate => "1,000/s",
            Figure::Median => "p50 us",
            Figure::P99 => "p99 us",
            Figure::P999 => "p99.9 us",
            Figure::Late => "sent late, p99 us",
            Figure::Idle => "bytes a user",
            Figure::Used => "bytes a user, used",
            Figure::Gone => "bytes a user, gone",
        }
    }
}

const COLUMNS: [Figure; 7] =
    [Figure::Cpu, Figure::Rate, Figure::Median, Figure::P99, Figure::P999, Figure::Late, Figure::Idle];
