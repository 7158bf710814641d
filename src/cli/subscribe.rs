//! `crieur subscribe`: prints what arrives, and comes back when the connection is lost.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use lexopt::ValueExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, Received, Url};
use crate::ws::close::{CloseCode, CloseFrame};
use fastrand::Rng;

use super::environment::from_environment;
use super::error::CliError;
use super::output::{print, write_line};
use super::remote::{default_url, error_of, failed, server};

const HELP: &str = "\
Usage: crieur subscribe [--url URL] [--token-file FILE] SUBSCRIPTION...

Prints each notification that arrives as a line of JSON, until stopped. A connection
that is lost is made again, with growing pauses.

  SUBSCRIPTION    the name of a channel; or a JSON object with package, page and,
                  if not everything of that page is wanted, filters
  --url URL       the server [ws://127.0.0.1:8000/, or CRIEUR_URL]
  --token-file FILE
                  the first line is a client's token, to be shown to the server
                  [none, or CRIEUR_TOKEN_FILE]

Examples:
  crieur subscribe Production
  crieur subscribe '{\"package\":\"shop\",\"page\":\"orders\",\"filters\":{\"values\":{\"state\":[\"new\",\"paid\"]}}}'
";

/// The first pause before a new try, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The longest pause that a server may ask for.
const RETRY_MAX: Duration = Duration::from_secs(600);

/// The words behind a 1008 that no later try mends. Others, such as `unfinished-message`, are
/// bad luck of one connection.
const FINAL_WORDS: [&str; 2] = ["forbidden", "invalid-notification"];

/// A connection that held for so long was a good one: the next pause is short again.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// How long the server may take to answer a subscription or a ping.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server says to a subscription; other members don't matter.
#[derive(Deserialize)]
struct Subscribed<'a> {
    #[serde(borrow, rename = "type")]
    kind: &'a str,
    heartbeat: Option<f64>,
}

/// How a connection ended.
enum Ended {
    /// The server closed it, and perhaps said when to come back.
    Closed(CloseFrame),
    Lost(ClientError),
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    use lexopt::Arg::{Long, Short, Value};
    let mut url = default_url()?;
    let mut token_file = from_environment("token-file")?;
    let mut subscriptions = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return print(HELP),
            Long("url") => url = parser.value()?.string()?,
            Long("token-file") => token_file = Some(parser.value()?.string()?),
            Value(value) => subscriptions.push(subscription(&value.string()?)?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if subscriptions.is_empty() {
        return Err(CliError::usage(
            "a subscription is missing: see crieur subscribe --help",
        ));
    }
    let url = server(&url, token_file.as_deref())?;
    let message = format!(
        r#"{{"sender":"client","subscriptions":[{}]}}"#,
        subscriptions.join(",")
    );
    follow(&url, &message)
}

/// A subscription as JSON: an object or a string as it is given, else the name of a channel.
fn subscription(argument: &str) -> Result<String, CliError> {
    if !argument.starts_with(['{', '"']) {
        return Ok(serde_json::Value::from(argument).to_string());
    }
    serde_json::from_str::<&RawValue>(argument)
        .map(|raw| raw.get().to_owned())
        .map_err(|error| CliError::usage(format!("subscription {argument:?} is not JSON: {error}")))
}

/// Subscribes, and subscribes again whenever the connection is lost. The first try must
/// succeed: a mistake in the URL would otherwise look like a server that is away.
fn follow(url: &Url, message: &str) -> Result<ExitCode, CliError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| CliError::failure(format!("no randomness: {error}")))?;
    let mut random = Rng::with_seed(u64::from_ne_bytes(seed));
    let mut client = Client::connect(url).map_err(|error| failed(url, error))?;
    let mut tries = 0;
    loop {
        let since = Instant::now();
        let Some(ended) = listen(&mut client, message)? else {
            return Ok(ExitCode::SUCCESS);
        };
        if since.elapsed() >= STABLE_AFTER {
            tries = 0;
        }
        let mut pause = match &ended {
            Ended::Closed(frame) => {
                refuse_if_final(frame)?;
                say(&format!("the server closed: {}", frame.reason));
                retry_of(frame)
            }
            Ended::Lost(error) => {
                say(&error.to_string());
                None
            }
        };
        client = loop {
            let wait = pause.take().unwrap_or_else(|| backoff(tries, &mut random));
            tries += 1;
            thread::sleep(wait);
            match Client::connect(url) {
                Ok(client) => break client,
                Err(error) => say(&format!("{url}: {error}")),
            }
        };
        say("connected again");
    }
}

/// Fails on a Close after which reconnecting is of no use.
fn refuse_if_final(frame: &CloseFrame) -> Result<(), CliError> {
    let code = frame.code.map_or(0, CloseCode::as_u16);
    let is_final = match code {
        1008 => member_of(frame, "reason")
            .as_str()
            .is_some_and(|word| FINAL_WORDS.contains(&word)),
        3000 | 3003 => true,
        _ => false,
    };
    if is_final {
        return Err(CliError::failure(format!(
            "the server closed with {code} {}",
            frame.reason
        )));
    }
    Ok(())
}

/// How long the server wants to be left alone.
fn retry_of(frame: &CloseFrame) -> Option<Duration> {
    let millis = member_of(frame, "retry").as_f64()?;
    let is_time = millis >= 0.0;
    is_time.then(|| Duration::from_secs_f64((millis / 1000.0).min(RETRY_MAX.as_secs_f64())))
}

/// A member of the reason, which is JSON where the server started the Close; else `null`.
fn member_of(frame: &CloseFrame, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(&frame.reason)
        .map(|reason| reason[name].clone())
        .unwrap_or_default()
}

