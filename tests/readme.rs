//! README.md is held against the code: what it lists is what there is.
//!
//! A table or a list is found by the marker comment in front of it, such as
//! `<!-- settings -->`. The conversation runs against a real node. The Rust
//! code of the page is tested elsewhere: `src/lib.rs` makes a doctest of it.

mod rig;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use pinpost::internals::proto::verb::Verb;
use pinpost::{CloseReason, ErrorCode, SETTINGS};

use rig::node::Node;
use rig::peer::{Heard, Peer};

#[test]
fn the_settings_are_those_of_the_code() {
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            let flag = format!("--{} {}", setting.name, setting.form);
            let default = match setting.default {
                "" => "the host name".to_owned(),
                default => format!("`{default}`"),
            };
            let about = setting.about.replace(" (default: the host name)", "");
            format!("| `{}` | {default} | {about} | {} |", flag.trim_end(), setting.allowed)
        })
        .collect();
    let found = rows("settings");
    assert_eq!(found, expected, "the table of the README should be:\n{}\n", expected.join("\n"));
}

#[test]
fn the_words_are_those_of_the_code() {
    let verbs: Vec<&str> = Verb::ALL.into_iter().map(Verb::usage).collect();
    assert_eq!(first_words("requests"), verbs);
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.word()).collect();
    assert_eq!(first_words("errors"), codes);
    let reasons: Vec<&str> = CloseReason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(first_words("reasons"), reasons);
}

#[test]
fn the_limits_are_those_of_the_code() {
    let constants = constants();
    let mut named = vec![];
    for row in rows("limits") {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [limit, default, source, _] = cells[..] else { panic!("not four cells: {row}") };
        let shown = amount(default).unwrap_or_else(|| panic!("no number: {row}"));
        let words: Vec<&str> = source.split('`').filter(|word| !word.trim().is_empty()).collect();
        let real = match words[..] {
            [flag] => {
                let setting = SETTINGS.iter().find(|setting| format!("--{}", setting.name) == flag);
                amount(setting.unwrap_or_else(|| panic!("no such setting: {row}")).default)
            }
            [file, name] => {
                named.push((file.to_owned(), name.to_owned()));
                let key = (format!("src/{file}"), name.to_owned());
                let text = constants.get(&key).unwrap_or_else(|| panic!("no such constant: {row}"));
                value(text, &key.0, &constants)
            }
            _ => panic!("neither a setting nor a file and its constant: {row}"),
        };
        assert_eq!(Some(shown), real, "{limit}");
    }
    // And every bound of the code has a row, so that a new one gets one.
    for (file, name) in constants.keys().filter(|(_, name)| name.ends_with("_MAX")) {
        let short = file.strip_prefix("src/").expect("all are there");
        let is_named = named.iter().any(|(other, word)| other == short && word == name);
        let is_no_limit = NO_LIMITS.contains(&(short, name));
        assert!(is_named || is_no_limit, "{file} {name}: README.md has no row for this limit");
    }
}

/// Constants that end in `_MAX` and have no row of their own.
const NO_LIMITS: &[(&str, &str)] = &[
    // The default of a setting.
    ("proto.rs", "LINE_BYTES_MAX"),
    // Memory that is kept, not a bound that anybody meets.
    ("node/out.rs", "BYTES_KEPT_MAX"),
    ("node/lane.rs", "ENTRIES_KEPT_MAX"),
    ("node/lanes.rs", "SPARES_MAX"),
    ("node/outbox.rs", "SPARES_MAX"),
    ("node/slab.rs", "SLOTS_KEPT_MAX"),
    ("net/messages.rs", "SPARE_BYTES_MAX"),
    ("recent.rs", "SLOTS_KEPT_MAX"),
    // What the WebSocket protocol makes of a header.
    ("net/messages.rs", "HEADER_BYTES_MAX"),
    // The longest id that a node makes.
    ("proto/name.rs", "COUNTED_BYTES_MAX"),
    // How much of a wrong answer an error message quotes.
    ("client/wire.rs", "SAID_CHARS_MAX"),
    // What the form of batches makes of a head, a number and a range of receipts.
    ("proto/wire.rs", "HEAD_BYTES_MAX"),
    ("proto/wire.rs", "RECEIPTS_BYTES_MAX"),
    ("proto/wire.rs", "NUMBER_MAX"),
    ("proto/wire/bytes.rs", "NUMBER_BYTES_MAX"),
    // When a node says a word that nobody but another node waits for.
    ("cluster/link.rs", "QUIET_TIME_MAX"),
    // When the table of nodes is asked for once more.
    ("cluster/presence/round.rs", "TABLE_TIME_MAX"),
];

