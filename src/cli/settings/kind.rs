//! What the values of settings are: how each kind is read, what it is when it isn't set, and
//! how both are shown.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, ListenAddress};

/// What a setting's value is, and where it goes.
pub(super) enum Kind {
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
    /// The same, or 0 for nothing at all.
    SecondsOrZero {
        field: fn(&mut Config) -> &mut Duration,
    },
    /// So many `unit`, or no limit.
    Limit {
        field: fn(&mut Config) -> &mut Option<NonZeroU32>,
        unit: &'static str,
    },
    /// So many per second, fractions allowed, or no limit.
    Rate {
        field: fn(&mut Config) -> &mut Option<f64>,
    },
    /// A file.
    File {
        field: fn(&mut Config) -> &mut Option<PathBuf>,
    },
    /// A directory.
    Directory {
        field: fn(&mut Config) -> &mut Option<PathBuf>,
    },
    /// May be given several times, or several together, with commas.
    List {
        field: fn(&mut Config) -> &mut Vec<String>,
        shown: &'static str,
    },
    /// A list of addresses.
    Addresses {
        field: fn(&mut Config) -> &mut Vec<SocketAddr>,
    },
    /// A list of addresses, or of paths.
    PublishAddresses {
        field: fn(&mut Config) -> &mut Vec<ListenAddress>,
    },
    /// Permissions of a file, in octal digits.
    Mode { field: fn(&mut Config) -> &mut u32 },
    /// One of `words`.
    Word {
        choose: fn(&mut Config, &str),
        words: &'static [&'static str],
        default: &'static str,
        shown: &'static str,
    },
    /// What others understand.
    Text {
        field: fn(&mut Config) -> &mut String,
        shown: &'static str,
    },
    /// On or off: 1 or 0 in the environment, and without a value on the command line.
    Switch { turn: fn(&mut Config, bool) },
}

/// What a rate that limits nothing is written as.
const OFF: &str = "off";

/// What isn't set and needs nothing in its place.
pub(super) const NONE: &str = "none";

/// The longest time that can be set: a day.
const SECONDS_MAX: u64 = 86_400;

/// The shortest time, and the lowest rate, that can be set.
const DECIMAL_MIN: Duration = Duration::from_millis(1);

/// The highest rate that can be set.
const RATE_MAX: u64 = 1_000_000_000;

/// What is expected where an address is.
const ADDRESS: &str = "an address and a port, like 127.0.0.1:8000 or [::1]:8000";
const PUBLISH_ADDRESS: &str = "an address and a port, like 127.0.0.1:8001, or unix:PATH";

impl Kind {
    /// Takes `value` over; what was there of a list stays.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn apply(&self, config: &mut Config, value: &str) -> Result<(), String> {
        match *self {
            Self::Count { field, min, max } | Self::Bytes { field, min, max } => {
                *field(config) = read_number(value, min, max)?;
            }
            Self::Seconds { field } => *field(config) = read_seconds(value)?,
            Self::SecondsOrZero { field } => {
                *field(config) = match value {
                    "0" => Duration::ZERO,
                    value => read_seconds(value).map_err(|expected| format!("0, or {expected}"))?,
                }
            }
            Self::Limit { field, .. } => *field(config) = read_limit(value)?,
            Self::Rate { field } => *field(config) = read_rate(value)?,
            // An unset variable of a script must not lift a restriction.
            Self::File { field } => {
                let path = (!value.is_empty()).then(|| value.into());
                *field(config) = Some(path.ok_or("the path of a file")?);
            }
            Self::Directory { field } => {
                let path = (!value.is_empty()).then(|| value.into());
                *field(config) = Some(path.ok_or("the path of a directory")?);
            }
            Self::List { field, .. } => {
                let entries = entries(value).map(str::to_owned);
                extend(field(config), entries.collect(), "at least one")?;
            }
            Self::Addresses { field } => {
                let addresses = entries(value).map(resolve).collect::<Option<Vec<_>>>();
                let addresses = addresses.unwrap_or_default().concat();
                extend(field(config), addresses, ADDRESS)?;
            }
            Self::PublishAddresses { field } => {
                let addresses = entries(value).map(read_publish_address);
                let addresses = addresses.collect::<Option<Vec<_>>>();
                let addresses = addresses.unwrap_or_default().concat();
                extend(field(config), addresses, PUBLISH_ADDRESS)?;
            }
            Self::Mode { field } => {
                let mode = u32::from_str_radix(value, 8).ok();
                let mode = mode.filter(|mode| (0o100..=0o777).contains(mode));
                *field(config) = mode.ok_or("permissions in octal, like 0660")?;
            }
            Self::Word { choose, words, .. } => {
                if !words.contains(&value) {
                    return Err(one_of(words));
                }
                choose(config, value);
            }
            Self::Text { field, .. } => *field(config) = value.to_owned(),
            Self::Switch { turn } => match value {
                "1" | "true" => turn(config, true),
                "0" | "false" => turn(config, false),
                _ => return Err("1 or 0".to_owned()),
            },
        }
        Ok(())
    }

    /// Forgets what a list has, which the command line or the environment is about to replace.
    pub(super) fn clear(&self, config: &mut Config) {
        match *self {
            Self::List { field, .. } => field(config).clear(),
            Self::Addresses { field } => field(config).clear(),
            Self::PublishAddresses { field } => field(config).clear(),
            _ => {}
        }
    }

    /// What follows the flag in the help, if anything does.
    pub(super) const fn shown(&self) -> Option<&'static str> {
        Some(match *self {
            Self::Count { .. } => "N",
            Self::Bytes { .. } => "BYTES",
            Self::Seconds { .. } | Self::SecondsOrZero { .. } => "SECONDS",
            Self::Rate { .. } => "RATE",
            Self::File { .. } => "FILE",
            Self::Directory { .. } => "DIRECTORY",
            Self::Mode { .. } => "MODE",
            Self::Addresses { .. } => "ADDRESS:PORT",
            Self::PublishAddresses { .. } => "ADDRESS",
            Self::Limit { unit: shown, .. }
            | Self::List { shown, .. }
            | Self::Word { shown, .. }
            | Self::Text { shown, .. } => shown,
            Self::Switch { .. } => return None,
        })
    }

    /// The default, as it would be written; a switch has none.
    pub(super) fn default(&self, defaults: &mut Config) -> Option<String> {
        let limit = |limit: Option<String>| limit.unwrap_or_else(|| OFF.to_owned());
        Some(match *self {
            Self::Count { field, .. } | Self::Bytes { field, .. } => field(defaults).to_string(),
            Self::Seconds { field } | Self::SecondsOrZero { field } => {
                field(defaults).as_secs_f64().to_string()
            }
            Self::Limit { field, .. } => limit(field(defaults).map(|rate| rate.to_string())),
            Self::Rate { field } => limit(field(defaults).map(|rate| rate.to_string())),
            Self::Addresses { field } => {
                let addresses: Vec<_> = field(defaults).iter().map(SocketAddr::to_string).collect();
                addresses.join(",")
            }
            Self::File { .. }
            | Self::Directory { .. }
            | Self::List { .. }
            | Self::PublishAddresses { .. } => NONE.to_owned(),
            Self::Mode { field } => format!("0{:o}", field(defaults)),
            Self::Word { default, .. } => default.to_owned(),
            Self::Text { field, .. } => field(defaults).clone(),
            Self::Switch { .. } => return None,
        })
    }
}

