//! `crieur subscribe`: prints what arrives, comes back when the connection is lost, and resumes where it was.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, Received, Url};
use crate::ws::close::{CloseCode, CloseFrame};
use fastrand::Rng;

use super::arguments;
use super::environment::from_environment;
use super::error::CliError;
use super::output::{print, write_line};
use super::position::Position;
use super::remote::{ServerError, default_url, error_of, failed, server};

pub(super) const HELP: &str = "\
Usage: crieur subscribe [OPTIONS] SUBSCRIPTION...

Prints each notification that arrives as a line of JSON, until it is stopped. When the connection is
lost, it connects again, with growing pauses, and prints what came meanwhile too. If the server does
not know what that was, a line on standard error says so.

  SUBSCRIPTION       The name of a channel, or a JSON object with package, page and, unless all of
                     the page is wanted, filters

  --url URL          The server [ws://127.0.0.1:8000/, or CRIEUR_URL]: ws://HOST:PORT/, or unix:PATH
                     where the server's service manager listens for clients on a Unix socket
  --token-file FILE  A file whose first line is a client's token [none, or CRIEUR_TOKEN_FILE]
  --since ID         Begin behind the notification with this id, and print ids; with an empty ID,
                     begin now and print ids

Examples:
  crieur subscribe Production
  crieur subscribe '{\"package\":\"shop\",\"page\":\"orders\",\"filters\":{\"values\":{\"state\":\"new\"}}}'
  crieur subscribe --since \"$(jq -r '.id // empty' seen | tail -n 1)\" Production >> seen
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

/// The longest time without a position after which a ping asks for one: what is older than the server's
/// history can't be resumed from.
const PING_AFTER_MAX: Duration = Duration::from_secs(60);

/// The part of the server's heartbeat after which a ping asks for a position. With less than the whole
/// the server has no cause to send a Ping of its own, which would put this one off.
const PING_AFTER_SHARE: f64 = 0.8;

/// The errors that mean the list, which no later try mends.
const LIST_ERRORS: [&str; 3] = [
    "invalid-subscription",
    "forbidden",
    "too-many-subscriptions",
];

/// What the server says; other members don't matter.
#[derive(Deserialize)]
struct Message<'a> {
    /// JSON, as is `notification`.
    #[serde(borrow, rename = "type")]
    kind: &'a RawValue,
    notification: Option<&'a RawValue>,
    id: Option<String>,
    heartbeat: Option<f64>,
    resumed: Option<bool>,
    reason: Option<String>,
    missed: Option<u64>,
}

/// How a connection ended.
enum Ended {
    /// The server closed it, and perhaps said when to come back.
    Closed(CloseFrame),
    Lost(ClientError),
    /// The list was answered with an error that may not come the next time.
    Refused(ServerError),
    /// Nobody reads what is printed.
    Unread,
}

/// What is followed over all connections.
struct Follower {
    /// The list of subscriptions, as JSON.
    subscriptions: String,
    position: Position,
    /// Whether the ids of notifications are printed.
    prints_ids: bool,
    /// Whether the list of this connection is in force.
    is_subscribed: bool,
    /// The time without a position after which this connection is asked for one, and so whether it lives.
    ping_after: Duration,
    /// When that is.
    ping_at: Instant,
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let Some(given) = arguments::read(arguments, &["url", "token-file", "since"], &[])? else {
        return print(HELP);
    };
    let mut url = default_url()?;
    let mut token_file = from_environment("token-file")?;
    let mut since = None;
    let mut subscriptions = Vec::new();
    for (name, value) in given {
        match name {
            "url" => url = value,
            "token-file" => token_file = Some(value),
            "since" => since = Some(value),
            _ => subscriptions.push(subscription(&value)?),
        }
    }
    if subscriptions.is_empty() {
        return Err(CliError::usage(
            "a subscription is missing: see crieur subscribe --help",
        ));
    }
    let url = server(&url, token_file.as_deref())?;
    if url.is_http() {
        let shown = url.to_string();
        let websocket = url.with_websocket();
        return Err(CliError::usage(format!(
            "--url: {shown} is for publishing: subscribe at {websocket}"
        )));
    }
    follow(&url, Follower::new(&subscriptions, since))
}

/// A subscription as JSON: an object or a string as it is given, else the name of a channel.
pub(super) fn subscription(argument: &str) -> Result<String, CliError> {
    if !argument.starts_with(['{', '"']) {
        return Ok(serde_json::Value::from(argument).to_string());
    }
    serde_json::from_str::<&RawValue>(argument)
        .map(|raw| raw.get().to_owned())
        .map_err(|error| CliError::usage(format!("subscription {argument:?} is not JSON: {error}")))
}