#[test]
fn the_reading_order_has_every_file() {
    let text = section("files");
    for (file, _) in sources() {
        let short = file.strip_prefix("src/").expect("all are there");
        let is_there = text.contains(&format!("`{short}`")) || text.contains(&format!("`{file}`"));
        assert!(is_there || short == "lib.rs", "{file} is not in README.md's reading order");
    }
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name.trim_start_matches("src/"));
        assert!(path.exists(), "README.md names {name}, which does not exist");
    }
}

#[test]
fn every_example_and_every_test_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("README.md")).expect("README.md is there");
    let is_worth_a_name = |folder: &str, name: &str| {
        let is_sample = folder == "examples" && (name.ends_with(".toml") || name.ends_with(".service"));
        let is_program =
            ["main.rs", "src/main.rs"].iter().any(|file| root.join(folder).join(name).join(file).exists());
        name.ends_with(".rs") || is_sample || is_program
    };
    for folder in ["examples", "tests"] {
        for entry in fs::read_dir(root.join(folder)).expect("it can be read") {
            let name = entry.expect("it can be read").file_name().to_string_lossy().into_owned();
            let shown = match folder {
                "examples" => format!("`{}`", name.trim_end_matches(".rs")),
                _ => format!("`{folder}/{name}`"),
            };
            let is_named = page.contains(&shown);
            assert!(is_named || !is_worth_a_name(folder, &name), "README.md does not name {shown}");
        }
    }
}

#[test]
fn the_bars_are_those_of_the_benchmark() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench/src/bars.rs");
    let code = fs::read_to_string(path).expect("it is there");
    let bars = code.split_once("const BARS: ").expect("they are a constant").1.replace('_', "");
    let rows = rows("bars");
    assert!(bars.starts_with(&format!("[Bar; {}]", rows.len())), "{} bars in the README", rows.len());
    for row in rows {
        let bound = row.trim_end_matches(" |").rsplit(' ').next().expect("a last word").replace(',', "");
        let bound: f64 = bound.parse().unwrap_or_else(|_| panic!("no number: {row}"));
        assert!(bars.contains(&format!("{bound:?}")), "no bar with this bound: {row}");
    }
}

#[test]
fn no_verb_and_no_advice_replaces_the_full_binary_by_a_smaller_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    // What is built without a word of features has all of them.
    let cargo = read("Cargo.toml");
    let features =
        cargo.split_once("\n[features]\n").expect("there are some").1.split("\n[").next().expect("one");
    let (default, others) =
        features.split_once("default = [").expect("a default").1.split_once(']').expect("a list");
    let names = others.lines().filter_map(|line| Some(line.split_once(" = [")?.0));
    for name in names.filter(|name| *name != "internals") {
        assert!(default.contains(&format!("\"{name}\"")), "{name} is not in a default build");
    }
    let mut texts =
        vec![("Makefile".to_owned(), read("Makefile")), ("README.md".to_owned(), read("README.md"))];
    for folder in ["examples", "tests"] {
        for entry in fs::read_dir(root.join(folder)).expect("it can be read") {
            let name = format!("{folder}/{}", entry.expect("it can be read").file_name().to_string_lossy());
            let is_read = name.ends_with(".sh") || folder == "examples" && name.ends_with(".rs");
            texts.extend(is_read.then(|| (name.clone(), read(&name))));
        }
    }
    for (name, text) in texts {
        for line in text.replace("\\\n", " ").lines() {
            assert!(!builds_less(line), "{name}: {line}: it takes a --target-dir");
        }
    }
    assert!(builds_less("\t$(CARGO) build --release --no-default-features"));
    assert!(builds_less("cargo run --features cluster -- serve"));
    assert!(!builds_less("\t$(CARGO) clippy --no-default-features --lib --bins"));
}

/// A line builds the command with fewer features than all, at the place of the full one.
fn builds_less(line: &str) -> bool {
    let line = line.to_lowercase();
    let is_build = ["build", "run", "test", "install"].iter().any(|verb| line.contains(&format!(" {verb} ")));
    let is_less = line.contains("--no-default-features")
        || line.replace("--features internals", "").contains("--features");
    line.contains("cargo") && is_build && is_less && !line.contains("--target-dir")
}

#[test]
fn the_conversation_goes_as_shown() {
    let node = Node::start(&[]);
    // Behind the node, so that they are gone before it ends: one who stays would be waited for.
    let mut people: HashMap<String, Peer> = HashMap::new();
    let text = section("conversation: tests/readme.rs runs it");
    let block = text.split("```").nth(1).expect("a block behind the marker");
    for line in block.lines().skip(1) {
        let (name, said) = line.split_once(' ').expect("NAME> or NAME<, and a line");
        let (name, way) = name.split_at(name.len() - 1);
        let person = people.entry(name.to_owned()).or_insert_with(|| Peer::silent(node.tcp));
        if way == ">" {
            person.say(said);
            continue;
        }
        let heard = person.try_hear().unwrap_or_else(|error| panic!("{line}: {error}"));
        let Heard::Line(heard) = heard else { panic!("{line}: the connection ended") };
        assert!(is_like(&heard, said), "expected {line}, heard {heard}");
    }
}

