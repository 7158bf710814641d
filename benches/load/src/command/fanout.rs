//! `fanout`, `publish` and `match`: notifications to subscribers, and what they cost. They differ
//! in who subscribes to what and in what is counted.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use crate::checker::Checker;
use crate::connections::{self, Net};
use crate::dialect::Dialect;
use crate::figures::{self, Shares, Span};
use crate::id::Id;
use crate::message::{self, Layout};
use crate::nodes::{self, Nodes};
use crate::options::{Command, Options};
use crate::publisher::{Kind, Publishers};
use crate::redis::Redis;
use crate::report::{Report, grouped};
use crate::socket::Connector;

use super::Bench;
use super::plan::{Extent, Plan};
use super::stream::{Outcome, Pace, Stream};

/// Handshakes and answers under way at once, while nothing is measured.
const PARALLEL: usize = 64;

pub(super) fn run(bench: &mut Bench, command: Command, options: &Options) -> Result<(), String> {
    let plan = Plan::new(command, options)?;
    let dialect = options.dialect;
    check_dialect(options)?;
    let layout = Layout::of(dialect, options.topic, options.bytes)?;
    let buffer_bytes = bench.net.buffer.len().max(2 * layout.frame_bytes());
    bench.net.buffer.resize(buffer_bytes, 0);

    let (publishers, publisher_nodes) = open_publishers(bench, options)?;
    let is_numbered: Vec<_> = (0..plan.members())
        .map(|member| plan.is_numbered(member, options.numbered))
        .collect();
    let sockets = match dialect {
        Dialect::Crieur => subscribe(bench, &plan, &layout, &is_numbered)?,
        _ => {
            let values: Vec<_> = plan.values_of_members().collect();
            subscribe_at(&mut bench.net, dialect, &values, PARALLEL)?
        }
    };
    let nodes = match bench.others.len() {
        0 => None,
        others => Some(Nodes::new(
            others + 1,
            plan.sizes.len(),
            plan.groups_of_members()
                .zip(nodes::find(&bench.servers(), &sockets)?),
            publisher_nodes,
            options.has_shared_address,
        )),
    };
    let members = nodes.as_ref().map(Nodes::members);
    let mut checker = Checker::new(layout, &plan.sizes, publishers.ordered());
    let numbered = (0..is_numbered.len()).filter(|&member| is_numbered[member]);
    numbered.for_each(|member| checker.number(member));
    let pace = Pace {
        in_flight: options.in_flight,
        interval_ns: options.rate.map(|rate| 1e9 / rate),
    };
    if bench.redis.is_some() {
        checker.expect_stream();
    }
    let meter = bench.meter.clone();
    let mut stream = Stream::new(
        &mut bench.net,
        meter,
        &plan,
        checker,
        publishers,
        sockets,
        pace,
    );
    if options.has_keys {
        stream.use_keys();
    }
    if let Some(nodes) = nodes {
        stream.use_nodes(nodes);
    }
    let outcome = stream.run(Extent::new(options))?;
    let latencies = std::mem::take(stream.checker.latencies());
    let sent = stream.checker.sent();
    let sockets = stream.into_subscribers()?;
    match dialect {
        Dialect::Crieur => fence(&mut bench.net, &sockets, |member| is_numbered[member])?,
        _ => rest(&mut bench.net, dialect, &sockets, PARALLEL)?,
    }
    let memory = figures::memory_of_all(&bench.meter.node_pids)?;

    let mut report = describe(bench, command, options, &plan);
    add_costs(&mut report, command, &outcome, options);
    let by_delivery = outcome.deliveries > 0;
    if by_delivery {
        report.latencies("latency", "latency of deliveries", &latencies);
    }
    report.latencies("answer", "latency of answers", &outcome.answers);
    if options.rate.is_some() {
        report.latencies("lateness", "sent later than due by", &outcome.lateness);
    }
    report.memory(&memory);
    if let Some(members) = members {
        add_nodes(&mut report, bench, &outcome, &members)?;
    }
    if let Some(redis) = &bench.redis {
        add_redis(&mut report, redis, &outcome)?;
    }
    report.count("notifications_checked", sent);
    report.count("deliveries_checked", outcome.deliveries_checked);
    let checked = format!(
        "{} deliveries of {} notifications: each once, in order, intact",
        grouped(outcome.deliveries_checked as f64),
        grouped(sent as f64)
    );
    report.line("checked", &checked);
    let idle = if options.rate.is_some() {
        "rate"
    } else {
        "window"
    };
    report.span(&Span::between(&outcome.start, &outcome.end), idle);
    let title = format!("{}: {}", command.name(), bench.server_name);
    report.publish(&title, options.json.as_deref())
}

