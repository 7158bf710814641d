//! The settings of the server, from its command line and its environment.
//!
//! The table has them all; the help, the command line and the environment follow from it. What is
//! set that isn't there is an error: a misspelt restriction must not be ignored.

mod kind;
mod table;

use std::ffi::OsString;
use std::fmt::Write;

use crate::config::Config;
use crate::handover::program;

use super::arguments::{self, VALUE, unexpected};
use super::environment::{PREFIX, from_environment, variable};
use super::error::{CliError, did_you_mean};
use super::suggest::nearest;

use self::kind::Kind;
use self::table::{GROUPS, Setting, settings};

/// Variables that are those of other commands.
const OTHER_VARIABLES: [&str; 2] = ["url", "token-file"];

/// Where the help of a setting begins in its line.
const HELP_COLUMN: usize = 35;

/// How wide the help is.
const COLUMNS_MAX: usize = 100;

/// The help of all settings, in their groups.
pub(super) fn help() -> String {
    let mut defaults = Config::default();
    let mut text = String::new();
    for group in GROUPS {
        // Writing to a string can't fail.
        let _ = writeln!(text, "\n{}:", group.heading);
        for setting in group.settings {
            let mut flag = format!("  --{}", setting.name);
            if let Some(value) = setting.kind.shown() {
                flag = format!("{flag} {value}");
            }
            let default = setting.kind.default(&mut defaults);
            let default = default.map_or_else(String::new, |default| format!(" [{default}]"));
            write_entry(&mut text, flag, &(setting.help.to_owned() + &default));
        }
    }
    text
}

