//! The command line: one table says for each option its flag, its help and where it counts.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use crate::message::{Topic, VALUES_MAX};
use crate::poller::Waiting;
use crate::publisher::Kind;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Fanout,
    Publish,
    Connect,
    Pings,
    Match,
}

impl Command {
    pub(crate) const ALL: [Self; 5] = [
        Self::Fanout,
        Self::Publish,
        Self::Connect,
        Self::Pings,
        Self::Match,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Publish => "publish",
            Self::Connect => "connect",
            Self::Pings => "pings",
            Self::Match => "match",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Fanout => {
                "notifications to many subscribers: CPU a delivery, deliveries a second, latency"
            }
            Self::Publish => {
                "connections that publish one notification each: CPU a cycle, cycles a second"
            }
            Self::Connect => {
                "opening, holding and closing connections: CPU an upgrade, memory a connection"
            }
            Self::Pings => "pings, many a write: CPU a ping",
            Self::Match => "few recipients among very many subscriptions: CPU a notification",
        }
    }
}

/// What connections of `connect` subscribe to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Subscribing {
    Nothing,
    Same,
    Distinct,
}

/// All options; which of them count depends on the command.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) target: Option<SocketAddrV4>,
    pub(crate) server_command: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) server_core: Option<usize>,
    pub(crate) core: Option<usize>,
    pub(crate) waiting: Waiting,
    pub(crate) json: Option<PathBuf>,
    pub(crate) label: String,
    pub(crate) subscribers: usize,
    pub(crate) channels: usize,
    pub(crate) bystanders: usize,
    pub(crate) subscriptions: usize,
    pub(crate) connections: usize,
    pub(crate) recipients: usize,
    pub(crate) bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    pub(crate) notifications: Option<u64>,
    pub(crate) publisher: Kind,
    pub(crate) publishers: usize,
    pub(crate) is_patient: bool,
    pub(crate) topic: Topic,
    pub(crate) parallel: usize,
    pub(crate) rounds: usize,
    pub(crate) subscribing: Subscribing,
    pub(crate) hangs_up: bool,
    pub(crate) batch: usize,
    pub(crate) is_websocket_ping: bool,
}

impl Options {
    fn defaults(command: Command) -> Self {
        Self {
            target: None,
            server_command: None,
            pid: None,
            server_core: None,
            core: None,
            waiting: Waiting::Spin,
            json: None,
            label: String::new(),
            subscribers: if command == Command::Fanout { 1000 } else { 0 },
            channels: 1,
            bystanders: 0,
            subscriptions: 100_000,
            connections: match command {
                Command::Connect => 10_000,
                Command::Match => 8,
                _ => 1,
            },
            recipients: 2,
            bytes: 200,
            in_flight: 0,
            rate: None,
            seconds: 5.0,
            warmup: 1.0,
            notifications: None,
            publisher: match command {
                Command::Publish => Kind::Ephemeral,
                _ => Kind::Kept,
            },
            publishers: 1,
            is_patient: false,
            topic: Topic::Filter,
            parallel: if command == Command::Connect { 64 } else { 16 },
            rounds: 2,
            subscribing: Subscribing::Same,
            hangs_up: false,
            batch: 64,
            is_websocket_ping: false,
        }
    }
}

type Set = fn(&mut Options, &str) -> Result<(), String>;

struct Flag {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    commands: &'static [Command],
    set: Set,
}

use Command::{Connect, Fanout, Match, Pings, Publish};
const EVERY: &[Command] = &Command::ALL;
const PUBLISHING: &[Command] = &[Fanout, Publish, Match];

