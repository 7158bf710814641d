//! What the commands share that speak to a server: where it is, what is shown to it, and what its
//! errors say.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::client::{Answer, Url};

use super::environment::from_environment;
use super::error::CliError;
use super::output::Plain;
use super::secret_file::read_secret_file;

const DEFAULT_URL: &str = "ws://127.0.0.1:8000/";

/// A message of the server, as far as it may be an error.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: &'a str,
    error: Option<ServerError>,
}

/// An error that the server answered with (protocol 1.4).
#[derive(Deserialize)]
pub(super) struct ServerError {
    /// A fixed word.
    pub(super) code: String,
    /// What was wrong, for the user.
    detail: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Plain(&self.code), Plain(&self.detail))
    }
}

impl ServerError {
    /// The same, and what a publisher can do.
    pub(super) fn to_publisher(&self) -> String {
        let remedy = match self.code.as_str() {
            "forbidden" => " (--url with the address of --publish-listen or --token-file may help)",
            _ => "",
        };
        format!("{self}{remedy}")
    }
}

/// The server that is meant when no `--url` is given.
pub(super) fn default_url() -> Result<String, CliError> {
    Ok(from_environment("url")?.unwrap_or_else(|| DEFAULT_URL.to_owned()))
}

/// The server at `url`, shown the token of a file, if there is one.
pub(super) fn server(url: &str, token_file: Option<&str>) -> Result<Url, CliError> {
    let url = Url::parse(url).map_err(|error| CliError::usage(format!("--url: {error}")))?;
    let Some(path) = token_file else {
        return Ok(url);
    };
    let failure = |error: &dyn fmt::Display| CliError::failure(format!("--token-file: {error}"));
    let text = read_secret_file(Path::new(path)).map_err(|error| failure(&error))?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(url.with_token(token.to_owned()))
        }
        _ => Err(failure(&format_args!(
            "the first line of {path} is no token: visible ASCII characters without spaces"
        ))),
    }
}

/// Where the server of `url` answers what isn't published: `name` beside where it is published.
pub(super) fn beside(url: &Url, name: &str) -> Url {
    let path = url.target().split('?').next().unwrap_or_default();
    let folder = path.rfind('/').map_or("", |slash| &path[..slash]);
    url.with_target(&format!("{folder}/{name}"))
}

/// The error, if `text` is one.
pub(super) fn error_of(text: &str) -> Option<ServerError> {
    match serde_json::from_str(text) {
        Ok(Message {
            kind: "error",
            error,
        }) => error,
        _ => None,
    }
}

/// Why an answer of the server at `url`, to a publisher, isn't what was hoped for.
pub(super) fn refusal(url: &Url, answer: &Answer) -> String {
    match error_of(&answer.body) {
        Some(error) => error.to_publisher(),
        None => failed(url, answer).message,
    }
}

/// The failure of something that was done with the server at `url`.
pub(super) fn failed(url: &Url, error: impl fmt::Display) -> CliError {
    CliError::failure(format!("{url}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_beside_where_it_is_published() {
        for (url, target) in [
            ("ws://h/", "/explain"),
            ("ws://h/publish?token=a", "/explain"),
            ("http://h/api/publish", "/api/explain"),
            ("http://h/api/", "/api/explain"),
            ("unix:/a", "/explain"),
        ] {
            let url = Url::parse(url).expect("valid");
            assert_eq!(beside(&url, "explain").target(), target);
        }
    }
}
