//! The floors of the house, and its other rules, held against the code.
//!
//! Every file of `src/` stands on a floor, by its folder. An import, a line that begins with `use crate::`, points to a
//! file of the same floor or of a lower one; no two files import each other, in however many steps. `node/` and
//! `proto/` are pure. Besides, a file begins with its `//!` header and has at most 450 lines without its tests, and a
//! function at most 60.
//!
//! The checker reads text, not types: the convention has one module a line, and that is enough.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The floors, from the top down: whoever is on one may know those below it.
const FLOORS: &[&[&str]] = &[
    &["main", "lib", "cli"],
    &["server"],
    &["net"],
    &["cluster"],
    &["node", "mailbox"],
    // The client library knows `proto` only, and nobody below knows it.
    &["client"],
    &["config", "metrics", "pause", "random", "recent"],
    &["proto"],
];

/// What nothing in `node/` and `proto/` may use.
const IMPURE: &[&str] = &[
    "Mutex",
    "RwLock",
    "Atomic",
    "atomic::",
    "Instant::now",
    "SystemTime",
    "random_id",
    "RandomState",
    "rand::",
    "log::",
    "println!",
    "std::net",
    "std::thread",
    "std::io",
    "smol",
    "async ",
    ".await",
    "thread_local!",
    "static ",
];

/// The most lines of a file, without its tests, and of a function.
const FILE_LINES_MAX: usize = 450;
const FUNCTION_LINES_MAX: usize = 60;

/// Files by their module paths, such as `node::lane`, each without its tests.
fn files() -> BTreeMap<String, (String, Vec<String>)> {
    let mut files = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    collect(&root, &root, &mut files);
    files
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, (String, Vec<String>)>) {
    let entries = fs::read_dir(folder).expect("src is there");
    for path in entries.map(|entry| entry.expect("it can be read").path()) {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("within").with_extension("");
            let name = name.to_str().expect("text").replace('/', "::");
            let is_test = name.ends_with("tests") || name.contains("tests::");
            let text = fs::read_to_string(&path).expect("text");
            let lines = text.lines().take_while(|line| *line != "#[cfg(test)]" || !ends_file(&text, line));
            if !is_test {
                files.insert(name, (path.display().to_string(), lines.map(str::to_owned).collect()));
            }
        }
    }
}

/// Tests stand last in a file, as a module of their own.
fn ends_file(text: &str, line: &str) -> bool {
    text.rfind(line).is_some_and(|at| text[at..].contains("\nmod ") && text.matches(line).count() == 1)
}

fn floor(module: &str) -> usize {
    let top = module.split("::").next().expect("a name");
    let found = FLOORS.iter().position(|floor| floor.contains(&top));
    found.unwrap_or_else(|| panic!("{module}: {top} stands on no floor"))
}

/// The files that a file imports from.
fn imports(lines: &[String], files: &BTreeMap<String, (String, Vec<String>)>) -> Vec<String> {
    let paths = lines.iter().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        line.strip_prefix("use crate::")
    });
    let file_of = |path: &str| {
        let mut path = path.trim_end_matches(';').split(" as ").next().expect("a path").to_owned();
        while !files.contains_key(&path) {
            let (shorter, _) = path.rsplit_once("::")?;
            path = shorter.to_owned();
        }
        Some(path)
    };
    paths.filter_map(file_of).collect()
}

#[test]
fn imports_point_down_and_in_no_circle() {
    let files = files();
    let mut arrows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, (path, lines)) in &files {
        let imported = imports(lines, &files);
        for other in &imported {
            assert!(floor(other) >= floor(module), "{path} imports {other}, which is above it");
            let is_client = |module: &str| module.split("::").next() == Some("client");
            assert!(!is_client(other) || is_client(module) || floor(module) == 0, "{path} knows the client");
        }
        arrows.insert(module, imported);
    }
    let mut done: Vec<&str> = vec![];
    for module in files.keys() {
        walk(module, &arrows, &mut vec![], &mut done);
    }
}

/// Follows the arrows; a file that is met on its own way is in a circle.
fn walk<'a>(
    module: &'a str,
    arrows: &'a BTreeMap<&str, Vec<String>>,
    way: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
) {
    assert!(!way.contains(&module), "a circle: {} -> {module}", way.join(" -> "));
    if done.contains(&module) {
        return;
    }
    way.push(module);
    for other in &arrows[module] {
        if other != module {
            walk(other, arrows, way, done);
        }
    }
    way.pop();
    done.push(module);
}

#[test]
fn node_and_proto_are_pure() {
    for (module, (path, lines)) in files() {
        if !["node", "proto"].contains(&module.split("::").next().expect("a name")) {
            continue;
        }
        for line in lines.iter().map(|line| line.split("//").next().expect("code")) {
            // A lifetime and the name of a link are no global state.
            let code = line.replace("'static ", "").replace("&'static", "");
            let found = IMPURE.iter().find(|word| code.contains(**word));
            assert!(found.is_none(), "{path}: {:?} in {line:?}", found.expect("found"));
        }
    }
}

#[test]
fn files_and_functions_are_small_and_have_a_header() {
    for (_, (path, lines)) in files() {
        assert!(lines[0].starts_with("//!"), "{path} begins without a header");
        assert!(lines.len() <= FILE_LINES_MAX, "{path} has {} lines", lines.len());
        let mut began = None;
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function =
                ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn "]
                    .iter()
                    .any(|start| line.trim_start().starts_with(start));
            if is_function && began.is_none() {
                began = Some((at, indent));
            }
            if let Some((from, from_indent)) = began
                && indent == from_indent
                && (line.trim_end().ends_with('}') || line.trim_end().ends_with(';'))
            {
                let count = at + 1 - from;
                assert!(count <= FUNCTION_LINES_MAX, "{path}:{}: a function of {count} lines", from + 1);
                began = None;
            }
        }
    }
}

#[test]
fn the_checker_sees() {
    let of = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let files: BTreeMap<String, (String, Vec<String>)> =
        ["node", "node::lane", "proto::name"].map(|name| (name.to_owned(), (name.to_owned(), vec![]))).into();
    let lines =
        of("use crate::node::lane::Lane;\npub use crate::proto::name::{UserName, UserRef};\nuse std::fmt;");
    assert_eq!(imports(&lines, &files), ["node::lane", "proto::name"]);
    assert!(floor("server") < floor("node::lane") && floor("node::lane") < floor("proto::name"));
}
