//! The rules of the house as a test: who may import whom, how long a function and a file may be,
//! which doors of the standard library stay shut, and that every file says what it is. Each message
//! names the better way. The checker itself is tested at the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Who may import what inside the crate (DESIGN 2). A module also may import itself. The first
/// matching row counts, so exceptions stand above the rule that they bend.
const IMPORTS: &[(&str, &[&str])] = &[
    ("src/main.rs", &["cli"]),
    ("src/lib.rs", &["*"]),
    (
        "src/cli/cmd/daemon",
        &["node", "gateway", "config", "paths", "id", "sys", "cli", "wire", "text"],
    ),
    ("src/cli/cmd/demo", &["client", "config", "paths", "id", "cli", "wire", "text", "sys"]),
    ("src/cli/", &["client", "config", "paths", "id", "wire", "text", "sys"]),
    ("src/client", &["wire", "id", "paths", "text", "sys"]),
    ("src/config", &["id", "paths", "text", "wire"]),
    ("src/paths", &["id"]),
    ("src/gateway/", &["node", "wire", "id", "sys", "text"]),
    ("src/node/", &["core", "transport", "store", "wire", "crypto", "chunk", "id", "sys", "text"]),
    ("src/core/", &["wire", "crypto", "chunk", "id", "sys"]),
    ("src/transport/", &["wire", "crypto", "id", "sys"]),
    ("src/store/", &["chunk", "crypto", "id", "sys"]),
    ("src/wire/", &["chunk", "crypto", "id"]),
    ("src/chunk/", &["crypto", "id", "wire"]),
    ("src/crypto/", &["chunk", "id", "wire"]),
    ("src/sys/", &[]),
    ("src/id.rs", &[]),
    ("src/text.rs", &[]),
];

/// What may not be written where: a text, the folders in which it is allowed, and the better way.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("println!", &["src/cli/ui"], "print through cli::ui, the one door to the terminal"),
    ("print!(", &["src/cli/ui"], "print through cli::ui, the one door to the terminal"),
    ("process::exit", &[], "return an exit code from cli::main"),
    ("unbounded_channel", &[], "give the channel a bound from core::limits"),
    ("SystemTime::now", &["src/sys/os.rs"], "ask sys::Clock::wall_ms"),
    ("Instant::now", &["src/sys/os.rs", "src/cli/", "src/transport/"], "ask sys::Clock::now"),
    ("std::thread", &["src/sys/"], "start work through sys::Spawn"),
    ("thread_rng", &[], "draw from sys::Rng"),
    ("rand::random", &[], "draw from sys::Rng"),
    ("getrandom::", &["src/sys/os.rs"], "draw from sys::Rng"),
    (
        "OsRng",
        &["src/sys/os.rs", "src/node/config.rs", "src/client/", "src/cli/cmd/"],
        "draw from sys::Rng",
    ),
    ("std::fs", PEOPLE_FILES, "reach files through sys::Fs"),
    ("tokio::fs", &[], "reach files through sys::Fs"),
    ("std::env", &["src/cli/", "src/config", "src/paths"], "settings come from config and paths"),
    ("HashMap", &[], "use BTreeMap: iteration order is part of the seed"),
    ("HashSet", &[], "use BTreeSet: iteration order is part of the seed"),
    (
        "tokio::spawn",
        &["src/node/", "src/transport/", "src/gateway/", "src/client", "src/cli/cmd/daemon"],
        "tasks live there",
    ),
    ("TODO", &[], "do it, or say it in an issue"),
    ("FIXME", &[], "do it, or say it in an issue"),
    ("XXX", &[], "do it, or say it in an issue"),
    ("allow(dead_code)", &[], "delete what nothing uses"),
    ("todo!(", &[], "write it"),
    ("unimplemented!(", &[], "write it"),
    ("#[ignore", &[], "a test runs, or says at run time why it cannot"),
];

/// Places that open files for a person or hold the operating system's side of the seams.
const PEOPLE_FILES: &[&str] =
    &["src/sys/os.rs", "src/cli/", "src/config", "src/client", "src/gateway/"];

/// In the brain nothing may wait, run in parallel or look at the world.
const FORBIDDEN_IN_CORE: &[&str] =
    &["tokio", "async fn", ".await", "std::net::Tcp", "std::time::Instant", "Mutex", "tracing::"];

/// Functions and files that are longer than the rule allows, each with the reason.
const LONG: &[(&str, &str)] = &[];

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 800;
const LINE_CHARS: usize = 100;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(dir), &mut paths);
    paths.sort();
    let name = |p: &Path| p.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|p| (name(p), fs::read_to_string(p).unwrap())).collect()
}

/// The source with comments, strings and characters blanked, and the test module cut off.
fn code_of(source: &str) -> String {
    let blank = blank(source);
    match blank.find("#[cfg(test)]\nmod ") {
        Some(at) => blank[..at].to_owned(),
        None => blank,
    }
}

fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    let keep = |c: char| if c == '\n' { '\n' } else { ' ' };
    while i < chars.len() {
        let rest = &chars[i..];
        let len = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => {
                rest.windows(2).skip(2).position(|w| w == ['*', '/']).map_or(rest.len(), |p| p + 4)
            }
            ['r', '#', '"', ..] => {
                rest.windows(2).skip(3).position(|w| w == ['"', '#']).map_or(rest.len(), |p| p + 5)
            }
            ['"', ..] => string_len(rest),
            ['\'', '\\', _, '\'', ..] => 4,
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if len == 0 {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..i + len].iter().map(|c| keep(*c)));
            i += len;
        }
    }
    out
}

