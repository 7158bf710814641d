//! `connect`: opening, subscribing, holding and closing many connections, again and again.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::connections::{self, Net, PATIENCE};
use crate::figures::{self, Memory, Span};
use crate::frame::{self, CLOSE};
use crate::message::{Layout, VALUES_MAX};
use crate::options::{Command, Options, Subscribing};
use crate::report::{Report, grouped};
use crate::server::Server;
use crate::socket::{self, Received};

use super::Bench;
use super::fanout::check_subscribed;

/// For the server to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(300);

/// The value of those that subscribe to one.
const COMMON_VALUE: usize = VALUES_MAX - 1;

/// What one round found.
struct Round {
    upgrades: Span,
    subscriptions: Option<Span>,
    closes: Span,
    held: Memory,
    left: Memory,
}

pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<(), String> {
    let layout = Layout::new(options.topic, 1024)?;
    // What a server allocates for its first connection is not a connection's cost.
    let warm = connections::open(&mut bench.net, "/", 1, 1)?;
    subscribe(bench, &warm, &layout, Subscribing::Same, 1)?;
    close_properly(&mut bench.net, &warm)?;
    drop(warm);
    thread::sleep(REST);
    let descriptors = bench.server.descriptors()?;
    let baseline = figures::memory(&bench.server)?;

    let mut rounds = Vec::with_capacity(options.rounds);
    for _ in 0..options.rounds {
        rounds.push(round(bench, options, &layout, descriptors)?);
    }
    report(bench, options, &baseline, &rounds)
}

fn round(
    bench: &mut Bench,
    options: &Options,
    layout: &Layout,
    descriptors: usize,
) -> Result<Round, String> {
    let start = bench.snapshot()?;
    let sockets = connections::open(&mut bench.net, "/", options.connections, options.parallel)?;
    let upgraded = bench.snapshot()?;
    let subscribing = options.subscribing;
    subscribe(bench, &sockets, layout, subscribing, options.parallel)?;
    let subscribed = bench.snapshot()?;
    thread::sleep(REST);
    let held = figures::memory(&bench.server)?;
    let before = bench.snapshot()?;
    close(bench, sockets, options, descriptors)?;
    let after = bench.snapshot()?;
    thread::sleep(REST);
    Ok(Round {
        upgrades: Span::between(&start, &upgraded),
        subscriptions: (subscribing != Subscribing::Nothing)
            .then(|| Span::between(&upgraded, &subscribed)),
        closes: Span::between(&before, &after),
        held,
        left: figures::memory(&bench.server)?,
    })
}

fn subscribe(
    bench: &mut Bench,
    sockets: &[OwnedFd],
    layout: &Layout,
    subscribing: Subscribing,
    parallel: usize,
) -> Result<(), String> {
    let value = |index: usize| match subscribing {
        Subscribing::Distinct => index as u32,
        Subscribing::Nothing | Subscribing::Same => COMMON_VALUE as u32,
    };
    if subscribing == Subscribing::Nothing {
        return Ok(());
    }
    let request = |index| layout.subscribe(std::iter::once(value(index)), None).into();
    let check = |_: usize, answer: &[u8]| check_subscribed(answer, 1, false).map(drop);
    connections::ask(&mut bench.net, sockets, parallel, request, check)
}

/// Closes all connections, and waits until the server has let go of them.
fn close(
    bench: &mut Bench,
    sockets: Vec<OwnedFd>,
    options: &Options,
    descriptors: usize,
) -> Result<(), String> {
    if options.hangs_up {
        drop(sockets);
    } else {
        for chunk in sockets.chunks(options.parallel) {
            close_properly(&mut bench.net, chunk)?;
        }
        drop(sockets);
    }
    wait_for_descriptors(&bench.server, descriptors)
}

