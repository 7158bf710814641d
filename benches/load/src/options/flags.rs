//! One table says for each option its flag, its help and where it counts.

use std::net::SocketAddrV4;

use crate::dialect::Dialect;
use crate::message::{Topic, VALUES_MAX};
use crate::poller::Waiting;
use crate::publisher::Kind;

use super::Command::{Connect, Fanout, Handover, Hold, Match, Pings, Publish, Resume};
use super::{Command, Options, Subscribing};

type Set = fn(&mut Options, &str) -> Result<(), String>;

/// An option. Without a `value` it stands alone.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    pub(super) help: &'static str,
    pub(super) commands: &'static [Command],
    pub(super) set: Set,
}

const EVERY: &[Command] = &Command::ALL;
const PUBLISHING: &[Command] = &[Fanout, Publish, Match];
const WITH_BYTES: &[Command] = &[Fanout, Publish, Match, Resume, Handover];

/// All options, in the order of the help.
pub(super) static FLAGS: &[Flag] = &[
    Flag {
        name: "target",
        value: "ADDRESS",
        help: "The server's address, of this machine [127.0.0.1:8000; a free port if it is started here]",
        commands: EVERY,
        set: |options, text| loopback(text).map(|address| options.target = Some(address)),
    },
    Flag {
        name: "server-command",
        value: "COMMAND",
        help: "Start this server on its core and stop it at the end; {address} becomes the address, {redis} the URL of --redis",
        commands: EVERY,
        set: |options, text| {
            options.server_command = Some(text.to_owned());
            Ok(())
        },
    },
    Flag {
        name: "pid",
        value: "PID,...",
        help: "The server's process, and others that belong to it [whoever listens on the address]",
        commands: EVERY,
        set: |options, text| {
            let pid = |word| number(word, 1, u32::MAX as usize).map(|pid| pid as u32);
            let pids = text.split(',').map(pid).collect::<Result<_, _>>();
            pids.map(|pids| options.pids = pids)
        },
    },
    Flag {
        name: "dialect",
        value: "WHICH",
        help: "What the server speaks: crieur, nchan, pushpin or pusher (Soketi, Sockudo); see src/dialect.rs [crieur]",
        commands: &[Fanout, Hold],
        set: |options, text| {
            let dialects = [
                ("crieur", Dialect::Crieur),
                ("nchan", Dialect::Nchan),
                ("pushpin", Dialect::Pushpin),
                ("pusher", Dialect::Pusher),
            ];
            options.dialect = word(text, &dialects)?;
            Ok(())
        },
    },
    Flag {
        name: "control",
        value: "ADDRESS",
        help: "Where --publisher post sends its requests [the server's address]",
        commands: &[Fanout],
        set: |options, text| loopback(text).map(|address| options.control = Some(address)),
    },
    Flag {
        name: "server-core",
        value: "N,...",
        help: "The core that a started server runs on; of --nodes, in turn [the first]",
        commands: EVERY,
        set: |options, text| {
            let cores = text.split(',').map(|word| number(word, 0, 1023));
            let cores = cores.collect::<Result<_, _>>();
            cores.map(|cores| options.server_cores = cores)
        },
    },
    Flag {
        name: "nodes",
        value: "N",
        help: "Start the server's command so often, each with an address of its own, and spread all connections over them [1]",
        commands: PUBLISHING,
        set: |options, text| number(text, 1, 64).map(|count| options.nodes = count),
    },
    Flag {
        name: "reuse-port",
        value: "",
        help: "All nodes get one address, and the kernel says which of them gets a connection",
        commands: PUBLISHING,
        set: |options, _| {
            options.has_shared_address = true;
            Ok(())
        },
    },
    Flag {
        name: "redis",
        value: "",
        help: "Start a redis-server for the run, on a Unix socket, without persistence; {redis} becomes its URL",
        commands: EVERY,
        set: |options, _| {
            options.redis_options.get_or_insert_default();
            Ok(())
        },
    },
    Flag {
        name: "redis-options",
        value: "TEXT",
        help: "The same with more options behind, like \"--appendonly yes\"",
        commands: EVERY,
        set: |options, text| {
            options.redis_options = Some(text.to_owned());
            Ok(())
        },
    },
    Flag {
        name: "redis-core",
        value: "N",
        help: "The core that this Redis runs on [the server's]",
        commands: EVERY,
        set: |options, text| number(text, 0, 1023).map(|core| options.redis_core = Some(core)),
    },
    Flag {
        name: "core",
        value: "N",
        help: "The core that this program runs on; all: where there is room [the last]",
        commands: EVERY,
        set: |options, text| {
            if text == "all" {
                options.is_on_all_cores = true;
                return Ok(());
            }
            number(text, 0, 1023).map(|core| options.core = Some(core))
        },
    },
    Flag {
        name: "wait",
        value: "HOW",
        help: "spin: ask the kernel again and again, so that no server pays for waking this program up; sleep [spin]",
        commands: EVERY,
        set: |options, text| {
            options.waiting = word(text, &[("spin", Waiting::Spin), ("sleep", Waiting::Sleep)])?;
            Ok(())
        },
    },
    Flag {
        name: "json",
        value: "FILE",
        help: "Append the result to this file, a line a run; it goes to the standard output too",
        commands: EVERY,
        set: |options, text| {
            options.json = Some(text.into());
            Ok(())
        },
    },
    Flag {
        name: "label",
        value: "TEXT",
        help: "Goes into the result, to tell runs apart",
        commands: EVERY,
        set: |options, text| {
            text.clone_into(&mut options.label);
            Ok(())
        },
    },
    Flag {
        name: "subscribers",
        value: "N",
        help: "Connections that subscribe",
        commands: &[Fanout, Publish],
        set: |options, text| number(text, 0, VALUES_MAX).map(|count| options.subscribers = count),
    },
    Flag {
        name: "channels",
        value: "N",
        help: "Channels over which the subscribers are spread; notifications go to one after the other [1]",
        commands: &[Fanout, Publish],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.channels = count),
    },
    Flag {
        name: "bystanders",
        value: "N",
        help: "Connections that have subscribed to something else and must get nothing [0]",
        commands: PUBLISHING,
        set: |options, text| number(text, 0, VALUES_MAX).map(|count| options.bystanders = count),
    },
    Flag {
        name: "numbered",
        value: "N",
        help: "Of all who subscribe, how many ask for ids (\"since\":\"\"), spread evenly; all [0]",
        commands: PUBLISHING,
        set: |options, text| {
            let count = match text {
                "all" => Ok(usize::MAX),
                _ => number(text, 0, VALUES_MAX).map_err(|error| format!("all, or {error}")),
            };
            count.map(|count| options.numbered = count)
        },
    },
    Flag {
        name: "key",
        value: "",
        help: "Each notification has a key of its own",
        commands: &[Fanout, Publish, Match, Resume],
        set: |options, _| {
            options.has_keys = true;
            Ok(())
        },
    },
    Flag {
        name: "subscriptions",
        value: "N",
        help: "Distinct values that are subscribed to [100000]",
        commands: &[Match],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.subscriptions = count),
    },
    Flag {
        name: "connections",
        value: "N",
        help: "How many connections [match: 8; connect: 10000; hold: 5000; pings: 1; handover: 15000]",
        commands: &[Match, Connect, Hold, Pings, Handover],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.connections = count),
    },
    Flag {
        name: "recipients",
        value: "N",
        help: "Connections that subscribe to each value; divides --connections [2]",
        commands: &[Match],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.recipients = count),
    },
    Flag {
        name: "bytes",
        value: "N",
        help: "Length of a notification's JSON [200]",
        commands: WITH_BYTES,
        set: |options, text| number(text, 1, 64 << 20).map(|bytes| options.bytes = bytes),
    },
    Flag {
        name: "in-flight",
        value: "N",
        help: "Notifications under way at once: published, and not yet answered and delivered to all [1; 10000 with --rate]",
        commands: &[Fanout, Match],
        set: |options, text| number(text, 1, 1_000_000).map(|count| options.in_flight = count),
    },
    Flag {
        name: "rate",
        value: "N",
        help: "Notifications a second, sent when they are due whatever the server does; latency counts from then on [resume: 500; handover: none]",
        commands: WITH_BYTES,
        set: |options, text| {
            let rate = text.parse::<f64>().ok();
            let rate = rate.filter(|rate| (0.01..=1e7).contains(rate));
            options.rate = Some(rate.ok_or("a number from 0.01 to 10000000")?);
            Ok(())
        },
    },
    Flag {
        name: "seconds",
        value: "S",
        help: "How long to measure [5]",
        commands: &[Fanout, Publish, Match, Pings],
        set: |options, text| seconds(text).map(|seconds| options.seconds = seconds),
    },
    Flag {
        name: "warmup",
        value: "S",
        help: "How long to run before that; handover: before each [1]",
        commands: &[Fanout, Publish, Match, Pings, Resume, Handover],
        set: |options, text| seconds(text).map(|seconds| options.warmup = seconds),
    },
    Flag {
        name: "notifications",
        value: "N",
        help: "Measure so many notifications instead, after a tenth of that to warm up",
        commands: PUBLISHING,
        set: |options, text| {
            let count = number(text, 1, usize::MAX)?;
            options.notifications = Some(count as u64);
            Ok(())
        },
    },
    Flag {
        name: "publisher",
        value: "KIND",
        help: "ephemeral: a WebSocket for each notification; kept: /publish; http: POST; post: a connection for each POST [kept]",
        commands: &[Fanout, Match],
        set: |options, text| {
            let kinds = [
                ("ephemeral", Kind::Ephemeral),
                ("kept", Kind::Kept),
                ("http", Kind::Http),
                ("post", Kind::Post),
            ];
            options.publisher = word(text, &kinds)?;
            Ok(())
        },
    },
    Flag {
        name: "publishers",
        value: "N",
        help: "Connections of publishers that keep theirs [1]",
        commands: &[Fanout, Match],
        set: |options, text| number(text, 1, 10_000).map(|count| options.publishers = count),
    },
    Flag {
        name: "patient",
        value: "",
        help: "An ephemeral publisher waits for the 101 before it sends the notification",
        commands: PUBLISHING,
        set: |options, _| {
            options.is_patient = true;
            Ok(())
        },
    },
    Flag {
        name: "topic",
        value: "KIND",
        help: "filter: package, page and filters, as the apps subscribe; channel: the short form [filter]",
        commands: &[Fanout, Publish, Match, Connect, Resume, Handover],
        set: |options, text| {
            options.topic = word(
                text,
                &[("filter", Topic::Filter), ("channel", Topic::Channel)],
            )?;
            Ok(())
        },
    },
    Flag {
        name: "parallel",
        value: "N",
        help: "Connections under way at once; resume: not upgraded yet [16; connect, hold: 64; resume: 1000]",
        commands: &[Publish, Connect, Hold, Resume],
        set: |options, text| number(text, 1, 100_000).map(|count| options.parallel = count),
    },
    Flag {
        name: "rounds",
        value: "N",
        help: "How often to open and close them all [2]; handover: how often to hand over [5]; resume: instead of a storm, how often each client resumes on its open connection",
        commands: &[Connect, Resume, Handover],
        set: |options, text| number(text, 1, 1_000_000).map(|count| options.rounds = count),
    },
    Flag {
        name: "subscribe",
        value: "WHAT",
        help: "nothing, same: all to one channel, distinct: each to its own [same; handover: distinct]",
        commands: &[Connect, Handover],
        set: |options, text| {
            let whats = [
                ("nothing", Subscribing::Nothing),
                ("same", Subscribing::Same),
                ("distinct", Subscribing::Distinct),
            ];
            options.subscribing = word(text, &whats)?;
            Ok(())
        },
    },
    Flag {
        name: "hang-up",
        value: "",
        help: "Connections end without a Close",
        commands: &[Connect],
        set: |options, _| {
            options.hangs_up = true;
            Ok(())
        },
    },
    Flag {
        name: "clients",
        value: "N",
        help: "Clients that come back [15000]",
        commands: &[Resume],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.clients = count),
    },
    Flag {
        name: "entries",
        value: "N",
        help: "Notifications that are published while they are away [10000]",
        commands: &[Resume],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.entries = count),
    },
    Flag {
        name: "history",
        value: "N",
        help: "Notifications that are published and kept before the first handover [10000]",
        commands: &[Handover],
        set: |options, text| number(text, 0, VALUES_MAX).map(|count| options.entries = count),
    },
    Flag {
        name: "hits",
        value: "N",
        help: "How many of these are for each client; divides --entries [10]",
        commands: &[Resume],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.hits = count),
    },
    Flag {
        name: "live",
        value: "N",
        help: "Subscribers that stay, and get notifications at the rate meanwhile [20]",
        commands: &[Resume],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.live = count),
    },
    Flag {
        name: "without-since",
        value: "",
        help: "They come back without an id: the storm to compare with",
        commands: &[Resume],
        set: |options, _| {
            options.is_without_since = true;
            Ok(())
        },
    },
    Flag {
        name: "batch",
        value: "N",
        help: "Pings a write [64]",
        commands: &[Pings],
        set: |options, text| number(text, 1, 10_000).map(|count| options.batch = count),
    },
    Flag {
        name: "websocket",
        value: "",
        help: "Pings of RFC 6455 instead of the application's",
        commands: &[Pings],
        set: |options, _| {
            options.is_websocket_ping = true;
            Ok(())
        },
    },
];

fn loopback(text: &str) -> Result<SocketAddrV4, String> {
    let address = text.parse::<SocketAddrV4>().ok();
    let local = address.filter(|address| address.ip().is_loopback());
    local.ok_or_else(|| "an address like 127.0.0.1:8000".to_owned())
}

fn number(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "seconds from 0 to 86400".to_owned())
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("one of {}", words.join(", "))
    })
}