/// Compares word by word; `<anything>` stands for one word. What people read behind a `BYE` is left out.
fn is_like(heard: &str, shown: &str) -> bool {
    let shown_words: Vec<&str> = shown.split(' ').collect();
    let mut words: Vec<&str> = heard.split(' ').collect();
    if shown.starts_with("BYE ") {
        words.truncate(shown_words.len());
    }
    let same = |(word, shown): (&&str, &&str)| word == shown || shown.starts_with('<') && !word.is_empty();
    words.len() == shown_words.len() && words.iter().zip(&shown_words).all(same)
}

/// All of README.md behind every marker of this name, up to the next empty line that ends a
/// table or a list, or to the end of the code block.
fn section(marker: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(path).expect("README.md is there");
    let marker = format!("<!-- {marker} -->\n");
    let parts: Vec<&str> = text.split(&marker).skip(1).collect();
    assert!(!parts.is_empty(), "README.md has no {marker}");
    parts.iter().map(|part| part.split("\n\n").next().expect("one at least")).collect::<Vec<_>>().join("\n")
}

/// The rows of the tables behind a marker.
fn rows(marker: &str) -> Vec<String> {
    let text = section(marker);
    let lines: Vec<&str> = text.lines().collect();
    let is_head = |at: usize| {
        lines[at].starts_with("| ---") || lines.get(at + 1).is_some_and(|l| l.starts_with("| ---"))
    };
    (0..lines.len()).filter(|at| !is_head(*at)).map(|at| lines[at].to_owned()).collect()
}

/// What stands in backquotes first in every row.
fn first_words(marker: &str) -> Vec<String> {
    let word = |row: String| row.split('`').nth(1).expect("backquotes").to_owned();
    rows(marker).into_iter().map(word).collect()
}

/// A number with its unit, as it stands in a table: times in milliseconds, sizes in bytes.
fn amount(text: &str) -> Option<u64> {
    let text = text.trim().replace(',', "");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = match text[end..].trim() {
        "s" => 1_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => 1,
    };
    Some(number * unit)
}

/// The constants of the sources: file and name to the text of the value, tests left out.
fn constants() -> HashMap<(String, String), String> {
    let mut found = HashMap::new();
    for (file, text) in sources() {
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().expect("one at least");
        for line in text.lines() {
            // Not those of a type, which are indented.
            let Some((before, rest)) = line.split_once("const ") else { continue };
            if !matches!(before.trim_end(), "" | "pub" | "pub(super)" | "pub(crate)") || line.starts_with(' ')
            {
                continue;
            }
            let Some((name, rest)) = rest.split_once(": ") else { continue };
            let Some((_, value)) = rest.split_once(" = ") else { continue };
            found.insert((file.clone(), name.to_owned()), value.trim_end_matches(';').to_owned());
        }
    }
    found
}

/// What the text of a constant comes to: numbers, sums, products, durations and other constants.
fn value(text: &str, file: &str, constants: &HashMap<(String, String), String>) -> Option<u64> {
    let value_of = |text: &str| value(text, file, constants);
    let text = text.trim();
    if let Some((left, right)) = text.split_once(".saturating_add(") {
        return Some(value_of(left)? + value_of(right.strip_suffix(')')?)?);
    }
    if let Some(rest) = text.strip_prefix("Duration::from_secs(") {
        // A test waits for less than a program: `if cfg!(test) { 1 } else { 5 }`.
        let rest = rest.strip_suffix(')')?;
        let real = rest.split_once("else {").map_or(rest, |(_, real)| real.trim_end_matches('}'));
        return Some(value_of(real)? * 1_000);
    }
    if let Some(rest) = text.strip_prefix("Duration::from_millis(") {
        return value_of(rest.strip_suffix(')')?);
    }
    if let Some((left, right)) = text.split_once(" + ") {
        return Some(value_of(left)? + value_of(right)?);
    }
    if let Some((left, right)) = text.split_once(" * ") {
        return Some(value_of(left)? * value_of(right)?);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.replace('_', "").parse().ok();
    }
    let here = constants.get(&(file.to_owned(), text.to_owned()));
    let elsewhere = || constants.iter().find(|((_, name), _)| name == text).map(|(_, value)| value);
    value_of(here.or_else(elsewhere)?)
}

/// Every file below `src/` but test helpers: its path and its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut found = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                // A folder of tests has an order of its own.
                folders.extend((!path.ends_with("tests")).then_some(path));
            } else {
                let name = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found
}