/// The publishers, and at which of several nodes each is that keeps its connection.
fn open_publishers(
    bench: &mut Bench,
    options: &Options,
) -> Result<(Publishers, Vec<usize>), String> {
    let net = &mut bench.net;
    let count = options.publishers;
    let sockets = match options.publisher {
        Kind::Ephemeral => {
            let publishers = Publishers::ephemeral(net, options.is_patient);
            return Ok((publishers, Vec::new()));
        }
        Kind::Post => {
            let target = options.control.unwrap_or_else(|| net.connector.target());
            let posts = Publishers::posts(options.dialect, Connector::new(target));
            return Ok((posts, Vec::new()));
        }
        Kind::Kept => connections::open(net, "/publish", count, PARALLEL)?,
        Kind::Http => connections::open_plain(net, count)?,
    };
    let nodes = match bench.others.len() {
        0 => Vec::new(),
        _ => nodes::find(&bench.servers(), &sockets)?,
    };
    let posts = (options.publisher == Kind::Http).then_some(options.dialect);
    let publishers = Publishers::kept(&bench.net, posts, sockets)?;
    Ok((publishers, nodes))
}

/// What other servers than crieur can't be asked for.
fn check_dialect(options: &Options) -> Result<(), String> {
    let is_post = matches!(options.publisher, Kind::Http | Kind::Post);
    let is_plain = is_post && options.numbered == 0 && !options.has_keys && options.nodes == 1;
    if options.dialect == Dialect::Crieur && options.control.is_none() || is_plain {
        return Ok(());
    }
    Err(
        "--dialect is for --publisher post or http, without --numbered, --key and --nodes"
            .to_owned(),
    )
}

/// Opens a connection for each value and subscribes it, as another server than crieur has it.
pub(super) fn subscribe_at(
    net: &mut Net,
    dialect: Dialect,
    values: &[u32],
    parallel: usize,
) -> Result<Vec<OwnedFd>, String> {
    let path = |index: usize| dialect.subscriber_path(values[index]);
    let sockets = connections::open_at(net, dialect, path, values.len(), parallel)?;
    if dialect.subscribes_by_path() {
        rest(net, dialect, &sockets, parallel)?;
        return Ok(sockets);
    }
    let request = |index: usize| dialect.subscription(values[index]).into();
    let check = |index: usize, answer: &[u8]| match dialect.is_subscribed(answer, values[index]) {
        true => Ok(()),
        false => {
            let shown = String::from_utf8_lossy(answer);
            Err(format!("a subscription was answered {shown}"))
        }
    };
    connections::ask(net, &sockets, parallel, request, check)?;
    Ok(sockets)
}

/// Waits until another server than crieur has nothing left to do; subscribers get nothing meanwhile.
pub(super) fn rest(
    net: &mut Net,
    dialect: Dialect,
    sockets: &[OwnedFd],
    parallel: usize,
) -> Result<(), String> {
    match dialect.settling() {
        Some(time) => connections::expect_nothing(net, sockets, time),
        None => connections::ping(net, sockets, parallel),
    }
}

