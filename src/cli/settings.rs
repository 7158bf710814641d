//! The settings of the server: one table says for each its flag, its environment variable, its
//! bounds, its default and its help.

use std::fmt::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, Console, HubConfig, ListenAddress, LogFormat};

use super::{CliError, from_environment, variable};

/// One setting: `--name VALUE`, or `CRIEUR_NAME`.
struct Setting {
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

/// What a setting's value is, and where it goes.
enum Kind {
    /// A number of things.
    Count {
        field: fn(&mut Config) -> &mut usize,
        min: usize,
        max: usize,
    },
    /// Bytes.
    Bytes {
        field: fn(&mut Config) -> &mut usize,
        min: usize,
        max: usize,
    },
    /// Seconds, fractions allowed.
    Seconds {
        field: fn(&mut Config) -> &mut Duration,
    },
    /// So many `unit`, or no limit.
    Limit {
        field: fn(&mut Config) -> &mut Option<NonZeroU32>,
        unit: &'static str,
    },
    /// So many a second, fractions allowed, or no limit.
    Rate {
        field: fn(&mut Config) -> &mut Option<f64>,
    },
    /// A file.
    File {
        field: fn(&mut Config) -> &mut Option<PathBuf>,
    },
    /// May be given several times, or several together, with commas.
    List {
        field: fn(&mut Config) -> &mut Vec<String>,
        shown: &'static str,
    },
    /// Permissions of a file, in octal digits.
    Mode { field: fn(&mut Config) -> &mut u32 },
}

const KIB: usize = 1024;
const GIB: usize = 1024 * 1024 * 1024;

/// What a rate that limits nothing is written as.
const OFF: &str = "off";

/// The longest time that can be set: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// The highest rate that can be set.
const RATE_MAX: f64 = 1e9;

static SETTINGS: &[Setting] = &[
    Setting {
        name: "socket-mode",
        kind: Kind::Mode {
            field: |config| &mut config.server.socket_mode,
        },
        help: "Permissions of Unix sockets: who may open one may publish",
    },
    Setting {
        name: "publish-token-file",
        kind: Kind::File {
            field: |config| &mut config.trust.publish_token_file,
        },
        help: "One or two tokens, a line each; publishers have to show one",
    },
    Setting {
        name: "client-key-file",
        kind: Kind::File {
            field: |config| &mut config.trust.client_key_file,
        },
        help: "One or two keys, a line each; clients have to show a JSON Web Token",
    },
    Setting {
        name: "allow-origin",
        kind: Kind::List {
            field: |config| &mut config.trust.allow_origin,
            shown: "ORIGIN",
        },
        help: "Web pages that are let in, beside those of the same host; * for all",
    },
    Setting {
        name: "trusted-proxy",
        kind: Kind::List {
            field: |config| &mut config.trust.trusted_proxy,
            shown: "CIDR",
        },
        help: "Proxies whose X-Forwarded-For is believed; being local proves nothing then",
    },
    Setting {
        name: "metrics-from",
        kind: Kind::List {
            field: |config| &mut config.trust.metrics_from,
            shown: "CIDR",
        },
        help: "Who is shown /metrics, beside programs of this host",
    },
    Setting {
        name: "max-connections-per-address",
        kind: Kind::Limit {
            field: |config| &mut config.trust.connections_per_address,
            unit: "N",
        },
        help: "Clients of one address (IPv6: of one /64); beyond: 429",
    },
    Setting {
        name: "upgrades-per-address",
        kind: Kind::Rate {
            field: |config| &mut config.trust.upgrades_per_address,
        },
        help: "Upgrades a second of one address; beyond: 429",
    },
    Setting {
        name: "token-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.hub.token_timeout,
        },
        help: "For a client to show its token; then: Close 3000",
    },
    Setting {
        name: "max-publishers",
        kind: Kind::Count {
            field: |config| &mut config.server.limits.publishers_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Publishers on their own addresses at once, beside the clients",
    },
    Setting {
        name: "max-connections",
        kind: Kind::Count {
            field: |config| &mut config.server.limits.connections_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Clients at once; the next gets 503 and Retry-After",
    },
    Setting {
        name: "max-message-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.hub.limits.message_bytes_max,
            min: 128,
            max: GIB,
        },
        help: "Message of a connection that may not publish; beyond: Close 1009",
    },
    Setting {
        name: "max-publish-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.hub.limits.publish_bytes_max,
            min: 128,
            max: GIB,
        },
        help: "Message of a connection that may publish; beyond: Close 1009",
    },
    Setting {
        name: "max-head-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.server.limits.head_bytes_max,
            min: 256,
            max: 1024 * KIB,
        },
        help: "Request head of an upgrade; beyond: 431",
    },
    Setting {
        name: "max-subscriptions",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.subscriptions_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Subscriptions of a connection; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-values",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.values_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Values in all subscriptions of a connection; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-total-subscriptions",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.subscriptions_total_max,
            min: 1,
            max: 100_000_000,
        },
        help: "Subscriptions of all connections; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-total-values",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.values_total_max,
            min: 1,
            max: 400_000_000,
        },
        help: "Values in all subscriptions of all; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-text-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.hub.limits.text_bytes_max,
            min: 128,
            max: 64 * GIB,
        },
        help: "Texts of all subscriptions, each once; beyond: too-many-subscriptions",
    },
    Setting {
        name: "send-queue-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.server.limits.send_queue_bytes_max,
            min: 4 * KIB,
            max: GIB,
        },
        help: "Bytes that wait for one connection; beyond: Close 1013",
    },
    Setting {
        name: "buffer-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.server.limits.buffer_bytes_max,
            min: 1024 * KIB,
            max: 1024 * GIB,
        },
        help: "Bytes kept for all connections; beyond: the worst get Close 1013",
    },
    Setting {
        name: "messages-per-second",
        kind: Kind::Limit {
            field: |config| &mut config.server.limits.messages_per_second,
            unit: "RATE",
        },
        help: "Messages and pings of a client that may not publish; beyond: read later",
    },
    Setting {
        name: "bytes-per-second",
        kind: Kind::Limit {
            field: |config| &mut config.server.limits.bytes_per_second,
            unit: "BYTES",
        },
        help: "Bytes from a client that may not publish; beyond: read later",
    },
    Setting {
        name: "handshake-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.handshake,
        },
        help: "From accept to the end of the upgrade; then: 408",
    },
    Setting {
        name: "ping-interval",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.ping_interval,
        },
        help: "Silence of a client after which it is pinged",
    },
    Setting {
        name: "pong-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.pong,
        },
        help: "Silence after the ping has left; then the connection is dropped",
    },
    Setting {
        name: "message-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.message,
        },
        help: "From the first byte of a message to its last; then: Close 1008",
    },
    Setting {
        name: "close-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.close,
        },
        help: "For the answer to a Close; then the connection is dropped",
    },
    Setting {
        name: "write-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.write,
        },
        help: "For a client that takes nothing of what waits for it; then: Close 1013",
    },
    Setting {
        name: "drain-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.drain,
        },
        help: "For the clients' answers when the server stops",
    },
];

