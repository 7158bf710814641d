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
use crate::ws::close::CloseCode;

use super::environment::from_environment;
use super::error::CliError;
use super::output::{print, write_line};
use super::remote::{default_url, error_of, failed, server};

const HELP: &str = "\
Usage: crieur publish [--url URL] [--token-file FILE] [--type TYPE] NOTIFICATION

Sends a notification, prints how many connections it was delivered to as
{\"delivered\":N}, and exits; 1 if it was refused.

  NOTIFICATION    a JSON object with package and page, or channel, or all three;
                  or - to read one a line from standard input and to send them all
                  over one connection, where /publish takes the place of the
                  path of URL
  --url URL       the server [ws://127.0.0.1:8000/, or CRIEUR_URL]
  --token-file FILE
                  the first line is a publisher's token, to be shown to the server
                  [none, or CRIEUR_TOKEN_FILE]
  --type TYPE     the type that subscribers see [notification]

Example:
  crieur publish '{\"channel\":\"Production\",\"message\":{\"text\":\"Bonjour\"}}'
";

/// How long the server may take to answer a notification.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

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
    dropped: Option<u64>,
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    use lexopt::Arg::{Long, Short, Value};
    let mut url = default_url()?;
    let mut token_file = from_environment("token-file")?;
    let mut kind = None;
    let mut notification = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return print(HELP),
            Long("url") => url = parser.value()?.string()?,
            Long("token-file") => token_file = Some(parser.value()?.string()?),
            Long("type") => kind = Some(parser.value()?.string()?),
            Value(value) if notification.is_none() => notification = Some(value.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let url = server(&url, token_file.as_deref())?;
    match notification.as_deref() {
        None => Err(CliError::usage(
            "a notification is missing: see crieur publish --help",
        )),
        Some("-") => publish_lines(&url, kind.as_deref()),
        Some(notification) => publish_one(&url, kind.as_deref(), notification),
    }
}

/// The message that publishes `notification`, which goes in byte for byte.
fn message(kind: Option<&str>, notification: &str) -> Result<String, CliError> {
    let raw: &RawValue = serde_json::from_str(notification)
        .map_err(|error| CliError::failure(format!("the notification is not JSON: {error}")))?;
    let kind = match kind {
        None => String::new(),
        Some(kind) => format!(r#""type":{},"#, serde_json::Value::from(kind)),
    };
    Ok(format!(
        r#"{{"sender":"server",{kind}"notification":{raw}}}"#
    ))
}

fn publish_one(url: &Url, kind: Option<&str>, notification: &str) -> Result<ExitCode, CliError> {
    let message = message(kind, notification)?;
    let mut client = connect(url)?;
    client
        .send_text(&message)
        .map_err(|error| failed(url, error))?;
    let mut refusal = None;
    loop {
        match client.receive().map_err(|error| failed(url, error))? {
            Received::Text(text) => refusal = error_of(&text).or(refusal),
            Received::Close(frame) => {
                return match (frame.code, refusal) {
                    (Some(CloseCode::NORMAL), _) => print_line(&frame.reason),
                    (_, Some(error)) => Err(CliError::failure(error)),
                    (Some(code), None) => Err(CliError::failure(format!(
                        "the server closed with {code} {}",
                        frame.reason
                    ))),
                    (None, None) => Err(CliError::failure("the server closed without saying why")),
                };
            }
        }
    }
}

fn publish_lines(url: &Url, kind: Option<&str>) -> Result<ExitCode, CliError> {
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
        let answer = match message(kind, &line) {
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
                    if error.starts_with("forbidden") {
                        refusal = Some(error);
                        continue;
                    }
                    return Ok(Err(error));
                }
                if let Ok(Answer {
                    kind: "published",
                    delivered: Some(delivered),
                    dropped,
                    ..
                }) = serde_json::from_str(&text)
                {
                    let dropped =
                        dropped.map_or(String::new(), |dropped| format!(r#","dropped":{dropped}"#));
                    return Ok(Ok(format!(r#"{{"delivered":{delivered}{dropped}}}"#)));
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