/// Subscribes, and subscribes again whenever the connection is lost. The first try must
/// succeed: a mistake in the URL would otherwise look like a server that is away.
fn follow(url: &Url, mut follower: Follower) -> Result<ExitCode, CliError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| CliError::failure(format!("the system has no random numbers: {error}")))?;
    let mut random = Rng::with_seed(u64::from_ne_bytes(seed));
    let mut client = Client::connect(url).map_err(|error| failed(url, error))?;
    let mut tries = 0;
    loop {
        let connected_at = Instant::now();
        let ended = follower.listen(&mut client)?;
        if connected_at.elapsed() >= STABLE_AFTER {
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
            Ended::Refused(error) => {
                say(&format!("not subscribed: {error}"));
                None
            }
            Ended::Unread => return Ok(ExitCode::SUCCESS),
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

impl Follower {
    fn new(subscriptions: &[String], since: Option<String>) -> Self {
        Self {
            subscriptions: format!("[{}]", subscriptions.join(",")),
            prints_ids: since.is_some(),
            position: Position::new(since.unwrap_or_default()),
            is_subscribed: false,
            ping_after: ANSWER_TIMEOUT,
            ping_at: Instant::now(),
        }
    }

    /// The list, since the position. A server that knows no positions ignores that.
    fn list(&self) -> String {
        let since = serde_json::Value::from(self.position.id());
        let subscriptions = &self.subscriptions;
        format!(r#"{{"sender":"client","since":{since},"subscriptions":{subscriptions}}}"#)
    }

    /// Subscribes, and prints what arrives until the connection ends.
    fn listen(&mut self, client: &mut Client) -> Result<Ended, CliError> {
        self.is_subscribed = false;
        self.ping_after = ANSWER_TIMEOUT;
        self.put_ping_off();
        if let Err(error) = client.send_text(&self.list()) {
            return Ok(Ended::Lost(error));
        }
        // Whether an answer is due: to the list, then to each ping.
        let mut is_waiting = true;
        loop {
            let quiet = self.ping_at.saturating_duration_since(Instant::now());
            if !is_waiting && quiet.is_zero() {
                is_waiting = true;
                self.put_ping_off();
                if let Err(error) = client.send_text(r#"{"type":"ping"}"#) {
                    return Ok(Ended::Lost(error));
                }
            }
            let timeout = if is_waiting { ANSWER_TIMEOUT } else { quiet };
            let received = client
                .set_read_timeout(Some(timeout))
                .and_then(|()| client.receive());
            match received {
                Ok(Received::Text(text)) => {
                    is_waiting = false;
                    if let Some(ended) = self.handle_text(&text)? {
                        return Ok(ended);
                    }
                }
                Ok(Received::Close(frame)) => return Ok(Ended::Closed(frame)),
                // Silence: ask once, then believe it.
                Err(ClientError::TimedOut) if !is_waiting => {}
                Err(error) => return Ok(Ended::Lost(error)),
            }
        }
    }

    /// The next ping is as far away as it can be.
    fn put_ping_off(&mut self) {
        self.ping_at = Instant::now() + self.ping_after;
    }

    /// Goes on to a position, which need not be asked for then.
    fn move_to(&mut self, id: Option<String>) {
        if let Some(id) = id {
            self.position.move_to(id);
            self.put_ping_off();
        }
    }

    /// Prints a notification, or learns from what else the server says.
    fn handle_text(&mut self, text: &str) -> Result<Option<Ended>, CliError> {
        if let Some(error) = error_of(text) {
            return self.handle_error(error);
        }
        let Ok(message) = serde_json::from_str::<Message<'_>>(text) else {
            return Ok(print_text(text));
        };
        match (message.kind.get(), message.notification) {
            (r#""subscribed""#, None) => self.handle_subscribed(message),
            (r#""pong""#, None) => self.move_to(message.id),
            (r#""caught-up""#, None) => self.handle_caught_up(message),
            (r#""gap""#, None) => {
                let id = message.id.unwrap_or_else(|| self.position.id().to_owned());
                let gap = self.position.handle_gap(id, message.reason.as_deref());
                say_if_any(gap);
            }
            _ => return Ok(self.handle_delivery(text, message)),
        }
        Ok(None)
    }

    /// Fails on an error that means the list; any other ends nothing that is in force.
    fn handle_error(&self, error: ServerError) -> Result<Option<Ended>, CliError> {
        if LIST_ERRORS.contains(&error.code.as_str()) {
            return Err(CliError::failure(error));
        }
        if !self.is_subscribed {
            // Nothing but the list has been sent, and nothing would ever come.
            return Ok(Some(Ended::Refused(error)));
        }
        say(&error.to_string());
        Ok(None)
    }

    fn handle_subscribed(&mut self, message: Message<'_>) {
        self.is_subscribed = true;
        if let Some(heartbeat) = message.heartbeat {
            self.ping_after = ping_after(heartbeat).unwrap_or(self.ping_after);
        }
        self.put_ping_off();
        say("subscribed");
        let (is_resumed, reason) = (message.resumed == Some(true), message.reason.as_deref());
        let gap = self
            .position
            .handle_subscribed(message.id, is_resumed, reason);
        say_if_any(gap);
    }

    fn handle_caught_up(&mut self, message: Message<'_>) {
        self.move_to(message.id);
        if let Some(missed) = message.missed {
            say(&format!("caught up: {missed} missed"));
        }
    }

    /// Prints a notification, unless it has been already; its position counts in any case.
    fn handle_delivery(&mut self, text: &str, message: Message<'_>) -> Option<Ended> {
        let (Some(id), Some(notification)) = (message.id, message.notification) else {
            return print_text(text);
        };
        if !self.position.is_printed(&id) {
            let ended = if self.prints_ids {
                print_text(text)
            } else {
                print_text(&without_id(message.kind, notification))
            };
            if ended.is_some() {
                return ended;
            }
            self.position.remember(&id);
        }
        self.move_to(Some(id));
        None
    }
}

/// A delivery as a client gets it that asks for no ids, byte for byte.
fn without_id(kind: &RawValue, notification: &RawValue) -> String {
    format!(r#"{{"type":{kind},"notification":{notification}}}"#)
}

/// The time after which to ping, by the heartbeat of the server in seconds, if it is a time.
fn ping_after(heartbeat: f64) -> Option<Duration> {
    let heartbeat = Duration::try_from_secs_f64(heartbeat).ok()?;
    let after = heartbeat.mul_f64(PING_AFTER_SHARE).min(PING_AFTER_MAX);
    Some(after.max(Duration::from_millis(10)))
}

/// Prints a message of the server.
fn print_text(text: &str) -> Option<Ended> {
    let printed = write_line(&mut io::stdout(), &one_line(text));
    printed.is_err().then_some(Ended::Unread)
}

/// JSON on one line: a line break in it is white space between its parts, never in a string.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn say(line: &str) {
    let _ = write_line(&mut io::stderr(), &format!("crieur: {line}"));
}

fn say_if_any(line: Option<String>) {
    if let Some(line) = line {
        say(&line);
    }
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
    fn a_ping_comes_ahead_of_that_of_the_server() {
        assert_eq!(ping_after(25.0), Some(Duration::from_secs(20)));
        assert_eq!(ping_after(0.001), Some(Duration::from_millis(10)));
        for large in [100.0, 86_400.0, 1e19] {
            assert_eq!(ping_after(large), Some(PING_AFTER_MAX), "{large}");
        }
        for none in [-1.0, f64::NAN, 1e300] {
            assert_eq!(ping_after(none), None, "{none}");
        }
    }

    #[test]
    fn without_its_id_a_delivery_is_as_it_was() {
        let text = r#"{"type":"caf\u00e9","id":"a-1","notification":{ "id":"x", "n":1.0 }}"#;
        let message: Message<'_> = serde_json::from_str(text).expect("a delivery");
        let notification = message.notification.expect("it has one");
        assert_eq!(
            without_id(message.kind, notification),
            r#"{"type":"caf\u00e9","notification":{ "id":"x", "n":1.0 }}"#
        );
    }

    #[test]
    fn a_list_shows_the_position() {
        let subscriptions = [
            r#""a""#.to_owned(),
            r#"{"package":"p","page":"q"}"#.to_owned(),
        ];
        let list =
            |since: Option<&str>| Follower::new(&subscriptions, since.map(str::to_owned)).list();
        let rest = r#""subscriptions":["a",{"package":"p","page":"q"}]}"#;
        for (since, shown) in [
            (None, ""),
            (Some(""), ""),
            (Some("a-1"), "a-1"),
            (Some("\""), "\\\""),
        ] {
            assert_eq!(
                list(since),
                format!(r#"{{"sender":"client","since":"{shown}",{rest}"#)
            );
        }
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
