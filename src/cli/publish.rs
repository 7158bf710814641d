//! `crieur publish`: a notification on an ephemeral connection, or many on a kept one.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, Received, Request, Url};
use crate::ws::close::{CloseCode, CloseFrame};

use super::arguments::{self, unexpected};
use super::environment::from_environment;
use super::error::CliError;
use super::output::{print, write_line};
use super::remote::{ServerError, default_url, error_of, failed, refusal, server};

pub(super) const HELP: &str = "\
Usage: crieur publish [OPTIONS] NOTIFICATION

Sends a notification and prints the server's receipt: {\"delivered\":N}, the number of connections
that it went to, with an \"id\" if the server keeps it. If the server refuses it, the status is 1.

  NOTIFICATION       A JSON object with package and page, or channel, or all three. With - each
                     line of standard input is one; by ws:// and unix: all go over one connection

  --url URL          The server [ws://127.0.0.1:8000/, or CRIEUR_URL]:
                       ws://HOST:PORT/    by WebSocket; for lines of standard input, at /publish
                       unix:PATH          the same on a Unix socket of --publish-listen
                       http://HOST:PORT/  by POST /publish, or to another path that is given
  --token-file FILE  A file whose first line is a publisher's token [none, or CRIEUR_TOKEN_FILE]
  --type TYPE        The type that subscribers see [notification]
  --key KEY          1 to 128 bytes. While the server keeps the notification, another one with the
                     same key is not delivered and \"repeated\":true is printed. If no answer comes,
                     the notification is sent once more
  --no-keep          Deliver only to clients that are connected now, not to those that come back

Examples:
  crieur publish '{\"channel\":\"Production\",\"message\":{\"text\":\"Bonjour\"}}'
  crieur publish --url unix:/run/crieur/publish.sock '{\"package\":\"shop\",\"page\":\"orders\"}'
";

/// How long the server may take to answer a notification.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest key that a server takes (protocol 6.2).
const KEY_BYTES_MAX: usize = 128;

/// The pause before a notification with a key is sent once more: a server that is started again needs it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often the server is listened to while there is nothing to publish.
const QUIET_INTERVAL: Duration = Duration::from_millis(100);

/// Lines of standard input that are read before they are needed.
const LINES_AHEAD_MAX: usize = 16;

/// What a server answers on a kept connection.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, rename = "type")]
    kind: &'a str,
    delivered: Option<u64>,
}

/// What stands beside a notification.
#[derive(Default)]
struct Options {
    kind: Option<String>,
    /// By which the server knows a repetition.
    key: Option<String>,
    is_not_kept: bool,
}

/// Why a notification has no result.
enum Failure {
    /// The connection was lost before an answer: the server may have taken the notification.
    Unanswered(ClientError),
    /// The server refused the notification, for this reason.
    Refused(String),
    /// There was no connection, or the server refused to go on.
    Final(CliError),
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let valued = ["url", "token-file", "type", "key"];
    let Some(given) = arguments::read(arguments, &valued, &["no-keep"])? else {
        return print(HELP);
    };
    let mut url = default_url()?;
    let mut token_file = from_environment("token-file")?;
    let mut options = Options::default();
    let mut notification = None;
    for (name, value) in given {
        match name {
            "url" => url = value,
            "token-file" => token_file = Some(value),
            "type" => options.kind = Some(value),
            "key" => options.key = Some(key(value)?),
            "no-keep" => options.is_not_kept = true,
            _ if notification.is_some() => return Err(unexpected(&value)),
            _ => notification = Some(value),
        }
    }
    let Some(notification) = notification else {
        return Err(CliError::usage(
            "a notification is missing: see crieur publish --help",
        ));
    };
    check(&options, &notification)?;
    let url = server(&url, token_file.as_deref())?;
    let url = match url.target() {
        target if url.is_http() && target.ends_with('/') => {
            url.with_target(&format!("{}publish", url.target()))
        }
        _ => url,
    };
    match notification.as_str() {
        "-" => publish_lines(&url, &options),
        notification => publish_one(&url, &options, notification),
    }
}

/// A key as the server takes it.
fn key(text: String) -> Result<String, CliError> {
    match text.len() {
        1..=KEY_BYTES_MAX => Ok(text),
        length => Err(CliError::usage(format!(
            "--key: {length} bytes, but a key has 1 to {KEY_BYTES_MAX}"
        ))),
    }
}

/// Fails on options that don't go together.
fn check(options: &Options, notification: &str) -> Result<(), CliError> {
    if options.key.is_some() && options.is_not_kept {
        return Err(CliError::usage(
            "give --key or --no-keep, not both: the server knows the key of a notification only while it keeps it",
        ));
    }
    if options.key.is_some() && notification == "-" {
        return Err(CliError::usage(
            "--key is for one notification, not for lines of standard input: only the first would be delivered",
        ));
    }
    Ok(())
}

