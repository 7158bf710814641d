//! `hold`: connections that have subscribed and do nothing, at any server: what each takes.

use std::thread;
use std::time::Duration;

use crate::figures::{self, Span};
use crate::options::{Command, Options};
use crate::report::{Report, grouped};

use super::Bench;
use super::fanout;

/// For the server to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(500);

/// The value of all.
const VALUE: u32 = 7;

pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<(), String> {
    let (dialect, parallel) = (options.dialect, options.parallel);
    // What a server allocates for its first connection is not a connection's cost.
    let first = fanout::subscribe_at(&mut bench.net, dialect, &[VALUE], 1)?;
    thread::sleep(REST);
    let baseline = figures::memory_of_all(&bench.meter.node_pids)?;

    let start = bench.snapshot()?;
    let values = vec![VALUE; options.connections];
    let sockets = fanout::subscribe_at(&mut bench.net, dialect, &values, parallel)?;
    let end = bench.snapshot()?;
    thread::sleep(REST);
    let held = figures::memory_of_all(&bench.meter.node_pids)?;
    // Those that were measured are all still there, and got nothing.
    fanout::rest(&mut bench.net, dialect, &sockets, parallel)?;
    drop(first);

    let span = Span::between(&start, &end);
    let count = options.connections as f64;
    let each = |now: u64, before: u64| (now as f64 - before as f64) / count;
    let anonymous = each(held.anonymous, baseline.anonymous);
    let resident = each(held.resident, baseline.resident);
    let cpu_us = span.server_cpu_us / count;
    let mut report: Report = bench.report(Command::Hold, options);
    report.count("connections", options.connections as u64);
    report.count("parallel", options.parallel as u64);
    report.count("baseline_rss_anon_bytes", baseline.anonymous);
    report.count("baseline_rss_bytes", baseline.resident);
    report.number("rss_anon_bytes_per_connection", anonymous);
    report.number("rss_bytes_per_connection", resident);
    report.number("server_cpu_us_per_subscriber", cpu_us);
    report.line("what", &format!("{} connections", grouped(count)));
    report.line(
        "memory a connection",
        &format!("{anonymous:.0} bytes anonymous, {resident:.0} in all"),
    );
    report.line(
        "server's CPU a subscriber",
        &format!("{cpu_us:.2} us, upgrade and subscription"),
    );
    report.span(&span, "window");
    let title = format!("hold: {}", bench.server_name);
    report.publish(&title, options.json.as_deref())
}