/// Opens the subscribers' connections and subscribes them.
pub(super) fn subscribe(
    bench: &mut Bench,
    plan: &Plan,
    layout: &Layout,
    is_numbered: &[bool],
) -> Result<Vec<OwnedFd>, String> {
    let sockets = connections::open(&mut bench.net, "/", plan.members(), PARALLEL)?;
    let messages: Vec<_> = (0..plan.sizes.len())
        .map(|group| [None, Some(&b""[..])].map(|s| layout.subscribe(plan.values_of(group), s)))
        .collect();
    let groups: Vec<_> = plan.groups_of_members().collect();
    let request = |index: usize| (&messages[groups[index]][usize::from(is_numbered[index])]).into();
    let check = |index: usize, answer: &[u8]| {
        let wanted = plan.values_of(groups[index]).count() as u64;
        check_subscribed(answer, wanted, is_numbered[index]).map(drop)
    };
    connections::ask(&mut bench.net, &sockets, PARALLEL, request, check)?;
    Ok(sockets)
}

/// Checks what a subscription without an id is answered; returns the id that it is told.
pub(super) fn check_subscribed(
    answer: &[u8],
    wanted: u64,
    is_numbered: bool,
) -> Result<Option<Id>, String> {
    let id = message::id_of(answer)?;
    let shown = String::from_utf8_lossy(answer);
    if message::number_of(answer, "subscriptions") != Some(wanted) {
        return Err(format!(
            "{wanted} subscriptions were answered {shown} (see the server's limits: for crieur \
             --max-subscriptions, --max-values, --max-publish-bytes)"
        ));
    }
    if id.is_some() != is_numbered || shown.contains("\"resumed\"") {
        let words = if is_numbered { "with" } else { "without" };
        return Err(format!(
            "a list {words} \"since\" and without an id was answered {shown}"
        ));
    }
    Ok(id)
}

