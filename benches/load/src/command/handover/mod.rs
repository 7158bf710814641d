//! `handover`: the server becomes another program again and again, with all connections kept. How long that takes, by
//! its own account and as clients see it, what it needs meanwhile, and whether anything is lost.

mod memory;
mod metrics;
mod probes;

use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::checker::Checker;
use crate::connections::{self, PATIENCE};
use crate::figures::{self, Memory, Span};
use crate::message::Layout;
use crate::options::{Command, Options, Subscribing};
use crate::publisher::Publishers;
use crate::report::{Report, grouped};
use crate::server::Server;
use crate::socket::Connector;
use crate::system::now_ns;

use super::Bench;
use super::fanout::{fence, subscribe};
use super::plan::Plan;
use super::stream::{Pace, Stream};
use memory::{Sampler, Usage};
use metrics::{Metrics, Reading};
use probes::{Probe, Silences};

/// Notifications under way at once, while nothing is measured.
const IN_FLIGHT: usize = 256;

/// How many notifications each client must get behind a handover, in their order.
const CHECKED_EACH: usize = 2;

/// For the server to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(300);

/// How long to go on once a handover is completed.
const SETTLING_NS: u64 = 200_000_000;

/// How long to wait for subscribers when there is nothing to do.
const IDLE_NS: u64 = 20_000;

/// The longest that a turn waits while nothing is measured.
const TURN_NS_MAX: u64 = 10_000_000;

/// What one handover was like.
struct Round {
    /// How long it took by the server's own account.
    said_seconds: f64,
    /// What the client that came first saw, and the one that came last.
    seen: [Silences; 2],
    /// The longest that either of them saw ahead of it.
    quiet: Silences,
    /// From the signal to the first answer of `/metrics` that tells of it.
    completed_ns: u64,
    /// How long the slowest delivery took; 0 without a rate.
    delivery_ns: u64,
    before: Usage,
    peak: Usage,
    after: Memory,
    descriptors_before: usize,
    descriptors_after: usize,
}

pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<(), String> {
    let plan = match options.subscribing {
        Subscribing::Distinct => Plan::spread(options.connections, options.connections),
        Subscribing::Same => Plan::spread(options.connections, 1),
        Subscribing::Nothing => {
            return Err("--subscribe nothing: then nothing can be checked".to_owned());
        }
    };
    let layout = Layout::new(options.topic, options.bytes)?;
    let buffer_bytes = bench.net.buffer.len().max(2 * layout.frame_bytes());
    bench.net.buffer.resize(buffer_bytes, 0);
    let sockets = connections::open(&mut bench.net, "/publish", 1, 1)?;
    let publishers = Publishers::kept(&bench.net, None, sockets)?;
    let connector = Connector::new(bench.server.address);
    let first = Probe::connect(connector, options.waiting)?;
    let sockets = subscribe(bench, &plan, &layout, &vec![false; plan.members()])?;
    let connector = Connector::new(bench.server.address);
    let last = Probe::connect(connector, options.waiting)?;

    let checker = Checker::new(layout, &plan.sizes, publishers.ordered());
    let pace = Pace {
        in_flight: options.in_flight,
        interval_ns: options.rate.map(|rate| 1e9 / rate),
    };
    let (meter, server) = (bench.meter.clone(), &bench.server);
    let net = &mut bench.net;
    let mut watch = Watch {
        server,
        stream: Stream::new(net, meter, &plan, checker, publishers, sockets, pace),
        sends: options.rate.is_some(),
        probes: [first, last],
        buffer: vec![0; buffer_bytes],
    };
    // One that is there for all would be as much as the rest of the state.
    let is_for_nobody = options.subscribing == Subscribing::Same;
    let target = |number| match is_for_nobody {
        true => plan.bystanders(),
        false => plan.next(number),
    };
    watch.publish((0..options.entries as u64).map(target))?;
    watch.stream.keep_no_more();

    let start = watch.stream.snapshot()?;
    let mut rounds = Vec::with_capacity(options.rounds);
    let mut server_waiting: f64 = 0.0;
    for number in 1..=options.rounds {
        let context = |error| format!("handover {number}: {error}");
        let (round, quiet) = watch.round(options.warmup).map_err(context)?;
        let each = std::iter::repeat_n(plan.all(), CHECKED_EACH).flatten();
        watch.publish(each).map_err(context)?;
        rounds.push(round);
        server_waiting = server_waiting.max(quiet.server_waiting);
    }
    let end = watch.stream.snapshot()?;
    let Watch { stream, .. } = watch;
    let notifications = stream.checker.sent();
    let sockets = stream.into_subscribers()?;
    fence(&mut bench.net, &sockets, |_| false)?;
    let span = Span {
        // Ahead of the handovers: the new program, which the old one tries out, is no disturbance.
        server_waiting,
        ..Span::between(&start, &end)
    };
    report(bench, options, &rounds, notifications, &span)
}

