//! The layers of the crate, held as a table.
//!
//! The rule: a file may import from its own module, from every module of a
//! lower layer, and from the modules of its own layer that its row lists as
//! `beside`. An import is any path in the code that begins with `crate::` or
//! `pinpost::`, or that climbs out of its module with `super::`; tests within a
//! file count, comments and strings do not. Modules may not form a circle: the
//! files of one module are one unit, and may know each other.
//!
//! Every file of `src/` has a place in exactly one row, so a new file gets one
//! here. Besides, a file begins with its `//!` header, stays below 500 lines
//! and its functions below 70, and `proto` uses nothing that waits or does I/O.
//!
//! The checker reads text, not types: it knows tokens and braces, which is
//! enough for the way this crate writes imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One module: its layer, what it may import of its own layer, and its files.
struct Row {
    module: &'static str,
    layer: u32,
    beside: &'static [&'static str],
    files: &'static [&'static str],
}

/// The layers, from the top down.
const ROWS: &[Row] = &[
    row(
        "main",
        8,
        &[],
        &["main.rs", "args.rs", "log_to_stderr.rs", "no_talk.rs", "outcome.rs", "signals.rs", "talk.rs"],
    ),
    row("lib", 8, &[], &["lib.rs"]),
    row("server", 7, &[], &["server.rs", "server/drive.rs", "server/listen.rs"]),
    row(
        "conn",
        6,
        &[],
        &[
            "conn.rs",
            "conn/alarms.rs",
            "conn/held.rs",
            "conn/http.rs",
            "conn/no_http.rs",
            "conn/no_ws.rs",
            "conn/phase.rs",
            "conn/roll.rs",
            "conn/talk.rs",
            "conn/tests.rs",
            "conn/ws.rs",
        ],
    ),
    row(
        "router",
        5,
        &[],
        &[
            "router.rs",
            "router/acks.rs",
            "router/again.rs",
            "router/asked.rs",
            "router/deliver.rs",
            "router/drain.rs",
            "router/flush.rs",
            "router/in_flight.rs",
            "router/in_flight_tests.rs",
            "router/login.rs",
            "router/moves.rs",
            "router/question.rs",
            "router/refused.rs",
            "router/store.rs",
            "router/sweep.rs",
        ],
    ),
    row("table", 4, &[], &["table.rs"]),
    row(
        "cluster",
        4,
        &[],
        &[
            "cluster.rs",
            "cluster/announced.rs",
            "cluster/bus.rs",
            "cluster/events.rs",
            "cluster/lease.rs",
            "cluster/left.rs",
            "cluster/link.rs",
            "cluster/link_tests.rs",
            "cluster/links.rs",
            "cluster/local.rs",
            "cluster/no_remote.rs",
            "cluster/places.rs",
            "cluster/post.rs",
            "cluster/presence.rs",
            "cluster/presence/answers.rs",
            "cluster/presence/chore_tests.rs",
            "cluster/presence/chores.rs",
            "cluster/presence/mail.rs",
            "cluster/remembered.rs",
            "cluster/remote.rs",
            "cluster/sessions.rs",
            "cluster/shared.rs",
            "cluster/store.rs",
            "cluster/volume.rs",
            "cluster/watchdog.rs",
        ],
    ),
    // What the commands for people do stands beside the node, not on it: above the client alone.
    row("chat", 3, &["send"], &["chat.rs", "chat/console.rs", "chat/editor.rs", "chat/no_editor.rs"]),
    row("send", 3, &[], &["send.rs"]),
    row("session", 2, &[], &["session.rs"]),
    row(
        "outbox",
        2,
        &["metrics"],
        &[
            "outbox.rs",
            "outbox/bytes.rs",
            "outbox/ledger.rs",
            "outbox/messages.rs",
            "outbox/replies.rs",
            "outbox/seen.rs",
            "outbox/seen_key.rs",
            "outbox/sink.rs",
            "outbox/spares.rs",
            "outbox/state.rs",
            "outbox/tests.rs",
        ],
    ),
    row(
        "config",
        2,
        &[],
        &[
            "config.rs",
            "config/features.rs",
            "config/no_services.rs",
            "config/services.rs",
            "config/sources.rs",
            "config/tests.rs",
        ],
    ),
    row("mailbox", 2, &[], &["mailbox.rs", "mailbox/memory.rs", "mailbox/redis.rs"]),
    row("metrics", 2, &[], &["metrics.rs"]),
    row(
        "client",
        2,
        &[],
        &[
            "client.rs",
            "client/ack_tests.rs",
            "client/again_tests.rs",
            "client/command.rs",
            "client/config.rs",
            "client/connection.rs",
            "client/error.rs",
            "client/fake.rs",
            "client/handed.rs",
            "client/incoming.rs",
            "client/outstanding.rs",
            "client/room.rs",
            "client/room_tests.rs",
            "client/task.rs",
            "client/tests.rs",
        ],
    ),
    row("terminal", 2, &[], &["terminal.rs"]),
    row("timer", 2, &[], &["timer.rs"]),
    row("pause", 1, &[], &["pause.rs"]),
    row("random", 1, &[], &["random.rs"]),
    row("readiness", 1, &[], &["readiness.rs"]),
    row("recent", 1, &[], &["recent.rs"]),
    row(
        "proto",
        1,
        &[],
        &[
            "proto.rs",
            "proto/batch.rs",
            "proto/batch_tests.rs",
            "proto/envelope.rs",
            "proto/line.rs",
            "proto/name.rs",
            "proto/reply.rs",
            "proto/request.rs",
            "proto/verb.rs",
        ],
    ),
];