/// A ping to every subscriber: between the last delivery and its pong nothing may come.
pub(super) fn fence(
    net: &mut Net,
    sockets: &[OwnedFd],
    is_numbered: impl Fn(usize) -> bool,
) -> Result<(), String> {
    let check = |index: usize, answer: &[u8]| {
        let is_right = if is_numbered(index) {
            answer.starts_with(message::NUMBERED_PONG_START) && message::id_of(answer)?.is_some()
        } else {
            answer == message::PONG
        };
        if is_right {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(answer);
        Err(format!(
            "subscriber {index} got, after the last notification: {shown}"
        ))
    };
    connections::ask(net, sockets, PARALLEL, |_| message::PING.into(), check)
}

/// What was run.
fn describe(bench: &Bench, command: Command, options: &Options, plan: &Plan) -> Report {
    let mut report = bench.report(command, options);
    let publisher = match options.publisher {
        Kind::Ephemeral => "ephemeral",
        Kind::Kept => "kept",
        Kind::Http => "http",
        Kind::Post => "post",
    };
    let subscribers = plan.members() - options.bystanders;
    report.count("subscribers", subscribers as u64);
    report.count("bystanders", options.bystanders as u64);
    let numbered = options.numbered.min(plan.members());
    report.count("numbered", numbered as u64);
    report.flag("key", options.has_keys);
    let text = match command {
        Command::Match => {
            report.count("subscriptions", options.subscriptions as u64);
            report.count("recipients", options.recipients as u64);
            format!(
                "{} values, {} recipients each, over {subscribers} connections",
                grouped(options.subscriptions as f64),
                options.recipients
            )
        }
        _ => {
            report.count("channels", options.channels as u64);
            format!(
                "{} subscribers, {} channels",
                grouped(subscribers as f64),
                options.channels
            )
        }
    };
    report.count("bytes", options.bytes as u64);
    report.text("publisher", publisher);
    report.count("publishers", options.publishers as u64);
    report.count("in_flight", options.in_flight as u64);
    report.flag("patient", options.is_patient);
    report.count("nodes", options.nodes as u64);
    report.flag("reuse_port", options.has_shared_address);
    if let Some(more) = &options.redis_options {
        report.text("redis", more);
    }
    report.number("rate", options.rate.unwrap_or(f64::NAN));
    report.line("who", &format!("{text}, {numbered} numbered"));
    let pace = match options.rate {
        Some(rate) => format!("{rate} a second"),
        None => format!("{} in flight", options.in_flight),
    };
    let keys = if options.has_keys { ", keys" } else { "" };
    let what = format!(
        "{} bytes{keys}, {pace}, publisher {publisher}",
        options.bytes
    );
    report.line("notifications", &what);
    report
}

fn add_costs(report: &mut Report, command: Command, outcome: &Outcome, options: &Options) {
    let span = Span::between(&outcome.start, &outcome.end);
    let notifications = outcome.notifications as f64;
    let deliveries = outcome.deliveries as f64;
    report.count("notifications", outcome.notifications);
    report.count("deliveries", outcome.deliveries);
    let is_cycle = matches!(options.publisher, Kind::Ephemeral | Kind::Post);
    let word = if is_cycle { "cycle" } else { "notification" };
    let each = span.server_cpu_us / notifications;
    report.number("notifications_per_second", notifications / span.seconds);
    report.number("server_cpu_us_per_notification", each);
    report.line(
        &format!("{word}s a second"),
        &grouped(notifications / span.seconds),
    );
    report.line(&format!("server's CPU a {word}"), &format!("{each:.3} us"));
    if command == Command::Publish || outcome.deliveries == 0 {
        return;
    }
    let each = span.server_cpu_us / deliveries;
    report.number("deliveries_per_second", deliveries / span.seconds);
    report.number("server_cpu_us_per_delivery", each);
    report.line("deliveries a second", &grouped(deliveries / span.seconds));
    report.line(
        "server's CPU a delivery",
        &format!("{each:.3} us ({each:.2} s a million)"),
    );
}

/// What each node had to do, and what it cost.
fn add_nodes(
    report: &mut Report,
    bench: &Bench,
    outcome: &Outcome,
    members: &[u32],
) -> Result<(), String> {
    let all = members.iter().sum::<u32>().max(1);
    let shares = Shares::between(&outcome.start, &outcome.end);
    let mut objects = Vec::with_capacity(members.len());
    for (node, server) in bench.servers().into_iter().enumerate() {
        let (count, cpu_us) = (members[node], shares.node_cpu_us[node]);
        let memory = figures::memory(server)?;
        let deliveries = outcome.deliveries as f64 * f64::from(count) / f64::from(all);
        let by_notification = cpu_us / outcome.notifications as f64;
        let mut object = Report::inner();
        object.count("subscribers", u64::from(count));
        object.number("cpu_us_per_notification", by_notification);
        object.number("cpu_us_per_delivery", cpu_us / deliveries);
        object.count("rss_anon_bytes", memory.anonymous);
        objects.push(object);
        let mut text = format!(
            "{count} subscribers, {:.1} MiB, CPU {by_notification:.3} us a notification",
            memory.anonymous as f64 / 1024.0 / 1024.0
        );
        if deliveries > 0.0 {
            // Writing to a string can't fail.
            let _ = write!(text, ", {:.3} us a delivery", cpu_us / deliveries);
        }
        report.line(&format!("node {node}"), &text);
    }
    report.objects("each_node", objects);
    Ok(())
}

/// What the Redis of the run had to do, and what it cost.
fn add_redis(report: &mut Report, redis: &Redis, outcome: &Outcome) -> Result<(), String> {
    let span = Span::between(&outcome.start, &outcome.end);
    let cpu_us = Shares::between(&outcome.start, &outcome.end).redis_cpu_us;
    let each = cpu_us / outcome.notifications as f64;
    let memory = figures::memory_of(redis.pid)?;
    report.number("redis_cpu_us_per_notification", each);
    report.number("redis_busy", cpu_us / 1e6 / span.seconds);
    report.count("redis_rss_bytes", memory.resident);
    let text = format!(
        "CPU {each:.3} us a notification, busy {:.1} %, {:.1} MiB",
        cpu_us / 1e4 / span.seconds,
        memory.resident as f64 / 1024.0 / 1024.0
    );
    report.line("redis", &text);
    Ok(())
}
