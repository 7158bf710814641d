//! `crieur token`: makes a client's token, or says what a server would say to one, and why.
//!
//! The rules are those of `hub::access::jwt`: a token that is made here is checked like any other before it is printed.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::HubLimits;
use crate::hub::access::jwt::key::Algorithm;
use crate::hub::access::jwt::signer::Signer;
use crate::hub::access::jwt::{ClientKeys, Grant, TokenError};
use crate::hub::command::parse_subscriptions;
use crate::hub::filter::covers;

use super::arguments;
use super::environment::from_environment;
use super::error::CliError;
use super::output::{Plain, print};
use super::subscribe::subscription;
use super::trust::{CLIENT_KEY_FILE, parse_secrets, read_secrets};

pub(super) const HELP: &str = "\
Usage: crieur token --key-file FILE --allow SUBSCRIPTION [OPTIONS]
       crieur token --check TOKEN --client-key-file FILE [SUBSCRIPTION...]

Makes a client's token and prints it; or says what a server would say to a token, and why.

To make a token:
  --key-file FILE    What signs it: an HS256 secret, which the server has too, or a private key as
                     PEM, of P-256 (ES256) or Ed25519 (EdDSA). If there are two, the first signs.
                     crieur keygen makes such files
  --allow SUBSCRIPTION
                     What the client may subscribe to: the name of a channel, a JSON object, or a
                     JSON list of these. May be given several times
  --ttl TIME         How long the token is good: 90s, 15m, 1h or 7d [1h]
  --sub USER         Whose it is: a label for operators, which grants nothing [none]
  --no-history       The client gets nothing that was published before it subscribed

To check a token:
  --check TOKEN      The token, or - for standard input, since arguments are visible to all users
  --client-key-file FILE
                     The keys that the server has [CRIEUR_CLIENT_KEY_FILE]
  SUBSCRIPTION       Also says whether the token allows it

Examples:
  crieur token --key-file client.key --allow Production --ttl 1h > client.token
  crieur subscribe --token-file client.token Production
  crieur token --check - --client-key-file client.key Production < client.token
";

const KEY_FILE: &str = "--key-file";

/// How long a token is good that is made without `--ttl`.
const TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// The longest time: nobody waits for more.
const TTL_SECONDS_MAX: u64 = 3650 * DAY;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The first second that has no date here: that of the year 10000.
const DATES_END: u64 = 253_402_300_800;

/// What the command line says.
#[derive(Default)]
struct Options {
    key_file: Option<String>,
    /// JSON, each a subscription.
    allow: Option<Vec<String>>,
    ttl: Option<Duration>,
    sub: Option<String>,
    withholds_history: bool,
    check: Option<String>,
    client_key_file: Option<String>,
    /// JSON, each a subscription.
    asked: Vec<String>,
}

impl Options {
    fn makes(&self) -> bool {
        self.key_file.is_some()
            || self.allow.is_some()
            || self.ttl.is_some()
            || self.sub.is_some()
            || self.withholds_history
    }

    fn checks(&self) -> bool {
        self.check.is_some() || self.client_key_file.is_some() || !self.asked.is_empty()
    }
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let valued = [
        "key-file",
        "allow",
        "ttl",
        "sub",
        "check",
        "client-key-file",
    ];
    let Some(given) = arguments::read(arguments, &valued, &["no-history"])? else {
        return print(HELP);
    };
    let mut options = Options::default();
    for (name, value) in given {
        match name {
            "key-file" => options.key_file = Some(value),
            "allow" => add_allowed(&value, options.allow.get_or_insert_default())?,
            "ttl" => options.ttl = Some(read_ttl(&value)?),
            "sub" => options.sub = Some(value),
            "no-history" => options.withholds_history = true,
            "check" => options.check = Some(value),
            "client-key-file" => options.client_key_file = Some(value),
            _ => options.asked.push(subscription(&value)?),
        }
    }
    match (options.makes(), options.checks()) {
        (true, false) => make(&options),
        (false, true) => check(options),
        (true, true) => Err(CliError::usage(
            "--key-file makes a token, --check and its keys look at one: one at a time",
        )),
        (false, false) => Err(CliError::usage(
            "--key-file or --check is missing: see crieur token --help",
        )),
    }
}

/// Adds what one `--allow` says.
fn add_allowed(argument: &str, allow: &mut Vec<String>) -> Result<(), CliError> {
    if !argument.starts_with('[') {
        allow.push(subscription(argument)?);
        return Ok(());
    }
    let list: Vec<&RawValue> = serde_json::from_str(argument)
        .map_err(|error| CliError::usage(format!("--allow {argument:?} is not JSON: {error}")))?;
    allow.extend(list.iter().map(|entry| entry.get().to_owned()));
    Ok(())
}

