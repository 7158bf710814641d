//! Who may name whom: the rooms of the house stay apart because this reads their sources.
//!
//! Shows that every module under `src/` names only the modules that [`MAY_NAME`] grants it, and
//! that mio, `serde_json` and the clock stay where [`CONFINED`] says. Owns a small scanner of Rust:
//! comments and literals are no names, `use` trees are followed, `super` and `self` resolved.
//! Run alone: `cargo test --test project layering`.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules at the top, each with paths that it is granted.
type Table = &'static [(&'static str, &'static [&'static str])];

/// What everybody may name.
const COMMON: &[&str] = &[
    "id",
    "config",
    "log_limit",
    "memory",
    "metrics",
    "random",
    "time",
];

/// The modules at the top, each with the paths that it may name beside its own and [`COMMON`].
/// `http::head` grants that module and what is in it, not the rest of `http`.
const MAY_NAME: Table = &[
    ("application", &["http", "ws"]),
    (
        "cli",
        &[
            "application",
            "client",
            "http",
            "hub",
            "net",
            "routes",
            "web",
            "ws",
        ],
    ),
    ("client", &["http", "ws"]),
    ("config", &[]),
    ("http", &[]),
    (
        "hub",
        &["application", "http::head", "ws::close", "ws::frame"],
    ),
    ("id", &[]),
    ("log_limit", &[]),
    ("main", &["cli"]),
    ("memory", &[]),
    ("metrics", &[]),
    ("net", &["application", "http", "ws"]),
    ("random", &[]),
    ("routes", &["application", "hub", "web"]),
    ("time", &[]),
    ("web", &[]),
    (
        "ws",
        &[
            "http::body",
            "http::head",
            "http::host",
            "http::response",
            "http::status",
        ],
    ),
];

/// What tests may name beside that: a fault, to ask an application about it, and the corpus that
/// their fuzz targets start from.
const TESTS_MAY_NAME: Table = &[
    ("hub", &["run_corpus", "ws::error"]),
    ("routes", &["http::head"]),
    ("ws", &["run_corpus"]),
];

/// Something that only a few modules, and the modules in them, may name.
struct Confined {
    what: &'static str,
    names: &'static [&'static [&'static str]],
    modules: &'static [&'static str],
    /// Whether tests are free to: they read data as JSON and set deadlines.
    tests_exempt: bool,
}

const CONFINED: &[Confined] = &[
    Confined {
        what: "mio",
        names: &[&["mio"], &["signal_hook_mio"]],
        modules: &["net::server", "net::listener", "net::socket"],
        tests_exempt: false,
    },
    Confined {
        what: "serde_json",
        names: &[&["serde_json"]],
        modules: &["hub::command", "hub::access::jwt", "cli", "client"],
        tests_exempt: true,
    },
    Confined {
        what: "a clock",
        names: &[
            &["Instant", "::", "now"],
            &["Instant", "as"],
            &["SystemTime"],
            &["UNIX_EPOCH"],
        ],
        // The date only adds to the epoch what it is given.
        modules: &["net::server", "http::date", "cli", "client"],
        tests_exempt: true,
    },
];

#[test]
fn every_module_names_only_what_it_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect_sources(&root, &mut files);
    assert!(
        files.len() > 10,
        "only {} sources: is this src/?",
        files.len()
    );
    let violations: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let source = fs::read_to_string(file).expect("a source is readable");
            let relative = file.strip_prefix(&root).expect("it is under src/");
            violations(relative, &source)
        })
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

