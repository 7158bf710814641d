//! The command line: what is measured, and with which options. Their table is in `flags`.

mod flags;

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use crate::dialect::Dialect;
use crate::message::Topic;
use crate::poller::Waiting;
use crate::publisher::Kind;

use flags::FLAGS;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Fanout,
    Publish,
    Connect,
    Hold,
    Pings,
    Match,
    Resume,
    Handover,
}

impl Command {
    pub(crate) const ALL: [Self; 8] = [
        Self::Fanout,
        Self::Publish,
        Self::Connect,
        Self::Hold,
        Self::Pings,
        Self::Match,
        Self::Resume,
        Self::Handover,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Publish => "publish",
            Self::Connect => "connect",
            Self::Hold => "hold",
            Self::Pings => "pings",
            Self::Match => "match",
            Self::Resume => "resume",
            Self::Handover => "handover",
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
            Self::Hold => "subscribed connections that do nothing: memory and CPU of each",
            Self::Pings => "pings, many a write: CPU a ping",
            Self::Match => "few recipients among very many subscriptions: CPU a notification",
            Self::Resume => {
                "clients that all come back at once and are caught up: CPU, time, delay of the others"
            }
            Self::Handover => {
                "a server that becomes another program, all connections kept: pause, memory"
            }
        }
    }
}

/// What connections of `connect` and `handover` subscribe to.
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
    /// The server, and other processes that belong to it.
    pub(crate) pids: Vec<u32>,
    pub(crate) dialect: Dialect,
    /// Where POSTs go; to the server, unless it has another address for them.
    pub(crate) control: Option<SocketAddrV4>,
    /// Of the nodes, in turn; the first that there is, if there are none.
    pub(crate) server_cores: Vec<usize>,
    pub(crate) nodes: usize,
    pub(crate) has_shared_address: bool,
    /// Options of a Redis that is started for the run.
    pub(crate) redis_options: Option<String>,
    pub(crate) redis_core: Option<usize>,
    pub(crate) core: Option<usize>,
    pub(crate) is_on_all_cores: bool,
    pub(crate) waiting: Waiting,
    pub(crate) json: Option<PathBuf>,
    pub(crate) label: String,
    pub(crate) subscribers: usize,
    pub(crate) channels: usize,
    pub(crate) bystanders: usize,
    pub(crate) numbered: usize,
    pub(crate) has_keys: bool,
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
    pub(crate) clients: usize,
    pub(crate) entries: usize,
    pub(crate) hits: usize,
    pub(crate) live: usize,
    pub(crate) is_without_since: bool,
}

impl Options {
    fn defaults(command: Command) -> Self {
        Self {
            target: None,
            server_command: None,
            pids: Vec::new(),
            dialect: Dialect::Crieur,
            control: None,
            server_cores: Vec::new(),
            nodes: 1,
            has_shared_address: false,
            redis_options: None,
            redis_core: None,
            core: None,
            is_on_all_cores: false,
            waiting: Waiting::Spin,
            json: None,
            label: String::new(),
            subscribers: if command == Command::Fanout { 1000 } else { 0 },
            channels: 1,
            bystanders: 0,
            numbered: 0,
            has_keys: false,
            subscriptions: 100_000,
            connections: match command {
                Command::Connect => 10_000,
                Command::Hold => 5000,
                Command::Match => 8,
                Command::Handover => 15_000,
                _ => 1,
            },
            recipients: 2,
            bytes: 200,
            in_flight: 0,
            rate: (command == Command::Resume).then_some(500.0),
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
            parallel: match command {
                Command::Connect | Command::Hold => 64,
                Command::Resume => 1000,
                _ => 16,
            },
            rounds: match command {
                Command::Connect => 2,
                Command::Handover => 5,
                _ => 0,
            },
            subscribing: match command {
                Command::Handover => Subscribing::Distinct,
                _ => Subscribing::Same,
            },
            hangs_up: false,
            batch: 64,
            is_websocket_ping: false,
            clients: if command == Command::Resume {
                15_000
            } else {
                0
            },
            entries: 10_000,
            hits: 10,
            live: if command == Command::Resume { 20 } else { 0 },
            is_without_since: false,
        }
    }
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
    use super::Command::{Connect, Fanout, Match, Pings, Publish};
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