/// What `proto` is too pure for.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::sync::Condvar",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::thread",
    "std::time",
    "async_net",
    "log",
    "rustix",
    "smol",
];

const FILE_LINES_MAX: usize = 500;
/// Files that may be longer, each with its reason.
const LONG_FILES: &[&str] = &[];

const FUNCTION_LINES_MAX: usize = 70;
/// Functions that may be longer, as `file.rs function`: long tables in a `match`.
const LONG_FUNCTIONS: &[&str] = &[];

const fn row(
    module: &'static str,
    layer: u32,
    beside: &'static [&'static str],
    files: &'static [&'static str],
) -> Row {
    Row { module, layer, beside, files }
}

#[test]
fn the_sources_keep_the_layers() {
    let files = sources();
    assert!(files.len() > 20, "this test did not find the sources");
    assert_eq!(broken_imports(ROWS, &files), [""; 0]);
    assert_eq!(circles(&module_edges(ROWS, &files)), [""; 0]);
}

#[test]
fn every_file_has_its_form() {
    for (file, text) in sources() {
        assert_eq!(broken_form(&file, &text), [""; 0], "{file}");
    }
}

#[test]
fn proto_is_pure() {
    for (file, text) in sources().iter().filter(|(file, _)| file.starts_with("proto")) {
        assert_eq!(impure_paths(text), [""; 0], "{file}");
    }
}

/// Every file below `src/`, its path and its text, in order.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            if path.is_dir() {
                collect(&path, &format!("{prefix}{name}/"), found);
            } else if name.ends_with(".rs") {
                found.push((format!("{prefix}{name}"), fs::read_to_string(&path).expect("text")));
            }
        }
    }
    let mut found = vec![];
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    found.sort();
    found
}

/// What is wrong with the imports, a line each.
fn broken_imports(rows: &[Row], files: &[(String, String)]) -> Vec<String> {
    let mut wrong = vec![];
    for (file, text) in files {
        let places: Vec<&Row> = rows.iter().filter(|row| row.files.contains(&file.as_str())).collect();
        let [from] = places[..] else {
            let count = places.len();
            wrong.push(format!("{file}: {count} rows name it, exactly one must (tests/layers.rs)"));
            continue;
        };
        for (line, name) in imports(file, text) {
            let Some(to) = row_of(rows, &name) else {
                wrong.push(format!("{file}:{line}: {name} is in no row (tests/layers.rs)"));
                continue;
            };
            let allowed =
                to.module == from.module || to.layer < from.layer || from.beside.contains(&to.module);
            if !allowed {
                let way = if to.layer > from.layer { "up" } else { "sideways" };
                wrong.push(format!("{file}:{line}: {} imports {way}: {}", from.module, to.module));
            }
        }
    }
    for file in rows.iter().flat_map(|row| row.files) {
        if !files.iter().any(|(name, _)| name == file) {
            wrong.push(format!("{file}: a row names it, but there is no such file (tests/layers.rs)"));
        }
    }
    for row in rows {
        for beside in row.beside {
            if row_of(rows, beside).is_none_or(|other| other.layer != row.layer) {
                wrong.push(format!("{}: {beside} is not beside it", row.module));
            }
        }
    }
    wrong
}

/// The row whose files make up the top-level module `name`.
fn row_of<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    let file = format!("{name}.rs");
    rows.iter().find(|row| row.files.contains(&file.as_str()))
}

