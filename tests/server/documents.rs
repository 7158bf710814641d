//! What the documents say of options, limits, figures and close codes is what the program has: no
//! more, no less, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::helpers::http::figures;
use crate::helpers::{Program, Server, crieur, run};
use crieur::metrics::exposition::Snapshot;
use crieur::metrics::{HubMetrics, Metrics};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const SECURITY: &str = include_str!("../../docs/security.md");
const DOCKERFILE: &str = include_str!("../../docs/deploy/Dockerfile");
const README: &str = include_str!("../../README.md");
const FROM_PHP: &str = include_str!("../../docs/from-php.md");
const CLOSE_CODES: &str = include_str!("../../src/ws/close_code.rs");

/// Options of other programs and of the other commands, which the documents use as well.
const FOREIGN_OPTIONS: [&str; 18] = [
    "--address",
    "--bench",
    "--connection",
    "--full",
    "--help",
    "--id",
    "--json",
    "--key",
    "--no-keep",
    "--nocapture",
    "--now",
    "--release",
    "--since",
    "--test",
    "--token-file",
    "--ulimit",
    "--url",
    "--user",
];

/// What ends a connection without a code of its own (RFC 6455 §7.4.1).
const CODES_NEVER_SENT: [u16; 2] = [1005, 1006];

/// The cells of each row of the tables under a heading, but for those that head them.
fn rows(document: &'static str, heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = document
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().expect("there is a first");
    let end = section
        .find(&format!("\n{level} "))
        .unwrap_or(section.len());
    let lines = section[..end].lines();
    let rows = lines.filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split(" |").map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.iter().any(|cell| !cell.trim_matches('-').is_empty()))
        .collect()
}

/// What is in single backticks, if a cell is nothing else.
fn code(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.contains('`')).then_some(inner)
}