fn collect_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src/ is readable") {
        let path = entry.expect("src/ is readable").path();
        if path.is_dir() {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A line for everything that `source`, at `file` under `src/`, may not name.
fn violations(file: &Path, source: &str) -> Vec<String> {
    let module = module_of(file);
    let tokens = tokens_of(source);
    let shipped = if is_test(&module) {
        Vec::new()
    } else {
        without_tests(&tokens)
    };
    let confined = CONFINED
        .iter()
        .filter(|confined| {
            let tokens = if confined.tests_exempt {
                &shipped
            } else {
                &tokens
            };
            !confined.allows(&module, tokens)
        })
        .map(|confined| {
            let homes = confined.modules.join(", ");
            format!("names {}, which only {homes} may", confined.what)
        });
    let in_shipped = paths_of(&module, &shipped)
        .into_iter()
        .filter_map(|path| refusal(&module, &path, &[MAY_NAME]));
    let in_all = paths_of(&module, &tokens)
        .into_iter()
        .filter_map(|path| refusal(&module, &path, &[MAY_NAME, TESTS_MAY_NAME]));
    let mut lines: Vec<String> = confined
        .chain(in_shipped)
        .chain(in_all)
        .map(|reason| format!("src/{}: {reason}", file.display()))
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// The path of a file's module; that of `lib.rs` is empty.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// Whether the whole of `module` is there for tests.
fn is_test(module: &[String]) -> bool {
    module.iter().any(|part| part == "tests")
}

impl Confined {
    fn allows(&self, module: &[String], tokens: &[&str]) -> bool {
        let is_named = |name: &[&str]| tokens.windows(name.len()).any(|window| window == name);
        self.modules.iter().any(|home| grants(home, module))
            || !self.names.iter().any(|name| is_named(name))
    }
}

/// Whether `path` is what `grant` names, or in it.
fn grants(grant: &str, path: &[String]) -> bool {
    let mut path = path.iter();
    grant
        .split("::")
        .all(|part| path.next().is_some_and(|got| got == part))
}

/// Why `module` may not name `path`, by `tables` together.
fn refusal(module: &[String], path: &[String], tables: &[Table]) -> Option<String> {
    // lib.rs declares the modules and names none.
    let room = module.first()?;
    let lines = tables.iter().flat_map(|table| table.iter());
    let mut granted = lines.filter(|(name, _)| name == room).peekable();
    if granted.peek().is_none() {
        return Some(format!(
            "module {room} has no line in tests/project/layering.rs"
        ));
    }
    let is_own = path.first() == Some(room);
    let is_granted = granted
        .flat_map(|(_, granted)| granted.iter())
        .chain(COMMON)
        .any(|grant| grants(grant, path));
    (!is_own && !is_granted).then(|| format!("{room} may not name {}", path.join("::")))
}

/// Identifiers, `::` and single characters of punctuation; no comments, no literals.
fn tokens_of(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = comment_len(rest).or_else(|| literal_len(rest));
        let (length, is_token) = match length {
            Some(length) => (length, false),
            None if is_word(first) => (word_len(rest), true),
            None if rest.starts_with("::") => (2, true),
            None => (first.len_utf8(), !first.is_whitespace()),
        };
        if is_token {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn word_len(text: &str) -> usize {
    text.find(|character| !is_word(character))
        .unwrap_or(text.len())
}

/// The length of the comment that `text` begins with; block comments nest.
fn comment_len(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) => at += 1,
            None => return Some(text.len()),
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of the literal with quotes, or of the lifetime, that `text` begins with.
fn literal_len(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(['"', '\'', '#']))
    })?;
    let rest = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        // `r#type` is an identifier, not a string.
        rest[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let body = prefix.len() + hashes + 1;
        return Some(
            text[body..]
                .find(&end)
                .map_or(text.len(), |at| body + at + end.len()),
        );
    }
    let quoted = |quote| escaped_len(rest, quote).map(|length| prefix.len() + length);
    match rest.chars().next()? {
        '"' => quoted('"'),
        '\'' if is_lifetime(rest) => Some(1 + word_len(&rest[1..])),
        '\'' => quoted('\''),
        _ => None,
    }
}

/// `'a` without a closing quote behind one character.
fn is_lifetime(text: &str) -> bool {
    let mut characters = text.chars().skip(1);
    characters.next().is_some_and(is_word) && characters.next() != Some('\'')
}

/// The length of the literal between `quote`s that `text` begins with.
fn escaped_len(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if !is_escaped && character == quote {
            return Some(at + 1);
        }
        is_escaped = !is_escaped && character == '\\';
    }
    Some(text.len())
}

/// The tokens without the items under `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let cfg_test = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut rest = tokens;
    while !rest.is_empty() {
        if rest.starts_with(&cfg_test) {
            rest = &rest[item_len(rest)..];
        } else {
            kept.push(rest[0]);
            rest = &rest[1..];
        }
    }
    kept
}