/// Which modules each module imports.
fn module_edges(rows: &[Row], files: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in files {
        let Some(from) = rows.iter().find(|row| row.files.contains(&file.as_str())) else { continue };
        for (_, name) in imports(file, text) {
            let to = row_of(rows, &name).map(|row| row.module).filter(|to| *to != from.module);
            edges.entry(from.module.to_owned()).or_default().extend(to.map(str::to_owned));
        }
    }
    edges
}

/// The circles among modules, each told once for the module it was met from.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    fn visit(at: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>, walk: &mut Walk<'_>) {
        if let Some(start) = way.iter().position(|module| module == at) {
            walk.found.push(format!("{} -> {at}", way[start..].join(" -> ")));
            return;
        }
        if done.contains(at) {
            return;
        }
        way.push(at.to_owned());
        for next in walk.edges.get(at).into_iter().flatten() {
            visit(next, way, done, walk);
        }
        way.pop();
        done.insert(at.to_owned());
    }
    struct Walk<'a> {
        edges: &'a BTreeMap<String, BTreeSet<String>>,
        found: Vec<String>,
    }
    let mut walk = Walk { edges, found: vec![] };
    let mut done = BTreeSet::new();
    for module in edges.keys() {
        visit(module, &mut vec![], &mut done, &mut walk);
    }
    walk.found
}