fn entries(value: &str) -> impl Iterator<Item = &str> {
    let entries = value.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty())
}

fn extend<T>(list: &mut Vec<T>, entries: Vec<T>, expected: &str) -> Result<(), String> {
    if entries.is_empty() {
        return Err(expected.to_owned());
    }
    list.extend(entries);
    Ok(())
}

fn read_number(value: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = value.parse().ok();
    let number = number.filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

fn read_seconds(value: &str) -> Result<Duration, String> {
    let seconds = read_decimal(value, SECONDS_MAX);
    let seconds = seconds.filter(|seconds| *seconds >= DECIMAL_MIN);
    seconds.ok_or_else(|| format!("seconds from 0.001 to {SECONDS_MAX}"))
}

/// A number up to `max`, with up to nine decimals, as seconds. Reading a float would take the static program 15 KiB more.
fn read_decimal(value: &str, max: u64) -> Option<Duration> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    let mut digits = whole.bytes().chain(decimals.bytes()).peekable();
    digits.peek()?;
    if decimals.len() > 9 || !digits.all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // A digit that isn't written is 0.
    let number = |digits: String| digits.parse::<u64>().ok();
    let seconds = number(format!("0{whole}"))?;
    let nanos = number(format!("{decimals:0<9}"))?;
    let read = Duration::new(seconds, nanos as u32);
    (read <= Duration::from_secs(max)).then_some(read)
}

fn read_limit(value: &str) -> Result<Option<NonZeroU32>, String> {
    let rate = match value {
        OFF => Ok(0),
        number => number.parse(),
    };
    let expected = |_| format!("a whole number up to {}, 0 is {OFF}", u32::MAX);
    Ok(NonZeroU32::new(rate.map_err(expected)?))
}

fn read_rate(value: &str) -> Result<Option<f64>, String> {
    let rate = match value {
        OFF => Some(Duration::ZERO),
        number => read_decimal(number, RATE_MAX),
    };
    let rate = rate.filter(|rate| rate.is_zero() || *rate >= DECIMAL_MIN);
    let rate = rate.ok_or_else(|| format!("a number from 0.001 to {RATE_MAX}, 0 is {OFF}"))?;
    Ok((!rate.is_zero()).then_some(rate.as_secs_f64()))
}

/// Every address that a name has here.
fn resolve(value: &str) -> Option<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in value.to_socket_addrs().ok()? {
        // A name can have an address twice, as localhost in some files of hosts.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Some(addresses)
}

fn read_publish_address(value: &str) -> Option<Vec<ListenAddress>> {
    if let Some(path) = value.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Some(vec![ListenAddress::Unix(path.into())]);
    }
    let addresses = resolve(value)?.into_iter();
    Some(addresses.map(ListenAddress::Tcp).collect())
}

fn one_of(words: &[&str]) -> String {
    match words {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => words.concat(),
    }
}
