//! Which module may name which: the modules stay apart because this reads their sources.
//!
//! A room is a module at the top. Every file names only the rooms that [`MAY_NAME`] grants it; mio,
//! `serde_json` and the clock stay where [`CONFINED`] says. To be run alone:
//! `cargo test --test project layering`.

use std::collections::BTreeSet;

use crate::sources::{Source, sources};

/// What everybody may name.
const COMMON: &str = "id config count log_limit memory metrics time";

/// The rooms, each with the paths that it may name beside its own and [`COMMON`]. `http::head`
/// grants that module and what is in it, not the rest of `http`.
const MAY_NAME: &str = "
    application: handover http wire::carried ws
    cli: application client handover http hub journal net redis routes web ws
    client: http ws
    config:
    count:
    handover:
    http: handover wire
    hub: application handover http::head journal redis wire::carried ws::close ws::frame
    id:
    journal: handover wire ws::frame
    log_limit:
    main: cli
    memory:
    metrics:
    net: application handover http wire ws
    redis: application handover journal::id
    routes: application handover http::head hub redis web wire::carried
    time:
    web:
    wire: handover
    ws: handover http::head http::host http::response http::status wire
";

/// What tests may name beside that: a fault, to ask an application about it, and the corpus that
/// their fuzz targets start from.
const TESTS_MAY_NAME: &str = "
    hub: run_corpus ws::error
    journal: run_corpus
    net: run_corpus
    redis: run_corpus
    routes: journal
    ws: run_corpus
";

/// Something that only a few modules, and the modules in them, may name.
struct Confined {
    what: &'static str,
    /// Its tokens, in any of these ways.
    names: &'static [&'static str],
    modules: &'static str,
    /// Whether tests are free to: they read data as JSON and set deadlines.
    tests_exempt: bool,
}

const CONFINED: [Confined; 4] = [
    Confined {
        what: "mio",
        names: &["mio", "signal_hook_mio"],
        modules: "net::server net::listener net::socket",
        tests_exempt: false,
    },
    Confined {
        what: "serde_json",
        names: &["serde_json"],
        modules: "hub::command hub::access::jwt cli client",
        tests_exempt: true,
    },
    Confined {
        what: "redis_protocol",
        names: &["redis_protocol"],
        modules: "redis::reply",
        tests_exempt: false,
    },
    Confined {
        what: "a clock",
        names: &["Instant :: now", "Instant as", "SystemTime", "UNIX_EPOCH"],
        // The date only adds to the epoch what it is given.
        modules: "net::server http::date cli client",
        tests_exempt: true,
    },
];