impl Setting {
    fn apply(&self, config: &mut Config, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Count { field, min, max } | Kind::Bytes { field, min, max } => {
                let number = value
                    .parse::<usize>()
                    .ok()
                    .filter(|number| (min..=max).contains(number));
                *field(config) =
                    number.ok_or_else(|| format!("a whole number from {min} to {max}"))?;
            }
            Kind::Seconds { field } => {
                let seconds = value
                    .parse::<f64>()
                    .ok()
                    .filter(|seconds| (0.001..=SECONDS_MAX).contains(seconds));
                let seconds =
                    seconds.ok_or_else(|| format!("seconds from 0.001 to {SECONDS_MAX}"))?;
                *field(config) = Duration::from_secs_f64(seconds);
            }
            Kind::Limit { field, .. } => {
                let rate = match value {
                    OFF => Ok(0),
                    number => number.parse(),
                };
                let expected = |_| format!("a whole number up to {}, 0 is {OFF}", u32::MAX);
                *field(config) = NonZeroU32::new(rate.map_err(expected)?);
            }
            Kind::Rate { field } => {
                let rate = match value {
                    OFF => Some(0.0),
                    number => number.parse::<f64>().ok(),
                };
                let rate = rate.filter(|rate| *rate == 0.0 || (0.001..=RATE_MAX).contains(rate));
                let rate =
                    rate.ok_or_else(|| format!("a number from 0.001 to {RATE_MAX}, 0 is {OFF}"))?;
                *field(config) = (rate > 0.0).then_some(rate);
            }
            // An unset variable of a script must not leave a door open.
            Kind::File { field } => {
                let path = (!value.is_empty()).then(|| value.into());
                *field(config) = Some(path.ok_or("the path of a file")?);
            }
            Kind::List { field, .. } => {
                let entries = value.split(',').map(str::trim);
                let entries = entries.filter(|entry| !entry.is_empty());
                let entries: Vec<_> = entries.map(str::to_owned).collect();
                if entries.is_empty() {
                    return Err("at least one".to_owned());
                }
                field(config).extend(entries);
            }
            Kind::Mode { field } => {
                let mode = u32::from_str_radix(value, 8).ok();
                let mode = mode.filter(|mode| (0o100..=0o777).contains(mode));
                *field(config) = mode.ok_or("permissions in octal, like 0660")?;
            }
        }
        Ok(())
    }

    /// What stands behind the flag in the help, and the default.
    fn shown(&self, defaults: &mut Config) -> (&'static str, String) {
        match self.kind {
            Kind::Count { field, .. } => ("N", field(defaults).to_string()),
            Kind::Bytes { field, .. } => ("BYTES", field(defaults).to_string()),
            Kind::Seconds { field } => ("SECONDS", field(defaults).as_secs_f64().to_string()),
            Kind::Limit { field, unit } => {
                let rate = field(defaults).map(|rate| rate.to_string());
                (unit, rate.unwrap_or_else(|| OFF.to_owned()))
            }
            Kind::Rate { .. } => ("RATE", OFF.to_owned()),
            Kind::File { .. } => ("FILE", "none".to_owned()),
            Kind::List { shown, .. } => (shown, "none".to_owned()),
            Kind::Mode { field } => ("MODE", format!("0{:o}", field(defaults))),
        }
    }
}