/// Exponential, with full jitter: clients that were lost together come back apart. The first
/// try after a good connection is made at once.
fn backoff(tries: u32, random: &mut Rng) -> Duration {
    if tries == 0 {
        return Duration::ZERO;
    }
    let ceiling = BACKOFF_FIRST
        .saturating_mul(1 << (tries - 1).min(16))
        .min(BACKOFF_MAX);
    Duration::from_millis(random.u64(0..=ceiling.as_millis() as u64))
}

/// Subscribes and prints what arrives until the connection ends; `None` when nobody reads
/// what is printed.
fn listen(client: &mut Client, message: &str) -> Result<Option<Ended>, CliError> {
    if let Err(error) = client.send_text(message) {
        return Ok(Some(Ended::Lost(error)));
    }
    let mut heartbeat = ANSWER_TIMEOUT;
    let mut is_pinged = true;
    loop {
        let timeout = if is_pinged { ANSWER_TIMEOUT } else { heartbeat };
        let received = client
            .set_read_timeout(Some(timeout))
            .and_then(|()| client.receive());
        match received {
            Ok(Received::Text(text)) => {
                is_pinged = false;
                if let Some(error) = error_of(&text) {
                    return Err(CliError::failure(error));
                }
                match serde_json::from_str(&text) {
                    Ok(Subscribed {
                        kind: "subscribed",
                        heartbeat: Some(seconds),
                    }) => {
                        heartbeat = Duration::try_from_secs_f64(seconds)
                            .unwrap_or(heartbeat)
                            .max(Duration::from_millis(10));
                        say("subscribed");
                    }
                    Ok(Subscribed {
                        kind: "pong" | "subscribed",
                        ..
                    }) => {}
                    _ if write_line(&mut io::stdout(), &one_line(&text)).is_err() => {
                        return Ok(None);
                    }
                    _ => {}
                }
            }
            Ok(Received::Close(frame)) => return Ok(Some(Ended::Closed(frame))),
            // Silence: ask once, then believe it.
            Err(ClientError::TimedOut) if !is_pinged => {
                is_pinged = true;
                if let Err(error) = client.send_text(r#"{"type":"ping"}"#) {
                    return Ok(Some(Ended::Lost(error)));
                }
            }
            Err(error) => return Ok(Some(Ended::Lost(error))),
        }
    }
}

/// JSON on one line: a line break in it is white space between its parts, never in a string.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn say(line: &str) {
    let _ = write_line(&mut io::stderr(), &format!("crieur: {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_json_or_names() {
        assert_eq!(
            subscription("Production").expect("valid"),
            r#""Production""#
        );
        assert_eq!(subscription(r#"a"b"#).expect("valid"), r#""a\"b""#);
        assert_eq!(subscription(r#""x""#).expect("valid"), r#""x""#);
        assert_eq!(
            subscription(r#"{"package": 1}"#).expect("valid"),
            r#"{"package": 1}"#
        );
        assert!(subscription("{").is_err());
    }

    #[test]
    fn backoff_grows_to_its_ceiling_with_full_jitter() {
        let mut random = Rng::with_seed(1);
        assert_eq!(backoff(0, &mut random), Duration::ZERO);
        for (tries, ceiling_ms) in [
            (1, 500),
            (2, 1000),
            (6, 16_000),
            (7, 30_000),
            (1000, 30_000),
        ] {
            let pauses: Vec<_> = (0..2000).map(|_| backoff(tries, &mut random)).collect();
            let longest = pauses.iter().max().expect("some");
            let mean = pauses.iter().sum::<Duration>() / 2000;
            assert!(
                *longest <= Duration::from_millis(ceiling_ms)
                    && *longest > Duration::from_millis(ceiling_ms * 9 / 10)
            );
            assert!(
                mean > Duration::from_millis(ceiling_ms * 4 / 10)
                    && mean < Duration::from_millis(ceiling_ms * 6 / 10)
            );
        }
    }

    #[test]
    fn the_server_says_when_to_come_back() {
        let retry = |reason: &str| retry_of(&CloseFrame::new(CloseCode::GOING_AWAY, reason));
        assert_eq!(
            retry(r#"{"reason":"shutdown","retry":4200}"#),
            Some(Duration::from_millis(4200))
        );
        assert_eq!(retry(r#"{"retry":1e300}"#), Some(RETRY_MAX));
        assert_eq!(
            retry(r#"{"reason":5,"retry":7}"#),
            Some(Duration::from_millis(7))
        );
        assert_eq!(retry(r#"{"reason":"shutdown"}"#), None);
        assert_eq!(retry(r#"{"retry":-1}"#), None);
        assert_eq!(retry("bye"), None);
    }

    #[test]
    fn only_a_refusal_is_final() {
        let is_final = |code, reason: &str| {
            let frame = CloseFrame::new(CloseCode::from_wire(code).expect("a code"), reason);
            refuse_if_final(&frame).is_err()
        };
        for word in ["forbidden", "invalid-notification"] {
            assert!(is_final(
                1008,
                &format!(r#"{{"reason":"{word}","retry":4200}}"#)
            ));
            assert!(!is_final(1013, &format!(r#"{{"reason":"{word}"}}"#)));
        }
        for reason in [
            r#"{"reason":"unfinished-message","retry":4200}"#,
            r#"{"reason":"of-a-newer-server"}"#,
            r#"{"reason":["forbidden"]}"#,
            r#"{"retry":100}"#,
            "forbidden",
            "null",
            "",
        ] {
            assert!(!is_final(1008, reason), "{reason}");
        }
        for (code, expected) in [
            (1000, false),
            (1001, false),
            (1013, false),
            (3000, true),
            (3003, true),
        ] {
            assert_eq!(is_final(code, ""), expected, "{code}");
        }
    }
}
