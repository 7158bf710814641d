//! `crieur publish`: a notification on an ephemeral connection, or many on a kept one.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use lexopt::ValueExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, Received, Url};
use crate::ws::close::{CloseCode, CloseFrame};

use super::environment::from_environment;
use super::error::CliError;
use super::output::{print, write_line};
use super::remote::{ServerError, default_url, error_of, failed, server};

const HELP: &str = "\
Usage: crieur publish [--url URL] [--token-file FILE] [--type TYPE]
                      [--key KEY | --no-keep] NOTIFICATION

Sends a notification, prints how many connections it was delivered to as
{\"delivered\":N}, with the notification's \"id\" if the server keeps it, and exits;
1 if it was refused.

  NOTIFICATION    a JSON object with package and page, or channel, or all three;
                  or - to read one a line from standard input and to send them all
                  over one connection, where /publish takes the place of the
                  path of URL
  --url URL       the server [ws://127.0.0.1:8000/, or CRIEUR_URL]
  --token-file FILE
                  the first line is a publisher's token, to be shown to the server
                  [none, or CRIEUR_TOKEN_FILE]
  --type TYPE     the type that subscribers see [notification]
  --key KEY       of 1 to 128 bytes: while the server keeps the notification, another
                  with the same key is not delivered, and \"repeated\":true is
                  printed. Where no answer comes it is sent once more
  --no-keep       for those who are there now: it is not kept for clients that
                  come back

Example:
  crieur publish '{\"channel\":\"Production\",\"message\":{\"text\":\"Bonjour\"}}'
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
    /// There was no connection, or the server refused.
    Final(CliError),
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    use lexopt::Arg::{Long, Short, Value};
    let mut url = default_url()?;
    let mut token_file = from_environment("token-file")?;
    let mut options = Options::default();
    let mut notification = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return print(HELP),
            Long("url") => url = parser.value()?.string()?,
            Long("token-file") => token_file = Some(parser.value()?.string()?),
            Long("type") => options.kind = Some(parser.value()?.string()?),
            Long("key") => options.key = Some(key(parser.value()?.string()?)?),
            Long("no-keep") => options.is_not_kept = true,
            Value(value) if notification.is_none() => notification = Some(value.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let Some(notification) = notification else {
        return Err(CliError::usage(
            "a notification is missing: see crieur publish --help",
        ));
    };
    check(&options, &notification)?;
    let url = server(&url, token_file.as_deref())?;
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
            "--key and --no-keep exclude each other: a repetition is known by what is kept",
        ));
    }
    if options.key.is_some() && notification == "-" {
        return Err(CliError::usage(
            "--key is for one notification: of many with the same key only the first is delivered",
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
    let mut result = publish_message(url, &message);
    if let (Some(_), Err(Failure::Unanswered(error))) = (&options.key, &result) {
        let again = format!("crieur: {url}: {error}; sending it once more with its key");
        let _ = write_line(&mut io::stderr(), &again);
        thread::sleep(RETRY_AFTER);
        result = publish_message(url, &message);
    }
    match result {
        Ok(receipt) => print_line(&receipt),
        Err(Failure::Unanswered(error)) => Err(failed(url, error)),
        Err(Failure::Final(error)) => Err(error),
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
            (Err(_), Some(error)) => return Err(Failure::Final(CliError::failure(error))),
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
        (_, Some(error)) => CliError::failure(error),
        (Some(code), None) => {
            CliError::failure(format!("the server closed with {code} {}", frame.reason))
        }
        (None, None) => CliError::failure("the server closed without saying why"),
    })
}

fn publish_lines(url: &Url, options: &Options) -> Result<ExitCode, CliError> {
    let url = &url.with_target("/publish");
    let mut client = connect(url)?;
    let lines = read_input()?;
    let mut status = ExitCode::SUCCESS;
    loop {
        let line = match lines.recv_timeout(QUIET_INTERVAL) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                answer_pings(&mut client, url)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let line = line.map_err(|error| CliError::failure(format!("standard input: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match message(options, &line) {
            Ok(message) => {
                client
                    .send_text(&message)
                    .map_err(|error| failed(url, error))?;
                next_answer(&mut client, url)?
            }
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
    let _ = client.close();
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
    thread::Builder::new()
        .spawn(read)
        .map_err(|error| CliError::failure(format!("no thread for standard input: {error}")))?;
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
                    let error = error.to_string();
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