/// The help of all settings, a line each.
pub(super) fn help() -> String {
    let mut defaults = Config::default();
    let mut text = String::new();
    for setting in SETTINGS {
        let (value, default) = setting.shown(&mut defaults);
        let flag = format!("--{} {value}", setting.name);
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {flag:<32} {} [{default}]", setting.help);
    }
    text
}

/// What a command line asks for.
pub(super) enum Wanted {
    /// To be told what there is to ask for.
    Help,
    /// To be told whether a server could run with this.
    Check(Config),
    /// A server.
    Server(Config),
}

/// What the command line and the environment make of the server; the command line wins.
pub(super) fn read(arguments: Vec<std::ffi::OsString>) -> Result<Wanted, CliError> {
    use lexopt::Arg::{Long, Short, Value};
    // Whoever asks for help may need it because of the environment.
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        return Ok(Wanted::Help);
    }
    let mut config = Config::default();
    let mut is_check = false;
    read_environment(&mut config)?;
    let (mut has_listen, mut has_publish_listen) = (false, false);
    let mut lists_seen = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => {
                let value = parser.value()?;
                let value = value.to_str().unwrap_or("");
                if !std::mem::replace(&mut has_listen, true) {
                    config.server.listen.clear();
                }
                config
                    .server
                    .listen
                    .extend(parse_listen("--listen", value)?);
            }
            Long("publish-listen") => {
                let value = lexopt::ValueExt::string(parser.value()?)?;
                if !std::mem::replace(&mut has_publish_listen, true) {
                    config.server.publish_listen.clear();
                }
                let addresses = parse_publish_listen("--publish-listen", &value)?;
                config.server.publish_listen.extend(addresses);
            }
            Long("check") => is_check = true,
            Long("no-local-publish") => config.trust.local_publish = false,
            Long("console") => {
                let value = lexopt::ValueExt::string(parser.value()?)?;
                config.console = parse_console("--console", &value)?;
            }
            Long("log") => config.log = lexopt::ValueExt::string(parser.value()?)?,
            Long("log-format") => {
                let value = lexopt::ValueExt::string(parser.value()?)?;
                config.log_format = parse_log_format("--log-format", &value)?;
            }
            Long(name) => {
                let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                    return Err(CliError::usage(format!(
                        "there is no option --{name}: see crieur --help"
                    )));
                };
                let value = lexopt::ValueExt::string(parser.value()?)?;
                if let Kind::List { field, .. } = setting.kind
                    && !lists_seen.contains(&setting.name)
                {
                    // The command line wins over the environment, and adds to itself.
                    lists_seen.push(setting.name);
                    field(&mut config).clear();
                }
                let expected = setting.apply(&mut config, &value);
                expected.map_err(|expected| {
                    CliError::usage(format!("--{} {value:?}: expected {expected}", setting.name))
                })?;
            }
            Short(_) | Value(_) => return Err(argument.unexpected().into()),
        }
    }
    config.hub = HubConfig {
        ping_interval: config.server.timeouts.ping_interval,
        ..config.hub
    };
    Ok(match is_check {
        true => Wanted::Check(config),
        false => Wanted::Server(config),
    })
}