fn string_len(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

fn import_faults(file: &str, code: &str) -> Vec<String> {
    let Some((_, allowed)) = IMPORTS.iter().find(|(prefix, _)| file.starts_with(prefix)) else {
        return vec![format!("{file}: no row in IMPORTS: decide its band first")];
    };
    if allowed.contains(&"*") {
        return Vec::new();
    }
    let own = file["src/".len()..].split(['/', '.']).next().unwrap_or_default();
    let mut faults = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let word: String =
            code[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if word != own && !allowed.contains(&word.as_str()) && !word.is_empty() {
            let line = code[..at].matches('\n').count() + 1;
            faults.push(format!("{file}:{line}: may not import `{word}`: imports go down only"));
        }
    }
    faults
}

fn forbidden_faults(file: &str, code: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (text, places, better) in FORBIDDEN {
        if places.iter().any(|place| file.starts_with(place)) {
            continue;
        }
        // Notes to oneself stand in comments, calls in code.
        let marks = ["TODO", "FIXME", "XXX"].contains(text);
        let place = if marks { source } else { code };
        if let Some(at) = find_word(place, text) {
            let line = place[..at].matches('\n').count() + 1;
            faults.push(format!("{file}:{line}: `{text}` is not used here: {better}"));
        }
    }
    if file.starts_with("src/core/") {
        for text in FORBIDDEN_IN_CORE {
            if let Some(at) = find_word(code, text) {
                let line = code[..at].matches('\n').count() + 1;
                faults.push(format!(
                    "{file}:{line}: `{text}` in the brain: it decides, the shell acts"
                ));
            }
        }
    }
    faults
}

/// Where `text` stands as a word of its own.
fn find_word(place: &str, text: &str) -> Option<usize> {
    place.match_indices(text).map(|(at, _)| at).find(|at| {
        let before = place[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') || text.starts_with(['.', '#'])
    })
}

fn length_faults(file: &str, code: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let excused = |name: &str| LONG.iter().any(|(long, _)| *long == name);
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    if lines > FILE_LINES && !excused(file) {
        faults.push(format!("{file}: {lines} lines of code, over {FILE_LINES}: split it by topic"));
    }
    for (number, line) in source.lines().enumerate() {
        // A row of a table or an address cannot be broken.
        let whole =
            line.contains("://") || line.trim_start_matches(['/', '!', ' ']).starts_with('|');
        if line.chars().count() > LINE_CHARS && !whole {
            faults.push(format!("{file}:{}: line over {LINE_CHARS} characters", number + 1));
        }
    }
    for (name, line, len) in functions(code) {
        if len > FUNCTION_LINES && !excused(&format!("{file}:{name}")) {
            faults.push(format!("{file}:{line}: fn {name} has {len} lines, over {FUNCTION_LINES}"));
        }
    }
    faults
}

/// Name, first line and number of lines of each function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' {
            continue;
        }
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let rest = &code[at..];
        let Some(open) = rest.find(['{', ';']).filter(|open| rest.as_bytes()[*open] == b'{') else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        let mut depth = 0;
        let end = rest[open..].char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0).then_some(open + i)
        });
        let len = rest[..end.unwrap_or(rest.len())].matches('\n').count() + 1;
        out.push((name, code[..at].matches('\n').count() + 1, len));
    }
    out
}

fn check(file: &str, source: &str) -> Vec<String> {
    let code = code_of(source);
    let mut faults = length_faults(file, &code, source);
    if !source.starts_with("//! ") {
        faults.push(format!("{file}: open it with a paragraph: what it owns and what it does not"));
    }
    // Tests in files of their own may use what tests may.
    let is_test = file.ends_with("tests.rs");
    if file.starts_with("src/") && !is_test {
        faults.extend(import_faults(file, &code));
        faults.extend(forbidden_faults(file, &code, source));
    }
    faults
}

#[test]
fn the_house_is_tidy() {
    let mut faults = Vec::new();
    for dir in ["src", "tests", "benches"] {
        for (file, source) in rust_files(dir) {
            if file != "tests/tidy.rs" {
                faults.extend(check(&file, &source));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    const AGREED: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "src",
        "tests",
        "completions",
        "man",
        "benches",
        "fuzz",
        "target",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || AGREED.contains(&name.as_str()),
            "{name} is not agreed on"
        );
    }
}

#[test]
fn main_is_read_in_one_breath() {
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(main.lines().count() <= 25, "src/main.rs only calls cli::main");
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    let long = format!("//! Doc.\nfn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES));
    assert!(check("src/id.rs", &long)[0].contains("fn f has"));
    let cases = [
        ("src/id.rs", "//! D.\nuse crate::node::Node;\n", "may not import `node`"),
        ("src/core/a.rs", "//! D.\nfn f() { tokio::x(); }\n", "in the brain"),
        ("src/store/a.rs", "//! D.\nfn f() { std::fs::read(p); }\n", "sys::Fs"),
        ("src/wire/a.rs", "//! D.\n// TODO: later\n", "say it in an issue"),
        ("src/wire/a.rs", "fn f() {}\n", "open it with a paragraph"),
        ("src/unknown/a.rs", "//! D.\n", "decide its band"),
    ];
    for (file, source, message) in cases {
        let faults = check(file, source);
        assert!(faults.iter().any(|f| f.contains(message)), "{file}: {faults:?}");
    }
    let fine = "//! D.\n// std::fs is named here.\nfn f() { g(\"HashMap {\"); }\n";
    assert_eq!(check("src/wire/a.rs", fine), Vec::<String>::new());
    let tests_may = "//! D.\nfn f() {}\n#[cfg(test)]\nmod tests {\n use crate::node::X; }\n";
    assert_eq!(check("src/wire/a.rs", tests_may), Vec::<String>::new());
}