#[test]
fn every_file_names_only_what_it_may() {
    let sources = sources();
    assert!(sources.len() > 10, "only {} sources", sources.len());
    let violations: Vec<_> = sources.iter().flat_map(violations).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// A line for everything that `source` may not name.
fn violations(source: &Source) -> BTreeSet<String> {
    let confined = CONFINED
        .iter()
        .filter_map(|confined| confined.refusal(source));
    let table = format!("{MAY_NAME}{TESTS_MAY_NAME}");
    let mut reasons: BTreeSet<_> = confined.collect();
    for (tokens, table) in [(&source.shipped, MAY_NAME), (&source.tokens, &table)] {
        let names = source.names(tokens).into_iter();
        reasons.extend(names.filter_map(|name| refusal(&source.module, &name.path, table)));
    }
    let lines = reasons.into_iter();
    lines
        .map(|reason| format!("src/{}: {reason}", source.file))
        .collect()
}

impl Confined {
    fn refusal(&self, source: &Source) -> Option<String> {
        let is_exempt = self.tests_exempt;
        let tokens = if is_exempt {
            &source.shipped
        } else {
            &source.tokens
        };
        let is_named = self.names.iter().any(|name| {
            let name: Vec<_> = name.split(' ').collect();
            tokens.windows(name.len()).any(|window| window == name)
        });
        let is_refused = is_named && !grants(self.modules, &source.module);
        is_refused.then(|| format!("names {}, which only {} may", self.what, self.modules))
    }
}

/// Why `module` may not name `path`, by `table`.
fn refusal(module: &str, path: &str, table: &str) -> Option<String> {
    let room = module.split("::").next().unwrap_or_default();
    let lines = table.lines().filter_map(|line| line.trim().split_once(':'));
    let mut granted = lines.filter(|(name, _)| *name == room).peekable();
    // lib.rs declares the rooms and names none.
    if granted.peek().is_none() && !room.is_empty() {
        return Some(format!("{room} has no line in tests/project/layering.rs"));
    }
    let is_granted = granted.any(|(_, granted)| grants(granted, path));
    let is_free = is_in(room, path) || grants(COMMON, path);
    (!is_granted && !is_free).then(|| format!("{room} may not name {path}"))
}

/// Whether `path` is one of those that `granted` lists, or in it.
fn grants(granted: &str, path: &str) -> bool {
    granted.split_whitespace().any(|grant| is_in(grant, path))
}

/// Whether `path` is `module`, or in it. Everything is in that of `lib.rs`.
pub(crate) fn is_in(module: &str, path: &str) -> bool {
    let rest = path.strip_prefix(module);
    rest.is_some_and(|rest| module.is_empty() || rest.is_empty() || rest.starts_with("::"))
}

/// The lines of a text: a file, and what it says.
fn examples(lines: &str) -> impl Iterator<Item = Source> {
    let lines = lines.trim().lines().map(|line| line.split_once(" | "));
    lines.map(|line| {
        line.map(|(file, text)| Source::new(file.trim(), text))
            .expect("a bar")
    })
}

#[test]
fn what_is_not_granted_is_refused() {
    for source in examples(
        "net/engine.rs | use crate::hub::Hub;
         net/engine.rs | use super::super::hub::Hub;
         net/engine.rs | #[cfg(test)] mod tests { use crate::hub; }
         net/engine.rs | #[cfg(test)] use mio::Poll;
         http/head.rs | use crate::ws::frame::Frame;
         ws/handshake.rs | use crate::http::cookie::Cookie;
         ws/handshake.rs | use crate::http;
         ws/session.rs | let now = std::time::Instant::now();
         ws/session.rs | use std::time::{Instant as I};
         hub/mod.rs | use crate::ws::{frame::EncodedFrame, mask};
         hub/mod.rs | use crate::*;
         hub/access/origin.rs | use crate::ws::error::X;
         hub/access/origin.rs | serde_json::from_str(x)
         hub/tests.rs | use crate::net::X;
         main.rs | crieur::net::run()
         attic.rs | use crate::ws::X;
         time.rs | SystemTime::now()",
    ) {
        assert!(
            !violations(&source).is_empty(),
            "{}: {:?}",
            source.file,
            source.tokens
        );
    }
}

#[test]
fn what_is_granted_passes() {
    for source in examples(
        "net/engine.rs | use crate::{application::Outbox, ws::session, http::head, net::timers};
         net/server.rs | mio::Poll::new(); Instant::now()
         ws/handshake.rs | use crate::http::head::Head; use crate::http::status;
         hub/mod.rs | use crate::{id::ConnectionId, metrics, ws::frame::EncodedFrame};
         hub/index.rs | #[cfg(test)] mod tests { use super::*; use serde_json::Value; }
         hub/tests.rs | use crate::ws::error::X; serde_json::from_str(x)
         hub/access/jwt.rs | serde_json::from_str(x)
         cli/serve.rs | use crate::{hub, net, routes}; serde_json::json!(1)
         lib.rs | pub mod hub; pub use crate::hub::Hub;
         time.rs | fn f(now: std::time::Instant) {} mod tests { use super::*; }",
    ) {
        assert_eq!(violations(&source), BTreeSet::new(), "{}", source.file);
    }
}