fn read_environment(config: &mut Config) -> Result<(), CliError> {
    if let Some(value) = from_environment("listen")? {
        config.server.listen.clear();
        for address in value.split(',') {
            config
                .server
                .listen
                .extend(parse_listen("CRIEUR_LISTEN", address.trim())?);
        }
    }
    if let Some(value) = from_environment("publish-listen")? {
        for address in value.split(',').map(str::trim) {
            let addresses = parse_publish_listen("CRIEUR_PUBLISH_LISTEN", address)?;
            config.server.publish_listen.extend(addresses);
        }
    }
    if let Some(value) = from_environment("no-local-publish")? {
        config.trust.local_publish = match value.as_str() {
            "1" | "true" => false,
            "0" | "false" => true,
            _ => {
                return Err(CliError::usage(format!(
                    "CRIEUR_NO_LOCAL_PUBLISH={value:?}: expected 1 or 0"
                )));
            }
        };
    }
    if let Some(value) = from_environment("console")? {
        config.console = parse_console("CRIEUR_CONSOLE", &value)?;
    }
    if let Some(value) = from_environment("log")? {
        config.log = value;
    }
    if let Some(value) = from_environment("log-format")? {
        config.log_format = parse_log_format("CRIEUR_LOG_FORMAT", &value)?;
    }
    for setting in SETTINGS {
        if let Some(value) = from_environment(setting.name)? {
            setting.apply(config, &value).map_err(|expected| {
                CliError::usage(format!(
                    "{}={value:?}: expected {expected}",
                    variable(setting.name)
                ))
            })?;
        }
    }
    Ok(())
}

fn parse_console(source: &str, value: &str) -> Result<Console, CliError> {
    match value {
        "local" => Ok(Console::Local),
        "public" => Ok(Console::Public),
        "off" => Ok(Console::Off),
        _ => Err(CliError::usage(format!(
            "{source} {value:?}: expected local, public or off"
        ))),
    }
}

fn parse_log_format(source: &str, value: &str) -> Result<LogFormat, CliError> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(CliError::usage(format!(
            "{source} {value:?}: expected text or json"
        ))),
    }
}

/// `ADDRESS:PORT`, or `NAME:PORT` for every address that the name has here.
fn parse_listen(source: &str, value: &str) -> Result<Vec<SocketAddr>, CliError> {
    match value.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(_) => Err(CliError::usage(format!(
            "{source} {value:?}: expected an address and a port, like 127.0.0.1:8000 or [::1]:8000"
        ))),
    }
}