/// The options of the help, with their defaults.
fn options() -> BTreeMap<String, String> {
    let help = run(&["serve", "--help"], "").stdout;
    // What follows an option, to the next one, ends with its default.
    let entries = help.split("\n  --").skip(1);
    entries
        .map(|entry| {
            let name = entry.split_whitespace().next().expect("it has a name");
            // The last of a group has the next heading behind it.
            let entry = entry.split("\n\n").next().unwrap_or_default();
            let default = entry.trim_end().rsplit_once('[');
            let default = default.and_then(|(_, rest)| rest.strip_suffix(']'));
            (format!("--{name}"), default.unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn the_tables_have_every_option_with_its_default() {
    let mut tables = BTreeMap::new();
    for heading in ["## Options", "## Limits", "## Times"] {
        for cells in rows(OPERATIONS, heading) {
            if let Some(option) = code(cells[0]) {
                let before = tables.insert(option.to_owned(), cells[1].to_owned());
                assert_eq!(before, None, "{option} is documented twice");
            }
        }
    }
    assert_eq!(tables, options());
}

#[test]
fn no_document_names_an_option_that_there_is_not() {
    let options = options();
    for (name, document) in [
        ("README.md", README),
        ("operations.md", OPERATIONS),
        ("protocol.md", PROTOCOL),
        ("security.md", SECURITY),
        ("from-php.md", FROM_PHP),
    ] {
        for (at, _) in document.match_indices("--") {
            let rest = &document[at..];
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
            let option = &rest[..end.unwrap_or(rest.len())];
            let is_option = option[2..].starts_with(|c: char| c.is_ascii_lowercase())
                && !document[..at].ends_with('-')
                // One for several, as in --max-total-….
                && !option.ends_with('-');
            assert!(
                !is_option || options.contains_key(option) || FOREIGN_OPTIONS.contains(&option),
                "{name}: {option}"
            );
        }
    }
}

/// A default as people write it.
fn shown(default: &str) -> Vec<String> {
    let Ok(number) = default.parse::<u64>() else {
        return vec![default.to_owned()];
    };
    let mut grouped = number.to_string();
    for at in (1..grouped.len())
        .rev()
        .filter(|at| (grouped.len() - at) % 3 == 0)
        .collect::<Vec<_>>()
    {
        grouped.insert(at, ',');
    }
    let mut shown = vec![number.to_string(), grouped, format!("{number} s")];
    for (unit, bytes) in [("KiB", 1 << 10), ("MiB", 1 << 20)] {
        if number % bytes == 0 {
            shown.push(format!("{} {unit}", number / bytes));
        }
    }
    shown
}

#[test]
fn the_limits_of_the_readme_are_the_defaults() {
    let options = options();
    let rows = rows(README, "## Limits");
    let expected: [(&str, &[&str]); 14] = [
        ("clients at once", &["--max-connections"]),
        ("message of a client", &["--max-message-bytes"]),
        ("message of a publisher", &["--max-publish-bytes"]),
        ("request head", &["--max-head-bytes"]),
        (
            "subscriptions, values in them, of a connection",
            &["--max-subscriptions", "--max-values"],
        ),
        (
            "the same of all connections, and bytes of their texts",
            &[
                "--max-total-subscriptions",
                "--max-total-values",
                "--max-text-bytes",
            ],
        ),
        (
            "what of these one address may have",
            &["--max-share-per-address"],
        ),
        (
            "connections, and upgrades per second, per address",
            &["--max-connections-per-address", "--upgrades-per-address"],
        ),
        (
            "messages and bytes per second of a client",
            &["--messages-per-second", "--bytes-per-second"],
        ),
        (
            "publishers on an address of their own",
            &["--max-publishers"],
        ),
        (
            "bytes that wait for one connection",
            &["--send-queue-bytes"],
        ),
        ("bytes kept for all connections", &["--buffer-bytes"]),
        ("silence", &["--ping-interval", "--pong-timeout"]),
        (
            "a message, from its first byte to its last",
            &["--message-timeout"],
        ),
    ];
    assert_eq!(rows[1..].len(), expected.len());
    for (cells, (what, limits)) in rows[1..].iter().zip(expected) {
        assert_eq!(cells[0], what);
        for limit in limits {
            let default = &options[*limit];
            assert!(
                shown(default).iter().any(|shown| cells[1].contains(shown)),
                "{what}: {limit} is {default}"
            );
        }
    }
}

/// The figures of a server where nothing has happened yet.
fn figures_shown(has_redis: bool) -> String {
    let (shell, hub) = (Metrics::default(), HubMetrics::default());
    let snapshot = Snapshot {
        has_redis,
        ..Snapshot::of(&shell, &hub)
    };
    snapshot.to_text()
}

/// The names in a text of figures, with their types.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect()
}

#[test]
fn the_tables_have_every_figure_with_its_type() {
    let server = Server::start();
    let alone = figures(&server);
    assert_eq!(types(&alone), types(&figures_shown(false)));
    assert!(!alone.contains("crieur_redis") && !alone.contains("crieur_gaps"));
    let text = figures_shown(true);
    let told = types(&text);
    let mut documented = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for cells in rows(OPERATIONS, "## Figures") {
        let &[name, kind, label, _] = &cells[..] else {
            continue;
        };
        if let Some(name) = code(name) {
            assert_eq!(
                documented.insert(name, kind),
                None,
                "{name} is documented twice"
            );
            labels.insert(name, label);
        }
    }
    assert_eq!(documented, told);
    for (name, documented) in labels {
        let samples = text.lines().filter_map(|line| line.strip_prefix(name));
        let samples = samples.filter_map(|rest| rest.strip_prefix('{')?.split_once("=\""));
        let samples: Vec<_> = samples.collect();
        let label = samples.first().map_or("", |(label, _)| label);
        let values = documented.strip_prefix(&format!("`{label}`"));
        assert_eq!(values.is_some(), !label.is_empty(), "{name}: {documented}");
        let values = values.unwrap_or_default().trim_start_matches(": ");
        if !matches!(label, "" | "version" | "code") {
            let values = values.split(", ").map(|value| value.split(' ').next());
            let values: Vec<_> = values
                .map(|value| value.expect("there is a first"))
                .collect();
            for (_, rest) in samples {
                let value = rest.split('"').next().expect("there is a first");
                assert!(values.contains(&value), "{name}: {value} of {values:?}");
            }
        }
    }
}

/// The codes that the sources have a name for.
fn named_codes() -> BTreeSet<u16> {
    let constants = CLOSE_CODES
        .lines()
        .filter(|line| line.contains("pub const "));
    let codes = constants.filter_map(|line| line.split_once("Self = Self(")?.1.strip_suffix(");"));
    codes.map(|code| code.parse().expect("a number")).collect()
}

fn documented_codes(document: &'static str, heading: &str) -> BTreeSet<u16> {
    let rows = rows(document, heading);
    rows.iter()
        .filter_map(|cells| cells[0].parse().ok())
        .collect()
}

#[test]
fn the_tables_have_every_close_code() {
    let named = named_codes();
    assert!(named.contains(&1013), "the sources are read");
    let protocol = documented_codes(PROTOCOL, "## 4. Heartbeat, close, time");
    assert_eq!(protocol, named);
    let mut codes = named;
    codes.extend(CODES_NEVER_SENT);
    assert_eq!(documented_codes(OPERATIONS, "## Close codes"), codes);
    let text = figures(&Server::start());
    for code in codes {
        let sample = format!("\ncrieur_sessions_closed_total{{code=\"{code}\"}} ");
        assert!(text.contains(&sample), "{sample}");
    }
}

#[test]
fn the_tables_have_every_reason_of_a_close() {
    let words = rows(OPERATIONS, "## Close codes");
    let words: BTreeSet<_> = words
        .iter()
        .flat_map(|cells| cells[1].split(", "))
        .filter_map(code)
        .filter(|word| *word != "reason" && !word.starts_with('{'))
        .collect();
    let (_, listed) = PROTOCOL.split_once("The words: ").expect("they are listed");
    let (listed, _) = listed.split_once(". ").expect("the sentence ends");
    let listed: BTreeSet<_> = listed.split([',', '\n', ' ']).filter_map(code).collect();
    assert_eq!(words, listed);
}

#[test]
fn arguments_of_the_image_come_on_top_of_its_settings() {
    let mut command = crieur();
    // Arguments of `docker run` would take the place of a CMD, whole.
    assert!(!DOCKERFILE.lines().any(|line| line.starts_with("CMD")));
    for setting in DOCKERFILE
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "))
    {
        let (name, value) = setting.split_once('=').expect("a value");
        // The port may be in use here.
        command.env(name, value.replace(":8000", ":0"));
    }
    command.args(["--max-connections", "5"]);
    let server = Program::start(command);
    server.stderr.wait_for("listening on 0.0.0.0:");
    server.stderr.wait_for("at most 5 connections");
}