/// What is wrong with a file's header and lengths.
fn broken_form(file: &str, text: &str) -> Vec<String> {
    let mut wrong = vec![];
    if !text.starts_with("//! ") {
        wrong.push("it does not begin with a //! header".to_owned());
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !LONG_FILES.contains(&file) {
        wrong.push(format!("{lines} lines, over {FILE_LINES_MAX}"));
    }
    for (name, lines) in functions(text) {
        if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.contains(&&*format!("{file} {name}")) {
            wrong.push(format!("{name} has {lines} lines, over {FUNCTION_LINES_MAX}"));
        }
    }
    wrong
}

/// The paths of a file that `proto` must not use.
fn impure_paths(text: &str) -> Vec<String> {
    let is_impure = |path: &String| {
        let mut rests = IMPURE.iter().filter_map(|impure| path.strip_prefix(impure));
        rests.any(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    paths(&tokens(text)).into_iter().map(|path| path.names.join("::")).filter(is_impure).collect()
}

/// The top-level modules that a file names, with the line of each.
fn imports(file: &str, text: &str) -> Vec<(usize, String)> {
    let own: Vec<&str> = match file.trim_end_matches(".rs") {
        "lib" | "main" => vec![],
        module => module.split('/').collect(),
    };
    let mut found = vec![];
    for path in paths(&tokens(text)) {
        let names: Vec<&str> = path.names.iter().map(String::as_str).collect();
        let supers = names.iter().take_while(|name| **name == "super").count();
        let top = match names[..] {
            ["crate" | "pinpost", name, ..] => name,
            // The path of the place that the import stands in, `supers` steps up: the crate's root.
            _ if supers > 0 && supers == own.len() + path.inline_modules => match names.get(supers) {
                Some(name) => name,
                None => continue,
            },
            _ => continue,
        };
        found.push((path.line, top.to_owned()));
    }
    found
}

/// A path as it stands in the code, groups of a `use` taken apart, `*` and all.
struct Named {
    names: Vec<String>,
    line: usize,
    /// How many `mod name { ... }` it stands in.
    inline_modules: usize,
}

/// A word, `::`, or any other single character, with its line.
struct Token {
    text: String,
    line: usize,
}

/// Every path of two names or more.
fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = vec![];
    // For every open brace: whether it is that of an inline module.
    let mut braces: Vec<bool> = vec![];
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => {
                let is_module = at >= 2 && tokens[at - 2].text == "mod";
                braces.push(is_module);
            }
            "}" => {
                braces.pop();
            }
            text if is_word(text) && text_at(tokens, at + 1) == "::" => {
                let inline_modules = braces.iter().filter(|is_module| **is_module).count();
                at = path(tokens, at, &mut vec![], inline_modules, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one path that goes on behind `before`; returns where it ends.
fn path(
    tokens: &[Token],
    mut at: usize,
    before: &mut Vec<String>,
    inline_modules: usize,
    found: &mut Vec<Named>,
) -> usize {
    let line = tokens[at].line;
    let kept = before.len();
    loop {
        before.push(tokens[at].text.clone());
        at += 1;
        if text_at(tokens, at) != "::" {
            break;
        }
        match text_at(tokens, at + 1) {
            "{" => {
                at += 2;
                while !matches!(text_at(tokens, at), "}" | "") {
                    at = match text_at(tokens, at) {
                        text if is_word(text) || text == "*" => {
                            path(tokens, at, before, inline_modules, found)
                        }
                        _ => at + 1,
                    };
                }
                before.truncate(kept);
                return at + 1;
            }
            text if is_word(text) || text == "*" => at += 1,
            _ => break,
        }
    }
    if before.len() > 1 {
        found.push(Named { names: before.clone(), line, inline_modules });
    }
    before.truncate(kept);
    at
}

/// Every function with a body: its name, and its lines from `fn` to the closing brace.
fn functions(text: &str) -> Vec<(String, usize)> {
    let tokens = tokens(text);
    let mut found = vec![];
    for at in 0..tokens.len() {
        if tokens[at].text != "fn" || !is_word(text_at(&tokens, at + 1)) {
            continue;
        }
        let (mut depth, mut next) = (0, at);
        while !matches!(text_at(&tokens, next), ";" | "{" | "") || depth > 0 {
            match text_at(&tokens, next) {
                "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                "" => break,
                _ => {}
            }
            next += 1;
        }
        if text_at(&tokens, next) != "{" {
            continue;
        }
        let mut braces = 0;
        let end = tokens[next..].iter().find(|token| {
            match token.text.as_str() {
                "{" => braces += 1,
                "}" => braces -= 1,
                _ => {}
            }
            braces == 0
        });
        if let Some(end) = end {
            found.push((tokens[at + 1].text.clone(), end.line - tokens[at].line + 1));
        }
    }
    found
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes a source apart; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = vec![];
    let mut rest = text;
    let mut line = 1;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => 1 + string(&rest[1..]),
            'r' | 'b' if raw_string(rest).is_some() => raw_string(rest).expect("just seen"),
            '\'' => quoted(rest),
            _ if is_word(&rest[..c.len_utf8()]) => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                found.push(Token { text: rest[..end].to_owned(), line });
                end
            }
            ':' if rest.starts_with("::") => {
                found.push(Token { text: "::".to_owned(), line });
                2
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token { text: c.to_string(), line });
                }
                c.len_utf8()
            }
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a string behind its opening quote, the closing one included.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"..."`, `r#"..."#`, `br"..."` and so on; `b"..."` is left to [`string`].
fn raw_string(text: &str) -> Option<usize> {
    let start = if text.starts_with("br") { 2 } else { 1 };
    let body = text.get(start..).filter(|_| text[..start].ends_with('r'))?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(start + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of a character, or of a lifetime's quote.
fn quoted(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match (inside.next(), inside.next()) {
        // The escaped character may be the quote itself.
        (Some('\\'), Some(escaped)) => {
            let start = 2 + escaped.len_utf8();
            text[start..].find('\'').map_or(1, |at| start + at + 1)
        }
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}

mod checker {
    use super::*;

    const ROWS: &[Row] = &[
        row("top", 3, &[], &["top.rs", "top/part.rs"]),
        row("left", 2, &["right"], &["left.rs"]),
        row("right", 2, &[], &["right.rs"]),
        row("base", 1, &[], &["base.rs"]),
    ];

    /// Sources of which all but the given ones are empty.
    fn files(given: &[(&str, &str)]) -> Vec<(String, String)> {
        let names = ROWS.iter().flat_map(|row| row.files);
        let text = |name: &str| given.iter().find(|(file, _)| *file == name).map_or("", |(_, text)| text);
        names.map(|name| ((*name).to_owned(), text(name).to_owned())).collect()
    }

    fn check(file: &str, text: &str, expected: &[&str]) {
        assert_eq!(broken_imports(ROWS, &files(&[(file, text)])), expected, "{file}: {text}");
    }

    #[test]
    fn imports_go_down() {
        check("top.rs", "use crate::left::X; use crate::base::Y; use crate::top::part::Z;", &[]);
        check("top/part.rs", "use crate::top::X; fn f() { super::x(); super::super::base::y(); }", &[]);
        check("left.rs", "use crate::right::X;", &[]);
        check("base.rs", "// use crate::top::X;\n/* crate::top /* x */ crate::top */ //! crate::left\n", &[]);
        check("base.rs", r####"const S: &str = "crate::top \" crate::left"; // crate::top"####, &[]);
        check("base.rs", r####"const S: &str = r#"crate::top " crate::left"#; const C: char = '"';"####, &[]);
        check("base.rs", "fn f<'a>(x: &'a str) { g('\\'', 'x') }", &[]);
        check("base.rs", "pub(crate) fn f() {}", &[]);
    }

    #[test]
    fn an_upward_import_is_found() {
        let up = "base.rs:2: base imports up: top";
        check("base.rs", "\nuse crate::top::X;", &[up]);
        check("base.rs", "\nuse crate::{top::X};", &[up]);
        check("base.rs", "\nuse crate::top;", &[up]);
        check("base.rs", "\nfn f() -> crate::top::X {}", &[up]);
        check("base.rs", "\nuse super::top::X;", &[up]);
        check("base.rs", "\nmod tests { use super::*; use super::super::top::X; }", &[up]);
        check("base.rs", "\nuse pinpost::top::X;", &[up]);
        check("base.rs", "fn f(c: char) { c == '\\'' }\nfn g() { crate::top::x::<'_>() }", &[up]);
        check("base.rs", "const S: &str = \"\n\"; use crate::top::X;", &[up]);
        check("left.rs", "use crate::{base, right::{X, Y}, top::Z};", &["left.rs:1: left imports up: top"]);
    }

    #[test]
    fn a_sideways_import_is_found() {
        check("right.rs", "use crate::left::X;", &["right.rs:1: right imports sideways: left"]);
    }

    #[test]
    fn files_and_rows_belong_together() {
        let mut sources = files(&[]);
        sources.push(("new.rs".to_owned(), String::new()));
        let expected = ["new.rs: 0 rows name it, exactly one must (tests/layers.rs)"];
        assert_eq!(broken_imports(ROWS, &sources), expected);
        let sources = files(&[("top.rs", "use crate::new::X;")]);
        assert_eq!(broken_imports(ROWS, &sources), ["top.rs:1: new is in no row (tests/layers.rs)"]);
        let sources = &files(&[])[1..];
        let expected = ["top.rs: a row names it, but there is no such file (tests/layers.rs)"];
        assert_eq!(broken_imports(ROWS, sources), expected);
    }

    #[test]
    fn a_circle_is_found() {
        let circle = |given: &[(&str, &str)]| circles(&module_edges(ROWS, &files(given)));
        let (left, right) = (("left.rs", "use crate::right::X;"), ("right.rs", "use crate::left::X;"));
        assert_eq!(circle(&[left, right]), ["left -> right -> left"]);
        let (base, top) = (("base.rs", "use crate::top::X;"), ("top/part.rs", "use crate::left::X;"));
        let long = ("right.rs", "use crate::base::X;");
        assert_eq!(circle(&[base, top, left, long]), ["base -> top -> left -> right -> base"]);
        assert_eq!(circle(&[left, top, long]), [""; 0]);
        let inside = [("top.rs", "use crate::top::part::X;"), ("top/part.rs", "use crate::top::X;")];
        assert_eq!(circle(&inside), [""; 0], "the files of one module are one unit");
    }

    #[test]
    fn impure_paths_are_found() {
        assert_eq!(impure_paths("use std::sync::{Arc, Mutex as M};"), ["std::sync::Mutex"]);
        assert_eq!(impure_paths("use std::time; use std::io::Read;").len(), 2);
        assert_eq!(impure_paths("use std::iostream::X;"), [""; 0]);
        assert_eq!(impure_paths("use std::{fmt, time::{Duration, Instant}};").len(), 2);
        assert_eq!(impure_paths("fn f() { log::info!(\"x\"); smol::block_on(x) }").len(), 2);
        assert_eq!(impure_paths("use std::sync::Arc; use crate::proto::log; // std::net::X"), [""; 0]);
    }

    #[test]
    fn a_bad_form_is_found() {
        let count = |text: &str| broken_form("x.rs", text).len();
        assert_eq!(count("//! What it is for.\nfn f() {}\n"), 0);
        assert_eq!(count("use std::fmt;\n"), 1);
        assert_eq!(count(&format!("//! X.\n{}", "\n".repeat(FILE_LINES_MAX - 1))), 0);
        assert_eq!(count(&format!("//! X.\n{}", "\n".repeat(FILE_LINES_MAX))), 1);
        let function = |lines| format!("//! X.\nfn f(a: [u8; 2]) {{\n{}}}\n", "a;\n".repeat(lines));
        assert_eq!(count(&function(FUNCTION_LINES_MAX - 2)), 0);
        assert_eq!(count(&function(FUNCTION_LINES_MAX - 1)), 1);
    }
}