/// A time with its unit, or in seconds.
fn read_ttl(text: &str) -> Result<Duration, CliError> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => 1,
    };
    // Of digits only: no sign.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| is_number);
    let seconds = seconds.and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(seconds @ 1..=TTL_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(CliError::usage(format!(
            "--ttl {text:?}: it is a time up to 3650d, such as 90s, 15m, 1h or 7d"
        ))),
    }
}

/// Makes a token, and prints it.
fn make(options: &Options) -> Result<ExitCode, CliError> {
    let missing = |what| CliError::usage(format!("{what} is missing: see crieur token --help"));
    let path = options
        .key_file
        .as_deref()
        .ok_or_else(|| missing(KEY_FILE))?;
    let allow = options.allow.as_ref().ok_or_else(|| missing("--allow"))?;
    let path = Path::new(path);
    let text = read_secrets(KEY_FILE, path)?;
    let signer = parse_secrets(KEY_FILE, path, &text, Signer::parse)?;
    let now = unix_now();
    let expires = now + options.ttl.unwrap_or(TTL_DEFAULT);
    let mut claims = "{".to_owned();
    if let Some(sub) = &options.sub {
        claims += &format!(r#""sub":{},"#, serde_json::Value::from(sub.as_str()));
    }
    if options.withholds_history {
        claims += r#""history":false,"#;
    }
    let allow = allow.join(",");
    claims += &format!(
        r#""iat":{},"exp":{},"allow":[{allow}]}}"#,
        now.as_secs(),
        expires.as_secs()
    );
    let token = signer.sign(&claims);
    // What no server takes isn't printed.
    match verify(&signer.client_keys(), &token, now) {
        Ok(_) => print(&format!("{token}\n")),
        Err(error) => Err(CliError::failure(format!(
            "no server would take it: {}",
            allow_fault(&format!("[{allow}]"), error)
        ))),
    }
}

fn verify(keys: &ClientKeys, token: &str, now: Duration) -> Result<Grant, TokenError> {
    // A server may have other limits; these are those that it has unless it is told otherwise.
    keys.verify(token, now, &HubLimits::default())
}

/// What is wrong with a list, where that is what is wrong with the token.
fn allow_fault(allow: &str, error: TokenError) -> String {
    let fault = parse_subscriptions(allow, &HubLimits::default()).err();
    match (error, fault) {
        (TokenError::BadAllow(_), Some(fault)) => format!("{error}: {}", fault.detail),
        _ => error.to_string(),
    }
}

/// What is shown of a token; other members don't matter.
#[derive(Deserialize, Default)]
struct Said<'a> {
    #[serde(borrow)]
    alg: Option<&'a RawValue>,
    sub: Option<&'a RawValue>,
    nbf: Option<&'a RawValue>,
    exp: Option<&'a RawValue>,
    allow: Option<&'a RawValue>,
    history: Option<&'a RawValue>,
}

impl<'a> Said<'a> {
    /// What one part of a token says, if it can be read.
    fn of(json: &'a [u8]) -> Self {
        let text = std::str::from_utf8(json).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// Says what a server would say to a token.
fn check(options: Options) -> Result<ExitCode, CliError> {
    let missing = |what| CliError::usage(format!("{what} is missing: see crieur token --help"));
    let token = match options.check.as_deref() {
        Some("-") => read_token()?,
        Some(token) => token.trim().to_owned(),
        None => return Err(missing("--check")),
    };
    let path = match options.client_key_file {
        Some(path) => Some(path),
        None => from_environment("client-key-file")?,
    };
    let path = path.ok_or_else(|| missing(CLIENT_KEY_FILE))?;
    let path = Path::new(&path);
    let text = read_secrets(CLIENT_KEY_FILE, path)?;
    let keys = parse_secrets(CLIENT_KEY_FILE, path, &text, ClientKeys::parse)?;
    let asked = options.asked.iter().map(|wanted| {
        let list = format!("[{wanted}]");
        let read = parse_subscriptions(&list, &HubLimits::default());
        read.map(|read| (wanted, read))
            .map_err(|error| CliError::usage(format!("{wanted}: {}", error.detail)))
    });
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    let now = unix_now();

    let parts: Vec<_> = token.split('.').collect();
    let part = |position: usize| {
        let part = parts.get(position).copied().unwrap_or_default();
        URL_SAFE_NO_PAD.decode(part).unwrap_or_default()
    };
    let (header, claims) = (part(0), part(1));
    let (header, claims) = (Said::of(&header), Said::of(&claims));
    let verified = verify(&keys, &token, now);
    let mut report = describe(&header, &claims, now);
    let is_taken = match &verified {
        Ok(grant) => {
            let left = in_words(grant.time_left(now).as_secs());
            report += &format!("taken: the server takes it for {left} more\n");
            let may = |(wanted, read): &(&String, Vec<_>)| {
                let is_allowed = read
                    .iter()
                    .all(|wanted| grant.allow.iter().any(|allowed| covers(allowed, wanted)));
                let line = match is_allowed {
                    true => format!("allowed: {wanted}\n"),
                    false => format!("forbidden: {wanted}: nothing in allow covers it\n"),
                };
                (is_allowed, line)
            };
            let answers: Vec<_> = asked.iter().map(may).collect();
            report.extend(answers.iter().map(|(_, line)| line.as_str()));
            answers.iter().all(|(is_allowed, _)| *is_allowed)
        }
        Err(error) => {
            report += &format!("refused: {}\n", why(*error, &keys, &header, &claims));
            let word = match error {
                TokenError::Expired => "token-expired",
                _ => "token-invalid",
            };
            report += &format!("the client's connection is closed with 3000, {word}\n");
            false
        }
    };
    print(&report).map(|printed| if is_taken { printed } else { ExitCode::FAILURE })
}

/// The token on standard input.
fn read_token() -> Result<String, CliError> {
    let mut token = String::new();
    // More than any token has.
    let read = std::io::stdin().take(64 * 1024).read_to_string(&mut token);
    read.map_err(|error| CliError::failure(format!("standard input: {error}")))?;
    Ok(token.trim().to_owned())
}

/// A line for each thing that a token says, true or not.
fn describe(header: &Said<'_>, claims: &Said<'_>, now: Duration) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn fmt::Display| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name:<8} {}", Plain(&value.to_string()));
    };
    let said = |value: Option<&RawValue>| value.map_or("none", RawValue::get).to_owned();
    line("alg", &said(header.alg));
    line("sub", &said(claims.sub));
    line("allow", &said(claims.allow));
    line("history", &said(claims.history));
    if let Some(nbf) = claims.nbf {
        line("nbf", &date(nbf.get(), now));
    }
    line("exp", &date(&said(claims.exp), now));
    text
}