/// Writes what is said of `flag` beside it, in lines that fit.
fn write_entry(text: &mut String, flag: String, help: &str) {
    let mut line = flag;
    for (number, word) in help.split(' ').enumerate() {
        if number > 0 && line.len() + 1 + word.len() > COLUMNS_MAX {
            text.push_str(&line);
            text.push('\n');
            line.clear();
        }
        let column = HELP_COLUMN - 1;
        line = format!("{line:column$} {word}");
    }
    text.push_str(&line);
    text.push('\n');
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
pub(super) fn read(arguments: Vec<OsString>) -> Result<Wanted, CliError> {
    // A bad environment must not keep the help from a user that may need it for that.
    let is_help = |argument: &OsString| argument == "--help" || argument == "-h";
    if arguments.iter().any(is_help) {
        return Ok(Wanted::Help);
    }
    let mut config = Config::default();
    let variables = std::env::vars_os();
    check_variables(variables.map(|(name, value)| {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        (text(name), text(value))
    }))?;
    read_environment(&mut config)?;
    let is_check = read_arguments(&mut config, arguments)?;
    Ok(if is_check {
        Wanted::Check(config)
    } else {
        Wanted::Server(config)
    })
}

/// Says whether it is only to be checked.
fn read_arguments(config: &mut Config, arguments: Vec<OsString>) -> Result<bool, CliError> {
    let is_switch = |setting: &&Setting| matches!(setting.kind, Kind::Switch { .. });
    let names = |of: bool| settings().filter(move |setting| is_switch(setting) == of);
    let valued: Vec<_> = names(false).map(|setting| setting.name).collect();
    let switches: Vec<_> = names(true).map(|setting| setting.name).collect();
    let mut is_check = false;
    let mut seen = Vec::new();
    let given = arguments::read(arguments, &valued, &[&switches[..], &["check"]].concat())?;
    for (name, value) in given.unwrap_or_default() {
        let Some(setting) = settings().find(|setting| setting.name == name) else {
            if name == VALUE {
                return Err(unexpected(&value));
            }
            is_check = true;
            continue;
        };
        if let Kind::Switch { turn } = setting.kind {
            turn(config, true);
            continue;
        }
        // The command line wins over the environment, and adds to itself.
        if !seen.contains(&name) {
            seen.push(name);
            setting.kind.clear(config);
        }
        apply(setting, config, &value, &format!("--{name} "))?;
    }
    Ok(is_check)
}

fn read_environment(config: &mut Config) -> Result<(), CliError> {
    for setting in settings() {
        if let Some(value) = from_environment(setting.name)? {
            setting.kind.clear(config);
            let source = format!("{}=", variable(setting.name));
            apply(setting, config, &value, &source)?;
        }
    }
    Ok(())
}

fn apply(
    setting: &Setting,
    config: &mut Config,
    value: &str,
    source: &str,
) -> Result<(), CliError> {
    let applied = setting.kind.apply(config, value);
    applied.map_err(|expected| CliError::usage(format!("{source}{value:?}: expected {expected}")))
}

/// Checks that every variable that looks like one of ours is one.
fn check_variables(variables: impl Iterator<Item = (String, String)>) -> Result<(), CliError> {
    let names = settings().map(|setting| setting.name);
    let known: Vec<_> = names.chain(OTHER_VARIABLES).map(variable).collect();
    for (name, value) in variables {
        if name.starts_with(PREFIX)
            && !known.contains(&name)
            && name != program::VARIABLE
            && !is_service_link(&name, &value)
        {
            let meant = nearest(&name, known.iter().map(String::as_str));
            let hint = did_you_mean(meant, "crieur serve --help lists the settings");
            return Err(CliError::usage(format!("there is no setting {name}{hint}")));
        }
    }
    Ok(())
}

/// Whether a variable is one of those by which Kubernetes tells every container where a service
/// is, one that is called crieur: `CRIEUR_SERVICE_HOST`, `CRIEUR_SERVICE_PORT` and
/// `CRIEUR_SERVICE_PORT_HTTP`, `CRIEUR_PORT=tcp://…`, `CRIEUR_PORT_8000_TCP` and longer ones.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = |rest: &str| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| rest.starts_with(protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| is_port(rest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::kind::NONE;
    use super::*;
    use crate::config::Console;

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
    fn seconds_have_decimals() {
        let read = |value: &str| {
            let config = parse(&["--ping-interval", value]).ok()??;
            Some(config.server.timeouts.ping_interval.as_nanos())
        };
        for (value, nanos) in [
            ("0.001", 1_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
            ("007.25", 7_250_000_000),
            ("1.123456789", 1_123_456_789),
            ("86400", 86_400_000_000_000),
            ("86400.000000000", 86_400_000_000_000),
        ] {
            assert_eq!(read(value), Some(nanos), "{value}");
        }
        for value in [
            "",
            ".",
            "0",
            "0.0009",
            "86400.001",
            "1.2.3",
            "+1",
            "1e3",
            "1.0000000001",
            "1 ",
            "\u{661}",
            "18446744073709551616",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
        let rate = parse(&["--upgrades-per-address", "0.1"]).expect("valid");
        assert_eq!(rate.expect("no help").trust.upgrades_per_address, Some(0.1));
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, expected) in [
            (
                &["--max-connections", "0"][..],
                r#"--max-connections "0": expected a whole number from 1 to 1000000"#,
            ),
            (
                &["--ping-interval", "-1"],
                r#"--ping-interval "-1": expected seconds from 0.001 to 86400"#,
            ),
            (
                &["--ping-interval", "NaN"],
                r#"--ping-interval "NaN": expected seconds from 0.001 to 86400"#,
            ),
            (
                &["--bytes-per-second", "-1"],
                r#"--bytes-per-second "-1": expected a whole number up to 4294967295, 0 is off"#,
            ),
            (
                &["--listen", "8000"],
                r#"--listen "8000": expected an address and a port, like 127.0.0.1:8000 or [::1]:8000"#,
            ),
            (
                &["--console", "yes"],
                r#"--console "yes": expected local, public or off"#,
            ),
            (&["--nonsense"], "there is no option --nonsense"),
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
        for setting in settings() {
            let default = setting.kind.default(&mut defaults);
            let Some(default) = default.filter(|default| default != NONE) else {
                continue;
            };
            assert_eq!(
                setting.kind.apply(&mut Config::default(), &default),
                Ok(()),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn lists_replace_those_of_the_environment_and_the_default() {
        let config = parse(&[
            "--allow-origin",
            "http://a, http://b",
            "--allow-origin=http://c",
        ]);
        let config = config.expect("valid").expect("no help");
        assert_eq!(
            config.trust.allow_origin,
            ["http://a", "http://b", "http://c"]
        );
        assert_eq!(config.server.listen, Config::default().server.listen);
        let config = parse(&["--listen", "127.0.0.1:1,127.0.0.1:2"]);
        let config = config.expect("valid").expect("no help");
        assert_eq!(config.server.listen.len(), 2);
        for value in ["", ",", "127.0.0.1:1,nowhere"] {
            assert!(parse(&["--listen", value]).is_err(), "{value}");
        }
    }

    #[test]
    fn a_variable_that_is_no_setting_is_an_error() {
        let check = |name: &str, value: &str| {
            check_variables([(name.to_owned(), value.to_owned())].into_iter())
        };
        for (name, value) in [
            ("HOME", "/"),
            ("CRIEURS", "1"),
            ("CRIEUR_LISTEN", "127.0.0.1:0"),
            ("CRIEUR_PUBLISH_TOKEN_FILE", "/run/token"),
            ("CRIEUR_URL", "ws://127.0.0.1:8000/"),
            ("CRIEUR_SERVICE_HOST", "10.0.0.11"),
            ("CRIEUR_SERVICE_PORT", "8000"),
            ("CRIEUR_SERVICE_PORT_HTTP", "8000"),
            ("CRIEUR_PUBLISH_SERVICE_HOST", "10.0.0.12"),
            ("CRIEUR_PORT", "tcp://10.0.0.11:8000"),
            ("CRIEUR_PORT_8000_TCP", "tcp://10.0.0.11:8000"),
            ("CRIEUR_PORT_8000_TCP_PROTO", "tcp"),
        ] {
            assert!(check(name, value).is_ok(), "{name}={value}");
        }
        const LISTS: &str = "crieur serve --help lists the settings";
        let file = "did you mean CRIEUR_PUBLISH_TOKEN_FILE?";
        for (name, value, hint) in [
            ("CRIEUR_PUBLISH_TOKEN_FIEL", "/run/token", file),
            ("CRIEUR_ULR", "ws://h/", "did you mean CRIEUR_URL?"),
            ("CRIEUR_PORT", "8000", LISTS),
            ("CRIEUR_PORT_PUBLISH", "8001", LISTS),
            ("CRIEUR_", "", LISTS),
            ("CRIEUR_CHECK", "1", LISTS),
        ] {
            let error = check(name, value).expect_err("a mistake");
            let expected = format!("there is no setting {name}: {hint}");
            assert_eq!((error.status, error.message), (2, expected));
        }
    }
}
