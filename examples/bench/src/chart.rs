//! The comparison as a picture: an SVG of horizontal bars, a few panels of them.
//!
//! What is drawn are the medians of the table. The scale of each panel is
//! logarithmic, as a server can be a hundred times dearer than another, and
//! begins at a round number below the shortest bar; every bar has its figure
//! beside it. Colours follow the reader's preference for light or dark.

use std::io;
use std::path::Path;

use svg::node::element::{Group, Rectangle, Style, Text};
use svg::{Document, Node as _};

use crate::client::Transport;
use crate::dialect::Verb;
use crate::load::PAYLOAD_BYTES;
use crate::results::{Figure, Results};
use crate::server::Program;
use crate::sheet::short;
use crate::workload::Workload;

/// Draws what there is, and writes it to this file.
pub fn write(
    path: &Path,
    machine: &str,
    programs: &[&Program],
    workloads: &[Workload],
    results: &Results,
) -> io::Result<()> {
    let bars = |panel: &Panel| -> Vec<Bar> {
        let Some(workload) = workloads.iter().position(|other| *other == panel.workload) else {
            return vec![];
        };
        let bar = |(which, program): (usize, &&Program)| {
            let figure = results.median(workload, which, panel.figure)?;
            Some(Bar { name: program.name(), class: class(program), figure })
        };
        programs.iter().enumerate().filter_map(bar).collect()
    };
    let panels: Vec<(&Panel, Vec<Bar>)> = PANELS.iter().map(|panel| (panel, bars(panel))).collect();
    let panels: Vec<_> = panels.into_iter().filter(|(_, bars)| !bars.is_empty()).collect();

    let mut drawing = Group::new();
    drawing.append(text(MARGIN, 34.0, "title", "pinpost beside servers for the same job"));
    drawing.append(text(MARGIN, 56.0, "small", machine));
    drawing.append(text(MARGIN, 74.0, "small", NOTE));
    let mut top = 96.0;
    for row in panels.chunks(COLUMNS) {
        for (column, (panel, bars)) in row.iter().enumerate() {
            let left = MARGIN + column as f64 * (PANEL_WIDTH + MARGIN);
            drawing.append(draw(panel, bars, left, top));
        }
        let longest = row.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
        top += HEAD_HEIGHT + longest as f64 * ROW_HEIGHT + MARGIN;
    }
    let width = MARGIN + COLUMNS as f64 * (PANEL_WIDTH + MARGIN);
    let ground = Rectangle::new().set("width", width).set("height", top).set("class", "ground");
    let document = Document::new()
        .set("viewBox", (0, 0, width, top))
        .set("width", width)
        .set("height", top)
        .set("role", "img")
        .add(Style::new(STYLE))
        .add(ground)
        .add(drawing);
    svg::save(path, &document)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn draw(panel: &Panel, bars: &[Bar], left: f64, top: f64) -> Group {
    let least = bars.iter().map(|bar| bar.figure).fold(f64::INFINITY, f64::min);
    let most = bars.iter().map(|bar| bar.figure).fold(0.0, f64::max);
    // So that the shortest bar can be seen.
    let from = 10f64.powf((least / 1.5).log10().floor());
    let length = |figure: f64| BAR_WIDTH * (figure / from).log10() / (most / from).log10();
    let mut group = Group::new().add(text(left, top + 12.0, "head", panel.title));
    for (at, bar) in bars.iter().enumerate() {
        let y = top + HEAD_HEIGHT + at as f64 * ROW_HEIGHT;
        let baseline = y + BAR_HEIGHT - 4.0;
        let x = left + NAME_WIDTH;
        let name = text(x - 8.0, baseline, "name", bar.name).set("text-anchor", "end");
        let shape = Rectangle::new()
            .set("x", x)
            .set("y", y)
            .set("width", round(length(bar.figure)))
            .set("height", BAR_HEIGHT)
            .set("rx", 2)
            .set("class", bar.class);
        let figure = format!("{} {}", short(bar.figure), panel.unit);
        let figure = text(round(x + length(bar.figure) + 6.0), baseline, "figure", &figure);
        group = group.add(name).add(shape).add(figure);
    }
    group
}

fn text(x: f64, y: f64, class: &str, words: &str) -> Text {
    Text::new(words).set("x", x).set("y", y).set("class", class)
}

fn round(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

fn class(program: &Program) -> &'static str {
    match program {
        Program::Pinpost(_) => "ours",
        Program::Relay | Program::RelayAnswering => "floor",
        Program::Before(_) | Program::Small(_) | Program::Counted(..) | Program::Peer(_) => "peer",
    }
}

struct Bar {
    name: &'static str,
    class: &'static str,
    figure: f64,
}

/// What one panel shows.
struct Panel {
    title: &'static str,
    workload: Workload,
    figure: Figure,
    unit: &'static str,
}

const fn cpu(title: &'static str, workload: Workload) -> Panel {
    Panel { title, workload, figure: Figure::Cpu, unit: "us" }
}

const fn pairs(verb: Verb, window: u32) -> Workload {
    Workload::Pairs { verb, window, text_bytes: PAYLOAD_BYTES }
}

const PANELS: [Panel; 8] = [
    cpu("server CPU a message, 16 under way", pairs(Verb::Cast, 16)),
    cpu("server CPU a message, 1 under way", pairs(Verb::Cast, 1)),
    cpu("server CPU a message, 16 under way, each answered", pairs(Verb::Send, 16)),
    cpu("server CPU a message, 1 under way, each answered", pairs(Verb::Send, 1)),
    cpu("server CPU a message, 200 users to one", Workload::FanIn { window: 4 }),
    Panel {
        title: "one-way latency at 20,000 messages/s, 99th percentile",
        workload: Workload::Open { rate: 20_000 },
        figure: Figure::P99,
        unit: "us",
    },
    Panel {
        title: "from a message to its answer, 1 under way, median",
        workload: pairs(Verb::Send, 1),
        figure: Figure::Median,
        unit: "us",
    },
    Panel {
        title: "memory of an idle user",
        workload: Workload::Logins { transport: Transport::Tcp },
        figure: Figure::Idle,
        unit: "bytes",
    },
];
const NOTE: &str = "Medians of one run, server on one core. Logarithmic scales; shorter is better. \
                    relay: the least that any such server does.";
const STYLE: &str = "
text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1f2328 }
.title { font-size: 20px; font-weight: 600 }
.head { font-size: 13px; font-weight: 600 }
.small { fill: #59636e }
.ground { fill: #ffffff }
.ours { fill: #1f6feb }
.peer { fill: #9aa4af }
.floor { fill: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .ground { fill: #0d1117 }
  .ours { fill: #4493f8 }
  .peer { fill: #6e7781 }
  .floor { fill: #3d444d }
}
";
const COLUMNS: usize = 2;
const MARGIN: f64 = 24.0;
const PANEL_WIDTH: f64 = 450.0;
const NAME_WIDTH: f64 = 144.0;
const BAR_WIDTH: f64 = 216.0;
const BAR_HEIGHT: f64 = 16.0;
const ROW_HEIGHT: f64 = 21.0;
const HEAD_HEIGHT: f64 = 24.0;
