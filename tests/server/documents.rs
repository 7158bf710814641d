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
const ALERT_RULES: &str = include_str!("../../docs/deploy/prometheus/crieur.rules.yml");
const README: &str = include_str!("../../README.md");
const README_IN_FRENCH: &str = include_str!("../../README.fr.md");
const RECIPES: &str = include_str!("../../docs/recipes.md");
const FROM_PHP: &str = include_str!("../../docs/from-php.md");
const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshooting.md");
const CLOSE_CODES: &str = include_str!("../../src/ws/close_code.rs");
const EXPLAIN: &str = include_str!("../../src/hub/explain.rs");
const STANDING: &str = include_str!("../../src/hub/standing.rs");

/// Options of other programs, which the documents use as well.
const FOREIGN_OPTIONS: [&str; 11] = [
    "--bench",
    "--full",
    "--help",
    "--locked",
    "--nocapture",
    "--now",
    "--path",
    "--release",
    "--rm",
    "--test",
    "--ulimit",
];

/// The commands beside `serve`, which have options of their own.
const OTHER_COMMANDS: [&str; 6] = [
    "subscribe",
    "publish",
    "token",
    "keygen",
    "explain",
    "health",
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
    let mut options: BTreeSet<_> = options().into_keys().collect();
    options.extend(FOREIGN_OPTIONS.map(str::to_owned));
    for command in OTHER_COMMANDS {
        let help = run(&[command, "--help"], "").stdout;
        let found = options_in(&help).map(str::to_owned);
        options.extend(found);
    }
    for (name, document) in [
        ("README.md", README),
        ("README.fr.md", README_IN_FRENCH),
        ("recipes.md", RECIPES),
        ("operations.md", OPERATIONS),
        ("protocol.md", PROTOCOL),
        ("security.md", SECURITY),
        ("from-php.md", FROM_PHP),
        ("troubleshooting.md", TROUBLESHOOTING),
    ] {
        for option in options_in(document) {
            assert!(options.contains(option), "{name}: {option}");
        }
    }
}

/// What looks like an option in a text.
fn options_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("--").filter_map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        let option = &rest[..end.unwrap_or(rest.len())];
        let is_option = option[2..].starts_with(|c: char| c.is_ascii_lowercase())
            && !text[..at].ends_with('-')
            // One for several, as in --max-total-….
            && !option.ends_with('-');
        is_option.then_some(option)
    })
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
    for cells in rows(OPERATIONS, "## Metrics and health checks") {
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

#[test]
fn the_table_of_alerts_has_every_rule() {
    let rules = ALERT_RULES.split("- alert: ").skip(1);
    let rules = rules.map(|rule| {
        let (name, rest) = rule.split_once('\n').expect("more than a name");
        let expression = rest.trim_start().strip_prefix("expr: ");
        let expression = expression.and_then(|rest| rest.lines().next());
        (name, expression.expect("it is on one line"))
    });
    let rules: Vec<_> = rules.collect();
    assert!(rules.len() > 10, "the rules are read");
    let rows = rows(OPERATIONS, "### Alerts");
    let documented = rows
        .iter()
        .filter_map(|cells| Some((code(cells[0])?, code(cells[1])?)));
    assert_eq!(documented.collect::<Vec<_>>(), rules);
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

/// The words between quotes that follow one of `signs` in a source, its tests and white space left out.
fn words_after(source: &str, signs: &[&str]) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]").next().expect("a first");
    let source: String = source.split_whitespace().collect();
    let rests = signs.iter().flat_map(|sign| source.split(sign).skip(1));
    let words = rests.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
    words.map(str::to_owned).collect()
}

/// The words in a column of the tables under a heading.
fn words_in(heading: &str, column: usize) -> BTreeSet<String> {
    let rows = rows(TROUBLESHOOTING, heading);
    let cells = rows.into_iter().filter_map(|cells| code(cells[column]));
    cells.map(str::to_owned).collect()
}

#[test]
fn the_tables_have_every_state_and_reason_that_operators_are_told() {
    let states = words_after(STANDING, &["=>"]);
    assert!(states.contains("live"), "the sources are read");
    let mut documented = words_in("### `GET /connections`", 0);
    documented.remove("state");
    assert_eq!(documented, states);
    let reasons = ["Outcome::new(true,", "Outcome::new(false,", "reason:"];
    let reasons = words_after(EXPLAIN, &reasons);
    assert!(reasons.contains("no-match"), "the sources are read");
    let mut documented = words_in("### `POST /explain`", 1);
    documented.remove("reason");
    assert_eq!(documented, reasons);
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