/// Waits until the server has no more descriptors than so many.
pub(super) fn wait_for_descriptors(server: &Server, descriptors: usize) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while server.descriptors()? > descriptors {
        if Instant::now() > deadline {
            let left = server.descriptors()? - descriptors;
            return Err(format!(
                "the server still holds {left} connections that are gone"
            ));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Close, the answer to it, and the server's end of the connection.
fn close_properly(net: &mut Net, sockets: &[OwnedFd]) -> Result<(), String> {
    let mut close = Vec::new();
    frame::push_client_frame(CLOSE, &[&1000_u16.to_be_bytes()], &mut close);
    let mut expected = Vec::new();
    frame::push_server_frame(CLOSE, &[&1000_u16.to_be_bytes()], &mut expected);
    for socket in sockets {
        connections::write_all(socket, &close)?;
    }
    let mut answer = [0; 64];
    for socket in sockets {
        // They all close at once: waiting for each in turn costs the time of the slowest.
        let mut got = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match socket::read(socket, &mut answer).map_err(|error| format!("closing: {error}"))? {
                Received::End => break,
                Received::Bytes(count) => got.extend_from_slice(&answer[..count]),
                Received::Nothing if Instant::now() > deadline => {
                    return Err("a Close is not answered, or TCP not closed".to_owned());
                }
                Received::Nothing => {
                    let until = crate::system::now_ns() + 1_000_000;
                    net.poller.wait(until).map_err(|error| error.to_string())?;
                }
            }
        }
        if got != expected {
            return Err(format!("a Close 1000 was answered {got:02x?}"));
        }
    }
    Ok(())
}

fn report(
    bench: &Bench,
    options: &Options,
    baseline: &Memory,
    rounds: &[Round],
) -> Result<(), String> {
    let count = options.connections as f64;
    let word = match options.subscribing {
        Subscribing::Nothing => "nothing",
        Subscribing::Same => "same",
        Subscribing::Distinct => "distinct",
    };
    let mut report = bench.report(Command::Connect, options);
    report.count("connections", options.connections as u64);
    report.count("parallel", options.parallel as u64);
    report.text("subscribe", word);
    report.flag("hang_up", options.hangs_up);
    report.count("baseline_rss_anon_bytes", baseline.anonymous);
    report.count("baseline_rss_bytes", baseline.resident);
    let what = format!(
        "{} connections, {} at a time, subscribed to: {word}",
        grouped(count),
        options.parallel
    );
    report.line("what", &what);
    report.plain_line(
        "round  upgrades/s  us/upgrade  us/subscr.  us/close  anon B/conn  rss B/conn  anon KiB left",
    );
    let mut objects = Vec::with_capacity(rounds.len());
    for (index, round) in rounds.iter().enumerate() {
        let each = |span: &Span| span.server_cpu_us / count;
        let memory = |now: u64, before: u64| (now as f64 - before as f64) / count;
        let upgrades_a_second = count / round.upgrades.seconds;
        let anonymous = memory(round.held.anonymous, baseline.anonymous);
        let resident = memory(round.held.resident, baseline.resident);
        let left = round.left.anonymous as f64 - baseline.anonymous as f64;
        let subscription = round.subscriptions.as_ref().map_or(f64::NAN, each);
        let mut object = Report::inner();
        object.number("upgrades_per_second", upgrades_a_second);
        object.number("server_cpu_us_per_upgrade", each(&round.upgrades));
        object.number("server_cpu_us_per_subscription", subscription);
        object.number("server_cpu_us_per_close", each(&round.closes));
        object.number("rss_anon_bytes_per_connection", anonymous);
        object.number("rss_bytes_per_connection", resident);
        object.count("rss_anon_bytes_left", round.left.anonymous);
        object.count("rss_bytes_left", round.left.resident);
        objects.push(object);
        report.plain_line(&format!(
            "{:5}  {upgrades_a_second:10.0}  {:10.2}  {subscription:10.2}  {:8.2}  {anonymous:11.0}  {resident:10.0}  {:13.0}",
            index + 1,
            each(&round.upgrades),
            each(&round.closes),
            left / 1024.0,
        ));
    }
    report.objects("rounds", objects);
    // The last round's upgrades stand for all.
    if let Some(last) = rounds.last() {
        report.span(&last.upgrades, "window");
    }
    let title = format!("connect: {}", bench.server_name);
    report.publish(&title, options.json.as_deref())
}