static FLAGS: &[Flag] = &[
    Flag {
        name: "target",
        value: "ADDRESS",
        help: "The server's address, of this machine [127.0.0.1:8000; a free port if it is started here]",
        commands: EVERY,
        set: |options, text| {
            let address = text.parse::<SocketAddrV4>();
            let local = address.ok().filter(|address| address.ip().is_loopback());
            options.target = Some(local.ok_or("an address like 127.0.0.1:8000")?);
            Ok(())
        },
    },
    Flag {
        name: "server-command",
        value: "COMMAND",
        help: "Start this server on its core and stop it at the end; {address} becomes the address",
        commands: EVERY,
        set: |options, text| {
            options.server_command = Some(text.to_owned());
            Ok(())
        },
    },
    Flag {
        name: "pid",
        value: "PID",
        help: "The server's process [whoever listens on the address]",
        commands: EVERY,
        set: |options, text| {
            number(text, 1, u32::MAX as usize).map(|pid| options.pid = Some(pid as u32))
        },
    },
    Flag {
        name: "server-core",
        value: "N",
        help: "The core that a started server runs on [the first]",
        commands: EVERY,
        set: |options, text| number(text, 0, 1023).map(|core| options.server_core = Some(core)),
    },
    Flag {
        name: "core",
        value: "N",
        help: "The core that this program runs on [the last]",
        commands: EVERY,
        set: |options, text| number(text, 0, 1023).map(|core| options.core = Some(core)),
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
        name: "subscriptions",
        value: "N",
        help: "Distinct values that are subscribed to [100000]",
        commands: &[Match],
        set: |options, text| number(text, 1, VALUES_MAX).map(|count| options.subscriptions = count),
    },
    Flag {
        name: "connections",
        value: "N",
        help: "How many connections",
        commands: &[Match, Connect, Pings],
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
        commands: PUBLISHING,
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
        help: "Notifications a second, sent when they are due whatever the server does; latency counts from then on",
        commands: PUBLISHING,
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
        help: "How long to run before that [1]",
        commands: &[Fanout, Publish, Match, Pings],
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
        help: "ephemeral: a connection for each notification; kept: /publish; http: POST /publish [kept]",
        commands: &[Fanout, Match],
        set: |options, text| {
            let kinds = [
                ("ephemeral", Kind::Ephemeral),
                ("kept", Kind::Kept),
                ("http", Kind::Http),
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
        commands: &[Fanout, Publish, Match, Connect],
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
        help: "Connections under way at once",
        commands: &[Publish, Connect],
        set: |options, text| number(text, 1, 100_000).map(|count| options.parallel = count),
    },
    Flag {
        name: "rounds",
        value: "N",
        help: "How often to open and close them all [2]",
        commands: &[Connect],
        set: |options, text| number(text, 1, 10_000).map(|count| options.rounds = count),
    },
    Flag {
        name: "subscribe",
        value: "WHAT",
        help: "nothing, same: all to one channel, distinct: each to its own [same]",
        commands: &[Connect],
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

/// The options of a command, a line each.
pub(crate) fn help(command: Command) -> String {
    let mut text = format!("Usage: load {} [OPTIONS]\n\n", command.name());
    let _ = writeln!(
        text,
        "Measures {}.\nDefaults are in brackets.\n",
        command.about()
    );
    for flag in FLAGS.iter().filter(|flag| flag.commands.contains(&command)) {
        let name = format!("--{} {}", flag.name, flag.value);
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {name:<26} {}", flag.help);
    }
    text
}

/// The options of a command line; `None` if only the help is asked for.
pub(crate) fn read(command: Command, arguments: Vec<OsString>) -> Result<Option<Options>, String> {
    use lexopt::Arg::{Long, Short};
    let mut options = Options::defaults(command);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            Long("help") | Short('h') => return Ok(None),
            Long(name) => name.to_owned(),
            other => return Err(other.unexpected().to_string()),
        };
        let flag = FLAGS
            .iter()
            .find(|flag| flag.name == name && flag.commands.contains(&command));
        let flag = flag.ok_or_else(|| {
            let command = command.name();
            format!("{command} has no option --{name}: see load {command} --help")
        })?;
        let value = match flag.value {
            "" => String::new(),
            _ => parser
                .value()
                .and_then(lexopt::ValueExt::string)
                .map_err(|error| error.to_string())?,
        };
        (flag.set)(&mut options, &value)
            .map_err(|expected| format!("--{name} {value:?}: expected {expected}"))?;
    }
    if options.in_flight == 0 {
        options.in_flight = match options.rate {
            Some(_) => 10_000,
            None if command == Command::Publish => options.parallel,
            None => 1,
        };
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: Command, text: &str) -> Result<Option<Options>, String> {
        read(command, text.split_whitespace().map(Into::into).collect())
    }

    #[test]
    fn options_reach_their_fields() {
        let text = "--subscribers 7 --bytes=300 --publisher ephemeral --patient --rate 0.5 --target 127.0.0.1:1";
        let options = parse(Fanout, text).expect("valid").expect("no help");
        assert_eq!((options.subscribers, options.bytes), (7, 300));
        assert_eq!(
            (options.publisher, options.is_patient),
            (Kind::Ephemeral, true)
        );
        assert_eq!((options.rate, options.in_flight), (Some(0.5), 10_000));
        let options = parse(Publish, "--parallel 3")
            .expect("valid")
            .expect("no help");
        assert_eq!((options.in_flight, options.publisher), (3, Kind::Ephemeral));
        assert!(parse(Match, "--help").expect("valid").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        for (command, text, expected) in [
            (
                Fanout,
                "--bytes x",
                "--bytes \"x\": expected a whole number from 1 to 67108864",
            ),
            (
                Fanout,
                "--batch 3",
                "fanout has no option --batch: see load fanout --help",
            ),
            (
                Connect,
                "--subscribe all",
                "--subscribe \"all\": expected one of nothing, same, distinct",
            ),
            (
                Pings,
                "--target 10.0.0.1:80",
                "--target \"10.0.0.1:80\": expected an address like 127.0.0.1:8000",
            ),
        ] {
            assert_eq!(parse(command, text).expect_err("invalid"), expected);
        }
    }

    #[test]
    fn every_flag_is_in_a_help() {
        let all: String = Command::ALL.map(help).concat();
        assert!(
            FLAGS
                .iter()
                .all(|flag| all.contains(&format!("--{} ", flag.name)))
        );
    }
}