/// How many tokens the item takes that `tokens` begin with: to its `;`, or to the end of its block.
fn item_len(tokens: &[&str]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(*token, ";" | "}") {
            return at + 1;
        }
    }
    tokens.len()
}

/// Every path of this crate that the tokens of `module` name, from the root of the crate.
fn paths_of(module: &[String], tokens: &[&str]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    // The modules in this file that are open here, each with the depth of its block.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inner.retain(|(_, opened_at)| *opened_at <= depth);
            }
            "mod" if tokens.get(at + 2) == Some(&"{") => {
                inner.push((tokens[at + 1].to_owned(), depth + 1));
            }
            "crate" | "crieur" | "self" | "super" if begins_path(tokens, at) => {
                let here: Vec<String> = module
                    .iter()
                    .chain(inner.iter().map(|(name, _)| name))
                    .cloned()
                    .collect();
                follow(&tokens[at..], here, &mut paths);
            }
            _ => {}
        }
    }
    paths
}

fn begins_path(tokens: &[&str], at: usize) -> bool {
    let is_within = at > 0 && tokens[at - 1] == "::";
    // `use crate as other` would name everything.
    let goes_on = matches!(tokens.get(at + 1), Some(&("::" | "as")));
    !is_within && goes_on
}

/// Follows the path, or the tree of paths, that `tokens` begin with, and adds where it leads.
/// Returns how many tokens that took.
fn follow(tokens: &[&str], mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    loop {
        match tokens.get(at).copied() {
            Some("crate" | "crieur") => path.clear(),
            Some("super") => drop(path.pop()),
            Some("self") => {}
            Some("{") => return at + follow_group(&tokens[at..], &path, paths),
            Some(word) if word.starts_with(is_word) => path.push(word.to_owned()),
            Some("*") => {}
            // Generic arguments: the path ends here.
            _ => break,
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

fn follow_group(tokens: &[&str], path: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut at = 1;
    while let Some(token) = tokens.get(at) {
        match *token {
            "}" => return at + 1,
            "," => at += 1,
            // `name as other`
            "as" => at += 2,
            _ => at += follow(&tokens[at..], path.to_vec(), paths).max(1),
        }
    }
    at
}

mod scanner {
    use super::*;

    fn named(module: &str, source: &str) -> Vec<String> {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        paths_of(&module, &tokens_of(source))
            .iter()
            .map(|path| path.join("::"))
            .collect()
    }

    fn is_clean(file: &str, source: &str) -> bool {
        violations(Path::new(file), source).is_empty()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        let source = r##"
            //! crate::hub
            /// [`crate::hub`]
            a /* mio /* nested */ still */ b // mio
            "mio \" mio" r#"mio " mio"# b"mio" 'm' '\'' b'"' c"mio" <'mio> r"\" c
        "##;
        assert_eq!(tokens_of(source), ["a", "b", "<", ">", "c"]);
        assert_eq!(
            tokens_of("r#type::x 1..2"),
            ["r", "#", "type", "::", "x", "1", ".", ".", "2"]
        );
        assert_eq!(tokens_of("'a' 'é' 'static"), [""; 0]);
    }

    #[test]
    fn an_unterminated_comment_or_literal_ends_with_the_file() {
        for source in ["a /*", "a \"b", "a r#\"b\"", "a /* *", "a '"] {
            assert_eq!(tokens_of(source)[0], "a", "{source}");
        }
    }

    #[test]
    fn use_trees_are_followed() {
        assert_eq!(
            named(
                "hub",
                "use crate::{http::{self, head::Head as H}, ws::*, id};"
            ),
            ["http", "http::head::Head", "ws", "id"]
        );
        assert_eq!(named("hub", "use crate::ws::frame::{*};"), ["ws::frame"]);
        assert_eq!(named("hub", "use crate as other;"), [""]);
        assert_eq!(named("main", "crieur::cli::run::<u8>()"), ["cli::run"]);
    }

    #[test]
    fn paths_within_code_are_followed() {
        assert_eq!(
            named("net", "fn f(x: crate::ws::Y) -> $crate::hub::Z { self.x }"),
            ["ws::Y", "hub::Z"]
        );
        assert_eq!(named("net", "pub(crate) fn f(self) {}"), [""; 0]);
    }

    #[test]
    fn self_and_super_are_resolved_in_inner_modules_too() {
        assert_eq!(named("ws::frame", "use super::close::X;"), ["ws::close::X"]);
        assert_eq!(named("ws::frame", "use super::super::hub::X;"), ["hub::X"]);
        assert_eq!(
            named(
                "net",
                "mod a { mod b { use super::super::X; } } use super::hub; use self::c;"
            ),
            ["net::X", "hub", "net::c"]
        );
    }

    #[test]
    fn items_under_cfg_test_are_skipped() {
        let tokens = tokens_of(
            "a #[cfg(test)] #[x] fn f(_: [u8; 2]) { g(); } b #[cfg(test)] use c::{d}; e #[cfg(not(test))] h",
        );
        assert_eq!(
            without_tests(&tokens).join(" "),
            "a b ; e # [ cfg ( not ( test ) ) ] h"
        );
    }

    #[test]
    fn what_is_not_granted_is_refused() {
        for (file, source) in [
            ("net/engine.rs", "use crate::hub::Hub;"),
            ("net/engine.rs", "use super::super::hub::Hub;"),
            (
                "net/engine.rs",
                "#[cfg(test)] mod tests { use crate::hub; }",
            ),
            ("http/head.rs", "use crate::ws::frame::Frame;"),
            ("ws/handshake.rs", "use crate::http::cookie::Cookie;"),
            ("ws/handshake.rs", "use crate::http;"),
            ("hub/mod.rs", "use crate::ws::session::Session;"),
            ("hub/mod.rs", "use crate::ws::{frame::EncodedFrame, mask};"),
            ("hub/mod.rs", "use crate::*;"),
            ("hub/access/origin.rs", "use crate::http::response::X;"),
            ("hub/access/origin.rs", "use crate::ws::error::X;"),
            ("hub/access/origin.rs", "serde_json::from_str(x)"),
            ("hub/tests.rs", "use crate::net::X;"),
            ("main.rs", "crieur::net::run()"),
            ("attic.rs", "use crate::ws::X;"),
            ("net/engine.rs", "use mio::Poll;"),
            ("net/engine.rs", "#[cfg(test)] use mio::Poll;"),
            ("hub/index.rs", "serde_json::from_str(x)"),
            ("ws/session.rs", "let now = std::time::Instant::now();"),
            ("ws/session.rs", "use std::time::{Instant as I};"),
            ("time.rs", "SystemTime::now()"),
        ] {
            assert!(!is_clean(file, source), "{file}: {source}");
        }
    }

    #[test]
    fn what_is_granted_passes() {
        for (file, source) in [
            (
                "net/engine.rs",
                "use crate::{application::Outbox, ws::session, http::head, net::timers};",
            ),
            (
                "ws/handshake.rs",
                "use crate::http::head::Head; use crate::http::status;",
            ),
            (
                "hub/mod.rs",
                "use crate::ws::frame::EncodedFrame; use crate::{id::ConnectionId, metrics};",
            ),
            (
                "hub/index.rs",
                "#[cfg(test)] mod tests { use super::*; use serde_json::Value; }",
            ),
            (
                "hub/tests.rs",
                "use crate::ws::error::X; serde_json::from_str(x)",
            ),
            (
                "hub/access/origin.rs",
                "use crate::http::head::Head; #[cfg(test)] mod tests { use crate::ws::error::X; }",
            ),
            ("hub/access/jwt.rs", "serde_json::from_str(x)"),
            ("hub/command.rs", "use serde_json::value::RawValue;"),
            (
                "hub/filter.rs",
                "//! Not crate::net, not mio.\nconst X: &str = \"mio::Poll\";",
            ),
            ("net/server.rs", "mio::Poll::new(); Instant::now()"),
            ("net/listener.rs", "use mio::net::TcpListener;"),
            (
                "cli/serve.rs",
                "use crate::{hub, net, routes}; serde_json::json!(1)",
            ),
            ("lib.rs", "pub mod hub; pub use crate::hub::Hub;"),
            ("time.rs", "fn f(now: std::time::Instant) {}"),
        ] {
            assert_eq!(violations(Path::new(file), source), [""; 0], "{source}");
        }
    }
}
