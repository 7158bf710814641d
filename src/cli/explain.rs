//! `crieur explain`: asks a server which connections would get a notification, and why others would not.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::client::Request;

use super::arguments::{self, VALUE, unexpected};
use super::environment::from_environment;
use super::error::CliError;
use super::output::print;
use super::remote::{beside, default_url, failed, refusal, server};

mod report;

pub(super) const HELP: &str = "\
Usage: crieur explain [OPTIONS] NOTIFICATION
       crieur explain [OPTIONS] --id ID

Says which connections would get a notification, which would not, and why. Nothing is published. The
server answers publishers only.

  NOTIFICATION       As for crieur publish; or the whole message of a publisher, in which \"key\" and
                     \"keep\" count too; or - to read it from standard input
  --id ID            A notification that was published, by its id, instead of one that is given

  --user USER        Only the connections of this user: the \"sub\" of a client's token
  --connection ID    Only this connection: its id in the log, like 12.3
  --address IP       Only the connections from this address

  --url URL          The server [ws://127.0.0.1:8000/, or CRIEUR_URL]: ws://HOST:PORT/,
                     http://HOST:PORT/ or unix:PATH; the last part of a path becomes explain
  --token-file FILE  A file whose first line is a publisher's token [none, or CRIEUR_TOKEN_FILE]
  --json             Print the server's answer as it is

Example:
  crieur explain --user 17 '{\"package\":\"shop\",\"page\":\"orders\"}'
";

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked about.
#[derive(Default)]
struct Question {
    /// As JSON.
    notification: Option<String>,
    /// The id of one that was published.
    id: Option<String>,
    /// Whose connections: the member of the request and its value.
    whose: Option<(&'static str, String)>,
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let valued = ["url", "token-file", "id", "user", "connection", "address"];
    let Some(given) = arguments::read(arguments, &valued, &["json"])? else {
        return print(HELP);
    };
    let mut url = default_url()?;
    let mut token_file = from_environment("token-file")?;
    let mut question = Question::default();
    let mut is_raw = false;
    for (name, value) in given {
        match name {
            "url" => url = value,
            "token-file" => token_file = Some(value),
            "json" => is_raw = true,
            "id" => question.id = Some(value),
            VALUE if question.notification.is_some() => return Err(unexpected(&value)),
            VALUE => question.notification = Some(value),
            _ if question.whose.is_some() => {
                return Err(CliError::usage(
                    "give one of --user, --connection and --address, not several",
                ));
            }
            _ => question.whose = Some((name, value)),
        }
    }
    let json = question.request()?;
    let url = beside(&server(&url, token_file.as_deref())?, "explain");
    let request = Request::connect(&url, ANSWER_TIMEOUT);
    let answer = request.and_then(|request| request.post(&json));
    let answer = answer.map_err(|error| failed(&url, error))?;
    if answer.status != 200 {
        return Err(CliError::failure(refusal(&url, &answer)));
    }
    if is_raw {
        return print(&(answer.body + "\n"));
    }
    let json: Value = serde_json::from_str(&answer.body)
        .map_err(|error| failed(&url, format_args!("the answer is not JSON: {error}")))?;
    print(&report::of(&json, question.none()))
}

impl Question {
    /// The request, as JSON.
    fn request(&self) -> Result<String, CliError> {
        let mut request = match (&self.notification, &self.id) {
            (Some(text), None) if text == "-" => about(&read_input()?)?,
            (Some(text), None) => about(text)?,
            (None, Some(id)) => format!(r#"{{"id":{}"#, Value::from(id.as_str())),
            _ => {
                return Err(CliError::usage(
                    "give either a notification or --id: see crieur explain --help",
                ));
            }
        };
        if let Some((name, value)) = &self.whose {
            request += &format!(r#","{name}":{}"#, Value::from(value.as_str()));
        }
        Ok(request + "}")
    }

    /// What to say if there is no such connection.
    fn none(&self) -> Option<String> {
        let (name, value) = self.whose.as_ref()?;
        Some(match *name {
            "connection" => format!("There is no open connection {value}."),
            name => format!("There is no open connection of {name} {value}."),
        })
    }
}

/// All of standard input.
fn read_input() -> Result<String, CliError> {
    let lines: io::Result<Vec<_>> = io::stdin().lock().lines().collect();
    let lines = lines.map_err(|error| CliError::failure(format!("standard input: {error}")))?;
    Ok(lines.join("\n"))
}

/// The beginning of a request about a notification, or about a publisher's message, which has one; byte for byte.
fn about(text: &str) -> Result<String, CliError> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| CliError::failure(format!("the notification is not JSON: {error}")))?;
    let is_message =
        json["notification"].is_object() && json["channel"].is_null() && json["package"].is_null();
    let message = text.trim().strip_suffix('}').filter(|_| is_message);
    Ok(match message {
        Some(message) => message.to_owned(),
        None => format!(r#"{{"notification":{text}"#),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(notification: Option<&str>, id: Option<&str>) -> Result<String, CliError> {
        let question = Question {
            notification: notification.map(str::to_owned),
            id: id.map(str::to_owned),
            whose: Some(("user", "a\"b".to_owned())),
        };
        question.request()
    }

    #[test]
    fn a_request_has_the_notification_byte_for_byte() {
        for (given, expected) in [
            (
                r#" {"channel":1.0} "#,
                r#"{"notification": {"channel":1.0} "#,
            ),
            // What a publisher has sent, pasted.
            (
                r#"{"sender":"server","key":"k","keep":false,"notification":{"page": 2.0}}"#,
                r#"{"sender":"server","key":"k","keep":false,"notification":{"page": 2.0}"#,
            ),
            // A notification that has such a member.
            (
                r#"{"channel":"c","notification":{"a":1}}"#,
                r#"{"notification":{"channel":"c","notification":{"a":1}}"#,
            ),
            // Bad ones are for the server to refuse.
            ("[]", r#"{"notification":[]"#),
        ] {
            let request = request(Some(given), None).expect("it is JSON");
            assert_eq!(request, format!(r#"{expected},"user":"a\"b"}}"#));
        }
        let by_id = request(None, Some("a-1")).expect("valid");
        assert_eq!(by_id, r#"{"id":"a-1","user":"a\"b"}"#);
        assert_eq!(request(Some("{"), None).expect_err("no JSON").status, 1);
        for (notification, id) in [(None, None), (Some("{}"), Some("a-1"))] {
            assert_eq!(request(notification, id).expect_err("which?").status, 2);
        }
    }
}
