//! What the comparison's figures are held against: `ok` or `OVER` for each bar.
//!
//! A bar is on a ratio of two medians of the same run, so that it means the same
//! on any machine, or, for memory, on a figure itself. A bar that is missed is
//! printed, and no more: machines are noisy.

use crate::client::Transport;
use crate::dialect::Verb;
use crate::load::PAYLOAD_BYTES;
use crate::report::{grouped, table, verdict, verdict_least};
use crate::results::{Figure, Results};
use crate::server::Program;
use crate::workload::Workload;

/// Prints all bars for which there are figures.
pub fn print(programs: &[&Program], workloads: &[Workload], results: &Results) {
    let mut rows = Vec::new();
    let median = |workload: Workload, name: &str, figure| {
        let workload = workloads.iter().position(|other| *other == workload)?;
        let program = programs.iter().position(|program| program.name() == name)?;
        results.median(workload, program, figure)
    };
    for bar in BARS {
        let Some(ours) = median(bar.workload, OURS, bar.figure) else { continue };
        let figure = match bar.against {
            Some(name) => median(bar.workload, name, bar.figure).map(|theirs| ours / theirs),
            None => Some(ours),
        };
        let Some(figure) = figure else { continue };
        let text = |number: f64| match bar.against {
            Some(_) => format!("{number:.2}"),
            None => grouped(number),
        };
        let judge = if bar.is_least { verdict_least } else { verdict };
        let beside = bar.against.map_or(String::new(), |name| format!(" / {name}"));
        rows.push(vec![
            format!("{}: {}", bar.workload.title(), bar.figure.title()),
            format!("{OURS}{beside}"),
            text(figure),
            judge(figure, bar.bound, &text(bar.bound)),
        ]);
    }
    if !rows.is_empty() {
        println!();
        println!("bars: ratios of the medians above, or the figure itself");
        table(&["", "", "", ""], &rows);
    }
}

/// Prints the CPU time of one program beside that of the next, the same in another build.
pub fn versus(programs: &[&Program], pair: [usize; 2], workloads: &[Workload], results: &Results) {
    let [one, other] = pair;
    println!();
    println!("CPU {} / {}", programs[one].name(), programs[other].name());
    let mut rows = Vec::new();
    for (number, workload) in workloads.iter().enumerate() {
        let median = |program| results.median(number, program, Figure::Cpu);
        if let Some((ours, theirs)) = median(one).zip(median(other)) {
            let (ratio, bound) = (ours / theirs, before_ratio_max(*workload));
            let judged = verdict(ratio, bound, &format!("{bound:.2}"));
            rows.push(vec![workload.title(), format!("{ratio:.3}"), judged]);
        }
    }
    table(&["", "", ""], &rows);
}

/// pinpost's figure must not be more than this, divided by another's where one is named.
struct Bar {
    workload: Workload,
    figure: Figure,
    against: Option<&'static str>,
    bound: f64,
    is_least: bool,
}

const fn pairs(verb: Verb, window: u32) -> Workload {
    Workload::Pairs { verb, window, text_bytes: PAYLOAD_BYTES }
}

const fn most(workload: Workload, figure: Figure, against: &'static str, bound: f64) -> Bar {
    Bar { workload, figure, against: Some(against), bound, is_least: false }
}

const fn idle(transport: Transport, bound: f64) -> Bar {
    let workload = Workload::Logins { transport };
    Bar { workload, figure: Figure::Idle, against: None, bound, is_least: false }
}

/// What a message may cost compared with the same at another build: less is asked where nothing gathers, and
/// each event has the whole of its own cost, and over WebSocket.
fn before_ratio_max(workload: Workload) -> f64 {
    match workload {
        Workload::Web { .. } => 1.2,
        Workload::Open { .. } | Workload::Pairs { window: 1, .. } => 1.15,
        _ => BEFORE_RATIO_MAX,
    }
}

/// The same where messages gather.
pub const BEFORE_RATIO_MAX: f64 = 1.05;
const OURS: &str = "pinpost";
const FAN_IN: Workload = Workload::FanIn { window: 4 };
const SLOW: Workload = Workload::Open { rate: 5_000 };
const FAST: Workload = Workload::Open { rate: 20_000 };
const BARS: [Bar; 13] = [
    most(pairs(Verb::Cast, 1), Figure::Cpu, "nats", 0.8),
    most(pairs(Verb::Cast, 16), Figure::Cpu, "nats", 0.6),
    most(pairs(Verb::Cast, 16), Figure::Cpu, "relay", 1.5),
    most(FAN_IN, Figure::Cpu, "nats", 0.5),
    most(FAN_IN, Figure::Cpu, "relay", 1.5),
    most(SLOW, Figure::Cpu, "relay", 1.4),
    most(FAST, Figure::Median, "relay", 1.2),
    most(FAST, Figure::P99, "relay", 2.0),
    most(pairs(Verb::Send, 16), Figure::Cpu, "relay, answering", 2.0),
    most(pairs(Verb::Send, 16), Figure::Cpu, "mosquitto, QoS 1", 0.1),
    idle(Transport::Tcp, 900.0),
    idle(Transport::WebSocket, 1_792.0),
    Bar {
        workload: Workload::Logins { transport: Transport::Tcp },
        figure: Figure::Rate,
        against: Some("mosquitto, QoS 0"),
        bound: 1.0,
        is_least: true,
    },
];