/// The message that publishes `notification`, which goes in byte for byte.
fn message(options: &Options, notification: &str) -> Result<String, CliError> {
    let raw: &RawValue = serde_json::from_str(notification)
        .map_err(|error| CliError::failure(format!("the notification is not JSON: {error}")))?;
    let mut message = r#"{"sender":"server","#.to_owned();
    for (name, text) in [("type", &options.kind), ("key", &options.key)] {
        if let Some(text) = text {
            let value = serde_json::Value::from(text.as_str());
            message.push_str(&format!(r#""{name}":{value},"#));
        }
    }
    if options.is_not_kept {
        message.push_str(r#""keep":false,"#);
    }
    Ok(message + &format!(r#""notification":{raw}}}"#))
}

/// Publishes on an ephemeral connection. With a key it tries a second time where no answer came: if
/// the first was taken, the server knows the second as its repetition.
fn publish_one(url: &Url, options: &Options, notification: &str) -> Result<ExitCode, CliError> {
    let message = message(options, notification)?;
    let publish = match url.is_http() {
        true => post,
        false => publish_message,
    };
    let mut result = publish(url, &message);
    if let (Some(_), Err(Failure::Unanswered(error))) = (&options.key, &result) {
        let again = format!("crieur: {url}: {error}; sending it once more with its key");
        let _ = write_line(&mut io::stderr(), &again);
        thread::sleep(RETRY_AFTER);
        result = publish(url, &message);
    }
    match result {
        Ok(receipt) => print_line(&receipt),
        Err(failure) => Err(failure.into_error(url)),
    }
}

impl Failure {
    fn into_error(self, url: &Url) -> CliError {
        match self {
            Self::Unanswered(error) => failed(url, error),
            Self::Refused(reason) => CliError::failure(reason),
            Self::Final(error) => error,
        }
    }
}

/// Sends `message` as a request of its own, and returns the receipt, which is the content of the answer.
fn post(url: &Url, message: &str) -> Result<String, Failure> {
    let failure = |error| Failure::Final(failed(url, error));
    let request = Request::connect(url, ANSWER_TIMEOUT).map_err(failure)?;
    match request.post(message) {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err(Failure::Refused(refusal(url, &answer))),
        Err(error @ (ClientError::NotHttp | ClientError::Tls)) => Err(failure(error)),
        Err(error) => Err(Failure::Unanswered(error)),
    }
}

/// Sends `message` on a connection of its own, and returns the receipt, which is the reason of the Close.
fn publish_message(url: &Url, message: &str) -> Result<String, Failure> {
    let mut client = connect(url).map_err(Failure::Final)?;
    client.send_text(message).map_err(Failure::Unanswered)?;
    let mut refusal = None;
    loop {
        match (client.receive(), refusal) {
            (Ok(Received::Text(text)), earlier) => refusal = error_of(&text).or(earlier),
            (Ok(Received::Close(frame)), refusal) => {
                return receipt(frame, refusal).map_err(Failure::Final);
            }
            // What was refused has been answered, however the connection ends.
            (Err(_), Some(error)) => {
                return Err(Failure::Final(CliError::failure(error.to_publisher())));
            }
            (Err(error @ ClientError::Protocol(_)), None) => {
                return Err(Failure::Final(failed(url, error)));
            }
            (Err(error), None) => return Err(Failure::Unanswered(error)),
        }
    }
}

/// The receipt in the Close of an ephemeral connection on which the server may have refused something.
fn receipt(frame: CloseFrame, refusal: Option<ServerError>) -> Result<String, CliError> {
    Err(match (frame.code, refusal) {
        (Some(CloseCode::NORMAL), _) => return Ok(frame.reason),
        (_, Some(error)) => CliError::failure(error.to_publisher()),
        (Some(code), None) => {
            CliError::failure(format!("the server closed with {code} {}", frame.reason))
        }
        (None, None) => CliError::failure("the server closed without saying why"),
    })
}

fn publish_lines(url: &Url, options: &Options) -> Result<ExitCode, CliError> {
    // By HTTP, each has a request of its own.
    let kept = (!url.is_http()).then(|| url.with_target("/publish"));
    let url = kept.as_ref().unwrap_or(url);
    let mut client = kept.as_ref().map(connect).transpose()?;
    let lines = read_input()?;
    let mut status = ExitCode::SUCCESS;
    loop {
        let line = match lines.recv_timeout(QUIET_INTERVAL) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(client) = &mut client {
                    answer_pings(client, url)?;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let line = line.map_err(|error| CliError::failure(format!("standard input: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match message(options, &line) {
            Ok(message) => match &mut client {
                Some(client) => {
                    let sent = client.send_text(&message);
                    sent.map_err(|error| failed(url, error))?;
                    next_answer(client, url)?
                }
                None => match post(url, &message) {
                    Ok(receipt) => Ok(receipt),
                    Err(Failure::Refused(reason)) => Err(reason),
                    Err(failure) => return Err(failure.into_error(url)),
                },
            },
            // One bad line is no reason to lose those after it, be it bad here or for the server.
            Err(error) => Err(error.message),
        };
        match answer {
            Ok(result) => print_line(&result).map(drop)?,
            Err(refusal) => {
                status = ExitCode::FAILURE;
                let _ = write_line(&mut io::stderr(), &format!("crieur: {refusal}"));
            }
        }
    }
    if let Some(client) = &mut client {
        let _ = client.close();
    }
    Ok(status)
}

/// The lines of standard input, read by a thread: while none comes, Pings must be answered.
fn read_input() -> Result<Receiver<io::Result<String>>, CliError> {
    let (sender, receiver) = sync_channel(LINES_AHEAD_MAX);
    let read = move || {
        for line in io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().spawn(read).map_err(|error| {
        CliError::failure(format!(
            "cannot start a thread that reads standard input: {error}"
        ))
    })?;
    Ok(receiver)
}

/// Answers what the server has asked while there was nothing to publish.
fn answer_pings(client: &mut Client, url: &Url) -> Result<(), CliError> {
    let received = client
        .set_read_timeout(Some(Duration::from_millis(1)))
        .and_then(|()| client.receive());
    match received {
        Err(ClientError::TimedOut) | Ok(Received::Text(_)) => {}
        Ok(Received::Close(frame)) => {
            let error = format!("the server closed: {}", frame.reason);
            return Err(failed(url, error));
        }
        Err(error) => return Err(failed(url, error)),
    }
    client
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(|error| failed(url, error))
}

/// The answer to one notification on a kept connection: the result, or why it was refused.
fn next_answer(client: &mut Client, url: &Url) -> Result<Result<String, String>, CliError> {
    let mut refusal = None;
    loop {
        match client.receive().map_err(|error| failed(url, error))? {
            Received::Text(text) => {
                if let Some(error) = error_of(&text) {
                    let is_final = error.code == "forbidden";
                    let error = error.to_publisher();
                    if is_final {
                        refusal = Some(error);
                        continue;
                    }
                    return Ok(Err(error));
                }
                if let Ok(Answer {
                    kind: "published",
                    delivered: Some(_),
                }) = serde_json::from_str(&text)
                {
                    return Ok(Ok(without_type(text)));
                }
            }
            Received::Close(frame) => {
                let reason =
                    refusal.unwrap_or_else(|| format!("the server closed: {}", frame.reason));
                return Err(CliError::failure(reason));
            }
        }
    }
}

/// A receipt as it is on an ephemeral connection.
fn without_type(text: String) -> String {
    match text.strip_prefix(r#"{"type":"published","#) {
        Some(rest) => format!("{{{rest}"),
        None => text,
    }
}

fn connect(url: &Url) -> Result<Client, CliError> {
    let client = Client::connect(url).map_err(|error| failed(url, error))?;
    client
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(|error| failed(url, error))?;
    Ok(client)
}

fn print_line(line: &str) -> Result<ExitCode, CliError> {
    print(&format!("{line}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_beside_the_notification() {
        let with = |kind: Option<&str>, key: Option<&str>, is_not_kept| {
            let options = Options {
                kind: kind.map(str::to_owned),
                key: key.map(str::to_owned),
                is_not_kept,
            };
            message(&options, r#" {"a": 1.0} "#).expect("it is JSON")
        };
        assert_eq!(
            with(None, None, false),
            r#"{"sender":"server","notification":{"a": 1.0}}"#
        );
        assert_eq!(
            with(Some("t"), Some(r#"a"b"#), false),
            r#"{"sender":"server","type":"t","key":"a\"b","notification":{"a": 1.0}}"#
        );
        assert_eq!(
            with(None, None, true),
            r#"{"sender":"server","keep":false,"notification":{"a": 1.0}}"#
        );
    }

    #[test]
    fn a_key_has_its_bounds() {
        for (length, is_valid) in [(0, false), (1, true), (128, true), (129, false)] {
            assert_eq!(key("k".repeat(length)).is_ok(), is_valid, "{length}");
        }
        // Bytes count, not characters.
        assert!(key("é".repeat(65)).is_err());
    }

    #[test]
    fn receipts_read_the_same_on_every_connection() {
        for (text, receipt) in [
            (
                r#"{"type":"published","delivered":3,"id":"a-1"}"#,
                r#"{"delivered":3,"id":"a-1"}"#,
            ),
            (r#"{"delivered":3}"#, r#"{"delivered":3}"#),
        ] {
            assert_eq!(without_type(text.to_owned()), receipt);
        }
    }
}