/// All that looks at a handover.
struct Watch<'a> {
    server: &'a Server,
    stream: Stream<'a>,
    /// Whether notifications go on meanwhile.
    sends: bool,
    probes: [Probe; 2],
    buffer: Vec<u8>,
}

impl Watch<'_> {
    /// Looks on for some seconds, has the server hand over, and looks on until all is as it was. The span is the time
    /// ahead of the handover.
    fn round(&mut self, quiet_seconds: f64) -> Result<(Round, Span), String> {
        let mut metrics = Metrics::connect(&mut Connector::new(self.server.address))?;
        let start = self.stream.snapshot()?;
        self.stream.start();
        self.start_probes();
        let quiet_end = now_ns() + (quiet_seconds * 1e9) as u64;
        let mut last = None;
        while now_ns() < quiet_end || last.is_none() {
            last = self.turn(&mut metrics)?.or(last);
        }
        let before = last.ok_or("nothing was looked at")?;
        let [first, last] = self.silences();
        let span = Span::between(&start, &self.stream.snapshot()?);
        let descriptors_before = self.server.descriptors()?;

        self.stream.checker.latencies().clear();
        self.start_probes();
        let mut sampler = Sampler::new(self.server.pid);
        let signalled_at = now_ns();
        self.signal()?;
        let reading = self.until_completed(&mut metrics, &mut sampler, before)?;
        let completed_at = now_ns();
        self.settle(&mut metrics, &mut sampler, completed_at)?;
        let seen = self.silences();
        let delivery_ns = self.stream.checker.latencies().max();
        self.publish(std::iter::empty())?;
        thread::sleep(REST);
        let round = Round {
            said_seconds: reading.seconds,
            seen,
            quiet: first.max(last),
            completed_ns: completed_at - signalled_at,
            delivery_ns,
            before: sampler.first(),
            peak: sampler.peak(),
            after: figures::memory(self.server)?,
            descriptors_before,
            descriptors_after: self.server.descriptors()?,
        };
        Ok((round, span))
    }

    fn signal(&self) -> Result<(), String> {
        let pid =
            Pid::from_raw(self.server.pid.cast_signed()).ok_or("the server has no process")?;
        kill_process(pid, Signal::USR2)
            .map_err(|error| format!("cannot signal the server: {error}"))
    }

    /// Looks on until one more handover has taken place than before.
    fn until_completed(
        &mut self,
        metrics: &mut Metrics,
        sampler: &mut Sampler,
        before: Reading,
    ) -> Result<Reading, String> {
        let deadline = now_ns() + PATIENCE.as_nanos() as u64;
        while now_ns() < deadline {
            let reading = self.turn(metrics)?.unwrap_or(before);
            sampler.turn(now_ns());
            if reading.refused > before.refused {
                return Err("the server refused: its log says why".to_owned());
            }
            if reading.completed > before.completed {
                return Ok(reading);
            }
        }
        let seconds = PATIENCE.as_secs();
        Err(format!("/metrics tells of none for {seconds} s"))
    }

    /// Looks on until the clients that ping have been answered by the new program, and a while longer.
    fn settle(
        &mut self,
        metrics: &mut Metrics,
        sampler: &mut Sampler,
        completed_at: u64,
    ) -> Result<(), String> {
        let is_answered = |probe: &Probe| probe.is_answered_since(completed_at);
        loop {
            let now = now_ns();
            let is_settled = now > completed_at + SETTLING_NS;
            if is_settled && self.probes.iter().all(is_answered) {
                return Ok(());
            }
            if now > completed_at + PATIENCE.as_nanos() as u64 {
                return Err("a client that pings isn't answered any more".to_owned());
            }
            self.turn(metrics)?;
            sampler.turn(now);
        }
    }

    /// Deals with all that is due.
    fn turn(&mut self, metrics: &mut Metrics) -> Result<Option<Reading>, String> {
        self.stream.turn(self.sends, now_ns() + IDLE_NS)?;
        for probe in &mut self.probes {
            probe.turn(&mut self.buffer, now_ns())?;
        }
        metrics.turn(&mut self.buffer, now_ns())
    }

    /// Publishes to these groups, by these values, and waits until all that is under way has arrived.
    fn publish(&mut self, targets: impl Iterator<Item = (usize, u32)>) -> Result<(), String> {
        let mut targets = targets.fuse();
        let mut progress = (now_ns(), self.stream.progress());
        loop {
            while self.stream.checker.in_flight() < IN_FLIGHT
                && let Some((group, value)) = targets.next()
            {
                let now = now_ns();
                self.stream.send(group, value, now, now)?;
            }
            if self.stream.checker.in_flight() == 0 {
                return Ok(());
            }
            let now = now_ns();
            self.stream.turn(false, now + TURN_NS_MAX)?;
            let now_at = self.stream.progress();
            if now_at != progress.1 {
                progress = (now, now_at);
            } else if now - progress.0 > PATIENCE.as_nanos() as u64 {
                return Err(self.stream.stuck());
            }
        }
    }

    fn start_probes(&mut self) {
        self.probes.iter_mut().for_each(Probe::start);
    }

    fn silences(&self) -> [Silences; 2] {
        self.probes.each_ref().map(Probe::silences)
    }
}

fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    let mut figures: Vec<_> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        (figures[middle - 1] + figures[middle]) / 2.0
    }
}

const fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

const fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

impl Round {
    /// The longest time without an answer, of both clients that ping.
    fn seen_ns(&self) -> u64 {
        self.seen[0].max(self.seen[1]).longest
    }

    /// The longest but one, of both.
    fn seen_next_ns(&self) -> u64 {
        self.seen[0].max(self.seen[1]).second
    }

    fn object(&self) -> Report {
        let mut object = Report::inner();
        object.number("pause_ms", self.said_seconds * 1e3);
        object.number("seen_first_ms", millis(self.seen[0].longest));
        object.number("seen_last_ms", millis(self.seen[1].longest));
        object.number("seen_next_ms", millis(self.seen_next_ns()));
        object.number("quiet_ms", millis(self.quiet.longest));
        object.number("completed_ms", millis(self.completed_ns));
        object.number("delivery_max_ms", millis(self.delivery_ns));
        object.count("rss_anon_bytes_before", self.before.own);
        object.count("peak_bytes", self.peak.bytes());
        object.count("peak_own_bytes", self.peak.own);
        object.count("peak_children_bytes", self.peak.children);
        object.count("peak_files_bytes", self.peak.files);
        object.count("rss_anon_bytes_after", self.after.anonymous);
        object.count("rss_bytes_after", self.after.resident);
        object.count("descriptors_before", self.descriptors_before as u64);
        object.count("descriptors_peak", self.peak.descriptors);
        object.count("descriptors_after", self.descriptors_after as u64);
        object
    }