/// The same, or `unix:PATH`.
fn parse_publish_listen(source: &str, value: &str) -> Result<Vec<ListenAddress>, CliError> {
    if let Some(path) = value.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(vec![ListenAddress::Unix(path.into())]);
    }
    match value.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.map(ListenAddress::Tcp).collect()),
        Err(_) => Err(CliError::usage(format!(
            "{source} {value:?}: expected an address and a port, like 127.0.0.1:8001, or unix:PATH"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<Config>, CliError> {
        let wanted = read(arguments.iter().map(Into::into).collect())?;
        Ok(match wanted {
            Wanted::Help => None,
            Wanted::Check(config) | Wanted::Server(config) => Some(config),
        })
    }

    #[test]
    fn flags_reach_their_fields() {
        let config = parse(&[
            "--listen",
            "127.0.0.1:1",
            "--listen=[::1]:2",
            "--max-connections",
            "7",
            "--ping-interval=0.5",
            "--no-local-publish",
            "--console=public",
        ]);
        let config = config.expect("valid").expect("no help");
        assert_eq!(
            config.server.listen,
            [
                "127.0.0.1:1".parse().expect("valid"),
                "[::1]:2".parse().expect("valid")
            ]
        );
        assert_eq!(config.server.limits.connections_max, 7);
        assert_eq!(
            config.server.timeouts.ping_interval,
            Duration::from_millis(500)
        );
        assert_eq!(config.hub.ping_interval, Duration::from_millis(500));
        assert!(!config.trust.local_publish);
        assert_eq!(config.console, Console::Public);
    }

    #[test]
    fn rates_are_off_unless_they_are_set() {
        let rates = |arguments: &[&str]| {
            let config = parse(arguments).expect("valid").expect("no help");
            let limits = config.server.limits;
            [limits.messages_per_second, limits.bytes_per_second].map(|rate| rate.map(u32::from))
        };
        assert_eq!(rates(&[]), [None; 2]);
        let both = ["--messages-per-second", "10", "--bytes-per-second=4096"];
        assert_eq!(rates(&both), [Some(10), Some(4096)]);
        for off in ["0", "off"] {
            let overridden = [&both[..], &["--messages-per-second", off]].concat();
            assert_eq!(rates(&overridden), [None, Some(4096)]);
        }
        assert!(help().lines().any(|line| {
            line.starts_with("  --messages-per-second RATE ") && line.ends_with(" [off]")
        }));
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, expected) in [
            (
                &["--max-connections", "0"][..],
                "--max-connections \"0\": expected a whole number from 1 to 1000000",
            ),
            (
                &["--ping-interval", "-1"],
                "--ping-interval \"-1\": expected seconds from 0.001 to 86400",
            ),
            (
                &["--ping-interval", "NaN"],
                "--ping-interval \"NaN\": expected seconds from 0.001 to 86400",
            ),
            (
                &["--bytes-per-second", "-1"],
                "--bytes-per-second \"-1\": expected a whole number up to 4294967295, 0 is off",
            ),
            (
                &["--listen", "8000"],
                "--listen \"8000\": expected an address and a port, like 127.0.0.1:8000 or [::1]:8000",
            ),
            (
                &["--console", "yes"],
                "--console \"yes\": expected local, public or off",
            ),
            (
                &["--nonsense"],
                "there is no option --nonsense: see crieur --help",
            ),
        ] {
            let error = parse(arguments).expect_err("a mistake");
            assert_eq!((error.status, error.message.as_str()), (2, expected));
        }
        assert_eq!(parse(&["extra"]).expect_err("a mistake").status, 2);
        assert!(parse(&["--max-connections"]).is_err());
        assert!(parse(&["--help"]).expect("valid").is_none());
    }

    #[test]
    fn every_default_is_within_its_bounds() {
        let mut defaults = Config::default();
        for setting in SETTINGS {
            let (_, default) = setting.shown(&mut defaults);
            if default == "none" {
                continue;
            }
            assert_eq!(
                setting.apply(&mut Config::default(), &default),
                Ok(()),
                "{}",
                setting.name
            );
        }
    }
}