/// A time of a token, as it is written and as a date.
fn date(json: &str, now: Duration) -> String {
    let Some(seconds) = read_seconds(json) else {
        return json.to_owned();
    };
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let distance = in_words(seconds.abs_diff(now.as_secs()));
    match seconds >= now.as_secs() {
        true => format!("{json}, {date}, in {distance}"),
        false => format!("{json}, {date}, {distance} ago"),
    }
}

/// Whole seconds of a time, if it has a date.
fn read_seconds(json: &str) -> Option<u64> {
    let seconds: f64 = serde_json::from_str(json).ok()?;
    (0.0..DATES_END as f64)
        .contains(&seconds)
        .then_some(seconds as u64)
}

/// A time in its largest unit of which it has two or more.
fn in_words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / MINUTE),
        7_200..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}

/// Why a token is refused, with what can be said beside that.
fn why(error: TokenError, keys: &ClientKeys, header: &Said<'_>, claims: &Said<'_>) -> String {
    let names = |algorithms: &mut dyn Iterator<Item = Algorithm>| {
        let names: Vec<_> = algorithms.map(Algorithm::name).collect();
        names.join(", ")
    };
    match error {
        TokenError::Algorithm => {
            let keys = names(&mut keys.algorithms());
            let said = Plain(header.alg.map_or("none", RawValue::get));
            format!("{error}: it says {said}, and the file has {keys}")
        }
        TokenError::Signature => {
            format!(
                "{error}, or was changed since it was signed; what it says may be anybody's words"
            )
        }
        TokenError::BadAllow(_) => {
            let allow = claims.allow.map_or("[]", RawValue::get);
            allow_fault(allow, error)
        }
        _ => error.to_string(),
    }
}

/// The time since the Unix epoch.
fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("1", 1),
            ("90s", 90),
            ("15m", 900),
            ("1h", 3600),
            ("7d", 604_800),
            ("3650d", TTL_SECONDS_MAX),
        ] {
            let ttl = read_ttl(text).expect("a time");
            assert_eq!(ttl, Duration::from_secs(seconds), "{text}");
        }
        for text in [
            "",
            "h",
            "0",
            "0h",
            "-1h",
            "+1h",
            "1.5h",
            "1 h",
            "1w",
            "3651d",
            "1hh",
            "99999999999999999999",
            "307445734561825861m",
        ] {
            assert!(read_ttl(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn dates_are_shown_where_there_are_any() {
        let now = Duration::from_secs(1_000_000);
        let shown = |json: &str| date(json, now);
        assert_eq!(
            shown("1000090"),
            "1000090, Mon, 12 Jan 1970 13:48:10 GMT, in 90 s"
        );
        assert_eq!(
            shown("996400.5"),
            "996400.5, Mon, 12 Jan 1970 12:46:40 GMT, 60 min ago"
        );
        for odd in ["-1", "1e300", "none", "\"1\"", "253402300800", "NaN"] {
            assert_eq!(shown(odd), odd);
        }
        assert!(shown("253402300799").contains("9999"));
        assert_eq!(in_words(3 * DAY), "3 days");
    }
}