    fn line(&self, number: usize) -> String {
        format!(
            "{number:5}  {:8.1}  {:8.1}  {:8.1}  {:8.1}  {:9.1}  {:6.1}  {:7.1} {:7.1} {:7.1}  {:6} {:6} {:6}",
            self.said_seconds * 1e3,
            millis(self.seen[0].longest),
            millis(self.seen[1].longest),
            millis(self.seen_next_ns()),
            millis(self.completed_ns),
            millis(self.quiet.longest),
            mib(self.before.own),
            mib(self.peak.bytes()),
            mib(self.after.anonymous),
            self.descriptors_before,
            self.peak.descriptors,
            self.descriptors_after,
        )
    }
}

fn report(
    bench: &Bench,
    options: &Options,
    rounds: &[Round],
    notifications: u64,
    span: &Span,
) -> Result<(), String> {
    let is_same = options.subscribing == Subscribing::Same;
    let word = if is_same { "same" } else { "distinct" };
    let mut report = bench.report(Command::Handover, options);
    report.count("connections", options.connections as u64);
    report.text("subscribe", word);
    report.count("history", options.entries as u64);
    report.count("bytes", options.bytes as u64);
    report.number("rate", options.rate.unwrap_or(f64::NAN));
    let what = format!(
        "{} connections, subscribed to: {word}, {} notifications of {} bytes",
        grouped(options.connections as f64),
        grouped(options.entries as f64),
        options.bytes
    );
    report.line("what", &what);
    report.plain_line(
        "round  said, ms  1st sees  last sees  next, ms  whole, ms  quiet  anon MiB    peak   after  descr.   peak  after",
    );
    for (index, round) in rounds.iter().enumerate() {
        report.plain_line(&round.line(index + 1));
    }
    report.objects("rounds", rounds.iter().map(Round::object).collect());
    let said = median(rounds, |round| round.said_seconds * 1e3);
    let seen = median(rounds, |round| millis(round.seen_ns()));
    let next = median(rounds, |round| millis(round.seen_next_ns()));
    let whole = median(rounds, |round| millis(round.completed_ns));
    report.number("pause_ms", said);
    report.number("seen_ms", seen);
    report.number("seen_next_ms", next);
    report.number("completed_ms", whole);
    report.line(
        "pause, as the server says",
        &format!("{said:.1} ms (median)"),
    );
    let text = format!("{seen:.1} ms, the next longest {next:.1} ms");
    report.line("pause, as clients see it", &text);
    report.line("from signal to completion", &format!("{whole:.1} ms"));
    if options.rate.is_some() {
        let slowest = median(rounds, |round| millis(round.delivery_ns));
        report.number("delivery_max_ms", slowest);
        report.line("slowest delivery", &format!("{slowest:.1} ms"));
    }
    let times = median(rounds, |round| {
        round.peak.bytes() as f64 / round.before.own.max(1) as f64
    });
    let part = |figure: fn(&Round) -> u64| median(rounds, |round| mib(figure(round)));
    report.number("peak_times", times);
    let text = format!(
        "{times:.2} times what it was: {:.1} MiB its own, {:.1} its child's, {:.1} in files",
        part(|round| round.peak.own),
        part(|round| round.peak.children),
        part(|round| round.peak.files)
    );
    report.line("memory at most", &text);
    report.count("notifications_checked", notifications);
    let text = format!(
        "{} handovers, {CHECKED_EACH} notifications to each client behind each: once, in order, intact; none was closed",
        rounds.len()
    );
    report.line("checked", &text);
    report.span(
        span,
        if options.rate.is_some() {
            "rate"
        } else {
            "window"
        },
    );
    let title = format!("handover: {}", bench.server_name);
    report.publish(&title, options.json.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        let round = |said_seconds| Round {
            said_seconds,
            seen: [Silences::default(); 2],
            quiet: Silences::default(),
            completed_ns: 0,
            delivery_ns: 0,
            before: Usage::default(),
            peak: Usage::default(),
            after: Memory::default(),
            descriptors_before: 0,
            descriptors_after: 0,
        };
        let median = |figures: &[f64]| {
            let rounds: Vec<_> = figures.iter().map(|&one| round(one)).collect();
            median(&rounds, |round| round.said_seconds)
        };
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0]), 5.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }
}
